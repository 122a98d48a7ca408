//! The directory of sessions: one row each, known in every region, and what was ended.
//!
//! Rows are written by what a region owes ([`apply`]), by people who end sessions ([`end`], [`end_others`])
//! and by whatever ends all of a user's ([`end_all`]). A user is locked before any of their rows, and users
//! in the order of their ids, so that no two of these wait for each other.

mod changes;

pub use changes::{Change, Followed, Horizon, changed_since};

use super::{Global, NO_EPOCH, Read, WriteTx, bookmark, bounded};
use crate::{
    storage::{StorageError, TenantScope},
    vocab::{Region, Role, SessionId, TenantId, TokenHash, UserId},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest device, in characters; longer ones are cut.
pub const DEVICE_CHARS_MAX: usize = 256;

/// Who is signed in, and for how long: what every look-up of a session gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    pub id: SessionId,
    pub tenant: TenantId,
    pub user: UserId,
    pub role: Role,
    /// Of the user, when the session was begun.
    pub generation: i64,
    pub created_at: DateTime<Utc>,
    /// Whatever is done with it, it ends then.
    pub expires_at: DateTime<Utc>,
}

impl Live {
    /// The rows that who is signed in may reach. Whether the session is still good is the caller's to
    /// judge.
    #[must_use]
    pub const fn scope(&self) -> TenantScope {
        TenantScope::new(self.tenant)
    }
}

/// What a region knows of a session and owes to the directory. Applied in any order, any number of times,
/// it comes to the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub session: Live,
    pub token: TokenHash,
    /// The region that began it.
    pub home: Region,
    pub device: String,
    pub address: String,
    pub seen_at: DateTime<Utc>,
    pub seen_in: Region,
    pub ended_at: Option<DateTime<Utc>>,
}

impl Known {
    /// Whether it tells no more than that the session goes on.
    #[must_use]
    pub fn is_use(&self) -> bool {
        self.ended_at.is_none() && self.seen_at > self.session.created_at
    }
}

/// A session as its owner sees it in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    pub id: SessionId,
    pub home: String,
    pub device: String,
    pub address: String,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub seen_at: DateTime<Utc>,
    pub seen_in: String,
}

/// What the directory says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Live {
        session: Live,
        seen_at: DateTime<Utc>,
    },
    /// For good.
    Ended,
    Absent,
}

/// A row of a look-up, as the columns give it; all but the position is absent when nothing was found.
pub(super) struct Stored {
    pub(super) id: Option<Uuid>,
    pub(super) tenant_id: Option<Uuid>,
    pub(super) user_id: Option<Uuid>,
    pub(super) role: Option<String>,
    pub(super) generation: Option<i64>,
    pub(super) created_at: Option<DateTime<Utc>>,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) seen_at: Option<DateTime<Utc>>,
    /// The session, or everything of its user.
    pub(super) ended: Option<bool>,
}

impl Stored {
    pub(super) fn entry(self) -> Result<Entry, StorageError> {
        let Some(id) = self.id else {
            return Ok(Entry::Absent);
        };
        if self.ended.unwrap_or(true) {
            return Ok(Entry::Ended);
        }
        let corrupt = |column| StorageError::Corrupt { table: "user_session", column };
        let role = self.role.ok_or(corrupt("role"))?.parse();
        let session = Live {
            id: SessionId::from_stored(id),
            tenant: TenantId::from_stored(self.tenant_id.ok_or(corrupt("tenant_id"))?),
            user: UserId::from_stored(self.user_id.ok_or(corrupt("user_id"))?),
            role: role.map_err(|_| corrupt("role"))?,
            generation: self.generation.ok_or(corrupt("generation"))?,
            created_at: self.created_at.ok_or(corrupt("created_at"))?,
            expires_at: self.expires_at.ok_or(corrupt("expires_at"))?,
        };
        Ok(Entry::Live { session, seen_at: self.seen_at.ok_or(corrupt("seen_at"))? })
    }
}

