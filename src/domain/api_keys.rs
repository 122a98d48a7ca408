//! API keys, as their administrators see them.

use super::write::{Refused, WorkError};
use crate::{
    storage::{
        TenantScope, WriteTx,
        global::api_keys::{self, KeyRow, NewKey},
    },
    vocab::{ApiKeyId, Op, Scopes},
};
use chrono::Duration;

/// Shortest and longest life of a key, in days.
pub const DAYS: std::ops::RangeInclusive<u32> = 1..=365;
pub const DAYS_DEFAULT: u32 = 90;
/// Longest name, in characters.
pub const NAME_CHARS_MAX: usize = 100;

/// A key to be made. The secret itself stays with the caller.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    pub id: ApiKeyId,
    pub name: &'a str,
    pub prefix: &'a str,
    pub secret_hash: [u8; 32],
    pub scopes: Scopes,
    /// Within [`DAYS`].
    pub days: u32,
}

/// Records a new key.
///
/// # Errors
/// When the database fails.
pub async fn create(
    tx: &mut WriteTx,
    scope: &TenantScope,
    draft: &Draft<'_>,
    op: &Op,
) -> Result<KeyRow, WorkError> {
    let created_at = op.now();
    let new = NewKey {
        id: draft.id,
        name: draft.name,
        prefix: draft.prefix,
        secret_hash: draft.secret_hash,
        scopes: draft.scopes,
        created_at,
        expires_at: created_at + Duration::days(i64::from(draft.days)),
    };
    Ok(api_keys::insert(tx, scope.tenant(), &new).await?)
}

/// Ends a key for good. Ending it twice is ending it once.
///
/// # Errors
/// [`Refused::NotFound`] when the tenant has no such key.
pub async fn revoke(
    tx: &mut WriteTx,
    scope: &TenantScope,
    id: ApiKeyId,
    op: &Op,
) -> Result<KeyRow, WorkError> {
    let row = api_keys::revoke(tx, scope, id, op.now()).await?;
    row.ok_or_else(|| Refused::NotFound.into())
}
