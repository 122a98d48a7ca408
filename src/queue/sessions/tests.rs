use super::*;
use crate::{
    config::LeaseConfig,
    storage::{
        global::{
            sessions::Live,
            testing::{Fixture, on_database},
        },
        redis::{
            sessions::{end_owed, owe},
            testing::{Server, connect},
        },
    },
    telemetry::Telemetry,
    vocab::{self, Bookmark, Lsn, OpKind, TenantId, UserId},
};
use std::{collections::BTreeSet, sync::Mutex};

#[derive(Default)]
struct Ear(Mutex<BTreeSet<TokenHash>>);

impl Heard for Ear {
    fn ended(&self, token: &TokenHash, _: &Op) {
        self.0.lock().unwrap().insert(*token);
    }
}

fn op() -> Op {
    Op::system(OpKind::Test, Duration::from_secs(20))
}

fn known(n: u32, op: &Op) -> Known {
    let home: Region = "eu-west-1".parse().unwrap();
    let (now, mut token) = (op.now(), [0; 32]);
    token[..4].copy_from_slice(&n.to_be_bytes());
    let session = Live {
        id: SessionId::mint(op),
        tenant: TenantId::mint(op),
        user: UserId::mint(op),
        role: vocab::Role::Viewer,
        generation: 1,
        created_at: now,
        expires_at: now + chrono::Duration::days(7),
    };
    Known {
        session,
        token: TokenHash::new(token),
        home: home.clone(),
        device: "curl/8".into(),
        address: "203.0.113.9".into(),
        seen_at: now,
        seen_in: home,
        ended_at: None,
    }
}

/// A region that hears of no primary.
fn alone(global: &Global, redis: &Redis, ear: &Arc<Ear>) -> RegistrarLoop {
    let (eu, us): (Region, Region) = ("eu-west-1".parse().unwrap(), "us-east-1".parse().unwrap());
    let metrics = Arc::new(Metrics::new(&eu, &Telemetry::off()));
    let (lease, clock) = (LeaseConfig::default(), op().clock);
    let topology = Topology::new(eu, [us], Duration::from_secs(3), lease, clock);
    let registrar = Registrar::new(global.clone(), topology, Arc::default(), 100);
    RegistrarLoop::new(registrar, redis.clone(), ear.clone(), metrics)
}

async fn goes_round(at: Fixture) {
    let server = Server::start().await;
    let (ear, op, redis) = (Arc::new(Ear::default()), op(), connect(server.port));
    // More than a pass tells.
    let ended = 3 * TOLD_PAGES_MAX * TOGETHER_MAX / 2;
    for n in 0..ended {
        let known = Known { ended_at: Some(op.now()), ..known(n, &op) };
        end_owed(&redis, &Owed { known, at: None }, Duration::from_secs(60), &op).await.unwrap();
    }
    let mut registrar = alone(&at.global, &redis, &ear);
    let told = async |registrar: &mut RegistrarLoop| {
        assert!(matches!(registrar.tick(&op).await, Tick::Waiting(_)));
        ear.0.lock().unwrap().len()
    };
    let first = told(&mut registrar).await;
    assert!(first < ended as usize, "{first} in one pass");
    assert_eq!(told(&mut registrar).await, ended as usize);
    // Another process begins with whatever it reads, and comes to the same.
    ear.0.lock().unwrap().clear();
    let mut other = alone(&at.global, &redis, &ear);
    told(&mut other).await;
    assert_eq!(told(&mut other).await, ended as usize);
}

#[test]
fn every_end_that_is_owed_comes_to_be_known_while_there_is_no_primary() {
    on_database("queue::sessions::goes_round", |pool| async move {
        goes_round(Fixture::new(&pool).await).await;
    });
}

async fn on_its_way(at: Fixture) {
    let server = Server::start().await;
    let (ear, op, redis) = (Arc::new(Ear::default()), op(), connect(server.port));
    let place = |lsn| Bookmark { epoch: Epoch::FIRST, lsn: Lsn::new(lsn) };
    // Recorded, and the primary died before anybody else had it; a use; and one that has run out since.
    let ended = Known { ended_at: Some(op.now()), ..known(1, &op) };
    let used = Known { seen_at: op.now() + chrono::Duration::hours(1), ..known(2, &op) };
    let mut over = known(3, &op);
    over.session.expires_at = op.now();
    for (known, at) in [(ended.clone(), Some(place(7))), (used, None), (over, None)] {
        owe(&redis, &Owed { known, at }, &op).await.unwrap();
    }
    let mut registrar = alone(&at.global, &redis, &ear);
    assert!(matches!(registrar.tick(&op).await, Tick::Waiting(_)));
    assert_eq!(*ear.0.lock().unwrap(), BTreeSet::from([ended.token]));
    assert_eq!(owed_count(&redis, &op).await.unwrap(), 2);
}

#[test]
fn an_end_that_died_with_the_primary_on_its_way_is_told_and_what_ran_out_is_let_go() {
    on_database("queue::sessions::on_its_way", |pool| async move {
        on_its_way(Fixture::new(&pool).await).await;
    });
}
