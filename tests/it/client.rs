//! A client of the API, in as many regions as there are, that carries its bookmark along.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use godwit::vocab::Bookmark;
use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// Longer than the longest answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn http() -> anyhow::Result<reqwest::Client> {
    let client = reqwest::Client::builder().http1_only().no_proxy().timeout(PATIENCE);
    Ok(client.redirect(reqwest::redirect::Policy::none()).build()?)
}

/// One session: a credential and the bookmark of its last answer. A clone goes on from there on
/// its own.
#[derive(Clone)]
pub struct Caller {
    http: reqwest::Client,
    bases: BTreeMap<String, String>,
    pub key: Option<String>,
    pub bookmark: Option<String>,
}

/// One request on its way.
pub struct Ask<'a> {
    caller: &'a mut Caller,
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Option<Bytes>,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Caller {
    pub fn new(
        http: reqwest::Client,
        bases: BTreeMap<String, String>,
        key: Option<String>,
    ) -> Self {
        Self { http, bases, key, bookmark: None }
    }

    /// The same credential with nothing to go back behind.
    pub fn fresh(&self) -> Self {
        Self { bookmark: None, ..self.clone() }
    }

    /// The same, where a region is at another address.
    pub fn at_base(&self, region: &str, base: &str) -> Self {
        let mut other = self.clone();
        other.bases.insert(region.to_owned(), base.to_owned());
        other
    }

    /// A request to one region, with the credential and the bookmark.
    pub fn ask(&mut self, region: &str, method: Method, path: &str) -> Ask<'_> {
        let mut headers = HeaderMap::new();
        if let Some(key) = &self.key {
            headers.insert("authorization", value(&format!("Bearer {key}")));
        }
        if let Some(bookmark) = &self.bookmark {
            headers.insert("godwit-bookmark", value(bookmark));
        }
        let url = format!("{}{path}", self.bases[region]);
        Ask { caller: self, method, url, headers, body: None }
    }

    pub async fn get(&mut self, region: &str, path: &str) -> anyhow::Result<Answer> {
        self.ask(region, Method::GET, path).send().await
    }

    /// Walks through all pages of a list.
    pub async fn pages(
        &mut self,
        region: &str,
        collection: &str,
        query: &str,
    ) -> anyhow::Result<Vec<Answer>> {
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/collections/{collection}/items?{query}{cursor}");
            let page = self.get(region, &path).await?.wants(200)?;
            let next = page.json()["next_cursor"].as_str().map(str::to_owned);
            pages.push(page);
            match next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(pages),
            }
        }
    }

    /// Every item of all pages, in order.
    pub async fn items(
        &mut self,
        region: &str,
        collection: &str,
        query: &str,
    ) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        for page in self.pages(region, collection, query).await? {
            items.extend(page.items()?);
        }
        Ok(items)
    }

    pub async fn create(
        &mut self,
        region: &str,
        collection: &str,
        data: &Value,
    ) -> anyhow::Result<Answer> {
        let path = format!("/v1/collections/{collection}/items");
        self.ask(region, Method::POST, &path).json(data).send().await
    }

    pub async fn read(
        &mut self,
        region: &str,
        collection: &str,
        id: &str,
    ) -> anyhow::Result<Answer> {
        self.get(region, &item(collection, id)).await
    }

    /// Replaces an item that is still as `etag` says.
    pub async fn put_if(
        &mut self,
        region: &str,
        collection: &str,
        id: &str,
        etag: &str,
        data: &Value,
    ) -> anyhow::Result<Answer> {
        let ask = self.ask(region, Method::PUT, &item(collection, id));
        ask.header("if-match", etag).json(data).send().await
    }

    pub async fn patch_if(
        &mut self,
        region: &str,
        collection: &str,
        id: &str,
        etag: &str,
        patch: &Value,
    ) -> anyhow::Result<Answer> {
        let ask = self.ask(region, Method::PATCH, &item(collection, id));
        ask.header("if-match", etag).json(patch).send().await
    }

    pub async fn delete_if(
        &mut self,
        region: &str,
        collection: &str,
        id: &str,
        etag: &str,
    ) -> anyhow::Result<Answer> {
        let ask = self.ask(region, Method::DELETE, &item(collection, id));
        ask.header("if-match", etag).send().await
    }
}

