//! Retention: what is forgotten, and when.

use crate::{
    config::JournalConfig,
    loops::{Loop, Schedule, Tick},
    storage::{
        CommitError, Global, StorageError, WriteTx,
        global::{items::purge_tombstones, journal, lost, sessions},
    },
    vocab::{Epoch, Op},
};
use chrono::Duration as Days;
use std::{sync::Arc, time::Duration};

/// Rows forgotten in one statement; small, so that no write waits long behind it.
const ROWS_MAX: i64 = 1_000;

/// How long a session's row stays after it has expired. An address is familiar for as long.
const SESSIONS_KEPT: Days = Days::days(30);

/// The epoch in which this region is the primary now; `None` when it is not.
pub type PrimaryIn = Arc<dyn Fn() -> Option<Epoch> + Send + Sync>;

/// Forgets old journal records, tombstones, lost writes and sessions. Runs everywhere, works only where the primary is: on
/// one that came back after a failover the journal is the list of what was lost.
pub struct UpkeepLoop {
    pub global: Global,
    pub config: JournalConfig,
    pub primary: PrimaryIn,
}

impl UpkeepLoop {
    #[must_use]
    pub const fn schedule() -> Schedule {
        Schedule { interval: Duration::from_secs(60), pass_max: Duration::from_secs(60) }
    }

    /// `None` when this region is not the primary, or no longer.
    async fn pass(&self, op: &Op) -> Result<Option<u64>, StorageError> {
        let now = op.now();
        let writes = now - Days::hours(i64::from(self.config.retention_hours));
        let deletions = now - Days::days(i64::from(self.config.tombstone_days));
        let losses = now - Days::days(i64::from(self.config.lost_days));
        let mut forgotten = 0;
        loop {
            let Some(epoch) = (self.primary)() else {
                return Ok(None);
            };
            let mut tx = WriteTx::open(&self.global, epoch, op).await?;
            let some = journal::purge(&mut tx, writes, losses, ROWS_MAX).await?
                + lost::purge(&mut tx, losses, ROWS_MAX).await?
                + purge_tombstones(&mut tx, deletions, ROWS_MAX).await?
                + sessions::purge(&mut tx, now - SESSIONS_KEPT, ROWS_MAX).await?;
            if some > 0 {
                // Whether it happened or not: the next pass looks again.
                tx.commit().await.map_err(|error| match error {
                    CommitError::RolledBack(cause) | CommitError::Unknown(cause) => cause,
                })?;
            }
            forgotten += some;
            if some == 0 || op.remaining().is_zero() {
                return Ok(Some(forgotten));
            }
        }
    }
}

impl Loop for UpkeepLoop {
    const NAME: &'static str = "domain.upkeep";

    async fn tick(&mut self, op: &Op) -> Tick {
        match self.pass(op).await {
            Ok(Some(0)) => Tick::Idle,
            Ok(Some(forgotten)) => Tick::Worked(forgotten),
            Ok(None) => Tick::Waiting("this region is not the primary".into()),
            Err(error) => Tick::Waiting(error.to_string().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::DatabaseConfig, vocab::OpKind};

    #[tokio::test]
    async fn only_the_primary_forgets() {
        // Nobody is there: a pass that asked the database would say so.
        let settings = serde_json::json!({
            "url": "postgres://writer:w@127.0.0.1:1/godwit",
            "read_url": "postgres://reader:r@127.0.0.1:1/godwit",
        });
        let database: DatabaseConfig = serde_json::from_value(settings).unwrap();
        let mut upkeep = UpkeepLoop {
            global: Global::connect(&database).unwrap(),
            config: JournalConfig::default(),
            primary: Arc::new(|| None),
        };
        let op = Op::system(OpKind::Test, Duration::from_secs(10));
        let tick = upkeep.tick(&op).await;
        assert_eq!(tick, Tick::Waiting("this region is not the primary".into()));
    }
}
