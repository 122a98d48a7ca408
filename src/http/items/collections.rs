//! Listing the collections.

use crate::{
    http::{
        caller::Caller,
        page::{self, Place as _},
        problem::{Kind, Problem},
        query,
    },
    storage::global::items::{CollectionPage, collections},
    vocab::Collection,
};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    limit: Option<String>,
    cursor: Option<String>,
}

/// The last collection of a page.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    #[serde(rename = "c")]
    name: Collection,
}
impl page::Place for Cursor {}

/// `GET /v1/collections`
///
/// # Errors
/// A problem.
pub async fn list(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    #[derive(Serialize)]
    struct Entry {
        name: Collection,
        count: i64,
    }
    #[derive(Serialize)]
    struct Page {
        items: Vec<Entry>,
        next_cursor: Option<String>,
    }
    let invalid = |detail: &'static str| Problem::new(Kind::Validation, detail);
    let parameters: Parameters = query::parse(request.query_string())
        .ok_or_else(|| invalid("Parameters are limit and cursor, each once, in UTF-8."))?;
    let limit = page::limit(parameters.limit.as_deref())?;
    let after = match parameters.cursor.as_deref().map(Cursor::open) {
        None => None,
        Some(Some(cursor)) => Some(cursor.name),
        Some(None) => return Err(invalid("cursor is the next_cursor of an earlier page.")),
    };
    let found = collections(&caller.app().global, caller.scope(), after.as_ref(), limit).await;
    let CollectionPage { collections, more } = caller.read(found)?;
    let last = collections.last().filter(|_| more);
    let next_cursor = last.map(|(name, _)| Cursor { name: name.clone() }.seal());
    let items = collections.into_iter().map(|(name, count)| Entry { name, count }).collect();
    Ok(HttpResponse::Ok().json(Page { items, next_cursor }))
}
