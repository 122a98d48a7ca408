//! What the templates are filled in with.

use super::{
    device,
    form::{Field, Form},
};
use crate::{
    http::problem::{Kind, Problem},
    vocab::{problem_kind, problem_type},
};
use askama::Template;
use chrono::{DateTime, Utc};
use serde::Deserialize;

/// What every page has.
#[derive(Debug)]
pub struct Frame {
    pub title: &'static str,
    /// What has just been done.
    pub notice: Option<&'static str>,
    /// What shows that a form was ours.
    pub tag: String,
    /// The idempotency key of what a form does: it is done once, however often it is sent.
    pub once: String,
    /// The region that has made the page.
    pub region: String,
    /// There are pages to go to.
    pub signed_in: bool,
}

/// What went wrong, in words for people.
#[derive(Debug)]
pub struct Trouble {
    pub title: &'static str,
    pub detail: String,
    /// Of the fields of the form, by name.
    pub faults: Vec<(String, String)>,
    /// The form as it is shown now is worth a look: sent again as it is, it is refused again.
    pub is_outdated: bool,
}

/// A line of a form, filled in.
#[derive(Debug)]
pub struct Row {
    pub field: &'static Field,
    pub value: String,
    pub fault: Option<String>,
}

#[derive(Debug, Template)]
#[template(path = "http/site/form.html")]
pub struct FormPage {
    pub frame: Frame,
    pub form: Form,
    pub rows: Vec<Row>,
    pub trouble: Option<Trouble>,
    /// The version that is to be changed.
    pub version: Option<String>,
    /// For whom a program that keeps passwords keeps it.
    pub username: Option<String>,
    /// People may make an account themselves.
    pub registers: bool,
}

#[derive(Debug, Template)]
#[template(path = "http/site/account.html")]
pub struct AccountPage {
    pub frame: Frame,
    pub user: User,
}

#[derive(Debug, Template)]
#[template(path = "http/site/sessions.html")]
pub struct SessionsPage {
    pub frame: Frame,
    pub sessions: Sessions,
}

#[derive(Debug, Template)]
#[template(path = "http/site/accounts.html")]
pub struct AccountsPage {
    pub frame: Frame,
    pub accounts: Accounts,
}

#[derive(Debug, Template)]
#[template(path = "http/site/trouble.html")]
pub struct TroublePage {
    pub frame: Frame,
    pub trouble: Trouble,
    /// Where to go on.
    pub back: &'static str,
}

/// As the API tells of somebody's own account.
#[derive(Debug, Deserialize)]
pub struct User {
    pub email: String,
    pub name: String,
    pub role: String,
    pub created_at: DateTime<Utc>,
}

#[derive(Debug, Deserialize)]
pub struct Sessions {
    pub items: Vec<Session>,
    pub next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Session {
    pub id: String,
    pub current: bool,
    pub device: String,
    pub address: String,
    pub region: String,
    pub created_at: DateTime<Utc>,
    pub seen_at: DateTime<Utc>,
    pub seen_in: String,
}

#[derive(Debug, Deserialize)]
pub struct Accounts {
    pub accounts: Vec<Account>,
    /// More, which nobody can look up now.
    pub unknown: usize,
}

#[derive(Debug, Deserialize)]
pub struct Account {
    pub session: String,
    pub active: bool,
    pub tenant: Option<String>,
    pub email: Option<String>,
    pub name: Option<String>,
}

impl Row {
    /// The elements that tell more of the field.
    fn described_by(&self) -> Option<String> {
        let name = self.field.name;
        let hint = (!self.field.hint.is_empty()).then(|| format!("{name}-hint"));
        let fault = self.fault.as_ref().map(|_| format!("{name}-fault"));
        let ids: Vec<_> = fault.into_iter().chain(hint).collect();
        (!ids.is_empty()).then(|| ids.join(" "))
    }
}

impl Sessions {
    fn has_others(&self) -> bool {
        self.next_cursor.is_some() || self.items.iter().any(|session| !session.current)
    }
}

impl Session {
    fn name(&self) -> String {
        device::name(&self.device)
    }
}

impl Account {
    /// Who it is, told apart from somebody of the same address elsewhere.
    fn called(&self) -> String {
        match (&self.email, &self.tenant) {
            (Some(email), Some(tenant)) => format!("{email} of {tenant}"),
            (Some(email), None) => email.clone(),
            (None, _) => "an account that this region has not heard of yet".to_owned(),
        }
    }
}

impl FormPage {
    /// With what was sent before, but never a password.
    #[must_use]
    pub fn of(
        frame: Frame,
        form: Form,
        value: impl Fn(&str) -> Option<String>,
        trouble: Option<Trouble>,
    ) -> Self {
        let fault = |name: &str| {
            let of = trouble.iter().flat_map(|trouble| &trouble.faults);
            of.filter(|(member, _)| member == name).map(|(_, detail)| detail.clone()).next()
        };
        let row = |field: &'static Field| {
            let shown = (field.kind != "password").then(|| value(field.name)).flatten();
            Row { field, value: shown.unwrap_or_default(), fault: fault(field.name) }
        };
        let rows = form.fields().iter().map(row).collect();
        let (version, username) = (value("version"), value("username"));
        Self { frame, form, rows, trouble, version, username, registers: false }
    }

