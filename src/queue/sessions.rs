//! Sessions that the directory has yet to hear of.
//!
//! Whoever signs in or out tries to have it recorded at once; what could not be recorded, or is not yet in a
//! second region, stays owed, and the loop goes on with it. There is one list in a region: its processes may
//! all work on it, and undo nothing of each other's. While there is no primary the other regions are told, and owe
//! it too: a region that is lost loses nothing that another was told.

use crate::{
    loops::{Loop, Schedule, Tick},
    storage::{
        CommitError, Global, StorageError, WriteTx,
        global::{
            credentials::{self, Rehash},
            sessions::{self, Known},
        },
        redis::{
            Redis,
            sessions::{Debt, Owed, end, owed, owed_count, settle},
        },
    },
    telemetry::Metrics,
    topology::{
        PrimaryAt, Role, Topology,
        ask::{Answer, OfPeople, Question, Recorded},
        probe::{Asker, ProbeError},
    },
    vocab::{Epoch, Op, Region, SessionId, Standing, TokenHash, causes},
};
use futures_util::future::join_all;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Sessions that are sent in one message, and recorded in one transaction.
const TOGETHER_MAX: u32 = 200;
/// Pages of the list that a pass tells to the others.
const TOLD_PAGES_MAX: u32 = 20;
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
    /// And would refuse it again.
    #[error("the primary refuses to record it: {0}")]
    Refused(String),
    #[error("the database did not record it")]
    Storage(#[from] StorageError),
}

impl RecordError {
    /// How another region is told.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let reason = causes(self);
        match self {
            Self::NoPrimary => Answer::Elsewhere,
            Self::Storage(error) if is_refusal(error) => Answer::Refused { reason },
            _ => Answer::Failed { reason },
        }
    }

    /// Whether it would be refused again.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Storage(error) => is_refusal(error),
            Self::NoPrimary | Self::NoAnswer(_) | Self::Failed(_) => false,
        }
    }

    /// Whether there is nobody to record anything.
    const fn is_away(&self) -> bool {
        matches!(self, Self::NoPrimary | Self::NoAnswer(_))
    }
}

/// Whether the database would say the same next time.
const fn is_refusal(error: &StorageError) -> bool {
    matches!(
        error,
        StorageError::Other(_) | StorageError::Conflict(_) | StorageError::InvalidData(_)
    )
}

/// Has sessions recorded, at whichever region is the primary. Cheap to clone.
#[derive(Clone)]
pub struct Registrar {
    global: Global,
    topology: Topology,
    peers: Arc<BTreeMap<Region, Asker>>,
    /// Sessions that a user may have.
    each_max: u32,
}

impl Registrar {
    #[must_use]
    pub fn new(
        global: Global,
        topology: Topology,
        peers: Arc<BTreeMap<Region, Asker>>,
        each_max: u32,
    ) -> Self {
        Self { global, topology, peers, each_max }
    }

    /// Has these recorded. Cancelled or failed, they may have been recorded all the same; to record them
    /// again is harmless.
    ///
    /// # Errors
    /// See [`RecordError`]; within the operation's deadline.
    pub async fn record(&self, known: &[Known], op: &Op) -> Result<Recorded, RecordError> {
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
    ) -> Result<Recorded, RecordError> {
        let work =
            async |tx: &mut WriteTx| sessions::apply(tx, known, self.each_max, op.now()).await;
        self.write(epoch, op, work).await
    }

