//! A region that is to follow the primary, and what both say of it.

use super::{
    execute::Stopped,
    observe::{Cluster, Failure, Sight, order},
};
use crate::{
    topology::{
        control::{Instance, Order, Outcome, Standby},
        probe::Asker,
    },
    vocab::{Op, Region},
};
use std::{fmt::Display, time::Duration};

/// Longest wait for an answer to an order that takes moments.
pub(super) const SOON: Duration = Duration::from_secs(10);
/// Longest wait for the primary to see it stream once it follows, or was rewound.
const COMES: Duration = Duration::from_secs(30);
/// Who catches up for so long streams.
const CATCHES_UP: Duration = Duration::from_secs(2);
/// Longest wait for it to stream once it follows.
const STREAMS: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between two looks for another primary.
const MOVED_EVERY: Duration = Duration::from_millis(500);
/// Longest for a process that has just been started to hear from the primary.
const HEARS: Duration = Duration::from_secs(5);

/// A region and the primary that it is to follow.
pub(super) struct Pair<'a> {
    cluster: &'a Cluster,
    /// As all was when it began.
    pub(super) sight: Sight,
    pub(super) own: Asker,
    pub(super) upstream: Asker,
    /// Longest work of a region's agent.
    pub(super) agent_max: Duration,
    pub(super) op: &'a Op,
}

