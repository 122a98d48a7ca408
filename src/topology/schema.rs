//! The schema loop: how this region's schema stands to what this program needs. Log brings a new
//! schema into a region before its new binary comes, so the answer changes while the process lives.

use crate::{
    loops::{Loop, Schedule, Tick},
    storage::{Global, migrate::SchemaStanding},
    vocab::Op,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// The newest answer; `None` until there is one. Cheap to clone.
#[derive(Clone)]
pub struct SchemaWatch(Arc<watch::Sender<Option<SchemaStanding>>>);

impl Default for SchemaWatch {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl SchemaWatch {
    #[must_use]
    pub fn look(&self) -> Option<SchemaStanding> {
        *self.0.borrow()
    }

    /// Waits until there is an answer.
    pub async fn seen(&self) -> SchemaStanding {
        let mut told = self.0.subscribe();
        loop {
            if let Some(standing) = *told.borrow_and_update() {
                return standing;
            }
            // The sender is ours: it lives as long as this.
            let _ = told.changed().await;
        }
    }

    /// Waits until it is known to have all that this program needs.
    pub async fn suffices(&self) {
        let mut told = self.0.subscribe();
        // The sender is ours: it lives as long as this.
        let _ = told.wait_for(|standing| standing.is_some_and(SchemaStanding::suffices)).await;
    }

    /// In words, for reports.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        self.look().map(|standing| match standing {
            SchemaStanding::Current => "current".to_owned(),
            SchemaStanding::Newer => "newer".to_owned(),
            SchemaStanding::Old { have, want } => {
                let have = have.map_or_else(|| "none".to_owned(), |have| have.to_string());
                format!("old: {have} of {want}")
            }
        })
    }
}

pub struct SchemaLoop {
    pub global: Global,
    pub watch: SchemaWatch,
}

impl SchemaLoop {
    #[must_use]
    pub const fn schedule() -> Schedule {
        Schedule { interval: Duration::from_secs(2), pass_max: Duration::from_secs(10) }
    }
}

impl Loop for SchemaLoop {
    const NAME: &'static str = "topology.schema";

    async fn tick(&mut self, _: &Op) -> Tick {
        match self.global.schema_standing().await {
            Ok(standing) => {
                self.watch.0.send_replace(Some(standing));
                Tick::Worked(1)
            }
            // A schema does not grow older: what was seen stays true while the database is away.
            Err(error) => Tick::Waiting(error.to_string().into()),
        }
    }
}
