//! The steps of a move, and what they are called.

use crate::vocab::Region;
use serde::Serialize;
use std::fmt;

/// One step. Each can tell that it is done already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    /// A majority grants nothing to epochs before this one any more.
    Promise,
    /// The primary takes no more writes.
    Fence { region: Region },
    /// The target has all that the fenced primary has.
    CatchUp,
    /// The fenced primary's lease need not be waited out.
    Release,
    /// What the old primary was granted has run out.
    WaitOut,
    /// Nobody receives from the old primary any more, and nobody has more than the target.
    Detach { regions: Vec<Region> },
    /// The fenced primary gives its place up, where its platform wants that first.
    HandOver { region: Region },
    /// The target stops being a standby.
    Promote,
    /// The epoch begins, and with it the target takes writes.
    Begin,
    /// The others follow the target: a standby of a standby goes over with it.
    Follow { regions: Vec<Region> },
    /// Every region that answers sends its writes there.
    Verify,
    /// The old primary goes back to where the epoch began, and follows.
    Rejoin { region: Region },
    /// Those that were removed know it, and nothing is kept for them.
    Part { regions: Vec<Region> },
}

/// As people read them.
pub(in crate::failover) fn list<'a>(regions: impl IntoIterator<Item = &'a Region>) -> String {
    regions.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Promise => f.write_str("promise: a majority grants no earlier epoch any more"),
            Self::Fence { region } => write!(f, "fence: {region} takes no more writes"),
            Self::CatchUp => f.write_str("catch up: the new primary has all that the old one has"),
            Self::Release => f.write_str("release: the old primary's lease need not be waited out"),
            Self::WaitOut => f.write_str("wait: the old primary's lease runs out"),
            Self::Detach { regions } => {
                write!(
                    f,
                    "detach: {} receive from nobody, so that positions are final",
                    list(regions)
                )
            }
            Self::HandOver { region } => {
                write!(f, "hand over: {region} gives its place up to the new primary")
            }
            Self::Promote => f.write_str("promote: the new primary stops being a standby"),
            Self::Begin => f.write_str("begin: the epoch's first write"),
            Self::Follow { regions } => write!(f, "follow: {}", list(regions)),
            Self::Verify => f.write_str("verify: every region sends its writes to the new primary"),
            Self::Rejoin { region } => write!(f, "rejoin: {region} follows the new primary"),
            Self::Part { regions } => {
                write!(f, "part: nothing is kept for {} any more", list(regions))
            }
        }
    }
}
