//! A region whose database has left the cluster's history, or stopped, comes back as a replica.

use super::{
    execute::Stopped,
    ledger::{self, Lost},
    observe::{Cluster, Failure, Sight, order},
};
use crate::{
    topology::{
        Role,
        control::{Instance, Order, Outcome},
        probe::Asker,
    },
    vocab::{Epoch, EpochStart, Op, Region},
};
use std::{collections::BTreeSet, time::Duration};

/// Longest wait for an answer to an order that takes moments.
const SOON: Duration = Duration::from_secs(10);
/// Longest wait for it to stream once it follows.
const STREAMS: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How a region came back.
#[derive(Debug)]
pub struct Back {
    pub told: String,
    /// What it alone had committed, noted on the new primary. `None` when there was no journal to be
    /// read: it had not diverged, or its Postgres is down.
    pub lost: Option<Vec<Lost>>,
}

/// What is done with what a region alone has.
pub struct Keeping<F> {
    /// Is given the newest epoch that it had gone on in, and what it wrote, before anything is done that
    /// could lose it.
    pub list: F,
    /// Go on where its Postgres does not start, so that nothing can be listed.
    pub unlisted: bool,
}

/// What an instance needs to be a replica of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It streams from it.
    Follows,
    /// It is a standby of its history, that has only to be told.
    Strayed,
    /// It went on where its epoch had ended: it must go back.
    Diverged,
}

/// How an instance stands to the primary of `epochs`. Pure.
#[must_use]
pub fn standing(instance: &Instance, primary: &Region, epochs: &[EpochStart]) -> Standing {
    let own = instance.epoch();
    let next = epochs.iter().filter(|start| Some(start.epoch) > own).min_by_key(|s| s.epoch);
    let past = next.is_some_and(|next| instance.reaches() > next.start_lsn);
    // A primary goes on by itself even when fenced: its log has left the others' in any case.
    if instance.role == Role::Primary || past {
        return Standing::Diverged;
    }
    if instance.follows.as_ref() == Some(primary) && instance.receiving {
        Standing::Follows
    } else {
        Standing::Strayed
    }
}

/// A region's Postgres, as a rejoin finds it.
enum Found {
    Runs(Box<Instance>),
    /// Its data is half rewound, which nobody does who has not listed what it had.
    HalfRewound,
    /// It neither runs nor starts, and why.
    Down(String),
}

/// The epochs in which an instance may have committed what the primary, of `epochs`, has not got: the
/// newest that both began alike, which one may have left later than the other, and all that it alone
/// has. Oldest first. Pure.
#[must_use]
pub fn astray(own: &[EpochStart], epochs: &[EpochStart]) -> Vec<Epoch> {
    let same = |start: &EpochStart| {
        let alike = |other: &EpochStart| {
            (other.epoch, other.start_lsn, &other.region)
                == (start.epoch, start.start_lsn, &start.region)
        };
        epochs.iter().any(alike)
    };
    let shared = own.iter().filter(|start| same(start)).map(|start| start.epoch).max();
    let mut astray: Vec<Epoch> =
        own.iter().map(|start| start.epoch).filter(|epoch| Some(*epoch) >= shared).collect();
    astray.sort_unstable();
    astray
}

/// Whether a region may have acknowledged something that is its own: it began an epoch of `epochs`, or one
/// began that left no trace there. Pure.
#[must_use]
pub fn reigned(region: &Region, epochs: &[EpochStart]) -> bool {
    let newest = epochs.iter().map(|start| start.epoch).max().map_or(0, Epoch::get);
    let known: BTreeSet<u32> = epochs.iter().map(|start| start.epoch.get()).collect();
    epochs.iter().any(|start| start.region == *region)
        || (1..newest).any(|epoch| !known.contains(&epoch))
}

/// Every epoch that has ended, whether or not it left a trace. Oldest first. Pure.
#[must_use]
pub fn ended(epochs: &[EpochStart]) -> Vec<Epoch> {
    let newest = epochs.iter().map(|start| start.epoch).max().map_or(0, Epoch::get);
    (1..newest).filter_map(Epoch::new).collect()
}

pub(super) async fn look(asker: &Asker, op: &Op) -> Result<Instance, String> {
    match order(asker, Order::Look, SOON, op).await {
        Ok(Outcome::Instance(instance)) => Ok(*instance),
        Ok(other) => Err(format!("it answered {other:?}")),
        Err(failure) => Err(failure.to_string()),
    }
}

