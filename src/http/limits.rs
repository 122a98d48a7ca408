//! Rate limits: token buckets in the region's Redis, spent through local leases.
//!
//! A process takes tokens from the shared bucket a handful at a time and spends them here, so that
//! a busy credential does not cost one round trip per request (`docs/adr/0005-rate-limit-leases.md`).
//! The bucket's rate and burst hold for the region; what a lease leaves unspent for a second is
//! lost to the caller, never gained. While Redis is away each process bounds by itself.
//!
//! Tries to sign in are counted one by one, without leases, and told to the other regions
//! ([`sign_in`], `docs/adr/0013-sign-in-throttles.md`).

pub mod forget;
mod owed;
pub mod sign_in;
pub mod tell;

use crate::{
    config::{Cidr, LimitsConfig, Rate},
    storage::{
        StorageError,
        redis::{
            Redis,
            limits::{self, LimitKind, Taken},
        },
    },
    telemetry::metrics::{Bucket as BucketLabel, Metrics, RateDecision, Verdict},
    vocab::{
        ApiKeyId, Op, Region, SharedClock, UserId,
        guess::{Guessed, Network},
    },
};
use actix_web::{HttpRequest, http::header};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use owed::Owed;
use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A lease's tokens are given up after this long unspent.
const LEASE_MS: u64 = 1_000;
/// Share of a second's tokens that one lease takes.
const LEASES_PER_SECOND: u32 = 20;
/// After Redis failed to answer, the local bound decides alone for this long.
const AWAY_MS: u64 = 1_000;
/// Callers remembered at most, each kind.
const CALLERS_MAX: u64 = 100_000;

/// How a caller stands, for the `RateLimit` headers.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    pub name: BucketLabel,
    pub rate: Rate,
    pub remaining: u32,
    pub reset: Duration,
    pub local: bool,
    pub allowed: bool,
}

impl Standing {
    /// Who decided, for the log.
    #[must_use]
    pub const fn source(&self) -> &'static str {
        match (self.allowed, self.local) {
            (true, false) => "allowed",
            (true, true) => "allowed-local",
            (false, false) => "refused",
            (false, true) => "refused-local",
        }
    }
}

/// Whose bucket it is. Spelled out only where Redis is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    Credential(ApiKeyId),
    Person(UserId),
    Network(Network),
    Guessed(Guessed),
}

struct Kind {
    of: LimitKind,
    label: BucketLabel,
    rate: Rate,
    leases: moka::sync::Cache<Subject, Arc<Lease>>,
    local: DefaultKeyedRateLimiter<Subject>,
}

#[derive(Default)]
struct Lease {
    tokens: AtomicI64,
    /// Milliseconds since the limiter began; past it the tokens are void.
    until_ms: AtomicU64,
    /// Left in the shared bucket when it was last asked.
    shared: AtomicU64,
    /// Shared bucket is empty until then.
    denied_until_ms: AtomicU64,
    refill: tokio::sync::Mutex<()>,
}

/// All rate limits of a process.
pub struct Limiter {
    redis: Redis,
    clock: SharedClock,
    began: Instant,
    away_until_ms: AtomicU64,
    credential: Kind,
    address: Kind,
    refused: Kind,
    registration: Kind,
    sign_in_address: Kind,
    sign_in_account: Kind,
    sign_in_familiar: Kind,
    person: Kind,
    /// What each other region has yet to be told.
    owed: BTreeMap<Region, Owed>,
}

impl Kind {
    fn new(kind: LimitKind, rate: impl Into<Rate>) -> Self {
        let rate = rate.into();
        let every = rate.per / rate.tokens.max(1);
        let quota = Quota::with_period(every.max(Duration::from_nanos(1)));
        let quota = quota.expect("a period of at least a nanosecond");
        let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
        let leases = moka::sync::Cache::builder().max_capacity(CALLERS_MAX);
        Self {
            of: kind,
            label: label(kind),
            rate,
            leases: leases.time_to_idle(Duration::from_secs(60)).build(),
            local: RateLimiter::keyed(quota.allow_burst(burst)),
        }
    }

    fn chunk(&self) -> u32 {
        let per_second = u64::from(self.rate.tokens) / self.rate.per.as_secs().max(1);
        let chunk = u32::try_from(per_second).unwrap_or(u32::MAX) / LEASES_PER_SECOND;
        chunk.clamp(1, self.rate.burst)
    }
}

