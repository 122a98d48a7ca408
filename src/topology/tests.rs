use super::*;
use crate::vocab::{Clock as _, Epoch, EpochHistory, EpochStart, Lsn, clock::ManualClock};

fn region(name: &str) -> Region {
    name.parse().unwrap()
}

fn starts(epochs: &[(u32, u64)]) -> Vec<EpochStart> {
    let start = |&(epoch, lsn): &(u32, u64)| EpochStart {
        epoch: Epoch::new(epoch).unwrap(),
        start_lsn: Lsn::new(lsn),
        region: region("us-east-1"),
    };
    epochs.iter().map(start).collect()
}

fn own(role: Role, lsn: u64, epochs: &[(u32, u64)], asked_at: Instant) -> Own {
    let history = Arc::new(EpochHistory::new(starts(epochs)).unwrap());
    Own { role, lsn: Lsn::new(lsn), history, streaming: None, asked_at }
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
        schema: None,
        build: "test".into(),
        peers: std::collections::BTreeMap::new(),
    };
    Peer { report: Some(report), heard_at: Some(heard_at), ..Peer::default() }
}

fn topology(clock: &Arc<ManualClock>) -> Topology {
    let stale_after = Duration::from_secs(3);
    Topology::new(region("eu-west-1"), [region("us-east-1")], stale_after, clock.clone())
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
fn a_primary_of_an_older_epoch_is_not_the_primary() {
    let clock = Arc::new(ManualClock::new());
    let topology = topology(&clock);
    topology.publish_own(Some(own(Role::Primary, 5, &[(1, 0)], clock.monotonic())));
    assert_eq!(topology.primary(), PrimaryAt::Here(Epoch::FIRST));
    let newer = peer(Role::Replica, 5, &[(1, 0), (2, 4)], clock.monotonic());
    topology.publish_peer(&region("us-east-1"), newer);
    assert_eq!(topology.primary(), PrimaryAt::Unknown);
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
