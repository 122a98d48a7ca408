//! `[topology]`: how peers are watched.

use super::{ConfigError, positive};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopologyConfig {
    /// Time between two probes of a peer. It is also the floor of the lag bound: a replica cannot
    /// know itself fresher than its last news of the primary (`docs/adr/0002-probe-interval.md`).
    pub probe_interval_ms: u64,
    /// Longest wait for a peer's answer.
    pub probe_ms_max: u64,
    /// A peer not heard of for this long is unreachable.
    pub stale_after_ms: u64,
    /// A replica that does not stream though its primary answers is not ready once its lag is more
    /// than this, or unknown: other regions are fresher.
    pub ready_lag_ms_max: u64,
}

impl Default for TopologyConfig {
    fn default() -> Self {
        Self {
            probe_interval_ms: 250,
            probe_ms_max: 1_500,
            stale_after_ms: 3_000,
            ready_lag_ms_max: 10_000,
        }
    }
}

impl TopologyConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        positive("topology.probe_interval_ms", self.probe_interval_ms)?;
        positive("topology.probe_ms_max", self.probe_ms_max)?;
        if self.stale_after_ms <= self.probe_interval_ms + self.probe_ms_max {
            let reason = "must be more than probe_interval_ms + probe_ms_max, or one slow probe makes a peer unreachable";
            return Err(ConfigError::invalid("topology.stale_after_ms", reason));
        }
        Ok(())
    }
}
