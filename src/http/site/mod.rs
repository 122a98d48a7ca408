//! The pages for people: signing in, an account, its sessions. Plain HTML; no script.
//!
//! A page is a client of the API inside the process. It stands before the table of routes: what a browser
//! asks for is made a request of the API, that request takes the way of every other (gate, hop to the
//! primary, journal, throttles), and its answer is made a page. So a page can do nothing that the API does not
//! let it, and needs no way of its own across regions.
//!
//! A form is done once: it carries the idempotency key that it was shown with. And only a page of ours is
//! listened to: the browser says where a form comes from, and the form brings back a tag of the browser and
//! of the session that it was shown to (double submit).

mod device;
mod form;
mod place;
mod view;

use super::{
    app::App,
    body, cookies, headers,
    problem::{Kind, Problem},
    query,
    request::RequestState,
};
use crate::{
    config::Registration,
    vocab::{IdempotencyKey, Rng},
};
use actix_web::{
    HttpResponse,
    body::{BoxBody, to_bytes_limited},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode, Uri,
        header::{self, HeaderName, HeaderValue},
    },
    middleware::Next,
    web::{Bytes, Data},
};
use askama::Template;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use form::{Form, Sent};
use place::{Call, Place, Shows, notice};
use serde::{Deserialize, de::DeserializeOwned};
use view::{
    AccountPage, AccountsPage, Document, FormPage, Frame, SessionsPage, Trouble, TroublePage,
};

/// What a browser keeps of the forms it is shown; another site can neither read nor set it.
const FORMS: &str = "__Host-godwit_form";
const FORMS_BYTES: usize = 16;

/// Longest answer of the API that is made a page.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// No script, no other host, nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'";

const STYLE: &str = include_str!("pages.css");

/// What is done with a request for a page.
enum Reply {
    Page(StatusCode, String),
    /// The browser asks for that next.
    Go(String),
    Style,
}

/// A reply, and what the browser is to keep beside what the API has it keep.
struct Made {
    reply: Reply,
    cookies: Vec<String>,
    /// What was found here, and not by the API.
    refused: Option<Problem>,
}

impl From<Reply> for Made {
    fn from(reply: Reply) -> Self {
        Self { reply, cookies: Vec::new(), refused: None }
    }
}

/// What the API has answered.
struct Told {
    status: StatusCode,
    /// The version, where it tells one.
    etag: Option<String>,
    retry_after: Option<String>,
    body: Bytes,
}

/// One request for a page.
struct Visit<'a> {
    app: &'a App,
    state: &'a RequestState,
    place: Place,
    query: Asked,
    /// What the browser keeps of forms, and whether it has only been given it now.
    browser: String,
    is_new: bool,
    /// The accounts that it is signed in to, the one in use first.
    tokens: Vec<String>,
}

/// What the address of a page may say.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    done: Option<String>,
    cursor: Option<String>,
}

/// Serves the pages, and lets everything else through.
///
/// # Errors
/// None of its own: refusals are pages.
pub async fn serve(
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let Some(place) = Place::of(request.path()) else {
        return next.call(request).await;
    };
    let app = request.app_data::<Data<App>>().cloned().expect("server sets the application");
    let state = RequestState::of(&request);
    let visit = Visit::of(&app, &state, place, &request);
    let (method, sent) = (request.method().clone(), Sent::default());
    let asked = match method {
        Method::GET | Method::HEAD => visit.shown().map(|call| (call, sent)),
        Method::POST => match visit.sent(&mut request).await {
            Ok((call, sent)) => Ok((call, sent)),
            Err(problem) => Err(visit.refused(problem)),
        },
        _ => Err(visit.refused(visit.wrong_method())),
    };
    let (call, sent) = match asked {
        Ok(asked) => asked,
        Err(mut made) => {
            let response = made.refused.take().map_or_else(
                || HttpResponse::Ok().finish(),
                // So that the line in the log tells of it.
                HttpResponse::from_error,
            );
            return Ok(request.into_response(visit.finish(response.drop_body(), made)));
        }
    };
    let key = sent.get("once").map(|once| visit.key(once, &call));
    become_of_the_api(&mut request, &call, key.as_deref());
    let (request, response) = next.call(request).await?.into_parts();
    let status = response.status();
    let text = |name: HeaderName| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    let (etag, retry_after) = (text(header::ETAG), text(header::RETRY_AFTER));
    let (response, body) = response.into_parts();
    let body = match to_bytes_limited(body, ANSWER_BYTES_MAX).await {
        Ok(Ok(body)) => body,
        // It broke off, or is no answer that a page is made of: as good as one that says nothing.
        Ok(Err(_)) | Err(_) => Bytes::new(),
    };
    let told = Told { status, etag, retry_after, body };
    let made = if method == Method::POST { visit.done(&told, &sent) } else { visit.page(&told) };
    Ok(ServiceResponse::new(request, visit.finish(response, made)))
}

