//! The lease's judgments, one by one; what they come to together is the model's.

mod model;

use super::*;
use crate::vocab::{Clock as _, clock::ManualClock};
use model::region;

fn found(now_ms: u64, record: Option<Record>) -> Found {
    Found { instance: "one".to_owned(), now_ms, record }
}

fn noted(epoch: u32, by: usize, until_ms: u64) -> Record {
    let grant = Grant { epoch: Epoch::new(epoch).unwrap(), region: region(by), until_ms };
    let instance = "one".to_owned();
    Record { instance, grant: Some(grant), ..Record::default() }
}

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

/// A region whose database has the row of the latest of these and of all before.
fn knows(number: u32) -> Known {
    Known { written: Epoch::new(number), heard: Epoch::new(number) }
}

fn verdict(found: &Found, of: u32, by: usize, known: Known) -> Verdict {
    judge(found, epoch(of), &region(by), known, 3_000).0
}

fn yes(left_ms: u64) -> Promised {
    Promised::Yes { left_ms, others: Vec::new() }
}

fn promised(found: &Found, of: u32, by: usize, known: Known) -> Promised {
    let wanted = Promise {
        epoch: epoch(of),
        region: region(by),
        planned: false,
        after: None,
        members: None,
        accepts_loss: false,
    };
    judge_promise(found, &wanted, known, 3_000).0
}

#[test]
fn a_plan_made_before_an_epoch_began_does_not_pass_over_it() {
    let mut wanted = Promise {
        epoch: epoch(3),
        region: region(0),
        planned: true,
        after: Some(epoch(1)),
        members: None,
        accepts_loss: false,
    };
    let grant = |of| Some(Grant { epoch: epoch(of), region: region(1), until_ms: 900 });
    let granted = |of| Found {
        instance: "one".into(),
        now_ms: 1_000,
        record: Some(Record { instance: "one".into(), grant: grant(of), ..Record::default() }),
    };
    let knows = |of| Known { written: Some(epoch(of)), heard: Some(epoch(of)) };
    let asked = |found: &Found, wanted: &Promise, known| judge_promise(found, wanted, known, 3_000);
    let is_outranked = |of, known, wanted: &Promise| match asked(&granted(of), wanted, known) {
        (Promised::Outranked { epoch: by, .. }, None) => by == epoch(2),
        (Promised::Outranked { .. }, Some(_)) => panic!("noted all the same"),
        _ => false,
    };
    assert!(!is_outranked(1, knows(1), &wanted));
    // It was granted here, or is heard of.
    assert!(is_outranked(2, knows(1), &wanted));
    assert!(is_outranked(1, knows(2), &wanted));
    // Known to who promotes, or given up.
    let informed = Promise { after: Some(epoch(2)), ..wanted.clone() };
    assert!(!is_outranked(2, knows(2), &informed));
    wanted.accepts_loss = true;
    assert!(!is_outranked(2, knows(2), &wanted));
}

#[test]
fn refusals_say_why_and_for_how_long() {
    let forgotten = found(10_000, None);
    assert_eq!(verdict(&forgotten, 1, 0, knows(1)), Verdict::Quiet { left_ms: 3_000 });
    let mut quiet = noted(1, 0, 12_000);
    quiet.quiet_until_ms = 11_000;
    let quiet = found(10_000, Some(quiet));
    assert_eq!(verdict(&quiet, 1, 0, knows(1)), Verdict::Quiet { left_ms: 1_000 });
    assert_eq!(promised(&quiet, 2, 1, knows(1)), Promised::Quiet { left_ms: 1_000 });
    let held = found(10_000, Some(noted(1, 0, 12_000)));
    assert_eq!(verdict(&held, 1, 0, knows(1)), Verdict::Granted);
    let taken = Verdict::Taken { epoch: epoch(1), region: region(0), left_ms: 2_000 };
    assert_eq!(verdict(&held, 2, 1, knows(2)), taken);
    // The same epoch of another region is another reign.
    assert_eq!(verdict(&held, 1, 1, knows(1)), taken);
    assert_eq!(verdict(&held, 1, 0, knows(2)), Verdict::Outranked { epoch: epoch(2) });
    let over = found(10_000, Some(noted(2, 1, 9_000)));
    assert_eq!(verdict(&over, 1, 0, knows(1)), Verdict::Outranked { epoch: epoch(2) });
    assert_eq!(verdict(&over, 3, 2, knows(3)), Verdict::Granted);
    // Its database has no row of it, or does not answer.
    assert_eq!(verdict(&over, 3, 2, knows(2)), Verdict::Unheard);
    assert_eq!(verdict(&held, 1, 0, Known::default()), Verdict::Unheard);
}

