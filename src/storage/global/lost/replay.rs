//! The list, as a replay goes through it.

use super::{Became, JournalMark, JournalRecord, record::Stored};
use crate::{
    storage::{
        StorageError, TenantScope,
        global::{Global, WriteTx, bounded},
    },
    vocab::{Epoch, Etag},
};

/// A lost write of which nothing has become yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub record: JournalRecord,
    /// The rows it may touch; `None` when its tenant does not exist here. For an operator's replay
    /// alone: the write had proven whose it was when it was first carried out.
    pub scope: Option<TenantScope>,
}

/// What is to be replayed of an epoch, in the order in which it had been committed.
///
/// # Errors
/// When the database fails.
pub async fn due(
    global: &Global,
    epoch: Epoch,
    after: Option<&JournalMark>,
    limit: usize,
) -> Result<Vec<Due>, StorageError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = global
        .read(|| {
            sqlx::query!(
                r#"SELECT l.tenant_id, key, actor, method, path, request_digest, status, etag, location,
                    body, version, epoch, committed_at, tenant.id IS NOT NULL AS "known!"
                FROM lost_write AS l LEFT JOIN tenant ON tenant.id = l.tenant_id
                WHERE epoch = $1 AND became IS NULL AND ($2::timestamptz IS NULL
                    OR committed_at >= $2
                    AND (committed_at, l.tenant_id, key) > ($2, $3::uuid, $4::text))
                ORDER BY committed_at, l.tenant_id, key LIMIT $5"#,
                epoch.to_stored(),
                after.map(|mark| mark.committed_at),
                after.map(|mark| mark.tenant.as_uuid()),
                after.map(|mark| mark.key.as_str()),
                limit,
            )
            .fetch_all(&global.read)
        })
        .await?;
    let due = rows.into_iter().map(|row| {
        let record = JournalRecord::try_from(Stored {
            tenant_id: row.tenant_id,
            key: row.key,
            actor: row.actor,
            method: row.method,
            path: row.path,
            request_digest: row.request_digest,
            status: row.status,
            etag: row.etag,
            location: row.location,
            body: row.body,
            version: row.version,
            epoch: row.epoch,
            committed_at: row.committed_at,
        })?;
        let scope = row.known.then(|| TenantScope::new(record.tenant));
        Ok(Due { record, scope })
    });
    due.collect()
}

/// Whether that version of the item was made by a replay.
///
/// # Errors
/// When the database fails.
pub async fn is_replays(
    tx: &mut WriteTx,
    record: &JournalRecord,
    etag: Etag,
) -> Result<bool, StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM lost_write WHERE tenant_id = $1 AND item = $2
            AND became_etag = $3 AND became = 'replayed') AS "it!""#,
        record.tenant.as_uuid(),
        record.item_text(),
        etag.to_string(),
    );
    let outcome = bounded(bound, query.fetch_one(connection)).await;
    tx.ended(outcome)
}

/// Notes what has become of a lost write, once. `etag` is what a replay made, `reason` why there was
/// none.
///
/// # Errors
/// When the database fails.
pub async fn mark(
    tx: &mut WriteTx,
    record: &JournalRecord,
    became: Became,
    etag: Option<&str>,
    reason: Option<&str>,
) -> Result<(), StorageError> {
    tx.ensure_epoch().await?;
    let at = tx.op().now();
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "UPDATE lost_write SET became = $4, became_at = $5, became_etag = $6, reason = $7
        WHERE tenant_id = $1 AND key = $2 AND epoch = $3 AND became IS NULL",
        record.tenant.as_uuid(),
        record.key.as_str(),
        record.epoch.to_stored(),
        became.as_str(),
        at,
        etag,
        reason,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    tx.ended(outcome).map(|_| ())
}
