//! Users, as their administrators see them. Their passwords' hashes go in here and do not come out.

use super::{Global, NO_EPOCH, Read, WriteTx, bookmark, bounded, stored_epoch};
use crate::{
    storage::{Constraint, StorageError, TenantScope},
    vocab::{Email, Epoch, Etag, Role, UserId},
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A user who has not been deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    pub id: UserId,
    /// As it was given.
    pub email: String,
    pub name: String,
    pub role: Role,
    /// The epoch the version was written in.
    pub epoch: Epoch,
    pub version: i64,
    /// `None`: there is no password.
    pub password_changed_at: Option<DateTime<Utc>>,
    pub suspended_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl UserRow {
    #[must_use]
    pub const fn etag(&self) -> Etag {
        Etag { epoch: self.epoch, version: self.version }
    }

    /// Whether the tenant is administered by this user, now.
    #[must_use]
    pub fn administers(&self) -> bool {
        self.role == Role::Admin && self.suspended_at.is_none()
    }
}

/// A user to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct NewUser<'a> {
    pub id: UserId,
    pub email: &'a Email,
    pub name: &'a str,
    pub role: Role,
    /// A PHC string.
    pub password_hash: Option<&'a str>,
}

/// What is to be another. What is `None` stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserChange<'a> {
    pub email: Option<&'a Email>,
    pub name: Option<&'a str>,
    pub role: Option<Role>,
}

/// A row as the columns give it; all but the position is absent when nothing was found.
struct Stored {
    id: Option<Uuid>,
    email: Option<String>,
    name: Option<String>,
    role: Option<String>,
    epoch: Option<i64>,
    version: Option<i64>,
    password_changed_at: Option<DateTime<Utc>>,
    suspended_at: Option<DateTime<Utc>>,
    created_at: Option<DateTime<Utc>>,
    updated_at: Option<DateTime<Utc>>,
    at_epoch: i64,
    at_lsn: String,
}

impl Stored {
    fn user(self) -> Result<Option<UserRow>, StorageError> {
        let Some(id) = self.id else {
            return Ok(None);
        };
        let corrupt = |column| StorageError::Corrupt { table: "tenant_user", column };
        let role = self.role.ok_or(corrupt("role"))?.parse();
        Ok(Some(UserRow {
            id: UserId::from_stored(id),
            email: self.email.ok_or(corrupt("email"))?,
            name: self.name.ok_or(corrupt("name"))?,
            role: role.map_err(|_| corrupt("role"))?,
            epoch: stored_epoch("tenant_user", self.epoch.ok_or(corrupt("epoch"))?)?,
            version: self.version.ok_or(corrupt("version"))?,
            password_changed_at: self.password_changed_at,
            suspended_at: self.suspended_at,
            created_at: self.created_at.ok_or(corrupt("created_at"))?,
            updated_at: self.updated_at.ok_or(corrupt("updated_at"))?,
        }))
    }

    fn read(self) -> Result<Read<Option<UserRow>>, StorageError> {
        let at = bookmark(self.at_epoch, &self.at_lsn)?;
        Ok(Read { value: self.user()?, at })
    }
}

/// Carries out a statement that changes one user `u` and returns it; `$rest` begins after the verb's
/// table and ends before RETURNING.
macro_rules! change {
    ($tx:ident, $statement:tt, $($argument:expr),+ $(,)?) => {{
        let (connection, bound) = $tx.statement();
        let query = sqlx::query_as!(
            Stored,
            $statement + r#"
            RETURNING u.id AS "id?", u.email, u.name, u.role AS "role?", u.epoch AS "epoch?",
                u.version AS "version?", u.password_changed_at, u.suspended_at,
                u.created_at AS "created_at?", u.updated_at AS "updated_at?",
                u.epoch AS "at_epoch!", '0/0' AS "at_lsn!""#,
            $($argument),+
        );
        let outcome = bounded(bound, query.fetch_optional(connection)).await;
        $tx.ended(outcome)?.map_or(Ok(None), Stored::user)
    }};
}

/// # Errors
/// `Conflict(UserEmail)` when somebody of the tenant has the address; `Conflict(UserId)` when the id was
/// used, by one since deleted too; `Conflict(Tenant)` when there is no such tenant.
pub async fn insert(
    tx: &mut WriteTx,
    scope: &TenantScope,
    new: &NewUser<'_>,
    at: DateTime<Utc>,
) -> Result<UserRow, StorageError> {
    tx.ensure_epoch().await?;
    let epoch = tx.epoch().to_stored();
    let made = change!(
        tx,
        "INSERT INTO tenant_user AS u (id, tenant_id, email, email_folded, name, role, password_hash,
            password_changed_at, epoch, version, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7::text,
            CASE WHEN $7::text IS NOT NULL THEN $9::timestamptz END, $8, 1, $9, $9)",
        new.id.as_uuid(),
        scope.tenant().as_uuid(),
        new.email.as_str(),
        new.email.folded(),
        new.name,
        new.role.as_str(),
        new.password_hash,
        epoch,
        at,
    )?;
    made.ok_or(StorageError::Conflict(Constraint::UserId))
}

