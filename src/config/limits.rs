//! `[limits]`: token buckets, shared by a region's processes through Redis.

use super::{Cidr, ConfigError, positive};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Per credential.
    pub credential: Bucket,
    /// Per client address, whatever it carries.
    pub address: Bucket,
    /// Per client address, for requests whose credential is refused: guessing is slower than use.
    pub refused: Bucket,
    /// Per client address, for accounts that people make themselves: each costs a password's hash and a
    /// row. An office or a school behind one address still gets all its people in within a day.
    pub registration: SlowBucket,
    /// Per client address, for tries to sign in whose password is wrong, whatever the account. Higher: who
    /// tries one password at many accounts gets further. Lower: an office behind one address is held up by
    /// its own people's typing errors.
    pub sign_in_address: SlowBucket,
    /// Per account, for wrong passwords from all addresses together that have never signed in to it.
    /// Higher: a password is guessed sooner. Lower: a little malice keeps its owner from signing in from
    /// anywhere new.
    pub sign_in_account: SlowBucket,
    /// Per account and client address, for wrong passwords from an address that has signed in to the account
    /// before: its owner's own bucket, which nobody elsewhere can empty. Higher: who shares that address
    /// guesses sooner. Lower: typing errors lock the owner out.
    pub sign_in_familiar: SlowBucket,
    /// Per user, for sessions that they begin and for their own password where they show it to change it: who has
    /// somebody's session must not guess it, and nobody needs so many sessions.
    pub person: SlowBucket,
    /// Proxies whose `X-Forwarded-For` is believed, as addresses or networks (`10.0.0.0/8`). Of a network
    /// anybody in it is believed: name one that only proxies connect from. Empty: the peer address counts.
    #[serde(deserialize_with = "super::list")]
    pub trusted_proxies: Vec<Cidr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Tokens added each second.
    pub per_second: u32,
    /// Tokens it holds at most.
    pub burst: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SlowBucket {
    /// Tokens added each hour.
    pub per_hour: u32,
    /// Tokens it holds at most.
    pub burst: u32,
}

/// Either bucket, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Added in each [`Rate::per`].
    pub tokens: u32,
    pub per: Duration,
    pub burst: u32,
}

impl From<Bucket> for Rate {
    fn from(Bucket { per_second, burst }: Bucket) -> Self {
        Self { tokens: per_second, per: Duration::from_secs(1), burst }
    }
}
impl From<SlowBucket> for Rate {
    fn from(SlowBucket { per_hour, burst }: SlowBucket) -> Self {
        Self { tokens: per_hour, per: Duration::from_secs(3_600), burst }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            credential: Bucket { per_second: 1_000, burst: 2_000 },
            // Many users can share one address.
            address: Bucket { per_second: 2_000, burst: 4_000 },
            refused: Bucket { per_second: 50, burst: 200 },
            registration: SlowBucket { per_hour: 30, burst: 20 },
            sign_in_address: SlowBucket { per_hour: 120, burst: 30 },
            // 1,460 tries a day, however many try from wherever: hopeless against a password that
            // registration lets through.
            sign_in_account: SlowBucket { per_hour: 60, burst: 20 },
            sign_in_familiar: SlowBucket { per_hour: 60, burst: 10 },
            person: SlowBucket { per_hour: 120, burst: 60 },
            trusted_proxies: Vec::new(),
        }
    }
}

impl LimitsConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let rates = [self.credential, self.address, self.refused].map(Rate::from);
        let slow = [
            self.registration,
            self.sign_in_address,
            self.sign_in_account,
            self.sign_in_familiar,
            self.person,
        ];
        for rate in rates.into_iter().chain(slow.map(Rate::from)) {
            positive("limits", rate.tokens.into())?;
            positive("limits", rate.burst.into())?;
        }
        Ok(())
    }
}
