//! Who did something, as the journal keeps it.

use super::{ApiKeyId, Malformed, UserId};
use std::{fmt, str::FromStr};

/// The party behind an operation. `key:<uuid>`, `user:<uuid>` or `operator` in the journal and the
/// logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    ApiKey(ApiKeyId),
    /// A person: who has just registered, or is signed in.
    User(UserId),
    /// Whoever has the settings in hand.
    Operator,
}

const OPERATOR: &str = "operator";

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiKey(id) => write!(f, "key:{id}"),
            Self::User(id) => write!(f, "user:{id}"),
            Self::Operator => f.write_str(OPERATOR),
        }
    }
}

impl FromStr for Actor {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text == OPERATOR {
            return Ok(Self::Operator);
        }
        let bad = Malformed::new("actor", "key:<uuid>, user:<uuid> or operator");
        match text.split_once(':') {
            Some(("key", id)) => id.parse().map(Self::ApiKey).map_err(|_| bad),
            Some(("user", id)) => id.parse().map(Self::User).map_err(|_| bad),
            _ => Err(bad),
        }
    }
}
super::serde_as_text!(Actor);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_is_written() {
        for text in [
            "operator",
            "key:0af76519-16cd-43dd-8448-eb211c80319c",
            "user:0af76519-16cd-43dd-8448-eb211c80319c",
        ] {
            assert_eq!(text.parse::<Actor>().map(|actor| actor.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "Operator", "operator:1", "key:", "key:operator", "user:", "users:0"] {
            assert!(text.parse::<Actor>().is_err(), "{text}");
        }
    }
}
