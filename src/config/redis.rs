//! `[redis]`: the region's own Redis. It holds sessions, and what the region owes to their
//! directory: `appendonly yes` keeps that through a restart.

use super::redacted;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    #[serde(serialize_with = "redacted")]
    pub url: SecretString,
    /// Longest wait for an answer; past it the local bound is used.
    #[serde(default = "default_response_ms_max")]
    pub response_ms_max: u64,
}

fn default_response_ms_max() -> u64 {
    100
}
