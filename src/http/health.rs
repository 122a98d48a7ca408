//! Health, as kubelets, balancers and Route 53 ask for it.
//!
//! Liveness looks at nothing but the process. Readiness and `/health` are 200 while users are well
//! served here: a region without its primary is degraded, not down, because its reads go on. Only
//! what another region would do better is an error.

use super::{app::App, headers::writes_word, internal::millis};
use crate::{
    routing::PrimaryView,
    storage::migrate::SchemaStanding,
    topology::{Quarantine, Role, Snapshot, control::namesakes},
    vocab::{Epoch, Region},
};
use actix_web::{HttpResponse, web::Data};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Degraded,
    Error,
}

#[derive(Serialize)]
struct Health<'a> {
    status: Status,
    region: &'a Region,
    role: Option<Role>,
    epoch: Option<Epoch>,
    checks: BTreeMap<&'static str, Check>,
}

#[derive(Serialize)]
struct Check {
    status: Status,
    #[serde(flatten)]
    facts: Value,
}

fn check(status: Status, facts: Value) -> Check {
    Check { status, facts }
}

/// `/api/health/liveness`
pub async fn liveness(app: Data<App>) -> HttpResponse {
    let checks = BTreeMap::from([("process", check(Status::Ok, json!({ "id": app.process })))]);
    answer(&app, checks, Status::Ok)
}

/// `/api/health/readiness`
pub async fn readiness(app: Data<App>) -> HttpResponse {
    let checks = checks(&app, Status::Error).await;
    let worst = worst(&checks);
    answer(&app, checks, worst)
}

/// `/api/health/startup`
pub async fn startup(app: Data<App>) -> HttpResponse {
    let known = app.topology.look(|snapshot| snapshot.own.is_some());
    let schema = app.schema.look().is_some_and(SchemaStanding::suffices);
    let status = if known && schema { Status::Ok } else { Status::Error };
    let facts = json!({ "position_known": known, "schema": app.schema.describe() });
    answer(&app, BTreeMap::from([("startup", check(status, facts))]), status)
}

/// `/health`: should this region get traffic? Redis away costs shared rate limits, nothing a user
/// would go to another continent for.
pub async fn region(app: Data<App>) -> HttpResponse {
    let checks = checks(&app, Status::Degraded).await;
    let worst = worst(&checks);
    answer(&app, checks, worst)
}

fn worst(checks: &BTreeMap<&'static str, Check>) -> Status {
    checks.values().map(|check| check.status).max().unwrap_or(Status::Ok)
}

fn answer(app: &App, checks: BTreeMap<&'static str, Check>, status: Status) -> HttpResponse {
    let (role, epoch) = app
        .topology
        .look(|snapshot| (snapshot.own.as_ref().map(|own| own.role), snapshot.epoch_highest()));
    let health = Health { status, region: &app.region, role, epoch, checks };
    let mut response = match status {
        Status::Ok | Status::Degraded => HttpResponse::Ok(),
        Status::Error => HttpResponse::ServiceUnavailable(),
    };
    if status == Status::Error {
        response.insert_header(("retry-after", "1"));
    }
    response.insert_header(("cache-control", "no-store")).json(health)
}

async fn checks(app: &App, without_redis: Status) -> BTreeMap<&'static str, Check> {
    let redis = match app.redis.ping().await {
        Ok(()) => check(Status::Ok, json!({})),
        Err(error) => check(without_redis, json!({ "reason": error.to_string() })),
    };
    let snapshot = app.topology.look(Clone::clone);
    let primary = app.primary();
    let draining = if app.draining.is_cancelled() { Status::Error } else { Status::Ok };
    BTreeMap::from([
        ("database", database(&snapshot)),
        ("primary", primary_check(&primary)),
        ("process", check(draining, json!({ "draining": draining == Status::Error }))),
        ("redis", redis),
        ("replication", replication(app, &snapshot, &primary)),
        ("schema", schema(app)),
    ])
}

fn database(snapshot: &Snapshot) -> Check {
    match &snapshot.own {
        Some(own) => check(Status::Ok, json!({ "position": own.position() })),
        None => check(
            Status::Error,
            json!({ "position": null, "reason": "the database does not answer" }),
        ),
    }
}

fn primary_check(primary: &PrimaryView) -> Check {
    let (status, region) = match primary {
        PrimaryView::Here(_) => (Status::Ok, None),
        PrimaryView::Peer(region, _) => (Status::Ok, Some(region)),
        PrimaryView::Tripped(region) | PrimaryView::Fenced(region) => {
            (Status::Degraded, Some(region))
        }
        PrimaryView::Unknown => (Status::Degraded, None),
    };
    check(status, json!({ "writes": writes_word(primary), "region": region }))
}

fn replication(app: &App, snapshot: &Snapshot, primary: &PrimaryView) -> Check {
    let lag = snapshot.lag;
    let lag_ms = lag.map(|lag| millis(lag.bound(app.clock.monotonic())));
    let own = snapshot.own.as_ref();
    let (status, reason) = match own {
        None => (Status::Error, Some("the database does not answer")),
        Some(_) if snapshot.quarantine().is_some() => {
            (Status::Error, snapshot.quarantine().map(Quarantine::reason))
        }
        Some(own) if Some(own.epoch()) < snapshot.epoch_highest() => {
            (Status::Error, Some("behind the cluster's epoch"))
        }
        Some(own) if own.role == Role::Primary => match app.topology.standbys() {
            Some(standbys) if !namesakes(&standbys).is_empty() => {
                (Status::Degraded, Some("two standbys go by one name"))
            }
            _ => (Status::Ok, None),
        },
        Some(own) if own.streaming == Some(true) => (Status::Ok, None),
        // The primary is there and yet nothing streams: other regions are fresher. Just after a
        // link has healed the receiver needs a moment, so the lag decides.
        Some(_)
            if matches!(primary, PrimaryView::Peer(..))
                && lag_ms.is_none_or(|ms| ms > app.config.topology.ready_lag_ms_max) =>
        {
            (Status::Error, Some("not streaming, though the primary answers"))
        }
        Some(_) => (Status::Degraded, Some("not streaming")),
    };
    let facts = json!({
        "lag_ms": lag_ms,
        "lag_bytes": lag.and_then(|lag| lag.bytes),
        "streaming": own.and_then(|own| own.streaming),
        "reason": reason,
    });
    check(status, facts)
}

fn schema(app: &App) -> Check {
    let status = match app.schema.look() {
        Some(standing) if standing.suffices() => Status::Ok,
        Some(_) | None => Status::Error,
    };
    check(status, json!({ "standing": app.schema.describe() }))
}