impl Limiter {
    #[must_use]
    pub fn new(config: &LimitsConfig, redis: Redis, clock: SharedClock) -> Self {
        Self {
            redis,
            began: clock.monotonic(),
            clock,
            away_until_ms: AtomicU64::new(0),
            credential: Kind::new(LimitKind::Credential, config.credential),
            address: Kind::new(LimitKind::Address, config.address),
            refused: Kind::new(LimitKind::Refused, config.refused),
            registration: Kind::new(LimitKind::Registration, config.registration),
            sign_in_address: Kind::new(LimitKind::SignInAddress, config.sign_in_address),
            sign_in_account: Kind::new(LimitKind::SignInAccount, config.sign_in_account),
            sign_in_familiar: Kind::new(LimitKind::SignInFamiliar, config.sign_in_familiar),
            person: Kind::new(LimitKind::Person, config.person),
            owed: BTreeMap::new(),
        }
    }

    /// With other regions that are told of guesses, by a [`tell::TellLoop`] each.
    #[must_use]
    pub fn telling(mut self, peers: impl Iterator<Item = Region>) -> Self {
        self.owed = peers.map(|peer| (peer, Owed::default())).collect();
        self
    }

    pub async fn credential(&self, id: ApiKeyId, op: &Op, metrics: &Metrics) -> Standing {
        self.take(&self.credential, Subject::Credential(id), op, metrics).await
    }
    /// A person has one bucket, however often they are signed in.
    pub async fn person(&self, id: UserId, op: &Op, metrics: &Metrics) -> Standing {
        self.take(&self.credential, Subject::Person(id), op, metrics).await
    }
    pub async fn address(&self, address: IpAddr, op: &Op, metrics: &Metrics) -> Standing {
        self.take(&self.address, address.into(), op, metrics).await
    }
    /// Counts a refused credential against its address.
    pub async fn refused(&self, address: IpAddr, op: &Op, metrics: &Metrics) -> Standing {
        self.take(&self.refused, address.into(), op, metrics).await
    }
    /// Counts a try to make an account against its address.
    pub async fn registration(&self, address: IpAddr, op: &Op, metrics: &Metrics) -> Standing {
        self.take(&self.registration, address.into(), op, metrics).await
    }

    /// Counts a session that somebody begins, or their own password that they show, against them.
    pub async fn shown(&self, id: UserId, op: &Op, metrics: &Metrics) -> Standing {
        self.take(&self.person, Subject::Person(id), op, metrics).await
    }

    /// Forgets callers that the local bound has not seen for a while, and says how many.
    fn forget_idle(&self) -> u64 {
        let mut forgotten = 0;
        for kind in [
            &self.credential,
            &self.address,
            &self.refused,
            &self.registration,
            &self.sign_in_address,
            &self.sign_in_account,
            &self.sign_in_familiar,
            &self.person,
        ] {
            let before = kind.local.len();
            kind.local.retain_recent();
            kind.local.shrink_to_fit();
            forgotten += before.saturating_sub(kind.local.len());
        }
        u64::try_from(forgotten).unwrap_or(u64::MAX)
    }

