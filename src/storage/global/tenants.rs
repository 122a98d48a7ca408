//! Tenants.

use super::{Global, NO_EPOCH, Read, WriteTx, bookmark, bounded};
use crate::{storage::StorageError, vocab::TenantId};
use chrono::{DateTime, Utc};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    pub id: TenantId,
    pub name: String,
    pub created_at: DateTime<Utc>,
}

/// # Errors
/// `Conflict(TenantName)` when the name is taken.
pub async fn create(
    tx: &mut WriteTx,
    id: TenantId,
    name: &str,
    created_at: DateTime<Utc>,
) -> Result<TenantRow, StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "INSERT INTO tenant (id, name, created_at) VALUES ($1, $2, $3)",
        id.as_uuid(),
        name,
        created_at,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    tx.ended(outcome)?;
    Ok(TenantRow { id, name: name.to_owned(), created_at })
}

/// # Errors
/// When the database fails.
pub async fn find_by_name(
    global: &Global,
    name: &str,
) -> Result<Read<Option<TenantRow>>, StorageError> {
    let row = global
        .read(|| {
            sqlx::query!(
                r#"SELECT p.epoch AS "at_epoch!", p.lsn::text AS "at_lsn!",
                    t.id AS "id?", t.name AS "name?", t.created_at AS "created_at?"
                FROM cluster_position AS p LEFT JOIN tenant AS t ON t.name = $1"#,
                name,
            )
            .fetch_optional(&global.read)
        })
        .await?
        .ok_or(NO_EPOCH)?;
    let at = bookmark(row.at_epoch, &row.at_lsn)?;
    let value = match (row.id, row.name, row.created_at) {
        (Some(id), Some(name), Some(created_at)) => {
            Some(TenantRow { id: TenantId::from_stored(id), name, created_at })
        }
        _ => None,
    };
    Ok(Read { value, at })
}
