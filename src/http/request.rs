//! What is learned about one request on its way through, for its answer's headers and its log line.

use super::limits::Standing;
use crate::{
    identity::Principal,
    routing::Consistency,
    telemetry::{metrics::Route as Answered, trace::Span},
    vocab::{Bookmark, Epoch, IdempotencyKey, Op},
};
use actix_web::{HttpMessage as _, HttpRequest, dev::ServiceRequest};
use std::{cell::RefCell, rc::Rc, time::Instant};

/// Made by `observe`, found in the request's extensions by all that follows.
pub struct RequestState {
    pub op: Op,
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
    pub bookmark_in: Option<Bookmark>,
    pub bookmark_out: Option<Bookmark>,
    pub epoch: Option<Epoch>,
    pub consistency: Consistency,
    pub request_bytes: u64,
    pub limit: Option<Standing>,
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
