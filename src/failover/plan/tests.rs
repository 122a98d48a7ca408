use super::*;
use crate::{
    topology::TopologyReport,
    vocab::{EpochStart, Lsn, Platform},
};

const REGIONS: [&str; 3] = ["ap-south-1", "eu-west-1", "us-east-1"];

pub fn at(name: &str) -> Region {
    name.parse().unwrap()
}
pub fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

/// us-east-1 is the primary of epoch 1 at 1000, the others have all of it.
#[must_use]
pub fn all_well() -> Sight {
    let seen = |name: &str| {
        let primary = name == "us-east-1";
        let role = if primary { Role::Primary } else { Role::Replica };
        let start = EpochStart {
            epoch: epoch(1),
            start_lsn: Lsn::new(0),
            region: at("us-east-1"),
            members: None,
        };
        let instance = Instance {
            platform: Platform::Postgres,
            role,
            system: "7".into(),
            timeline: primary.then_some(1),
            lsn: Lsn::new(1_000),
            received: (!primary).then_some(Lsn::new(1_000)),
            receiving: !primary,
            follows: (!primary).then(|| at("us-east-1")),
            read_only: false,
            promises: Some(true),
            platform_answers: None,
            waits_for: String::new(),
            epochs: vec![start.clone()],
            standbys: vec![],
            slots: vec![],
        };
        let report = TopologyReport {
            region: at(name),
            process: "p".into(),
            role: Some(role),
            position: None,
            position_age_us: None,
            epochs: vec![start],
            lag_ms: None,
            lag_bytes: None,
            streaming: None,
            starting: false,
            ending: false,
            writable: primary,
            primary: Some(at("us-east-1")),
            missed_ms: None,
            lease_ms: None,
            promise: None,
            members: Some(REGIONS.map(at).into_iter().collect()),
            durability: Some(Durability::Quorum),
            quarantine: None,
            standbys: None,
            schema: Some("current".into()),
            build: "test".into(),
            peers: std::collections::BTreeMap::new(),
        };
        Seen { report: Ok(report), instance: Ok(instance), listener: None }
    };
    Sight { regions: REGIONS.iter().map(|name| (at(name), seen(name))).collect() }
}

impl Sight {
    pub fn seen(&mut self, name: &str) -> &mut Seen {
        self.regions.get_mut(&at(name)).unwrap()
    }
    pub fn of(&mut self, name: &str) -> &mut Instance {
        self.seen(name).instance.as_mut().unwrap()
    }
    /// Nothing of that region answers.
    #[must_use]
    pub fn gone(mut self, name: &str) -> Self {
        let seen = self.seen(name);
        seen.report = Err("no answer".into());
        seen.instance = Err("no answer".into());
        self
    }
    #[must_use]
    pub fn received(mut self, name: &str, lsn: u64) -> Self {
        let instance = self.of(name);
        (instance.lsn, instance.received) = (Lsn::new(lsn), Some(Lsn::new(lsn)));
        self
    }
    #[must_use]
    pub fn promised(mut self, by: &str, promise: &Promise) -> Self {
        self.seen(by).report.as_mut().unwrap().promise = Some(promise.clone());
        self
    }
}

/// The promise of a handover in epoch 2, with all as members.
pub fn handover(to: &str) -> Promise {
    let (after, members) = (Some(epoch(1)), Some(REGIONS.map(at).into_iter().collect()));
    Promise { epoch: epoch(2), region: at(to), planned: true, after, members, accepts_loss: false }
}

const LOSSLESS: Move = Move::Promote { accept_data_loss: false };
const AT_ANY_PRICE: Move = Move::Promote { accept_data_loss: true };

fn planned(sight: &Sight, target: &str, how: Move, durability: Durability) -> Plan {
    plan(sight, &at(target), how, durability).unwrap_or_else(|reasons| panic!("{reasons:?}"))
}

/// The one reason why not.
fn refused(sight: &Sight, target: &str, how: Move, durability: Durability) -> String {
    let reasons = plan(sight, &at(target), how, durability).unwrap_err();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    reasons[0].clone()
}

#[track_caller]
fn refuses(sight: &Sight, target: &str, how: Move, durability: Durability, word: &str) {
    let reason = refused(sight, target, how, durability);
    assert!(reason.contains(word), "{reason}");
}

