//! What a drill prints and saves.

use super::{
    checker::{Breach, Verdict},
    ground::CommandRecord,
    limits::{Goal, Grade, Unit, goals, median},
    measures::{Availability, Measures, Move, Percentiles},
    run::Order,
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
    /// Whether the regions are as far from each other as real ones: else no goal of time is measured.
    pub real_round_trips: bool,
    pub rounds: Vec<Round>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// From 1.
    pub number: u32,
    pub seed: u64,
    pub fault: String,
    pub about: String,
    /// What was done before it, because a round before had left it undone.
    pub restored: Vec<String>,
    pub primary_before: Option<Region>,
    pub primary_after: Option<Region>,
    /// Why it could not begin.
    pub not_run: Option<String>,
    /// Why its times are in no goal: they are those of a busy machine.
    pub uncounted: Option<String>,
    /// All was read back at its end.
    pub judged: bool,
    /// How long after its turn each request was asked.
    pub late: Percentiles,
    /// Why the round did not come to its end, or a rule of the fault was not kept.
    pub failures: Vec<String>,
    pub commands: Vec<CommandRecord>,
    pub verdict: Verdict,
    pub measures: Measures,
}

impl Round {
    /// One that could not begin.
    #[must_use]
    pub fn not_run(order: &Order, why: String) -> Self {
        Self {
            number: order.number,
            seed: order.seed,
            fault: order.fault.name().to_owned(),
            about: order.fault.facts().1.to_owned(),
            restored: Vec::new(),
            primary_before: None,
            primary_after: None,
            not_run: Some(why),
            uncounted: None,
            judged: false,
            late: Percentiles::default(),
            failures: Vec::new(),
            commands: Vec::new(),
            verdict: Verdict::default(),
            measures: Measures::default(),
        }
    }

    /// It ran, and no rule was broken. A busy machine's times may still not count.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.not_run.is_none() && self.failures.is_empty() && self.verdict.is_clean()
    }

    #[must_use]
    pub fn word(&self) -> &'static str {
        match (&self.not_run, self.passed()) {
            (Some(_), _) => "NOT RUN",
            (None, false) => "FAILED",
            (None, true) => "passed",
        }
    }
}

impl Report {
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.rounds.is_empty() && self.rounds.iter().all(Round::passed)
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
        let mut commands: Vec<u64> = moves().filter_map(|one| one.to_survivors_ms).collect();
        recoveries.sort_unstable();
        commands.sort_unstable();
        let rounds = |of: fn(&Round) -> bool| self.rounds.iter().filter(|round| of(round)).count();
        Summary {
            passed: self.passed(),
            rounds: self.rounds.len(),
            rounds_failed: rounds(|round| !round.passed() && round.not_run.is_none()),
            rounds_uncounted: rounds(|round| round.uncounted.is_some()),
            rounds_not_run: rounds(|round| round.not_run.is_some()),
            acknowledged: sum(&|round| round.verdict.tally.acknowledged),
            lost: sum(&|round| round.verdict.tally.lost),
            duplicated: count(Breach::Duplicated),
            stale: count(Breach::Stale),
            backward: count(Breach::Backward),
            two_epochs: count(Breach::TwoEpochs),
            other_violations: [
                Breach::Untold,
                Breach::Unlisted,
                Breach::FalseLoss,
                Breach::Contradiction,
            ]
            .map(count)
            .iter()
            .sum(),
            unresolved: sum(&|round| round.verdict.tally.unresolved),
            moves: moves().count(),
            recovery_median_ms: median(&recoveries),
            recovery_worst_ms: recoveries.last().copied(),
            after_command_median_ms: median(&commands),
            after_command_worst_ms: commands.last().copied(),
            goals: goals(self),
            reads_longest_unavailable_ms: worst(|measures| measures.reads.values().collect()),
            writes_longest_unavailable_ms: worst(|measures| measures.writes.values().collect()),
        }
    }
}

