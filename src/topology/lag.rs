//! How old a local read can be, without comparing the clocks of two machines.
//!
//! A probe *sent* at monotonic instant `t` and answered with the primary's position `P` proves:
//! everything committed before `t` lies at or before `P`. Once this replica has replayed `P`, its
//! reads hold everything committed before `t`, so they are at most `now - t` old.

use super::{
    report::Role,
    snapshot::{Lag, Lease, Own},
};
use crate::vocab::Bookmark;
use std::{collections::VecDeque, time::Instant};

/// Enough for over four minutes of probes while the replica stands still; beyond that the bound
/// only grows coarser, never wrong.
const PENDING_MAX: usize = 1024;

#[derive(Debug, Default)]
pub struct LagTracker {
    /// What the primary had, oldest first, not yet replayed here.
    pending: VecDeque<(Instant, Bookmark)>,
    proven_at: Option<Instant>,
    /// The newest position heard of, and when.
    primary: Option<(Instant, Bookmark)>,
}

impl LagTracker {
    /// The primary had come to `position`, and all committed before `at` is within it.
    pub fn note_primary(&mut self, at: Instant, position: Bookmark) {
        if self.primary.is_some_and(|(_, known)| known.epoch > position.epoch) {
            return;
        }
        self.primary = Some((at, position));
        if self.pending.len() < PENDING_MAX {
            self.pending.push_back((at, position));
        }
    }

    /// This database has come to `position`.
    pub fn note_local(&mut self, now: Instant, position: Bookmark) {
        // Positions of two epochs do not compare: what an older epoch promised is void.
        self.pending.retain(|(_, there)| there.epoch >= position.epoch);
        while let Some((at, there)) = self.pending.front() {
            if there.epoch != position.epoch || there.lsn > position.lsn {
                break;
            }
            self.proven_at = self.proven_at.max(Some(*at)).min(Some(now));
            self.pending.pop_front();
        }
    }

    /// `None` until a first proof. How many bytes are missing is known only while the primary was
    /// heard of after `heard_after`: what it has written since cannot be told. On a primary the
    /// proof is its lease.
    #[must_use]
    pub fn lag(
        &self,
        own: &Own,
        lease: Option<Lease>,
        heard_after: Option<Instant>,
    ) -> Option<Lag> {
        if own.role == Role::Primary {
            let lease = lease.filter(|lease| lease.epoch == own.epoch())?;
            return Some(Lag { proven_at: lease.until, bytes: Some(0) });
        }
        let proven_at = self.proven_at?;
        let comparable = self
            .primary
            .filter(|(at, there)| there.epoch == own.epoch() && Some(*at) > heard_after);
        Some(Lag { proven_at, bytes: comparable.map(|(_, there)| there.lsn.bytes_since(own.lsn)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{Clock as _, Epoch, EpochHistory, EpochStart, Lsn, clock::ManualClock};
    use std::{sync::Arc, time::Duration};

    fn at(lsn: u64) -> Bookmark {
        Bookmark { epoch: Epoch::FIRST, lsn: Lsn::new(lsn) }
    }
    fn own(role: Role, lsn: u64, asked_at: Instant) -> Own {
        let region = "eu-west-1".parse().unwrap();
        let start =
            EpochStart { epoch: Epoch::FIRST, start_lsn: Lsn::new(0), region, members: None };
        let history = Arc::new(EpochHistory::new(vec![start]).unwrap());
        let (lsn, streaming) = (Lsn::new(lsn), Some(true));
        let (confirmed, read_only, unbegun) = (None, false, false);
        Own { role, lsn, confirmed, history, streaming, read_only, unbegun, asked_at }
    }

    #[test]
    fn lag_is_unknown_until_a_position_of_the_primary_was_replayed() {
        let clock = ManualClock::new();
        let mut lag = LagTracker::default();
        let t0 = clock.monotonic();
        assert_eq!(lag.lag(&own(Role::Replica, 100, t0), None, None), None);
        lag.note_primary(t0, at(200));
        lag.note_local(t0, at(199));
        assert_eq!(lag.lag(&own(Role::Replica, 199, t0), None, None), None);
    }

    #[test]
    fn the_bound_counts_from_when_the_probe_was_sent_and_grows_while_nothing_is_heard() {
        let clock = ManualClock::new();
        let mut lag = LagTracker::default();
        let sent = clock.monotonic();
        clock.advance(Duration::from_millis(190));
        lag.note_primary(sent, at(200));
        clock.advance(Duration::from_millis(10));
        lag.note_local(clock.monotonic(), at(250));
        let known = lag.lag(&own(Role::Replica, 250, clock.monotonic()), None, None).unwrap();
        assert_eq!(known.bound(clock.monotonic()), Duration::from_millis(200));
        assert_eq!(known.bytes, Some(0));
        clock.advance(Duration::from_secs(5));
        assert_eq!(known.bound(clock.monotonic()), Duration::from_millis(5_200));
    }

    #[test]
    fn bytes_are_unknown_once_the_primary_has_gone_silent() {
        let clock = ManualClock::new();
        let mut lag = LagTracker::default();
        let heard_at = clock.monotonic();
        lag.note_primary(heard_at, at(200));
        lag.note_local(heard_at, at(150));
        lag.note_local(heard_at, at(200));
        let own = own(Role::Replica, 200, heard_at);
        let before = heard_at.checked_sub(Duration::from_secs(3));
        assert_eq!(lag.lag(&own, None, before).unwrap().bytes, Some(0));
        assert_eq!(lag.lag(&own, None, Some(heard_at)).unwrap().bytes, None);
    }

    #[test]
    fn a_replica_that_stands_still_keeps_its_oldest_proof() {
        let clock = ManualClock::new();
        let mut lag = LagTracker::default();
        let first = clock.monotonic();
        lag.note_primary(first, at(100));
        lag.note_local(first, at(100));
        for step in 1..5_000u64 {
            clock.advance(Duration::from_millis(250));
            lag.note_primary(clock.monotonic(), at(100 + step));
            lag.note_local(clock.monotonic(), at(100));
        }
        let known = lag.lag(&own(Role::Replica, 100, first), None, None).unwrap();
        assert_eq!(known.proven_at, first);
        assert_eq!(known.bytes, Some(4_999));
        assert!(lag.pending.len() <= PENDING_MAX);
    }

    #[test]
    fn a_primary_lags_once_its_lease_has_run_out() {
        let clock = ManualClock::new();
        let now = clock.monotonic();
        let (primary, tracker) = (own(Role::Primary, 1, now), LagTracker::default());
        assert_eq!(tracker.lag(&primary, None, None), None);
        let until = now + Duration::from_secs(2);
        let lease = Some(Lease { epoch: Epoch::FIRST, until });
        let known = tracker.lag(&primary, lease, None).unwrap();
        assert_eq!(known, Lag { proven_at: until, bytes: Some(0) });
        assert_eq!(known.bound(now), Duration::ZERO);
        assert_eq!(known.bound(until + Duration::from_secs(1)), Duration::from_secs(1));
        // One of another reign says nothing about this one.
        let other = Some(Lease { epoch: Epoch::new(2).unwrap(), until });
        assert_eq!(tracker.lag(&primary, other, None), None);
    }
}
