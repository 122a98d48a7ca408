//! A region's sessions, and what it owes the directory of them.
//!
//! `gw:session:<token hash>` is who is signed in, until the session has been idle too long; `gw:ended:<...>`
//! says that it was ended, and wins, until it would have expired: whatever is written of it late, it stays
//! ended. `gw:owed` holds, by session, what the primary has yet to record. Redis loses none of it that is
//! not in the directory too, but for what it owed: `docs/FAILURE-MODES.md`.

use super::Redis;
use crate::{
    storage::{
        StorageError,
        gather::{Ask, Gathered, refuse},
        global::sessions::{Horizon, Known, Live},
    },
    vocab::{Bookmark, Op, SessionId, TokenHash},
};
use deadpool_redis::redis::{self, Script, aio::ConnectionManager};
use serde::{Deserialize, Serialize};
use std::{sync::LazyLock, time::Duration};

const OWED: &str = "gw:owed";
const FOLLOWED: &str = "gw:followed";

/// Sessions looked up in one command, at most.
const TOGETHER_MAX: usize = 64;

/// What this Redis says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Live(Live),
    /// For good.
    Ended,
    /// Not here, which proves nothing.
    Absent,
}

/// What is owed of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    pub known: Known,
    /// Recorded at the primary, at this position: owed until another region has it too.
    pub at: Option<Bookmark>,
}

/// As it is in Redis; names it when it is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debt {
    pub owed: Owed,
    text: String,
}

impl Debt {
    /// What has just been written down.
    ///
    /// # Errors
    /// Never, for what was.
    pub fn of(owed: Owed) -> Result<Self, StorageError> {
        Ok(Self { text: text(&owed)?, owed })
    }

    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.owed.known.session.id
    }
}

/// Replaces, or removes, what is owed of a session, unless it has become something else meanwhile.
static SETTLE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1])
else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1
",
    )
});

/// Ends a session. Where it is ended already its end is not owed once more: it may be recorded by now.
static END: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('SET', KEYS[3], 1, 'PX', ARGV[3], 'NX') then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('DEL', KEYS[2])
",
    )
});

fn live_key(token: &TokenHash) -> String {
    format!("gw:session:{token}")
}
fn ended_key(token: &TokenHash) -> String {
    format!("gw:ended:{token}")
}
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn text<T: Serialize>(value: &T) -> Result<String, StorageError> {
    serde_json::to_string(value).map_err(|error| StorageError::Other(error.into()))
}

/// What a token is of, in one round trip, which others share who ask at the same time.
///
/// # Errors
/// [`StorageError::Unavailable`] within `redis.response_ms_max`, as for all of these.
pub async fn find(redis: &Redis, token: &TokenHash, op: &Op) -> Result<Found, StorageError> {
    redis.bounded(op.remaining(), redis.sessions.ask(*token)).await
}

/// Answers [`find`], until nobody can ask any more. An answer that takes a tenth of what it may is waited for by
/// those alone who asked: who comes next does not lose their own time to it.
pub(super) async fn find_all(
    hot: ConnectionManager,
    response_ms_max: Duration,
    mut asked: Gathered<TokenHash, Found>,
) {
    let mut together = Vec::new();
    while asked.next(&mut together, TOGETHER_MAX).await {
        if together.is_empty() {
            continue;
        }
        let mut answer = Box::pin(answer(hot.clone(), std::mem::take(&mut together)));
        if tokio::time::timeout(response_ms_max / 10, &mut answer).await.is_err() {
            super::spawn(answer);
        }
    }
}

/// The connection bounds it; who has no time left does not wait for that.
async fn answer(mut hot: ConnectionManager, mut asks: Vec<Ask<TokenHash, Found>>) {
    let mut call = redis::cmd("MGET");
    for ask in &asks {
        call.arg(live_key(&ask.question)).arg(ended_key(&ask.question));
    }
    match call.query_async::<Vec<(Bytes, Bytes)>>(&mut hot).await {
        Ok(answers) if answers.len() == asks.len() => {
            for (ask, answer) in asks.into_iter().zip(answers) {
                ask.answer(Ok(found(answer)));
            }
        }
        Ok(_) => refuse(&mut asks, || StorageError::unavailable("Redis answered others")),
        Err(error) => refuse(&mut asks, || StorageError::unavailable(error.to_string())),
    }
}

