//! One round: a workload, a fault, a move of the primary, and the judgment.

use super::{
    checker,
    client::Client,
    closing,
    faults::{Act, Fault, Scene, Step},
    ground::{Acted, CommandRecord, Ground},
    history::{Closing, History, Mark, MarkKind},
    limits,
    measures::{self, Percentiles},
    report::Round,
    workload::{self, Plan, Workload},
};
use crate::{
    config::Durability,
    vocab::{Region, Rng, SharedRng, rng::SeededRng},
};
use std::{sync::Arc, time::Duration};

/// Of the workload alone, before anything is broken.
const WARM_UP: Duration = Duration::from_secs(3);
/// Longest wait until writes go through in every region that should take them.
const WRITES_PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// What a round is to be.
#[derive(Debug, Clone)]
pub struct Order {
    pub number: u32,
    pub seed: u64,
    pub fault: Fault,
    /// Writes a second.
    pub rate: u32,
    pub durability: Durability,
    /// In the names of its collections; no two rounds on a cluster have the same.
    pub run: String,
}

/// Runs one round to its end. What goes wrong on the way is in the round.
///
/// # Errors
/// When it cannot begin: something is amiss that cannot be made good, no region is the primary, or no
/// write goes through.
pub async fn run(
    client: Client,
    ground: &impl Ground,
    order: &Order,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<(Round, History), String> {
    let client = Arc::new(client);
    let rng: SharedRng = Arc::new(SeededRng::new(order.seed));
    tell("looking whether all is well");
    let restored = ground.restore().await?;
    let regions = client.regions();
    let (_, primary) = primary(&client).await?;
    let scene = Scene::choose(&regions, &primary, &*rng).ok_or("there is only one region")?;
    let lists = workload::prepare(&client, &order.run, &primary).await?;
    let plan = Plan { run: order.run.clone(), rate: order.rate.max(order.fault.rate_min()) };
    let workload = Workload::begin(Arc::clone(&client), plan, lists.clone(), rng);
    let mut stage = Stage {
        client: &client,
        ground,
        workload: &workload,
        tell,
        marks: Vec::new(),
        commands: Vec::new(),
        failures: Vec::new(),
        promoted: false,
        rejoined: false,
    };
    stage.play(order.fault, &scene, &regions).await;
    let Stage { mut marks, commands, mut failures, promoted, rejoined, .. } = stage;
    let workload::Ended { calls, skipped, late_us } = workload.end().await;
    let ended_us = client.now_us();
    if skipped > 0 {
        let says = format!("{skipped} requests were left out: every session waited for an answer");
        marks.push(Mark { at_us: ended_us, kind: MarkKind::Seen, says });
    }
    tell("reading everything back");
    let after = primary_after(&client, &mut failures).await;
    let mut history = History {
        run: order.run.clone(),
        seed: order.seed,
        durability: order.durability,
        regions,
        calls,
        marks,
        ended_us,
        closing: Closing::default(),
    };
    let read = match &after {
        Some(at) => closing::read(&client, &order.run, &lists, &history.calls, at).await,
        None => Err("nobody takes writes".to_owned()),
    };
    let judged = read.is_ok() && !history.calls.is_empty();
    let verdict = match read {
        Ok(closing) => {
            history.closing = Closing { rejoined: promoted && rejoined, ..closing };
            let lost = checker::lost(&history);
            history.closing.probes = closing::probe(&client, &order.run, &lost).await;
            checker::judge(&history)
        }
        Err(why) => {
            failures.push(format!("the end could not be read, so nothing is judged: {why}"));
            checker::judge(&History { calls: Vec::new(), ..history.clone() })
        }
    };
    let measures = measures::measure(&history, &order.fault.survivors(&scene), &commands);
    let measures = measures.with_primary(&primary);
    let late = Percentiles::of(late_us);
    let uncounted = limits::uncounted(&late, &history);
    if uncounted.is_none() {
        failures.extend(limits::broken(order.fault, &measures));
    }
    let round = Round {
        number: order.number,
        seed: order.seed,
        fault: order.fault.name().to_owned(),
        about: order.fault.facts().1.to_owned(),
        restored,
        primary_before: Some(primary),
        primary_after: after,
        not_run: None,
        uncounted,
        judged,
        late,
        failures,
        commands,
        verdict,
        measures,
    };
    Ok((round, history))
}

/// Within a minute somebody is the primary.
async fn primary(client: &Client) -> Result<(crate::vocab::Epoch, Region), String> {
    let give_up_us = client.now_us() + micros(WRITES_PATIENCE);
    loop {
        match client.primary().await {
            Some(found) => return Ok(found),
            None if client.now_us() > give_up_us => {
                return Err("no region says that it is the primary".into());
            }
            None => tokio::time::sleep(LOOK * 10).await,
        }
    }
}

async fn primary_after(client: &Client, failures: &mut Vec<String>) -> Option<Region> {
    match primary(client).await {
        Ok((_, region)) => Some(region),
        Err(why) => {
            failures.push(why);
            None
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A round under way.
struct Stage<'a, G> {
    client: &'a Client,
    ground: &'a G,
    workload: &'a Workload,
    tell: &'a (dyn Fn(&str) + Sync),
    marks: Vec<Mark>,
    commands: Vec<CommandRecord>,
    failures: Vec<String>,
    promoted: bool,
    rejoined: bool,
}

impl<G: Ground> Stage<'_, G> {
    async fn play(&mut self, fault: Fault, scene: &Scene, regions: &[Region]) {
        let begun = self.writes(regions).await;
        if let Err(why) = begun {
            self.failures.push(format!("before anything was broken: {why}"));
            return;
        }
        tokio::time::sleep(WARM_UP).await;
        for step in fault.script(scene) {
            if let Err(why) = self.step(&step).await {
                self.mark(MarkKind::Seen, why.clone());
                self.failures.push(why);
                self.mend(regions).await;
                return;
            }
        }
    }

    async fn mend(&mut self, regions: &[Region]) {
        (self.tell)("mending what is broken");
        if let Acted::Failed(why) | Acted::Refused(why) = self.ground.mend().await {
            self.failures.push(format!("it could not be mended: {why}"));
        }
        self.mark(MarkKind::Mended, "mend everything".into());
        if let Err(why) = self.writes(regions).await {
            self.failures.push(format!("after mending: {why}"));
        }
    }

    fn mark(&mut self, kind: MarkKind, says: String) {
        (self.tell)(&says);
        self.marks.push(Mark { at_us: self.client.now_us(), kind, says });
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Hold(time) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
            Step::Writes(regions) => self.writes(regions).await,
            Step::Do(act) => match self.act(act).await {
                Acted::Done => Ok(()),
                Acted::Refused(why) => Err(format!("{act} was refused: {why}")),
                Acted::Failed(why) => Err(format!("{act} failed: {why}")),
            },
            Step::Refused(act, words) => match self.act(act).await {
                Acted::Refused(why) if why.contains(words) => Ok(()),
                Acted::Refused(why) => Err(format!("{act} was refused, not for this: {why}")),
                Acted::Done => Err(format!("{act} was done, and should have been refused")),
                Acted::Failed(why) => Err(format!("{act} failed, and was not refused: {why}")),
            },
            Step::FirstOf(acts) => {
                let mut refusals = Vec::new();
                for act in acts {
                    match self.act(act).await {
                        Acted::Done => return Ok(()),
                        Acted::Refused(why) => refusals.push(format!("{act}: {why}")),
                        Acted::Failed(why) => return Err(format!("{act} failed: {why}")),
                    }
                }
                Err(format!("all were refused: {}", refusals.join("; ")))
            }
            Step::AtOnce(one, other) => {
                self.mark(MarkKind::Command, format!("{one} and {other} at once"));
                let at_us = self.client.now_us();
                let (first, second) = tokio::join!(self.ground.act(one), self.ground.act(other));
                self.ended(one, at_us, &first);
                self.ended(other, at_us, &second);
                match (first.0, second.0) {
                    (Acted::Done, _) | (_, Acted::Done) => Ok(()),
                    (one, other) => Err(format!("neither was done: {one:?}, {other:?}")),
                }
            }
        }
    }

    async fn act(&mut self, act: &Act) -> Acted {
        let kind = match act {
            Act::Promote(_) | Act::Switchover(_) | Act::Rejoin(_) => MarkKind::Command,
            Act::Start(_) | Act::Resume(_) | Act::Heal => MarkKind::Mended,
            _ => MarkKind::Fault,
        };
        self.mark(kind, act.to_string());
        let at_us = self.client.now_us();
        let acted = self.ground.act(act).await;
        self.ended(act, at_us, &acted);
        acted.0
    }

    fn ended(&mut self, act: &Act, at_us: u64, (acted, printed): &(Acted, Option<String>)) {
        let done = *acted == Acted::Done;
        self.promoted |= done && matches!(act, Act::Promote(_));
        self.rejoined |= done && matches!(act, Act::Rejoin(_));
        let Some(printed) = printed else { return };
        let took_ms = (self.client.now_us() - at_us) / 1_000;
        let ended = match acted {
            Acted::Done => "done",
            Acted::Refused(_) => "refused",
            Acted::Failed(_) => "failed",
        };
        self.mark(MarkKind::Seen, format!("{act}: {ended}"));
        self.commands.push(CommandRecord {
            at_us,
            took_ms,
            command: act.to_string(),
            ended: ended.to_owned(),
            printed: printed.clone(),
        });
    }

    /// Until each of the regions has acknowledged a write that was asked since.
    async fn writes(&mut self, regions: &[Region]) -> Result<(), String> {
        let since_us = self.client.now_us();
        let missing = || {
            let done = |region: &&Region| {
                self.workload.acknowledged_us(region).is_none_or(|at_us| at_us < since_us)
            };
            regions.iter().filter(done).map(ToString::to_string).collect::<Vec<_>>()
        };
        while !missing().is_empty() {
            if self.client.now_us() > since_us + micros(WRITES_PATIENCE) {
                let where_not = missing().join(", ");
                return Err(format!(
                    "no write goes through in {where_not} within {WRITES_PATIENCE:?}"
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
        let everywhere: Vec<_> = regions.iter().map(ToString::to_string).collect();
        self.mark(MarkKind::Seen, format!("writes go through in {}", everywhere.join(", ")));
        Ok(())
    }
}

/// The seed of a round: the drill's own for the first, so that one round can be repeated by itself.
#[must_use]
pub fn seed_of(seed: u64, number: u32) -> u64 {
    seed.wrapping_add(u64::from(number.saturating_sub(1)))
}

/// The faults of all rounds: the one that was named, or those that are possible, each once before
/// one comes again, in the seed's order.
#[must_use]
pub fn faults(named: Option<Fault>, possible: &[Fault], rounds: u32, seed: u64) -> Vec<Fault> {
    let rng = SeededRng::new(seed);
    let mut left: Vec<Fault> = Vec::new();
    let next = |_| {
        if let Some(fault) = named {
            return fault;
        }
        if left.is_empty() {
            left = possible.to_vec();
        }
        let bound = left.len().max(1) as u64;
        let mut bytes = [0; 8];
        rng.fill(&mut bytes);
        let which = usize::try_from(u64::from_le_bytes(bytes) % bound).unwrap_or(0);
        left.swap_remove(which)
    };
    (0..rounds).map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_comes_before_one_comes_again_and_a_seed_always_gives_the_same() {
        let suite = Fault::suite();
        let rounds = u32::try_from(suite.len()).unwrap();
        let mut all = faults(None, suite, rounds, 4);
        assert_eq!(all, faults(None, suite, rounds, 4));
        assert_ne!(all, faults(None, suite, rounds, 5));
        all.sort_unstable();
        assert_eq!(all, suite);
        assert_eq!(faults(Some(Fault::Delay), suite, 2, 4), [Fault::Delay, Fault::Delay]);
        assert_eq!(seed_of(7, 1), 7);
    }
}