#[test]
fn a_primary_that_takes_writes_is_not_promoted_over() {
    for durability in [Durability::Async, Durability::Quorum] {
        refuses(&all_well(), "eu-west-1", AT_ANY_PRICE, durability, "godwit switchover eu-west-1");
    }
}

#[test]
fn a_laggard_is_refused_whatever_is_accepted_while_a_further_replica_answers() {
    let sight = all_well().gone("us-east-1").received("eu-west-1", 900);
    for durability in [Durability::Async, Durability::Quorum] {
        let reason = refused(&sight, "eu-west-1", AT_ANY_PRICE, durability);
        assert_eq!(reason, "ap-south-1 is 100 bytes further than eu-west-1: promote ap-south-1");
        planned(&sight, "ap-south-1", AT_ANY_PRICE, durability);
    }
    // One that has replayed less, but received as much, is none.
    let mut sight = all_well().gone("us-east-1");
    sight.of("eu-west-1").lsn = Lsn::new(10);
    planned(&sight, "eu-west-1", AT_ANY_PRICE, Durability::Async);
}

#[test]
fn without_the_answers_that_make_it_certain_a_loss_must_be_accepted() {
    let sight = all_well().gone("us-east-1");
    refuses(&sight, "eu-west-1", LOSSLESS, Durability::Async, "--accept-data-loss");
    let plan = planned(&sight, "eu-west-1", AT_ANY_PRICE, Durability::Async);
    assert!(plan.notes.iter().any(|note| note.contains("may have acknowledged")), "{plan:?}");
    // R + W > N: both replicas are read, and each acknowledged write is on one of them.
    planned(&sight, "eu-west-1", LOSSLESS, Durability::Quorum);
    let mut half = sight.clone();
    half.seen("ap-south-1").instance = Err("its database is down".into());
    refuses(&half, "eu-west-1", LOSSLESS, Durability::Quorum, "1 of 2 replicas can be read");
    planned(&half, "eu-west-1", AT_ANY_PRICE, Durability::Quorum);
    // Who says otherwise, or nothing, may be as the old primary was.
    for durability in [Some(Durability::Async), None] {
        let mut unlike = sight.clone();
        unlike.seen("ap-south-1").report.as_mut().unwrap().durability = durability;
        refuses(&unlike, "eu-west-1", LOSSLESS, Durability::Quorum, "ap-south-1 does not say");
        planned(&unlike, "eu-west-1", AT_ANY_PRICE, Durability::Quorum);
    }
    // Taken out of the settings, it takes with it how many had its writes.
    let mut smaller = sight;
    smaller.regions.remove(&at("us-east-1"));
    refuses(&smaller, "eu-west-1", LOSSLESS, Durability::Quorum, "not in the settings");
}

#[test]
fn a_primary_that_is_fenced_hands_over() {
    let mut fenced = all_well();
    fenced.of("us-east-1").read_only = true;
    fenced.seen("us-east-1").report.as_mut().unwrap().writable = false;
    refuses(&fenced, "eu-west-1", AT_ANY_PRICE, Durability::Async, "godwit switchover eu-west-1");
    planned(&fenced, "eu-west-1", Move::Switchover, Durability::Async);
    // Cut off from the target, it cannot.
    fenced.of("eu-west-1").receiving = false;
    planned(&fenced, "eu-west-1", AT_ANY_PRICE, Durability::Async);
}

#[test]
fn one_whose_database_is_gone_is_replaced_though_its_process_has_yet_to_notice() {
    let mut sight = all_well();
    refuses(&sight, "eu-west-1", AT_ANY_PRICE, Durability::Async, "is alive");
    sight.seen("us-east-1").instance = Err("the database cannot be reached".into());
    planned(&sight, "eu-west-1", AT_ANY_PRICE, Durability::Async);
    refuses(&sight, "eu-west-1", Move::Switchover, Durability::Async, "godwit promote eu-west-1");
}

#[test]
fn one_that_was_promoted_by_hand_is_not_taken_for_one_that_a_move_promoted() {
    let mut sight = all_well();
    sight.of("eu-west-1").role = Role::Primary;
    refuses(&sight, "eu-west-1", Move::Switchover, Durability::Async, "outside Godwit");
    let sight = sight.gone("us-east-1");
    refuses(&sight, "eu-west-1", AT_ANY_PRICE, Durability::Quorum, "outside Godwit");
}

