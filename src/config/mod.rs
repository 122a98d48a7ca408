//! Settings: defaults in the code beside their reasons, then the file of `--config`, then
//! `GODWIT__SECTION__KEY` from the environment (`GODWIT__SECTION__KEY_FILE` names a file that
//! holds the value, for secrets). Unknown keys, and values that make no sense together, refuse to
//! start. This room alone reads the environment.

mod cluster;
mod database;
mod identity;
mod journal;
mod limits;
mod redis;
mod routing;
mod server;
mod telemetry;
mod topology;

pub use cluster::{ClusterConfig, EnvelopeKey, PeerTls, RegionConfig};
pub use database::DatabaseConfig;
pub use identity::IdentityConfig;
pub use journal::JournalConfig;
pub use limits::{Bucket, LimitsConfig};
pub use redis::RedisConfig;
pub use routing::{BreakerConfig, RoutingConfig};
pub use server::{InternalTls, ServerConfig};
pub use telemetry::TelemetryConfig;
pub use topology::TopologyConfig;

use crate::vocab::Region;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// Everything one process is told.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The region this process runs in; one of `regions`.
    pub region: Region,
    /// Every region of the cluster, this one too.
    pub regions: BTreeMap<Region, RegionConfig>,
    #[serde(default)]
    pub cluster: ClusterConfig,
    #[serde(default)]
    pub server: ServerConfig,
    pub database: DatabaseConfig,
    pub redis: RedisConfig,
    #[serde(default)]
    pub routing: RoutingConfig,
    #[serde(default)]
    pub topology: TopologyConfig,
    #[serde(default)]
    pub identity: IdentityConfig,
    #[serde(default)]
    pub limits: LimitsConfig,
    #[serde(default)]
    pub journal: JournalConfig,
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the settings cannot be read")]
    Read(#[from] config::ConfigError),
    #[error("{variable} names a file that cannot be read")]
    SecretFile { variable: String, source: std::io::Error },
    #[error("setting {key}: {reason}")]
    Invalid { key: &'static str, reason: String },
}

impl ConfigError {
    fn invalid(key: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { key, reason: reason.into() }
    }
}

impl Config {
    /// Reads, merges and validates.
    ///
    /// # Errors
    /// When a source cannot be read, a key is unknown or missing, or a value makes no sense.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_from(file, std::env::vars())
    }

    pub(crate) fn load_from(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder();
        if let Some(path) = file {
            builder = builder.add_source(config::File::from(path).format(config::FileFormat::Toml));
        }
        let variables = environment.filter(|(name, _)| name.starts_with("GODWIT__"));
        let mut values = std::collections::HashMap::new();
        for (name, value) in variables {
            match name.strip_suffix("_FILE") {
                Some(base) => {
                    let read = std::fs::read_to_string(&value);
                    let secret = read.map_err(|source| ConfigError::SecretFile {
                        variable: name.clone(),
                        source,
                    })?;
                    values
                        .insert(base.to_owned(), secret.trim_end_matches(['\r', '\n']).to_owned());
                }
                None => {
                    values.insert(name, value);
                }
            }
        }
        let environment = config::Environment::with_prefix("GODWIT")
            .prefix_separator("__")
            .separator("__")
            .try_parsing(true);
        builder = builder.add_source(environment.source(Some(values)));
        let config: Self = builder.build()?.try_deserialize()?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if !self.regions.contains_key(&self.region) {
            return Err(ConfigError::invalid("region", "is not one of [regions]"));
        }
        self.cluster.validate()?;
        self.server.validate()?;
        self.database.validate()?;
        self.routing.validate()?;
        self.topology.validate()?;
        self.identity.validate()?;
        self.limits.validate()?;
        self.journal.validate()?;
        self.telemetry.validate()
    }

    /// Every region but this one.
    pub fn peers(&self) -> impl Iterator<Item = (&Region, &RegionConfig)> {
        self.regions.iter().filter(|(name, _)| **name != self.region)
    }
}

/// Serialises a secret as a fixed word, for `godwit doctor`.
fn redacted<S: serde::Serializer>(_: &secrecy::SecretString, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str("[redacted]")
}

#[expect(clippy::ref_option, reason = "serde's serialize_with passes a reference to the field")]
fn redacted_option<S: serde::Serializer>(
    secret: &Option<secrecy::SecretString>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match secret {
        Some(_) => to.serialize_str("[redacted]"),
        None => to.serialize_none(),
    }
}

fn positive(key: &'static str, value: u64) -> Result<(), ConfigError> {
    if value == 0 { Err(ConfigError::invalid(key, "must be more than 0")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const MINIMAL: &str = r#"
        region = "us-east-1"
        [regions.us-east-1]
        internal_url = "http://127.0.0.1:9081"
        [database]
        url = "postgres://writer:w@127.0.0.1/godwit"
        read_url = "postgres://reader:r@127.0.0.1/godwit"
        [redis]
        url = "redis://127.0.0.1:6381"
        [cluster]
        envelope_key_current = "k1"
        [cluster.envelope_keys.k1]
        secret = "0123456789abcdef0123456789abcdef"
    "#;

    fn load(toml: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load_from(Some(file.path()), environment)
    }

    fn reason(error: &ConfigError) -> String {
        let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        format!("{error} {source}")
    }

    #[test]
    fn the_smallest_file_is_enough_and_the_environment_wins() {
        let config =
            load(MINIMAL, &[("GODWIT__SERVER__PUBLIC_ADDR", "127.0.0.1:7000"), ("HOME", "/")])
                .unwrap();
        assert_eq!(config.server.public_addr.port(), 7000);
        assert_eq!(config.peers().count(), 0);
    }

    #[test]
    fn refuses_unknown_keys_wherever_they_are() {
        for (toml, word) in [
            (format!("{MINIMAL}\n[server]\nprot = 1"), "prot"),
            (format!("colour = 1\n{MINIMAL}"), "colour"),
        ] {
            let error = load(&toml, &[]).unwrap_err();
            assert!(reason(&error).contains(word), "{error:?}");
        }
        assert!(load(MINIMAL, &[("GODWIT__SERVER__PROT", "1")]).is_err());
    }

    #[test]
    fn a_region_must_be_one_of_the_regions() {
        let error = load(&MINIMAL.replacen("us-east-1", "mars-1", 1), &[]).unwrap_err();
        assert!(reason(&error).contains("region"), "{error:?}");
    }

    #[test]
    fn a_secret_comes_from_a_file_and_never_shows() {
        let mut secret = tempfile::NamedTempFile::new().unwrap();
        secret.write_all(b"redis://:hush-hush@127.0.0.1:6381\n").unwrap();
        let path = secret.path().to_str().unwrap();
        let config = load(MINIMAL, &[("GODWIT__REDIS__URL_FILE", path)]).unwrap();
        assert_eq!(
            secrecy::ExposeSecret::expose_secret(&config.redis.url),
            "redis://:hush-hush@127.0.0.1:6381"
        );
        let shown = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("hush-hush") && !shown.contains("0123456789abcdef"), "{shown}");
    }

    #[test]
    fn a_missing_secret_file_is_an_error_that_names_the_variable() {
        let error = load(MINIMAL, &[("GODWIT__REDIS__URL_FILE", "/nonexistent")]).unwrap_err();
        assert!(error.to_string().contains("GODWIT__REDIS__URL_FILE"), "{error}");
    }
}
