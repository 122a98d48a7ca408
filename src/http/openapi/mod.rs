//! The OpenAPI 3.1 description of the public listener.
//!
//! Its paths, methods, scopes and intents come from the table of routes; what else is to be said of
//! a route is in `operations`, and a route that is not described there fails the tests. Written as
//! JSON values: OpenAPI 3.1 is JSON Schema, and Rust types for it lag behind (no required response
//! header, no constant). `tests/schemathesis` holds the description to what the program does,
//! `docs/openapi.json` is its printed form.

mod answers;
mod operations;
mod parameters;
mod probes;
mod schemas;
#[cfg(test)]
mod tests;

use super::{
    problem::Kind,
    routes::{Access, ROUTES, Route},
};
use operations::Shown;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeSet, sync::LazyLock};

/// As served: compact, with its entity tag.
pub struct Description {
    pub text: String,
    pub etag: String,
}

static DESCRIPTION: LazyLock<Description> = LazyLock::new(|| {
    let text = document().to_string();
    let etag = format!("\"{}\"", hex::encode(&Sha256::digest(text.as_bytes())[..16]));
    Description { text, etag }
});

/// The description, made once.
#[must_use]
pub fn description() -> &'static Description {
    &DESCRIPTION
}

/// The description for people and for `docs/openapi.json`.
#[must_use]
pub fn printed() -> String {
    format!("{:#}\n", document())
}

const ABOUT: &str = "An application backend that lives in several regions at once. Every region \
serves this API: reads are answered from the region's own replica, writes go to the primary. \
Each answer carries `Godwit-Bookmark`; send it with the next request, to whichever region, and \
you never read what is older than what you have seen or written.\n\n\
Every error is a problem document (RFC 9457) whose `type` is `urn:godwit:problem:<kind>`; so are \
the answers to unknown paths (404) and to methods that a path does not offer (405, with `Allow`). Where GET is offered, HEAD is: the same \
answer without its body.";

/// What one operation needs of the shared parts.
#[derive(Default)]
struct Used {
    problems: BTreeSet<Vec<Kind>>,
}

fn document() -> Value {
    let mut used = Used::default();
    let mut paths = Map::new();
    for route in &ROUTES {
        if let Some(shown) = operations::shown(route.method.as_str(), route.path) {
            let operation = operation(route, shown, &mut used);
            add(&mut paths, route.path, route.method.as_str(), operation);
        }
    }
    for (path, operation) in probes::operations() {
        add(&mut paths, path, "GET", operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Godwit",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "The region that serves this description" }],
        "tags": [
            { "name": "items", "description": "Documents of a tenant, in collections" },
            { "name": "writes", "description": "What became of a write" },
            { "name": "account", "description": "A person's own account" },
            { "name": "admin", "description": "For operators of a tenant and of the cluster" },
            { "name": "health", "description": "Probes; they take no credential" },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "parameters": parameters::all(),
            "headers": answers::headers(),
            "responses": answers::problems(&used.problems),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "gw_<environment>_<random>",
                    "description": "An API key. The tenant comes from it and from nowhere else. \
                        Each operation names the scope it needs: `read`, `write` or `admin`.",
                },
                "session": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "v1.<region>.<random>.<mac>",
                    "description": "A session's token, of `POST /v1/session`; browsers bring it as \
                        the cookie `__Host-godwit_session`. Its scopes are those of the user's role.",
                },
            },
        },
    })
}

fn add(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let item = paths.entry(path.to_owned()).or_insert_with(|| json!({}));
    item[method.to_lowercase()] = operation;
}

/// One route: what the table says of it, what the gate does to all of its kind, and what is shown
/// of it alone.
fn operation(route: &Route, shown: Shown, used: &mut Used) -> Value {
    let common = match (route.is_write(), route.is_regional()) {
        (true, _) => &operations::WRITES,
        (_, true) => &operations::REGIONALS,
        (false, false) => &operations::READS,
    };
    let named = shown.parameters.iter().chain(common.parameters);
    let parameters: Vec<_> = named.map(|name| reference("parameters", name)).collect();
    let mut responses = Map::new();
    for (status, answer) in shown.answers {
        responses.insert(status.to_string(), answer);
    }
    let mut kinds: Vec<Kind> = common.problems.to_vec();
    kinds.retain(|kind| *kind != Kind::Unauthorized || !route.is_for_anyone());
    kinds.extend(shown.problems);
    for kinds in answers::by_status(&kinds) {
        let name = answers::name(&kinds);
        responses.insert(kinds[0].status().as_u16().to_string(), reference("responses", &name));
        used.problems.insert(kinds);
    }
    let mut operation = json!({
        "operationId": shown.id,
        "tags": [shown.tag],
        "summary": shown.summary,
        "description": shown.description,
        "x-godwit-intent": common.intent,
        "security": security(route),
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = shown.body {
        operation["requestBody"] = body;
    }
    operation
}

/// None at all where nobody has to be known.
fn security(route: &Route) -> Value {
    match route.access {
        Access::Open | Access::Anyone => json!([]),
        Access::Person => json!([{ "session": [] }]),
        Access::Scope(scope) => {
            json!([{ "key": [scope.as_str()] }, { "session": [scope.as_str()] }])
        }
    }
}

fn reference(of: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{of}/{name}") })
}

fn schema(name: &str) -> Value {
    reference("schemas", name)
}
