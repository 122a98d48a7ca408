//! The OpenAPI description.

/// As JSON text.
#[must_use]
pub fn json() -> String {
    "{}".to_owned()
}
