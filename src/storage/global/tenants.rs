//! Tenants.

use super::{Global, NO_EPOCH, Read, WriteTx, bookmark, bounded};
use crate::{
    storage::{StorageError, TenantScope},
    vocab::TenantId,
};
use chrono::{DateTime, Utc};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    pub id: TenantId,
    pub name: String,
    pub created_at: DateTime<Utc>,
}

impl TenantRow {
    /// The tenant's rows, for who makes an account of their own there: one row, and what is in it is
    /// theirs. Nothing of the tenant's is read with it.
    #[must_use]
    pub const fn registration_scope(&self) -> TenantScope {
        TenantScope::new(self.id)
    }

    /// The tenant's rows, for an operator's command: whoever holds the settings holds the database's
    /// password already. A request never gets its scope here.
    #[must_use]
    pub const fn operator_scope(&self) -> TenantScope {
        TenantScope::new(self.id)
    }
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

/// What the scope's tenant is called.
///
/// # Errors
/// When the database fails.
pub async fn name(
    global: &Global,
    scope: &TenantScope,
) -> Result<Read<Option<String>>, StorageError> {
    let row = global
        .read(|| {
            sqlx::query!(
                r#"SELECT p.epoch AS "at_epoch!", p.lsn::text AS "at_lsn!", t.name AS "name?"
                FROM cluster_position AS p LEFT JOIN tenant AS t ON t.id = $1"#,
                scope.tenant().as_uuid(),
            )
            .fetch_optional(&global.read)
        })
        .await?
        .ok_or(NO_EPOCH)?;
    Ok(Read { value: row.name, at: bookmark(row.at_epoch, &row.at_lsn)? })
}

/// Tenants by name: up to `limit` after the name `after`.
///
/// # Errors
/// When the database fails.
pub async fn list(
    global: &Global,
    after: Option<&str>,
    limit: i64,
) -> Result<Read<Vec<TenantRow>>, StorageError> {
    let rows = global
        .read(|| {
            sqlx::query!(
                r#"SELECT p.epoch AS "at_epoch!", p.lsn::text AS "at_lsn!",
                    t.id AS "id?", t.name AS "name?", t.created_at AS "created_at?"
                FROM cluster_position AS p
                LEFT JOIN (
                    SELECT * FROM tenant WHERE $1::text IS NULL OR name > $1 ORDER BY name LIMIT $2
                ) AS t ON true
                ORDER BY t.name"#,
                after,
                limit,
            )
            .fetch_all(&global.read)
        })
        .await?;
    let first = rows.first().ok_or(NO_EPOCH)?;
    let at = bookmark(first.at_epoch, &first.at_lsn)?;
    let tenants = rows.into_iter().filter_map(|row| {
        let id = TenantId::from_stored(row.id?);
        Some(TenantRow { id, name: row.name?, created_at: row.created_at? })
    });
    Ok(Read { value: tenants.collect(), at })
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
        let called = name(&at.global, &made.registration_scope()).await.unwrap().value;
        assert_eq!(called.as_deref(), Some("demo"));
        assert_eq!(find_by_name(&at.global, "Demo").await.unwrap().value, None);
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_name_is_one_tenants(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let mut tx = at.begin().await;
        let again = create(&mut tx, TenantId::mint(&at.op), "ours", at.op.now()).await;
        assert!(matches!(again, Err(StorageError::Conflict(Constraint::TenantName))), "{again:?}");
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn tenants_are_listed_by_name_page_by_page(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        for name in ["zeta", "alpha", "mid"] {
            let id = TenantId::mint(&at.op);
            at.write(async |tx: &mut WriteTx| create(tx, id, name, at.op.now()).await).await;
        }
        let mut names = Vec::new();
        loop {
            let after = names.last().map(String::as_str);
            let page = list(&at.global, after, 2).await.unwrap().value;
            if page.is_empty() {
                break;
            }
            names.extend(page.into_iter().map(|tenant| tenant.name));
        }
        let ours = names.iter().filter(|name| ["zeta", "alpha", "mid"].contains(&name.as_str()));
        assert_eq!(ours.collect::<Vec<_>>(), ["alpha", "mid", "zeta"]);
        assert!(names.is_sorted());
    }
}
