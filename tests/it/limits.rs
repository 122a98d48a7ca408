//! Rate limits, with two API processes in each region.

use crate::{
    client::{Answer, Caller},
    harness::{self, AP, Cluster, EU, SOON, US, eventually},
};
use anyhow::{Context as _, ensure};
use futures_util::future::join_all;
use godwit::{
    lab::{Spec, Target, Wan},
    vocab::{Clock as _, SystemClock},
};
use reqwest::Method;
use serde_json::json;
use std::num::NonZeroU8;

const BURST: usize = 20;
const PER_SECOND: usize = 1;
const REGISTRATIONS: usize = 4;

fn strict(spec: &mut Spec) {
    harness::patient(spec);
    spec.wan = Wan::Off;
    spec.processes = NonZeroU8::new(2).unwrap_or(NonZeroU8::MIN);
    // On a busy machine it is slow, not away.
    harness::set(spec, "GODWIT__REDIS__RESPONSE_MS_MAX", "2000");
    for bucket in ["CREDENTIAL", "REFUSED"] {
        for (what, count) in [("PER_SECOND", PER_SECOND), ("BURST", BURST)] {
            let name = format!("GODWIT__LIMITS__{bucket}__{what}");
            harness::set(spec, &name, &count.to_string());
        }
    }
    harness::set(spec, "GODWIT__LIMITS__REGISTRATION__PER_HOUR", "1");
    harness::set(spec, "GODWIT__LIMITS__REGISTRATION__BURST", &REGISTRATIONS.to_string());
    harness::set(spec, "GODWIT__IDENTITY__REGISTRATION", "closed");
}

pub async fn a_credential_has_one_bucket_in_a_region() -> anyhow::Result<()> {
    harness::own("limits", strict, async |cluster| {
        registering_is_bounded_and_can_be_closed(cluster).await.context("registering")?;
        two_processes_share_it(cluster).await.context("shared")?;
        it_is_bounded_without_redis(cluster).await.context("without Redis")?;
        guessing_is_bounded(cluster).await.context("guessing")
    })
    .await
}

/// The two processes of a region.
fn both(cluster: &Cluster, name: &str, caller: &Caller) -> anyhow::Result<[Caller; 2]> {
    let second = cluster.region(name).more.first().context("a second process")?;
    Ok([caller.clone(), caller.at_base(name, &second.public)])
}

/// `count` requests at once, by turns to each process.
async fn burst(callers: &[Caller; 2], region: &str, count: usize) -> anyhow::Result<Vec<Answer>> {
    let asks = (0..count).map(|turn| {
        let mut caller = callers[turn % 2].clone();
        async move { caller.get(region, "/v1/collections").await }
    });
    join_all(asks).await.into_iter().collect()
}

/// How many were let through; the others must say what is wrong and when to come back.
fn allowed(answers: &[Answer]) -> anyhow::Result<usize> {
    let mut allowed = 0;
    for answer in answers {
        if answer.status == 200 {
            allowed += 1;
            continue;
        }
        let refused = answer.clone().wants_problem(429, "rate-limited")?;
        let wait: u64 = refused.header("retry-after").unwrap_or_default().parse()?;
        ensure!((1..=60).contains(&wait), "{refused}");
    }
    Ok(allowed)
}

async fn two_processes_share_it(cluster: &Cluster) -> anyhow::Result<()> {
    let tenant = cluster.tenant("limits").await?;
    // What is not known in this region yet counts as a guess: the first request asks for it.
    let mut first = tenant.caller.clone();
    let answer = first.get(AP, "/v1/collections").await?.wants(200)?;
    let policy = answer.header("ratelimit-policy");
    ensure!(policy == Some("\"credential\";q=20;w=20"), "{answer}");
    let callers = both(cluster, AP, &tenant.caller)?;
    let began = SystemClock.monotonic();
    let answers = burst(&callers, AP, 80).await?;
    let took = SystemClock.monotonic() - began;
    let allowed_of_80 = allowed(&answers)?;
    let earned = usize::try_from(took.as_millis())? * PER_SECOND / 1_000 + 2;
    // A bucket for each process would let 40 through.
    ensure!(earned < BURST, "the machine was too slow to tell: {took:?}");
    ensure!(allowed_of_80 <= BURST + earned, "{allowed_of_80} of 80 within {took:?}");
    ensure!(allowed_of_80 >= BURST - 5, "only {allowed_of_80} of 80");
    let refused = answers.iter().find(|answer| answer.status == 429).context("nobody refused")?;
    let told = refused.header("ratelimit").unwrap_or_default();
    ensure!(told.starts_with("\"credential\";r=0;t="), "{refused}");
    // Another credential has its own.
    let other = cluster.key(&tenant.name, "read", 1).await?;
    cluster.caller_with(Some(other)).get(AP, "/v1/collections").await?.wants(200)?;
    // Whoever waits may go on.
    let mut again = tenant.caller.clone();
    eventually("the bucket fills again", SOON, async || {
        let answer = again.get(AP, "/v1/collections").await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
    })
    .await
}

