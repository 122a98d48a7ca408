//! The signed envelope of a forwarded request.
//!
//! It binds who asked, as the edge resolved it, to exactly one request: method, path, digest of the
//! body, origin and audience, epoch, idempotency key and time. A replay
//! within its seconds of life repeats a write whose key is in the journal, so it changes nothing.
//!
//! A refused write leaves no record, so that a first attempt held up on the way could still be
//! carried out after the edge has told the refusal of the second. Therefore an envelope is good for
//! no longer than the edge waits, and [`CLOCKS_APART`].

pub use crate::topology::seal::Refused;

use crate::{
    config::ClusterConfig,
    topology::seal::{self, Purpose},
    vocab::{ApiKeyId, Bookmark, Epoch, IdempotencyKey, Region, SessionId, UserId},
};
use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The header that carries it, between regions only.
pub const HEADER: &str = "godwit-envelope";

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bearer {
    /// Resolved at the edge.
    Key(ApiKeyId),
    /// A session, looked up at the edge. The primary judges it by its own directory.
    Session { id: SessionId, user: UserId, generation: i64 },
    /// Well formed, but not in the edge's replica, which may only be behind: the primary decides.
    Unresolved {
        /// SHA-256 of the API key, hexadecimal.
        hash: String,
    },
    /// Nobody has to be known.
    Anyone,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    pub from: Region,
    pub to: Region,
    /// The epoch in which `to` is the primary.
    pub epoch: Epoch,
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    /// SHA-256 of the body, hexadecimal.
    pub body: String,
    pub bearer: Bearer,
    pub key: Option<IdempotencyKey>,
    pub bookmark: Option<Bookmark>,
    /// As `Godwit-Consistency` spells it.
    pub consistency: String,
    /// Milliseconds the edge will still wait: as sealed, from `sealed_at`; as opened, from then.
    pub remaining_ms: u64,
    pub sealed_at: DateTime<Utc>,
}

/// How far a sender's clock may be behind ours before its envelopes are refused too soon. Clocks
/// kept by NTP differ by milliseconds, and by up to a second for a day when one of them smears a leap
/// second and the other does not; more would only let late attempts live longer.
pub const CLOCKS_APART: std::time::Duration = std::time::Duration::from_secs(2);

/// Signs and opens envelopes.
#[derive(Clone)]
pub struct Sealer {
    inner: seal::Sealer,
    life: Duration,
}

impl Sealer {
    #[must_use]
    pub fn new(cluster: &ClusterConfig, seconds_max: u32) -> Self {
        let life = Duration::seconds(i64::from(seconds_max));
        Self { inner: seal::Sealer::new(cluster), life }
    }

    #[must_use]
    pub fn seal(&self, envelope: &Envelope) -> String {
        self.inner.seal(Purpose::Envelope, envelope)
    }

    /// Opens an envelope that reached `region` with this request, and takes from its remaining time
    /// what has passed for certain.
    ///
    /// # Errors
    /// Whatever does not fit; see [`Refused`].
    pub fn open(
        &self,
        sealed: &str,
        region: &Region,
        request: &RequestFacts<'_>,
        now: DateTime<Utc>,
    ) -> Result<Envelope, Refused> {
        let mut envelope: Envelope = self.inner.open(Purpose::Envelope, sealed)?;
        // Both ways: the two regions' clocks differ.
        if (now - envelope.sealed_at).abs() > self.life {
            return Err(Refused::Expired);
        }
        // Zero for a sender whose clock is ahead.
        let passed = (now - envelope.sealed_at).to_std().unwrap_or_default();
        let passed = u64::try_from(passed.saturating_sub(CLOCKS_APART).as_millis());
        let passed_ms = passed.map_err(|_| Refused::Expired)?;
        if passed_ms > envelope.remaining_ms {
            return Err(Refused::Expired);
        }
        envelope.remaining_ms -= passed_ms;
        let fits = envelope.to == *region
            && envelope.method == request.method
            && envelope.path == request.path
            && envelope.body == request.body;
        if fits { Ok(envelope) } else { Err(Refused::Misdirected) }
    }
}

