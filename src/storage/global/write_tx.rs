//! The one way to write.

use super::{
    Global, NO_EPOCH, bookmark, bounded,
    journal::{Claim, JournalRow},
    stored_epoch,
    warned::warned,
};
use crate::{
    config::broken::insert_position,
    storage::{CommitError, StorageError, TenantScope},
    vocab::{Bookmark, Epoch, IdempotencyKey, Op},
};
use futures_util::FutureExt as _;
use sqlx::{PgConnection, Postgres, Row as _, pool::PoolConnection};
use std::time::Duration;

const COMMIT: &str = "COMMIT; SELECT pg_current_wal_flush_lsn()::text";
/// Of the sabotage: the position is taken before the commit, and kept by the session.
const BEGIN_TOO_EARLY: &str =
    "BEGIN; SELECT set_config('godwit.begun_at', pg_current_wal_insert_lsn()::text, false)";
const COMMIT_TOO_EARLY: &str = "COMMIT; SELECT current_setting('godwit.begun_at')";

/// A transaction that belongs to one epoch: it does nothing on a database that is in another one,
/// in recovery, or fenced.
///
/// Cancellation: dropped in whatever state, it has no effect unless [`WriteTx::commit`] was begun.
/// Its connection goes back to the pool only after a rollback, and is closed when a statement was
/// under way.
#[derive(Debug)]
#[must_use = "does nothing unless committed"]
pub struct WriteTx {
    connection: PoolConnection<Postgres>,
    epoch: Epoch,
    op: Op,
    state: State,
    /// A statement failed: Postgres will only roll back.
    failed: bool,
    /// The epoch has been checked inside this transaction.
    checked: bool,
    /// It is refused where its commit would wait for no other region.
    waits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between statements.
    Open,
    /// A statement is under way, or was when its future was dropped.
    Busy,
    /// Outside the transaction again.
    Ended,
}

