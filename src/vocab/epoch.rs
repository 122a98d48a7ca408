//! Epochs: one primary's reign each.

use super::Malformed;
use std::{fmt, str::FromStr};

/// The number of a primary's reign, 1 for the first. Each promotion inserts the next
/// (`cluster_epoch`), and what carries an older one is refused.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "u32", into = "u32")]
pub struct Epoch(u32);

impl Epoch {
    pub const FIRST: Self = Self(1);

    /// `None` for 0, which is no epoch.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// From the database's `bigint`; `None` when out of range.
    #[must_use]
    pub fn from_stored(number: i64) -> Option<Self> {
        u32::try_from(number).ok().and_then(Self::new)
    }

    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// For the database's `bigint`.
    #[must_use]
    pub fn to_stored(self) -> i64 {
        i64::from(self.0)
    }
}

impl TryFrom<u32> for Epoch {
    type Error = Malformed;
    fn try_from(number: u32) -> Result<Self, Malformed> {
        Self::new(number).ok_or(Malformed::new("epoch", "a positive whole number"))
    }
}
impl From<Epoch> for u32 {
    fn from(epoch: Epoch) -> Self {
        epoch.0
    }
}
impl FromStr for Epoch {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = Malformed::new("epoch", "a positive whole number");
        // `parse` would take a sign; one epoch has one spelling.
        if text.starts_with('+') || text.starts_with('0') {
            return Err(bad);
        }
        text.parse().ok().and_then(Self::new).ok_or(bad)
    }
}
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
