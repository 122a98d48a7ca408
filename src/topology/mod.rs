//! Who is where: this region's own position, its peers, the primary and the lag.
//!
//! A position loop asks this region's database, a watcher asks each peer, and both publish into one
//! immutable [`Snapshot`]. Everything else reads that snapshot or awaits its next one; nothing
//! polls. Lag is `None` until measured, a peer not heard of in time is unreachable, and an own
//! database that does not answer is unknown at once: no stale value is ever taken for a good one.
//!
//! When the database dies the snapshot says so and reads are forwarded; when peers cannot be
//! reached local reads go on.

pub mod ask;
pub mod control;
pub mod lag;
pub mod lease;
pub mod ledger;
pub mod note;
pub mod position;
pub mod probe;
pub mod report;
pub mod schema;
pub mod seal;
pub mod snapshot;
pub mod tls;
pub mod watcher;

pub use report::{Role, TopologyReport};
use snapshot::AskedAt;
pub use snapshot::{Lag, Lease, Own, Peer, PrimaryAt, Quarantine, Snapshot};

use crate::{
    config::LeaseConfig,
    loops::Activator,
    vocab::{Bookmark, Epoch, Region, SharedClock, Standing},
};
use control::Standby;
use lease::{Hold, Promise};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// The one place the snapshot is published from and read at. Cheap to clone.
#[derive(Clone)]
pub struct Topology {
    inner: Arc<Inner>,
}

struct Inner {
    clock: SharedClock,
    stale_after: Duration,
    snapshot: watch::Sender<Snapshot>,
    lag: Mutex<lag::LagTracker>,
    lease: LeaseConfig,
    hold: Mutex<Hold>,
    standbys: Mutex<Option<(Instant, Vec<Standby>)>>,
    waiters: AtomicUsize,
    waiting: Activator,
}

/// A fence on the database is seen by every process of its region within this, or the process answers
/// no strong read. The position is asked for every `database.position_idle_ms`, and at once when
/// somebody waits.
pub const FENCE_SEEN: Duration = Duration::from_millis(150);

/// Longest wait for a database's position once a look at it has failed: for the next one or two.
const SEEN_AGAIN: Duration = Duration::from_secs(1);

/// Who follows is looked at twice a second; what was seen longer ago is not told.
const STANDBYS_KEPT: Duration = Duration::from_secs(5);

/// How a wait for a bookmark ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// This replica has replayed it.
    Reached,
    /// The budget ran out, or the database is no longer known: ask the primary.
    NotInTime,
    /// A newer epoch became known while waiting, and the bookmark is lost in it.
    Lost,
}

impl Topology {
    #[must_use]
    pub fn new(
        region: Region,
        peers: impl IntoIterator<Item = Region>,
        stale_after: Duration,
        lease: LeaseConfig,
        clock: SharedClock,
    ) -> Self {
        let peers: BTreeMap<_, _> = peers.into_iter().map(|peer| (peer, Peer::default())).collect();
        let snapshot = Snapshot {
            region,
            own: None,
            shown: None,
            written: None,
            peers,
            lag: None,
            lease: None,
            promise: None,
            asked_ms: None,
            move_heard: None,
            majority_heard: false,
            missed_since: None,
            past_since: None,
            starts_until: None,
            primary_known: false,
        };
        Self {
            inner: Arc::new(Inner {
                clock,
                stale_after,
                snapshot: watch::Sender::new(snapshot),
                lag: Mutex::default(),
                lease,
                hold: Mutex::default(),
                standbys: Mutex::default(),
                waiters: AtomicUsize::new(0),
                waiting: Activator::new(),
            }),
        }
    }

