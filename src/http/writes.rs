//! `GET /v1/writes/{key}`: what became of a write?

use super::{
    caller::Caller,
    problem::{Kind, Problem},
};
use crate::{
    storage::global::journal::{self, Found, JournalRow, LostRow},
    vocab::IdempotencyKey,
};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::value::RawValue;

/// One write, as its client is told.
#[derive(Serialize)]
struct Write<'a> {
    key: &'a str,
    /// `committed`; `lost`: it was, and a failover has lost it; or `unknown`: the primary has no
    /// record of it, so it has had no effect so far.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    committed_at: Option<chrono::DateTime<chrono::Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Answer<'a>>,
}

/// The answer the write was given.
#[derive(Serialize)]
struct Answer<'a> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
    body: Option<&'a RawValue>,
}

/// # Errors
/// A problem.
pub async fn read(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    // `load` undoes all of the percent-encoding, `query` would leave `%`, `/` and `+` encoded.
    let key = request.match_info().load::<String>().ok();
    // What is no key has no write.
    let key = key.and_then(|key| key.parse::<IdempotencyKey>().ok());
    let key = key.ok_or_else(Problem::not_found)?;
    let found =
        journal::find(&caller.app().global, caller.scope(), &caller.journal_key(&key)).await;
    let found = caller.read(found)?;
    let told = match &found {
        Found::Committed(row) => committed(&key, row),
        Found::Lost(row) => lost(&key, row),
        Found::Nothing => unknown(&key),
        // The gate asks the primary; the client is told this when it cannot.
        Found::NothingHere => {
            let detail = "There is no record of it here, which proves nothing; ask again later.";
            return Err(Problem::new(Kind::Unavailable, detail).told_by_the_primary());
        }
    };
    Ok(HttpResponse::Ok().insert_header(("cache-control", "private, no-store")).json(told))
}

fn unknown(key: &IdempotencyKey) -> Write<'_> {
    Write {
        key: key.as_str(),
        status: "unknown",
        method: None,
        path: None,
        committed_at: None,
        response: None,
    }
}

fn lost<'a>(key: &'a IdempotencyKey, row: &'a LostRow) -> Write<'a> {
    Write {
        status: "lost",
        method: Some(&row.method),
        path: Some(&row.path),
        committed_at: Some(row.committed_at),
        ..unknown(key)
    }
}

fn committed<'a>(key: &'a IdempotencyKey, row: &'a JournalRow) -> Write<'a> {
    // The body was made by us, as JSON.
    let body = row.body.as_deref().and_then(|body| serde_json::from_str(body).ok());
    Write {
        key: key.as_str(),
        status: "committed",
        method: Some(&row.method),
        path: Some(&row.path),
        committed_at: Some(row.committed_at),
        response: Some(Answer {
            status: row.status,
            etag: row.etag.as_deref(),
            location: row.location.as_deref(),
            body,
        }),
    }
}
