//! The operator's own HTTP client of the public API: the third home of reqwest, beside the hop to a
//! peer and the probe (`docs/adr`).
//!
//! It carries the bookmark from answer to request, so that a command reads its own writes whichever
//! region answers, and tries again what the API says may be tried again, with the same idempotency
//! key.

use crate::vocab::{Bookmark, IdempotencyKey, Op, rng};
use anyhow::Context as _;
use reqwest::{Method, StatusCode, header::HeaderMap};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::{
    fmt,
    io::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A region's API, spoken to with one credential.
pub struct ApiClient {
    http: reqwest::Client,
    base: String,
    key: SecretString,
    bookmark: Mutex<Option<Bookmark>>,
    /// That it tries again.
    told: AtomicBool,
}

/// A request, so that it can be sent more than once.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub method: Verb,
    /// With the leading slash.
    pub path: &'a str,
    pub body: Option<&'a str>,
    pub key: Option<&'a IdempotencyKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
}

/// A good answer.
#[derive(Debug)]
pub struct Answer {
    pub body: Vec<u8>,
    pub etag: Option<String>,
    /// The API had answered this idempotency key before.
    pub replayed: bool,
    /// It took more than one attempt.
    pub retried: bool,
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    Problem(Box<Problem>),
    #[error("{base} does not answer")]
    Unreachable { base: String, source: reqwest::Error },
    #[error("{base} answered {status} without saying why: is this a Godwit API?")]
    Strange { base: String, status: u16 },
}

/// What the API said was wrong (RFC 9457).
#[derive(Debug, Clone, Deserialize)]
pub struct Problem {
    #[serde(rename = "type", default)]
    urn: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    pub detail: String,
    /// Index of the operation of a batch that was refused.
    pub operation: Option<usize>,
    /// Where to go on from after a failover that lost writes.
    bookmark: Option<Bookmark>,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

impl Problem {
    /// As `version-conflict`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.urn.rsplit(':').next().unwrap_or_default()
    }

    /// Whether the same request, sent again, may fare better.
    fn may_pass(&self) -> bool {
        matches!(self.status, 421 | 429 | 502 | 503 | 504)
            || matches!(self.kind(), "idempotency-in-flight" | "bookmark-lost")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.title.is_empty() { self.kind() } else { &self.title };
        write!(f, "{what} ({})", self.status)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// With the pauses between them about a minute: longer than a failover should take.
const ATTEMPTS_MAX: u32 = 10;
/// A short trouble is nobody's business; a longer one is told, once.
const ATTEMPTS_UNTOLD: u32 = 3;
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Longest `Retry-After` that is waited out.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// Longest wait for a process on this machine.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// Whether a probe says yes, and what it says.
///
/// # Errors
/// When nobody answers, or in another way than ours.
pub async fn probe(url: &str) -> anyhow::Result<(bool, serde_json::Value)> {
    let builder = reqwest::Client::builder().timeout(PROBE_MAX).no_proxy();
    let builder = builder.tls_certs_only(std::iter::empty::<reqwest::Certificate>());
    let answer = builder.build()?.get(url).send().await?;
    let ok = answer.status().is_success();
    Ok((ok, answer.json().await.with_context(|| format!("{url} is no probe of Godwit"))?))
}

impl ApiClient {
    /// # Errors
    /// When `base` is no URL.
    pub fn new(base: &str, key: SecretString) -> anyhow::Result<Self> {
        let url = reqwest::Url::parse(base).with_context(|| format!("{base} is not a URL"))?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_MAX)
            .timeout(ANSWER_MAX)
            .redirect(reqwest::redirect::Policy::none());
        if url.scheme() == "http" {
            // A laboratory's machine may have no certificate authorities to load.
            builder = builder.tls_certs_only(std::iter::empty::<reqwest::Certificate>()).no_proxy();
        }
        let http = builder.build().context("the HTTP client cannot be made")?;
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { http, base, key, bookmark: Mutex::default(), told: AtomicBool::new(false) })
    }

    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The latest position that any answer told.
    #[must_use]
    pub fn bookmark(&self) -> Option<Bookmark> {
        *self.bookmark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, bookmark: Bookmark) {
        let mut kept = self.bookmark.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(kept.map_or(bookmark, |before| before.max(bookmark)));
    }

