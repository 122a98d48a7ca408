//! What is to be said of each route beside its line in the table.

mod sessions;
mod users;

use super::{
    answers::{empty_answer, json_answer},
    schema,
};
use crate::http::problem::Kind;
use serde_json::{Value, json};

/// One route, described. `problems` are those of its handler; the gate's are added for all.
pub struct Shown {
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    pub description: &'static str,
    pub parameters: &'static [&'static str],
    pub body: Option<Value>,
    pub answers: Vec<(u16, Value)>,
    pub problems: &'static [Kind],
}

/// What all routes of one intent have in common.
pub struct Common {
    pub intent: &'static str,
    /// Header fields that each takes.
    pub parameters: &'static [&'static str],
    pub problems: &'static [Kind],
}

pub const READS: Common = Common {
    intent: "read",
    parameters: &["bookmark", "consistency", "traceparent"],
    problems: OF_READS,
};
pub const WRITES: Common = Common {
    intent: "write",
    parameters: &["idempotency_key", "bookmark", "traceparent"],
    problems: OF_WRITES,
};

/// What the region itself does.
pub const REGIONALS: Common =
    Common { intent: "regional", parameters: &["traceparent"], problems: OF_REGIONALS };

/// What a read can be refused with before its handler sees it, or for a dependency's sake.
const OF_READS: &[Kind] = &[
    Kind::Malformed,
    Kind::BookmarkInvalid,
    Kind::Unauthorized,
    Kind::Forbidden,
    Kind::BookmarkLost,
    Kind::RateLimited,
    Kind::HeadersTooLarge,
    Kind::Internal,
    Kind::BookmarkTimeout,
    Kind::NoPrimary,
    Kind::Unavailable,
];
/// The same for a write, whose body is read by the gate and whose key the journal knows.
const OF_WRITES: &[Kind] = &[
    Kind::Malformed,
    Kind::BookmarkInvalid,
    Kind::Unauthorized,
    Kind::Forbidden,
    Kind::RequestTimeout,
    Kind::BookmarkLost,
    Kind::IdempotencyInFlight,
    Kind::TooLarge,
    Kind::Fenced,
    Kind::IdempotencyMismatch,
    Kind::RateLimited,
    Kind::HeadersTooLarge,
    Kind::Internal,
    Kind::BookmarkTimeout,
    Kind::NoPrimary,
    Kind::OutcomeUnknown,
    Kind::Unavailable,
];

/// The same for what the region does: its body is read, and nothing is in a journal.
const OF_REGIONALS: &[Kind] = &[
    Kind::Malformed,
    Kind::BookmarkInvalid,
    Kind::Unauthorized,
    Kind::Forbidden,
    Kind::RequestTimeout,
    Kind::TooLarge,
    Kind::RateLimited,
    Kind::HeadersTooLarge,
    Kind::Internal,
    Kind::Unavailable,
];

/// What a handler that changes an item to a given document refuses with.
const OF_CHANGES: &[Kind] = &[
    Kind::NotFound,
    Kind::VersionConflict,
    Kind::UnsupportedMediaType,
    Kind::Validation,
    Kind::PreconditionRequired,
];

const MARKED: &[&str] = &["Godwit-Bookmark"];
const READ_ITEM: &[&str] = &["Godwit-Bookmark", "ETag", "Cache-Control"];
const LISTED: &[&str] = &["Godwit-Bookmark", "Cache-Control"];
const CREATED: &[&str] =
    &["Godwit-Bookmark", "Idempotency-Key", "Idempotency-Replayed", "Location", "ETag"];
const CHANGED: &[&str] = &["Godwit-Bookmark", "Idempotency-Key", "Idempotency-Replayed", "ETag"];
const WRITTEN: &[&str] = &["Godwit-Bookmark", "Idempotency-Key", "Idempotency-Replayed"];
const KEY_CREATED: &[&str] =
    &["Godwit-Bookmark", "Idempotency-Key", "Idempotency-Replayed", "Location"];

