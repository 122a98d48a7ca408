//! Whether two JSON values mean the same, after one of them has been through the database.

use serde_json::Value;

/// Equal but for the order of members and the spelling of numbers, which Postgres' `jsonb` does not
/// keep.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => decimal(&a.to_string()) == decimal(&b.to_string()),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

/// Sign, digits without zeros at either end, and the exponent of the last digit. Zero has no
/// digits, no sign and no exponent.
fn decimal(text: &str) -> (bool, String, i64) {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{part}");
    let significant = digits.trim_end_matches('0');
    let cut = digits.len() - significant.len();
    let significant = significant.trim_start_matches('0').to_owned();
    if significant.is_empty() {
        return (false, significant, 0);
    }
    let exponent: i64 = exponent.parse().unwrap_or(i64::MAX / 2);
    let places = |count: usize| i64::try_from(count).unwrap_or(i64::MAX / 4);
    (negative, significant, exponent + places(cut) - places(part.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: &str, b: &str) -> bool {
        same(&serde_json::from_str(a).unwrap(), &serde_json::from_str(b).unwrap())
    }

    #[test]
    fn spelling_does_not_matter_and_value_does() {
        for (a, b) in [
            ("1", "1.0"),
            ("1E2", "100"),
            ("-0", "0.00"),
            ("0.00120", "1.2e-3"),
            ("12345678901234567890123", "1.2345678901234567890123e22"),
            (r#"{"a":[1,{"b":2}],"c":null}"#, r#"{"c":null,"a":[1.0,{"b":2}]}"#),
        ] {
            assert!(check(a, b) && check(b, a), "{a} {b}");
        }
        for (a, b) in [
            ("1", "-1"),
            ("1", "\"1\""),
            ("0.1", "0.01"),
            ("12345678901234567890123", "12345678901234567890124"),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            (r#"{"a":1,"b":2}"#, r#"{"a":1,"c":2}"#),
            ("[1,2]", "[2,1]"),
            ("null", "false"),
        ] {
            assert!(!check(a, b) && !check(b, a), "{a} {b}");
        }
    }
}
