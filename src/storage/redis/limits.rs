//! Token buckets, shared by a region's processes.
//!
//! One hash per bucket: the tokens in it and when they were counted, by Redis' own clock, so that
//! processes need not agree on the time. The script is atomic. A key expires once its bucket would be
//! full again, since an absent bucket is a full one.

use super::Redis;
use crate::{
    config::Rate,
    storage::StorageError,
    vocab::{Op, OpId},
};
use deadpool_redis::redis::{FromRedisValue, Script};
use std::{sync::LazyLock, time::Duration};

/// What a bucket belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitKind {
    Credential,
    Address,
    /// Requests whose credential was refused, by address.
    Refused,
    /// Accounts that people make themselves, by address.
    Registration,
    /// Tries to sign in, by address; by account, from addresses that are new to it; by account and
    /// address, where the address is not.
    SignInAddress,
    SignInAccount,
    SignInFamiliar,
    /// Sessions begun, and own passwords shown, by user.
    Person,
}

impl LimitKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Address => "address",
            Self::Refused => "refused",
            Self::Registration => "registration",
            Self::SignInAddress => "sign_in_address",
            Self::SignInAccount => "sign_in_account",
            Self::SignInFamiliar => "sign_in_familiar",
            Self::Person => "person",
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

/// A bucket by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub kind: LimitKind,
    pub id: String,
    pub rate: Rate,
}

impl Named {
    fn key(&self) -> String {
        key(self.kind, &self.id)
    }
}

fn key(kind: LimitKind, id: &str) -> String {
    format!("gw:limit:{}:{id}", kind.as_str())
}

/// Parts of a token, and how many of them each millisecond adds.
fn parts(rate: Rate) -> u64 {
    u64::try_from(rate.per.as_millis()).unwrap_or(u64::MAX)
}

/// What stands before each script. Tokens are kept in as many parts as their rate's period has
/// milliseconds, so that each millisecond adds as many parts as the period adds tokens: whole numbers,
/// whatever Lua's are.
const BUCKETS: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- The bucket whose first argument is the one at `first`: the rate's three.
local function look(key, first)
    local bucket = { key = key, parts = tonumber(ARGV[first]), rate = tonumber(ARGV[first + 1]) }
    bucket.burst = tonumber(ARGV[first + 2]) * bucket.parts
    local kept = redis.call('HMGET', key, 'tokens', 'at')
    local tokens, at = tonumber(kept[1]) or bucket.burst, tonumber(kept[2]) or now
    -- A clock set back adds nothing, and takes nothing away.
    local elapsed = math.max(0, now - at)
    bucket.tokens = math.min(bucket.burst, tokens + elapsed * bucket.rate)
    return bucket
end
local function whole(bucket) return math.floor(bucket.tokens / bucket.parts) end
local function reset(bucket) return math.ceil((bucket.burst - bucket.tokens) / bucket.rate) end
local function retry(bucket)
    return math.max(0, math.ceil((bucket.parts - bucket.tokens) / bucket.rate))
end
local function keep(bucket)
    redis.call('HSET', bucket.key, 'tokens', bucket.tokens, 'at', now)
    redis.call('PEXPIRE', bucket.key, reset(bucket) + 1000)
end
local function take(bucket, wanted)
    local granted = math.min(wanted, whole(bucket))
    bucket.tokens = bucket.tokens - granted * bucket.parts
    keep(bucket)
    return granted
end
";

fn script(body: &str) -> Script {
    Script::new(&format!("{BUCKETS}{body}"))
}

static TAKE: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
local bucket = look(KEYS[1], 1)
local granted = take(bucket, tonumber(ARGV[4]))
return {granted, whole(bucket), reset(bucket), retry(bucket)}
",
    )
});

static TAKE_EACH: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
local buckets, wanted = {}, 1
for n, key in ipairs(KEYS) do
    buckets[n] = look(key, 3 * n - 2)
    wanted = math.min(wanted, whole(buckets[n]))
end
local taken = {}
for _, bucket in ipairs(buckets) do
    local granted = wanted == 1 and take(bucket, 1) or 0
    for _, told in ipairs({granted, whole(bucket), reset(bucket), retry(bucket)}) do
        taken[#taken + 1] = told
    end
end
return taken
",
    )
});

/// A bucket that is not there is full.
static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
for n, key in ipairs(KEYS) do
    if redis.call('EXISTS', key) == 1 then
        local bucket = look(key, 3 * n - 2)
        bucket.tokens = math.min(bucket.burst, bucket.tokens + bucket.parts)
        keep(bucket)
    end
end
return 1
",
    )
});

