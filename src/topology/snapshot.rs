//! The immutable picture of the cluster, as this process sees it.

use super::{
    lag::LagTracker,
    lease::Promise,
    report::{Role, TopologyReport},
};
use crate::{
    config::broken,
    vocab::{Bookmark, Epoch, EpochHistory, EpochStart, Lsn, Members, Region, Standing},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// When a region's promise was last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AskedAt {
    /// In milliseconds of that region's Redis' own clock.
    pub at_ms: u64,
    pub ago: Duration,
}

#[derive(Debug, Clone)]
pub struct Snapshot {
    pub region: Region,
    /// This region's own database; `None` while it does not answer.
    pub own: Option<Own>,
    /// The newest epoch that this region's database was ever seen to have a row of.
    pub written: Option<Epoch>,
    /// The furthest that this region's database, a primary, was ever known to show all commits up to.
    pub shown: Option<Bookmark>,
    /// Every other region.
    pub peers: BTreeMap<Region, Peer>,
    /// How old a local read can be; `None` while that cannot be told.
    pub lag: Option<Lag>,
    /// What this process was granted, for the epoch of its region's reign; `None` before a majority
    /// has granted it.
    pub lease: Option<Lease>,
    /// What this region has promised to a promotion, as last read in its Redis.
    pub promise: Option<Promise>,
    /// When that was last asked for, in milliseconds of this region's Redis' own clock.
    pub(super) asked_ms: Option<u64>,
    /// The newest promise that was heard of, and when: first, or when this process was last asked for it.
    pub move_heard: Option<(Promise, Instant)>,
    /// Has a majority of regions, this one counted, been heard of by this process, ever?
    pub majority_heard: bool,
    /// Since when this process knows of no primary; noted where it would be replaced without anyone
    /// asking for it.
    pub missed_since: Option<Instant>,
    /// Since when this region's replica is past the start of an epoch whose row it has not replayed.
    pub(super) past_since: Option<Instant>,
    /// Until when this process may have begun too short a time ago to know of a primary; `None` before it has.
    pub(super) starts_until: Option<Instant>,
    /// Has this process known of a region that takes writes, ever?
    pub(super) primary_known: bool,
}

/// A replica that streams replays the row of an epoch moments after its start. One that has not by then
/// follows a primary that was deposed: a platform's own replica, which nobody turns round.
const ROW_REPLAYED_WITHIN: Duration = Duration::from_secs(3);

/// The right to take writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub epoch: Epoch,
    pub until: Instant,
}

/// This region's database at the moment it was last asked.
#[derive(Debug, Clone)]
pub struct Own {
    pub role: Role,
    /// Replayed (replica) or flushed (primary) up to here.
    pub lsn: Lsn,
    /// On a primary whose commits wait for a standby: up to here they have been waited for. What lies
    /// beyond may be seen on a replica before it is seen here.
    pub confirmed: Option<Lsn>,
    pub history: Arc<EpochHistory>,
    /// Does the replica's receiver stream? `None` on a primary.
    pub streaming: Option<bool>,
    /// A primary that was fenced: it takes no writes.
    pub read_only: bool,
    /// A replica of an instance that was promoted, whose epoch it has yet to read of. What lies past
    /// that promotion is not of the epoch that it knows.
    pub unbegun: bool,
    /// When the question was sent: what was committed before is covered by `lsn` on a primary.
    pub asked_at: Instant,
}

/// A peer, as last heard of.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    pub report: Option<TopologyReport>,
    /// When the last answered probe was sent.
    pub heard_at: Option<Instant>,
    /// Time that probe took.
    pub round_trip: Option<Duration>,
    /// Why the newest probe failed; `None` when it was answered.
    pub failure: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Local reads hold everything committed before this instant. On a primary the end of its lease:
    /// until then nobody else can have taken a write.
    pub proven_at: Instant,
    /// Log the primary had and this replica had not replayed; `None` when not comparable.
    pub bytes: Option<u64>,
}

impl Lag {
    /// Upper bound of the age of a local read.
    #[must_use]
    pub fn bound(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.proven_at)
    }
}

/// Where writes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrimaryAt {
    Here(Epoch),
    Peer(Region, Epoch),
    /// That region, perhaps this one, whose lease has run out or whose database is fenced: it takes
    /// no writes now.
    Fenced(Region),
    Unknown,
}

/// Why a region's own data must not be read: it may hold what no other region has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quarantine {
    /// A primary of an epoch that has ended.
    Deposed,
    /// A primary whose database has no row of an epoch that began in this very region: it is seen
    /// before it is read, for a moment, or an older copy was put in its place.
    Older,
    /// A standby that has come further than its epoch did.
    Diverged,
    /// A primary that has yet to hear, from a majority, that its epoch has not ended.
    Unconfirmed,
    /// The region is none of the newest epoch's members.
    Removed,
}

