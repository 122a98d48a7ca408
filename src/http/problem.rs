//! Every error, as a problem document (RFC 9457). The one place that knows status codes.

use crate::{
    domain::{DataError, Refused, WriteError},
    identity::PasswordError,
    routing::{Refusal, forward::ForwardError},
    storage::StorageError,
    vocab::{Bookmark, Epoch, Malformed, causes, problem_type},
};
use actix_web::{
    HttpResponse, HttpResponseBuilder, ResponseError,
    http::{StatusCode, header},
};
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

/// What kinds of problem there are. The name is the last part of `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Validation,
    Malformed,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    VersionConflict,
    PreconditionRequired,
    TooLarge,
    UnsupportedMediaType,
    HeadersTooLarge,
    RateLimited,
    BookmarkInvalid,
    BookmarkLost,
    BookmarkTimeout,
    IdempotencyMismatch,
    IdempotencyInFlight,
    LastAdmin,
    NoPrimary,
    OutcomeUnknown,
    Unavailable,
    Fenced,
    Untrusted,
    Internal,
}

impl Kind {
    pub const ALL: [Self; 25] = [
        Self::Validation,
        Self::Malformed,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::VersionConflict,
        Self::PreconditionRequired,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::HeadersTooLarge,
        Self::RateLimited,
        Self::BookmarkInvalid,
        Self::BookmarkLost,
        Self::BookmarkTimeout,
        Self::IdempotencyMismatch,
        Self::IdempotencyInFlight,
        Self::LastAdmin,
        Self::NoPrimary,
        Self::OutcomeUnknown,
        Self::Unavailable,
        Self::Fenced,
        Self::Untrusted,
        Self::Internal,
    ];

    /// Name, status and title.
    #[must_use]
    pub const fn facts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Validation => {
                ("validation", StatusCode::UNPROCESSABLE_ENTITY, "The request is not valid")
            }
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST, "The request cannot be read"),
            Self::Unauthorized => {
                ("unauthorized", StatusCode::UNAUTHORIZED, "A valid credential is required")
            }
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "This is not allowed"),
            Self::NotFound => ("not-found", StatusCode::NOT_FOUND, "There is nothing here"),
            Self::MethodNotAllowed => (
                "method-not-allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "The method is not offered here",
            ),
            Self::RequestTimeout => (
                "request-timeout",
                StatusCode::REQUEST_TIMEOUT,
                "The request took too long to arrive",
            ),
            Self::VersionConflict => {
                ("version-conflict", StatusCode::PRECONDITION_FAILED, "It is not in that version")
            }
            Self::PreconditionRequired => (
                "precondition-required",
                StatusCode::PRECONDITION_REQUIRED,
                "If-Match or If-None-Match is required",
            ),
            Self::TooLarge => {
                ("too-large", StatusCode::PAYLOAD_TOO_LARGE, "The request body is too large")
            }
            Self::UnsupportedMediaType => (
                "unsupported-media-type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body's media type is not accepted",
            ),
            Self::HeadersTooLarge => (
                "headers-too-large",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The request's header fields are too large",
            ),
            Self::RateLimited => {
                ("rate-limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests")
            }
            Self::BookmarkInvalid => {
                ("bookmark-invalid", StatusCode::BAD_REQUEST, "The bookmark is not one of ours")
            }
            Self::BookmarkLost => {
                ("bookmark-lost", StatusCode::CONFLICT, "A failover lost what the bookmark names")
            }
            Self::BookmarkTimeout => (
                "bookmark-timeout",
                StatusCode::SERVICE_UNAVAILABLE,
                "This region has not caught up with the bookmark",
            ),
            Self::IdempotencyMismatch => (
                "idempotency-mismatch",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The idempotency key belongs to another request",
            ),
            Self::IdempotencyInFlight => (
                "idempotency-in-flight",
                StatusCode::CONFLICT,
                "A request with this idempotency key is under way",
            ),
            Self::LastAdmin => {
                ("last-admin", StatusCode::CONFLICT, "The tenant would have no administrator")
            }
            Self::NoPrimary => {
                ("no-primary", StatusCode::SERVICE_UNAVAILABLE, "The primary cannot be reached")
            }
            Self::OutcomeUnknown => (
                "outcome-unknown",
                StatusCode::SERVICE_UNAVAILABLE,
                "Whether the write took effect is not known",
            ),
            Self::Unavailable => {
                ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "Something needed does not answer")
            }
            Self::Fenced => {
                ("fenced", StatusCode::MISDIRECTED_REQUEST, "Not the primary of that epoch")
            }
            Self::Untrusted => {
                ("untrusted", StatusCode::FORBIDDEN, "Not signed by a region of this cluster")
            }
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "An error of ours"),
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().0
    }
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.facts().1
    }
}

