//! What a region can be told to do with its own database, and what it then tells of it.
//!
//! Each order can be given again: what is done already is found to be done. Who decides which order
//! comes when is `failover`.

use super::{
    lease::Promise,
    ledger::{LedgerOrder, LedgerOutcome},
    report::Role,
};
use crate::vocab::{Epoch, EpochStart, Lsn, Platform, Region};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One step, for one region's database. Those of a promotion carry its promise: a region that has
/// promised something later since refuses them, however late they come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order")]
pub enum Order {
    /// Tell all of the instance.
    Look,
    /// Receive no more log from whoever is followed, for good, so that its position is final.
    Detach {
        promise: Promise,
    },
    /// Take no more writes, end those under way, and tell the final position.
    Fence {
        promise: Promise,
    },
    /// Give the place up to the promised region, fenced before, and follow it; for a platform that wants that
    /// before it promotes another.
    HandOver {
        promise: Promise,
    },
    /// Stop being a standby. With what the old primary said as it gave its place up.
    Promote {
        promise: Promise,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
    /// Begin the promised epoch: slots, durability, the epoch's row, and no fence.
    Begin {
        promise: Promise,
    },
    /// Follow that region; as part of a move, unless a later one has been promised since.
    Follow {
        region: Region,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        promise: Option<Promise>,
    },
    /// That region is being added, for so long and until another epoch begins: its slot is kept, and
    /// it is not left alone.
    Welcome {
        region: Region,
        epoch: Epoch,
        span_ms: u64,
    },
    /// By the agent, with Postgres stopped: keep what the old timeline had.
    Keep,
    /// By the agent: go back to where that region's timeline left this one, and follow it.
    Rewind {
        region: Region,
    },
    /// By the agent: become a fresh copy of that region's database.
    Rebuild {
        region: Region,
    },
    Stop,
    Start,
    Ledger(LedgerOrder),
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    Done,
    /// It is as told.
    Instance(Box<Instance>),
    /// The final position of a database that was fenced, or where an epoch began.
    At {
        lsn: Lsn,
    },
    /// What the next primary is to be told.
    HandedOver {
        token: Option<String>,
    },
    /// It was asked for, and goes on by itself: to be asked again.
    Underway {
        told: String,
    },
    /// Where the agent has kept something.
    Kept {
        place: String,
    },
    Ledger(LedgerOutcome),
    /// It cannot be done as things are; nothing was.
    Refused {
        reason: String,
    },
}

/// A region's instance, as its control role sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Who runs it.
    #[serde(default)]
    pub platform: Platform,
    pub role: Role,
    /// Names the database that this is a copy of.
    pub system: String,
    /// Of the log that is being written; unknown on a standby.
    pub timeline: Option<u32>,
    /// Flushed on a primary, replayed on a standby.
    pub lsn: Lsn,
    /// On a standby: what has come in, replayed or not.
    pub received: Option<Lsn>,
    /// On a standby: whether its receiver runs.
    pub receiving: bool,
    /// On a standby: the region that it is told to follow, when it is one of the settings'.
    pub follows: Option<Region>,
    /// Whether new transactions may not write.
    pub read_only: bool,
    /// Whether the region can read its note of the lease, in its Redis, without which it promises nothing;
    /// `None` from a program that does not tell.
    #[serde(default)]
    pub promises: Option<bool>,
    /// Whether the platform that runs it has answered lately; `None` where none does, or from a program that does
    /// not tell.
    #[serde(default)]
    pub platform_answers: Option<bool>,
    /// `synchronous_standby_names`.
    pub waits_for: String,
    pub epochs: Vec<EpochStart>,
    pub standbys: Vec<Standby>,
    pub slots: Vec<Slot>,
}

/// Who follows this instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standby {
    /// Its `application_name`, the region.
    pub name: String,
    pub state: String,
    /// `async`, `quorum`, `sync` or `potential`.
    pub acknowledges: String,
    pub flushed: Option<Lsn>,
}

impl Standby {
    /// A copy that is being made bears the name of who will follow.
    #[must_use]
    pub fn follows(&self) -> bool {
        matches!(self.state.as_str(), "streaming" | "catchup")
    }
}

/// Names that more than one standby goes by. Postgres counts a name, not who bears it: a commit that
/// waits for two names could be told that one standby is both, or a stranger the other.
#[must_use]
pub fn namesakes(standbys: &[Standby]) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let names =
        standbys.iter().filter(|standby| standby.follows()).map(|standby| standby.name.clone());
    names.filter(|name| !seen.insert(name.clone())).collect()
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    pub name: String,
    pub active: bool,
    pub restart: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`; unknown before its first use.
    pub wal: Option<String>,
}

impl Instance {
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epochs.iter().map(|start| start.epoch).max()
    }

    /// How far its log goes on disk: what a promotion of it would keep.
    #[must_use]
    pub fn reaches(&self) -> Lsn {
        self.received.map_or(self.lsn, |received| received.max(self.lsn))
    }
}
