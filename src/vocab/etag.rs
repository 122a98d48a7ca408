//! Entity tags of versioned things.

use super::{Epoch, Malformed};
use std::{fmt, str::FromStr};

/// `"<epoch>.<version>"`, a strong validator (RFC 9110 section 8.8.3). The epoch is the one in
/// which the version was written: after a lost write, version 5 can exist twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Etag {
    pub epoch: Epoch,
    /// From 1, one more with each change.
    pub version: i64,
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}.{}\"", self.epoch, self.version)
    }
}

impl FromStr for Etag {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = Malformed::new("entity tag", "an ETag of this item, as in \"1.5\"");
        let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).ok_or(bad.clone())?;
        let (epoch, version) = inner.split_once('.').ok_or(bad.clone())?;
        let epoch = epoch.parse().map_err(|_| bad.clone())?;
        let canonical = version.bytes().all(|b| b.is_ascii_digit()) && !version.starts_with('0');
        match version.parse() {
            Ok(version) if canonical => Ok(Self { epoch, version }),
            _ => Err(bad),
        }
    }
}
super::serde_as_text!(Etag);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_etag_has_one_spelling() {
        let tag: Etag = "\"2.17\"".parse().unwrap();
        assert_eq!((tag.epoch.get(), tag.version), (2, 17));
        assert_eq!(tag.to_string(), "\"2.17\"");
        for text in [
            "2.17",
            "W/\"2.17\"",
            "\"0.1\"",
            "\"1.0\"",
            "\"1.01\"",
            "\"1.-1\"",
            "\"1.\"",
            "\"\"",
            "*",
        ] {
            assert!(text.parse::<Etag>().is_err(), "{text}");
        }
    }
}
