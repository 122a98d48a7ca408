use super::*;
use crate::{
    failover::drill::{
        checker::{Verdict, Violation},
        history::{Ask, Call, Closing, Outcome},
        measures::{Availability, Move},
        run::Order,
    },
    vocab::Epoch,
};

fn moved(to_survivors_ms: Option<u64>, planned: bool) -> Move {
    Move {
        from: Epoch::FIRST,
        to: Epoch::FIRST,
        last_us: 0,
        first_us: 0,
        recovery_ms: 0,
        recovery_by_region_ms: [].into(),
        after_command_ms: [].into(),
        to_survivors_ms,
        lease_wait_ms: None,
        everywhere_us: None,
        planned,
    }
}

fn measures(failed: u64, p99_ms: u64) -> Measures {
    let writes = Availability { failed, ..Availability::default() };
    let write_pause = Percentiles { p99_ms, ..Percentiles::default() };
    let writes = [("us-east-1".parse().unwrap(), writes)].into();
    Measures { writes, write_pause, ..Measures::default() }
}

#[test]
fn a_planned_move_fails_no_write() {
    let planned = Fault::PromoteUnderLoad;
    assert!(broken(planned, &measures(0, 9_000)).is_empty(), "a time fails no round");
    assert_eq!(broken(planned, &measures(1, 0)).len(), 1);
    assert!(broken(Fault::KillPrimary, &measures(9, 9_000)).is_empty());
}

fn history(failed_ms: u64) -> History {
    let call = Call {
        session: 1,
        asked: "us-east-1".parse().unwrap(),
        ask: Ask::ReadList { list: 1 },
        began_us: 0,
        ended_us: failed_ms * 1_000,
        bookmark_in: None,
        bookmark_out: None,
        by: None,
        epoch: None,
        status: 0,
        problem: None,
        outcome: Outcome::Refused,
    };
    let mark = |at_us, kind| Mark { at_us, kind, says: String::new() };
    History {
        run: "test".into(),
        seed: 1,
        durability: Durability::Async,
        regions: Vec::new(),
        calls: vec![call],
        marks: vec![mark(1_000, MarkKind::Seen), mark(5_000_000, MarkKind::Fault)],
        ended_us: 9_000_000,
        closing: Closing::default(),
    }
}

#[test]
fn a_busy_machine_says_so() {
    let late = |p99_ms, max_ms| Percentiles { p99_ms, max_ms, ..Percentiles::default() };
    assert_eq!(uncounted(&late(250, 1_000), &history(5_000)), None);
    assert!(uncounted(&late(251, 300), &history(5_000)).is_some());
    assert!(uncounted(&late(1, 1_001), &history(5_000)).is_some());
    let failed = uncounted(&late(0, 0), &history(4_999));
    assert_eq!(failed.as_deref(), Some("1 requests failed before anything was broken"));
}

/// Those that wait still when something is broken have taken as long at least.
#[test]
fn writes_that_wait_in_a_queue_are_those_of_a_busy_machine() {
    let with = |writes: &[(u64, u64)]| {
        let mut history = history(6_000);
        for (number, (began_ms, ended_ms)) in writes.iter().enumerate() {
            let mut call = history.calls[0].clone();
            call.ask = Ask::Add { key: number.to_string() };
            (call.began_us, call.ended_us) = (began_ms * 1_000, ended_ms * 1_000);
            call.outcome = Outcome::Conflict;
            history.calls.push(call);
        }
        uncounted(&Percentiles::default(), &history)
    };
    assert_eq!(with(&[(3_500, 3_700), (4_000, 4_500), (4_900, 9_000)]), None);
    let said = with(&[(3_500, 3_700), (3_600, 4_200), (4_000, 8_000)]);
    assert_eq!(said.as_deref(), Some("writes took 600 ms before anything was broken"));
    // Long before, or once something is broken, it says nothing of the machine.
    assert_eq!(with(&[(100, 2_000), (5_100, 9_000)]), None);
}

fn round(fault: Fault, moves: &[Move]) -> Round {
    let order = Order {
        number: 1,
        seed: 1,
        fault,
        rate: 60,
        durability: Durability::Quorum,
        run: "test".into(),
    };
    let measures =
        Measures { moves: moves.into(), surviving_reads_failed: Some(0), ..measures(0, 900) };
    Round { not_run: None, judged: true, measures, ..Round::not_run(&order, String::new()) }
}

