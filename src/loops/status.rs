//! What operators see of a loop.

use super::Schedule;
use chrono::{DateTime, Utc};
use serde::Serialize;

/// One loop, as the operations listener tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoopStatus {
    pub name: &'static str,
    pub interval_ms: u64,
    /// Passes so far, those that failed too.
    pub passes: u64,
    /// Times it began anew after a panic.
    pub restarts: u64,
    /// When a pass last ended idle or with work done.
    pub last_success_at: Option<DateTime<Utc>>,
    /// The latest pass, once there was one.
    pub last: Option<PassStatus>,
}

/// One pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassStatus {
    pub started_at: DateTime<Utc>,
    pub took_us: u64,
    /// `idle`, `worked`, `waiting`, `timed_out` or `panicked`.
    pub outcome: &'static str,
    /// Things done, if it worked.
    pub done: Option<u64>,
    /// Why it waits, if it does.
    pub reason: Option<String>,
}

impl LoopStatus {
    pub(super) fn new(name: &'static str, schedule: Schedule) -> Self {
        let interval_ms = u64::try_from(schedule.interval.as_millis()).unwrap_or(u64::MAX);
        Self { name, interval_ms, passes: 0, restarts: 0, last_success_at: None, last: None }
    }
}