/// Brings `region` back as a replica of `primary`, from wherever a run before has left it.
///
/// # Errors
/// See [`Stopped`].
pub async fn go_back(
    cluster: &Cluster,
    region: &Region,
    primary: &Region,
    agent_max: Duration,
    op: &Op,
    keeping: Keeping<impl FnOnce(Epoch, &[Lost]) -> Result<(), Stopped>>,
) -> Result<Back, Stopped> {
    let sight: Sight = cluster.observe(op).await;
    let epochs = sight.epochs_of(primary);
    let Some(asker) = cluster.asker(&sight, region) else {
        return Err(Stopped::Failed(format!("{region} is not one of the regions")));
    };
    let found = find(&asker, agent_max, op).await?;
    let stands = match &found {
        Found::Runs(instance) => {
            same_database(instance, &sight, region, primary)?;
            standing(instance, primary, &epochs)
        }
        Found::HalfRewound | Found::Down(_) => Standing::Diverged,
    };
    let mut lost = None;
    let told = match stands {
        Standing::Follows => "it follows already".to_owned(),
        Standing::Strayed => {
            let follow = Order::Follow { region: primary.clone(), promise: None };
            leave(&asker, &follow, SOON, op).await?;
            "it follows again".to_owned()
        }
        Standing::Diverged => {
            let unread = ". Its journal could not be read: what it alone had is listed nowhere";
            let unread = match &found {
                Found::Runs(instance) => {
                    let astray = astray(&instance.epochs, &epochs);
                    match all_lost(cluster, &sight, &asker, primary, &astray, op).await {
                        Ok(all) => {
                            let newest = astray.last().copied().unwrap_or(Epoch::FIRST);
                            (keeping.list)(newest, &all)?;
                            lost = Some(all);
                            ""
                        }
                        Err(_) if keeping.unlisted => unread,
                        Err(why) => return Err(why),
                    }
                }
                Found::HalfRewound => ", as a run before has left it",
                Found::Down(_) if keeping.unlisted || !reigned(region, &epochs) => unread,
                Found::Down(why) => {
                    return Err(Stopped::Refused(format!(
                        "{region} may have been a primary, and what it alone acknowledged cannot be \
                         listed: {why}. Mend it until it starts; --accept-data-loss goes on without \
                         the list"
                    )));
                }
            };
            leave(&asker, &Order::Stop, agent_max, op).await?;
            let kept = match order(&asker, Order::Keep, agent_max, op).await? {
                Outcome::Kept { place } => place,
                other => return Err(Stopped::Failed(format!("{region} answered {other:?}"))),
            };
            let back = Order::Rewind { region: primary.clone() };
            let how = match order(&asker, back, agent_max, op).await {
                Ok(_) => "rewound",
                Err(why) => {
                    let fresh = Order::Rebuild { region: primary.clone() };
                    order(&asker, fresh, agent_max, op).await.map_err(|error| {
                        Stopped::Failed(format!("neither rewound ({why}) nor copied ({error})"))
                    })?;
                    "copied anew"
                }
            };
            order(&asker, Order::Start, agent_max, op).await?;
            format!("{how}; what it had is kept in {kept}{unread}")
        }
    };
    streams(&asker, primary, op).await?;
    Ok(Back { told, lost })
}

/// Finds out how a region's Postgres is, and starts one that was stopped by a run before, or by nobody.
///
/// # Errors
/// [`Stopped::Failed`] for one that runs and cannot be looked at, which must not be taken for down.
async fn find(asker: &Asker, agent_max: Duration, op: &Op) -> Result<Found, Stopped> {
    let why = match look(asker, op).await {
        Ok(instance) => return Ok(Found::Runs(Box::new(instance))),
        Err(why) => why,
    };
    match order(asker, Order::Start, agent_max, op).await {
        Ok(_) => {}
        Err(Failure::Refused { .. }) => return Ok(Found::HalfRewound),
        Err(Failure::Failed { reason, .. }) => {
            return Ok(Found::Down(format!("its Postgres cannot be started: {reason}")));
        }
    }
    // Its process has to connect to it anew.
    let give_up = op.clock.monotonic() + SOON;
    loop {
        match look(asker, op).await {
            Ok(instance) => return Ok(Found::Runs(Box::new(instance))),
            Err(_) if op.clock.monotonic() < give_up => tokio::time::sleep(LOOK_EVERY).await,
            Err(_) => {
                let region = asker.region();
                let why = format!("{region}: its Postgres runs and cannot be looked at: {why}");
                return Err(Stopped::Failed(why));
            }
        }
    }
}

/// Gives an order that nobody carries out who takes himself for the primary. An old one that has just
/// started may, until it has heard of the epoch after its own.
async fn leave(asker: &Asker, what: &Order, patience: Duration, op: &Op) -> Result<(), Failure> {
    let give_up = op.clock.monotonic() + SOON;
    loop {
        match order(asker, what.clone(), patience, op).await {
            Err(Failure::Refused { .. }) if op.clock.monotonic() < give_up => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            done => return done.map(drop),
        }
    }
}

