//! HTTP/1.1 as far as it takes to stand in for a server that Godwit calls.

use crate::harness;
use std::{future::Future, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

#[derive(Debug, Default)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub authorization: String,
    pub body: Vec<u8>,
}

pub struct Answer {
    pub status: u16,
    pub kind: &'static str,
    pub body: String,
}

/// Answers on a port of its own for as long as the run lasts.
pub async fn listen<F, A>(answer: F) -> anyhow::Result<SocketAddr>
where
    F: Fn(Asked) -> A + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let answer = Arc::new(answer);
    harness::background(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            // One that breaks off has lost what it was sending, as its sender can tell.
            connections.spawn(async move { drop(serve(stream, &*answer).await) });
        }
    });
    Ok(address)
}

async fn serve<A>(stream: TcpStream, answer: &(impl Fn(Asked) -> A + Sync)) -> anyhow::Result<()>
where
    A: Future<Output = Answer> + Send,
{
    let mut stream = BufReader::new(stream);
    loop {
        let mut asked = Asked::default();
        let mut first = String::new();
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        let mut words = first.split_whitespace().map(str::to_owned);
        asked.method = words.next().unwrap_or_default();
        asked.path = words.next().unwrap_or_default();
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            } else if name.eq_ignore_ascii_case("authorization") {
                value.trim().clone_into(&mut asked.authorization);
            }
        }
        asked.body = vec![0; length];
        stream.read_exact(&mut asked.body).await?;
        let Answer { status, kind, body } = answer(asked).await;
        let head = format!(
            "HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
    }
}
