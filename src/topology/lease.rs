//! The lease: at most one epoch acknowledges writes at a time, and never one after a later one has.
//!
//! A process of the primary region takes writes only while a majority of regions, its own counted,
//! have granted its epoch the next few seconds: of its epoch's
//! members, which are part of it (`docs/adr/0010-members.md`). A grant is a note in the granting region's Redis
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
//! 5. A region grants no epoch but the one it has promised, or that its own database has a row of,
//!    and none before the latest it knows. So once an epoch holds the lease, a majority rules out all
//!    before it: by its promise at first, and on its databases' disks once they have the row.

mod grantor;
mod renewal;

pub use grantor::Grantor;
pub use renewal::{Granting, RenewalLoop};

use crate::{
    config::{LeaseConfig, broken::fencing_off},
    telemetry::metrics::LeaseAnswer,
    vocab::{Epoch, Members, Region},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

/// A region's note, kept in its Redis. Times are in milliseconds of that Redis' own clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The Redis instance that wrote it (`run_id` of `INFO server`). A restarted one may have come
    /// back with an older note, or none.
    pub instance: String,
    /// Nothing is granted or promised before this.
    pub quiet_until_ms: u64,
    pub grant: Option<Grant>,
    /// Nothing is granted to epochs before this one, which is about to begin.
    pub promise: Option<Promise>,
    /// When it was last asked for. `None` from a program that does not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_ms: Option<u64>,
    /// Promises that it has overtaken, one of each membership: their epochs may have begun unheard of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overtaken: Vec<Promise>,
}

/// The intent of a promotion: that `epoch` is to begin in `region`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    pub epoch: Epoch,
    pub region: Region,
    /// The primary before it is alive and hands over: writes are held, not refused.
    pub planned: bool,
    /// The newest epoch that who promotes has heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Epoch>,
    /// Who counts in it; `None` from a program that knows of no members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Members>,
    /// What an epoch wrote that may have begun since `after` is given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepts_loss: bool,
}

impl Promise {
    /// Whether `epoch` may have acknowledged what who promotes knows nothing of.
    fn passes_over(&self, epoch: Epoch) -> bool {
        !self.accepts_loss && self.after.is_some_and(|after| after < epoch) && epoch < self.epoch
    }

    /// Whether the two are of one move, which was asked for with the same words: what was planned without
    /// a loss must not be carried out with one. Members that either does not tell, by an older program,
    /// are no difference.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        let members = match (&self.members, &other.members) {
            (Some(own), Some(others)) => own == others,
            _ => true,
        };
        let asks = |of: &Self| (of.epoch, of.region.clone(), of.planned, of.accepts_loss);
        asks(self) == asks(other) && members
    }
}

/// What a region has promised, as one of its processes remembers it when its Redis does not.
#[derive(Debug, Default)]
pub struct Remembered(Vec<Promise>);

impl Remembered {
    /// The latest.
    #[must_use]
    pub fn latest(&self) -> Option<&Promise> {
        self.0.iter().max_by_key(|promise| promise.epoch)
    }

    pub fn note(&mut self, promise: &Promise, known: Known) {
        overtake(&mut self.0, promise, known);
        let later = |kept: &Promise| kept.epoch > promise.epoch && kept.members == promise.members;
        if !self.0.iter().any(later) {
            self.0.push(promise.clone());
        }
    }

    /// Whom another program's promise must count too.
    pub fn others<'a>(&'a self, wanted: &'a Promise) -> impl Iterator<Item = &'a Members> {
        let others = self.0.iter().filter(|kept| kept.epoch < wanted.epoch);
        others.filter_map(|kept| kept.members.as_ref())
    }
}

