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
/// Longest pause of one of two to the same region, of which neither is the first by name.
const PAUSE_MAX_MS: u64 = 2_000;

/// How a move goes on that has met another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// At once, in a later epoch.
    First,
    /// After a random while, in a later epoch if the other does not.
    Either,
    /// The other one does.
    Ends,
}

impl Turn {
    /// Both know which of them goes on without asking: whose target is the first by name. Pure.
    pub(super) fn of(own: &Region, other: &Region) -> Self {
        match own.cmp(other) {
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
    if epoch(now) != epoch(before) {
        return Err(now.current().map_or_else(
            || "no region tells any more which epoch it is in".to_owned(),
            |start| format!("{} has begun epoch {} meanwhile", start.region, start.epoch),
        ));
    }
    match now.pending() {
        Some(other) if !other.agrees(own) && !now.is_contested(other) => {
            Err(format!("a move to {} in epoch {} is under way", other.region, other.epoch))
        }
        _ => Ok(()),
    }
}

impl Run<'_> {
    /// Takes every step in turn. One that meets another move in its promise, before anything was done,
    /// is planned anew where it is its turn.
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
        for _ in 1..TRIES {
            let Err(Stopped::Refused(why)) = &ended else { break };
            match turn {
                Turn::Ends => break,
                Turn::First => {}
                Turn::Either => {
                    let pause = rng::below(&*self.op.rng, PAUSE_MAX_MS);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            }
            tell(Progress::Anew(why));
            let (sight, plan) = &before;
            let now = self.cluster.observe(self.op).await;
            let open = is_open(sight, &now, &plan.promise);
            let planned = open.and_then(|()| plan_anew(&now).map_err(|why| why.join("; ")));
            let anew = planned.map_err(|then| Stopped::Refused(format!("{why}; {then}")))?;
            let mut run = Run::new(self.cluster, &now, &anew, self.agent_max, self.term, self.op);
            ended = run.take_all(&mut tell).await;
            turn = run.turn;
            before = (now, anew);
        }
        let took_ms = super::millis(self.now().saturating_duration_since(began));
        ended.map(|report| Report { took_ms, ..report })
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
        let [ap, eu] = ["ap-south-1", "eu-west-1"].map(region);
        assert_eq!((Turn::of(&ap, &eu), Turn::of(&eu, &ap)), (Turn::First, Turn::Ends));
        assert_eq!(Turn::of(&eu, &eu), Turn::Either);
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
    }
}
