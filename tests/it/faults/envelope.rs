//! What one region believes of another, and what it never tells.

use super::{
    edge::{EDGE, Edge},
    since,
};
use crate::{
    client,
    harness::{self, Cluster, EU, US, region},
};
use actix_web::{HttpRequest, HttpResponse, HttpServer, web};
use anyhow::{Context as _, ensure};
use godwit::{
    config::Config,
    routing::envelope::{self, Bearer, Envelope, Sealer},
    topology::probe,
    vocab::{ApiKeyId, Clock as _, Epoch, IdempotencyKey, SystemClock},
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

const BODY: &str = r#"{"n":1}"#;

/// Seals as a region of this cluster does.
struct Peer {
    sealer: Sealer,
    http: reqwest::Client,
    bearer: Bearer,
    path: String,
}

impl Peer {
    async fn of(cluster: &Cluster, collection: &str) -> anyhow::Result<Self> {
        let config = Config::load(Some(&cluster.lab.config(&region(EU))))?;
        // The first of its keys: the one the laboratory made.
        let keys = cluster.caller().get(US, "/v1/admin/keys").await?.wants(200)?.json();
        let id: ApiKeyId = serde_json::from_value(keys["items"][0]["id"].clone())?;
        Ok(Self {
            sealer: Sealer::new(&config.cluster, 30),
            http: client::http()?,
            bearer: Bearer::Key(id),
            path: format!("/v1/collections/{collection}/items"),
        })
    }

    /// Of a create, as it should be.
    fn envelope(&self, key: &str) -> anyhow::Result<Envelope> {
        Ok(Envelope {
            from: region(EU),
            to: region(US),
            epoch: Epoch::FIRST,
            method: "POST".into(),
            path: self.path.clone(),
            body: envelope::body_digest(BODY.as_bytes()),
            bearer: self.bearer.clone(),
            key: Some(key.parse::<IdempotencyKey>()?),
            bookmark: None,
            consistency: "session".into(),
            // Good for as long as the test may take.
            remaining_ms: 30_000,
            sealed_at: SystemClock.now(),
        })
    }

    /// Sends the create to an internal listener.
    async fn send(&self, base: &str, sealed: Option<&str>) -> anyhow::Result<(u16, Value, bool)> {
        let mut request = self.http.post(format!("{base}{}", self.path)).body(BODY);
        request = request.header("content-type", "application/json");
        if let Some(sealed) = sealed {
            request = request.header(envelope::HEADER, sealed);
        }
        let answer = request.send().await?;
        let replayed = answer.headers().contains_key("idempotency-replayed");
        Ok((answer.status().as_u16(), answer.json().await?, replayed))
    }
}

async fn count(cluster: &Cluster, collection: &str) -> anyhow::Result<usize> {
    let path = format!("/v1/collections/{collection}/items?limit=200");
    let list = cluster.caller().get(US, &path).await?.wants(200)?.json();
    Ok(list["items"].as_array().context("no items")?.len())
}

/// A collection that no other run of this test has used.
fn fresh(name: &str) -> String {
    format!("{name}-{}", SystemClock.now().timestamp_micros())
}

pub async fn a_forwarded_request_is_believed_only_as_it_was_sealed() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let collection = fresh("envelope");
    let peer = Peer::of(&cluster, &collection).await?;
    let base = &cluster.region(US).internal;
    let good = peer.envelope("k")?;
    let seal = |envelope: Envelope| peer.sealer.seal(&envelope);
    let sealed = seal(good.clone());
    let mut forged = sealed.clone();
    forged
        .replace_range(sealed.len() - 4.., if sealed.ends_with("AAAA") { "BBBB" } else { "AAAA" });
    let late = good.sealed_at - chrono::Duration::seconds(40);
    let overdue = good.sealed_at - chrono::Duration::seconds(10);
    let overdue = Envelope { sealed_at: overdue, remaining_ms: 5_000, ..good.clone() };
    let early = good.sealed_at + chrono::Duration::seconds(40);
    let other = envelope::body_digest(b"{}");
    let distrusted = [
        ("none", None),
        ("garbage", Some("lab.x.y".to_owned())),
        ("empty", Some(String::new())),
        ("forged", Some(forged)),
        ("of another key", Some(sealed.replacen("lab", "bal", 1))),
        ("expired", Some(seal(Envelope { sealed_at: late, ..good.clone() }))),
        ("no longer waited for", Some(seal(overdue))),
        ("from the future", Some(seal(Envelope { sealed_at: early, ..good.clone() }))),
        ("for another region", Some(seal(Envelope { to: region(EU), ..good.clone() }))),
        ("for another method", Some(seal(Envelope { method: "PUT".into(), ..good.clone() }))),
        ("for another path", Some(seal(Envelope { path: "/v1/x".into(), ..good.clone() }))),
        ("for another body", Some(seal(Envelope { body: other, ..good.clone() }))),
        ("without a key", Some(seal(Envelope { key: None, ..good.clone() }))),
    ];
    for (what, sealed) in distrusted {
        let (status, body, _) = peer.send(base, sealed.as_deref()).await?;
        let refused = status == 403 && body["type"] == "urn:godwit:problem:untrusted";
        ensure!(refused, "an envelope {what}: {status} {body}");
    }
    let elsewhen = Envelope { epoch: Epoch::new(2).context("an epoch")?, ..good.clone() };
    let elsewhere = Envelope { to: region(EU), ..good.clone() };
    for (base, envelope) in [(base, elsewhen), (&cluster.region(EU).internal, elsewhere)] {
        let (status, body, _) = peer.send(base, Some(&seal(envelope))).await?;
        ensure!(status == 421 && body["type"] == "urn:godwit:problem:fenced", "{status} {body}");
    }
    ensure!(count(&cluster, &collection).await? == 0, "a refused request had an effect");

    let (status, made, replayed) = peer.send(base, Some(&sealed)).await?;
    ensure!(status == 201 && !replayed, "{status} {made}");
    let (status, again, replayed) = peer.send(base, Some(&sealed)).await?;
    ensure!(status == 201 && replayed && again == made, "{status} {again}");
    ensure!(count(&cluster, &collection).await? == 1, "a replay had an effect");
    Ok(())
}