/// Forgets, of what was promised before, what has been overtaken by an epoch that began, and all but
/// one of each membership. Bounded by what operators have asked for since an epoch began.
fn overtake(kept: &mut Vec<Promise>, by: &Promise, known: Known) {
    kept.retain(|promise| {
        let may_begin = Some(promise.epoch) > known.heard && promise.members.is_some();
        promise.epoch > by.epoch || (may_begin && promise.members != by.members)
    });
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
    /// A later epoch is known here, or promised. The asker is no longer the primary.
    Outranked { epoch: Epoch },
    /// This region has not promised the asker's epoch, and has not seen it in its database.
    Unheard,
    /// The asker counts another term than this region.
    OtherTerm { term_ms: u64 },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted => f.write_str("granted"),
            Self::Quiet { left_ms } => write!(f, "quiet for {left_ms} ms more"),
            Self::Taken { epoch, region, left_ms } => {
                write!(f, "granted to epoch {epoch} of {region} for {left_ms} ms more")
            }
            Self::Outranked { epoch } => write!(f, "epoch {epoch} has begun, or is about to"),
            Self::Unheard => f.write_str("its database has not heard of this epoch"),
            Self::OtherTerm { term_ms } => {
                write!(f, "lease.term_ms is {term_ms} there: it must be the same everywhere")
            }
        }
    }
}

impl Verdict {
    /// For the metrics.
    #[must_use]
    pub const fn label(&self) -> LeaseAnswer {
        match self {
            Self::Granted => LeaseAnswer::Granted,
            Self::Quiet { .. } => LeaseAnswer::Quiet,
            Self::Taken { .. } => LeaseAnswer::Taken,
            Self::Outranked { .. } => LeaseAnswer::Outranked,
            Self::Unheard => LeaseAnswer::Unheard,
            Self::OtherTerm { .. } => LeaseAnswer::OtherTerm,
        }
    }
}

/// What a region answers to a promotion that asks for its promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
pub enum Promised {
    /// No epoch before is granted anything any more; what was granted runs out within `left_ms`.
    Yes {
        left_ms: u64,
        /// The members of epochs that may have begun since the one that was told of.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<Members>,
    },
    /// This region has yet to wait out what it may have forgotten.
    Quiet { left_ms: u64 },
    /// That epoch, or a later one, is another region's.
    Outranked { epoch: Epoch, region: Option<Region> },
}

/// What this region knows of epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// The latest that its database was seen to have a row of; `None` before it was seen.
    pub written: Option<Epoch>,
    /// The latest that it has heard of, in its database or from a peer.
    pub heard: Option<Epoch>,
}

/// The record to go on from, with ends that a clock set back cannot put off for more than a term;
/// `Err` with the record to keep instead when it is another instance's, or none.
fn kept(found: &Found, term_ms: u64) -> Result<(Record, bool), Box<Record>> {
    let Found { instance, now_ms, record } = found;
    let end_ms = now_ms + term_ms;
    let Some(record) = record.as_ref().filter(|record| record.instance == *instance) else {
        let instance = instance.clone();
        let record = Record { instance, quiet_until_ms: end_ms, ..Record::default() };
        return Err(Box::new(record));
    };
    let (mut record, mut changed) = (record.clone(), false);
    let ends = record.grant.as_mut().map(|grant| &mut grant.until_ms);
    for end in ends.into_iter().chain([&mut record.quiet_until_ms]) {
        if *end > end_ms {
            (*end, changed) = (end_ms, true);
        }
    }
    Ok((record, changed))
}