    fn now_ms(&self) -> u64 {
        let since = self.clock.monotonic().saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn is_away(&self) -> bool {
        self.now_ms() < self.away_until_ms.load(Ordering::Relaxed)
    }

    fn went_away(&self, error: &StorageError) {
        tracing::warn!(error = %error, "rate limits are local while Redis does not answer");
        self.away_until_ms.store(self.now_ms() + AWAY_MS, Ordering::Relaxed);
    }

    async fn take(&self, kind: &Kind, id: Subject, op: &Op, metrics: &Metrics) -> Standing {
        let standing =
            if self.is_away() { local(kind, id) } else { self.take_shared(kind, id, op).await };
        count(standing, metrics);
        standing
    }

    async fn take_shared(&self, kind: &Kind, id: Subject, op: &Op) -> Standing {
        let lease = match kind.leases.get(&id) {
            Some(lease) => lease,
            None => kind.leases.get_with(id, Arc::default),
        };
        if let Some(standing) = self.spend(kind, &lease) {
            return standing;
        }
        let _one_at_a_time = lease.refill.lock().await;
        if let Some(standing) = self.spend(kind, &lease) {
            return standing;
        }
        // Who had the turn before may have found out, at the price of a time-out.
        if self.is_away() {
            return local(kind, id);
        }
        let name = id.to_string();
        let take = limits::take(&self.redis, kind.rate, kind.of, &name, kind.chunk(), op);
        match Box::pin(take).await {
            Ok(taken) => self.refill(kind, &lease, taken),
            Err(error) => {
                self.went_away(&error);
                local(kind, id)
            }
        }
    }

    /// From the lease, if it has any or is known to get none.
    fn spend(&self, kind: &Kind, lease: &Lease) -> Option<Standing> {
        let now = self.now_ms();
        let standing = |remaining: u64, reset_ms: u64, allowed| Standing {
            name: kind.label,
            rate: kind.rate,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset: Duration::from_millis(reset_ms),
            local: false,
            allowed,
        };
        if now < lease.until_ms.load(Ordering::Acquire) {
            let before = lease.tokens.fetch_sub(1, Ordering::Relaxed);
            if before > 0 {
                let left = u64::try_from(before - 1).unwrap_or(0);
                let remaining = left + lease.shared.load(Ordering::Relaxed);
                return Some(standing(remaining, full_in_ms(kind.rate, remaining), true));
            }
        }
        let denied_until = lease.denied_until_ms.load(Ordering::Relaxed);
        (now < denied_until).then(|| standing(0, denied_until - now, false))
    }

    fn refill(&self, kind: &Kind, lease: &Lease, taken: Taken) -> Standing {
        let now = self.now_ms();
        let allowed = taken.granted > 0;
        let left = u64::from(taken.granted.saturating_sub(1));
        let remaining = u64::from(taken.remaining) + left;
        lease.shared.store(taken.remaining.into(), Ordering::Relaxed);
        if allowed {
            lease.tokens.store(i64::try_from(left).unwrap_or(0), Ordering::Relaxed);
            lease.until_ms.store(now + LEASE_MS, Ordering::Release);
        } else {
            lease.denied_until_ms.store(now + taken.retry_ms.max(1), Ordering::Relaxed);
        }
        let reset_ms = if allowed { full_in_ms(kind.rate, remaining) } else { taken.retry_ms };
        Standing {
            name: kind.label,
            rate: kind.rate,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset: Duration::from_millis(reset_ms),
            local: false,
            allowed,
        }
    }
}

fn full_in_ms(rate: Rate, remaining: u64) -> u64 {
    millis(rate) * u64::from(rate.burst).saturating_sub(remaining) / u64::from(rate.tokens.max(1))
}

fn millis(rate: Rate) -> u64 {
    u64::try_from(rate.per.as_millis()).unwrap_or(u64::MAX)
}

fn local(kind: &Kind, id: Subject) -> Standing {
    let allowed = kind.local.check_key(&id).is_ok();
    let reset = Duration::from_millis(if allowed {
        0
    } else {
        millis(kind.rate) / u64::from(kind.rate.tokens.max(1))
    });
    Standing {
        name: kind.label,
        rate: kind.rate,
        remaining: u32::from(allowed),
        reset,
        local: true,
        allowed,
    }
}

const fn label(kind: LimitKind) -> BucketLabel {
    match kind {
        LimitKind::Credential => BucketLabel::Credential,
        LimitKind::Address => BucketLabel::Address,
        LimitKind::Refused => BucketLabel::Refused,
        LimitKind::Registration => BucketLabel::Registration,
        LimitKind::SignInAddress => BucketLabel::SignInAddress,
        LimitKind::SignInAccount => BucketLabel::SignInAccount,
        LimitKind::SignInFamiliar => BucketLabel::SignInFamiliar,
        LimitKind::Person => BucketLabel::Person,
    }
}

fn count(standing: Standing, metrics: &Metrics) {
    let verdict = if standing.allowed { Verdict::Allowed } else { Verdict::Refused };
    let (bucket, local) = (standing.name, standing.local);
    metrics.rate_limits.count(RateDecision { bucket, verdict, local });
}

impl From<IpAddr> for Subject {
    fn from(address: IpAddr) -> Self {
        Self::Network(address.into())
    }
}

/// As in the bucket's name in Redis.
impl fmt::Display for Subject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(id) => id.fmt(out),
            Self::Person(id) => write!(out, "user:{id}"),
            Self::Network(network) => network.fmt(out),
            Self::Guessed(guessed) => guessed.fmt(out),
        }
    }
}

