//! The judgment: a pure function from what is asked and what is known to where it is answered.

use crate::vocab::{Bookmark, Epoch, Lsn, Malformed, Region, Standing};
use std::{str::FromStr, time::Duration};

/// What a route does to the global plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    Read,
    Write,
    /// Nothing by itself: it is the region's own, and what it needs of the global plane it asks for.
    Regional,
}

/// What `Godwit-Consistency` asks of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Never older than the bookmark.
    #[default]
    Session,
    /// Whatever is here.
    Eventual,
    /// The primary answers.
    Strong,
    /// Not older than this, nor than the bookmark.
    Bounded { lag_max: Duration },
}

impl FromStr for Consistency {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        const EXPECTED: &str = "session, eventual, strong or bounded;ms=N with N up to 86400000";
        let bad = Malformed::new("Godwit-Consistency", EXPECTED);
        match text.trim() {
            "session" => Ok(Self::Session),
            "eventual" => Ok(Self::Eventual),
            "strong" => Ok(Self::Strong),
            other => {
                let (name, number) = other.split_once(';').ok_or(bad.clone())?;
                let digits = number.trim().strip_prefix("ms=").ok_or(bad.clone())?;
                let plain = name.trim() == "bounded" && digits.bytes().all(|b| b.is_ascii_digit());
                match digits.parse() {
                    Ok(ms @ 0..=86_400_000) if plain => {
                        Ok(Self::Bounded { lag_max: Duration::from_millis(ms) })
                    }
                    _ => Err(bad),
                }
            }
        }
    }
}

impl std::fmt::Display for Consistency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Session => f.write_str("session"),
            Self::Eventual => f.write_str("eventual"),
            Self::Strong => f.write_str("strong"),
            Self::Bounded { lag_max } => write!(f, "bounded;ms={}", lag_max.as_millis()),
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    pub intent: Intent,
    pub consistency: Consistency,
    pub bookmark: Option<Bookmark>,
}

