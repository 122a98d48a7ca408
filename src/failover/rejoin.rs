//! A region whose database has left the cluster's history, or stopped, comes back as a replica.

use super::{
    execute::Stopped,
    ledger::{self, Lost},
    observe::{Cluster, Failure, Sight, order},
};
use crate::{
    topology::{
        Role,
        control::{Instance, Order, Outcome, Standby},
        probe::Asker,
    },
    vocab::{Epoch, EpochStart, Op, Region},
};
use std::{collections::BTreeSet, time::Duration};

/// Longest wait for an answer to an order that takes moments.
const SOON: Duration = Duration::from_secs(10);
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
    keeping: Keeping<'_, impl FnOnce(Epoch, &[Lost]) -> Result<(), Stopped>>,
) -> Result<Back, Stopped> {
    let sight: Sight = cluster.observe(op).await;
    let going = going_back(cluster, &sight, region, primary, agent_max, op, keeping);
    unless_it_moves(cluster, &sight, region, primary, going).await
}

/// Does `work` on `region` with the primary for as long as it is one: with one of before it could not come
/// to its end, or would have to be done again.
///
/// # Errors
/// Those of the work; [`Stopped::Refused`] once another region has begun an epoch.
pub(super) async fn unless_it_moves<T>(
    cluster: &Cluster,
    sight: &Sight,
    region: &Region,
    primary: &Region,
    work: impl Future<Output = Result<T, Stopped>>,
) -> Result<T, Stopped> {
    let moved = async || {
        let reports = cluster.report(sight).await;
        // What the region itself knows may be of a history that ended.
        let others = reports.iter().filter(|(at, _)| at != region);
        let told = others.flat_map(|(_, told)| told.iter().flat_map(|told| &told.epochs));
        let newest = told.max_by_key(|start| start.epoch);
        let other = newest.filter(|newest| newest.region != *primary)?;
        Some(Stopped::Refused(format!(
            "the primary has moved to {} meanwhile: run the same command again",
            other.region
        )))
    };
    let until_it_moves = async {
        loop {
            tokio::time::sleep(MOVED_EVERY).await;
            if let Some(why) = moved().await {
                return why;
            }
        }
    };
    let done = tokio::select! {
        done = work => done?,
        why = until_it_moves => return Err(why),
    };
    moved().await.map_or(Ok(done), Err)
}