/// The address that a request comes from.
#[must_use]
pub fn address_of(request: &HttpRequest, trusted: &[Cidr]) -> Option<IpAddr> {
    // All its lines: a proxy may add its own below what the client wrote.
    let forwarded_for = super::headers::joined(request.headers(), &header::X_FORWARDED_FOR);
    let forwarded_for = forwarded_for.as_deref().and_then(|value| std::str::from_utf8(value).ok());
    Some(client_address(request.peer_addr()?.ip(), forwarded_for, trusted))
}

/// The client's address: the peer's, unless the peer is a trusted proxy; then the last entry of
/// `X-Forwarded-For` that is not one. The first entry is whatever the client wrote.
#[must_use]
fn client_address(peer: IpAddr, forwarded_for: Option<&str>, trusted: &[Cidr]) -> IpAddr {
    let trusts = |address: IpAddr| trusted.iter().any(|proxies| proxies.contains(address));
    if !trusts(peer) {
        return peer;
    }
    let entries = forwarded_for.unwrap_or_default().rsplit(',');
    let mut address = peer;
    for entry in entries {
        match entry.trim().parse() {
            Ok(next) => address = next,
            Err(_) => break,
        }
        if !trusts(address) {
            break;
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Bucket,
        storage::redis::testing::{Server, connect},
        telemetry::Telemetry,
        vocab::{OpKind, clock::ManualClock},
    };

    #[tokio::test]
    async fn a_redis_that_hangs_holds_nobody_up_for_longer_than_one_time_out() {
        let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let limiter = Limiter::new(
            &LimitsConfig::default(),
            connect(mute.local_addr().unwrap().port()),
            Arc::new(ManualClock::new()),
        );
        let metrics = Metrics::new(&"us-east-1".parse().unwrap(), &Telemetry::off());
        // `connect` waits a second: one after the other they would take fifty.
        let op = Op::system(OpKind::Test, Duration::from_secs(10));
        let address = "203.0.113.9".parse().unwrap();
        let asks = (0..50).map(|_| limiter.address(address, &op, &metrics));
        let standings = futures_util::future::join_all(asks).await;
        assert!(standings.iter().all(|standing| standing.local));
        assert!(!op.remaining().is_zero());
    }

    #[tokio::test]
    async fn a_lease_is_spent_token_by_token() {
        let server = Server::start().await;
        // Chunks of two; the lease does not grow old, because its clock stands.
        let bucket = Bucket { per_second: 40, burst: 50 };
        let config = LimitsConfig { credential: bucket, ..LimitsConfig::default() };
        let clock = Arc::new(ManualClock::new());
        let limiter = Limiter::new(&config, connect(server.port), clock);
        let metrics = Metrics::new(&"us-east-1".parse().unwrap(), &Telemetry::off());
        let op = Op::system(OpKind::Test, Duration::from_secs(10));
        let (id, began) = (ApiKeyId::mint(&op), op.clock.monotonic());
        let mut allowed = 0;
        for _ in 0..500 {
            allowed += u32::from(limiter.credential(id, &op, &metrics).await.allowed);
        }
        let earned = 40.0 * (op.clock.monotonic() - began).as_secs_f64();
        assert!(allowed >= 50, "{allowed}");
        assert!(f64::from(allowed) <= 50.0 + earned + 2.0, "{allowed} allowed, {earned} earned");
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_as_far_as_it_saw() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let trusted = ["10.0.0.1", "10.0.0.2", "172.16.0.0/12"].map(|text| text.parse().unwrap());
        let sees = |peer: &str, header| client_address(ip(peer), header, &trusted);
        assert_eq!(sees("203.0.113.9", Some("198.51.100.1")), ip("203.0.113.9"));
        assert_eq!(sees("10.0.0.1", Some("1.1.1.1, 198.51.100.1")), ip("198.51.100.1"));
        assert_eq!(sees("10.0.0.1", Some("198.51.100.1, 10.0.0.2")), ip("198.51.100.1"));
        assert_eq!(sees("::ffff:10.0.0.1", Some("198.51.100.1")), ip("198.51.100.1"));
        // A balancer whose addresses change, before a proxy of ours.
        assert_eq!(sees("10.0.0.1", Some("1.1.1.1, 198.51.100.1, 172.31.9.9")), ip("198.51.100.1"));
        assert_eq!(sees("172.32.0.1", Some("198.51.100.1")), ip("172.32.0.1"));
        assert_eq!(sees("10.0.0.1", Some("garbage")), ip("10.0.0.1"));
        assert_eq!(sees("10.0.0.1", None), ip("10.0.0.1"));
    }
}
