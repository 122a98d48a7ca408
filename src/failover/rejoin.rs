//! A region whose database has left the cluster's history, or stopped, comes back as a replica.

use super::{
    execute::Stopped,
    ledger::{self, Lost},
    observe::{Cluster, Failure},
    pair::{Pair, SOON, until},
};
use crate::{
    topology::{
        Role,
        control::{Instance, Order, Outcome},
    },
    vocab::{Epoch, EpochStart, Op, Platform, Region},
};
use std::{collections::BTreeSet, time::Duration};

/// How a region came back.
#[derive(Debug)]
pub struct Back {
    pub told: String,
    /// What it alone had committed, noted on the new primary. `None` when there was no journal to be
    /// read: it had not diverged, or its Postgres is down.
    pub lost: Option<Vec<Lost>>,
}

/// What is done with what a region alone has.
pub struct Keeping<'a, F> {
    /// Is told what is done next.
    pub tell: &'a (dyn Fn(&str) + Sync),
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
    if instance.role == Role::Primary || past || is_foreign(&instance.epochs, epochs) {
        return Standing::Diverged;
    }
    if instance.follows.as_ref() == Some(primary) && instance.receiving {
        Standing::Follows
    } else {
        Standing::Strayed
    }
}

fn alike(one: &EpochStart, other: &EpochStart) -> bool {
    (one.epoch, one.start_lsn, &one.region) == (other.epoch, other.start_lsn, &other.region)
}

/// Whether there is an epoch in `own` that the primary, of `epochs`, does not know: it left no trace there.
/// Pure.
fn is_foreign(own: &[EpochStart], epochs: &[EpochStart]) -> bool {
    own.iter().any(|own| !epochs.iter().any(|known| alike(own, known)))
}

/// Whether it is its platform that makes it a replica again. What such a one goes by at its primary, and how far
/// it is, tells nothing: it may have received of the epoch what comes before its row. Pure.
fn is_platforms(instance: &Instance, epochs: &[EpochStart]) -> bool {
    instance.platform != Platform::Postgres
        && instance.role == Role::Replica
        && !is_foreign(&instance.epochs, epochs)
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
    let same = |start: &&EpochStart| epochs.iter().any(|known| alike(start, known));
    let shared = own.iter().filter(same).map(|start| start.epoch).max();
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
    keeping: Keeping<'_, impl FnOnce(Epoch, &[Lost]) -> Result<(), Stopped>>,
) -> Result<Back, Stopped> {
    let pair = Pair::of(cluster, region, primary, agent_max, op).await?;
    pair.unless_it_moves(going_back(&pair, keeping)).await
}

