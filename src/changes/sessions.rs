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
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use uuid::Uuid;

/// Changes read at once.
const TOGETHER_MAX: i64 = 1_000;

/// Told of every session that is not what it was.
pub type Heard = Arc<dyn Fn(&TokenHash) + Send + Sync>;

/// Follows the directory.
pub struct FollowerLoop {
    global: Global,
    redis: Redis,
    heard: Heard,
    /// `None`: this process has yet to ask how far its region has come.
    horizon: Option<Horizon>,
    /// Dealt with, and not behind the horizon yet: a transaction that stays open for long keeps it back.
    dealt: BTreeSet<(u64, SessionId)>,
}

impl FollowerLoop {
    #[must_use]
    pub fn new(global: Global, redis: Redis, heard: Heard) -> Self {
        Self { global, redis, heard, horizon: None, dealt: BTreeSet::new() }
    }

    #[must_use]
    pub const fn schedule() -> Schedule {
        Schedule { interval: Duration::from_millis(200), pass_max: Duration::from_secs(60) }
    }

    async fn pass(&mut self, op: &Op) -> Result<u64, StorageError> {
        let from = match self.horizon {
            Some(horizon) => horizon,
            // A Redis that does not know has no sessions from before either, or lost this alone.
            None => sessions::followed(&self.redis, op).await?.unwrap_or(Horizon::START),
        };
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
            sessions::end(&self.redis, &ended, op).await?;
            sessions::forget(&self.redis, &stale, op).await?;
            // Redis first: what a process forgets it looks up there.
            for token in ended.iter().map(|(token, _)| token).chain(&stale) {
                (self.heard)(token);
            }
            done += (ended.len() + stale.len()) as u64;
            self.dealt.extend(page.changes.iter().map(|change| (change.xid, change.id)));
            // Of the first snapshot: what was under way then is looked for again.
            let to = *to.get_or_insert(page.horizon);
            after = page.next;
            if after.is_none() {
                if self.horizon != Some(to) {
                    sessions::note_followed(&self.redis, to, op).await?;
                    self.horizon = Some(to);
                }
                self.dealt = self.dealt.split_off(&(to.xid, SessionId::from_stored(Uuid::nil())));
                return Ok(done);
            }
        }
    }
}

impl FollowerLoop {
    fn is_new(&self, change: &Change) -> bool {
        !self.dealt.contains(&(change.xid, change.id))
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