    /// Has a newer hash of the same password put in the place of the old one, at whichever region is the
    /// primary.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn rehash(&self, change: Rehash, op: &Op) -> Result<(), RecordError> {
        match self.topology.primary() {
            PrimaryAt::Here(epoch) => self.rehash_here(epoch, &change, op).await.map(|_| ()),
            PrimaryAt::Peer(region, epoch) => {
                self.ask(&region, OfPeople::Rehash { epoch, change }, op).await.map(|_| ())
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
        change: &Rehash,
        op: &Op,
    ) -> Result<Recorded, RecordError> {
        let work = async |tx: &mut WriteTx| {
            credentials::rehash(tx, change).await?;
            Ok(Vec::new())
        };
        self.write(epoch, op, work).await
    }

    /// Tells every other region that can be reached what no primary has recorded, so that no loss of one region
    /// loses it. Returns how many have noted it: they owe it too.
    pub async fn tell(&self, known: &[Known], op: &Op) -> usize {
        let patience = PATIENCE.min(op.remaining());
        let reached = self.peers.iter().filter(|(region, _)| self.topology.reaches(region));
        let told = reached.map(|(region, asker)| async move {
            let question = Question::People(OfPeople::Owed { known: known.to_vec() });
            match asker.ask(question, patience, op).await {
                Ok(Answer::Noted) => true,
                Ok(answer) => {
                    tracing::debug!(%region, ?answer, "a region has not noted what is owed");
                    false
                }
                Err(error) => {
                    tracing::debug!(%region, error = %error, "a region was told what is owed");
                    false
                }
            }
        });
        join_all(told).await.into_iter().filter(|noted| *noted).count()
    }

    async fn ask(
        &self,
        region: &Region,
        question: OfPeople,
        op: &Op,
    ) -> Result<Recorded, RecordError> {
        let asker = self.peers.get(region).ok_or(RecordError::NoPrimary)?;
        let patience = PATIENCE.min(op.remaining());
        let answer = asker.ask(Question::People(question), patience, op).await;
        match answer.map_err(RecordError::NoAnswer)? {
            Answer::Recorded(recorded) => Ok(recorded),
            Answer::Elsewhere => Err(RecordError::NoPrimary),
            Answer::Refused { reason } => Err(RecordError::Refused(reason)),
            Answer::Failed { reason } => Err(RecordError::Failed(reason)),
            _ => Err(RecordError::Failed("it answered something else".into())),
        }
    }

    async fn write(
        &self,
        epoch: Epoch,
        op: &Op,
        work: impl AsyncFnOnce(&mut WriteTx) -> Result<Vec<SessionId>, StorageError>,
    ) -> Result<Recorded, RecordError> {
        if self.topology.primary() != PrimaryAt::Here(epoch) {
            return Err(RecordError::NoPrimary);
        }
        let mut tx = WriteTx::open(&self.global, epoch, op).await?;
        let lost = work(&mut tx).await?;
        let at = tx.commit().await.map_err(|error| match error {
            CommitError::RolledBack(cause) | CommitError::Unknown(cause) => cause,
        })?;
        // A commit that ends past the lease is not told of: another may have begun to reign.
        let now = op.clock.monotonic();
        if self.topology.lease_until(epoch).is_none_or(|until| until <= now) {
            return Err(RecordError::NoPrimary);
        }
        self.topology.note_position(at);
        Ok(Recorded { at, lost })
    }
}

/// Notes what became of a debt: recorded, and to be kept in mind until a second region has it; or over,
/// because its user is no more.
///
/// # Errors
/// When Redis does not answer.
pub async fn note(
    redis: &Redis,
    debt: &Debt,
    recorded: &Recorded,
    op: &Op,
) -> Result<(), StorageError> {
    let known = &debt.owed.known;
    if recorded.lost.contains(&debt.id()) {
        let lasts = (known.session.expires_at - op.now()).to_std().unwrap_or_default();
        end(redis, &[(known.token, lasts)], op).await?;
        return settle(redis, debt, None, op).await;
    }
    settle(redis, debt, Some(&Owed { at: Some(recorded.at), ..debt.owed.clone() }), op).await
}

/// Told of ends that the directory has not heard of.
pub trait Heard: Send + Sync {
    fn ended(&self, token: &TokenHash, op: &Op);
}

/// Goes through what the region owes.
pub struct RegistrarLoop {
    registrar: Registrar,
    redis: Redis,
    heard: Arc<dyn Heard>,
    metrics: Arc<Metrics>,
    /// Where in the list the next pass begins; 0 is its beginning.
    cursor: u64,
}

impl RegistrarLoop {
    #[must_use]
    pub fn new(
        registrar: Registrar,
        redis: Redis,
        heard: Arc<dyn Heard>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { registrar, redis, heard, metrics, cursor: 0 }
    }

    #[must_use]
    pub fn schedule() -> Schedule {
        Schedule { interval: Duration::from_secs(1), pass_max: Duration::from_secs(30) }
    }

