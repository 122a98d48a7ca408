//! Who counts: the one place where a majority is counted.

use super::Region;
use std::{collections::BTreeSet, fmt};

/// The regions that an epoch counts: a majority of them grants it its lease. Part of the epoch, so
/// that changing them is a new one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Members(BTreeSet<Region>);

impl FromIterator<Region> for Members {
    fn from_iter<T: IntoIterator<Item = Region>>(regions: T) -> Self {
        Self(regions.into_iter().collect())
    }
}

/// More than half.
const fn majority(regions: usize) -> usize {
    regions / 2 + 1
}

impl Members {
    #[must_use]
    pub fn contains(&self, region: &Region) -> bool {
        self.0.contains(region)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Region> {
        self.0.iter()
    }

    /// All but this one.
    pub fn others<'a>(&'a self, own: &'a Region) -> impl Iterator<Item = &'a Region> {
        self.0.iter().filter(move |region| *region != own)
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How many of them are a majority.
    #[must_use]
    pub fn needed(&self) -> usize {
        majority(self.0.len())
    }

    /// How many of these are members, each counted once.
    pub fn among<'a>(&self, regions: impl IntoIterator<Item = &'a Region>) -> usize {
        let members = regions.into_iter().filter(|region| self.contains(region));
        members.collect::<BTreeSet<_>>().len()
    }

    /// Whether the members among these are a majority. Of no members nobody is.
    pub fn is_majority<'a>(&self, regions: impl IntoIterator<Item = &'a Region>) -> bool {
        self.among(regions) >= self.needed()
    }
}

/// The regions, in their order, with commas between.
impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(Region::as_str).collect();
        f.write_str(&names.join(", "))
    }
}

/// What a promotion must be promised before its epoch can begin: enough that no earlier epoch is
/// granted anything any more, and that whoever promotes after it hears of it (ADR 10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// Of the epoch to begin.
    pub members: Members,
    /// Of every epoch that may hold the lease, or come to hold it.
    pub before: Vec<Members>,
    /// Regions that an operator says will never answer again.
    pub gone: BTreeSet<Region>,
}

impl Quorum {
    /// Of whom a majority is still to be had; `None` when these are enough. A majority of an earlier
    /// epoch's members can be replaced by all of them that are not gone: nobody is left then who
    /// has promised something else, unknown to all who answer.
    #[must_use]
    pub fn lacks(&self, promised: &BTreeSet<Region>) -> Option<&Members> {
        if !self.members.is_majority(promised) {
            return Some(&self.members);
        }
        self.before.iter().find(|members| {
            let answers = |region| promised.contains(region) || self.gone.contains(region);
            !members.is_majority(promised) && !members.iter().all(answers)
        })
    }

    /// Whether the promise rests on a majority of every earlier epoch's members. Otherwise some of
    /// them are gone, and what those granted cannot be asked.
    #[must_use]
    pub fn tells_all(&self, promised: &BTreeSet<Region>) -> bool {
        self.before.iter().all(|members| members.is_majority(promised))
    }

    /// Counts another epoch's members too.
    pub fn add(&mut self, members: Members) {
        if !self.before.contains(&members) {
            self.before.push(members);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &str) -> BTreeSet<Region> {
        names.split_whitespace().map(|name| format!("region-{name}").parse().unwrap()).collect()
    }
    fn members(names: &str) -> Members {
        set(names).into_iter().collect()
    }

    #[test]
    fn a_majority_is_more_than_half_of_the_members_and_of_nobody_else() {
        assert_eq!([1, 2, 3, 4, 5].map(majority), [1, 2, 2, 3, 3]);
        let three = members("a b c");
        assert!(three.is_majority(&set("a c")) && !three.is_majority(&set("a d e f")));
        let twice: Vec<Region> = set("a").into_iter().chain(set("a")).collect();
        assert!(!three.is_majority(&twice), "one that is named twice is one");
        assert!(!members("").is_majority(&set("a")) && !members("").is_majority(&set("")));
    }

    fn quorum(old: &str, new: &str, gone: &str) -> Quorum {
        Quorum { members: members(new), before: vec![members(old)], gone: set(gone) }
    }

    #[test]
    fn a_change_needs_a_majority_of_the_old_and_of_the_new() {
        let removes = quorum("a b c", "a", "");
        assert_eq!(removes.lacks(&set("a")), Some(&members("a b c")));
        assert_eq!(removes.lacks(&set("b c")), Some(&members("a")));
        assert_eq!(removes.lacks(&set("a b")), None);
        let adds = quorum("a b", "a b c d", "");
        assert_eq!(adds.lacks(&set("a b")), Some(&members("a b c d")));
        assert_eq!(adds.lacks(&set("a b d")), None);
    }

    #[test]
    fn regions_that_are_gone_are_not_waited_for_if_all_others_answer() {
        let alone = quorum("a b c", "a", "b c");
        assert_eq!(alone.lacks(&set("a")), None);
        assert!(!alone.tells_all(&set("a")) && alone.tells_all(&set("a b")));
        // What d has promised to somebody else only those know who are gone, and d.
        let five = quorum("a b c d e", "a e", "b c");
        assert_eq!(five.lacks(&set("a e")), Some(&members("a b c d e")));
        assert_eq!(five.lacks(&set("a d e")), None);
    }

    #[test]
    fn a_change_that_was_promised_and_did_not_begin_counts_too() {
        let mut moves = quorum("a b c", "a b c", "");
        assert_eq!(moves.lacks(&set("a c")), None);
        moves.add(members("b"));
        assert_eq!(moves.lacks(&set("a c")), Some(&members("b")));
        assert_eq!(moves.lacks(&set("a b")), None);
    }
}
