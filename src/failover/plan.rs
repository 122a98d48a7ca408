//! The plan of a move: a pure function from what was observed to the steps, or to every reason why
//! there are none.

mod fit;
mod step;

pub use step::Step;
pub(super) use step::list;

use super::{
    adding::streams,
    members::Change,
    observe::{Seen, Sight},
};
use crate::{
    config::Durability,
    topology::{Role, control::Instance, lease::Promise},
    vocab::{Epoch, Members, Region},
};
use serde::Serialize;
use std::collections::BTreeSet;

/// A replica further behind than this is not handed the primary while writes are held for it.
const HANDOVER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How the primary is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Both are alive: writes are held, nothing is lost.
    Switchover,
    /// The primary is gone.
    Promote { accept_data_loss: bool },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The epoch to begin, and where.
    pub promise: Promise,
    /// The primary before.
    pub from: Region,
    pub ends: Epoch,
    /// Who counted before.
    pub counted: Members,
    /// Regions that an operator says will never answer again.
    pub gone: BTreeSet<Region>,
    pub steps: Vec<Step>,
    /// What whoever says yes should know.
    pub notes: Vec<String>,
}

/// Plans the move of the primary to `target`.
///
/// # Errors
/// Every reason why it must not be done as things are.
pub fn plan(
    sight: &Sight,
    target: &Region,
    how: Move,
    durability: Durability,
) -> Result<Plan, Vec<String>> {
    plan_change(sight, target, how, durability, &Change::default())
}

/// Plans the move of the primary to `target`, which may be where it is, and a change of who counts.
///
/// # Errors
/// Every reason why it must not be done as things are.
pub(super) fn plan_change(
    sight: &Sight,
    target: &Region,
    how: Move,
    durability: Durability,
    change: &Change,
) -> Result<Plan, Vec<String>> {
    let Some(current) = sight.current() else {
        return Err(vec!["no region tells which epoch it is in".to_owned()]);
    };
    let Some(seen) = sight.regions.get(target) else {
        return Err(vec![format!("{target} is not one of the cluster's regions")]);
    };
    let (from, ends) = (current.region.clone(), current.epoch);
    let counted = sight.members();
    let mut view = View {
        sight,
        target,
        seen,
        from: &from,
        ends,
        members: change.of(&counted),
        counted: counted.clone(),
        change,
        reasons: vec![],
        notes: vec![],
    };
    view.enough_answer();
    view.target_is_fit();
    if change.is_none() && view.is_primary_already() {
        return view.settled(how);
    }
    view.change_is_sound();
    let promise = view.promise(how)?;
    let steps = match how {
        Move::Switchover if from == *target => {
            view.can_promise(&[target]);
            view.in_place(durability)
        }
        Move::Switchover => {
            let strays: Vec<Region> = view.strays().collect();
            let promising = [&from, target].into_iter().chain(&strays).collect::<BTreeSet<_>>();
            view.can_promise(&promising.into_iter().collect::<Vec<_>>());
            view.platforms_answer();
            view.switchover()
        }
        Move::Promote { accept_data_loss } => view.promote(accept_data_loss, durability),
    };
    let mut steps = steps;
    if !change.removed.is_empty() {
        steps.push(Step::Part { regions: change.removed.iter().cloned().collect() });
    }
    let View { reasons, notes, .. } = view;
    if reasons.is_empty() {
        let gone = change.gone.clone();
        Ok(Plan { promise, from, ends, counted, gone, steps, notes })
    } else {
        Err(reasons)
    }
}

/// What is left to do of an epoch that has begun.
pub(super) fn rest(
    sight: &Sight,
    primary: &Region,
    epoch: Epoch,
    planned: bool,
    steps: Vec<Step>,
) -> Plan {
    let promise = Promise {
        epoch,
        region: primary.clone(),
        planned,
        after: None,
        members: None,
        accepts_loss: false,
    };
    let (from, counted) = (primary.clone(), sight.members());
    Plan { promise, from, ends: epoch, counted, gone: BTreeSet::new(), steps, notes: Vec::new() }
}

struct View<'a> {
    sight: &'a Sight,
    target: &'a Region,
    seen: &'a Seen,
    from: &'a Region,
    ends: Epoch,
    /// Who counts before, and after.
    counted: Members,
    members: Members,
    change: &'a Change,
    reasons: Vec<String>,
    notes: Vec<String>,
}

