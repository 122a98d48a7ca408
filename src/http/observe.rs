//! Outermost around every request: its operation, its span, its metrics and its one log line.

use super::{app::App, problem::Problem, request::RequestState, routes::open_path};
use crate::telemetry::{TraceContext, wide::RequestEvent};
use actix_web::{
    HttpMessage as _,
    body::{BodySize, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header::{HeaderName, HeaderValue},
    middleware::Next,
    web::Data,
};
use std::rc::Rc;

/// Longest path that is logged.
const PATH_BYTES_MAX: usize = 256;

/// # Errors
/// What the inner service fails with, which for a gated route is nothing.
pub async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let app = request.app_data::<Data<App>>().cloned().expect("server sets the application");
    let op = app.op();
    let incoming = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let span = app.telemetry.tracer.request(&op, incoming.and_then(TraceContext::parse));
    let state = Rc::new(RequestState::new(op, span));
    request.extensions_mut().insert(Rc::clone(&state));
    app.metrics.http_in_flight.inc();
    let _in_flight = scopeguard(&app);
    let mut response = next.call(request).await?;
    finish(&app, &state, &mut response);
    Ok(response)
}

/// Takes the request off the in-flight count even when the client hangs up.
fn scopeguard(app: &Data<App>) -> impl Drop + use<> {
    struct InFlight(Data<App>);
    impl Drop for InFlight {
        fn drop(&mut self) {
            self.0.metrics.http_in_flight.dec();
        }
    }
    InFlight(app.clone())
}

fn finish<B: MessageBody>(app: &App, state: &RequestState, response: &mut ServiceResponse<B>) {
    let status = response.status().as_u16();
    let mut span = state.span.borrow_mut();
    let trace = span.context();
    if let Ok(value) = HeaderValue::from_str(&trace.to_string()) {
        response.headers_mut().insert(HeaderName::from_static("traceparent"), value);
    }
    let mut facts = state.facts.borrow_mut();
    let problem = response.response().error().and_then(|error| error.as_error::<Problem>());
    if let Some(problem) = problem {
        facts.problem = Some(problem.kind().name());
        facts.error = problem.chain();
    }
    let took = app.clock.monotonic().saturating_duration_since(state.started);
    let index = facts.mounted.or_else(|| open_path(response.request().path()));
    let mounted = index.and_then(|index| app.mounted.get(index));
    if let Some(mounted) = mounted {
        mounted.metrics.observe(status, took);
    }
    if let Some(answered) = facts.answered {
        app.metrics.routes.count(answered);
    }
    let route = mounted.map_or("unknown", |mounted| mounted.path);
    if span.is_recording() {
        span.set("http.route", route);
        span.set("http.response.status_code", i64::from(status));
        span.set("godwit.region", app.region.to_string());
        if let Some(answered) = facts.answered {
            span.set("godwit.route", answered.as_str());
        }
        if status >= 500 {
            span.fail("server error");
        }
    }
    if mounted.is_some_and(|mounted| !mounted.logged) {
        return;
    }
    let request = response.request();
    let principal = facts.principal.as_deref();
    let path = request.path();
    app.telemetry.requests.write(
        app.clock.now(),
        &RequestEvent {
            method: request.method().as_str(),
            route,
            path: path.get(..PATH_BYTES_MAX).unwrap_or(path),
            status,
            duration: took,
            region: &app.region,
            epoch: facts.epoch,
            decision: facts.answered.map(|answered| answered.as_str()),
            principal: principal.map(|principal| principal.actor),
            tenant: principal.map(|principal| principal.scope.tenant()),
            bookmark_in: facts.bookmark_in,
            bookmark_out: facts.bookmark_out,
            request_bytes: facts.request_bytes,
            response_bytes: match response.response().body().size() {
                BodySize::None => Some(0),
                BodySize::Sized(bytes) => Some(bytes),
                BodySize::Stream => None,
            },
            trace,
            op: state.op().id,
            rate_limit: facts.limit.as_ref().map(|limit| limit.source()),
            problem: facts.problem,
            error: facts.error.as_deref(),
            peer: request.peer_addr().map(|address| address.ip()),
        },
    );
}