#[test]
fn nothing_is_moved_without_a_majority() {
    let sight = all_well().gone("us-east-1").gone("ap-south-1");
    for how in [LOSSLESS, AT_ANY_PRICE] {
        let reasons = plan(&sight, &at("eu-west-1"), how, Durability::Quorum).unwrap_err();
        assert!(reasons[0].starts_with("1 of 3 regions answer and 2 must"), "{reasons:?}");
    }
}

#[test]
fn an_unfit_target_is_refused() {
    for how in [Move::Switchover, AT_ANY_PRICE] {
        let gone = all_well().gone("eu-west-1");
        let reasons = plan(&gone, &at("eu-west-1"), how, Durability::Async).unwrap_err();
        assert!(reasons.iter().any(|why| why.contains("does not answer")), "{reasons:?}");
        let mut old = all_well();
        old.seen("eu-west-1").report.as_mut().unwrap().schema = Some("old (1, 2 needed)".into());
        let reasons = plan(&old, &at("eu-west-1"), how, Durability::Async).unwrap_err();
        assert!(reasons.iter().any(|why| why.contains("schema")), "{reasons:?}");
        assert!(plan(&all_well(), &at("mars-1"), how, Durability::Async).is_err());
        assert!(plan(&Sight::default(), &at("eu-west-1"), how, Durability::Async).is_err());
    }
}

#[test]
fn a_region_left_behind_is_not_promoted() {
    let mut sight = all_well();
    let second = EpochStart {
        epoch: epoch(2),
        start_lsn: Lsn::new(990),
        region: at("eu-west-1"),
        members: None,
    };
    for name in ["eu-west-1", "ap-south-1"] {
        sight.of(name).epochs.push(second.clone());
    }
    sight.of("eu-west-1").role = Role::Primary;
    sight.seen("us-east-1").report.as_mut().unwrap().writable = false;
    let reasons = plan(&sight, &at("us-east-1"), AT_ANY_PRICE, Durability::Async).unwrap_err();
    assert!(reasons.iter().any(|why| why.contains("godwit rejoin us-east-1")), "{reasons:?}");
}

#[test]
fn a_handover_holds_writes_until_the_target_has_all() {
    let plan = planned(&all_well(), "eu-west-1", Move::Switchover, Durability::Async);
    let (us, ap) = (at("us-east-1"), at("ap-south-1"));
    let expected = [
        Step::Promise,
        Step::Detach { regions: vec![ap.clone()] },
        Step::Follow { regions: vec![ap] },
        Step::Fence { region: us.clone() },
        Step::CatchUp,
        Step::Promote,
        Step::Begin,
        Step::Release,
        Step::Verify,
        Step::Rejoin { region: us },
    ];
    assert_eq!(plan.steps, expected);
    let promise = handover("eu-west-1");
    assert_eq!((plan.promise, plan.ends), (promise, epoch(1)));
}

#[test]
fn a_handover_needs_both_alive_and_close() {
    let how = Move::Switchover;
    let gone = all_well().gone("us-east-1");
    refuses(&gone, "eu-west-1", how, Durability::Async, "godwit promote eu-west-1");
    let mut far = all_well();
    far.of("us-east-1").lsn = Lsn::new(HANDOVER_BYTES_MAX + 1_001);
    refuses(&far, "eu-west-1", how, Durability::Async, "bytes behind");
    let mut deaf = all_well();
    deaf.of("eu-west-1").receiving = false;
    refuses(&deaf, "eu-west-1", how, Durability::Async, "receives no log");
}

#[test]
fn a_promotion_waits_the_old_lease_out_and_detaches_before_where_nothing_can_be_lost_by_that() {
    let sight = all_well().gone("us-east-1");
    let (ap, eu) = (at("ap-south-1"), at("eu-west-1"));
    let ready =
        [Step::Detach { regions: vec![ap.clone(), eu] }, Step::Follow { regions: vec![ap] }];
    let last = [Step::Promote, Step::Begin, Step::Verify];
    let plan = planned(&sight, "eu-west-1", LOSSLESS, Durability::Quorum);
    assert_eq!(plan.steps, [&[Step::Promise][..], &ready, &[Step::WaitOut], &last].concat());
    let plan = planned(&sight, "eu-west-1", AT_ANY_PRICE, Durability::Async);
    assert_eq!(plan.steps, [&[Step::Promise, Step::WaitOut][..], &ready, &last].concat());
}

