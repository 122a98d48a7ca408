//! Items: a tenant's versioned documents.
//!
//! `data` travels as JSON text in both directions, so that no number passes through a float. What
//! comes back is what `jsonb` keeps: members sorted, the last of two equal names.

mod collections;
mod list;

pub use collections::{CollectionPage, collections};
pub use list::{ListPosition, ListQuery, Order, OrderBy, Page, list};

use super::{WriteTx, bounded, stored_epoch};
use crate::{
    storage::{Constraint, StorageError, TenantScope},
    vocab::{Collection, Epoch, Etag, ItemId},
};
use chrono::{DateTime, Utc};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRow {
    pub id: ItemId,
    pub collection: Collection,
    /// The epoch the version was written in.
    pub epoch: Epoch,
    pub version: i64,
    /// JSON text.
    pub data: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl ItemRow {
    #[must_use]
    pub const fn etag(&self) -> Etag {
        Etag { epoch: self.epoch, version: self.version }
    }
}

/// An item to be made, under a minted or a chosen id.
#[derive(Debug, Clone, Copy)]
pub struct NewItem<'a> {
    pub id: ItemId,
    /// JSON text of an object.
    pub data: &'a str,
}

/// What came of one insertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    New(ItemRow),
    /// The id was taken, by this item; nothing was changed.
    Exists(ItemRow),
}

/// What came of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InsertedMany {
    /// In the order they were given.
    New(Vec<ItemRow>),
    /// The `index`th has an id that is taken, by `row` or by an earlier one of the many. The others
    /// may have been inserted: roll back.
    Exists { index: usize, row: ItemRow },
}