/// What is wrong with one member of a body, as in the example of RFC 9457 section 3.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    #[serde(skip)]
    name: String,
    /// JSON Pointer as a URI fragment (RFC 6901 section 6).
    pointer: String,
    detail: Cow<'static, str>,
}

/// Characters of an unknown member's name that are repeated.
const NAME_CHARS_MAX: usize = 64;

impl Fault {
    #[must_use]
    pub fn new(member: &str, detail: impl Into<Cow<'static, str>>) -> Self {
        let name: String = member.chars().take(NAME_CHARS_MAX).collect();
        let escaped = name.replace('~', "~0").replace('/', "~1");
        let pointer = escaped.split('~').map(percent_encode).collect::<Vec<_>>().join("~");
        Self { name, pointer: format!("#/{pointer}"), detail: detail.into() }
    }
}

/// One problem, on its way to a client. Boxed, so that a `Result` stays small.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: Kind,
    detail: Cow<'static, str>,
    members: Map<String, Value>,
    headers: Vec<(&'static str, String)>,
    at: Option<Bookmark>,
    told_by_the_primary: bool,
    /// Our own fault or a dependency's, for the log alone.
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Seconds a client waits before it tries again when a dependency is away: about the time a
/// watcher needs to notice that it is back.
const RETRY_AFTER_SECONDS: &str = "1";

impl Problem {
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        let parts = Parts {
            kind,
            detail: detail.into(),
            members: Map::new(),
            headers: Vec::new(),
            at: None,
            told_by_the_primary: false,
            cause: None,
        };
        let problem = Self(Box::new(parts));
        match kind {
            Kind::Unauthorized => problem.header("www-authenticate", "Bearer realm=\"godwit\""),
            Kind::NoPrimary | Kind::OutcomeUnknown | Kind::Unavailable | Kind::BookmarkTimeout => {
                problem.header("retry-after", RETRY_AFTER_SECONDS)
            }
            _ => problem,
        }
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.headers.push((name, value.into()));
        self
    }
    #[must_use]
    pub fn member(mut self, name: &str, value: Value) -> Self {
        debug_assert!(!["type", "title", "status", "detail"].contains(&name), "{name} is taken");
        self.0.members.insert(name.to_owned(), value);
        self
    }
    /// The position at which this was found to be so.
    #[must_use]
    pub fn at(mut self, at: Bookmark) -> Self {
        self.0.at = Some(at);
        self
    }
    #[must_use]
    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.cause = Some(Box::new(cause));
        self
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }
    #[must_use]
    pub fn position(&self) -> Option<Bookmark> {
        self.0.at
    }
    /// This region's database answers, and yet only the primary's can tell.
    #[must_use]
    pub fn told_by_the_primary(mut self) -> Self {
        self.0.told_by_the_primary = true;
        self
    }
    /// Is this region's database as good as dead for the request, so that the primary has to answer
    /// it: not reached, hanging, or by the handler's word? One that took too long over a statement
    /// is there, and the next would take as long.
    #[must_use]
    pub fn is_for_the_primary(&self) -> bool {
        if self.0.told_by_the_primary {
            return true;
        }
        let cause = self.0.cause.as_ref().and_then(|cause| cause.downcast_ref());
        matches!(cause, Some(StorageError::Unavailable(_)))
    }
    /// The chain of causes, outermost first, for the log.
    #[must_use]
    pub fn chain(&self) -> Option<String> {
        self.0.cause.as_ref().map(|cause| causes(&**cause))
    }

    #[must_use]
    pub fn not_found() -> Self {
        Self::new(Kind::NotFound, "No such resource, or not one this credential may see.")
    }

    /// What is wrong with members of the body, each by its own pointer.
    #[must_use]
    pub fn faults(faults: &[Fault]) -> Self {
        let told: Vec<_> =
            faults.iter().map(|Fault { name, detail, .. }| format!("{name}: {detail}")).collect();
        let detail = format!("{}.", told.join("; "));
        Self::new(Kind::Validation, detail).member("errors", json!(faults))
    }

    /// A failover has lost what the bookmark names.
    #[must_use]
    pub fn bookmark_lost(lost_after: Bookmark, resume: Bookmark) -> Self {
        let detail =
            "Writes of that epoch after lost_after were lost. Go on from the bookmark given here.";
        Self::new(Kind::BookmarkLost, detail)
            .member("lost_after", json!(lost_after))
            .member("bookmark", json!(resume))
            .at(resume)
    }

    /// A write that may or may not have been carried out.
    #[must_use]
    pub fn outcome_unknown(key: &str) -> Self {
        let path = format!("/v1/writes/{}", percent_encode(key));
        let detail =
            "Ask at `outcome`, or send the same request again with the same Idempotency-Key.";
        Self::new(Kind::OutcomeUnknown, detail)
            .member("outcome", json!(path))
            .member("idempotency_key", json!(key))
            .header("location", path)
    }

    fn document(&self) -> String {
        let (name, status, title) = self.0.kind.facts();
        let document = Document {
            r#type: problem_type(name),
            title,
            status: status.as_u16(),
            detail: &self.0.detail,
            members: &self.0.members,
        };
        serde_json::to_string(&document).expect("text and JSON values are JSON")
    }
}