/// Any at all: what one session's record has come to is nothing to those who ask for others.
type Bytes = Option<Vec<u8>>;

fn found((live, ended): (Bytes, Bytes)) -> Found {
    match (live, ended) {
        (_, Some(_)) => Found::Ended,
        (None, None) => Found::Absent,
        // What cannot be read is looked up where it can.
        (Some(live), None) => serde_json::from_slice(&live).map_or(Found::Absent, Found::Live),
    }
}

/// Keeps a session that has just been begun, together with what is owed of it.
///
/// # Errors
/// As [`find`].
pub async fn begin(
    redis: &Redis,
    owed: &Owed,
    idle: Duration,
    op: &Op,
) -> Result<(), StorageError> {
    let mut connection = redis.hot.clone();
    let Known { session, token, .. } = &owed.known;
    let mut pipe = redis::pipe();
    pipe.atomic()
        .cmd("SET")
        .arg(live_key(token))
        .arg(text(session)?)
        .arg("PX")
        .arg(ms(idle))
        .ignore()
        .hset(OWED, session.id.to_string(), text(owed)?)
        .ignore();
    redis.bounded(op.remaining(), pipe.query_async::<()>(&mut connection)).await
}

/// Keeps a session that was found elsewhere, unless it is here.
///
/// # Errors
/// As [`find`].
pub async fn keep(
    redis: &Redis,
    token: &TokenHash,
    live: &Live,
    idle: Duration,
    op: &Op,
) -> Result<(), StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = redis::cmd("SET");
    call.arg(live_key(token)).arg(text(live)?).arg("PX").arg(ms(idle)).arg("NX");
    redis.bounded(op.remaining(), call.query_async::<()>(&mut connection)).await
}

/// It has been used: it is idle from now on. Tells whether the directory is to hear of it, once in `told`.
///
/// # Errors
/// As [`find`].
pub async fn renew(
    redis: &Redis,
    token: &TokenHash,
    idle: Duration,
    told: Duration,
    op: &Op,
) -> Result<bool, StorageError> {
    let mut connection = redis.hot.clone();
    let mut pipe = redis::pipe();
    pipe.cmd("PEXPIRE").arg(live_key(token)).arg(ms(idle)).ignore();
    pipe.cmd("SET").arg(format!("gw:seen:{token}")).arg(1).arg("PX").arg(ms(told)).arg("NX");
    let answer = pipe.query_async::<(Option<String>,)>(&mut connection);
    Ok(redis.bounded(op.remaining(), answer).await?.0.is_some())
}

/// Forgets a session, so that it is looked up anew.
///
/// # Errors
/// As [`find`].
pub async fn forget(redis: &Redis, tokens: &[TokenHash], op: &Op) -> Result<(), StorageError> {
    if tokens.is_empty() {
        return Ok(());
    }
    let mut connection = redis.hot.clone();
    let mut call = redis::cmd("DEL");
    call.arg(tokens.iter().map(live_key).collect::<Vec<_>>());
    redis.bounded(op.remaining(), call.query_async::<()>(&mut connection)).await
}

/// Ends sessions here, each for as long as it would have lasted.
///
/// # Errors
/// As [`find`].
pub async fn end(
    redis: &Redis,
    tokens: &[(TokenHash, Duration)],
    op: &Op,
) -> Result<(), StorageError> {
    if tokens.is_empty() {
        return Ok(());
    }
    let mut connection = redis.hot.clone();
    let mut pipe = redis::pipe();
    pipe.atomic();
    for (token, lasts) in tokens {
        pipe.cmd("SET").arg(ended_key(token)).arg(1).arg("PX").arg(ms(*lasts)).ignore();
        pipe.cmd("DEL").arg(live_key(token)).ignore();
    }
    redis.bounded(op.remaining(), pipe.query_async::<()>(&mut connection)).await
}

