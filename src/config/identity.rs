//! `[identity]`: how long a credential is believed, who may have an account, and what passwords cost.

use super::{ConfigError, SessionConfig, positive, redacted};
use crate::vocab::{Role, Scope};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// How long a process believes a credential it has looked up. A revocation is effective
    /// everywhere after the replication lag and this.
    pub credential_cache_ms: u64,
    /// Credentials remembered at most.
    pub credentials_cached_max: u64,
    /// `open`: whoever names a tenant may make an account there by `POST /v1/account`. `closed`: its
    /// administrators make them. The primary's setting counts.
    pub registration: Registration,
    /// What who has registered may do: `guest` nothing of the tenant's, `viewer` read all of it,
    /// `editor` write it too. An administrator changes it for each user.
    pub registration_role: Role,
    pub password: PasswordConfig,
    pub session: SessionConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    Open,
    Closed,
}

/// How passwords are hashed: argon2id, by the second of the equal choices of OWASP's Password Storage
/// Cheat Sheet (19 MiB, two passes, one lane).
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasswordConfig {
    /// Memory of one hash. What was hashed at other costs than these still opens.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
    /// Lanes of that memory. They are filled one after the other: more cost us as much as an attacker.
    pub lanes: u32,
    /// Hashes made at once by a process, each on a core of its own; who comes later waits for a turn. 0: half
    /// of the cores, 1 to 4. More would take cores from everybody's reads.
    pub at_once_max: u32,
    /// The pepper to hash with; without one, none.
    pub pepper_current: Option<String>,
    /// Keys without which a stolen table of hashes is worth nothing. All are accepted, so that a new one can
    /// be shipped everywhere before it is used; one that is taken away takes the passwords hashed with it
    /// along. Up to 8 of `a-z` and `0-9` name one, for the hash to say.
    pub peppers: BTreeMap<String, Pepper>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pepper {
    /// At least 32 characters from a random source.
    #[serde(serialize_with = "redacted")]
    pub secret: SecretString,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            credential_cache_ms: 2_000,
            credentials_cached_max: 100_000,
            registration: Registration::Open,
            // Whoever can name a tenant is not to read it.
            registration_role: Role::Guest,
            password: PasswordConfig::default(),
            session: SessionConfig::default(),
        }
    }
}

impl Default for PasswordConfig {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            passes: 2,
            lanes: 1,
            at_once_max: 0,
            pepper_current: None,
            peppers: BTreeMap::new(),
        }
    }
}

/// Past these a hash takes seconds, or the memory of everything else.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 100;
const LANES_MAX: u32 = 16;
const PEPPER_NAME_CHARS_MAX: usize = 8;

impl IdentityConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        positive("identity.credentials_cached_max", self.credentials_cached_max)?;
        // Nobody makes an administrator of themselves.
        if self.registration_role.scopes().contains(Scope::Admin) {
            let reason = "must be guest, viewer or editor";
            return Err(ConfigError::invalid("identity.registration_role", reason));
        }
        self.password.validate()?;
        self.session.validate()
    }
}

impl PasswordConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let within = |key, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::invalid(key, format!("must be {least} to {most}")))
            }
        };
        within("identity.password.lanes", self.lanes, 1, LANES_MAX)?;
        // RFC 9106 section 3.1: eight blocks of 1 KiB for each lane.
        within("identity.password.memory_kib", self.memory_kib, 8 * self.lanes, MEMORY_KIB_MAX)?;
        within("identity.password.passes", self.passes, 1, PASSES_MAX)?;
        let named = |name: &String| {
            (1..=PEPPER_NAME_CHARS_MAX).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if !self.peppers.keys().all(named) {
            let reason = "a name is not 1 to 8 of a-z and 0-9";
            return Err(ConfigError::invalid("identity.password.peppers", reason));
        }
        if self.peppers.values().any(|pepper| pepper.secret.expose_secret().len() < 32) {
            let reason = "a secret is shorter than 32 characters";
            return Err(ConfigError::invalid("identity.password.peppers", reason));
        }
        if self.pepper_current.as_ref().is_some_and(|name| !self.peppers.contains_key(name)) {
            let reason = "must name one of identity.password.peppers";
            return Err(ConfigError::invalid("identity.password.pepper_current", reason));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{MINIMAL, load};

    #[test]
    fn a_pepper_comes_from_a_file_and_is_not_shown() {
        let secret = "fedcba9876543210fedcba9876543210";
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, secret.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        let variables = [
            ("GODWIT__IDENTITY__PASSWORD__PEPPERS__P1__SECRET_FILE", path),
            ("GODWIT__IDENTITY__PASSWORD__PEPPER_CURRENT", "p1"),
        ];
        let config = load(MINIMAL, &variables).unwrap();
        let kept = &config.identity.password.peppers["p1"].secret;
        assert_eq!(secrecy::ExposeSecret::<str>::expose_secret(kept), secret);
        let shown = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains(secret));
    }

    #[test]
    fn what_would_not_hash_refuses_to_start() {
        for settings in [
            "registration = \"maybe\"",
            "registration_role = \"admin\"",
            "password.lanes = 0",
            "password.memory_kib = 7",
            "password.passes = 0",
            "password.pepper_current = \"p1\"",
            "password.peppers.p1.secret = \"short\"",
            "password.peppers.toolonganame.secret = \"0123456789abcdef0123456789abcdef\"",
        ] {
            let text = format!("{MINIMAL}\n[identity]\n{settings}");
            assert!(load(&text, &[]).is_err(), "{settings}");
        }
    }
}
