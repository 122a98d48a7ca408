//! Which pages there are, what each shows, and what each form does: a path of the site, and the request of
//! the API that it stands for.

use super::form::{Form, Sent};
use actix_web::http::Method;
use serde_json::{Map, Value};

/// A path of the site. Which methods it takes is said in [`Place::shows`] and [`Place::does`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    Home,
    Style,
    SignIn,
    SignOut,
    Register,
    Account,
    Name,
    Password,
    Sessions,
    EndSession(&'a str),
    EndOthers,
    Accounts,
    Switch,
}

/// A request of the API.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub body: Option<Value>,
    /// The version that a change is to be of.
    pub matches: Option<String>,
}

/// What a page is made of.
#[derive(Debug, PartialEq, Eq)]
pub enum Shows {
    /// Another page.
    Other(&'static str),
    Style,
    /// An empty form.
    Form(Form),
    /// What the API answers.
    Answer(Call),
}

/// Entries of the list of sessions on one page.
const SESSIONS: u32 = 50;

impl<'a> Place<'a> {
    /// The place of that path; `None` when the site has none.
    #[must_use]
    pub fn of(path: &'a str) -> Option<Self> {
        Some(match path {
            "/" => Self::Home,
            "/pages.css" => Self::Style,
            "/sign-in" => Self::SignIn,
            "/sign-out" => Self::SignOut,
            "/register" => Self::Register,
            "/account" => Self::Account,
            "/account/name" => Self::Name,
            "/account/password" => Self::Password,
            "/sessions" => Self::Sessions,
            "/sessions/end-others" => Self::EndOthers,
            "/accounts" => Self::Accounts,
            "/accounts/switch" => Self::Switch,
            _ => {
                let id = path.strip_prefix("/sessions/")?.strip_suffix("/end")?;
                // Else it would be another path of the API.
                let is_id = id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
                return (is_id && !id.is_empty()).then_some(Self::EndSession(id));
            }
        })
    }

    /// What is shown to who asks for it; `None` where there is nothing to see. `cursor`: where a list goes on.
    #[must_use]
    pub fn shows(self, cursor: Option<&str>) -> Option<Shows> {
        let read = |path: &str| Shows::Answer(Call::new(Method::GET, path));
        Some(match self {
            Self::Home => Shows::Other("/account"),
            Self::Style => Shows::Style,
            Self::SignIn => Shows::Form(Form::SignIn),
            Self::Register => Shows::Form(Form::Register),
            // That of the password is shown to who is signed in.
            Self::Account | Self::Name | Self::Password => read("/v1/account"),
            Self::Sessions => {
                let cursor = cursor.map(super::super::problem::percent_encode);
                let cursor = cursor.map(|at| format!("&cursor={at}")).unwrap_or_default();
                read(&format!("/v1/sessions?limit={SESSIONS}{cursor}"))
            }
            Self::Accounts => read("/v1/session"),
            Self::SignOut | Self::EndSession(_) | Self::EndOthers | Self::Switch => return None,
        })
    }

    /// What a form that is sent there has the API do; `None` where none is taken.
    #[must_use]
    pub fn does(self, sent: &Sent) -> Option<Call> {
        let of = |form: Form| {
            let take = |name: &'static str| Some((name.to_owned(), sent.get(name)?.into()));
            let members: Map<_, Value> =
                form.fields().iter().filter_map(|f| take(f.name)).collect();
            Some(Value::Object(members))
        };
        Some(match self {
            Self::SignIn => {
                Call { body: of(Form::SignIn), ..Call::new(Method::POST, "/v1/session") }
            }
            Self::SignOut => Call::new(Method::DELETE, "/v1/session"),
            Self::Register => {
                Call { body: of(Form::Register), ..Call::new(Method::POST, "/v1/account") }
            }
            Self::Name => Call {
                body: of(Form::Name),
                matches: sent.get("version").map(str::to_owned),
                ..Call::new(Method::PATCH, "/v1/account")
            },
            Self::Password => {
                Call { body: of(Form::Password), ..Call::new(Method::PUT, "/v1/account/password") }
            }
            Self::EndSession(id) => Call::new(Method::DELETE, &format!("/v1/sessions/{id}")),
            Self::EndOthers => Call::new(Method::POST, "/v1/sessions:end-others"),
            Self::Switch => {
                let session = sent.get("session").unwrap_or_default().into();
                let members: Map<_, Value> =
                    [("session".to_owned(), session)].into_iter().collect();
                Call { body: Some(Value::Object(members)), ..Call::new(Method::PUT, "/v1/session") }
            }
            Self::Home | Self::Style | Self::Account | Self::Sessions | Self::Accounts => {
                return None;
            }
        })
    }