async fn it_is_bounded_without_redis(cluster: &Cluster) -> anyhow::Result<()> {
    let redis: Target = format!("{EU}/redis").parse()?;
    let key = cluster.key("limits", "read", 1).await?;
    let caller = cluster.caller_with(Some(key));
    let callers = both(cluster, EU, &caller)?;
    // Known here, so that nothing depends on the primary.
    for caller in &callers {
        eventually("the credential is known", SOON, async || {
            let answer = caller.clone().get(EU, "/v1/collections").await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.route() == "local" { Ok(()) } else { Err(answer.to_string()) }
        })
        .await?;
    }
    cluster.lab.pause(&redis)?;
    let began = SystemClock.monotonic();
    let answers = burst(&callers, EU, 80).await?;
    let took = SystemClock.monotonic() - began;
    cluster.lab.resume(&redis)?;
    let allowed = allowed(&answers)?;
    // Each process for itself.
    ensure!((BURST..80).contains(&allowed), "{allowed} of 80 within {took:?}");
    ensure!(took < SOON, "{took:?}");
    let health = caller.clone().get(EU, "/health").await?;
    ensure!(health.status == 200, "{health}");
    eventually("Redis is asked again", SOON, async || {
        let health = caller.clone().get(EU, "/health").await.map_err(|error| error.to_string())?;
        if health.json()["status"] == "ok" { Ok(()) } else { Err(health.to_string()) }
    })
    .await
}

/// Whatever becomes of a try, it counts; and where administrators make the accounts, none is made.
async fn registering_is_bounded_and_can_be_closed(cluster: &Cluster) -> anyhow::Result<()> {
    let callers = both(cluster, EU, &cluster.caller_with(None))?;
    let body = json!({"tenant": "demo", "email": "ada@example.com", "name": "Ada",
        "password": "vex-lodestar-quibble-7"});
    let (mut closed, mut limited) = (0, 0);
    for turn in 0..12 {
        let mut caller = callers[turn % 2].clone();
        let answer = caller.ask(EU, Method::POST, "/v1/account").json(&body).send().await?;
        if answer.status == 403 {
            answer.wants_problem(403, "forbidden")?;
            closed += 1;
            continue;
        }
        let refused = answer.wants_problem(429, "rate-limited")?;
        let wait: u64 = refused.header("retry-after").unwrap_or_default().parse()?;
        ensure!((1_800..=3_600).contains(&wait), "{refused}");
        let policy = refused.header("ratelimit-policy");
        ensure!(policy == Some("\"registration\";q=4;w=14400"), "{refused}");
        limited += 1;
    }
    ensure!(closed == REGISTRATIONS, "{closed} let through, {limited} limited");
    // Whoever has a key is not held up by it.
    cluster.caller().get(EU, "/v1/collections").await?.wants(200)?;
    Ok(())
}

/// Nobody tries keys faster than this.
async fn guessing_is_bounded(cluster: &Cluster) -> anyhow::Result<()> {
    let nobody = cluster.caller_with(Some("gw_lab_guess".to_owned()));
    let answers = burst(&both(cluster, AP, &nobody)?, AP, 80).await?;
    let count = |kind: &str| answers.iter().filter(|answer| answer.problem() == kind).count();
    let (told, limited) = (count("unauthorized"), count("rate-limited"));
    ensure!(told + limited == 80 && told > 0 && told < 60, "{told} told, {limited} limited");
    // Whoever has a key is not held up by whoever shares the address.
    let key = cluster.key("limits", "read", 1).await?;
    cluster.caller_with(Some(key)).get(US, "/v1/collections").await?.wants(200)?;
    Ok(())
}