/// Tries again until it is done.
///
/// # Errors
/// With the last reason, after `bound`.
pub(super) async fn until<T, E, F: Future<Output = Result<T, E>>>(
    op: &Op,
    bound: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E> {
    let give_up = op.clock.monotonic() + bound;
    loop {
        match attempt().await {
            Err(_) if op.clock.monotonic() < give_up => tokio::time::sleep(LOOK_EVERY).await,
            ended => return ended,
        }
    }
}

/// That something is not so within its bound.
pub(super) fn not_within(bound: Duration, why: impl Display) -> Stopped {
    Stopped::Failed(format!("not within {bound:?}: {why}"))
}

/// Whether a region streams from an instance, as that sees it.
pub(super) fn receives(primary: &Instance, region: &Region) -> bool {
    let this = |name: &str, state: &str| name == region.as_str() && state == "streaming";
    primary.standbys.iter().any(|standby| this(&standby.name, &standby.state))
}

pub(super) async fn look(asker: &Asker, op: &Op) -> Result<Instance, String> {
    match order(asker, Order::Look, SOON, op).await {
        Ok(Outcome::Instance(instance)) => Ok(*instance),
        Ok(other) => Err(format!("it answered {other:?}")),
        Err(failure) => Err(failure.to_string()),
    }
}

impl<'a> Pair<'a> {
    /// # Errors
    /// [`Stopped::Failed`] when the settings do not name them.
    pub(super) async fn of(
        cluster: &'a Cluster,
        region: &Region,
        primary: &Region,
        agent_max: Duration,
        op: &'a Op,
    ) -> Result<Self, Stopped> {
        let sight = cluster.observe(op).await;
        let asker = |at: &Region| {
            let asker = cluster.asker(&sight, at);
            asker.ok_or_else(|| Stopped::Failed(format!("{at} is not one of the regions")))
        };
        let (own, upstream) = (asker(region)?, asker(primary)?);
        Ok(Self { cluster, sight, own, upstream, agent_max, op })
    }

    pub(super) fn region(&self) -> &Region {
        self.own.region()
    }

    pub(super) fn primary(&self) -> &Region {
        self.upstream.region()
    }

    pub(super) async fn look(&self) -> Result<Instance, String> {
        look(&self.own, self.op).await
    }

    /// Gives the region an order that can take its agent long.
    pub(super) async fn order(&self, what: Order) -> Result<Outcome, Failure> {
        order(&self.own, what, self.agent_max, self.op).await
    }

    /// Gives an order that nobody carries out who takes himself for the primary. An old one that has just
    /// started may, until it has heard of the epoch after its own.
    pub(super) async fn leave(&self, what: &Order, patience: Duration) -> Result<(), Failure> {
        let give_up = self.op.clock.monotonic() + SOON;
        loop {
            match order(&self.own, what.clone(), patience, self.op).await {
                Err(Failure::Refused { .. }) if self.op.clock.monotonic() < give_up => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                done => return done.map(drop),
            }
        }
    }

    /// Copies the primary's database, and starts it.
    pub(super) async fn copy_anew(&self) -> Result<(), Failure> {
        let fresh = Order::Rebuild { region: self.primary().clone() };
        for what in [Order::Stop, fresh, Order::Start] {
            self.order(what).await?;
        }
        Ok(())
    }

    /// Does `work` with the primary for as long as it is one: with one of before it could not come to its
    /// end, or would have to be done again.
    ///
    /// # Errors
    /// Those of the work; [`Stopped::Refused`] once another region has begun an epoch.
    pub(super) async fn unless_it_moves<T>(
        &self,
        work: impl Future<Output = Result<T, Stopped>>,
    ) -> Result<T, Stopped> {
        let until_it_moves = async {
            loop {
                tokio::time::sleep(MOVED_EVERY).await;
                if let Some(why) = self.moved().await {
                    return why;
                }
            }
        };
        let done = tokio::select! {
            done = work => done?,
            why = until_it_moves => return Err(why),
        };
        self.moved().await.map_or(Ok(done), Err)
    }

    async fn moved(&self) -> Option<Stopped> {
        let reports = self.cluster.report(&self.sight).await;
        // What the region itself knows may be of a history that ended.
        let others = reports.iter().filter(|(at, _)| at != self.region());
        let told = others.flat_map(|(_, told)| told.iter().flat_map(|told| &told.epochs));
        let newest = told.max_by_key(|start| start.epoch);
        let other = newest.filter(|newest| newest.region != *self.primary())?;
        Some(Stopped::Refused(format!(
            "the primary has moved to {} meanwhile: run the same command again",
            other.region
        )))
    }

    /// Waits until the primary sees the region stream. `false` when it does not in time.
    pub(super) async fn comes(&self) -> bool {
        let region = self.region();
        let give_up = self.op.clock.monotonic() + COMES;
        let mut catches_up_since = None;
        loop {
            let now = self.op.clock.monotonic();
            let seen = look(&self.upstream, self.op).await;
            if seen.as_ref().is_ok_and(|found| receives(found, region)) {
                return true;
            }
            // Who asks for log that is gone seems to catch up for a moment.
            let this = |one: &Standby| one.name == region.as_str() && one.follows();
            if !seen.is_ok_and(|found| found.standbys.iter().any(this)) {
                catches_up_since = None;
            } else if now.saturating_duration_since(*catches_up_since.get_or_insert(now))
                > CATCHES_UP
            {
                return true;
            }
            if now > give_up {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Refuses to stop a database that could not be given the primary's log then.
    pub(super) async fn hears(&self) -> Result<(), Stopped> {
        let (region, primary) = (self.region(), self.primary());
        let heard = || async {
            let reports = self.cluster.report(&self.sight).await;
            let own = reports.iter().find(|(at, _)| at == region).map(|(_, told)| told);
            match own {
                Some(Ok(own)) if own.peers.get(primary).is_some_and(|peer| peer.reachable) => {
                    Ok(())
                }
                _ => Err(()),
            }
        };
        until(self.op, HEARS, heard).await.map_err(|()| {
            Stopped::Refused(format!(
                "{region} does not hear from {primary}, whose log it needs: mend the link first"
            ))
        })
    }

    /// Waits until the region receives the primary's log, as it says itself.
    pub(super) async fn follows(&self) -> Result<(), Stopped> {
        let primary = Some(self.primary());
        let receiving = || async {
            match self.look().await {
                Ok(found) if found.receiving && found.follows.as_ref() == primary => Ok(()),
                Ok(_) => Err("it does not stream".to_owned()),
                Err(why) => Err(why),
            }
        };
        let followed = until(self.op, STREAMS, receiving).await;
        followed.map_err(|why| {
            Stopped::Failed(format!("{} not within {STREAMS:?}: {why}", self.region()))
        })
    }
}