    fn is_sign_in(&self) -> bool {
        self.form == Form::SignIn
    }

    fn is_register(&self) -> bool {
        self.form == Form::Register
    }

    /// What a person calls a member of the body.
    fn label<'a>(&self, name: &'a str) -> &'a str {
        let field = self.form.fields().iter().find(|field| field.name == name);
        field.map_or(name, |field| field.label)
    }
}

/// A time as a page tells it: all regions' people read the same.
fn told(time: &DateTime<Utc>) -> String {
    time.format("%-d %b %Y, %H:%M UTC").to_string()
}

/// A problem of the API, as far as a page tells of it.
#[derive(Debug, Deserialize)]
pub struct Document {
    pub r#type: String,
    #[serde(default)]
    pub detail: String,
    #[serde(default)]
    errors: Vec<Fault>,
}

#[derive(Debug, Deserialize)]
struct Fault {
    pointer: String,
    detail: String,
}

/// A problem of our own, as the API would tell it.
impl From<&Problem> for Document {
    fn from(problem: &Problem) -> Self {
        let r#type = problem_type(problem.kind().name());
        Self { r#type, detail: problem.detail().to_owned(), errors: Vec::new() }
    }
}

impl Document {
    /// What the API refused a form with. What broke off, or says nothing, leaves open whether it was done.
    #[must_use]
    pub fn of_form(answer: &[u8]) -> Self {
        serde_json::from_slice(answer).unwrap_or_else(|_| {
            let detail = "There was no answer that says what came of it.";
            Self::from(&Problem::new(Kind::OutcomeUnknown, detail))
        })
    }

    /// `None`: none of ours.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Kind::named(problem_kind(&self.r#type)?)
    }
}

impl Trouble {
    /// `seconds`: when to try again. `form`: what was sent, if it was a form.
    #[must_use]
    pub fn of(document: &Document, seconds: Option<&str>, form: Option<Form>) -> Self {
        let kind = document.kind().unwrap_or(Kind::Internal);
        let faults = document.errors.iter().map(|fault| {
            let name = fault.pointer.trim_start_matches("#/").to_owned();
            (name, fault.detail.clone())
        });
        let (title, detail) = words(kind, form);
        let detail = match (kind, seconds) {
            (Kind::RateLimited, Some(seconds)) => format!("Try again in {seconds} seconds."),
            // Each field has its own.
            (Kind::Validation, _) if form.is_some() && !document.errors.is_empty() => String::new(),
            _ => detail.map_or_else(|| document.detail.clone(), str::to_owned),
        };
        let is_outdated = matches!(kind, Kind::VersionConflict | Kind::IdempotencyMismatch);
        Self { title, detail, faults: faults.collect(), is_outdated }
    }
}

