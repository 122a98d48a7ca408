//! A write that a failover lost, carried out again for an operator.
//!
//! With the key, the digest and the actor it had: a client that sends the lost request again later
//! is answered as by any repetition. Only on top of what it was made on top of: an item that has
//! been changed since by anyone but a replay is left alone, and the lost write is kept for a person.

use super::{
    api_keys,
    items::{Place, batch::Done, data::ItemData},
    write::{self, Answer, Begun, Committed, Refused, WorkError, WriteContext, WriteError},
};
use crate::{
    storage::{
        CommitError, Global, StorageError, TenantScope, WriteTx,
        global::{
            items::{self, ItemRow},
            lost::{self, Became, Due, JournalRecord},
        },
    },
    vocab::{ApiKeyId, Collection, Epoch, ItemId, Op},
};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub became: Became,
    /// The tag of what it made.
    pub etag: Option<String>,
    /// Why it was kept aside.
    pub reason: Option<String>,
}

/// What a recorded write did, as far as it can be done again.
#[derive(Debug, PartialEq, Eq)]
enum Deed {
    Create {
        collection: Collection,
        id: ItemId,
        version: i64,
        data: ItemData,
    },
    Change {
        collection: Collection,
        id: ItemId,
        version: i64,
        data: ItemData,
    },
    /// `version` is the one that was deleted.
    Delete {
        collection: Collection,
        id: ItemId,
        version: i64,
    },
    /// Of an API key. Ending it twice is ending it once.
    Revoke(ApiKeyId),
}

/// What was done.
enum Redone {
    Item(Done),
    Revoked,
}

/// Carries out one lost write, or keeps it aside. `render` makes the answer of a write of an item.
///
/// # Errors
/// When the database fails, or somebody is at that key just now: nothing has become of it then, or
/// it is found to have at the next try.
pub async fn replay(
    global: &Global,
    epoch: Epoch,
    due: &Due,
    op: &Op,
    render: impl Fn(&Done) -> Answer + Sync,
) -> Result<Outcome, StorageError> {
    let record = &due.record;
    let aside = async |reason: String| settle(global, epoch, record, op, Err(reason)).await;
    let Some(scope) = &due.scope else {
        return aside("its tenant does not exist".into()).await;
    };
    let deed = match deed(record) {
        Ok(deed) => deed,
        Err(reason) => return aside(reason).await,
    };
    let context = WriteContext {
        global,
        epoch,
        op,
        scope,
        actor: record.actor,
        key: &record.key,
        digest: record.request_digest.into_bytes(),
        method: &record.method,
        path: &record.path,
    };
    let mut written = attempt(context, record, &deed, &render).await;
    if matches!(&written, Err(WriteError::Storage(StorageError::Conflict(why))) if why.is_race()) {
        written = attempt(context, record, &deed, &render).await;
    }
    match written {
        Ok(committed) if committed.replayed => settle(global, epoch, record, op, Ok(())).await,
        Ok(committed) => {
            let etag = committed.answer.etag;
            Ok(Outcome { became: Became::Replayed, etag, reason: None })
        }
        Err(WriteError::Refused { refused, .. }) => aside(told(&refused)).await,
        Err(WriteError::KeyMismatch) => {
            aside("its key has been used for another request since".into()).await
        }
        Err(WriteError::Storage(StorageError::InvalidData(what))) => {
            aside(format!("{what} holds a value that cannot be kept")).await
        }
        Err(WriteError::KeyInFlight) => {
            Err(StorageError::RecoveryConflict("its client is sending it again just now".into()))
        }
        Err(WriteError::OutcomeUnknown { source, .. } | WriteError::Storage(source)) => Err(source),
    }
}

/// Notes that a lost write was sent again by its client, or why it is kept aside.
async fn settle(
    global: &Global,
    epoch: Epoch,
    record: &JournalRecord,
    op: &Op,
    found: Result<(), String>,
) -> Result<Outcome, StorageError> {
    let reason = found.err();
    let became = if reason.is_some() { Became::Conflict } else { Became::Repeated };
    let mut tx = WriteTx::open(global, epoch, op).await?;
    lost::mark(&mut tx, record, became, None, reason.as_deref()).await?;
    tx.commit().await.map_err(|error| match error {
        CommitError::RolledBack(cause) | CommitError::Unknown(cause) => cause,
    })?;
    Ok(Outcome { became, etag: None, reason })
}

