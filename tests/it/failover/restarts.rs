//! `promote`, killed wherever it is, and run again.

use super::{
    Reading, command, equal, killed_after, now, reigns, rejoin, said, since, slots, target,
};
use crate::{
    client::Caller,
    harness::{self, AP, EU, REGIONS, US},
};
use anyhow::{Context as _, ensure};
use godwit::lab::{Spec, Wan};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// The steps of a promotion after each of which it is killed; the one that is left verifies.
const STEPS: usize = 6;

/// Where the primary goes, one after the other.
const TOUR: [&str; STEPS] = [EU, US, AP, EU, AP, US];

fn shape(spec: &mut Spec) {
    spec.wan = Wan::Off;
}

/// A session that goes on reading where the primary is not. What a replica has shown it is in every
/// epoch after: a promotion keeps all that the furthest has.
async fn read_on(
    mut caller: Caller,
    at: &'static str,
    stop: CancellationToken,
) -> anyhow::Result<usize> {
    let mut count = 0;
    while !stop.is_cancelled() {
        let read = caller.get(at, "/v1/collections/reigns/items?limit=1").await?;
        ensure!(read.problem() != "bookmark-lost", "{at}: {read}");
        count += usize::from(read.status == 200);
    }
    Ok(count)
}

pub async fn a_promotion_killed_after_any_step_ends_the_same_when_run_again() -> anyhow::Result<()>
{
    harness::own("resumed", shape, async |cluster| {
        let began = now();
        let mut from = US;
        for ((count, epoch), to) in (1..).zip(2..).zip(TOUR) {
            reigns(cluster, from, epoch - 1, &[from]).await?;
            let alive: Vec<&str> = REGIONS.into_iter().filter(|name| *name != from).collect();
            cluster.lab.kill(&target(from)).await?;
            let reading = Reading::begin(cluster, &alive, read_on);
            let promote = ["promote", to, "--yes", "--accept-data-loss"];
            let told = killed_after(cluster, &promote, count).await?;
            let again = command(cluster, &promote).output().await?;
            let told = || format!("killed after {told:#?}; then {}", said(&again));
            ensure!(again.status.success(), "{}", told());
            let report: Value = serde_json::from_slice(&again.stdout)?;
            ensure!(report["epoch"] == epoch && report["region"] == to, "{report} {}", told());
            reigns(cluster, to, epoch, &alive).await.with_context(told)?;
            reading.end(10).await.with_context(told)?;
            cluster.lab.restart(&target(from)).await?;
            rejoin(cluster, from).await.with_context(told)?;
            eprintln!("killed after step {count}: in {to}, {:?}", since(began));
            from = to;
        }
        reigns(cluster, from, 7, &REGIONS).await?;
        equal(cluster).await?;
        slots(cluster).await
    })
    .await
}
