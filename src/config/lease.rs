//! `[lease]`: how long a primary may go on without hearing from a majority of regions.
//!
//! The same in every region: a region grants nothing to one that counts another term.

use super::{ConfigError, positive};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseConfig {
    /// What a region grants at a time. Longer: a lossy link stops fewer writes. Shorter: a promotion
    /// waits less for what the old primary was granted, and a region whose Redis was restarted
    /// grants again sooner.
    pub term_ms: u64,
    /// A process gives up its lease this long before it ends: for clocks that do not run at one
    /// speed, and for the way from a last look at the lease to the answer.
    pub margin_ms: u64,
    /// From one region's answer to the next request for its grant.
    pub renew_interval_ms: u64,
    /// Longest wait for a region's answer.
    pub renew_ms_max: u64,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { term_ms: 3_000, margin_ms: 300, renew_interval_ms: 800, renew_ms_max: 800 }
    }
}

impl LeaseConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        positive("lease.margin_ms", self.margin_ms)?;
        positive("lease.renew_interval_ms", self.renew_interval_ms)?;
        positive("lease.renew_ms_max", self.renew_ms_max)?;
        // The interval is stretched by up to a tenth.
        let between = self.renew_interval_ms + self.renew_interval_ms / 10 + self.renew_ms_max;
        if self.term_ms <= self.margin_ms + between {
            let reason = "must be more than margin_ms + 1.1 x renew_interval_ms + renew_ms_max, or the lease runs out between two renewals";
            return Err(ConfigError::invalid("lease.term_ms", reason));
        }
        Ok(())
    }
}