/// The request that an envelope came with.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// [`body_digest`] of the body.
    pub body: &'a str,
}

/// SHA-256, hexadecimal.
#[must_use]
pub fn body_digest(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EnvelopeKey;
    use std::collections::BTreeMap;

    fn sealer(current: &str) -> Sealer {
        let key = |c: char| EnvelopeKey { secret: c.to_string().repeat(32).into() };
        let keys = BTreeMap::from([("old".to_owned(), key('o')), ("new".to_owned(), key('n'))]);
        let cluster = ClusterConfig {
            envelope_keys: keys,
            envelope_key_current: current.to_owned(),
            ..ClusterConfig::default()
        };
        Sealer::new(&cluster, 30)
    }
    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }
    fn envelope() -> Envelope {
        Envelope {
            from: "eu-west-1".parse().unwrap(),
            to: "us-east-1".parse().unwrap(),
            epoch: Epoch::FIRST,
            method: "POST".into(),
            path: "/v1/collections/a/items?x=1".into(),
            body: body_digest(b"{}"),
            bearer: Bearer::Unresolved { hash: "00".into() },
            key: Some("k".parse().unwrap()),
            bookmark: None,
            consistency: "session".into(),
            remaining_ms: 5_000,
            sealed_at: at(0),
        }
    }
    fn open(sealed: &str, body: &[u8], seconds: i64) -> Result<Envelope, Refused> {
        let body = body_digest(body);
        let path = "/v1/collections/a/items?x=1";
        let facts = RequestFacts { method: "POST", path, body: &body };
        sealer("new").open(sealed, &"us-east-1".parse().unwrap(), &facts, at(seconds))
    }

    #[test]
    fn opens_what_any_known_key_sealed() {
        for key in ["old", "new"] {
            assert_eq!(open(&sealer(key).seal(&envelope()), b"{}", 2), Ok(envelope()));
        }
    }

    #[test]
    fn refuses_another_body_time_region_or_key() {
        let sealed = sealer("new").seal(&envelope());
        assert_eq!(open(&sealed, b"{ }", 0), Err(Refused::Misdirected));
        assert_eq!(open(&sealed, b"{}", -31), Err(Refused::Expired));
        let elsewhere = Envelope { to: "ap-south-1".parse().unwrap(), ..envelope() };
        assert_eq!(open(&sealer("new").seal(&elsewhere), b"{}", 0), Err(Refused::Misdirected));
        assert_eq!(open(&sealed.replacen("new", "gone", 1), b"{}", 0), Err(Refused::UnknownKey));
        assert_eq!(open(&sealed.replacen("new", "old", 1), b"{}", 0), Err(Refused::Forged));
    }

    #[test]
    fn is_good_for_as_long_as_the_edge_waits_and_the_clocks_may_differ() {
        let sealed = sealer("new").seal(&envelope());
        for (seconds, left_ms) in [(-30, 5_000), (0, 5_000), (2, 5_000), (3, 4_000), (7, 0)] {
            let opened = open(&sealed, b"{}", seconds).map(|envelope| envelope.remaining_ms);
            assert_eq!(opened, Ok(left_ms), "after {seconds} s");
        }
        assert_eq!(open(&sealed, b"{}", 8), Err(Refused::Expired));
        // Whatever the edge says, no longer than the setting.
        let patient = sealer("new").seal(&Envelope { remaining_ms: u64::MAX, ..envelope() });
        assert!(open(&patient, b"{}", 30).is_ok());
        assert_eq!(open(&patient, b"{}", 31), Err(Refused::Expired));
    }

    #[test]
    fn any_changed_byte_is_refused() {
        let sealed = sealer("new").seal(&envelope());
        for index in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(open(&changed, b"{}", 0).is_err(), "byte {index}");
        }
    }
}
