//! Pages of a listing: how long one is, and where the next goes on.

use super::problem::{Kind, Problem};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};

pub const LIMIT_DEFAULT: u32 = 50;
pub const LIMIT_MAX: u32 = 200;

/// Most entries of a page, from the parameter `limit`.
///
/// # Errors
/// A problem, when it is not a number of 1 to [`LIMIT_MAX`].
pub fn limit(text: Option<&str>) -> Result<i64, Problem> {
    match text.map_or(Ok(LIMIT_DEFAULT), str::parse) {
        // Parsing takes a sign too.
        Ok(limit @ 1..=LIMIT_MAX) if text.is_none_or(|text| !text.starts_with('+')) => {
            Ok(limit.into())
        }
        _ => Err(Problem::new(Kind::Validation, "limit is 1 to 200.")),
    }
}

/// Where a page ended, as its `next_cursor` says. Opaque to clients.
pub trait Place: Serialize + DeserializeOwned {
    /// Base64url, which needs no escaping in JSON or a query.
    fn seal(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// `None` when it is no cursor of this listing.
    fn open(cursor: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
    }
}
