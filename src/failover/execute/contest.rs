//! Two moves at once: each may have been promised their epoch by some of the regions, and then neither
//! can go on in it. One of them goes on in the next.

use super::{Progress, Report, Run, Stopped};
use crate::{
    failover::{observe::Sight, plan::Plan},
    topology::lease::Promise,
    vocab::{Region, rng},
};
use std::{cmp::Ordering, time::Duration};

/// How often a move is planned in all.
const TRIES: u32 = 4;
/// What one process of a region has promised, all of them tell within this (`topology::note`).
const TOLD: Duration = Duration::from_millis(350);
/// Longest pause, besides, of one that cannot tell whether it goes on.
const PAUSE_MAX_MS: u64 = 2_000;

/// How a move goes on that has met another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// In a later epoch.
    First,
    /// After a random while, in a later epoch if the other has not gone on.
    Either,
    /// The other one does.
    Ends,
}

impl Turn {
    /// Both know which of them goes on without asking: whose target is the first by name. One that leaves
    /// the primary where it is needs fewer promises, and may have gone on. Pure.
    pub(super) fn of(own: &Region, other: &Region, from: &Region) -> Self {
        match own.cmp(other) {
            Ordering::Less if other == from => Self::Either,
            Ordering::Less => Self::First,
            Ordering::Equal => Self::Either,
            Ordering::Greater => Self::Ends,
        }
    }
}

/// Whether a move that has met another may be planned anew, as things are now: whoever was faster is
/// not overtaken. Pure.
fn is_open(before: &Sight, now: &Sight, own: &Promise) -> Result<(), String> {
    let epoch = |sight: &Sight| sight.current().map(|start| start.epoch);
    if epoch(now) < epoch(before) {
        return Err("who told of the newest epoch does not answer any more".to_owned());
    }
    if let Some(begun) = now.current().filter(|start| Some(start.epoch) > epoch(before)) {
        return Err(format!("{} has begun epoch {} meanwhile", begun.region, begun.epoch));
    }
    match now.pending() {
        Some(other) if !other.agrees(own) && !now.is_contested(other) => {
            Err(format!("a move to {} in epoch {} is under way", other.region, other.epoch))
        }
        _ => Ok(()),
    }
}

/// Whether whoever has agreed to a plan has agreed to another, made of what is seen now: where a loss is
/// accepted, the same regions are read. Pure.
fn is_as_agreed(plan: &Plan, anew: &Plan) -> Result<(), String> {
    let asks = |plan: &Plan| {
        let Promise { planned, accepts_loss, ref members, .. } = plan.promise;
        (plan.from.clone(), planned, accepts_loss, members.clone(), plan.gone.clone())
    };
    let read = !plan.promise.accepts_loss || plan.steps == anew.steps;
    if read && asks(plan) == asks(anew) {
        return Ok(());
    }
    Err("another plan is needed meanwhile: run the same command again to see it".to_owned())
}

