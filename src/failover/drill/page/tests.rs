//! The page of a small report, whole and for each reader.

use super::*;
use crate::{
    config::Durability,
    failover::drill::{
        checker,
        faults::Fault,
        history::{Ask, Call, Closing, History, Mark, Outcome, Seen},
        measures, report,
        run::Order,
    },
    vocab::{Epoch, Etag},
};

fn call(region: &str, key: &str, began_ms: u64, ended_ms: u64, epoch: Option<u32>) -> Call {
    let seen = |epoch| {
        let etag = Some(Etag { epoch: Epoch::new(epoch).unwrap(), version: 1 });
        Outcome::Ok(Seen { etag, ..Seen::default() })
    };
    Call {
        session: 1,
        asked: region.parse().unwrap(),
        ask: Ask::Add { key: key.into() },
        began_us: began_ms * 1_000,
        ended_us: ended_ms * 1_000,
        bookmark_in: None,
        bookmark_out: None,
        by: None,
        epoch: None,
        status: if epoch.is_some() { 201 } else { 503 },
        problem: None,
        outcome: epoch.map_or(Outcome::Refused, seen),
    }
}

fn small() -> Report {
    let mark =
        |at_ms: u64, kind, says: &str| Mark { at_us: at_ms * 1_000, kind, says: says.into() };
    let history = History {
        run: "test".into(),
        seed: 7,
        durability: Durability::Quorum,
        regions: ["us-east-1", "eu-west-1"].map(|name| name.parse().unwrap()).into(),
        calls: vec![
            call("us-east-1", "a", 100, 200, Some(1)),
            call("eu-west-1", "b", 300, 310, None),
            call("eu-west-1", "b", 1_200, 1_400, Some(2)),
            call("us-east-1", "c", 1_300, 1_700, Some(2)),
        ],
        marks: vec![
            mark(250, MarkKind::Fault, "killed us-east-1"),
            mark(900, MarkKind::Command, "promote <eu-west-1>"),
        ],
        ended_us: 2_000_000,
        closing: Closing {
            items: vec![("b".into(), "1".into()), ("c".into(), "2".into())],
            ..Closing::default()
        },
    };
    let round = Round {
        number: 1,
        seed: 7,
        fault: "kill-primary".into(),
        about: "The primary region ends without warning.".into(),
        restored: vec!["us-east-1 was rejoined".into()],
        primary_before: Some("us-east-1".parse().unwrap()),
        primary_after: Some("eu-west-1".parse().unwrap()),
        not_run: None,
        uncounted: None,
        judged: true,
        late: measures::Percentiles::default(),
        failures: Vec::new(),
        commands: Vec::new(),
        verdict: checker::judge(&history),
        measures: measures::measure(&history, &history.regions, &[]),
    };
    let (at, durability) = ("2026-01-02T03:04:05Z".to_owned(), Durability::Quorum);
    Report { seed: 7, at, durability, rate: 60, real_round_trips: true, rounds: vec![round] }
}