/// What is known, at this moment, to this process.
#[derive(Debug, Clone)]
pub struct View {
    /// How this region's database stands to the bookmark asked with; `None` when the database does
    /// not answer, or its data must not be read. Without a bookmark it stands `Reached`.
    pub local: Option<Standing>,
    /// Upper bound of the age of a local read; `None` when unknown.
    pub lag: Option<Duration>,
    pub primary: PrimaryView,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrimaryView {
    /// This region, in this epoch.
    Here(Epoch),
    /// That region answers, in this epoch.
    Peer(Region, Epoch),
    /// That region answers probes, but its breaker is open.
    Tripped(Region),
    /// That region, perhaps this one, which takes no writes now.
    Fenced(Region),
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Local,
    /// Wait until this replica has replayed the bookmark; past the budget, ask again with
    /// [`decide_after_wait`].
    WaitThenLocal(Bookmark),
    /// One hop, stamped with the epoch.
    Forward(Region, Epoch),
    Refuse(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NoPrimary,
    /// The bookmark is ahead of this replica and nobody else can be asked.
    BookmarkTimeout,
    BookmarkLost {
        lost_after: Lsn,
    },
    /// The primary itself has never been where the bookmark says.
    BookmarkInvalid,
}

/// Where to answer. Total: every combination has one answer, and the tests list them.
#[must_use]
pub fn decide(ask: Ask, view: &View) -> Decision {
    match (ask.intent, ask.consistency) {
        (Intent::Write, _) | (Intent::Read, Consistency::Strong) => at_primary(ask, view),
        (Intent::Regional, _) => Decision::Local,
        (Intent::Read, Consistency::Eventual) => match view.local {
            Some(_) => Decision::Local,
            None => elsewhere(view),
        },
        (Intent::Read, Consistency::Session) => session(ask, view),
        (Intent::Read, Consistency::Bounded { lag_max }) => match session(ask, view) {
            Decision::Local if view.lag.is_none_or(|lag| lag > lag_max) => elsewhere(view),
            decision => decision,
        },
    }
}

/// Where to answer once the wait of [`Decision::WaitThenLocal`] has run out.
#[must_use]
pub fn decide_after_wait(view: &View) -> Decision {
    match elsewhere(view) {
        // The primary flushed all it ever answered with.
        Decision::Local => Decision::Refuse(Refusal::BookmarkInvalid),
        Decision::Refuse(Refusal::NoPrimary) => Decision::Refuse(Refusal::BookmarkTimeout),
        decision => decision,
    }
}

fn session(ask: Ask, view: &View) -> Decision {
    let (Some(standing), Some(bookmark)) = (view.local, ask.bookmark) else {
        return if view.local.is_some() { Decision::Local } else { elsewhere(view) };
    };
    match standing {
        Standing::Reached => Decision::Local,
        Standing::Lost { lost_after } => Decision::Refuse(Refusal::BookmarkLost { lost_after }),
        Standing::Behind => Decision::WaitThenLocal(bookmark),
        // A peer in that epoch knows better than this replica, which has yet to hear of it; with
        // no such peer the log may still bring it.
        Standing::EpochUnknown => match &view.primary {
            PrimaryView::Peer(region, epoch) => Decision::Forward(region.clone(), *epoch),
            _ => Decision::WaitThenLocal(bookmark),
        },
    }
}

fn at_primary(ask: Ask, view: &View) -> Decision {
    if let Some(Standing::Lost { lost_after }) = view.local
        && ask.bookmark.is_some()
    {
        return Decision::Refuse(Refusal::BookmarkLost { lost_after });
    }
    match (elsewhere(view), view.local, ask.bookmark) {
        // Even the primary's position is known here with a delay: look again before judging.
        (Decision::Local, Some(Standing::Behind | Standing::EpochUnknown), Some(bookmark)) => {
            Decision::WaitThenLocal(bookmark)
        }
        (decision, _, _) => decision,
    }
}

/// The primary, wherever it is.
fn elsewhere(view: &View) -> Decision {
    match &view.primary {
        PrimaryView::Here(_) => Decision::Local,
        PrimaryView::Peer(region, epoch) => Decision::Forward(region.clone(), *epoch),
        PrimaryView::Tripped(_) | PrimaryView::Fenced(_) | PrimaryView::Unknown => {
            Decision::Refuse(Refusal::NoPrimary)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: Standing = Standing::Lost { lost_after: Lsn::new(7) };

    fn mark() -> Bookmark {
        Bookmark { epoch: Epoch::FIRST, lsn: Lsn::new(9) }
    }
    fn us() -> Region {
        "us-east-1".parse().unwrap()
    }
    fn ask(intent: Intent, consistency: Consistency, bookmark: bool) -> Ask {
        Ask { intent, consistency, bookmark: bookmark.then(mark) }
    }
    fn primaries() -> [PrimaryView; 5] {
        [
            PrimaryView::Here(Epoch::FIRST),
            PrimaryView::Peer(us(), Epoch::FIRST),
            PrimaryView::Tripped(us()),
            PrimaryView::Unknown,
            PrimaryView::Fenced(us()),
        ]
    }
    fn local() -> Decision {
        Decision::Local
    }
    fn forward() -> Decision {
        Decision::Forward(us(), Epoch::FIRST)
    }
    fn wait() -> Decision {
        Decision::WaitThenLocal(mark())
    }
    fn refuse(refusal: Refusal) -> Decision {
        Decision::Refuse(refusal)
    }
    fn lost() -> Decision {
        refuse(Refusal::BookmarkLost { lost_after: Lsn::new(7) })
    }

    /// Each row: the answers for the primary being here, at a peer, tripped, unknown; one that is
    /// fenced is as good as none.
    fn check(ask: Ask, standing: Option<Standing>, lag: Option<u64>, expected: [Decision; 4]) {
        let fenced = expected[3].clone();
        for (primary, expected) in primaries().into_iter().zip(expected.into_iter().chain([fenced]))
        {
            let view = View { local: standing, lag: lag.map(Duration::from_millis), primary };
            assert_eq!(decide(ask, &view), expected, "{ask:?} {view:?}");
        }
    }

    #[test]
    fn writes_and_strong_reads_go_to_the_primary_or_are_refused() {
        let none = || refuse(Refusal::NoPrimary);
        for (intent, consistency) in [
            (Intent::Write, Consistency::Session),
            (Intent::Write, Consistency::Eventual),
            (Intent::Write, Consistency::Strong),
            (Intent::Write, Consistency::Bounded { lag_max: Duration::ZERO }),
            (Intent::Read, Consistency::Strong),
        ] {
            let with = ask(intent, consistency, true);
            let without = ask(intent, consistency, false);
            for lag in [None, Some(0), Some(60_000)] {
                check(without, Some(Standing::Reached), lag, [local(), forward(), none(), none()]);
                check(without, None, lag, [local(), forward(), none(), none()]);
                check(with, Some(LOST), lag, [lost(), lost(), lost(), lost()]);
                check(with, Some(Standing::Reached), lag, [local(), forward(), none(), none()]);
                check(with, Some(Standing::Behind), lag, [wait(), forward(), none(), none()]);
                check(with, Some(Standing::EpochUnknown), lag, [wait(), forward(), none(), none()]);
            }
        }
    }

    #[test]
    fn eventual_reads_ask_nothing_but_a_database_that_answers() {
        for bookmark in [true, false] {
            let ask = ask(Intent::Read, Consistency::Eventual, bookmark);
            for standing in [Standing::Reached, Standing::Behind, Standing::EpochUnknown, LOST] {
                check(ask, Some(standing), None, [local(), local(), local(), local()]);
            }
            let none = || refuse(Refusal::NoPrimary);
            check(ask, None, None, [local(), forward(), none(), none()]);
        }
    }

    #[test]
    fn session_reads_never_go_back_in_time() {
        let with = ask(Intent::Read, Consistency::Session, true);
        let without = ask(Intent::Read, Consistency::Session, false);
        let none = || refuse(Refusal::NoPrimary);
        for lag in [None, Some(60_000)] {
            check(with, Some(LOST), lag, [lost(), lost(), lost(), lost()]);
            check(with, Some(Standing::Reached), lag, [local(), local(), local(), local()]);
            check(with, Some(Standing::Behind), lag, [wait(), wait(), wait(), wait()]);
            check(with, Some(Standing::EpochUnknown), lag, [wait(), forward(), wait(), wait()]);
            check(with, None, lag, [local(), forward(), none(), none()]);
            check(without, Some(Standing::Reached), lag, [local(), local(), local(), local()]);
            check(without, None, lag, [local(), forward(), none(), none()]);
        }
    }

    #[test]
    fn bounded_reads_take_unknown_lag_for_too_much() {
        let bounded = Consistency::Bounded { lag_max: Duration::from_millis(100) };
        let none = || refuse(Refusal::NoPrimary);
        let without = ask(Intent::Read, bounded, false);
        check(without, Some(Standing::Reached), Some(100), [local(), local(), local(), local()]);
        for lag in [None, Some(101)] {
            check(without, Some(Standing::Reached), lag, [local(), forward(), none(), none()]);
        }
        let with = ask(Intent::Read, bounded, true);
        check(with, Some(Standing::Behind), Some(0), [wait(), wait(), wait(), wait()]);
        check(with, Some(LOST), Some(0), [lost(), lost(), lost(), lost()]);
        check(with, None, None, [local(), forward(), none(), none()]);
    }

    #[test]
    fn a_wait_that_ran_out_goes_to_the_primary_or_says_so() {
        let timeout = || refuse(Refusal::BookmarkTimeout);
        let invalid = refuse(Refusal::BookmarkInvalid);
        let expected = [invalid, forward(), timeout(), timeout(), timeout()];
        for (primary, expected) in primaries().into_iter().zip(expected) {
            let view = View { local: Some(Standing::Behind), lag: None, primary };
            assert_eq!(decide_after_wait(&view), expected, "{view:?}");
        }
    }

    #[test]
    fn consistency_has_four_spellings() {
        assert_eq!("session".parse(), Ok(Consistency::Session));
        assert_eq!("eventual".parse(), Ok(Consistency::Eventual));
        assert_eq!("strong".parse(), Ok(Consistency::Strong));
        let bounded = Consistency::Bounded { lag_max: Duration::from_millis(250) };
        assert_eq!("bounded;ms=250".parse(), Ok(bounded));
        assert_eq!("bounded; ms=250".parse(), Ok(bounded));
        assert_eq!(bounded.to_string().parse(), Ok(bounded));
        for text in [
            "",
            "weak",
            "bounded",
            "bounded;ms=",
            "bounded;ms=-1",
            "bounded;ms=+1",
            "bounded;s=1",
            "bounded;ms=86400001",
            "eventual;ms=1",
        ] {
            assert!(text.parse::<Consistency>().is_err(), "{text}");
        }
    }
}
