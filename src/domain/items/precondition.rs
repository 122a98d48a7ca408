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
        let mut some = false;
        let mut rest = value.trim();
        // Empty elements are skipped (RFC 9110 section 5.6.1.2).
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix(',') {
                rest = after.trim_start();
                continue;
            }
            let (strong, tag, after) = tag(rest).ok_or_else(|| bad.clone())?;
            if weak || strong {
                tags.extend(tag.parse::<Etag>());
            }
            some = true;
            rest = after.trim_start();
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(bad);
            }
        }
        // A list of foreign tags matches nothing; no list at all is a mistake.
        if some { Ok(Self::OneOf(tags)) } else { Err(bad) }
    }
}

/// The tag that `text` starts with, quotes included, whether it is strong, and what follows it. A
/// comma may stand inside (RFC 9110 section 8.8.3).
fn tag(text: &str) -> Option<(bool, &str, &str)> {
    let opaque = text.strip_prefix("W/").unwrap_or(text);
    let end = opaque.strip_prefix('"')?.find('"')? + 2;
    let (tag, after) = opaque.split_at(end);
    let graphic = tag.bytes().all(|byte| byte.is_ascii_graphic());
    graphic.then_some((opaque.len() == text.len(), tag, after))
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
        assert!(holds("\"a,b\",, \"1.2\" ,", false));
    }

    #[test]
    fn refuses_what_is_not_a_list_of_tags() {
        for value in [
            "",
            " ",
            ",",
            "1.2",
            "\"1.2",
            "\"a\"b\"",
            "\"a\" \"b\"",
            "\"a b\"",
            "*, \"1.2\"",
            "w/\"a\"",
        ] {
            assert!(Match::parse(value, false).is_err(), "{value}");
        }
    }
}
