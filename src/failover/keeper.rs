//! The keeper: brings this region's instance to what the topology says it should be, and holds it
//! there, whoever began it and wherever they stopped.
//!
//! - A primary whose region no longer holds the lease, or whose epoch has ended, is fenced; one that
//!   holds it, with nothing promised after it, is not.
//! - A replica follows the primary of the highest epoch, unless a promotion is under way.
//! - Every instance has a slot for each other region, kept back no further than that region needs.
//! - The primary's commits wait for whom the settings say.

use super::region::{Upstreams, standbys as told};
use crate::{
    config::{Config, Durability, broken::fencing_off},
    loops::{Loop, Schedule, Tick},
    storage::{
        control::{ControlError, DatabaseControl, InstanceRow, StandbyRow, any_of},
        redis::{Redis, lease as notes},
    },
    topology::{PrimaryAt, Quarantine, Snapshot, Topology, control::namesakes, lease::Grantor},
    vocab::{Epoch, Lsn, Op, Region},
};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// What is known when a pass begins.
#[derive(Debug, Clone)]
struct Sight {
    snapshot: Snapshot,
    primary: PrimaryAt,
    /// Whether some process of this region holds the lease, or none has for a whole term; `None` while
    /// that is not known.
    held: Option<bool>,
}

/// A region that there is not.
const NOBODY: &str = "nobody";

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Deed {
    Fence,
    Unfence,
    Follow(Region),
    WaitFor(Vec<Region>),
}

pub struct KeeperLoop {
    topology: Topology,
    control: Arc<dyn DatabaseControl>,
    grantor: Grantor,
    redis: Redis,
    upstreams: Upstreams,
    durability: Durability,
    term: Duration,
    /// Since when no process of this region holds the lease.
    unheld_since: Option<Instant>,
    /// Names that two standbys went by at the last look.
    twice: BTreeSet<String>,
}

impl KeeperLoop {
    #[must_use]
    pub fn new(
        config: &Config,
        topology: Topology,
        control: Arc<dyn DatabaseControl>,
        grantor: Grantor,
        redis: Redis,
    ) -> Self {
        Self {
            topology,
            control,
            grantor,
            redis,
            upstreams: Upstreams::new(config),
            durability: config.failover.durability,
            term: Duration::from_millis(config.lease.term_ms),
            unheld_since: None,
            twice: BTreeSet::new(),
        }
    }

    #[must_use]
    pub const fn schedule() -> Schedule {
        Schedule { interval: Duration::from_millis(500), pass_max: Duration::from_secs(20) }
    }

    async fn sight(&mut self, op: &Op) -> Sight {
        let snapshot = self.topology.look(Clone::clone);
        let held = match snapshot.reign() {
            Some(epoch) => self.is_held(epoch, op).await,
            None => None,
        };
        // A cluster that starts, or a new epoch, has yet to get its first grants.
        let now = op.clock.monotonic();
        self.unheld_since = self.unheld_since.or(Some(now)).filter(|_| held == Some(false));
        let long = self.unheld_since.is_some_and(|since| now >= since + self.term);
        let held = held.filter(|held| *held || long);
        Sight { snapshot, primary: self.topology.primary(), held }
    }

    /// A Redis that was restarted has lost its notes, and says nothing for a term.
    async fn is_held(&self, epoch: Epoch, op: &Op) -> Option<bool> {
        if notes::is_held(&self.redis, epoch, op).await.ok()? {
            return Some(true);
        }
        let (record, now_ms) = self.grantor.look(op).await.ok()?;
        record.is_some_and(|record| record.quiet_until_ms <= now_ms).then_some(false)
    }

    async fn act(&self, deed: Deed) -> Result<(), ControlError> {
        match deed {
            Deed::Fence => {
                self.control.fence(Duration::ZERO).await?;
                tracing::warn!("the database is fenced: this region does not hold the lease");
            }
            Deed::Unfence => {
                self.control.unfence().await?;
                tracing::info!("the database takes writes again: this region holds the lease");
            }
            Deed::Follow(region) => {
                self.control.follow(&self.upstreams.of(&region)?).await?;
                tracing::info!(primary = %region, "the database follows another primary");
            }
            Deed::WaitFor(regions) => self.control.wait_for(&regions).await?,
        }
        Ok(())
    }

