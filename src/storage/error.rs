//! What can go wrong with a database, sorted by what the caller can do about it.

use crate::vocab::Epoch;

/// The driver's own account, for the log.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Causes are in `source`; `Display` is one line without them.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Cannot be reached, is starting or shutting down, or has no connection free. Retry later.
    #[error("the database cannot be reached")]
    Unavailable(#[source] Cause),
    /// A write reached a standby, or a primary that has been fenced (SQLSTATE 25006).
    #[error("the database does not accept writes")]
    ReadOnly,
    /// The database is in another epoch than the write was meant for.
    #[error("the database is in epoch {found}, the write was meant for {expected}")]
    EpochMismatch { expected: Epoch, found: Epoch },
    /// A rule of the schema said no.
    #[error("in conflict with what is there: {0:?}")]
    Conflict(Constraint),
    /// Replay on a standby, or another transaction, stood in the way. Reads were already retried.
    #[error("another transaction or the standby's replay stood in the way")]
    RecoveryConflict(#[source] Cause),
    /// Took longer than it may. A read or an uncommitted write: nothing has happened.
    #[error("the database took too long")]
    Timeout,
    /// Postgres cannot keep this value: a NUL character, a number beyond its range, and so on.
    #[error("{0} holds a value that cannot be stored")]
    InvalidData(&'static str),
    /// A stored value that no code of ours writes.
    #[error("{table}.{column} holds a value that cannot be read")]
    Corrupt { table: &'static str, column: &'static str },
    #[error("the database refused a statement")]
    Other(#[source] Cause),
}

/// Rules of the schema whose breach is an answer, not a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    /// A tenant of that name exists.
    TenantName,
    /// Two API keys with one secret.
    ApiKeySecret,
    /// The write's idempotency key was used meanwhile: roll back and begin again, which finds the
    /// record to replay.
    JournalKey,
    /// The item's id was taken or freed meanwhile: roll back and begin again.
    ItemId,
    /// The tenant does not exist.
    Tenant,
    /// Somebody of the tenant has the e-mail address.
    UserEmail,
    /// The user's id is taken, perhaps by one since deleted, or they have changed meanwhile.
    UserId,
}

/// Constraint names, as in `migrations/global/`, to what they mean.
const CONSTRAINTS: [(&str, Constraint); 9] = [
    ("tenant_name_key", Constraint::TenantName),
    ("api_key_secret_hash_key", Constraint::ApiKeySecret),
    ("write_journal_pkey", Constraint::JournalKey),
    ("item_pkey", Constraint::ItemId),
    ("item_tombstone_pkey", Constraint::ItemId),
    ("api_key_tenant_fkey", Constraint::Tenant),
    ("tenant_user_tenant_fkey", Constraint::Tenant),
    ("tenant_user_email_key", Constraint::UserEmail),
    ("tenant_user_pkey", Constraint::UserId),
];

/// How a transaction's end failed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing of it happened.
    #[error("the write was rolled back")]
    RolledBack(#[source] StorageError),
    /// The connection died or the deadline passed while COMMIT was under way: it may have happened.
    /// The write's idempotency key resolves it.
    #[error("it is not known whether the write was committed")]
    Unknown(#[source] StorageError),
}

impl Constraint {
    /// Whether another write got in between our look and our write: the whole of it, begun again,
    /// sees what that one left.
    #[must_use]
    pub const fn is_race(self) -> bool {
        matches!(self, Self::JournalKey | Self::ItemId)
    }
}

impl StorageError {
    /// Whether the same call could succeed at once: a read that replay cancelled.
    #[must_use]
    pub const fn is_recovery_conflict(&self) -> bool {
        matches!(self, Self::RecoveryConflict(_))
    }

    pub(super) fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(cause.into())
    }

    /// By SQLSTATE (PostgreSQL manual, appendix A).
    fn from_server(code: &str, constraint: Option<&str>, cause: Cause) -> Self {
        let known = |name| CONSTRAINTS.iter().find(|(known, _)| *known == name);
        match code {
            "23505" | "23503" => match constraint.and_then(known) {
                Some((_, constraint)) => Self::Conflict(*constraint),
                None => Self::Other(cause),
            },
            // The check of the whole document; domain refuses it first, with a better word.
            "23514" if constraint == Some("item_data_object") => Self::InvalidData("the item"),
            "25006" => Self::ReadOnly,
            "40001" | "40P01" => Self::RecoveryConflict(cause),
            // Cancelled by statement_timeout, or by lock_timeout.
            "57014" | "55P03" => Self::Timeout,
            // NUL or a bad escape in JSON, bad UTF-8, not JSON, a number out of range, nested too
            // deep, a document or a search vector too big.
            "22P05" | "22P02" | "22021" | "22003" | "22008" | "22032" | "54000" | "54001" => {
                Self::InvalidData("the request")
            }
            // Shutting down, crashed, starting up, out of connections, of memory or of disk; or the connection was ended
            // because its transaction stood still for too long, as when a side of it is frozen.
            "57P01" | "57P02" | "57P03" | "57P05" | "53100" | "53200" | "53300" | "25P03"
            | "25P04" => Self::Unavailable(cause),
            class if class.starts_with("08") => Self::Unavailable(cause),
            _ => Self::Other(cause),
        }
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(server) => {
                let code = server.code().map(std::borrow::Cow::into_owned).unwrap_or_default();
                let constraint = server.constraint().map(str::to_owned);
                Self::from_server(
                    &code,
                    constraint.as_deref(),
                    sqlx::Error::Database(server).into(),
                )
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_) => Self::Unavailable(error.into()),
            other => Self::Other(other.into()),
        }
    }
}

impl From<tokio_postgres::Error> for StorageError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(server) => {
                let code = server.code().code().to_owned();
                let constraint = server.constraint().map(str::to_owned);
                Self::from_server(&code, constraint.as_deref(), error.into())
            }
            // All but the server's own word is about the connection: closed, refused, timed out.
            None => Self::Unavailable(error.into()),
        }
    }
}

impl From<deadpool_redis::redis::RedisError> for StorageError {
    fn from(error: deadpool_redis::redis::RedisError) -> Self {
        Self::Unavailable(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(code: &str, constraint: Option<&str>) -> StorageError {
        StorageError::from_server(code, constraint, "cause".into())
    }

    #[test]
    fn a_state_is_sorted_by_what_can_be_done_about_it() {
        for code in ["57P01", "57P02", "57P03", "53300", "08006", "25P03", "25P04"] {
            assert!(matches!(sorted(code, None), StorageError::Unavailable(_)), "{code}");
        }
        assert!(matches!(sorted("25006", None), StorageError::ReadOnly));
        assert!(sorted("40001", None).is_recovery_conflict());
        assert!(sorted("40P01", None).is_recovery_conflict());
        assert!(matches!(sorted("57014", None), StorageError::Timeout));
        assert!(matches!(sorted("22P05", None), StorageError::InvalidData(_)));
        assert!(matches!(sorted("42601", None), StorageError::Other(_)));
    }

    #[test]
    fn only_constraints_of_the_table_are_answers() {
        let conflict = |error| match error {
            StorageError::Conflict(constraint) => Some(constraint),
            _ => None,
        };
        assert_eq!(
            conflict(sorted("23505", Some("tenant_name_key"))),
            Some(Constraint::TenantName)
        );
        assert_eq!(
            conflict(sorted("23505", Some("write_journal_pkey"))),
            Some(Constraint::JournalKey)
        );
        assert_eq!(conflict(sorted("23505", Some("some_other_key"))), None);
        assert_eq!(conflict(sorted("23514", Some("api_key_scopes_known"))), None);
    }
}
