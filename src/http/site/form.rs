//! The forms: their fields, and what a browser sends of them.

use crate::http::{
    problem::{Kind, Problem},
    query,
};
use actix_web::http::header::{self, HeaderMap};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    SignIn,
    Register,
    Name,
    Password,
}

/// One line of a form: the member of the API's body, and how a person and their browser are told of it.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub label: &'static str,
    /// The `type` of the control.
    pub kind: &'static str,
    /// What a program that keeps passwords is told (HTML section 4.10.18.7).
    pub autocomplete: &'static str,
    pub hint: &'static str,
}

const TENANT: Field = Field {
    name: "tenant",
    label: "Organisation",
    kind: "text",
    autocomplete: "organization",
    hint: "",
};
const EMAIL: Field = Field {
    name: "email",
    label: "E-mail address",
    kind: "email",
    autocomplete: "username",
    hint: "",
};
const NAME: Field =
    Field { name: "name", label: "Name", kind: "text", autocomplete: "name", hint: "" };
const NEW_PASSWORD: Field = Field {
    name: "password",
    label: "Password",
    kind: "password",
    autocomplete: "new-password",
    hint: "Several words that nobody would guess. No digits or signs are asked for.",
};

impl Form {
    #[must_use]
    pub const fn fields(self) -> &'static [Field] {
        match self {
            Self::SignIn => {
                const {
                    &[
                        TENANT,
                        EMAIL,
                        Field { autocomplete: "current-password", hint: "", ..NEW_PASSWORD },
                    ]
                }
            }
            Self::Register => const { &[TENANT, EMAIL, NAME, NEW_PASSWORD] },
            Self::Name => const { &[NAME] },
            Self::Password => {
                const {
                    &[
                        Field {
                            name: "current_password",
                            label: "Current password",
                            autocomplete: "current-password",
                            hint: "",
                            ..NEW_PASSWORD
                        },
                        Field { label: "New password", ..NEW_PASSWORD },
                    ]
                }
            }
        }
    }

    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::SignIn => "/sign-in",
            Self::Register => "/register",
            Self::Name => "/account/name",
            Self::Password => "/account/password",
        }
    }

    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::SignIn => "Sign in",
            Self::Register => "Make an account",
            Self::Name => "Change your name",
            Self::Password => "Change your password",
        }
    }

    #[must_use]
    pub const fn button(self) -> &'static str {
        match self {
            Self::SignIn => "Sign in",
            Self::Register => "Make the account",
            Self::Name => "Save",
            Self::Password => "Change the password",
        }
    }
}

/// What a browser has sent. `Debug` hides it: a password may be among it.
#[derive(Default)]
pub struct Sent(BTreeMap<String, String>);

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sent").finish_non_exhaustive()
    }
}

impl Sent {
    /// Reads a form (URL standard section 5.1).
    ///
    /// # Errors
    /// When it is none.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let detail = "Send a form: application/x-www-form-urlencoded.";
            return Err(Problem::new(Kind::UnsupportedMediaType, detail));
        }
        let text = std::str::from_utf8(body).ok().and_then(query::parse);
        text.map(Self).ok_or_else(|| Problem::new(Kind::Malformed, "This is no form."))
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn read(kind: &'static str, body: &[u8]) -> Result<Sent, Kind> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        Sent::read(&headers, body).map_err(|problem| problem.kind())
    }

    #[test]
    fn only_a_form_is_read() {
        const FORM: &str = "application/x-www-form-urlencoded";
        let sent = read(FORM, b"name=Ada+King&password=a%26b%3D%C3%A9").unwrap();
        assert_eq!(
            (sent.get("name"), sent.get("password")),
            (Some("Ada King"), Some("a&b=\u{e9}"))
        );
        assert_eq!(sent.get("email"), None);
        assert!(!format!("{sent:?}").contains("Ada"));
        assert!(read("Application/X-WWW-Form-Urlencoded; charset=UTF-8", b"").is_ok());
        for (kind, body, wanted) in [
            ("application/json", &b"{}"[..], Kind::UnsupportedMediaType),
            ("text/plain", b"name=Ada", Kind::UnsupportedMediaType),
            (FORM, b"name=\xff", Kind::Malformed),
            (FORM, b"name=%ff", Kind::Malformed),
        ] {
            assert_eq!(read(kind, body).unwrap_err(), wanted, "{kind}");
        }
    }
}
