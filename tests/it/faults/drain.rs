//! SIGTERM: what was accepted is answered.

use super::{
    edge::{EDGE, Edge, QUIET},
    in_flight, now,
    positions::{database, go_on, pause},
    since,
};
use crate::{
    client,
    harness::{self, Cluster, EU, SOON, US, eventually, region},
};
use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use godwit::lab::{Direction, PartState};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;
use std::time::Duration;

/// Under way at once when the signal comes.
const UNDER_WAY: usize = 8;
/// Looks in a row at which as many are under way.
const STEADY: usize = 5;
/// The laboratory's drain, and room for a busy machine.
const GONE: Duration = Duration::from_secs(6);

async fn under_way(http: &reqwest::Client, ops: &str, wanted: usize) -> anyhow::Result<()> {
    let mut looks = 0;
    eventually("requests under way", SOON, async || {
        // The question is one of them. So is a peer's, which is soon answered.
        let count = in_flight(http, ops).await.map_err(|error| error.to_string())?;
        looks = if count > wanted { looks + 1 } else { 0 };
        if looks == STEADY { Ok(()) } else { Err(count.to_string()) }
    })
    .await
}

/// Waits until a region's process has ended.
async fn gone(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    eventually("the end of the process", SOON, async || {
        let state = cluster.lab.status().regions[&region(name)]["api"].state;
        if state == PartState::Dead { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await
}

/// Waits until it turns away new traffic.
async fn not_ready(http: &reqwest::Client, ops: &str) -> anyhow::Result<()> {
    eventually("no readiness", SOON, async || {
        let ready = http.get(format!("{ops}/api/health/readiness")).send().await;
        let ready = ready.map_err(|error| error.to_string())?.status().as_u16();
        if ready == 503 { Ok(()) } else { Err(ready.to_string()) }
    })
    .await
}

pub async fn a_process_told_to_end_answers_what_it_accepted() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        // Over connections that are there: opening one so far away would outlast the drain.
        for number in 0..UNDER_WAY {
            cluster.caller().create(EU, "drained", &json!({"warm": number})).await?.wants(201)?;
        }
        // So far away that the requests are still under way.
        cluster.lab.delay(&region(US), &region(EU), 900)?;
        let facts = cluster.lab.facts().context("no facts")?;
        let pid = facts.regions[&region(EU)].pids.api.context("no process")?;
        let caller = cluster.caller();
        let creates = try_join_all((0..UNDER_WAY).map(|number| {
            let mut caller = caller.clone();
            async move { caller.create(EU, "drained", &json!({"n": number})).await?.wants(201) }
        }));
        let end = async {
            let http = client::http()?;
            let ops = &cluster.region(EU).ops;
            under_way(&http, ops, UNDER_WAY).await?;
            let told_at = now();
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
            not_ready(&http, ops).await?;
            anyhow::Ok(told_at)
        };
        let (_, told_at) = tokio::try_join!(creates, end)?;
        gone(cluster, EU).await?;
        ensure!(since(told_at) < GONE, "ended after {:?}", since(told_at));
        Ok(())
    })
    .await
}

/// Its loops still look where its database is, so the bookmark is reached.
pub async fn a_read_that_waits_when_the_end_is_told_is_still_answered_here() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let patient = ("GODWIT__ROUTING__BOOKMARK_WAIT_MS_MAX", "8000");
    let edge =
        Edge::start(&cluster, &[patient, ("GODWIT__SERVER__DRAIN_SECONDS_MAX", "20")]).await?;
    let http = client::http()?;
    let mut caller = edge.caller(&cluster)?;
    // What a first request brings with it, a connection and a look-up, is not to be waited for then.
    let first = caller.create(US, "drained", &json!({})).await?.wants(201)?.id()?;
    caller.read(EDGE, "drained", &first).await?.wants(200)?;
    let mut replica = database(&cluster, EU).await?;
    pause(&mut replica).await?;
    let told = async {
        let id = caller.create(US, "drained", &json!({})).await?.wants(201)?.id()?;
        let read = caller.read(EDGE, "drained", &id);
        let end = async {
            under_way(&http, &edge.ops, 1).await?;
            edge.tell_to_end()?;
            not_ready(&http, &edge.ops).await?;
            go_on(&mut replica).await
        };
        let (read, ()) = tokio::try_join!(read, end)?;
        let read = read.wants(200)?;
        // `local` when it came to its judgment only after that.
        ensure!(matches!(read.route(), "local" | "waited"), "{read}");
        anyhow::Ok(())
    }
    .await;
    // Others use this replica too.
    go_on(&mut replica).await?;
    replica.close().await?;
    told?;
    edge.ended().await
}

