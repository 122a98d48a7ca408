//! What signing in needs to know of a person.

use super::{Global, NO_EPOCH, Read, WriteTx, bookmark, bounded};
use crate::{
    storage::{StorageError, TenantScope},
    vocab::{Email, Role, TenantId, UserId},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A user with the hash of their password. `Debug` hides that.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    pub tenant: TenantId,
    pub user: UserId,
    pub role: Role,
    /// How often all their sessions have been ended.
    pub generation: i64,
    pub suspended: bool,
    /// A PHC string; `None`: there is no password.
    pub hash: Option<String>,
    /// They have signed in from this address before.
    pub familiar: bool,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Who in the tenant of that name has that address, in whichever spelling; and whether they are known from
/// the network `from`.
///
/// # Errors
/// When the database fails.
pub async fn find(
    global: &Global,
    tenant: &str,
    email: &Email,
    from: &str,
) -> Result<Read<Option<Credentials>>, StorageError> {
    let row = global
        .read(|| {
            sqlx::query!(
                r#"SELECT p.epoch AS "at_epoch!", p.lsn::text AS "at_lsn!",
                    t.id AS "tenant_id?", u.id AS "id?", u.role AS "role?",
                    u.generation AS "generation?", u.suspended_at, u.password_hash,
                    EXISTS (SELECT FROM user_session AS s
                        WHERE s.user_id = u.id
                            AND nullif(s.address, '')::inet <<= $3::text::inet) AS "familiar!"
                FROM cluster_position AS p
                LEFT JOIN tenant AS t ON t.name = $1
                LEFT JOIN tenant_user AS u
                    ON u.tenant_id = t.id AND u.email_folded = $2 AND u.deleted_at IS NULL"#,
                tenant,
                email.folded(),
                from,
            )
            .fetch_optional(&global.read)
        })
        .await?
        .ok_or(NO_EPOCH)?;
    let at = bookmark(row.at_epoch, &row.at_lsn)?;
    let corrupt = |column| StorageError::Corrupt { table: "tenant_user", column };
    let value = match (row.tenant_id, row.id, row.role) {
        (Some(tenant), Some(user), Some(role)) => Some(Credentials {
            tenant: TenantId::from_stored(tenant),
            user: UserId::from_stored(user),
            role: role.parse().map_err(|_| corrupt("role"))?,
            generation: row.generation.ok_or(corrupt("generation"))?,
            suspended: row.suspended_at.is_some(),
            hash: row.password_hash,
            familiar: row.familiar,
        }),
        _ => None,
    };
    Ok(Read { value, at })
}

/// The stored hash of a user's password.
///
/// # Errors
/// When the database fails.
pub async fn hash_of(
    global: &Global,
    scope: &TenantScope,
    user: UserId,
) -> Result<Option<String>, StorageError> {
    let row = global
        .read(|| {
            sqlx::query_scalar!(
                "SELECT password_hash FROM tenant_user
                WHERE id = $1 AND tenant_id = $2 AND deleted_at IS NULL",
                user.as_uuid(),
                scope.tenant().as_uuid(),
            )
            .fetch_optional(&global.read)
        })
        .await?;
    Ok(row.flatten())
}

/// A newer hash of the same password. `Debug` hides both.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehash {
    pub user: UserId,
    pub old: String,
    pub new: String,
}

impl fmt::Debug for Rehash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rehash").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Puts the newer hash in the place of the old one. Nothing happens when that is not there any more.
///
/// # Errors
/// When the database fails.
pub async fn rehash(tx: &mut WriteTx, change: &Rehash) -> Result<(), StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "UPDATE tenant_user SET password_hash = $3 WHERE id = $1 AND password_hash = $2",
        change.user.as_uuid(),
        change.old,
        change.new,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    tx.ended(outcome)?;
    Ok(())
}