/// What is shown of a route; `None` for one that nobody has described.
pub fn shown(method: &str, path: &str) -> Option<Shown> {
    Some(match (method, path) {
        ("GET", "/v1/collections") => collections(),
        ("GET", "/v1/collections/{collection}/items") => list(),
        ("POST", "/v1/collections/{collection}/items") => create(),
        ("POST", "/v1/collections/{collection}/items:batch") => batch(),
        ("GET", "/v1/collections/{collection}/items/{id}") => read(),
        ("PUT", "/v1/collections/{collection}/items/{id}") => put(),
        ("PATCH", "/v1/collections/{collection}/items/{id}") => patch(),
        ("DELETE", "/v1/collections/{collection}/items/{id}") => delete(),
        ("GET", "/v1/writes/{key}") => write(),
        ("GET", "/v1/admin/keys") => keys(),
        ("POST", "/v1/admin/keys") => create_key(),
        ("GET", "/v1/admin/keys/{id}") => read_key(),
        ("DELETE", "/v1/admin/keys/{id}") => revoke_key(),
        ("GET", "/v1/admin/regions") => regions(),
        ("GET", "/v1/admin/users") => users::list(),
        ("POST", "/v1/admin/users") => users::create(),
        ("GET", "/v1/admin/users/{id}") => users::read(),
        ("PATCH", "/v1/admin/users/{id}") => users::change(),
        ("DELETE", "/v1/admin/users/{id}") => users::delete(),
        ("POST", "/v1/admin/users/{id}:suspend") => users::suspend(),
        ("POST", "/v1/admin/users/{id}:resume") => users::resume(),
        ("PUT", "/v1/admin/users/{id}/password") => users::set_password(),
        ("POST", "/v1/account") => users::register(),
        ("GET", "/v1/account") => sessions::read_account(),
        ("PATCH", "/v1/account") => sessions::change_account(),
        ("PUT", "/v1/account/password") => sessions::set_password(),
        ("POST", "/v1/session") => sessions::sign_in(),
        ("GET", "/v1/session") => sessions::accounts(),
        ("PUT", "/v1/session") => sessions::switch(),
        ("DELETE", "/v1/session") => sessions::sign_out(),
        ("GET", "/v1/sessions") => sessions::list(),
        ("POST", "/v1/sessions:end-others") => sessions::end_others(),
        ("DELETE", "/v1/sessions/{id}") => sessions::end(),
        ("GET", "/v1/admin/users/{id}/sessions") => sessions::list_of_user(),
        ("DELETE", "/v1/admin/users/{id}/sessions") => sessions::end_all_of_user(),
        ("DELETE", "/v1/admin/users/{id}/sessions/{session}") => sessions::end_of_user(),
        _ => return None,
    })
}

fn body(types: &[&str], of: &str, example: &Value) -> Value {
    let content = json!({ "schema": schema(of), "example": example });
    let content = types.iter().map(|name| ((*name).to_owned(), content.clone()));
    let content = Value::Object(content.collect());
    json!({ "required": true, "content": content })
}

/// A link from an answer that has an item's id in `id` to an operation on that item.
fn item_links(collection: &str, id: &str) -> Value {
    let place = json!({ "collection": collection, "id": id });
    let with_tag = json!({
        "collection": collection, "id": id, "header.If-Match": "$response.header.ETag",
    });
    json!({
        "read": { "operationId": "readItem", "parameters": place },
        "replace": { "operationId": "putItem", "parameters": with_tag },
        "patch": { "operationId": "patchItem", "parameters": with_tag },
        "delete": { "operationId": "deleteItem", "parameters": with_tag },
    })
}

fn collections() -> Shown {
    let example = json!({ "items": [{ "name": "cities", "count": 3000 }], "next_cursor": null });
    Shown {
        id: "listCollections",
        tag: "items",
        summary: "List the collections",
        description: "Names and counts, by name.",
        parameters: &["limit", "collection_cursor"],
        body: None,
        answers: vec![(
            200,
            json_answer("A page of them", "CollectionPage", MARKED, Some(example)),
        )],
        problems: &[Kind::Validation],
    }
}

