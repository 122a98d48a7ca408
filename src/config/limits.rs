//! `[limits]`: token buckets, shared by a region's processes through Redis.

use super::{ConfigError, positive};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Per credential.
    pub credential: Bucket,
    /// Per client address, whatever it carries.
    pub address: Bucket,
    /// Per client address, for requests whose credential is refused: guessing is slower than use.
    pub refused: Bucket,
    /// Proxies whose `X-Forwarded-For` is believed, as addresses. Empty: the peer address counts.
    #[serde(deserialize_with = "super::list")]
    pub trusted_proxies: Vec<std::net::IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Tokens added each second.
    pub per_second: u32,
    /// Tokens it holds at most.
    pub burst: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            credential: Bucket { per_second: 1_000, burst: 2_000 },
            // Many users can share one address.
            address: Bucket { per_second: 2_000, burst: 4_000 },
            refused: Bucket { per_second: 50, burst: 200 },
            trusted_proxies: Vec::new(),
        }
    }
}

impl LimitsConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        for bucket in [self.credential, self.address, self.refused] {
            positive("limits", bucket.per_second.into())?;
            positive("limits", bucket.burst.into())?;
        }
        Ok(())
    }
}
