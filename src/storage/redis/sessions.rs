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

/// Owes the directory what is known of a session, in the place of what was owed of it before.
///
/// # Errors
/// As [`find`].
pub async fn owe(redis: &Redis, owed: &Owed, op: &Op) -> Result<(), StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = redis::cmd("HSET");
    call.arg(OWED).arg(owed.known.session.id.to_string()).arg(text(owed)?);
    redis.bounded(op.remaining(), call.query_async::<()>(&mut connection)).await
}

/// Owes it unless something is owed of the session already, which tells more.
///
/// # Errors
/// As [`find`].
pub async fn owe_if_nothing(redis: &Redis, owed: &Owed, op: &Op) -> Result<(), StorageError> {
    let mut connection = redis.hot.clone();
    let mut call = redis::cmd("HSETNX");
    call.arg(OWED).arg(owed.known.session.id.to_string()).arg(text(owed)?);
    redis.bounded(op.remaining(), call.query_async::<()>(&mut connection)).await
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
mod tests {
    use super::*;
    use crate::{
        storage::redis::testing::{Server, connect},
        vocab::{Epoch, Lsn, OpKind, Role, TenantId, UserId},
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        sync::watch,
    };

    const LONG: Duration = Duration::from_secs(60);

    fn op() -> Op {
        Op::system(OpKind::Test, Duration::from_secs(20))
    }

    fn owed_of(token: u8) -> Owed {
        let (op, home) = (op(), "eu-west-1".parse::<crate::vocab::Region>().unwrap());
        let session = Live {
            id: SessionId::mint(&op),
            tenant: TenantId::mint(&op),
            user: UserId::mint(&op),
            role: Role::Viewer,
            generation: 1,
            created_at: op.now(),
            expires_at: op.now() + chrono::Duration::days(7),
        };
        let known = Known {
            session,
            token: TokenHash::new([token; 32]),
            home: home.clone(),
            device: "curl/8".into(),
            address: "203.0.113.9".into(),
            seen_at: op.now(),
            seen_in: home,
            ended_at: None,
        };
        Owed { known, at: None }
    }

    async fn all(redis: &Redis) -> Vec<Owed> {
        let (next, debts) = owed(redis, 0, 100, &op()).await.unwrap();
        assert_eq!(next, 0);
        debts.into_iter().map(|debt| debt.owed).collect()
    }

    #[tokio::test]
    async fn what_was_ended_stays_ended_whatever_is_written_of_it_late() {
        let server = Server::start().await;
        let (redis, op, one) = (connect(server.port), op(), owed_of(1));
        let Known { session, token, .. } = &one.known;
        assert_eq!(find(&redis, token, &op).await.unwrap(), Found::Absent);
        begin(&redis, &one, LONG, &op).await.unwrap();
        assert_eq!(find(&redis, token, &op).await.unwrap(), Found::Live(session.clone()));
        end(&redis, &[(*token, LONG)], &op).await.unwrap();
        keep(&redis, token, session, LONG, &op).await.unwrap();
        begin(&redis, &one, LONG, &op).await.unwrap();
        assert_eq!(find(&redis, token, &op).await.unwrap(), Found::Ended);
    }

    #[tokio::test]
    async fn asked_together_each_is_told_of_their_own() {
        let server = Server::start().await;
        let (redis, op) = (connect(server.port), op());
        let all: Vec<_> = (0..240).map(owed_of).collect();
        let what = |owed: &Owed| owed.known.token.as_bytes()[0] % 3;
        for owed in all.iter().filter(|owed| what(owed) < 2) {
            begin(&redis, owed, LONG, &op).await.unwrap();
        }
        for owed in all.iter().filter(|owed| what(owed) == 1) {
            end(&redis, &[(owed.known.token, LONG)], &op).await.unwrap();
        }
        let unreadable = TokenHash::new([255; 32]);
        let mut own = redis.connection().await.unwrap();
        let mut call = redis::cmd("SET");
        call.arg(live_key(&unreadable)).arg(b"\xff\x00");
        call.query_async::<()>(&mut own).await.unwrap();
        let asks = all.iter().map(|owed| find(&redis, &owed.known.token, &op));
        let gone = find(&redis, &all[0].known.token, &op);
        let (found, last, ()) = tokio::join!(
            futures_util::future::try_join_all(asks),
            find(&redis, &unreadable, &op),
            async { drop(tokio::time::timeout(Duration::ZERO, gone).await) },
        );
        assert_eq!(last.unwrap(), Found::Absent);
        for (owed, found) in all.iter().zip(found.unwrap()) {
            let expected = match what(owed) {
                0 => Found::Live(owed.known.session.clone()),
                1 => Found::Ended,
                _ => Found::Absent,
            };
            assert_eq!(found, expected);
        }
        let mut stats = redis::cmd("INFO");
        let stats: String = stats.arg("commandstats").query_async(&mut own).await.unwrap();
        let (_, calls) = stats.split_once("cmdstat_mget:calls=").unwrap();
        let calls: u32 = calls.split(',').next().unwrap().parse().unwrap();
        assert!(calls <= 8, "{calls} commands for 241 look-ups");
    }

    /// Stands before a Redis, and once it has been asked for a session holds its answers back until it has been asked
    /// for another.
    async fn hold(front: TcpListener, port: u16, asked: watch::Sender<usize>) {
        let (near, far) = tokio::join!(front.accept(), TcpStream::connect(("127.0.0.1", port)));
        let (mut from_client, mut to_client) = near.unwrap().0.into_split();
        let (mut from_server, mut to_server) = far.unwrap().into_split();
        let mut again = asked.subscribe();
        let up = async {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
                let commands = bytes[..read].windows(4).filter(|word| word == b"MGET").count();
                asked.send_modify(|asked| *asked += commands);
                to_server.write_all(&bytes[..read]).await.unwrap();
            }
        };
        let down = async {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = from_server.read(&mut bytes).await {
                again.wait_for(|asked| *asked != 1).await.unwrap();
                to_client.write_all(&bytes[..read]).await.unwrap();
            }
        };
        tokio::join!(up, down);
    }

    #[tokio::test]
    async fn who_comes_next_does_not_wait_for_an_answer_that_takes_long() {
        let server = Server::start().await;
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let redis = connect(front.local_addr().unwrap().port());
        let (op, (asked, mut told)) = (op(), watch::channel(0));
        let one = async |n| find(&redis, &TokenHash::new([n; 32]), &op).await;
        let both = async {
            let next = async {
                told.wait_for(|asked| *asked == 1).await.unwrap();
                one(2).await
            };
            tokio::join!(one(1), next)
        };
        tokio::select! {
            (first, next) = both => {
                assert_eq!((first.unwrap(), next.unwrap()), (Found::Absent, Found::Absent));
            }
            () = hold(front, server.port, asked) => panic!("the connection ended"),
        }
    }

    #[tokio::test]
    async fn a_redis_that_hangs_holds_no_look_up_for_longer_than_the_bound() {
        let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", mute.local_addr().unwrap()).into();
        let config = crate::config::RedisConfig { url, response_ms_max: 50 };
        let (redis, op) = (Redis::new(&config).unwrap(), op());
        let began = op.clock.monotonic();
        // More than wait at a time, and than one command asks for.
        let tokens = (0..3_000_u32).map(|n| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            TokenHash::new(bytes)
        });
        let asks = tokens.map(|token| {
            let (redis, op) = (&redis, &op);
            async move { find(redis, &token, op).await }
        });
        for found in futures_util::future::join_all(asks).await {
            assert!(matches!(found, Err(StorageError::Unavailable(_))), "{found:?}");
        }
        // One after the other they would take minutes.
        assert!(op.clock.monotonic() - began < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn what_is_here_is_kept_and_what_is_forgotten_is_looked_up_anew() {
        let server = Server::start().await;
        let (redis, op, one) = (connect(server.port), op(), owed_of(1));
        let Known { session, token, .. } = &one.known;
        let older = Live { role: Role::Admin, ..session.clone() };
        keep(&redis, token, session, LONG, &op).await.unwrap();
        keep(&redis, token, &older, LONG, &op).await.unwrap();
        assert_eq!(find(&redis, token, &op).await.unwrap(), Found::Live(session.clone()));
        assert!(renew(&redis, token, LONG, LONG, &op).await.unwrap());
        assert!(!renew(&redis, token, LONG, LONG, &op).await.unwrap());
        forget(&redis, &[*token], &op).await.unwrap();
        // To be in use does not bring it back.
        renew(&redis, token, LONG, LONG, &op).await.unwrap();
        assert_eq!(find(&redis, token, &op).await.unwrap(), Found::Absent);
        keep(&redis, token, session, Duration::from_millis(1), &op).await.unwrap();
        while find(&redis, token, &op).await.unwrap() != Found::Absent {}
    }

    #[tokio::test]
    async fn a_debt_is_settled_only_as_it_was_read() {
        let server = Server::start().await;
        let (redis, op, one) = (connect(server.port), op(), owed_of(1));
        begin(&redis, &one, LONG, &op).await.unwrap();
        let debt = Debt::of(one.clone()).unwrap();
        let used = Owed { known: owed_of(2).known, ..one.clone() };
        let used =
            Owed { known: Known { session: one.known.session.clone(), ..used.known }, at: None };
        owe_if_nothing(&redis, &used, &op).await.unwrap();
        assert_eq!(all(&redis).await, std::slice::from_ref(&one));
        // It is ended while its beginning is being recorded.
        let ended =
            Owed { known: Known { ended_at: Some(op.now()), ..one.known.clone() }, at: None };
        owe(&redis, &ended, &op).await.unwrap();
        let at = Bookmark { epoch: Epoch::FIRST, lsn: Lsn::new(7) };
        settle(&redis, &debt, Some(&Owed { at: Some(at), ..one }), &op).await.unwrap();
        settle(&redis, &debt, None, &op).await.unwrap();
        assert_eq!(all(&redis).await, std::slice::from_ref(&ended));
        let (_, debts) = owed(&redis, 0, 10, &op).await.unwrap();
        let sent = Owed { at: Some(at), ..ended };
        settle(&redis, &debts[0], Some(&sent), &op).await.unwrap();
        assert_eq!(all(&redis).await, std::slice::from_ref(&sent));
        settle(&redis, &Debt::of(sent).unwrap(), None, &op).await.unwrap();
        assert_eq!(owed_count(&redis, &op).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn how_far_was_followed_is_known_to_who_comes_after() {
        let server = Server::start().await;
        let (redis, op) = (connect(server.port), op());
        assert_eq!(followed(&redis, &op).await.unwrap(), None);
        let to = Horizon { epoch: Epoch::FIRST, xid: u64::MAX };
        note_followed(&redis, to, &op).await.unwrap();
        assert_eq!(followed(&redis, &op).await.unwrap(), Some(to));
    }
}