/// Makes what a browser asks for a request of the API. Who it is, it says by its cookie alone.
fn become_of_the_api(request: &mut ServiceRequest, call: &Call, key: Option<&str>) {
    // Nothing of what was asked for is in it but the id of a session.
    let uri = call
        .path
        .parse::<Uri>()
        .expect("paths of the API are short, and made of what may stand in one");
    request.match_info_mut().get_mut().update(&uri);
    let head = request.head_mut();
    head.method = call.method.clone();
    head.uri = uri;
    for name in [
        header::AUTHORIZATION,
        header::IF_NONE_MATCH,
        header::ACCEPT,
        header::EXPECT,
        header::TRANSFER_ENCODING,
        HeaderName::from_static("prefer"),
    ] {
        head.headers.remove(name);
    }
    let mut set = |name: HeaderName, value: Option<&str>| {
        head.headers.remove(&name);
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            head.headers.insert(name, value);
        }
    };
    set(HeaderName::from_static(headers::IDEMPOTENCY_KEY), key);
    set(header::IF_MATCH, call.matches.as_deref());
    let body = call.body.as_ref().map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    set(header::CONTENT_LENGTH, Some(&body.len().to_string()));
    set(header::CONTENT_TYPE, call.body.as_ref().map(|_| "application/json"));
    request.set_payload(body.into());
}

fn parsed<T: DeserializeOwned>(body: &Bytes) -> Result<T, Document> {
    if body.is_empty() {
        let detail = "There was no answer that a page could be made of.";
        return Err(Document::from(&Problem::new(Kind::Unavailable, detail)));
    }
    serde_json::from_slice(body).map_err(|error| {
        tracing::error!(error = %error, "an answer of the API does not fit its page");
        Document::from(&Problem::new(Kind::Internal, "The page cannot be made."))
    })
}

fn render(status: StatusCode, page: &impl Template) -> Reply {
    match page.render() {
        Ok(text) => Reply::Page(status, text),
        Err(error) => {
            tracing::error!(error = %error, "a page cannot be made");
            Reply::Page(StatusCode::INTERNAL_SERVER_ERROR, "An error of ours.".to_owned())
        }
    }
}

