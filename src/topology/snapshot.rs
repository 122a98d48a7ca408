//! The immutable picture of the cluster, as this process sees it.

use super::report::{Role, TopologyReport};
use crate::vocab::{Bookmark, Epoch, EpochHistory, Lsn, Region, Standing};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

#[derive(Debug, Clone)]
pub struct Snapshot {
    pub region: Region,
    /// This region's own database; `None` while it does not answer.
    pub own: Option<Own>,
    /// Every other region.
    pub peers: BTreeMap<Region, Peer>,
    /// How old a local read can be; `None` while that cannot be told.
    pub lag: Option<Lag>,
}

/// This region's database at the moment it was last asked.
#[derive(Debug, Clone)]
pub struct Own {
    pub role: Role,
    /// Replayed (replica) or flushed (primary) up to here.
    pub lsn: Lsn,
    pub history: Arc<EpochHistory>,
    /// Does the replica's receiver stream? `None` on a primary.
    pub streaming: Option<bool>,
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
    /// Local reads hold everything committed before this instant. `None`: always, on the primary.
    pub proven_at: Option<Instant>,
    /// Log the primary had and this replica had not replayed; `None` when not comparable.
    pub bytes: Option<u64>,
}

impl Lag {
    /// Upper bound of the age of a local read.
    #[must_use]
    pub fn bound(&self, now: Instant) -> Duration {
        self.proven_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }
}

/// Where writes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrimaryAt {
    Here(Epoch),
    Peer(Region, Epoch),
    Unknown,
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
    #[must_use]
    pub fn standing(&self, bookmark: Bookmark) -> Standing {
        self.history.standing(self.lsn, bookmark)
    }
}

impl Peer {
    #[must_use]
    pub fn reachable(&self, now: Instant, stale_after: Duration) -> bool {
        self.heard_at.is_some_and(|at| now.saturating_duration_since(at) <= stale_after)
    }

    /// The position of a peer that is a primary, and the instant before which every commit is
    /// covered by it: when the probe was sent, less the age of the answer.
    pub(super) fn primary_position(&self) -> Option<(Bookmark, Instant)> {
        let report = self.report.as_ref().filter(|_| self.failure.is_none())?;
        let position = report.position.filter(|_| report.role == Some(Role::Primary))?;
        let age = Duration::from_micros(report.position_age_us?);
        Some((position, self.heard_at?.checked_sub(age)?))
    }
}

impl Snapshot {
    /// The highest epoch heard of anywhere, even from a peer that has gone silent since: an epoch
    /// once seen does not end by not being heard of.
    #[must_use]
    pub fn epoch_highest(&self) -> Option<Epoch> {
        let peers = self.peers.values().filter_map(|peer| peer.report.as_ref()?.epoch());
        self.own.as_ref().map(Own::epoch).into_iter().chain(peers).max()
    }

    /// The region that is primary in the highest epoch, when it is known *now*.
    #[must_use]
    pub fn primary(&self, now: Instant, stale_after: Duration) -> PrimaryAt {
        let Some(highest) = self.epoch_highest() else {
            return PrimaryAt::Unknown;
        };
        if let Some(own) = &self.own
            && own.role == Role::Primary
            && own.epoch() == highest
        {
            return PrimaryAt::Here(highest);
        }
        let is_primary = |peer: &&Peer| {
            let report = peer.report.as_ref();
            peer.reachable(now, stale_after)
                && report
                    .is_some_and(|r| r.role == Some(Role::Primary) && r.epoch() == Some(highest))
        };
        let found = self.peers.iter().find(|(_, peer)| is_primary(peer));
        found.map_or(PrimaryAt::Unknown, |(region, _)| PrimaryAt::Peer(region.clone(), highest))
    }
}
