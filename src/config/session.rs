//! `[identity.session]`: how long somebody stays signed in, and what their tokens are signed with.

use super::{ClusterConfig, ConfigError, positive, redacted};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// Who does nothing for so long is signed out.
    pub idle_seconds_max: u32,
    /// Who does something all the time is signed out after this.
    pub lasts_seconds_max: u32,
    /// Sessions that a user may have. Beyond them the oldest end.
    pub each_max: u32,
    /// How long a process believes a session that it has looked up. Its own region's changes are heard
    /// sooner; this bounds what was looked up just before one.
    pub cache_ms: u64,
    /// Routes that are `strict` ask the primary about a session when this region's replica is older than
    /// this, or of unknown age.
    pub strict_lag_ms_max: u64,
    /// Signing in reads from the primary when this region's replica is older than this, or of unknown age;
    /// from the replica all the same while there is no primary.
    pub sign_in_lag_ms_max: u64,
    /// How long signing in, or out, waits for the primary to record it, and then for the other regions to note it; it is recorded later
    /// otherwise.
    pub record_ms_max: u64,
    /// The key that tokens are signed with. Needed where there are `mac_keys`.
    pub mac_key_current: Option<String>,
    /// Keys that tokens are signed with. All are accepted, so that a new one can be shipped everywhere
    /// before it is used; one that is taken away signs out whose token it signed. Without any, keys are made
    /// of `cluster.envelope_keys`, and changing those signs people out.
    pub mac_keys: BTreeMap<String, MacKey>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MacKey {
    /// At least 32 characters from a random source.
    #[serde(serialize_with = "redacted")]
    pub secret: SecretString,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            idle_seconds_max: 86_400,
            lasts_seconds_max: 604_800,
            each_max: 100,
            cache_ms: 500,
            strict_lag_ms_max: 1_000,
            sign_in_lag_ms_max: 5_000,
            record_ms_max: 1_500,
            mac_key_current: None,
            mac_keys: BTreeMap::new(),
        }
    }
}

/// A token is tried with each of them.
const KEYS_MAX: usize = 8;

impl SessionConfig {
    #[must_use]
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds_max.into())
    }

    #[must_use]
    pub fn lasts(&self) -> Duration {
        Duration::from_secs(self.lasts_seconds_max.into())
    }

    /// How often the directory hears that a session is in use. What it says is older by up to this.
    #[must_use]
    pub fn told_every(&self) -> Duration {
        self.idle() / 24
    }

    /// The secrets that tokens are signed with, the current one first.
    #[must_use]
    pub fn secrets<'a>(&'a self, cluster: &'a ClusterConfig) -> Vec<&'a SecretString> {
        let (current, all): (_, BTreeMap<&String, &SecretString>) = if self.mac_keys.is_empty() {
            let all = cluster.envelope_keys.iter().map(|(name, key)| (name, &key.secret));
            (Some(&cluster.envelope_key_current), all.collect())
        } else {
            let all = self.mac_keys.iter().map(|(name, key)| (name, &key.secret));
            (self.mac_key_current.as_ref(), all.collect())
        };
        let first = all.iter().filter(|(name, _)| Some(**name) == current);
        let others = all.iter().filter(|(name, _)| Some(**name) != current);
        first.chain(others).map(|(_, secret)| *secret).collect()
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        positive("identity.session.idle_seconds_max", self.idle_seconds_max.into())?;
        positive("identity.session.each_max", self.each_max.into())?;
        if self.lasts_seconds_max < self.idle_seconds_max {
            let reason = "must not be less than identity.session.idle_seconds_max";
            return Err(ConfigError::invalid("identity.session.lasts_seconds_max", reason));
        }
        if self.mac_keys.len() > KEYS_MAX {
            let reason = format!("must be at most {KEYS_MAX}");
            return Err(ConfigError::invalid("identity.session.mac_keys", reason));
        }
        if self.mac_keys.values().any(|key| key.secret.expose_secret().len() < 32) {
            let reason = "a secret is shorter than 32 characters";
            return Err(ConfigError::invalid("identity.session.mac_keys", reason));
        }
        let named =
            self.mac_key_current.as_ref().is_some_and(|name| self.mac_keys.contains_key(name));
        if named || self.mac_keys.is_empty() && self.mac_key_current.is_none() {
            return Ok(());
        }
        let reason = "must name one of identity.session.mac_keys";
        Err(ConfigError::invalid("identity.session.mac_key_current", reason))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{MINIMAL, load};

    #[test]
    fn tokens_are_signed_with_keys_of_their_own_or_those_of_the_cluster() {
        let config = load(MINIMAL, &[]).unwrap();
        let secrets = config.identity.session.secrets(&config.cluster).len();
        assert_eq!(secrets, config.cluster.envelope_keys.len());
        let own = "[identity.session]\nmac_key_current = \"b\"\n\
            mac_keys.a.secret = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"\n\
            mac_keys.b.secret = \"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"";
        let config = load(&format!("{MINIMAL}\n{own}"), &[]).unwrap();
        let secrets = config.identity.session.secrets(&config.cluster);
        let first = |secret: &secrecy::SecretString| {
            secrecy::ExposeSecret::<str>::expose_secret(secret).chars().next()
        };
        assert_eq!(secrets.into_iter().filter_map(first).collect::<String>(), "ba");
    }

    #[test]
    fn what_would_sign_nobody_in_refuses_to_start() {
        for settings in [
            "idle_seconds_max = 0",
            "lasts_seconds_max = 3600",
            "mac_key_current = \"a\"",
            "mac_keys.a.secret = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
            "mac_key_current = \"a\"\nmac_keys.a.secret = \"short\"",
        ] {
            let text = format!("{MINIMAL}\n[identity.session]\n{settings}");
            assert!(load(&text, &[]).is_err(), "{settings}");
        }
    }
}
