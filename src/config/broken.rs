//! Sabotage, so that the drill's checker is itself tested: a build with the feature `broken` breaks
//! the one rule that `GODWIT_BROKEN` names. Any other build has no such branch, and a build without
//! debug assertions refuses the feature.

#[cfg(all(feature = "broken", not(debug_assertions)))]
compile_error!("the feature `broken` is for the laboratory, and never in a release");

#[cfg(feature = "broken")]
pub use compiled::{bookmark, fencing_off, insert_position, word};
#[cfg(not(feature = "broken"))]
pub use sound::{bookmark, fencing_off, insert_position, word};

#[cfg(not(feature = "broken"))]
mod sound {
    use crate::vocab::{Bookmark, Epoch};

    /// The name of the sabotage.
    #[must_use]
    pub const fn word() -> Option<&'static str> {
        None
    }

    /// A lease has no end, and nothing fences a database for want of one. What has heard of a later
    /// epoch still stops: that is another rule.
    #[must_use]
    pub const fn fencing_off() -> bool {
        false
    }

    /// A write's bookmark is where the log was inserted to when its transaction began.
    #[must_use]
    pub const fn insert_position() -> bool {
        false
    }

    /// The bookmark that is judged: without its epoch, one of the current.
    #[must_use]
    pub const fn bookmark(sent: Bookmark, _current: Epoch) -> Bookmark {
        sent
    }
}

#[cfg(feature = "broken")]
mod compiled {
    use crate::vocab::{Bookmark, Epoch};
    use std::sync::LazyLock;

    const WORDS: [&str; 3] = ["fencing", "insert-position", "bookmark-without-epoch"];

    #[expect(clippy::disallowed_methods, reason = "this room reads the environment")]
    static WORD: LazyLock<Option<&'static str>> = LazyLock::new(|| {
        let told = std::env::var("GODWIT_BROKEN").ok().filter(|told| !told.is_empty())?;
        let known = WORDS.into_iter().find(|word| *word == told);
        Some(known.unwrap_or_else(|| panic!("GODWIT_BROKEN is none of {}", WORDS.join(", "))))
    });

    pub fn word() -> Option<&'static str> {
        *WORD
    }

    pub fn fencing_off() -> bool {
        word() == Some("fencing")
    }

    pub fn insert_position() -> bool {
        word() == Some("insert-position")
    }

    pub fn bookmark(sent: Bookmark, current: Epoch) -> Bookmark {
        let epoch = if word() == Some("bookmark-without-epoch") { current } else { sent.epoch };
        Bookmark { epoch, ..sent }
    }
}