/// The user as they are now, locked against other writers until the transaction ends.
///
/// # Errors
/// [`StorageError::Timeout`] when another writer holds them too long.
pub async fn lock(
    tx: &mut WriteTx,
    scope: &TenantScope,
    id: UserId,
) -> Result<Option<UserRow>, StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query_as!(
        Stored,
        r#"SELECT id AS "id?", email, name, role AS "role?", epoch AS "epoch?",
            version AS "version?", password_changed_at, suspended_at,
            created_at AS "created_at?", updated_at AS "updated_at?",
            epoch AS "at_epoch!", '0/0' AS "at_lsn!"
        FROM tenant_user WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL FOR UPDATE"#,
        scope.tenant().as_uuid(),
        id.as_uuid(),
    );
    let outcome = bounded(bound, query.fetch_optional(connection)).await;
    tx.ended(outcome)?.map_or(Ok(None), Stored::user)
}

/// Whether the tenant has an administrator who is not suspended, beside `id`. All of them are locked, and
/// `id`, in one order, until the transaction ends: of two who suspend each other one finds nobody left. Call
/// it before [`lock`], which would lock out of that order.
///
/// # Errors
/// [`StorageError::Timeout`] when another writer holds one of them too long.
pub async fn lock_other_admins(
    tx: &mut WriteTx,
    scope: &TenantScope,
    id: UserId,
) -> Result<bool, StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query_scalar!(
        "SELECT id FROM tenant_user
        WHERE tenant_id = $1 AND deleted_at IS NULL
            AND (id = $2 OR role = 'admin' AND suspended_at IS NULL)
        ORDER BY id FOR UPDATE",
        scope.tenant().as_uuid(),
        id.as_uuid(),
    );
    let outcome = bounded(bound, query.fetch_all(connection)).await;
    Ok(tx.ended(outcome)?.into_iter().any(|other| other != id.as_uuid()))
}

/// Changes what is to be another. Lock the user first: `version` is the new one.
///
/// # Errors
/// `Conflict(UserEmail)` when somebody else of the tenant has the address; `Conflict(UserId)` when
/// there is no such user, or not in the version before.
pub async fn update(
    tx: &mut WriteTx,
    scope: &TenantScope,
    id: UserId,
    version: i64,
    change: &UserChange<'_>,
    at: DateTime<Utc>,
) -> Result<UserRow, StorageError> {
    tx.ensure_epoch().await?;
    let epoch = tx.epoch().to_stored();
    let changed = change!(
        tx,
        "UPDATE tenant_user AS u SET epoch = $3, version = $4::bigint, updated_at = $5,
            email = coalesce($6, u.email), email_folded = coalesce($7, u.email_folded),
            name = coalesce($8, u.name), role = coalesce($9, u.role)
        WHERE u.tenant_id = $1 AND u.id = $2 AND u.version = $4::bigint - 1
            AND u.deleted_at IS NULL",
        scope.tenant().as_uuid(),
        id.as_uuid(),
        epoch,
        version,
        at,
        change.email.map(Email::as_str),
        change.email.map(Email::folded),
        change.name,
        change.role.map(Role::as_str),
    )?;
    changed.ok_or(StorageError::Conflict(Constraint::UserId))
}

/// Gives the user another password. Lock them first: `version` is the new one.
///
/// # Errors
/// `Conflict(UserId)` when there is no such user, or not in the version before.
pub async fn set_password(
    tx: &mut WriteTx,
    scope: &TenantScope,
    id: UserId,
    version: i64,
    hash: &str,
    at: DateTime<Utc>,
) -> Result<UserRow, StorageError> {
    tx.ensure_epoch().await?;
    let epoch = tx.epoch().to_stored();
    let changed = change!(
        tx,
        "UPDATE tenant_user AS u SET epoch = $3, version = $4::bigint, updated_at = $5,
            password_hash = $6, password_changed_at = $5
        WHERE u.tenant_id = $1 AND u.id = $2 AND u.version = $4::bigint - 1
            AND u.deleted_at IS NULL",
        scope.tenant().as_uuid(),
        id.as_uuid(),
        epoch,
        version,
        at,
        hash,
    )?;
    changed.ok_or(StorageError::Conflict(Constraint::UserId))
}

