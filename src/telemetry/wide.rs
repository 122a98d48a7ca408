//! The one wide event of each request.
//!
//! It is written in one pass (0.9 microseconds) rather than through a `tracing` event, whose JSON
//! layer takes 2.5 at this number of fields; filter, queue and outer keys are the same.

use super::TraceContext;
use crate::vocab::{Actor, Bookmark, Epoch, OpId, Region, TenantId};
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::{cell::RefCell, io::Write as _, net::IpAddr, time::Duration};
use tracing_appender::non_blocking::NonBlocking;

/// All that is told about one request. No header, query value or body is part of it: `path` is the
/// path alone.
#[derive(Debug, Clone, Serialize)]
pub struct RequestEvent<'a> {
    #[serde(rename = "http.method")]
    pub method: &'a str,
    /// The template that matched, as in metrics; `unknown` for none.
    #[serde(rename = "http.route")]
    pub route: &'a str,
    /// Without query. Callers cut it to a sane length.
    #[serde(rename = "http.path")]
    pub path: &'a str,
    #[serde(rename = "http.status")]
    pub status: u16,
    #[serde(rename = "duration.us", serialize_with = "micros")]
    pub duration: Duration,
    pub region: &'a Region,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// What the gate decided: `local`, `waited`, `forwarded`, `refused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Actor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    #[serde(rename = "bookmark.in", skip_serializing_if = "Option::is_none")]
    pub bookmark_in: Option<Bookmark>,
    #[serde(rename = "bookmark.out", skip_serializing_if = "Option::is_none")]
    pub bookmark_out: Option<Bookmark>,
    #[serde(rename = "request.bytes")]
    pub request_bytes: u64,
    /// Absent for a streamed answer.
    #[serde(rename = "response.bytes", skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    #[serde(rename = "trace.id", serialize_with = "trace_id")]
    pub trace: TraceContext,
    #[serde(rename = "op.id")]
    pub op: OpId,
    #[serde(rename = "rate_limit", skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<&'a str>,
    /// The problem's kind, as `version-conflict`.
    #[serde(rename = "problem", skip_serializing_if = "Option::is_none")]
    pub problem: Option<&'a str>,
    /// The whole chain of an error that is ours.
    #[serde(rename = "error", skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
    #[serde(rename = "peer.address", skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
}

fn micros<S: serde::Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
fn trace_id<S: serde::Serializer>(trace: &TraceContext, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&trace.trace_id_hex())
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: Timestamp,
    level: &'static str,
    fields: &'a RequestEvent<'a>,
    target: &'static str,
}

struct Timestamp(DateTime<Utc>);
impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use chrono::{Datelike as _, Timelike as _};
        let (date, time) = (self.0.date_naive(), self.0.time());
        to.collect_str(&format_args!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            date.year(),
            date.month(),
            date.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.nanosecond() / 1_000,
        ))
    }
}

/// Where request lines go. Cheap to clone.
#[derive(Clone, Default)]
pub struct RequestLog {
    writer: Option<NonBlocking>,
}

/// A usual line; a longer one grows its thread's buffer once.
const LINE_BYTES: usize = 1024;

thread_local! {
    static LINE: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(LINE_BYTES));
}

impl RequestLog {
    pub(super) fn new(writer: NonBlocking) -> Self {
        Self { writer: Some(writer) }
    }

    /// Queues the event's line if the filter lets `request` through; never waits. A 500 is our bug
    /// and an `ERROR`; everything else is `INFO`.
    pub fn write(&self, at: DateTime<Utc>, event: &RequestEvent<'_>) {
        let Some(writer) = &self.writer else { return };
        let wanted = if event.status == 500 {
            tracing::enabled!(target: "request", tracing::Level::ERROR)
        } else {
            tracing::enabled!(target: "request", tracing::Level::INFO)
        };
        if !wanted {
            return;
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            if render(at, event, line).is_ok() {
                // The queue counts what it drops; there is no other failure.
                writer.clone().write_all(line).ok();
            }
        });
    }
}

fn render(
    at: DateTime<Utc>,
    event: &RequestEvent<'_>,
    into: &mut Vec<u8>,
) -> serde_json::Result<()> {
    let level = if event.status == 500 { "ERROR" } else { "INFO" };
    let line = Line { timestamp: Timestamp(at), level, fields: event, target: "request" };
    serde_json::to_writer(&mut *into, &line)?;
    into.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{Clock as _, Op, OpKind, clock::ManualClock, rng::SeededRng};
    use std::sync::Arc;

    fn with_event<T>(path: &str, body: impl FnOnce(&RequestEvent<'_>) -> T) -> T {
        let clock = Arc::new(ManualClock::new());
        let op = Op::new(OpKind::Test, clock, Arc::new(SeededRng::new(1)), Duration::from_secs(1));
        let region: Region = "eu-west-1".parse().unwrap();
        body(&RequestEvent {
            method: "PATCH",
            route: "/v1/collections/{c}/items/{id}",
            path,
            status: 412,
            duration: Duration::from_micros(1_734),
            region: &region,
            epoch: Some(Epoch::FIRST),
            decision: Some("forwarded"),
            principal: Some("key:018f0000-0000-7000-8000-000000000001".parse().unwrap()),
            tenant: Some("018f0000-0000-7000-8000-000000000002".parse().unwrap()),
            bookmark_in: Some("1-1-5000028".parse().unwrap()),
            bookmark_out: None,
            request_bytes: 312,
            response_bytes: Some(540),
            trace: TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
                .unwrap(),
            op: op.id,
            rate_limit: None,
            problem: Some("version-conflict"),
            error: None,
            peer: Some("127.0.0.1".parse().unwrap()),
        })
    }

    fn line(path: &str) -> String {
        let mut bytes = Vec::new();
        with_event(path, |event| render(ManualClock::new().now(), event, &mut bytes).unwrap());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_line_is_the_agreed_one() {
        insta::assert_snapshot!(line("/v1/collections/cities/items/018f"), @r#"{"timestamp":"1970-01-01T00:00:00.000000Z","level":"INFO","fields":{"http.method":"PATCH","http.route":"/v1/collections/{c}/items/{id}","http.path":"/v1/collections/cities/items/018f","http.status":412,"duration.us":1734,"region":"eu-west-1","epoch":1,"decision":"forwarded","principal":"key:018f0000-0000-7000-8000-000000000001","tenant":"018f0000-0000-7000-8000-000000000002","bookmark.in":"1-1-5000028","request.bytes":312,"response.bytes":540,"trace.id":"0af7651916cd43dd8448eb211c80319c","op.id":"00000000-0000-715c-8289-ec2d0a9167ec","problem":"version-conflict","peer.address":"127.0.0.1"},"target":"request"}"#);
    }

    #[test]
    fn a_path_cannot_forge_a_line() {
        let text = line("/a\n{\"level\":\"ERROR\"}\"\u{7f}");
        assert_eq!(text.matches('\n').count(), 1);
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["fields"]["http.path"], "/a\n{\"level\":\"ERROR\"}\"\u{7f}");
    }
}
