//! The gate: every request of the API passes here, and only here is it known where it runs.
//!
//! On the public listener: limits, credential, bookmark, then the judgment of `routing::decide`,
//! which ends in the handler, in a hop, or in a problem. On the internal listener: the envelope of
//! a peer takes the place of all that, and only the primary of its epoch answers.

mod attempt;
mod who;

use super::{
    app::App,
    body, headers,
    hold::{self, Carried, no_primary, unknown_of},
    limits::address_of,
    problem::{Kind, Problem, refused},
    request::{RequestState, WriteFacts},
    routes::{Access, ROUTES, Route},
    secrets,
};
use crate::{
    routing::{
        Ask, Consistency, Decision, Intent, PrimaryView, Refusal, View,
        decide::{decide, decide_after_wait},
        envelope::{self, Bearer, RequestFacts},
    },
    telemetry::metrics::{Route as Answered, WaitOutcome},
    topology::{Own, Waited},
    vocab::{Bookmark, Epoch, IdempotencyKey, Standing as At},
};
use actix_web::{
    body::BoxBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web::{Bytes, Data},
};
use attempt::{Held, carry_out, problem_of, still};
use std::{rc::Rc, time::Duration};
use who::{Who, authenticate, permit};

/// Waits of one request for what it needs, one for another.
const WAITS_MAX: usize = 3;

type Gated = Result<ServiceResponse<BoxBody>, actix_web::Error>;

/// The gate of the public listener.
///
/// # Errors
/// None of its own: refusals are answers.
pub async fn public(index: usize, mut request: ServiceRequest, next: Next<BoxBody>) -> Gated {
    let app = app_of(&request);
    let state = RequestState::of(&request);
    state.facts.borrow_mut().mounted = Some(index);
    let route = &ROUTES[index];
    let mut response = match admit(&app, route, &state, &mut request).await {
        Ok(Admitted { decision: Decision::Forward(to, epoch), bearer, body }) => {
            state.facts.borrow_mut().answered = Some(Answered::Forwarded);
            let (to, asked) = (Some((to, epoch)), request.request().clone());
            match Box::pin(hold::carry(&app, &state, &asked, to, &bearer, &body, None)).await {
                Ok(Carried::Answered(answer)) => request.into_response(answer),
                Ok(Carried::Here { unknown }) => {
                    match Box::pin(take_in(&app, route, &state, &mut request, &body)).await {
                        Ok(()) => {
                            let held = Held { bearer, body, unknown };
                            carry_out(&app, route, &state, request, &next, held).await?
                        }
                        Err(_) if unknown => request.error_response(unknown_of(&state)),
                        Err(problem) => request.error_response(problem),
                    }
                }
                Err(problem) => request.error_response(unfenced(problem)),
            }
        }
        Ok(Admitted { .. }) if route.intent == Intent::Regional => next.call(request).await?,
        Ok(Admitted { bearer, body, .. }) => {
            let held = Held { bearer, body, unknown: false };
            carry_out(&app, route, &state, request, &next, held).await?
        }
        Err(problem) => {
            state.facts.borrow_mut().answered.get_or_insert(Answered::Refused);
            request.error_response(problem)
        }
    };
    headers::stamp(&app, &state, &mut response);
    Ok(response)
}

/// A client is not told where the primary is not, only that there is none.
fn unfenced(problem: Problem) -> Problem {
    match problem.kind() {
        Kind::Fenced => Problem::new(Kind::NoPrimary, "No region takes writes at this moment."),
        _ => problem,
    }
}

/// Makes a request that was to be carried elsewhere one of this region.
async fn take_in(
    app: &App,
    route: &Route,
    state: &RequestState,
    request: &mut ServiceRequest,
    body: &Bytes,
) -> Result<(), Problem> {
    // Who asks was left to the primary of then: the client asks again, and is known here.
    if !route.is_for_anyone() && state.facts.borrow().principal.is_none() {
        return Err(Problem::new(Kind::NoPrimary, "The primary has moved here; ask again."));
    }
    // The epoch that began meanwhile may have lost what the bookmark names.
    let (intent, bookmark) = (route.intent, state.facts.borrow().bookmark_in);
    let ask = Ask { intent, consistency: Consistency::Strong, bookmark };
    if settle(app, state, ask).await? != Decision::Local {
        return Err(no_primary());
    }
    state.facts.borrow_mut().answered = Some(Answered::Local);
    if route.is_write() {
        here(app, state)?;
        request.set_payload(body.clone().into());
    }
    Ok(())
}

