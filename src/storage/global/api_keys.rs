//! API keys: the credential look-ups, and the keys as their administrators list them.

use super::{Global, NO_EPOCH, Read, WriteTx, bookmark, bounded};
use crate::{
    storage::{StorageError, TenantScope},
    vocab::{ApiKeyId, Bookmark, Scope, Scopes, TenantId},
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A key, and the tenant it belongs to. Never its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    pub id: ApiKeyId,
    pub tenant: TenantId,
    pub tenant_name: String,
    pub name: String,
    /// The first characters of the key, to tell keys apart in a list.
    pub prefix: String,
    pub scopes: Scopes,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
}

impl KeyRow {
    /// The rows that the bearer of this key may reach. Whether the key is still good is the
    /// caller's to judge.
    #[must_use]
    pub const fn scope(&self) -> TenantScope {
        TenantScope::new(self.tenant)
    }
}

/// A key to be recorded.
#[derive(Debug, Clone)]
pub struct NewKey<'a> {
    pub id: ApiKeyId,
    pub name: &'a str,
    pub prefix: &'a str,
    /// SHA-256 of the whole key.
    pub secret_hash: [u8; 32],
    pub scopes: Scopes,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

/// A row as the columns give it; all but the position is absent when nothing was found.
pub(super) struct Stored {
    pub(super) at_epoch: i64,
    pub(super) at_lsn: String,
    pub(super) id: Option<Uuid>,
    pub(super) tenant_id: Option<Uuid>,
    pub(super) tenant_name: Option<String>,
    pub(super) name: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) created_at: Option<DateTime<Utc>>,
    pub(super) expires_at: Option<DateTime<Utc>>,
    pub(super) revoked_at: Option<DateTime<Utc>>,
}

impl Stored {
    fn at(&self) -> Result<Bookmark, StorageError> {
        bookmark(self.at_epoch, &self.at_lsn)
    }

    fn key(self) -> Result<Option<KeyRow>, StorageError> {
        let Some(id) = self.id else {
            return Ok(None);
        };
        let corrupt = |column| StorageError::Corrupt { table: "api_key", column };
        Ok(Some(KeyRow {
            id: ApiKeyId::from_stored(id),
            tenant: TenantId::from_stored(self.tenant_id.ok_or(corrupt("tenant_id"))?),
            tenant_name: self.tenant_name.ok_or(corrupt("tenant_id"))?,
            name: self.name.ok_or(corrupt("name"))?,
            prefix: self.prefix.ok_or(corrupt("prefix"))?,
            scopes: scopes(&self.scopes.ok_or(corrupt("scopes"))?)?,
            created_at: self.created_at.ok_or(corrupt("created_at"))?,
            expires_at: self.expires_at.ok_or(corrupt("expires_at"))?,
            revoked_at: self.revoked_at,
        }))
    }

    pub(super) fn read(self) -> Result<Read<Option<KeyRow>>, StorageError> {
        let at = self.at()?;
        Ok(Read { value: self.key()?, at })
    }
}

fn scopes(stored: &[String]) -> Result<Scopes, StorageError> {
    let parsed: Result<Scopes, _> = stored.iter().map(|text| text.parse::<Scope>()).collect();
    parsed.map_err(|_| StorageError::Corrupt { table: "api_key", column: "scopes" })
}