/// Judges one request, and gives the note to keep instead, if it changes.
#[must_use]
pub fn judge(
    found: &Found,
    epoch: Epoch,
    region: &Region,
    known: Known,
    term_ms: u64,
) -> (Verdict, Option<Record>) {
    let now_ms = found.now_ms;
    let (mut record, mut changed) = match kept(found, term_ms) {
        Ok(kept) => kept,
        Err(record) => return (Verdict::Quiet { left_ms: term_ms }, Some(*record)),
    };
    let promised = record.promise.as_ref().filter(|promise| {
        promise.epoch > epoch || (promise.epoch == epoch && promise.region != *region)
    });
    let expected = record
        .promise
        .as_ref()
        .is_some_and(|promise| promise.epoch == epoch && promise.region == *region);
    let verdict = if let Some(heard) = known.heard.filter(|heard| *heard > epoch) {
        Verdict::Outranked { epoch: heard }
    } else if let Some(promise) = promised {
        Verdict::Outranked { epoch: promise.epoch }
    } else if known.written.is_none_or(|written| written < epoch) && !expected {
        Verdict::Unheard
    } else if record.quiet_until_ms > now_ms {
        Verdict::Quiet { left_ms: record.quiet_until_ms - now_ms }
    } else {
        match &record.grant {
            Some(grant) if grant.epoch > epoch => Verdict::Outranked { epoch: grant.epoch },
            Some(grant)
                if (grant.epoch, &grant.region) != (epoch, region) && grant.until_ms > now_ms =>
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
        let until_ms = now_ms + term_ms;
        record.grant = Some(Grant { epoch, region: region.clone(), until_ms });
        changed = true;
    }
    (verdict, changed.then_some(record))
}

/// Judges a promotion's request for this region's promise. Asked again for the same, it says the
/// same.
#[must_use]
pub fn judge_promise(
    found: &Found,
    wanted: &Promise,
    known: Known,
    term_ms: u64,
) -> (Promised, Option<Record>) {
    let now_ms = found.now_ms;
    let (mut record, mut changed) = match kept(found, term_ms) {
        Ok(kept) => kept,
        Err(record) => return (Promised::Quiet { left_ms: term_ms }, Some(*record)),
    };
    // An epoch that has begun is promised to nobody, unless it is the one that was.
    let same = |promise: &Promise| promise.agrees(wanted);
    let again = record.promise.as_ref().is_some_and(same);
    let granted = record.grant.as_ref().map(|grant| (grant.epoch, &grant.region));
    let over = record.promise.as_ref().filter(|kept| kept.epoch >= wanted.epoch && !same(kept));
    let answer = if let Some(over) = over {
        Promised::Outranked { epoch: over.epoch, region: Some(over.region.clone()) }
    } else if let Some((epoch, region)) = granted
        && (epoch > wanted.epoch || (epoch == wanted.epoch && *region != wanted.region))
    {
        Promised::Outranked { epoch, region: Some(region.clone()) }
    } else if let Some(heard) = known.heard.filter(|heard| *heard >= wanted.epoch && !again) {
        Promised::Outranked { epoch: heard, region: None }
    } else if let Some((epoch, region)) = granted
        && wanted.passes_over(epoch)
    {
        // A plan made before that epoch began: of what it has acknowledged the target need have nothing.
        Promised::Outranked { epoch, region: Some(region.clone()) }
    } else if let Some(heard) = known.heard.filter(|heard| wanted.passes_over(*heard)) {
        Promised::Outranked { epoch: heard, region: None }
    } else if record.quiet_until_ms > now_ms {
        Promised::Quiet { left_ms: record.quiet_until_ms - now_ms }
    } else {
        let before = record.grant.as_ref().filter(|grant| grant.epoch < wanted.epoch);
        let left_ms = before.map_or(0, |grant| grant.until_ms.saturating_sub(now_ms));
        if !again {
            record.overtaken.extend(record.promise.take());
            overtake(&mut record.overtaken, wanted, known);
        }
        let others = record.overtaken.iter().filter_map(|kept| kept.members.clone()).collect();
        Promised::Yes { left_ms, others }
    };
    if matches!(answer, Promised::Yes { .. }) {
        (record.promise, record.asked_ms) = (Some(wanted.clone()), Some(now_ms));
        changed = true;
    }
    (answer, changed.then_some(record))
}

/// The grant of an epoch whose database is fenced for good: it need not be waited out. `None` when
/// there is no such grant.
#[must_use]
pub fn release(found: &Found, epoch: Epoch, term_ms: u64) -> Option<Record> {
    let (mut record, _) = kept(found, term_ms).ok()?;
    let grant = record.grant.as_mut().filter(|grant| grant.epoch == epoch)?;
    // Only once something later is promised can the epoch not ask again.
    record.promise.as_ref().filter(|promise| promise.epoch > epoch)?;
    grant.until_ms = found.now_ms;
    Some(record)
}

/// Of the sabotage: longer than any drill.
const NO_END_MS: u64 = 86_400_000;

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
        let life_ms = if fencing_off() { NO_END_MS } else { config.term_ms - config.margin_ms };
        let life = Duration::from_millis(life_ms);
        let until = self.until.entry(region.clone()).or_insert(sent_at);
        *until = (*until).max(sent_at + life);
    }

    /// Until when a majority of the members have granted `epoch`; `None` when so many never have.
    #[must_use]
    pub fn until(&self, epoch: Epoch, members: &Members) -> Option<Instant> {
        if self.epoch != Some(epoch) {
            return None;
        }
        let granted = self.until.iter().filter(|(region, _)| members.contains(region));
        let mut ends: Vec<Instant> = granted.map(|(_, until)| *until).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(members.needed().checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests;
