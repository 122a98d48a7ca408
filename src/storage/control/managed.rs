//! An instance that a platform runs: that promotes and re-points it, and SQL does the rest.
//!
//! What such a platform forbids is ALTER SYSTEM, so that the fence is the database's own
//! `default_transaction_read_only`, which a session takes up as it begins: those of before are ended.
//! Slots, and who a commit waits for, are the platform's.

use super::{
    Acting, Beginning, ControlError, DatabaseControl, InstanceRow, Promotion, Upstream,
    pool::{ControlPool, LOOK_EVERY, bounded},
};
use crate::{
    config::Config,
    storage::StorageError,
    vocab::{Bookmark, Clock as _, Epoch, Lsn, Platform, Region, SystemClock},
};
use std::{
    future::Future,
    sync::Mutex,
    time::{Duration, Instant},
};

/// How long what a platform told is believed: it counts who asks how often.
const TOLD_FOR: Duration = Duration::from_secs(5);
/// Longest wait for it by who looks at the instance, which is worth little when it is late.
const TOLD_WITHIN: Duration = Duration::from_millis(800);
/// Longest wait for a platform's answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long one order waits for what a platform does; then whoever gave it asks again.
const WAIT_MAX: Duration = Duration::from_secs(8);
/// A session is in the list of sessions within this from when it read its settings.
const BEGUN_SEEN: Duration = Duration::from_millis(100);
/// Longest for an instance that a platform starts again to answer.
const RESTART_MAX: Duration = Duration::from_secs(60);

/// What a platform tells of this region's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// What it calls the database that this one is a replica of; `None` for a primary, and for one that
    /// it was asked to promote.
    pub follows: Option<String>,
    /// Whether log comes in, where Postgres itself cannot tell.
    pub receiving: Option<bool>,
    /// Where replay was when it was last asked to promote it. A restart forgets that.
    pub promoted_from: Option<Bookmark>,
    /// What it is doing, while it would take no order.
    pub busy: Option<String>,
}

/// One platform's words for it. What it calls databases is `regions.NAME.database`.
pub(super) trait Managing: Send + Sync + 'static {
    const PLATFORM: Platform;
    /// What a person must do to make a database that has left the primary's history follow it.
    const NOT_REMADE: &'static str;
    fn told(&self) -> Acting<'_, Told>;
    /// Asks for the promotion, and keeps `from`, how far the instance has replayed, where a restart does
    /// not lose it.
    fn promote<'a>(&'a self, how: &'a Promotion, from: Bookmark) -> Acting<'a, ()>;
    /// `None` while the old primary has not said what the next is to be told.
    fn hand_over<'a>(&'a self, to: &'a str) -> Acting<'a, Option<String>>;
    fn follow<'a>(&'a self, name: &'a str) -> Acting<'a, ()>;
}

pub(super) struct Managed<P> {
    pool: ControlPool,
    platform: P,
    kept: Mutex<Option<Kept>>,
}

/// The last answer, for a while.
#[derive(Debug, Clone)]
struct Kept {
    at: Instant,
    /// The last there was; `None` when there was none yet.
    told: Option<Told>,
    /// Whether the last question got no answer.
    silent: bool,
}