/// # Errors
/// `Conflict(Tenant)` when there is no such tenant.
pub async fn insert(
    tx: &mut WriteTx,
    tenant: TenantId,
    new: &NewKey<'_>,
) -> Result<KeyRow, StorageError> {
    tx.ensure_epoch().await?;
    let scopes: Vec<String> = new.scopes.iter().map(|scope| scope.to_string()).collect();
    let (connection, bound) = tx.statement();
    let query = sqlx::query_scalar!(
        r#"INSERT INTO api_key
            (id, tenant_id, name, prefix, secret_hash, scopes, created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        RETURNING (SELECT name FROM tenant WHERE id = $2)"#,
        new.id.as_uuid(),
        tenant.as_uuid(),
        new.name,
        new.prefix,
        new.secret_hash.as_slice(),
        &scopes,
        new.created_at,
        new.expires_at,
    );
    let outcome = bounded(bound, query.fetch_one(connection)).await;
    let tenant_name = tx.ended(outcome)?;
    Ok(KeyRow {
        id: new.id,
        tenant,
        tenant_name: tenant_name
            .ok_or(StorageError::Corrupt { table: "api_key", column: "tenant_id" })?,
        name: new.name.to_owned(),
        prefix: new.prefix.to_owned(),
        scopes: new.scopes,
        created_at: new.created_at,
        expires_at: new.expires_at,
        revoked_at: None,
    })
}

/// Ends a key; a second time changes nothing. `None` when the tenant has no such key.
///
/// # Errors
/// When the database fails.
pub async fn revoke(
    tx: &mut WriteTx,
    scope: &TenantScope,
    id: ApiKeyId,
    at: DateTime<Utc>,
) -> Result<Option<KeyRow>, StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query_as!(
        Stored,
        r#"UPDATE api_key AS k SET revoked_at = coalesce(k.revoked_at, $3)
        FROM cluster_position AS p, tenant AS t
        WHERE k.tenant_id = $1 AND k.id = $2 AND t.id = k.tenant_id
        RETURNING p.epoch AS "at_epoch!", p.lsn::text AS "at_lsn!", k.id AS "id?",
            k.tenant_id AS "tenant_id?", t.name AS "tenant_name?", k.name AS "name?",
            k.prefix AS "prefix?", k.scopes AS "scopes?", k.created_at AS "created_at?",
            k.expires_at AS "expires_at?", k.revoked_at"#,
        scope.tenant().as_uuid(),
        id.as_uuid(),
        at,
    );
    let outcome = bounded(bound, query.fetch_optional(connection)).await;
    tx.ended(outcome)?.map_or(Ok(None), Stored::key)
}

/// Reads keys `k` of tenants `t`, with the position: `$keys` joins both to it.
macro_rules! select {
    ($keys:tt, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            Stored,
            r#"SELECT p.epoch AS "at_epoch!", p.lsn::text AS "at_lsn!", k.id AS "id?",
                k.tenant_id AS "tenant_id?", t.name AS "tenant_name?", k.name AS "name?",
                k.prefix AS "prefix?", k.scopes AS "scopes?", k.created_at AS "created_at?",
                k.expires_at AS "expires_at?", k.revoked_at
            FROM cluster_position AS p
            "# + $keys,
            $($argument),+
        )
    };
}

/// By the SHA-256 of the whole key.
///
/// # Errors
/// When the database fails.
pub async fn find_by_hash(
    global: &Global,
    secret_hash: &[u8; 32],
) -> Result<Read<Option<KeyRow>>, StorageError> {
    let row = global
        .read(|| {
            select!(
                "LEFT JOIN (api_key AS k JOIN tenant AS t ON t.id = k.tenant_id)
                    ON k.secret_hash = $1",
                secret_hash.as_slice(),
            )
            .fetch_optional(&global.read)
        })
        .await?;
    row.ok_or(NO_EPOCH)?.read()
}

/// By its id, for a caller whom another region has identified.
///
/// # Errors
/// When the database fails.
pub async fn find_by_id(
    global: &Global,
    id: ApiKeyId,
) -> Result<Read<Option<KeyRow>>, StorageError> {
    let row = global
        .read(|| {
            select!(
                "LEFT JOIN (api_key AS k JOIN tenant AS t ON t.id = k.tenant_id) ON k.id = $1",
                id.as_uuid(),
            )
            .fetch_optional(&global.read)
        })
        .await?;
    row.ok_or(NO_EPOCH)?.read()
}