    async fn pass(&mut self, op: &Op) -> Result<u64, String> {
        let away = |error: StorageError| error.to_string();
        let (mut done, mut pages) = (0, 0);
        let mut failure: Option<RecordError> = None;
        loop {
            let from = self.cursor;
            let (next, debts) = owed(&self.redis, from, TOGETHER_MAX, op).await.map_err(away)?;
            let (over, debts): (Vec<Debt>, Vec<Debt>) =
                debts.into_iter().partition(|debt| debt.owed.known.session.expires_at <= op.now());
            for debt in over {
                settle(&self.redis, &debt, None, op).await.map_err(away)?;
            }
            let (sent, unsent): (Vec<Debt>, Vec<Debt>) =
                debts.into_iter().partition(|debt| debt.owed.at.is_some());
            let (finished, waiting) = self.finish(sent, op).await.map_err(away)?;
            done += finished;
            // What died with the primary on its way to a second region is nobody's but ours.
            let headless = matches!(
                self.registrar.topology.primary(),
                PrimaryAt::Fenced(_) | PrimaryAt::Unknown
            );
            let mut untold = if headless { waiting } else { Vec::new() };
            for some in unsent.chunks(TOGETHER_MAX as usize) {
                // Without a primary the rest of the list fares no better.
                if failure.as_ref().is_some_and(RecordError::is_away) {
                    untold.extend_from_slice(some);
                    continue;
                }
                match self.send(some, op).await {
                    Ok(count) => done += count,
                    Err(error) => {
                        if error.is_away() {
                            untold.extend_from_slice(some);
                        }
                        failure = Some(error);
                    }
                }
            }
            self.tell(&untold, op).await;
            (self.cursor, pages) = (next, pages + 1);
            // The next pass goes on where this one ends.
            let enough = failure.as_ref().is_some_and(|error| {
                !error.is_refusal() && (!error.is_away() || pages >= TOLD_PAGES_MAX)
            });
            if next == 0 || enough || op.remaining().is_zero() {
                break;
            }
        }
        let left = owed_count(&self.redis, op).await.map_err(away)?;
        self.metrics.people.sessions_owed.set(i64::try_from(left).unwrap_or(i64::MAX));
        failure.map_or(Ok(done), |failure| Err(causes(&failure)))
    }

    /// Tells the other regions what is not recorded, again and again: one that could not be reached can be now,
    /// and one whose Redis was lost has forgotten. This process remembers ends, as its own Redis may be next.
    /// Of a session in use nothing is told: it is known already.
    async fn tell(&self, debts: &[Debt], op: &Op) {
        let known = debts.iter().map(|debt| &debt.owed.known).filter(|known| !known.is_use());
        let known: Vec<Known> = known.cloned().collect();
        for ended in known.iter().filter(|known| known.ended_at.is_some()) {
            self.heard.ended(&ended.token, op);
        }
        for some in known.chunks(TOGETHER_MAX as usize) {
            self.registrar.tell(some, op).await;
        }
    }

    /// Has some recorded, and notes where.
    async fn send(&self, debts: &[Debt], op: &Op) -> Result<u64, RecordError> {
        let known: Vec<Known> = debts.iter().map(|debt| debt.owed.known.clone()).collect();
        match self.registrar.record(&known, op).await {
            Ok(recorded) => {
                for debt in debts {
                    note(&self.redis, debt, &recorded, op).await?;
                }
                Ok(debts.len() as u64)
            }
            // One that the database refuses must not keep the others from it.
            Err(error) if error.is_refusal() && debts.len() > 1 => {
                let (some, others) = debts.split_at(debts.len() / 2);
                let some = Box::pin(self.send(some, op)).await;
                let others = Box::pin(self.send(others, op)).await;
                Ok(some? + others?)
            }
            Err(error) => Err(error),
        }
    }

    /// Lets go of what is in a second region; what a failover has lost is to be sent again. Returns how many it
    /// has let go, and those that it waits for.
    async fn finish(&self, debts: Vec<Debt>, op: &Op) -> Result<(u64, Vec<Debt>), StorageError> {
        let topology = &self.registrar.topology;
        let (mut done, mut waiting) = (0, Vec::new());
        for debt in debts {
            let Some(at) = debt.owed.at else { continue };
            let standing = topology.look(|snapshot| {
                let own = snapshot.own.as_ref()?;
                Some((own.standing(at), own.role, own.epoch()))
            });
            let left = match standing {
                Some((Standing::Lost { .. }, ..)) => Some(Owed { at: None, ..debt.owed.clone() }),
                // The regions that count have changed since, and tell of no position of before.
                Some((Standing::Reached, Role::Primary, epoch)) if epoch > at.epoch => {
                    Some(Owed { at: None, ..debt.owed.clone() })
                }
                // The primary's own database is the first that has it.
                Some((Standing::Reached, Role::Primary, _)) => {
                    if !topology.wait_elsewhere(at, topology.now()).await {
                        waiting.push(debt);
                        continue;
                    }
                    None
                }
                Some((Standing::Reached, ..)) => None,
                Some((Standing::Behind | Standing::EpochUnknown, ..)) | None => {
                    waiting.push(debt);
                    continue;
                }
            };
            done += u64::from(left.is_none());
            settle(&self.redis, &debt, left.as_ref(), op).await?;
        }
        Ok((done, waiting))
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

#[cfg(test)]
mod tests;
