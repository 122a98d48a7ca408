//! Who did something, as the journal keeps it.

use super::{ApiKeyId, Malformed};
use std::{fmt, str::FromStr};

/// The party behind an operation. `key:<uuid>` in the journal and the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    ApiKey(ApiKeyId),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiKey(id) => write!(f, "key:{id}"),
        }
    }
}

impl FromStr for Actor {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = Malformed::new("actor", "key:<uuid>");
        let id = text.strip_prefix("key:").ok_or(bad.clone())?;
        id.parse().map(Self::ApiKey).map_err(|_| bad)
    }
}
super::serde_as_text!(Actor);
