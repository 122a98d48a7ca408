//! `/v1/admin/keys`: a tenant's API keys.

use crate::{
    domain::{
        Answer,
        api_keys::{self, DAYS, DAYS_DEFAULT, Draft, NAME_CHARS_MAX},
    },
    http::{
        caller::Caller,
        items::one::json_type,
        page,
        problem::{Kind, Problem},
        query,
    },
    identity::ApiKeySecret,
    storage::global::api_keys::{KeyRow, find_by_id, list as list_keys},
    vocab::{ApiKeyId, Scope, Scopes},
};
use actix_web::{HttpRequest, HttpResponse, web::Bytes};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Number;

/// A key, without its secret.
#[derive(Serialize)]
struct Key<'a> {
    id: ApiKeyId,
    name: &'a str,
    prefix: &'a str,
    scopes: Scopes,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
}

impl<'a> From<&'a KeyRow> for Key<'a> {
    fn from(row: &'a KeyRow) -> Self {
        Self {
            id: row.id,
            name: &row.name,
            prefix: &row.prefix,
            scopes: row.scopes,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    limit: Option<String>,
    cursor: Option<ApiKeyId>,
}

/// `GET /v1/admin/keys`
///
/// # Errors
/// A problem.
pub async fn list(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    #[derive(Serialize)]
    struct Page<'a> {
        items: Vec<Key<'a>>,
        next_cursor: Option<ApiKeyId>,
    }
    let parameters = query::parse::<Parameters>(request.query_string()).ok_or_else(|| {
        Problem::new(
            Kind::Validation,
            "limit is 1 to 200, cursor the next_cursor of an earlier page.",
        )
    })?;
    let limit = page::limit(parameters.limit.as_deref())?;
    let after = parameters.cursor;
    let found = list_keys(&caller.app().global, caller.scope(), after, limit + 1).await;
    let mut rows = caller.read(found)?;
    let limit = usize::try_from(limit).unwrap_or(0);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = if more { rows.last().map(|row| row.id) } else { None };
    let items = rows.iter().map(Key::from).collect();
    Ok(HttpResponse::Ok().json(Page { items, next_cursor }))
}

