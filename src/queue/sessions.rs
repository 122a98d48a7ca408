//! Sessions that the directory has yet to hear of.
//!
//! Whoever signs in or out tries to have it recorded at once; what could not be recorded, or is not yet in a
//! second region, stays owed, and the loop goes on with it. There is one list in a region: its processes may
//! all work on it, and undo nothing of each other's.

use crate::{
    loops::{Loop, Schedule, Tick},
    storage::{
        CommitError, Global, StorageError, WriteTx,
        global::{
            credentials,
            sessions::{self, Known},
        },
        redis::{
            Redis,
            sessions::{Debt, Owed, owed, owed_count, settle},
        },
    },
    telemetry::Metrics,
    topology::{
        PrimaryAt, Role, Topology,
        ask::{Answer, OfPeople, Question},
        probe::{Asker, ProbeError},
    },
    vocab::{Bookmark, Epoch, Op, Region, Standing, UserId},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Sessions that are sent in one message, and recorded in one transaction.
const TOGETHER_MAX: u32 = 200;
/// Longest wait for another region's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing was recorded, or nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("no region takes writes now")]
    NoPrimary,
    #[error("the primary did not answer")]
    NoAnswer(#[source] ProbeError),
    #[error("the primary did not record it: {0}")]
    Failed(String),
    #[error("the database did not record it")]
    Storage(#[from] StorageError),
}

/// Has sessions recorded, at whichever region is the primary. Cheap to clone.
#[derive(Clone)]
pub struct Registrar {
    global: Global,
    topology: Topology,
    peers: Arc<BTreeMap<Region, Asker>>,
}

impl Registrar {
    #[must_use]
    pub fn new(global: Global, topology: Topology, peers: Arc<BTreeMap<Region, Asker>>) -> Self {
        Self { global, topology, peers }
    }

    /// Has these recorded, and tells the position from which they can be read. Cancelled or failed, they may
    /// have been recorded all the same; to record them again is harmless.
    ///
    /// # Errors
    /// See [`RecordError`]; within the operation's deadline.
    pub async fn record(&self, known: &[Known], op: &Op) -> Result<Bookmark, RecordError> {
        match self.topology.primary() {
            PrimaryAt::Here(epoch) => self.record_here(epoch, known, op).await,
            PrimaryAt::Peer(region, epoch) => {
                let known = known.to_vec();
                self.ask(&region, OfPeople::Record { epoch, known }, op).await
            }
            PrimaryAt::Fenced(_) | PrimaryAt::Unknown => Err(RecordError::NoPrimary),
        }
    }

    /// Records them in this region's database, if it is the primary of that epoch.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn record_here(
        &self,
        epoch: Epoch,
        known: &[Known],
        op: &Op,
    ) -> Result<Bookmark, RecordError> {
        self.write(epoch, op, async |tx| sessions::apply(tx, known, op.now()).await).await
    }
}

impl Registrar {
    /// Has a newer hash of the same password put in the place of `old`, at whichever region is the primary.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn rehash(
        &self,
        user: UserId,
        old: &str,
        new: &str,
        op: &Op,
    ) -> Result<(), RecordError> {
        match self.topology.primary() {
            PrimaryAt::Here(epoch) => self.rehash_here(epoch, user, old, new, op).await.map(|_| ()),
            PrimaryAt::Peer(region, epoch) => {
                let (old, new) = (old.to_owned(), new.to_owned());
                self.ask(&region, OfPeople::Rehash { epoch, user, old, new }, op).await.map(|_| ())
            }
            PrimaryAt::Fenced(_) | PrimaryAt::Unknown => Err(RecordError::NoPrimary),
        }
    }

    /// Does so in this region's database, if it is the primary of that epoch.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn rehash_here(
        &self,
        epoch: Epoch,
        user: UserId,
        old: &str,
        new: &str,
        op: &Op,
    ) -> Result<Bookmark, RecordError> {
        self.write(epoch, op, async |tx| credentials::rehash(tx, user, old, new).await).await
    }

    async fn ask(
        &self,
        region: &Region,
        question: OfPeople,
        op: &Op,
    ) -> Result<Bookmark, RecordError> {
        let asker = self.peers.get(region).ok_or(RecordError::NoPrimary)?;
        let patience = PATIENCE.min(op.remaining());
        let answer = asker.ask(Question::People(question), patience, op).await;
        match answer.map_err(RecordError::NoAnswer)? {
            Answer::Recorded { at } => Ok(at),
            Answer::Failed { reason } => Err(RecordError::Failed(reason)),
            _ => Err(RecordError::Failed("it answered something else".into())),
        }
    }

    async fn write(
        &self,
        epoch: Epoch,
        op: &Op,
        work: impl AsyncFnOnce(&mut WriteTx) -> Result<(), StorageError>,
    ) -> Result<Bookmark, RecordError> {
        if self.topology.primary() != PrimaryAt::Here(epoch) {
            return Err(RecordError::NoPrimary);
        }
        let mut tx = WriteTx::open(&self.global, epoch, op).await?;
        work(&mut tx).await?;
        let at = tx.commit().await.map_err(|error| match error {
            CommitError::RolledBack(cause) | CommitError::Unknown(cause) => cause,
        })?;
        // A commit that ends past the lease is not told of: another may have begun to reign.
        let now = op.clock.monotonic();
        if self.topology.lease_until(epoch).is_none_or(|until| until <= now) {
            return Err(RecordError::NoPrimary);
        }
        self.topology.note_position(at);
        Ok(at)
    }
}

