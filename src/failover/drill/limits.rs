//! What is promised: what a round must keep, and the goals of a whole drill. Pure.
//!
//! A goal is met only where all of it was measured: what nobody measured is not good.

use super::{
    checker::Breach,
    faults::Fault,
    history::{History, Mark, MarkKind},
    measures::{Measures, Percentiles},
    report::{Report, Round},
};
use crate::config::Durability;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A planned move: how much longer than its round trip 99 of 100 writes take at most.
const PAUSE_MS_MAX: u64 = 1_000;

/// After a kill, from the command to the first write in every surviving region.
const MEDIAN_MS_MAX: u64 = 3_000;
const WORST_MS_MAX: u64 = 8_000;

/// A request that is asked later than this after its turn was not asked by a client that is well.
const LATE_P99_MS_MAX: u64 = 250;
const LATE_MS_MAX: u64 = 1_000;
/// Half of the writes that began this shortly before anything was broken have ended within that time:
/// longer than any round trip, so that a longer one is that of a queue.
const BEFORE_US: u64 = 2_000_000;
const USUAL_US_MAX: u64 = 500_000;

/// The rules of a fault that its measures show to be broken.
#[must_use]
pub fn broken(fault: Fault, measures: &Measures) -> Vec<String> {
    let failed = writes_failed(measures);
    if fault != Fault::PromoteUnderLoad || failed == 0 {
        return Vec::new();
    }
    vec![format!("{failed} writes failed: a planned move holds them and fails none")]
}

fn writes_failed(measures: &Measures) -> u64 {
    measures.writes.values().map(|writes| writes.failed).sum()
}

/// Why the times that were measured do not count: the machine was too busy to ask in time, or what it
/// asked failed, or waited in a queue, though nothing was broken yet.
#[must_use]
pub fn uncounted(late: &Percentiles, history: &History) -> Option<String> {
    if late.p99_ms > LATE_P99_MS_MAX || late.max_ms > LATE_MS_MAX {
        return Some(format!(
            "requests were asked late: 1 in 100 by {} ms or more, one by {} ms",
            late.p99_ms, late.max_ms
        ));
    }
    let trouble = |mark: &&Mark| matches!(mark.kind, MarkKind::Fault | MarkKind::Command);
    let broken_us = history.marks.iter().find(trouble).map_or(history.ended_us, |mark| mark.at_us);
    let before = history.calls.iter().filter(|call| call.ended_us < broken_us);
    let failed = before.filter(|call| !call.outcome.is_answer()).count();
    if failed > 0 {
        return Some(format!("{failed} requests failed before anything was broken"));
    }
    let usual_us = usual_us(history, broken_us)?;
    let busy = usual_us > USUAL_US_MAX;
    busy.then(|| format!("writes took {} ms before anything was broken", usual_us / 1_000))
}

/// What half of the last writes took before something was broken, or had taken by then.
fn usual_us(history: &History, broken_us: u64) -> Option<u64> {
    let mut took: BTreeMap<&str, u64> = BTreeMap::new();
    let since_us = broken_us.saturating_sub(BEFORE_US);
    for call in &history.calls {
        if let Some(key) = call.ask.write_key()
            && (since_us..broken_us).contains(&call.began_us)
        {
            took.entry(key).or_insert(call.ended_us.min(broken_us) - call.began_us);
        }
    }
    let mut took: Vec<u64> = took.into_values().collect();
    took.sort_unstable();
    took.get(took.len() / 2).copied()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    Met,
    Missed,
    /// No round could tell, or not each of those that should have.
    NotMeasured,
}

impl Grade {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::NotMeasured => "not measured",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Count,
    Ms,
}

/// What is promised of a drill. One of time that is missed fails no round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goal {
    pub what: String,
    pub unit: Unit,
    pub limit: u64,
    /// Of the rounds that could tell.
    pub found: Option<u64>,
    pub grade: Grade,
}

/// What rounds told: each a figure, `None` where it could not.
struct Told(Vec<Option<u64>>);

