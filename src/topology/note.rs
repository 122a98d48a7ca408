//! What this region's Redis has of the lease, for every process of the region: one loop that reads it.

use super::{Topology, lease::Grantor, snapshot::AskedAt};
use crate::{
    loops::{Loop, Schedule, Tick},
    vocab::Op,
};
use std::time::Duration;

pub struct NoteLoop {
    topology: Topology,
    grantor: Grantor,
}

impl NoteLoop {
    #[must_use]
    pub fn new(topology: Topology, grantor: Grantor) -> Self {
        Self { topology, grantor }
    }

    /// A promotion that is under way is known to every process of its regions within this.
    #[must_use]
    pub const fn schedule() -> Schedule {
        Schedule { interval: Duration::from_millis(250), pass_max: Duration::from_secs(1) }
    }
}

impl Loop for NoteLoop {
    const NAME: &'static str = "topology.note";

    async fn tick(&mut self, op: &Op) -> Tick {
        match self.grantor.look(op).await {
            Ok((record, now_ms)) => {
                let record = record.unwrap_or_default();
                let asked = record.asked_ms.map(|at_ms| AskedAt {
                    at_ms,
                    ago: Duration::from_millis(now_ms.saturating_sub(at_ms)),
                });
                self.topology.publish_promise(record.promise, asked);
                Tick::Worked(1)
            }
            // What was last read stands: a promise is never taken back, only overtaken.
            Err(error) => Tick::Waiting(error.to_string().into()),
        }
    }
}
