use super::*;
use crate::vocab::{
    Clock as _, Epoch, EpochHistory, EpochStart, Lsn, SystemClock, clock::ManualClock,
};

fn region(name: &str) -> Region {
    name.parse().unwrap()
}

/// The first epoch is us-east-1's, the second eu-west-1's, and so by turns.
fn starts(epochs: &[(u32, u64)]) -> Vec<EpochStart> {
    let start = |&(epoch, lsn): &(u32, u64)| EpochStart {
        epoch: Epoch::new(epoch).unwrap(),
        start_lsn: Lsn::new(lsn),
        region: region(if epoch % 2 == 1 { "us-east-1" } else { "eu-west-1" }),
        members: None,
    };
    epochs.iter().map(start).collect()
}

fn own(role: Role, lsn: u64, epochs: &[(u32, u64)], asked_at: Instant) -> Own {
    let history = Arc::new(EpochHistory::new(starts(epochs)).unwrap());
    Own {
        role,
        lsn: Lsn::new(lsn),
        history,
        confirmed: None,
        streaming: None,
        read_only: false,
        unbegun: false,
        asked_at,
    }
}

fn peer(role: Role, lsn: u64, epochs: &[(u32, u64)], heard_at: Instant) -> Peer {
    let epochs = starts(epochs);
    let report = TopologyReport {
        region: region("us-east-1"),
        process: "p".into(),
        role: Some(role),
        position: Some(Bookmark { epoch: epochs.last().unwrap().epoch, lsn: Lsn::new(lsn) }),
        position_age_us: Some(0),
        epochs,
        lag_ms: None,
        lag_bytes: None,
        streaming: None,
        starting: false,
        ending: false,
        writable: role == Role::Primary,
        primary: None,
        missed_ms: None,
        lease_ms: None,
        promise: None,
        members: None,
        durability: None,
        quarantine: None,
        standbys: None,
        schema: None,
        build: "test".into(),
        peers: std::collections::BTreeMap::new(),
    };
    Peer { report: Some(report), heard_at: Some(heard_at), ..Peer::default() }
}

/// As eu-west-1 sees it.
fn topology(clock: &Arc<ManualClock>) -> Topology {
    let stale_after = Duration::from_secs(3);
    let (peers, lease) = ([region("us-east-1")], LeaseConfig::default());
    Topology::new(region("eu-west-1"), peers, stale_after, lease, clock.clone())
}

#[test]
fn nobody_is_primary_until_heard_of_and_again_once_silent() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    assert_eq!(topology.primary(), PrimaryAt::Unknown);
    topology.publish_own(Some(own(Role::Replica, 5, &[(1, 0)], clock.monotonic())));
    assert_eq!(topology.primary(), PrimaryAt::Unknown);
    topology
        .publish_peer(&region("us-east-1"), peer(Role::Primary, 5, &[(1, 0)], clock.monotonic()));
    assert_eq!(topology.primary(), PrimaryAt::Peer(region("us-east-1"), Epoch::FIRST));
    clock.advance(Duration::from_millis(3_001));
    assert_eq!(topology.primary(), PrimaryAt::Unknown);
}

#[test]
fn a_peer_is_the_primary_in_its_own_epoch_and_while_it_takes_writes() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    let us = region("us-east-1");
    let told = |epochs: &[(u32, u64)], writable: bool| {
        let mut peer = peer(Role::Primary, 5, epochs, clock.monotonic());
        peer.report.as_mut().unwrap().writable = writable;
        topology.publish_peer(&us, peer);
        topology.primary()
    };
    assert_eq!(told(&[(1, 0)], true), PrimaryAt::Peer(us.clone(), Epoch::FIRST));
    assert_eq!(told(&[(1, 0)], false), PrimaryAt::Fenced(us.clone()));
    // Promoted, and the row of its epoch not yet written: the newest is still another's.
    assert_eq!(told(&[(1, 0), (2, 4)], true), PrimaryAt::Unknown);
}

