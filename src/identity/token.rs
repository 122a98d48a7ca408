//! Session tokens: `v1.<region>.<random>.<mac>`.
//!
//! The random part is 32 bytes, the MAC the first 16 of HMAC-SHA-256 over all before it, both base64url. The
//! MAC lets a made-up token cost a hash and no look-up. The region is where the session was begun: it picks
//! one of the regions in the settings, and is never an address. Only SHA-256 of the token is kept.

use crate::{
    config::{ClusterConfig, SessionConfig},
    vocab::{Malformed, Op, Region, Rng, TokenHash},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

const RANDOM_BYTES: usize = 32;
const MAC_BYTES: usize = 16;
/// What every such token begins with.
pub const PREFIX: &str = "v1.";
/// What is signed begins with what it is, so that nothing signed passes for something else.
const SESSION: &[u8] = b"session-token:";
const FORM: &[u8] = b"form:";

/// A token whose MAC fits. `Debug` hides it.
#[derive(Debug, Clone)]
pub struct SessionToken {
    text: SecretString,
    home: Region,
}

impl SessionToken {
    /// The region that began the session.
    #[must_use]
    pub const fn home(&self) -> &Region {
        &self.home
    }

    /// What is stored and looked up.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::new(Sha256::digest(self.text.expose_secret().as_bytes()).into())
    }

    /// The token itself, for its owner.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.text.expose_secret()
    }
}

/// The keys, ready to sign and verify.
#[derive(Clone)]
pub struct TokenKeys {
    /// The current one first.
    keys: Vec<Hmac<Sha256>>,
    /// The same, for what forms bring back.
    forms: Vec<Hmac<Sha256>>,
}

impl TokenKeys {
    #[must_use]
    pub fn new(config: &SessionConfig, cluster: &ClusterConfig) -> Self {
        let mac = |secret: &SecretString, purpose: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
                .expect("HMAC takes a key of any length");
            mac.update(purpose);
            mac
        };
        let secrets = config.secrets(cluster);
        let all = |purpose| secrets.iter().map(|secret| mac(secret, purpose)).collect();
        Self { keys: all(SESSION), forms: all(FORM) }
    }

    /// What a form that was shown to this browser in this session brings back: it shows that the page was
    /// ours. Says nothing of either.
    ///
    /// # Panics
    /// Never on validated settings, which have a key.
    #[must_use]
    pub fn form_tag(&self, browser: &str, session: Option<&str>) -> String {
        let mac = self.forms.first().expect("settings were validated");
        let tag = form_mac(mac, browser, session).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode(&tag[..MAC_BYTES])
    }

    /// Whether a form with this tag was shown to this browser in this session.
    #[must_use]
    pub fn is_form_tag(&self, tag: &str, browser: &str, session: Option<&str>) -> bool {
        let Ok(tag) = URL_SAFE_NO_PAD.decode(tag) else { return false };
        // Constant time.
        let fits = |mac| form_mac(mac, browser, session).verify_truncated_left(&tag).is_ok();
        tag.len() == MAC_BYTES && self.forms.iter().any(fits)
    }

    /// A new token of this region.
    ///
    /// # Panics
    /// Never on validated settings, which have a key.
    #[must_use]
    pub fn mint(&self, home: &Region, op: &Op) -> SessionToken {
        let mut random = [0; RANDOM_BYTES];
        Rng::fill(&*op.rng, &mut random);
        let mut text = format!("{PREFIX}{home}.{}", URL_SAFE_NO_PAD.encode(random));
        let mut mac = self.keys.first().expect("settings were validated").clone();
        mac.update(text.as_bytes());
        let tag = mac.finalize().into_bytes();
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(&tag[..MAC_BYTES], &mut text);
        SessionToken { text: text.into(), home: home.clone() }
    }

    /// Checks form and MAC; says nothing of whether there is such a session.
    ///
    /// # Errors
    /// When no key of ours has signed it.
    pub fn parse(&self, text: &str) -> Result<SessionToken, Malformed> {
        let bad = || Malformed::new("session token", "v1.<region>.<random>.<mac>");
        let (signed, tag) = text.rsplit_once('.').ok_or_else(bad)?;
        let (home, random) =
            signed.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')).ok_or_else(bad)?;
        let decoded = URL_SAFE_NO_PAD.decode(random).map_err(|_| bad())?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| bad())?;
        if decoded.len() != RANDOM_BYTES || tag.len() != MAC_BYTES {
            return Err(bad());
        }
        let ours = self.keys.iter().any(|key| {
            let mut mac = key.clone();
            mac.update(signed.as_bytes());
            // Constant time.
            mac.verify_truncated_left(&tag).is_ok()
        });
        if !ours {
            return Err(bad());
        }
        Ok(SessionToken { text: text.into(), home: home.parse()? })
    }
}

