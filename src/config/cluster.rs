//! `[cluster]` and `[regions.NAME]`: what all regions agree on.

use super::{ConfigError, redacted, redacted_option};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// One region, as the others reach it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RegionConfig {
    /// Base URL of the internal listener, `http://` in a laboratory, `https://` in production.
    pub internal_url: String,
    /// Base URL that clients use; told by `godwit status`, never connected to.
    #[serde(default)]
    pub public_url: Option<String>,
    /// How this region's Postgres reaches that one's to follow it: a libpq connection string of words
    /// (`host=... port=... user=...`), as a role with REPLICATION that may also be read for `pg_rewind`. Without it a failover leaves the
    /// following to a person.
    #[serde(default, serialize_with = "redacted_option")]
    pub replication: Option<SecretString>,
    /// What `failover.control` calls that region's database: the `Cluster`'s name, the ARN of the instance
    /// (RDS), or of the region's cluster (Aurora). Wanted for each region, with any but `postgres`.
    #[serde(default)]
    pub database: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Keys that sign what regions send each other. All are accepted, so that a new one can be
    /// shipped everywhere before it is used.
    pub envelope_keys: BTreeMap<String, EnvelopeKey>,
    /// The key to sign with.
    pub envelope_key_current: String,
    /// How this region proves itself to the others' internal listeners (mutual TLS).
    pub peer_tls: Option<PeerTls>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeKey {
    /// At least 32 characters from a random source.
    #[serde(serialize_with = "redacted")]
    pub secret: SecretString,
}

/// PEM files.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PeerTls {
    /// Certificate chain and private key that this region shows.
    pub identity: PathBuf,
    /// The authority that signed the other regions' certificates.
    pub authority: PathBuf,
}

impl ClusterConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !self.envelope_keys.contains_key(&self.envelope_key_current) {
            let reason = "must name one of cluster.envelope_keys";
            return Err(ConfigError::invalid("cluster.envelope_key_current", reason));
        }
        // 32 characters of base64 or hex hold at least 128 bits, what HMAC-SHA-256 wants at least.
        if self.envelope_keys.values().any(|key| key.secret.expose_secret().len() < 32) {
            return Err(ConfigError::invalid(
                "cluster.envelope_keys",
                "a secret is shorter than 32 characters",
            ));
        }
        Ok(())
    }
}