/// Records what a region owes. A session whose user is gone, suspended, or has ended all their sessions
/// since it was begun, is ended as soon as it is recorded; one whose role is another by now is to be looked
/// up anew. Of more than `each_max` sessions of a user the oldest are ended. Returns those of users who are
/// not in this database, of which nothing can come: a failover has lost them.
///
/// # Errors
/// [`StorageError::Timeout`] when another writer holds one of the users too long.
pub async fn apply(
    tx: &mut WriteTx,
    known: &[Known],
    each_max: u32,
    at: DateTime<Utc>,
) -> Result<Vec<SessionId>, StorageError> {
    tx.ensure_epoch().await?;
    // One row for a session: a statement may not touch one twice. An end wins over a beginning.
    let mut each = std::collections::BTreeMap::<SessionId, &Known>::new();
    for one in known.iter().filter(|one| one.session.expires_at > at) {
        let slot = each.entry(one.session.id).or_insert(one);
        if one.ended_at.is_some() {
            *slot = one;
        }
    }
    let each: Vec<&Known> = each.into_values().collect();
    let users: Vec<Uuid> = each.iter().map(|one| one.session.user.as_uuid()).collect();
    let (connection, bound) = tx.statement();
    // Whoever suspends one of them now waits for us, and ends what we have recorded; or we wait, and see it.
    let query = sqlx::query_scalar!(
        "SELECT id FROM tenant_user WHERE id = ANY($1) ORDER BY id FOR SHARE",
        &users,
    );
    let outcome = bounded(bound, query.fetch_all(connection)).await;
    let here = tx.ended(outcome)?;
    let lost = each.iter().filter(|one| !here.contains(&one.session.user.as_uuid()));
    let lost = lost.map(|one| one.session.id).collect();
    let uuids = |of: fn(&Known) -> Uuid| each.iter().map(|one| of(one)).collect::<Vec<_>>();
    let texts =
        |of: fn(&Known) -> &str| each.iter().map(|one| of(one).to_owned()).collect::<Vec<_>>();
    let times =
        |of: fn(&Known) -> DateTime<Utc>| each.iter().map(|one| of(one)).collect::<Vec<_>>();
    let tokens: Vec<Vec<u8>> = each.iter().map(|one| one.token.as_bytes().to_vec()).collect();
    let generations: Vec<i64> = each.iter().map(|one| one.session.generation).collect();
    let ended: Vec<Option<DateTime<Utc>>> = each.iter().map(|one| one.ended_at).collect();
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        r#"INSERT INTO user_session AS s (id, tenant_id, user_id, token_hash, region, device, address,
            generation, created_at, expires_at, seen_at, seen_in, ended_at, changed)
        SELECT k.id, u.tenant_id, u.id, k.token, k.region, k.device, k.address, k.generation,
            k.created_at, k.expires_at, k.seen_at, k.seen_in, e.ended_at,
            CASE WHEN e.ended_at IS NOT NULL OR k.role <> u.role THEN pg_current_xact_id() END
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bytea[], $5::text[], $6::text[], $7::text[],
            $8::bigint[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::text[],
            $13::timestamptz[], $15::text[])
            AS k (id, tenant_id, user_id, token, region, device, address, generation, created_at,
                expires_at, seen_at, seen_in, ended_at, role)
        JOIN tenant_user AS u ON u.id = k.user_id AND u.tenant_id = k.tenant_id
        CROSS JOIN LATERAL (SELECT CASE
            WHEN k.ended_at IS NULL AND (u.deleted_at IS NOT NULL OR u.suspended_at IS NOT NULL
                OR k.generation < u.generation) THEN $14::timestamptz
            ELSE k.ended_at END AS ended_at) AS e
        ORDER BY k.id
        ON CONFLICT (id) DO UPDATE SET
            seen_at = greatest(s.seen_at, excluded.seen_at),
            seen_in = CASE WHEN excluded.seen_at > s.seen_at THEN excluded.seen_in ELSE s.seen_in END,
            ended_at = coalesce(s.ended_at, ($13::timestamptz[])[array_position($1::uuid[], excluded.id)]),
            changed = CASE
                WHEN s.ended_at IS NULL AND ($13::timestamptz[])[array_position($1::uuid[], excluded.id)] IS NOT NULL
                    THEN pg_current_xact_id()
                ELSE s.changed END"#,
        &uuids(|one| one.session.id.as_uuid()),
        &uuids(|one| one.session.tenant.as_uuid()),
        &uuids(|one| one.session.user.as_uuid()),
        &tokens,
        &texts(|one| one.home.as_str()),
        &texts(|one| &one.device),
        &texts(|one| &one.address),
        &generations,
        &times(|one| one.session.created_at),
        &times(|one| one.session.expires_at),
        &times(|one| one.seen_at),
        &texts(|one| one.seen_in.as_str()),
        &ended as &[Option<DateTime<Utc>>],
        at,
        &texts(|one| one.session.role.as_str()),
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    tx.ended(outcome)?;
    end_oldest(tx, &users, each_max, at).await?;
    Ok(lost)
}