    /// The form to show again when what was sent was refused; `None`: nothing but a button was.
    #[must_use]
    pub const fn form(self) -> Option<Form> {
        match self {
            Self::SignIn => Some(Form::SignIn),
            Self::Register => Some(Form::Register),
            Self::Name => Some(Form::Name),
            Self::Password => Some(Form::Password),
            _ => None,
        }
    }

    /// Where somebody goes on who was refused.
    #[must_use]
    pub const fn back(self) -> &'static str {
        match self {
            Self::SignIn => "/sign-in",
            Self::Register => "/register",
            Self::Name => "/account/name",
            Self::Password => "/account/password",
            Self::Sessions | Self::EndSession(_) | Self::EndOthers => "/sessions",
            Self::Accounts | Self::Switch => "/accounts",
            Self::Home | Self::Style | Self::Account | Self::SignOut => "/account",
        }
    }

    /// Where somebody goes on when it is done. `others`: their browser is signed in to other accounts too.
    #[must_use]
    pub const fn done(self, others: bool) -> &'static str {
        match self {
            Self::Register => "/sign-in?done=registered",
            Self::SignOut if !others => "/sign-in?done=signed-out",
            Self::SignOut => "/account?done=signed-out",
            Self::Name => "/account?done=name",
            Self::Password => "/account?done=password",
            Self::EndSession(_) => "/sessions?done=ended",
            Self::EndOthers => "/sessions?done=others-ended",
            Self::Switch => "/account?done=switched",
            _ => "/account",
        }
    }

    /// The methods it takes.
    #[must_use]
    pub fn methods(self) -> &'static str {
        match (self.shows(None).is_some(), self.does(&Sent::default()).is_some()) {
            (true, true) => "GET, HEAD, POST",
            (true, false) => "GET, HEAD",
            (false, _) => "POST",
        }
    }
}

impl Call {
    fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), body: None, matches: None }
    }
}

/// What a page says of what has just been done, by the word in its address. Anybody can make such an
/// address, so it says nothing that could harm.
#[must_use]
pub fn notice(word: &str) -> Option<&'static str> {
    Some(match word {
        "registered" => "Your account is made. Sign in to use it.",
        "signed-out" => "You are signed out.",
        "over" => "Your session is over. Sign in again.",
        "name" => "Your name is changed.",
        "password" => "Your password is changed, and your other sessions are ended.",
        "ended" => "That session is ended.",
        "others-ended" => "All your other sessions are ended.",
        "switched" => "This is the account in use now.",
        "lost" => {
            "A region failed, and some of the latest changes were lost with it. Look at whether yours are here."
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::ROUTES;

    const PATHS: [&str; 13] = [
        "/",
        "/pages.css",
        "/sign-in",
        "/sign-out",
        "/register",
        "/account",
        "/account/name",
        "/account/password",
        "/sessions",
        "/sessions/end-others",
        "/sessions/01981c5e-7c1e-7d3f-9c55-2f0e8a3b6d10/end",
        "/accounts",
        "/accounts/switch",
    ];

    #[test]
    fn every_form_and_page_stands_for_a_route_of_the_api() {
        for path in PATHS {
            let place = Place::of(path).unwrap();
            let shown = match place.shows(None) {
                Some(Shows::Answer(call)) => Some(call),
                _ => None,
            };
            for call in shown.into_iter().chain(place.does(&Sent::default())) {
                let path = call.path.split('?').next().unwrap_or_default();
                let path = match path.strip_prefix("/v1/sessions/") {
                    Some(_) => "/v1/sessions/{id}",
                    None => path,
                };
                let is_it = |route: &&crate::http::routes::Route| {
                    route.path == path && route.method == call.method
                };
                assert!(ROUTES.iter().any(|route| is_it(&route)), "{} {path}", call.method);
            }
            assert!(place.form().is_none_or(|form| Place::of(form.action()) == Some(place)));
            for after in [place.back(), place.done(false), place.done(true)] {
                let (path, query) = after.split_once('?').unwrap_or((after, ""));
                let next = Place::of(path).unwrap();
                assert!(next.shows(None).is_some(), "{after}");
                let word = query.strip_prefix("done=");
                assert!(word.is_none_or(|word| notice(word).is_some()), "{after}");
            }
        }
    }

    #[test]
    fn what_a_path_names_stays_one_segment() {
        for path in [
            "/sessions//end",
            "/sessions/a/b/end",
            "/sessions/..%2f/end",
            "/sessions/x/end",
            "/v1/account",
        ] {
            assert_eq!(Place::of(path), None, "{path}");
        }
        let list = Place::Sessions.shows(Some("a&limit=9"));
        let Some(Shows::Answer(call)) = list else { panic!("a list") };
        assert_eq!(call.path, "/v1/sessions?limit=50&cursor=a%26limit%3D9");
    }
}
