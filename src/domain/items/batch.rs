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

impl Operation {
    const fn id(&self) -> ItemId {
        match self {
            Self::Create { id, .. }
            | Self::Put { id, .. }
            | Self::Patch { id, .. }
            | Self::Delete { id, .. } => *id,
        }
    }
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
        match run_one(tx, scope, collection, operation, op).await {
            Ok(one) => done.push(one),
            Err(WorkError::Refused(refused)) => return Err(refuse(operations, index, refused)),
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The batch's refusal for that of one operation. Every operation before it has succeeded, so an
/// item that one of them touched stands in a version that nobody will ever see.
fn refuse(operations: &[Operation], index: usize, refused: Refused) -> WorkError {
    let id = operations[index].id();
    let touched = || operations[..index].iter().any(|earlier| earlier.id() == id);
    let refused = match refused {
        Refused::VersionConflict(_) if touched() => Refused::BatchConflict,
        refused => refused,
    };
    Refused::Operation { index, refused: Box::new(refused) }.into()
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
            Err(refuse(operations, index, Refused::VersionConflict(Box::new(row))))
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