/// The members of RFC 9457 section 3.1, and its own.
#[derive(serde::Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

/// Percent-encodes one path segment (RFC 3986 section 2.3: all but the unreserved).
#[must_use]
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind.name(), self.0.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.kind.status()
    }
    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status_code());
        response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        for (name, value) in &self.0.headers {
            response.insert_header((*name, value.as_str()));
        }
        response.body(self.document())
    }
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        let kind = match malformed.what {
            "bookmark" => Kind::BookmarkInvalid,
            "Idempotency-Key" | "Godwit-Consistency" | "entity tag" => Kind::Malformed,
            _ => Kind::Validation,
        };
        let detail = format!("{}: expected {}.", malformed.what, malformed.expected);
        Self::new(kind, detail)
    }
}

impl From<DataError> for Problem {
    fn from(error: DataError) -> Self {
        let kind = match error {
            DataError::NotJson(_) => Kind::Malformed,
            DataError::TooLarge => Kind::TooLarge,
            DataError::NotAnObject | DataError::Nul | DataError::NumberOutOfRange => {
                Kind::Validation
            }
        };
        Self::new(kind, format!("{error}."))
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        let problem = match &error {
            StorageError::ReadOnly | StorageError::EpochMismatch { .. } => {
                Self::new(Kind::Fenced, "The primary has moved; send the request again.")
                    .header("retry-after", RETRY_AFTER_SECONDS)
            }
            StorageError::InvalidData(_) => {
                return Self::new(Kind::Validation, format!("{error}."));
            }
            StorageError::Unavailable(_)
            | StorageError::RecoveryConflict(_)
            | StorageError::Timeout => {
                Self::new(Kind::Unavailable, "The database did not answer in time.")
            }
            _ => Self::new(Kind::Internal, "The cause is in our log under this request's trace."),
        };
        problem.caused_by(error)
    }
}

