//! `[database]`: this region's own instance of the global plane.

use super::{ConfigError, Durability, positive, redacted, redacted_option};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// Of the pool that writes, where a write waits for no other region.
const WRITE_CONNECTIONS: u32 = 16;

/// The addresses must name one instance, never a balancer over several, because a position belongs
/// to one instance. Each is the same instance under another role.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// As a member of `godwit_write`: used only while this region is the primary.
    #[serde(serialize_with = "redacted")]
    pub url: SecretString,
    /// As a member of `godwit_read` and `pg_monitor`: every read, and the position. Not a role with a
    /// `default_transaction_read_only` of its own: the instance's tells that it is fenced.
    #[serde(serialize_with = "redacted")]
    pub read_url: SecretString,
    /// As the schema's owner: `godwit migrate` alone.
    #[serde(default, serialize_with = "redacted_option")]
    pub owner_url: Option<SecretString>,
    /// As `godwit_control`, who may promote, fence and re-point this instance and keep its slots
    /// (`docs/RUNBOOK.md`). Without it this region's database is moved by a person.
    #[serde(default, serialize_with = "redacted_option")]
    pub control_url: Option<SecretString>,
    /// Too low: writes queue for a connection. Too high: Postgres spends its time switching. With
    /// `async` durability twice its cores plus a few is a sound start: 16 unless set. With `quorum` a
    /// write holds its connection until a replica has it: writes a second times the round trip to the
    /// nearest one, twice over to make up for a pause: 64 unless set.
    #[serde(default)]
    pub write_connections_max: Option<u32>,
    #[serde(default = "default_read_connections_max")]
    pub read_connections_max: u32,
    /// Whether a write is refused while the database's commits wait for no other region: of the
    /// `durability`, not a setting of its own.
    #[serde(skip)]
    pub waits: bool,
    /// Longest wait for a pooled connection before the request is refused.
    #[serde(default = "default_acquire_ms_max")]
    pub acquire_ms_max: u64,
    /// Longest statement. Also bounds how long a read on a replica can hold back vacuum on the
    /// primary through `hot_standby_feedback`.
    #[serde(default = "default_statement_ms_max")]
    pub statement_ms_max: u64,
    /// How often the position is asked for when nobody waits.
    #[serde(default = "default_position_idle_ms")]
    pub position_idle_ms: u64,
    /// How often while a request waits for a bookmark.
    #[serde(default = "default_position_wait_ms")]
    pub position_wait_ms: u64,
}

fn default_read_connections_max() -> u32 {
    16
}
fn default_acquire_ms_max() -> u64 {
    2_000
}
fn default_statement_ms_max() -> u64 {
    5_000
}
/// Fresh enough that most bookmarks of a caught-up replica need no wait; 20 cheap statements a
/// second.
fn default_position_idle_ms() -> u64 {
    50
}
fn default_position_wait_ms() -> u64 {
    2
}

impl DatabaseConfig {
    /// Unless set, enough connections for the durability that is.
    pub(super) fn suit(&mut self, durability: Durability) {
        self.waits = durability == Durability::Quorum;
        self.write_connections_max.get_or_insert(match durability {
            Durability::Async => WRITE_CONNECTIONS,
            Durability::Quorum => 4 * WRITE_CONNECTIONS,
        });
    }

    /// Connections of the pool that writes.
    #[must_use]
    pub fn write_connections(&self) -> u32 {
        self.write_connections_max.unwrap_or(WRITE_CONNECTIONS)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        positive("database.write_connections_max", self.write_connections().into())?;
        positive("database.read_connections_max", self.read_connections_max.into())?;
        positive("database.acquire_ms_max", self.acquire_ms_max)?;
        positive("database.statement_ms_max", self.statement_ms_max)?;
        positive("database.position_idle_ms", self.position_idle_ms)?;
        positive("database.position_wait_ms", self.position_wait_ms)
    }
}
