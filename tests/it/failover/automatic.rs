//! `failover.automatic`: without anyone at the keyboard.

use super::{Writing, equal, now, ready, reigns, rejoin, report, slots, target, told_the_truth};
use crate::{
    client,
    harness::{self, AP, Cluster, EU, REGIONS, SOON, US, eventually, region, set},
};
use anyhow::ensure;
use godwit::lab::{Durability, Spec};
use serde_json::Value;
use std::time::Duration;

const PACE: Duration = Duration::from_millis(100);
/// The loop's own name in `/loops`.
const LOOP: &str = "failover.automatic";

fn automatic(durability: Durability) -> impl FnOnce(&mut Spec) {
    move |spec| {
        spec.durability = durability;
        set(spec, "GODWIT__FAILOVER__AUTOMATIC", "true");
        set(spec, "GODWIT__FAILOVER__AFTER_MS", "2000");
    }
}

/// What a region's loop says that it waits for.
async fn waits_for(cluster: &Cluster, name: &str) -> Result<String, String> {
    let url = format!("{}/loops", cluster.region(name).ops);
    let loops = async { anyhow::Ok(client::http()?.get(url).send().await?.json::<Value>().await?) };
    let loops = loops.await.map_err(|error| error.to_string())?;
    let automatic = loops.as_array().and_then(|all| all.iter().find(|one| one["name"] == LOOP));
    Ok(automatic.ok_or_else(|| loops.to_string())?["last"].to_string())
}

/// Waits until the loop of each region says why it does nothing.
async fn refrain(cluster: &Cluster, regions: &[&str], why: &[&str]) -> anyhow::Result<()> {
    for name in regions {
        eventually(&format!("{name} says {why:?}"), SOON, async || {
            let reason = waits_for(cluster, name).await?;
            if why.iter().any(|why| reason.contains(why)) { Ok(()) } else { Err(reason) }
        })
        .await?;
        let told = report(cluster, name).await.map_err(anyhow::Error::msg)?;
        let begun = told["epochs"].as_array().map_or(0, Vec::len);
        ensure!(begun == 1 && told["role"] == "replica", "{told}");
    }
    Ok(())
}

pub async fn a_dead_primary_is_replaced_by_itself_and_nothing_is_lost() -> anyhow::Result<()> {
    harness::own("automatic", automatic(Durability::Quorum), async |cluster| {
        let writing = Writing::everywhere(cluster, &REGIONS, 1, PACE);
        for name in REGIONS {
            writing.goes_on(name, now()).await?;
        }
        // Those that are left do not hear each other: neither is a majority.
        cluster.lab.cut(&region(EU), &region(AP))?;
        let killed_at = now();
        cluster.lab.kill(&target(US)).await?;
        refrain(cluster, &[EU, AP], &["no majority misses the primary"]).await?;
        cluster.lab.heal();
        for name in [EU, AP] {
            let again = writing.goes_on(name, killed_at).await?;
            eprintln!("automatic: {name} writes {:?} after the kill", again - killed_at);
        }
        let told = report(cluster, EU).await.map_err(anyhow::Error::msg)?;
        let new = if told["role"] == "primary" { EU } else { AP };
        reigns(cluster, new, 2, &[EU, AP]).await?;

        cluster.lab.restart(&target(US)).await?;
        rejoin(cluster, US).await?;
        writing.goes_on(US, now()).await?;
        let collection = writing.collection.clone();
        let shots = writing.end().await;
        told_the_truth(cluster, new, &collection, &shots).await?;
        reigns(cluster, new, 2, &REGIONS).await?;
        equal(cluster).await?;
        slots(cluster).await
    })
    .await
}

pub async fn without_a_quorum_nobody_takes_over_by_itself() -> anyhow::Result<()> {
    harness::own("unsure", automatic(Durability::Async), async |cluster| {
        reigns(cluster, US, 1, &REGIONS).await?;
        cluster.lab.kill(&target(US)).await?;
        // One of the two is to take over, and does not; the other leaves it to that one.
        refrain(cluster, &[EU, AP], &["--accept-data-loss", "is to take over"]).await?;
        cluster.lab.restart(&target(US)).await?;
        ready(cluster, US).await?;
        reigns(cluster, US, 1, &REGIONS).await
    })
    .await
}
