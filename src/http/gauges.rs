//! What is measured when it is asked for: `/metrics`.

use super::app::App;
use crate::{
    routing::breaker::BreakerState,
    storage::migrate::SchemaStanding,
    telemetry::metrics::{Breaker, Pool, Role as RoleLabel, Schema},
    topology::Role,
};
use actix_web::{HttpResponse, web::Data};

/// `GET /metrics`
pub async fn metrics(app: Data<App>) -> HttpResponse {
    refresh(&app);
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(app.metrics.encode())
}

fn refresh(app: &App) {
    let now = app.clock.monotonic();
    let snapshot = app.topology.look(Clone::clone);
    let lag = snapshot.lag;
    app.metrics.set_lag(&app.region, lag.map(|lag| lag.bound(now)), lag.and_then(|lag| lag.bytes));
    if let Some(epoch) = snapshot.epoch_highest() {
        app.metrics.set_epoch(epoch);
    }
    app.metrics.set_role(match snapshot.own.as_ref().map(|own| own.role) {
        Some(Role::Primary) => RoleLabel::Primary,
        Some(Role::Replica) => RoleLabel::Replica,
        None => RoleLabel::Unknown,
    });
    let left = snapshot.lease.map(|lease| lease.until.saturating_duration_since(now));
    app.metrics.set_lease(left.unwrap_or_default());
    app.metrics.set_quarantined(snapshot.quarantine().is_some());
    for tls in app.certificates.each() {
        app.metrics.set_certificate(tls.certificate, tls.ends_at());
    }
    app.metrics.set_schema(match app.schema.look() {
        Some(SchemaStanding::Current) => Schema::Current,
        Some(SchemaStanding::Newer) => Schema::Newer,
        Some(SchemaStanding::Old { .. }) => Schema::Old,
        None => Schema::Unknown,
    });
    for pool in app.global.pools() {
        let label = match pool.pool {
            "write" => Pool::Write,
            "read" => Pool::Read,
            _ => Pool::Watch,
        };
        app.metrics.set_pool(label, pool.idle.into(), pool.used.into(), pool.max.into());
    }
    for (region, peer) in &snapshot.peers {
        let metrics = app.metrics.peer(region);
        metrics.set_reachable(app.topology.reachable(peer));
        metrics.set_breaker(match app.forwarder.breaker_state(region, now) {
            Some(BreakerState::Closed) => Breaker::Closed,
            Some(BreakerState::HalfOpen) => Breaker::HalfOpen,
            Some(BreakerState::Open) | None => Breaker::Open,
        });
    }
}