/// Over all rounds. Milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub passed: bool,
    pub rounds: usize,
    pub rounds_failed: usize,
    /// Their times are in no goal, whatever else came of them.
    pub rounds_uncounted: usize,
    pub rounds_not_run: usize,
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
    /// To the first write from the surviving region that got it last.
    pub after_command_median_ms: Option<u64>,
    pub after_command_worst_ms: Option<u64>,
    pub goals: Vec<Goal>,
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

fn moves_text(text: &mut String, moves: &[Move]) {
    for one in moves {
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
        let waited = one.lease_wait_ms.filter(|_| !one.planned);
        let waited = waited.map(|ms| format!("; of it {} for the lease to end", seconds(Some(ms))));
        let _ = writeln!(
            text,
            "  from command {} to all survivors{} ({})",
            seconds(one.to_survivors_ms),
            waited.unwrap_or_default(),
            of(&one.after_command_ms)
        );
    }
}

/// For a terminal. Writing to a string does not fail.
#[must_use]
pub fn round_text(round: &Round) -> String {
    let mut text = String::new();
    let (tally, measures) = (&round.verdict.tally, &round.measures);
    let word = round.word();
    let name =
        |region: &Option<Region>| region.as_ref().map_or("nobody", Region::as_str).to_owned();
    let (before, after) = (name(&round.primary_before), name(&round.primary_after));
    let _ = writeln!(text, "Round {}: {}, seed {}: {word}", round.number, round.fault, round.seed);
    let _ = writeln!(text, "  {}", round.about);
    if let Some(why) = &round.not_run {
        let _ = writeln!(text, "  NOT RUN: {why}");
        return text;
    }
    if let Some(why) = &round.uncounted {
        let _ = writeln!(text, "  NOT COUNTED: {why}; its times are in no goal");
    }
    for done in &round.restored {
        let _ = writeln!(text, "  restored     {done}");
    }
    let _ = writeln!(text, "  primary      {before} -> {after}");
    moves_text(&mut text, &measures.moves);
    let _ = writeln!(
        text,
        "  RPO          {} lost of {} acknowledged ({} of them listed); {} refused, {} recovered, {} without effect, {} unresolved; told {} times",
        tally.lost,
        tally.acknowledged,
        round.verdict.listed(),
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

fn goal_text(goal: &Goal) -> String {
    let figure = |figure: u64| match goal.unit {
        Unit::Count => figure.to_string(),
        Unit::Ms => seconds(Some(figure)),
    };
    let found = goal.found.map_or_else(|| "-".to_owned(), figure);
    let (grade, limit) = (goal.grade.word(), figure(goal.limit));
    format!("  {grade:<12}  {}: {found}, at most {limit}\n", goal.what)
}

/// The last lines of a drill.
#[must_use]
pub fn summary_text(report: &Report) -> String {
    let summary = report.summary();
    let word = if summary.passed { "passed" } else { "FAILED" };
    let unclean = [(summary.rounds_failed, "failed"), (summary.rounds_not_run, "not run")];
    let clean = summary.rounds - unclean.iter().map(|(count, _)| count).sum::<usize>();
    let unclean = unclean.iter().filter(|(count, _)| *count > 0);
    let unclean: Vec<_> = unclean.map(|(count, word)| format!(", {count} {word}")).collect();
    let unclean = unclean.concat();
    let graded = |grade| summary.goals.iter().filter(|goal| goal.grade == grade).count();
    let grades = [Grade::Met, Grade::Missed, Grade::NotMeasured];
    let grades = grades.map(|grade| format!("{} {}", graded(grade), grade.word())).join(", ");
    let goals: String = summary.goals.iter().map(goal_text).collect();
    let uncounted = match summary.rounds_uncounted {
        0 => String::new(),
        count => format!("; the times of {count} are not counted"),
    };
    format!(
        "{word}: {clean} of {} rounds clean{unclean}{uncounted}, durability {}\n\
         lost {} of {} acknowledged, duplicated {}, stale {}, backward {}, two epochs {}, other violations {}, unresolved {}\n\
         {} moves of the primary: RTO median {}, worst {}; from the command to a write from every survivor: median {}, worst {}\n\
         longest without reads in a region {}, without writes {}\n\
         goals: {grades}\n\
         {goals}",
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