/// Goes through what the region owes.
pub struct RegistrarLoop {
    pub registrar: Registrar,
    pub redis: Redis,
    pub metrics: Arc<Metrics>,
}

impl RegistrarLoop {
    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule { interval: Duration::from_secs(1), pass_max: Duration::from_secs(30) }
    }

    async fn pass(&self, op: &Op) -> Result<u64, String> {
        let away = |error: StorageError| error.to_string();
        let (mut cursor, mut done) = (0, 0);
        let mut failure = None;
        loop {
            let (next, debts) = owed(&self.redis, cursor, TOGETHER_MAX, op).await.map_err(away)?;
            let (sent, unsent): (Vec<Debt>, Vec<Debt>) =
                debts.into_iter().partition(|debt| debt.owed.at.is_some());
            done += self.finish(sent, op).await.map_err(away)?;
            for some in unsent.chunks(TOGETHER_MAX as usize) {
                match self.send(some, op).await {
                    Ok(count) => done += count,
                    Err(error) => failure = Some(error),
                }
            }
            cursor = next;
            // Without a primary the rest of the list fares no better.
            if cursor == 0 || failure.is_some() || op.remaining().is_zero() {
                break;
            }
        }
        let left = owed_count(&self.redis, op).await.map_err(away)?;
        self.metrics.people.sessions_owed.set(i64::try_from(left).unwrap_or(i64::MAX));
        failure.map_or(Ok(done), Err)
    }

    /// Has some recorded, and notes where.
    async fn send(&self, debts: &[Debt], op: &Op) -> Result<u64, String> {
        let known: Vec<Known> = debts.iter().map(|debt| debt.owed.known.clone()).collect();
        match self.registrar.record(&known, op).await {
            Ok(at) => {
                for debt in debts {
                    let sent = Owed { at: Some(at), ..debt.owed.clone() };
                    let noted = settle(&self.redis, debt, Some(&sent), op).await;
                    noted.map_err(|error| error.to_string())?;
                }
                Ok(debts.len() as u64)
            }
            // One that the database refuses must not keep the others from it.
            Err(RecordError::Storage(_) | RecordError::Failed(_)) if debts.len() > 1 => {
                let (some, others) = debts.split_at(debts.len() / 2);
                let some = Box::pin(self.send(some, op)).await;
                let others = Box::pin(self.send(others, op)).await;
                Ok(some? + others?)
            }
            Err(error) => Err(crate::vocab::causes(&error)),
        }
    }

    /// Lets go of what is in a second region; what a failover has lost is to be sent again.
    async fn finish(&self, debts: Vec<Debt>, op: &Op) -> Result<u64, StorageError> {
        let topology = &self.registrar.topology;
        let mut done = 0;
        for debt in debts {
            let Some(at) = debt.owed.at else { continue };
            let standing = topology.look(|snapshot| {
                let own = snapshot.own.as_ref()?;
                Some((own.standing(at), own.role, own.epoch()))
            });
            match standing {
                Some((Standing::Lost { .. }, ..)) => {
                    let unsent = Owed { at: None, ..debt.owed.clone() };
                    settle(&self.redis, &debt, Some(&unsent), op).await?;
                }
                // The regions that count have changed since, and tell of no position of before.
                Some((Standing::Reached, Role::Primary, epoch)) if epoch > at.epoch => {
                    let unsent = Owed { at: None, ..debt.owed.clone() };
                    settle(&self.redis, &debt, Some(&unsent), op).await?;
                }
                // The primary's own database is the first that has it.
                Some((Standing::Reached, Role::Primary, _)) => {
                    if topology.wait_elsewhere(at, topology.now()).await {
                        settle(&self.redis, &debt, None, op).await?;
                        done += 1;
                    }
                }
                Some((Standing::Reached, ..)) => {
                    settle(&self.redis, &debt, None, op).await?;
                    done += 1;
                }
                Some((Standing::Behind | Standing::EpochUnknown, ..)) | None => {}
            }
        }
        Ok(done)
    }
}

impl Loop for RegistrarLoop {
    const NAME: &'static str = "queue.sessions";

    async fn tick(&mut self, op: &Op) -> Tick {
        match self.pass(op).await {
            Ok(0) => Tick::Idle,
            Ok(done) => Tick::Worked(done),
            Err(reason) => Tick::Waiting(reason.into()),
        }
    }
}
