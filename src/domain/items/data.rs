//! An item's document, checked to be one that Postgres can hold and give back unchanged.

use serde_json::Value;

/// Longest document, as text, in bytes; numbers count with their exponents written out, because
/// `jsonb` writes them out.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;

/// Longest number, written out. `jsonb` numbers go further, but a few bytes like `1e100000` must
/// not become a hundred thousand.
const NUMBER_CHARS_MAX: usize = 1_000;

/// A JSON object, serialised. Numbers keep every digit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemData(String);

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error("the document must be a JSON object")]
    NotAnObject,
    #[error("the character U+0000 cannot be kept")]
    Nul,
    #[error("a number has more than {NUMBER_CHARS_MAX} digits when written out")]
    NumberOutOfRange,
    #[error("the document is longer than {DATA_BYTES_MAX} bytes")]
    TooLarge,
}

impl ItemData {
    /// # Errors
    /// When it is not JSON, not an object, or not keepable.
    pub fn parse(body: &[u8]) -> Result<Self, DataError> {
        Self::from_value(&parse_value(body)?)
    }

    /// # Errors
    /// When it is not an object, or not keepable.
    pub fn from_value(value: &Value) -> Result<Self, DataError> {
        if !value.is_object() {
            return Err(DataError::NotAnObject);
        }
        let mut expansion = 0;
        check(value, &mut expansion)?;
        let text = value.to_string();
        if text.len() + expansion > DATA_BYTES_MAX {
            return Err(DataError::TooLarge);
        }
        Ok(Self(text))
    }

    /// This document with a merge patch applied (RFC 7396).
    ///
    /// # Errors
    /// When the patch is not an object or the result is not keepable.
    pub fn patched(current: &str, patch: &Value) -> Result<Self, DataError> {
        if !patch.is_object() {
            return Err(DataError::NotAnObject);
        }
        let mut document = parse_value(current.as_bytes())?;
        merge(&mut document, patch);
        Self::from_value(&document)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Parses JSON, and says where it stops being JSON.
///
/// # Errors
/// When it is not JSON, or nested more than 127 deep.
pub fn parse_value(body: &[u8]) -> Result<Value, DataError> {
    serde_json::from_slice(body).map_err(|error| DataError::NotJson(error.to_string()))
}

/// RFC 7396 section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(members) = target {
        for (name, change) in changes {
            if change.is_null() {
                members.remove(name);
            } else {
                merge(members.entry(name.as_str()).or_insert(Value::Null), change);
            }
        }
    }
}

/// Refuses what `jsonb` would, and adds up how much longer numbers get. Nesting is bounded by the
/// parser.
fn check(value: &Value, expansion: &mut usize) -> Result<(), DataError> {
    let text = |text: &str| if text.contains('\0') { Err(DataError::Nul) } else { Ok(()) };
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::String(string) => text(string),
        Value::Number(number) => {
            let written = written_out(number.as_str()).filter(|chars| *chars <= NUMBER_CHARS_MAX);
            let chars = written.ok_or(DataError::NumberOutOfRange)?;
            *expansion += chars.saturating_sub(number.as_str().len());
            Ok(())
        }
        Value::Array(elements) => elements.iter().try_for_each(|element| check(element, expansion)),
        Value::Object(members) => members.iter().try_for_each(|(name, member)| {
            text(name)?;
            check(member, expansion)
        }),
    }
}

/// Characters of a JSON number without its exponent, about; `None` when the exponent is absurd.
fn written_out(number: &str) -> Option<usize> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent: i32 = exponent.parse().ok()?;
    mantissa.len().checked_add(usize::try_from(exponent.unsigned_abs()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn numbers_keep_every_digit() {
        let text = r#"{"n":12345678901234567890123456789.000100}"#;
        assert_eq!(ItemData::parse(text.as_bytes()).unwrap().as_str(), text);
    }

    #[test]
    fn refuses_what_the_database_would_refuse_or_blow_up() {
        assert!(matches!(ItemData::parse(b"{"), Err(DataError::NotJson(_))));
        assert!(matches!(ItemData::parse(b"\xff"), Err(DataError::NotJson(_))));
        assert!(matches!(ItemData::parse(b"{\"a\":\"\xff\"}"), Err(DataError::NotJson(_))));
        assert!(matches!(ItemData::parse(b"[]"), Err(DataError::NotAnObject)));
        assert!(matches!(ItemData::parse(br#"{"a":"\u0000"}"#), Err(DataError::Nul)));
        assert!(matches!(ItemData::parse(br#"{"\u0000":1}"#), Err(DataError::Nul)));
        for number in ["1e1001", "1e-1001", "1e99999999999"] {
            let body = format!("{{\"a\":[{number}]}}");
            assert!(matches!(ItemData::parse(body.as_bytes()), Err(DataError::NumberOutOfRange)));
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        assert!(matches!(ItemData::parse(deep.as_bytes()), Err(DataError::NotJson(_))));
        let many = format!("{{\"a\":[{}1]}}", "1e900,".repeat(2_000));
        assert!(matches!(ItemData::parse(many.as_bytes()), Err(DataError::TooLarge)));
    }

    /// The examples of RFC 7396 appendix A whose original is an object.
    #[test]
    fn merges_as_the_rfc_does() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (original, patch, result) in cases {
            let merged = ItemData::patched(&original.to_string(), &patch).unwrap();
            assert_eq!(serde_json::from_str::<Value>(merged.as_str()).unwrap(), result);
        }
        assert!(matches!(ItemData::patched("{}", &json!([])), Err(DataError::NotAnObject)));
    }

    proptest! {
        /// Applying a patch twice is applying it once.
        #[test]
        fn a_patch_is_idempotent(a in "[a-c]", b in "[a-c]", x in 0..9, removes: bool) {
            let original = json!({a.clone(): {"x": 1}, "z": 0}).to_string();
            let patch = json!({b: if removes { Value::Null } else { json!({"x": x}) }});
            let once = ItemData::patched(&original, &patch).unwrap();
            prop_assert_eq!(ItemData::patched(once.as_str(), &patch).unwrap(), once);
        }
    }
}