/// What the record says was done. Pure.
fn deed(record: &JournalRecord) -> Result<Deed, String> {
    if ["/v1/account", "/v1/admin/users"].iter().any(|path| record.path.starts_with(path)) {
        return Err("a write of a user is recorded without their password".into());
    }
    if record.path.contains("/items:batch") {
        return Err("a batch is recorded without its documents".into());
    }
    if let Some(id) = record.path.strip_prefix("/v1/admin/keys/")
        && (record.method.as_str(), record.status) == ("DELETE", 204)
    {
        return id.parse().map(Deed::Revoke).map_err(|_| "it names no key".into());
    }
    let (Some((collection, id)), Some(version)) = (record.item(), record.version) else {
        return Err("it is not a write of one item".into());
    };
    match (record.method.as_str(), record.status) {
        ("POST" | "PUT", 201) => {
            Ok(Deed::Create { collection, id, version, data: document(record)? })
        }
        ("PUT" | "PATCH", 200) => {
            Ok(Deed::Change { collection, id, version, data: document(record)? })
        }
        ("DELETE", 204) => Ok(Deed::Delete { collection, id, version }),
        (method, status) => Err(format!("{method} answered with {status} is not known here")),
    }
}

/// The item's document as it was answered, every digit of it.
fn document(record: &JournalRecord) -> Result<ItemData, String> {
    #[derive(Deserialize)]
    struct Answered<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let body = record.body.as_deref().unwrap_or_default();
    let answered: Answered<'_> =
        serde_json::from_str(body).map_err(|_| "its answer is not an item".to_owned())?;
    ItemData::parse(answered.data.get().as_bytes()).map_err(|error| error.to_string())
}

/// As [`write::write_once`], without its closures: their futures cannot be sent between threads.
async fn attempt(
    context: WriteContext<'_>,
    record: &JournalRecord,
    deed: &Deed,
    render: &(impl Fn(&Done) -> Answer + Sync),
) -> Result<Committed, WriteError> {
    let mut tx = match write::begin(context).await? {
        Begun::Fresh(tx) => tx,
        Begun::Before(committed) => return Ok(committed),
    };
    let answer = match redo(&mut tx, context.scope, record, deed, context.op).await {
        Ok(Redone::Item(done)) => render(&done),
        Ok(Redone::Revoked) => {
            Answer { status: 204, etag: None, location: None, body: None, version: None }
        }
        Err(error) => return Err(write::refuse(tx, error).await),
    };
    write::finish(context, tx, answer).await
}

async fn redo(
    tx: &mut WriteTx,
    scope: &TenantScope,
    record: &JournalRecord,
    deed: &Deed,
    op: &Op,
) -> Result<Redone, WorkError> {
    let redone = match deed {
        Deed::Create { collection, id, version, data } => {
            let place = Place { scope, collection, id: *id };
            let row = super::items::create(tx, place, data, op).await?;
            // Else it has been made and deleted since, or before, by what was lost too.
            if row.version != *version {
                return Err(Refused::VersionConflict(Box::new(row)).into());
            }
            Redone::Item(Done::Created(row))
        }
        Deed::Change { collection, id, version, data } => {
            base(tx, scope, record, (collection, *id), version - 1).await?;
            let text = data.as_str();
            let row = items::update(tx, scope, collection, *id, *version, text, op.now()).await?;
            Redone::Item(Done::Changed(row))
        }
        Deed::Delete { collection, id, version } => {
            let row = base(tx, scope, record, (collection, *id), *version).await?;
            items::delete(tx, scope, collection, *id, op.now()).await?;
            Redone::Item(Done::Deleted(row))
        }
        Deed::Revoke(id) => {
            api_keys::revoke(tx, scope, *id, op).await?;
            Redone::Revoked
        }
    };
    let etag = match &redone {
        Redone::Item(Done::Created(row) | Done::Changed(row)) => Some(row.etag().to_string()),
        Redone::Item(Done::Deleted(_)) | Redone::Revoked => None,
    };
    lost::mark(tx, record, Became::Replayed, etag.as_deref(), None).await?;
    Ok(redone)
}

/// The item as the lost write found it, locked: in that version, and changed in no later epoch but by
/// a replay.
async fn base(
    tx: &mut WriteTx,
    scope: &TenantScope,
    record: &JournalRecord,
    (collection, id): (&Collection, ItemId),
    version: i64,
) -> Result<ItemRow, WorkError> {
    let row = items::lock(tx, scope, collection, id).await?.ok_or(Refused::NotFound)?;
    let known = row.epoch <= record.epoch || lost::is_replays(tx, record, row.etag()).await?;
    if known && row.version == version {
        Ok(row)
    } else {
        Err(Refused::VersionConflict(Box::new(row)).into())
    }
}

fn told(refused: &Refused) -> String {
    match refused {
        Refused::NotFound => "it is not there any more".into(),
        Refused::VersionConflict(row) => {
            format!("the item has changed since: it is in version {} now", row.etag())
        }
        Refused::Data(error) => error.to_string(),
        Refused::BatchConflict | Refused::Operation { .. } => "a batch".into(),
        Refused::UserConflict(_)
        | Refused::WrongPassword
        | Refused::EmailTaken
        | Refused::LastAdmin
        | Refused::Beyond(_) => "a write of a user".into(),
    }
}

#[cfg(test)]
mod tests;
