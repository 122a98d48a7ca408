//! Judges a history: what was lost, told twice, stale, or said by two primaries at once.
//!
//! Pure. It believes nothing but the order of calls in this one process and what the answers hold;
//! a session is sequential, so what it was acknowledged before a read must be in the read. What
//! cannot be known (a write without an answer) is never held against the cluster, only counted.

mod false_loss;
mod session;
#[cfg(test)]
mod tests;

use super::history::{Ask, Call, Fate, History, Outcome};
use crate::{
    config::Durability,
    vocab::{Bookmark, Epoch},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a cluster must not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Breach {
    /// An acknowledged write is missing where durability promises that none is.
    Lost,
    /// A client holds a bookmark of a lost write, and was answered as if nothing had happened.
    Untold,
    /// A write was lost and its key does not say so.
    Unlisted,
    /// A client was told of a loss, and its bookmark names no lost write.
    FalseLoss,
    /// One key had two effects.
    Duplicated,
    /// A read lacks an acknowledged write of its own session.
    Stale,
    /// A session saw a list or its bookmark go back.
    Backward,
    /// A write of an older epoch was carried out after one of a newer epoch.
    TwoEpochs,
    /// Two answers that cannot both be true.
    Contradiction,
}

impl Breach {
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::Untold,
        Self::Unlisted,
        Self::FalseLoss,
        Self::Duplicated,
        Self::Stale,
        Self::Backward,
        Self::TwoEpochs,
        Self::Contradiction,
    ];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Untold => "untold",
            Self::Unlisted => "unlisted",
            Self::FalseLoss => "false loss",
            Self::Duplicated => "duplicated",
            Self::Stale => "stale",
            Self::Backward => "backward",
            Self::TwoEpochs => "two epochs",
            Self::Contradiction => "contradiction",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub breach: Breach,
    pub at_us: u64,
    pub session: Option<u32>,
    pub says: String,
}

/// An acknowledged write that is missing at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostWrite {
    pub key: String,
    pub session: u32,
    pub acknowledged_us: u64,
    pub epoch: Option<Epoch>,
    pub bookmark: Option<Bookmark>,
    /// What its key answers.
    pub fate: Fate,
}

/// What came of the writes, each counted once however often it was tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub writes: u64,
    pub acknowledged: u64,
    /// Of these, missing at the end.
    pub lost: u64,
    /// Told in time that they had no effect, a changed list included.
    pub refused: u64,
    /// Without an answer that says; at the end they are there.
    pub recovered: u64,
    /// Without an answer that says; at the end they are not there, and their key says so.
    pub without_effect: u64,
    /// Without an answer that says, and their key could not be asked.
    pub unresolved: u64,
    pub reads: u64,
    /// Sessions' requests that were answered `bookmark-lost`.
    pub told: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub tally: Tally,
    pub lost: Vec<LostWrite>,
    pub violations: Vec<Violation>,
}

impl Verdict {
    #[must_use]
    pub fn count(&self, breach: Breach) -> usize {
        self.violations.iter().filter(|violation| violation.breach == breach).count()
    }

    /// Lost writes whose keys say so.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.lost.iter().filter(|write| write.fate == Fate::Lost).count()
    }

    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// All attempts of one write.
struct Write<'a> {
    key: &'a str,
    attempts: Vec<&'a Call>,
    /// The first attempt that was acknowledged.
    acknowledged: Option<&'a Call>,
    /// It is there at the end.
    there: bool,
    fate: Fate,
}

impl Write<'_> {
    fn is_lost(&self) -> bool {
        self.acknowledged.is_some() && !self.there
    }
    fn first(&self) -> &Call {
        self.attempts[0]
    }
    /// Every attempt was told that it has no effect.
    fn is_refused(&self) -> bool {
        let refused = |call: &&Call| {
            matches!(call.outcome, Outcome::Refused | Outcome::Conflict | Outcome::Told)
        };
        self.attempts.iter().all(refused)
    }
}

/// What is there at the end, to be looked up.
struct Effects<'a> {
    /// Ids under each key.
    items: BTreeMap<&'a str, Vec<&'a str>>,
    values: BTreeSet<(u32, u64)>,
}

impl<'a> Effects<'a> {
    fn of(history: &'a History) -> Self {
        let mut items: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, id) in &history.closing.items {
            items.entry(key).or_default().push(id);
        }
        let lists = history.closing.lists.iter();
        let values = lists.flat_map(|(list, values)| values.iter().map(|value| (*list, *value)));
        Self { items, values: values.collect() }
    }

    fn has(&self, ask: &Ask) -> bool {
        match ask {
            Ask::Add { key } => self.items.contains_key(key.as_str()),
            Ask::Append { list, value, .. } => self.values.contains(&(*list, *value)),
            Ask::ReadItem { .. } | Ask::ReadList { .. } => false,
        }
    }
}

