//! `[identity]`: how long a credential is believed.

use super::{ConfigError, positive};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// How long a process believes a credential it has looked up. A revocation is effective
    /// everywhere after the replication lag and this.
    pub credential_cache_ms: u64,
    /// Credentials remembered at most.
    pub credentials_cached_max: u64,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self { credential_cache_ms: 2_000, credentials_cached_max: 100_000 }
    }
}

impl IdentityConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        positive("identity.credentials_cached_max", self.credentials_cached_max)
    }
}
