//! What is learned about one request on its way through, for its answer's headers and its log line.

use super::{
    limits::Standing,
    problem::{Kind, Problem},
};
use crate::{
    identity::{Principal, SessionToken},
    routing::Consistency,
    storage::global::sessions::Live,
    telemetry::{metrics::Route as Answered, trace::Span},
    topology::Lag,
    vocab::{Bookmark, Epoch, IdempotencyKey, Op},
};
use actix_web::{HttpMessage as _, HttpRequest, dev::ServiceRequest};
use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

/// Made by `observe`, found in the request's extensions by all that follows.
pub struct RequestState {
    op: Op,
    /// The operation with the deadline of the region that forwarded the request.
    shortened: OnceCell<Op>,
    pub started: Instant,
    pub span: RefCell<Span>,
    pub facts: RefCell<Facts>,
}

#[derive(Default)]
pub struct Facts {
    /// Position in the route table; `None` where nothing matched.
    pub mounted: Option<usize>,
    pub answered: Option<Answered>,
    pub principal: Option<Rc<Principal>>,
    /// How they are signed in, where this region has looked that up.
    pub session: Option<Rc<(SessionToken, Live)>>,
    pub bookmark_in: Option<Bookmark>,
    pub bookmark_out: Option<Bookmark>,
    pub epoch: Option<Epoch>,
    pub consistency: Consistency,
    pub request_bytes: u64,
    pub limit: Option<Standing>,
    /// How old a local read can be, as it was known before it was carried out.
    pub lag: Option<Lag>,
    pub write: Option<Rc<WriteFacts>>,
    pub problem: Option<&'static str>,
    pub error: Option<String>,
}

/// What the gate knows about a write that is carried out here.
#[derive(Debug)]
pub struct WriteFacts {
    /// In which this region is the primary.
    pub epoch: Epoch,
    pub key: IdempotencyKey,
    pub digest: [u8; 32],
}

impl RequestState {
    pub(super) fn new(op: Op, span: Span) -> Self {
        Self {
            started: op.clock.monotonic(),
            op,
            shortened: OnceCell::new(),
            span: RefCell::new(span),
            facts: RefCell::default(),
        }
    }

    #[must_use]
    pub fn op(&self) -> &Op {
        self.shortened.get().unwrap_or(&self.op)
    }

    /// Nobody waits longer than the edge does. Never lengthens.
    pub(super) fn shorten(&self, remaining: Duration) {
        let theirs = self.op.clock.monotonic().checked_add(remaining);
        let deadline = theirs.map_or(self.op.deadline, |theirs| theirs.min(self.op.deadline));
        // Set once, by the gate of the internal listener.
        let _ = self.shortened.set(Op { deadline, ..self.op.clone() });
    }

    /// Goes on if a bucket lets it. The last that was asked is the one that the answer's header fields tell of.
    pub(super) fn within(&self, standing: Standing) -> Result<(), Problem> {
        self.facts.borrow_mut().limit = Some(standing);
        if standing.allowed {
            return Ok(());
        }
        let seconds = standing.reset.as_millis().div_ceil(1_000).max(1);
        let detail = "Slow down, and try again after Retry-After.";
        let problem = Problem::new(Kind::RateLimited, detail);
        Err(problem.header("retry-after", seconds.to_string()))
    }

    pub(super) fn of(request: &ServiceRequest) -> Rc<Self> {
        Self::find(request.request())
    }

    /// # Panics
    /// When `observe` does not wrap the application, which is a broken invariant of `server`.
    pub(super) fn find(request: &HttpRequest) -> Rc<Self> {
        let found = request.extensions().get::<Rc<Self>>().cloned();
        found.expect("observe wraps every application")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        telemetry::trace::Tracer,
        vocab::{OpKind, SharedClock, SystemRng, clock::ManualClock},
    };
    use std::sync::Arc;

    #[test]
    fn a_forwarded_request_ends_with_the_edge_and_never_later_than_here() {
        let clock: SharedClock = Arc::new(ManualClock::new());
        let budget = Duration::from_secs(10);
        for (remaining_ms, expected_ms) in [(400, 400), (10_000, 10_000), (u64::MAX / 2, 10_000)] {
            let op = Op::new(OpKind::Test, clock.clone(), Arc::new(SystemRng), budget);
            let span = Tracer::off().request(&op, None);
            let state = RequestState::new(op, span);
            state.shorten(Duration::from_millis(remaining_ms));
            assert_eq!(state.op().remaining(), Duration::from_millis(expected_ms));
        }
    }
}
