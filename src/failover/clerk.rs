//! A region's part in the list of lost writes: an old primary reads from its journal, the new one
//! compares, keeps, and carries out again.

use crate::{
    config::Config,
    storage::{
        CommitError, Global, StorageError, WriteTx,
        control::ControlError,
        global::lost::{self, Due},
    },
    topology::{
        PrimaryAt, Topology,
        ledger::{
            JournalMark, JournalRecord, LedgerOrder as Order, LedgerOutcome as Outcome, Replayed,
            RequestDigest,
        },
    },
    vocab::{Epoch, IdempotencyKey, Op, TenantId},
};
use chrono::TimeDelta;
use futures_util::future::BoxFuture;
use std::{sync::Arc, time::Duration};

/// Lost writes that are read at once; each can have a document of 1 MiB.
const DUE_AT_ONCE: usize = 16;

/// A lost write is not begun with less left than this: the answer must still be given.
const TIME_FOR_ONE: Duration = Duration::from_secs(3);

/// Who carries out a lost write again. The rules of writes are not this room's.
pub trait Replays: Send + Sync + 'static {
    /// In this epoch, which is this region's. Nothing has become of it when it fails.
    fn replay<'a>(
        &'a self,
        epoch: Epoch,
        due: &'a Due,
        op: &'a Op,
    ) -> BoxFuture<'a, Result<Replayed, StorageError>>;
}

pub struct Clerk {
    global: Global,
    topology: Topology,
    replays: Arc<dyn Replays>,
    /// How long the end of an epoch's journal is kept.
    kept: TimeDelta,
}

impl Clerk {
    #[must_use]
    pub fn new(
        config: &Config,
        global: Global,
        topology: Topology,
        replays: Arc<dyn Replays>,
    ) -> Self {
        let kept = TimeDelta::days(i64::from(config.journal.lost_days));
        Self { global, topology, replays, kept }
    }

    /// # Errors
    /// When the database fails, or the order is for another region than this one.
    pub async fn carry_out(&self, order: Order, op: &Op) -> Result<Outcome, ControlError> {
        match order {
            Order::Journal { epoch, after, limit } => {
                let records = lost::page(&self.global, epoch, after.as_ref(), limit).await?;
                Ok(Outcome::Journal { records })
            }
            Order::Recorded { writes } => {
                Ok(Outcome::Journal { records: lost::recorded(&self.global, &writes).await? })
            }
            Order::Missing { epoch, writes } => self.compare(epoch, &writes, op).await,
            Order::Note { lost } => self.note(&lost, op).await,
            Order::Replay { epoch, after, limit } => self.replay(epoch, after, limit, op).await,
        }
    }

    fn reign(&self) -> Result<Epoch, ControlError> {
        match self.topology.primary() {
            PrimaryAt::Here(epoch) => Ok(epoch),
            _ => Err(ControlError::Refused("this region is not the primary now".into())),
        }
    }

    async fn compare(
        &self,
        epoch: Epoch,
        writes: &[(TenantId, IdempotencyKey, RequestDigest)],
        op: &Op,
    ) -> Result<Outcome, ControlError> {
        self.reign()?;
        // Once the end of its journal is forgotten here, all that it wrote would seem lost.
        let Some(ended_at) = lost::ended_at(&self.global, epoch).await? else {
            let why = format!("epoch {epoch} has not ended, as far as is known here");
            return Err(ControlError::Refused(why));
        };
        if ended_at < op.now() - self.kept {
            let why = format!(
                "epoch {epoch} ended at {ended_at}, more than journal.lost_days ago: what it wrote \
                 is forgotten here, so nothing can be told to be lost"
            );
            return Err(ControlError::Refused(why));
        }
        let standings = lost::missing(&self.global, epoch, writes).await?;
        Ok(Outcome::Missing { standings })
    }

    async fn note(&self, lost: &[JournalRecord], op: &Op) -> Result<Outcome, ControlError> {
        let mut tx = WriteTx::open(&self.global, self.reign()?, op).await?;
        let became = lost::note(&mut tx, lost).await?;
        // When it is not known to be committed, it is asked again, and noted once all the same.
        tx.commit().await.map_err(|error| match error {
            CommitError::RolledBack(cause) | CommitError::Unknown(cause) => cause,
        })?;
        Ok(Outcome::Noted { became })
    }

    async fn replay(
        &self,
        epoch: Epoch,
        after: Option<JournalMark>,
        limit: usize,
        op: &Op,
    ) -> Result<Outcome, ControlError> {
        let mut writes = Vec::new();
        let mut mark = after;
        loop {
            let some = DUE_AT_ONCE.min(limit - writes.len());
            let due = lost::due(&self.global, epoch, mark.as_ref(), some).await?;
            for one in &due {
                if !writes.is_empty() && op.remaining() < TIME_FOR_ONE {
                    return Ok(Outcome::Replayed { writes, next: mark });
                }
                match self.replays.replay(self.reign()?, one, op).await {
                    Ok(replayed) => writes.push(replayed),
                    // Whoever goes on from here meets it again, as the first.
                    Err(_) if !writes.is_empty() => {
                        return Ok(Outcome::Replayed { writes, next: mark });
                    }
                    Err(error) => return Err(error.into()),
                }
                mark = Some(one.record.mark());
            }
            if due.len() < DUE_AT_ONCE && writes.len() < limit || limit == 0 {
                return Ok(Outcome::Replayed { writes, next: None });
            }
            if writes.len() == limit {
                return Ok(Outcome::Replayed { writes, next: mark });
            }
        }
    }
}
