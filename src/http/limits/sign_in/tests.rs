use super::{super::owed::SUBJECTS_MAX, *};
use crate::{
    config::{LimitsConfig, SlowBucket},
    storage::redis::testing::{Server, connect},
    telemetry::{Telemetry, metrics::Bucket},
    vocab::{Email, OpKind, SystemClock},
};
use std::sync::Arc;

const ADDRESS: u32 = 6;
const ACCOUNT: u32 = 4;
const FAMILIAR: u32 = 3;

/// So slow that no token comes back during a test.
fn config() -> LimitsConfig {
    let bucket = |burst| SlowBucket { per_hour: 1, burst };
    LimitsConfig {
        sign_in_address: bucket(ADDRESS),
        sign_in_account: bucket(ACCOUNT),
        sign_in_familiar: bucket(FAMILIAR),
        ..LimitsConfig::default()
    }
}

/// One process.
struct Process {
    limiter: Limiter,
    metrics: Metrics,
    op: Op,
}

fn process(port: u16) -> Process {
    Process {
        limiter: Limiter::new(&config(), connect(port), Arc::new(SystemClock)),
        metrics: Metrics::new(&"us-east-1".parse().unwrap(), &Telemetry::off()),
        op: Op::system(OpKind::Test, Duration::from_secs(60)),
    }
}

impl Process {
    async fn tries(&self, tried: SignIn) -> Standing {
        self.limiter.sign_in(tried, &self.op, &self.metrics).await
    }

    /// How many of so many wrong passwords are looked at.
    async fn guesses(&self, count: u32, tried: impl Fn(u32) -> SignIn) -> u32 {
        let mut looked_at = 0;
        for turn in 0..count {
            looked_at += u32::from(self.tries(tried(turn)).await.allowed);
        }
        looked_at
    }
}

fn account(email: &str) -> Account {
    let email: Email = email.parse().unwrap();
    Account::of("ours", &email)
}

/// By somebody new at the address of that number.
fn stranger(email: &str, address: u32) -> SignIn {
    let address = IpAddr::V4((0xc633_6400 + address).into());
    SignIn { address, account: account(email), familiar: false }
}

fn familiar(email: &str, address: u32) -> SignIn {
    SignIn { familiar: true, ..stranger(email, address) }
}

#[tokio::test]
async fn two_processes_look_at_no_more_passwords_than_one() {
    let server = Server::start().await;
    let both = [process(server.port), process(server.port)];
    let mut looked_at = 0;
    for turn in 0..4 * ACCOUNT {
        let here = &both[usize::from(turn % 2 == 1)];
        looked_at += here.guesses(1, |_| stranger("ada@example.com", turn)).await;
    }
    assert_eq!(looked_at, ACCOUNT);
    let refused = both[0].tries(stranger("ada@example.com", 99)).await;
    assert_eq!((refused.name, refused.remaining), (Bucket::SignInAccount, 0));
    assert!(refused.reset > Duration::from_mins(55), "{refused:?}");
    assert!(both[1].tries(stranger("eda@example.com", 99)).await.allowed);
}

#[tokio::test]
async fn a_right_password_costs_nothing_and_earns_nothing() {
    let server = Server::start().await;
    let process = process(server.port);
    let ada = stranger("ada@example.com", 1);
    for _ in 0..3 * ADDRESS {
        assert!(process.tries(ada).await.allowed);
        process.limiter.signed_in(ada, &process.op).await;
    }
    process.limiter.signed_in(ada, &process.op).await;
    assert_eq!(process.guesses(2 * ACCOUNT, |_| ada).await, ACCOUNT);
    // The address has what the account's bucket left to it.
    let others = process.guesses(2 * ADDRESS, |turn| stranger(&format!("e{turn}@example.com"), 1));
    assert_eq!(others.await, ADDRESS - ACCOUNT);
}

