//! Query strings.

use actix_web::web::Query;
use serde::de::DeserializeOwned;

/// Parses a query string; `None` when it is not what `T` takes, or its text is not UTF-8, which
/// the usual decoding would quietly replace.
pub fn parse<T: DeserializeOwned>(text: &str) -> Option<T> {
    if !decodes(text) {
        return None;
    }
    Query::<T>::from_query(text).ok().map(Query::into_inner)
}

/// Whether the text is UTF-8 once percent-decoded.
fn decodes(text: &str) -> bool {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let mut byte = [*first];
        let escaped = *first == b'%'
            && after.get(..2).is_some_and(|two| hex::decode_to_slice(two, &mut byte).is_ok());
        bytes.push(byte[0]);
        rest = if escaped { &after[2..] } else { after };
    }
    std::str::from_utf8(&bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn text_that_is_not_utf_8_is_refused_not_replaced() {
        let parsed = |text: &str| parse::<BTreeMap<String, String>>(text);
        assert_eq!(parsed("q=%E2%82%AC%").unwrap()["q"], "\u{20ac}%");
        assert_eq!(parsed("q=a+b%zz").unwrap()["q"], "a b%zz");
        assert!(parsed("").unwrap().is_empty());
        for text in ["q=%ff", "q=%E2%82", "%c0%80=1", "q=%e2%82&r=%ac"] {
            assert!(parsed(text).is_none(), "{text}");
        }
    }
}
