//! From a session's token to who is signed in, as far as this region can tell.
//!
//! What this process has just looked up, then the region's Redis, then its replica's directory. A session
//! that is found in the directory goes into Redis, and what was put there is compared with the directory once
//! more: a change that was followed in between would have found nothing to change. What is not found here
//! proves nothing: whoever asks goes on to the region that began it, and to the primary.

use super::{
    resolve::{Credential, Principal},
    token::TokenKeys,
};
use crate::{
    config::{Config, SessionConfig},
    storage::{
        StorageError,
        global::{
            hot::HotReads,
            sessions::{Entry, Live},
        },
        redis::{Redis, sessions},
    },
    telemetry::{Metrics, metrics::SessionSource},
    vocab::{Actor, Op, TokenHash},
};
use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, UnitWeighter,
    sync::{Cache, DefaultLifecycle},
};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

/// A session's look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    Live(Live),
    /// Ended, or expired: for good.
    Ended,
    /// Not here.
    Absent {
        /// Redis has answered: what it was given it still has.
        asked: bool,
    },
}

/// Changes that were followed longer ago leave open whether Redis still has what was ended.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(2);

/// Sessions believed at most: more than a process looks up while it believes them.
const KNOWN_MAX: u64 = 20_000;

/// Ends remembered at most.
const ENDED_MAX: u64 = 20_000;

/// How often at most a process tells Redis that a session is in use.
const RENEWED_EVERY: Duration = Duration::from_secs(60);

/// Looks sessions up. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    pub keys: TokenKeys,
    config: Arc<SessionConfig>,
    redis: Redis,
    known: Arc<Recent<Live>>,
    renewed: Arc<Recent<()>>,
    /// Ended while nobody recorded it: Redis may be gone before the directory knows.
    ended: Arc<Recent<()>>,
    metrics: Arc<Metrics>,
    /// When everything that the directory had then had been followed; `None` before the first time.
    followed: Arc<RwLock<Option<Instant>>>,
}

impl Sessions {
    #[must_use]
    pub fn new(config: &Config, redis: Redis, metrics: Arc<Metrics>) -> Self {
        let identity = &config.identity;
        let (most, life) =
            (identity.credentials_cached_max, Duration::from_millis(identity.session.cache_ms));
        let every = RENEWED_EVERY.min(identity.session.idle() / 4);
        Self {
            keys: TokenKeys::new(&identity.session, &config.cluster),
            known: Arc::new(Recent::new(most.min(KNOWN_MAX), life)),
            renewed: Arc::new(Recent::new(most, every)),
            ended: Arc::new(Recent::new(ENDED_MAX, identity.session.lasts())),
            config: Arc::new(identity.session.clone()),
            redis,
            metrics,
            followed: Arc::default(),
        }
    }

    #[must_use]
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    /// What this region knows of a token. `redis`: whose connection is near to who asks.
    ///
    /// # Errors
    /// When neither Redis nor the database can tell.
    pub async fn find(
        &self,
        token: &TokenHash,
        redis: &Redis,
        hot: &HotReads,
        op: &Op,
    ) -> Result<Lookup, StorageError> {
        if !self.is_following(op) {
            // Redis may still have what was ended since. Where the directory cannot be asked either, nothing
            // is read here: the primary judges.
            match Box::pin(self.recorded(token, hot, op)).await {
                Ok(Lookup::Absent { .. }) | Err(_) => {}
                Ok(found) => {
                    self.metrics.people.session_lookups.count(SessionSource::Directory);
                    return Ok(found);
                }
            }
        }
        if let Some(live) = self.known.get(token, op) {
            self.metrics.people.session_lookups.count(SessionSource::Local);
            return Ok(judged(live, op));
        }
        let asked = match sessions::find(redis, token, op).await {
            // It may be back with what it had before that.
            Ok(sessions::Found::Live(_)) if self.ended.get(token, op).is_some() => {
                self.metrics.people.session_lookups.count(SessionSource::Local);
                return Ok(Lookup::Ended);
            }
            Ok(sessions::Found::Live(live)) => {
                self.metrics.people.session_lookups.count(SessionSource::Local);
                self.known.put(token, live.clone(), op);
                return Ok(judged(live, op));
            }
            Ok(sessions::Found::Ended) => {
                self.metrics.people.session_lookups.count(SessionSource::Local);
                return Ok(Lookup::Ended);
            }
            Ok(sessions::Found::Absent) => true,
            // The directory knows most of them.
            Err(error) => {
                tracing::debug!(error = %error, "Redis does not tell of a session");
                false
            }
        };
        match Box::pin(self.recorded(token, hot, op)).await? {
            Lookup::Live(live) => {
                self.metrics.people.session_lookups.count(SessionSource::Directory);
                if !asked {
                    return Ok(Lookup::Live(live));
                }
                Box::pin(self.adopt(token, live, hot, op)).await
            }
            Lookup::Ended => {
                self.metrics.people.session_lookups.count(SessionSource::Directory);
                Ok(Lookup::Ended)
            }
            Lookup::Absent { .. } => Ok(Lookup::Absent { asked }),
        }
    }