/// The first key is the note that it has been done.
static TAKE_ONCE: LazyLock<Script> = LazyLock::new(|| {
    script(
        r"
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then return 0 end
for n = 2, #KEYS do
    take(look(KEYS[n], 4 * n - 6), tonumber(ARGV[4 * n - 3]))
end
return 1
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
    let mut call = TAKE.key(key(kind, id));
    call.arg(parts(rate)).arg(rate.tokens).arg(rate.burst).arg(tokens);
    let answer = call.invoke_async(&mut connection);
    let (granted, remaining, reset_ms, retry_ms) = redis.bounded(op.remaining(), answer).await?;
    Ok(Taken { granted, remaining, reset_ms, retry_ms })
}

/// Takes one token from each bucket, or, if any of them is empty, none at all.
///
/// # Errors
/// [`StorageError::Unavailable`] within `redis.response_ms_max`, or the operation's deadline: they may
/// have been taken or not.
pub async fn take_each<const N: usize>(
    redis: &Redis,
    buckets: &[Named; N],
    op: &Op,
) -> Result<[Taken; N], StorageError> {
    let answers: Vec<u64> = each(redis, &TAKE_EACH, buckets, op).await?;
    let (answers, rest) = answers.as_chunks::<4>();
    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let taken = answers.iter().map(|&[granted, remaining, reset_ms, retry_ms]| Taken {
        granted: small(granted),
        remaining: small(remaining),
        reset_ms,
        retry_ms,
    });
    let taken: Result<[Taken; N], _> = taken.collect::<Vec<_>>().try_into();
    match taken {
        Ok(taken) if rest.is_empty() => Ok(taken),
        _ => Err(StorageError::Corrupt { table: "limit", column: "taken" }),
    }
}

/// Puts one token back into each bucket that is not full.
///
/// # Errors
/// As [`take_each`].
pub async fn give_back(redis: &Redis, buckets: &[Named], op: &Op) -> Result<(), StorageError> {
    each(redis, &GIVE_BACK, buckets, op).await
}

async fn each<T: FromRedisValue>(
    redis: &Redis,
    script: &Script,
    buckets: &[Named],
    op: &Op,
) -> Result<T, StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = script.prepare_invoke();
    for bucket in buckets {
        let rate = bucket.rate;
        call.key(bucket.key()).arg(parts(rate)).arg(rate.tokens).arg(rate.burst);
    }
    redis.bounded(op.remaining(), call.invoke_async(&mut connection)).await
}

/// Takes from each bucket as many tokens as are said, or what there is; by one `id` only once within
/// `memory`. `false` when that has been done before.
///
/// # Errors
/// As [`take_each`].
pub async fn take_once(
    redis: &Redis,
    id: OpId,
    memory: Duration,
    buckets: &[(Named, u32)],
    op: &Op,
) -> Result<bool, StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = TAKE_ONCE.key(format!("gw:told:{id}"));
    call.arg(memory.as_millis().max(1).to_string());
    for (bucket, tokens) in buckets {
        let rate = bucket.rate;
        call.key(bucket.key()).arg(parts(rate)).arg(rate.tokens).arg(rate.burst).arg(*tokens);
    }
    redis.bounded(op.remaining(), call.invoke_async(&mut connection)).await
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

    fn named(id: &str, burst: u32) -> Named {
        let rate = SlowBucket { per_hour: 1, burst }.into();
        Named { kind: LimitKind::SignInAccount, id: id.to_owned(), rate }
    }

    async fn left(redis: &Redis, bucket: &Named) -> u32 {
        let taken = take(redis, bucket.rate, bucket.kind, &bucket.id, 0, &op()).await;
        taken.unwrap().remaining
    }

    #[tokio::test]
    async fn each_gives_a_token_or_none_does() {
        let server = Server::start().await;
        let redis = connect(server.port);
        let both = [named("wide", 5), named("narrow", 2)];
        let taken = async || take_each(&redis, &both, &op()).await.unwrap();
        for remaining in [[4, 1], [3, 0]] {
            let taken = taken().await;
            assert_eq!(taken.map(|taken| taken.granted), [1, 1]);
            assert_eq!(taken.map(|taken| taken.remaining), remaining);
        }
        let [wide, narrow] = taken().await;
        assert_eq!((wide.granted, wide.remaining, wide.retry_ms), (0, 3, 0));
        assert_eq!((narrow.granted, narrow.remaining), (0, 0));
        assert!((3_500_000..=3_600_000).contains(&narrow.retry_ms), "{narrow:?}");
        assert_eq!(left(&redis, &both[0]).await, 3);
    }

    #[tokio::test]
    async fn a_token_given_back_never_makes_more_than_the_burst() {
        let server = Server::start().await;
        let redis = connect(server.port);
        let both = [named("a", 2), named("b", 2)];
        give_back(&redis, &both, &op()).await.unwrap();
        assert_eq!(left(&redis, &both[0]).await, 2);
        take_each(&redis, &both, &op()).await.unwrap();
        for expected in [2, 2] {
            give_back(&redis, &both, &op()).await.unwrap();
            assert_eq!(left(&redis, &both[0]).await, expected);
        }
        // What is empty has one again.
        take_each(&redis, &both, &op()).await.unwrap();
        take_each(&redis, &both, &op()).await.unwrap();
        give_back(&redis, &both[..1], &op()).await.unwrap();
        assert_eq!((left(&redis, &both[0]).await, left(&redis, &both[1]).await), (1, 0));
    }

    #[tokio::test]
    async fn what_is_told_twice_is_taken_once_and_never_more_than_there_is() {
        let server = Server::start().await;
        let redis = connect(server.port);
        let (id, memory) = (OpId::mint(&op()), Duration::from_secs(60));
        let told = [(named("a", 10), 3), (named("b", 10), 50)];
        let take = async |id| take_once(&redis, id, memory, &told, &op()).await.unwrap();
        assert!(take(id).await);
        assert!(!take(id).await);
        assert_eq!((left(&redis, &told[0].0).await, left(&redis, &told[1].0).await), (7, 0));
        assert!(take(OpId::mint(&op())).await);
        assert_eq!((left(&redis, &told[0].0).await, left(&redis, &told[1].0).await), (4, 0));
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
