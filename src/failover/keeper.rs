//! The keeper: brings this region's instance to what the topology says it should be, and holds it
//! there, whoever began it and wherever they stopped.
//!
//! - A primary whose region no longer holds the lease, or whose epoch has ended, is fenced; one that
//!   holds it, with nothing promised after it, is not.
//! - A replica follows the primary of the highest epoch, unless a promotion is under way. One whose
//!   region was removed receives from nobody, once it has the row that says so.
//! - Every instance has a slot for each other member, kept back no further than that region needs, and
//!   none for a region that was removed, unless it is being added again.
//! - The primary's commits wait for whom the settings say.

use super::region::{Upstreams, standbys as told};
use crate::{
    config::{Config, Durability, broken::fencing_off},
    loops::{Loop, Schedule, Tick},
    storage::{
        control::{ControlError, DatabaseControl, InstanceRow, StandbyRow, any_of},
        redis::{Redis, lease as notes},
    },
    topology::{
        Own, PrimaryAt, Quarantine, Role, Snapshot, Topology,
        control::namesakes,
        lease::{Grantor, Record},
    },
    vocab::{Epoch, Lsn, Op, Platform, Region},
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
    /// Regions that are being added; `None` while that is not known.
    welcome: Option<BTreeSet<Region>>,
    /// Whether this region has promised no later epoch than the one it reigns in, by its own note: a
    /// fence is not one of a move.
    stays: bool,
    /// Whether a later epoch is about to begin. What is left undone for long is not about to.
    moving: bool,
    /// Whether the newest epoch has been known of for so long that who could hear of it has.
    settled: bool,
}

/// Time for a region that was removed to receive the row that says so.
const PARTING: Duration = Duration::from_secs(60);