#[test]
fn a_primary_takes_writes_while_a_majority_has_granted_it_its_epoch() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    let (us, eu) = (region("us-east-1"), region("eu-west-1"));
    let second = Epoch::new(2).unwrap();
    let reigning = || own(Role::Primary, 5, &[(1, 0), (2, 4)], clock.monotonic());
    topology.publish_own(Some(reigning()));
    assert_eq!(topology.primary(), PrimaryAt::Fenced(eu.clone()));
    topology.granted(&eu, second, clock.monotonic());
    assert_eq!(topology.primary(), PrimaryAt::Fenced(eu.clone()));
    topology.granted(&us, second, clock.monotonic());
    assert_eq!(topology.primary(), PrimaryAt::Here(second));
    assert_eq!(topology.look(|s| s.lag.unwrap().bound(clock.monotonic())), Duration::ZERO);
    clock.advance(Duration::from_millis(2_700));
    assert_eq!(topology.primary(), PrimaryAt::Fenced(eu.clone()));
    // What it reads may be behind what a later primary takes.
    clock.advance(Duration::from_millis(300));
    let bound = topology.look(|s| s.lag.unwrap().bound(clock.monotonic()));
    assert_eq!(bound, Duration::from_millis(300));
    for granting in [&eu, &us] {
        topology.granted(granting, second, clock.monotonic());
    }
    assert_eq!(topology.primary(), PrimaryAt::Here(second));
    topology.publish_own(Some(Own { read_only: true, ..reigning() }));
    assert_eq!(topology.primary(), PrimaryAt::Fenced(eu));
}

#[test]
fn a_primary_of_an_older_epoch_serves_nothing() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    let us = region("us-east-1");
    let quarantine = || topology.look(Snapshot::quarantine);
    topology.publish_own(Some(own(Role::Primary, 5, &[(1, 0), (2, 4)], clock.monotonic())));
    // It may have slept through a promotion: until others say otherwise, it has.
    assert_eq!(quarantine(), Some(Quarantine::Unconfirmed));
    topology.publish_peer(&us, peer(Role::Replica, 5, &[(1, 0), (2, 4)], clock.monotonic()));
    assert_eq!(quarantine(), None);
    assert!(topology.look(|snapshot| snapshot.readable().is_some()));
    let newer = peer(Role::Primary, 9, &[(1, 0), (2, 4), (3, 4)], clock.monotonic());
    topology.publish_peer(&us, newer);
    assert_eq!(quarantine(), Some(Quarantine::Deposed));
    assert_eq!(topology.primary(), PrimaryAt::Peer(us.clone(), Epoch::new(3).unwrap()));
    assert!(topology.look(|snapshot| snapshot.readable().is_none()));
    // What began here and is not in the database here: an older copy of it runs.
    let forgotten = own(Role::Primary, 5, &[(1, 0)], clock.monotonic());
    topology.publish_own(Some(forgotten));
    topology.publish_peer(&us, peer(Role::Replica, 5, &[(1, 0)], clock.monotonic()));
    assert_eq!(quarantine(), Some(Quarantine::Older));
    let told = peer(Role::Replica, 9, &[(1, 0), (2, 4)], clock.monotonic());
    topology.publish_peer(&us, told);
    assert_eq!(quarantine(), Some(Quarantine::Older));
    assert!(topology.look(|snapshot| snapshot.readable().is_none()));
}

#[test]
fn a_standby_that_went_on_where_its_epoch_ended_serves_nothing() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    let newer = peer(Role::Primary, 90, &[(1, 0), (3, 50)], clock.monotonic());
    topology.publish_peer(&region("us-east-1"), newer);
    for (lsn, expected) in [(50, None), (51, Some(Quarantine::Diverged))] {
        topology.publish_own(Some(own(Role::Replica, lsn, &[(1, 0)], clock.monotonic())));
        assert_eq!(topology.look(Snapshot::quarantine), expected, "at {lsn}");
    }
}