/// Judges a whole round.
#[must_use]
pub fn judge(history: &History) -> Verdict {
    let effects = Effects::of(history);
    let writes = writes(history, &effects);
    let mut violations = session::judge(history, &writes);
    violations.extend(losses(history, &writes));
    violations.extend(false_loss::judge(history, &writes));
    violations.extend(two_epochs(history));
    violations.extend(duplicates(history, &effects));
    violations.extend(contradictions(history, &writes));
    violations.sort_by_key(|violation| (violation.at_us, violation.breach));
    Verdict { tally: tally(history, &writes), lost: lost_writes(&writes), violations }
}

/// The acknowledged writes that are missing: to be probed before the round is judged.
#[must_use]
pub fn lost(history: &History) -> Vec<LostWrite> {
    lost_writes(&writes(history, &Effects::of(history)))
}

fn writes<'a>(history: &'a History, effects: &Effects) -> Vec<Write<'a>> {
    let mut by_key: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in &history.calls {
        if let Some(key) = call.ask.write_key() {
            by_key.entry(key).or_default().push(call);
        }
    }
    let write = |(key, mut attempts): (&'a str, Vec<&'a Call>)| {
        attempts.sort_by_key(|call| call.began_us);
        let acknowledged = attempts.iter().copied().find(|call| call.seen().is_some());
        let there = attempts.first().is_some_and(|call| effects.has(&call.ask));
        let fate = history.closing.writes.get(key).copied().unwrap_or(Fate::Unanswered);
        Write { key, attempts, acknowledged, there, fate }
    };
    by_key.into_iter().map(write).collect()
}

fn lost_writes(writes: &[Write]) -> Vec<LostWrite> {
    let lost = |write: &Write| {
        let call = write.acknowledged.filter(|_| write.is_lost())?;
        Some(LostWrite {
            key: write.key.to_owned(),
            session: call.session,
            acknowledged_us: call.ended_us,
            epoch: call.seen().and_then(|seen| seen.etag).map(|etag| etag.epoch),
            bookmark: call.bookmark_out,
            fate: write.fate,
        })
    };
    writes.iter().filter_map(lost).collect()
}

fn tally(history: &History, writes: &[Write]) -> Tally {
    let mut tally = Tally::default();
    for write in writes {
        tally.writes += 1;
        let counted = if write.acknowledged.is_some() {
            tally.lost += u64::from(write.is_lost());
            &mut tally.acknowledged
        } else if write.is_refused() {
            &mut tally.refused
        } else if write.there {
            &mut tally.recovered
        } else if matches!(write.fate, Fate::Unknown | Fate::Lost) {
            &mut tally.without_effect
        } else {
            &mut tally.unresolved
        };
        *counted += 1;
    }
    for call in &history.calls {
        tally.reads += u64::from(!call.ask.is_write() && call.seen().is_some());
        tally.told += u64::from(call.outcome == Outcome::Told);
    }
    tally
}

fn violation(breach: Breach, call: &Call, says: String) -> Violation {
    Violation { breach, at_us: call.ended_us, session: Some(call.session), says }
}

/// With `quorum` nothing acknowledged may be lost. With `async` it may, and is told and listed.
fn losses(history: &History, writes: &[Write]) -> Vec<Violation> {
    let mut found = Vec::new();
    for write in writes {
        let Some(call) = write.acknowledged.filter(|_| write.is_lost()) else { continue };
        let key = write.key;
        if history.durability == Durability::Quorum {
            let says = format!("{key} was acknowledged by {} and is gone", by(call));
            found.push(violation(Breach::Lost, call, says));
        }
        if history.closing.rejoined && write.fate != Fate::Lost {
            let says = format!("{key} is lost, and its key answers {:?}", write.fate);
            found.push(violation(Breach::Unlisted, call, says));
        }
        for probe in history.closing.probes.iter().filter(|probe| probe.key == key && !probe.told) {
            let says = format!("{key} is lost, and {} says {}", probe.region, probe.says);
            found.push(violation(Breach::Untold, call, says));
        }
    }
    found
}

fn by(call: &Call) -> String {
    call.by.as_ref().map_or_else(|| "someone".to_owned(), ToString::to_string)
}

