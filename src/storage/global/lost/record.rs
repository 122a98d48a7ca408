//! A write as an old primary's journal has it, in the form in which regions tell each other of it.

use crate::{
    storage::{StorageError, global::stored_epoch},
    vocab::{Actor, Collection, Epoch, IdempotencyKey, ItemId, Malformed, TenantId, serde_as_text},
};
use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// SHA-256 over all that makes a request what it is; in text as hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestDigest([u8; 32]);

impl RequestDigest {
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    #[must_use]
    pub const fn into_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for RequestDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for RequestDigest {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut bytes = [0; 32];
        let decoded = hex::decode_to_slice(text, &mut bytes);
        decoded.map_err(|_| Malformed::new("request digest", "64 hexadecimal digits"))?;
        Ok(Self(bytes))
    }
}
serde_as_text!(RequestDigest);

/// One write of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRecord {
    pub tenant: TenantId,
    pub key: IdempotencyKey,
    pub actor: Actor,
    pub method: String,
    pub path: String,
    pub request_digest: RequestDigest,
    /// What was answered, and with what.
    pub status: u16,
    pub etag: Option<String>,
    pub location: Option<String>,
    /// JSON text, as answered.
    pub body: Option<String>,
    /// The version it made, or deleted.
    pub version: Option<i64>,
    pub epoch: Epoch,
    pub committed_at: DateTime<Utc>,
}

/// A place in the journal's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalMark {
    pub committed_at: DateTime<Utc>,
    pub tenant: TenantId,
    pub key: IdempotencyKey,
}

/// What the new primary has of an old one's write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The write itself.
    Present,
    Lost,
    /// Not the write, but the same request, sent again by its client.
    Repeated,
}

/// What became of a lost write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    /// Carried out again by an operator.
    Replayed,
    /// Sent again by its client.
    Repeated,
    /// It cannot be carried out as things are; kept for a person to look at.
    Conflict,
}

impl Became {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Repeated => "repeated",
            Self::Conflict => "conflict",
        }
    }

    pub(super) fn from_stored(text: impl AsRef<str>) -> Result<Self, StorageError> {
        let all = [Self::Replayed, Self::Repeated, Self::Conflict];
        let known = all.into_iter().find(|became| became.as_str() == text.as_ref());
        known.ok_or(StorageError::Corrupt { table: "lost_write", column: "became" })
    }
}

impl JournalRecord {
    #[must_use]
    pub fn mark(&self) -> JournalMark {
        let Self { committed_at, tenant, key, .. } = self;
        JournalMark { committed_at: *committed_at, tenant: *tenant, key: key.clone() }
    }

    /// The item it wrote; `None` when it was not a write of one item.
    #[must_use]
    pub fn item(&self) -> Option<(Collection, ItemId)> {
        // A creation's path does not name the item, its location does.
        let path = self.location.as_deref().unwrap_or(&self.path);
        let path = path.split('?').next().unwrap_or(path);
        let (collection, id) = path.strip_prefix("/v1/collections/")?.split_once("/items/")?;
        // A client may escape where it need not (RFC 3986 section 2.1).
        let plain = |text| percent_decode_str(text).decode_utf8().ok();
        Some((plain(collection)?.parse().ok()?, plain(id)?.parse().ok()?))
    }

    /// `<collection>/<id>`, as the list keeps it.
    #[must_use]
    pub fn item_text(&self) -> Option<String> {
        self.item().map(|(collection, id)| format!("{collection}/{id}"))
    }
}

/// A row as the columns give it.
pub(super) struct Stored {
    pub(super) tenant_id: Uuid,
    pub(super) key: String,
    pub(super) actor: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) request_digest: Vec<u8>,
    pub(super) status: i16,
    pub(super) etag: Option<String>,
    pub(super) location: Option<String>,
    pub(super) body: Option<String>,
    pub(super) version: Option<i64>,
    pub(super) epoch: i64,
    pub(super) committed_at: DateTime<Utc>,
}

impl TryFrom<Stored> for JournalRecord {
    type Error = StorageError;

    fn try_from(stored: Stored) -> Result<Self, StorageError> {
        let corrupt = |column| StorageError::Corrupt { table: "write_journal", column };
        let digest = stored.request_digest.try_into();
        Ok(Self {
            tenant: TenantId::from_stored(stored.tenant_id),
            key: stored.key.parse().map_err(|_| corrupt("key"))?,
            actor: stored.actor.parse().map_err(|_| corrupt("actor"))?,
            method: stored.method,
            path: stored.path,
            request_digest: digest.map(RequestDigest).map_err(|_| corrupt("request_digest"))?,
            status: u16::try_from(stored.status).map_err(|_| corrupt("status"))?,
            etag: stored.etag,
            location: stored.location,
            body: stored.body,
            version: stored.version,
            epoch: stored_epoch("write_journal", stored.epoch)?,
            committed_at: stored.committed_at,
        })
    }
}

pub(super) fn status_stored(record: &JournalRecord) -> Result<i16, StorageError> {
    i16::try_from(record.status).map_err(|_| StorageError::InvalidData("status"))
}
