//! `godwit migrate`: the schema's one owner.

use super::{About, block_on};
use crate::{
    storage::migrate::{self, MigrateOutcome},
    vocab::{Op, OpKind},
};
use serde::Serialize;
use std::time::Duration;

/// Time for another migration that holds the lock to end.
const BUDGET: Duration = Duration::from_secs(300);

/// Bring the schema up to date. On a replica it does nothing: the schema comes with the log.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  godwit migrate --config /etc/godwit/us-east-1.toml")]
pub struct Migrate {
    #[command(flatten)]
    about: About,
}

#[derive(Serialize)]
struct Facts {
    outcome: &'static str,
    applied: usize,
}

impl Migrate {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = self.about.target.load()?;
        let op = Op::system(OpKind::Command, BUDGET);
        // Who counts is part of the epoch: a region that is named later is added.
        let members = config.regions.keys().cloned().collect();
        let run = migrate::run(&config.database, &config.region, &members, &op);
        let run = async { Ok(run.await?) };
        let facts = match block_on(run)? {
            MigrateOutcome::Applied(applied) => Facts { outcome: "applied", applied },
            MigrateOutcome::UpToDate => Facts { outcome: "up-to-date", applied: 0 },
            MigrateOutcome::Standby => Facts { outcome: "standby", applied: 0 },
        };
        self.about.output.print(&facts, |facts| match facts.outcome {
            "applied" => format!("{} migrations applied", facts.applied),
            "standby" => "this database is a standby; its schema comes from the primary".to_owned(),
            _ => "the schema is up to date".to_owned(),
        })
    }
}
