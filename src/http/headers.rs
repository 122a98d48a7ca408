//! The header fields of the contract: parsed on the way in, stamped on the way out.

use super::{
    app::App,
    cookies,
    limits::Standing,
    problem::{Kind, Problem},
    request::{Facts, RequestState},
};
use crate::{
    routing::{Consistency, PrimaryView},
    telemetry::metrics::Route as Answered,
    vocab::{Bookmark, IdempotencyKey},
};
use actix_web::{
    dev::{ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
};
use sha2::{Digest as _, Sha256};
use std::{borrow::Cow, fmt::Write as _};

pub const BOOKMARK: &str = "godwit-bookmark";
pub const BOOKMARK_COOKIE: &str = "godwit_bookmark";
pub const CONSISTENCY: &str = "godwit-consistency";
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
const REGION: HeaderName = HeaderName::from_static("godwit-region");
const EPOCH: HeaderName = HeaderName::from_static("godwit-epoch");
const ROUTE: HeaderName = HeaderName::from_static("godwit-route");
const LAG_MS: HeaderName = HeaderName::from_static("godwit-lag-ms");
const KEY: HeaderName = HeaderName::from_static(IDEMPOTENCY_KEY);
const MARK: HeaderName = HeaderName::from_static(BOOKMARK);

/// A header field's text. Sent twice is as good as malformed: which one was meant cannot be told.
fn text<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
    kind: Kind,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name);
    let Some(first) = values.next() else {
        return Ok(None);
    };
    match (first.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text)),
        _ => {
            Err(Problem::new(kind, format!("{name}: send one value of visible ASCII characters.")))
        }
    }
}

/// A field that is a list, with all its lines as one (RFC 9110 section 5.3).
#[must_use]
pub fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).map(HeaderValue::as_bytes);
    let first = lines.next()?;
    Some(lines.fold(Cow::Borrowed(first), |all, line| {
        let mut all = all.into_owned();
        all.extend_from_slice(b", ");
        all.extend_from_slice(line);
        Cow::Owned(all)
    }))
}

/// # Errors
/// When names and values together are longer than allowed.
pub fn check_size(headers: &HeaderMap, bytes_max: usize) -> Result<(), Problem> {
    let bytes: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > bytes_max {
        let detail = format!("Header fields may have up to {bytes_max} bytes together.");
        return Err(Problem::new(Kind::HeadersTooLarge, detail));
    }
    Ok(())
}

/// The credential of `Authorization: Bearer` (RFC 6750 section 2.1); the scheme in any case.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION);
    let value = values.next()?.to_str().ok()?;
    // Two credentials are none: which one was meant cannot be told.
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether there is an `Authorization` at all.
#[must_use]
pub fn is_authorized(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION)
}

/// The header's bookmark, else the cookie's. A cookie that is not a bookmark is no bookmark: a
/// browser could not get rid of it.
///
/// # Errors
/// When the header is not a bookmark.
pub fn bookmark(headers: &HeaderMap) -> Result<Option<Bookmark>, Problem> {
    if let Some(text) = text(headers, BOOKMARK, Kind::BookmarkInvalid)? {
        return Ok(Some(text.parse()?));
    }
    Ok(cookies::value(headers, BOOKMARK_COOKIE).and_then(|value| value.parse().ok()))
}

/// # Errors
/// When it is none of the four.
pub fn consistency(headers: &HeaderMap) -> Result<Consistency, Problem> {
    match text(headers, CONSISTENCY, Kind::Malformed)? {
        Some(text) => Ok(text.parse()?),
        None => Ok(Consistency::Session),
    }
}

/// # Errors
/// When it is longer than 255 characters or has other than visible ASCII ones.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    match text(headers, IDEMPOTENCY_KEY, Kind::Malformed)? {
        Some(text) => Ok(Some(text.parse()?)),
        None => Ok(None),
    }
}

/// SHA-256 over all that makes a write what it is: method, path, query, preconditions and body.
/// Each part with its length, so that no two requests run together into the same bytes.
#[must_use]
pub fn digest(request: &ServiceRequest, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(request.method().as_str().as_bytes());
    part(request.uri().path_and_query().map_or("/", |path| path.as_str()).as_bytes());
    for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
        part(&joined(request.headers(), &name).unwrap_or_default());
    }
    part(body);
    hash.finalize().into()
}

