//! What one region tells another: `/internal/v1/topology`.

use super::app::App;
use crate::topology::{TopologyReport, report::PeerReport};
use actix_web::{HttpResponse, web::Data};
use std::time::Duration;

/// `GET /internal/v1/topology`. For regions and operators; the listener is theirs alone.
pub async fn topology(app: Data<App>) -> HttpResponse {
    HttpResponse::Ok().insert_header(("cache-control", "no-store")).json(report(&app))
}

/// This process's account of its region.
#[must_use]
pub fn report(app: &App) -> TopologyReport {
    let now = app.clock.monotonic();
    let snapshot = app.topology.look(Clone::clone);
    let own = snapshot.own.as_ref();
    let lag = snapshot.lag;
    TopologyReport {
        region: app.region.clone(),
        process: app.process.clone(),
        role: own.map(|own| own.role),
        position: own.map(|own| own.position()),
        position_age_us: own.map(|own| {
            u64::try_from(now.saturating_duration_since(own.asked_at).as_micros())
                .unwrap_or(u64::MAX)
        }),
        epochs: own.map(|own| own.history.starts().to_vec()).unwrap_or_default(),
        lag_ms: lag.map(|lag| millis(lag.bound(now))),
        lag_bytes: lag.and_then(|lag| lag.bytes),
        streaming: own.and_then(|own| own.streaming),
        schema: app.schema.describe(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        peers: snapshot
            .peers
            .iter()
            .map(|(region, peer)| {
                let breaker = app.forwarder.breaker_state(region, now);
                let report = PeerReport {
                    reachable: app.topology.reachable(peer),
                    round_trip_ms: peer.round_trip.map(millis),
                    breaker: breaker.map_or("unknown", |state| state.as_str()).to_owned(),
                    failure: peer.failure.clone(),
                };
                (region.clone(), report)
            })
            .collect(),
    }
}

/// Whole milliseconds, rounded up: a bound stays a bound.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}
