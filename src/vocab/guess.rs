//! Guesses: tries to sign in that have not been found to be right, and what they count against.

use super::{Email, Malformed, OpId, serde_as_text};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use sha2::{Digest as _, Sha256};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    time::Duration,
};

/// A guess that is older is not told to another region any more: nearly every bucket it could be taken
/// from has filled again.
pub const GUESS_AGE_MAX: Duration = Duration::from_hours(1);

/// What one region tells another at once: what its Redis takes in one script, in a few milliseconds.
/// More than this is refused, so a program that tells more must come after one that takes more.
pub const GUESSED_AT_ONCE_MAX: usize = 250;

/// An account that somebody tries to sign in to, whether it exists or not: a digest, so that no address
/// of a person stands where guesses are counted or told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account([u8; 16]);

impl Account {
    /// By the tenant's name, which need be nobody's either. Half of a SHA-256: two accounts that met by chance would only share a bucket.
    #[must_use]
    pub fn of(tenant: &str, email: &Email) -> Self {
        let digest = Sha256::new()
            .chain_update(tenant.as_bytes())
            // No name and no address has one.
            .chain_update([0])
            .chain_update(email.folded().as_bytes())
            .finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Self(half)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl FromStr for Account {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut half = [0; 16];
        hex::decode_to_slice(text, &mut half)
            .map_err(|_| Malformed::new("account", "32 hexadecimal digits"))?;
        Ok(Self(half))
    }
}

serde_as_text!(Account);

/// What one caller is known to own of the addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Network {
    V4(Ipv4Addr),
    /// An IPv6 caller owns at least a /64.
    V6([u16; 4]),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(out),
            Self::V6([a, b, c, d]) => {
                write!(out, "{}/64", Ipv6Addr::new(*a, *b, *c, *d, 0, 0, 0, 0))
            }
        }
    }
}

impl FromStr for Network {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let parsed = match text.strip_suffix("/64") {
            None => text.parse().map(Self::V4),
            Some(v6) => v6.parse().map(|v6: Ipv6Addr| {
                let [a, b, c, d, ..] = v6.segments();
                Self::V6([a, b, c, d])
            }),
        };
        parsed.map_err(|_| Malformed::new("network", "an IPv4 address or an IPv6 /64"))
    }
}

serde_as_text!(Network);

/// What a guess counts against.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Guessed {
    /// All that comes from there, whatever the account.
    Address(Network),
    /// The account, by all who have never signed in to it.
    Account(Account),
    /// The account, by one address that has signed in to it.
    Familiar { account: Account, address: Network },
}

/// As in the bucket's name in Redis.
impl fmt::Display for Guessed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(out),
            Self::Account(account) => account.fmt(out),
            Self::Familiar { account, address } => write!(out, "{account}:{address}"),
        }
    }
}

/// How many guesses at one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guess {
    pub at: Guessed,
    pub count: u32,
}

/// What one region tells another. Told twice it counts once, by its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guesses {
    pub id: OpId,
    /// [`GUESSED_AT_ONCE_MAX`] at most.
    #[serde(deserialize_with = "bounded")]
    pub all: Vec<Guess>,
}

fn bounded<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Guess>, D::Error> {
    let all = Vec::<Guess>::deserialize(from)?;
    if all.len() > GUESSED_AT_ONCE_MAX {
        return Err(D::Error::custom("more guesses than are told at once"));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{Op, OpKind};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_account_is_one_tenants_and_however_its_address_is_spelled() {
        let (here, there) = ("here", "there");
        let of = |tenant, email: &str| Account::of(tenant, &email.parse().unwrap());
        let ada = of(here, "Ada@Example.com");
        assert_eq!(ada, of(here, "ada@example.com"));
        assert_ne!(ada, of(there, "ada@example.com"));
        assert_ne!(ada, of(here, "eda@example.com"));
    }

    #[test]
    fn an_ipv6_caller_is_its_network() {
        let network = |text: &str| Network::from(ip(text));
        assert_eq!(network("2001:db8:1:2:3::1"), network("2001:db8:1:2:ffff::2"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("2001:db8:1:2:9::1").to_string(), "2001:db8:1:2::/64");
        assert_eq!(network("::ffff:192.0.2.1").to_string(), "192.0.2.1");
    }

    #[test]
    fn what_is_told_is_read_as_it_was_meant_and_no_longer_than_it_may_be() {
        let op = Op::system(OpKind::Test, Duration::ZERO);
        let account = Account::of("here", &"ada@example.com".parse().unwrap());
        let address = ip("2001:db8::1").into();
        let ats = [
            Guessed::Address(ip("192.0.2.1").into()),
            Guessed::Account(account),
            Guessed::Familiar { account, address },
        ];
        let all = ats.map(|at| Guess { at, count: 3 }).to_vec();
        let mut told = Guesses { id: OpId::mint(&op), all };
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(serde_json::from_str::<Guesses>(&text).unwrap(), told);
        assert!(!text.contains("ada"), "{text}");
        told.all = vec![told.all[0]; GUESSED_AT_ONCE_MAX + 1];
        let text = serde_json::to_string(&told).unwrap();
        assert!(serde_json::from_str::<Guesses>(&text).is_err());
    }
}
