//! The position loop: where this region's own database is.
//!
//! One statement on a connection of its own, seldom while nobody waits, every few milliseconds
//! while a request waits for a bookmark. When the database does not answer, the position is unknown
//! at once.

use super::{Topology, report::Role, snapshot::Own};
use crate::{
    config::DatabaseConfig,
    loops::{Activator, Loop, Schedule, Tick},
    storage::Global,
    vocab::Op,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub struct PositionLoop {
    topology: Topology,
    global: Global,
    spacing: Duration,
    again: Activator,
    asked_at: Option<Instant>,
}

impl PositionLoop {
    #[must_use]
    pub fn new(topology: Topology, global: Global, config: &DatabaseConfig) -> Self {
        let again = topology.waiting();
        let spacing = Duration::from_millis(config.position_wait_ms);
        Self { topology, global, spacing, again, asked_at: None }
    }

    #[must_use]
    pub fn schedule(config: &DatabaseConfig) -> Schedule {
        let interval = Duration::from_millis(config.position_idle_ms);
        Schedule { interval, pass_max: Duration::from_secs(5) }
    }

    async fn look(&self, op: &Op) -> Result<Own, crate::storage::StorageError> {
        let asked_at = op.clock.monotonic();
        let row = self.global.position().await?;
        Ok(Own {
            role: if row.in_recovery { Role::Replica } else { Role::Primary },
            lsn: row.lsn,
            confirmed: row.confirmed,
            history: Arc::new(row.history),
            streaming: row.streaming,
            read_only: row.read_only,
            unbegun: row.unbegun,
            asked_at,
        })
    }
}

impl Loop for PositionLoop {
    const NAME: &'static str = "topology.position";

    async fn tick(&mut self, op: &Op) -> Tick {
        // Waiters wake this loop as fast as it answers; the database is not asked faster than this.
        if let Some(asked_at) = self.asked_at {
            let pause = (asked_at + self.spacing).saturating_duration_since(op.clock.monotonic());
            tokio::time::sleep(pause).await;
        }
        self.asked_at = Some(op.clock.monotonic());
        let tick = match self.look(op).await {
            Ok(own) => {
                self.topology.publish_own(Some(own));
                Tick::Worked(1)
            }
            Err(error) => {
                self.topology.publish_own(None);
                Tick::Waiting(error.to_string().into())
            }
        };
        if self.topology.has_waiters() {
            self.again.activate();
        }
        tick
    }
}
