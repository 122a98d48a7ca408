//! What has changed in the directory, in the order of commits and without gaps.
//!
//! A sequence or a time would show the changes of a transaction that committed late too late: behind what
//! has been read already. So each change names its transaction, and what is read is every change since the
//! oldest transaction that was still under way at the last look (`pg_snapshot_xmin`, Postgres chapter
//! "System Information Functions"). Some changes come twice; none is left out.

use super::super::{Global, NO_EPOCH, stored_epoch};
use crate::{
    storage::StorageError,
    vocab::{Epoch, Malformed, SessionId, TokenHash},
};
use chrono::{DateTime, Utc};
use std::{fmt, str::FromStr};

/// How far the changes have been followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// The newest epoch that was known. When another begins, transactions since its first are looked at
    /// again: on a database that was rewound their numbers were others' before.
    pub epoch: Epoch,
    /// Every change of a transaction before this one has been seen.
    pub xid: u64,
}

impl Horizon {
    /// Before everything.
    pub const START: Self = Self { epoch: Epoch::FIRST, xid: 0 };

    /// From where on nothing is left out that either has yet to see.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        Self { epoch: self.epoch.min(other.epoch), xid: self.xid.min(other.xid) }
    }
}

impl fmt::Display for Horizon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.xid)
    }
}
impl FromStr for Horizon {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = || Malformed::new("horizon", "<epoch>.<transaction>");
        let (epoch, xid) = text.split_once('.').ok_or_else(bad)?;
        Ok(Self { epoch: epoch.parse().map_err(|_| bad())?, xid: xid.parse().map_err(|_| bad())? })
    }
}

/// A session that was ended, or is to be looked up anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub id: SessionId,
    /// The transaction that changed it.
    pub xid: u64,
    pub token: TokenHash,
    pub ended: bool,
    pub expires_at: DateTime<Utc>,
}

/// A page of changes.
#[derive(Debug)]
pub struct Followed {
    pub changes: Vec<Change>,
    /// Where the next page begins; `None` when this was the last.
    pub next: Option<(u64, SessionId)>,
    /// As of this page's snapshot. To be kept from the first page, once the last has been dealt with.
    pub horizon: Horizon,
}

/// Up to `limit` changes since `horizon`, from `after` on, of sessions that have not expired at `at`.
///
/// # Errors
/// When the database fails.
pub async fn changed_since(
    global: &Global,
    horizon: Horizon,
    after: Option<(u64, SessionId)>,
    at: DateTime<Utc>,
    limit: i64,
) -> Result<Followed, StorageError> {
    let (xid, id) = after.map_or((None, None), |(xid, id)| (Some(xid), Some(id)));
    let rows = global
        .read(|| {
            sqlx::query!(
                r#"SELECT p.epoch AS "at_epoch!",
                    pg_snapshot_xmin(pg_current_snapshot())::text AS "xmin!",
                    s.id AS "id?", s.token_hash AS "token_hash?", s.ended_at AS "ended_at?",
                    s.expires_at AS "expires_at?", s.changed::text AS "changed?"
                FROM (SELECT max(epoch) AS epoch FROM cluster_epoch) AS p
                LEFT JOIN (
                    SELECT id, token_hash, ended_at, expires_at, changed FROM user_session
                    WHERE changed >= least($1::text::xid8, coalesce(
                            (SELECT first_xid FROM cluster_epoch
                                WHERE epoch > $2 AND first_xid IS NOT NULL
                                ORDER BY first_xid LIMIT 1),
                            $1::text::xid8))
                        AND ($3::text IS NULL OR (changed, id) > ($3::text::xid8, $4::uuid))
                        AND expires_at > $5
                    ORDER BY changed, id LIMIT $6
                ) AS s ON true
                ORDER BY s.changed, s.id"#,
                horizon.xid.to_string(),
                horizon.epoch.to_stored(),
                xid.map(|xid| xid.to_string()),
                id.map(|id| id.as_uuid()),
                at,
                limit,
            )
            .fetch_all(&global.read)
        })
        .await?;
    let corrupt = |column| StorageError::Corrupt { table: "user_session", column };
    let number = |text: &str| text.parse::<u64>().map_err(|_| corrupt("changed"));
    let first = rows.first().ok_or(NO_EPOCH)?;
    let horizon = Horizon {
        epoch: stored_epoch("cluster_epoch", first.at_epoch)?,
        xid: number(&first.xmin)?,
    };
    let mut changes = Vec::with_capacity(rows.len());
    let mut last = None;
    for row in rows {
        let (Some(id), Some(token), Some(expires_at)) = (row.id, row.token_hash, row.expires_at)
        else {
            continue;
        };
        let id = SessionId::from_stored(id);
        let token = <[u8; 32]>::try_from(token.as_slice()).map_err(|_| corrupt("token_hash"))?;
        let xid = number(row.changed.as_deref().unwrap_or_default())?;
        last = Some((xid, id));
        let (token, ended) = (TokenHash::new(token), row.ended_at.is_some());
        changes.push(Change { id, xid, token, ended, expires_at });
    }
    let whole = i64::try_from(changes.len()).unwrap_or(i64::MAX) < limit;
    Ok(Followed { changes, next: if whole { None } else { last }, horizon })
}
