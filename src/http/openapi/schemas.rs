//! Schemas: what bodies and values look like.

mod sessions;
mod users;

use super::{parameters::MATCH_PATTERN, schema};
use crate::{
    domain::{
        api_keys::{DAYS, DAYS_DEFAULT, NAME_CHARS_MAX},
        items::batch::OPERATIONS_MAX,
    },
    http::problem::Kind,
    vocab::Scope,
};
use serde_json::{Map, Value, json};

/// All of them, by name.
pub fn all() -> Value {
    let mut all = Map::new();
    let parts = [
        values(),
        items(),
        batches(),
        writes(),
        keys(),
        users::all(),
        sessions::all(),
        cluster(),
        problem(),
    ];
    for part in parts {
        if let Value::Object(part) = part {
            all.extend(part);
        }
    }
    Value::Object(all)
}

/// An object with these members, all of them always there.
fn object(description: &str, members: &Value) -> Value {
    let mut object = open(description, members);
    object["required"] = object["properties"]
        .as_object()
        .map(|members| members.keys().cloned().collect::<Vec<_>>())
        .into();
    object
}

/// An object whose members may be absent.
fn open(description: &str, members: &Value) -> Value {
    json!({ "type": "object", "description": description, "properties": members })
}

/// A request's object: nothing but these members, of which `required` must be there.
fn strict(description: &str, required: &[&str], members: &Value) -> Value {
    let mut object = open(description, members);
    object["required"] = json!(required);
    object["additionalProperties"] = false.into();
    object
}