    /// Reads the newest snapshot in place. `look` must be quick: publishing waits for it.
    pub fn look<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.inner.snapshot.borrow())
    }

    /// A receiver that is told of every newer snapshot.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.inner.snapshot.subscribe()
    }

    #[must_use]
    pub fn now(&self) -> Instant {
        self.inner.clock.monotonic()
    }

    /// Who the primary is, as far as can be known now.
    #[must_use]
    pub fn primary(&self) -> PrimaryAt {
        let now = self.now();
        self.look(|snapshot| snapshot.primary(now, self.inner.stale_after))
    }

    /// Is this peer heard of recently enough to be counted on?
    #[must_use]
    pub fn reachable(&self, peer: &Peer) -> bool {
        peer.reachable(self.now(), self.inner.stale_after)
    }

    /// Is that region heard of recently enough to be asked?
    #[must_use]
    pub fn reaches(&self, region: &Region) -> bool {
        self.look(|snapshot| snapshot.peers.get(region).is_some_and(|peer| self.reachable(peer)))
    }

    /// Wakes the position loop.
    #[must_use]
    pub fn waiting(&self) -> Activator {
        self.inner.waiting.clone()
    }

    fn has_waiters(&self) -> bool {
        self.inner.waiters.load(Ordering::Relaxed) > 0
    }

    /// Waits until this region's database stands `Reached` to the bookmark, at most until
    /// `deadline`. Holds no connection. Cancellation-safe.
    pub async fn wait(&self, bookmark: Bookmark, deadline: Instant) -> Waited {
        let _waiter = Waiter::register(&self.inner);
        let mut snapshots = self.subscribe();
        let reached = snapshots.wait_for(|snapshot| match snapshot.readable() {
            // A database that died mid-wait will not come to the bookmark in time.
            None => true,
            Some(own) => {
                matches!(own.standing(bookmark), Standing::Reached | Standing::Lost { .. })
            }
        });
        match tokio::time::timeout_at(deadline.into(), reached).await {
            Ok(Ok(snapshot)) => match snapshot.readable().map(|own| own.standing(bookmark)) {
                Some(Standing::Reached) => Waited::Reached,
                Some(Standing::Lost { .. }) => Waited::Lost,
                _ => Waited::NotInTime,
            },
            _ => Waited::NotInTime,
        }
    }

    /// The loops begin now: what this process does not know yet it may be about to learn.
    pub fn begins(&self) {
        // By then a lease that can be had is held.
        let starts_until = self.now() + Duration::from_millis(self.inner.lease.term_ms);
        self.inner.snapshot.send_modify(|snapshot| snapshot.starts_until = Some(starts_until));
    }

    /// Whether its loops have begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.look(|snapshot| snapshot.starts_until.is_some())
    }

    /// Waits, in a process that began a moment ago, until it knows of a primary or, where its own data could
    /// not be read, until it can; at most until `deadline`. `false` when there is nothing new to learn.
    /// Cancellation-safe.
    pub async fn learn(&self, deadline: Instant) -> bool {
        let now = self.now();
        let mut snapshots = self.subscribe();
        let (until, unread) = {
            let snapshot = snapshots.borrow_and_update();
            (snapshot.learns_until(now), snapshot.readable().is_none())
        };
        let Some(until) = until else { return false };
        let learned = snapshots.wait_for(|snapshot| {
            snapshot.primary_known || (unread && snapshot.readable().is_some())
        });
        matches!(tokio::time::timeout_at(deadline.min(until).into(), learned).await, Ok(Ok(_)))
    }

    /// Waits until another region tells that its replica has come to `at`, at most until `deadline`.
    /// `true` at once where no other region is a member. Cancellation-safe.
    pub async fn wait_elsewhere(&self, at: Bookmark, deadline: Instant) -> bool {
        let mut snapshots = self.subscribe();
        let kept = snapshots.wait_for(|snapshot| {
            let has = |peer: &Peer| {
                let Some(report) = &peer.report else { return false };
                // A position of another epoch says nothing about this log.
                let come_to = report.position.filter(|come_to| come_to.epoch == at.epoch);
                report.role == Some(Role::Replica)
                    && report.quarantine.is_none()
                    && come_to.is_some_and(|come_to| come_to.lsn >= at.lsn)
            };
            let members = snapshot.members();
            let mut others = members.others(&snapshot.region).peekable();
            others.peek().is_none() || others.any(|at| snapshot.peers.get(at).is_some_and(has))
        });
        matches!(tokio::time::timeout_at(deadline.into(), kept).await, Ok(Ok(_)))
    }

    /// This region's database was seen at `at`, by a read or a commit: it has come at least so far.
    /// Saves the next request with that bookmark a wait for the position loop.
    pub fn note_position(&self, at: Bookmark) {
        let newer = |own: &Own| own.epoch() == at.epoch && own.lsn < at.lsn;
        if !self.look(|snapshot| snapshot.own.as_ref().is_some_and(newer)) {
            return;
        }
        self.inner.snapshot.send_if_modified(|snapshot| match &mut snapshot.own {
            Some(own) if newer(own) => {
                own.lsn = at.lsn;
                true
            }
            _ => false,
        });
    }

    /// A region granted `epoch` what was asked for at `sent_at`.
    fn granted(&self, region: &Region, epoch: Epoch, sent_at: Instant) {
        let mut hold = self.inner.hold.lock().unwrap_or_else(PoisonError::into_inner);
        hold.granted(region, epoch, sent_at, &self.inner.lease);
        let tracker = self.inner.lag.lock().unwrap_or_else(PoisonError::into_inner);
        let heard_after = self.now().checked_sub(self.inner.stale_after);
        self.inner.snapshot.send_modify(|snapshot| {
            // A database that does not answer just now has told of it before.
            let Some(members) = snapshot.members_of(epoch) else { return };
            let until = hold.until(epoch, &members);
            snapshot.lease = until.map(|until| Lease { epoch, until });
            snapshot.note_primary(self.now(), self.inner.stale_after);
            snapshot.age(&tracker, heard_after);
        });
    }

    /// Until when this process may take writes of `epoch`; `None` when a majority never granted it.
    #[must_use]
    pub fn lease_until(&self, epoch: Epoch) -> Option<Instant> {
        let lease = self.look(|snapshot| snapshot.lease)?;
        (lease.epoch == epoch).then_some(lease.until)
    }

    /// Whether this region is the primary of `epoch` now, which is not known from longer ago than
    /// `FENCE_SEEN`: so soon a fence is seen, whoever made it.
    pub async fn is_still_primary(&self, epoch: Epoch, deadline: Instant) -> bool {
        let _waiter = Waiter::register(&self.inner);
        let mut snapshots = self.subscribe();
        let fresh = snapshots.wait_for(|snapshot| match &snapshot.own {
            None => true,
            Some(own) => self.now().saturating_duration_since(own.asked_at) < FENCE_SEEN,
        });
        // What it gives is a read lock: kept while the next one is taken, it would wait for a writer
        // that waits for it.
        let seen = matches!(tokio::time::timeout_at(deadline.into(), fresh).await, Ok(Ok(_)));
        seen && self.primary() == PrimaryAt::Here(epoch)
    }

    /// Whether what was read here up to now is of an epoch that this region knows: while the primary
    /// moves, or has moved and its epoch is not here yet, a replica can be ahead of it.
    pub async fn is_of_its_epoch(&self, deadline: Instant) -> bool {
        let read_at = self.now();
        let settled = |snapshot: &Snapshot| {
            let newest = snapshot.own.as_ref().map(Own::epoch) == snapshot.epoch_highest();
            newest && snapshot.moving().is_none()
        };
        if self.look(settled) {
            return true;
        }
        let _waiter = Waiter::register(&self.inner);
        let mut snapshots = self.subscribe();
        let fresh = snapshots
            .wait_for(|snapshot| snapshot.own.as_ref().is_some_and(|own| own.asked_at >= read_at));
        // One look may fail; a database that does not come back within this is away.
        let deadline = deadline.min(read_at + SEEN_AGAIN);
        let seen = matches!(tokio::time::timeout_at(deadline.into(), fresh).await, Ok(Ok(_)));
        seen && self.look(Snapshot::is_within_its_epoch)
    }

    /// Waits until an epoch after this one is known of.
    pub async fn is_deposed(&self, epoch: Epoch) {
        let mut snapshots = self.subscribe();
        // Fails only with the topology itself.
        let _ = snapshots.wait_for(|snapshot| snapshot.epoch_highest() > Some(epoch)).await;
    }

    /// Waits until some region is known, from later than `after`, to take writes.
    pub async fn wait_for_primary(&self, after: Instant, deadline: Instant) -> PrimaryAt {
        let mut snapshots = self.subscribe();
        let known = snapshots.wait_for(|snapshot| {
            let known_at = match snapshot.primary(self.now(), self.inner.stale_after) {
                PrimaryAt::Here(_) => snapshot.own.as_ref().map(|own| own.asked_at),
                PrimaryAt::Peer(region, _) => {
                    snapshot.peers.get(&region).and_then(|peer| peer.heard_at)
                }
                PrimaryAt::Fenced(_) | PrimaryAt::Unknown => None,
            };
            known_at > Some(after)
        });
        // Past the deadline whatever is known then.
        let _ = tokio::time::timeout_at(deadline.into(), known).await;
        self.primary()
    }

    /// Who follows this region's database; `None` when that is not known from a moment ago.
    #[must_use]
    pub fn standbys(&self) -> Option<Vec<Standby>> {
        let kept = self.inner.standbys.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen_at, standbys) = kept.as_ref()?;
        let age = self.now().saturating_duration_since(*seen_at);
        (age < STANDBYS_KEPT).then(|| standbys.clone())
    }

    pub fn note_standbys(&self, standbys: Vec<Standby>) {
        let now = self.now();
        let mut kept = self.inner.standbys.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((now, standbys));
    }

    /// Notes whether a primary is known, and how long none has been.
    #[must_use]
    pub fn note_missed(&self, known: bool) -> Option<Duration> {
        let now = self.now();
        let mut missed = None;
        self.inner.snapshot.send_if_modified(|snapshot| {
            let since = snapshot.missed_since.or(Some(now)).filter(|_| !known);
            missed = since.map(|since| now.saturating_duration_since(since));
            snapshot.missed_since = since;
            // Nobody waits for it.
            false
        });
        missed
    }

    /// What this region has promised, and when that was last asked for.
    fn publish_promise(&self, promise: Option<Promise>, asked: Option<AskedAt>) {
        let now = self.now();
        self.inner.snapshot.send_if_modified(|snapshot| {
            let changed = snapshot.promise != promise;
            // Another process was asked for it anew.
            let again = asked.filter(|asked| snapshot.asked_ms != Some(asked.at_ms));
            if let (Some(promise), Some(asked)) = (&promise, again) {
                snapshot.asked_ms = Some(asked.at_ms);
                snapshot.promises(promise, now.checked_sub(asked.ago).unwrap_or(now));
            } else {
                snapshot.promise = promise;
                snapshot.hear_of_a_move(now);
            }
            changed || again.is_some()
        });
    }

    /// This region has given its promise, to a move that began or goes on.
    fn promises(&self, promise: &Promise) {
        let now = self.now();
        self.inner.snapshot.send_modify(|snapshot| snapshot.promises(promise, now));
    }

    fn publish_own(&self, mut own: Option<Own>) {
        let now = self.now();
        if let Some(own) = own.as_mut().filter(|own| own.unbegun) {
            let known = self.look(|snapshot| snapshot.own.as_ref().map(Own::position));
            let known = known.filter(|known| known.epoch == own.epoch());
            own.lsn = known.map_or(own.lsn, |known| known.lsn.min(own.lsn));
        }
        let mut tracker = self.inner.lag.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = &own {
            tracker.note_local(now, own.position());
        }
        let heard_after = now.checked_sub(self.inner.stale_after);
        self.inner.snapshot.send_modify(|snapshot| {
            snapshot.written = snapshot.written.max(own.as_ref().map(Own::epoch));
            if let Some(own) = &mut own {
                own.remember(&mut snapshot.shown);
            }
            snapshot.note_own(own);
            snapshot.count_heard();
            snapshot.note_primary(now, self.inner.stale_after);
            snapshot.age(&tracker, heard_after);
        });
    }

    fn publish_peer(&self, region: &Region, peer: Peer) {
        let mut tracker = self.inner.lag.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((position, at)) = peer.primary_position() {
            tracker.note_primary(at, position);
        }
        let now = self.now();
        let heard_after = now.checked_sub(self.inner.stale_after);
        self.inner.snapshot.send_modify(|snapshot| {
            snapshot.peers.insert(region.clone(), peer);
            snapshot.count_heard();
            snapshot.note_primary(now, self.inner.stale_after);
            snapshot.hear_of_a_move(now);
            snapshot.age(&tracker, heard_after);
        });
    }
}

/// Counts a waiting request for as long as it lives, and wakes the position loop.
struct Waiter<'a>(&'a Inner);

impl<'a> Waiter<'a> {
    fn register(inner: &'a Inner) -> Self {
        inner.waiters.fetch_add(1, Ordering::Relaxed);
        inner.waiting.activate();
        Self(inner)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