impl View<'_> {
    fn answering(&self) -> impl Iterator<Item = (&Region, &Seen)> {
        self.sight.regions.iter().filter(|(_, seen)| seen.report.is_ok())
    }

    /// Every other region whose database is a standby of the epoch that ends.
    fn standbys(&self) -> impl Iterator<Item = (&Region, &Instance)> {
        self.sight.regions.iter().filter_map(|(region, seen)| {
            let instance = seen.instance.as_ref().ok()?;
            let of_it = instance.role == Role::Replica && instance.epoch() == Some(self.ends);
            let counts = self.counts(region);
            (of_it && counts && region != self.from).then_some((region, instance))
        })
    }

    /// Whether a region counts before the epoch begins, as far as it is said to be there.
    fn counts(&self, region: &Region) -> bool {
        self.counted.contains(region) && !self.change.gone.contains(region)
    }

    fn is_primary_already(&self) -> bool {
        let primary = self.seen.instance.as_ref().is_ok_and(|instance| {
            instance.role == Role::Primary && instance.epoch() == Some(self.ends)
        });
        self.from == self.target && primary && self.sight.pending().is_none()
    }

    /// Nothing to move; what a command before may have left undone is.
    fn settled(self, how: Move) -> Result<Plan, Vec<String>> {
        if !self.reasons.is_empty() {
            return Err(self.reasons);
        }
        let follow: Vec<Region> = self.strays().collect();
        let mut steps = vec![Step::Follow { regions: follow }, Step::Verify];
        let comes_back = |own: &Instance| own.platform.comes_back();
        if how == Move::Switchover && self.seen.instance.as_ref().map_or(true, comes_back) {
            // One whose database is down may have been stopped by the command before.
            let deposed = self.answering().filter(|(region, seen)| {
                let primary = |instance: &Instance| instance.role == Role::Primary;
                *region != self.target
                    && self.counts(region)
                    && seen.instance.as_ref().map_or(true, primary)
            });
            steps.extend(deposed.map(|(region, _)| Step::Rejoin { region: region.clone() }));
        }
        let mut notes = self.notes;
        notes.insert(0, format!("{} is the primary of epoch {} already", self.target, self.ends));
        Ok(Plan { notes, ..rest(self.sight, self.from, self.ends, how == Move::Switchover, steps) })
    }

    /// The promise that is under way for this target, or a new one.
    fn promise(&mut self, how: Move) -> Result<Promise, Vec<String>> {
        let planned = how == Move::Switchover;
        let accepts_loss = how == Move::Promote { accept_data_loss: true };
        let (region, members) = (self.target.clone(), Some(self.members.clone()));
        let after = Some(self.ends);
        let same = |pending: &Promise| {
            // A promise without members is an older program's, which changes none.
            let told = pending.members.as_ref().unwrap_or(&self.counted);
            let asks = (pending.planned, pending.accepts_loss) == (planned, accepts_loss);
            pending.region == region && asks && *told == self.members
        };
        match self.sight.pending() {
            // One that was promised to two moves at once can go on nowhere: a region that has promised it
            // to one refuses it to the other, whoever asks.
            Some(pending) if self.sight.is_contested(pending) => self.notes.push(format!(
                "takes over from several moves at once in epoch {}, none of which can go on",
                pending.epoch
            )),
            Some(pending) if same(pending) => {
                let epoch = pending.epoch;
                self.notes.push(format!("goes on with the move to epoch {epoch}"));
                return Ok(Promise { epoch, region, planned, after, members, accepts_loss });
            }
            Some(pending) => self.notes.push(format!(
                "takes over from an unfinished move to {} in epoch {}",
                pending.region, pending.epoch
            )),
            None => {}
        }
        let Some(epoch) = self.sight.next_epoch() else {
            return Err(vec!["there are no more epochs".to_owned()]);
        };
        Ok(Promise { epoch, region, planned, after, members, accepts_loss })
    }

    /// Standbys that are told to follow, the target aside.
    fn strays(&self) -> impl Iterator<Item = Region> {
        let others = self.sight.regions.iter().filter(|(region, seen)| {
            let standby = |instance: &Instance| instance.role == Role::Replica;
            // One that is removed by this is to receive that it is.
            let counts = self.counted.contains(region) || self.members.contains(region);
            *region != self.target && counts && seen.instance.as_ref().is_ok_and(standby)
        });
        others.map(|(region, _)| region.clone())
    }

    fn switchover(&mut self) -> Vec<Step> {
        let (from, target) = (self.from, self.target);
        let begins = [Step::Promote, Step::Begin];
        let old = self.sight.regions.get(from).map(|seen| &seen.instance);
        let old = old.and_then(|instance| instance.as_ref().ok());
        let hands_over = old.is_some_and(|old| old.platform.hands_over());
        let hand_over = hands_over.then(|| Step::HandOver { region: from.clone() });
        let rejoin = [Step::Rejoin { region: from.clone() }];
        if old.is_some_and(|old| old.role == Role::Replica && self.gives_up(old)) {
            self.notes.push(format!("{from} has given its place up before"));
            let first = [Step::Promise].into_iter().chain(hand_over).chain(begins);
            return first.chain([Step::Release, Step::Verify]).chain(rejoin).collect();
        }
        let Some(old) = old.filter(|old| old.role == Role::Primary) else {
            let why = if self.seen.instance.as_ref().is_ok_and(|own| self.gives_up(own)) {
                ", as its platform may be starting it as a replica: run this again; if it does not come,"
            } else {
                ":"
            };
            self.reasons.push(format!(
                "{from}, the primary, cannot be asked{why} `godwit promote {target}` moves on without it"
            ));
            return Vec::new();
        };
        if old.read_only && !self.reasons.is_empty() {
            self.reasons.push(format!(
                "{from} is fenced by a move that has not ended: no region takes writes. `godwit \
                 switchover {from}` takes it back"
            ));
        }
        let hard =
            self.sight.pending().filter(|promise| promise.region == *target && !promise.planned);
        if let (Ok(instance), Some(hard)) = (&self.seen.instance, hard)
            && instance.role == Role::Primary
        {
            self.reasons.push(format!(
                "{target} was promoted without {from}, for epoch {}, and may lack what {from} has: `godwit \
                 switchover {from}` takes that back, and loses nothing; `godwit promote {target}` goes on",
                hard.epoch
            ));
        }
        if let Ok(instance) = &self.seen.instance
            && instance.role == Role::Replica
        {
            let behind = old.lsn.bytes_since(instance.reaches());
            // A move that did not end may have detached it; it is attached again to catch up.
            if !instance.receiving && self.sight.pending().is_none() {
                self.reasons.push(format!("{target} receives no log from {from}"));
            } else if behind > HANDOVER_BYTES_MAX {
                self.reasons.push(format!(
                    "{target} is {behind} bytes behind: writes would be held for too long"
                ));
            }
        }
        let others: Vec<Region> = self.strays().filter(|region| region != from).collect();
        // The others leave the primary first, while writes go on: what it still logs by itself once
        // fenced must not take them past where the epoch will begin. From the target they receive no
        // more than it has.
        let first = [
            Step::Promise,
            Step::Detach { regions: others.clone() },
            Step::Follow { regions: others },
            Step::Fence { region: from.clone() },
            Step::CatchUp,
        ];
        if !old.platform.comes_back() {
            let platform = old.platform;
            self.notes.push(format!(
                "{platform} cannot make a replica of {from}, nor of any region that follows it: each is made anew \
                 of {target} (docs/RUNBOOK.md)"
            ));
        }
        let back = self.members.contains(from) && old.platform.comes_back();
        let last =
            [Step::Release, Step::Verify].into_iter().chain(rejoin.into_iter().filter(|_| back));
        first.into_iter().chain(hand_over).chain(begins).chain(last).collect()
    }

    /// Whether the move that is under way makes a replica of the old primary, where an instance is one of these.
    fn gives_up(&self, instance: &Instance) -> bool {
        let told = |promise: &Promise| promise.planned && promise.region == *self.target;
        instance.platform.demotes() && self.sight.pending().is_some_and(told)
    }

    /// A new epoch where the primary is: taken back from a move that came no further, or with other
    /// members. What it commits until then is of the epoch before, and must not come after its end.
    fn in_place(&mut self, durability: Durability) -> Vec<Step> {
        let (from, target) = (self.from, self.target);
        let follow = Step::Follow { regions: self.strays().collect() };
        let primary = |instance: &Instance| instance.role == Role::Primary;
        let is_primary = self.seen.instance.as_ref().is_ok_and(primary);
        let fence = Step::Fence { region: from.clone() };
        // One that cannot be looked at has been told of.
        if !is_primary && self.seen.instance.is_ok() {
            self.reasons.push(format!(
                "{target} is no primary any more: `godwit promote {target}` looks who has more, and mends \
                 that"
            ));
        }
        if self.change.is_none() {
            // Until its fence it may have gone on taking writes.
            let steps = [Step::Promise, fence, Step::Begin, Step::Release, follow, Step::Verify];
            return steps.into();
        }
        let others: Vec<&Region> = self.members.others(target).collect();
        let alone = !others.iter().any(|region| streams(self.sight, region, target));
        // One that is added is brought in before the epoch begins.
        let only_removes = self.change.added.is_empty() && !others.is_empty();
        if durability == Durability::Quorum && only_removes && alone {
            self.reasons.push(format!(
                "none of those who stay streams from {target}: {}. No write would be acknowledged",
                list(others)
            ));
        }
        let mut steps = vec![Step::Promise, fence, Step::Begin, Step::Release, Step::Verify];
        if !self.change.gone.is_empty() {
            steps.insert(1, Step::WaitOut);
        }
        steps
    }

    fn promote(&mut self, accept_data_loss: bool, durability: Durability) -> Vec<Step> {
        let (from, target) = (self.from, self.target);
        let old = self.sight.regions.get(from);
        // One that is alive, and yet cut off from the target, cannot hand over.
        let from_it = |own: &Instance| own.receiving && own.follows.as_ref() == Some(from);
        let receives = self.seen.instance.as_ref().is_ok_and(from_it);
        // One whose database cannot be looked at cannot either, whatever its process thinks still.
        let there = |old: &Seen| {
            let alive = |instance: &Instance| instance.role == Role::Primary;
            let writable = old.report.as_ref().is_ok_and(|report| report.writable);
            old.instance.as_ref().is_ok_and(alive) && (writable || receives)
        };
        if old.is_some_and(there) && from != target {
            self.reasons.push(format!(
                "{from}, the primary, is alive: `godwit switchover {target}` loses nothing"
            ));
        }
        let standbys: Vec<(&Region, &Instance)> = self.standbys().collect();
        let own = self.seen.instance.as_ref().ok();
        let is_standby = own.is_some_and(|own| own.role == Role::Replica);
        let (mut reasons, mut notes) = (Vec::new(), Vec::new());
        let mut lossless = false;
        if let Some(own) = own.filter(|_| is_standby) {
            let ahead = standbys.iter().filter(|(_, other)| other.reaches() > own.reaches());
            if let Some((region, other)) = ahead.max_by_key(|(_, other)| other.reaches()) {
                reasons.push(format!(
                    "{region} is {} bytes further than {target}: promote {region}",
                    other.reaches().bytes_since(own.reaches())
                ));
            }
            let loss = self.possible_loss(&standbys, durability);
            lossless = loss.is_empty();
            if accept_data_loss {
                notes = loss;
            } else {
                reasons.extend(loss.into_iter().map(|why| {
                    format!("{why}. --accept-data-loss promotes {target} all the same")
                }));
            }
        }
        let detach: Vec<Region> = standbys.iter().map(|(region, _)| (*region).clone()).collect();
        self.reasons.extend(reasons);
        self.notes.extend(notes);
        let others: Vec<Region> = self.strays().filter(|region| region != from).collect();
        // Both before the promotion, so that whoever follows goes over with the target at once.
        let detach = is_standby.then_some(Step::Detach { regions: detach });
        let ready = detach.into_iter().chain([Step::Follow { regions: others }]);
        let mut steps = vec![Step::Promise];
        if lossless {
            // Whom nobody receives from acknowledges nothing: what is left of its lease is time to
            // get ready in.
            steps.extend(ready.chain([Step::WaitOut]));
        } else {
            // Until then it may acknowledge more, and whoever still receives that keeps it.
            steps.push(Step::WaitOut);
            steps.extend(ready);
        }
        steps.extend([Step::Promote, Step::Begin, Step::Verify]);
        steps
    }
}

#[cfg(test)]
pub(crate) mod tests;