#[tokio::test]
async fn a_replica_that_streams_past_its_epoch_tells_nothing_and_is_apart_once_it_stays_there() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    let newer = peer(Role::Primary, 90, &[(1, 0), (3, 50)], clock.monotonic());
    topology.publish_peer(&region("us-east-1"), newer);
    let look = |lsn, starts: &[(u32, u64)]| {
        let follows = own(Role::Replica, lsn, starts, clock.monotonic());
        topology.publish_own(Some(Own { streaming: Some(true), ..follows }));
        let now = clock.monotonic();
        topology.look(|snapshot| (snapshot.quarantine(), snapshot.tellable(now).is_some()))
    };
    assert_eq!(look(50, &[(1, 0)]), (None, true));
    assert!(topology.is_of_its_epoch(clock.monotonic()).await);
    // It has followed and is about to replay the epoch's row.
    assert_eq!(look(51, &[(1, 0)]), (None, false));
    assert!(!topology.is_of_its_epoch(clock.monotonic()).await);
    clock.advance(Duration::from_secs(3));
    assert_eq!(look(52, &[(1, 0)]), (None, false));
    // It follows whoever was deposed.
    clock.advance(Duration::from_millis(1));
    assert_eq!(look(52, &[(1, 0)]), (Some(Quarantine::Diverged), false));
    assert_eq!(look(60, &[(1, 0), (3, 50)]), (None, true));
    assert_eq!(look(51, &[(1, 0)]), (None, false), "what it was before counts no more");
}

#[test]
fn a_promise_of_an_epoch_to_come_tells_that_the_primary_moves() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    let us = region("us-east-1");
    let moves = || topology.look(|snapshot| snapshot.moving().is_some());
    topology.publish_own(Some(own(Role::Replica, 5, &[(1, 0)], clock.monotonic())));
    let second = Epoch::new(2).unwrap();
    let promise = Promise {
        epoch: second,
        region: region("eu-west-1"),
        planned: true,
        after: None,
        members: None,
        accepts_loss: false,
    };
    let mut told = peer(Role::Primary, 5, &[(1, 0)], clock.monotonic());
    told.report.as_mut().unwrap().promise = Some(promise.clone());
    topology.publish_peer(&us, told);
    assert!(moves());
    topology.publish_own(Some(own(Role::Primary, 5, &[(1, 0), (2, 5)], clock.monotonic())));
    assert!(!moves());
    topology.publish_promise(Some(Promise { epoch: Epoch::new(3).unwrap(), ..promise }), None);
    assert!(moves());
}

#[tokio::test]
async fn a_wait_ends_when_the_position_is_reached_lost_or_the_database_dies() {
    let clock = Arc::new(ManualClock::new());
    let mark = Bookmark { epoch: Epoch::FIRST, lsn: Lsn::new(100) };
    let far = crate::vocab::SystemClock.monotonic() + Duration::from_secs(60);
    let cases = [
        (Some(own(Role::Replica, 100, &[(1, 0)], far)), Waited::Reached),
        (Some(own(Role::Replica, 200, &[(1, 0), (2, 99)], far)), Waited::Lost),
        (Some(own(Role::Replica, 200, &[(1, 0), (2, 100)], far)), Waited::Reached),
        (None, Waited::NotInTime),
    ];
    for (next, expected) in cases {
        let topology = topology(&clock);
        topology.publish_own(Some(own(Role::Replica, 99, &[(1, 0)], clock.monotonic())));
        let waiting = topology.wait(mark, far);
        let publishing = async {
            // `join!` polls in order: the waiter has registered by now.
            assert!(topology.has_waiters());
            topology.publish_own(next.clone());
        };
        let (waited, ()) = tokio::join!(waiting, publishing);
        assert_eq!(waited, expected, "{next:?}");
        assert!(!topology.has_waiters());
    }
}

