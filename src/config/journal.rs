//! `[journal]`: how long the write journal remembers.

use super::ConfigError;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// Age at which a write's record, and with it its idempotency key, is forgotten.
    pub retention_hours: u32,
    /// Age at which the mark of a deleted item is forgotten. Until then its id, created again,
    /// goes on from the deleted version, so that an old `If-Match` cannot fit the new item.
    pub tombstone_days: u32,
    /// Age at which a write that a failover lost is forgotten. As long is kept what an epoch wrote
    /// last, so that an old primary that returns can still be compared with it.
    pub lost_days: u32,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { retention_hours: 72, tombstone_days: 30, lost_days: 90 }
    }
}

impl JournalConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.retention_hours < 24 {
            return Err(ConfigError::invalid(
                "journal.retention_hours",
                "must be 24 or more: clients rely on it",
            ));
        }
        if u64::from(self.lost_days) * 24 < u64::from(self.retention_hours) {
            return Err(ConfigError::invalid(
                "journal.lost_days",
                "must not be shorter than journal.retention_hours",
            ));
        }
        super::positive("journal.tombstone_days", self.tombstone_days.into())
    }
}