/// Ends what these users have beyond `each_max` sessions.
async fn end_oldest(
    tx: &mut WriteTx,
    users: &[Uuid],
    each_max: u32,
    at: DateTime<Utc>,
) -> Result<(), StorageError> {
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "UPDATE user_session SET ended_at = $2, changed = pg_current_xact_id()
        WHERE id IN (
            SELECT oldest.id FROM unnest($1::uuid[]) AS u (id) CROSS JOIN LATERAL (
                SELECT s.id FROM user_session AS s
                WHERE s.user_id = u.id AND s.ended_at IS NULL AND s.expires_at > $2
                ORDER BY s.id DESC OFFSET $3) AS oldest)",
        users,
        at,
        i64::from(each_max),
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    tx.ended(outcome)?;
    Ok(())
}

/// Ends one session of a user. `false` when there is none, or it has ended before.
///
/// # Errors
/// When the database fails.
pub async fn end(
    tx: &mut WriteTx,
    scope: &TenantScope,
    user: UserId,
    id: SessionId,
    at: DateTime<Utc>,
) -> Result<bool, StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "UPDATE user_session SET ended_at = $4, changed = pg_current_xact_id()
        WHERE id = $1 AND user_id = $2 AND tenant_id = $3 AND ended_at IS NULL AND expires_at > $4",
        id.as_uuid(),
        user.as_uuid(),
        scope.tenant().as_uuid(),
        at,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    Ok(tx.ended(outcome)?.rows_affected() == 1)
}

/// Ends all sessions of a user but `kept`, those too whose rows have yet to come: the user is in the next
/// generation, and what is kept of the others is of the one before. Returns how many rows were ended. Lock
/// the user first.
///
/// # Errors
/// [`StorageError::Unavailable`] when the session to be kept has no row yet.
pub async fn end_all(
    tx: &mut WriteTx,
    scope: &TenantScope,
    user: UserId,
    kept: Option<SessionId>,
    at: DateTime<Utc>,
) -> Result<u64, StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query_scalar!(
        "UPDATE tenant_user SET generation = generation + 1
        WHERE id = $1 AND tenant_id = $2 RETURNING generation",
        user.as_uuid(),
        scope.tenant().as_uuid(),
    );
    let outcome = bounded(bound, query.fetch_optional(connection)).await;
    let Some(generation) = tx.ended(outcome)? else {
        return Ok(0);
    };
    if let Some(kept) = kept {
        let (connection, bound) = tx.statement();
        let query = sqlx::query!(
            "UPDATE user_session SET generation = $3
            WHERE id = $1 AND user_id = $2 AND ended_at IS NULL",
            kept.as_uuid(),
            user.as_uuid(),
            generation,
        );
        let outcome = bounded(bound, query.execute(connection)).await;
        if tx.ended(outcome)?.rows_affected() == 0 {
            // Recorded later it would be of the generation before, and end with the others.
            return Err(StorageError::unavailable("the session that is kept is not recorded yet"));
        }
    }
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "UPDATE user_session SET ended_at = $3, changed = pg_current_xact_id()
        WHERE user_id = $1 AND id IS DISTINCT FROM $2 AND ended_at IS NULL AND expires_at > $3",
        user.as_uuid(),
        kept.map(|kept| kept.as_uuid()),
        at,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    Ok(tx.ended(outcome)?.rows_affected())
}

