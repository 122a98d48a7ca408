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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Constraint, global::testing::Fixture};
    use sqlx::PgPool;

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_tenant_is_found_by_the_name_it_was_made_with(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let id = TenantId::mint(&at.op);
        let create = async |tx: &mut WriteTx| create(tx, id, "demo", at.op.now()).await;
        let (made, written_at) = at.write(create).await;
        let found = find_by_name(&at.global, "demo").await.unwrap();
        assert_eq!(found.value.as_ref(), Some(&made));
        assert!(found.at >= written_at);
        assert_eq!(find_by_name(&at.global, "Demo").await.unwrap().value, None);
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_name_is_one_tenants(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let mut tx = at.begin().await;
        let again = create(&mut tx, TenantId::mint(&at.op), "ours", at.op.now()).await;
        assert!(matches!(again, Err(StorageError::Conflict(Constraint::TenantName))), "{again:?}");
    }
}
