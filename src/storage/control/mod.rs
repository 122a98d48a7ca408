//! This region's own instance, as who moves the primary sees it and changes it.
//!
//! [`DatabaseControl`] is the seam: [`Postgres`] is plain SQL as the control role, and an agent for
//! what SQL cannot do. A managed Postgres (RDS, Aurora) or an operator (`CloudNativePG`) takes its
//! place there. Each act finds out whether it is done already, so that any may come twice.

mod agent;
mod postgres;

pub use agent::{Agent, AgentError};
pub use postgres::Postgres;

use super::StorageError;
use crate::vocab::{Epoch, EpochStart, Lsn, Members, Region};
use futures_util::future::BoxFuture;
use std::time::Duration;

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
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Agent(#[from] AgentError),
}

pub type Acting<'a, T> = BoxFuture<'a, Result<T, ControlError>>;

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRow {
    pub in_recovery: bool,
    pub system: String,
    /// Of the log that is being written; unknown on a standby.
    pub timeline: Option<u32>,
    /// Flushed on a primary, replayed on a standby.
    pub lsn: Lsn,
    pub received: Option<Lsn>,
    pub receiving: bool,
    /// `primary_conninfo`.
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

/// Whom to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// `primary_conninfo`, with this region's `application_name`.
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
    /// Stops being a standby.
    fn promote(&self) -> Acting<'_, ()>;
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
