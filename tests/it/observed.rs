//! What can be seen of it from outside: traces, metrics, log lines, cookies.

use crate::{
    collector::{Received, attribute},
    harness::{self, AP, REGIONS, SOON, US, eventually},
};
use anyhow::{Context as _, ensure};
use godwit::{telemetry::TraceContext, vocab::SystemRng};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::Method;
use serde_json::{Value, json};

const COLLECTION: &str = "observed";

/// A trace that is kept.
fn trace() -> TraceContext {
    TraceContext::root(&SystemRng, true)
}

/// One write from far away: answered at the edge, sent by the edge, answered by the primary, each
/// span the parent of the next, all of one trace, which is the caller's.
pub async fn one_write_over_two_regions_is_one_trace() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let collector = cluster.collector()?;
    let trace = trace();
    let mut caller = cluster.caller();
    let path = format!("/v1/collections/{COLLECTION}/items");
    let ask = caller.ask(AP, Method::POST, &path).header("traceparent", &trace.to_string());
    let made = ask.json(&json!({})).send().await?.wants(201)?;
    ensure!(made.route() == "forwarded", "{made}");
    let told = made.header("traceparent").and_then(TraceContext::parse).context("traceparent")?;
    ensure!(told.trace_id == trace.trace_id, "another trace: {made}");

    let spans = eventually("three spans of the write", SOON, async || {
        let spans = collector.spans(trace.trace_id);
        if spans.len() >= 3 { Ok(spans) } else { Err(format!("{spans:?}")) }
    })
    .await?;
    let below = |parent: &[u8]| -> anyhow::Result<Received> {
        let below = spans.iter().find(|one| one.span.parent_span_id == parent);
        below.cloned().with_context(|| format!("no child of {}: {spans:?}", hex::encode(parent)))
    };
    let edge = below(&trace.span_id)?;
    ensure!(edge.span.kind() == SpanKind::Server && edge.region == AP, "{edge:?}");
    ensure!(edge.span.span_id == told.span_id, "the answer names another span");
    let hop = below(&edge.span.span_id)?;
    ensure!(hop.span.kind() == SpanKind::Client, "{hop:?}");
    let primary = below(&hop.span.span_id)?;
    ensure!(primary.span.kind() == SpanKind::Server && primary.region == US, "{primary:?}");
    for server in [&edge, &primary] {
        let route = attribute(&server.span, "http.route");
        ensure!(route.as_deref() == Some("/v1/collections/{collection}/items"), "{server:?}");
    }
    for (outer, inner) in [(&edge, &hop), (&hop, &primary)] {
        let (outer, inner) = (&outer.span, &inner.span);
        let within = outer.start_time_unix_nano <= inner.start_time_unix_nano
            && inner.end_time_unix_nano <= outer.end_time_unix_nano;
        ensure!(within, "a child is not within its parent's time: {outer:?} {inner:?}");
    }
    Ok(())
}

/// The names of `shared/contract.md`.
const METRICS: [&str; 13] = [
    "godwit_http_requests_total{region,route,method,status}",
    "godwit_http_request_seconds{region,route}",
    "godwit_replication_lag_seconds{region}",
    "godwit_replication_lag_bytes{region}",
    "godwit_epoch",
    "godwit_region_role{role}",
    "godwit_forward_seconds{peer}",
    "godwit_breaker_state{peer}",
    "godwit_db_pool_connections{pool,state}",
    "godwit_bookmark_wait_seconds",
    "godwit_bookmarks_lost_total",
    "godwit_queue_depth{state}",
    "godwit_session_lookups_total{where}",
];

pub async fn every_metric_of_the_contract_is_there() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut caller = cluster.caller();
    for region in REGIONS {
        caller.create(region, COLLECTION, &json!({})).await?.wants(201)?;
        let ops = cluster.region(region).ops.clone();
        let metrics = caller.at_base(region, &ops).get(region, "/metrics").await?.wants(200)?;
        let text = String::from_utf8(metrics.body.to_vec())?;
        for wanted in METRICS {
            let (name, labels) = wanted.split_once('{').unwrap_or((wanted, ""));
            let mut samples = text.lines().filter(|line| {
                let rest = line.strip_prefix(name).unwrap_or_default();
                ["{", " ", "_bucket{", "_count"].iter().any(|next| rest.starts_with(next))
            });
            let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
            let labels: Vec<_> = labels.map(|label| format!("{label}=\"")).collect();
            let found =
                samples.any(|line| labels.iter().all(|label| line.contains(label.as_str())));
            ensure!(found, "{region}: no {wanted}");
        }
        let role = if region == US { "primary" } else { "replica" };
        let line = format!("godwit_region_role{{role=\"{role}\"}} 1");
        ensure!(text.contains(&line), "{region}: not {role}");
        // Never by who asks.
        let key = caller.key.clone().context("a key")?;
        ensure!(!text.contains(&key) && !text.contains(COLLECTION), "{region}: tells of a caller");
        // Not for the public.
        caller.get(region, "/metrics").await?.wants_problem(404, "not-found")?;
    }
    Ok(())
}

