//! The words of the house. Everything else is written in these types; this room imports nothing.
//!
//! Glossary, one meaning each:
//! - *primary*: the one region whose Postgres accepts writes. *replica*: a region that follows it.
//! - *epoch*: one primary's reign over its *members*, the regions that count; each promotion and each
//!   change of the members starts the next.
//! - *position*: how far a database has come, as (epoch, LSN). *bookmark*: a position a client holds.
//! - *forward*: the HTTP hop of a request to the primary region. *queue*: work owed to the primary.
//! - *change*: a record of what the primary did. *promote*: make a replica the primary.
//! - *guess*: a try to sign in that has not been found to be right.
//! - *lag*: how old a local read can be; unknown until measured, never zero by default.
//!
//! Types here parse on the way in and cannot hold a bad value. Nothing here does I/O except
//! [`clock::SystemClock`] and [`rng::SystemRng`], the only two places that read the time or draw a
//! random number.

pub mod actor;
pub mod bookmark;
mod causes;
pub mod clock;
pub mod collection;
pub mod email;
pub mod epoch;
pub mod etag;
pub mod guess;
pub mod idempotency;
pub mod ids;
pub mod lsn;
pub mod members;
pub mod op;
pub mod platform;
mod problem_type;
pub mod region;
pub mod rng;
pub mod role;
pub mod scope;
pub mod token_hash;

pub use actor::Actor;
pub use bookmark::{Bookmark, EpochHistory, EpochStart, Standing};
pub use causes::causes;
pub use clock::{Clock, SharedClock, SystemClock};
pub use collection::Collection;
pub use email::Email;
pub use epoch::Epoch;
pub use etag::Etag;
pub use idempotency::IdempotencyKey;
pub use ids::{ApiKeyId, ItemId, OpId, SessionId, TenantId, UserId};
pub use lsn::Lsn;
pub use members::{Members, Quorum};
pub use op::{Op, OpKind};
pub use platform::Platform;
pub use problem_type::{problem_kind, problem_type};
pub use region::Region;
pub use rng::{Rng, SharedRng, SystemRng};
pub use role::Role;
pub use scope::{Scope, Scopes};
pub use token_hash::TokenHash;

/// A text that is not a value of the type it was parsed as. Says what would be, never echoes input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {expected}")]
pub struct Malformed {
    pub what: &'static str,
    pub expected: &'static str,
}

impl Malformed {
    #[must_use]
    pub const fn new(what: &'static str, expected: &'static str) -> Self {
        Self { what, expected }
    }
}

/// Serialises through `Display` and deserialises through `FromStr`, so that one grammar rules.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;
