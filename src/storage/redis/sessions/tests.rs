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
    let config = crate::config::RedisConfig { url, authority: None, response_ms_max: 50 };
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
    let used = Owed { known: Known { session: one.known.session.clone(), ..used.known }, at: None };
    assert!(!owe(&redis, &used, &op).await.unwrap());
    assert_eq!(all(&redis).await, std::slice::from_ref(&one));
    // It is ended while its beginning is being recorded.
    let ended = Owed { known: Known { ended_at: Some(op.now()), ..one.known.clone() }, at: None };
    end_owed(&redis, &ended, LONG, &op).await.unwrap();
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
async fn an_end_that_is_told_again_is_not_owed_again() {
    let server = Server::start().await;
    let (redis, op, one) = (connect(server.port), op(), owed_of(1));
    assert!(owe(&redis, &one, &op).await.unwrap());
    let Known { session, token, .. } = &one.known;
    keep(&redis, token, session, LONG, &op).await.unwrap();
    let ended = Owed { known: Known { ended_at: Some(op.now()), ..one.known.clone() }, at: None };
    end_owed(&redis, &ended, LONG, &op).await.unwrap();
    assert_eq!(find(&redis, token, &op).await.unwrap(), Found::Ended);
    assert_eq!(all(&redis).await, std::slice::from_ref(&ended));
    settle(&redis, &Debt::of(ended.clone()).unwrap(), None, &op).await.unwrap();
    end_owed(&redis, &ended, LONG, &op).await.unwrap();
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
