//! Whether a move may be planned at all, and what it can lose.

use super::View;
use crate::{
    config::Durability,
    topology::{Role, control::Instance, report::PeerReport},
    vocab::{Quorum, Region},
};
use std::collections::BTreeSet;

impl View<'_> {
    pub(super) fn enough_answer(&mut self) {
        let answering: BTreeSet<Region> =
            self.answering().map(|(region, _)| region.clone()).collect();
        let (members, before) = (self.members.clone(), vec![self.counted.clone()]);
        let quorum = Quorum { members, before, gone: self.change.gone.clone() };
        if let Some(lacking) = quorum.lacks(&answering) {
            let (all, answer) = (lacking.count(), lacking.among(&answering));
            let needed = lacking.needed();
            let why = if *lacking == self.members && !self.change.is_none() {
                format!("of the {all} regions that would count, {answer} answer and {needed} must")
            } else {
                format!(
                    "{answer} of {all} regions answer and {needed} must: nothing else keeps the old \
                     primary from going on. `godwit region remove REGION... --gone` takes out those \
                     that are gone for good"
                )
            };
            self.reasons.push(why);
        }
        for (region, seen) in &self.sight.regions {
            match (&seen.report, &seen.instance) {
                (Err(why), _) => self.notes.push(format!("{region} does not answer: {why}")),
                (Ok(_), Err(why)) => {
                    self.notes.push(format!("{region}: its database cannot be looked at: {why}"));
                }
                _ => {}
            }
        }
    }

    pub(super) fn target_is_fit(&mut self) {
        let target = self.target;
        let instance = match (&self.seen.report, &self.seen.instance) {
            (Err(why), _) => return self.reasons.push(format!("{target} does not answer: {why}")),
            (_, Err(why)) => {
                return self.reasons.push(format!("{target}: its database cannot be moved: {why}"));
            }
            (_, Ok(instance)) => instance,
        };
        let newer = instance.epoch() > Some(self.ends);
        if !self.counted.contains(target) || !self.members.contains(target) {
            self.reasons.push(format!("{target} is no member: `godwit region add {target}` first"));
        }
        if instance.epoch() != Some(self.ends) && !newer {
            let epoch = instance.epoch().map_or("none".to_owned(), |epoch| epoch.to_string());
            self.reasons.push(format!(
                "{target} is in epoch {epoch}, the cluster in {}: `godwit rejoin {target}` first",
                self.ends
            ));
        }
        // One that a move has promoted has its promise; of any other nobody knows since when it has
        // gone its own way.
        let promised = self.sight.pending().is_some_and(|promise| promise.region == *target);
        let of_it = instance.epoch() == Some(self.ends);
        if instance.role == Role::Primary && of_it && self.from != target && !promised {
            self.reasons.push(format!(
                "{target} was promoted outside Godwit, and has left the cluster's history: `godwit \
                 rejoin {target}` first"
            ));
        }
        if let Ok(report) = &self.seen.report
            && let Some(schema) = &report.schema
            && schema.starts_with("old")
        {
            self.reasons.push(format!("{target}: its schema is {schema}"));
        }
    }

    /// Who is said to be gone must be, and everybody else must know what a member is.
    pub(super) fn change_is_sound(&mut self) {
        if self.change.is_none() {
            return;
        }
        for (region, seen) in &self.sight.regions {
            let Ok(report) = &seen.report else { continue };
            if self.change.gone.contains(region) {
                self.reasons.push(format!("{region} was said to be gone, and answers"));
                continue;
            }
            if report.members.is_none() {
                let why = format!("{region} runs a version that knows of no members: upgrade it");
                self.reasons.push(why);
            }
            // Who does not know it neither asks it for its grant nor keeps its slot.
            let knows = |other: &Region| other == region || report.peers.contains_key(other);
            let concerns = self.change.added.contains(region);
            let wanted = self.members.iter().filter(|_| concerns).chain(&self.change.added);
            if let Some(other) = wanted.into_iter().find(|other| !knows(other)) {
                self.reasons.push(format!("{region}'s settings do not name {other}"));
            }
            let reaches = |(peer, told): &(&Region, &PeerReport)| {
                told.reachable && self.change.gone.contains(*peer)
            };
            if let Some((peer, _)) = report.peers.iter().find(reaches) {
                let why =
                    format!("{peer} was said to be gone, and {region} has just heard from it");
                self.reasons.push(why);
            }
        }
    }

    /// A planned move is nothing to begin where it could not go on: once the others have promised it, the
    /// primary's lease runs out.
    pub(super) fn can_promise(&mut self, regions: &[&Region]) {
        for region in regions {
            let seen = self.sight.regions.get(*region).and_then(|seen| seen.instance.as_ref().ok());
            if seen.is_some_and(|instance| instance.promises == Some(false)) {
                self.reasons.push(format!(
                    "{region} cannot read its Redis, and would carry out nothing of a move: mend that first"
                ));
            }
        }
    }

    /// Nor where a platform that does not answer is to promote: the primary would be fenced for nothing.
    pub(super) fn platforms_answer(&mut self) {
        for region in [self.from, self.target] {
            let seen = self.sight.regions.get(region).and_then(|seen| seen.instance.as_ref().ok());
            let asked = |own: &&Instance| region == self.target || own.platform.hands_over();
            if let Some(own) = seen.filter(asked)
                && own.platform_answers == Some(false)
            {
                self.reasons.push(format!(
                    "{region}: {} does not answer, and promotes nothing: mend that first",
                    own.platform
                ));
            }
        }
    }

    /// What the old primary may have acknowledged and the target not have. A write that was
    /// acknowledged is on W = 1 of N standbys in `quorum`, so that all N must be read (R + W > N); in
    /// `async` it need be on none.
    pub(super) fn possible_loss(
        &self,
        standbys: &[(&Region, &Instance)],
        durability: Durability,
    ) -> Vec<String> {
        let from = self.from;
        if !self.sight.regions.contains_key(from) {
            return vec![format!(
                "{from} is not in the settings any more: who had its writes cannot be told"
            )];
        }
        let standbys_all = self.counted.others(from).count();
        match durability {
            Durability::Async => vec![format!(
                "durability is async: {from} may have acknowledged writes that no other region has"
            )],
            Durability::Quorum if standbys.len() < standbys_all => vec![format!(
                "{} of {standbys_all} replicas can be read: one that cannot may have a write that \
                 {from} acknowledged and no other region has",
                standbys.len()
            )],
            Durability::Quorum => self.not_in_quorum(),
        }
    }

    /// Nobody can ask a dead primary what its commits waited for: its settings are to be everybody's.
    fn not_in_quorum(&self) -> Vec<String> {
        let told = self.sight.regions.iter().filter_map(|(region, seen)| {
            let durability = seen.report.as_ref().ok()?.durability;
            (durability != Some(Durability::Quorum)).then_some(region)
        });
        let why = |region| {
            format!(
                "{region} does not say that durability is quorum: {} may have acknowledged writes that \
                 no other region has",
                self.from
            )
        };
        told.map(why).collect()
    }
}
