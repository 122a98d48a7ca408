//! What a failover lost: an old primary's journal compared with the new one's, and the list of what
//! was found missing.
//!
//! The old primary is read only. The list is kept on the new one, written like anything else, so
//! that it is fenced with the rest. It holds no more than was answered then.

mod record;
mod replay;

pub use record::{Became, JournalMark, JournalRecord, RequestDigest, Standing};
pub use replay::{Due, due, is_replays, mark};

use super::{Global, WriteTx, bounded};
use crate::{
    storage::StorageError,
    vocab::{Epoch, IdempotencyKey, TenantId},
};
use chrono::{DateTime, Utc};
use record::{Stored, status_stored};
use uuid::Uuid;

/// Records of a page of the journal.
pub const RECORDS_MAX: usize = 1_000;

/// Bytes of the records of one page; one record alone may have more.
pub const PAGE_BYTES: usize = 512 * 1024;

/// A page of what an epoch wrote, the latest first, from before `after`; without the bodies.
///
/// # Errors
/// When the database fails.
pub async fn page(
    global: &Global,
    epoch: Epoch,
    after: Option<&JournalMark>,
    limit: usize,
) -> Result<Vec<JournalRecord>, StorageError> {
    let limit = i64::try_from(limit.min(RECORDS_MAX)).unwrap_or(i64::MAX);
    let rows = global
        .read(|| {
            sqlx::query_as!(
                Stored,
                r#"SELECT tenant_id, key, actor, method, path, request_digest, status, etag, location,
                    NULL::text AS body, version, epoch, committed_at
                FROM write_journal
                WHERE epoch = $1 AND ($2::timestamptz IS NULL OR committed_at <= $2
                    AND (committed_at, tenant_id, key) < ($2, $3::uuid, $4::text))
                ORDER BY committed_at DESC, tenant_id DESC, key DESC LIMIT $5"#,
                epoch.to_stored(),
                after.map(|mark| mark.committed_at),
                after.map(|mark| mark.tenant.as_uuid()),
                after.map(|mark| mark.key.as_str()),
                limit,
            )
            .fetch_all(&global.read)
        })
        .await?;
    rows.into_iter().map(JournalRecord::try_from).collect()
}

/// The records of these keys with all they have, in that order: as many from the front as a page
/// holds, one at least. A key without a record is left out.
///
/// # Errors
/// When the database fails.
pub async fn recorded(
    global: &Global,
    keys: &[(TenantId, IdempotencyKey)],
) -> Result<Vec<JournalRecord>, StorageError> {
    let keys = &keys[..keys.len().min(RECORDS_MAX)];
    let tenants: Vec<Uuid> = keys.iter().map(|(tenant, _)| tenant.as_uuid()).collect();
    let names: Vec<&str> = keys.iter().map(|(_, key)| key.as_str()).collect();
    let page_bytes = i64::try_from(PAGE_BYTES).unwrap_or(i64::MAX);
    let rows = global
        .read(|| {
            sqlx::query_as!(
                Stored,
                r#"SELECT tenant_id AS "tenant_id!", key AS "key!", actor AS "actor!",
                    method AS "method!", path AS "path!", request_digest AS "request_digest!",
                    status AS "status!", etag, location, body, version, epoch AS "epoch!",
                    committed_at AS "committed_at!"
                FROM (
                    SELECT j.*, wanted.at, sum(500 + octet_length(path) + octet_length(key)
                        + coalesce(octet_length(body), 0)) OVER (ORDER BY wanted.at) AS bytes,
                        row_number() OVER (ORDER BY wanted.at) AS nth
                    FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS wanted (tenant, name, at)
                    JOIN write_journal AS j ON j.tenant_id = wanted.tenant AND j.key = wanted.name
                ) AS found
                WHERE nth = 1 OR bytes <= $3
                ORDER BY at"#,
                &tenants,
                &names as &[&str],
                page_bytes,
            )
            .fetch_all(&global.read)
        })
        .await?;
    rows.into_iter().map(JournalRecord::try_from).collect()
}