#[tokio::test]
async fn a_wait_ends_at_its_deadline() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    topology.publish_own(Some(own(Role::Replica, 99, &[(1, 0)], clock.monotonic())));
    let mark = Bookmark { epoch: Epoch::FIRST, lsn: Lsn::new(100) };
    let soon = crate::vocab::SystemClock.monotonic() + Duration::from_millis(5);
    assert_eq!(topology.wait(mark, soon).await, Waited::NotInTime);
}

#[tokio::test]
async fn a_write_is_kept_elsewhere_once_a_replica_of_its_epoch_has_come_to_it() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    let us = region("us-east-1");
    let at = Bookmark { epoch: Epoch::new(2).unwrap(), lsn: Lsn::new(50) };
    let past = clock.monotonic();
    assert!(!topology.wait_elsewhere(at, past).await, "not heard of");
    let told = async |role, lsn, epochs: &[(u32, u64)], quarantine: Option<&str>| {
        let mut peer = peer(role, lsn, epochs, clock.monotonic());
        peer.report.as_mut().unwrap().quarantine = quarantine.map(str::to_owned);
        topology.publish_peer(&us, peer);
        topology.wait_elsewhere(at, past).await
    };
    let both = [(1, 0), (2, 40)];
    assert!(!told(Role::Replica, 49, &both, None).await);
    assert!(!told(Role::Replica, 99, &[(1, 0)], None).await, "another log");
    assert!(!told(Role::Primary, 99, &both, None).await, "not a copy of this one");
    assert!(!told(Role::Replica, 99, &both, Some("forked off")).await);
    assert!(told(Role::Replica, 50, &both, None).await);
    let alone = Topology::new(us, [], Duration::from_secs(3), LeaseConfig::default(), clock);
    assert!(alone.wait_elsewhere(at, past).await, "there is nowhere else");
}

#[tokio::test]
async fn what_a_replica_has_of_an_epoch_that_has_not_begun_is_not_told() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    let replica = |lsn, unbegun| {
        let asked_at = clock.monotonic();
        let known = own(Role::Replica, lsn, &[(1, 0)], asked_at);
        Own { unbegun, streaming: Some(true), ..known }
    };
    let deadline = clock.monotonic();
    topology.publish_own(Some(replica(5, false)));
    // Nothing moves: a read need not wait for another look.
    clock.advance(Duration::from_millis(1));
    assert!(topology.is_of_its_epoch(deadline).await);
    let epoch = Epoch::new(2).unwrap();
    let promise = Promise {
        epoch,
        region: region("us-east-1"),
        planned: false,
        after: None,
        members: None,
        accepts_loss: false,
    };
    topology.publish_promise(Some(promise), None);
    assert!(!topology.is_of_its_epoch(deadline).await, "an old look is none");
    topology.publish_own(Some(replica(6, false)));
    assert!(topology.is_of_its_epoch(deadline).await);
    assert!(topology.look(|snapshot| snapshot.tellable(clock.monotonic()).is_some()));
    // Its primary was promoted, and what it wrote since is of no epoch that is known.
    topology.publish_own(Some(replica(9, true)));
    assert!(!topology.is_of_its_epoch(deadline).await);
    topology.look(|snapshot| {
        assert!(snapshot.tellable(clock.monotonic()).is_none());
        assert_eq!(snapshot.own.as_ref().unwrap().lsn, Lsn::new(6));
    });
}