impl<P: Managing> Managed<P> {
    /// Connects when first used. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the address in the settings is no Postgres URL.
    pub fn new(config: &Config, platform: P) -> Result<Self, StorageError> {
        Ok(Self { pool: ControlPool::new(config)?, platform, kept: Mutex::new(None) })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asked anew.
    async fn ask(&self) -> Result<Told, ControlError> {
        let told = answered(P::PLATFORM, self.platform.told()).await?;
        let at = SystemClock.monotonic();
        *self.kept() = Some(Kept { at, told: Some(told.clone()), silent: false });
        Ok(told)
    }

    /// The last there was, since the instance itself must not be unknown with its platform; and whether that
    /// answers, which is believed as long as what it told.
    async fn recently_told(&self) -> (Option<Told>, bool) {
        let kept = self.kept().clone();
        let fresh = |at: Instant| SystemClock.monotonic().saturating_duration_since(at) < TOLD_FOR;
        if let Some(kept) = kept.as_ref().filter(|kept| fresh(kept.at)) {
            return (kept.told.clone(), !kept.silent);
        }
        let asked = tokio::time::timeout(TOLD_WITHIN, self.ask()).await;
        let late = || ControlError::NotYet(format!("no answer within {TOLD_WITHIN:?}"));
        match asked.unwrap_or_else(|_| Err(late())) {
            Ok(told) => (Some(told), true),
            Err(error) => {
                if !kept.as_ref().is_some_and(|kept| kept.silent) {
                    let error = crate::vocab::causes(&error);
                    tracing::warn!(platform = %P::PLATFORM, %error, "who runs the database does not answer");
                }
                let told = kept.and_then(|kept| kept.told);
                let at = SystemClock.monotonic();
                *self.kept() = Some(Kept { at, told: told.clone(), silent: true });
                (told, false)
            }
        }
    }

    /// After what changes what is told.
    fn forget(&self) {
        *self.kept() = None;
    }

    async fn read(&self) -> Result<InstanceRow, ControlError> {
        let row = self.pool.read().await?;
        let (told, answers) = self.recently_told().await;
        let receiving = told.as_ref().and_then(|told| told.receiving).unwrap_or(row.receiving);
        let conninfo = told.and_then(|told| told.follows).unwrap_or_default();
        Ok(InstanceRow {
            platform: P::PLATFORM,
            platform_answers: Some(answers),
            receiving: row.in_recovery && receiving,
            conninfo: if row.in_recovery { conninfo } else { String::new() },
            read_only: self.is_fenced().await?,
            waits_for: String::new(),
            ..row
        })
    }

    /// As the catalog has it: what a session has of it is as old as the session.
    async fn is_fenced(&self) -> Result<bool, ControlError> {
        let query = sqlx::query_scalar!(
            r#"SELECT EXISTS (
                SELECT FROM pg_db_role_setting
                WHERE setrole = 0 AND 'default_transaction_read_only=on' = ANY (setconfig)
                    AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
            ) AS "fenced!""#
        );
        Ok(bounded(query.fetch_one(self.pool.get()?)).await?)
    }

    async fn alter(&self, how: &'static str) -> Result<(), ControlError> {
        let mut tx = bounded(self.pool.get()?.begin_with("BEGIN READ WRITE")).await?;
        bounded(sqlx::raw_sql(how).execute(&mut *tx)).await?;
        Ok(bounded(tx.commit()).await?)
    }

    async fn end_writes(&self, grace: Duration) -> Result<Lsn, ControlError> {
        if self.pool.in_recovery().await? {
            return Err(ControlError::Refused("it is a standby: there is nothing to fence".into()));
        }
        self.alter(FENCE).await?;
        // A session that is just beginning may have read the settings of before, and be in no list yet.
        tokio::time::sleep(BEGUN_SEEN).await;
        let seen_by = self.pool.now().await?;
        self.pool.end_writers(seen_by, grace, false).await?;
        self.pool.end_sessions(seen_by).await?;
        self.pool.final_position().await
    }

    async fn lift_fence(&self) -> Result<(), ControlError> {
        if self.is_fenced().await? {
            self.alter(LIFT).await?;
        }
        // A run before may have been killed after it was lifted.
        tokio::time::sleep(BEGUN_SEEN).await;
        let seen_by = self.pool.now().await?;
        self.pool.end_sessions(seen_by).await
    }

