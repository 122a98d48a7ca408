//! Items: a tenant's versioned documents.

pub mod batch;
pub mod data;
pub mod precondition;

use super::write::{Refused, WorkError};
use crate::{
    storage::{
        TenantScope, WriteTx,
        global::items::{self, Inserted, ItemRow, NewItem},
    },
    vocab::{Collection, ItemId, Op},
};
use data::ItemData;
use precondition::{Match, Precondition};
use serde_json::Value;

/// One item's place, and who may touch it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub scope: &'a TenantScope,
    pub collection: &'a Collection,
    pub id: ItemId,
}

/// Creates the item unless its id is taken.
///
/// # Errors
/// [`Refused::VersionConflict`] with the item that has the id.
pub async fn create(
    tx: &mut WriteTx,
    place: Place<'_>,
    data: &ItemData,
    op: &Op,
) -> Result<ItemRow, WorkError> {
    let new = NewItem { id: place.id, data: data.as_str() };
    match items::insert(tx, place.scope, place.collection, &new, op.now()).await? {
        Inserted::New(row) => Ok(row),
        Inserted::Exists(row) => Err(Refused::VersionConflict(Box::new(row)).into()),
    }
}

/// Replaces the item's document, or creates it when the precondition says that it must not exist.
/// The second value tells whether it was created.
///
/// # Errors
/// [`Refused`] when the precondition does not hold.
pub async fn put(
    tx: &mut WriteTx,
    place: Place<'_>,
    precondition: &Precondition,
    data: &ItemData,
    op: &Op,
) -> Result<(ItemRow, bool), WorkError> {
    match precondition {
        Precondition::Absent => Ok((create(tx, place, data, op).await?, true)),
        Precondition::Matches(matches) => {
            let current = lock(tx, place, matches).await?;
            Ok((replace(tx, place, &current, data, op).await?, false))
        }
    }
}

/// Applies a merge patch (RFC 7396).
///
/// # Errors
/// [`Refused`] when there is no such item, it is in another version, or the result cannot be kept.
pub async fn patch(
    tx: &mut WriteTx,
    place: Place<'_>,
    matches: &Match,
    patch: &Value,
    op: &Op,
) -> Result<ItemRow, WorkError> {
    let current = lock(tx, place, matches).await?;
    let data = ItemData::patched(&current.data, patch)?;
    replace(tx, place, &current, &data, op).await
}

/// Deletes the item; its tombstone keeps the version. Returns what was deleted.
///
/// # Errors
/// [`Refused`] when there is no such item or it is in another version.
pub async fn delete(
    tx: &mut WriteTx,
    place: Place<'_>,
    matches: &Match,
    op: &Op,
) -> Result<ItemRow, WorkError> {
    let current = lock(tx, place, matches).await?;
    items::delete(tx, place.scope, place.collection, place.id, op.now()).await?;
    Ok(current)
}

/// The current version, locked until the transaction ends, if it is one the caller knows.
async fn lock(tx: &mut WriteTx, place: Place<'_>, matches: &Match) -> Result<ItemRow, WorkError> {
    let current = items::lock(tx, place.scope, place.collection, place.id).await?;
    let current = current.ok_or(Refused::NotFound)?;
    if matches.holds(current.etag()) {
        Ok(current)
    } else {
        Err(Refused::VersionConflict(Box::new(current)).into())
    }
}

async fn replace(
    tx: &mut WriteTx,
    place: Place<'_>,
    current: &ItemRow,
    data: &ItemData,
    op: &Op,
) -> Result<ItemRow, WorkError> {
    let (scope, collection) = (place.scope, place.collection);
    let next = current.version + 1;
    Ok(items::update(tx, scope, collection, place.id, next, data.as_str(), op.now()).await?)
}
