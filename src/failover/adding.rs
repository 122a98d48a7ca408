//! A region that is to be added is brought in first: its database streams from the primary, and has all
//! that came before, when it begins to count.

use super::{
    execute::Stopped,
    ledger::Lost,
    observe::{Cluster, Sight, order},
    pair::{Pair, SOON, look, not_within, receives, until},
    rejoin::{Keeping, going_back},
};
use crate::{
    storage::control::slot_of,
    topology::{Role, control::Order},
    vocab::{Epoch, Op, Region},
};
use std::time::Duration;

/// Longest wait for it to come to where the others are.
const COMES: Duration = Duration::from_secs(60);
/// Calls of the agent that this can take, one after the other.
const CALLS: u32 = 8;

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
    let pair = Pair::of(cluster, region, primary, agent_max, op).await?;
    let coming = async {
        welcome(&pair, epoch).await?;
        // With its slot it can have received an epoch meanwhile, which is not to be taken for its own.
        let pair = Pair::of(cluster, region, primary, agent_max, op).await?;
        let came = match going_back(&pair, keeping).await {
            Ok(back) => arrives(&pair, epoch).await.map(|()| back.told),
            Err(stopped) => Err(stopped),
        };
        let Err(Stopped::Failed(why)) = came else { return came };
        // A standby that was away for long has nothing of its own, and the primary has not kept what it
        // lacks. What is no standby of this database is left as it is found.
        let seen = |at| pair.sight.regions.get(at).and_then(|seen| seen.instance.as_ref().ok());
        let copied = match (seen(region), seen(primary)) {
            (Some(own), Some(upstream))
                if own.role == Role::Replica && own.system == upstream.system =>
            {
                copy_anew(&pair, epoch).await
            }
            _ => Err(Stopped::Failed(
                "it was not seen to be a standby of the same database".to_owned(),
            )),
        };
        copied.map(|()| "copied anew".to_owned()).map_err(|error| {
            Stopped::Failed(format!(
                "{why}; not copied anew either: {error}. Make its database a copy of {primary}'s that \
                 streams, and run this again"
            ))
        })
    };
    pair.unless_it_moves(coming).await
}

/// Has the primary keep a slot for the region, and the region not keep away.
async fn welcome(pair: &Pair<'_>, epoch: Epoch) -> Result<(), Stopped> {
    let region = pair.region();
    let span = pair.agent_max * CALLS + 2 * COMES;
    let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    for asker in [&pair.upstream, &pair.own] {
        let welcome = Order::Welcome { region: region.clone(), epoch, span_ms };
        order(asker, welcome, SOON, pair.op).await?;
    }
    let name = slot_of(region);
    let kept = || async {
        let instance = look(&pair.upstream, pair.op).await?;
        let kept = instance.slots.iter().any(|slot| slot.name == name);
        kept.then_some(()).ok_or_else(|| "the primary keeps no slot for it".to_owned())
    };
    until(pair.op, SOON, kept).await.map_err(|why| not_within(SOON, why))
}

/// Waits until the primary sees the region stream, and the region has all that came before `epoch`.
async fn arrives(pair: &Pair<'_>, epoch: Epoch) -> Result<(), Stopped> {
    let there = || async {
        let there = receives(&look(&pair.upstream, pair.op).await?, pair.region());
        let there = there && pair.look().await?.epoch() >= Some(epoch);
        there.then_some(()).ok_or_else(|| "it does not stream, or is far behind".to_owned())
    };
    until(pair.op, COMES, there).await.map_err(|why| not_within(COMES, why))
}

async fn copy_anew(pair: &Pair<'_>, epoch: Epoch) -> Result<(), Stopped> {
    pair.copy_anew().await?;
    pair.follows().await?;
    arrives(pair, epoch).await
}