#[test]
fn the_page_is_whole_and_needs_nothing_else() {
    let page = render(&small()).unwrap();
    for part in
        ["kill-primary", "1.20 s", "a was acknowledged by someone and is gone", "Requests a second"]
    {
        assert!(page.contains(part), "no {part}");
    }
    assert!(page.contains("promote &lt;eu-west-1&gt;") && !page.contains("<eu-west-1>"));
    for foreign in ["http:", "https:", "//cdn", "src=", "@import", "url(", "{{", "{%", "undefined"]
    {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn the_text_tells_what_the_page_tells() {
    let report = small();
    let text =
        format!("{}{}", report::round_text(&report.rounds[0]), report::summary_text(&report));
    insta::assert_snapshot!(text, @r"
    Round 1: kill-primary, seed 7: FAILED
      The primary region ends without warning.
      restored     us-east-1 was rejoined
      primary      us-east-1 -> eu-west-1
      RTO          1.20 s from epoch 1 to 2 (eu-west-1 -, us-east-1 1.50 s)
      from command 0.80 s to all survivors (eu-west-1 0.50 s, us-east-1 0.80 s)
      RPO          1 lost of 3 acknowledged (0 of them listed); 0 refused, 0 recovered, 0 without effect, 0 unresolved; told 0 times
      violations   lost 1, untold 0, unlisted 0, false loss 0, duplicated 0, stale 0, backward 0, two epochs 0, contradiction 0
      reads  eu-west-1    unavailable 0.00 s, at most 0.00 s on end; 0 answered, 0 failed
      reads  us-east-1    unavailable 0.00 s, at most 0.00 s on end; 0 answered, 0 failed
      writes eu-west-1    unavailable 1.10 s, at most 1.10 s on end; 1 answered, 1 failed
      writes us-east-1    unavailable 0.00 s, at most 0.00 s on end; 2 answered, 0 failed
      write pause  p50 0.30 s, p99 0.30 s, longest 0.30 s over 1 writes; 2 writes at once at most
         0.20 s  epoch 1: last acknowledged write
         0.25 s  killed us-east-1
         0.90 s  promote <eu-west-1>
         1.40 s  epoch 2: first write acknowledged in eu-west-1
         1.70 s  epoch 2: first write acknowledged in us-east-1
      VIOLATION (lost) at 0.20 s: a was acknowledged by someone and is gone
    FAILED: 0 of 1 rounds clean, 1 failed, durability quorum
    lost 1 of 3 acknowledged, duplicated 0, stale 0, backward 0, two epochs 0, other violations 0, unresolved 0
    1 moves of the primary: RTO median 1.20 s, worst 1.20 s; from the command to a write from every survivor: median 0.80 s, worst 0.80 s
    longest without reads in a region 0.00 s, without writes 1.10 s
    goals: 6 met, 1 missed, 3 not measured
      missed        lost writes: 1, at most 0
      met           duplicated writes: 0, at most 0
      met           stale reads: 0, at most 0
      met           backward reads: 0, at most 0
      met           two epochs at once: 0, at most 0
      not measured  planned move: failed writes: -, at most 0
      not measured  planned move: write pause, p99: -, at most 1.00 s
      met           kill: command to a write from every survivor, median: 0.80 s, at most 3.00 s
      met           kill: command to a write from every survivor, worst: 0.80 s, at most 8.00 s
      not measured  kill: failed reads in surviving regions: -, at most 0
    ");
}

#[test]
fn a_round_that_does_not_count_is_not_clean() {
    let order = Order {
        number: 2,
        seed: 8,
        fault: Fault::KillPrimary,
        rate: 60,
        durability: Durability::Quorum,
        run: "test".into(),
    };
    let not_run = Round::not_run(&order, "eu-west-1 is quarantined".into());
    assert_eq!((not_run.word(), not_run.passed()), ("NOT RUN", false));
    let busy = Round { not_run: None, uncounted: Some("late".into()), ..not_run.clone() };
    assert_eq!((busy.word(), busy.passed()), ("passed", true));
    assert!(report::round_text(&busy).contains("NOT COUNTED: late"));
    let failed = Round { failures: vec!["no".into()], ..busy.clone() };
    assert_eq!(failed.word(), "FAILED");
    let sound = Round { uncounted: None, ..busy.clone() };
    assert!(!Report { rounds: vec![], ..small() }.passed());
    let report = Report { rounds: vec![not_run, busy, sound], ..small() };
    assert!(!report.passed());
    let text = report::summary_text(&report);
    let first = "FAILED: 2 of 3 rounds clean, 1 not run; the times of 1 are not counted";
    assert!(text.starts_with(first), "{text}");
    let page = render(&report).unwrap();
    assert!(page.contains("Not run: eu-west-1 is quarantined") && page.contains("2 of 3 rounds"));
}

#[test]
fn a_report_survives_being_saved() {
    let report = small();
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    assert!(!report.passed(), "a lost write with quorum");
}

#[test]
fn the_charts_edges_read_well() {
    for (value, up) in
        [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (37.0, 40.0), (81.0, 100.0), (100.0, 100.0)]
    {
        assert!((round_up(value) - up).abs() < 1e-9, "{value}: {}", round_up(value));
    }
}