    /// Sends until there is an answer that another attempt would not change.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn send(&self, call: Call<'_>, op: &Op) -> Result<Answer, ApiError> {
        let mut attempt = 1;
        loop {
            let error = match self.send_once(call).await {
                Ok(answer) => return Ok(Answer { retried: attempt > 1, ..answer }),
                Err(error) => error,
            };
            let Some(pause) = self.pause(&error, attempt, op) else { return Err(error) };
            if attempt == ATTEMPTS_UNTOLD && !self.told.swap(true, Ordering::Relaxed) {
                let _ = writeln!(std::io::stderr(), "{error}: trying again for about a minute");
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// How long to wait before the next attempt; `None` when there should be none.
    fn pause(&self, error: &ApiError, attempt: u32, op: &Op) -> Option<Duration> {
        let asked_for = match error {
            ApiError::Problem(problem) if problem.may_pass() => {
                if let Some(resume) = problem.bookmark {
                    // Ours names writes that a failover lost.
                    *self.bookmark.lock().unwrap_or_else(PoisonError::into_inner) = Some(resume);
                }
                problem.retry_after
            }
            ApiError::Problem(_) => return None,
            ApiError::Strange { status, .. } if !matches!(status, 502..=504) => return None,
            ApiError::Strange { .. } | ApiError::Unreachable { .. } => None,
        };
        if attempt >= ATTEMPTS_MAX || asked_for.is_some_and(|pause| pause > RETRY_AFTER_MAX) {
            return None;
        }
        let grown = PAUSE_MAX.min(PAUSE_MIN * 2u32.saturating_pow(attempt - 1));
        let base = asked_for.unwrap_or(grown);
        let jitter_us = u64::try_from(base.as_micros()).unwrap_or(u64::MAX) / 2;
        Some(base + Duration::from_micros(rng::below(&*op.rng, jitter_us + 1)))
    }

    async fn send_once(&self, call: Call<'_>) -> Result<Answer, ApiError> {
        let unreachable = |source| ApiError::Unreachable { base: self.base.clone(), source };
        let method = match call.method {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
        };
        let url = format!("{}{}", self.base, call.path);
        let mut request = self.http.request(method, url).bearer_auth(self.key.expose_secret());
        if let Some(bookmark) = self.bookmark() {
            request = request.header("godwit-bookmark", bookmark.to_string());
        }
        if let Some(key) = call.key {
            request = request.header("idempotency-key", key.as_str());
        }
        if let Some(body) = call.body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        let answer = request.send().await.map_err(unreachable)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.map_err(unreachable)?;
        if let Some(bookmark) = text(&headers, "godwit-bookmark").and_then(|b| b.parse().ok()) {
            self.remember(bookmark);
        }
        if status.is_success() {
            return Ok(Answer {
                body: body.into(),
                etag: text(&headers, "etag").map(str::to_owned),
                replayed: text(&headers, "idempotency-replayed") == Some("true"),
                retried: false,
            });
        }
        Err(self.refusal(status, &headers, &body))
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ApiError {
        let described = text(headers, "content-type")
            .is_some_and(|kind| kind.starts_with("application/problem+json"));
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) if described => {
                let seconds = text(headers, "retry-after").and_then(|t| t.trim().parse().ok());
                ApiError::Problem(Box::new(Problem {
                    status: status.as_u16(),
                    retry_after: seconds.map(Duration::from_secs),
                    ..problem
                }))
            }
            _ => ApiError::Strange { base: self.base.clone(), status: status.as_u16() },
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::OpKind;

    fn problem(text: &str, status: u16) -> ApiError {
        let client = client();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/problem+json".parse().unwrap());
        headers.insert("retry-after", "2".parse().unwrap());
        client.refusal(StatusCode::from_u16(status).unwrap(), &headers, text.as_bytes())
    }
    fn client() -> ApiClient {
        rustls::crypto::ring::default_provider().install_default().ok();
        ApiClient::new("http://127.0.0.1:1/", "gw_lab_x".to_owned().into()).unwrap()
    }
    fn op() -> Op {
        Op::system(OpKind::Test, Duration::from_secs(1))
    }

    const CONFLICT: &str = r#"{"type":"urn:godwit:problem:version-conflict","title":"The item is not in that version",
        "status":412,"detail":"It exists.","operation":3,"current":{"id":"x"}}"#;

    #[test]
    fn a_problem_reads_as_a_sentence_and_keeps_its_members() {
        let error = problem(CONFLICT, 412);
        assert_eq!(error.to_string(), "The item is not in that version (412): It exists.");
        let ApiError::Problem(problem) = error else { panic!("{error}") };
        assert_eq!((problem.kind(), problem.operation), ("version-conflict", Some(3)));
    }

    #[test]
    fn what_may_pass_is_tried_again_a_bounded_number_of_times_and_as_late_as_asked() {
        let client = client();
        let unavailable = problem(r#"{"type":"urn:godwit:problem:no-primary"}"#, 503);
        let pause = client.pause(&unavailable, 1, &op()).unwrap();
        assert!((2.0..=3.0).contains(&pause.as_secs_f64()), "{pause:?}");
        assert!(client.pause(&unavailable, ATTEMPTS_MAX, &op()).is_none());
        assert!(client.pause(&problem(CONFLICT, 412), 1, &op()).is_none());
        let in_flight = r#"{"type":"urn:godwit:problem:idempotency-in-flight"}"#;
        assert!(client.pause(&problem(in_flight, 409), 1, &op()).is_some());
        let mismatch = r#"{"type":"urn:godwit:problem:idempotency-mismatch"}"#;
        assert!(client.pause(&problem(mismatch, 422), 1, &op()).is_none());
    }

    #[test]
    fn the_bookmark_only_goes_forward_unless_a_failover_lost_it() {
        let client = client();
        client.remember("1-1-20".parse().unwrap());
        client.remember("1-1-10".parse().unwrap());
        assert_eq!(client.bookmark().unwrap().to_string(), "1-1-20");
        let lost = r#"{"type":"urn:godwit:problem:bookmark-lost","bookmark":"1-1-18"}"#;
        assert!(client.pause(&problem(lost, 409), 1, &op()).is_some());
        assert_eq!(client.bookmark().unwrap().to_string(), "1-1-18");
    }
}