/// What this journal, the new primary's, has of writes of an earlier epoch.
///
/// # Errors
/// When the database fails.
pub async fn missing(
    global: &Global,
    epoch: Epoch,
    writes: &[(TenantId, IdempotencyKey, RequestDigest)],
) -> Result<Vec<Standing>, StorageError> {
    let tenants: Vec<Uuid> = writes.iter().map(|(tenant, ..)| tenant.as_uuid()).collect();
    let names: Vec<&str> = writes.iter().map(|(_, key, _)| key.as_str()).collect();
    let digests: Vec<&[u8]> = writes.iter().map(|(.., digest)| digest.as_bytes()).collect();
    let rows = global
        .read(|| {
            sqlx::query!(
                r#"SELECT j.epoch AS "epoch?", coalesce(j.request_digest = wanted.digest, false) AS "same!"
                FROM unnest($1::uuid[], $2::text[], $3::bytea[]) WITH ORDINALITY
                    AS wanted (tenant, name, digest, at)
                LEFT JOIN write_journal AS j ON j.tenant_id = wanted.tenant AND j.key = wanted.name
                ORDER BY wanted.at"#,
                &tenants,
                &names as &[&str],
                &digests as &[&[u8]],
            )
            .fetch_all(&global.read)
        })
        .await?;
    Ok(rows.iter().map(|row| standing(epoch, row.epoch, row.same)).collect())
}

/// A record of the epoch itself came by replication. One of a later epoch was made by a client that
/// sent the same request again, or another under the same key.
fn standing(epoch: Epoch, found: Option<i64>, same: bool) -> Standing {
    match found.map(|found| found.cmp(&epoch.to_stored())) {
        Some(std::cmp::Ordering::Equal) => Standing::Present,
        Some(std::cmp::Ordering::Greater) if same => Standing::Repeated,
        _ => Standing::Lost,
    }
}

/// When the epoch ended, as far as is known here.
///
/// # Errors
/// When the database fails.
pub async fn ended_at(
    global: &Global,
    epoch: Epoch,
) -> Result<Option<DateTime<Utc>>, StorageError> {
    global
        .read(|| {
            sqlx::query_scalar!(
                "SELECT at FROM cluster_epoch WHERE epoch > $1 ORDER BY epoch LIMIT 1",
                epoch.to_stored()
            )
            .fetch_optional(&global.read)
        })
        .await
}

/// Notes lost writes, each once, and tells in the same order what has become of each. One that is
/// in the journal here after all is not noted.
///
/// # Errors
/// When the database fails.
pub async fn note(
    tx: &mut WriteTx,
    lost: &[JournalRecord],
) -> Result<Vec<Option<Became>>, StorageError> {
    tx.ensure_epoch().await?;
    insert(tx, lost).await?;
    let tenants: Vec<Uuid> = lost.iter().map(|record| record.tenant.as_uuid()).collect();
    let keys: Vec<&str> = lost.iter().map(|record| record.key.as_str()).collect();
    let epochs: Vec<i64> = lost.iter().map(|record| record.epoch.to_stored()).collect();
    let (connection, bound) = tx.statement();
    let query = sqlx::query_scalar!(
        r#"SELECT noted.became AS "became?"
        FROM unnest($1::uuid[], $2::text[], $3::bigint[]) WITH ORDINALITY
            AS wanted (tenant, name, epoch, at)
        LEFT JOIN lost_write AS noted ON noted.tenant_id = wanted.tenant AND noted.key = wanted.name
            AND noted.epoch = wanted.epoch
        ORDER BY wanted.at"#,
        &tenants,
        &keys as &[&str],
        &epochs,
    );
    let outcome = bounded(bound, query.fetch_all(connection)).await;
    let rows = tx.ended(outcome)?;
    rows.into_iter().map(|became| became.map(Became::from_stored).transpose()).collect()
}