/// A row as the columns give it.
struct Stored {
    id: Uuid,
    collection: String,
    epoch: i64,
    version: i64,
    data: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Stored> for ItemRow {
    type Error = StorageError;

    fn try_from(stored: Stored) -> Result<Self, StorageError> {
        let collection = stored.collection.parse();
        Ok(Self {
            id: ItemId::from_stored(stored.id),
            collection: collection
                .map_err(|_| StorageError::Corrupt { table: "item", column: "collection" })?,
            epoch: stored_epoch("item", stored.epoch)?,
            version: stored.version,
            data: stored.data,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        })
    }
}

/// Inserts an item unless its id is taken. A deleted item's id goes on from the deleted version.
///
/// # Errors
/// [`StorageError::InvalidData`] when the document cannot be kept; `Conflict(ItemId)` when the id is
/// taken and freed again by others meanwhile.
pub async fn insert(
    tx: &mut WriteTx,
    scope: &TenantScope,
    collection: &Collection,
    new: &NewItem<'_>,
    at: DateTime<Utc>,
) -> Result<Inserted, StorageError> {
    Ok(match insert_many(tx, scope, collection, std::slice::from_ref(new), at).await? {
        InsertedMany::New(mut rows) => {
            Inserted::New(rows.pop().ok_or(StorageError::Conflict(Constraint::ItemId))?)
        }
        InsertedMany::Exists { row, .. } => Inserted::Exists(row),
    })
}

/// Inserts many items in one statement.
///
/// # Errors
/// As [`insert`].
pub async fn insert_many(
    tx: &mut WriteTx,
    scope: &TenantScope,
    collection: &Collection,
    new: &[NewItem<'_>],
    at: DateTime<Utc>,
) -> Result<InsertedMany, StorageError> {
    tx.ensure_epoch().await?;
    let ids: Vec<Uuid> = new.iter().map(|item| item.id.as_uuid()).collect();
    let documents: Vec<&str> = new.iter().map(|item| item.data).collect();
    let epoch = tx.epoch().to_stored();
    let (connection, bound) = tx.statement();
    // In the order of the ids, so that two such statements cannot wait for each other.
    let query = sqlx::query!(
        r#"WITH input AS (
            SELECT id, data FROM unnest($4::uuid[], $5::text[]) AS input (id, data)
        ), buried AS (
            DELETE FROM item_tombstone AS mark USING input
            WHERE mark.tenant_id = $1 AND mark.collection = $2 AND mark.id = input.id
            RETURNING mark.id, mark.version
        )
        INSERT INTO item (tenant_id, collection, id, epoch, version, data, created_at, updated_at)
        SELECT $1, $2, input.id, $3, coalesce(buried.version, 0) + 1, input.data::jsonb, $6, $6
        FROM input LEFT JOIN buried ON buried.id = input.id ORDER BY input.id
        ON CONFLICT ON CONSTRAINT item_pkey DO NOTHING
        RETURNING id, collection, epoch, version, data::text AS "data!", created_at, updated_at,
            item_deleted_meanwhile(tenant_id, collection, id) AS "deleted_meanwhile!""#,
        scope.tenant().as_uuid(),
        collection.as_str(),
        epoch,
        &ids,
        &documents as &[&str],
        at,
    );
    let outcome = bounded(bound, query.fetch_all(connection)).await;
    let rows = tx.ended(outcome)?;
    if rows.iter().any(|row| row.deleted_meanwhile) {
        return Err(StorageError::Conflict(Constraint::ItemId));
    }
    let mut inserted = HashMap::with_capacity(rows.len());
    for row in rows {
        let stored = Stored {
            id: row.id,
            collection: row.collection,
            epoch: row.epoch,
            version: row.version,
            data: row.data,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        inserted.insert(row.id, ItemRow::try_from(stored)?);
    }
    let mut seen = HashSet::with_capacity(new.len());
    let taken = ids.iter().position(|id| !inserted.contains_key(id) || !seen.insert(*id));
    if let Some(index) = taken {
        let row = lock(tx, scope, collection, new[index].id).await?;
        let row = row.ok_or(StorageError::Conflict(Constraint::ItemId))?;
        return Ok(InsertedMany::Exists { index, row });
    }
    Ok(InsertedMany::New(ids.iter().filter_map(|id| inserted.remove(id)).collect()))
}

/// The current version, locked against other writers until the transaction ends.
///
/// # Errors
/// [`StorageError::Timeout`] when another writer holds it too long.
pub async fn lock(
    tx: &mut WriteTx,
    scope: &TenantScope,
    collection: &Collection,
    id: ItemId,
) -> Result<Option<ItemRow>, StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query_as!(
        Stored,
        r#"SELECT id, collection, epoch, version, data::text AS "data!", created_at, updated_at
        FROM item WHERE tenant_id = $1 AND collection = $2 AND id = $3 FOR UPDATE"#,
        scope.tenant().as_uuid(),
        collection.as_str(),
        id.as_uuid(),
    );
    let outcome = bounded(bound, query.fetch_optional(connection)).await;
    tx.ended(outcome)?.map(ItemRow::try_from).transpose()
}

/// Replaces the document. Lock the item first: `version` is the new one.
///
/// # Errors
/// [`StorageError::InvalidData`] when the document cannot be kept; `Conflict(ItemId)` when there is
/// no such item, or not in the version before.
pub async fn update(
    tx: &mut WriteTx,
    scope: &TenantScope,
    collection: &Collection,
    id: ItemId,
    version: i64,
    data: &str,
    at: DateTime<Utc>,
) -> Result<ItemRow, StorageError> {
    tx.ensure_epoch().await?;
    let epoch = tx.epoch().to_stored();
    let (connection, bound) = tx.statement();
    let query = sqlx::query_as!(
        Stored,
        r#"UPDATE item SET epoch = $4, version = $5::bigint, data = $6::text::jsonb, updated_at = $7
        WHERE tenant_id = $1 AND collection = $2 AND id = $3 AND version = $5::bigint - 1
        RETURNING id, collection, epoch, version, data::text AS "data!", created_at, updated_at"#,
        scope.tenant().as_uuid(),
        collection.as_str(),
        id.as_uuid(),
        epoch,
        version,
        data,
        at,
    );
    let outcome = bounded(bound, query.fetch_optional(connection)).await;
    let row = tx.ended(outcome)?.ok_or(StorageError::Conflict(Constraint::ItemId))?;
    row.try_into()
}

/// Deletes the item and leaves a tombstone with its version. `false` when there is no such item.
///
/// # Errors
/// When the database fails.
pub async fn delete(
    tx: &mut WriteTx,
    scope: &TenantScope,
    collection: &Collection,
    id: ItemId,
    at: DateTime<Utc>,
) -> Result<bool, StorageError> {
    tx.ensure_epoch().await?;
    let epoch = tx.epoch().to_stored();
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "WITH gone AS (
            DELETE FROM item WHERE tenant_id = $1 AND collection = $2 AND id = $3 RETURNING version
        )
        INSERT INTO item_tombstone (tenant_id, collection, id, epoch, version, deleted_at)
        SELECT $1, $2, $3, $4, gone.version, $5 FROM gone
        ON CONFLICT ON CONSTRAINT item_tombstone_pkey DO UPDATE
        SET epoch = excluded.epoch, version = excluded.version, deleted_at = excluded.deleted_at",
        scope.tenant().as_uuid(),
        collection.as_str(),
        id.as_uuid(),
        epoch,
        at,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    Ok(tx.ended(outcome)?.rows_affected() == 1)
}

/// Forgets up to `limit` tombstones left before `before`, the oldest first. Returns how many.
///
/// # Errors
/// When the database fails.
pub async fn purge_tombstones(
    tx: &mut WriteTx,
    before: DateTime<Utc>,
    limit: i64,
) -> Result<u64, StorageError> {
    tx.ensure_epoch().await?;
    let (connection, bound) = tx.statement();
    let query = sqlx::query!(
        "DELETE FROM item_tombstone WHERE (tenant_id, collection, id) IN (
            SELECT tenant_id, collection, id FROM item_tombstone WHERE deleted_at < $1
            ORDER BY deleted_at LIMIT $2)",
        before,
        limit,
    );
    let outcome = bounded(bound, query.execute(connection)).await;
    Ok(tx.ended(outcome)?.rows_affected())
}

#[cfg(test)]
mod tests;
