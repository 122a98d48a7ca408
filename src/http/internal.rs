//! What one region tells another: `/internal/v1/topology`, and what it asks of it: `/internal/v1/ask`.

use super::{
    app::{App, Worker},
    body, people,
    problem::{Kind, Problem},
    request::RequestState,
};
use crate::{
    routing::forward,
    telemetry::metrics::Route as Answered,
    topology::{
        Lease, PrimaryAt, TopologyReport,
        ask::{Answer, Answered as Signed, Asked, Question},
        report::PeerReport,
    },
    vocab::causes,
};
use actix_web::{
    HttpRequest, HttpResponse,
    body::BoxBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web::Data,
};
use std::time::{Duration, Instant};

/// A process that is told to end takes nothing new from its peers. They keep their connections to
/// it, so they are told to open others, to whoever takes its place.
///
/// # Errors
/// None of its own: a refusal is an answer.
pub async fn unless_ending(
    index: usize,
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let app = request.app_data::<Data<App>>().cloned().expect("server sets the application");
    if !app.draining.is_cancelled() {
        return next.call(request).await;
    }
    let state = RequestState::of(&request);
    // Taken in, so that its sender is not still at it when the answer comes; what it is is all one.
    let _ = body::read(&app, &state, &mut request).await;
    {
        let mut facts = state.facts.borrow_mut();
        facts.mounted = Some(index);
        facts.answered = Some(Answered::Refused);
    }
    let problem = Problem::new(Kind::Fenced, "This process is about to end.");
    Ok(request.error_response(problem.header("retry-after", "1").header(forward::ENDING, "1")))
}

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
    let primary = match app.topology.primary() {
        PrimaryAt::Here(_) => Some(app.region.clone()),
        PrimaryAt::Peer(region, _) => Some(region),
        PrimaryAt::Fenced(_) | PrimaryAt::Unknown => None,
    };
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
        starting: snapshot.is_starting(now),
        ending: app.draining.is_cancelled(),
        writable: primary.as_ref() == Some(&app.region),
        primary,
        missed_ms: snapshot.missed_since.map(|since| millis(now.saturating_duration_since(since))),
        lease_ms: snapshot.lease.map(|lease| left_ms(lease, now)),
        promise: snapshot.promise.clone(),
        members: Some(snapshot.members()),
        durability: Some(app.config.failover.durability),
        quarantine: snapshot.quarantine().map(|why| why.reason().to_owned()),
        standbys: app.topology.standbys(),
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

/// `POST /internal/v1/ask`. What is not signed by the cluster is not answered.
///
/// # Errors
/// `untrusted`.
pub async fn ask(
    app: Data<App>,
    worker: Data<Worker>,
    request: HttpRequest,
    body: String,
) -> Result<HttpResponse, Problem> {
    let state = RequestState::find(&request);
    let asked = Asked::open(&app.sealer, &body, &app.region, state.op().now());
    let asked = asked.map_err(|why| {
        Problem::new(Kind::Untrusted, "This listener serves the regions of this cluster.")
            .caused_by(why)
    })?;
    let answer = match asked.question {
        Question::People(question) => people::answer(&app, &worker.hot, question, state.op()).await,
        Question::Guesses(guesses) => match app.limiter.told(&guesses, state.op()).await {
            Ok(()) => Answer::Noted,
            Err(error) => Answer::Failed { reason: causes(&error) },
        },
        question => app.answers.answer(question, state.op()).await,
    };
    let signed = Signed { from: app.region.clone(), id: asked.id, answer };
    Ok(HttpResponse::Ok()
        .insert_header(("cache-control", "no-store"))
        .body(signed.seal(&app.sealer)))
}

/// Rounded down: what is left is never more than this.
fn left_ms(lease: Lease, now: Instant) -> u64 {
    let left = lease.until.saturating_duration_since(now).as_millis();
    u64::try_from(left).unwrap_or(u64::MAX)
}

/// Whole milliseconds, rounded up: a bound stays a bound.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX)
}
