//! Ends in this region what was ended in any.

use crate::{
    loops::{Loop, Schedule, Tick},
    storage::{
        Global, StorageError,
        global::sessions::{Change, Horizon, changed_since},
        redis::{Redis, sessions},
    },
    vocab::{Op, SessionId, TokenHash},
};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Changes read at once.
const TOGETHER_MAX: i64 = 1_000;
/// Of them told to Redis at once: what it does within a fraction of `redis.response_ms_max`.
const WRITTEN_MAX: usize = 100;

/// Told of what is followed.
pub trait Heard: Send + Sync {
    /// A session is not what it was; this region's Redis knows already.
    fn changed(&self, token: &TokenHash);
    /// Everything that this replica had at that moment has been dealt with.
    fn followed(&self, at: Instant);
}

/// Follows the directory.
pub struct FollowerLoop {
    global: Global,
    redis: Redis,
    heard: Arc<dyn Heard>,
    /// `None`: this process has followed nothing yet.
    horizon: Option<Horizon>,
    /// Dealt with, and not behind the horizon yet: a transaction that stays open for long keeps it back.
    dealt: BTreeSet<(u64, SessionId)>,
}

impl FollowerLoop {
    #[must_use]
    pub fn new(global: Global, redis: Redis, heard: Arc<dyn Heard>) -> Self {
        Self { global, redis, heard, horizon: None, dealt: BTreeSet::new() }
    }

    #[must_use]
    pub const fn schedule() -> Schedule {
        Schedule { interval: Duration::from_millis(200), pass_max: Duration::from_secs(60) }
    }

    fn is_new(&self, change: &Change) -> bool {
        !self.dealt.contains(&(change.xid, change.id))
    }

    async fn pass(&mut self, op: &Op) -> Result<u64, StorageError> {
        let began = op.clock.monotonic();
        // One that is back with an older copy has lost the ends since as well, and says so by this. One that
        // does not know has lost everything, or this alone.
        let redis = sessions::followed(&self.redis, op).await?.unwrap_or(Horizon::START);
        let from = match self.horizon {
            None => redis,
            // Another process of the region can be further: not with what this one believes.
            Some(own) => own.earlier(redis),
        };
        if self.horizon.is_some_and(|own| own != from) {
            self.dealt.clear();
        }
        let (mut after, mut done, mut to) = (None, 0, None);
        loop {
            let now = op.now();
            let page = changed_since(&self.global, from, after, now, TOGETHER_MAX).await?;
            let mut ended = Vec::new();
            let mut stale = Vec::new();
            for change in page.changes.iter().filter(|change| self.is_new(change)) {
                if change.ended {
                    let left = (change.expires_at - now).to_std().unwrap_or_default();
                    ended.push((change.token, left));
                } else {
                    stale.push(change.token);
                }
            }
            for some in ended.chunks(WRITTEN_MAX) {
                sessions::end(&self.redis, some, op).await?;
            }
            for some in stale.chunks(WRITTEN_MAX) {
                sessions::forget(&self.redis, some, op).await?;
            }
            // Redis first: what a process forgets it looks up there.
            for token in ended.iter().map(|(token, _)| token).chain(&stale) {
                self.heard.changed(token);
            }
            done += (ended.len() + stale.len()) as u64;
            self.dealt.extend(page.changes.iter().map(|change| (change.xid, change.id)));
            // Of the first snapshot: what was under way then is looked for again.
            let to = *to.get_or_insert(page.horizon);
            after = page.next;
            if after.is_none() {
                if redis != to {
                    sessions::note_followed(&self.redis, to, op).await?;
                }
                if to.epoch != from.epoch {
                    // Their numbers may have come again.
                    self.dealt.clear();
                }
                self.horizon = Some(to);
                self.dealt = self.dealt.split_off(&(to.xid, SessionId::from_stored(Uuid::nil())));
                self.heard.followed(began);
                return Ok(done);
            }
        }
    }
}

impl Loop for FollowerLoop {
    const NAME: &'static str = "changes.sessions";

