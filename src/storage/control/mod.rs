//! This region's own instance, as who moves the primary sees it and changes it.
//!
//! [`DatabaseControl`] is the seam: [`Postgres`] is plain SQL as the control role, and an agent for
//! what SQL cannot do. Where a platform runs Postgres (`CloudNativePG`, RDS, Aurora), `Managed` has that
//! promote and re-point it, and does by SQL what the platform has no word for. Each act finds out
//! whether it is done already, so that any may come twice.

mod agent;
#[cfg(feature = "rds")]
mod aurora;
#[cfg(feature = "rds")]
mod aws;
#[cfg(feature = "cloudnativepg")]
mod cloudnativepg;
#[cfg(any(feature = "cloudnativepg", feature = "rds"))]
mod managed;
mod pool;
mod postgres;
#[cfg(feature = "rds")]
mod rds;

pub use agent::{Agent, AgentError};
pub use postgres::Postgres;

use super::StorageError;
use crate::{
    config::Config,
    vocab::{Epoch, EpochStart, Lsn, Members, Platform, Region},
};
use futures_util::future::BoxFuture;
use std::{sync::Arc, time::Duration};

/// What moves this region's database, by `failover.control`. Connects when first used. Must be called
/// within a Tokio runtime.
///
/// # Errors
/// When the address in the settings is no Postgres URL.
pub fn of(config: &Config) -> Result<Arc<dyn DatabaseControl>, StorageError> {
    Ok(match config.failover.control {
        #[cfg(feature = "cloudnativepg")]
        Platform::CloudNativePg => {
            Arc::new(managed::Managed::new(config, cloudnativepg::CloudNativePg::new(config))?)
        }
        #[cfg(feature = "rds")]
        Platform::Rds => Arc::new(managed::Managed::new(config, rds::Rds::new(config))?),
        #[cfg(feature = "rds")]
        Platform::Aurora => Arc::new(managed::Managed::new(config, aurora::Aurora::new(config))?),
        // Of a platform that this build cannot talk to the settings were refused.
        _ => Arc::new(Postgres::new(config)?),
    })
}

/// What went wrong in an act on the instance.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("setting {0} is missing")]
    NotConfigured(&'static str),
    /// As things are it must not be done; nothing was.
    #[error("{0}")]
    Refused(String),
    /// It was asked for, and has not come about in time.
    #[error("{0}")]
    NotYet(String),
    /// It was asked for, and goes on by itself: ask again.
    #[error("{0}")]
    Underway(String),
    /// Who runs the database could not be asked, or says no.
    #[error("{platform} does not {what}")]
    Platform {
        platform: Platform,
        what: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Agent(#[from] AgentError),
}

pub type Acting<'a, T> = BoxFuture<'a, Result<T, ControlError>>;

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRow {
    /// Who runs it.
    pub platform: Platform,
    /// Whether that has answered lately; `None` where it is Postgres itself.
    pub platform_answers: Option<bool>,
    pub in_recovery: bool,
    pub system: String,
    /// Of the log that is being written; unknown on a standby.
    pub timeline: Option<u32>,
    /// Flushed on a primary, replayed on a standby.
    pub lsn: Lsn,
    pub received: Option<Lsn>,
    pub receiving: bool,
    /// `primary_conninfo`; with a platform what that calls the database followed. Empty on a primary.
    pub conninfo: String,
    pub read_only: bool,
    /// `synchronous_standby_names`.
    pub waits_for: String,
    pub epochs: Vec<EpochStart>,
    pub standbys: Vec<StandbyRow>,
    pub slots: Vec<SlotRow>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandbyRow {
    pub name: String,
    pub state: String,
    pub acknowledges: String,
    pub flushed: Option<Lsn>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRow {
    pub name: String,
    pub active: bool,
    pub restart: Option<Lsn>,
    pub wal: Option<String>,
}

/// An epoch that is to begin on this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    pub epoch: Epoch,
    pub region: Region,
    /// Who counts in it; `None`: who counted before.
    pub members: Option<Members>,
    /// Regions that follow it: a slot for each.
    pub others: Vec<Region>,
    /// Whether a commit waits for one of them.
    pub quorum: bool,
}

/// How an instance is promoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    /// The old primary was fenced, and this one has all that it had.
    pub planned: bool,
    /// Writes that the old primary acknowledged may be lost.
    pub accepts_loss: bool,
    /// What the old primary said as it gave its place up.
    pub token: Option<String>,
}

/// Whom to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// `primary_conninfo`, with this region's `application_name`; with a platform what that calls it.
    pub conninfo: String,
    /// This region's slot there.
    pub slot: String,
}

/// How a region's database is moved.
pub trait DatabaseControl: Send + Sync + 'static {
    fn look(&self) -> Acting<'_, InstanceRow>;
    /// Receives no more log, across restarts too.
    fn detach(&self) -> Acting<'_, ()>;
    /// Takes no more writes, across restarts too; those under way have `grace` to end, and are ended
    /// then. Gives the position after which there is nothing.
    fn fence(&self, grace: Duration) -> Acting<'_, Lsn>;
    fn unfence(&self) -> Acting<'_, ()>;
    /// Gives its place up to another, which is promoted next, and follows that. Fenced before. Gives what
    /// that one is to be told.
    fn hand_over<'a>(&'a self, to: &'a Upstream) -> Acting<'a, Option<String>>;
    /// Stops being a standby. [`ControlError::Underway`] while it takes longer than an order may.
    fn promote<'a>(&'a self, how: &'a Promotion) -> Acting<'a, ()>;
    /// Writes the epoch's row, which is what makes this instance the cluster's primary, and takes
    /// writes. Gives where it began.
    fn begin<'a>(&'a self, beginning: &'a Beginning) -> Acting<'a, Lsn>;
    fn follow<'a>(&'a self, upstream: &'a Upstream) -> Acting<'a, ()>;
    /// Makes a commit wait for one of `regions`; for nobody when there are none.
    fn wait_for<'a>(&'a self, regions: &'a [Region]) -> Acting<'a, ()>;
    /// Has a slot for each of the `wanted` regions; on a standby, as far as each is known to have come.
    /// Has none for the `dropped`, once nobody receives from it. A slot of anybody else is left to a
    /// person.
    fn keep_slots<'a>(
        &'a self,
        wanted: &'a [(Region, Option<Lsn>)],
        dropped: &'a [Region],
    ) -> Acting<'a, u64>;
    fn stop(&self) -> Acting<'_, ()>;
    fn start(&self) -> Acting<'_, ()>;
    /// Keeps what a rewind would erase; gives where.
    fn keep(&self) -> Acting<'_, String>;
    /// Goes back to where the upstream's timeline left this one's, and follows it. Stopped before
    /// and after.
    fn rewind<'a>(&'a self, upstream: &'a Upstream) -> Acting<'a, ()>;
    /// Becomes a fresh copy. Stopped before and after.
    fn rebuild<'a>(&'a self, upstream: &'a Upstream) -> Acting<'a, ()>;
}

/// What a region's slot is called: the region, in the letters that a slot may have.
#[must_use]
pub fn slot_of(region: &Region) -> String {
    region.as_str().replace('-', "_")
}

/// `synchronous_standby_names` for a commit that waits for one of these.
#[must_use]
pub fn any_of(regions: &[Region]) -> String {
    if regions.is_empty() {
        return String::new();
    }
    let names: Vec<String> = regions.iter().map(|region| format!("\"{region}\"")).collect();
    format!("ANY 1 ({})", names.join(", "))
}
