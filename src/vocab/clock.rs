//! Time, as a parameter.

use chrono::{DateTime, SubsecRound as _, TimeZone as _, Utc};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Wall time for what people read, monotonic time for every deadline. The two never mix.
pub trait Clock: Send + Sync + 'static {
    /// UTC, to the microsecond, which is what Postgres keeps.
    fn now(&self) -> DateTime<Utc>;
    /// Never goes back; comparable only within this process.
    fn monotonic(&self) -> Instant;
}

pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> DateTime<Utc> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let at = Utc.timestamp_opt(seconds, since.subsec_nanos()).single();
        at.unwrap_or(DateTime::UNIX_EPOCH).trunc_subsecs(6)
    }
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that moves only when told, for tests.
#[derive(Debug)]
pub struct ManualClock {
    started: Instant,
    elapsed: Mutex<Duration>,
}

impl ManualClock {
    #[must_use]
    pub fn new() -> Self {
        Self { started: SystemClock.monotonic(), elapsed: Mutex::default() }
    }
    pub fn advance(&self, by: Duration) {
        *self.elapsed.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
    fn elapsed(&self) -> Duration {
        *self.elapsed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + self.elapsed()
    }
    fn monotonic(&self) -> Instant {
        self.started + self.elapsed()
    }
}
