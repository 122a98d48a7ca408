use super::*;
use crate::{
    config::{LeaseConfig, testing},
    topology::{
        Lease, Own, Role,
        lease::{Promise, Record},
    },
    vocab::{Clock as _, EpochHistory, EpochStart, Platform, clock::ManualClock},
};

fn upstreams() -> Upstreams {
    let others = r#"
        [regions.eu-west-1]
        internal_url = "http://127.0.0.1:2"
        replication = "host=127.0.0.1 port=5542 user=r"
        [regions.ap-south-1]
        internal_url = "http://127.0.0.1:3"
        replication = "host=127.0.0.1 port=5543 user=r"
    "#;
    Upstreams::new(&testing::config(&format!("{}{others}", testing::MINIMAL)))
}

fn at(name: &str) -> Region {
    name.parse().unwrap()
}

fn start(epoch: u32, region: &str) -> EpochStart {
    let epoch = Epoch::new(epoch).unwrap();
    EpochStart { epoch, start_lsn: Lsn::new(0), region: at(region), members: None }
}

/// us-east-1 as the primary of epoch 1, holding its lease.
fn reigning() -> (Sight, InstanceRow) {
    let clock = ManualClock::new();
    let epochs = vec![start(1, "us-east-1")];
    let own = Own {
        role: Role::Primary,
        lsn: Lsn::new(9),
        confirmed: None,
        history: Arc::new(EpochHistory::new(epochs.clone()).unwrap()),
        streaming: None,
        read_only: false,
        unbegun: false,
        asked_at: clock.monotonic(),
    };
    let topology = Topology::new(
        at("us-east-1"),
        ["eu-west-1", "ap-south-1"].map(at),
        Duration::from_secs(3),
        LeaseConfig::default(),
        Arc::new(clock),
    );
    let mut snapshot = topology.look(Clone::clone);
    let until = own.asked_at + Duration::from_secs(2);
    snapshot.lease = Some(Lease { epoch: Epoch::FIRST, until });
    snapshot.majority_heard = true;
    snapshot.written = Some(own.epoch());
    snapshot.own = Some(own);
    let row = InstanceRow {
        platform: Platform::Postgres,
        platform_answers: None,
        in_recovery: false,
        system: "7".into(),
        timeline: Some(1),
        lsn: Lsn::new(9),
        received: None,
        receiving: false,
        conninfo: String::new(),
        read_only: false,
        waits_for: String::new(),
        epochs,
        standbys: vec![],
        slots: vec![],
    };
    let sight = Sight {
        snapshot,
        primary: PrimaryAt::Here(Epoch::FIRST),
        held: Some(true),
        welcome: Some(BTreeSet::new()),
        stays: true,
        moving: false,
        settled: false,
    };
    (sight, row)
}

fn lacks(sight: &Sight, row: &InstanceRow) -> Vec<Deed> {
    deeds(sight, row, &upstreams(), Durability::Async)
}

#[test]
fn a_primary_is_fenced_when_its_region_holds_no_lease_and_only_when_that_is_known() {
    let (mut sight, mut row) = reigning();
    assert_eq!(lacks(&sight, &row), []);
    sight.held = None;
    assert_eq!(lacks(&sight, &row), []);
    sight.held = Some(false);
    assert_eq!(lacks(&sight, &row), [Deed::Fence]);
    row.read_only = true;
    assert_eq!(lacks(&sight, &row), []);
    sight.held = Some(true);
    assert_eq!(lacks(&sight, &row), [Deed::Unfence]);
    // Another region's promise is not this one's: a move that only a minority knows of keeps no fence.
    sight.moving = true;
    assert_eq!(lacks(&sight, &row), [Deed::Unfence]);
    // Fenced for a move, it stays so.
    sight.stays = false;
    assert_eq!(lacks(&sight, &row), []);
}

#[test]
fn a_platforms_fence_that_was_broken_off_half_way_is_finished() {
    let (mut sight, mut row) = reigning();
    // In the catalog, and not in a session that began before.
    (sight.held, row.read_only) = (Some(false), true);
    assert_eq!(lacks(&sight, &row), []);
    row.platform = Platform::Rds;
    assert_eq!(lacks(&sight, &row), [Deed::Fence]);
    // Lifted in the catalog alone.
    (sight.held, row.read_only) = (Some(true), false);
    assert_eq!(lacks(&sight, &row), []);
    sight.snapshot.own.as_mut().unwrap().read_only = true;
    assert_eq!(lacks(&sight, &row), [Deed::Unfence]);
}