/// The gate of the internal listener.
///
/// # Errors
/// None of its own: refusals are answers.
pub async fn internal(index: usize, mut request: ServiceRequest, next: Next<BoxBody>) -> Gated {
    let app = app_of(&request);
    let state = RequestState::of(&request);
    state.facts.borrow_mut().mounted = Some(index);
    let route = &ROUTES[index];
    let mut response = match admit_peer(&app, route, &state, &mut request).await {
        Ok(()) => {
            let response = next.call(request).await?;
            of_a_moving_primary(&app, still(&app, route, &state, response).await)
        }
        Err(problem) => {
            state.facts.borrow_mut().answered.get_or_insert(Answered::Refused);
            request.error_response(problem)
        }
    };
    headers::stamp(&app, &state, &mut response);
    Ok(response)
}

/// Had no effect because the primary moves: the edge then waits for the next one.
fn of_a_moving_primary(app: &App, response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let no_effect = problem_of(&response)
        .is_some_and(|problem| matches!(problem.kind(), Kind::Unavailable | Kind::NoPrimary));
    let elsewhere = !matches!(app.primary(), PrimaryView::Here(_));
    if no_effect && (elsewhere || hold::is_moving(app)) {
        let problem = Problem::new(Kind::Fenced, "The primary is moving.");
        return response.error_response(problem.header("retry-after", "1"));
    }
    response
}

fn app_of(request: &ServiceRequest) -> Data<App> {
    request.app_data::<Data<App>>().cloned().expect("server sets the application")
}

struct Admitted {
    decision: Decision,
    bearer: Bearer,
    body: Bytes,
}

async fn admit(
    app: &App,
    route: &Route,
    state: &RequestState,
    request: &mut ServiceRequest,
) -> Result<Admitted, Problem> {
    headers::check_size(request.headers(), app.config.server.headers_bytes_max)?;
    let address = address_of(request.request(), &app.config.limits.trusted_proxies);
    if let Some(address) = address {
        state.within(app.limiter.address(address, state.op(), &app.metrics).await)?;
    }
    let who = match route.access {
        Access::Open => {
            if let Some(address) = address {
                state.within(app.limiter.registration(address, state.op(), &app.metrics).await)?;
            }
            Who::Anyone
        }
        Access::Anyone => Who::Anyone,
        Access::Person | Access::Scope(_) => {
            authenticate(app, route, state, request, address).await?
        }
    };
    let bookmark = headers::bookmark(request.headers())?;
    let consistency = headers::consistency(request.headers())?;
    {
        let mut facts = state.facts.borrow_mut();
        facts.bookmark_in = bookmark;
        facts.consistency = consistency;
    }
    let body = match route.intent {
        Intent::Read => Bytes::new(),
        Intent::Regional => body::read(app, state, request).await?,
        Intent::Write => {
            let key = headers::idempotency_key(request.headers())?;
            let body = body::read(app, state, request).await?;
            let key = key.unwrap_or_else(|| IdempotencyKey::mint(state.op()));
            let digest = headers::digest(request, &secrets::without(route, &body));
            // The epoch is that of the decision, made below.
            let facts = WriteFacts { epoch: Epoch::FIRST, key, digest };
            state.facts.borrow_mut().write = Some(Rc::new(facts));
            body
        }
    };
    let ask = Ask { intent: route.intent, consistency, bookmark };
    let (decision, bearer) = match who {
        Who::Known(principal) => {
            let bearer = who::bearer(&principal);
            state.facts.borrow_mut().principal = Some(Rc::new(principal));
            (settle(app, state, ask).await?, bearer)
        }
        Who::Anyone => (settle(app, state, ask).await?, Bearer::Anyone),
        Who::Unresolved(hash) => {
            (at_primary(app, state).await?, Bearer::Unresolved { hash: hex::encode(hash) })
        }
    };
    if route.intent == Intent::Write && decision == Decision::Local {
        here(app, state)?;
    }
    if route.intent != Intent::Read && decision == Decision::Local {
        request.set_payload(body.clone().into());
    }
    Ok(Admitted { decision, bearer, body })
}

/// How things stand for a request with this bookmark, now.
fn view(app: &App, bookmark: Option<Bookmark>) -> View {
    let now = app.clock.monotonic();
    let (local, lag) = app.topology.look(|snapshot| {
        let local = snapshot.tellable(now).map(|own| match bookmark {
            Some(bookmark) => own.standing(bookmark),
            None => At::Reached,
        });
        (local, snapshot.lag.map(|lag| lag.bound(now)))
    });
    View { local, lag, primary: app.primary() }
}