    /// What the directory of this region's database says, and of an end that it has not heard of this process.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn recorded(
        &self,
        token: &TokenHash,
        hot: &HotReads,
        op: &Op,
    ) -> Result<Lookup, StorageError> {
        if self.ended.get(token, op).is_some() {
            return Ok(Lookup::Ended);
        }
        Ok(match hot.session(token, op).await?.value {
            Entry::Live { session, seen_at } => {
                // The directory hears seldom of a session in use.
                let idle = self.config.idle() + self.config.told_every();
                let idle = chrono::Duration::from_std(idle).unwrap_or(chrono::Duration::MAX);
                if op.now() - seen_at > idle { Lookup::Ended } else { judged(session, op) }
            }
            Entry::Ended => Lookup::Ended,
            Entry::Absent => Lookup::Absent { asked: true },
        })
    }

    /// Puts a session that was found elsewhere into this region's Redis, and looks once more whether it is
    /// what the directory says now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn adopt(
        &self,
        token: &TokenHash,
        live: Live,
        hot: &HotReads,
        op: &Op,
    ) -> Result<Lookup, StorageError> {
        if let Err(error) =
            sessions::keep(&self.redis, token, &live, self.idle_of(&live, op), op).await
        {
            tracing::debug!(error = %error, "a session is not kept in Redis");
            return Ok(Lookup::Live(live));
        }
        let again = match self.recorded(token, hot, op).await {
            // Found at the region that began it, and not recorded here yet.
            Ok(Lookup::Absent { .. }) => return Ok(Lookup::Live(live)),
            Ok(Lookup::Live(again)) if again == live => {
                self.known.put(token, live.clone(), op);
                return Ok(Lookup::Live(live));
            }
            again => again,
        };
        if let Err(error) = sessions::forget(&self.redis, &[*token], op).await {
            tracing::debug!(error = %error, "a session stays in Redis until it is followed");
        }
        again
    }

    /// A session has been used. Tells whether the directory is to hear of it.
    pub async fn renew(&self, token: &TokenHash, live: &Live, op: &Op) -> bool {
        if self.renewed.get(token, op).is_some() {
            return false;
        }
        self.renewed.put(token, (), op);
        let idle = self.idle_of(live, op);
        let told = self.config.told_every();
        match Box::pin(sessions::renew(&self.redis, token, idle, told, op)).await {
            // One that has just begun has just been seen.
            Ok(first) => first && op.now() - live.created_at > chrono_of(told),
            Err(_) => false,
        }
    }

    /// All changes that this region's replica had at that moment are known here and to Redis.
    pub fn followed(&self, at: Instant) {
        *self.followed.write().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    fn is_following(&self, op: &Op) -> bool {
        let followed = *self.followed.read().unwrap_or_else(PoisonError::into_inner);
        let now = op.clock.monotonic();
        followed.is_some_and(|at| now.saturating_duration_since(at) < FOLLOWED_WITHIN)
    }

    /// A session has been ended, whatever the directory says.
    pub fn ended(&self, token: &TokenHash, op: &Op) {
        self.ended.put(token, (), op);
        self.forget(token);
    }

    /// Forgets what this process knows of a token. What Redis knows is its caller's to change first.
    pub fn forget(&self, token: &TokenHash) {
        self.known.forget(token);
    }

    /// How long a session may be idle from now.
    #[must_use]
    pub fn idle_of(&self, live: &Live, op: &Op) -> Duration {
        let left = (live.expires_at - op.now()).to_std().unwrap_or_default();
        self.config.idle().min(left)
    }
}