pub fn item(collection: &str, id: &str) -> String {
    format!("/v1/collections/{collection}/items/{id}")
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).expect("a header's value")
}

impl Ask<'_> {
    pub fn header(mut self, name: &'static str, text: &str) -> Self {
        self.headers.insert(HeaderName::from_static(name), value(text));
        self
    }

    /// Beside one that is there.
    pub fn and_header(mut self, name: &'static str, text: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), value(text));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.headers.insert("content-type", value(content_type));
        self.body = Some(body.into());
        self
    }

    /// Sends it and remembers the bookmark of the answer.
    pub async fn send(self) -> anyhow::Result<Answer> {
        let Self { caller, method, url, headers, body } = self;
        let mut request = caller.http.request(method.clone(), &url).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await.with_context(|| format!("{method} {url}"))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.with_context(|| format!("the body of {method} {url}"))?;
        let answer = Answer { status, headers, body };
        if let Some(bookmark) = answer.header("godwit-bookmark") {
            caller.bookmark = Some(bookmark.to_owned());
        }
        Ok(answer)
    }
}

impl Answer {
    /// `Null` when the body is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// As text; `None` when absent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Of a page.
    pub fn items(&self) -> anyhow::Result<Vec<Value>> {
        let items = self.json()["items"].as_array().cloned();
        items.with_context(|| format!("no items: {self}"))
    }

    pub fn etag(&self) -> anyhow::Result<String> {
        Ok(self.header("etag").with_context(|| format!("no ETag: {self}"))?.to_owned())
    }

    /// The position that the answer stands for.
    pub fn at(&self) -> anyhow::Result<Bookmark> {
        let text =
            self.header("godwit-bookmark").with_context(|| format!("no bookmark: {self}"))?;
        text.parse().context("the bookmark of an answer")
    }

    /// Of an item.
    pub fn id(&self) -> anyhow::Result<String> {
        let id = self.json()["id"].as_str().map(str::to_owned);
        id.with_context(|| format!("no id: {self}"))
    }

    /// Of an item.
    pub fn version(&self) -> anyhow::Result<i64> {
        self.json()["version"].as_i64().with_context(|| format!("no version: {self}"))
    }

    /// Where the answer was made: `local`, `waited` or `forwarded`.
    pub fn route(&self) -> &str {
        self.header("godwit-route").unwrap_or_default()
    }

    /// The kind of a problem, the last part of its `type`; empty when it is none.
    pub fn problem(&self) -> String {
        let document = self.json();
        let kind =
            document["type"].as_str().and_then(|kind| kind.strip_prefix("urn:godwit:problem:"));
        kind.unwrap_or_default().to_owned()
    }

    pub fn wants(self, status: u16) -> anyhow::Result<Self> {
        ensure!(self.status == status, "wanted {status}: {self}");
        Ok(self)
    }

    /// Demands the contract's problem document (RFC 9457), whole.
    pub fn wants_problem(self, status: u16, kind: &str) -> anyhow::Result<Self> {
        let document = self.json();
        let whole = self.status == status
            && self.problem() == kind
            && self.header("content-type") == Some("application/problem+json")
            && document["status"].as_u64() == Some(status.into())
            && document["title"].as_str().is_some_and(|title| !title.is_empty())
            && document["detail"].as_str().is_some_and(|detail| !detail.is_empty());
        ensure!(whole, "wanted {status} {kind}: {self}");
        ensure!(
            !matches!(status, 429 | 503) || self.header("retry-after").is_some(),
            "no Retry-After: {self}"
        );
        Ok(self)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        let body: String = body.chars().take(600).collect();
        write!(f, "{} {body} {:?}", self.status, self.headers)
    }
}