/// Forgets where a user was signed in from, and with what.
///
/// # Errors
/// When the database fails.
pub async fn erase(tx: &mut WriteTx, user: UserId) -> Result<(), StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "UPDATE user_session SET device = '', address = '' WHERE user_id = $1",
        user.as_uuid(),
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    tx.ended(outcome)?;
    Ok(())
}

/// What the user may do is another now: every region is to look their sessions up anew. Lock the user first.
///
/// # Errors
/// When the database fails.
pub async fn have_changed(
    tx: &mut WriteTx,
    user: UserId,
    at: DateTime<Utc>,
) -> Result<(), StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "UPDATE user_session SET changed = pg_current_xact_id()
        WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2",
        user.as_uuid(),
        at,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    tx.ended(outcome)?;
    Ok(())
}

/// Forgets up to `rows_max` sessions that expired before `before`.
///
/// # Errors
/// When the database fails.
pub async fn purge(
    tx: &mut WriteTx,
    before: DateTime<Utc>,
    rows_max: i64,
) -> Result<u64, StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "DELETE FROM user_session WHERE id IN (
            SELECT id FROM user_session WHERE expires_at < $1
            ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        before,
        rows_max,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    Ok(tx.ended(outcome)?.rows_affected())
}

/// A user's sessions that are not over, the newest first: up to `limit` begun before the session `before`.
/// Those not seen since `idle_since` are over.
///
/// # Errors
/// When the database fails.
pub async fn list(
    global: &Global,
    scope: &TenantScope,
    user: UserId,
    before: Option<SessionId>,
    idle_since: DateTime<Utc>,
    at: DateTime<Utc>,
    limit: i64,
) -> Result<Read<Vec<SessionRow>>, StorageError> {
    let rows = global
        .read(|| {
            sqlx::query!(
                r#"SELECT p.epoch AS "at_epoch!", p.lsn::text AS "at_lsn!", s.id AS "id?",
                    s.region AS "region?", s.device AS "device?", s.address AS "address?",
                    s.created_at AS "created_at?", s.expires_at AS "expires_at?",
                    s.seen_at AS "seen_at?", s.seen_in AS "seen_in?"
                FROM cluster_position AS p
                LEFT JOIN (
                    SELECT id, region, device, address, created_at, expires_at, seen_at, seen_in
                    FROM user_session
                    WHERE tenant_id = $1 AND user_id = $2 AND ended_at IS NULL AND expires_at > $4
                        AND seen_at > $5 AND ($3::uuid IS NULL OR id < $3)
                    ORDER BY id DESC LIMIT $6
                ) AS s ON true
                ORDER BY s.id DESC"#,
                scope.tenant().as_uuid(),
                user.as_uuid(),
                before.map(|id| id.as_uuid()),
                at,
                idle_since,
                limit,
            )
            .fetch_all(&global.read)
        })
        .await?;
    let first = rows.first().ok_or(NO_EPOCH)?;
    let position = bookmark(first.at_epoch, &first.at_lsn)?;
    let sessions = rows.into_iter().filter_map(|row| {
        Some(SessionRow {
            id: SessionId::from_stored(row.id?),
            home: row.region?,
            device: row.device?,
            address: row.address?,
            created_at: row.created_at?,
            expires_at: row.expires_at?,
            seen_at: row.seen_at?,
            seen_in: row.seen_in?,
        })
    });
    Ok(Read { value: sessions.collect(), at: position })
}

#[cfg(test)]
mod tests;