/// Ends a session here, and owes its end in the place of what was owed of it before; unless it is ended here
/// already, and with that owed or recorded.
///
/// # Errors
/// As [`find`].
pub async fn end_owed(
    redis: &Redis,
    owed: &Owed,
    lasts: Duration,
    op: &Op,
) -> Result<(), StorageError> {
    let mut connection = redis.hot.clone();
    let Known { session, token, .. } = &owed.known;
    let mut call = END.key(OWED);
    call.key(live_key(token)).key(ended_key(token));
    call.arg(session.id.to_string()).arg(text(owed)?).arg(ms(lasts));
    redis.bounded(op.remaining(), call.invoke_async::<()>(&mut connection)).await
}

/// Owes the directory what is known of a session, and tells so; unless something is owed of it already, which
/// tells more.
///
/// # Errors
/// As [`find`].
pub async fn owe(redis: &Redis, owed: &Owed, op: &Op) -> Result<bool, StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = redis::cmd("HSETNX");
    call.arg(OWED).arg(owed.known.session.id.to_string()).arg(text(owed)?);
    redis.bounded(op.remaining(), call.query_async::<bool>(&mut connection)).await
}

/// Some of what is owed, about `count`, from `cursor` on; 0 begins, and comes back at the end. What cannot be
/// read is taken out.
///
/// # Errors
/// As [`find`].
pub async fn owed(
    redis: &Redis,
    cursor: u64,
    count: u32,
    op: &Op,
) -> Result<(u64, Vec<Debt>), StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = redis::cmd("HSCAN");
    call.arg(OWED).arg(cursor).arg("COUNT").arg(count);
    let answer = call.query_async::<(u64, Vec<(String, String)>)>(&mut connection);
    let (next, entries) = redis.bounded(op.remaining(), answer).await?;
    let mut debts = Vec::with_capacity(entries.len());
    for (field, text) in entries {
        if let Ok(owed) = serde_json::from_str(&text) {
            debts.push(Debt { owed, text });
            continue;
        }
        tracing::error!(
            session.id = field,
            "what is owed of a session cannot be read, and is dropped"
        );
        let mut drop = redis::cmd("HDEL");
        drop.arg(OWED).arg(&field);
        redis.bounded(op.remaining(), drop.query_async::<()>(&mut connection)).await?;
    }
    Ok((next, debts))
}

/// How many sessions something is owed of.
///
/// # Errors
/// As [`find`].
pub async fn owed_count(redis: &Redis, op: &Op) -> Result<u64, StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = redis::cmd("HLEN");
    call.arg(OWED);
    redis.bounded(op.remaining(), call.query_async::<u64>(&mut connection)).await
}

/// Puts `left` in the place of a debt, or nothing, unless it has changed meanwhile.
///
/// # Errors
/// As [`find`].
pub async fn settle(
    redis: &Redis,
    debt: &Debt,
    left: Option<&Owed>,
    op: &Op,
) -> Result<(), StorageError> {
    let mut connection = redis.hot.clone();
    let left = left.map_or(Ok(String::new()), text)?;
    let mut call = SETTLE.key(OWED);
    call.arg(debt.id().to_string()).arg(&debt.text).arg(left);
    redis.bounded(op.remaining(), call.invoke_async::<()>(&mut connection)).await
}

/// How far the directory's changes were followed, by a process of this region; `None` when this Redis does
/// not know.
///
/// # Errors
/// As [`find`].
pub async fn followed(redis: &Redis, op: &Op) -> Result<Option<Horizon>, StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = redis::cmd("GET");
    call.arg(FOLLOWED);
    let found: Option<String> =
        redis.bounded(op.remaining(), call.query_async(&mut connection)).await?;
    Ok(found.and_then(|text| text.parse().ok()))
}

/// # Errors
/// As [`find`].
pub async fn note_followed(redis: &Redis, to: Horizon, op: &Op) -> Result<(), StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = redis::cmd("SET");
    call.arg(FOLLOWED).arg(to.to_string());
    redis.bounded(op.remaining(), call.query_async::<()>(&mut connection)).await
}

#[cfg(test)]
mod tests;
