//! What nobody should send, and what they are told.

use crate::{
    client::{Answer, Ask, Caller, item},
    harness::{self, AP, Cluster, US},
    raw,
};
use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::json;
use std::fs;

const COLLECTION: &str = "bad-input";
const ITEMS: &str = "/v1/collections/bad-input/items";

/// The primary, and a replica that forwards.
const WHERE: [&str; 2] = [US, AP];

type Wanted = (u16, &'static str);
const MALFORMED: Wanted = (400, "malformed");
const INVALID: Wanted = (422, "validation");
const NOT_FOUND: Wanted = (404, "not-found");
const BOOKMARK: Wanted = (400, "bookmark-invalid");
const TOO_LARGE: Wanted = (413, "too-large");

async fn told(ask: Ask<'_>, wanted: Wanted, what: &str) -> anyhow::Result<Answer> {
    let answer = ask.send().await.with_context(|| what.to_owned())?;
    answer.wants_problem(wanted.0, wanted.1).with_context(|| what.to_owned())
}

fn bodies() -> Vec<(&'static str, Vec<u8>, Wanted)> {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let many = format!("{{\"a\":[{}1]}}", "1e900,".repeat(2_000));
    vec![
        ("nothing", Vec::new(), MALFORMED),
        ("half of JSON", b"{\"a\":".to_vec(), MALFORMED),
        ("not JSON", b"hello".to_vec(), MALFORMED),
        ("JSON and more", b"{} {}".to_vec(), MALFORMED),
        ("NaN", b"{\"a\":NaN}".to_vec(), MALFORMED),
        ("bad UTF-8", b"{\"a\":\"\xff\xfe\"}".to_vec(), MALFORMED),
        ("bad UTF-8 alone", b"\xff".to_vec(), MALFORMED),
        ("half a surrogate", br#"{"a":"\ud800"}"#.to_vec(), MALFORMED),
        ("too deep", deep.into_bytes(), MALFORMED),
        ("an array", b"[]".to_vec(), INVALID),
        ("a text", b"\"x\"".to_vec(), INVALID),
        ("null", b"null".to_vec(), INVALID),
        ("a NUL", br#"{"a":"x\u0000"}"#.to_vec(), INVALID),
        ("a NUL in a name", br#"{"\u0000":1}"#.to_vec(), INVALID),
        ("a number out of all bounds", b"{\"n\":1e400000}".to_vec(), INVALID),
        ("a number next to nothing", b"{\"n\":1e-400000}".to_vec(), INVALID),
        ("an exponent out of all bounds", b"{\"n\":1e99999999999999999999}".to_vec(), INVALID),
        ("numbers that grow", many.into_bytes(), TOO_LARGE),
        ("2 MiB", vec![b' '; 2 * 1024 * 1024], TOO_LARGE),
        ("2 MiB of document", document(2 * 1024 * 1024), TOO_LARGE),
    ]
}

fn document(bytes: usize) -> Vec<u8> {
    format!("{{\"a\":\"{}\"}}", "x".repeat(bytes)).into_bytes()
}

/// A cursor that this API could have made, had it gone mad.
fn cursor(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn queries() -> Vec<String> {
    let id = "0193a0de-0000-7000-8000-000000000000";
    let mut queries: Vec<String> = [
        "limit=0",
        "limit=1000000",
        "limit=-1",
        "limit=ten",
        "limit=",
        "limit=+5",
        "limit=1e1",
        "limit=99999999999999999999",
        "limit=1&limit=2",
        "order=name",
        "order=",
        "order=--id",
        "filter=x",
        "filter=[]",
        "filter=",
        "filter=%7B%22a%22%3A%22%5Cu0000%22%7D",
        "q=%00",
        "unknown=1",
        "cursor=garbage",
        "cursor=",
        "cursor=e30",
    ]
    .map(str::to_owned)
    .into();
    queries.push(format!("q={}", "x".repeat(5_000)));
    let other = cursor(&format!("{{\"o\":\"-id\",\"t\":\"2026-01-01T00:00:00Z\",\"i\":\"{id}\"}}"));
    queries.push(format!("order=id&cursor={other}"));
    for time in ["-262143-01-01T00:00:00Z", "yesterday"] {
        let mad = format!("{{\"o\":\"created_at\",\"t\":\"{time}\",\"i\":\"{id}\"}}");
        queries.push(format!("order=created_at&cursor={}", cursor(&mad)));
    }
    queries
}

fn headers() -> Vec<(&'static str, String, Wanted)> {
    let long = "k".repeat(256);
    vec![
        ("godwit-bookmark", "garbage".into(), BOOKMARK),
        ("godwit-bookmark", "1-1".into(), BOOKMARK),
        ("godwit-bookmark", "1-0-0".into(), BOOKMARK),
        ("godwit-bookmark", "1-1-fffffffffffffffff".into(), BOOKMARK),
        ("godwit-bookmark", "2-1-1".into(), BOOKMARK),
        ("godwit-bookmark", "é".into(), BOOKMARK),
        // Of an epoch that there never was, and of a future that will not come.
        ("godwit-bookmark", "1-63-1".into(), BOOKMARK),
        ("godwit-bookmark", "1-1-7fffffffffffffff".into(), BOOKMARK),
        ("godwit-consistency", "weak".into(), MALFORMED),
        ("godwit-consistency", "bounded;ms=-1".into(), MALFORMED),
        ("idempotency-key", long, MALFORMED),
        ("idempotency-key", String::new(), MALFORMED),
        ("idempotency-key", "two words".into(), MALFORMED),
        ("idempotency-key", "é".into(), MALFORMED),
        ("content-type", "text/xml".into(), (415, "unsupported-media-type")),
        ("content-encoding", "gzip".into(), (415, "unsupported-media-type")),
        ("x-long", "x".repeat(20 * 1024), (431, "headers-too-large")),
    ]
}

pub async fn every_bad_request_is_told_what_is_wrong() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut caller = cluster.tenant("bad-input").await?.caller;
    let made = caller.create(US, COLLECTION, &json!({"kept": true})).await?.wants(201)?;
    let path = item(COLLECTION, &made.id()?);
    for region in WHERE {
        let mut caller = caller.clone();
        for (what, body, wanted) in bodies() {
            let ask = caller.ask(region, Method::POST, ITEMS).body("application/json", body);
            told(ask, wanted, &format!("{region}: a body of {what}")).await?;
        }
        for query in queries() {
            let ask = caller.ask(region, Method::GET, &format!("{ITEMS}?{query}"));
            told(ask, INVALID, &format!("{region}: {query:.80}")).await?;
        }
        for (name, value, wanted) in headers() {
            let what = format!("{region}: {name}: {value:.40}");
            let ask = caller.ask(region, Method::PUT, &path).header("if-match", "*");
            told(ask.json(&json!({})).header(name, &value), wanted, &what).await?;
            if !matches!(name, "idempotency-key" | "content-type" | "content-encoding") {
                told(caller.ask(region, Method::GET, &path).header(name, &value), wanted, &what)
                    .await?;
            }
        }
        for name in ["godwit-bookmark", "godwit-consistency", "idempotency-key"] {
            let value = if name == "godwit-bookmark" { "1-1-1" } else { "strong" };
            let ask = caller.ask(region, Method::PUT, &path).header("if-match", "*");
            let ask = ask.json(&json!({})).header(name, value).and_header(name, value);
            let wanted = if name == "godwit-bookmark" { BOOKMARK } else { MALFORMED };
            told(ask, wanted, &format!("{region}: {name} twice")).await?;
        }
        tags(&mut caller, region, &path).await?;
        paths(&mut caller, region).await?;
    }
    // None of it has done anything.
    let read = caller.get(US, &path).await?.wants(200)?;
    ensure!(read.version()? == 1, "{read}");
    let listed = caller.get(US, ITEMS).await?.wants(200)?.json();
    ensure!(listed["items"].as_array().is_some_and(|items| items.len() == 1), "{listed}");
    Ok(())
}

async fn tags(caller: &mut Caller, region: &str, path: &str) -> anyhow::Result<()> {
    for tag in ["1.1", "", "\"1.1", "x, y", "\"a\"b\""] {
        let what = format!("{region}: If-Match: {tag}");
        for method in [Method::PUT, Method::PATCH, Method::DELETE] {
            let ask = caller.ask(region, method, path).header("if-match", tag).json(&json!({}));
            told(ask, MALFORMED, &what).await?;
        }
        told(caller.ask(region, Method::GET, path).header("if-none-match", tag), MALFORMED, &what)
            .await?;
    }
    let ask = caller.ask(region, Method::PUT, path).header("if-match", "*");
    let ask = ask.header("if-none-match", "*").json(&json!({}));
    told(ask, MALFORMED, &format!("{region}: both preconditions")).await?;
    let ask = caller.ask(region, Method::PUT, path).header("if-none-match", "\"1.1\"");
    told(ask.json(&json!({})), MALFORMED, &format!("{region}: If-None-Match with a tag")).await?;
    Ok(())
}

async fn paths(caller: &mut Caller, region: &str) -> anyhow::Result<()> {
    for path in
        ["/nothing", "/v1", "/v2/collections", "/v1/collections/x", "/v1/admin", "/index.php"]
    {
        told(caller.ask(region, Method::GET, path), NOT_FOUND, &format!("{region}: {path}"))
            .await?;
    }
    for (method, path, allow) in [
        (Method::DELETE, "/v1/collections", "GET, HEAD"),
        (Method::PATCH, ITEMS, "GET, HEAD, POST"),
        (Method::GET, "/v1/collections/x/items:batch", "POST"),
        (Method::POST, "/v1/writes/x", "GET, HEAD"),
        (Method::from_bytes(b"BREW")?, "/v1/collections", "GET, HEAD"),
    ] {
        let what = format!("{region}: {method} {path}");
        let told = told(caller.ask(region, method, path), (405, "method-not-allowed"), &what);
        let told = told.await?;
        ensure!(told.header("allow") == Some(allow), "{what}: {told}");
    }
    // Names of things that cannot be.
    for path in [
        "/v1/collections/x/items/1",
        "/v1/collections/x/items/%00",
        "/v1/collections/x/items/%ff",
        "/v1/collections/x/items/%zz",
        "/v1/collections/%2e%2e/items/0193a0de-0000-7000-8000-000000000000",
        "/v1/collections/a%2fb/items",
        "/v1/collections/%ff/items",
        "/v1/collections/-x/items",
        "/v1/writes/%20",
        "/v1/writes/%ff",
        "/v1/admin/keys/1",
    ] {
        told(caller.ask(region, Method::GET, path), NOT_FOUND, &format!("{region}: {path}"))
            .await?;
    }
    for path in ["/v1/collections/%00/items", "/v1/collections/a%20b/items"] {
        let ask = caller.ask(region, Method::POST, path).json(&json!({}));
        told(ask, INVALID, &format!("{region}: {path}")).await?;
    }
    // A cursor of another listing.
    let item = cursor(
        r#"{"o":"id","t":"2026-01-01T00:00:00Z","i":"0193a0de-0000-7000-8000-000000000000"}"#,
    );
    let listings = ["/v1/admin/keys", "/v1/collections"].into_iter().flat_map(|listing| {
        let bad = ["limit=0", "limit=1000000", "limit=x", "limit=%2B5", "cursor=e30", "order=id"];
        let bad = bad.into_iter().map(str::to_owned).chain([format!("cursor={item}")]);
        bad.map(move |query| format!("{listing}?{query}"))
    });
    for path in listings {
        told(caller.ask(region, Method::GET, &path), INVALID, &format!("{region}: {path}")).await?;
    }
    for key in [
        json!({}),
        json!({"name": "", "scopes": ["read"]}),
        json!({"name": "x", "scopes": []}),
        json!({"name": "x", "scopes": ["root"]}),
        json!({"name": "x", "scopes": ["read"], "days": 366}),
        json!({"name": "x", "scopes": ["read"], "days": 0}),
        json!({"name": "x", "scopes": ["read"], "owner": 1}),
        json!({"name": "x", "scopes": ["read"], "environment": "A-B"}),
    ] {
        let ask = caller.ask(region, Method::POST, "/v1/admin/keys").json(&key);
        told(ask, INVALID, &format!("{region}: a key of {key}")).await?;
    }
    Ok(())
}

/// Bytes that no client library would send. What is a request gets the problem document; what
/// cannot even be parsed as one gets HTTP's bare word for it, from below the API.
pub async fn what_is_no_request_at_all_is_answered_too() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let key = cluster.caller().key.context("a key")?;
    let mut wrong = Vec::new();
    for region in WHERE {
        for (what, bytes, then_close, wanted) in bytes(&key) {
            let answer = raw::send(&cluster.region(region).public, &bytes, then_close).await;
            let judged = answer.and_then(|answer| match wanted {
                Ok((status, kind)) => answer.wants_problem(status, kind).map(drop),
                Err(status) => {
                    let answer = answer.wants(status)?;
                    let closes = answer.header("connection") == Some("close");
                    ensure!(closes && answer.body.is_empty(), "{answer}");
                    Ok(())
                }
            });
            if let Err(error) = judged {
                wrong.push(format!("{region}: {what}: {error:#}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// What to send, whether nothing more is to come after it, and the problem, or the bare status.
type Bytes = (&'static str, Vec<u8>, bool, Result<Wanted, u16>);

fn bytes(key: &str) -> Vec<Bytes> {
    let get = |fields: &[&str]| raw::head("GET", "/v1/collections", key, fields);
    let post = |field: &str, body: &[u8]| {
        let fields = ["content-type: application/json", field];
        [&raw::head("POST", ITEMS, key, &fields)[..], body].concat()
    };
    let chunked = "transfer-encoding: chunked";
    let chunks = [&b"200000\r\n"[..], &vec![b' '; 2 * 1024 * 1024], b"\r\n0\r\n\r\n"].concat();
    let long = |bytes| format!("x-long: {}", "x".repeat(bytes));
    let long_path = format!("/{}", "x".repeat(20 * 1024));
    let two = "content-length: 2\r\ncontent-length: 3";
    vec![
        ("fields of 100 KB", get(&[&long(100_000)]), false, Ok((431, "headers-too-large"))),
        ("a path of 20 KB", raw::head("GET", &long_path, key, &[]), false, Ok(NOT_FOUND)),
        ("2 MiB in chunks", post(chunked, &chunks), false, Ok(TOO_LARGE)),
        ("a body that breaks off", post("content-length: 100", b"{\"a\":"), true, Ok(MALFORMED)),
        ("bad UTF-8", get(&["godwit-bookmark: \u{e9}"]), false, Ok(BOOKMARK)),
        ("fields of 200 KB", get(&[&long(200_000)]), false, Err(431)),
        ("no request", b"HELLO\r\n\r\n".to_vec(), false, Err(400)),
        ("a NUL", get(&["x-nul: a\0b"]), false, Err(400)),
        ("two lengths", post(two, b"{}"), false, Err(400)),
        ("a length that is none", post("content-length: -1", b""), false, Err(400)),
        ("a version that is none", b"GET / HTTP/9.9\r\n\r\n".to_vec(), false, Err(400)),
    ]
}

pub async fn a_slow_body_is_not_waited_for() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let key = cluster.caller().key.context("a key")?;
    let slow = WHERE.map(|region| {
        let base = &cluster.region(region).public;
        let more = ["content-type: application/json", "content-length: 100"];
        let bytes = [raw::head("POST", ITEMS, &key, &more), b"{\"a\":".to_vec()].concat();
        async move {
            let body = raw::send(base, &bytes, false).await?;
            body.wants_problem(408, "request-timeout")?;
            let head =
                raw::send(base, b"GET /v1/collections HTTP/1.1\r\nhost: x\r\n", false).await?;
            ensure!(head.status == 408, "{head}");
            anyhow::Ok(())
        }
    });
    futures_util::future::try_join_all(slow).await?;
    Ok(())
}

/// A thousand requests of 2 MiB or of 200 KB of header fields: what they cost is given back.
pub async fn floods_of_huge_requests_leave_no_trace() -> anyhow::Result<()> {
    const ROUNDS: usize = 500;
    const GROWTH_MAX: u64 = 48 * 1024 * 1024;
    let _busy = harness::busy().await;
    let cluster = harness::shared().await?;
    let key = cluster.caller().key.context("a key")?;
    let json = ["content-type: application/json", "content-length: 2097152"];
    let body = [raw::head("POST", ITEMS, &key, &json), vec![b' '; 2 * 1024 * 1024]].concat();
    let chunked = ["content-type: application/json", "transfer-encoding: chunked"];
    let chunk = [&b"200000\r\n"[..], &vec![b' '; 2 * 1024 * 1024], b"\r\n0\r\n\r\n"].concat();
    let chunked = [raw::head("POST", ITEMS, &key, &chunked), chunk].concat();
    let long = format!("x-long: {}", "x".repeat(200 * 1024));
    let fields = raw::head("GET", "/v1/collections", &key, &[&long]);
    for region in WHERE {
        let base = cluster.region(region).public.clone();
        let flood = async |rounds: usize| {
            for _ in 0..rounds {
                for bytes in [&body, &chunked, &fields] {
                    // What is said is for the other tests; a hang-up is an answer too.
                    let _ = raw::send(&base, bytes, false).await;
                }
            }
        };
        // What a process keeps for good, it has after the first.
        flood(50).await;
        let before = resident_bytes(&cluster, region)?;
        flood(ROUNDS).await;
        let after = resident_bytes(&cluster, region)?;
        let growth = after.saturating_sub(before);
        ensure!(growth < GROWTH_MAX, "{region}: from {before} to {after} bytes");
    }
    Ok(())
}

/// proc(5): the memory that a region's API process has.
fn resident_bytes(cluster: &Cluster, region: &str) -> anyhow::Result<u64> {
    let pid = cluster.region(region).pids.api.context("no API process")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
