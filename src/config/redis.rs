//! `[redis]`: the region's own Redis. It holds sessions, and what the region owes to their
//! directory: `appendonly yes` keeps that through a restart.

use super::redacted;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://`, or `rediss://` for TLS.
    #[serde(serialize_with = "redacted")]
    pub url: SecretString,
    /// The authority that signed the server's certificate (PEM), in the place of those that the system trusts.
    #[serde(default)]
    pub authority: Option<PathBuf>,
    /// Longest wait for an answer; past it the local bound is used.
    #[serde(default = "default_response_ms_max")]
    pub response_ms_max: u64,
}

fn default_response_ms_max() -> u64 {
    100
}
