use super::{
    super::plan::{
        Step,
        tests::{all_well, at, epoch},
    },
    *,
};
use crate::{
    topology::{control::Standby, report::PeerReport},
    vocab::{EpochStart, Lsn},
};

fn some(names: &[&str]) -> BTreeSet<Region> {
    names.iter().map(|name| at(name)).collect()
}

fn members(names: &[&str]) -> Members {
    some(names).into_iter().collect()
}

fn removal(names: &[&str]) -> Removal {
    let regions = some(names);
    Removal { regions, gone: false, alive: true, primary: None, accept_data_loss: false }
}

fn planned(sight: &Sight, removal: &Removal) -> Plan {
    match remove(sight, removal, Durability::Async) {
        Ok(Planned::Plan(plan)) => *plan,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refuses(sight: &Sight, removal: &Removal, word: &str) {
    let reasons = remove(sight, removal, Durability::Async).unwrap_err();
    assert!(reasons.iter().any(|why| why.contains(word)), "{reasons:?}");
}

/// In epoch 2, begun in place with these members.
fn of_members(names: &[&str]) -> Sight {
    let mut sight = all_well();
    let second = EpochStart {
        epoch: epoch(2),
        start_lsn: Lsn::new(1_000),
        region: at("us-east-1"),
        members: Some(members(names)),
    };
    for region in ["ap-south-1", "eu-west-1", "us-east-1"] {
        sight.of(region).epochs.push(second.clone());
        sight.seen(region).report.as_mut().unwrap().epochs.push(second.clone());
    }
    sight
}

#[test]
fn a_replica_is_removed_in_an_epoch_of_the_primary_that_stays() {
    let plan = planned(&all_well(), &removal(&["ap-south-1"]));
    let (us, ap) = (at("us-east-1"), at("ap-south-1"));
    let expected = [
        Step::Promise,
        Step::Fence { region: us.clone() },
        Step::Begin,
        Step::Release,
        Step::Verify,
        Step::Part { regions: vec![ap] },
    ];
    assert_eq!(plan.steps, expected);
    assert_eq!((plan.promise.epoch, &plan.promise.region), (epoch(2), &us));
    assert_eq!(plan.promise.members, Some(members(&["eu-west-1", "us-east-1"])));
    assert_eq!((plan.promise.after, plan.promise.planned), (Some(epoch(1)), true));
    assert!(plan.gone.is_empty());
    // One that does not answer is removed by a majority of the others.
    let plan = planned(&all_well().gone("ap-south-1"), &removal(&["ap-south-1"]));
    assert!(plan.gone.is_empty() && !plan.steps.contains(&Step::WaitOut), "{plan:?}");
}

#[test]
fn a_primary_that_is_removed_hands_over_and_does_not_come_back() {
    let mut wanted = removal(&["us-east-1"]);
    refuses(&all_well(), &wanted, "--primary REGION says which of ap-south-1, eu-west-1");
    wanted.primary = Some(at("eu-west-1"));
    let plan = planned(&all_well(), &wanted);
    assert_eq!(plan.promise.region, at("eu-west-1"));
    assert!(plan.steps.contains(&Step::CatchUp), "{plan:?}");
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::Rejoin { .. })), "{plan:?}");
    assert_eq!(plan.steps.last(), Some(&Step::Part { regions: vec![at("us-east-1")] }));
    wanted.primary = Some(at("us-east-1"));
    refuses(&all_well(), &wanted, "us-east-1 is no member");
}

#[test]
fn two_that_are_gone_are_removed_by_the_one_that_is_left() {
    let sight = all_well().gone("us-east-1").gone("ap-south-1");
    let mut wanted = removal(&["us-east-1", "ap-south-1"]);
    wanted.primary = Some(at("eu-west-1"));
    refuses(&sight, &wanted, "1 of 3 regions answer and 2 must");
    wanted.gone = true;
    refuses(&sight, &wanted, "--accept-data-loss");
    wanted.accept_data_loss = true;
    let plan = planned(&sight, &wanted);
    assert_eq!(plan.promise.members, Some(members(&["eu-west-1"])));
    assert_eq!(plan.gone, some(&["ap-south-1", "us-east-1"]));
    assert_eq!(plan.steps[..2], [Step::Promise, Step::WaitOut]);
    // The primary that is left waits for what they may have granted too.
    let sight = all_well().gone("eu-west-1").gone("ap-south-1");
    let mut wanted = removal(&["eu-west-1", "ap-south-1"]);
    wanted.gone = true;
    let plan = planned(&sight, &wanted);
    assert_eq!(plan.steps[..2], [Step::Promise, Step::WaitOut]);
}