/// A write that began after a newer epoch had acknowledged one, and was committed in an older.
fn two_epochs(history: &History) -> Vec<Violation> {
    let mut first_us: BTreeMap<Epoch, u64> = BTreeMap::new();
    let acknowledged = || history.calls.iter().filter_map(|c| Some((c, c.acknowledges()?)));
    for (call, epoch) in acknowledged() {
        let first = first_us.entry(epoch).or_insert(call.ended_us);
        *first = call.ended_us.min(*first);
    }
    let mut found = Vec::new();
    for (call, epoch) in acknowledged() {
        let newer = first_us.iter().find(|(other, us)| **other > epoch && **us < call.began_us);
        if let Some((newer, _)) = newer {
            let says = format!(
                "{} was asked for after epoch {newer} had acknowledged a write, and {} committed it in epoch {epoch}",
                call.ask.write_key().unwrap_or_default(),
                by(call)
            );
            found.push(violation(Breach::TwoEpochs, call, says));
        }
    }
    found
}

fn duplicates(history: &History, effects: &Effects) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut twice = |says: String| {
        let at_us = history.ended_us;
        found.push(Violation { breach: Breach::Duplicated, at_us, session: None, says });
    };
    for (key, ids) in &effects.items {
        if ids.len() > 1 {
            twice(format!("{key} made {} items: {}", ids.len(), ids.join(", ")));
        }
    }
    for (list, values) in &history.closing.lists {
        let mut seen = BTreeSet::new();
        for value in values.iter().filter(|value| !seen.insert(**value)) {
            twice(format!("{value} is twice in list {list}"));
        }
    }
    let mut made: BTreeMap<&str, &str> = BTreeMap::new();
    for call in &history.calls {
        let id = call.seen().and_then(|seen| seen.id.as_deref());
        let (Ask::Add { key }, Some(id)) = (&call.ask, id) else { continue };
        let first = made.entry(key).or_insert(id);
        if *first != id {
            found.push(violation(
                Breach::Duplicated,
                call,
                format!("{key} was answered with {first}, then with {id}"),
            ));
        }
    }
    found
}

fn contradictions(history: &History, writes: &[Write]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut asked = BTreeSet::new();
    let mut values = BTreeSet::new();
    for write in writes {
        let call = write.first();
        asked.insert(write.key);
        if let Ask::Append { list, value, .. } = &call.ask {
            values.insert((*list, *value));
        }
        let says = match (write.there, write.fate) {
            (true, _) if write.is_refused() => "was refused each time and took effect".to_owned(),
            (false, Fate::Committed) => "is committed by its key and is not there".to_owned(),
            (true, Fate::Lost | Fate::Unknown) => {
                format!("is there, and its key answers {:?}", write.fate)
            }
            _ => continue,
        };
        found.push(violation(Breach::Contradiction, call, format!("{} {says}", write.key)));
    }
    let mut strange = |says: String| {
        let at_us = history.ended_us;
        found.push(Violation { breach: Breach::Contradiction, at_us, session: None, says });
    };
    for (key, id) in &history.closing.items {
        if !asked.contains(key.as_str()) {
            strange(format!("{id} holds {key}, which nobody asked for"));
        }
    }
    for (list, held) in &history.closing.lists {
        for value in held.iter().filter(|value| !values.contains(&(*list, **value))) {
            strange(format!("list {list} holds {value}, which nobody asked for"));
        }
    }
    for call in &history.calls {
        found.extend(overwritten(history, call));
        if is_strange(call) {
            let problem = call.problem.as_deref().unwrap_or("no problem document");
            let says =
                format!("{} answered {} ({problem}) to {:?}", call.asked, call.status, call.ask);
            found.push(violation(Breach::Contradiction, call, says));
        }
    }
    found
}

/// An append said that the list was `before` and then its value: where the value is there at the
/// end, so is all that.
fn overwritten(history: &History, call: &Call) -> Option<Violation> {
    let (Ask::Append { key, list, before, value }, Some(_)) = (&call.ask, call.seen()) else {
        return None;
    };
    let held = history.closing.lists.get(list)?;
    let place = held.iter().position(|found| found == value)?;
    if held[..place] == before[..] {
        return None;
    }
    let says = format!(
        "{key} put {value} behind {} others into list {list}; at the end it stands behind {place}",
        before.len()
    );
    Some(violation(Breach::Contradiction, call, says))
}

/// Answers that no request of the workload should get, whatever has failed.
fn is_strange(call: &Call) -> bool {
    match call.status {
        0 | 200 | 201 | 408 | 412 | 421 | 429 | 502..=504 => false,
        404 => call.ask.is_write(),
        409 => !matches!(call.problem.as_deref(), Some("bookmark-lost" | "idempotency-in-flight")),
        _ => true,
    }
}
