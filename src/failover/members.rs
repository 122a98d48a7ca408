//! Who counts is changed: regions that are gone for good, or not wanted any more, are removed, and new
//! ones added. Each is an epoch like any other (`docs/adr/0010-members.md`), planned as moves are.

use super::{
    observe::Sight,
    plan::{self, Move, Plan, Step, list, plan_change},
};
use crate::{
    config::Durability,
    topology::{Role, TopologyReport},
    vocab::{EpochStart, Members, Region},
};
use std::collections::BTreeSet;

/// What changes of the members.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    pub(super) added: BTreeSet<Region>,
    pub(super) removed: BTreeSet<Region>,
    /// Of those removed: will never answer again.
    pub(super) gone: BTreeSet<Region>,
}

impl Change {
    pub(super) fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    pub(super) fn of(&self, counted: &Members) -> Members {
        let stay = counted.iter().filter(|region| !self.removed.contains(*region));
        stay.chain(&self.added).cloned().collect()
    }
}

/// What an operator wants removed.
#[derive(Debug, Clone)]
pub struct Removal {
    pub regions: BTreeSet<Region>,
    /// They will never answer again.
    pub gone: bool,
    /// They may answer, and are removed all the same.
    pub alive: bool,
    /// Where the primary goes that is among them.
    pub primary: Option<Region>,
    pub accept_data_loss: bool,
}

/// What there is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// All is so already, in a sentence.
    Nothing(String),
    Plan(Box<Plan>),
}

impl Planned {
    /// # Errors
    /// When there is nothing to do.
    pub fn into_plan(self) -> Result<Plan, Vec<String>> {
        match self {
            Self::Plan(plan) => Ok(*plan),
            Self::Nothing(told) => Err(vec![told]),
        }
    }
}

/// Nothing, or what a run before has left undone of it.
fn already(sight: &Sight, current: &EpochStart, told: &str, removed: &BTreeSet<Region>) -> Planned {
    let EpochStart { region: primary, epoch, .. } = current;
    let sends = |report: &TopologyReport| report.primary.as_ref() == Some(primary);
    let mut answering = sight.regions.iter().filter_map(|(region, seen)| {
        let report = seen.report.as_ref().ok()?;
        (!removed.contains(region)).then_some(report)
    });
    let takes = sight.regions.get(primary).and_then(|seen| seen.report.as_ref().ok());
    if takes.is_some_and(|report| report.writable) && answering.all(sends) {
        return Planned::Nothing(told.to_owned());
    }
    let parts =
        (!removed.is_empty()).then(|| Step::Part { regions: removed.iter().cloned().collect() });
    let steps = [Step::Verify].into_iter().chain(parts).collect();
    let plan = plan::rest(sight, primary, *epoch, true, steps);
    let notes = vec![format!("{told}; a run before has not come to its end")];
    Planned::Plan(Box::new(Plan { notes, ..plan }))
}

/// Plans the removal of regions from the cluster.
///
/// # Errors
/// Every reason why it must not be done as things are.
pub fn remove(
    sight: &Sight,
    removal: &Removal,
    durability: Durability,
) -> Result<Planned, Vec<String>> {
    let Some(current) = sight.current() else {
        return Err(vec!["no region tells which epoch it is in".to_owned()]);
    };
    let (from, counted) = (&current.region, sight.members());
    let unknown = |region: &&Region| {
        !counted.contains(region) && !sight.regions.contains_key::<Region>(region)
    };
    if let Some(region) = removal.regions.iter().find(unknown) {
        return Err(vec![format!("{region} is not one of the cluster's regions")]);
    }
    let (removed, others): (BTreeSet<Region>, BTreeSet<Region>) =
        removal.regions.iter().cloned().partition(|region| counted.contains(region));
    if removed.is_empty() {
        return Ok(already(
            sight,
            current,
            &format!("no member already: {}", list(&others)),
            &others,
        ));
    }
    let answers = |region: &&Region| {
        sight.regions.get(*region).is_some_and(|seen| seen.report.is_ok()) && !removal.gone
    };
    let mut reasons = Vec::new();
    if let Some(region) = removed.iter().filter(answers).find(|_| !removal.alive) {
        reasons.push(format!("{region} answers: --alive removes what is well"));
    }
    let gone = if removal.gone { removed.clone() } else { BTreeSet::new() };
    let change = Change { added: BTreeSet::new(), removed, gone };
    let members = change.of(&counted);
    if members.count() == 0 {
        return Err(vec![format!("{counted}: nobody would be left")]);
    }
    let (target, how) = if change.removed.contains(from) {
        let Some(target) = &removal.primary else {
            reasons.push(format!(
                "{from} is the primary: --primary REGION says which of {members} is to be it"
            ));
            return Err(reasons);
        };
        let primary = sight.regions.get(from).is_some_and(|seen| {
            seen.report.is_ok() && seen.instance.as_ref().is_ok_and(|i| i.role == Role::Primary)
        });
        let accept_data_loss = removal.accept_data_loss;
        let how = if primary { Move::Switchover } else { Move::Promote { accept_data_loss } };
        (target.clone(), how)
    } else {
        if let Some(other) = removal.primary.as_ref().filter(|other| *other != from) {
            reasons
                .push(format!("{from}, the primary, stays: `godwit switchover {other}` moves it"));
            return Err(reasons);
        }
        (from.clone(), Move::Switchover)
    };
    let plan = plan_change(sight, &target, how, durability, &change);
    match plan {
        Ok(plan) if reasons.is_empty() => Ok(Planned::Plan(Box::new(plan))),
        Ok(_) => Err(reasons),
        Err(more) => Err(reasons.into_iter().chain(more).collect()),
    }
}

/// Plans that a region counts which streams already.
///
/// # Errors
/// Every reason why it must not be done as things are.
pub fn add(sight: &Sight, region: &Region, durability: Durability) -> Result<Planned, Vec<String>> {
    let Some(current) = sight.current() else {
        return Err(vec!["no region tells which epoch it is in".to_owned()]);
    };
    match sight.regions.get(region).map(|seen| &seen.report) {
        None => {
            return Err(vec![format!(
                "{region} is not one of the cluster's regions: every region's settings name it first"
            )]);
        }
        Some(_) if sight.members().contains(region) => {
            let told = format!("{region} is a member already");
            return Ok(already(sight, current, &told, &BTreeSet::new()));
        }
        Some(Err(why)) => return Err(vec![format!("{region} does not answer: {why}")]),
        Some(Ok(_)) => {}
    }
    let added = BTreeSet::from([region.clone()]);
    let change = Change { added, ..Change::default() };
    let target = current.region.clone();
    let plan = plan_change(sight, &target, Move::Switchover, durability, &change)?;
    Ok(Planned::Plan(Box::new(plan)))
}

#[cfg(test)]
mod tests;