/// The same, with a primary that may move meanwhile.
///
/// # Errors
/// See [`Stopped`].
pub(super) async fn going_back(
    pair: &Pair<'_>,
    keeping: Keeping<'_, impl FnOnce(Epoch, &[Lost]) -> Result<(), Stopped>>,
) -> Result<Back, Stopped> {
    let (region, primary) = (pair.region(), pair.primary());
    let epochs = pair.sight.epochs_of(primary);
    (keeping.tell)("it is looked at, and started if it is down");
    let found = find(pair).await?;
    if let Found::Runs(instance) = &found
        && is_platforms(instance, &epochs)
    {
        same_database(instance, pair)?;
        if instance.follows.as_ref() != Some(primary) {
            pair.leave(&Order::Follow { region: primary.clone(), promise: None }, SOON).await?;
        }
        (keeping.tell)("its platform has it follow");
        pair.follows().await?;
        return Ok(Back { told: "its platform has it follow".to_owned(), lost: None });
    }
    let mut stands = match &found {
        Found::Runs(instance) => {
            same_database(instance, pair)?;
            standing(instance, primary, &epochs)
        }
        Found::HalfRewound | Found::Down(_) => Standing::Diverged,
    };
    if stands == Standing::Strayed {
        let follow = Order::Follow { region: primary.clone(), promise: None };
        pair.leave(&follow, SOON).await?;
        // Its log can have left the primary's in what no epoch tells: on a timeline of its own, it asks in
        // vain.
        if !pair.comes().await {
            (keeping.tell)("it asks for log in vain");
            stands = Standing::Diverged;
        }
    }
    let mut lost = None;
    let told = match stands {
        Standing::Follows => "it follows already".to_owned(),
        Standing::Strayed => "it follows again".to_owned(),
        Standing::Diverged => {
            let unread = ". Its journal could not be read: what it alone had is listed nowhere";
            let unread = match &found {
                Found::Runs(instance) => {
                    let astray = astray(&instance.epochs, &epochs);
                    match all_lost(pair, &astray).await {
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
                Found::HalfRewound => {
                    ", as a run before has left it, which listed what it alone had"
                }
                Found::Down(_) if keeping.unlisted || !reigned(region, &epochs) => unread,
                Found::Down(why) => {
                    return Err(Stopped::Refused(format!(
                        "{region} may have been a primary, and what it alone acknowledged cannot be \
                         listed: {why}. Mend it until it starts; --accept-data-loss goes on without \
                         the list"
                    )));
                }
            };
            pair.hears().await?;
            let (how, kept) = remade(pair, &epochs, keeping.tell).await?;
            format!("{how}; what it had is kept in {kept}{unread}")
        }
    };
    (keeping.tell)("it streams");
    pair.follows().await?;
    Ok(Back { told, lost })
}

/// Makes an instance one that follows the primary, of `epochs`: rewound, or copied anew. Gives how, and where
/// its log is kept.
async fn remade(
    pair: &Pair<'_>,
    epochs: &[EpochStart],
    tell: &(dyn Fn(&str) + Sync),
) -> Result<(&'static str, String), Stopped> {
    tell("its Postgres stops, and a copy of its log is kept");
    pair.leave(&Order::Stop, pair.agent_max).await?;
    let kept = match pair.order(Order::Keep).await? {
        Outcome::Kept { place } => place,
        other => return Err(Stopped::Failed(format!("{} answered {other:?}", pair.region()))),
    };
    let Err(why) = rewound(pair, epochs, tell).await else {
        return Ok(("rewound", kept));
    };
    tell("it cannot go back: it is copied anew");
    let copied = pair.copy_anew().await;
    copied.map_err(|error| {
        Stopped::Failed(format!("neither rewound ({why}) nor copied ({error})"))
    })?;
    Ok(("copied anew", kept))
}

/// Has a stopped instance rewound and started.
///
/// # Errors
/// Why it is no replica of the primary, of `epochs`, all the same. `pg_rewind` takes two instances that were
/// promoted from one timeline, each by itself, for one, and does nothing.
async fn rewound(
    pair: &Pair<'_>,
    epochs: &[EpochStart],
    tell: &(dyn Fn(&str) + Sync),
) -> Result<(), String> {
    let told = |failure: Failure| failure.to_string();
    tell("it goes back to where its epoch ended");
    let back = Order::Rewind { region: pair.primary().clone() };
    pair.order(back).await.map_err(told)?;
    tell("it starts");
    pair.order(Order::Start).await.map_err(told)?;
    if !pair.comes().await {
        return Err("it asks for log in vain".to_owned());
    }
    let foreign = is_foreign(&pair.look().await?.epochs, epochs);
    if foreign { Err("it still has an epoch that was lost".to_owned()) } else { Ok(()) }
}

/// Finds out how a region's Postgres is, and starts one that was stopped by a run before, or by nobody.
///
/// # Errors
/// [`Stopped::Failed`] for one that runs and cannot be looked at, which must not be taken for down.
async fn find(pair: &Pair<'_>) -> Result<Found, Stopped> {
    let why = match pair.look().await {
        Ok(instance) => return Ok(Found::Runs(Box::new(instance))),
        Err(why) => why,
    };
    match pair.order(Order::Start).await {
        Ok(_) => {}
        Err(Failure::Refused { .. }) => return Ok(Found::HalfRewound),
        Err(Failure::Failed { reason, .. }) => {
            return Ok(Found::Down(format!("its Postgres cannot be started: {reason}")));
        }
        // Of its Postgres nothing is known.
        Err(silent @ Failure::Silent { .. }) => return Err(silent.into()),
    }
    // Its process has to connect to it anew.
    let region = pair.region();
    let looked = until(pair.op, SOON, || pair.look()).await;
    looked.map(|instance| Found::Runs(Box::new(instance))).map_err(|_| {
        Stopped::Failed(format!("{region}: its Postgres runs and cannot be looked at: {why}"))
    })
}

/// Refuses to touch what is no copy of the primary's database, or cannot be told to be one.
fn same_database(own: &Instance, pair: &Pair<'_>) -> Result<(), Stopped> {
    let (region, primary) = (pair.region(), pair.primary());
    let upstream = pair.sight.regions.get(primary).map(|seen| seen.instance.as_ref());
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
async fn all_lost(pair: &Pair<'_>, epochs: &[Epoch]) -> Result<Vec<Lost>, Stopped> {
    let mut all = Vec::new();
    for epoch in epochs {
        // The fence of one that has just been started ends its sessions, this one too; and a new
        // primary can be without its lease for a moment.
        let collect = || ledger::collect(&pair.own, &pair.upstream, *epoch, pair.op);
        let lost = until(pair.op, SOON, collect).await.map_err(|error| {
            let region = pair.region();
            Stopped::Failed(format!("what {region} alone has cannot be listed: {error}"))
        })?;
        all.extend(lost);
    }
    Ok(all)
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
    fn who_has_an_epoch_that_the_primary_does_not_know_has_left_its_history() {
        let (us, eu) = ("region-a".parse().unwrap(), "region-b".parse().unwrap());
        let own = |told: &[(u32, u64, &str)], lsn| {
            let instance = super::super::plan::tests::all_well().of("eu-west-1").clone();
            Instance { epochs: starts(told), lsn: Lsn::new(lsn), received: None, ..instance }
        };
        let known = starts(&[(1, 0, "a"), (3, 70, "a")]);
        // Its position is one that the primary has passed, on another timeline.
        let strange = own(&[(1, 0, "a"), (2, 50, "b")], 60);
        assert_eq!(standing(&strange, &us, &known), Standing::Diverged);
        assert_eq!(standing(&own(&[(1, 0, "a")], 60), &us, &known), Standing::Strayed);
        assert_eq!(standing(&own(&[(1, 0, "a")], 71), &eu, &known), Standing::Diverged);
    }

    #[test]
    fn a_replica_that_a_platform_makes_is_its_own_affair() {
        let known = starts(&[(1, 0, "a"), (2, 50, "b")]);
        let mut own = super::super::plan::tests::all_well().of("eu-west-1").clone();
        (own.epochs, own.lsn) = (starts(&[(1, 0, "a")]), Lsn::new(60));
        assert!(!is_platforms(&own, &known));
        own.platform = Platform::Aurora;
        // It has come past where the epoch began, whose row it has yet to read.
        assert!(is_platforms(&own, &known));
        own.epochs = starts(&[(1, 0, "a"), (2, 40, "a")]);
        assert!(!is_platforms(&own, &known));
        (own.epochs, own.role) = (starts(&[(1, 0, "a")]), Role::Primary);
        assert!(!is_platforms(&own, &known));
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
