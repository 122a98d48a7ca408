//! A peer that fails is left alone, and asked again as soon as it answers a probe.

use super::{
    edge::{EDGE, Edge},
    since,
};
use crate::{
    client,
    harness::{self, SOON, eventually},
};
use anyhow::ensure;
use godwit::vocab::{Clock as _, SystemClock};
use serde_json::{Value, json};
use std::time::Duration;

/// From the healing of the link until requests pass freely.
const CLOSED_AGAIN: Duration = Duration::from_secs(3);

/// What a tripped breaker costs a caller.
const AT_ONCE: Duration = Duration::from_millis(250);

/// The breaker towards the primary, as the topology and as the metrics tell it.
async fn told(http: &reqwest::Client, edge: &Edge) -> anyhow::Result<(String, String)> {
    let report = http.get(format!("{}/internal/v1/topology", edge.internal)).send().await?;
    let report: Value = report.json().await?;
    let breaker = report["peers"]["us-east-1"]["breaker"].as_str().unwrap_or_default().to_owned();
    let metrics = http.get(format!("{}/metrics", edge.ops)).send().await?.text().await?;
    let name = r#"godwit_breaker_state{peer="us-east-1"} "#;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    Ok((breaker, value.to_owned()))
}

pub async fn it_opens_is_told_and_closes_soon_after_the_link_heals() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let edge = Edge::start(&cluster, &[]).await?;
    let http = client::http()?;
    let mut caller = edge.caller(&cluster)?;
    caller.create(EDGE, "breaker", &json!({})).await?.wants(201)?;
    let (closed, closed_number) = told(&http, &edge).await?;
    ensure!(closed == "closed", "{closed}");

    edge.wire.refuse(true);
    eventually("an open breaker", SOON, async || {
        let answer = caller.create(EDGE, "breaker", &json!({})).await;
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        let (breaker, number) = told(&http, &edge).await.map_err(|error| format!("{error:#}"))?;
        let open = answer.status == 503 && breaker == "open" && number != closed_number;
        if open { Ok(()) } else { Err(format!("{breaker} {number}: {answer}")) }
    })
    .await?;
    let asked_at = SystemClock.monotonic();
    let answer = caller.create(EDGE, "breaker", &json!({})).await?;
    let took = since(asked_at);
    answer.wants_problem(503, "no-primary")?;
    ensure!(took < AT_ONCE, "refused after {took:?}");

    edge.wire.refuse(false);
    let healed_at = SystemClock.monotonic();
    eventually("a closed breaker", SOON, async || {
        let answer = caller.create(EDGE, "breaker", &json!({})).await;
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        let (breaker, _) = told(&http, &edge).await.map_err(|error| format!("{error:#}"))?;
        let works = answer.status == 201 && breaker == "closed";
        if works { Ok(()) } else { Err(format!("{breaker}: {answer}")) }
    })
    .await?;
    let took = since(healed_at);
    ensure!(took < CLOSED_AGAIN, "closed again after {took:?}");
    edge.end().await
}