#[test]
fn who_cannot_be_re_pointed_is_not_told_to_follow_twice_a_second() {
    let (mut sight, mut row) = reigning();
    let own = sight.snapshot.own.as_mut().unwrap();
    (own.role, row.in_recovery) = (Role::Replica, true);
    sight.primary = PrimaryAt::Peer(at("eu-west-1"), Epoch::FIRST);
    assert_eq!(lacks(&sight, &row), [Deed::Follow(at("eu-west-1"))]);
    row.platform = Platform::Rds;
    assert_eq!(lacks(&sight, &row), []);
}

#[test]
fn a_fence_is_a_moves_unless_this_regions_note_says_that_it_promised_none() {
    let note = |promise: Option<u32>| Record {
        promise: promise.map(|epoch| Promise {
            epoch: Epoch::new(epoch).unwrap(),
            region: at("eu-west-1"),
            planned: true,
            after: None,
            members: None,
            accepts_loss: false,
        }),
        ..Record::default()
    };
    assert!(stays(Some(&note(None)), Epoch::FIRST));
    assert!(stays(Some(&note(Some(1))), Epoch::FIRST));
    assert!(!stays(Some(&note(Some(2))), Epoch::FIRST));
    assert!(!stays(None, Epoch::FIRST));
}

#[test]
fn a_deposed_primary_is_fenced_and_stays_so() {
    let (mut sight, mut row) = reigning();
    let own = sight.snapshot.own.as_mut().unwrap();
    own.history = Arc::new(EpochHistory::new(vec![start(1, "eu-west-1")]).unwrap());
    // Promoted, its epoch not yet begun: it is no primary, and nothing is done to it.
    sight.held = None;
    assert_eq!(lacks(&sight, &row), []);
    row.read_only = true;
    assert_eq!(lacks(&sight, &row), []);
}

#[test]
fn the_primarys_commits_wait_for_whom_the_settings_say() {
    let (sight, mut row) = reigning();
    let both = vec![at("ap-south-1"), at("eu-west-1")];
    let quorum = |row: &InstanceRow| deeds(&sight, row, &upstreams(), Durability::Quorum);
    assert_eq!(quorum(&row), [Deed::WaitFor(both.clone())]);
    row.waits_for = any_of(&both);
    assert_eq!(quorum(&row), []);
    assert_eq!(lacks(&sight, &row), [Deed::WaitFor(vec![])]);
}

#[test]
fn of_two_standbys_with_one_name_neither_is_counted_on() {
    let (sight, mut row) = reigning();
    let standby = |name: &str, state: &str| StandbyRow {
        name: name.into(),
        state: state.into(),
        acknowledges: "quorum".into(),
        flushed: None,
    };
    let quorum = |row: &InstanceRow| deeds(&sight, row, &upstreams(), Durability::Quorum);
    let asked = |names: &[&str]| [Deed::WaitFor(names.iter().map(|name| at(name)).collect())];
    // A copy that is being made is no standby yet.
    row.standbys = vec![standby("eu-west-1", "streaming"), standby("eu-west-1", "backup")];
    assert_eq!(quorum(&row), asked(&["ap-south-1", "eu-west-1"]));
    row.standbys.push(standby("eu-west-1", "catchup"));
    assert_eq!(quorum(&row), asked(&["ap-south-1"]));
    row.standbys.extend([standby("ap-south-1", "streaming"), standby("ap-south-1", "streaming")]);
    assert_eq!(quorum(&row), asked(&["nobody"]));
}

#[test]
fn a_replica_follows_the_primary_unless_it_moves() {
    let (mut sight, mut row) = reigning();
    row.in_recovery = true;
    row.conninfo = "host=127.0.0.1 port=5543 user=r".into();
    let own = sight.snapshot.own.as_mut().unwrap();
    own.role = Role::Replica;
    own.history = Arc::new(EpochHistory::new(vec![start(1, "eu-west-1")]).unwrap());
    sight.primary = PrimaryAt::Peer(at("eu-west-1"), Epoch::FIRST);
    assert_eq!(lacks(&sight, &row), [Deed::Follow(at("eu-west-1"))]);
    row.conninfo = "host=127.0.0.1 port=5542 user=r".into();
    assert_eq!(lacks(&sight, &row), []);
    // Told to receive from nobody while the primary moves.
    row.conninfo = String::new();
    sight.moving = true;
    assert_eq!(lacks(&sight, &row), []);
    sight.moving = false;
    assert_eq!(lacks(&sight, &row), [Deed::Follow(at("eu-west-1"))]);
    sight.primary = PrimaryAt::Unknown;
    assert_eq!(lacks(&sight, &row), []);
}

