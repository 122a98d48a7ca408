//! Parameters: of the path, of the query, and the request header fields.

use super::schema;
use crate::http::{
    items::list::EXPRESSION_CHARS_MAX,
    page::{LIMIT_DEFAULT, LIMIT_MAX},
};
use serde_json::{Map, Value, json};

/// Visible ASCII, as an `Idempotency-Key` is made of.
const KEY_PATTERN: &str = "^[!-~]{1,255}$";
/// `*`, or a list of entity tags (RFC 9110 section 8.8.3).
pub const MATCH_PATTERN: &str = r#"^(\*|(W/)?"[!#-~]*"([ \t]*,[ \t]*(W/)?"[!#-~]*")*)$"#;
/// No character U+0000, which the database cannot hold.
pub const TEXT_PATTERN: &str = r"^[^\u0000]*$";
const CONSISTENCY_PATTERN: &str = "^(session|eventual|strong|bounded;ms=([0-9]{1,7}|\
    [1-7][0-9]{7}|8[0-5][0-9]{6}|86[0-3][0-9]{5}|86400000))$";

/// All of them, by name.
pub fn all() -> Value {
    let mut all = Map::new();
    for part in [path(), query(), sessions(), preconditions()] {
        if let Value::Object(part) = part {
            all.extend(part);
        }
    }
    Value::Object(all)
}

fn path() -> Value {
    json!({
        "collection": {
            "name": "collection", "in": "path", "required": true,
            "description": "A collection. It exists while it holds an item.",
            "schema": schema("CollectionName"),
            "example": "cities",
        },
        "item_id": {
            "name": "id", "in": "path", "required": true,
            "description": "An item. The example is Shanghai, of the laboratory's sample data.",
            "schema": schema("Id"),
            "example": "c4a90857-6362-8096-a9f6-304fb09f9d10",
        },
        "key_id": {
            "name": "id", "in": "path", "required": true,
            "description": "An API key; not its secret.",
            "schema": schema("Id"),
        },
        "user_id": {
            "name": "id", "in": "path", "required": true,
            "description": "A user.",
            "schema": schema("Id"),
        },
        "session_id": {
            "name": "id", "in": "path", "required": true,
            "description": "A session; not its token.",
            "schema": schema("Id"),
        },
        "user_session_id": {
            "name": "session", "in": "path", "required": true,
            "description": "One of the user's sessions.",
            "schema": schema("Id"),
        },
        "write_key": {
            "name": "key", "in": "path", "required": true,
            "description": "The write's `Idempotency-Key`, percent-encoded.",
            "schema": { "type": "string", "pattern": KEY_PATTERN },
            "example": "edge-0f9d10c4a90857636280968a9f6304fb",
        },
    })
}

fn query() -> Value {
    let text = json!({
        "type": "string", "maxLength": EXPRESSION_CHARS_MAX, "pattern": TEXT_PATTERN,
    });
    json!({
        "q": {
            "name": "q", "in": "query",
            "description": "Full text search over the document's text values, in the syntax of \
                a web search: words, \"phrases\", or, -not.",
            "schema": text,
        },
        "filter": {
            "name": "filter", "in": "query",
            "description": format!(
                "A JSON object that the document must contain, as in `{{\"country\":\"CN\"}}`; up \
                 to {EXPRESSION_CHARS_MAX} characters."
            ),
            "content": { "application/json": { "schema": schema("Document") } },
        },
        "order": {
            "name": "order", "in": "query",
            "description": "With `-`, the greatest or newest first.",
            "schema": {
                "type": "string", "default": "id",
                "enum": ["id", "-id", "created_at", "-created_at", "updated_at", "-updated_at"],
            },
        },
        "limit": {
            "name": "limit", "in": "query",
            "description": "Most entries of a page. It may have fewer.",
            "schema": {
                "type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT,
            },
        },
        "item_cursor": {
            "name": "cursor", "in": "query",
            "description": "The `next_cursor` of an earlier page, used with the same `order`.",
            "schema": schema("Cursor"),
        },
        "collection_cursor": {
            "name": "cursor", "in": "query",
            "description": "The `next_cursor` of an earlier page.",
            "schema": schema("Cursor"),
        },
        "key_cursor": {
            "name": "cursor", "in": "query",
            "description": "The `next_cursor` of an earlier page.",
            "schema": schema("Id"),
        },
        "user_cursor": {
            "name": "cursor", "in": "query",
            "description": "The `next_cursor` of an earlier page.",
            "schema": schema("Id"),
        },
        "session_cursor": {
            "name": "cursor", "in": "query",
            "description": "The `next_cursor` of an earlier page.",
            "schema": schema("Id"),
        },
        "user_email": {
            "name": "email", "in": "query",
            "description": "The one who has this address.",
            "schema": schema("Email"),
        },
    })
}

fn sessions() -> Value {
    json!({
        "bookmark": {
            "name": "Godwit-Bookmark", "in": "header",
            "description": "The `Godwit-Bookmark` of an earlier answer, of any region, unchanged: \
                the answer is not older. Browsers may send it as the cookie `godwit_bookmark`.",
            "schema": schema("Bookmark"),
        },
        "consistency": {
            "name": "Godwit-Consistency", "in": "header",
            "description": "How fresh a read must be: `session`, not older than the bookmark; \
                `eventual`, whatever this region has; `strong`, the primary answers; \
                `bounded;ms=N`, at most so old, N up to 86400000.",
            "schema": {
                "type": "string", "default": "session", "pattern": CONSISTENCY_PATTERN,
            },
        },
        "idempotency_key": {
            "name": "Idempotency-Key", "in": "header",
            "description": "Names this write, so that it can be sent again without a second \
                effect; kept for 24 hours or more. Without one the region makes one and answers \
                with it.",
            "schema": { "type": "string", "pattern": KEY_PATTERN },
        },
        "traceparent": {
            "name": "traceparent", "in": "header",
            "description": "W3C Trace Context, as in \
                `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. One that cannot be read \
                starts a new trace.",
            "schema": { "type": "string" },
        },
    })
}

fn preconditions() -> Value {
    json!({
        "if_match": {
            "name": "If-Match", "in": "header", "required": true,
            "description": "The `ETag` of the version to change, or `*` for any.",
            "schema": { "type": "string", "pattern": MATCH_PATTERN },
            "example": "\"1.1\"",
        },
        "if_match_optional": {
            "name": "If-Match", "in": "header",
            "description": "The `ETag` of the version to change, or `*` for any, as without it.",
            "schema": { "type": "string", "pattern": MATCH_PATTERN },
        },
        "if_match_put": {
            "name": "If-Match", "in": "header",
            "description": "To replace: the `ETag` of the version to replace, or `*` for any. \
                Send this or `If-None-Match`, not both.",
            "schema": { "type": "string", "pattern": MATCH_PATTERN },
        },
        "if_none_match_put": {
            "name": "If-None-Match", "in": "header",
            "description": "To create under the id chosen: `*`.",
            "schema": { "type": "string", "enum": ["*"] },
        },
        "if_none_match": {
            "name": "If-None-Match", "in": "header",
            "description": "The `ETag` of the version at hand: 304 while it is current.",
            "schema": { "type": "string", "pattern": MATCH_PATTERN },
        },
    })
}