    async fn stop_recovery(&self, how: &Promotion) -> Result<(), ControlError> {
        let looked = self.pool.in_recovery().await;
        if matches!(looked, Ok(false)) {
            return Ok(());
        }
        let told = self.ask().await?;
        if told.busy.is_none() && told.follows.is_some() {
            looked?;
            let row = self.pool.read().await?;
            // What it tells now is of the promotion that has just ended.
            if !row.in_recovery {
                return Ok(());
            }
            // What it has is what it may begin with: a restart would forget what it had yet to replay.
            if how.planned && row.received.is_some_and(|received| received > row.lsn) {
                let why = format!("it has yet to replay up to {:?}", row.received);
                return Err(ControlError::Underway(why));
            }
            let epoch = row.epochs.iter().map(|start| start.epoch).max();
            let epoch = epoch.ok_or_else(|| ControlError::Refused("it has no epoch".into()))?;
            let from = Bookmark { epoch, lsn: row.lsn };
            answered(P::PLATFORM, self.platform.promote(how, from)).await?;
            self.forget();
        }
        // It may restart meanwhile.
        let end = SystemClock.monotonic() + WAIT_MAX;
        while !matches!(self.pool.in_recovery().await, Ok(false)) {
            if SystemClock.monotonic() > end {
                let busy = told.busy.map(|busy| format!(": {busy}")).unwrap_or_default();
                let why = format!("it is not promoted yet by {}{busy}", P::PLATFORM);
                return Err(ControlError::Underway(why));
            }
            tokio::time::sleep(LOOK_EVERY * 10).await;
        }
        Ok(())
    }

    async fn write_epoch(&self, beginning: &Beginning) -> Result<Lsn, ControlError> {
        let row = self.pool.read().await?;
        let last = row.epochs.iter().max_by_key(|start| start.epoch);
        let Some(ended) = last.filter(|last| last.region != beginning.region) else {
            // One that began here goes on from where it is; so does one whose row is written already. Nobody is
            // about to demote it but who may have been asked to.
            if P::PLATFORM.demotes() {
                self.has_it_as_primary().await?;
            }
            return self.pool.write_epoch(beginning, Some(row.lsn)).await;
        };
        let told = self.has_it_as_primary().await?;
        let start = self.replayed(ended.epoch, told.promoted_from).await?;
        self.pool.write_epoch(beginning, Some(start)).await
    }

    async fn has_it_as_primary(&self) -> Result<Told, ControlError> {
        let told = self.ask().await?;
        if let Some(primary) = &told.follows
            && P::PLATFORM.hands_over()
        {
            let why =
                format!("{} still has {primary} as the primary: take that back first", P::PLATFORM);
            return Err(ControlError::Refused(why));
        }
        if told.busy.is_some() || told.follows.is_some() {
            let busy = told.busy.as_deref().unwrap_or("it still has it as a replica");
            return Err(ControlError::Underway(format!("{}: {busy}", P::PLATFORM)));
        }
        Ok(told)
    }