#[test]
fn an_interrupted_move_goes_on_in_its_epoch_and_another_takes_over_in_the_next() {
    let begun = handover("eu-west-1");
    let sight = all_well().promised("ap-south-1", &begun);
    let again = planned(&sight, "eu-west-1", Move::Switchover, Durability::Async);
    assert_eq!(again.promise, begun);
    let over = planned(&sight, "ap-south-1", Move::Switchover, Durability::Async);
    assert_eq!(over.promise.epoch, epoch(3));
    assert!(over.notes.iter().any(|note| note.contains("takes over")), "{over:?}");
    // Promoted, its epoch not yet written: it goes on from there.
    let mut sight = sight.gone("us-east-1");
    sight.of("eu-west-1").role = Role::Primary;
    let on = planned(&sight, "eu-west-1", LOSSLESS, Durability::Async);
    assert!(on.steps.contains(&Step::Promote) && on.steps.contains(&Step::Begin), "{on:?}");
    // An unfinished one is taken back where it began.
    let sight = all_well().promised("ap-south-1", &begun);
    let back = planned(&sight, "us-east-1", Move::Switchover, Durability::Async);
    assert_eq!(back.promise.epoch, epoch(3));
    let fence = Step::Fence { region: at("us-east-1") };
    assert_eq!(back.steps[..3], [Step::Promise, fence, Step::Begin]);
    assert!(!back.steps.contains(&Step::CatchUp), "{back:?}");
}

#[test]
fn an_epoch_promised_to_two_regions_at_once_is_left_for_the_next() {
    let to = handover;
    let sight = all_well().promised("ap-south-1", &to("ap-south-1"));
    let sight = sight.promised("eu-west-1", &to("eu-west-1"));
    for target in ["ap-south-1", "eu-west-1", "us-east-1"] {
        let plan = planned(&sight, target, Move::Switchover, Durability::Async);
        assert_eq!((plan.promise.epoch, plan.promise.region), (epoch(3), at(target)));
        assert!(plan.notes.iter().any(|note| note.contains("several moves")), "{:?}", plan.notes);
    }
}

#[test]
fn moved_already_it_only_brings_in_who_was_left_behind() {
    let mut sight = all_well();
    let second = EpochStart {
        epoch: epoch(2),
        start_lsn: Lsn::new(1_000),
        region: at("eu-west-1"),
        members: None,
    };
    sight.of("eu-west-1").epochs.push(second);
    sight.of("eu-west-1").role = Role::Primary;
    let us = at("us-east-1");
    for stopped in [false, true] {
        if stopped {
            // Its Postgres was stopped by the run before.
            sight.seen("us-east-1").instance = Err("the database cannot be reached".into());
        }
        let plan = planned(&sight, "eu-west-1", Move::Switchover, Durability::Async);
        let follow = Step::Follow { regions: vec![at("ap-south-1")] };
        let expected = [follow, Step::Verify, Step::Rejoin { region: us.clone() }];
        assert_eq!(plan.steps, expected);
        let plan = planned(&sight, "eu-west-1", LOSSLESS, Durability::Async);
        assert_eq!(plan.steps.len(), 2, "{plan:?}");
    }
    // A person makes that region anew.
    sight.of("eu-west-1").platform = Platform::Rds;
    let plan = planned(&sight, "eu-west-1", Move::Switchover, Durability::Async);
    assert_eq!(plan.steps.len(), 2, "{plan:?}");
}

#[test]
fn a_planned_move_is_not_begun_where_it_could_not_go_on() {
    for name in REGIONS {
        let mut sight = all_well();
        sight.of(name).promises = Some(false);
        refuses(&sight, "eu-west-1", Move::Switchover, Durability::Async, "cannot read its Redis");
        // A program that does not tell is believed.
        sight.of(name).promises = None;
        planned(&sight, "eu-west-1", Move::Switchover, Durability::Async);
    }
    // One that is gone is replaced without it.
    let mut sight = all_well().gone("us-east-1");
    sight.of("ap-south-1").promises = Some(false);
    planned(&sight, "eu-west-1", AT_ANY_PRICE, Durability::Async);
}

