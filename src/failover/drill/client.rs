//! The workload's HTTP client: a home of reqwest of its own, because what the others hide (attempts,
//! failures, the answer's header fields) is what is measured here.

use super::history::{Ask, Call, Outcome, Seen};
use crate::vocab::{Bookmark, Epoch, Etag, Region, SharedClock, problem_kind};
use reqwest::{Method, header::HeaderMap};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A little longer than a region takes to give up, so that it is the region that says so.
const ANSWER_MAX: Duration = Duration::from_secs(11);
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long one thing is asked for that is needed. What a region cannot answer by then it cannot
/// answer.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

/// All regions' public listeners, with one credential.
pub struct Client {
    http: reqwest::Client,
    bases: BTreeMap<Region, Vec<String>>,
    key: SecretString,
    clock: SharedClock,
    began: Instant,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("bases", &self.bases).finish_non_exhaustive()
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub method: Verb,
    /// With the leading slash.
    pub path: String,
    pub key: Option<&'a str>,
    pub if_match: Option<Etag>,
    pub bookmark: Option<Bookmark>,
    /// The primary is to answer.
    pub strong: bool,
    pub body: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
    Put,
}

/// What came back, or why nothing did.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub began_us: u64,
    pub ended_us: u64,
    /// 0 without an answer.
    pub status: u16,
    /// The problem's kind, or why there is no answer.
    pub problem: Option<String>,
    /// Without an answer: whether the request may have arrived.
    pub perhaps_sent: bool,
    pub by: Option<Region>,
    pub epoch: Option<Epoch>,
    /// From the header, or from the problem that says where to go on.
    pub bookmark: Option<Bookmark>,
    pub etag: Option<Etag>,
    pub replayed: bool,
    pub body: Value,
}

impl<'a> Request<'a> {
    #[must_use]
    pub fn get(path: String, bookmark: Option<Bookmark>) -> Self {
        let (method, key, if_match, body) = (Verb::Get, None, None, None);
        Self { method, path, key, if_match, bookmark, strong: false, body }
    }

    #[must_use]
    pub fn strong(path: String) -> Self {
        Self { strong: true, ..Self::get(path, None) }
    }

    #[must_use]
    pub fn write(method: Verb, path: String, key: &'a str, body: &Value) -> Self {
        Self { method, key: Some(key), body: Some(body.to_string()), ..Self::get(path, None) }
    }
}

