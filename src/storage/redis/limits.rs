//! Token buckets, shared by a region's processes.
//!
//! One hash per bucket: the tokens in it and when they were counted, by Redis' own clock, so that
//! processes need not agree on the time. The script is atomic. A key expires once its bucket would be
//! full again, since an absent bucket is a full one.

use super::Redis;
use crate::{config::Rate, storage::StorageError, vocab::Op};
use deadpool_redis::redis::Script;
use std::sync::LazyLock;

/// What a bucket belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    Credential,
    Address,
    /// Requests whose credential was refused, by address.
    Refused,
    /// Accounts that people make themselves, by address.
    Registration,
}

impl LimitKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Address => "address",
            Self::Refused => "refused",
            Self::Registration => "registration",
        }
    }
}

/// What was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Of the tokens asked for; all, or what there was.
    pub granted: u32,
    /// Whole tokens left.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset_ms: u64,
    /// Until there is a token, when there is none now.
    pub retry_ms: u64,
}

/// Tokens are kept in as many parts as their rate's period has milliseconds, so that each millisecond
/// adds as many parts as the period adds tokens: whole numbers, whatever Lua's are.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local parts, rate, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local burst = tonumber(ARGV[3]) * parts
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(kept[1]) or burst, tonumber(kept[2]) or now
-- A clock set back adds nothing, and takes nothing away.
local elapsed = math.max(0, now - at)
tokens = math.min(burst, tokens + elapsed * rate)
local granted = math.min(wanted, math.floor(tokens / parts))
tokens = tokens - granted * parts
local reset = math.ceil((burst - tokens) / rate)
local retry = 0
if tokens < parts then retry = math.ceil((parts - tokens) / rate) end
redis.call('HSET', KEYS[1], 'tokens', tokens, 'at', now)
redis.call('PEXPIRE', KEYS[1], reset + 1000)
return {granted, math.floor(tokens / parts), reset, retry}
",
    )
});

/// Takes up to `tokens` from the bucket of `id`.
///
/// # Errors
/// [`StorageError::Unavailable`] within `redis.response_ms_max`, or the operation's deadline.
pub async fn take(
    redis: &Redis,
    rate: Rate,
    kind: LimitKind,
    id: &str,
    tokens: u32,
    op: &Op,
) -> Result<Taken, StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = TAKE.key(format!("gw:limit:{}:{id}", kind.as_str()));
    let parts = u64::try_from(rate.per.as_millis()).unwrap_or(u64::MAX);
    call.arg(parts).arg(rate.tokens).arg(rate.burst).arg(tokens);
    let answer = call.invoke_async(&mut connection);
    let (granted, remaining, reset_ms, retry_ms) = redis.bounded(op.remaining(), answer).await?;
    Ok(Taken { granted, remaining, reset_ms, retry_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Bucket, SlowBucket},
        storage::redis::testing::{Server, connect},
        vocab::OpKind,
    };
    use deadpool_redis::redis;
    use std::time::Duration;

    const BUCKET: Bucket = Bucket { per_second: 10, burst: 20 };

    fn op() -> Op {
        Op::system(OpKind::Test, Duration::from_secs(20))
    }

    async fn take_from(redis: &Redis, id: &str, tokens: u32) -> Taken {
        take(redis, BUCKET.into(), LimitKind::Credential, id, tokens, &op()).await.unwrap()
    }

    #[tokio::test]
    async fn grants_what_there_is_and_says_when_there_is_more() {
        let server = Server::start().await;
        let redis = connect(server.port);
        let first = take_from(&redis, "a", 15).await;
        assert_eq!((first.granted, first.remaining, first.retry_ms), (15, 5, 0));
        assert!((1_400..=1_500).contains(&first.reset_ms), "{first:?}");
        let second = take_from(&redis, "a", 100).await;
        assert!((5..=15).contains(&second.granted), "{second:?}");
        assert!(second.remaining == 0 && (1..=100).contains(&second.retry_ms), "{second:?}");
        // Each id, and each kind, has its own.
        assert_eq!(take_from(&redis, "b", 20).await.granted, 20);
        let refused =
            take(&redis, BUCKET.into(), LimitKind::Refused, "a", 20, &op()).await.unwrap();
        assert_eq!(refused.granted, 20);
        assert_eq!(take_from(&redis, "a", 0).await.granted, 0);
    }

    #[tokio::test]
    async fn fills_again_with_time_and_never_beyond_the_burst() {
        let server = Server::start().await;
        let redis = connect(server.port);
        assert_eq!(take_from(&redis, "a", 20).await.granted, 20);
        let guard = op();
        loop {
            let looked = take_from(&redis, "a", 0).await;
            assert!(looked.remaining <= 20);
            if looked.remaining >= 3 {
                assert!(looked.reset_ms <= 1_700);
                break;
            }
            assert!(!guard.remaining().is_zero());
        }
    }

    #[tokio::test]
    async fn takers_at_once_get_no_more_than_there_is() {
        let server = Server::start().await;
        let bucket = Bucket { per_second: 1, burst: 100 };
        let takers = (0..8).map(|_| async {
            let (redis, mut granted) = (connect(server.port), 0);
            for _ in 0..50 {
                granted += take(&redis, bucket.into(), LimitKind::Address, "a", 1, &op())
                    .await
                    .unwrap()
                    .granted;
            }
            granted
        });
        let guard = op();
        let granted: u32 = futures_util::future::join_all(takers).await.into_iter().sum();
        let seconds = u32::try_from(20 - guard.remaining().as_secs()).unwrap();
        assert!((100..=101 + seconds).contains(&granted), "{granted}");
    }

    #[tokio::test]
    async fn a_slow_bucket_says_how_many_minutes_its_next_token_is_away() {
        let server = Server::start().await;
        let redis = connect(server.port);
        let rate = SlowBucket { per_hour: 30, burst: 3 }.into();
        let taken =
            async || take(&redis, rate, LimitKind::Registration, "a", 2, &op()).await.unwrap();
        let first = taken().await;
        assert_eq!((first.granted, first.remaining, first.retry_ms), (2, 1, 0));
        let second = taken().await;
        assert_eq!((second.granted, second.remaining), (1, 0));
        assert!((60_000..=120_000).contains(&second.retry_ms), "{second:?}");
        assert!((300_000..=360_000).contains(&second.reset_ms), "{second:?}");
        assert_eq!(taken().await.granted, 0);
    }

    #[tokio::test]
    async fn a_bucket_is_forgotten_once_it_is_full() {
        let server = Server::start().await;
        let redis = connect(server.port);
        take_from(&redis, "a", 20).await;
        let mut connection = redis.connection().await.unwrap();
        let mut left = redis::cmd("PTTL");
        let left = left.arg("gw:limit:credential:a");
        let left_ms: i64 = left.query_async(&mut connection).await.unwrap();
        assert!((1..=3_000).contains(&left_ms), "{left_ms}");
    }
}
