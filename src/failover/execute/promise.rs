//! What a move is promised before anything else: that no earlier epoch is granted anything any more.

use super::{Run, Stopped, contest::Turn};
use crate::{
    failover::plan::{Plan, Step, list},
    topology::{
        ask::{Answer, Question},
        lease::Promised,
    },
    vocab::{Epoch, Members, Quorum, Region},
};
use futures_util::future::join_all;
use std::{collections::BTreeSet, time::Duration};

/// Longest wait for a region's promise: those that answer must not wait long for one that is gone.
const PROMISE: Duration = Duration::from_millis(1_000);
/// Longest wait for a region that has to wait out what it may have forgotten.
const QUIET: Duration = Duration::from_secs(30);
/// Between two rounds of asking.
const ASK_EVERY: Duration = Duration::from_millis(250);

type Answered<'a> = Vec<(&'a Region, Result<Promised, String>)>;

/// What the regions have answered in one round.
#[derive(Debug, Default, PartialEq, Eq)]
struct Round {
    promised: BTreeSet<Region>,
    /// Longest that any of them has still granted to an earlier epoch.
    left_ms: u64,
    /// Why the others have not.
    why: Vec<String>,
    /// Some are to be asked again: they wait out what they may have forgotten.
    quiet: bool,
    /// Of epochs that may have begun, as those who promise tell.
    others: Vec<Members>,
    /// The first by name that has been promised this epoch too, and who says so.
    met: Option<(Region, Region)>,
}

impl Round {
    /// Pure.
    fn of(plan: &Plan, answers: Answered<'_>) -> Result<Self, Stopped> {
        let mut round = Self::default();
        for (region, answer) in answers {
            if answer.is_ok() && plan.gone.contains(region) {
                let why = format!("{region} was said to be gone, and answers");
                return Err(Stopped::Refused(why));
            }
            match answer {
                Ok(Promised::Yes { left_ms, others }) => {
                    round.promised.insert(region.clone());
                    round.left_ms = round.left_ms.max(left_ms);
                    round.others.extend(others);
                }
                Ok(Promised::Outranked { epoch, region: Some(by) })
                    if epoch == plan.promise.epoch =>
                {
                    let met = (by, region.clone());
                    round.met = Some(round.met.map_or(met.clone(), |before| before.min(met)));
                }
                Ok(Promised::Outranked { epoch, region: by }) => {
                    return Err(Stopped::Refused(outranked(plan, region, epoch, by.as_ref())));
                }
                Ok(Promised::Quiet { left_ms }) => {
                    round.quiet = true;
                    round.why.push(format!("{region} promises nothing for {left_ms} ms more"));
                }
                Err(reason) => round.why.push(format!("{region}: {reason}")),
            }
        }
        Ok(round)
    }
}

/// What was looked at before an epoch began says nothing of what it has acknowledged.
fn outranked(plan: &Plan, region: &Region, epoch: Epoch, by: Option<&Region>) -> String {
    if epoch < plan.promise.epoch {
        let of = by.map_or_else(String::new, |of| format!(" of {of}"));
        return format!(
            "{region} knows of epoch {epoch}{of}, which this command has not found: look again with \
             `godwit status`. If nothing of it can be reached, `godwit promote --accept-data-loss` \
             gives up what it wrote"
        );
    }
    let by = by.map_or_else(String::new, |by| format!(" to {by}"));
    format!(
        "{region} has promised epoch {epoch}{by}: another move is under way; look again with \
         `godwit status`"
    )
}

/// Whose log a promotion would not look at, though it may have what an epoch acknowledged that is not
/// known here: a member of one that was promised, and may have begun. Pure.
fn unread(plan: &Plan, before: &[Members]) -> BTreeSet<Region> {
    let detached = plan.steps.iter().find_map(|step| match step {
        Step::Detach { regions } => Some(regions),
        _ => None,
    });
    // A target that was promoted by a run before was judged by it.
    let Some(read) = detached.filter(|_| !plan.promise.planned && !plan.promise.accepts_loss)
    else {
        return BTreeSet::new();
    };
    let counted = before.iter().flat_map(Members::iter);
    counted.filter(|region| **region != plan.from && !read.contains(region)).cloned().collect()
}

