//! Answers: the response header fields, and the problem documents by status.

use super::{reference, schema};
use crate::http::problem::Kind;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// On every answer of the API.
const EVERYWHERE: [&str; 6] =
    ["traceparent", "Godwit-Region", "Godwit-Epoch", "RateLimit", "RateLimit-Policy", "Set-Cookie"];
/// On every answer that is not a refusal.
const ANSWERED: [&str; 2] = ["Godwit-Route", "Godwit-Lag-Ms"];

/// On a problem where there is something to say.
const ON_PROBLEMS: [&str; 2] = ["Godwit-Bookmark", "Godwit-Route"];
/// Required where an answer always has them, and described once more for where it may.
const SOMETIMES: [&str; 5] = ["ETag", "Godwit-Bookmark", "Godwit-Route", "Location", "Retry-After"];

/// The header fields, by name.
pub fn headers() -> Value {
    let mut headers = positions();
    for part in [conditions(), journeys()] {
        headers.extend(part);
    }
    for name in SOMETIMES {
        let mut field = headers[name].clone();
        field["required"] = false.into();
        headers.insert(sometimes(name), field);
    }
    Value::Object(headers)
}

fn sometimes(name: &str) -> String {
    format!("{name}.optional")
}

fn field(required: bool, description: &str, schema: &Value) -> Value {
    json!({ "required": required, "description": description, "schema": schema })
}

fn collect<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(name, field)| (name.to_owned(), field)).collect()
}

fn positions() -> Map<String, Value> {
    collect([
        (
            "Godwit-Bookmark",
            field(true, "The position of this answer: send it next time.", &schema("Bookmark")),
        ),
        ("Godwit-Region", field(true, "The region that answered.", &json!({ "type": "string" }))),
        (
            "Godwit-Epoch",
            field(
                false,
                "The epoch, a primary's reign, it answered in; absent while unknown.",
                &json!({ "type": "integer", "minimum": 1 }),
            ),
        ),
        (
            "Godwit-Route",
            field(
                true,
                "How it was answered: from this region's database, there after a wait for the \
                 bookmark, or by the primary's region.",
                &json!({ "type": "string", "enum": ["local", "waited", "forwarded"] }),
            ),
        ),
        (
            "Godwit-Lag-Ms",
            field(
                false,
                "How old what was read here can be at most, in milliseconds; absent when unknown.",
                &json!({ "type": "integer", "minimum": 0 }),
            ),
        ),
        (
            "Set-Cookie",
            field(
                false,
                "The bookmark as the cookie `godwit_bookmark`, for browsers.",
                &json!({ "type": "string" }),
            ),
        ),
    ])
}

fn conditions() -> Map<String, Value> {
    let text = json!({ "type": "string" });
    collect([
        ("ETag", field(true, "The item's version, `\"<epoch>.<version>\"`.", &schema("ETag"))),
        (
            "Document-ETag",
            field(true, "Of this build's description.", &json!({ "type": "string" })),
        ),
        (
            "Location",
            field(true, "Where it is.", &json!({ "type": "string", "format": "uri-reference" })),
        ),
        ("Cache-Control", field(true, "Who may keep the answer.", &text)),
        (
            "Idempotency-Key",
            field(
                true,
                "The key of this write, the caller's or the region's.",
                &json!({ "type": "string", "pattern": "^[!-~]{1,255}$" }),
            ),
        ),
        (
            "Idempotency-Replayed",
            field(
                false,
                "The answer is that of an earlier request with the same key.",
                &json!({ "type": "string", "enum": ["true"] }),
            ),
        ),
    ])
}

fn journeys() -> Map<String, Value> {
    let text = json!({ "type": "string" });
    let seconds = json!({ "type": "integer", "minimum": 1 });
    collect([
        (
            "traceparent",
            field(
                true,
                "The trace of this request (W3C Trace Context).",
                &json!({ "type": "string", "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$" }),
            ),
        ),
        ("RateLimit", field(false, "What is left of the credential's allowance.", &text)),
        ("RateLimit-Policy", field(false, "The credential's allowance.", &text)),
        ("Retry-After", field(true, "Seconds to wait before the next try.", &seconds)),
        ("WWW-Authenticate", field(true, "How to bring a credential.", &text)),
    ])
}

/// References to header fields.
fn fields<'a>(
    always: impl IntoIterator<Item = &'a str>,
    maybe: impl IntoIterator<Item = &'a str>,
) -> Value {
    let always = always.into_iter().map(|name| (name, reference("headers", name)));
    let maybe = maybe.into_iter().map(|name| (name, reference("headers", &sometimes(name))));
    Value::Object(always.chain(maybe).map(|(name, field)| (name.to_owned(), field)).collect())
}

/// A successful answer with a JSON body.
pub fn json_answer(
    description: &str,
    body: &str,
    headers: &[&str],
    example: Option<Value>,
) -> Value {
    let mut answer = empty_answer(description, headers);
    let mut content = json!({ "schema": schema(body) });
    if let Some(example) = example {
        content["example"] = example;
    }
    answer["content"] = json!({ "application/json": content });
    answer
}

/// A successful answer without a body.
pub fn empty_answer(description: &str, headers: &[&str]) -> Value {
    let named = EVERYWHERE.iter().chain(&ANSWERED).chain(headers).copied();
    json!({ "description": description, "headers": fields(named, []) })
}

/// Kinds of one status each, sorted and without repetition.
pub fn by_status(kinds: &[Kind]) -> Vec<Vec<Kind>> {
    let mut found: BTreeMap<u16, BTreeSet<Kind>> = BTreeMap::new();
    for kind in kinds {
        found.entry(kind.status().as_u16()).or_default().insert(*kind);
    }
    found.into_values().map(|kinds| kinds.into_iter().collect()).collect()
}

/// The component's name: its kinds' names.
pub fn name(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(".")
}

/// One response for each set of kinds that some operation can answer a status with.
pub fn problems(used: &BTreeSet<Vec<Kind>>) -> Value {
    let problems = used.iter().map(|kinds| (name(kinds), problem(kinds)));
    Value::Object(problems.collect())
}

/// The answer with which problems of one status come.
pub fn problem(kinds: &[Kind]) -> Value {
    let of = |kind: &Kind| kind.facts();
    let types: Vec<_> =
        kinds.iter().map(|kind| format!("urn:godwit:problem:{}", of(kind).0)).collect();
    let titles: Vec<_> =
        kinds.iter().map(|kind| format!("`{}`: {}.", of(kind).0, of(kind).2)).collect();
    let mut always = EVERYWHERE.to_vec();
    let mut maybe = ON_PROBLEMS.to_vec();
    for kind in kinds {
        match kind {
            Kind::Unauthorized => always.push("WWW-Authenticate"),
            Kind::VersionConflict => maybe.push("ETag"),
            Kind::OutcomeUnknown => maybe.push("Location"),
            Kind::IdempotencyInFlight => maybe.push("Retry-After"),
            _ => {}
        }
    }
    if matches!(kinds[0].status().as_u16(), 421 | 429 | 503) {
        always.push("Retry-After");
    }
    json!({
        "description": titles.join(" "),
        "headers": fields(always, maybe),
        "content": { "application/problem+json": { "schema": {
            "allOf": [
                schema("Problem"),
                { "type": "object", "properties": {
                    "type": { "enum": types },
                    "status": { "const": kinds[0].status().as_u16() },
                } },
            ],
        } } },
    })
}