impl WriteTx {
    /// Begins. The epoch is checked by the first statement, [`WriteTx::claim`] or any other.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] or [`StorageError::Timeout`], within the operation's deadline.
    pub async fn open(global: &Global, epoch: Epoch, op: &Op) -> Result<Self, StorageError> {
        let begin = Self::begin(global, epoch, op);
        match tokio::time::timeout(op.remaining(), begin).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StorageError::Timeout),
        }
    }

    /// A restart of Postgres leaves the pool full of dead connections, so each may fail once.
    async fn begin(global: &Global, epoch: Epoch, op: &Op) -> Result<Self, StorageError> {
        let attempts = global.write.options().get_max_connections() + 1;
        let mut failure = StorageError::Timeout;
        for _ in 0..attempts {
            let connection = global.write.acquire().await?;
            let (op, state, waits) = (op.clone(), State::Busy, global.waits);
            let mut tx =
                Self { connection, epoch, op, state, failed: false, checked: false, waits };
            // Plain BEGIN: asking for READ WRITE would step over a fence.
            let begin = if insert_position() { BEGIN_TOO_EARLY } else { "BEGIN" };
            match sqlx::raw_sql(begin).execute(&mut *tx.connection).await {
                Ok(_) => {
                    tx.state = State::Open;
                    return Ok(tx);
                }
                Err(error) => match error.into() {
                    lost @ StorageError::Unavailable(_) => failure = lost,
                    other => return Err(other),
                },
            }
        }
        Err(failure)
    }

    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    #[must_use]
    pub const fn op(&self) -> &Op {
        &self.op
    }

    /// Takes the idempotency key for this transaction, or tells what became of it. One round trip,
    /// which checks the epoch too.
    ///
    /// The look-up sees what was committed when the statement began, a moment before it has the
    /// key: a twin that commits in between is found by the journal's unique key instead, as
    /// `Conflict(JournalKey)` from [`super::journal::insert`]. Roll back and begin again then.
    ///
    /// # Errors
    /// [`StorageError::EpochMismatch`] and [`StorageError::ReadOnly`] before anything else.
    pub async fn claim(
        &mut self,
        scope: &TenantScope,
        key: &IdempotencyKey,
        digest: &[u8; 32],
    ) -> Result<Claim, StorageError> {
        let waits = self.waits;
        let (connection, bound) = self.statement();
        let query = sqlx::query!(
            r#"SELECT
                pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean
                    OR $3::boolean AND current_setting('synchronous_standby_names') = ''
                        AND (SELECT cardinality(members) FROM cluster_epoch
                            ORDER BY epoch DESC LIMIT 1) IS DISTINCT FROM 1
                    AS "read_only!",
                (SELECT max(epoch) FROM cluster_epoch) AS epoch,
                pg_try_advisory_xact_lock(hashtextextended($1::uuid::text || $2, 0)) AS "taken!",
                j.request_digest AS "request_digest?", j.actor AS "actor?", j.method AS "method?",
                j.path AS "path?", j.status AS "status?", j.etag, j.location, j.body, j.version,
                j.epoch AS "written_in?", j.committed_at AS "committed_at?"
            FROM (SELECT) AS one
            LEFT JOIN write_journal AS j ON j.tenant_id = $1 AND j.key = $2"#,
            scope.tenant().as_uuid(),
            key.as_str(),
            waits,
        );
        let outcome = bounded(bound, query.fetch_one(connection)).await;
        let row = self.ended(outcome)?;
        self.check(row.read_only, row.epoch)?;
        let (Some(digest_then), Some(actor), Some(method), Some(path), Some(status)) =
            (row.request_digest, row.actor, row.method, row.path, row.status)
        else {
            return Ok(if row.taken { Claim::Fresh } else { Claim::InFlight });
        };
        let (Some(written_in), Some(committed_at)) = (row.written_in, row.committed_at) else {
            return Err(StorageError::Corrupt { table: "write_journal", column: "committed_at" });
        };
        if digest_then != digest {
            return Ok(Claim::Mismatch);
        }
        let stored = super::journal::Stored {
            actor,
            method,
            path,
            status,
            etag: row.etag,
            location: row.location,
            body: row.body,
            version: row.version,
            epoch: written_in,
            committed_at,
        };
        Ok(Claim::Replay(Box::new(JournalRow::try_from(stored)?)))
    }

    /// Commits, and tells the position from which the write can be read.
    ///
    /// Takes the flush position after COMMIT, in the same message: `shared/postgres.md` lesson 1.
    ///
    /// # Errors
    /// See [`CommitError`]. Ends within the operation's deadline: a COMMIT that waits for a standby
    /// ignores `statement_timeout`.
    pub async fn commit(mut self) -> Result<Bookmark, CommitError> {
        if self.failed {
            let cause = "a statement of the transaction failed before its commit";
            return Err(CommitError::RolledBack(StorageError::Other(cause.into())));
        }
        self.ensure_epoch().await.map_err(CommitError::RolledBack)?;
        let bound = self.op.remaining();
        if bound.is_zero() {
            return Err(CommitError::RolledBack(StorageError::Timeout));
        }
        self.state = State::Busy;
        let commit = if insert_position() { COMMIT_TOO_EARLY } else { COMMIT };
        let commit = sqlx::raw_sql(commit);
        let commit = warned(commit.fetch_one(&mut *self.connection));
        let (outcome, warning) = match tokio::time::timeout(bound, commit).await {
            Ok((outcome, warning)) => (Ok(outcome), warning),
            Err(elapsed) => (Err(elapsed), None),
        };
        let row = match outcome {
            Ok(Ok(row)) => row,
            Ok(Err(error)) if surely_rolled_back(&error) => {
                return Err(CommitError::RolledBack(error.into()));
            }
            Ok(Err(error)) => return Err(CommitError::Unknown(error.into())),
            Err(_) => return Err(CommitError::Unknown(StorageError::Timeout)),
        };
        self.state = State::Ended;
        if let Some(warning) = warning {
            // Committed here, and perhaps nowhere else: its wait for a standby was cancelled.
            let cause = format!("the server warned at the commit: {warning}");
            return Err(CommitError::Unknown(StorageError::Other(cause.into())));
        }
        let lsn: String = row.try_get(0).map_err(|error| CommitError::Unknown(error.into()))?;
        bookmark(self.epoch.to_stored(), &lsn).map_err(CommitError::Unknown)
    }

    /// Rolls back, and tells the position at which what was seen could be seen. Dropping does the
    /// same without an answer.
    ///
    /// # Errors
    /// When the position could not be read. The transaction has no effect all the same.
    pub async fn rollback(mut self) -> Result<Bookmark, StorageError> {
        if self.state == State::Busy {
            return Err(StorageError::Timeout);
        }
        self.state = State::Busy;
        let rollback = sqlx::raw_sql("ROLLBACK; SELECT epoch, lsn::text FROM cluster_position");
        let row = bounded(self.op.remaining(), rollback.fetch_one(&mut *self.connection)).await?;
        self.state = State::Ended;
        bookmark(row.try_get(0)?, row.try_get::<&str, _>(1)?)
    }

    /// The connection for one statement, and how long that may take. Follow it with
    /// [`WriteTx::ended`], or the connection is closed as one in an unknown state.
    pub(super) fn statement(&mut self) -> (&mut PgConnection, Duration) {
        let bound = self.op.remaining();
        self.state = State::Busy;
        (&mut self.connection, bound)
    }

    pub(super) fn ended<T>(&mut self, outcome: Result<T, StorageError>) -> Result<T, StorageError> {
        match &outcome {
            Ok(_) => self.state = State::Open,
            // Perhaps by our own clock, with the statement still under way.
            Err(StorageError::Timeout | StorageError::Unavailable(_)) => self.failed = true,
            Err(_) => (self.state, self.failed) = (State::Open, true),
        }
        outcome
    }

    /// For writes without a claim: a round trip the first time, nothing later.
    pub(super) async fn ensure_epoch(&mut self) -> Result<(), StorageError> {
        if self.checked {
            return Ok(());
        }
        let waits = self.waits;
        let (connection, bound) = self.statement();
        let query = sqlx::query!(
            r#"SELECT
                pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean
                    OR $1::boolean AND current_setting('synchronous_standby_names') = ''
                        AND (SELECT cardinality(members) FROM cluster_epoch
                            ORDER BY epoch DESC LIMIT 1) IS DISTINCT FROM 1
                    AS "read_only!",
                (SELECT max(epoch) FROM cluster_epoch) AS epoch"#,
            waits
        );
        let outcome = bounded(bound, query.fetch_one(connection)).await;
        let row = self.ended(outcome)?;
        self.check(row.read_only, row.epoch)
    }

    fn check(&mut self, read_only: bool, found: Option<i64>) -> Result<(), StorageError> {
        let found = stored_epoch("cluster_epoch", found.ok_or(NO_EPOCH)?)?;
        if found != self.epoch {
            return Err(StorageError::EpochMismatch { expected: self.epoch, found });
        }
        if read_only {
            return Err(StorageError::ReadOnly);
        }
        self.checked = true;
        Ok(())
    }
}

