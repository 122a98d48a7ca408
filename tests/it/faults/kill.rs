//! `kill -9` and worse, under load: only what was under way there fails.

use super::{
    cut::{WRITES_AGAIN, writes_again},
    load::{self, Kind, Load, Shot},
    now, since,
};
use crate::{
    client,
    harness::{self, AP, Cluster, EU, REGIONS, SOON, US, eventually},
};
use anyhow::ensure;
use godwit::lab::Target;
use std::time::{Duration, Instant};

/// How long a part stays dead at least: enough for the load to feel it.
const OUTAGE: Duration = Duration::from_secs(1);
/// From `lab start` until the region finds nothing amiss.
const BACK: Duration = Duration::from_secs(3);

struct Outage {
    began: Instant,
    /// When it was asked to start again.
    start_at: Instant,
    ended: Instant,
}

impl Outage {
    /// Was the request made before the outage ended, and did it not end before it began?
    fn touches(&self, shot: &Shot) -> bool {
        shot.ended >= self.began && shot.began <= self.ended
    }
}

async fn until_past(began: Instant, time: Duration) -> anyhow::Result<()> {
    eventually(
        "time",
        SOON,
        async || {
            if since(began) > time { Ok(()) } else { Err("not yet".into()) }
        },
    )
    .await
}

/// Kills, looks while it is dead, starts again and waits until all is well.
async fn kill(
    cluster: &Cluster,
    target: &str,
    name: &str,
    meanwhile: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Outage> {
    let target: Target = target.parse()?;
    let began = now();
    cluster.lab.kill(&target).await?;
    until_past(began, OUTAGE).await?;
    meanwhile().await?;
    let start_at = now();
    cluster.lab.restart(&target).await?;
    cluster.sound(name, SOON).await?;
    let ended = now();
    let took = ended.saturating_duration_since(start_at);
    ensure!(took < BACK, "{target} was back after {took:?}");
    // What follows is served as before.
    until_past(ended, OUTAGE / 2).await?;
    Ok(Outage { began, start_at, ended })
}

async fn status(url: String) -> anyhow::Result<u16> {
    Ok(client::http()?.get(url).send().await?.status().as_u16())
}

pub async fn of_an_api_process_far_from_the_primary() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let load = Load::begin(cluster).await?;
        let outage = kill(cluster, "ap-south-1/api", AP, async || Ok(())).await?;
        let shots = load.end().await;
        load::none_failed(&shots, |shot| shot.region == AP && outage.touches(shot))?;
        load::told_the_truth(cluster, &shots).await?;
        load::in_time(shots.iter())
    })
    .await
}

pub async fn of_a_redis() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let load = Load::begin(cluster).await?;
        let base = cluster.region(EU).public.clone();
        kill(cluster, "eu-west-1/redis", EU, async || {
            let health = status(format!("{base}/health")).await?;
            let ready = status(format!("{base}/api/health/readiness")).await?;
            ensure!((health, ready) == (200, 503), "health {health}, readiness {ready}");
            Ok(())
        })
        .await?;
        let shots = load.end().await;
        load::none_failed(&shots, |_| false)?;
        load::told_the_truth(cluster, &shots).await
    })
    .await
}

pub async fn of_a_replica() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let load = Load::begin(cluster).await?;
        let base = cluster.region(EU).public.clone();
        let outage = kill(cluster, "eu-west-1/postgres", EU, async || {
            let health = status(format!("{base}/health")).await?;
            ensure!(health == 503, "health {health}");
            Ok(())
        })
        .await?;
        let shots = load.end().await;
        // Not even what was in flight: it had no effect, so the primary answers it instead.
        load::none_failed(&shots, |_| false)?;
        let read_here = |shot: &&Shot| shot.region == EU && shot.kind != Kind::Create;
        let during =
            |shot: &&Shot| shot.began > outage.began + OUTAGE / 2 && shot.began < outage.start_at;
        let dead: Vec<_> = shots.iter().filter(read_here).filter(during).collect();
        ensure!(!dead.is_empty() && dead.iter().all(|shot| shot.route == "forwarded"), "{dead:?}");
        let after: Vec<_> =
            shots.iter().filter(read_here).filter(|shot| shot.began > outage.ended).collect();
        ensure!(after.iter().any(|shot| shot.route == "local"), "{after:?}");
        load::told_the_truth(cluster, &shots).await?;
        load::in_time(shots.iter())
    })
    .await
}

/// What may fail while the primary's region does not answer: what needs it.
fn needs_the_primary(shot: &Shot) -> bool {
    shot.kind == Kind::Create || shot.region == US
}

async fn of_the_primarys(part: &str) -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let load = Load::begin(cluster).await?;
        let outage = kill(cluster, part, US, async || Ok(())).await?;
        for name in REGIONS {
            writes_again(cluster, name, outage.ended).await?;
        }
        let ended = now();
        let shots = load.end().await;
        load::none_failed(&shots, |shot| {
            needs_the_primary(shot) && shot.ended >= outage.began && shot.began <= ended
        })?;
        load::told_the_truth(cluster, &shots).await?;
        load::in_time(shots.iter())
    })
    .await
}

pub async fn of_the_primarys_database() -> anyhow::Result<()> {
    of_the_primarys("us-east-1/postgres").await
}

pub async fn of_the_primarys_api_process() -> anyhow::Result<()> {
    of_the_primarys("us-east-1/api").await
}

pub async fn a_frozen_primary_is_told_of_truthfully() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let load = Load::begin(cluster).await?;
        until_past(now(), OUTAGE / 2).await?;
        let target: Target = "us-east-1/api".parse()?;
        let began = now();
        cluster.lab.pause(&target)?;
        until_past(began, load::DEADLINE).await?;
        let resumed_at = now();
        cluster.lab.resume(&target)?;
        for name in REGIONS {
            writes_again(cluster, name, resumed_at).await?;
        }
        let shots = load.end().await;
        load::none_failed(&shots, |shot| {
            let during = shot.ended >= began && shot.began <= resumed_at + WRITES_AGAIN;
            needs_the_primary(shot) && during
        })?;
        load::told_the_truth(cluster, &shots).await?;
        let unknown = shots.iter().filter(|shot| shot.problem == "outcome-unknown").count();
        ensure!(unknown > 0, "nothing was under way when the primary froze");
        // The frozen process itself answers when it is thawed.
        load::in_time(shots.iter().filter(|shot| shot.region != US))
    })
    .await
}
