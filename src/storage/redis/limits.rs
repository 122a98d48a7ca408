//! Token buckets, shared by a region's processes.
//!
//! One hash per bucket: the tokens in it and when they were counted, by Redis' own clock, so that
//! processes need not agree on the time. The script is atomic. A key expires once its bucket would be
//! full again, since an absent bucket is a full one.

use super::Redis;
use crate::{config::Bucket, storage::StorageError, vocab::Op};
use deadpool_redis::redis::Script;
use std::sync::LazyLock;

/// What a bucket belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    Credential,
    Address,
    /// Requests whose credential was refused, by address.
    Refused,
}

impl LimitKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Address => "address",
            Self::Refused => "refused",
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

/// Tokens are kept in thousandths, which a refill of one per second adds every millisecond: whole
/// numbers, whatever Lua's are.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local per_second, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]) * 1000, tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(kept[1]) or burst, tonumber(kept[2]) or now
-- A clock set back adds nothing, and takes nothing away.
local elapsed = math.max(0, now - at)
tokens = math.min(burst, tokens + elapsed * per_second)
local granted = math.min(wanted, math.floor(tokens / 1000))
tokens = tokens - granted * 1000
local reset = math.ceil((burst - tokens) / per_second)
local retry = 0
if tokens < 1000 then retry = math.ceil((1000 - tokens) / per_second) end
redis.call('HSET', KEYS[1], 'tokens', tokens, 'at', now)
redis.call('PEXPIRE', KEYS[1], reset + 1000)
return {granted, math.floor(tokens / 1000), reset, retry}
",
    )
});

/// Takes up to `tokens` from the bucket of `id`.
///
/// # Errors
/// [`StorageError::Unavailable`] within `redis.response_ms_max`, or the operation's deadline.
pub async fn take(
    redis: &Redis,
    bucket: Bucket,
    kind: LimitKind,
    id: &str,
    tokens: u32,
    op: &Op,
) -> Result<Taken, StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = TAKE.key(format!("gw:limit:{}:{id}", kind.as_str()));
    call.arg(bucket.per_second).arg(bucket.burst).arg(tokens);
    let answer = call.invoke_async(&mut connection);
    let (granted, remaining, reset_ms, retry_ms) = redis.bounded(op.remaining(), answer).await?;
    Ok(Taken { granted, remaining, reset_ms, retry_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
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
        take(redis, BUCKET, LimitKind::Credential, id, tokens, &op()).await.unwrap()
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
        let refused = take(&redis, BUCKET, LimitKind::Refused, "a", 20, &op()).await.unwrap();
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
                granted +=
                    take(&redis, bucket, LimitKind::Address, "a", 1, &op()).await.unwrap().granted;
            }
            granted
        });
        let guard = op();
        let granted: u32 = futures_util::future::join_all(takers).await.into_iter().sum();
        let seconds = u32::try_from(20 - guard.remaining().as_secs()).unwrap();
        assert!((100..=101 + seconds).contains(&granted), "{granted}");
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