#[test]
fn what_was_confirmed_once_is_shown_after_the_standby_has_gone_and_no_more() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    let publish = |lsn, confirmed, epochs: &[(u32, u64)]| {
        let own = own(Role::Primary, lsn, epochs, clock.monotonic());
        topology.publish_own(Some(Own { confirmed: Some(Lsn::new(confirmed)), ..own }));
    };
    let standing = |epoch, lsn| {
        let bookmark = Bookmark { epoch: Epoch::new(epoch).unwrap(), lsn: Lsn::new(lsn) };
        topology.look(|snapshot| snapshot.own.as_ref().unwrap().standing(bookmark))
    };
    publish(100, 0, &[(1, 0)]);
    assert_eq!(standing(1, 50), Standing::Behind, "nobody has confirmed anything yet");
    publish(100, 80, &[(1, 0)]);
    topology.publish_own(None);
    publish(120, 0, &[(1, 0)]);
    assert_eq!((standing(1, 80), standing(1, 81)), (Standing::Reached, Standing::Behind));
    publish(120, 90, &[(1, 0)]);
    publish(120, 70, &[(1, 0)]);
    assert_eq!(standing(1, 90), Standing::Reached, "one that lags is not the one that confirmed");
    // Of the next epoch nothing is known by that.
    publish(100, 0, &[(1, 0), (2, 95)]);
    assert_eq!((standing(1, 95), standing(2, 96)), (Standing::Reached, Standing::Behind));
}

#[test]
fn of_a_primary_that_may_not_write_nobody_learns_how_old_he_is() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    let us = region("us-east-1");
    let replica = || own(Role::Replica, 5, &[(1, 0)], clock.monotonic());
    topology.publish_peer(&us, peer(Role::Primary, 5, &[(1, 0)], clock.monotonic()));
    topology.publish_own(Some(replica()));
    let bound = || topology.look(|s| s.lag.unwrap().bound(clock.monotonic()));
    assert_eq!(bound(), Duration::ZERO);
    clock.advance(Duration::from_secs(2));
    let mut fenced = peer(Role::Primary, 5, &[(1, 0)], clock.monotonic());
    fenced.report.as_mut().unwrap().writable = false;
    topology.publish_peer(&us, fenced);
    topology.publish_own(Some(replica()));
    assert_eq!(bound(), Duration::from_secs(2));
}

#[test]
fn a_process_is_starting_until_it_knows_what_it_is_or_had_the_time_to() {
    let clock = Arc::new(ManualClock::new());
    let at = || clock.monotonic();
    let begun = || {
        let topology = topology(&clock);
        topology.begins();
        topology
    };
    let starting = |topology: &Topology| topology.look(|snapshot| snapshot.is_starting(at()));
    let (us, eu) = (region("us-east-1"), region("eu-west-1"));
    let second = Epoch::new(2).unwrap();
    let reigning = || own(Role::Primary, 5, &[(1, 0), (2, 4)], at());
    assert!(starting(&topology(&clock)), "not before its loops have begun either");
    // It is a standby: that it takes no writes is the truth. So is it of a fence.
    let standby = begun();
    assert!(starting(&standby));
    standby.publish_own(Some(own(Role::Replica, 5, &[(1, 0), (2, 4)], at())));
    assert!(!starting(&standby));
    let fenced = begun();
    fenced.publish_own(Some(Own { read_only: true, ..reigning() }));
    assert!(!starting(&fenced));
    // A primary that has been told by nobody, by one, by a majority that its epoch goes on.
    let primary = begun();
    primary.publish_own(Some(reigning()));
    assert!(starting(&primary));
    primary.publish_peer(&us, peer(Role::Replica, 5, &[(1, 0), (2, 4)], at()));
    primary.granted(&eu, second, at());
    assert!(starting(&primary));
    primary.granted(&us, second, at());
    assert!(!starting(&primary));
    clock.advance(Duration::from_secs(3));
    primary.publish_own(Some(reigning()));
    assert_eq!(primary.primary(), PrimaryAt::Fenced(eu.clone()));
    assert!(!starting(&primary), "a lease that has run out is no ignorance");
    // Of a later epoch elsewhere.
    let deposed = begun();
    deposed.publish_own(Some(own(Role::Primary, 5, &[(1, 0), (2, 4)], at())));
    deposed.publish_peer(&us, peer(Role::Primary, 9, &[(1, 0), (2, 4), (3, 8)], at()));
    assert!(!starting(&deposed));
    // Nobody grants anything: then it takes none, and says so.
    let alone = begun();
    alone.publish_own(Some(reigning()));
    clock.advance(Duration::from_millis(2_999));
    assert!(starting(&alone));
    clock.advance(Duration::from_millis(1));
    assert!(!starting(&alone));
}

