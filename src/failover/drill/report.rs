//! What a drill prints and saves.

use super::{
    checker::{Breach, Verdict},
    ground::CommandRecord,
    measures::{Availability, Measures},
};
use crate::{config::Durability, vocab::Region};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// A whole drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub seed: u64,
    /// RFC 3339.
    pub at: String,
    pub durability: Durability,
    /// Writes a second, in all.
    pub rate: u32,
    pub rounds: Vec<Round>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// From 1.
    pub number: u32,
    pub seed: u64,
    pub fault: String,
    pub about: String,
    pub primary_before: Region,
    pub primary_after: Option<Region>,
    /// Why the round did not come to its end, or a rule of the fault was not kept.
    pub failures: Vec<String>,
    pub commands: Vec<CommandRecord>,
    pub verdict: Verdict,
    pub measures: Measures,
}

impl Round {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty() && self.verdict.is_clean()
    }
}

impl Report {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.rounds.iter().all(Round::passed)
    }

    /// The figures that a drill is run for, over all rounds.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let sum = |of: &dyn Fn(&Round) -> u64| self.rounds.iter().map(of).sum();
        let count = |breach| sum(&|round| round.verdict.count(breach) as u64);
        let moves = || self.rounds.iter().flat_map(|round| &round.measures.moves);
        let worst = |availability: fn(&Measures) -> Vec<&Availability>| {
            let each = self.rounds.iter().flat_map(|round| availability(&round.measures));
            each.map(|found| found.longest_ms).max().unwrap_or(0)
        };
        let mut recoveries: Vec<u64> = moves().map(|one| one.recovery_ms).collect();
        let mut commands: Vec<u64> =
            moves().filter_map(|one| one.after_command_ms.values().copied().max()?).collect();
        recoveries.sort_unstable();
        commands.sort_unstable();
        Summary {
            passed: self.passed(),
            rounds: self.rounds.len(),
            rounds_failed: self.rounds.iter().filter(|round| !round.passed()).count(),
            acknowledged: sum(&|round| round.verdict.tally.acknowledged),
            lost: sum(&|round| round.verdict.tally.lost),
            duplicated: count(Breach::Duplicated),
            stale: count(Breach::Stale),
            backward: count(Breach::Backward),
            two_epochs: count(Breach::TwoEpochs),
            other_violations: [Breach::Untold, Breach::Unlisted, Breach::Contradiction]
                .map(count)
                .iter()
                .sum(),
            unresolved: sum(&|round| round.verdict.tally.unresolved),
            moves: moves().count(),
            recovery_median_ms: middle(&recoveries),
            recovery_worst_ms: recoveries.last().copied(),
            after_command_median_ms: middle(&commands),
            after_command_worst_ms: commands.last().copied(),
            reads_longest_unavailable_ms: worst(|measures| measures.reads.values().collect()),
            writes_longest_unavailable_ms: worst(|measures| measures.writes.values().collect()),
        }
    }
}

/// Of sorted values.
fn middle(sorted: &[u64]) -> Option<u64> {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// Over all rounds. Milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub passed: bool,
    pub rounds: usize,
    pub rounds_failed: usize,
    pub acknowledged: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub stale: u64,
    pub backward: u64,
    pub two_epochs: u64,
    pub other_violations: u64,
    pub unresolved: u64,
    pub moves: usize,
    pub recovery_median_ms: Option<u64>,
    pub recovery_worst_ms: Option<u64>,
    /// To the first write from the region that got it last.
    pub after_command_median_ms: Option<u64>,
    pub after_command_worst_ms: Option<u64>,
    pub reads_longest_unavailable_ms: u64,
    pub writes_longest_unavailable_ms: u64,
}

/// As `1.25 s`, or `-` for what there was none of.
#[must_use]
pub fn seconds(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10))
}

/// Violations of a round that are printed; all of them are in the files.
const VIOLATIONS_SHOWN: usize = 12;

