//! What was asked and what was answered: the drill's evidence. All that is judged or measured is
//! made from it.

use crate::{
    config::Durability,
    vocab::{Bookmark, Epoch, Etag, Region},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that one round saw. Times are microseconds since the round began, by one monotonic
/// clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Names the round's collections, so that no two rounds meet.
    pub run: String,
    pub seed: u64,
    pub durability: Durability,
    pub regions: Vec<Region>,
    /// In the order in which they ended.
    pub calls: Vec<Call>,
    pub marks: Vec<Mark>,
    /// When the workload ended.
    pub ended_us: u64,
    pub closing: Closing,
}

/// One request and what became of it. A write that is tried again is one call for each attempt, all
/// with the same key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// A session has one request under way at a time and carries its bookmark from one to the next.
    pub session: u32,
    /// Whose public listener was asked.
    pub asked: Region,
    pub ask: Ask,
    pub began_us: u64,
    pub ended_us: u64,
    pub bookmark_in: Option<Bookmark>,
    pub bookmark_out: Option<Bookmark>,
    /// `Godwit-Region`: who answered.
    pub by: Option<Region>,
    /// `Godwit-Epoch`: in which epoch, as far as who answered knew.
    pub epoch: Option<Epoch>,
    /// 0 without an answer.
    pub status: u16,
    /// As `no-primary`; without an answer, why there is none.
    pub problem: Option<String>,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Ask {
    /// Make an item that holds the key.
    Add { key: String },
    /// Put a list with one more number, if the list is still as it was read.
    Append { key: String, list: u32, before: Vec<u64>, value: u64 },
    /// Read the item that was added under this key, with the session's bookmark.
    ReadItem { key: String },
    /// Read a list, with the session's bookmark.
    ReadList { list: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Ok(Seen),
    /// 412: the list had changed. No effect.
    Conflict,
    /// 409 `bookmark-lost`: a failover lost what the bookmark names. No effect.
    Told,
    /// No effect, by the answer's word or because nothing was sent.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// What a good answer held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The epoch in which the version was written, and its number.
    pub etag: Option<Etag>,
    /// The answer of an earlier attempt under the same key.
    pub replayed: bool,
    pub id: Option<String>,
    /// Of a read: that there is such an item.
    pub found: bool,
    /// Of a list.
    pub values: Vec<u64>,
}

/// A moment that the report names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub at_us: u64,
    pub kind: MarkKind,
    pub says: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MarkKind {
    /// Something was broken.
    Fault,
    /// A command was given, or ended.
    Command,
    /// Something was made good.
    Mended,
    /// What the workload saw by itself.
    Seen,
}

/// How things stood once all was healed, read with `Godwit-Consistency: strong`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// Key and id of every item that was added.
    pub items: Vec<(String, String)>,
    pub lists: BTreeMap<u32, Vec<u64>>,
    /// `GET /v1/writes/{key}` of every key.
    pub writes: BTreeMap<String, Fate>,
    /// What each region says to the bookmarks of acknowledged writes that are missing.
    pub probes: Vec<Probe>,
    /// A primary that lost writes was rejoined, so that they are known.
    pub rejoined: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    Committed,
    Queued,
    Dead,
    Lost,
    Unknown,
    /// It could not be asked.
    Unanswered,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub key: String,
    pub region: Region,
    /// It answered `bookmark-lost`.
    pub told: bool,
    pub says: String,
}

impl Ask {
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Add { .. } | Self::Append { .. })
    }

    /// The key of a write.
    #[must_use]
    pub fn write_key(&self) -> Option<&str> {
        match self {
            Self::Add { key } | Self::Append { key, .. } => Some(key),
            Self::ReadItem { .. } | Self::ReadList { .. } => None,
        }
    }
}

impl Outcome {
    /// It was done, or refused for a reason that has nothing to do with failing parts.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Ok(_) | Self::Conflict | Self::Told)
    }
}

impl Call {
    #[must_use]
    pub fn seen(&self) -> Option<&Seen> {
        match &self.outcome {
            Outcome::Ok(seen) => Some(seen),
            _ => None,
        }
    }

    /// The epoch in which a write was committed that was acknowledged just now: its entity tag says
    /// so, which is made in the write's own transaction.
    #[must_use]
    pub fn acknowledges(&self) -> Option<Epoch> {
        let seen = self.seen().filter(|seen| self.ask.is_write() && !seen.replayed)?;
        Some(seen.etag?.epoch)
    }
}
