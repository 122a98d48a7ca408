//! Typed identifiers. Each is a UUIDv7 (RFC 9562 section 5.7): unique without a sequence, which
//! matters because a failover makes sequences repeat (`shared/postgres.md` lesson 14).

use super::{Clock, Malformed, Op, Rng};
use std::{fmt, str::FromStr};
use uuid::Uuid;

fn uuid_v7(clock: &dyn Clock, rng: &dyn Rng) -> Uuid {
    let mut random = [0; 10];
    rng.fill(&mut random);
    let ms = u64::try_from(clock.now().timestamp_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A new one, from the operation's clock and generator.
            #[must_use]
            pub fn mint(op: &Op) -> Self {
                Self::mint_from(&*op.clock, &*op.rng)
            }
            pub(in crate::vocab) fn mint_from(clock: &dyn Clock, rng: &dyn Rng) -> Self {
                Self(uuid_v7(clock, rng))
            }
            /// For storage alone: a value that was minted once and kept.
            #[must_use]
            pub const fn from_stored(uuid: Uuid) -> Self {
                Self(uuid)
            }
            #[must_use]
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }
        impl FromStr for $name {
            type Err = Malformed;
            /// The hyphenated form only, in either case.
            fn from_str(text: &str) -> Result<Self, Malformed> {
                if text.len() != 36 {
                    return Err(Malformed::new("id", "a UUID with hyphens"));
                }
                Uuid::try_parse(text).map(Self).map_err(|_| Malformed::new("id", "a UUID with hyphens"))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        super::serde_as_text!($name);
    };
}

id!(
    /// A tenant.
    TenantId
);
id!(
    /// An API key; not its secret.
    ApiKeyId
);
id!(
    /// A user of a tenant.
    UserId
);
id!(
    /// A session of a user; not its token.
    SessionId
);
id!(
    /// An item, unique within its tenant and collection.
    ItemId
);
id!(
    /// One operation: a request, a loop's tick, a command.
    OpId
);