impl Told {
    fn goal(&self, what: &str, unit: Unit, limit: u64, of: fn(&[u64]) -> Option<u64>) -> Goal {
        let mut known: Vec<u64> = self.0.iter().copied().flatten().collect();
        known.sort_unstable();
        let found = of(&known);
        let all = !self.0.is_empty() && known.len() == self.0.len();
        let grade = match found {
            Some(found) if found > limit => Grade::Missed,
            Some(_) if all => Grade::Met,
            _ => Grade::NotMeasured,
        };
        // No figure says how long a region waited that had no write any more.
        let found = found.filter(|found| *found != NEVER);
        Goal { what: what.to_owned(), unit, limit, found, grade }
    }
}

/// Longer than any.
const NEVER: u64 = u64::MAX;

fn worst(sorted: &[u64]) -> Option<u64> {
    sorted.last().copied()
}

/// Of two in the middle, the greater.
pub(super) fn median(sorted: &[u64]) -> Option<u64> {
    sorted.get(sorted.len() / 2).copied()
}

fn sum(each: &[u64]) -> Option<u64> {
    (!each.is_empty()).then(|| each.iter().sum())
}

/// All that is promised.
#[must_use]
pub fn goals(report: &Report) -> Vec<Goal> {
    let of = |wanted: fn(Fault) -> bool, figure: &dyn Fn(&Round) -> Vec<Option<u64>>| {
        let rounds = report.rounds.iter();
        let rounds = rounds.filter(|round| round.fault.parse().is_ok_and(wanted));
        Told(rounds.flat_map(figure).collect())
    };
    let count = |breaches: &'static [Breach]| {
        let count =
            |round: &Round| breaches.iter().map(|one| round.verdict.count(*one) as u64).sum();
        of(|_| true, &|round| vec![round.judged.then(|| count(round))])
    };
    let (what, breaches): (_, &[_]) = match report.durability {
        Durability::Quorum => ("lost writes", &[Breach::Lost]),
        Durability::Async => {
            ("lost writes untold or unlisted", &[Breach::Untold, Breach::Unlisted])
        }
    };
    let timed =
        |round: &Round| report.real_round_trips && round.judged && round.uncounted.is_none();
    let after_kill = of(Fault::kills_the_primary, &|round| {
        let moves = round.measures.moves.iter().filter(|one| !one.planned);
        let took: Vec<_> =
            moves.map(|one| timed(round).then(|| one.to_survivors_ms.unwrap_or(NEVER))).collect();
        // It should have moved.
        if took.is_empty() { vec![None] } else { took }
    });
    let reads = of(Fault::kills_the_primary_alone, &|round| {
        vec![round.measures.surviving_reads_failed.filter(|_| round.judged)]
    });
    let planned = |round: &Round| round.judged && !round.measures.moves.is_empty();
    let failed = of(|fault| fault == Fault::PromoteUnderLoad, &|round| {
        let counts = planned(round) && round.uncounted.is_none();
        vec![counts.then(|| writes_failed(&round.measures))]
    });
    let paused = of(|fault| fault == Fault::PromoteUnderLoad, &|round| {
        vec![(planned(round) && timed(round)).then_some(round.measures.write_pause.p99_ms)]
    });
    vec![
        count(breaches).goal(what, Unit::Count, 0, sum),
        count(&[Breach::Duplicated]).goal("duplicated writes", Unit::Count, 0, sum),
        count(&[Breach::Stale]).goal("stale reads", Unit::Count, 0, sum),
        count(&[Breach::Backward]).goal("backward reads", Unit::Count, 0, sum),
        count(&[Breach::TwoEpochs]).goal("two epochs at once", Unit::Count, 0, sum),
        failed.goal("planned move: failed writes", Unit::Count, 0, sum),
        paused.goal("planned move: write pause, p99", Unit::Ms, PAUSE_MS_MAX, worst),
        after_kill.goal(
            "kill: command to a write from every survivor, median",
            Unit::Ms,
            MEDIAN_MS_MAX,
            median,
        ),
        after_kill.goal(
            "kill: command to a write from every survivor, worst",
            Unit::Ms,
            WORST_MS_MAX,
            worst,
        ),
        reads.goal("kill: failed reads in surviving regions", Unit::Count, 0, sum),
    ]
}

#[cfg(test)]
mod tests;
