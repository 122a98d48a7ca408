//! The lease: at most one epoch acknowledges writes at a time.
//!
//! A process of the primary region takes writes only while a majority of regions, its own counted,
//! have granted its epoch the next few seconds. A grant is a note in the granting region's Redis
//! ([`Record`]), judged by one pure function ([`judge`]); what a process holds is [`Hold`]. Both are
//! what the model in `tests.rs` interleaves. `docs/adr/0008-lease.md` has the argument; in short:
//!
//! 1. A region's notes name one epoch at a time: another is granted only once the time of the one
//!    before has run out on that region's clock.
//! 2. A process counts a grant from when it *sent* for it, and stops `margin` short of its end. So
//!    when a region's note has run out, nobody counts on it any more.
//! 3. Two majorities share a region, and by 1 and 2 that region is counted on by one epoch.
//! 4. A region whose Redis has lost its note, or is another instance than the one that wrote it,
//!    grants nothing for a whole term: by then what it may have granted has run out.

use crate::{
    config::LeaseConfig,
    vocab::{Epoch, Region},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A region's note, kept in its Redis. Times are in milliseconds of that Redis' own clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The Redis instance that wrote it (`run_id` of `INFO server`). A restarted one may have come
    /// back with an older note, or none.
    pub instance: String,
    /// Nothing is granted before this.
    pub quiet_until_ms: u64,
    pub grant: Option<Grant>,
}

/// The newest grant; all before it have run out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub epoch: Epoch,
    /// Whose epoch it is: two regions never share one.
    pub region: Region,
    pub until_ms: u64,
}

/// The store at one moment. `now_ms` is read before the record, so that what is judged to have run
/// out has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub instance: String,
    pub now_ms: u64,
    pub record: Option<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// For a term from when the request was sent.
    Granted,
    /// This region has yet to wait out what it may have forgotten.
    Quiet { left_ms: u64 },
    /// Another epoch's grant has not run out.
    Taken { epoch: Epoch, region: Region, left_ms: u64 },
    /// A later epoch is known here. The asker is no longer the primary.
    Outranked { epoch: Epoch },
    /// The asker counts another term than this region.
    OtherTerm { term_ms: u64 },
}

/// Judges one request, and gives the note to keep instead, if it changes.
///
/// `known` is the latest epoch that this region has heard of, in its database or from a peer.
#[must_use]
pub fn judge(
    found: &Found,
    epoch: Epoch,
    region: &Region,
    known: Option<Epoch>,
    term_ms: u64,
) -> (Verdict, Option<Record>) {
    let Found { instance, now_ms, .. } = found;
    let end_ms = now_ms + term_ms;
    let kept = found.record.as_ref().filter(|record| record.instance == *instance);
    let Some(kept) = kept else {
        let record = Record { instance: instance.clone(), quiet_until_ms: end_ms, grant: None };
        return (Verdict::Quiet { left_ms: term_ms }, Some(record));
    };
    // An end more than a term away was noted before the clock was set back: it is a term away.
    let (mut record, mut changed) = (kept.clone(), false);
    let ends = record.grant.as_mut().map(|grant| &mut grant.until_ms);
    for end in ends.into_iter().chain([&mut record.quiet_until_ms]) {
        if *end > end_ms {
            (*end, changed) = (end_ms, true);
        }
    }
    let verdict = if let Some(known) = known.filter(|known| *known > epoch) {
        Verdict::Outranked { epoch: known }
    } else if record.quiet_until_ms > *now_ms {
        Verdict::Quiet { left_ms: record.quiet_until_ms - now_ms }
    } else {
        match &record.grant {
            Some(grant) if grant.epoch > epoch => Verdict::Outranked { epoch: grant.epoch },
            Some(grant)
                if (grant.epoch, &grant.region) != (epoch, region) && grant.until_ms > *now_ms =>
            {
                Verdict::Taken {
                    epoch: grant.epoch,
                    region: grant.region.clone(),
                    left_ms: grant.until_ms - now_ms,
                }
            }
            _ => Verdict::Granted,
        }
    };
    if verdict == Verdict::Granted {
        record.grant = Some(Grant { epoch, region: region.clone(), until_ms: end_ms });
        changed = true;
    }
    (verdict, changed.then_some(record))
}

/// What this process was granted.
#[derive(Debug, Default)]
pub struct Hold {
    epoch: Option<Epoch>,
    until: BTreeMap<Region, Instant>,
}

impl Hold {
    /// `region` granted `epoch` what was asked for at `sent_at`.
    pub fn granted(
        &mut self,
        region: &Region,
        epoch: Epoch,
        sent_at: Instant,
        config: &LeaseConfig,
    ) {
        if self.epoch != Some(epoch) {
            // What was granted to one epoch is not another's.
            *self = Self { epoch: Some(epoch), until: BTreeMap::new() };
        }
        let life = Duration::from_millis(config.term_ms - config.margin_ms);
        let until = self.until.entry(region.clone()).or_insert(sent_at);
        *until = (*until).max(sent_at + life);
    }

    /// Until when `majority` regions have granted `epoch`; `None` when so many never have.
    #[must_use]
    pub fn until(&self, epoch: Epoch, majority: usize) -> Option<Instant> {
        if self.epoch != Some(epoch) {
            return None;
        }
        let mut ends: Vec<Instant> = self.until.values().copied().collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(majority.checked_sub(1)?).copied()
    }
}

/// More than half.
#[must_use]
pub const fn majority(regions: usize) -> usize {
    regions / 2 + 1
}

#[cfg(test)]
mod tests;