pub async fn each_request_is_one_line() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let trace = trace();
    let mut caller = cluster.caller();
    let path = format!("/v1/collections/{COLLECTION}/items?secret=hidden");
    let ask = caller.ask(AP, Method::POST, &path).header("traceparent", &trace.to_string());
    let made = ask.json(&json!({"word": "discreet"})).send().await?.wants(201)?;
    let id = trace.trace_id_hex().to_string();
    let mut lines = Vec::new();
    for region in REGIONS {
        let wanted = usize::from(region != harness::EU);
        let found = eventually("a line of the request", SOON, async || {
            let log = cluster.log(region).map_err(|error| error.to_string())?;
            let log = log.into_iter().filter(|line| line["fields"]["trace.id"] == id.as_str());
            let found: Vec<Value> = log.collect();
            if found.len() == wanted { Ok(found) } else { Err(format!("{found:?}")) }
        });
        lines.extend(found.await.context(region)?);
    }
    let key = caller.key.clone().context("a key")?;
    for (line, (region, decision)) in lines.iter().zip([(US, "local"), (AP, "forwarded")]) {
        let fields = &line["fields"];
        ensure!(line["level"] == "INFO" && line["target"] == "request", "{line}");
        ensure!(line["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{line}");
        ensure!(fields["http.method"] == "POST" && fields["http.status"] == 201, "{line}");
        ensure!(fields["http.route"] == "/v1/collections/{collection}/items", "{line}");
        ensure!(fields["http.path"] == format!("/v1/collections/{COLLECTION}/items"), "{line}");
        ensure!(fields["region"] == region && fields["decision"] == decision, "{line}");
        ensure!(
            fields["bookmark.out"] == made.header("godwit-bookmark").unwrap_or_default(),
            "{line}"
        );
        ensure!(fields["request.bytes"] == r#"{"word":"discreet"}"#.len(), "{line}");
        for name in ["duration.us", "response.bytes", "epoch"] {
            ensure!(fields[name].is_u64(), "{name}: {line}");
        }
        for name in ["principal", "tenant", "op.id", "peer.address"] {
            ensure!(fields[name].is_string(), "{name}: {line}");
        }
        let text = line.to_string();
        for secret in [key.as_str(), "hidden", "discreet"] {
            ensure!(!text.contains(secret), "the log tells {secret}: {line}");
        }
    }
    Ok(())
}

/// A refusal's line says what was wrong.
pub async fn a_refusal_is_told_in_its_line() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut nobody = cluster.caller_with(Some("gw_lab_garbage".to_owned()));
    let mut late = cluster.caller();
    late.bookmark = Some("1-63-1".to_owned());
    let mut careless = cluster.caller();
    let list = "/v1/collections";
    let item = crate::client::item(COLLECTION, "0193a0de-0000-7000-8000-000000000000");
    for (caller, region, method, path, kind, decision) in [
        (&mut nobody, US, Method::GET, list, "unauthorized", "refused"),
        (&mut late, US, Method::GET, list, "bookmark-invalid", "refused"),
        // Refused by the primary, told by both.
        (&mut careless, AP, Method::PUT, &item, "precondition-required", "forwarded"),
    ] {
        let trace = trace();
        let ask = caller.ask(region, method, path);
        let answer = ask.header("traceparent", &trace.to_string()).send().await?;
        ensure!(answer.problem() == kind, "{answer}");
        let id = trace.trace_id_hex().to_string();
        let line = eventually("a line of the refusal", SOON, async || {
            let log = cluster.log(region).map_err(|error| error.to_string())?;
            let line = log.into_iter().find(|line| line["fields"]["trace.id"] == id.as_str());
            line.ok_or_else(|| "none".to_owned())
        })
        .await?;
        let fields = &line["fields"];
        ensure!(fields["problem"] == kind && fields["decision"] == decision, "{line}");
    }
    Ok(())
}

/// A browser cannot set the header; its session is just as true.
pub async fn a_browser_gets_its_bookmark_as_a_cookie() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let path = format!("/v1/collections/{COLLECTION}/items");
    for _ in 0..10 {
        let mut browser = cluster.caller();
        let ask = browser.ask(US, Method::POST, &path).header("sec-fetch-mode", "cors");
        let made = ask.json(&json!({})).send().await?.wants(201)?;
        let cookie = made.header("set-cookie").context("no cookie")?.to_owned();
        let (pair, attributes) = cookie.split_once(';').context("a cookie without attributes")?;
        ensure!(pair == format!("godwit_bookmark={}", made.at()?), "{cookie}");
        for attribute in ["HttpOnly", "SameSite=Lax", "Path=/"] {
            ensure!(attributes.contains(attribute), "{cookie}");
        }
        let item = crate::client::item(COLLECTION, &made.id()?);
        let ask = browser.ask(AP, Method::GET, &item).without("godwit-bookmark");
        let read = ask.header("cookie", &format!("theme=dark; {pair}")).send().await?.wants(200)?;
        ensure!(read.header("set-cookie").is_some(), "{read}");
        // A cookie that is none of ours is not the user's fault.
        let ask = browser.ask(AP, Method::GET, &item).without("godwit-bookmark");
        ask.header("cookie", "godwit_bookmark=garbage").send().await?.wants(200)?;
    }
    // Who is no browser gets no cookie.
    let made = cluster.caller().create(US, COLLECTION, &json!({})).await?.wants(201)?;
    ensure!(made.header("set-cookie").is_none(), "{made}");
    Ok(())
}