#[tokio::test]
async fn nobody_elsewhere_keeps_an_owner_out() {
    let server = Server::start().await;
    let process = process(server.port);
    assert_eq!(process.guesses(20, |turn| stranger("ada@example.com", 10 + turn)).await, ACCOUNT);
    assert!(!process.tries(stranger("ada@example.com", 1)).await.allowed);
    // At home, and at work.
    assert_eq!(process.guesses(20, |_| familiar("ada@example.com", 1)).await, FAMILIAR);
    let refused = process.tries(familiar("ada@example.com", 1)).await;
    assert_eq!(refused.name, Bucket::SignInFamiliar);
    assert!(process.tries(familiar("ada@example.com", 2)).await.allowed);
}

#[tokio::test]
async fn an_address_is_refused_whatever_the_account_and_then_costs_the_account_nothing() {
    let server = Server::start().await;
    let process = process(server.port);
    let spray = process.guesses(20, |turn| stranger(&format!("e{turn}@example.com"), 1));
    assert_eq!(spray.await, ADDRESS);
    let refused = process.tries(stranger("ada@example.com", 1)).await;
    assert_eq!((refused.allowed, refused.name), (false, Bucket::SignInAddress));
    assert!(!process.tries(familiar("ada@example.com", 1)).await.allowed);
    assert_eq!(process.guesses(20, |turn| stranger("ada@example.com", 2 + turn)).await, ACCOUNT);
    let text = process.metrics.encode();
    let counted = |bucket: &str, verdict: &str, count: u32| {
        let line = format!(
            r#"godwit_rate_limit_decisions_total{{bucket="{bucket}",source="shared",verdict="{verdict}"}} {count}"#
        );
        assert!(text.contains(&line), "{line}");
    };
    counted("sign_in_address", "allowed", ADDRESS + ACCOUNT);
    counted("sign_in_address", "refused", 20 - ADDRESS + 2);
    counted("sign_in_account", "allowed", ADDRESS + ACCOUNT);
    counted("sign_in_account", "refused", 20 - ACCOUNT);
}

#[tokio::test]
async fn who_is_let_through_learns_nothing_of_the_account() {
    let server = Server::start().await;
    let process = process(server.port);
    process.guesses(ACCOUNT - 1, |turn| stranger("ada@example.com", 10 + turn)).await;
    let mut seen = Vec::new();
    for tried in [
        stranger("ada@example.com", 1),
        stranger("nobody@example.com", 2),
        familiar("ada@example.com", 3),
    ] {
        let standing = process.tries(tried).await;
        seen.push((standing.allowed, standing.name, standing.rate, standing.remaining));
    }
    assert!(seen.iter().all(|told| *told == seen[0]), "{seen:?}");
}

#[tokio::test]
async fn no_address_of_a_person_stands_in_redis() {
    let server = Server::start().await;
    let process = process(server.port);
    process.tries(stranger("ada@example.com", 1)).await;
    process.tries(familiar("ada@example.com", 1)).await;
    let keys = server.keys().await;
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| !key.contains("ada") && !key.contains('@')), "{keys:?}");
}

#[tokio::test]
async fn without_redis_each_process_bounds_by_itself() {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let process = process(mute.local_addr().unwrap().port());
    let ada = stranger("ada@example.com", 1);
    let first = process.tries(ada).await;
    assert!(first.allowed && first.local);
    // Whoever comes next does not wait for Redis, and neither does what is given back.
    process.limiter.signed_in(ada, &process.op).await;
    let more = process.guesses(20, |turn| stranger("ada@example.com", 2 + turn)).await;
    assert_eq!(more, ACCOUNT - 1);
}

#[tokio::test]
async fn what_another_region_is_not_told_of_is_counted() {
    let server = Server::start().await;
    let mut process = process(server.port);
    let peer = "eu-west-1".parse().unwrap();
    process.limiter = process.limiter.telling([peer].into_iter());
    let owed = process.limiter.owed.values().next().unwrap();
    for number in 0..u32::try_from(SUBJECTS_MAX).unwrap() {
        assert!(owed.guessed(Guessed::Address(IpAddr::V4(number.into()).into()), &process.op));
    }
    assert!(process.tries(stranger("ada@example.com", 1)).await.allowed);
    assert!(process.metrics.encode().contains("godwit_guesses_untold_total 2\n"));
}
