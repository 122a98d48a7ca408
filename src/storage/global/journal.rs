//! The write journal: what each committed write did and answered, kept in its own transaction.

use super::{Global, NO_EPOCH, Read, WriteTx, bookmark, bounded, stored_epoch};
use crate::{
    storage::{StorageError, TenantScope},
    vocab::{Actor, Epoch, IdempotencyKey},
};
use chrono::{DateTime, Utc};

/// One write to be recorded.
#[derive(Debug, Clone)]
pub struct JournalEntry<'a> {
    pub scope: &'a TenantScope,
    pub key: &'a IdempotencyKey,
    pub actor: Actor,
    pub method: &'a str,
    pub path: &'a str,
    /// SHA-256 over all that makes the request what it is.
    pub request_digest: [u8; 32],
    pub status: u16,
    pub etag: Option<&'a str>,
    pub location: Option<&'a str>,
    /// JSON text, as answered.
    pub body: Option<&'a str>,
    /// The version it made, where it made one.
    pub version: Option<i64>,
    pub epoch: Epoch,
    pub committed_at: DateTime<Utc>,
}

/// One recorded write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRow {
    pub actor: Actor,
    pub method: String,
    pub path: String,
    pub status: u16,
    pub etag: Option<String>,
    pub location: Option<String>,
    pub body: Option<String>,
    pub version: Option<i64>,
    pub epoch: Epoch,
    pub committed_at: DateTime<Utc>,
}

/// What became of an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has it: this transaction holds it until its end.
    Fresh,
    /// The same request has been committed; this was its answer.
    Replay(Box<JournalRow>),
    /// Another request has been committed under it.
    Mismatch,
    /// Another transaction holds it now.
    InFlight,
}

/// What a region's database has of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Committed(Box<JournalRow>),
    /// A failover lost it, and nothing has been made of it since.
    Lost(Box<LostRow>),
    /// There is no record: no effect so far.
    Nothing,
    /// There is no record on a replica, which may merely not have replayed it yet.
    NothingHere,
}

/// A write that had been committed and is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRow {
    pub method: String,
    pub path: String,
    pub committed_at: DateTime<Utc>,
}

/// A row as the columns give it.
pub(super) struct Stored {
    pub(super) actor: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) status: i16,
    pub(super) etag: Option<String>,
    pub(super) location: Option<String>,
    pub(super) body: Option<String>,
    pub(super) version: Option<i64>,
    pub(super) epoch: i64,
    pub(super) committed_at: DateTime<Utc>,
}

impl TryFrom<Stored> for JournalRow {
    type Error = StorageError;

