//! What is kept, and where: the only room that speaks SQL or Redis.
//!
//! The global plane ([`global`]) is one writable Postgres and its replicas; this process talks to
//! its own region's instance only. [`redis`] is the region's own and holds nothing that must
//! survive it. [`migrate`] owns the schema; nothing else changes it. [`control`] moves the instance
//! itself: what it is, whom it follows, whether it takes writes.
//!
//! Invariants:
//! - a tenant's rows are reached with a [`TenantScope`], and only a credential's look-up mints one;
//! - a write happens in a [`global::WriteTx`], which checks the epoch inside its transaction;
//! - a read connection cannot write, and every read tells the position it was made at
//!   ([`global::Read`]);
//! - a connection never returns to its pool inside a transaction, whoever is cancelled.
//!
//! Refuses what Postgres could not keep as it was sent ([`StorageError::InvalidData`]). When
//! Postgres or Redis is down every call ends within its bound as [`StorageError::Unavailable`] or
//! [`StorageError::Timeout`], and connections come back by themselves.

pub mod control;
pub mod error;
mod gather;
pub mod global;
pub mod migrate;
pub mod redis;
pub mod scope;
mod tls;

pub use error::{CommitError, Constraint, StorageError};
pub use global::{Global, Read, WriteTx};
pub use scope::TenantScope;
