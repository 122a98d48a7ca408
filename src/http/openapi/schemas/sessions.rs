//! Sessions, and what begins one.

use super::{object, page, strict, time, users::tenant};
use crate::http::openapi::schema;
use serde_json::{Value, json};

/// All of them, by name.
pub fn all() -> Value {
    let (email, name, password) = (schema("Email"), schema("PersonName"), schema("NewPassword"));
    let tenant = tenant();
    json!({
        "SignIn": strict("Who signs in.", &["tenant", "email", "password"], &json!({
            "tenant": tenant, "email": email, "password": password,
        })),
        "AccountChange": strict("What is to be another.", &["name"], &json!({ "name": name })),
        "PasswordChange": strict(
            "The password to have, and the one that is.", &["current_password", "password"],
            &json!({ "current_password": password, "password": password }),
        ),
        "SessionBegun": object("A session that has begun.", &json!({
            "token": {
                "type": "string",
                "description": "To be kept secret. Told here and nowhere else.",
            },
            "session": schema("Id"),
            "expires_at": time(),
        })),
        "AccountSwitch": strict("The account to go on as.", &["session"], &json!({
            "session": schema("Id"),
        })),
        "Accounts": object("The accounts that a browser is signed in to.", &json!({
            "accounts": { "type": "array", "items": schema("Account") },
        })),
        "Account": object("An account that a browser is signed in to.", &json!({
            "session": schema("Id"),
            "active": { "type": "boolean", "description": "The one that asks." },
            "email": {
                "type": ["string", "null"],
                "description": "Null while this region has not heard of the user.",
            },
            "name": { "type": ["string", "null"] },
            "expires_at": time(),
        })),
        "Session": object("Where somebody is signed in.", &json!({
            "id": schema("Id"),
            "current": { "type": "boolean", "description": "The session that asks." },
            "device": { "type": "string", "description": "What the client called itself." },
            "address": { "type": "string", "description": "The network address it came from." },
            "region": { "type": "string", "description": "Where it began." },
            "created_at": time(),
            "expires_at": time(),
            "seen_at": time(),
            "seen_in": { "type": "string", "description": "The region that saw it last." },
        })),
        "SessionPage": page("Session", &json!({ "oneOf": [schema("Id"), { "type": "null" }] })),
    })
}