impl Quarantine {
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Deposed => "quarantined: a later epoch has begun elsewhere; `godwit rejoin` it",
            Self::Older => {
                "quarantined: its database lacks an epoch that began here; `godwit promote` another \
                 region, then `godwit rejoin` this one"
            }
            Self::Diverged => {
                "quarantined: it went on where its epoch had ended; `godwit rejoin` it"
            }
            Self::Unconfirmed => "quarantined until a majority of regions confirms its epoch",
            Self::Removed => "quarantined: no member of the cluster; `godwit region add` it",
        }
    }
}

impl Own {
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.history.current().epoch
    }
    #[must_use]
    pub fn position(&self) -> Bookmark {
        Bookmark { epoch: self.epoch(), lsn: self.lsn }
    }
    /// Up to where every commit can be seen here.
    fn shows(&self) -> Lsn {
        self.confirmed.map_or(self.lsn, |confirmed| confirmed.min(self.lsn))
    }
    #[must_use]
    pub fn standing(&self, bookmark: Bookmark) -> Standing {
        self.history.standing(self.shows(), broken::bookmark(bookmark, self.epoch()))
    }
    /// What was shown once is shown, though whoever had confirmed it is gone since.
    pub(super) fn remember(&mut self, shown: &mut Option<Bookmark>) {
        if self.role != Role::Primary {
            return;
        }
        let epoch = self.epoch();
        if let Some(confirmed) = &mut self.confirmed {
            let before = shown.filter(|before| before.epoch == epoch);
            *confirmed = before.map_or(*confirmed, |before| before.lsn.max(*confirmed));
        }
        *shown = Some(Bookmark { epoch, lsn: self.shows() });
    }
}

impl Peer {
    #[must_use]
    pub fn reachable(&self, now: Instant, stale_after: Duration) -> bool {
        self.heard_at.is_some_and(|at| now.saturating_duration_since(at) <= stale_after)
    }

    /// Whether what was heard of this peer, a moment ago, is better than the word of a process of it that has just
    /// begun: that it takes writes. News of an epoch or of a promise is news, whoever tells it.
    #[must_use]
    pub fn stands_against(&self, told: &TopologyReport) -> bool {
        self.report.as_ref().filter(|_| told.starting).is_some_and(|known| {
            let promised = told.promise.is_some() && told.promise != known.promise;
            known.writable && told.epoch() <= known.epoch() && !promised
        })
    }

    /// The position of a peer that is a primary, and the instant before which every commit is
    /// covered by it: when the probe was sent, less the age of the answer.
    pub(super) fn primary_position(&self) -> Option<(Bookmark, Instant)> {
        let report = self.report.as_ref().filter(|_| self.failure.is_none())?;
        // One that may not write need not have what another has written since.
        let reigns = report.role == Some(Role::Primary) && report.writable;
        let position = report.position.filter(|_| reigns)?;
        let age = Duration::from_micros(report.position_age_us?);
        Some((position, self.heard_at?.checked_sub(age)?))
    }
}

/// Longest time from a promise to the first write of its epoch: past it nobody is made to wait.
const MOVE_MAX: Duration = Duration::from_secs(30);

impl Snapshot {
    /// The highest epoch heard of anywhere, even from a peer that has gone silent since: an epoch
    /// once seen does not end by not being heard of.
    #[must_use]
    pub fn epoch_highest(&self) -> Option<Epoch> {
        let peers = self.peers.values().filter_map(|peer| peer.report.as_ref()?.epoch());
        self.written.into_iter().chain(peers).max()
    }

    /// Whether this process has yet to learn if its region takes writes: its database was not seen, or is the
    /// primary's, and no majority has granted the lease. For a term at most: by then it would have been.
    #[must_use]
    pub fn is_starting(&self, now: Instant) -> bool {
        let may_reign = self.own.as_ref().is_none_or(|own| {
            let unheard = matches!(self.quarantine(), None | Some(Quarantine::Unconfirmed));
            own.role == Role::Primary && !own.read_only && unheard
        });
        let began_just_now = self.starts_until.is_none_or(|until| now < until);
        began_just_now && self.lease.is_none() && may_reign
    }

    /// Until when a primary that is not known may be one that this process has not heard of yet, because
    /// it began a moment ago.
    #[must_use]
    pub fn learns_until(&self, now: Instant) -> Option<Instant> {
        self.starts_until.filter(|until| !self.primary_known && now < *until)
    }

