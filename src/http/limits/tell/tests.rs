use super::*;
use crate::{
    config::{ClusterConfig, EnvelopeKey, LimitsConfig, RoutingConfig, SlowBucket},
    http::limits::sign_in::SignIn,
    storage::redis::testing::{Server, connect},
    telemetry::Telemetry,
    topology::{
        ask::{self, Answered, Asked},
        probe::peer_client,
        seal::Sealer,
    },
    vocab::{OpKind, Region, SystemClock, guess::Account},
};
use actix_web::{App, HttpResponse, HttpServer, web};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::{sync::Notify, task::JoinSet};

const BURST: u32 = 20;

/// Ends before the pass' own time limit.
const SOON: Duration = Duration::from_secs(60);

fn region(name: &str) -> Region {
    name.parse().unwrap()
}

/// A region whose only other one is `peer`. So slow that no token comes back during a test.
fn limiter(redis: &Server, peer: &str) -> Arc<Limiter> {
    let bucket = SlowBucket { per_hour: 1, burst: BURST };
    let config = LimitsConfig {
        sign_in_address: bucket,
        sign_in_account: bucket,
        sign_in_familiar: bucket,
        ..LimitsConfig::default()
    };
    let limiter = Limiter::new(&config, connect(redis.port), Arc::new(SystemClock));
    Arc::new(limiter.telling([region(peer)].into_iter()))
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new(&region("us-east-1"), &Telemetry::off()))
}

fn sealer() -> Sealer {
    let secret = "o".repeat(32).into();
    Sealer::new(&ClusterConfig {
        envelope_keys: BTreeMap::from([("k".to_owned(), EnvelopeKey { secret })]),
        envelope_key_current: "k".to_owned(),
        ..ClusterConfig::default()
    })
}

fn at(email: &str, address: u8) -> SignIn {
    let account = Account::of("ours", &email.parse().unwrap());
    SignIn { address: IpAddr::from([198, 51, 100, address]), account, familiar: false }
}

/// How many wrong passwords are looked at, until no more are.
async fn guessed(limiter: &Limiter, count: u32, tried: SignIn, op: &Op) -> u32 {
    let (metrics, mut looked_at) = (metrics(), 0);
    for _ in 0..count {
        looked_at += u32::from(limiter.sign_in(tried, op, &metrics).await.allowed);
    }
    looked_at
}

/// What becomes of a question at the peer.
#[derive(Clone, Copy, PartialEq)]
enum Peer {
    Answers,
    /// A program that does not know the question, or a process that is about to end.
    Refuses,
    /// Takes what it is told, and its answer is lost.
    FallsSilent,
}

/// A peer with a Redis of its own.
struct Neighbour {
    limiter: Arc<Limiter>,
    now: std::sync::Mutex<Peer>,
    asked: AtomicUsize,
    silent: Notify,
    sealer: Sealer,
}

async fn answer(peer: web::Data<Neighbour>, body: String) -> HttpResponse {
    peer.asked.fetch_add(1, Ordering::Relaxed);
    let op = Op::system(OpKind::Test, SOON);
    let now = *peer.now.lock().unwrap();
    if now == Peer::Refuses {
        return HttpResponse::Forbidden().finish();
    }
    let asked = Asked::open(&peer.sealer, &body, &region("eu-west-1"), op.now()).unwrap();
    let Question::Guesses(guesses) = asked.question else { panic!("another question") };
    peer.limiter.told(&guesses, &op).await.unwrap();
    if now == Peer::FallsSilent {
        peer.silent.notify_one();
        std::future::pending::<()>().await;
    }
    let answered = Answered { from: region("eu-west-1"), id: asked.id, answer: Answer::Noted };
    HttpResponse::Ok().body(answered.seal(&peer.sealer))
}

/// Two regions, each with its own Redis, and the loop of the first for the second.
struct Bench {
    here: Arc<Limiter>,
    peer: web::Data<Neighbour>,
    asker: Asker,
    op: Op,
    _redis: [Server; 2],
    _listening: JoinSet<std::io::Result<()>>,
}