fn judged(live: Live, op: &Op) -> Lookup {
    if live.expires_at <= op.now() { Lookup::Ended } else { Lookup::Live(live) }
}

/// What was put for a token, for as long as it is believed. Bounded: what is too old stays until another needs
/// its place. (A cache that tends to its old entries by itself takes a tenth of what a look-up may.)
struct Recent<T> {
    entries: Cache<TokenHash, (Instant, T)>,
    life: Duration,
}

impl<T: Clone> Recent<T> {
    fn new(most: u64, life: Duration) -> Self {
        let places = usize::try_from(most).unwrap_or(usize::MAX);
        // Half of the places are for who comes: they are worth more than who came often, and is believed no more.
        let options = OptionsBuilder::new()
            .estimated_items_capacity(places)
            .weight_capacity(most)
            .hot_allocation(0.5)
            .ghost_allocation(0.0)
            .build()
            .expect("both capacities are set");
        let (one_each, hasher) = (UnitWeighter, DefaultHashBuilder::default());
        let entries = Cache::with_options(options, one_each, hasher, DefaultLifecycle::default());
        Self { entries, life }
    }

    fn get(&self, token: &TokenHash, op: &Op) -> Option<T> {
        let (put, value) = self.entries.get(token)?;
        let age = op.clock.monotonic().saturating_duration_since(put);
        (age < self.life).then_some(value)
    }

    fn put(&self, token: &TokenHash, value: T, op: &Op) {
        self.entries.insert(*token, (op.clock.monotonic(), value));
    }

    fn forget(&self, token: &TokenHash) {
        self.entries.remove(token);
    }
}

/// Who is signed in.
#[must_use]
pub fn principal(live: &Live, token: Option<TokenHash>) -> Principal {
    Principal {
        credential: Credential::Session {
            id: live.id,
            user: live.user,
            generation: live.generation,
            token,
        },
        actor: Actor::User(live.user),
        scope: live.scope(),
        scopes: live.role.scopes(),
    }
}

fn chrono_of(duration: Duration) -> chrono::Duration {
    chrono::Duration::from_std(duration).unwrap_or(chrono::Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{OpKind, SystemRng, clock::ManualClock};

    const LIFE: Duration = Duration::from_millis(500);

    fn token(n: u32) -> TokenHash {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        TokenHash::new(bytes)
    }

    fn clock_and_op() -> (Arc<ManualClock>, Op) {
        let clock = Arc::new(ManualClock::new());
        let op = Op::new(OpKind::Test, clock.clone(), Arc::new(SystemRng), LIFE);
        (clock, op)
    }

    #[test]
    fn is_believed_for_its_life_and_not_a_moment_longer() {
        let ((clock, op), recent) = (clock_and_op(), Recent::new(10, LIFE));
        recent.put(&token(1), "first", &op);
        clock.advance(Duration::from_millis(499));
        assert_eq!(recent.get(&token(1), &op), Some("first"));
        clock.advance(Duration::from_millis(1));
        assert_eq!(recent.get(&token(1), &op), None);
        recent.put(&token(1), "second", &op);
        assert_eq!(recent.get(&token(1), &op), Some("second"));
        assert_eq!(recent.get(&token(2), &op), None);
        recent.forget(&token(1));
        assert_eq!(recent.get(&token(1), &op), None);
    }

    #[test]
    fn with_no_life_nothing_is_believed() {
        let ((_, op), recent) = (clock_and_op(), Recent::new(10, Duration::ZERO));
        recent.put(&token(1), (), &op);
        assert_eq!(recent.get(&token(1), &op), None);
    }

    #[test]
    fn whoever_comes_finds_a_place_however_many_came_before() {
        let ((clock, op), recent) = (clock_and_op(), Recent::new(1_000, LIFE));
        for n in 0..20_000 {
            recent.put(&token(n), n, &op);
            recent.get(&token(n), &op);
        }
        clock.advance(LIFE);
        let new = 100_000..100_300;
        for n in new.clone() {
            recent.put(&token(n), n, &op);
        }
        let kept = new.filter(|n| recent.get(&token(*n), &op).is_some()).count();
        assert!(kept >= 250, "{kept} of 300 are believed");
        assert!(recent.entries.len() <= 1_000);
    }
}
