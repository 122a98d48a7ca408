//! Many operations on one collection, all or none.

use super::{
    Place,
    data::ItemData,
    precondition::{Match, Precondition},
};
use crate::{
    domain::write::{Refused, WorkError},
    storage::{
        TenantScope, WriteTx,
        global::items::{self, InsertedMany, ItemRow, NewItem},
    },
    vocab::{Collection, ItemId, Op},
};
use serde_json::Value;

pub const OPERATIONS_MAX: usize = 500;

/// One operation, parsed.
#[derive(Debug)]
pub enum Operation {
    Create { id: ItemId, data: ItemData },
    Put { id: ItemId, precondition: Precondition, data: ItemData },
    Patch { id: ItemId, matches: Match, patch: Value },
    Delete { id: ItemId, matches: Match },
}

/// What one operation did.
#[derive(Debug)]
pub enum Done {
    Created(ItemRow),
    Changed(ItemRow),
    Deleted(ItemRow),
}

/// Carries out all operations, in order, or none.
///
/// # Errors
/// [`Refused::Operation`] names the first that is refused.
pub async fn run(
    tx: &mut WriteTx,
    scope: &TenantScope,
    collection: &Collection,
    operations: &[Operation],
    op: &Op,
) -> Result<Vec<Done>, WorkError> {
    if let Some(created) = create_all(tx, scope, collection, operations, op).await? {
        return Ok(created);
    }
    let mut done = Vec::with_capacity(operations.len());
    for (index, operation) in operations.iter().enumerate() {
        done.push(run_one(tx, scope, collection, operation, op).await.map_err(
            |error| match error {
                WorkError::Refused(refused) => {
                    WorkError::Refused(Refused::Operation { index, refused: Box::new(refused) })
                }
                WorkError::Storage(_) => error,
            },
        )?);
    }
    Ok(done)
}

/// The common case, loading data, in one statement. `None` when there is anything but creates.
async fn create_all(
    tx: &mut WriteTx,
    scope: &TenantScope,
    collection: &Collection,
    operations: &[Operation],
    op: &Op,
) -> Result<Option<Vec<Done>>, WorkError> {
    let new = operations.iter().map(|operation| match operation {
        Operation::Create { id, data } => Some(NewItem { id: *id, data: data.as_str() }),
        _ => None,
    });
    let Some(new) = new.collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    match items::insert_many(tx, scope, collection, &new, op.now()).await? {
        InsertedMany::New(rows) => Ok(Some(rows.into_iter().map(Done::Created).collect())),
        InsertedMany::Exists { index, row } => {
            let refused = Box::new(Refused::VersionConflict(Box::new(row)));
            Err(Refused::Operation { index, refused }.into())
        }
    }
}

async fn run_one(
    tx: &mut WriteTx,
    scope: &TenantScope,
    collection: &Collection,
    operation: &Operation,
    op: &Op,
) -> Result<Done, WorkError> {
    let place = |id: ItemId| Place { scope, collection, id };
    Ok(match operation {
        Operation::Create { id, data } => {
            Done::Created(super::create(tx, place(*id), data, op).await?)
        }
        Operation::Put { id, precondition, data } => {
            match super::put(tx, place(*id), precondition, data, op).await? {
                (row, true) => Done::Created(row),
                (row, false) => Done::Changed(row),
            }
        }
        Operation::Patch { id, matches, patch } => {
            Done::Changed(super::patch(tx, place(*id), matches, patch, op).await?)
        }
        Operation::Delete { id, matches } => {
            Done::Deleted(super::delete(tx, place(*id), matches, op).await?)
        }
    })
}
