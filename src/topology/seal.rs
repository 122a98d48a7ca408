//! What regions say to each other is signed: claims, and the name of the key that signed them.
//!
//! The signature covers what the claims are *for*, so that one kind of them is never taken for
//! another (ASVS 5.0 V4.1.5, V13.2.1).

use crate::config::ClusterConfig;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::ExposeSecret as _;
use serde::{Serialize, de::DeserializeOwned};
use sha2::Sha256;
use std::collections::BTreeMap;

/// What claims can be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A forwarded request.
    Envelope,
    /// What one region asks of another, and its answer.
    Ask,
    Answer,
}

impl Purpose {
    const fn word(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Ask => "ask",
            Self::Answer => "answer",
        }
    }
}

/// Why claims are not believed. Never told to the sender in detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the envelope is not well formed")]
    Malformed,
    #[error("the envelope is signed with a key that is not known here")]
    UnknownKey,
    #[error("the envelope's signature does not fit")]
    Forged,
    #[error("the envelope's time is outside its seconds of life")]
    Expired,
    #[error("the envelope is for another region or request")]
    Misdirected,
}

/// The keys, ready to sign and verify.
#[derive(Clone)]
pub struct Sealer {
    keys: BTreeMap<String, Hmac<Sha256>>,
    current: String,
}

impl Sealer {
    #[must_use]
    pub fn new(cluster: &ClusterConfig) -> Self {
        let mac = |secret: &str| {
            Hmac::<Sha256>::new_from_slice(secret.as_bytes())
                .expect("HMAC takes a key of any length")
        };
        let keys = cluster.envelope_keys.iter();
        Self {
            keys: keys.map(|(name, key)| (name.clone(), mac(key.secret.expose_secret()))).collect(),
            current: cluster.envelope_key_current.clone(),
        }
    }

    /// `<key name>.<claims>.<mac>`, the last two base64url.
    ///
    /// # Panics
    /// Never on a validated configuration: the current key is one of the keys.
    #[must_use]
    pub fn seal(&self, purpose: Purpose, claims: &impl Serialize) -> String {
        let claims = serde_json::to_vec(claims).expect("claims are plain data");
        let mut sealed = format!("{}.{}", self.current, URL_SAFE_NO_PAD.encode(claims));
        let mut mac = self.keys.get(&self.current).expect("validated by ClusterConfig").clone();
        mac.update(purpose.word().as_bytes());
        mac.update(sealed.as_bytes());
        sealed.push('.');
        URL_SAFE_NO_PAD.encode_string(mac.finalize().into_bytes(), &mut sealed);
        sealed
    }

    /// The claims, if a key of the cluster has signed them for this purpose. Their time is theirs to
    /// be judged by the caller.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn open<T: DeserializeOwned>(&self, purpose: Purpose, sealed: &str) -> Result<T, Refused> {
        let (signed, tag) = sealed.rsplit_once('.').ok_or(Refused::Malformed)?;
        let (name, claims) = signed.split_once('.').ok_or(Refused::Malformed)?;
        let mut mac = self.keys.get(name).ok_or(Refused::UnknownKey)?.clone();
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| Refused::Malformed)?;
        mac.update(purpose.word().as_bytes());
        mac.update(signed.as_bytes());
        // Constant time.
        mac.verify_slice(&tag).map_err(|_| Refused::Forged)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| Refused::Malformed)?;
        serde_json::from_slice(&claims).map_err(|_| Refused::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EnvelopeKey;

    #[test]
    fn claims_for_one_purpose_are_not_taken_for_another() {
        let secret = "o".repeat(32).into();
        let cluster = ClusterConfig {
            envelope_keys: BTreeMap::from([("k".to_owned(), EnvelopeKey { secret })]),
            envelope_key_current: "k".to_owned(),
            ..ClusterConfig::default()
        };
        let sealer = Sealer::new(&cluster);
        let sealed = sealer.seal(Purpose::Ask, &7);
        assert_eq!(sealer.open(Purpose::Ask, &sealed), Ok(7));
        assert_eq!(sealer.open::<u8>(Purpose::Answer, &sealed), Err(Refused::Forged));
        assert_eq!(sealer.open::<u8>(Purpose::Envelope, &sealed), Err(Refused::Forged));
        assert_eq!(sealer.open::<String>(Purpose::Ask, &sealed), Err(Refused::Malformed));
    }
}
