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
