//! Collection names.

use super::Malformed;
use std::{fmt, str::FromStr};

/// The name of a tenant's collection: 1 to 64 of `A-Z`, `a-z`, `0-9`, `_`, `-` and `.`, the first
/// a letter or digit. A collection exists while it holds an item.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Collection(String);

impl Collection {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Collection {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if first && text.len() <= 64 && text.bytes().all(ok) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed::new(
                "collection",
                "1 to 64 of A-Z, a-z, 0-9, _, - and ., the first a letter or digit",
            ))
        }
    }
}

impl fmt::Display for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
super::serde_as_text!(Collection);
