//! Users, and what makes one.

use super::{object, page, strict, time};
use crate::{
    domain::users::NAME_CHARS_MAX,
    http::openapi::schema,
    identity::password::PASSWORD_CHARS,
    vocab::{Role, email::EMAIL_BYTES_MAX},
};
use serde_json::{Value, json};

pub(super) fn tenant() -> Value {
    json!({
        "type": "string",
        "pattern": "^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$",
        "description": "The tenant's name.",
    })
}

/// All of them, by name.
pub fn all() -> Value {
    let when = json!({ "type": ["string", "null"], "format": "date-time" });
    let (email, name, password) = (schema("Email"), schema("PersonName"), schema("NewPassword"));
    json!({
        "Email": {
            "type": "string", "format": "email", "maxLength": EMAIL_BYTES_MAX,
            "description": "One address with a domain of two names or more, neither quoted nor \
                with a literal. Spellings that differ in case, in Unicode form (NFKC) or in how an \
                international domain is written are one address.",
        },
        "PersonName": {
            "type": "string", "minLength": 1, "maxLength": NAME_CHARS_MAX,
            "pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$",
            "description": format!(
                "Up to {NAME_CHARS_MAX} characters, not only white space, no control characters."
            ),
        },
        "NewPassword": {
            "type": "string", "format": "password", "writeOnly": true,
            "minLength": PASSWORD_CHARS.start(), "maxLength": PASSWORD_CHARS.end(),
            "description": "Any characters. One that is easy to guess, for who knows its owner too, \
                is refused.",
        },
        "Role": {
            "type": "string", "enum": Role::ALL.map(Role::as_str),
            "description": "`admin` has the scopes `read`, `write` and `admin`, `editor` `read` and \
                `write`, `viewer` `read`, `guest` none.",
        },
        "User": object("A person with an account; never their password.", &json!({
            "id": schema("Id"),
            "email": { "type": "string", "description": "As it was given." },
            "name": { "type": "string" },
            "role": schema("Role"),
            "version": { "type": "integer", "minimum": 1 },
            "password_changed_at": when,
            "suspended_at": when,
            "created_at": time(),
            "updated_at": time(),
        })),
        "UserPage": page("User", &json!({ "oneOf": [schema("Id"), { "type": "null" }] })),
        "Registration": strict(
            "The account to make.", &["tenant", "email", "name", "password"], &json!({
                "tenant": tenant(),
                "email": email, "name": name, "password": password,
            }),
        ),
        "UserWanted": strict("The user to make.", &["email", "name"], &json!({
            "email": email, "name": name, "password": password,
            "role": { "allOf": [schema("Role")], "default": Role::Viewer.as_str() },
        })),
        "UserChange": strict("What is to be another.", &[], &json!({
            "email": email, "name": name, "role": schema("Role"),
        })),
        "PasswordWanted": strict("The password to have.", &["password"], &json!({
            "password": password,
        })),
    })
}
