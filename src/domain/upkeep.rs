//! Retention: what is forgotten, and when.

use crate::{
    config::JournalConfig,
    loops::{Loop, Schedule, Tick},
    storage::{
        Global, StorageError,
        global::{items::purge_tombstones, journal},
    },
    vocab::Op,
};
use chrono::Duration as Days;
use std::time::Duration;

/// Rows forgotten in one statement; small, so that no write waits long behind it.
const ROWS_MAX: i64 = 1_000;

/// Forgets old journal records and tombstones. Runs everywhere; only a primary lets it.
pub struct UpkeepLoop {
    pub global: Global,
    pub config: JournalConfig,
}

impl UpkeepLoop {
    #[must_use]
    pub const fn schedule() -> Schedule {
        Schedule { interval: Duration::from_secs(60), pass_max: Duration::from_secs(60) }
    }

    async fn pass(&self, op: &Op) -> Result<u64, StorageError> {
        let now = op.now();
        let writes = now - Days::hours(i64::from(self.config.retention_hours));
        let deletions = now - Days::days(i64::from(self.config.tombstone_days));
        let mut forgotten = 0;
        loop {
            let some = journal::purge(&self.global, writes, ROWS_MAX).await?
                + purge_tombstones(&self.global, deletions, ROWS_MAX).await?;
            forgotten += some;
            if some == 0 || op.remaining().is_zero() {
                return Ok(forgotten);
            }
        }
    }
}

impl Loop for UpkeepLoop {
    const NAME: &'static str = "domain.upkeep";

    async fn tick(&mut self, op: &Op) -> Tick {
        match self.pass(op).await {
            Ok(0) => Tick::Idle,
            Ok(forgotten) => Tick::Worked(forgotten),
            Err(StorageError::ReadOnly) => Tick::Waiting("this region is a replica".into()),
            Err(error) => Tick::Waiting(error.to_string().into()),
        }
    }
}