/// Title and detail for people; without a detail the API's own word is told.
const fn words(kind: Kind, form: Option<Form>) -> (&'static str, Option<&'static str>) {
    match (kind, form) {
        (Kind::Unauthorized, Some(Form::SignIn)) => (
            "You are not signed in",
            Some("Nobody of this organisation signs in with this address and password."),
        ),
        (Kind::Validation, Some(_)) => ("Not everything is right yet", None),
        (Kind::RateLimited, _) => ("Too many tries", Some("Try again in a while.")),
        (Kind::VersionConflict, _) => {
            ("Your account has changed meanwhile", Some("What you sent was not done."))
        }
        // Signing in takes no key.
        (Kind::OutcomeUnknown, Some(Form::SignIn) | None) => {
            ("Whether this was done is not known", Some("Look at how it is now."))
        }
        (Kind::OutcomeUnknown, Some(_)) => {
            ("Whether this was done is not known", Some("Send it once more: it is not done twice."))
        }
        (
            Kind::NoPrimary | Kind::Unavailable | Kind::BookmarkTimeout | Kind::IdempotencyInFlight,
            _,
        ) => ("This cannot be done at this moment", Some("Try again in a few seconds.")),
        (Kind::BookmarkLost, _) => (
            "A region failed, and some of the latest changes were lost",
            Some("Look at whether yours are here, and send this again."),
        ),
        (Kind::BookmarkInvalid | Kind::IdempotencyMismatch, _) => {
            ("This was not done", Some("Send it again."))
        }
        (Kind::Internal, _) => {
            ("An error of ours", Some("We can find it in our log. Nothing more is known."))
        }
        (kind, _) => (kind.facts().2, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_broke_off_is_never_told_as_not_done() {
        let whole = br#"{"type":"urn:godwit:problem:forbidden","detail":"No."}"#;
        assert_eq!(Document::of_form(whole).kind(), Some(Kind::Forbidden));
        for end in 0..whole.len() {
            assert_eq!(Document::of_form(&whole[..end]).kind(), Some(Kind::OutcomeUnknown));
        }
    }

    fn document(kind: Kind, errors: &[(&str, &str)]) -> Document {
        let fault = |(pointer, detail): &(&str, &str)| Fault {
            pointer: (*pointer).to_owned(),
            detail: (*detail).to_owned(),
        };
        Document {
            r#type: problem_type(kind.name()),
            detail: "As the API says.".to_owned(),
            errors: errors.iter().map(fault).collect(),
        }
    }

    fn frame() -> Frame {
        Frame {
            title: "T",
            notice: None,
            tag: "TAG".to_owned(),
            once: "ONCE".to_owned(),
            region: "eu-west-1".to_owned(),
            signed_in: false,
        }
    }

    #[test]
    fn a_refused_form_keeps_what_was_typed_but_no_password_and_escapes_it() {
        let faults = [("#/password", "is too easy to guess"), ("#/email", "expected <an> address")];
        let trouble = Trouble::of(&document(Kind::Validation, &faults), None, Some(Form::Register));
        let value = |name: &str| Some(format!("\"><script>{name}</script>"));
        let page = FormPage::of(frame(), Form::Register, value, Some(trouble)).render().unwrap();
        assert!(!page.contains("<script>") && !page.contains("scriptpassword"));
        assert!(!page.contains("password&#60;/script"), "a password comes back");
        assert!(page.contains("email&#60;/script&#62;"));
        assert!(page.contains("is too easy to guess") && page.contains("expected &#60;an&#62;"));
        assert_eq!(page.matches("aria-invalid=\"true\"").count(), 2);
        assert!(page.contains("role=\"alert\""));
    }

    #[test]
    fn every_kind_of_problem_is_told_in_words() {
        for kind in Kind::ALL {
            for form in [None, Some(Form::SignIn), Some(Form::Name)] {
                let trouble = Trouble::of(&document(kind, &[]), Some("7"), form);
                assert!(!trouble.title.is_empty(), "{}", kind.name());
                assert!(!trouble.detail.is_empty(), "{}", kind.name());
            }
        }
        let limited = Trouble::of(&document(Kind::RateLimited, &[]), Some("7"), None);
        assert!(limited.detail.contains("7 seconds"));
        assert_eq!(document(Kind::Fenced, &[]).kind(), Some(Kind::Fenced));
    }
}
