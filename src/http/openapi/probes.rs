//! Paths beside the table: health, and this description. They take no credential.

use super::schema;
use serde_json::{Value, json};

/// Path and operation of each.
pub fn operations() -> [(&'static str, Value); 4] {
    [
        (
            "/health",
            health(
                "health",
                "Should this region get traffic?",
                "For Route 53. Without its primary a region is degraded and still 200: its reads \
                 go on. 503 only while another region would serve better.",
                true,
            ),
        ),
        (
            "/api/health/liveness",
            health(
                "liveness",
                "Does the process turn its event loop?",
                "For kubelets. Never looks at a dependency.",
                false,
            ),
        ),
        (
            "/api/health/readiness",
            health(
                "readiness",
                "Do local reads work?",
                "For kubelets and balancers: the schema is new enough, the replica streams at the \
                 cluster's epoch, Redis answers.",
                true,
            ),
        ),
        ("/openapi.json", description()),
    ]
}

fn health(id: &str, summary: &str, description: &str, fails: bool) -> Value {
    let answer = |description: &str, headers: Value| {
        json!({
            "description": description,
            "headers": headers,
            "content": { "application/json": { "schema": schema("Health") } },
        })
    };
    let header = |name: &str| super::reference("headers", name);
    let headers =
        json!({ "traceparent": header("traceparent"), "Cache-Control": header("Cache-Control") });
    let mut responses = json!({ "200": answer("`ok` or `degraded`", headers.clone()) });
    if fails {
        let mut headers = headers;
        headers["Retry-After"] = header("Retry-After");
        responses["503"] = answer("`error`", headers);
    }
    json!({
        "operationId": id,
        "tags": ["health"],
        "summary": summary,
        "description": description,
        "security": [],
        "responses": responses,
    })
}

fn description() -> Value {
    let header = |name: &str| super::reference("headers", name);
    let headers = json!({
        "traceparent": header("traceparent"),
        "Cache-Control": header("Cache-Control"),
        "ETag": header("Document-ETag"),
    });
    json!({
        "operationId": "openapi",
        "tags": ["health"],
        "summary": "This description",
        "description": "OpenAPI 3.1. For people: `/docs`.",
        "security": [],
        "parameters": [{
            "name": "If-None-Match", "in": "header",
            "description": "The `ETag` of the description at hand.",
            "schema": { "type": "string" },
        }],
        "responses": {
            "200": {
                "description": "The description",
                "headers": headers,
                "content": { "application/json": { "schema": { "type": "object" } } },
            },
            "304": { "description": "It is the one at hand", "headers": headers },
        },
    })
}