/// Decides, waits if that is the decision, and decides again.
async fn settle(app: &App, state: &RequestState, ask: Ask) -> Result<Decision, Problem> {
    let mut decision = decide(ask, &view(app, ask.bookmark));
    if let Decision::WaitThenLocal(bookmark) = decision {
        decision = Box::pin(wait(app, state, ask, bookmark)).await;
    }
    // What is found then can have to be waited for as well: the next primary for its standbys.
    for _ in 0..WAITS_MAX {
        if !is_worth_another_look(app, state, &decision, ask.bookmark).await {
            break;
        }
        decision = match decide(ask, &view(app, ask.bookmark)) {
            Decision::WaitThenLocal(_) => decide_after_wait(&view(app, ask.bookmark)),
            decision => decision,
        };
    }
    if decision == Decision::Local {
        let mut facts = state.facts.borrow_mut();
        facts.answered.get_or_insert(Answered::Local);
        // As known before the data is read: later it may be better than what was read.
        facts.lag = app.topology.look(|snapshot| snapshot.lag);
    }
    match decision {
        // No standby has told that it has it.
        Decision::Refuse(Refusal::BookmarkInvalid) if may_have_flushed(app, ask.bookmark) => {
            Err(refusal_problem(app, Refusal::BookmarkTimeout, ask.bookmark))
        }
        Decision::Refuse(refusal) => Err(refusal_problem(app, refusal, ask.bookmark)),
        decision => Ok(decision),
    }
}

/// Waits, where what is decided can be another soon. Whoever needs a primary that moves waits for the next
/// one. One that has written, and whom this replica cannot answer, does so even before anyone has promised
/// another: most often there is one soon, or another replica had it.
async fn is_worth_another_look(
    app: &App,
    state: &RequestState,
    decision: &Decision,
    bookmark: Option<Bookmark>,
) -> bool {
    match decision {
        Decision::Refuse(Refusal::NoPrimary) if hold::is_moving(app) => {
            Box::pin(hold::next_primary(app, state, app.clock.monotonic())).await.is_some()
        }
        Decision::Refuse(Refusal::NoPrimary) => Box::pin(hold::learned(app, state)).await,
        Decision::Refuse(Refusal::BookmarkTimeout) => {
            Box::pin(hold::next_primary_or(app, state, bookmark)).await
        }
        // The primary has it, and has only to hear that a standby has it too.
        Decision::Refuse(Refusal::BookmarkInvalid) if may_have_flushed(app, bookmark) => {
            Box::pin(hold::until_here(app, state, bookmark)).await
        }
        _ => false,
    }
}

/// Of a database that does not answer just now nobody can say that it has never been there.
fn may_have_flushed(app: &App, bookmark: Option<Bookmark>) -> bool {
    let own = |own: &Own| Some(own.position()) >= bookmark;
    app.topology.look(|snapshot| snapshot.own.as_ref().is_none_or(own))
}

async fn wait(app: &App, state: &RequestState, ask: Ask, bookmark: Bookmark) -> Decision {
    let began = app.clock.monotonic();
    let budget = Duration::from_millis(app.config.routing.bookmark_wait_ms_max);
    let waited = app.topology.wait(bookmark, (began + budget).min(state.op().deadline)).await;
    let took = app.clock.monotonic().saturating_duration_since(began);
    app.metrics.bookmark_wait_seconds.observe(took.as_secs_f64());
    app.metrics.bookmark_waits.count(match waited {
        Waited::Reached => WaitOutcome::Reached,
        Waited::Lost => WaitOutcome::Lost,
        Waited::NotInTime => WaitOutcome::TimedOut,
    });
    let view = view(app, Some(bookmark));
    match (waited, view.local) {
        // Judged again: the bookmark was one condition, the age of what is here can be another.
        (Waited::Reached, _) => match decide(ask, &view) {
            Decision::Local => {
                state.facts.borrow_mut().answered = Some(Answered::Waited);
                Decision::Local
            }
            Decision::WaitThenLocal(_) => decide_after_wait(&view),
            decision => decision,
        },
        (Waited::Lost, Some(At::Lost { lost_after })) => {
            Decision::Refuse(Refusal::BookmarkLost { lost_after })
        }
        _ => decide_after_wait(&view),
    }
}

fn refusal_problem(app: &App, refusal: Refusal, bookmark: Option<Bookmark>) -> Problem {
    if matches!(refusal, Refusal::BookmarkLost { .. }) {
        app.metrics.bookmarks_lost.inc();
    }
    let resume = app.topology.look(|snapshot| snapshot.own.as_ref().map(|own| own.position()));
    refused(refusal, bookmark.map_or(Epoch::FIRST, |bookmark| bookmark.epoch), resume)
}