/// For a terminal. Writing to a string does not fail.
#[must_use]
pub fn round_text(round: &Round) -> String {
    let mut text = String::new();
    let (tally, measures) = (&round.verdict.tally, &round.measures);
    let word = if round.passed() { "passed" } else { "FAILED" };
    let after = round.primary_after.as_ref().map_or("nobody", |region| region.as_str());
    let _ = writeln!(text, "Round {}: {}, seed {}: {word}", round.number, round.fault, round.seed);
    let _ = writeln!(text, "  {}", round.about);
    let _ = writeln!(text, "  primary      {} -> {after}", round.primary_before);
    for one in &measures.moves {
        let of = |by: &std::collections::BTreeMap<Region, Option<u64>>| {
            let each = by.iter().map(|(region, ms)| format!("{region} {}", seconds(*ms)));
            each.collect::<Vec<_>>().join(", ")
        };
        let _ = writeln!(
            text,
            "  RTO          {} from epoch {} to {} ({})",
            seconds(Some(one.recovery_ms)),
            one.from,
            one.to,
            of(&one.recovery_by_region_ms)
        );
        let _ = writeln!(text, "  from command {}", of(&one.after_command_ms));
    }
    let _ = writeln!(
        text,
        "  RPO          {} lost of {} acknowledged; {} refused, {} recovered, {} without effect, {} unresolved; told {} times",
        tally.lost,
        tally.acknowledged,
        tally.refused,
        tally.recovered,
        tally.without_effect,
        tally.unresolved,
        tally.told
    );
    let breaches = Breach::ALL.map(|b| format!("{} {}", b.word(), round.verdict.count(b)));
    let _ = writeln!(text, "  violations   {}", breaches.join(", "));
    for (what, availability) in [("reads", &measures.reads), ("writes", &measures.writes)] {
        for (region, found) in availability {
            let _ = writeln!(
                text,
                "  {what:<6} {region:<12} unavailable {}, at most {} on end; {} answered, {} failed",
                seconds(Some(found.unavailable_ms)),
                seconds(Some(found.longest_ms)),
                found.answered,
                found.failed
            );
        }
    }
    let pause = &measures.write_pause;
    let _ = writeln!(
        text,
        "  write pause  p50 {}, p99 {}, longest {} over {} writes; {} writes at once at most",
        seconds(Some(pause.p50_ms)),
        seconds(Some(pause.p99_ms)),
        seconds(Some(pause.max_ms)),
        pause.count,
        measures.writes_in_flight_max
    );
    for mark in &measures.timeline {
        let _ = writeln!(text, "  {:>9}  {}", seconds(Some(mark.at_us / 1_000)), mark.says);
    }
    for failure in &round.failures {
        let _ = writeln!(text, "  FAILED: {failure}");
    }
    let violations = &round.verdict.violations;
    for violation in violations.iter().take(VIOLATIONS_SHOWN) {
        let at = seconds(Some(violation.at_us / 1_000));
        let _ =
            writeln!(text, "  VIOLATION ({}) at {at}: {}", violation.breach.word(), violation.says);
    }
    if violations.len() > VIOLATIONS_SHOWN {
        let _ = writeln!(text, "  and {} more", violations.len() - VIOLATIONS_SHOWN);
    }
    text
}

/// The last lines of a drill.
#[must_use]
pub fn summary_text(report: &Report) -> String {
    let summary = report.summary();
    let word = if summary.passed { "passed" } else { "FAILED" };
    format!(
        "{word}: {} of {} rounds clean, durability {}\n\
         lost {} of {} acknowledged, duplicated {}, stale {}, backward {}, two epochs {}, other violations {}, unresolved {}\n\
         {} moves of the primary: RTO median {}, worst {}; from the command to a write from every region: median {}, worst {}\n\
         longest without reads in a region {}, without writes {}\n",
        summary.rounds - summary.rounds_failed,
        summary.rounds,
        report.durability.word(),
        summary.lost,
        summary.acknowledged,
        summary.duplicated,
        summary.stale,
        summary.backward,
        summary.two_epochs,
        summary.other_violations,
        summary.unresolved,
        summary.moves,
        seconds(summary.recovery_median_ms),
        seconds(summary.recovery_worst_ms),
        seconds(summary.after_command_median_ms),
        seconds(summary.after_command_worst_ms),
        seconds(Some(summary.reads_longest_unavailable_ms)),
        seconds(Some(summary.writes_longest_unavailable_ms)),
    )
}