/// us-east-1 as the primary of epoch 2, whose members these are.
fn of_members(names: &[&str]) -> (Sight, InstanceRow) {
    let (mut sight, row) = reigning();
    let second = EpochStart {
        members: Some(names.iter().map(|name| at(name)).collect()),
        ..start(2, "us-east-1")
    };
    let history = EpochHistory::new(vec![start(1, "us-east-1"), second]).unwrap();
    sight.snapshot.own.as_mut().unwrap().history = Arc::new(history);
    sight.snapshot.written = Epoch::new(2);
    (sight, row)
}

fn kept(sight: &Sight, reachable: bool) -> (Vec<String>, Vec<String>) {
    let (wanted, dropped) = slots(sight, &upstreams(), |_| reachable);
    let names = |regions: Vec<Region>| regions.iter().map(ToString::to_string).collect();
    (names(wanted.into_iter().map(|(region, _)| region).collect()), names(dropped))
}

#[test]
fn slots_are_the_members_and_of_who_is_being_added() {
    let names = |some: &[&str]| some.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let (sight, _) = reigning();
    assert_eq!(kept(&sight, false), (names(&["ap-south-1", "eu-west-1"]), vec![]));
    let (mut sight, _) = of_members(&["us-east-1", "eu-west-1"]);
    let (eu, ap) = (names(&["eu-west-1"]), names(&["ap-south-1"]));
    assert_eq!(kept(&sight, false), (eu.clone(), ap.clone()));
    // A replica that can be reached is to receive first that it was removed; an old primary is not.
    assert_eq!(kept(&sight, true), (eu.clone(), ap.clone()));
    let told = super::super::plan::tests::all_well().seen("ap-south-1").report.clone().unwrap();
    sight.snapshot.peers.get_mut(&at("ap-south-1")).unwrap().report = Some(told);
    assert_eq!(kept(&sight, true), (eu.clone(), vec![]));
    sight.settled = true;
    assert_eq!(kept(&sight, true), (eu.clone(), ap.clone()));
    sight.welcome = Some(BTreeSet::from([at("ap-south-1")]));
    assert_eq!(kept(&sight, true), (names(&["ap-south-1", "eu-west-1"]), vec![]));
    // Who cannot tell takes nobody's slot.
    sight.welcome = None;
    assert_eq!(kept(&sight, false), (eu, vec![]));
}

#[test]
fn commits_wait_for_members_and_for_nobody_where_there_is_no_other() {
    let quorum = |names: &[&str]| {
        let (sight, row) = of_members(names);
        deeds(&sight, &row, &upstreams(), Durability::Quorum)
    };
    assert_eq!(quorum(&["us-east-1", "eu-west-1"]), [Deed::WaitFor(vec![at("eu-west-1")])]);
    assert_eq!(quorum(&["us-east-1"]), []);
}

#[test]
fn a_replica_that_was_removed_receives_from_nobody_once_it_has_the_row() {
    let (mut sight, mut row) = of_members(&["eu-west-1"]);
    row.in_recovery = true;
    row.conninfo = "host=127.0.0.1 port=5542 user=r".into();
    sight.snapshot.own.as_mut().unwrap().role = Role::Replica;
    sight.primary = PrimaryAt::Peer(at("eu-west-1"), Epoch::new(2).unwrap());
    assert_eq!(sight.snapshot.quarantine(), Some(Quarantine::Removed));
    assert_eq!(lacks(&sight, &row), [Deed::Leave]);
    sight.welcome = Some(BTreeSet::from([at("us-east-1")]));
    assert_eq!(lacks(&sight, &row), []);
    sight.welcome = Some(BTreeSet::new());
    row.conninfo = String::new();
    assert_eq!(lacks(&sight, &row), []);
}

#[test]
fn a_primary_that_was_removed_is_fenced() {
    let (mut sight, row) = of_members(&["eu-west-1"]);
    sight.held = None;
    assert_eq!(lacks(&sight, &row), [Deed::Fence]);
}
