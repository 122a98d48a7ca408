//! Settings: defaults in the code beside their reasons, then the file of `--config`, then
//! `GODWIT__SECTION__KEY` from the environment (`GODWIT__SECTION__KEY_FILE` names a file that
//! holds the value, for secrets). Unknown keys, and values that make no sense together, refuse to
//! start. This room alone reads the environment.

pub mod broken;
mod cidr;
mod cluster;
mod database;
mod failover;
mod identity;
mod journal;
mod lease;
mod limits;
mod redis;
#[cfg(test)]
mod reference;
mod routing;
mod server;
mod session;
mod telemetry;
#[cfg(test)]
pub mod testing;
mod topology;

pub use cidr::Cidr;
pub use cluster::{ClusterConfig, EnvelopeKey, PeerTls, RegionConfig};
pub use database::DatabaseConfig;
pub use failover::{Durability, FailoverConfig};
pub use identity::{IdentityConfig, PasswordConfig, Pepper, Registration};
pub use journal::JournalConfig;
pub use lease::LeaseConfig;
pub use limits::{Bucket, LimitsConfig, Rate, SlowBucket};
pub use redis::RedisConfig;
pub use routing::{BreakerConfig, RoutingConfig};
pub use server::{InternalTls, ServerConfig};
pub use session::{MacKey, SessionConfig};
pub use telemetry::TelemetryConfig;
pub use topology::TopologyConfig;

use crate::vocab::{Platform, Region};
use serde::{
    Deserialize, Serialize,
    de::{SeqAccess, Visitor},
};
use std::{collections::BTreeMap, fmt, marker::PhantomData, path::Path, str::FromStr};

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
    pub lease: LeaseConfig,
    #[serde(default)]
    pub failover: FailoverConfig,
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
        // Each value stays the text it is, for only the field knows what it means: a secret of digits
        // alone is no number. Fields of numbers, booleans and lists take text.
        let environment =
            config::Environment::with_prefix("GODWIT").prefix_separator("__").separator("__");
        builder = builder.add_source(environment.source(Some(values)));
        let mut config: Self = builder.build()?.try_deserialize()?;
        config.database.suit(config.failover.durability);
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
        self.lease.validate()?;
        self.failover.validate()?;
        let nameless = self.regions.values().any(|facts| facts.database.is_none());
        if nameless && self.failover.control != Platform::Postgres {
            let why = "is wanted for every region, with any `failover.control` but postgres";
            return Err(ConfigError::invalid("regions.NAME.database", why));
        }
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

/// A list as such, or as one text with commas between, which is all that an environment has.
fn list<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + FromStr<Err: fmt::Display>,
{
    struct List<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de> + FromStr<Err: fmt::Display>> Visitor<'de> for List<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list, or a text with commas between its entries")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            if text.trim().is_empty() {
                return Ok(Vec::new());
            }
            let entry = |entry: &str| entry.trim().parse().map_err(E::custom);
            text.split(',').map(entry).collect()
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(entry) = entries.next_element()? {
                list.push(entry);
            }
            Ok(list)
        }
    }
    from.deserialize_any(List(PhantomData))
}

