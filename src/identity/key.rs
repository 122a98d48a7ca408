//! API keys: `gw_<environment>_<random>`.
//!
//! The random part is 43 base62 characters (256 bits) and 6 that hold a CRC-32 of all before them,
//! so that a mistyped or made-up key is refused without a look-up. Only SHA-256 of the key is
//! stored: against 256 random bits a slow hash adds nothing.

use crate::vocab::{Malformed, Op, Rng};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

const RANDOM_CHARS: usize = 43;
const CHECK_CHARS: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Characters of a key that may be shown, enough to tell keys apart in a list.
const PREFIX_RANDOM_CHARS: usize = 4;

/// A whole key. Shown once, when made; `Debug` hides it.
#[derive(Debug, Clone)]
pub struct ApiKeySecret(SecretString);

impl ApiKeySecret {
    /// A new key for an environment such as `lab` or `live`.
    ///
    /// # Errors
    /// When the environment is not 1 to 16 of `a-z` and `0-9`.
    pub fn mint(op: &Op, environment: &str) -> Result<Self, Malformed> {
        if !environment_ok(environment) {
            return Err(Malformed::new("environment", "1 to 16 of a-z and 0-9"));
        }
        let mut key = format!("gw_{environment}_");
        push_random(&mut key, &*op.rng);
        let check = checksum(&key);
        key.push_str(&check);
        Ok(Self(key.into()))
    }

    /// Checks form and checksum; says nothing of whether the key exists.
    ///
    /// # Errors
    /// When it cannot be a key.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let bad = Malformed::new("API key", "gw_<environment>_<random>");
        let rest = text.strip_prefix("gw_").ok_or(bad.clone())?;
        let (environment, random) = rest.split_once('_').ok_or(bad.clone())?;
        let form = environment_ok(environment)
            && random.len() == RANDOM_CHARS + CHECK_CHARS
            && random.bytes().all(|b| b.is_ascii_alphanumeric());
        if !form {
            return Err(bad);
        }
        let (body, check) = text.split_at(text.len() - CHECK_CHARS);
        if checksum(body) == check { Ok(Self(text.into())) } else { Err(bad) }
    }

    /// What is stored and looked up.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.expose_secret().as_bytes()).into()
    }

    /// The part that lists show.
    #[must_use]
    pub fn prefix(&self) -> String {
        let text = self.0.expose_secret();
        text[..text.len() - RANDOM_CHARS - CHECK_CHARS + PREFIX_RANDOM_CHARS].to_owned()
    }

    /// The key itself, to be shown to its owner once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

fn environment_ok(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=16).contains(&text.len()) && text.bytes().all(ok)
}

/// Appends the random characters, each as likely as any other: bytes from 248 on, which 62 does not
/// divide evenly, are drawn again.
fn push_random(key: &mut String, rng: &dyn Rng) {
    const EVEN: u8 = 248;
    let mut left = RANDOM_CHARS;
    while left > 0 {
        let mut bytes = [0; RANDOM_CHARS];
        rng.fill(&mut bytes);
        for byte in bytes.into_iter().filter(|byte| *byte < EVEN).take(left) {
            key.push(char::from(BASE62[usize::from(byte % 62)]));
            left -= 1;
        }
    }
}

fn checksum(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut check = [b'0'; CHECK_CHARS];
    for slot in check.iter_mut().rev() {
        *slot = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    check.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{OpKind, SystemClock, rng::SeededRng};
    use std::{sync::Arc, time::Duration};

    fn op() -> Op {
        let rng = Arc::new(SeededRng::new(7));
        Op::new(OpKind::Test, Arc::new(SystemClock), rng, Duration::from_secs(1))
    }

    #[test]
    fn a_minted_key_parses_and_hides_itself() {
        let key = ApiKeySecret::mint(&op(), "lab").unwrap();
        assert!(key.reveal().starts_with("gw_lab_"));
        let parsed = ApiKeySecret::parse(key.reveal()).unwrap();
        assert_eq!(parsed.hash(), key.hash());
        assert!(!format!("{key:?}").contains(key.reveal()));
        assert_eq!(key.prefix().len(), "gw_lab_".len() + 4);
    }

    #[test]
    fn every_single_changed_character_is_noticed() {
        let key = ApiKeySecret::mint(&op(), "lab").unwrap();
        for index in 0..key.reveal().len() {
            let mut bytes = key.reveal().as_bytes().to_vec();
            bytes[index] = if bytes[index] == b'x' { b'y' } else { b'x' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(ApiKeySecret::parse(&changed).is_err(), "{index}");
        }
    }

    #[test]
    fn two_keys_differ() {
        let op = op();
        let keys = [ApiKeySecret::mint(&op, "a").unwrap(), ApiKeySecret::mint(&op, "a").unwrap()];
        assert_ne!(keys[0].hash(), keys[1].hash());
        assert!(ApiKeySecret::mint(&op, "Live").is_err());
        assert!(ApiKeySecret::mint(&op, "").is_err());
    }

    /// Fills with zeros, then with ones, and so on: each byte as often as any other.
    struct Counting(std::sync::atomic::AtomicU8);

    impl Rng for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }
    }

    #[test]
    fn every_character_is_as_likely_as_any_other() {
        let rng = Counting(0.into());
        let mut random = String::new();
        // As many as there are bytes that 62 divides evenly.
        for _ in 0..4 * 62 {
            push_random(&mut random, &rng);
        }
        for character in BASE62.map(char::from) {
            let times = random.chars().filter(|other| *other == character).count();
            assert_eq!(times, 4 * RANDOM_CHARS, "{character}");
        }
    }
}
