//! The cookie that a browser is signed in by, and which pages may use it.

use super::headers;
use actix_web::http::{
    Uri,
    header::{self, HeaderMap, HeaderName},
};
use std::time::Duration;

/// `__Host-`: a browser takes it from this host alone, over TLS, for every path (RFC 6265bis section 4.1.3.2).
pub const SESSION: &str = "__Host-godwit_session";

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The value of a cookie; the first, if it was sent more than once.
pub fn value<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).filter_map(|value| value.to_str().ok());
    let mut pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

/// Accounts that a browser is signed in to at a time; one more takes the place of the one used longest ago.
pub const ACCOUNTS_MAX: usize = 3;

/// Between two tokens. No token has one in it.
const BETWEEN: &str = "~";

/// The tokens that a browser brings, that of the account in use first.
pub fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = value(headers, SESSION).unwrap_or_default().split(BETWEEN);
    all.filter(|token| !token.is_empty()).take(ACCOUNTS_MAX)
}

/// The token of the account in use.
#[must_use]
pub fn session(headers: &HeaderMap) -> Option<&str> {
    tokens(headers).next()
}

/// What has a browser keep these tokens, the one to use first; without any it is signed out.
#[must_use]
pub fn keep<'a>(tokens: impl IntoIterator<Item = &'a str>, lasts: Duration) -> String {
    let tokens: Vec<_> = tokens.into_iter().take(ACCOUNTS_MAX).collect();
    let joined = tokens.join(BETWEEN);
    let seconds = if joined.is_empty() { 0 } else { lasts.as_secs() };
    format!("{SESSION}={joined}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax")
}

/// Whether a page of this very origin sends it, as the browser says: by Fetch Metadata, or by `Origin`, which
/// older ones send. Who says neither is not believed.
#[must_use]
pub fn is_same_origin(headers: &HeaderMap) -> bool {
    if let Some(site) = headers::joined(headers, &SITE) {
        return *site == *b"same-origin";
    }
    let text = |name: &HeaderName| {
        let value = headers::joined(headers, name)?;
        String::from_utf8(value.into_owned()).ok()
    };
    let (Some(origin), Some(host)) = (text(&header::ORIGIN), text(&header::HOST)) else {
        return false;
    };
    let origin: Option<Uri> = origin.parse().ok();
    origin.is_some_and(|origin| {
        origin.authority().is_some_and(|theirs| theirs.as_str().eq_ignore_ascii_case(&host))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn only_a_page_of_this_origin_may_use_the_cookie_to_change_something() {
        let host = ("host", "app.example.com:8443");
        for (fields, wanted) in [
            (vec![("sec-fetch-site", "same-origin")], true),
            (vec![("sec-fetch-site", "same-site")], false),
            (vec![("sec-fetch-site", "cross-site")], false),
            (vec![("sec-fetch-site", "none")], false),
            // The browser's own word counts more than what can be compared.
            (
                vec![
                    host,
                    ("origin", "https://app.example.com:8443"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
            ),
            (vec![host, ("origin", "https://app.example.com:8443")], true),
            (vec![host, ("origin", "https://APP.example.com:8443")], true),
            (vec![host, ("origin", "https://app.example.com")], false),
            (vec![host, ("origin", "https://evil.example.com:8443")], false),
            (vec![host, ("origin", "null")], false),
            (vec![("origin", "https://app.example.com:8443")], false),
            (vec![host], false),
        ] {
            assert_eq!(is_same_origin(&headers(&fields)), wanted, "{fields:?}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let map = headers(&[("cookie", "a=1; __Host-godwit_session=v1.x; b=2"), ("cookie", "c=3")]);
        assert_eq!(session(&map), Some("v1.x"));
        assert_eq!(value(&map, "c"), Some("3"));
        assert_eq!(value(&map, "godwit_session"), None);
    }

    #[test]
    fn a_browser_keeps_three_accounts_and_no_more() {
        let lasts = Duration::from_secs(60);
        let kept = keep(["a", "b", "c", "d"], lasts);
        assert!(kept.starts_with("__Host-godwit_session=a~b~c; ") && kept.contains("Max-Age=60;"));
        assert!(keep([], lasts).starts_with("__Host-godwit_session=; Path=/; Max-Age=0; "));
        let brought = |value: &'static str| {
            tokens(&headers(&[("cookie", value)])).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(brought("__Host-godwit_session=a~b~~c~d"), ["a", "b", "c"]);
        assert!(brought("__Host-godwit_session=").is_empty());
        assert!(brought("other=a").is_empty());
    }
}