/// Suspends the user since `suspended_at`, or ends that. Lock them first: `version` is the new one.
///
/// # Errors
/// `Conflict(UserId)` when there is no such user, or not in the version before.
pub async fn set_suspended(
    tx: &mut WriteTx,
    scope: &TenantScope,
    id: UserId,
    version: i64,
    suspended_at: Option<DateTime<Utc>>,
    at: DateTime<Utc>,
) -> Result<UserRow, StorageError> {
    tx.ensure_epoch().await?;
    let epoch = tx.epoch().to_stored();
    let changed = change!(
        tx,
        "UPDATE tenant_user AS u SET epoch = $3, version = $4::bigint, updated_at = $5,
            suspended_at = $6
        WHERE u.tenant_id = $1 AND u.id = $2 AND u.version = $4::bigint - 1
            AND u.deleted_at IS NULL",
        scope.tenant().as_uuid(),
        id.as_uuid(),
        epoch,
        version,
        at,
        suspended_at,
    )?;
    changed.ok_or(StorageError::Conflict(Constraint::UserId))
}

/// Erases all that is personal of the user and keeps the id. `false` when there is no such user, or
/// not in the version before `version`.
///
/// # Errors
/// When the database fails.
pub async fn delete(
    tx: &mut WriteTx,
    scope: &TenantScope,
    id: UserId,
    version: i64,
    at: DateTime<Utc>,
) -> Result<bool, StorageError> {
    tx.ensure_epoch().await?;
    let epoch = tx.epoch().to_stored();
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "UPDATE tenant_user SET epoch = $3, version = $4::bigint, updated_at = $5, deleted_at = $5,
            email = NULL, email_folded = NULL, name = NULL, password_hash = NULL,
            password_changed_at = NULL
        WHERE tenant_id = $1 AND id = $2 AND version = $4::bigint - 1 AND deleted_at IS NULL",
        scope.tenant().as_uuid(),
        id.as_uuid(),
        epoch,
        version,
        at,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    Ok(tx.ended(outcome)?.rows_affected() == 1)
}

/// Reads users `u` with the position: `$users` joins them to it.
macro_rules! select {
    ($users:tt, $($argument:expr),+ $(,)?) => {
        sqlx::query_as!(
            Stored,
            r#"SELECT u.id AS "id?", u.email, u.name, u.role AS "role?", u.epoch AS "epoch?",
                u.version AS "version?", u.password_changed_at, u.suspended_at,
                u.created_at AS "created_at?", u.updated_at AS "updated_at?",
                p.epoch AS "at_epoch!", p.lsn::text AS "at_lsn!"
            FROM cluster_position AS p
            "# + $users,
            $($argument),+
        )
    };
}

/// # Errors
/// When the database fails.
pub async fn find(
    global: &Global,
    scope: &TenantScope,
    id: UserId,
) -> Result<Read<Option<UserRow>>, StorageError> {
    let row = global
        .read(|| {
            select!(
                "LEFT JOIN tenant_user AS u
                    ON u.tenant_id = $1 AND u.id = $2 AND u.deleted_at IS NULL",
                scope.tenant().as_uuid(),
                id.as_uuid(),
            )
            .fetch_optional(&global.read)
        })
        .await?;
    row.ok_or(NO_EPOCH)?.read()
}

/// By an address, in whichever spelling.
///
/// # Errors
/// When the database fails.
pub async fn find_by_email(
    global: &Global,
    scope: &TenantScope,
    email: &Email,
) -> Result<Read<Option<UserRow>>, StorageError> {
    let row = global
        .read(|| {
            select!(
                "LEFT JOIN tenant_user AS u
                    ON u.tenant_id = $1 AND u.email_folded = $2 AND u.deleted_at IS NULL",
                scope.tenant().as_uuid(),
                email.folded(),
            )
            .fetch_optional(&global.read)
        })
        .await?;
    row.ok_or(NO_EPOCH)?.read()
}

/// A tenant's users in the order of their making, suspended ones too: up to `limit` after the user
/// `after`.
///
/// # Errors
/// When the database fails.
pub async fn list(
    global: &Global,
    scope: &TenantScope,
    after: Option<UserId>,
    limit: i64,
) -> Result<Read<Vec<UserRow>>, StorageError> {
    let rows = global
        .read(|| {
            select!(
                "LEFT JOIN (
                    SELECT id, email, name, role, epoch, version, password_changed_at, suspended_at,
                        created_at, updated_at
                    FROM tenant_user
                    WHERE tenant_id = $1 AND deleted_at IS NULL
                        AND ($2::uuid IS NULL OR id > $2)
                    ORDER BY id LIMIT $3
                ) AS u ON true
                ORDER BY u.id",
                scope.tenant().as_uuid(),
                after.map(|id| id.as_uuid()),
                limit,
            )
            .fetch_all(&global.read)
        })
        .await?;
    let first = rows.first().ok_or(NO_EPOCH)?;
    let at = bookmark(first.at_epoch, &first.at_lsn)?;
    let users = rows.into_iter().filter_map(|row| row.user().transpose());
    Ok(Read { value: users.collect::<Result<_, _>>()?, at })
}

#[cfg(test)]
mod tests;