    async fn tick(&mut self, op: &Op) -> Tick {
        match self.pass(op).await {
            Ok(0) => Tick::Idle,
            Ok(done) => Tick::Worked(done),
            Err(error) => Tick::Waiting(error.to_string().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        storage::{
            global::{
                sessions::{Known, Live, apply, end_all},
                testing::{Fixture, on_database},
                users::{NewUser, insert},
            },
            redis::{
                sessions::{Found, Owed},
                testing::{Server, connect},
            },
        },
        vocab::{Email, OpKind, Region, Role, UserId},
    };
    use chrono::Duration as Days;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Ear {
        changed: Mutex<Vec<TokenHash>>,
        followed: Mutex<Option<Instant>>,
    }

    impl Heard for Ear {
        fn changed(&self, token: &TokenHash) {
            self.changed.lock().unwrap().push(*token);
        }
        fn followed(&self, at: Instant) {
            *self.followed.lock().unwrap() = Some(at);
        }
    }

    fn op() -> Op {
        Op::system(OpKind::Test, Duration::from_secs(20))
    }

    /// Somebody who is signed in, by the directory.
    async fn signed_in(at: &Fixture, token: u8) -> Owed {
        let (email, id): (Email, _) = ("ada@example.com".parse().unwrap(), UserId::mint(&at.op));
        let new =
            NewUser { id, email: &email, name: "Ada", role: Role::Viewer, password_hash: None };
        at.write(async |tx| insert(tx, &at.scope, &new, at.op.now()).await).await;
        let (now, home): (_, Region) = (at.op.now(), "eu-west-1".parse().unwrap());
        let session = Live {
            id: SessionId::mint(&at.op),
            tenant: at.scope.tenant(),
            user: id,
            role: Role::Viewer,
            generation: 1,
            created_at: now,
            expires_at: now + Days::days(7),
        };
        let known = Known {
            session,
            token: TokenHash::new([token; 32]),
            home: home.clone(),
            device: String::new(),
            address: "192.0.2.1".into(),
            seen_at: now,
            seen_in: home,
            ended_at: None,
        };
        at.write(async |tx| apply(tx, std::slice::from_ref(&known), 9, now).await).await;
        Owed { known, at: None }
    }

    async fn end(at: &Fixture, owed: &Owed) {
        let (user, now) = (owed.known.session.user, at.op.now());
        at.write(async |tx| end_all(tx, &at.scope, user, None, now).await).await;
    }

    const LONG: Duration = Duration::from_secs(60);

    async fn dies_midway(at: Fixture) {
        let server = Server::start().await;
        let (ear, op, redis) = (Arc::new(Ear::default()), op(), connect(server.port));
        let owed = signed_in(&at, 1).await;
        let token = owed.known.token;
        sessions::begin(&redis, &owed, LONG, &op).await.unwrap();
        let mut first = FollowerLoop::new(at.global.clone(), redis.clone(), ear.clone());
        assert_eq!(first.tick(&op).await, Tick::Idle);
        assert!(ear.followed.lock().unwrap().take().is_some());
        end(&at, &owed).await;
        // Redis goes away before it is told.
        let port = server.stop().await;
        assert!(matches!(first.tick(&op).await, Tick::Waiting(_)));
        assert!(ear.followed.lock().unwrap().is_none() && ear.changed.lock().unwrap().is_empty());
        // And is back with what it had.
        let _server = Server::start_on(port).await.unwrap();
        while redis.ping().await.is_err() {
            assert!(!op.remaining().is_zero(), "does not come back");
        }
        sessions::begin(&redis, &owed, LONG, &op).await.unwrap();
        assert_eq!(first.tick(&op).await, Tick::Worked(1));
        assert_eq!(ear.changed.lock().unwrap().drain(..).collect::<Vec<_>>(), [token]);
        assert_eq!(sessions::find(&redis, &token, &op).await.unwrap(), Found::Ended);
        assert!(ear.followed.lock().unwrap().is_some());
    }

    #[test]
    fn what_was_ended_is_ended_though_it_dies_midway() {
        on_database("changes::sessions::dies_midway", |pool| async move {
            dies_midway(Fixture::new(&pool).await).await;
        });
    }

    async fn an_older_copy(at: Fixture) {
        let server = Server::start().await;
        let (ear, op, redis) = (Arc::new(Ear::default()), op(), connect(server.port));
        let owed = signed_in(&at, 1).await;
        let token = owed.known.token;
        sessions::begin(&redis, &owed, LONG, &op).await.unwrap();
        let mut follower = FollowerLoop::new(at.global.clone(), redis.clone(), ear.clone());
        follower.tick(&op).await;
        let then = sessions::followed(&redis, &op).await.unwrap().unwrap();
        end(&at, &owed).await;
        assert_eq!(follower.tick(&op).await, Tick::Worked(1));
        assert_eq!(sessions::find(&redis, &token, &op).await.unwrap(), Found::Ended);
        // As it was before the end.
        let port = server.stop().await;
        let _server = Server::start_on(port).await.unwrap();
        while redis.ping().await.is_err() {
            assert!(!op.remaining().is_zero(), "does not come back");
        }
        sessions::begin(&redis, &owed, LONG, &op).await.unwrap();
        sessions::note_followed(&redis, then, &op).await.unwrap();
        assert_eq!(follower.tick(&op).await, Tick::Worked(1));
        assert_eq!(sessions::find(&redis, &token, &op).await.unwrap(), Found::Ended);
    }

    #[test]
    fn a_redis_that_is_back_with_an_older_copy_brings_nobody_back() {
        on_database("changes::sessions::an_older_copy", |pool| async move {
            an_older_copy(Fixture::new(&pool).await).await;
        });
    }
}