impl Run<'_> {
    /// Takes every step in turn. One that meets another move before anything was done is planned anew where
    /// it is its turn.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub async fn carry_out(
        mut self,
        plan_anew: impl Fn(&Sight) -> Result<Plan, Vec<String>>,
        mut tell: impl FnMut(Progress<'_>),
    ) -> Result<Report, Stopped> {
        let began = self.now();
        let mut ended = self.take_all(&mut tell).await;
        let (mut turn, mut before) = (self.turn, (self.sight.clone(), self.plan.clone()));
        let mut met = None;
        for _ in 1..TRIES {
            let Err(Stopped::Refused(why)) = &ended else { break };
            let pause_ms = match turn {
                Turn::Ends => break,
                Turn::First => 0,
                Turn::Either => rng::below(&*self.op.rng, PAUSE_MAX_MS),
            };
            tokio::time::sleep(TOLD + Duration::from_millis(pause_ms)).await;
            tell(Progress::Anew(why));
            let (sight, plan) = &before;
            let now = self.cluster.observe(self.op).await;
            let planned = is_open(sight, &now, &plan.promise)
                .and_then(|()| plan_anew(&now).map_err(|why| why.join("; ")))
                .and_then(|anew| is_as_agreed(self.plan, &anew).map(|()| anew));
            let anew = planned.map_err(|then| Stopped::Refused(format!("{why}; {then}")))?;
            // Who has promised this epoch to another promises it to nobody else.
            if anew.promise.epoch == plan.promise.epoch {
                continue;
            }
            met = Some(why.clone());
            let mut run = Run::new(self.cluster, &now, &anew, self.agent_max, self.term, self.op);
            ended = run.take_all(&mut tell).await;
            turn = run.turn;
            before = (now, anew);
        }
        let mut report = ended?;
        report.took_ms = super::millis(self.now().saturating_duration_since(began));
        report.notes.extend(met.map(|why| format!("planned anew: {why}")));
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Durability,
        failover::{
            Move,
            plan::{
                plan,
                tests::{all_well, handover},
            },
        },
        vocab::EpochStart,
    };

    fn region(name: &str) -> Region {
        name.parse().unwrap()
    }

    #[test]
    fn of_two_that_meet_exactly_one_goes_on_at_once() {
        let [ap, eu, us] = ["ap-south-1", "eu-west-1", "us-east-1"].map(region);
        assert_eq!((Turn::of(&ap, &eu, &us), Turn::of(&eu, &ap, &us)), (Turn::First, Turn::Ends));
        assert_eq!(Turn::of(&eu, &eu, &us), Turn::Either);
        // A change of members where the primary is.
        assert_eq!((Turn::of(&ap, &us, &us), Turn::of(&us, &ap, &us)), (Turn::Either, Turn::Ends));
    }

    #[test]
    fn whoever_was_faster_is_not_overtaken() {
        let before = all_well();
        let [own, other] = ["ap-south-1", "eu-west-1"].map(handover);
        // Each has one: nobody has a majority of three, or ever will.
        let met = before.clone().promised("ap-south-1", &own).promised("eu-west-1", &other);
        is_open(&before, &met, &own).unwrap();
        let how = Move::Switchover;
        let anew = plan(&met, &region("ap-south-1"), how, Durability::Async).unwrap().promise;
        assert_eq!(anew.epoch.get(), own.epoch.get() + 1);
        let alone = before.clone().promised("eu-west-1", &other);
        // The other has gone on in the next epoch.
        let next = Promise { region: other.region, ..anew };
        for faster in [alone, met.promised("eu-west-1", &next)] {
            let why = is_open(&before, &faster, &own).unwrap_err();
            assert!(why.contains("a move to eu-west-1"), "{why}");
        }
    }

    #[test]
    fn an_epoch_that_has_begun_is_not_ended_by_who_was_late() {
        let (before, mut begun) = (all_well(), all_well());
        let own = handover("ap-south-1");
        let epochs = &mut begun.seen("eu-west-1").report.as_mut().unwrap().epochs;
        let of_eu =
            EpochStart { epoch: own.epoch, region: region("eu-west-1"), ..epochs[0].clone() };
        epochs.push(of_eu);
        let why = is_open(&before, &begun, &own).unwrap_err();
        assert!(why.contains("eu-west-1 has begun epoch"), "{why}");
        // Who told of it is not seen again.
        let why = is_open(&begun, &before, &own).unwrap_err();
        assert!(why.contains("does not answer any more"), "{why}");
    }

    #[test]
    fn a_loss_is_accepted_of_the_plan_that_was_shown_and_of_no_other() {
        let how = Move::Promote { accept_data_loss: true };
        let to_eu =
            |sight: &Sight| plan(sight, &region("eu-west-1"), how, Durability::Async).unwrap();
        let shown = to_eu(&all_well().gone("us-east-1"));
        is_as_agreed(&shown, &to_eu(&all_well().gone("us-east-1"))).unwrap();
        // It answers, and its log cannot be read any more.
        let mut unread = all_well().gone("us-east-1");
        unread.seen("ap-south-1").instance = Err("down".into());
        is_as_agreed(&shown, &to_eu(&unread)).unwrap_err();
        let kind = Move::Switchover;
        let handover = plan(&all_well(), &region("eu-west-1"), kind, Durability::Async).unwrap();
        is_as_agreed(&handover, &shown).unwrap_err();
    }
}
