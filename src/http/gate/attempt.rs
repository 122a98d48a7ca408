//! A request carried out here: what its attempt has come to, and whether that is its answer.

use super::{Gated, instead_of_a_dead_replica, take_in, unfenced};
use crate::{
    http::{
        app::App,
        hold::{self, Carried, no_primary, unknown_of},
        problem::{Kind, Problem},
        request::RequestState,
        routes::Route,
    },
    routing::{Consistency, PrimaryView, envelope::Bearer},
    telemetry::metrics::Route as Answered,
};
use actix_web::{
    body::BoxBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    middleware::Next,
    web::Bytes,
};
use std::time::Duration;

/// Between two attempts, after the second.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What is kept of a request for as long as it may have to be carried out once more.
pub(super) struct Held {
    pub(super) bearer: Bearer,
    pub(super) body: Bytes,
    /// An attempt before may have been carried out.
    pub(super) unknown: bool,
}

/// What an attempt here has come to.
enum Attempt {
    Answered(ServiceResponse<BoxBody>),
    /// It met a fence, and the next epoch has begun here as well: it is to be carried out again.
    Again {
        response: ServiceResponse<BoxBody>,
        unknown: bool,
    },
}

/// Carries a request out here; a write that meets a fence again, as long as the primary stays here.
/// Its key makes that one effect, and `routing.hold_ms_max` bounds it.
pub(super) async fn carry_out(
    app: &App,
    route: &Route,
    state: &RequestState,
    mut request: ServiceRequest,
    next: &Next<BoxBody>,
    mut held: Held,
) -> Gated {
    let mut first = true;
    loop {
        let response = next.call(request).await?;
        let (response, unknown) = if !first && is_under_way(&response) {
            // By an attempt before, whose session has yet to end.
            if hold::ends(app, state).is_none_or(|end| end <= app.clock.monotonic()) {
                return Ok(response.error_response(unknown_of(state)));
            }
            (response, true)
        } else {
            match after(app, route, state, &held, response).await {
                Attempt::Answered(answer) => return Ok(still_unknown(state, held.unknown, answer)),
                Attempt::Again { response, unknown } => (response, unknown),
            }
        };
        if !first {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        first = false;
        held.unknown |= unknown;
        let (again, _) = response.into_parts();
        request = ServiceRequest::from_parts(again, Payload::None);
        let taken = Box::pin(take_in(app, route, state, &mut request, &held.body)).await;
        if let Err(problem) = taken {
            let problem = if held.unknown { unknown_of(state) } else { unfenced(problem) };
            return Ok(request.error_response(problem));
        }
    }
}

fn is_under_way(response: &ServiceResponse<BoxBody>) -> bool {
    problem_of(response).is_some_and(|problem| problem.kind() == Kind::IdempotencyInFlight)
}

/// What is answered once the handler has: its word, or that of the primary where this region could
/// not tell, or is no longer the one to.
async fn after(
    app: &App,
    route: &Route,
    state: &RequestState,
    held: &Held,
    response: ServiceResponse<BoxBody>,
) -> Attempt {
    let response = still(app, route, state, response).await;
    let Some(problem) = problem_of(&response) else { return Attempt::Answered(response) };
    if route.is_write() && hold::is_worth_holding(app, problem) {
        let before = match problem.kind() {
            Kind::OutcomeUnknown => unknown_of(state),
            _ => unfenced(Problem::new(problem.kind(), "The primary is moving.")),
        };
        let request = response.request().clone();
        state.facts.borrow_mut().answered = Some(Answered::Forwarded);
        let before = Some(before);
        let Held { bearer, body, .. } = held;
        let carried = hold::carry(app, state, &request, None, bearer, body, before);
        let carried = Box::pin(carried).await;
        return match carried {
            Ok(Carried::Answered(answer)) => Attempt::Answered(response.into_response(answer)),
            Ok(Carried::Here { unknown }) => Attempt::Again { response, unknown },
            Err(problem) => Attempt::Answered(response.error_response(unfenced(problem))),
        };
    }
    if problem.kind() == Kind::Fenced {
        return Attempt::Answered(response.error_response(no_primary()));
    }
    let bearer = held.bearer.clone();
    let instead = instead_of_a_dead_replica(app, route, state, bearer, response);
    Attempt::Answered(Box::pin(instead).await)
}

/// What was sent elsewhere before, and may have been carried out, is not undone by a failure here.
fn still_unknown(
    state: &RequestState,
    unknown: bool,
    response: ServiceResponse<BoxBody>,
) -> ServiceResponse<BoxBody> {
    let problem = problem_of(&response).map(|problem| problem.kind().name());
    if unknown && hold::settles_nothing(response.response(), problem) {
        return response.error_response(unknown_of(state));
    }
    response
}

pub(super) fn problem_of(response: &ServiceResponse<BoxBody>) -> Option<&Problem> {
    response.response().error().and_then(|error| error.as_error::<Problem>())
}

/// What was answered as the primary's word holds only if this process was the primary's to the end:
/// past its lease another epoch may have begun. A write that was committed is not acknowledged
/// then, and what a strong read saw may be old.
pub(super) async fn still(
    app: &App,
    route: &Route,
    state: &RequestState,
    response: ServiceResponse<BoxBody>,
) -> ServiceResponse<BoxBody> {
    let (written_in, strong) = {
        let facts = state.facts.borrow();
        (facts.write.as_ref().map(|write| write.epoch), facts.consistency == Consistency::Strong)
    };
    if problem_of(&response).is_some_and(|problem| problem.kind() == Kind::Fenced) {
        return response;
    }
    let now = app.clock.monotonic();
    match written_in {
        Some(epoch) if app.topology.lease_until(epoch).is_some_and(|until| until > now) => response,
        Some(_) => response.error_response(unknown_of(state)),
        None if strong && !route.is_write() => {
            let PrimaryView::Here(epoch) = app.primary() else {
                return response.error_response(no_primary());
            };
            if app.topology.is_still_primary(epoch, state.op().deadline).await {
                response
            } else {
                response.error_response(no_primary())
            }
        }
        // Of what it has read, no position could be told that is true.
        None if !route.is_write() && !app.topology.is_of_its_epoch(state.op().deadline).await => {
            let why = Problem::new(Kind::Unavailable, "The primary is moving.");
            response.error_response(why.told_by_the_primary())
        }
        None => response,
    }
}