impl<'a> Visit<'a> {
    fn of(app: &'a App, state: &'a RequestState, place: Place, request: &ServiceRequest) -> Self {
        let kept = cookies::value(request.headers(), FORMS);
        let kept = kept.filter(|text| {
            URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == FORMS_BYTES)
        });
        let fresh = || {
            let mut bytes = [0; FORMS_BYTES];
            Rng::fill(&*state.op().rng, &mut bytes);
            URL_SAFE_NO_PAD.encode(bytes)
        };
        Self {
            app,
            state,
            place,
            query: query::parse(request.query_string()).unwrap_or_default(),
            browser: kept.map_or_else(fresh, str::to_owned),
            is_new: kept.is_none(),
            tokens: cookies::tokens(request.headers()).map(str::to_owned).collect(),
        }
    }

    /// The account in use.
    fn session(&self) -> Option<&str> {
        self.tokens.first().map(String::as_str)
    }

    /// The idempotency key of what a form does. What was typed is part of it: the journal takes no password
    /// into its digest, and another password sent under the same key would be answered as the first was.
    fn key(&self, once: &str, call: &Call) -> String {
        match &call.body {
            Some(body) => {
                let keys = &self.app.sessions.keys;
                let tag = keys.form_tag(&format!("once:{once}"), Some(&body.to_string()));
                format!("{once}-{tag}")
            }
            None => once.to_owned(),
        }
    }

    /// What is to be asked of the API, or what is shown without.
    fn shown(&self) -> Result<Call, Made> {
        match self.place.shows(self.query.cursor.as_deref().and_then(|at| at.parse().ok())) {
            Shows::Answer(call) => Ok(call),
            Shows::Form(Form::Register) if !self.registers() => {
                let detail = "Here the administrators of an organisation make its accounts.";
                Err(self.refused(Problem::new(Kind::Forbidden, detail)))
            }
            Shows::Form(form) => Err(self.form(StatusCode::OK, form, |_| None, None).into()),
            Shows::Other(path) => Err(Reply::Go(path.to_owned()).into()),
            Shows::Style => Err(Reply::Style.into()),
        }
    }

    /// Reads a form, and makes sure that it was ours.
    async fn sent(&self, request: &mut ServiceRequest) -> Result<(Call, Sent), Problem> {
        if self.place.does(&Sent::default()).is_none() {
            return Err(self.wrong_method());
        }
        let detail =
            "The form is not of this page, or somebody has signed in or out since it was shown.";
        let foreign = || Problem::new(Kind::Forbidden, detail);
        if self.is_new || !cookies::is_same_origin(request.headers()) {
            return Err(foreign());
        }
        let body = body::read(self.app, self.state, request).await?;
        let sent = Sent::read(request.headers(), &body)?;
        let keys = &self.app.sessions.keys;
        let tag = sent.get("csrf").unwrap_or_default();
        if !keys.is_form_tag(tag, &self.browser, self.session()) {
            return Err(foreign());
        }
        let call = self.place.does(&sent).ok_or_else(|| self.wrong_method())?;
        Ok((call, sent))
    }

    fn wrong_method(&self) -> Problem {
        let methods = self.place.methods();
        let problem = Problem::new(Kind::MethodNotAllowed, format!("This path offers {methods}."));
        problem.header("allow", methods)
    }

    /// What came of a form.
    fn done(&self, told: &Told, sent: &Sent) -> Made {
        if told.status.is_success() {
            return Reply::Go(self.place.done(self.tokens.len() > 1).to_owned()).into();
        }
        let document = Document::of_form(&told.body);
        let kind = document.kind();
        if kind == Some(Kind::Unauthorized) && self.place != Place::SignIn {
            return self.over();
        }
        let form = self.place.form();
        let trouble = Trouble::of(&document, told.retry_after.as_deref(), form);
        let reply = match form {
            Some(form) => {
                // Known by its key, it is not done twice; what the key was used for stays as it is.
                let once = sent.get("once").filter(|_| kind != Some(Kind::IdempotencyMismatch));
                let value = |name: &str| sent.get(name).map(str::to_owned);
                self.form(told.status, form, value, Some((trouble, once)))
            }
            None => self.trouble(told.status, trouble),
        };
        let lost = kind == Some(Kind::BookmarkInvalid);
        let cookies = lost.then(headers::forget_bookmark).into_iter().collect();
        Made { cookies, ..reply.into() }
    }

    /// The page of what the API has answered.
    fn page(&self, told: &Told) -> Made {
        let made = if told.status.is_success() {
            self.made(told)
        } else {
            parsed(&told.body).and_then(Err)
        };
        let document = match made {
            Ok(reply) => return reply.into(),
            Err(document) => document,
        };
        let back = self.place.back();
        match document.kind() {
            Some(Kind::Unauthorized) => self.over(),
            // The answer has brought the bookmark to go on from. Once: a cookie that is not ours to change
            // would have the browser go round in circles.
            Some(Kind::BookmarkLost) if self.query.done.is_none() => {
                Reply::Go(format!("{back}?done=lost")).into()
            }
            Some(Kind::BookmarkInvalid) if self.query.done.is_none() => Made {
                cookies: vec![headers::forget_bookmark()],
                ..Reply::Go(format!("{back}?done=anew")).into()
            },
            _ => {
                let status = if told.status.is_success() {
                    StatusCode::INTERNAL_SERVER_ERROR
                } else {
                    told.status
                };
                self.trouble(status, Trouble::of(&document, told.retry_after.as_deref(), None))
                    .into()
            }
        }
    }

    fn made(&self, told: &Told) -> Result<Reply, Document> {
        let body = &told.body;
        Ok(match self.place {
            Place::Name => {
                let user: view::User = parsed(body)?;
                let value = |name: &str| match name {
                    "name" => Some(user.name.clone()),
                    "version" => told.etag.clone(),
                    _ => None,
                };
                self.form(StatusCode::OK, Form::Name, value, None)
            }
            Place::Password => {
                let user: view::User = parsed(body)?;
                let value = |name: &str| (name == "username").then(|| user.email.clone());
                self.form(StatusCode::OK, Form::Password, value, None)
            }
            Place::Sessions => {
                let frame = self.frame("Where you are signed in");
                render(StatusCode::OK, &SessionsPage { frame, sessions: parsed(body)? })
            }
            Place::Accounts => {
                let frame = self.frame("Accounts in this browser");
                render(StatusCode::OK, &AccountsPage { frame, accounts: parsed(body)? })
            }
            _ => {
                let frame = self.frame("Your account");
                render(StatusCode::OK, &AccountPage { frame, user: parsed(body)? })
            }
        })
    }

    /// The session in use is no more: the browser goes on with another of its accounts, or signs in.
    fn over(&self) -> Made {
        let left: Vec<&str> = self.tokens.iter().skip(1).map(String::as_str).collect();
        let to = match (self.tokens.is_empty(), left.is_empty()) {
            (true, _) => "/sign-in",
            (false, true) => "/sign-in?done=over",
            (false, false) => "/accounts?done=other",
        };
        let cookie = cookies::keep(left, self.app.sessions.config().lasts());
        let cookies = (!self.tokens.is_empty()).then_some(cookie).into_iter().collect();
        Made { cookies, ..Reply::Go(to.to_owned()).into() }
    }

    /// A problem that was found here.
    fn refused(&self, problem: Problem) -> Made {
        let trouble = Trouble::of(&(&problem).into(), None, None);
        let reply = self.trouble(problem.kind().status(), trouble);
        Made { refused: Some(problem), ..reply.into() }
    }

    fn registers(&self) -> bool {
        self.app.config.identity.registration != Registration::Closed
    }

    fn frame(&self, title: &'static str) -> Frame {
        Frame {
            title,
            notice: self.query.done.as_deref().and_then(notice),
            tag: self.app.sessions.keys.form_tag(&self.browser, self.session()),
            once: IdempotencyKey::mint(self.state.op()).as_str().to_owned(),
            region: self.app.region.to_string(),
            signed_in: !self.tokens.is_empty(),
        }
    }

    /// A form, and what was wrong when it was sent before, with the key that it keeps.
    fn form(
        &self,
        status: StatusCode,
        form: Form,
        value: impl Fn(&str) -> Option<String>,
        trouble: Option<(Trouble, Option<&str>)>,
    ) -> Reply {
        let mut frame = self.frame(form.heading());
        let (trouble, once) = trouble.unzip();
        if let Some(once) = once.flatten() {
            once.clone_into(&mut frame.once);
        }
        let page = FormPage::of(frame, form, value, trouble);
        render(status, &FormPage { registers: self.registers(), ..page })
    }

    fn trouble(&self, status: StatusCode, trouble: Trouble) -> Reply {
        let frame = self.frame(trouble.title);
        render(status, &TroublePage { frame, trouble, back: self.place.back() })
    }

    /// The reply, with what the API's answer says in its header fields.
    fn finish(&self, mut response: HttpResponse<()>, made: Made) -> HttpResponse<BoxBody> {
        let Made { reply, mut cookies, .. } = made;
        let fields = response.headers_mut();
        for name in [
            header::CONTENT_TYPE,
            header::CONTENT_LENGTH,
            header::ETAG,
            header::LOCATION,
            header::WWW_AUTHENTICATE,
        ] {
            fields.remove(name);
        }
        let mut set = |name, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                fields.insert(name, value);
            }
        };
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        // With `no-referrer` a form's `Origin` would be null.
        set(header::REFERRER_POLICY, "same-origin");
        set(header::CONTENT_SECURITY_POLICY, POLICY);
        set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
        set(header::CACHE_CONTROL, "no-store");
        let (status, body) = match reply {
            Reply::Page(status, text) => {
                set(header::CONTENT_TYPE, "text/html; charset=utf-8");
                (status, text)
            }
            Reply::Go(to) => {
                set(header::LOCATION, &to);
                (StatusCode::SEE_OTHER, String::new())
            }
            Reply::Style => {
                set(header::CONTENT_TYPE, "text/css; charset=utf-8");
                set(header::CACHE_CONTROL, "public, max-age=3600");
                (StatusCode::OK, STYLE.to_owned())
            }
        };
        // Not with the style, which may be kept for others.
        if self.is_new && status != StatusCode::SEE_OTHER && self.place != Place::Style {
            let kept = &self.browser;
            cookies.push(format!("{FORMS}={kept}; Path=/; Secure; HttpOnly; SameSite=Lax"));
        }
        for cookie in cookies {
            if let Ok(value) = HeaderValue::from_str(&cookie) {
                fields.append(header::SET_COOKIE, value);
            }
        }
        *response.status_mut() = status;
        response.set_body(BoxBody::new(body))
    }
}
