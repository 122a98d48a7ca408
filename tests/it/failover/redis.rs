//! A region's Redis, which has its promises and grants, dies in the middle of a move.

use super::{
    Shot, Told, Writing, command, equal, now, ready, refused_kindly, reigns, report, said, slots,
    told_the_truth,
};
use crate::harness::{self, AP, Cluster, EU, REGIONS, SOON, US, eventually};
use anyhow::{Context as _, ensure};
use deadpool_redis::redis::{AsyncCommands as _, Client};
use godwit::lab::{Spec, Target, Wan};
use serde_json::Value;
use std::time::Duration;

const PACE: Duration = Duration::from_millis(100);

/// Where the primary goes, after which step, and whose Redis dies then: of the old primary, of the new
/// one, and of the third.
const MOVES: [(&str, usize, &str); 6] =
    [(EU, 1, US), (AP, 2, AP), (US, 3, EU), (EU, 4, EU), (US, 5, EU), (AP, 6, EU)];

/// Demands that no write of an older epoch was acknowledged that was sent after one of a newer had been.
fn one_epoch_at_a_time(shots: &[Shot]) -> anyhow::Result<()> {
    let acknowledged: Vec<&Shot> = shots.iter().filter(|shot| shot.acknowledged()).collect();
    for newer in &acknowledged {
        let late = acknowledged
            .iter()
            .find(|older| older.epoch < newer.epoch && older.began > newer.ended);
        ensure!(late.is_none(), "{late:?} after {newer:?}");
    }
    Ok(())
}

/// Demands that a Redis which has forgotten what its region promised is told again, for processes that are
/// yet to start.
async fn is_put_back(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let promised = report(cluster, name).await.map_err(anyhow::Error::msg)?["promise"].clone();
    ensure!(promised.is_object(), "{name} tells of no promise");
    let place: Target = format!("{name}/redis").parse()?;
    cluster.lab.kill(&place).await?;
    cluster.lab.restart(&place).await?;
    let client = Client::open(cluster.region(name).redis.as_str())?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    eventually("the promise in Redis again", SOON, async || {
        let note: Option<String> =
            redis.get("gw:lease").await.map_err(|error| error.to_string())?;
        let note = note.ok_or("no note")?;
        let note: Value = serde_json::from_str(&note).map_err(|error| error.to_string())?;
        if note["promise"] == promised { Ok(()) } else { Err(note.to_string()) }
    })
    .await
}

pub async fn one_that_restarts_in_the_middle_of_a_move_leaves_one_primary() -> anyhow::Result<()> {
    let shape = |spec: &mut Spec| spec.wan = Wan::Off;
    harness::own("redis-moves", shape, async |cluster| {
        let writing = Writing::everywhere(cluster, &REGIONS, 1, PACE);
        for (to, count, whose) in MOVES {
            for name in REGIONS {
                writing.goes_on(name, now()).await?;
            }
            let switchover = ["switchover", to, "--yes"];
            let told = Told::until_step(cluster, &switchover, count).await?;
            let redis: Target = format!("{whose}/redis").parse()?;
            cluster.lab.kill(&redis).await?;
            cluster.lab.restart(&redis).await?;
            let told = told.end().await?;
            let told = || format!("after step {count}, the Redis of {whose}: {told:#?}");
            // What it had promised is forgotten with it: whoever was stopped by that goes on.
            eventually("a move that ends well", SOON, async || {
                let again = command(cluster, &switchover).output().await;
                let again = again.map_err(|error| error.to_string())?;
                if again.status.success() { Ok(()) } else { Err(said(&again)) }
            })
            .await
            .with_context(told)?;
            for name in REGIONS {
                ready(cluster, name).await.with_context(told)?;
                writing.goes_on(name, now()).await.with_context(told)?;
            }
            let epoch = writing.so_far().iter().filter_map(|shot| shot.epoch).max();
            reigns(cluster, to, epoch.context("no epoch")?, &REGIONS).await.with_context(told)?;
        }
        is_put_back(cluster, EU).await?;
        let collection = writing.collection.clone();
        let shots = writing.end().await;
        let failed = shots.iter().filter(|shot| !shot.acknowledged()).count();
        eprintln!(
            "a Redis restarted in {} moves: {failed} of {} writes failed",
            MOVES.len(),
            shots.len()
        );
        refused_kindly(&shots)?;
        one_epoch_at_a_time(&shots)?;
        told_the_truth(cluster, AP, &collection, &shots).await?;
        equal(cluster).await?;
        slots(cluster).await
    })
    .await
}