impl Run<'_> {
    pub(super) async fn promise(&mut self) -> Result<String, Stopped> {
        let wanted = &self.plan.promise;
        let before = vec![self.plan.counted.clone()];
        let members = wanted.members.clone().unwrap_or_else(|| self.plan.counted.clone());
        let mut quorum = Quorum { members, before, gone: self.plan.gone.clone() };
        let give_up = self.now() + QUIET;
        loop {
            let asked_at = self.now();
            let round = Round::of(self.plan, self.ask_for_promises().await)?;
            let Round { promised, left_ms, why, quiet, others, met } = round;
            if let Some((by, region)) = met {
                self.turn = Turn::of(&wanted.region, &by, &self.plan.from);
                let why = outranked(self.plan, &region, wanted.epoch, Some(&by));
                return Err(Stopped::Refused(why));
            }
            for members in others {
                quorum.add(members);
            }
            // The target obeys only who it has promised to; and a handover can wait for those that
            // are only quiet, which could go past where the epoch begins if they did not obey.
            let lacking = quorum.lacks(&promised);
            let enough = lacking.is_none() && promised.contains(&wanted.region);
            if enough && !(wanted.planned && quiet && self.now() < give_up) {
                let (unread, silent): (BTreeSet<_>, BTreeSet<_>) =
                    unread(self.plan, &quorum.before)
                        .into_iter()
                        .partition(|region| promised.contains(region));
                self.read_too = unread;
                if !silent.is_empty() {
                    return Err(Stopped::Refused(format!(
                        "an epoch may have begun that counts {} too, who does not answer and may \
                         have a write that was acknowledged in it: --accept-data-loss promotes {} all \
                         the same",
                        list(&silent),
                        wanted.region
                    )));
                }
                // A tenth more, for clocks that do not run at one speed.
                let told = Duration::from_millis(left_ms + left_ms / 10);
                let asked = quorum.tells_all(&promised);
                let left = if asked { told } else { told.max(self.term + self.term / 10) };
                self.granted_until = Some(self.now() + left);
                self.waits_for_others = !asked || quorum.before.len() > 1;
                return Ok(list(&promised));
            }
            if self.now() > give_up {
                let of = lacking.unwrap_or(&quorum.members);
                return Err(Stopped::Failed(format!(
                    "only {} of {} regions promise, of {of}: {}",
                    of.among(&promised),
                    of.needed(),
                    why.join("; ")
                )));
            }
            let next = asked_at + ASK_EVERY;
            tokio::time::sleep(next.saturating_duration_since(self.now())).await;
        }
    }

    async fn ask_for_promises(&self) -> Answered<'_> {
        let asked = self.sight.regions.keys().map(async |region| {
            let Ok(asker) = self.asker(region) else { return (region, Err("unknown".into())) };
            let question = Question::Promise(self.plan.promise.clone());
            let answer = match asker.ask(question, PROMISE, self.op).await {
                Ok(Answer::Promise(answer)) => Ok(answer),
                Ok(Answer::Failed { reason }) => Err(reason),
                Ok(_) => Err("it answered another question".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            (region, answer)
        });
        join_all(asked).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Durability,
        failover::{
            Move,
            plan::{plan, tests::all_well},
        },
    };

    fn region(name: &str) -> Region {
        name.parse().unwrap()
    }

    fn promotion(accept_data_loss: bool) -> Plan {
        let mut sight = all_well().gone("us-east-1");
        for name in ["eu-west-1", "ap-south-1"] {
            sight.seen(name).report.as_mut().unwrap().durability = Some(Durability::Quorum);
        }
        let how = Move::Promote { accept_data_loss };
        plan(&sight, &region("eu-west-1"), how, Durability::Quorum).unwrap()
    }

    #[test]
    fn a_member_of_an_epoch_that_may_have_begun_is_not_passed_over() {
        let plan = promotion(false);
        assert!(unread(&plan, std::slice::from_ref(&plan.counted)).is_empty());
        let added = plan.counted.iter().cloned().chain([region("sa-east-1")]);
        let before = [plan.counted.clone(), added.collect()];
        assert_eq!(unread(&plan, &before), BTreeSet::from([region("sa-east-1")]));
        // Who accepts a loss goes on.
        assert!(unread(&promotion(true), &before).is_empty());
    }

    #[test]
    fn those_who_promise_count_and_the_others_say_why_not() {
        let plan = promotion(false);
        let [eu, ap, us] = ["eu-west-1", "ap-south-1", "us-east-1"].map(region);
        let yes = |left_ms, others| Ok(Promised::Yes { left_ms, others });
        let quiet = Ok(Promised::Quiet { left_ms: 5 });
        let told = vec![plan.counted.clone()];
        let answers =
            vec![(&eu, yes(7, vec![])), (&ap, yes(3, told.clone())), (&us, Err("cut".to_owned()))];
        let round = Round::of(&plan, answers).unwrap();
        assert_eq!((round.left_ms, round.quiet, round.others), (7, false, told));
        assert_eq!(round.promised, BTreeSet::from([eu.clone(), ap.clone()]));
        assert_eq!(round.why, ["us-east-1: cut"]);
        let round = Round::of(&plan, vec![(&eu, quiet)]).unwrap();
        assert!(round.quiet && round.promised.is_empty());
    }

    #[test]
    fn another_move_or_an_epoch_that_was_not_found_stops_it() {
        let plan = promotion(false);
        let eu = region("eu-west-1");
        let stopped = |epoch, by| {
            let epoch = Epoch::new(epoch).unwrap();
            let answer = Ok(Promised::Outranked { epoch, region: by });
            match Round::of(&plan, vec![(&eu, answer)]) {
                Err(Stopped::Refused(why)) => why,
                other => panic!("{other:?}"),
            }
        };
        let epoch = plan.promise.epoch.get();
        assert!(stopped(epoch - 1, Some(eu.clone())).contains("has not found"));
        assert!(stopped(epoch, None).contains("another move"));
        assert!(stopped(epoch + 1, Some(eu.clone())).contains("another move"));
    }

    #[test]
    fn of_all_that_it_meets_in_its_epoch_the_first_by_name_counts() {
        let plan = promotion(false);
        let [eu, ap, us] = ["eu-west-1", "ap-south-1", "us-east-1"].map(region);
        let met = |by: &Region| {
            Ok(Promised::Outranked { epoch: plan.promise.epoch, region: Some(by.clone()) })
        };
        let yes = Ok(Promised::Yes { left_ms: 0, others: vec![] });
        let answers = vec![(&us, met(&us)), (&eu, yes.clone()), (&ap, met(&ap))];
        let round = Round::of(&plan, answers).unwrap();
        assert_eq!(round.met, Some((ap.clone(), ap.clone())));
        // One that is ahead stops it all the same.
        let epoch = Epoch::new(plan.promise.epoch.get() + 1).unwrap();
        let ahead = Ok(Promised::Outranked { epoch, region: Some(us.clone()) });
        assert!(Round::of(&plan, vec![(&ap, met(&ap)), (&us, ahead)]).is_err());
    }
}