/// A tenant's keys in the order of their making, revoked and expired ones too: up to `limit` after
/// the key `after`.
///
/// # Errors
/// When the database fails.
pub async fn list(
    global: &Global,
    scope: &TenantScope,
    after: Option<ApiKeyId>,
    limit: i64,
) -> Result<Read<Vec<KeyRow>>, StorageError> {
    let rows = global
        .read(|| {
            select!(
                "LEFT JOIN (
                    SELECT * FROM api_key
                    WHERE tenant_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3
                ) AS k ON true
                LEFT JOIN tenant AS t ON t.id = k.tenant_id
                ORDER BY k.id",
                scope.tenant().as_uuid(),
                after.map(|id| id.as_uuid()),
                limit,
            )
            .fetch_all(&global.read)
        })
        .await?;
    let at = rows.first().ok_or(NO_EPOCH)?.at()?;
    let keys = rows.into_iter().filter_map(|row| row.key().transpose());
    Ok(Read { value: keys.collect::<Result<_, _>>()?, at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Constraint, global::testing::Fixture};
    use sqlx::PgPool;

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_key_is_found_by_its_hash_and_by_its_id(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let new = at.new_key(7);
        let tenant = at.scope.tenant();
        let (made, written_at) = at.write(async |tx| insert(tx, tenant, &new).await).await;
        assert_eq!((made.tenant_name.as_str(), made.scopes), ("ours", new.scopes));
        let by_hash = find_by_hash(&at.global, &[7; 32]).await.unwrap();
        let by_id = find_by_id(&at.global, new.id).await.unwrap();
        assert_eq!(by_hash.value, Some(made));
        assert_eq!(by_hash.value, by_id.value);
        assert!(by_hash.at >= written_at);
        assert_eq!(by_id.value.unwrap().scope(), at.scope);
        assert_eq!(find_by_hash(&at.global, &[8; 32]).await.unwrap().value, None);
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_key_ends_once_and_only_for_its_own_tenant(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let new = at.new_key(7);
        let tenant = at.scope.tenant();
        at.write(async |tx| insert(tx, tenant, &new).await).await;
        let (first, later) = (at.op.now(), at.op.now() + chrono::Duration::days(1));
        let foreign = async |tx: &mut WriteTx| revoke(tx, &at.other, new.id, first).await;
        assert_eq!(at.write(foreign).await.0, None);
        for now in [first, later] {
            let own = async |tx: &mut WriteTx| revoke(tx, &at.scope, new.id, now).await;
            assert_eq!(at.write(own).await.0.unwrap().revoked_at, Some(first));
        }
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn keys_are_listed_page_by_page_each_tenants_alone(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let news: Vec<_> = (0..5).map(|hash| at.new_key(hash)).collect();
        for (index, new) in news.iter().enumerate() {
            let tenant = if index == 2 { at.other.tenant() } else { at.scope.tenant() };
            at.write(async |tx| insert(tx, tenant, new).await).await;
        }
        let mut own: Vec<_> = [0, 1, 3, 4].map(|index: usize| news[index].id).into();
        own.sort();
        let ids = |read: Read<Vec<KeyRow>>| read.value.iter().map(|row| row.id).collect::<Vec<_>>();
        let first = ids(list(&at.global, &at.scope, None, 3).await.unwrap());
        assert_eq!(first, own[..3]);
        let rest = list(&at.global, &at.scope, first.last().copied(), 3).await.unwrap();
        assert_eq!(ids(rest), own[3..]);
        let beyond = list(&at.global, &at.scope, own.last().copied(), 3).await.unwrap();
        assert_eq!(ids(beyond), []);
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn refuses_a_second_key_with_one_secret_and_a_key_of_no_tenant(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let (new, twin) = (at.new_key(7), at.new_key(7));
        let tenant = at.scope.tenant();
        at.write(async |tx| insert(tx, tenant, &new).await).await;
        let failed = insert(&mut at.begin().await, tenant, &twin).await;
        assert!(matches!(failed, Err(StorageError::Conflict(Constraint::ApiKeySecret))));
        let nobody = TenantId::mint(&at.op);
        let failed = insert(&mut at.begin().await, nobody, &at.new_key(8)).await;
        assert!(matches!(failed, Err(StorageError::Conflict(Constraint::Tenant))));
    }
}
