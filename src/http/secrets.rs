//! What of a request's body is kept out of the journal.
//!
//! The journal keeps a digest of each write's request, so that a key cannot be used for another. SHA-256
//! is fast: whoever has read the table, in a backup say, could try passwords against a digest that
//! one went into, at a cost that argon2 was to forbid. So the digest leaves passwords out. A
//! repetition with the same key and another password is therefore taken for the same request, and is
//! answered as the first was.

use super::{
    problem::{Kind, Problem},
    routes::{Route, Trait},
};
use actix_web::{HttpRequest, web::Bytes};
use serde_json::Value;

/// The body as its digest takes it.
#[must_use]
pub fn without(route: &Route, body: &Bytes) -> Bytes {
    if route.is(Trait::Secret) { stripped(body) } else { body.clone() }
}

/// A request whose body has a password takes no query: somebody would put it there, and an address is
/// kept in the journal, and by everyone on the way.
///
/// # Errors
/// When there is one.
pub fn no_query(request: &HttpRequest) -> Result<(), Problem> {
    if request.query_string().is_empty() {
        return Ok(());
    }
    Err(Problem::new(Kind::Malformed, "This takes no query: everything is in the body."))
}

/// Without any member called a password. What is no object is refused later, so that nothing is kept of
/// it: nothing of it is taken.
fn stripped(body: &[u8]) -> Bytes {
    let Ok(Value::Object(mut members)) = serde_json::from_slice(body) else {
        return Bytes::new();
    };
    members.retain(|name, _| !name.to_ascii_lowercase().ends_with("password"));
    Value::Object(members).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_left_however_it_is_written() {
        let plain = stripped(br#"{"email":"a@example.com","name":"Ada"}"#);
        for body in [
            r#"{"email":"a@example.com","name":"Ada","password":"hunter2-hunter2"}"#,
            r#" {"password":"one", "name":"Ada","password":"two","email":"a@example.com"}"#,
            r#"{"email":"a@example.com","pass\u0077ord":"hunter2","name":"Ada"}"#,
            r#"{"email":"a@example.com","password":{"deep":["hunter2"]},"name":"Ada"}"#,
            r#"{"email":"a@example.com","new_password":"hunter2","name":"Ada","Password":""}"#,
        ] {
            assert_eq!(stripped(body.as_bytes()), plain, "{body}");
        }
        for body in [r#""hunter2""#, "[\"hunter2\"]", r#"{"password":"hunter2"#, "hunter2", ""] {
            assert!(stripped(body.as_bytes()).is_empty(), "{body}");
        }
    }

    #[test]
    fn all_else_is_told_apart() {
        let one = stripped(br#"{"email":"a@example.com","password":"x"}"#);
        let two = stripped(br#"{"email":"b@example.com","password":"x"}"#);
        assert_ne!(one, two);
    }
}