async fn bench() -> Bench {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redis = [Server::start().await, Server::start().await];
    let peer = web::Data::new(Neighbour {
        limiter: limiter(&redis[1], "us-east-1"),
        now: std::sync::Mutex::new(Peer::Answers),
        asked: AtomicUsize::new(0),
        silent: Notify::new(),
        sealer: sealer(),
    });
    let shared = peer.clone();
    let server = HttpServer::new(move || {
        App::new().app_data(shared.clone()).route(ask::PATH, web::post().to(answer))
    });
    let server = server.workers(1).disable_signals().bind_auto_h2c(("127.0.0.1", 0)).unwrap();
    let base = format!("http://{}", server.addrs()[0]);
    let mut listening = JoinSet::new();
    listening.spawn_local(server.run());
    let client = peer_client(&RoutingConfig::default(), None).unwrap();
    let asker = Asker::new(client, sealer(), region("eu-west-1"), &base);
    let op = Op::system(OpKind::Test, SOON);
    let here = limiter(&redis[0], "eu-west-1");
    Bench { here, peer, asker, op, _redis: redis, _listening: listening }
}

impl Bench {
    fn teller(&self) -> TellLoop {
        TellLoop::new(Arc::clone(&self.here), self.asker.clone(), metrics())
    }

    fn becomes(&self, peer: Peer) {
        *self.peer.now.lock().unwrap() = peer;
    }

    /// How many guesses the peer still looks at, at that account.
    async fn left_there(&self, email: &str) -> u32 {
        guessed(&self.peer.limiter, BURST + 1, at(email, 99), &self.op).await
    }
}

#[actix_web::test]
async fn what_is_guessed_here_is_taken_there_and_told_to_nobody_further() {
    let bench = bench().await;
    let mut teller = bench.teller();
    assert_eq!(teller.tick(&bench.op).await, Tick::Idle);
    assert_eq!(bench.peer.asked.load(Ordering::Relaxed), 0);
    let ada = at("ada@example.com", 1);
    assert_eq!(guessed(&bench.here, 8, ada, &bench.op).await, 8);
    bench.here.signed_in(ada, &bench.op).await;
    assert_eq!(teller.tick(&bench.op).await, Tick::Worked(2));
    assert_eq!(teller.tick(&bench.op).await, Tick::Idle);
    let further = bench.peer.limiter.owed.values().next().unwrap();
    assert_eq!(further.next(&bench.op), (None, 0));
    assert_eq!(bench.left_there("ada@example.com").await, BURST - 7);
    // The address has paid there too: for what it tried here, and nothing else.
    let same = at("eda@example.com", 1);
    assert_eq!(guessed(&bench.peer.limiter, BURST, same, &bench.op).await, BURST - 7);
}

#[actix_web::test]
async fn an_account_that_is_guessed_at_here_until_it_is_refused_is_refused_there() {
    let bench = bench().await;
    let ada = at("ada@example.com", 1);
    assert_eq!(guessed(&bench.here, 2 * BURST, ada, &bench.op).await, BURST);
    bench.teller().tick(&bench.op).await;
    assert_eq!(bench.left_there("ada@example.com").await, 0);
    assert_eq!(bench.left_there("eda@example.com").await, BURST);
}

#[actix_web::test]
async fn a_peer_that_was_away_gets_what_it_missed() {
    let bench = bench().await;
    let mut teller = bench.teller();
    bench.becomes(Peer::Refuses);
    for address in 1..=3 {
        guessed(&bench.here, 3, at("ada@example.com", address), &bench.op).await;
        assert!(matches!(teller.tick(&bench.op).await, Tick::Waiting(_)));
    }
    assert_eq!(bench.peer.asked.load(Ordering::Relaxed), 3);
    bench.becomes(Peer::Answers);
    // What it had been told first, and then what came together since.
    assert_eq!(teller.tick(&bench.op).await, Tick::Worked(2 + 3));
    assert_eq!(bench.left_there("ada@example.com").await, BURST - 9);
}

#[actix_web::test]
async fn a_pass_that_was_cut_off_before_its_answer_counts_once() {
    let bench = bench().await;
    guessed(&bench.here, 5, at("ada@example.com", 1), &bench.op).await;
    bench.becomes(Peer::FallsSilent);
    let mut first = bench.teller();
    tokio::select! {
        tick = first.tick(&bench.op) => panic!("{tick:?}"),
        () = bench.peer.silent.notified() => {}
    }
    drop(first);
    bench.becomes(Peer::Answers);
    assert_eq!(bench.teller().tick(&bench.op).await, Tick::Worked(2));
    assert_eq!(bench.peer.asked.load(Ordering::Relaxed), 2);
    assert_eq!(bench.left_there("ada@example.com").await, BURST - 5);
}
