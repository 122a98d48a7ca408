//! `[failover]`: moving the primary, and what a write has survived when it is acknowledged.

use super::{ConfigError, list, positive};
use crate::vocab::Platform;
use serde::{Deserialize, Serialize};

/// What an acknowledged write has survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It is on the primary's disk. A primary that is lost loses what its replicas had not got.
    #[default]
    Async,
    /// It is on the disk of one more region too: `synchronous_standby_names = 'ANY 1 (...)'`.
    Quorum,
}

impl Durability {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Quorum => "quorum",
        }
    }
}

/// The same in every region.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FailoverConfig {
    /// `async`, or `quorum`: a write is acknowledged once one more region has it on its disk.
    pub durability: Durability,
    /// Who moves this region's database: `postgres`, by SQL and the agent; or what runs it, `cloudnativepg`, `rds`
    /// or `aurora`, which the image can talk to (`docs/RUNBOOK.md`). With those, durability is `async`.
    pub control: Platform,
    /// Aurora: the global cluster's identifier.
    pub global_database: Option<String>,
    /// A program, and what it is called with before the one word that says what to do, by which this
    /// region's Postgres is stopped, started and rewound (`docs/RUNBOOK.md`). Without one a person
    /// does that.
    #[serde(deserialize_with = "list")]
    pub agent: Vec<String>,
    /// Longest run of the agent. Copying a whole database takes longest.
    pub agent_seconds_max: u64,
    /// Promote the furthest replica once a majority of regions has missed the primary for `after_ms`.
    pub automatic: bool,
    /// Shorter: a primary that merely stumbles is replaced. Longer: writes are refused for longer.
    pub after_ms: u64,
    /// Let an automatic failover lose acknowledged writes. Without it there is none unless
    /// `durability` is `quorum` and every replica that may have had to acknowledge answers.
    pub accept_data_loss: bool,
}

impl Default for FailoverConfig {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            control: Platform::default(),
            global_database: None,
            agent: Vec::new(),
            agent_seconds_max: 600,
            automatic: false,
            after_ms: 10_000,
            accept_data_loss: false,
        }
    }
}

impl FailoverConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        positive("failover.agent_seconds_max", self.agent_seconds_max)?;
        positive("failover.after_ms", self.after_ms)?;
        if self.control == Platform::Postgres {
            return Ok(());
        }
        let built = match self.control {
            Platform::Postgres => true,
            Platform::CloudNativePg => cfg!(feature = "cloudnativepg"),
            Platform::Rds | Platform::Aurora => cfg!(feature = "rds"),
        };
        if !built {
            return invalid(
                "failover.control",
                "this build cannot talk to it: see Cargo.toml's features",
            );
        }
        if self.durability != Durability::Async {
            let why = "must be async: no commit waits for another region unless Postgres itself is told to";
            return invalid("failover.durability", why);
        }
        if self.automatic {
            let why = "is for `failover.control = \"postgres\"` alone: what else promotes takes too long, and for good";
            return invalid("failover.automatic", why);
        }
        if !self.agent.is_empty() {
            return invalid("failover.agent", "is for `failover.control = \"postgres\"` alone");
        }
        if (self.control == Platform::Aurora) != self.global_database.is_some() {
            return invalid(
                "failover.global_database",
                "is wanted for aurora, and for nothing else",
            );
        }
        Ok(())
    }
}

fn invalid(setting: &'static str, why: &'static str) -> Result<(), ConfigError> {
    Err(ConfigError::invalid(setting, why))
}
