//! Automatic failover, off unless `failover.automatic` says so: when each of a majority of regions has
//! known no primary for `failover.after_ms`, the furthest replica's own region promotes it, by the same
//! plan as a person would.

use super::{
    execute::{Run, Stopped},
    observe::{Cluster, Sight},
    plan::{Move, plan},
};
use crate::{
    config::FailoverConfig,
    loops::{Loop, Schedule, Tick},
    topology::{PrimaryAt, Role, Topology, TopologyReport},
    vocab::{Op, Region},
};
use std::{sync::Arc, time::Duration};

pub struct AutomaticLoop {
    region: Region,
    topology: Topology,
    cluster: Arc<Cluster>,
    config: FailoverConfig,
    term: Duration,
}

impl AutomaticLoop {
    #[must_use]
    pub fn new(
        topology: Topology,
        cluster: Arc<Cluster>,
        config: FailoverConfig,
        term: Duration,
    ) -> Self {
        let region = topology.look(|snapshot| snapshot.region.clone());
        Self { region, topology, cluster, config, term }
    }

    #[must_use]
    pub const fn schedule() -> Schedule {
        Schedule { interval: Duration::from_secs(1), pass_max: Duration::from_secs(180) }
    }
}

/// The region that is to take over, when each of a majority has known of no primary for `after_ms`: the
/// furthest replica of the newest epoch, and of several the first by name, so that all who look choose
/// the same. Pure.
#[must_use]
pub fn successor(sight: &Sight, after_ms: u64) -> Option<Region> {
    let members = sight.members();
    let missing = sight.regions.iter().filter(|(_, seen)| {
        let long = |report: &TopologyReport| report.missed_ms >= Some(after_ms);
        seen.report.as_ref().is_ok_and(|report| report.primary.is_none() && long(report))
    });
    if !members.is_majority(missing.map(|(region, _)| region)) {
        return None;
    }
    let current = sight.current()?.epoch;
    let fit = sight.regions.iter().filter_map(|(region, seen)| {
        let instance = seen.instance.as_ref().ok()?;
        let fit = instance.role == Role::Replica && instance.epoch() == Some(current);
        (fit && members.contains(region)).then(|| (instance.reaches(), region))
    });
    // Of equals the last is taken: the first by name.
    let furthest = fit.rev().max_by_key(|(reaches, _)| *reaches);
    furthest.map(|(_, region)| region.clone())
}

impl FailoverConfig {
    /// Whether no primary has been known for long enough, and nobody is about to give one: who has begun to
    /// move it by hand is not overtaken. Pure.
    fn is_due(&self, missed: Duration, moving: bool) -> Result<(), &'static str> {
        if missed < Duration::from_millis(self.after_ms) {
            return Err("no primary is known; it may come back");
        }
        if moving { Err("a move is under way") } else { Ok(()) }
    }
}

impl Loop for AutomaticLoop {
    const NAME: &'static str = "failover.automatic";

    async fn tick(&mut self, op: &Op) -> Tick {
        let now = op.clock.monotonic();
        let known = matches!(self.topology.primary(), PrimaryAt::Here(_) | PrimaryAt::Peer(..));
        let Some(missed) = self.topology.note_missed(known) else { return Tick::Idle };
        let moving = self.topology.look(|snapshot| snapshot.awaits_a_primary(now));
        if let Err(why) = self.config.is_due(missed, moving) {
            return Tick::Waiting(why.into());
        }
        let sight = self.cluster.observe(op).await;
        let how = Move::Promote { accept_data_loss: self.config.accept_data_loss };
        let planner = |sight: &Sight| match successor(sight, self.config.after_ms) {
            Some(region) if region == self.region => {
                plan(sight, &self.region, how, self.config.durability)
            }
            Some(region) => Err(vec![format!("{region} is to take over")]),
            None => Err(vec!["no majority misses the primary".to_owned()]),
        };
        let planned = match planner(&sight) {
            Ok(planned) => planned,
            Err(reasons) => return Tick::Waiting(reasons.join("; ").into()),
        };
        tracing::warn!(epoch = planned.promise.epoch.get(), "taking over: the primary is gone");
        let agent_max = Duration::from_secs(self.config.agent_seconds_max);
        let run = Run::new(&self.cluster, &sight, &planned, agent_max, self.term, op);
        match run.carry_out(planner, |_| ()).await {
            Ok(report) => {
                tracing::warn!(took_ms = report.took_ms, "this region is the primary now");
                Tick::Worked(1)
            }
            Err(Stopped::Refused(why) | Stopped::Failed(why)) => {
                tracing::warn!(reason = %why, "could not take over");
                Tick::Waiting(why.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::plan::tests::all_well, *};

    #[test]
    fn a_move_by_hand_is_not_overtaken() {
        let config = FailoverConfig { after_ms: 3_000, ..FailoverConfig::default() };
        let (soon, late) = (Duration::from_millis(2_999), Duration::from_millis(3_000));
        assert!(config.is_due(soon, false).is_err());
        assert!(config.is_due(late, true).is_err());
        assert!(config.is_due(late, false).is_ok());
    }

    const AFTER_MS: u64 = 3_000;

    fn missed_for(mut sight: Sight, region: &str, ms: Option<u64>) -> Sight {
        let report = sight.seen(region).report.as_mut().unwrap();
        (report.primary, report.missed_ms) = (None, ms);
        sight
    }

    fn without_a_primary(regions: &[&str]) -> Sight {
        let sight = all_well().gone("us-east-1");
        regions.iter().fold(sight, |sight, region| missed_for(sight, region, Some(AFTER_MS)))
    }

    fn chosen(sight: &Sight) -> Option<String> {
        successor(sight, AFTER_MS).map(|region| region.to_string())
    }

    #[test]
    fn nobody_takes_over_unless_a_majority_misses_the_primary() {
        assert_eq!(chosen(&all_well()), None);
        assert_eq!(chosen(&without_a_primary(&["eu-west-1"])), None);
        let both = without_a_primary(&["eu-west-1", "ap-south-1"]);
        assert_eq!(chosen(&both).as_deref(), Some("ap-south-1"));
        // Who has missed it for a moment only, or does not tell for how long, is none of them.
        for ms in [None, Some(AFTER_MS - 1)] {
            assert_eq!(chosen(&missed_for(both.clone(), "eu-west-1", ms)), None);
        }
    }

    #[test]
    fn the_furthest_takes_over() {
        let both = without_a_primary(&["eu-west-1", "ap-south-1"]);
        let further = both.clone().received("eu-west-1", 1_001);
        assert_eq!(chosen(&further).as_deref(), Some("eu-west-1"));
        // One whose database cannot be read is none to choose.
        let mut unread = further;
        unread.seen("eu-west-1").instance = Err("down".into());
        assert_eq!(chosen(&unread).as_deref(), Some("ap-south-1"));
    }
}