pub async fn all_listeners_together_take_the_time_of_one() -> anyhow::Result<()> {
    const DRAIN: Duration = Duration::from_secs(3);
    let cluster = harness::shared().await?;
    let settings = [&QUIET[..], &[("GODWIT__SERVER__DRAIN_SECONDS_MAX", "3")]].concat();
    let edge = Edge::start(&cluster, &settings).await?;
    let http = client::http()?;
    let mut caller = edge.caller(&cluster)?;
    // A peer keeps its connection.
    let peer = reqwest::Client::builder().http2_prior_knowledge().build()?;
    peer.get(format!("{}/internal/v1/topology", edge.internal)).send().await?.error_for_status()?;
    // A client is not answered in time.
    edge.wire.hold(Direction::Response, true);
    let ask = caller.ask(EDGE, Method::GET, "/v1/collections/drained/items");
    let asking = ask.header("godwit-consistency", "strong").send();
    let ending = async {
        under_way(&http, &edge.ops, 1).await?;
        let told_at = now();
        edge.tell_to_end()?;
        edge.ended().await?;
        anyhow::Ok(since(told_at))
    };
    let (_, took) = tokio::join!(asking, ending);
    let took = took?;
    ensure!(took >= DRAIN && took < DRAIN + DRAIN * 2 / 3, "ended after {took:?}");
    Ok(())
}

/// They have connections to it, which stay open to the end.
pub async fn a_primary_told_to_end_takes_nothing_new_from_its_peers() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let mut caller = cluster.caller();
        for number in 0..UNDER_WAY {
            caller.create(EU, "drained", &json!({"warm": number})).await?.wants(201)?;
        }
        let facts = cluster.lab.facts().context("no facts")?;
        let pid = facts.regions[&region(US)].pids.api.context("no process")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        not_ready(&client::http()?, &cluster.region(US).ops).await?;
        let refused = caller.create(EU, "drained", &json!({"late": true})).await?;
        // Nobody takes its place; the link takes a new connection and then ends it, which leaves the
        // edge in doubt.
        let doubt = matches!(refused.problem().as_str(), "no-primary" | "outcome-unknown");
        ensure!(refused.status == 503 && doubt, "{refused}");
        ensure!(refused.header("retry-after").is_some(), "{refused}");
        gone(cluster, US).await
    })
    .await
}

/// Peers keep their connections for as long as they can; nothing is under way on them.
pub async fn a_process_with_nothing_under_way_ends_soon() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let edge = Edge::start(&cluster, &[("GODWIT__SERVER__DRAIN_SECONDS_MAX", "60")]).await?;
    let mut caller = edge.caller(&cluster)?;
    caller.create(EDGE, "drained", &json!({})).await?.wants(201)?;
    let peer = reqwest::Client::builder().http2_prior_knowledge().build()?;
    peer.get(format!("{}/internal/v1/topology", edge.internal)).send().await?.error_for_status()?;
    let told_at = now();
    edge.tell_to_end()?;
    edge.ended().await?;
    ensure!(since(told_at) < GONE, "ended after {:?}", since(told_at));
    Ok(())
}

/// Whoever sends a second one waits for nothing.
pub async fn a_process_that_is_told_twice_ends_at_once() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let settings = [&QUIET[..], &[("GODWIT__SERVER__DRAIN_SECONDS_MAX", "60")]].concat();
    let edge = Edge::start(&cluster, &settings).await?;
    let http = client::http()?;
    let mut caller = edge.caller(&cluster)?;
    edge.wire.hold(Direction::Response, true);
    let ask = caller.ask(EDGE, Method::GET, "/v1/collections/drained/items");
    let asking = ask.header("godwit-consistency", "strong").send();
    let ending = async {
        under_way(&http, &edge.ops, 1).await?;
        edge.tell_to_end()?;
        not_ready(&http, &edge.ops).await?;
        let told_at = now();
        edge.tell_to_end()?;
        edge.ended().await?;
        anyhow::Ok(since(told_at))
    };
    let (answer, took) = tokio::join!(asking, ending);
    let took = took?;
    ensure!(answer.is_err(), "it was cut off");
    ensure!(took < GONE, "ended after {took:?}");
    Ok(())
}

/// So that they go to another, where there is one, and none of them meets a closed door.
pub async fn peers_that_come_anew_are_told_of_the_end() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let settings = [&QUIET[..], &[("GODWIT__SERVER__DRAIN_SECONDS_MAX", "60")]].concat();
    let edge = Edge::start(&cluster, &settings).await?;
    let http = client::http()?;
    let mut caller = edge.caller(&cluster)?;
    let told = async |path: &str| {
        let peer = reqwest::Client::builder().http2_prior_knowledge().build()?;
        anyhow::Ok(peer.get(format!("{}{path}", edge.internal)).send().await?)
    };
    let report = async || anyhow::Ok(told("/internal/v1/topology").await?.json::<Value>().await?);
    ensure!(report().await?["ending"] == false);
    edge.wire.hold(Direction::Response, true);
    let ask = caller.ask(EDGE, Method::GET, "/v1/collections/drained/items");
    let asking = ask.header("godwit-consistency", "strong").send();
    let ending = async {
        under_way(&http, &edge.ops, 1).await?;
        edge.tell_to_end()?;
        not_ready(&http, &edge.ops).await?;
        ensure!(report().await?["ending"] == true);
        let refused = told("/v1/collections/drained/items").await?;
        ensure!(
            refused.status() == 421 && refused.headers().contains_key("godwit-ending"),
            "{refused:?}"
        );
        edge.wire.hold(Direction::Response, false);
        anyhow::Ok(())
    };
    let (answer, ended) = tokio::join!(asking, ending);
    ended?;
    answer?.wants(200)?;
    edge.ended().await
}