fn form_mac(key: &Hmac<Sha256>, browser: &str, session: Option<&str>) -> Hmac<Sha256> {
    let mut mac = key.clone();
    // Of one length, so that where the token begins is beyond doubt.
    mac.update(&Sha256::digest(browser.as_bytes()));
    mac.update(session.unwrap_or_default().as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::MacKey, vocab::OpKind};
    use std::{collections::BTreeMap, time::Duration};

    fn op() -> Op {
        Op::system(OpKind::Test, Duration::from_secs(1))
    }

    /// Keys of these letters, the first the current one.
    fn keys(letters: &str) -> TokenKeys {
        let key = |c: char| (c.to_string(), MacKey { secret: c.to_string().repeat(32).into() });
        let config = SessionConfig {
            mac_key_current: letters.chars().next().map(String::from),
            mac_keys: letters.chars().map(key).collect::<BTreeMap<_, _>>(),
            ..SessionConfig::default()
        };
        TokenKeys::new(&config, &ClusterConfig::default())
    }

    #[test]
    fn a_token_of_any_known_key_is_known_again() {
        let home: Region = "ap-south-1".parse().unwrap();
        let token = keys("a").mint(&home, &op());
        let parsed = keys("ba").parse(token.reveal()).unwrap();
        assert_eq!((parsed.home(), parsed.hash()), (&home, token.hash()));
        assert!(keys("b").parse(token.reveal()).is_err());
        assert!(!format!("{token:?}").contains(token.reveal()));
        assert_ne!(keys("a").mint(&home, &op()).hash(), token.hash());
    }

    #[test]
    fn any_changed_missing_or_added_character_is_noticed() {
        let keys = keys("a");
        let token = keys.mint(&"eu-west-1".parse().unwrap(), &op());
        let text = token.reveal();
        for index in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            assert!(keys.parse(std::str::from_utf8(&bytes).unwrap()).is_err(), "{index}");
            assert!(keys.parse(&text[..index]).is_err(), "{index}");
        }
        for text in [format!("{text}A"), format!("{text}."), text.replacen("v1", "v2", 1)] {
            assert!(keys.parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_claim_that_regions_send_each_other_is_no_token() {
        // The keys can be the same ones.
        let secret: SecretString = "a".repeat(32).into();
        let home = "v1.eu-west-1.";
        let random = URL_SAFE_NO_PAD.encode([7; RANDOM_BYTES]);
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).unwrap();
        mac.update(format!("{home}{random}").as_bytes());
        let tag = URL_SAFE_NO_PAD.encode(&mac.finalize().into_bytes()[..MAC_BYTES]);
        assert!(keys("a").parse(&format!("{home}{random}.{tag}")).is_err());
    }

    #[test]
    fn a_form_is_known_again_by_the_browser_and_the_session_that_it_was_shown_to() {
        let tag = keys("a").form_tag("browser", Some("v1.x"));
        let fits = |letters: &str, tag: &str, browser: &str, session: Option<&str>| {
            keys(letters).is_form_tag(tag, browser, session)
        };
        assert!(fits("ba", &tag, "browser", Some("v1.x")));
        for (letters, browser, session) in [
            ("b", "browser", Some("v1.x")),
            ("a", "another", Some("v1.x")),
            ("a", "browser", Some("v1.y")),
            ("a", "browser", None),
            ("a", "browserv1.x", None),
        ] {
            assert!(!fits(letters, &tag, browser, session), "{letters} {browser} {session:?}");
        }
        for tag in ["", "A", &tag[..8], "not base64!"] {
            assert!(!fits("a", tag, "browser", Some("v1.x")), "{tag}");
        }
        // What signs a form signs no token.
        let home: Region = "us-east-1".parse().unwrap();
        let token = keys("a").mint(&home, &op());
        let (signed, _) = token.reveal().rsplit_once('.').unwrap();
        let forged = format!("{signed}.{}", keys("a").form_tag(signed, None));
        assert!(keys("a").parse(&forged).is_err());
    }
}
