//! A region that is to be added is brought in first: its database streams from the primary, and has all
//! that came before, when it begins to count.

use super::{
    execute::Stopped,
    ledger::Lost,
    observe::{Cluster, Sight, order},
    rejoin::{Keeping, go_back, look, receives, streams as follows, unless_it_moves},
};
use crate::{
    storage::control::slot_of,
    topology::{Role, control::Order, probe::Asker},
    vocab::{Epoch, Op, Region},
};
use std::time::Duration;

/// Longest wait for an answer to an order that takes moments.
const SOON: Duration = Duration::from_secs(10);
/// Longest wait for it to come to where the others are.
const COMES: Duration = Duration::from_secs(60);
/// Calls of the agent that this can take, one after the other.
const CALLS: u32 = 8;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whether a region streams from the primary, as the primary sees it: who asks a slot for log that is
/// gone runs a receiver too. Pure.
#[must_use]
pub fn streams(sight: &Sight, region: &Region, primary: &Region) -> bool {
    let seen = sight.regions.get(primary).and_then(|seen| seen.instance.as_ref().ok());
    seen.is_some_and(|instance| receives(instance, region))
}

/// Makes the database of `region`, which is no member, one that streams from `primary`, from wherever a
/// run before has left it, and tells how.
///
/// # Errors
/// See [`Stopped`].
pub async fn bring_in(
    cluster: &Cluster,
    region: &Region,
    primary: &Region,
    epoch: Epoch,
    agent_max: Duration,
    op: &Op,
    keeping: Keeping<'_, impl FnOnce(Epoch, &[Lost]) -> Result<(), Stopped>>,
) -> Result<String, Stopped> {
    let sight = cluster.observe(op).await;
    let asker = |at: &Region| {
        let asker = cluster.asker(&sight, at);
        asker.ok_or_else(|| Stopped::Failed(format!("{at} is not one of the regions")))
    };
    let (own, upstream) = (asker(region)?, asker(primary)?);
    let coming = async {
        welcome(&own, &upstream, epoch, agent_max, op).await?;
        let back = go_back(cluster, region, primary, agent_max, op, keeping).await;
        let came = match back {
            Ok(back) => arrives(&own, &upstream, epoch, op).await.map(|()| back.told),
            Err(stopped) => Err(stopped),
        };
        let Err(Stopped::Failed(why)) = came else { return came };
        // A standby that was away for long has nothing of its own, and the primary has not kept what it
        // lacks. What is no standby is left as it is found.
        let seen = sight.regions.get(region).and_then(|seen| seen.instance.as_ref().ok());
        let copied = match seen.filter(|instance| instance.role == Role::Replica) {
            Some(_) => copy_anew(&own, &upstream, epoch, agent_max, op).await,
            None => Err(Stopped::Failed("it was no standby".to_owned())),
        };
        copied.map(|()| "copied anew".to_owned()).map_err(|error| {
            Stopped::Failed(format!(
                "{why}; not copied anew either: {error}. Make its database a copy of {primary}'s that \
                 streams, and run this again"
            ))
        })
    };
    unless_it_moves(cluster, &sight, region, primary, coming).await
}

/// Has the primary keep a slot for the region, and the region not keep away.
async fn welcome(
    own: &Asker,
    upstream: &Asker,
    epoch: Epoch,
    agent_max: Duration,
    op: &Op,
) -> Result<(), Stopped> {
    let region = own.region();
    let span = agent_max * CALLS + 2 * COMES;
    let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    for asker in [upstream, own] {
        let welcome = Order::Welcome { region: region.clone(), epoch, span_ms };
        order(asker, welcome, SOON, op).await?;
    }
    let name = slot_of(region);
    until(op, SOON, "the primary keeps no slot for it", async || {
        let instance = look(upstream, op).await?;
        Ok(instance.slots.iter().any(|slot| slot.name == name))
    })
    .await
}

/// Waits until the primary sees the region stream, and the region has all that came before `epoch`.
async fn arrives(own: &Asker, upstream: &Asker, epoch: Epoch, op: &Op) -> Result<(), Stopped> {
    until(op, COMES, "it does not stream, or is far behind", async || {
        let there = receives(&look(upstream, op).await?, own.region());
        Ok(there && look(own, op).await?.epoch() >= Some(epoch))
    })
    .await
}

async fn copy_anew(
    own: &Asker,
    upstream: &Asker,
    epoch: Epoch,
    agent_max: Duration,
    op: &Op,
) -> Result<(), Stopped> {
    let primary = upstream.region();
    for what in [Order::Stop, Order::Rebuild { region: primary.clone() }, Order::Start] {
        order(own, what, agent_max, op).await?;
    }
    follows(own, primary, op).await?;
    arrives(own, upstream, epoch, op).await
}

async fn until(
    op: &Op,
    bound: Duration,
    otherwise: &str,
    mut done: impl AsyncFnMut() -> Result<bool, String>,
) -> Result<(), Stopped> {
    let give_up = op.clock.monotonic() + bound;
    loop {
        let last = match done().await {
            Ok(true) => return Ok(()),
            Ok(false) => otherwise.to_owned(),
            Err(why) => why,
        };
        if op.clock.monotonic() > give_up {
            return Err(Stopped::Failed(format!("not within {bound:?}: {last}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