fn positive(key: &'static str, value: u64) -> Result<(), ConfigError> {
    if value == 0 { Err(ConfigError::invalid(key, "must be more than 0")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{MINIMAL, load},
        *,
    };
    use std::io::Write as _;

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

    #[cfg(feature = "platforms")]
    #[test]
    fn a_platform_is_given_what_it_calls_every_database_and_promises_what_it_can_keep() {
        let with = |more: &str, named: bool| {
            let name = if named { "database = \"arn\"\n" } else { "" };
            let text = MINIMAL.replacen("internal_url", &format!("{name}internal_url"), 1);
            load(&format!("{text}\n[failover]\n{more}"), &[])
        };
        for control in ["cloudnativepg", "rds"] {
            with(&format!("control = \"{control}\""), true).unwrap();
        }
        with("control = \"aurora\"\nglobal_database = \"all\"", true).unwrap();
        let refused = [
            ("control = \"rds\"", false, "regions.NAME.database"),
            ("control = \"aurora\"", true, "failover.global_database"),
            ("control = \"rds\"\nglobal_database = \"all\"", true, "failover.global_database"),
            ("control = \"rds\"\ndurability = \"quorum\"", true, "failover.durability"),
            ("control = \"rds\"\nautomatic = true", true, "failover.automatic"),
            ("control = \"rds\"\nagent = [\"a\"]", true, "failover.agent"),
        ];
        for (settings, named, wanted) in refused {
            let error = with(settings, named).unwrap_err();
            assert!(reason(&error).contains(wanted), "{settings}: {error:?}");
        }
    }

    #[cfg(not(feature = "platforms"))]
    #[test]
    fn a_platform_that_the_build_cannot_talk_to_is_refused() {
        let text = MINIMAL.replacen("internal_url", "database = \"arn\"\ninternal_url", 1);
        let error = load(&format!("{text}\n[failover]\ncontrol = \"rds\""), &[]).unwrap_err();
        assert!(reason(&error).contains("failover.control"), "{error:?}");
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

    #[test]
    fn text_of_the_environment_arrives_as_it_is() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"1e400\n").unwrap();
        let digits = "00112233445566778899001122334455";
        let config = load(
            MINIMAL,
            &[
                ("GODWIT__CLUSTER__ENVELOPE_KEYS__007__SECRET", digits),
                ("GODWIT__CLUSTER__ENVELOPE_KEY_CURRENT", "007"),
                ("GODWIT__DATABASE__URL", "TRUE"),
                ("GODWIT__DATABASE__READ_URL_FILE", file.path().to_str().unwrap()),
                ("GODWIT__REDIS__URL", "+1,5"),
            ],
        )
        .unwrap();
        let shown = |secret| secrecy::ExposeSecret::<str>::expose_secret(secret).to_owned();
        assert_eq!(config.cluster.envelope_key_current, "007");
        assert_eq!(shown(&config.cluster.envelope_keys["007"].secret), digits);
        assert_eq!(shown(&config.database.url), "TRUE");
        assert_eq!(shown(&config.database.read_url), "1e400");
        assert_eq!(shown(&config.redis.url), "+1,5");
    }

    #[test]
    fn numbers_and_lists_come_from_the_environment_too() {
        let config = load(
            MINIMAL,
            &[
                ("GODWIT__SERVER__WORKERS", "3"),
                ("GODWIT__TELEMETRY__SAMPLE_RATIO", "0.25"),
                ("GODWIT__LIMITS__CREDENTIAL__PER_SECOND", "7"),
                ("GODWIT__LIMITS__CREDENTIAL__BURST", "9"),
                ("GODWIT__LIMITS__TRUSTED_PROXIES", "10.0.0.1, ::1"),
            ],
        )
        .unwrap();
        assert_eq!(config.server.workers, 3);
        assert!((config.telemetry.sample_ratio - 0.25).abs() < f64::EPSILON);
        assert_eq!(config.limits.credential, Bucket { per_second: 7, burst: 9 });
        let proxies: [Cidr; 2] = ["10.0.0.1", "::1"].map(|text| text.parse().unwrap());
        assert_eq!(config.limits.trusted_proxies, proxies);

        let networks = load(MINIMAL, &[("GODWIT__LIMITS__TRUSTED_PROXIES", "10.0.0.0/8")]);
        let networks = networks.unwrap().limits.trusted_proxies;
        assert!(networks[0].contains("10.9.9.9".parse().unwrap()));
        let listed = format!("{MINIMAL}\n[limits]\ntrusted_proxies = [\"10.0.0.1\", \"::1\"]");
        assert_eq!(load(&listed, &[]).unwrap().limits.trusted_proxies, proxies);
        let emptied = load(&listed, &[("GODWIT__LIMITS__TRUSTED_PROXIES", "")]).unwrap();
        assert!(emptied.limits.trusted_proxies.is_empty());
        for (name, value) in [
            ("GODWIT__LIMITS__TRUSTED_PROXIES", "10.0.0.1,,::1"),
            ("GODWIT__LIMITS__TRUSTED_PROXIES", "everyone"),
            ("GODWIT__SERVER__WORKERS", "many"),
            ("GODWIT__SERVER__WORKERS", "-1"),
            ("GODWIT__SERVER__WORKERS", "1.5"),
        ] {
            assert!(load(MINIMAL, &[(name, value)]).is_err(), "{name}={value}");
        }
    }
}
