//! What a region tells of itself at `/internal/v1/topology`.

use super::{control::Standby, lease::Promise};
use crate::config::Durability;
use crate::vocab::{Bookmark, Epoch, EpochStart, Members, Region};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// What a region's database is. The program's own word for it follows the database, never a
/// setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Primary,
    Replica,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        })
    }
}

/// One process's account of its region. Every measured value is optional: null means unknown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopologyReport {
    pub region: Region,
    /// Tells processes of one region apart, and a restarted one from its predecessor.
    pub process: String,
    pub role: Option<Role>,
    /// Replayed or flushed up to here.
    pub position: Option<Bookmark>,
    /// How long before this answer the position was asked for, in microseconds.
    pub position_age_us: Option<u64>,
    /// Every epoch known here, oldest first.
    pub epochs: Vec<EpochStart>,
    /// Upper bound of the age of a read here, in milliseconds.
    pub lag_ms: Option<u64>,
    pub lag_bytes: Option<u64>,
    pub streaming: Option<bool>,
    /// Whether this process has yet to learn if it takes writes: that it says it takes none is only its own
    /// ignorance.
    #[serde(default)]
    pub starting: bool,
    /// Whether this process is about to end: another of its region is to be asked from now on.
    #[serde(default)]
    pub ending: bool,
    /// Whether it takes writes now: the primary, with a lease, not fenced.
    #[serde(default)]
    pub writable: bool,
    /// The region that takes writes, as far as this process knows now.
    #[serde(default)]
    pub primary: Option<Region>,
    /// How long this process has known of no primary, in milliseconds; null while it knows one, and
    /// where `failover.automatic` is off.
    #[serde(default)]
    pub missed_ms: Option<u64>,
    /// What is left of this process's lease, in milliseconds; null without one.
    #[serde(default)]
    pub lease_ms: Option<u64>,
    /// What this region has promised to a promotion.
    #[serde(default)]
    pub promise: Option<Promise>,
    /// The regions that count, as far as it knows; null from a program that knows of no members.
    #[serde(default)]
    pub members: Option<Members>,
    /// What its settings have an acknowledged write survive; null from a program that does not tell.
    #[serde(default)]
    pub durability: Option<Durability>,
    /// Why its data is not served, if it is not.
    #[serde(default)]
    pub quarantine: Option<String>,
    /// Who follows its database, as last seen; null when unknown.
    #[serde(default)]
    pub standbys: Option<Vec<Standby>>,
    /// `current`, `newer`, or `old` with what is there and what is needed.
    pub schema: Option<String>,
    pub build: String,
    /// What this process knows of each other region.
    #[serde(default)]
    pub peers: BTreeMap<Region, PeerReport>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerReport {
    pub reachable: bool,
    pub round_trip_ms: Option<u64>,
    /// `closed`, `open` or `half-open`.
    pub breaker: String,
    pub failure: Option<String>,
}

impl TopologyReport {
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epochs.iter().map(|start| start.epoch).max()
    }
}