fn peer(reachable: bool) -> PeerReport {
    PeerReport { reachable, round_trip_ms: None, breaker: "closed".into(), failure: None }
}

#[test]
fn what_is_well_is_removed_only_by_who_says_so() {
    let mut wanted = removal(&["ap-south-1"]);
    wanted.alive = false;
    refuses(&all_well(), &wanted, "ap-south-1 answers: --alive");
    let plan = planned(&all_well().gone("ap-south-1"), &wanted);
    assert_eq!(plan.promise.members, Some(members(&["eu-west-1", "us-east-1"])));
    let mut wanted = removal(&["us-east-1"]);
    wanted.alive = false;
    let reasons = remove(&all_well(), &wanted, Durability::Async).unwrap_err();
    assert!(reasons.len() == 2 && reasons[1].contains("--primary REGION"), "{reasons:?}");
}

#[test]
fn who_is_said_to_be_gone_and_answers_is_not() {
    let mut wanted = removal(&["ap-south-1"]);
    wanted.gone = true;
    refuses(&all_well(), &wanted, "ap-south-1 was said to be gone, and answers");
    let mut heard = all_well().gone("ap-south-1");
    let report = heard.seen("eu-west-1").report.as_mut().unwrap();
    report.peers.insert(at("ap-south-1"), peer(true));
    refuses(&heard, &wanted, "eu-west-1 has just heard from it");
}

#[test]
fn what_cannot_be_removed_is_not() {
    refuses(&all_well(), &removal(&["mars-1"]), "mars-1 is not one of");
    refuses(&all_well(), &removal(&["ap-south-1", "eu-west-1", "us-east-1"]), "nobody would");
    let mut wanted = removal(&["ap-south-1"]);
    wanted.primary = Some(at("eu-west-1"));
    refuses(&all_well(), &wanted, "godwit switchover eu-west-1");
    refuses(&all_well().gone("us-east-1"), &removal(&["ap-south-1"]), "us-east-1 does not answer");
    let mut older = all_well();
    older.seen("eu-west-1").report.as_mut().unwrap().members = None;
    refuses(&older, &removal(&["ap-south-1"]), "knows of no members");
}

#[test]
fn in_quorum_somebody_who_can_acknowledge_stays() {
    let mut sight = all_well();
    let streams = |name: &str| Standby {
        name: name.into(),
        state: "streaming".into(),
        acknowledges: "quorum".into(),
        flushed: None,
    };
    let removes = removal(&["ap-south-1"]);
    sight.of("us-east-1").standbys = vec![streams("ap-south-1")];
    let why = remove(&sight, &removes, Durability::Quorum).unwrap_err();
    assert!(why.iter().any(|why| why.contains("eu-west-1. No write")), "{why:?}");
    assert!(remove(&sight, &removes, Durability::Async).is_ok());
    sight.of("us-east-1").standbys.push(streams("eu-west-1"));
    assert!(remove(&sight, &removes, Durability::Quorum).is_ok());
    // One that is left alone waits for nobody.
    let alone = removal(&["ap-south-1", "eu-west-1"]);
    sight.of("us-east-1").standbys.clear();
    assert!(remove(&sight, &alone, Durability::Quorum).is_ok());
}

#[test]
fn what_is_so_already_is_told() {
    let sight = of_members(&["eu-west-1", "us-east-1"]);
    let told = |planned| match planned {
        Ok(Planned::Nothing(told)) => told,
        other => panic!("{other:?}"),
    };
    let gone = remove(&sight, &removal(&["ap-south-1"]), Durability::Async);
    assert_eq!(told(gone), "no member already: ap-south-1");
    let there = add(&sight, &at("eu-west-1"), Durability::Async);
    assert_eq!(told(there), "eu-west-1 is a member already");
}

