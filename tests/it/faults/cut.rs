//! The primary's region cut off, and far away.

use super::{
    load::{self, Kind, Load},
    now, since,
};
use crate::{
    client,
    harness::{self, AP, Cluster, EU, SOON, US, eventually, region},
};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sqlx::Connection as _;
use std::{
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

/// From the healing of a link until writes work.
pub const WRITES_AGAIN: Duration = Duration::from_secs(3);
/// From then until a far bookmark is read in its region.
const BOOKMARKS_AGAIN: Duration = Duration::from_secs(6);
/// A refusal that needs nobody's answer.
const AT_ONCE: Duration = Duration::from_millis(500);
/// `routing.hold_ms_max` and the way there, on a machine that has other things to do.
const HELD: Duration = Duration::from_secs(7);
const EDGES: [&str; 2] = [EU, AP];

pub async fn reads_go_on_without_the_primary_and_writes_soon_after_it_is_back() -> anyhow::Result<()>
{
    harness::faulty(async |cluster| {
        let before = replicas(cluster).await?;
        let load = Load::begin(cluster).await?;
        let cut_at = now();
        for edge in EDGES {
            cluster.lab.cut(&region(US), &region(edge))?;
        }
        let mut session = cluster.caller();
        let meanwhile = session.create(US, "meanwhile", &json!({})).await?.wants(201)?.id()?;
        for edge in EDGES {
            eventually("notice", SOON, async || {
                let health = health(cluster, edge).await.map_err(|error| format!("{error:#}"))?;
                let noticed = health["checks"]["primary"]["status"] == "degraded";
                if noticed { Ok(()) } else { Err(health.to_string()) }
            })
            .await?;
            degraded(cluster, edge, cut_at).await?;
            refuses_what_needs_the_primary(cluster, edge).await?;
            let began = now();
            let read = session.clone().read(edge, "meanwhile", &meanwhile).await?;
            read.wants_problem(503, "bookmark-timeout")?;
            // Nobody is promoted who could have it: it is held as long as a write would be, no longer.
            ensure!(since(began) < HELD, "waited {:?}", since(began));
        }
        // Every request that was on its way at the cut has come to its deadline.
        eventually("the deadline", SOON, async || {
            if since(cut_at) > load::DEADLINE { Ok(()) } else { Err("not yet".into()) }
        })
        .await?;
        for edge in EDGES {
            let health = degraded(cluster, edge, cut_at).await?;
            ensure!(health["checks"]["replication"]["streaming"] == false, "{health}");
        }
        cluster.lab.heal();
        let healed_at = now();
        for edge in EDGES {
            writes_again(cluster, edge, healed_at).await?;
        }
        for edge in EDGES {
            eventually("the bookmark", SOON, async || {
                let read = session.clone().read(edge, "meanwhile", &meanwhile).await;
                let read = read.map_err(|error| format!("{error:#}"))?;
                let here = matches!(read.route(), "local" | "waited");
                if read.status == 200 && here { Ok(()) } else { Err(read.to_string()) }
            })
            .await?;
            ensure!(since(healed_at) < BOOKMARKS_AGAIN, "{edge}: {:?}", since(healed_at));
        }
        let after = replicas(cluster).await?;
        ensure!(before == after, "a replica was made anew: {before:?} became {after:?}");
        let shots = load.end().await;
        load::none_failed(&shots, |shot| {
            let early = shot.ended < cut_at || shot.began > healed_at + WRITES_AGAIN;
            // Cut off, the primary takes none either once its lease has run out.
            shot.kind == Kind::Create && !early
        })?;
        load::told_the_truth(cluster, &shots).await?;
        load::in_time(shots.iter())
    })
    .await
}

async fn health(cluster: &Cluster, name: &str) -> anyhow::Result<Value> {
    let http = client::http()?;
    let base = &cluster.region(name).public;
    let answer = http.get(format!("{base}/health")).send().await?;
    ensure!(answer.status() == 200, "{name}: {} {}", answer.status(), answer.text().await?);
    let health = answer.json().await?;
    let ready = http.get(format!("{base}/api/health/readiness")).send().await?;
    ensure!(ready.status() == 200, "{name}: {} {}", ready.status(), ready.text().await?);
    Ok(health)
}

/// Demands that a region without its primary says so, with a lag that grows with the time.
async fn degraded(cluster: &Cluster, name: &str, cut_at: Instant) -> anyhow::Result<Value> {
    let cut_ms = since(cut_at).as_millis();
    let health = health(cluster, name).await?;
    ensure!(health["status"] == "degraded" && health["role"] == "replica", "{health}");
    ensure!(health["region"] == name && health["epoch"] == 1, "{health}");
    let lag_ms = health["checks"]["replication"]["lag_ms"].as_u64();
    let lag_ms = lag_ms.with_context(|| format!("no lag: {health}"))?;
    ensure!(u128::from(lag_ms) >= cut_ms, "{lag_ms} ms after {cut_ms} ms: {health}");
    Ok(health)
}

async fn refuses_what_needs_the_primary(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let mut caller = cluster.caller();
    let began = now();
    caller.create(name, "refused", &json!({})).await?.wants_problem(503, "no-primary")?;
    let path = "/v1/collections/refused/items";
    let ask = caller.ask(name, reqwest::Method::GET, path);
    let strong = ask.header("godwit-consistency", "strong").send().await?;
    strong.wants_problem(503, "no-primary")?;
    ensure!(since(began) < AT_ONCE, "{name}: refused after {:?}", since(began));
    Ok(())
}

/// Demands that a region's writes work again soon after `from`.
pub async fn writes_again(cluster: &Cluster, name: &str, from: Instant) -> anyhow::Result<()> {
    let mut caller = cluster.caller();
    eventually("a write", SOON, async || {
        let made = caller.create(name, "again", &json!({})).await;
        let made = made.map_err(|error| format!("{error:#}"))?;
        if made.status == 201 { Ok(()) } else { Err(made.to_string()) }
    })
    .await?;
    let took = since(from);
    ensure!(took < WRITES_AGAIN, "{name} writes again after {took:?}");
    Ok(())
}

/// What makes each replica the one that it is.
async fn replicas(cluster: &Cluster) -> anyhow::Result<Vec<(Option<u32>, u64, String)>> {
    let mut found = Vec::new();
    for edge in EDGES {
        let mut database = sqlx::PgConnection::connect(&cluster.region(edge).global_db).await?;
        let query = "SELECT current_setting('data_directory'), pg_postmaster_start_time()::text \
            || ' ' || system_identifier FROM pg_control_system()";
        let (data, words): (String, String) =
            sqlx::query_as(query).fetch_one(&mut database).await?;
        database.close().await?;
        let facts = cluster.lab.facts().context("no facts")?;
        let pid = facts.regions[&region(edge)].pids.postgres;
        found.push((pid, std::fs::metadata(data)?.ino(), words));
    }
    Ok(found)
}

pub async fn a_slow_link_slows_writes_and_fails_none() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        for (edge, round_trip_ms) in [(EU, 375), (AP, 490)] {
            cluster.lab.delay(&region(US), &region(edge), round_trip_ms)?;
            let mut caller = cluster.caller();
            for number in 0..5 {
                let began = now();
                let made = caller.create(edge, "slow", &json!({"n": number})).await?.wants(201)?;
                let took = since(began);
                let expected = Duration::from_millis(round_trip_ms);
                ensure!(took >= expected && took < expected * 6, "{edge}: {took:?}");
                let read = caller.read(edge, "slow", &made.id()?).await?.wants(200)?;
                ensure!(read.json()["data"]["n"] == number, "{read}");
            }
            let health = health(cluster, edge).await?;
            ensure!(health["status"] == "ok", "{health}");
        }
        Ok(())
    })
    .await
}