#[test]
fn that_a_region_took_writes_stands_against_one_who_does_not_know() {
    let at = SystemClock.monotonic();
    let told = |role, epochs: &[(u32, u64)]| peer(role, 5, epochs, at).report.unwrap();
    let known = peer(Role::Primary, 5, &[(1, 0)], at);
    let begun = TopologyReport {
        role: None,
        epochs: Vec::new(),
        writable: false,
        starting: true,
        ..told(Role::Primary, &[(1, 0)])
    };
    assert!(known.stands_against(&begun));
    let unleased = TopologyReport { writable: false, ..told(Role::Primary, &[(1, 0)]) };
    assert!(known.stands_against(&TopologyReport { starting: true, ..unleased.clone() }));
    assert!(!known.stands_against(&unleased), "it knows");
    let later = told(Role::Replica, &[(1, 0), (2, 4)]);
    assert!(!known.stands_against(&TopologyReport { starting: true, ..later }));
    let promise = Some(Promise {
        epoch: Epoch::new(2).unwrap(),
        region: region("eu-west-1"),
        planned: true,
        after: None,
        members: None,
        accepts_loss: false,
    });
    assert!(!known.stands_against(&TopologyReport { promise, ..begun.clone() }));
    // What was no good is not kept.
    let mut fenced = known;
    fenced.report.as_mut().unwrap().writable = false;
    assert!(!fenced.stands_against(&begun));
    assert!(!Peer::default().stands_against(&begun));
}

#[tokio::test]
async fn who_comes_to_a_process_that_has_just_begun_waits_for_what_it_learns() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    let soon = SystemClock.monotonic() + Duration::from_secs(60);
    assert!(!topology.learn(soon).await, "before it begins it learns nothing");
    topology.begins();
    // First that it can be read, then who takes the writes.
    let readable = async {
        topology.publish_own(Some(own(Role::Replica, 5, &[(1, 0)], clock.monotonic())));
    };
    assert!(tokio::join!(topology.learn(soon), readable).0);
    let known = async {
        let us = peer(Role::Primary, 5, &[(1, 0)], clock.monotonic());
        topology.publish_peer(&region("us-east-1"), us);
    };
    assert!(tokio::join!(topology.learn(soon), known).0);
    assert!(!topology.learn(soon).await, "there is nothing new to learn");
}

#[test]
fn a_move_that_goes_on_is_one_again() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    topology.publish_own(Some(own(Role::Replica, 5, &[(1, 0)], clock.monotonic())));
    let promise = Promise {
        epoch: Epoch::new(2).unwrap(),
        region: region("eu-west-1"),
        planned: true,
        after: None,
        members: None,
        accepts_loss: false,
    };
    let moves = || topology.look(|snapshot| snapshot.awaits_a_primary(clock.monotonic()));
    topology.promises(&promise);
    assert!(moves());
    clock.advance(Duration::from_secs(31));
    // Read again in Redis it is what it was.
    topology.publish_promise(Some(promise.clone()), None);
    assert!(!moves());
    // Another process of this region was asked for it anew.
    let asked = |at_ms, ago| Some(AskedAt { at_ms, ago: Duration::from_secs(ago) });
    topology.publish_promise(Some(promise.clone()), asked(7, 1));
    assert!(moves());
    clock.advance(Duration::from_secs(31));
    // Seen again, also after a Redis that had forgotten it, or noticed long after, it is none.
    for told in [asked(7, 32), None, asked(7, 32), asked(9, 31)] {
        topology.publish_promise(Some(promise.clone()), told);
        assert!(!moves());
    }
    topology.promises(&promise);
    assert!(moves());
    // What the note says of an earlier time takes nothing back of what this process was asked since.
    topology.publish_promise(Some(promise), asked(11, 40));
    assert!(moves());
}