pub async fn the_public_listener_knows_no_envelope() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let collection = fresh("inbound");
    let peer = Peer::of(&cluster, &collection).await?;
    for name in [US, EU] {
        let base = &cluster.region(name).public;
        let sealed = peer.sealer.seal(&Envelope { to: region(name), ..peer.envelope("k")? });
        let (status, body, _) = peer.send(base, Some(&sealed)).await?;
        ensure!(status == 401, "{name}: {status} {body}");
    }
    // Nor does it stand in for who really asks.
    let other = cluster.tenant(&fresh("other")).await?;
    let mut caller = other.caller;
    for name in [US, EU] {
        let sealed = peer.sealer.seal(&Envelope { to: region(name), ..peer.envelope("k")? });
        let ask = caller.ask(name, reqwest::Method::POST, &peer.path);
        let ask = ask.header(envelope::HEADER, &sealed).body("application/json", BODY);
        let made = ask.send().await?.wants(201)?;
        caller.read(name, &collection, &made.id()?).await?.wants(200)?;
    }
    ensure!(count(&cluster, &collection).await? == 0, "the envelope's tenant was believed");
    Ok(())
}

/// A request's header fields, and its first line as `request`.
type Heard = Vec<(String, String)>;

/// Stands where the primary's internal listener is: passes the topology on and keeps all else.
#[derive(Clone)]
struct Recorder {
    real: String,
    http: reqwest::Client,
    seen: Arc<Mutex<Vec<Heard>>>,
}

async fn topology(recorder: web::Data<Recorder>) -> HttpResponse {
    let url = format!("{}{}", recorder.real, probe::PATH);
    let Ok(answer) = recorder.http.get(url).send().await else {
        return HttpResponse::BadGateway().finish();
    };
    match answer.bytes().await {
        Ok(body) => HttpResponse::Ok().content_type("application/json").body(body),
        Err(_) => HttpResponse::BadGateway().finish(),
    }
}

async fn record(recorder: web::Data<Recorder>, request: HttpRequest) -> HttpResponse {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), text(value.as_bytes())));
    let line = ("request".to_owned(), format!("{} {}", request.method(), request.uri()));
    let seen = headers.chain([line]).collect();
    recorder.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    HttpResponse::ServiceUnavailable().json(json!({"type": "urn:godwit:problem:unavailable"}))
}

/// Runs `test` with a recorder in the primary's place.
async fn recorded(
    cluster: &Cluster,
    test: impl AsyncFnOnce(&Edge) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Heard>> {
    let recorder = Recorder {
        real: cluster.region(US).internal.clone(),
        http: client::http()?,
        seen: Arc::default(),
    };
    let data = web::Data::new(recorder.clone());
    let server = HttpServer::new(move || {
        actix_web::App::new()
            .app_data(data.clone())
            .route(probe::PATH, web::get().to(topology))
            .default_service(web::to(record))
    });
    let server = server.workers(1).disable_signals().bind_auto_h2c("127.0.0.1:0")?;
    let address = server.addrs()[0];
    tokio::select! {
        ended = server.run() => ended?,
        done = async {
            let edge = Edge::start_towards(cluster, address, &[]).await?;
            test(&edge).await?;
            edge.end().await
        } => done?,
    }
    Ok(recorder.seen.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

pub async fn a_credential_never_leaves_the_edge() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let key = cluster.facts.tenant.as_ref().context("a tenant")?.api_key.clone();
    // Known nowhere: the edge asks the primary about it.
    let stranger = cluster.key("demo", "read", 1).await?;
    let secrets = [key, stranger.clone()];
    let seen = recorded(&cluster, async |edge| {
        let mut caller = edge.caller(&cluster)?;
        let began = SystemClock.monotonic();
        for _ in 0..3 {
            let path = "/v1/collections/x/items";
            let ask = caller.ask(EDGE, reqwest::Method::POST, path).json(&json!({}));
            ask.header("cookie", "godwit_bookmark=1-1-1; other=secret").send().await?;
            let ask = caller.ask(EDGE, reqwest::Method::GET, path);
            ask.header("godwit-consistency", "strong").send().await?;
        }
        caller.key = Some(stranger);
        caller.get(EDGE, "/v1/collections/x/items").await?;
        ensure!(since(began) < Duration::from_secs(20), "the recorder was slow");
        Ok(())
    })
    .await?;
    ensure!(seen.len() >= 6, "only {} requests were forwarded", seen.len());
    for request in &seen {
        ensure!(request.iter().any(|(name, _)| name == envelope::HEADER), "{request:?}");
        for (name, value) in request {
            let told = name == "authorization"
                || name == "cookie"
                || secrets.iter().any(|secret| value.contains(secret))
                || value.contains("secret");
            ensure!(!told, "{name}: {value}");
        }
    }
    Ok(())
}
