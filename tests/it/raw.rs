//! Requests byte by byte, for what no client library would send.

use crate::client::Answer;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const PATIENCE: Duration = Duration::from_secs(40);

/// The head of a request that asks for the connection to be closed after its answer.
pub fn head(method: &str, path: &str, key: &str, more: &[&str]) -> Vec<u8> {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: godwit\r\nconnection: close\r\nauthorization: Bearer {key}\r\n"
    );
    for line in more {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Sends `bytes` to a listener and reads its answer. With `then_close`, nothing more is to come,
/// and the server is told so.
pub async fn send(base: &str, bytes: &[u8], then_close: bool) -> anyhow::Result<Answer> {
    let address = base.strip_prefix("http://").context("an address")?;
    let mut stream = TcpStream::connect(address).await?;
    let talk = async {
        // A server that has seen enough may hang up on the rest.
        let sent = stream.write_all(bytes).await;
        if then_close && sent.is_ok() {
            let _ = stream.shutdown().await;
        }
        read(&mut stream).await
    };
    tokio::time::timeout(PATIENCE, talk).await.context("no answer in time")?
}

async fn read(stream: &mut TcpStream) -> anyhow::Result<Answer> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if let Some(answer) = parse(&bytes, false)? {
            return Ok(answer);
        }
        match stream.read(&mut buffer).await {
            Ok(read @ 1..) => bytes.extend_from_slice(&buffer[..read]),
            // The end, or a reset after what has been read.
            Ok(0) | Err(_) => break,
        }
    }
    match parse(&bytes, true)? {
        Some(answer) => Ok(answer),
        None => bail!("hung up after {:?}", String::from_utf8_lossy(&bytes)),
    }
}

/// An HTTP/1.1 answer; `None` while it is not whole.
fn parse(bytes: &[u8], ended: bool) -> anyhow::Result<Option<Answer>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end])?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("a status line")?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').context("a header field")?;
        headers.append(HeaderName::try_from(name)?, HeaderValue::from_str(value.trim())?);
    }
    let body = &bytes[end + 4..];
    let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
    if !ended && length.is_none_or(|length: usize| body.len() < length) {
        return Ok(None);
    }
    let body = Bytes::copy_from_slice(body);
    Ok(Some(Answer { status: status.parse()?, headers, body }))
}