    fn try_from(stored: Stored) -> Result<Self, StorageError> {
        let corrupt = |column| StorageError::Corrupt { table: "write_journal", column };
        Ok(Self {
            actor: stored.actor.parse().map_err(|_| corrupt("actor"))?,
            method: stored.method,
            path: stored.path,
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

/// Records the write. Last before the commit.
///
/// # Errors
/// `Conflict(JournalKey)` when a twin has committed since the claim: roll back and begin again.
pub async fn insert(tx: &mut WriteTx, entry: &JournalEntry<'_>) -> Result<(), StorageError> {
    tx.ensure_epoch().await?;
    let status = i16::try_from(entry.status).map_err(|_| StorageError::InvalidData("status"))?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "INSERT INTO write_journal (tenant_id, key, actor, method, path, request_digest, status, etag,
            location, body, version, epoch, committed_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        entry.scope.tenant().as_uuid(),
        entry.key.as_str(),
        entry.actor.to_string(),
        entry.method,
        entry.path,
        entry.request_digest.as_slice(),
        status,
        entry.etag,
        entry.location,
        entry.body,
        entry.version,
        entry.epoch.to_stored(),
        entry.committed_at,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    tx.ended(outcome).map(|_| ())
}

/// What became of a key, as far as this region's database has it.
///
/// # Errors
/// When the database fails.
pub async fn find(
    global: &Global,
    scope: &TenantScope,
    key: &IdempotencyKey,
) -> Result<Read<Found>, StorageError> {
    let row = global
        .read(|| {
            sqlx::query!(
                r#"SELECT p.epoch AS "at_epoch!", p.lsn::text AS "at_lsn!",
                    pg_is_in_recovery() AS "replica!",
                    j.actor AS "actor?", j.method AS "method?", j.path AS "path?",
                    j.status AS "status?", j.etag, j.location, j.body, j.version,
                    j.epoch AS "epoch?", j.committed_at AS "committed_at?",
                    lost.method AS "lost_method?", lost.path AS "lost_path?",
                    lost.committed_at AS "lost_committed_at?"
                FROM cluster_position AS p
                LEFT JOIN write_journal AS j ON j.tenant_id = $1 AND j.key = $2
                LEFT JOIN LATERAL (
                    SELECT l.method, l.path, l.committed_at FROM lost_write AS l
                    WHERE l.tenant_id = $1 AND l.key = $2
                        AND coalesce(l.became, 'conflict') = 'conflict'
                    ORDER BY l.epoch DESC LIMIT 1
                ) AS lost ON j.key IS NULL"#,
                scope.tenant().as_uuid(),
                key.as_str(),
            )
            .fetch_optional(&global.read)
        })
        .await?
        .ok_or(NO_EPOCH)?;
    let at = bookmark(row.at_epoch, &row.at_lsn)?;
    let columns = (row.actor, row.method, row.path, row.status, row.epoch, row.committed_at);
    let (Some(actor), Some(method), Some(path), Some(status), Some(epoch), Some(committed_at)) =
        columns
    else {
        let lost = match (row.lost_method, row.lost_path, row.lost_committed_at) {
            (Some(method), Some(path), Some(committed_at)) => {
                Some(LostRow { method, path, committed_at })
            }
            _ => None,
        };
        let value = match lost {
            // Sent again a moment ago, perhaps.
            _ if row.replica => Found::NothingHere,
            Some(lost) => Found::Lost(Box::new(lost)),
            None => Found::Nothing,
        };
        return Ok(Read { value, at });
    };
    let (etag, location, body, version) = (row.etag, row.location, row.body, row.version);
    let stored =
        Stored { actor, method, path, status, etag, location, body, version, epoch, committed_at };
    Ok(Read { value: Found::Committed(Box::new(stored.try_into()?)), at })
}

/// Forgets up to `limit` writes committed before `before`, the oldest first, and with them their
/// idempotency keys. Returns how many. Only in the epoch of the transaction: a primary that was
/// replaced keeps the list of what was lost with it.
///
/// Of an epoch that ended later than `kept_since` the last two minutes are kept: an old primary that
/// returns compares its own with them, and takes what is missing here for lost.
///
/// # Errors
/// When the database fails.
pub async fn purge(
    tx: &mut WriteTx,
    before: DateTime<Utc>,
    kept_since: DateTime<Utc>,
    limit: i64,
) -> Result<u64, StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "WITH tail AS MATERIALIZED (
            SELECT ended.epoch, last.committed_at - interval '2 minutes' AS since
            FROM (SELECT epoch, lead(at) OVER (ORDER BY epoch) AS at FROM cluster_epoch) AS ended
            CROSS JOIN LATERAL (
                SELECT committed_at FROM write_journal AS j
                WHERE j.epoch = ended.epoch AND j.committed_at < ended.at + interval '1 minute'
                ORDER BY committed_at DESC LIMIT 1
            ) AS last
            WHERE ended.at > $3
        )
        DELETE FROM write_journal WHERE (tenant_id, key) IN (
            SELECT tenant_id, key FROM write_journal AS old WHERE committed_at < $1
                AND NOT EXISTS (SELECT FROM tail
                    WHERE tail.epoch = old.epoch AND tail.since <= old.committed_at)
            ORDER BY committed_at LIMIT $2)",
        before,
        limit,
        kept_since,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    Ok(tx.ended(outcome)?.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        storage::{
            Constraint,
            global::{items::purge_tombstones, testing::Fixture},
        },
        vocab::ApiKeyId,
    };
    use sqlx::PgPool;

    const DIGEST: [u8; 32] = [1; 32];

    fn key(text: &str) -> IdempotencyKey {
        text.parse().unwrap()
    }

    fn entry<'a>(at: &'a Fixture, key: &'a IdempotencyKey) -> JournalEntry<'a> {
        JournalEntry {
            scope: &at.scope,
            key,
            actor: Actor::ApiKey(ApiKeyId::mint(&at.op)),
            method: "POST",
            path: "/v1/collections/c/items",
            request_digest: DIGEST,
            status: 201,
            etag: Some("\"1.1\""),
            location: None,
            body: Some(r#"{"n":1.10}"#),
            version: Some(1),
            epoch: Epoch::FIRST,
            committed_at: at.op.now(),
        }
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn what_was_answered_is_answered_again(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let key = key("k");
        let entry = entry(&at, &key);
        let mut tx = at.begin().await;
        assert_eq!(tx.claim(&at.scope, &key, &DIGEST).await.unwrap(), Claim::Fresh);
        insert(&mut tx, &entry).await.unwrap();
        let written_at = tx.commit().await.unwrap();

        let found = find(&at.global, &at.scope, &key).await.unwrap();
        assert!(found.at >= written_at);
        let Found::Committed(row) = found.value else { panic!("no record") };
        assert_eq!((row.status, row.body.as_deref()), (201, entry.body));
        assert_eq!((row.actor, row.committed_at), (entry.actor, entry.committed_at));
        assert_eq!(find(&at.global, &at.other, &key).await.unwrap().value, Found::Nothing);

        let mut tx = at.begin().await;
        let again = tx.claim(&at.scope, &key, &DIGEST).await.unwrap();
        assert_eq!(again, Claim::Replay(row));
        assert_eq!(tx.claim(&at.scope, &key, &[2; 32]).await.unwrap(), Claim::Mismatch);
        assert_eq!(tx.claim(&at.other, &key, &DIGEST).await.unwrap(), Claim::Fresh);
        assert!(tx.rollback().await.unwrap() >= written_at);
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_key_is_held_by_one_transaction_until_its_end(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let key = key("k");
        let (mut first, mut second) = (at.begin().await, at.begin().await);
        assert_eq!(first.claim(&at.scope, &key, &DIGEST).await.unwrap(), Claim::Fresh);
        assert_eq!(second.claim(&at.scope, &key, &DIGEST).await.unwrap(), Claim::InFlight);
        assert_eq!(second.claim(&at.other, &key, &DIGEST).await.unwrap(), Claim::Fresh);
        first.rollback().await.unwrap();
        assert_eq!(second.claim(&at.scope, &key, &DIGEST).await.unwrap(), Claim::Fresh);
    }

    /// The moment between a claim's snapshot and its lock: the twin's record is not seen, but its
    /// key is in the way.
    #[sqlx::test(migrations = "migrations/global")]
    async fn a_twin_that_slips_in_is_found_at_the_record(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let key = key("k");
        let mut late = at.begin().await;
        assert_eq!(late.claim(&at.scope, &key, &DIGEST).await.unwrap(), Claim::Fresh);
        at.write(async |tx| insert(tx, &entry(&at, &key)).await).await;
        let collided = insert(&mut late, &entry(&at, &key)).await;
        assert!(matches!(collided, Err(StorageError::Conflict(Constraint::JournalKey))));
        late.rollback().await.unwrap();
        let again = at.begin().await.claim(&at.scope, &key, &DIGEST).await.unwrap();
        assert!(matches!(again, Claim::Replay(_)), "{again:?}");
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn forgets_the_oldest_first_and_no_more_than_asked(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let now = at.op.now();
        for age in 0..4 {
            let key = key(&format!("k{age}"));
            let committed_at = now - chrono::Duration::hours(age);
            let entry = JournalEntry { committed_at, ..entry(&at, &key) };
            at.write(async |tx| insert(tx, &entry).await).await;
        }
        let before = now - chrono::Duration::minutes(1);
        let forget = async || at.write(async |tx| purge(tx, before, now, 2).await).await.0;
        assert_eq!(forget().await, 2);
        let left = |name: &'static str| {
            let (global, scope) = (&at.global, &at.scope);
            async move { find(global, scope, &key(name)).await.unwrap().value != Found::Nothing }
        };
        assert!(left("k0").await && left("k1").await && !left("k2").await && !left("k3").await);
        assert_eq!(forget().await, 1);
        assert_eq!(forget().await, 0);
    }

    /// Else an old primary that returns after the journal's retention would take all it has for lost.
    #[sqlx::test(migrations = "migrations/global")]
    async fn what_an_epoch_wrote_last_is_kept_for_as_long_as_lost_writes_are(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let now = at.op.now();
        for seconds in [0, 100, 130, 7_200] {
            let key = key(&format!("k{seconds}"));
            let committed_at = now - chrono::Duration::seconds(seconds);
            let entry = JournalEntry { committed_at, ..entry(&at, &key) };
            at.write(async |tx| insert(tx, &entry).await).await;
        }
        at.sql("INSERT INTO cluster_epoch VALUES (2, '0/0', 'eu-west-1', now())").await;
        let later = now + chrono::Duration::days(4);
        let forget = async |kept_since| {
            let mut tx = WriteTx::open(&at.global, Epoch::new(2).unwrap(), &at.op).await.unwrap();
            let forgotten = purge(&mut tx, later, kept_since, 10).await.unwrap();
            tx.commit().await.unwrap();
            forgotten
        };
        assert_eq!(forget(now - chrono::Duration::days(86)).await, 2);
        assert_eq!(
            at.count("SELECT count(*) FROM write_journal WHERE key IN ('k0', 'k100')").await,
            2
        );
        assert_eq!(forget(later).await, 2);
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_primary_that_was_replaced_forgets_nothing(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let key = key("k");
        at.write(async |tx| insert(tx, &entry(&at, &key)).await).await;
        let later = at.op.now() + chrono::Duration::hours(1);
        let promoted = Epoch::new(2).unwrap();
        let mut tx = WriteTx::open(&at.global, promoted, &at.op).await.unwrap();
        let refused = purge(&mut tx, later, later, 10).await;
        assert!(matches!(refused, Err(StorageError::EpochMismatch { .. })), "{refused:?}");
        drop(tx);
        let mut tx = WriteTx::open(&at.global, promoted, &at.op).await.unwrap();
        let refused = purge_tombstones(&mut tx, later, 10).await;
        assert!(matches!(refused, Err(StorageError::EpochMismatch { .. })), "{refused:?}");
        drop(tx);
        let found = find(&at.global, &at.scope, &key).await.unwrap().value;
        assert!(matches!(found, Found::Committed(_)), "{found:?}");
    }
}
