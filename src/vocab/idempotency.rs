//! Idempotency keys (draft-ietf-httpapi-idempotency-key-header-07).

use super::{Malformed, Op, UserId};
use sha2::{Digest as _, Sha256};
use std::{fmt, str::FromStr};

/// 1 to 255 visible ASCII characters that name one write of one tenant. The caller chooses it, or
/// the edge makes one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// One made at the edge: `edge-` and 128 random bits.
    #[must_use]
    pub fn mint(op: &Op) -> Self {
        let mut random = [0; 16];
        op.rng.fill(&mut random);
        Self(format!("edge-{}", hex::encode(random)))
    }
    /// What names this write where its sender is nobody known who is `called` so: `visitor-` and 256 bits,
    /// so that no stranger can take a key that a tenant's own clients use.
    #[must_use]
    pub fn of_a_visitor(&self, called: &str) -> Self {
        self.of("visitor", called)
    }
    /// What names this write where its sender is a person who is signed in: `person-` and 256 bits. What
    /// one person was answered is not another's to repeat, and the tenant's programs keep theirs.
    #[must_use]
    pub fn of_a_person(&self, user: UserId) -> Self {
        self.of("person", &user.to_string())
    }

    fn of(&self, whose: &str, called: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update((called.len() as u64).to_be_bytes());
        hash.update(called);
        hash.update(&self.0);
        Self(format!("{whose}-{}", hex::encode(hash.finalize())))
    }
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        if (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::new("Idempotency-Key", "1 to 255 visible ASCII characters"))
        }
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
super::serde_as_text!(IdempotencyKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_key_is_nobody_elses() {
        let key = |text: &str| text.parse::<IdempotencyKey>().unwrap();
        let ada = key("one").of_a_visitor("ada@example.com");
        assert_eq!(ada, key("one").of_a_visitor("ada@example.com"));
        assert_eq!(ada.as_str().parse(), Ok(ada.clone()));
        for other in [
            key("one"),
            key("one").of_a_visitor("eve@example.com"),
            key("two").of_a_visitor("ada@example.com"),
            // The same characters, told apart elsewhere.
            key("mone").of_a_visitor("ada@example.co"),
        ] {
            assert_ne!(ada, other);
        }
    }
}