/// Refuses to touch what is no copy of the primary's database, or cannot be told to be one.
fn same_database(
    own: &Instance,
    sight: &Sight,
    region: &Region,
    primary: &Region,
) -> Result<(), Stopped> {
    let upstream = sight.regions.get(primary).map(|seen| seen.instance.as_ref());
    match upstream {
        Some(Ok(upstream)) if upstream.system == own.system => Ok(()),
        Some(Ok(upstream)) => Err(Stopped::Refused(format!(
            "{region} has another database, {}, which is no copy of {primary}'s, {}: nothing is done \
             to it",
            own.system, upstream.system
        ))),
        Some(Err(why)) => Err(Stopped::Failed(format!("{primary} cannot be looked at: {why}"))),
        None => Err(Stopped::Failed(format!("{primary} is not one of the regions"))),
    }
}

/// What the region alone has of these epochs, in their order.
async fn all_lost(
    cluster: &Cluster,
    sight: &Sight,
    old: &Asker,
    primary: &Region,
    epochs: &[Epoch],
    op: &Op,
) -> Result<Vec<Lost>, Stopped> {
    let mut all = Vec::new();
    for epoch in epochs {
        all.extend(lost_writes(cluster, sight, old, primary, *epoch, op).await?);
    }
    Ok(all)
}

/// What the region committed in `epoch` and the primary has not got.
async fn lost_writes(
    cluster: &Cluster,
    sight: &Sight,
    old: &Asker,
    primary: &Region,
    epoch: Epoch,
    op: &Op,
) -> Result<Vec<Lost>, Stopped> {
    let new = cluster.asker(sight, primary);
    let new = new.ok_or_else(|| Stopped::Failed(format!("{primary} is not one of the regions")))?;
    let give_up = op.clock.monotonic() + SOON;
    loop {
        match ledger::collect(old, &new, epoch, op).await {
            Ok(found) => return Ok(found),
            Err(error) if op.clock.monotonic() > give_up => {
                let old = old.region();
                let why = format!("what {old} alone has cannot be listed: {error}");
                return Err(Stopped::Failed(why));
            }
            // The fence of one that has just been started ends its sessions, this one too; and a new
            // primary can be without its lease for a moment.
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

pub(super) async fn streams(asker: &Asker, primary: &Region, op: &Op) -> Result<(), Stopped> {
    let give_up = op.clock.monotonic() + STREAMS;
    loop {
        let last = match look(asker, op).await {
            Ok(found) if found.receiving && found.follows.as_ref() == Some(primary) => {
                return Ok(());
            }
            Ok(_) => "it does not stream".to_owned(),
            Err(why) => why,
        };
        if op.clock.monotonic() > give_up {
            let region = asker.region();
            return Err(Stopped::Failed(format!("{region} not within {STREAMS:?}: {last}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::Lsn;

    fn starts(told: &[(u32, u64, &str)]) -> Vec<EpochStart> {
        let start = |(epoch, lsn, region): &(u32, u64, &str)| EpochStart {
            epoch: Epoch::new(*epoch).unwrap(),
            start_lsn: Lsn::new(*lsn),
            region: format!("region-{region}").parse().unwrap(),
            members: None,
        };
        told.iter().map(start).collect()
    }

    fn between(own: &[(u32, u64, &str)], primary: &[(u32, u64, &str)]) -> Vec<u32> {
        astray(&starts(own), &starts(primary)).into_iter().map(Epoch::get).collect()
    }

    #[test]
    fn a_region_may_have_reigned_that_began_an_epoch_or_where_one_left_no_trace() {
        let whole = starts(&[(1, 0, "a"), (2, 50, "b"), (3, 70, "a")]);
        let gap = starts(&[(1, 0, "a"), (3, 70, "a")]);
        let may = |region: &str, epochs: &[EpochStart]| {
            reigned(&format!("region-{region}").parse().unwrap(), epochs)
        };
        assert!(may("a", &whole) && may("b", &whole) && !may("c", &whole));
        assert!(may("c", &gap));
        let ended = |epochs| ended(epochs).into_iter().map(Epoch::get).collect::<Vec<_>>();
        assert_eq!((ended(&whole), ended(&gap)), (vec![1, 2], vec![1, 2]));
    }

    #[test]
    fn what_both_began_alike_and_all_after_it_may_have_been_lost() {
        let (first, second) = ((1, 0, "a"), (2, 50, "b"));
        assert_eq!(between(&[first], &[first, second]), [1]);
        // It began another itself, which nobody has received.
        assert_eq!(between(&[first, (2, 50, "a")], &[first, (3, 40, "b")]), [1, 2]);
        // The epochs before are whole.
        assert_eq!(between(&[first, second, (3, 70, "a")], &[first, second, (4, 60, "b")]), [2, 3]);
        // The same number is not the same epoch.
        assert_eq!(between(&[first, (2, 40, "a")], &[first, second]), [1, 2]);
        assert_eq!(between(&[], &[first]), [0_u32; 0]);
    }
}
