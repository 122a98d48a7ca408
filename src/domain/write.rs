//! One write: a transaction, its record in the journal, exactly once per key.

use super::items::data::DataError;
use crate::{
    storage::{
        CommitError, Global, StorageError, TenantScope, WriteTx,
        global::{
            items::ItemRow,
            journal::{self, Claim, JournalEntry, JournalRow},
            users::UserRow,
        },
    },
    vocab::{Actor, Bookmark, Epoch, IdempotencyKey, Op, Scope},
};

/// What every write carries.
#[derive(Debug, Clone, Copy)]
pub struct WriteContext<'a> {
    pub global: &'a Global,
    /// The epoch in which this region was found to be the primary; checked inside the transaction.
    pub epoch: Epoch,
    pub op: &'a Op,
    pub scope: &'a TenantScope,
    pub actor: Actor,
    pub key: &'a IdempotencyKey,
    /// SHA-256 over all that makes the request what it is, but for the secrets in it.
    pub digest: [u8; 32],
    pub method: &'a str,
    pub path: &'a str,
}

/// What was answered, and is answered again to a repetition. Chosen by the HTTP room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub etag: Option<String>,
    pub location: Option<String>,
    /// JSON text.
    pub body: Option<String>,
    /// Version the write made, where it made one.
    pub version: Option<i64>,
}

#[derive(Debug)]
pub struct Committed {
    pub answer: Answer,
    pub at: Bookmark,
    /// This is the record of an earlier request with the same key.
    pub replayed: bool,
}

/// Why a write has no effect.
#[derive(Debug)]
pub enum Refused {
    NotFound,
    /// It exists, in another version than the precondition names.
    VersionConflict(Box<ItemRow>),
    /// The same, in a version that an earlier operation of the batch made: with the batch refused,
    /// there is no such version.
    BatchConflict,
    Data(DataError),
    /// The user exists, in another version than the precondition names.
    UserConflict(Box<UserRow>),
    /// The password that was shown is not the user's.
    WrongPassword,
    /// Somebody of the tenant has the e-mail address.
    EmailTaken,
    /// The tenant would be left without an administrator.
    LastAdmin,
    /// It would give, or take over, a scope that the caller does not have.
    Beyond(Scope),
    /// One operation of a batch, counted from 0; none of the batch has an effect.
    Operation {
        index: usize,
        refused: Box<Refused>,
    },
}

/// How a write failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// No effect. `at` is the position at which it was found to be so, when that could be told.
    #[error("the write was refused")]
    Refused { refused: Refused, at: Option<Bookmark> },
    #[error("the idempotency key belongs to another request")]
    KeyMismatch,
    #[error("a request with this idempotency key is under way")]
    KeyInFlight,
    /// The commit was sent and its answer did not come.
    #[error("the outcome of the write is not known")]
    OutcomeUnknown { key: IdempotencyKey, source: StorageError },
    /// No effect.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What the work inside the transaction answers with.
#[derive(Debug)]
pub enum WorkError {
    Refused(Refused),
    Storage(StorageError),
}

impl From<StorageError> for WorkError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}
impl From<Refused> for WorkError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}
impl From<DataError> for WorkError {
    fn from(error: DataError) -> Self {
        Self::Refused(Refused::Data(error))
    }
}

/// Carries out `work` once for the key, records the answer `render` makes of it, and commits.
///
/// A twin that commits between our look-up and our record makes the record collide; the second try
/// then finds the twin's answer.
///
/// # Errors
/// See [`WriteError`].
pub async fn write_once<T>(
    context: WriteContext<'_>,
    work: impl AsyncFn(&mut WriteTx) -> Result<T, WorkError>,
    render: impl Fn(&T) -> Answer,
) -> Result<Committed, WriteError> {
    match attempt(context, &work, &render).await {
        Err(WriteError::Storage(StorageError::Conflict(constraint))) if constraint.is_race() => {
            attempt(context, &work, &render).await
        }
        result => result,
    }
}

async fn attempt<T>(
    context: WriteContext<'_>,
    work: &impl AsyncFn(&mut WriteTx) -> Result<T, WorkError>,
    render: &impl Fn(&T) -> Answer,
) -> Result<Committed, WriteError> {
    let mut tx = match begin(context).await? {
        Begun::Fresh(tx) => tx,
        Begun::Before(committed) => return Ok(committed),
    };
    match work(&mut tx).await {
        Ok(done) => finish(context, tx, render(&done)).await,
        Err(error) => Err(refuse(tx, error).await),
    }
}

/// A key that is this transaction's, or what was answered under it before.
pub(super) enum Begun {
    Fresh(WriteTx),
    Before(Committed),
}

/// Opens the transaction and claims the key.
pub(super) async fn begin(context: WriteContext<'_>) -> Result<Begun, WriteError> {
    let mut tx = WriteTx::open(context.global, context.epoch, context.op).await?;
    match tx.claim(context.scope, context.key, &context.digest).await? {
        Claim::Fresh => Ok(Begun::Fresh(tx)),
        Claim::Replay(row) => {
            let at = tx.rollback().await?;
            Ok(Begun::Before(Committed { answer: (*row).into(), at, replayed: true }))
        }
        Claim::Mismatch => Err(WriteError::KeyMismatch),
        Claim::InFlight => Err(WriteError::KeyInFlight),
    }
}

/// Records the answer and commits.
pub(super) async fn finish(
    context: WriteContext<'_>,
    mut tx: WriteTx,
    answer: Answer,
) -> Result<Committed, WriteError> {
    journal::insert(&mut tx, &entry(context, &answer)).await?;
    match tx.commit().await {
        Ok(at) => Ok(Committed { answer, at, replayed: false }),
        Err(CommitError::RolledBack(error)) => Err(error.into()),
        Err(CommitError::Unknown(source)) => {
            Err(WriteError::OutcomeUnknown { key: context.key.clone(), source })
        }
    }
}

/// Ends a transaction whose work has no effect.
pub(super) async fn refuse(tx: WriteTx, error: WorkError) -> WriteError {
    match error {
        WorkError::Storage(error) => error.into(),
        // Without a position the client merely keeps the bookmark it has.
        WorkError::Refused(refused) => {
            WriteError::Refused { refused, at: tx.rollback().await.ok() }
        }
    }
}

fn entry<'a>(context: WriteContext<'a>, answer: &'a Answer) -> JournalEntry<'a> {
    JournalEntry {
        scope: context.scope,
        key: context.key,
        actor: context.actor,
        method: context.method,
        path: context.path,
        request_digest: context.digest,
        status: answer.status,
        etag: answer.etag.as_deref(),
        location: answer.location.as_deref(),
        body: answer.body.as_deref(),
        version: answer.version,
        epoch: context.epoch,
        committed_at: context.op.now(),
    }
}

impl From<JournalRow> for Answer {
    fn from(row: JournalRow) -> Self {
        Self {
            status: row.status,
            etag: row.etag,
            location: row.location,
            body: row.body,
            version: row.version,
        }
    }
}
