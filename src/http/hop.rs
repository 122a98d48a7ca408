//! Between actix's request and answer and the forwarder's: translation, nothing else.

use super::{
    app::App,
    headers,
    problem::{Kind, Problem},
    request::RequestState,
};
use crate::{
    routing::{
        envelope::Bearer,
        forward::{Body, ForwardError, Incoming, Outgoing},
    },
    telemetry::trace,
    vocab::{Epoch, Region},
};
use actix_web::{
    HttpRequest, HttpResponse,
    body::SizedStream,
    http::{
        Method, StatusCode,
        header::{HeaderName, HeaderValue},
    },
    web::Bytes,
};
use futures_util::stream;
use std::convert::Infallible;

/// What handlers read of a request's header fields. All else stays at the edge: credentials and
/// whatever a client might pass off as a region's word.
const CARRIED: [&str; 6] =
    ["content-type", "content-encoding", "if-match", "if-none-match", "accept", "prefer"];

/// What an answer brings back. The rest is stamped at the edge.
const RETURNED: [&str; 14] = [
    "accept-encoding",
    "content-type",
    "etag",
    "location",
    "allow",
    "retry-after",
    "www-authenticate",
    "cache-control",
    "last-modified",
    "idempotency-replayed",
    "preference-applied",
    "godwit-bookmark",
    "godwit-region",
    "godwit-epoch",
];

/// Carries a request to the primary and brings its answer back.
///
/// # Errors
/// When there is none: `fenced` or `no-primary` if it had no effect, `outcome-unknown` if it may have
/// had.
pub async fn carry(
    app: &App,
    state: &RequestState,
    request: &HttpRequest,
    to: &Region,
    epoch: Epoch,
    bearer: Bearer,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    let span = state.span.borrow().child(state.op(), trace::Kind::Client, "forward.request.send");
    let key = state.facts.borrow().write.as_ref().map(|write| write.key.clone());
    let outgoing = {
        let facts = state.facts.borrow();
        Outgoing {
            method: request.method().as_str().to_owned(),
            path: request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            headers: carried(request),
            body,
            bearer,
            key: key.clone(),
            bookmark: facts.bookmark_in,
            consistency: facts.consistency.to_string(),
            traceparent: span.context().to_string(),
        }
    };
    let incoming = app.forwarder.send(to, epoch, &outgoing, state.op()).await;
    let incoming = incoming.map_err(|error| match (&error, key) {
        (ForwardError::Unknown { .. } | ForwardError::StillUnderWay { .. }, Some(key)) => {
            Problem::outcome_unknown(key.as_str()).caused_by(error)
        }
        _ => Problem::from(error),
    })?;
    // The primary has moved on, or never was one: nothing was done.
    if incoming.status == StatusCode::MISDIRECTED_REQUEST.as_u16() {
        return Err(Problem::new(Kind::Fenced, "The primary is moving."));
    }
    let problem = incoming.problem().and_then(|name| Kind::named(&name));
    // Two regions whose clocks or keys differ: neither the client's fault, nor one that passes.
    if problem == Some(Kind::Untrusted) {
        tracing::error!(
            peer = %to,
            "the primary does not trust this region's requests: compare cluster.envelope_keys and the clocks"
        );
        return Err(Problem::new(Kind::NoPrimary, "The primary region does not take requests."));
    }
    // For the line of the log.
    state.facts.borrow_mut().problem = problem.map(Kind::name);
    let status = StatusCode::from_u16(incoming.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut answer = HttpResponse::build(status);
    for (name, value) in &incoming.headers {
        if let (true, Ok(name), Ok(value)) = (
            RETURNED.contains(&name.as_str()),
            HeaderName::try_from(name.as_str()),
            HeaderValue::from_bytes(value),
        ) {
            answer.append_header((name, value));
        }
    }
    if request.method() == Method::HEAD {
        return Ok(match length(&incoming) {
            Some(length) => answer.body(SizedStream::new(length, stream::empty::<Nothing>())),
            None => answer.finish(),
        });
    }
    Ok(match incoming.body {
        Body::Whole(bytes) => answer.body(bytes),
        Body::Stream(chunks) => answer.streaming(chunks),
    })
}

/// The body of an answer to HEAD: of a length that is told, and never sent.
type Nothing = Result<Bytes, Infallible>;

/// How long the primary says that its answer is, or would have been.
fn length(incoming: &Incoming) -> Option<u64> {
    let (_, value) = incoming.headers.iter().find(|(name, _)| name == "content-length")?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn carried(request: &HttpRequest) -> Vec<(&'static str, Vec<u8>)> {
    let value = |name: &'static str| {
        let value = headers::joined(request.headers(), &HeaderName::from_static(name))?;
        Some((name, value.into_owned()))
    };
    CARRIED.into_iter().filter_map(value).collect()
}