async fn going_back(
    cluster: &Cluster,
    sight: &Sight,
    region: &Region,
    primary: &Region,
    agent_max: Duration,
    op: &Op,
    keeping: Keeping<'_, impl FnOnce(Epoch, &[Lost]) -> Result<(), Stopped>>,
) -> Result<Back, Stopped> {
    let epochs = sight.epochs_of(primary);
    let Some(asker) = cluster.asker(sight, region) else {
        return Err(Stopped::Failed(format!("{region} is not one of the regions")));
    };
    (keeping.tell)("it is looked at, and started if it is down");
    let Some(upstream) = cluster.asker(sight, primary) else {
        return Err(Stopped::Failed(format!("{primary} is not one of the regions")));
    };
    let found = find(&asker, agent_max, op).await?;
    let mut stands = match &found {
        Found::Runs(instance) => {
            same_database(instance, sight, region, primary)?;
            standing(instance, primary, &epochs)
        }
        Found::HalfRewound | Found::Down(_) => Standing::Diverged,
    };
    if stands == Standing::Strayed {
        let follow = Order::Follow { region: primary.clone(), promise: None };
        leave(&asker, &follow, SOON, op).await?;
        // Its log can have left the primary's in what no epoch tells: on a timeline of its own, it asks in
        // vain.
        if !comes(&asker, &upstream, op).await {
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
                    match all_lost(cluster, sight, &asker, primary, &astray, op).await {
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
            reaches(cluster, sight, region, primary, op).await?;
            let remade = remade(&asker, &upstream, &epochs, agent_max, op, keeping.tell);
            let (how, kept) = remade.await?;
            format!("{how}; what it had is kept in {kept}{unread}")
        }
    };
    (keeping.tell)("it streams");
    streams(&asker, primary, op).await?;
    Ok(Back { told, lost })
}

/// Makes an instance one that follows the primary, of `epochs`: rewound, or copied anew. Gives how, and where
/// its log is kept.
async fn remade(
    asker: &Asker,
    upstream: &Asker,
    epochs: &[EpochStart],
    agent_max: Duration,
    op: &Op,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<(&'static str, String), Stopped> {
    tell("its Postgres stops, and a copy of its log is kept");
    leave(asker, &Order::Stop, agent_max, op).await?;
    let kept = match order(asker, Order::Keep, agent_max, op).await? {
        Outcome::Kept { place } => place,
        other => return Err(Stopped::Failed(format!("{} answered {other:?}", asker.region()))),
    };
    let Err(why) = rewound(asker, upstream, epochs, agent_max, op, tell).await else {
        return Ok(("rewound", kept));
    };
    tell("it cannot go back: it is copied anew");
    let fresh = Order::Rebuild { region: upstream.region().clone() };
    for what in [Order::Stop, fresh, Order::Start] {
        order(asker, what, agent_max, op).await.map_err(|error| {
            Stopped::Failed(format!("neither rewound ({why}) nor copied ({error})"))
        })?;
    }
    Ok(("copied anew", kept))
}

/// Has a stopped instance rewound and started.
///
/// # Errors
/// Why it is no replica of the primary, of `epochs`, all the same. `pg_rewind` takes two instances that were
/// promoted from one timeline, each by itself, for one, and does nothing.
async fn rewound(
    asker: &Asker,
    upstream: &Asker,
    epochs: &[EpochStart],
    agent_max: Duration,
    op: &Op,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<(), String> {
    let told = |failure: Failure| failure.to_string();
    tell("it goes back to where its epoch ended");
    let back = Order::Rewind { region: upstream.region().clone() };
    order(asker, back, agent_max, op).await.map_err(told)?;
    tell("it starts");
    order(asker, Order::Start, agent_max, op).await.map_err(told)?;
    if !comes(asker, upstream, op).await {
        return Err("it asks for log in vain".to_owned());
    }
    let foreign = is_foreign(&look(asker, op).await?.epochs, epochs);
    if foreign { Err("it still has an epoch that was lost".to_owned()) } else { Ok(()) }
}

/// Waits until the primary sees the region stream. `false` when it does not in time.
async fn comes(asker: &Asker, upstream: &Asker, op: &Op) -> bool {
    let give_up = op.clock.monotonic() + COMES;
    let mut catches_up_since = None;
    loop {
        let now = op.clock.monotonic();
        let seen = look(upstream, op).await;
        if seen.as_ref().is_ok_and(|found| receives(found, asker.region())) {
            return true;
        }
        // Who asks for log that is gone seems to catch up for a moment.
        let this = |one: &Standby| one.name == asker.region().as_str() && one.follows();
        if seen.is_ok_and(|found| found.standbys.iter().any(this)) {
            if now.saturating_duration_since(*catches_up_since.get_or_insert(now)) > CATCHES_UP {
                return true;
            }
        } else {
            catches_up_since = None;
        }
        if op.clock.monotonic() > give_up {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether a region streams from an instance, as that sees it.
pub(super) fn receives(primary: &Instance, region: &Region) -> bool {
    let this = |name: &str, state: &str| name == region.as_str() && state == "streaming";
    primary.standbys.iter().any(|standby| this(&standby.name, &standby.state))
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
        // Of its Postgres nothing is known.
        Err(silent @ Failure::Silent { .. }) => return Err(silent.into()),
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

/// Refuses to stop a database that could not be given another's log then.
async fn reaches(
    cluster: &Cluster,
    sight: &Sight,
    region: &Region,
    primary: &Region,
    op: &Op,
) -> Result<(), Stopped> {
    let give_up = op.clock.monotonic() + HEARS;
    loop {
        let reports = cluster.report(sight).await;
        let own = reports.iter().find(|(at, _)| at == region).map(|(_, told)| told);
        let heard = match own {
            Some(Ok(own)) => own.peers.get(primary).is_some_and(|peer| peer.reachable),
            Some(Err(_)) | None => false,
        };
        if heard {
            return Ok(());
        }
        if op.clock.monotonic() > give_up {
            return Err(Stopped::Refused(format!(
                "{region} does not hear from {primary}, whose log it needs: mend the link first"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
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
