//! Bookmarks: positions that clients hold, and how a database stands to one.

use super::{Epoch, Lsn, Malformed, Members, Region};
use std::{fmt, str::FromStr};

/// A position in the global plane, `(epoch, LSN)`. Ordered by epoch first: the later of two
/// bookmarks is the one to keep. Opaque to clients; `shared/postgres.md` lessons 1, 2 and 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bookmark {
    pub epoch: Epoch,
    pub lsn: Lsn,
}

/// When an epoch began: `start_lsn` is where the promoted replica's log ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EpochStart {
    pub epoch: Epoch,
    pub start_lsn: Lsn,
    pub region: Region,
    /// Who counts in it; `None` for one that was begun before members were noted: every region of the
    /// settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Members>,
}

/// Every epoch a database has heard of, oldest first. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EpochHistory(Vec<EpochStart>);

/// How a database at some position stands to a bookmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Everything the bookmark names can be read here.
    Reached,
    /// Same epoch, not there yet: waiting will do.
    Behind,
    /// The bookmark's epoch has not been heard of here: wait or ask the primary.
    EpochUnknown,
    /// A failover lost it. All that is left of its epoch ends at `lost_after`.
    Lost { lost_after: Lsn },
}

impl EpochHistory {
    /// `None` when empty: a schema without its first epoch is not a Godwit schema.
    #[must_use]
    pub fn new(mut starts: Vec<EpochStart>) -> Option<Self> {
        starts.sort_by_key(|start| start.epoch);
        if starts.is_empty() { None } else { Some(Self(starts)) }
    }

    #[must_use]
    pub fn current(&self) -> &EpochStart {
        self.0.last().expect("an epoch history is never empty")
    }

    #[must_use]
    pub fn starts(&self) -> &[EpochStart] {
        &self.0
    }

    /// How a database that knows this history and has come to `lsn` stands to `bookmark`.
    #[must_use]
    pub fn standing(&self, lsn: Lsn, bookmark: Bookmark) -> Standing {
        let current = self.current().epoch;
        if bookmark.epoch > current {
            return Standing::EpochUnknown;
        }
        if let Some(next) = self.0.iter().find(|start| start.epoch > bookmark.epoch) {
            // Of an epoch that left no row here, nothing it wrote is here.
            let begun = self.0.iter().any(|start| start.epoch == bookmark.epoch);
            return if !begun || bookmark.lsn > next.start_lsn {
                Standing::Lost { lost_after: next.start_lsn }
            } else {
                // The row of a later epoch is here, so all before its start is too.
                Standing::Reached
            };
        }
        if lsn >= bookmark.lsn { Standing::Reached } else { Standing::Behind }
    }
}

const EXPECTED: &str = "the Godwit-Bookmark of an earlier answer, unchanged";

/// `1-<epoch, hex>-<lsn, hex>`: a format number, so that a later form can be told from this one.
impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1-{:x}-{:x}", self.epoch.get(), self.lsn.get())
    }
}

impl FromStr for Bookmark {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = Malformed::new("bookmark", EXPECTED);
        let number = |t: &str, digits_max: usize| {
            let hex = t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            let canonical =
                !t.is_empty() && t.len() <= digits_max && (t == "0" || !t.starts_with('0'));
            if hex && canonical { u64::from_str_radix(t, 16).ok() } else { None }
        };
        let rest = text.strip_prefix("1-").ok_or(bad.clone())?;
        let (epoch, lsn) = rest.split_once('-').ok_or(bad.clone())?;
        let epoch = number(epoch, 8).and_then(|n| u32::try_from(n).ok()).and_then(Epoch::new);
        match (epoch, number(lsn, 16)) {
            (Some(epoch), Some(lsn)) => Ok(Self { epoch, lsn: Lsn::new(lsn) }),
            _ => Err(bad),
        }
    }
}
super::serde_as_text!(Bookmark);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn history(starts: &[(u32, u64)]) -> EpochHistory {
        let start = |&(epoch, lsn): &(u32, u64)| EpochStart {
            epoch: Epoch::new(epoch).unwrap(),
            start_lsn: Lsn::new(lsn),
            region: "us-east-1".parse().unwrap(),
            members: None,
        };
        EpochHistory::new(starts.iter().map(start).collect()).unwrap()
    }
    fn bookmark(epoch: u32, lsn: u64) -> Bookmark {
        Bookmark { epoch: Epoch::new(epoch).unwrap(), lsn: Lsn::new(lsn) }
    }

    #[test]
    fn a_bookmark_beyond_the_next_epochs_start_is_lost_however_far_the_log_has_come() {
        let known = history(&[(1, 0), (2, 100), (3, 250)]);
        let lost = |at| Standing::Lost { lost_after: Lsn::new(at) };
        assert_eq!(known.standing(Lsn::new(9_999), bookmark(1, 101)), lost(100));
        assert_eq!(known.standing(Lsn::new(9_999), bookmark(2, 251)), lost(250));
        assert_eq!(known.standing(Lsn::new(9_999), bookmark(1, 100)), Standing::Reached);
        assert_eq!(known.standing(Lsn::new(300), bookmark(3, 300)), Standing::Reached);
        assert_eq!(known.standing(Lsn::new(300), bookmark(3, 301)), Standing::Behind);
        assert_eq!(known.standing(Lsn::new(300), bookmark(4, 1)), Standing::EpochUnknown);
    }

    #[test]
    fn a_bookmark_of_an_epoch_that_left_no_row_is_lost_wherever_it_is() {
        let known = history(&[(1, 0), (3, 250)]);
        let lost = Standing::Lost { lost_after: Lsn::new(250) };
        assert_eq!(known.standing(Lsn::new(300), bookmark(2, 200)), lost);
    }

    #[test]
    fn refuses_what_it_did_not_print() {
        for text in [
            "",
            "1",
            "1-",
            "1-0-5",
            "1-1-",
            "2-1-1",
            "1-1-1-1",
            "1-1-G",
            "1-01-1",
            "1-1-0a",
            "1-1-A",
            "1-100000000-1",
            "1-1-10000000000000000",
            "1-+1-1",
        ] {
            assert!(text.parse::<Bookmark>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn survives_its_own_spelling(epoch in 1u32.., lsn: u64) {
            let there = bookmark(epoch, lsn);
            prop_assert_eq!(there.to_string().parse::<Bookmark>().unwrap(), there);
        }

        /// What has been reached stays reached as the log grows: a wait that ended cannot un-end.
        #[test]
        fn reached_is_for_good(epoch in 1u32..4, lsn in 0u64..400, at in 0u64..400, more in 0u64..400) {
            let known = history(&[(1, 0), (2, 100), (3, 250)]);
            if known.standing(Lsn::new(at), bookmark(epoch, lsn)) == Standing::Reached {
                prop_assert_eq!(known.standing(Lsn::new(at + more), bookmark(epoch, lsn)), Standing::Reached);
            }
        }
    }
}
