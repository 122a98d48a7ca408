//! One item: create, read, replace, patch, delete.

use super::{collection, location, place, render};
use crate::{
    domain::{
        Answer, ItemData,
        items::{
            self, Place,
            batch::Done,
            data::parse_value,
            precondition::{Match, Precondition},
        },
    },
    http::{
        caller::Caller,
        headers::joined,
        problem::{Kind, Problem},
    },
    storage::global::items::ItemRow,
    vocab::{ItemId, Malformed},
};
use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderMap},
    web::Bytes,
};

/// `POST /v1/collections/{collection}/items`
///
/// # Errors
/// A problem.
pub async fn create(
    caller: Caller,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    let collection = collection(&request, true)?;
    json_type(&request, &["application/json"])?;
    let data = ItemData::parse(&body)?;
    let id = ItemId::mint(caller.op());
    let place = Place { scope: caller.scope(), collection: &collection, id };
    caller.write(async |tx| items::create(tx, place, &data, caller.op()).await, created).await
}

/// `GET /v1/collections/{collection}/items/{id}`
///
/// # Errors
/// A problem.
pub async fn read(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (collection, id) = place(&request, false)?;
    let known = conditional(&request)?;
    let found = caller.hot().item(caller.scope(), &collection, id, caller.op()).await;
    let Some(item) = caller.read(found)? else {
        return Err(Problem::not_found());
    };
    let etag = item.etag();
    if known.is_some_and(|known| known.holds(etag)) {
        return Ok(HttpResponse::NotModified().insert_header(("etag", etag.to_string())).finish());
    }
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .insert_header(("etag", etag.to_string()))
        .insert_header(("cache-control", "private, no-cache"))
        .body(render(&item)))
}

/// `PUT /v1/collections/{collection}/items/{id}`
///
/// # Errors
/// A problem.
pub async fn put(
    caller: Caller,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    let (collection, id) = place(&request, true)?;
    json_type(&request, &["application/json"])?;
    let precondition = precondition(request.headers())?;
    let data = ItemData::parse(&body)?;
    let place = Place { scope: caller.scope(), collection: &collection, id };
    caller
        .write(
            async |tx| items::put(tx, place, &precondition, &data, caller.op()).await,
            |(item, new)| if *new { created(item) } else { changed(item) },
        )
        .await
}

/// `PATCH /v1/collections/{collection}/items/{id}`
///
/// # Errors
/// A problem.
pub async fn patch(
    caller: Caller,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    let (collection, id) = place(&request, false)?;
    json_type(&request, &["application/merge-patch+json", "application/json"])?;
    let matches = must_match(request.headers())?;
    let patch = parse_value(&body)?;
    let place = Place { scope: caller.scope(), collection: &collection, id };
    caller
        .write(async |tx| items::patch(tx, place, &matches, &patch, caller.op()).await, changed)
        .await
}

/// `DELETE /v1/collections/{collection}/items/{id}`
///
/// # Errors
/// A problem.
pub async fn delete(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (collection, id) = place(&request, false)?;
    let matches = must_match(request.headers())?;
    let place = Place { scope: caller.scope(), collection: &collection, id };
    caller.write(async |tx| items::delete(tx, place, &matches, caller.op()).await, deleted).await
}

/// The answer to a write of one item, as the journal has it.
#[must_use]
pub fn item_answer(done: &Done) -> Answer {
    match done {
        Done::Created(item) => created(item),
        Done::Changed(item) => changed(item),
        Done::Deleted(item) => deleted(item),
    }
}

fn deleted(item: &ItemRow) -> Answer {
    Answer { status: 204, etag: None, location: None, body: None, version: Some(item.version) }
}

fn created(item: &ItemRow) -> Answer {
    Answer { status: 201, location: Some(location(&item.collection, item.id)), ..changed(item) }
}

fn changed(item: &ItemRow) -> Answer {
    Answer {
        status: 200,
        etag: Some(item.etag().to_string()),
        location: None,
        body: Some(render(item)),
        version: Some(item.version),
    }
}

/// What curl and others say of a body when their user says nothing.
const UNLABELLED: &str = "application/x-www-form-urlencoded";

/// A body that says it is something else, or is packed, is not read as JSON. One that says nothing
/// is.
pub(in crate::http) fn json_type(request: &HttpRequest, accepted: &[&str]) -> Result<(), Problem> {
    let coding = joined(request.headers(), &header::CONTENT_ENCODING);
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        // RFC 9110, section 15.5.16.
        return Err(Problem::new(Kind::UnsupportedMediaType, "Send the body without a coding.")
            .header("accept-encoding", "identity"));
    }
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if accepted.iter().chain([&UNLABELLED]).any(|name| essence.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    let detail = format!("Send {}.", accepted.join(" or "));
    Err(Problem::new(Kind::UnsupportedMediaType, detail))
}

fn field(headers: &HeaderMap, name: &header::HeaderName) -> Result<Option<String>, Problem> {
    let malformed = || Malformed::new("entity tag", "* or a list of quoted entity tags");
    let Some(value) = joined(headers, name) else {
        return Ok(None);
    };
    Ok(Some(String::from_utf8(value.into_owned()).map_err(|_| malformed())?))
}

/// `If-None-Match` of a read.
pub(in crate::http) fn conditional(request: &HttpRequest) -> Result<Option<Match>, Problem> {
    match field(request.headers(), &header::IF_NONE_MATCH)? {
        Some(text) => Ok(Some(Match::parse(&text, true)?)),
        None => Ok(None),
    }
}

pub(in crate::http) fn must_match(headers: &HeaderMap) -> Result<Match, Problem> {
    match field(headers, &header::IF_MATCH)? {
        Some(text) => Ok(Match::parse(&text, false)?),
        None => Err(Problem::new(Kind::PreconditionRequired, "Send If-Match with its ETag.")),
    }
}

/// `If-Match` where it may be left out.
pub(in crate::http) fn may_match(headers: &HeaderMap) -> Result<Option<Match>, Problem> {
    match field(headers, &header::IF_MATCH)? {
        Some(text) => Ok(Some(Match::parse(&text, false)?)),
        None => Ok(None),
    }
}

/// What a `PUT` demands: exactly one of the two fields.
fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    match (field(headers, &header::IF_MATCH)?, field(headers, &header::IF_NONE_MATCH)?) {
        (Some(text), None) => Ok(Precondition::Matches(Match::parse(&text, false)?)),
        (None, Some(text)) if text.trim() == "*" => Ok(Precondition::Absent),
        (None, Some(_)) => {
            Err(Problem::new(Kind::Malformed, "If-None-Match of a write must be *."))
        }
        (Some(_), Some(_)) => {
            Err(Problem::new(Kind::Malformed, "Send If-Match or If-None-Match, not both."))
        }
        (None, None) => Err(Problem::new(
            Kind::PreconditionRequired,
            "Send If-Match with the item's ETag to replace it, or If-None-Match: * to create it.",
        )),
    }
}