fn report(rounds: Vec<Round>) -> Report {
    let (at, durability) = (String::new(), Durability::Quorum);
    Report { seed: 1, at, durability, rate: 60, real_round_trips: true, rounds }
}

/// The grades of those goals whose names hold `what`.
fn grades(what: &str, report: &Report) -> Vec<Grade> {
    let goals = goals(report).into_iter().filter(|goal| goal.what.contains(what));
    goals.map(|goal| goal.grade).collect()
}

#[test]
fn what_nobody_measured_is_not_met() {
    assert!(goals(&report(vec![])).iter().all(|goal| goal.grade == Grade::NotMeasured));
    let kill = || round(Fault::KillPrimary, &[moved(Some(1), false)]);
    assert_eq!(grades("stale", &report(vec![kill()])), [Grade::Met]);
    assert_eq!(grades("planned", &report(vec![kill()])), [Grade::NotMeasured; 2]);
    let unjudged = Round { judged: false, ..kill() };
    assert_eq!(grades("lost", &report(vec![kill(), unjudged])), [Grade::NotMeasured]);
    // One that was found is missed, whatever is not known.
    let violation =
        Violation { breach: Breach::Lost, at_us: 0, session: None, says: String::new() };
    let verdict = Verdict { violations: vec![violation], ..Verdict::default() };
    let lost = Round { verdict, ..kill() };
    let unjudged = Round { judged: false, ..kill() };
    assert_eq!(grades("lost", &report(vec![lost, unjudged])), [Grade::Missed]);
}

#[test]
fn goals_of_time_are_those_of_kills_and_a_region_left_out_misses_them() {
    let kill = |ms| round(Fault::KillPrimary, &[moved(ms, false)]);
    let of = |rounds: Vec<Round>| grades("command to a write", &report(rounds));
    let (met, missed, unknown) = (Grade::Met, Grade::Missed, Grade::NotMeasured);
    let paused = round(Fault::PausePrimary, &[moved(Some(99_000), false)]);
    let three = [Some(2_000), Some(8_000), Some(3_000)].map(kill);
    assert_eq!(of([std::slice::from_ref(&paused), &three[..]].concat()), [met, met]);
    assert_eq!(of(three[..2].to_vec()), [missed, met], "of two in the middle, the greater");
    assert_eq!(of(vec![kill(Some(3_001))]), [missed, met]);
    assert_eq!(of(vec![kill(Some(1)), kill(Some(1)), kill(None)]), [met, missed]);
    assert_eq!(of(vec![paused]), [unknown, unknown]);
    // It did not move, or was measured on a busy machine, or where no round trip is real.
    assert_eq!(of(vec![kill(Some(1)), round(Fault::KillPrimary, &[])]), [unknown, unknown]);
    let busy = Round { uncounted: Some("late".into()), ..kill(Some(1)) };
    assert_eq!(of(vec![kill(Some(1)), busy]), [unknown, unknown]);
    let near = Report { real_round_trips: false, ..report(vec![kill(Some(1))]) };
    assert_eq!(grades("command to a write", &near), [unknown, unknown]);
}

#[test]
fn a_planned_move_has_goals_of_its_own() {
    let with = |failed, p99_ms| {
        let moves = vec![moved(Some(1), true)];
        let measures = Measures { moves, ..measures(failed, p99_ms) };
        Round { measures, ..round(Fault::PromoteUnderLoad, &[]) }
    };
    let of = |round| grades("planned", &report(vec![round]));
    assert_eq!(of(with(0, 1_000)), [Grade::Met, Grade::Met]);
    assert_eq!(of(with(1, 1_001)), [Grade::Missed, Grade::Missed]);
    let busy = Round { uncounted: Some("late".into()), ..with(1, 1_001) };
    assert_eq!(of(busy), [Grade::NotMeasured, Grade::NotMeasured]);
}

#[test]
fn reads_of_survivors_are_judged_where_nothing_else_was_broken() {
    let with = |fault, failed| {
        let mut round = round(fault, &[moved(Some(1), false)]);
        round.measures.surviving_reads_failed = failed;
        grades("reads in surviving", &report(vec![round]))
    };
    assert_eq!(with(Fault::KillPrimary, Some(0)), [Grade::Met]);
    assert_eq!(with(Fault::KillPrimary, Some(1)), [Grade::Missed]);
    assert_eq!(with(Fault::KillPrimary, None), [Grade::NotMeasured]);
    assert_eq!(with(Fault::Laggard, Some(1)), [Grade::NotMeasured]);
}
