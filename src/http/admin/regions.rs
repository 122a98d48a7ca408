//! `/v1/admin/regions`: the cluster as this process sees it.

use crate::http::{app::App, caller::Caller, internal, problem::Problem};
use actix_web::HttpResponse;
use serde::Serialize;

#[derive(Serialize)]
struct Region {
    name: crate::vocab::Region,
    public_url: Option<String>,
    role: Option<crate::topology::Role>,
    epoch: Option<crate::vocab::Epoch>,
    reachable: bool,
    round_trip_ms: Option<u64>,
    lag_ms: Option<u64>,
    lag_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Page {
    items: Vec<Region>,
    next_cursor: Option<String>,
}

/// `GET /v1/admin/regions`
///
/// # Errors
/// A problem.
pub async fn list(caller: Caller) -> Result<HttpResponse, Problem> {
    let items = regions(caller.app());
    Ok(HttpResponse::Ok()
        .insert_header(("cache-control", "no-store"))
        .json(Page { items, next_cursor: None }))
}

fn regions(app: &App) -> Vec<Region> {
    let own = internal::report(app);
    app.config
        .regions
        .iter()
        .map(|(name, config)| {
            let public_url = config.public_url.clone();
            if *name == app.region {
                return Region {
                    name: name.clone(),
                    public_url,
                    role: own.role,
                    epoch: own.epoch(),
                    reachable: true,
                    round_trip_ms: Some(0),
                    lag_ms: own.lag_ms,
                    lag_bytes: own.lag_bytes,
                };
            }
            let peer =
                app.topology.look(|snapshot| snapshot.peers.get(name).cloned()).unwrap_or_default();
            let reachable = app.topology.reachable(&peer);
            // What a silent peer last said is not what it is.
            let report = peer.report.filter(|_| reachable);
            Region {
                name: name.clone(),
                public_url,
                role: report.as_ref().and_then(|report| report.role),
                epoch: report.as_ref().and_then(|report| report.epoch()),
                reachable,
                round_trip_ms: peer.round_trip.map(internal::millis),
                lag_ms: report.as_ref().and_then(|report| report.lag_ms),
                lag_bytes: report.as_ref().and_then(|report| report.lag_bytes),
            }
        })
        .collect()
}