#[test]
fn a_promise_ends_the_epochs_before_it_and_tells_what_they_were_granted() {
    let held = found(10_000, Some(noted(1, 0, 12_000)));
    assert_eq!(promised(&held, 2, 1, knows(1)), yes(2_000));
    let wanted = Promise {
        epoch: epoch(2),
        region: region(1),
        planned: false,
        after: None,
        members: None,
        accepts_loss: false,
    };
    let (_, record) = judge_promise(&held, &wanted, knows(1), 3_000);
    let after = found(10_500, record);
    assert_eq!(verdict(&after, 1, 0, knows(1)), Verdict::Outranked { epoch: epoch(2) });
    // Asked again, or once it has begun, for the same: the same.
    assert_eq!(promised(&after, 2, 1, knows(1)), yes(1_500));
    assert_eq!(promised(&after, 2, 1, knows(2)), yes(1_500));
    // The region's other processes learn that it goes on.
    let (_, again) = judge_promise(&after, &wanted, knows(1), 3_000);
    assert_eq!(again.and_then(|again| again.asked_ms), Some(10_500));
    // One that gives up more, or less, is another move.
    for asks in
        [Promise { planned: true, ..wanted.clone() }, Promise { accepts_loss: true, ..wanted }]
    {
        let (answer, _) = judge_promise(&after, &asks, knows(1), 3_000);
        assert!(matches!(answer, Promised::Outranked { .. }), "{asks:?}");
    }
    let to_another = Promised::Outranked { epoch: epoch(2), region: Some(region(1)) };
    assert_eq!(promised(&after, 2, 2, knows(1)), to_another);
    assert_eq!(promised(&after, 3, 2, knows(1)), yes(1_500));
    // What has begun is promised to nobody.
    let begun = Promised::Outranked { epoch: epoch(2), region: None };
    assert_eq!(promised(&held, 2, 1, knows(2)), begun);
    // The promised epoch itself is expected, and waits for what was granted before it.
    let expected = Verdict::Taken { epoch: epoch(1), region: region(0), left_ms: 1_500 };
    assert_eq!(verdict(&after, 2, 1, knows(1)), expected);
    let taken = Verdict::Taken { epoch: epoch(1), region: region(0), left_ms: 1_500 };
    assert_eq!(verdict(&after, 2, 1, knows(2)), taken);
}

#[test]
fn a_grant_is_released_only_once_a_later_epoch_is_promised() {
    let held = found(10_000, Some(noted(1, 0, 12_000)));
    assert_eq!(release(&held, epoch(1), 3_000), None);
    let wanted = Promise {
        epoch: epoch(2),
        region: region(1),
        planned: true,
        after: None,
        members: None,
        accepts_loss: false,
    };
    let (_, record) = judge_promise(&held, &wanted, knows(1), 3_000);
    let promised = found(10_000, record);
    assert_eq!(release(&promised, epoch(2), 3_000), None);
    let after = found(10_001, release(&promised, epoch(1), 3_000));
    assert_eq!(verdict(&after, 2, 1, knows(2)), Verdict::Granted);
    assert_eq!(verdict(&after, 1, 0, knows(1)), Verdict::Outranked { epoch: epoch(2) });
}

#[test]
fn a_clock_that_was_set_back_holds_nobody_up_for_more_than_a_term() {
    let held = found(10_000, Some(noted(1, 0, 3_600_000)));
    let (verdict, record) = judge(&held, epoch(2), &region(1), knows(2), 3_000);
    let taken = Verdict::Taken { epoch: Epoch::FIRST, region: region(0), left_ms: 3_000 };
    assert_eq!(verdict, taken);
    assert_eq!(record, Some(noted(1, 0, 13_000)));
}

#[test]
fn another_instance_of_the_store_is_asked_as_if_it_had_forgotten() {
    let held = Found { instance: "two".to_owned(), ..found(10_000, Some(noted(1, 0, 12_000))) };
    assert_eq!(verdict(&held, 1, 0, knows(1)), Verdict::Quiet { left_ms: 3_000 });
}

#[test]
fn a_majority_is_counted_from_the_regions_that_granted_longest() {
    let clock = ManualClock::new();
    let config = LeaseConfig::default();
    let (start, life) = (clock.monotonic(), Duration::from_millis(2_700));
    let mut hold = Hold::default();
    let members: Members = (0..3).map(region).collect();
    assert_eq!(hold.until(Epoch::FIRST, &members), None);
    hold.granted(&region(0), Epoch::FIRST, start, &config);
    assert_eq!(hold.until(Epoch::FIRST, &members), None);
    let later = start + Duration::from_millis(500);
    hold.granted(&region(1), Epoch::FIRST, later, &config);
    assert_eq!(hold.until(Epoch::FIRST, &members), Some(start + life));
    hold.granted(&region(0), Epoch::FIRST, later, &config);
    // An older grant that comes late takes nothing back.
    hold.granted(&region(0), Epoch::FIRST, start, &config);
    assert_eq!(hold.until(Epoch::FIRST, &members), Some(later + life));
    assert_eq!(hold.until(Epoch::new(2).unwrap(), &members), None);
    hold.granted(&region(0), Epoch::new(2).unwrap(), later, &config);
    assert_eq!(hold.until(Epoch::FIRST, &members), None);
    // Who is no member grants for nobody.
    let others: Members = (1..4).map(region).collect();
    assert_eq!(hold.until(Epoch::new(2).unwrap(), &others), None);
}