    /// Tells the region's processes and operators who follows, and shouts once when two go by one
    /// name.
    fn tell(&mut self, row: &InstanceRow) {
        let standbys = told(row.standbys.clone());
        let mut twice = namesakes(&standbys);
        // Copies that are being made have one name too, and are nobody's standby.
        twice
            .retain(|name| self.upstreams.regions().any(|region| region.as_str() == name.as_str()));
        if !twice.is_subset(&self.twice) {
            let names: Vec<_> = twice.iter().map(String::as_str).collect();
            tracing::error!(
                names = names.join(", "),
                "two standbys go by one name: neither is counted on for a commit"
            );
        }
        self.twice = twice;
        self.topology.note_standbys(standbys);
    }

    /// How far each other region's database has come, where it is known.
    fn slots(&self, snapshot: &Snapshot) -> Vec<(Region, Option<Lsn>)> {
        let epoch = snapshot.own.as_ref().map(|own| own.epoch());
        let come_to = |region: &Region| {
            let report = snapshot.peers.get(region)?.report.as_ref()?;
            // A position of another epoch says nothing about this log.
            report.position.filter(|at| Some(at.epoch) == epoch).map(|at| at.lsn)
        };
        self.upstreams.regions().map(|region| (region.clone(), come_to(region))).collect()
    }
}

/// What an instance lacks to be what it should be. Pure.
fn deeds(
    sight: &Sight,
    row: &InstanceRow,
    upstreams: &Upstreams,
    durability: Durability,
) -> Vec<Deed> {
    let Sight { snapshot, primary, held } = sight;
    let mut deeds = Vec::new();
    if !row.in_recovery {
        let deposed = snapshot.quarantine() == Some(Quarantine::Deposed);
        if deposed || (snapshot.reign().is_some() && *held == Some(false)) {
            if !row.read_only && !fencing_off() {
                deeds.push(Deed::Fence);
            }
        } else if row.read_only
            && snapshot.reign().is_some()
            && *held == Some(true)
            && snapshot.moving().is_none()
        {
            deeds.push(Deed::Unfence);
        }
        if snapshot.reign().is_some() && snapshot.moving().is_none() {
            let wanted = match durability {
                Durability::Async => Vec::new(),
                Durability::Quorum => counted(&row.standbys, upstreams),
            };
            if any_of(&wanted) != row.waits_for {
                deeds.push(Deed::WaitFor(wanted));
            }
        }
    } else if let PrimaryAt::Peer(region, _) = primary
        && snapshot.moving().is_none()
        && snapshot.quarantine().is_none()
        && upstreams.named(&row.conninfo).as_ref() != Some(region)
    {
        deeds.push(Deed::Follow(region.clone()));
    }
    deeds
}

/// Whose copy counts. Not one of two standbys that go by one name: either could be no region's. With
/// none left nobody's does, and no commit is acknowledged.
fn counted(standbys: &[StandbyRow], upstreams: &Upstreams) -> Vec<Region> {
    let twice = namesakes(&told(standbys.to_vec()));
    let counted: Vec<_> =
        upstreams.regions().filter(|region| !twice.contains(region.as_str())).cloned().collect();
    if counted.is_empty() && upstreams.regions().next().is_some() {
        return vec![NOBODY.parse().expect("a region's name")];
    }
    counted
}

impl Loop for KeeperLoop {
    const NAME: &'static str = "failover.keeper";

    async fn tick(&mut self, op: &Op) -> Tick {
        let row = match self.control.look().await {
            Ok(row) => row,
            Err(error) => return Tick::Waiting(error.to_string().into()),
        };
        let sight = self.sight(op).await;
        self.tell(&row);
        let mut done = 0;
        for deed in deeds(&sight, &row, &self.upstreams, self.durability) {
            if let Err(error) = self.act(deed.clone()).await {
                return Tick::Waiting(format!("{deed:?}: {error}").into());
            }
            done += 1;
        }
        match self.control.keep_slots(&self.slots(&sight.snapshot)).await {
            Ok(changed) if done + changed == 0 => Tick::Idle,
            Ok(changed) => Tick::Worked(done + changed),
            Err(error) => Tick::Waiting(format!("slots: {error}").into()),
        }
    }
}

#[cfg(test)]
mod tests;