#[test]
fn a_region_is_added_in_an_epoch_of_the_primary_once_all_settings_name_it() {
    let mut sight = of_members(&["eu-west-1", "us-east-1"]);
    let everywhere = ["ap-south-1", "eu-west-1", "us-east-1"];
    let why = add(&sight, &at("ap-south-1"), Durability::Async).unwrap_err();
    let names = |region: &str, other: &str| {
        why.iter().any(|why| *why == format!("{region}'s settings do not name {other}"))
    };
    assert!(names("us-east-1", "ap-south-1") && names("ap-south-1", "eu-west-1"), "{why:?}");
    for region in everywhere {
        let peers = everywhere.iter().filter(|other| **other != region);
        let peers = peers.map(|other| (at(other), peer(true))).collect();
        sight.seen(region).report.as_mut().unwrap().peers = peers;
    }
    let Ok(Planned::Plan(plan)) = add(&sight, &at("ap-south-1"), Durability::Async) else {
        panic!("no plan");
    };
    let all = members(&["ap-south-1", "eu-west-1", "us-east-1"]);
    assert_eq!((plan.promise.epoch, plan.promise.members), (epoch(3), Some(all)));
    assert_eq!(plan.steps.last(), Some(&Step::Verify));
    let why = add(&sight, &at("mars-1"), Durability::Async).unwrap_err();
    assert!(why[0].contains("settings"), "{why:?}");
    let silent = sight.gone("ap-south-1");
    assert!(add(&silent, &at("ap-south-1"), Durability::Async).is_err());
}

#[test]
fn who_is_no_member_is_counted_nowhere() {
    let sight = of_members(&["eu-west-1", "us-east-1"]).gone("us-east-1");
    let how = Move::Promote { accept_data_loss: true };
    let why = super::super::plan::plan(&sight, &at("eu-west-1"), how, Durability::Async);
    assert!(why.unwrap_err()[0].starts_with("1 of 2 regions answer"));
    let sight = of_members(&["eu-west-1", "us-east-1"]);
    let why = super::super::plan::plan(&sight, &at("ap-south-1"), how, Durability::Async);
    assert!(why.unwrap_err().iter().any(|why| why.contains("godwit region add ap-south-1")));
    let to = at("eu-west-1");
    let plan = super::super::plan::plan(&sight, &to, Move::Switchover, Durability::Async).unwrap();
    assert!(plan.steps.contains(&Step::Follow { regions: vec![] }), "{plan:?}");
}

#[test]
fn an_interrupted_change_goes_on_and_another_change_does_not_take_its_epoch() {
    let plan = planned(&all_well(), &removal(&["ap-south-1"]));
    let sight = all_well().promised("eu-west-1", &plan.promise);
    assert_eq!(planned(&sight, &removal(&["ap-south-1"])).promise, plan.promise);
    assert_eq!(planned(&sight, &removal(&["eu-west-1"])).promise.epoch, epoch(3));
}

#[test]
fn two_changes_promised_at_once_are_left_for_the_next_epoch() {
    let promised = |name| planned(&all_well(), &removal(&[name])).promise;
    let sight = all_well().promised("us-east-1", &promised("ap-south-1"));
    let sight = sight.promised("eu-west-1", &promised("eu-west-1"));
    for name in ["ap-south-1", "eu-west-1"] {
        let plan = planned(&sight, &removal(&[name]));
        assert_eq!(plan.promise.epoch, epoch(3), "{plan:?}");
    }
}

#[test]
fn a_change_that_has_begun_and_takes_no_writes_yet_is_waited_for() {
    let nothing =
        |sight: &Sight| remove(sight, &removal(&["ap-south-1"]), Durability::Async).unwrap();
    let mut sight = of_members(&["eu-west-1", "us-east-1"]);
    assert!(matches!(nothing(&sight), Planned::Nothing(_)));
    sight.seen("us-east-1").report.as_mut().unwrap().writable = false;
    let plan = planned(&sight, &removal(&["ap-south-1"]));
    assert_eq!(plan.steps, [Step::Verify, Step::Part { regions: vec![at("ap-south-1")] }]);
    assert_eq!((plan.promise.epoch, plan.promise.members), (epoch(2), None));
    let added = add(&sight, &at("eu-west-1"), Durability::Async).unwrap();
    assert!(matches!(added, Planned::Plan(plan) if plan.steps == [Step::Verify]));
}