async fn insert(tx: &mut WriteTx, lost: &[JournalRecord]) -> Result<(), StorageError> {
    let (found_at, found_in) = (tx.op().now(), tx.epoch().to_stored());
    let each = lost.iter();
    let tenants: Vec<Uuid> = each.clone().map(|record| record.tenant.as_uuid()).collect();
    let keys: Vec<&str> = each.clone().map(|record| record.key.as_str()).collect();
    let epochs: Vec<i64> = each.clone().map(|record| record.epoch.to_stored()).collect();
    let actors: Vec<String> = each.clone().map(|record| record.actor.to_string()).collect();
    let methods: Vec<&str> = each.clone().map(|record| record.method.as_str()).collect();
    let paths: Vec<&str> = each.clone().map(|record| record.path.as_str()).collect();
    let digests: Vec<&[u8]> = each.clone().map(|record| record.request_digest.as_bytes()).collect();
    let statuses: Vec<i16> = each.clone().map(status_stored).collect::<Result<_, _>>()?;
    let etags: Vec<Option<&str>> = each.clone().map(|record| record.etag.as_deref()).collect();
    let locations: Vec<Option<&str>> =
        each.clone().map(|record| record.location.as_deref()).collect();
    let bodies: Vec<Option<&str>> = each.clone().map(|record| record.body.as_deref()).collect();
    let versions: Vec<Option<i64>> = each.clone().map(|record| record.version).collect();
    let items: Vec<Option<String>> = each.clone().map(JournalRecord::item_text).collect();
    let committed: Vec<DateTime<Utc>> = each.map(|record| record.committed_at).collect();
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "INSERT INTO lost_write (tenant_id, key, epoch, actor, method, path, request_digest, status,
            etag, location, body, version, item, committed_at, found_at, found_in, became, became_at)
        SELECT l.tenant_id, l.key, l.epoch, l.actor, l.method, l.path, l.request_digest, l.status,
            l.etag, l.location, l.body, l.version, l.item, l.committed_at, $15, $16,
            CASE WHEN again.key IS NOT NULL THEN 'repeated' END,
            CASE WHEN again.key IS NOT NULL THEN again.committed_at END
        FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[],
            $7::bytea[], $8::smallint[], $9::text[], $10::text[], $11::text[], $12::bigint[],
            $13::text[], $14::timestamptz[])
            AS l (tenant_id, key, epoch, actor, method, path, request_digest, status, etag, location,
                body, version, item, committed_at)
        LEFT JOIN write_journal AS again ON again.tenant_id = l.tenant_id AND again.key = l.key
            AND again.epoch > l.epoch AND again.request_digest = l.request_digest
        WHERE NOT EXISTS (SELECT FROM write_journal AS here WHERE here.tenant_id = l.tenant_id
            AND here.key = l.key AND here.epoch = l.epoch)
        ON CONFLICT ON CONSTRAINT lost_write_pkey DO NOTHING",
        &tenants,
        &keys as &[&str],
        &epochs,
        &actors,
        &methods as &[&str],
        &paths as &[&str],
        &digests as &[&[u8]],
        &statuses,
        &etags as &[Option<&str>],
        &locations as &[Option<&str>],
        &bodies as &[Option<&str>],
        &versions as &[Option<i64>],
        &items as &[Option<String>],
        &committed,
        found_at,
        found_in,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    tx.ended(outcome).map(|_| ())
}

/// Forgets up to `limit` lost writes found before `before`. Returns how many.
///
/// # Errors
/// When the database fails.
pub async fn purge(
    tx: &mut WriteTx,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<u64, StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "DELETE FROM lost_write WHERE (tenant_id, key, epoch) IN (
            SELECT tenant_id, key, epoch FROM lost_write WHERE found_at < $1 LIMIT $2)",
        before,
        limit,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    Ok(tx.ended(outcome)?.rows_affected())
}

#[cfg(test)]
mod tests;