/// Sets the contract's header fields on an answer, whoever made it.
pub fn stamp<B>(app: &App, state: &RequestState, response: &mut ServiceResponse<B>) {
    let browser = is_browser(response.request().headers());
    let mut facts = state.facts.borrow_mut();
    // A write is answered in the epoch it was carried out in, whatever has begun since.
    let written_in = match facts.answered {
        Some(Answered::Local | Answered::Waited) => facts.write.as_ref().map(|write| write.epoch),
        _ => None,
    };
    let known = || app.topology.look(|snapshot| snapshot.epoch_highest());
    facts.epoch = written_in.or_else(known);
    if let Some(problem) =
        response.response().error().and_then(|e| e.as_error::<super::problem::Problem>())
    {
        facts.bookmark_out = facts.bookmark_out.max(problem.position());
        facts.problem = Some(problem.kind().name());
    }
    let forwarded = facts.answered == Some(Answered::Forwarded);
    let headers = response.headers_mut();
    // A forwarded answer comes with the primary's own.
    if !(forwarded && headers.contains_key(&REGION)) {
        set(headers, REGION, app.region.as_str());
        if let Some(epoch) = facts.epoch {
            set(headers, EPOCH, &epoch.to_string());
        }
    }
    match facts.answered {
        None | Some(Answered::Refused) => {}
        Some(answered) => {
            headers.insert(ROUTE, HeaderValue::from_static(answered.as_str()));
        }
    }
    if matches!(facts.answered, Some(Answered::Local | Answered::Waited)) {
        let now = app.clock.monotonic();
        if let Some(lag) = facts.lag.map(|lag| lag.bound(now)) {
            set(headers, LAG_MS, &lag.as_micros().div_ceil(1_000).to_string());
        }
    }
    bookmark_out(headers, &mut facts, forwarded, browser);
    if let Some(write) = &facts.write
        && let Ok(key) = HeaderValue::from_str(write.key.as_str())
    {
        headers.insert(KEY, key);
    }
    if let Some(standing) = facts.limit {
        rate_limit(headers, standing);
    }
}

/// Never less than what was sent: a client does not go back in time by changing regions.
fn bookmark_out(headers: &mut HeaderMap, facts: &mut Facts, forwarded: bool, browser: bool) {
    let theirs = headers.get(MARK).and_then(|value| value.to_str().ok()?.parse().ok());
    let theirs = theirs.filter(|_| forwarded);
    let lost = facts.problem == Some("bookmark-lost");
    let sent = facts.bookmark_in.filter(|_| !lost && facts.bookmark_out.max(theirs).is_some());
    facts.bookmark_out = facts.bookmark_out.max(theirs).max(sent);
    if let Some(mark) = facts.bookmark_out {
        let mark = mark.to_string();
        if browser && let Ok(value) = HeaderValue::from_str(&bookmark_cookie(&mark, 604_800)) {
            headers.append(header::SET_COOKIE, value);
        }
        set(headers, MARK, &mark);
    }
}

/// Has a browser forget its bookmark.
#[must_use]
pub fn forget_bookmark() -> String {
    bookmark_cookie("", 0)
}

fn bookmark_cookie(mark: &str, seconds: u32) -> String {
    format!("{BOOKMARK_COOKIE}={mark}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax")
}

/// Browsers say so (Fetch Metadata), and bring cookies.
fn is_browser(headers: &HeaderMap) -> bool {
    headers.contains_key("sec-fetch-mode") || headers.contains_key(header::COOKIE)
}

/// draft-ietf-httpapi-ratelimit-headers-10.
fn rate_limit(headers: &mut HeaderMap, standing: Standing) {
    let rate = standing.rate;
    let window = u64::from(rate.burst) * rate.per.as_secs();
    let window = window.div_ceil(u64::from(rate.tokens.max(1))).max(1);
    let name = standing.name.as_str();
    let mut line = String::with_capacity(48);
    let _ = write!(line, "\"{name}\";q={};w={window}", rate.burst);
    set(headers, HeaderName::from_static("ratelimit-policy"), &line);
    line.clear();
    let reset = standing.reset.as_millis().div_ceil(1_000);
    let _ = write!(line, "\"{name}\";r={};t={reset}", standing.remaining);
    set(headers, HeaderName::from_static("ratelimit"), &line);
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Ours are all visible ASCII.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Is the primary in this region? For messages of health and status.
#[must_use]
pub fn writes_word(primary: &PrimaryView) -> &'static str {
    match primary {
        PrimaryView::Here(_) => "local",
        PrimaryView::Peer(..) => "forwarded",
        PrimaryView::Tripped(_) | PrimaryView::Fenced(_) | PrimaryView::Unknown => "refused",
    }
}
