//! `/v1/sessions`: where somebody is signed in, on every device and in every region.

use super::{
    caller::Caller,
    page,
    problem::{Kind, Problem},
    query,
};
use crate::{
    domain::{
        Answer,
        users::{self, Right, Subject},
    },
    storage::global::sessions::{self, SessionRow},
    vocab::{SessionId, UserId},
};
use actix_web::{HttpRequest, HttpResponse, http::header};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
struct Session<'a> {
    id: SessionId,
    /// The one that asks.
    current: bool,
    device: &'a str,
    address: &'a str,
    /// Where it began.
    region: &'a str,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    /// As the directory has heard; it hears seldom.
    seen_at: DateTime<Utc>,
    seen_in: &'a str,
}

#[derive(Serialize)]
struct Page<'a> {
    items: Vec<Session<'a>>,
    next_cursor: Option<SessionId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    limit: Option<String>,
    cursor: Option<SessionId>,
}

/// A user's sessions, page by page.
pub(super) async fn page_of(
    caller: &Caller,
    request: &HttpRequest,
    user: UserId,
) -> Result<HttpResponse, Problem> {
    let parameters = query::parse::<Parameters>(request.query_string()).ok_or_else(|| {
        let detail = "limit is 1 to 200, cursor the next_cursor of an earlier page.";
        Problem::new(Kind::Validation, detail)
    })?;
    let limit = page::limit(parameters.limit.as_deref())?;
    let (app, now) = (caller.app(), caller.op().now());
    let config = app.sessions.config();
    let idle = config.idle() + config.told_every();
    let idle = chrono::Duration::from_std(idle).unwrap_or(chrono::Duration::MAX);
    let (scope, since) = (caller.scope(), now - idle);
    let rows = sessions::list(&app.global, scope, user, parameters.cursor, since, now, limit + 1);
    let mut rows: Vec<SessionRow> = caller.read(rows.await)?;
    let limit = usize::try_from(limit).unwrap_or(0);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = if more { rows.last().map(|row| row.id) } else { None };
    let current = caller.session();
    let items = rows.iter().map(|row| Session {
        id: row.id,
        current: current == Some(row.id),
        device: &row.device,
        address: &row.address,
        region: &row.home,
        created_at: row.created_at,
        expires_at: row.expires_at,
        seen_at: row.seen_at,
        seen_in: &row.seen_in,
    });
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "private, no-cache"))
        .json(Page { items: items.collect(), next_cursor }))
}

pub(super) fn done() -> Answer {
    Answer { status: 204, etag: None, location: None, body: None, version: None }
}

pub(super) fn session_id(request: &HttpRequest, name: &str) -> Result<SessionId, Problem> {
    request.match_info().query(name).parse().map_err(|_| Problem::not_found())
}

/// Oneself, in whatever version.
pub(super) fn oneself(caller: &Caller) -> Result<Subject<'_>, Problem> {
    let id = caller.person()?;
    Ok(Subject { scope: caller.scope(), id, matches: None, right: Right::Oneself })
}

/// `GET /v1/sessions`
///
/// # Errors
/// A problem.
pub async fn list(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let user = caller.person()?;
    page_of(&caller, &request, user).await
}

/// `DELETE /v1/sessions/{id}`
///
/// # Errors
/// A problem.
pub async fn end(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (id, subject) = (session_id(&request, "id")?, oneself(&caller)?);
    caller
        .write(async |tx| users::end_session(tx, subject, id, caller.op()).await, |()| done())
        .await
}

/// `POST /v1/sessions:end-others`
///
/// # Errors
/// A problem.
pub async fn end_others(caller: Caller) -> Result<HttpResponse, Problem> {
    let (subject, kept) = (oneself(&caller)?, caller.session());
    let end = async |tx: &mut _| users::end_sessions(tx, subject, kept, caller.op()).await;
    caller.write(end, |_| done()).await
}
