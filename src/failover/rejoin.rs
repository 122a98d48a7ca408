//! A region whose database has left the cluster's history, or stopped, comes back as a replica.

use super::{
    execute::Stopped,
    ledger::{self, Lost},
    observe::{Cluster, Sight, order},
};
use crate::{
    topology::{
        Role,
        control::{Instance, Order, Outcome},
        probe::Asker,
    },
    vocab::{Epoch, EpochStart, Op, Region},
};
use std::time::Duration;

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

/// What a region needs to be a replica of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It streams from it.
    Follows,
    /// It is a standby of its history, that has only to be told.
    Strayed,
    /// It went on where its epoch had ended: it must go back.
    Diverged,
    /// Its Postgres does not answer.
    Down,
}

/// How an instance stands to the primary of `epochs`. Pure.
#[must_use]
pub fn standing(
    instance: Result<&Instance, &str>,
    primary: &Region,
    epochs: &[EpochStart],
) -> Standing {
    let Ok(instance) = instance else { return Standing::Down };
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

/// The ended epochs of a region whose lost writes the primary, of `epochs`, may have noted: its own, and
/// those that left no trace. Oldest first. Pure.
#[must_use]
pub fn ended_of(region: &Region, epochs: &[EpochStart]) -> Vec<Epoch> {
    let newest = epochs.iter().map(|start| start.epoch).max().map_or(0, Epoch::get);
    let others =
        |epoch: &Epoch| epochs.iter().any(|start| start.epoch == *epoch && start.region != *region);
    (1..newest).filter_map(Epoch::new).filter(|epoch| !others(epoch)).collect()
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
    let mut found = look(&asker, op).await;
    if let Err(why) = &found {
        // Stopped by a run before, or by nobody. One that was being rewound refuses to start; one
        // that runs and cannot be looked at must not be taken for it.
        let why = format!("{region}: its Postgres runs and cannot be looked at: {why}");
        if order(&asker, Order::Start, agent_max, op).await.is_ok() {
            // Its process has to connect to it anew.
            let give_up = op.clock.monotonic() + SOON;
            found = look(&asker, op).await;
            while found.is_err() && op.clock.monotonic() < give_up {
                tokio::time::sleep(LOOK_EVERY).await;
                found = look(&asker, op).await;
            }
            if found.is_err() {
                return Err(Stopped::Failed(why));
            }
        }
    }
    let upstream = sight.regions.get(primary).map(|seen| &seen.instance);
    if let (Ok(own), Some(Ok(upstream))) = (&found, upstream)
        && own.system != upstream.system
    {
        return Err(Stopped::Refused(format!(
            "{region} has another database, {}, which is no copy of {primary}'s, {}: nothing is done \
             to it",
            own.system, upstream.system
        )));
    }
    let mut lost = None;
    let stands = standing(found.as_ref().map_err(String::as_str), primary, &epochs);
    let told = match stands {
        Standing::Follows => "it follows already".to_owned(),
        Standing::Strayed => {
            let follow = Order::Follow { region: primary.clone(), promise: None };
            order(&asker, follow, SOON, op).await?;
            "it follows again".to_owned()
        }
        Standing::Diverged | Standing::Down => {
            if let Ok(instance) = &found {
                let (astray, mut all) = (astray(&instance.epochs, &epochs), Vec::new());
                for epoch in &astray {
                    all.extend(lost_writes(cluster, &sight, &asker, primary, *epoch, op).await?);
                }
                if let Some(newest) = astray.last() {
                    (keeping.list)(*newest, &all)?;
                    lost = Some(all);
                }
            } else if !keeping.unlisted && reigned(&sight, region) {
                return Err(Stopped::Refused(format!(
                    "{region}, a primary once, has a Postgres that does not start: what it alone \
                     acknowledged cannot be listed. Mend it until it starts; --accept-data-loss goes \
                     on without the list"
                )));
            }
            order(&asker, Order::Stop, agent_max, op).await?;
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
            let unread = match lost {
                Some(_) => "",
                None => ". Its journal could not be read: what it alone had is listed nowhere",
            };
            format!("{how}; what it had is kept in {kept}{unread}")
        }
    };
    streams(&asker, primary, op).await?;
    Ok(Back { told, lost })
}

/// Whether a region is known to have been the primary: no other has acknowledged anything that is its
/// own.
fn reigned(sight: &Sight, region: &Region) -> bool {
    let mut told = sight.regions.keys().flat_map(|at| sight.epochs_of(at));
    told.any(|start| start.region == *region)
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
    fn what_a_region_lost_is_of_its_own_epochs_and_of_those_that_nobody_else_had() {
        let epochs = starts(&[(1, 0, "a"), (2, 50, "b"), (4, 70, "a"), (5, 80, "b")]);
        let of = |region: &str| {
            let region = format!("region-{region}").parse().unwrap();
            ended_of(&region, &epochs).into_iter().map(Epoch::get).collect::<Vec<_>>()
        };
        assert_eq!((of("a"), of("b"), of("c")), (vec![1, 3, 4], vec![2, 3], vec![3]));
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
