//! `/v1/collections`: items over HTTP.

pub mod batch;
pub mod collections;
pub mod list;
pub mod one;

use super::problem::{Kind, Problem};
use crate::{
    storage::global::items::ItemRow,
    vocab::{Collection, ItemId},
};
use actix_web::HttpRequest;

/// An item as JSON text. The document inside is Postgres' own text, passed on as it is.
#[must_use]
pub fn render(item: &ItemRow) -> String {
    let mut text = String::with_capacity(item.data.len() + 256);
    push(&mut text, item);
    text
}

/// Appends an item as JSON text. None of the values beside the document needs escaping.
pub fn push(text: &mut String, item: &ItemRow) {
    use chrono::SecondsFormat::Micros;
    use std::fmt::Write as _;
    let (created, updated) = (
        item.created_at.to_rfc3339_opts(Micros, true),
        item.updated_at.to_rfc3339_opts(Micros, true),
    );
    // Writing to a string does not fail.
    let _ = write!(
        text,
        r#"{{"id":"{}","collection":"{}","version":{},"data":{},"created_at":"{created}","updated_at":"{updated}"}}"#,
        item.id, item.collection, item.version, item.data,
    );
}

/// 412 with what is there now, so that the caller can merge and try again without asking.
#[must_use]
pub fn version_conflict(current: &ItemRow) -> Problem {
    let value = serde_json::from_str(&render(current)).ok();
    Problem::new(
        Kind::VersionConflict,
        "The item has changed, or exists; `current` is what it is now.",
    )
    .member("current", value.unwrap_or(serde_json::Value::Null))
    .header("etag", current.etag().to_string())
}

/// Where an item is found.
#[must_use]
pub fn location(collection: &Collection, id: ItemId) -> String {
    format!("/v1/collections/{collection}/items/{id}")
}

/// A path parameter; `None` where it cannot name anything.
fn parameter<T: std::str::FromStr>(request: &HttpRequest, name: &str) -> Result<T, T::Err> {
    request.match_info().query(name).parse()
}

/// The collection and item a request names. What cannot exist is not found; where the request
/// would make it, the name is not valid.
fn place(request: &HttpRequest, makes: bool) -> Result<(Collection, ItemId), Problem> {
    let parsed = || -> Result<_, crate::vocab::Malformed> {
        Ok((parameter(request, "collection")?, parameter(request, "id")?))
    };
    parsed().map_err(|malformed| if makes { malformed.into() } else { Problem::not_found() })
}

fn collection(request: &HttpRequest, makes: bool) -> Result<Collection, Problem> {
    let parsed: Result<Collection, _> = parameter(request, "collection");
    parsed.map_err(|malformed| if makes { malformed.into() } else { Problem::not_found() })
}
