//! `If-Match` and `If-None-Match` (RFC 9110 section 13.1), as writes need them.

use crate::vocab::{Etag, Malformed};

/// What a write demands of the item before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// `If-None-Match: *`
    Absent,
    /// `If-Match`
    Matches(Match),
}

/// A list of entity tags, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    Any,
    /// Tags that cannot be ours (weak, or of another form) are well formed but match nothing.
    OneOf(Vec<Etag>),
}

impl Match {
    #[must_use]
    pub fn holds(&self, etag: Etag) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(tags) => tags.contains(&etag),
        }
    }

    /// Parses the value of `If-Match` or `If-None-Match`. With `weak`, a weak tag counts as its
    /// strong twin, as `If-None-Match` wants.
    ///
    /// # Errors
    /// When it is neither `*` nor a list of quoted tags.
    pub fn parse(value: &str, weak: bool) -> Result<Self, Malformed> {
        let bad = Malformed::new("entity tag", "* or a list of quoted entity tags");
        if value.trim() == "*" {
            return Ok(Self::Any);
        }
        let mut tags = Vec::new();
        for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let opaque = part.strip_prefix("W/").unwrap_or(part);
            let inner = opaque.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            if inner.is_none_or(|text| text.contains('"')) {
                return Err(bad);
            }
            if weak || opaque.len() == part.len() {
                tags.extend(opaque.parse::<Etag>());
            }
        }
        // A list of foreign tags matches nothing; no list at all is a mistake.
        if value.trim().is_empty() { Err(bad) } else { Ok(Self::OneOf(tags)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_only_strong_tags_of_this_very_version() {
        let tag: Etag = "\"1.2\"".parse().unwrap();
        let holds = |value: &str, weak| Match::parse(value, weak).unwrap().holds(tag);
        assert!(holds("\"1.2\"", false) && holds("\"9.9\", \"1.2\"", false) && holds(" * ", false));
        assert!(!holds("\"1.3\"", false) && !holds("\"2.2\"", false) && !holds("\"abc\"", false));
        assert!(!holds("W/\"1.2\"", false));
        assert!(holds("W/\"1.2\"", true));
    }

    #[test]
    fn refuses_what_is_not_a_list_of_tags() {
        for value in ["", " ", "1.2", "\"1.2", "\"a\"b\"", "*, \"1.2\""] {
            assert!(Match::parse(value, false).is_err(), "{value}");
        }
    }
}