#[test]
fn no_primary_is_fenced_for_a_platform_that_does_not_answer() {
    // Whose word is needed: CloudNativePG demotes the old primary too.
    for (platform, from_too) in [(Platform::CloudNativePg, true), (Platform::Rds, false)] {
        for (silent, matters) in
            [("eu-west-1", true), ("us-east-1", from_too), ("ap-south-1", false)]
        {
            let mut sight = all_well();
            for name in REGIONS {
                let own = sight.of(name);
                (own.platform, own.platform_answers) = (platform, Some(name != silent));
            }
            let (to, how) = ("eu-west-1", Move::Switchover);
            if matters {
                refuses(
                    &sight,
                    to,
                    how,
                    Durability::Async,
                    "does not answer, and promotes nothing",
                );
            } else {
                planned(&sight, to, how, Durability::Async);
            }
            // Taken back, nothing is promoted.
            sight.of("us-east-1").read_only = true;
            let sight = sight.promised("ap-south-1", &handover("eu-west-1"));
            planned(&sight, "us-east-1", how, Durability::Async);
        }
    }
}

#[test]
fn what_was_promoted_for_a_loss_is_handed_nothing() {
    let hard = Promise { planned: false, ..handover("eu-west-1") };
    let mut sight = all_well().promised("ap-south-1", &hard);
    sight.of("eu-west-1").role = Role::Primary;
    refuses(&sight, "eu-west-1", Move::Switchover, Durability::Async, "takes that back");
    planned(&sight, "us-east-1", Move::Switchover, Durability::Async);
}

#[test]
fn a_primary_that_has_become_a_standby_is_not_promoted_unread() {
    let mut sight = all_well();
    sight.of("us-east-1").role = Role::Replica;
    refuses(&sight, "us-east-1", Move::Switchover, Durability::Quorum, "godwit promote us-east-1");
}

#[test]
fn a_fenced_primary_whose_target_has_died_is_told_how_to_go_back() {
    let mut sight = all_well().gone("eu-west-1").promised("ap-south-1", &handover("eu-west-1"));
    sight.of("us-east-1").read_only = true;
    let why = plan(&sight, &at("eu-west-1"), Move::Switchover, Durability::Async).unwrap_err();
    assert!(why[0].contains("does not answer") && why[1].contains("godwit switchover us-east-1"));
}

/// All of it run by a platform.
fn run_by(platform: Platform) -> Sight {
    let mut sight = all_well();
    for name in REGIONS {
        sight.of(name).platform = platform;
    }
    sight
}

fn words(plan: &Plan) -> Vec<String> {
    let word = |step: &Step| step.to_string().split(':').next().unwrap_or_default().to_owned();
    plan.steps.iter().map(word).collect()
}

#[test]
fn an_old_primary_gives_its_place_up_where_its_platform_wants_that_first() {
    let mut sight = run_by(Platform::CloudNativePg);
    let plan = planned(&sight, "eu-west-1", Move::Switchover, Durability::Async);
    let wanted = [
        "promise",
        "detach",
        "follow",
        "fence",
        "catch up",
        "hand over",
        "promote",
        "begin",
        "release",
        "verify",
        "rejoin",
    ];
    assert_eq!(words(&plan), wanted);
    // Killed after it had, the command goes on from there; nobody else may.
    let old = sight.of("us-east-1");
    (old.role, old.follows) = (Role::Replica, Some(at("eu-west-1")));
    refuses(&sight, "eu-west-1", Move::Switchover, Durability::Async, "cannot be asked");
    let mut sight = sight.promised("ap-south-1", &handover("eu-west-1"));
    let found = std::mem::replace(&mut sight.seen("us-east-1").instance, Err("it starts".into()));
    refuses(
        &sight,
        "eu-west-1",
        Move::Switchover,
        Durability::Async,
        "as a replica: run this again",
    );
    sight.seen("us-east-1").instance = found;
    let plan = planned(&sight, "eu-west-1", Move::Switchover, Durability::Async);
    let rest = ["promise", "hand over", "promote", "begin", "release", "verify", "rejoin"];
    assert_eq!(words(&plan), rest);
}

#[test]
fn an_old_primary_that_cannot_come_back_is_left_and_told_of() {
    let sight = run_by(Platform::Rds);
    let plan = planned(&sight, "eu-west-1", Move::Switchover, Durability::Async);
    assert!(!words(&plan).iter().any(|word| word == "rejoin" || word == "hand over"));
    assert!(
        plan.notes.iter().any(|note| note.contains("made anew of eu-west-1")),
        "{:?}",
        plan.notes
    );
}
