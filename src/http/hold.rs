//! Held: what needs the primary and met one that is moving, or none just now, waits for the next one
//! instead of failing.
//!
//! What had no effect is carried to the new primary as if it came now. What may have had one is too:
//! every write has a key, so the new primary either finds its record or carries it out. A write of
//! an old epoch that is committed after all, on a database that has been left behind, was never
//! acknowledged. All of it ends within `routing.hold_ms_max`.

use super::{
    app::App,
    hop,
    problem::{Kind, Problem},
    request::RequestState,
};
use crate::{
    routing::{PrimaryView, envelope::Bearer, forward::is_of_this_attempt},
    topology::{PrimaryAt, Waited},
    vocab::{Bookmark, Epoch, Region},
};
use actix_web::{HttpRequest, HttpResponse, web::Bytes};
use std::time::{Duration, Instant};

/// Left of a request's time for the hop after the wait.
const LEFT_FOR_THE_HOP: Duration = Duration::from_millis(500);

/// How a request that is carried ended.
pub enum Carried {
    Answered(HttpResponse),
    /// This region has become the primary: it is to be carried out here. An attempt elsewhere may
    /// have been carried out too, when it is `unknown`.
    Here {
        unknown: bool,
    },
}

/// Whether another primary could do what this one has not: it is moving, or no longer one.
#[must_use]
pub fn is_worth_holding(app: &App, problem: &Problem) -> bool {
    match problem.kind() {
        Kind::Fenced => true,
        Kind::NoPrimary | Kind::Unavailable | Kind::OutcomeUnknown => is_moving(app),
        _ => false,
    }
}

/// Whether another primary is about to take writes.
#[must_use]
pub fn is_moving(app: &App) -> bool {
    let now = app.clock.monotonic();
    app.topology.look(|snapshot| snapshot.awaits_a_primary(now))
}

/// Waits, in a process that began a moment ago, for what it has yet to learn. Tells whether there is something to
/// decide anew.
pub async fn learned(app: &App, state: &RequestState) -> bool {
    let Some(end) = ends(app, state) else { return false };
    app.topology.learn(end).await
}

/// Until when a request is held.
#[must_use]
pub fn ends(app: &App, state: &RequestState) -> Option<Instant> {
    let budget = Duration::from_millis(app.config.routing.hold_ms_max);
    Some(state.op().deadline.checked_sub(LEFT_FOR_THE_HOP)?.min(state.started + budget))
}

/// Waits for a region that is known, from later than `after`, to take writes. `None` when the time
/// to hold is up.
pub async fn next_primary(app: &App, state: &RequestState, after: Instant) -> Option<PrimaryView> {
    let end = ends(app, state).filter(|end| *end > app.clock.monotonic())?;
    match app.topology.wait_for_primary(after, end).await {
        PrimaryAt::Unknown | PrimaryAt::Fenced(_) => None,
        PrimaryAt::Here(_) | PrimaryAt::Peer(..) => Some(app.primary()),
    }
}

/// Waits as [`next_primary`] does, or until this region has the bookmark. Tells whether there is something
/// to decide anew.
pub async fn next_primary_or(app: &App, state: &RequestState, bookmark: Option<Bookmark>) -> bool {
    tokio::select! {
        next = next_primary(app, state, app.clock.monotonic()) => next.is_some(),
        // Where it is not, the next primary may still come.
        true = until_here(app, state, bookmark) => true,
    }
}

/// Waits until this region has the bookmark, or knows that it is lost. `false` when the time to hold is up.
pub async fn until_here(app: &App, state: &RequestState, bookmark: Option<Bookmark>) -> bool {
    let (Some(bookmark), Some(end)) = (bookmark, ends(app, state)) else { return false };
    app.topology.wait(bookmark, end).await != Waited::NotInTime
}

/// Carries a request to the primary, and on to the next one for as long as it moves. `before` is how
/// an attempt here has ended.
///
/// # Errors
/// The last attempt's; an unknown outcome stays one unless an answer settles it.
pub async fn carry(
    app: &App,
    state: &RequestState,
    request: &HttpRequest,
    mut to: Option<(Region, Epoch)>,
    bearer: &Bearer,
    body: &Bytes,
    mut before: Option<Problem>,
) -> Result<Carried, Problem> {
    let unknown = |problem: &Problem| problem.kind() == Kind::OutcomeUnknown;
    loop {
        let asked_at = app.clock.monotonic();
        if let Some((region, epoch)) = to.take() {
            let (bearer, body) = (bearer.clone(), body.clone());
            let hop = hop::carry(app, state, request, &region, epoch, bearer, body);
            let answer = tokio::select! {
                answer = hop => answer,
                // It need not be waited for: whatever it does now is not the cluster's.
                () = app.topology.is_deposed(epoch) => Err(left(state)),
            };
            let problem = match answer {
                Ok(answer) => match before.filter(unknown) {
                    Some(before) if settles_nothing(&answer, state.facts.borrow().problem) => {
                        before
                    }
                    _ => return Ok(Carried::Answered(answer)),
                },
                Err(problem) => before.filter(unknown).unwrap_or(problem),
            };
            if !is_worth_holding(app, &problem) {
                return Err(problem);
            }
            before = Some(problem);
        }
        match next_primary(app, state, asked_at).await {
            Some(PrimaryView::Peer(region, epoch)) => to = Some((region, epoch)),
            Some(PrimaryView::Here(_)) => {
                let unknown = before.as_ref().is_some_and(unknown);
                return Ok(Carried::Here { unknown });
            }
            _ => return Err(before.unwrap_or_else(none)),
        }
    }
}

/// Whether an attempt before this answer's may have been carried out all the same.
#[must_use]
pub fn settles_nothing(answer: &HttpResponse, problem: Option<&str>) -> bool {
    is_of_this_attempt(answer.status().as_u16(), problem)
}

/// The problem of a request that came while the primary went elsewhere.
pub fn no_primary() -> Problem {
    Problem::new(Kind::NoPrimary, "The primary has moved; send the request again.")
}

/// The problem of a write that may have been carried out.
pub fn unknown_of(state: &RequestState) -> Problem {
    match &state.facts.borrow().write {
        Some(write) => Problem::outcome_unknown(write.key.as_str()),
        None => no_primary(),
    }
}

/// Of an attempt that was given up because its primary is none any more.
fn left(state: &RequestState) -> Problem {
    match &state.facts.borrow().write {
        Some(write) => Problem::outcome_unknown(write.key.as_str()),
        None => Problem::new(Kind::Fenced, "The primary has moved."),
    }
}

fn none() -> Problem {
    Problem::new(Kind::NoPrimary, "No region takes writes at this moment.")
}
