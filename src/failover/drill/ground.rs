//! Who breaks, mends and moves: a laboratory, a cluster, or a test.

use super::faults::Act;
use serde::{Deserialize, Serialize};
use std::future::Future;

/// What came of an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acted {
    Done,
    /// A safety rule said no.
    Refused(String),
    Failed(String),
}

/// A command of `godwit` as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRecord {
    pub at_us: u64,
    pub took_ms: u64,
    pub command: String,
    /// `done`, `refused` or `failed`.
    pub ended: String,
    /// All that it printed.
    pub printed: String,
}

/// What a drill is held on.
pub trait Ground: Sync {
    /// Does it, and returns when it is done. What it printed, if it was a command, comes too.
    fn act(&self, act: &Act) -> impl Future<Output = (Acted, Option<String>)> + Send;

    /// Before a round: waits until nothing is amiss, and makes good what a round before has left
    /// behind. Tells what it did.
    ///
    /// # Errors
    /// With what is still amiss.
    fn restore(&self) -> impl Future<Output = Result<Vec<String>, String>> + Send;

    /// Makes good whatever is broken, for all it knows, after a round that came to grief.
    fn mend(&self) -> impl Future<Output = Acted> + Send;
}