impl From<PasswordError> for Problem {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Weak(why) => {
                let detail = format!("is too easy to guess. {why}");
                Self::faults(&[Fault::new(
                    "password",
                    detail.trim_end_matches(['.', ' ']).to_owned(),
                )])
            }
            PasswordError::Busy => {
                Self::new(Kind::Unavailable, "Too many passwords are being set at this moment.")
                    .caused_by(error)
            }
            PasswordError::Broken(_) => {
                Self::new(Kind::Internal, "The cause is in our log under this request's trace.")
                    .caused_by(error)
            }
        }
    }
}

impl From<ForwardError> for Problem {
    fn from(error: ForwardError) -> Self {
        // An unknown outcome needs the key; the gate, which has it, makes that problem itself.
        Self::new(Kind::NoPrimary, "The primary region did not answer.").caused_by(error)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound => Self::not_found(),
            Refused::VersionConflict(current) => super::items::version_conflict(&current),
            Refused::BatchConflict => Self::new(
                Kind::VersionConflict,
                "An earlier operation of the batch changed the item, or made it.",
            ),
            Refused::Data(error) => error.into(),
            Refused::UserConflict(current) => super::admin::users::version_conflict(&current),
            Refused::WrongPassword => {
                Self::faults(&[Fault::new("current_password", "is not your password")])
            }
            Refused::EmailTaken => {
                Self::faults(&[Fault::new("email", "is somebody's already in this tenant")])
            }
            Refused::LastAdmin => Self::new(
                Kind::LastAdmin,
                "It is the last administrator of the tenant who is not suspended: make another first.",
            ),
            Refused::Beyond(scope) => Self::new(
                Kind::Forbidden,
                format!("The credential lacks the scope `{scope}`, so it cannot give it."),
            ),
            Refused::Operation { index, refused } => {
                Self::from(*refused).member("operation", json!(index))
            }
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused { refused, at } => {
                let problem = Self::from(refused);
                if let Some(at) = at { problem.at(at) } else { problem }
            }
            WriteError::KeyMismatch => {
                Self::new(Kind::IdempotencyMismatch, "Use a new Idempotency-Key for a new request.")
            }
            WriteError::KeyInFlight => {
                Self::new(Kind::IdempotencyInFlight, "Wait for its answer, then ask again.")
                    .header("retry-after", RETRY_AFTER_SECONDS)
            }
            WriteError::OutcomeUnknown { key, source } => {
                Self::outcome_unknown(key.as_str()).caused_by(source)
            }
            WriteError::Storage(error) => error.into(),
        }
    }
}

/// What a refusal of the judgment tells the client. `lost_in` is the epoch of the bookmark sent,
/// `resume` where this region's own reading stands.
#[must_use]
pub fn refused(refusal: Refusal, lost_in: Epoch, resume: Option<Bookmark>) -> Problem {
    match refusal {
        Refusal::NoPrimary => Problem::new(
            Kind::NoPrimary,
            "Reads go on here; writes and strong reads need the primary.",
        ),
        Refusal::BookmarkTimeout => Problem::new(
            Kind::BookmarkTimeout,
            "This region has not replayed the bookmark yet and the primary cannot be asked.",
        ),
        Refusal::BookmarkInvalid => Problem::new(
            Kind::BookmarkInvalid,
            "The bookmark is ahead of the primary: it was not made by this cluster.",
        ),
        Refusal::BookmarkLost { lost_after } => {
            let lost_after = Bookmark { epoch: lost_in, lsn: lost_after };
            Problem::bookmark_lost(lost_after, resume.unwrap_or(lost_after))
        }
    }
}
