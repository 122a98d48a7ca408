//! The primary's side of the lease: one loop per region that asks it for its grant, again and again.

use super::{Grantor, Verdict};
use crate::{
    config::LeaseConfig,
    loops::{Activator, Loop, Schedule, Tick},
    storage::redis::{Redis, lease as notes},
    telemetry::metrics::{LeaseAnswer, LeaseMetrics},
    topology::{
        Snapshot, Topology,
        ask::{Answer, Question},
        probe::Asker,
    },
    vocab::{Epoch, Op, Region},
};
use std::time::Duration;

/// From a refusal to the next request.
const AGAIN: Duration = Duration::from_millis(50);

/// Who grants: this region itself, or another.
#[derive(Clone)]
pub enum Granting {
    Own(Grantor),
    Peer(Asker),
}

pub struct RenewalLoop {
    grants: Region,
    region: Region,
    granting: Granting,
    topology: Topology,
    redis: Redis,
    config: LeaseConfig,
    metrics: LeaseMetrics,
    again: Activator,
}

impl RenewalLoop {
    /// Asks the region `grants`, for the epoch of this one. `again` wakes this very loop.
    #[must_use]
    pub fn new(
        grants: Region,
        granting: Granting,
        topology: Topology,
        redis: Redis,
        config: LeaseConfig,
        metrics: LeaseMetrics,
        again: Activator,
    ) -> Self {
        let region = topology.look(|snapshot| snapshot.region.clone());
        Self { grants, region, granting, topology, redis, config, metrics, again }
    }

    #[must_use]
    pub fn schedule(config: &LeaseConfig) -> Schedule {
        Schedule {
            interval: Duration::from_millis(config.renew_interval_ms),
            pass_max: Duration::from_millis(config.renew_interval_ms + 2 * config.renew_ms_max),
        }
    }

    async fn ask(&self, epoch: Epoch, op: &Op) -> Result<Verdict, String> {
        let term_ms = self.config.term_ms;
        let patience = Duration::from_millis(self.config.renew_ms_max);
        match &self.granting {
            Granting::Own(grantor) => {
                let grant = grantor.grant(epoch, &self.region, term_ms, op);
                grant.await.map_err(|error| error.to_string())
            }
            Granting::Peer(asker) => {
                let question = Question::Lease { epoch, region: self.region.clone(), term_ms };
                match asker.ask(question, patience, op).await {
                    Ok(Answer::Lease(verdict)) => Ok(verdict),
                    Ok(Answer::Failed { reason }) => Err(reason),
                    Ok(_) => Err("the answer is to another question".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            }
        }
    }
}

impl Loop for RenewalLoop {
    const NAME: &'static str = "topology.lease";

    async fn tick(&mut self, op: &Op) -> Tick {
        // Once this region is the primary it asks at once.
        let patience = Duration::from_millis(self.config.renew_interval_ms);
        let mut snapshots = self.topology.subscribe();
        let asks = |snapshot: &Snapshot| {
            // Nobody counts the grant of a region that is no member.
            let reign = snapshot.reign()?;
            snapshot.members().contains(&self.grants).then_some(reign)
        };
        let asking = snapshots.wait_for(|snapshot| asks(snapshot).is_some());
        let reign = match tokio::time::timeout(patience, asking).await {
            Ok(Ok(snapshot)) => asks(&snapshot),
            _ => None,
        };
        drop(snapshots);
        let Some(epoch) = reign else {
            self.again.activate();
            return Tick::Idle;
        };
        let sent_at = op.clock.monotonic();
        let verdict = match self.ask(epoch, op).await {
            Ok(verdict) => verdict,
            Err(reason) => {
                self.metrics.answered(LeaseAnswer::Failed);
                return Tick::Waiting(format!("{}: {reason}", self.grants).into());
            }
        };
        self.metrics.answered(verdict.label());
        if verdict != Verdict::Granted {
            // A new epoch's first grant must not wait for the next turn.
            tokio::time::sleep(AGAIN).await;
            self.again.activate();
            return Tick::Waiting(format!("{}: {verdict}", self.grants).into());
        }
        self.topology.granted(&self.grants, epoch, sent_at);
        let Some(until) = self.topology.lease_until(epoch) else { return Tick::Worked(1) };
        let left = until.saturating_duration_since(op.clock.monotonic());
        if !left.is_zero() {
            // A note that is missing makes others fence the database sooner, never later.
            let _ = notes::note_held(&self.redis, epoch, left, op).await;
        }
        Tick::Worked(1)
    }
}
