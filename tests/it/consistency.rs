//! What a caller can ask of a read, on a replica that is late.

use crate::{
    client::{Answer, Caller},
    harness::{self, AP, Cluster, SOON, US, eventually, region},
};
use anyhow::{Context as _, ensure};
use godwit::{
    identity::ApiKeySecret,
    lab::{Spec, Target, Wan},
    vocab::{Clock as _, Op, OpKind, SystemClock},
};
use reqwest::Method;
use serde_json::json;

const COLLECTION: &str = "consistency";
/// Further than a read waits for its bookmark.
const LATE_MS: u64 = 1_200;
/// Less far than that, and further than the bound that is asked for.
const A_LITTLE_LATE_MS: u64 = 200;

pub async fn a_delayed_replica_answers_as_it_is_asked() -> anyhow::Result<()> {
    let near = |spec: &mut Spec| {
        harness::patient(spec);
        spec.wan = Wan::Off;
    };
    harness::own("consistency", near, async |cluster| {
        while_it_is_late(cluster).await.context("late")?;
        while_it_is_a_little_late(cluster).await.context("a little late")?;
        once_it_is_near(cluster).await.context("near")?;
        garbage_costs_no_look_up(cluster).await.context("garbage")
    })
    .await
}

async fn read(caller: &mut Caller, id: &str, consistency: &str) -> anyhow::Result<Answer> {
    let path = crate::client::item(COLLECTION, id);
    let ask = caller.ask(AP, Method::GET, &path);
    ask.header("godwit-consistency", consistency).send().await
}

fn from(answer: &Answer, route: &str, region: &str) -> anyhow::Result<()> {
    let is = answer.route() == route
        && answer.header("godwit-region") == Some(region)
        && answer.header("godwit-epoch") == Some("1");
    ensure!(is, "not {route} from {region}: {answer}");
    // Who asked the primary need not know how late the replica is.
    ensure!(answer.header("godwit-lag-ms").is_some() == (route != "forwarded"), "{answer}");
    Ok(())
}

fn lag_ms(answer: &Answer) -> anyhow::Result<u64> {
    let lag = answer.header("godwit-lag-ms").and_then(|lag| lag.parse().ok());
    lag.with_context(|| format!("no Godwit-Lag-Ms: {answer}"))
}

async fn while_it_is_late(cluster: &Cluster) -> anyhow::Result<()> {
    let mut caller = cluster.caller();
    let old = caller.create(US, COLLECTION, &json!({})).await?.wants(201)?.id()?;
    // The credential and the item are known there before the distance grows.
    caller.read(AP, COLLECTION, &old).await?.wants(200)?;
    cluster.lab.delay(&region(US), &region(AP), LATE_MS)?;
    eventually("the lag is measured", SOON, async || {
        let read = read(&mut caller.fresh(), &old, "eventual").await;
        let lag = read.and_then(|read| lag_ms(&read)).map_err(|error| error.to_string())?;
        if lag >= LATE_MS / 2 { Ok(()) } else { Err(format!("{lag} ms")) }
    })
    .await?;

    // Who wants no more than there is gets it, whatever bookmark they hold. A machine that takes
    // longer to ask than the write takes to arrive gets another chance.
    let unaware = caller.fresh();
    eventually("the replica shows that it is late", SOON, async || {
        local_and_late(cluster).await.map_err(|error| format!("{error:#}"))
    })
    .await?;
    // With its bookmark a read waits, and when that takes too long asks the primary; within a bound
    // it is not behind the bookmark either.
    for consistency in ["session", "bounded;ms=60000"] {
        let (new, mut aware) = write(cluster).await?;
        let answer = read(&mut aware, &new, consistency).await?.wants(200)?;
        from(&answer, "forwarded", US).context(consistency)?;
    }
    // Without one, who wants the newest, or newer than what is here, asks the primary.
    for consistency in ["strong", "bounded;ms=100"] {
        let (new, aware) = write(cluster).await?;
        let answer = read(&mut aware.fresh(), &new, consistency).await?.wants(200)?;
        from(&answer, "forwarded", US).context(consistency)?;
    }
    let answer = read(&mut unaware.clone(), &old, "bounded;ms=60000").await?.wants(200)?;
    from(&answer, "local", AP)?;
    ensure!((LATE_MS / 2..60_000).contains(&lag_ms(&answer)?), "{answer}");
    Ok(())
}

async fn local_and_late(cluster: &Cluster) -> anyhow::Result<()> {
    let (new, aware) = write(cluster).await?;
    let (mut one, mut two, mut three) = (aware.fresh(), aware.fresh(), aware);
    let (one, two, three) = tokio::try_join!(
        read(&mut one, &new, "eventual"),
        read(&mut two, &new, "session"),
        read(&mut three, &new, "eventual"),
    )?;
    for answer in [one, two, three] {
        from(&answer.wants(404)?, "local", AP)?;
    }
    Ok(())
}