    /// Where replay ended in the epoch that `ended`: as it was when the promotion was asked for, past which
    /// nothing is known to be of that epoch. What Postgres tells is the same or later, null after a clean
    /// restart, and after a crash past the promotion.
    async fn replayed(&self, ended: Epoch, kept: Option<Bookmark>) -> Result<Lsn, ControlError> {
        // One of another epoch is a restored copy's, or was left by a promotion that came to nothing.
        let Some(kept) = kept.filter(|kept| kept.epoch == ended) else {
            return Err(ControlError::Refused(format!(
                "it was promoted, and {} does not tell from where: nothing says which writes it has",
                P::PLATFORM
            )));
        };
        let query = sqlx::query_scalar!(r#"SELECT pg_last_wal_replay_lsn()::text AS lsn"#);
        let replayed = bounded(query.fetch_one(self.pool.get()?)).await?;
        let replayed = super::pool::parsed(replayed.as_deref())?;
        Ok(replayed.map_or(kept.lsn, |replayed| replayed.min(kept.lsn)))
    }

    async fn give_up(&self, to: &str) -> Result<Option<String>, ControlError> {
        let end = SystemClock.monotonic() + WAIT_MAX;
        loop {
            let token = answered(P::PLATFORM, self.platform.hand_over(to)).await?;
            self.forget();
            if token.is_some() || !P::PLATFORM.hands_over() {
                return Ok(token);
            }
            if SystemClock.monotonic() > end {
                return Err(ControlError::Underway(format!("{} demotes it", P::PLATFORM)));
            }
            tokio::time::sleep(LOOK_EVERY * 10).await;
        }
    }

    async fn comes_up(&self) -> Result<(), ControlError> {
        let what = "its platform has it answer";
        let answers = || async { Ok(self.pool.in_recovery().await.is_ok()) };
        self.pool.settle(RESTART_MAX, what, answers).await
    }
}

/// The database's, for every role that has none of its own.
const FENCE: &str = "DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database());
END $$";
const LIFT: &str = "DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I RESET default_transaction_read_only', current_database());
END $$";

async fn answered<T>(
    platform: Platform,
    asked: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ControlError> {
    let answered = tokio::time::timeout(ANSWER_MAX, asked).await;
    answered.unwrap_or_else(|_| {
        Err(ControlError::NotYet(format!("{platform} does not answer within {ANSWER_MAX:?}")))
    })
}

impl<P: Managing> DatabaseControl for Managed<P> {
    fn look(&self) -> Acting<'_, InstanceRow> {
        Box::pin(self.read())
    }
    /// It goes on receiving until it is promoted, or told to follow another. What it gets meanwhile it
    /// tells, and what it has past the next epoch's beginning keeps it out of the cluster's history.
    fn detach(&self) -> Acting<'_, ()> {
        Box::pin(async {
            if self.pool.in_recovery().await? {
                return Ok(());
            }
            Err(ControlError::Refused("it is a primary: it follows nobody".into()))
        })
    }
    fn fence(&self, grace: Duration) -> Acting<'_, Lsn> {
        Box::pin(self.end_writes(grace))
    }
    fn unfence(&self) -> Acting<'_, ()> {
        Box::pin(self.lift_fence())
    }
    fn hand_over<'a>(&'a self, to: &'a Upstream) -> Acting<'a, Option<String>> {
        Box::pin(self.give_up(&to.conninfo))
    }
    fn promote<'a>(&'a self, how: &'a Promotion) -> Acting<'a, ()> {
        Box::pin(self.stop_recovery(how))
    }
    fn begin<'a>(&'a self, beginning: &'a Beginning) -> Acting<'a, Lsn> {
        Box::pin(async move {
            let start = self.write_epoch(beginning).await?;
            self.lift_fence().await?;
            Ok(start)
        })
    }
    fn follow<'a>(&'a self, upstream: &'a Upstream) -> Acting<'a, ()> {
        Box::pin(async move {
            if !self.pool.in_recovery().await? {
                return Err(ControlError::Refused("it is a primary: rejoin it".into()));
            }
            let (told, _) = self.recently_told().await;
            if told.is_some_and(|told| told.follows.as_ref() == Some(&upstream.conninfo)) {
                return Ok(());
            }
            answered(P::PLATFORM, self.platform.follow(&upstream.conninfo)).await?;
            self.forget();
            Ok(())
        })
    }
    fn wait_for<'a>(&'a self, regions: &'a [Region]) -> Acting<'a, ()> {
        Box::pin(async move {
            if regions.is_empty() {
                return Ok(());
            }
            let why = format!("with {} no commit waits for another region", P::PLATFORM);
            Err(ControlError::Refused(why))
        })
    }
    fn keep_slots<'a>(
        &'a self,
        _wanted: &'a [(Region, Option<Lsn>)],
        _dropped: &'a [Region],
    ) -> Acting<'a, u64> {
        Box::pin(async { Ok(0) })
    }
    fn stop(&self) -> Acting<'_, ()> {
        Box::pin(async { Err(ControlError::Refused(P::NOT_REMADE.to_owned())) })
    }
    fn start(&self) -> Acting<'_, ()> {
        Box::pin(self.comes_up())
    }
    fn keep(&self) -> Acting<'_, String> {
        Box::pin(async { Err(ControlError::Refused(P::NOT_REMADE.to_owned())) })
    }
    fn rewind<'a>(&'a self, _upstream: &'a Upstream) -> Acting<'a, ()> {
        Box::pin(async { Err(ControlError::Refused(P::NOT_REMADE.to_owned())) })
    }
    fn rebuild<'a>(&'a self, _upstream: &'a Upstream) -> Acting<'a, ()> {
        Box::pin(async { Err(ControlError::Refused(P::NOT_REMADE.to_owned())) })
    }
}