    /// Notes whether a region is known to take writes.
    pub(super) fn note_primary(&mut self, now: Instant, stale_after: Duration) {
        self.primary_known = self.primary_known
            || matches!(self.primary(now, stale_after), PrimaryAt::Here(_) | PrimaryAt::Peer(..));
    }

    /// Works out the lag anew.
    pub(super) fn age(&mut self, tracker: &LagTracker, heard_after: Option<Instant>) {
        let own = self.own.as_ref();
        self.lag = own.and_then(|own| tracker.lag(own, self.lease, heard_after));
    }

    /// Every region of the settings.
    #[must_use]
    pub fn settings(&self) -> Members {
        std::iter::once(&self.region).chain(self.peers.keys()).cloned().collect()
    }

    /// The newest epoch known, if it tells its members.
    fn named(&self) -> Option<&Members> {
        // An older program tells the same epoch without them.
        let newest = self.starts().max_by_key(|start| (start.epoch, start.members.is_some()))?;
        newest.members.as_ref()
    }

    /// The regions that count, as far as is known here.
    #[must_use]
    pub fn members(&self) -> Members {
        self.named().cloned().unwrap_or_else(|| self.settings())
    }

    /// Who counts in `epoch`; `None` when it is not known to have begun.
    #[must_use]
    pub fn members_of(&self, epoch: Epoch) -> Option<Members> {
        let told = self.starts().filter(|start| start.epoch == epoch);
        let start = told.max_by_key(|start| start.members.is_some())?;
        Some(start.members.clone().unwrap_or_else(|| self.settings()))
    }