async fn at_primary(app: &App, state: &RequestState) -> Result<Decision, Problem> {
    while !matches!(app.primary(), PrimaryView::Peer(..))
        && Box::pin(hold::learned(app, state)).await
    {}
    match app.primary() {
        PrimaryView::Peer(region, epoch) => Ok(Decision::Forward(region, epoch)),
        // Not found here and nobody else to ask: that is not "unauthorized".
        _ => Err(refusal_problem(app, Refusal::NoPrimary, None)),
    }
}

/// Fixes the epoch of a write that is carried out here.
fn here(app: &App, state: &RequestState) -> Result<(), Problem> {
    let PrimaryView::Here(epoch) = app.primary() else {
        return Err(refusal_problem(app, Refusal::NoPrimary, None));
    };
    let mut facts = state.facts.borrow_mut();
    if let Some(write) = facts.write.take() {
        let WriteFacts { key, digest, .. } = &*write;
        facts.write = Some(Rc::new(WriteFacts { epoch, key: key.clone(), digest: *digest }));
    }
    Ok(())
}

/// A read whose replica died under it, or cannot tell, is answered by the primary, if there is one.
async fn instead_of_a_dead_replica(
    app: &App,
    route: &Route,
    state: &RequestState,
    bearer: Bearer,
    response: ServiceResponse<BoxBody>,
) -> ServiceResponse<BoxBody> {
    let died = problem_of(&response).is_some_and(Problem::is_for_the_primary);
    if !died || route.intent != Intent::Read {
        return response;
    }
    let to = match app.primary() {
        PrimaryView::Peer(to, epoch) => Some((to, epoch)),
        _ if hold::is_moving(app) => None,
        _ => return response,
    };
    let request = response.request().clone();
    match hold::carry(app, state, &request, to, &bearer, &Bytes::new(), None).await {
        Ok(Carried::Answered(answer)) => {
            state.facts.borrow_mut().answered = Some(Answered::Forwarded);
            response.into_response(answer)
        }
        Ok(Carried::Here { .. }) | Err(_) => response,
    }
}

/// A request that a peer forwarded: believed for what its envelope says, if this region is the
/// primary of the epoch it was decided in.
async fn admit_peer(
    app: &App,
    route: &Route,
    state: &RequestState,
    request: &mut ServiceRequest,
) -> Result<(), Problem> {
    let body = body::read(app, state, request).await?;
    let untrusted = |why: envelope::Refused| {
        Problem::new(Kind::Untrusted, "This listener serves the regions of this cluster.")
            .caused_by(why)
    };
    let sealed = request.headers().get(envelope::HEADER).and_then(|value| value.to_str().ok());
    let sealed = sealed.ok_or_else(|| untrusted(envelope::Refused::Malformed))?;
    let digest = envelope::body_digest(&body);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let facts = RequestFacts { method: request.method().as_str(), path, body: &digest };
    let opened = app.forwarder.sealer().open(sealed, &app.region, &facts, state.op().now());
    let envelope = opened.map_err(untrusted)?;
    state.shorten(Duration::from_millis(envelope.remaining_ms));
    if route.intent == Intent::Regional {
        return Err(Problem::not_found());
    }
    let fenced =
        || Problem::new(Kind::Fenced, "Not the primary of that epoch.").header("retry-after", "1");
    // Peers know of this region's primary by its other processes: this one may have just begun.
    while !matches!(app.primary(), PrimaryView::Here(_))
        && Box::pin(hold::learned(app, state)).await
    {}
    let epoch = match app.primary() {
        PrimaryView::Here(epoch) if epoch == envelope.epoch => epoch,
        _ => return Err(fenced()),
    };
    let principal = if route.is_for_anyone() {
        None
    } else {
        let principal = who::believe(app, state, request, &envelope.bearer).await?;
        permit(route.access, &principal)?;
        Some(Rc::new(principal))
    };
    let consistency: Consistency = envelope.consistency.parse()?;
    // Strong, whatever was asked: the edge has decided that the primary answers.
    let ask =
        Ask { intent: route.intent, consistency: Consistency::Strong, bookmark: envelope.bookmark };
    if settle(app, state, ask).await? != Decision::Local {
        return Err(fenced());
    }
    let mut facts = state.facts.borrow_mut();
    facts.principal = principal;
    facts.bookmark_in = envelope.bookmark;
    facts.consistency = consistency;
    if route.intent == Intent::Write {
        // A forwarded write without a key could not be told from its own repetition.
        let key = envelope.key.ok_or_else(|| untrusted(envelope::Refused::Malformed))?;
        let digest = headers::digest(request, &secrets::without(route, &body));
        facts.write = Some(Rc::new(WriteFacts { epoch, key, digest }));
        request.set_payload(body.into());
    }
    Ok(())
}
