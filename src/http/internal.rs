//! What one region tells another: `/internal/v1/topology`, and what it asks of it: `/internal/v1/ask`.

use super::{
    app::{App, Worker},
    body, people,
    problem::{Kind, Problem},
    request::RequestState,
};
use crate::{
    telemetry::metrics::Route as Answered,
    topology::{
        Lease, PrimaryAt, TopologyReport,
        ask::{Answer, Answered as Signed, Asked, Question},
        lease::Verdict,
        probe,
        report::PeerReport,
    },
    vocab::causes,
};
use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web::{Bytes, Data},
};
use std::{
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// A process that is told to end, or has yet to see its schema, takes nothing from its peers. They keep
/// their connections to it, so they are told to open others, to a neighbour or whoever takes its place.
///
/// # Errors
/// None of its own: a refusal is an answer.
pub async fn while_serving(
    index: usize,
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let app = request.app_data::<Data<App>>().cloned().expect("server sets the application");
    let (ending, serves) = (app.draining.is_cancelled(), app.serves.load(Ordering::Acquire));
    if serves && !ending {
        let taken_in = app.taken_in.token();
        let response = next.call(request).await?;
        return Ok(response.map_body(|_, body| BoxBody::new(Kept { body, _taken_in: taken_in })));
    }
    let state = RequestState::of(&request);
    // Taken in, so that its sender is not still at it when the answer comes; what it is is all one.
    let _ = body::read(&app, &state, &mut request).await;
    {
        let mut facts = state.facts.borrow_mut();
        facts.mounted = Some(index);
        facts.answered = Some(Answered::Refused);
    }
    Ok(request.error_response(elsewhere(if ending {
        "This process is about to end."
    } else {
        "This process has yet to start."
    })))
}

/// It has done nothing of what was asked, and whoever takes a new connection may.
fn elsewhere(why: &'static str) -> Problem {
    Problem::new(Kind::Fenced, why).header("retry-after", "1").header(probe::ENDING, "1")
}

/// The body of an answer, which is under way until it is sent.
struct Kept {
    body: BoxBody,
    _taken_in: TaskTrackerToken,
}

impl MessageBody for Kept {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
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
/// `untrusted`, and `fenced` before the loops have begun.
pub async fn ask(
    app: Data<App>,
    worker: Data<Worker>,
    request: HttpRequest,
    body: String,
) -> Result<HttpResponse, Problem> {
    if !app.topology.has_begun() {
        // What it would say is only its own ignorance, and what it did might need the schema.
        return Err(elsewhere("This process has yet to start."));
    }
    let state = RequestState::find(&request);
    let asked = Asked::open(&app.sealer, &body, &app.region, state.op().now());
    let asked = asked.map_err(|why| {
        Problem::new(Kind::Untrusted, "This listener serves the regions of this cluster.")
            .caused_by(why)
    })?;
    if app.taken_in.is_closed() {
        // What is begun now would be cut off.
        return Err(elsewhere("This process is about to end."));
    }
    let _taken_in = app.taken_in.token();
    let answer = match asked.question {
        Question::People(question) => people::answer(&app, &worker.hot, question, state.op()).await,
        Question::Guesses(guesses) => match app.limiter.told(&guesses, state.op()).await {
            Ok(()) => Answer::Noted,
            Err(error) => Answer::Failed { reason: causes(&error) },
        },
        question => app.answers.answer(question, state.op()).await,
    };
    // One that has not seen its database since it began knows of no epoch. A neighbour may.
    let ignorant = matches!(answer, Answer::Lease(Verdict::Unheard))
        && app.topology.look(|snapshot| snapshot.written.is_none());
    let signed = Signed { from: app.region.clone(), id: asked.id, answer };
    let mut response = HttpResponse::Ok();
    response.insert_header(("cache-control", "no-store"));
    if ignorant || app.draining.is_cancelled() {
        response.insert_header((probe::ENDING, "1"));
    }
    Ok(response.body(signed.seal(&app.sealer)))
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

#[cfg(test)]
mod tests;