    /// Whether this region is none of the newest epoch's members.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.named().is_some_and(|members| !members.contains(&self.region))
    }

    /// Counts who has been heard of.
    pub(super) fn count_heard(&mut self) {
        if self.majority_heard {
            return;
        }
        let heard = self.peers.iter().filter(|(_, peer)| peer.report.is_some());
        let heard = heard.map(|(region, _)| region).chain([&self.region]);
        self.majority_heard = self.members().is_majority(heard);
    }

    /// Every epoch known here or told of by a peer.
    pub(super) fn starts(&self) -> impl Iterator<Item = &EpochStart> {
        let own = self.own.iter().flat_map(|own| own.history.starts());
        let peers = self.peers.values().filter_map(|peer| peer.report.as_ref());
        own.chain(peers.flat_map(|report| &report.epochs))
    }

    /// The epoch in which this region is the primary, with or without the lease: the highest known
    /// is its own, and its database is no standby.
    #[must_use]
    pub fn reign(&self) -> Option<Epoch> {
        let own = self.own.as_ref().filter(|own| own.role == Role::Primary)?;
        let current = own.history.current();
        let highest = self.epoch_highest() == Some(current.epoch);
        (highest && current.region == self.region).then_some(current.epoch)
    }

    /// Why this region's data must not be read; `None` when it may.
    #[must_use]
    pub fn quarantine(&self) -> Option<Quarantine> {
        self.own.as_ref()?;
        if self.is_removed() { Some(Quarantine::Removed) } else { self.apart() }
    }

    /// How its data stands to the cluster's history, member or not; `None` when it is of it.
    #[must_use]
    pub fn apart(&self) -> Option<Quarantine> {
        let own = self.own.as_ref()?;
        let next = self.next_of(own);
        // Log still comes in: it has followed and is about to replay the row, or it follows whoever was deposed.
        let about_to = own.streaming == Some(true)
            && self.past_since.is_none_or(|since| {
                own.asked_at.saturating_duration_since(since) <= ROW_REPLAYED_WITHIN
            });
        match (own.role, next) {
            (Role::Primary, Some(next)) if next.region == self.region => Some(Quarantine::Older),
            (Role::Primary, Some(_)) => Some(Quarantine::Deposed),
            (Role::Primary, None) if self.written > Some(own.epoch()) => Some(Quarantine::Older),
            (Role::Replica, Some(next)) if own.lsn > next.start_lsn && !about_to => {
                Some(Quarantine::Diverged)
            }
            (Role::Primary, _) if !self.majority_heard => Some(Quarantine::Unconfirmed),
            _ => None,
        }
    }

    /// This region's database, when its data may be read.
    #[must_use]
    pub fn readable(&self) -> Option<&Own> {
        self.own.as_ref().filter(|_| self.quarantine().is_none())
    }

    /// The same, when a position of it may be told too.
    #[must_use]
    pub fn tellable(&self, now: Instant) -> Option<&Own> {
        self.readable().filter(|_| self.is_within_its_epoch() && !self.hands_over(now))
    }

    /// Whether its data is of the epoch that it knows: a replica can have come further, for a moment or because
    /// it follows a primary that was deposed. What is told of there would be taken for lost.
    pub(super) fn is_within_its_epoch(&self) -> bool {
        self.own.as_ref().is_some_and(|own| !own.unbegun && !self.is_past_its_epoch(own))
    }

    fn is_past_its_epoch(&self, own: &Own) -> bool {
        let past = |next: &EpochStart| own.lsn > next.start_lsn;
        own.role == Role::Replica && self.next_of(own).is_some_and(past)
    }

    /// The epoch after the newest that this database has.
    fn next_of(&self, own: &Own) -> Option<&EpochStart> {
        let after = self.starts().filter(|start| start.epoch > own.epoch());
        after.min_by_key(|start| start.epoch)
    }

    /// Notes what this region's database was found to be; `None` when it does not answer.
    pub(super) fn note_own(&mut self, own: Option<Own>) {
        // One that does not answer once is where it was.
        if let Some(own) = &own {
            let past = self.is_past_its_epoch(own);
            self.past_since = past.then(|| self.past_since.unwrap_or(own.asked_at));
        }
        self.own = own;
    }

    /// Notes a promise that this region has given, for the first time or again.
    pub(super) fn promises(&mut self, promise: &Promise, now: Instant) {
        self.promise = Some(promise.clone());
        let later = |(heard, at): &(Promise, Instant)| (heard.epoch, *at) > (promise.epoch, now);
        if !self.move_heard.as_ref().is_some_and(later) {
            self.move_heard = Some((promise.clone(), now));
        }
    }

    /// Notes a promise that is heard of for the first time.
    pub(super) fn hear_of_a_move(&mut self, now: Instant) {
        let told = self.peers.values().filter_map(|peer| peer.report.as_ref()?.promise.as_ref());
        let newest = self.promise.iter().chain(told).max_by_key(|promise| promise.epoch);
        if let Some(newest) = newest
            && self.move_heard.as_ref().is_none_or(|(heard, _)| heard.epoch < newest.epoch)
        {
            self.move_heard = Some((newest.clone(), now));
        }
    }

    /// A promotion whose epoch has yet to begin, as far as this region or a peer tells.
    #[must_use]
    pub fn moving(&self) -> Option<&Promise> {
        let (promise, _) = self.move_heard.as_ref()?;
        (Some(promise.epoch) > self.epoch_highest()).then_some(promise)
    }

    /// Whether another primary is about to take writes: one is promised, or has begun its epoch and
    /// has yet to get its lease. What is left undone for long is not about to.
    #[must_use]
    pub fn awaits_a_primary(&self, now: Instant) -> bool {
        let soon = self.move_heard.as_ref().is_some_and(|(promise, heard_at)| {
            Some(promise.epoch) >= self.epoch_highest()
                && now.saturating_duration_since(*heard_at) < MOVE_MAX
        });
        soon || self.hands_over(now)
    }

    /// Whether this region is a primary that was fenced to hand over, not for want of a lease. What
    /// it still logs by itself is not the cluster's, so that no position of it may be told.
    #[must_use]
    pub fn hands_over(&self, now: Instant) -> bool {
        let leased = self.lease.is_some_and(|lease| lease.until > now);
        self.reign().is_some()
            && self.own.as_ref().is_some_and(|own| own.read_only)
            && (leased || self.moving().is_some())
    }

    /// The region that is primary in the highest epoch, when it is known *now*.
    #[must_use]
    pub fn primary(&self, now: Instant, stale_after: Duration) -> PrimaryAt {
        let Some(highest) = self.epoch_highest() else {
            return PrimaryAt::Unknown;
        };
        if let (Some(epoch), Some(own)) = (self.reign(), &self.own) {
            let held = self.lease.filter(|lease| lease.epoch == epoch && lease.until > now);
            return match held {
                Some(_) if !own.read_only => PrimaryAt::Here(epoch),
                _ => PrimaryAt::Fenced(self.region.clone()),
            };
        }
        let reigns = |(region, peer): &(&Region, &Peer)| {
            let report = peer.report.as_ref();
            peer.reachable(now, stale_after)
                && report.is_some_and(|report| {
                    let current = report.epochs.iter().max_by_key(|start| start.epoch);
                    report.role == Some(Role::Primary)
                        && current.is_some_and(|at| at.epoch == highest && at.region == **region)
                })
        };
        match self.peers.iter().find(reigns) {
            None => PrimaryAt::Unknown,
            Some((region, peer)) if peer.report.as_ref().is_some_and(|report| report.writable) => {
                PrimaryAt::Peer(region.clone(), highest)
            }
            Some((region, _)) => PrimaryAt::Fenced(region.clone()),
        }
    }
}