fn list() -> Shown {
    Shown {
        id: "listItems",
        tag: "items",
        summary: "List or search a collection",
        description: "A collection that holds nothing is an empty page. A page of large items ends \
            before it has `limit` of them: only `next_cursor` tells whether there are more.",
        parameters: &["collection", "q", "filter", "order", "limit", "item_cursor"],
        body: None,
        answers: vec![(200, json_answer("A page of items", "ItemPage", LISTED, None))],
        problems: &[Kind::NotFound, Kind::Validation],
    }
}

fn create() -> Shown {
    let example = json!({ "name": "Godwit Bay", "country": "NZ", "population": 1 });
    let mut made = json_answer("Created", "Item", CREATED, None);
    made["links"] = item_links("$request.path.collection", "$response.body#/id");
    Shown {
        id: "createItem",
        tag: "items",
        summary: "Create an item",
        description: "Under an id of ours. To choose the id, `PUT` with `If-None-Match: *`.",
        parameters: &["collection"],
        body: Some(body(&["application/json"], "Document", &example)),
        answers: vec![(201, made)],
        problems: &[Kind::Validation, Kind::UnsupportedMediaType, Kind::VersionConflict],
    }
}

fn batch() -> Shown {
    let id = "0199d2c4-7a00-7000-8000-00000000b0b0";
    let example = json!({ "operations": [
        { "op": "put", "id": id, "if_none_match": "*", "data": { "name": "Foxton Beach" } },
        { "op": "patch", "id": id, "if_match": "*", "data": { "country": "NZ" } },
        { "op": "delete", "id": id, "if_match": "*" },
    ] });
    let result = json!({ "results": [
        { "status": 201, "id": id, "version": 1, "etag": "\"1.1\"" },
        { "status": 200, "id": id, "version": 2, "etag": "\"1.2\"" },
        { "status": 204, "id": id },
    ] });
    let done = json_answer("All were carried out", "BatchResults", WRITTEN, Some(result));
    Shown {
        id: "batchItems",
        tag: "items",
        summary: "Carry out up to 500 operations, all or none",
        description: "In order. The first that is refused refuses all; its place is in the \
            problem's `operation`. A 412 shows in `current` what is there, unless the operation \
            met what an earlier one of the batch had made.",
        parameters: &["collection"],
        body: Some(body(&["application/json"], "BatchRequest", &example)),
        answers: vec![(200, done)],
        problems: OF_CHANGES,
    }
}

fn read() -> Shown {
    Shown {
        id: "readItem",
        tag: "items",
        summary: "Read an item",
        description: "",
        parameters: &["collection", "item_id", "if_none_match"],
        body: None,
        answers: vec![
            (200, json_answer("The item", "Item", READ_ITEM, None)),
            (304, empty_answer("The version at hand is current", &["Godwit-Bookmark", "ETag"])),
        ],
        problems: &[Kind::NotFound],
    }
}

fn put() -> Shown {
    let example = json!({ "name": "Shanghai", "country": "CN", "population": 24_870_895 });
    let mut made = json_answer("Created", "Item", CREATED, None);
    made["links"] = item_links("$request.path.collection", "$response.body#/id");
    Shown {
        id: "putItem",
        tag: "items",
        summary: "Replace an item, or create it under the id chosen",
        description: "Demands `If-Match` to replace or `If-None-Match: *` to create. A 412 shows \
            in `current` what is there.",
        parameters: &["collection", "item_id", "if_match_put", "if_none_match_put"],
        body: Some(body(&["application/json"], "Document", &example)),
        answers: vec![(200, json_answer("Replaced", "Item", CHANGED, None)), (201, made)],
        problems: OF_CHANGES,
    }
}