/// A new item at the primary, and the session that made it.
async fn write(cluster: &Cluster) -> anyhow::Result<(String, Caller)> {
    let mut caller = cluster.caller();
    let made = caller.create(US, COLLECTION, &json!({})).await?.wants(201)?;
    Ok((made.id()?, caller))
}

/// A bookmark does not stretch a bound, though the replica comes to it within the wait.
async fn while_it_is_a_little_late(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.lab.delay(&region(US), &region(AP), A_LITTLE_LATE_MS)?;
    let mut waited = 0;
    for _ in 0..50 {
        let (new, mut aware) = write(cluster).await?;
        let answer = read(&mut aware, &new, "session").await?.wants(200)?;
        waited += usize::from(answer.route() == "waited");
        let (new, mut aware) = write(cluster).await?;
        let answer = read(&mut aware, &new, "bounded;ms=20").await?.wants(200)?;
        let fresh = answer.route() == "forwarded" || lag_ms(&answer)? <= 20;
        ensure!(fresh, "{answer}");
    }
    ensure!(waited > 0, "no read had to wait for its bookmark");
    Ok(())
}

async fn once_it_is_near(cluster: &Cluster) -> anyhow::Result<()> {
    let mut caller = cluster.caller();
    cluster.lab.delay(&region(US), &region(AP), 0)?;
    let new = caller.create(US, COLLECTION, &json!({})).await?.wants(201)?.id()?;
    eventually("it has caught up", SOON, async || {
        let read = read(&mut caller.fresh(), &new, "eventual").await;
        let read = read.map_err(|error| error.to_string())?;
        if read.status == 200 { Ok(()) } else { Err(read.to_string()) }
    })
    .await?;
    eventually("the lag is small again", SOON, async || {
        let read = read(&mut caller.fresh(), &new, "bounded;ms=1000").await;
        let read = read.map_err(|error| error.to_string())?;
        from(&read, "local", AP).map_err(|error| error.to_string())
    })
    .await?;
    // A short wait is enough now, and most of the time not even that.
    let mut waited = 0;
    for _ in 0..100 {
        let new = caller.create(US, COLLECTION, &json!({})).await?.wants(201)?.id()?;
        let answer = read(&mut caller, &new, "session").await?.wants(200)?;
        waited += usize::from(answer.route() == "waited");
        ensure!(matches!(answer.route(), "local" | "waited"), "{answer}");
    }
    ensure!(waited > 0, "a hundred reads right after their writes, and none had to wait");
    // The primary itself is never late.
    let path = crate::client::item(COLLECTION, &new);
    for consistency in ["strong", "bounded;ms=0", "session", "eventual"] {
        let ask = caller.ask(US, Method::GET, &path).header("godwit-consistency", consistency);
        let answer = ask.send().await?.wants(200)?;
        ensure!(answer.route() == "local" || answer.route() == "waited", "{answer}");
        ensure!(lag_ms(&answer)? == 0, "{answer}");
    }
    Ok(())
}

/// With the database stopped, what cannot be a key is refused at once, and what could be one is
/// asked for elsewhere.
async fn garbage_costs_no_look_up(cluster: &Cluster) -> anyhow::Result<()> {
    let op = Op::system(OpKind::Test, SOON);
    let made_up = ApiKeySecret::mint(&op, "lab")?.reveal().to_owned();
    let mut mistyped = made_up.clone();
    let last = mistyped.pop().context("a key has characters")?;
    mistyped.push(if last == 'a' { 'b' } else { 'a' });
    let postgres: Target = format!("{AP}/postgres").parse()?;
    cluster.lab.pause(&postgres)?;
    let began = SystemClock.monotonic();
    for key in [mistyped.as_str(), "gw_lab_x", "garbage", "gw__", "é", "gw_lab_{}"] {
        for _ in 0..10 {
            let mut nobody = cluster.caller_with(Some(key.to_owned()));
            let answer = nobody.get(AP, "/v1/collections").await?;
            answer.wants_problem(401, "unauthorized").context(key.to_owned())?;
        }
    }
    let took = SystemClock.monotonic() - began;
    cluster.lab.resume(&postgres)?;
    ensure!(took < SOON, "60 refusals took {took:?}");
    // What is well formed is no key either, but that takes someone who knows.
    let mut nobody = cluster.caller_with(Some(made_up));
    eventually("an unknown key is refused", SOON, async || {
        let answer = nobody.get(AP, "/v1/collections").await.map_err(|error| error.to_string())?;
        if answer.problem() == "unauthorized" { Ok(()) } else { Err(answer.to_string()) }
    })
    .await
}