fn or_null(of: &str) -> Value {
    json!({ "type": [of, "null"] })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

/// A page of a listing.
fn page(of: &str, cursor: &Value) -> Value {
    let members = json!({
        "items": { "type": "array", "items": schema(of) },
        "next_cursor": cursor,
    });
    object(
        "A page, of up to `limit` entries. `next_cursor` is null on the last one, and on no other.",
        &members,
    )
}

fn values() -> Value {
    json!({
        "Id": {
            "type": "string", "format": "uuid",
            "description": "A UUID with hyphens. Ours are of version 7; any is taken.",
        },
        "CollectionName": {
            "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        },
        "Cursor": {
            "type": "string", "pattern": "^[A-Za-z0-9_-]+$",
            "description": "Opaque: the place where a page ended.",
        },
        "Bookmark": {
            "type": "string",
            "pattern": "^1-[1-9a-f][0-9a-f]{0,7}-(0|[1-9a-f][0-9a-f]{0,15})$",
            "description": "Opaque: a position in the cluster's history.",
        },
        "ETag": {
            "type": "string", "pattern": r#"^"[1-9][0-9]*\.[1-9][0-9]*"$"#,
            "description": "A strong entity tag: the version, and the epoch it was written in.",
        },
        "Scope": { "type": "string", "enum": Scope::ALL.map(Scope::as_str) },
    })
}

fn items() -> Value {
    let cursor = json!({ "oneOf": [schema("Cursor"), { "type": "null" }] });
    json!({
        "Document": {
            "type": "object",
            "description": "Any JSON object, up to 1 MiB and 127 levels deep. Numbers keep every \
                digit; the character U+0000 cannot be kept.",
        },
        "Item": object("A document with its version.", &json!({
            "id": schema("Id"),
            "collection": schema("CollectionName"),
            "version": { "type": "integer", "minimum": 1 },
            "data": schema("Document"),
            "created_at": time(),
            "updated_at": time(),
        })),
        "ItemPage": page("Item", &cursor),
        "Collection": object("A collection and how many items it holds.", &json!({
            "name": schema("CollectionName"),
            "count": { "type": "integer", "minimum": 1 },
        })),
        "CollectionPage": page("Collection", &cursor),
    })
}

fn batches() -> Value {
    let tag = json!({
        "type": "string", "pattern": MATCH_PATTERN, "description": "As the field If-Match.",
    });
    let (id, data, absent) = (schema("Id"), schema("Document"), json!({ "type": "null" }));
    let op = |name: &str| json!({ "const": name });
    json!({
        "BatchRequest": strict("All or none of these, in order.", &["operations"], &json!({
            "operations": {
                "type": "array", "minItems": 1, "maxItems": OPERATIONS_MAX,
                "items": schema("Operation"),
            },
        })),
        "Operation": { "oneOf": [
            strict("Create, under an id of ours or yours.", &["op", "data"], &json!({
                "op": op("create"), "data": data,
                "id": { "oneOf": [id, absent] },
            })),
            strict("Replace.", &["op", "id", "data", "if_match"], &json!({
                "op": op("put"), "id": id, "data": data,
                "if_match": tag, "if_none_match": absent,
            })),
            strict("Create under the id chosen.", &["op", "id", "data", "if_none_match"], &json!({
                "op": op("put"), "id": id, "data": data,
                "if_match": absent, "if_none_match": { "const": "*" },
            })),
            strict("Merge a patch (RFC 7396).", &["op", "id", "data", "if_match"], &json!({
                "op": op("patch"), "id": id, "data": data, "if_match": tag,
            })),
            strict("Delete.", &["op", "id", "if_match"], &json!({
                "op": op("delete"), "id": id, "if_match": tag,
            })),
        ] },
        "BatchResults": object("What each operation did, in order.", &json!({
            "results": { "type": "array", "items": schema("BatchResult") },
        })),
        "BatchResult": { "oneOf": [
            object("Created, replaced or patched.", &json!({
                "status": { "enum": [200, 201] },
                "id": id, "version": { "type": "integer", "minimum": 1 }, "etag": schema("ETag"),
            })),
            object("Deleted.", &json!({ "status": { "const": 204 }, "id": id })),
        ] },
    })
}

fn writes() -> Value {
    let key = json!({ "type": "string" });
    json!({
        "Write": { "oneOf": [
            object("It took effect, and was answered so.", &json!({
                "key": key,
                "status": { "const": "committed" },
                "method": { "type": "string" },
                "path": { "type": "string" },
                "committed_at": time(),
                "response": schema("WriteResponse"),
            })),
            object("It took effect, and a failover has lost it. Sent again, under this key, it is \
                carried out as a new write.", &json!({
                "key": key,
                "status": { "const": "lost" },
                "method": { "type": "string" },
                "path": { "type": "string" },
                "committed_at": time(),
            })),
            object("There is no record of it here: no effect so far.", &json!({
                "key": key, "status": { "const": "unknown" },
            })),
        ] },
        "WriteResponse": {
            "type": "object",
            "description": "The answer the write was given.",
            "required": ["status", "body"],
            "properties": {
                "status": { "type": "integer" },
                "etag": schema("ETag"),
                "location": { "type": "string", "format": "uri-reference" },
                "body": or_null("object"),
            },
        },
    })
}

fn keys() -> Value {
    let members = json!({
        "id": schema("Id"),
        "name": { "type": "string" },
        "prefix": { "type": "string", "description": "The start of the secret, to tell keys apart." },
        "scopes": { "type": "array", "items": schema("Scope") },
        "created_at": time(),
        "expires_at": time(),
        "revoked_at": { "type": ["string", "null"], "format": "date-time" },
    });
    let name =
        format!("Up to {NAME_CHARS_MAX} characters, not only white space, no control characters.");
    json!({
        "Key": object("An API key, without its secret.", &members),
        "KeyCreated": {
            "description": "The key, with its secret in `key`: shown in this answer and nowhere \
                else. A repetition with the same `Idempotency-Key` is answered without it.",
            "allOf": [schema("Key"), { "type": "object", "properties": {
                "key": { "type": "string", "pattern": "^gw_[a-z0-9]{1,16}_[A-Za-z0-9]{49}$" },
            } }],
        },
        "KeyWanted": strict("The key to make.", &["name", "scopes"], &json!({
            "name": {
                "type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX,
                "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$", "description": name,
            },
            "scopes": {
                "type": "array", "minItems": 1, "items": schema("Scope"),
                "description": "None that the credential itself lacks.",
            },
            "days": {
                "type": "integer", "default": DAYS_DEFAULT,
                "minimum": DAYS.start(), "maximum": DAYS.end(), "description": "How long it lives.",
            },
            "environment": {
                "type": "string", "default": "live", "pattern": "^[a-z0-9]{1,16}$",
                "description": "A word in the secret, so that a laboratory's key is not taken for \
                    a live one.",
            },
        })),
        "KeyPage": page("Key", &json!({ "oneOf": [schema("Id"), { "type": "null" }] })),
    })
}

fn cluster() -> Value {
    let count = json!({ "type": ["integer", "null"], "minimum": 0 });
    let epoch = json!({ "type": ["integer", "null"], "minimum": 1 });
    let role = json!({ "enum": ["primary", "replica", null] });
    let status = json!({ "type": "string", "enum": ["ok", "degraded", "error"] });
    json!({
        "Region": object("A region as the one that answers sees it; null is unknown.", &json!({
            "name": { "type": "string" },
            "public_url": or_null("string"),
            "role": role,
            "epoch": epoch,
            "reachable": { "type": "boolean" },
            "round_trip_ms": count,
            "lag_ms": count,
            "lag_bytes": count,
        })),
        "Regions": page("Region", &json!({ "type": "null" })),
        "Health": object("The worst of the checks, and each of them.", &json!({
            "status": status,
            "region": { "type": "string" },
            "role": role,
            "epoch": epoch,
            "checks": { "type": "object", "additionalProperties": {
                "type": "object",
                "required": ["status"],
                "properties": { "status": status, "lag_ms": count, "lag_bytes": count },
            } },
        })),
    })
}

fn problem() -> Value {
    let types = Kind::ALL.map(|kind| format!("urn:godwit:problem:{}", kind.name()));
    json!({
        "Problem": {
            "type": "object",
            "description": "What went wrong (RFC 9457).",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": { "type": "string", "enum": types },
                "title": { "type": "string" },
                "status": { "type": "integer", "minimum": 400, "maximum": 599 },
                "detail": { "type": "string" },
                "current": {
                    "anyOf": [schema("Item"), schema("User")],
                    "description": "What is there instead of the version named.",
                },
                "errors": {
                    "type": "array", "minItems": 1, "items": schema("Fault"),
                    "description": "What is wrong with members of the body.",
                },
                "operation": {
                    "type": "integer", "minimum": 0,
                    "description": "The operation of a batch that was refused, from 0.",
                },
                "lost_after": schema("Bookmark"),
                "bookmark": schema("Bookmark"),
                "outcome": {
                    "type": "string", "format": "uri-reference",
                    "description": "Where to ask what became of the write.",
                },
                "idempotency_key": { "type": "string" },
            },
        },
        "Fault": object("What is wrong with one member of the body.", &json!({
            "pointer": {
                "type": "string", "pattern": "^#/",
                "description": "JSON Pointer to it, as a URI fragment (RFC 6901 section 6).",
            },
            "detail": { "type": "string" },
        })),
    })
}