fn patch() -> Shown {
    let types = ["application/merge-patch+json", "application/json"];
    let example = json!({ "population": 24_870_895, "nickname": null });
    Shown {
        id: "patchItem",
        tag: "items",
        summary: "Merge a patch into an item",
        description: "A JSON merge patch (RFC 7396): members are set, null removes them. A 412 \
            shows in `current` what is there.",
        parameters: &["collection", "item_id", "if_match"],
        body: Some(body(&types, "Document", &example)),
        answers: vec![(200, json_answer("Patched", "Item", CHANGED, None))],
        problems: OF_CHANGES,
    }
}

fn delete() -> Shown {
    Shown {
        id: "deleteItem",
        tag: "items",
        summary: "Delete an item",
        description: "A 412 shows in `current` what is there.",
        parameters: &["collection", "item_id", "if_match"],
        body: None,
        answers: vec![(204, empty_answer("Deleted", WRITTEN))],
        problems: &[Kind::NotFound, Kind::VersionConflict, Kind::PreconditionRequired],
    }
}

fn write() -> Shown {
    Shown {
        id: "readWrite",
        tag: "writes",
        summary: "Ask what became of a write",
        description: "After `outcome-unknown`, or a lost connection. `unknown` means that it has had \
            no effect so far: a region that has no record of it asks the primary. `lost` means that \
            it took effect and that a failover to a region without it has undone it.",
        parameters: &["write_key"],
        body: None,
        answers: vec![(200, json_answer("What is known of it", "Write", LISTED, None))],
        problems: &[Kind::NotFound],
    }
}

fn keys() -> Shown {
    Shown {
        id: "listKeys",
        tag: "admin",
        summary: "List the tenant's API keys",
        description: "Revoked and expired ones too. Never a secret.",
        parameters: &["limit", "key_cursor"],
        body: None,
        answers: vec![(200, json_answer("A page of keys", "KeyPage", MARKED, None))],
        problems: &[Kind::Validation],
    }
}

fn create_key() -> Shown {
    let example = json!({ "name": "nightly import", "scopes": ["read", "write"], "days": 30 });
    let mut made = json_answer("Created", "KeyCreated", KEY_CREATED, None);
    let parameters = json!({ "id": "$response.body#/id" });
    made["links"] = json!({
        "read": { "operationId": "readKey", "parameters": parameters },
        "revoke": { "operationId": "revokeKey", "parameters": parameters },
    });
    Shown {
        id: "createKey",
        tag: "admin",
        summary: "Make an API key",
        description: "The secret is in this answer and nowhere else: only its hash is kept.",
        parameters: &[],
        body: Some(body(&["application/json"], "KeyWanted", &example)),
        answers: vec![(201, made)],
        problems: &[Kind::UnsupportedMediaType, Kind::Validation],
    }
}

fn read_key() -> Shown {
    Shown {
        id: "readKey",
        tag: "admin",
        summary: "Read an API key",
        description: "Without its secret.",
        parameters: &["key_id"],
        body: None,
        answers: vec![(200, json_answer("The key", "Key", MARKED, None))],
        problems: &[Kind::NotFound],
    }
}

fn revoke_key() -> Shown {
    Shown {
        id: "revokeKey",
        tag: "admin",
        summary: "Revoke an API key",
        description: "For good: in every region within the replication lag and the time for which \
            a credential is believed. It stays listed, with `revoked_at`. Revoking it twice is \
            revoking it once.",
        parameters: &["key_id"],
        body: None,
        answers: vec![(204, empty_answer("Revoked", WRITTEN))],
        problems: &[Kind::NotFound],
    }
}

fn regions() -> Shown {
    Shown {
        id: "listRegions",
        tag: "admin",
        summary: "List the regions",
        description: "The cluster as the region that answers sees it.",
        parameters: &[],
        body: None,
        answers: vec![(200, json_answer("The regions", "Regions", &["Cache-Control"], None))],
        problems: &[],
    }
}
