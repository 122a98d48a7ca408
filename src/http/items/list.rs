//! Listing and searching a collection.

use super::{collection, push};
use crate::{
    domain::items::data::parse_value,
    http::{
        caller::Caller,
        page::{self, Place as _},
        problem::{Kind, Problem},
        query,
    },
    storage::global::items::{self, ItemRow, ListPosition, ListQuery, Order, OrderBy, Page},
    vocab::{Collection, ItemId},
};
use actix_web::{HttpRequest, HttpResponse};
use chrono::{DateTime, Datelike as _, Utc};
use serde::{Deserialize, Serialize};

/// Longest `q` and `filter`.
pub const EXPRESSION_CHARS_MAX: usize = 4_096;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    q: Option<String>,
    filter: Option<String>,
    order: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// Where a page ended. Names the order, so that it cannot be used with another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cursor {
    #[serde(rename = "o")]
    order: String,
    #[serde(rename = "t")]
    at: DateTime<Utc>,
    #[serde(rename = "i")]
    id: ItemId,
}
impl page::Place for Cursor {}

/// `GET /v1/collections/{collection}/items`
///
/// # Errors
/// A problem.
pub async fn list(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let collection = collection(&request, false)?;
    let app = caller.app();
    // More than an i64 holds is no bound at all.
    let bytes_max = i64::try_from(app.config.server.page_bytes_max).unwrap_or(i64::MAX);
    let query = parse(&collection, request.query_string(), bytes_max)?;
    let found = items::list(&app.global, caller.scope(), &query).await;
    let Page { items, more } = caller.read(found)?;
    let next = if more { items.last().map(|item| encode(query.order, item)) } else { None };
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .insert_header(("cache-control", "private, no-cache"))
        .body(page(&items, next.as_deref())))
}

fn page(rows: &[ItemRow], next: Option<&str>) -> String {
    let bytes: usize = rows.iter().map(|row| row.data.len() + 256).sum();
    let mut text = String::with_capacity(bytes + 128);
    text.push_str("{\"items\":[");
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        push(&mut text, row);
    }
    text.push_str("],\"next_cursor\":");
    match next {
        // base64url needs no escaping.
        Some(cursor) => {
            text.push('"');
            text.push_str(cursor);
            text.push('"');
        }
        None => text.push_str("null"),
    }
    text.push('}');
    text
}

fn invalid(detail: &'static str) -> Problem {
    Problem::new(Kind::Validation, detail)
}

fn parse(collection: &Collection, query: &str, bytes_max: i64) -> Result<ListQuery, Problem> {
    let parameters: Parameters = query::parse(query).ok_or_else(|| {
        invalid("Parameters are q, filter, order, limit and cursor, each once, in UTF-8.")
    })?;
    let order = match parameters.order.as_deref() {
        None => ORDER_DEFAULT,
        Some(text) => order_named(text).ok_or_else(|| {
            invalid("order is id, created_at or updated_at, with - before it for the newest first.")
        })?,
    };
    let after = match parameters.cursor.as_deref() {
        None => None,
        Some(text) => Some(decode(order, text)?),
    };
    Ok(ListQuery {
        collection: collection.clone(),
        q: expression(parameters.q, "q")?.filter(|q| !q.trim().is_empty()),
        filter: filter(expression(parameters.filter, "filter")?)?,
        order,
        after,
        limit: page::limit(parameters.limit.as_deref())?,
        bytes_max,
    })
}

fn expression(text: Option<String>, name: &'static str) -> Result<Option<String>, Problem> {
    match text {
        Some(text) if text.chars().count() > EXPRESSION_CHARS_MAX || text.contains('\0') => {
            let detail =
                format!("{name} may have up to {EXPRESSION_CHARS_MAX} characters, not U+0000.");
            Err(Problem::new(Kind::Validation, detail))
        }
        text => Ok(text),
    }
}

fn filter(text: Option<String>) -> Result<Option<String>, Problem> {
    let Some(text) = text else {
        return Ok(None);
    };
    let value = parse_value(text.as_bytes()).map_err(|_| invalid("filter is a JSON object."))?;
    let data = crate::domain::ItemData::from_value(&value)
        .map_err(|_| invalid("filter is a JSON object."))?;
    Ok(Some(data.as_str().to_owned()))
}

const ORDER_DEFAULT: Order = Order { by: OrderBy::Id, descending: false };

fn order_named(text: &str) -> Option<Order> {
    let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
    let by = match name {
        "id" => OrderBy::Id,
        "created_at" => OrderBy::CreatedAt,
        "updated_at" => OrderBy::UpdatedAt,
        _ => return None,
    };
    Some(Order { by, descending })
}

fn order_name(order: Order) -> String {
    let name = match order.by {
        OrderBy::Id => "id",
        OrderBy::CreatedAt => "created_at",
        OrderBy::UpdatedAt => "updated_at",
    };
    format!("{}{name}", if order.descending { "-" } else { "" })
}

fn encode(order: Order, row: &ItemRow) -> String {
    let ListPosition { at, id } = row.place(order.by);
    Cursor { order: order_name(order), at, id }.seal()
}

fn decode(order: Order, text: &str) -> Result<ListPosition, Problem> {
    let bad = || invalid("cursor is the next_cursor of an earlier page, used with the same order.");
    let cursor = Cursor::open(text).ok_or_else(bad)?;
    // Beyond these the database has no times.
    let possible = (1..=9_999).contains(&cursor.at.year());
    if possible && cursor.order == order_name(order) {
        Ok(ListPosition { at: cursor.at, id: cursor.id })
    } else {
        Err(bad())
    }
}