impl Client {
    /// `bases`: the base URLs of each region's processes.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn new(
        bases: BTreeMap<Region, Vec<String>>,
        key: SecretString,
        clock: SharedClock,
    ) -> Result<Self, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_MAX)
            .timeout(ANSWER_MAX)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none());
        if bases.values().flatten().all(|base| base.starts_with("http:")) {
            // A laboratory's machine may have no certificate authorities to load.
            builder = builder.tls_certs_only(std::iter::empty::<reqwest::Certificate>()).no_proxy();
        }
        let began = clock.monotonic();
        Ok(Self { http: builder.build()?, bases, key, clock, began })
    }

    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        self.bases.keys().cloned().collect()
    }

    /// Since the client was made.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        let elapsed = self.clock.monotonic().saturating_duration_since(self.began);
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }

    /// Asks once. `which` chooses among the region's processes.
    pub async fn ask(&self, region: &Region, which: u32, request: &Request<'_>) -> Answer {
        let began_us = self.now_us();
        let answer = self.exchange(region, which, request).await;
        // No call takes no time, so that whatever follows it is later.
        Answer { began_us, ended_us: self.now_us().max(began_us + 1), ..answer }
    }

    /// Asks again until an answer will do, or for as long as there is patience.
    pub async fn ask_until(
        &self,
        region: &Region,
        request: &Request<'_>,
        will_do: impl Fn(&Answer) -> bool,
    ) -> Answer {
        let until_us = self.now_us() + u64::try_from(PATIENCE.as_micros()).unwrap_or(u64::MAX);
        let mut attempt = 0;
        loop {
            let answer = self.ask(region, attempt, request).await;
            if will_do(&answer) || self.now_us() > until_us {
                return answer;
            }
            attempt += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn exchange(&self, region: &Region, which: u32, request: &Request<'_>) -> Answer {
        let bases = self.bases.get(region).map_or(&[][..], Vec::as_slice);
        let Some(base) = bases.get(which as usize % bases.len().max(1)) else {
            return failed("no such region", false);
        };
        let method = match request.method {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
        };
        let mut asked = self
            .http
            .request(method, format!("{}{}", base.trim_end_matches('/'), request.path))
            .bearer_auth(self.key.expose_secret());
        if let Some(bookmark) = request.bookmark {
            asked = asked.header("godwit-bookmark", bookmark.to_string());
        }
        if request.strong {
            asked = asked.header("godwit-consistency", "strong");
        }
        if let Some(key) = request.key {
            asked = asked.header("idempotency-key", key);
        }
        if let Some(etag) = request.if_match {
            asked = asked.header("if-match", etag.to_string());
        }
        if let Some(body) = &request.body {
            asked = asked.header("content-type", "application/json").body(body.clone());
        }
        let response = match asked.send().await {
            Ok(response) => response,
            Err(error) => return failed(why(&error), !error.is_connect()),
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        match response.bytes().await {
            Ok(body) => read(status, &headers, &body),
            // The answer's first line is no answer yet.
            Err(error) => failed(why(&error), true),
        }
    }

    /// The region whose process says that it takes the writes, in the highest epoch.
    pub async fn primary(&self) -> Option<(Epoch, Region)> {
        let mut found: Option<(Epoch, Region)> = None;
        for region in self.bases.keys() {
            let answer = self.ask(region, 0, &Request::get("/health".into(), None)).await;
            let primary = answer.body["role"] == "primary"
                && answer.body["checks"]["primary"]["writes"] == "local";
            let epoch = answer.body["epoch"].as_u64();
            let epoch = epoch.and_then(|epoch| Epoch::new(u32::try_from(epoch).ok()?));
            if let Some(epoch) = epoch.filter(|_| primary)
                && found.as_ref().is_none_or(|(highest, _)| epoch > *highest)
            {
                found = Some((epoch, region.clone()));
            }
        }
        found
    }
}

fn failed(why: &str, perhaps_sent: bool) -> Answer {
    Answer { problem: Some(why.to_owned()), perhaps_sent, ..Answer::default() }
}

fn why(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "cannot connect"
    } else {
        "connection broke off"
    }
}

fn read(status: u16, headers: &HeaderMap, body: &[u8]) -> Answer {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let problem = body["type"].as_str().and_then(problem_kind);
    let problem = problem.map(str::to_owned);
    let resume = body["bookmark"].as_str().and_then(|text| text.parse().ok());
    let told = problem.as_deref() == Some("bookmark-lost");
    Answer {
        status,
        perhaps_sent: true,
        by: text("godwit-region").and_then(|text| text.parse().ok()),
        epoch: text("godwit-epoch").and_then(|text| text.parse().ok()),
        bookmark: resume
            .filter(|_| told)
            .or_else(|| text("godwit-bookmark").and_then(|text| text.parse().ok())),
        etag: text("etag").and_then(|text| text.parse().ok()),
        replayed: text("idempotency-replayed") == Some("true"),
        problem,
        body,
        ..Answer::default()
    }
}

/// What an answer says became of a request.
#[must_use]
pub fn outcome(answer: &Answer, ask: &Ask) -> Outcome {
    match (answer.status, answer.problem.as_deref()) {
        (0, _) if !answer.perhaps_sent => Outcome::Refused,
        (200..=299, _) => Outcome::Ok(seen(answer, ask)),
        (404, _) if !ask.is_write() => Outcome::Ok(Seen::default()),
        (412, _) => Outcome::Conflict,
        (409, Some("bookmark-lost")) => Outcome::Told,
        // An earlier attempt is still under way, or its outcome is not known.
        (409, Some("idempotency-in-flight")) | (503, Some("outcome-unknown")) => Outcome::Unknown,
        (421 | 429 | 503, Some(_)) | (400..=499, _) => Outcome::Refused,
        _ => Outcome::Unknown,
    }
}

fn seen(answer: &Answer, ask: &Ask) -> Seen {
    let values = answer.body["data"]["values"].as_array().into_iter().flatten();
    let listed = matches!(ask, Ask::ReadList { .. });
    Seen {
        etag: answer.etag,
        replayed: answer.replayed,
        id: answer.body["id"].as_str().filter(|_| ask.is_write()).map(str::to_owned),
        found: true,
        values: values.filter(|_| listed).filter_map(Value::as_u64).collect(),
    }
}

/// The record of one call.
#[must_use]
pub fn call(
    session: u32,
    asked: &Region,
    ask: Ask,
    bookmark_in: Option<Bookmark>,
    answer: &Answer,
) -> Call {
    Call {
        session,
        asked: asked.clone(),
        outcome: outcome(answer, &ask),
        ask,
        began_us: answer.began_us,
        ended_us: answer.ended_us,
        bookmark_in,
        bookmark_out: answer.bookmark,
        by: answer.by.clone(),
        epoch: answer.epoch,
        status: answer.status,
        problem: answer.problem.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, problem: &str) -> Answer {
        let problem = (!problem.is_empty()).then(|| problem.to_owned());
        Answer { status, problem, perhaps_sent: true, ..Answer::default() }
    }
    fn add() -> Ask {
        Ask::Add { key: "k".into() }
    }

    #[test]
    fn an_answer_is_taken_at_its_word_and_silence_for_nothing() {
        let read = || Ask::ReadItem { key: "k".into() };
        for (status, problem, expected) in [
            (412, "version-conflict", Outcome::Conflict),
            (409, "bookmark-lost", Outcome::Told),
            (409, "idempotency-in-flight", Outcome::Unknown),
            (503, "outcome-unknown", Outcome::Unknown),
            (503, "no-primary", Outcome::Refused),
            (503, "unavailable", Outcome::Refused),
            (503, "", Outcome::Unknown),
            (502, "", Outcome::Unknown),
            (500, "internal", Outcome::Unknown),
            (421, "fenced", Outcome::Refused),
            (429, "rate-limited", Outcome::Refused),
            (404, "not-found", Outcome::Refused),
            (0, "no answer in time", Outcome::Unknown),
        ] {
            assert_eq!(outcome(&answer(status, problem), &add()), expected, "{status} {problem}");
        }
        assert!(matches!(outcome(&answer(201, ""), &add()), Outcome::Ok(seen) if seen.found));
        assert!(matches!(outcome(&answer(404, ""), &read()), Outcome::Ok(seen) if !seen.found));
        assert_eq!(outcome(&failed("cannot connect", false), &add()), Outcome::Refused);
    }

    #[test]
    fn a_loss_says_where_to_go_on() {
        let mut headers = HeaderMap::new();
        headers.insert("godwit-bookmark", "1-1-99".parse().unwrap());
        headers.insert("etag", "\"2.7\"".parse().unwrap());
        let lost = br#"{"type":"urn:godwit:problem:bookmark-lost","bookmark":"1-2-40"}"#;
        assert_eq!(read(409, &headers, lost).bookmark.unwrap().to_string(), "1-2-40");
        let put = br#"{"id":"i","data":{"values":[1,2]}}"#;
        let answer = read(200, &headers, put);
        assert_eq!(answer.bookmark.unwrap().to_string(), "1-1-99");
        let seen = seen(&answer, &Ask::ReadList { list: 1 });
        assert_eq!((seen.values, seen.etag.unwrap().version), (vec![1, 2], 7));
    }
}