/// A region that there is not.
const NOBODY: &str = "nobody";

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Deed {
    Fence,
    Unfence,
    Follow(Region),
    Leave,
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
    /// Since when no process of this region holds the lease of an epoch.
    unheld_since: Option<(Epoch, Instant)>,
    /// The newest epoch heard of, and when first.
    newest: Option<(Epoch, Instant)>,
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
            newest: None,
            twice: BTreeSet::new(),
        }
    }

    #[must_use]
    pub const fn schedule() -> Schedule {
        Schedule { interval: Duration::from_millis(500), pass_max: Duration::from_secs(20) }
    }

    async fn sight(&mut self, row: &InstanceRow, op: &Op) -> Sight {
        let snapshot = self.topology.look(Clone::clone);
        let held = match snapshot.reign() {
            Some(epoch) => self.is_held(epoch, op).await,
            None => None,
        };
        // A cluster that starts, or a new epoch, has yet to get its first grants.
        let now = op.clock.monotonic();
        let unheld = snapshot.reign().filter(|_| held == Some(false)).map(|epoch| (epoch, now));
        let since = self.unheld_since.filter(|(epoch, _)| Some(*epoch) == snapshot.reign());
        self.unheld_since = unheld.map(|unheld| since.unwrap_or(unheld));
        let long = self.unheld_since.is_some_and(|(_, since)| now >= since + self.term);
        let held = held.filter(|held| *held || long);
        let highest = snapshot.epoch_highest().map(|epoch| (epoch, now));
        self.newest = self.newest.filter(|(kept, _)| Some(*kept) == snapshot.epoch_highest());
        self.newest = self.newest.or(highest);
        let settled = self.newest.is_some_and(|(_, since)| now >= since + PARTING);
        let settings: Vec<Region> = snapshot.settings().iter().cloned().collect();
        // Who cannot tell takes nobody's slot.
        let welcome = match snapshot.epoch_highest() {
            Some(epoch) => self.grantor.welcomed(&settings, epoch, op).await.ok(),
            None => None,
        };
        let stays = match snapshot.reign() {
            Some(epoch) if held == Some(true) && (row.read_only || half(&snapshot, row, true)) => {
                self.stays(epoch, op).await
            }
            _ => false,
        };
        let moving = snapshot.moving().is_some() && snapshot.awaits_a_primary(now);
        let primary = self.topology.primary();
        Sight { snapshot, primary, held, welcome, stays, moving, settled }
    }

    /// Asked of the note itself, which another process of this region may have just written.
    async fn stays(&self, epoch: Epoch, op: &Op) -> bool {
        let looked = self.grantor.look(op).await;
        looked.is_ok_and(|(record, _)| stays(record.as_ref(), epoch))
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
            Deed::Leave => {
                self.control.detach().await?;
                tracing::info!("the database follows nobody: its region was removed");
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
}

/// With a platform the setting is in the catalog before every session goes by it: a fence, or its lifting, that
/// was broken off in between shows in what this process' own session has. Pure.
fn half(snapshot: &Snapshot, row: &InstanceRow, read_only: bool) -> bool {
    let own = snapshot.own.as_ref().map(|own| own.read_only);
    row.platform != Platform::Postgres && own == Some(read_only)
}

/// Whether the note tells of no promise past `epoch`. Without a note that is not known.
fn stays(note: Option<&Record>, epoch: Epoch) -> bool {
    let promised = |note: &Record| note.promise.as_ref().map(|promise| promise.epoch);
    note.is_some_and(|note| promised(note).is_none_or(|promised| promised <= epoch))
}

/// Whose slots an instance has, and how far each of those has come where that is known; and who has
/// none. Pure.
fn slots(
    sight: &Sight,
    upstreams: &Upstreams,
    reachable: impl Fn(&Region) -> bool,
) -> (Vec<(Region, Option<Lsn>)>, Vec<Region>) {
    let Sight { snapshot, welcome, settled, .. } = sight;
    let epoch = snapshot.own.as_ref().map(|own| own.epoch());
    let position = |region: &Region| snapshot.peers.get(region)?.report.as_ref()?.position;
    // A position of another epoch says nothing about this log.
    let come_to = |region: &Region| position(region).filter(|at| Some(at.epoch) == epoch);
    let members = snapshot.members();
    let (wanted, others): (Vec<&Region>, Vec<&Region>) = upstreams.regions().partition(|region| {
        members.contains(region) || welcome.as_ref().is_some_and(|them| them.contains(*region))
    });
    let parted = |region: &&Region| {
        let knows = position(region).is_some_and(|at| Some(at.epoch) == snapshot.epoch_highest());
        let receives = || {
            let report = snapshot.peers.get(*region).and_then(|peer| peer.report.as_ref());
            // An old primary follows nobody before it is brought back.
            reachable(region) && report.is_some_and(|told| told.role == Some(Role::Replica))
        };
        welcome.is_some() && (*settled || knows || !receives())
    };
    let wanted = wanted.into_iter().map(|at| (at.clone(), come_to(at).map(|at| at.lsn)));
    (wanted.collect(), others.into_iter().filter(parted).cloned().collect())
}

/// What an instance lacks to be what it should be. Pure.
fn deeds(
    sight: &Sight,
    row: &InstanceRow,
    upstreams: &Upstreams,
    durability: Durability,
) -> Vec<Deed> {
    let Sight { snapshot, primary, held, welcome, stays, moving, settled } = sight;
    let mut deeds = Vec::new();
    let half = |read_only| half(snapshot, row, read_only);
    if !row.in_recovery {
        let deposed = snapshot.apart() == Some(Quarantine::Deposed);
        if deposed || snapshot.is_removed() || (snapshot.reign().is_some() && *held == Some(false))
        {
            if (!row.read_only || half(false)) && !fencing_off() {
                deeds.push(Deed::Fence);
            }
        } else if (row.read_only || half(true))
            && snapshot.reign().is_some()
            && *held == Some(true)
            && *stays
        {
            deeds.push(Deed::Unfence);
        }
        if snapshot.reign().is_some() && !*moving {
            let wanted = match durability {
                Durability::Async => Vec::new(),
                Durability::Quorum => counted(&row.standbys, snapshot),
            };
            deeds.extend(waits(row, wanted));
        }
        return deeds;
    }
    // It means nothing before a promotion, and is in force from its first commit on then: to take up what
    // is set after it, Postgres takes as long as it likes.
    if !*moving && snapshot.own.is_some() {
        let members = snapshot.members();
        let wanted = match durability {
            Durability::Async => Vec::new(),
            Durability::Quorum => members.others(&snapshot.region).cloned().collect(),
        };
        deeds.extend(waits(row, wanted));
    }
    if leaves(snapshot, welcome.as_ref(), *settled) {
        // What a platform has it follow, a person takes away with the database.
        if !row.conninfo.is_empty() && row.platform == Platform::Postgres {
            deeds.push(Deed::Leave);
        }
    } else if let PrimaryAt::Peer(region, _) = primary
        && !*moving
        && snapshot.apart().is_none()
        // Else a person makes it anew, and asking each time would have its platform refuse everybody.
        && row.platform.comes_back()
        && upstreams.named(&row.conninfo).as_ref() != Some(region)
    {
        deeds.push(Deed::Follow(region.clone()));
    }
    deeds
}

/// What is to be set where commits wait for others than they are to.
fn waits(row: &InstanceRow, wanted: Vec<Region>) -> Option<Deed> {
    (any_of(&wanted) != row.waits_for).then_some(Deed::WaitFor(wanted))
}

/// Whether a replica is to receive from nobody: its region was removed, is not being added again, and
/// has on disk that it was, or was not able to get that.
fn leaves(snapshot: &Snapshot, welcome: Option<&BTreeSet<Region>>, settled: bool) -> bool {
    let own = snapshot.own.as_ref().map(Own::epoch);
    let is_welcome = welcome.is_none_or(|them| them.contains(&snapshot.region));
    snapshot.is_removed() && !is_welcome && (settled || own == snapshot.epoch_highest())
}

/// Whose copy counts: the other members'. Not one of two standbys that go by one name: either could be
/// no region's. With none left nobody's does, and no commit is acknowledged.
fn counted(standbys: &[StandbyRow], snapshot: &Snapshot) -> Vec<Region> {
    let twice = namesakes(&told(standbys.to_vec()));
    let members = snapshot.members();
    let others = || members.others(&snapshot.region);
    let counted: Vec<_> =
        others().filter(|region| !twice.contains(region.as_str())).cloned().collect();
    if counted.is_empty() && others().next().is_some() {
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
        let sight = self.sight(&row, op).await;
        self.tell(&row);
        let mut done = 0;
        for deed in deeds(&sight, &row, &self.upstreams, self.durability) {
            if let Err(error) = self.act(deed.clone()).await {
                return Tick::Waiting(format!("{deed:?}: {error}").into());
            }
            done += 1;
        }
        let reachable = |region: &Region| {
            sight.snapshot.peers.get(region).is_some_and(|peer| self.topology.reachable(peer))
        };
        let (wanted, dropped) = slots(&sight, &self.upstreams, reachable);
        match self.control.keep_slots(&wanted, &dropped).await {
            Ok(changed) if done + changed == 0 => Tick::Idle,
            Ok(changed) => Tick::Worked(done + changed),
            Err(error) => Tick::Waiting(format!("slots: {error}").into()),
        }
    }
}

#[cfg(test)]
mod tests;