/// `GET /v1/admin/keys/{id}`
///
/// # Errors
/// A problem.
pub async fn read(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let id = id(&request)?;
    let found = caller.read(find_by_id(&caller.app().global, id).await)?;
    match found.filter(|row| row.scope().tenant() == caller.scope().tenant()) {
        Some(row) => Ok(HttpResponse::Ok().json(Key::from(&row))),
        None => Err(Problem::not_found()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    scopes: Vec<Scope>,
    #[serde(default = "days_default")]
    days: Number,
    #[serde(default = "environment_default")]
    environment: String,
}

fn days_default() -> Number {
    DAYS_DEFAULT.into()
}

/// A whole number, which JSON may also write `90.0` (JSON Schema 2020-12 section 6.1.1).
fn whole(number: &Number) -> Option<u32> {
    let text = number.as_str();
    let zeros = |rest: &str| rest.bytes().all(|byte| byte == b'0');
    let text =
        text.split_once('.').filter(|(_, rest)| zeros(rest)).map_or(text, |(whole, _)| whole);
    text.parse().ok()
}
fn environment_default() -> String {
    "live".to_owned()
}

/// `POST /v1/admin/keys`. The secret is in this answer and nowhere else; a repetition with the same
/// idempotency key shows the key without it.
///
/// # Errors
/// A problem.
pub async fn create(
    caller: Caller,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    json_type(&request, &["application/json"])?;
    let (wanted, days) = parse(&body)?;
    let scopes: Scopes = wanted.scopes.iter().copied().collect();
    // A key cannot make one that may do more than itself.
    if let Some(scope) = scopes.iter().find(|scope| !caller.scopes().contains(*scope)) {
        let detail = format!("The credential lacks the scope `{scope}`, so it cannot give it.");
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    let secret = ApiKeySecret::mint(caller.op(), &wanted.environment)?;
    let draft = Draft {
        id: ApiKeyId::mint(caller.op()),
        name: &wanted.name,
        prefix: &secret.prefix(),
        secret_hash: secret.hash(),
        scopes,
        days,
    };
    let response = caller
        .write(
            async |tx| api_keys::create(tx, caller.scope(), &draft, caller.op()).await,
            |row| Answer {
                status: 201,
                etag: None,
                location: Some(format!("/v1/admin/keys/{}", row.id)),
                body: serde_json::to_string(&Key::from(row)).ok(),
                version: None,
            },
        )
        .await?;
    reveal(response, &secret)
}

/// Adds the secret to a first answer. The journal, which keeps answers, never sees it.
fn reveal(response: HttpResponse, secret: &ApiKeySecret) -> Result<HttpResponse, Problem> {
    if response.headers().contains_key("idempotency-replayed") {
        return Ok(response);
    }
    let broken = || Problem::new(Kind::Internal, "The key's answer cannot be made.");
    let (head, body) = response.into_parts();
    let bytes = actix_web::body::MessageBody::try_into_bytes(body).map_err(|_| broken())?;
    let mut document: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&bytes).map_err(|_| broken())?;
    document.insert("key".to_owned(), secret.reveal().into());
    let body = serde_json::to_string(&document).map_err(|_| broken())?;
    Ok(head.set_body(actix_web::body::BoxBody::new(body)))
}

/// The key wanted, and its days.
fn parse(body: &[u8]) -> Result<(Wanted, u32), Problem> {
    let value = crate::domain::items::data::parse_value(body)?;
    let invalid = |detail: String| Problem::new(Kind::Validation, detail);
    let wanted: Wanted =
        serde_json::from_value(value).map_err(|error| invalid(format!("{error}.")))?;
    let name = &wanted.name;
    if name.trim().is_empty()
        || name.chars().count() > NAME_CHARS_MAX
        || name.contains(char::is_control)
    {
        return Err(invalid(format!(
            "name has 1 to {NAME_CHARS_MAX} characters, no control characters."
        )));
    }
    if wanted.scopes.is_empty() {
        return Err(invalid("scopes has one or more of read, write and admin.".to_owned()));
    }
    let days = whole(&wanted.days).filter(|days| DAYS.contains(days));
    let days =
        days.ok_or_else(|| invalid(format!("days is {} to {}.", DAYS.start(), DAYS.end())))?;
    Ok((wanted, days))
}

/// `DELETE /v1/admin/keys/{id}`: ends the key for good, in every region within the replication lag
/// and the time a credential is believed.
///
/// # Errors
/// A problem.
pub async fn revoke(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let id = id(&request)?;
    caller
        .write(
            async |tx| api_keys::revoke(tx, caller.scope(), id, caller.op()).await,
            |_| Answer { status: 204, etag: None, location: None, body: None, version: None },
        )
        .await
}

fn id(request: &HttpRequest) -> Result<ApiKeyId, Problem> {
    request.match_info().query("id").parse().map_err(|_| Problem::not_found())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(days: &str) -> Option<u32> {
        let body = format!(r#"{{"name":"n","scopes":["read"],"days":{days}}}"#);
        parse(body.as_bytes()).ok().map(|(_, days)| days)
    }

    #[test]
    fn days_are_a_whole_number_within_bounds_however_written() {
        for (text, days) in [("1", 1), ("365", 365), ("62.0", 62), ("62.000", 62)] {
            assert_eq!(parsed(text), Some(days), "{text}");
        }
        for text in ["0", "366", "-1", "62.5", "1e2", "\"62\"", "null", "99999999999"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_has_something_to_see_and_no_control_characters() {
        for name in ["", " ", "a\\n", "\\u0085", "\\u2003", "\\u0000a"] {
            let body = format!(r#"{{"name":"{name}","scopes":["read"]}}"#);
            assert!(parse(body.as_bytes()).is_err(), "{name}");
        }
    }
}
