//! `[routing]`: waiting for a bookmark, and the hop to the primary.

use super::{ConfigError, positive};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoutingConfig {
    /// How long a read waits for its bookmark here before it goes to the primary. A little more
    /// than the usual lag between far regions, so that most waits end here.
    pub bookmark_wait_ms_max: u64,
    /// The whole time a request may take, waits, hops and retries included.
    pub request_ms_max: u64,
    /// How long a write that found the primary moving, or a read whose bookmark only a primary can
    /// answer, is held for the new one, before it is refused.
    /// Within `request_ms_max`.
    pub hold_ms_max: u64,
    /// Longest time to open a connection to a peer.
    pub connect_ms_max: u64,
    /// Life of a forwarded request's envelope. Covers the hop and the two clocks' difference.
    pub envelope_seconds_max: u32,
    pub breaker: BreakerConfig,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            bookmark_wait_ms_max: 500,
            request_ms_max: 10_000,
            hold_ms_max: 5_000,
            connect_ms_max: 2_000,
            envelope_seconds_max: 30,
            breaker: BreakerConfig::default(),
        }
    }
}

/// Per peer.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Opens at this share of failures, in percent,
    pub failure_percent: u8,
    /// of at least this many requests
    pub requests_min: u32,
    /// within this window.
    pub window_ms: u64,
    /// Stays open this long, unless a probe of the peer succeeds sooner.
    pub cool_down_ms: u64,
    /// Successes in a row that close it again.
    pub successes_to_close: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failure_percent: 50,
            requests_min: 5,
            window_ms: 60_000,
            cool_down_ms: 30_000,
            successes_to_close: 3,
        }
    }
}

impl RoutingConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        positive("routing.request_ms_max", self.request_ms_max)?;
        positive("routing.connect_ms_max", self.connect_ms_max)?;
        positive("routing.envelope_seconds_max", self.envelope_seconds_max.into())?;
        positive("routing.breaker.requests_min", self.breaker.requests_min.into())?;
        positive("routing.breaker.successes_to_close", self.breaker.successes_to_close.into())?;
        if self.bookmark_wait_ms_max >= self.request_ms_max {
            let reason = "must be less than routing.request_ms_max, or no time is left to forward";
            return Err(ConfigError::invalid("routing.bookmark_wait_ms_max", reason));
        }
        if !(1..=100).contains(&self.breaker.failure_percent) {
            return Err(ConfigError::invalid(
                "routing.breaker.failure_percent",
                "must be 1 to 100",
            ));
        }
        Ok(())
    }
}