impl Drop for WriteTx {
    fn drop(&mut self) {
        match self.state {
            State::Ended => {}
            // Sends ROLLBACK without waiting; the pool reads the answer before it lends the
            // connection again. After a failed statement there may be something to read first.
            State::Open if !self.failed => {
                let rollback = sqlx::raw_sql("ROLLBACK").execute(&mut *self.connection);
                if matches!(rollback.now_or_never(), Some(Err(_))) {
                    self.connection.close_on_drop();
                }
            }
            State::Open | State::Busy => self.connection.close_on_drop(),
        }
    }
}

/// Whether COMMIT's failure says that there was no commit: a constraint checked at its end, a
/// serialization failure, a read-only or already failed transaction. Anything else, a terminated
/// backend above all, can follow a commit (`shared/postgres.md` lesson 7).
fn surely_rolled_back(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["23", "25", "40"].iter().any(|class| code.starts_with(class)))
}

/// With `synchronous_commit = off` the flushed position lags the commit, and a bookmark would
/// promise too little.
pub(super) async fn refuse_lazy_commit(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let query = sqlx::query_scalar!(r#"SELECT current_setting('synchronous_commit') AS "mode!""#);
    if query.fetch_one(connection).await? == "off" {
        return Err(sqlx::Error::Configuration("synchronous_commit must not be off".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
