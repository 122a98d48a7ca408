//! A receiver of OTLP over HTTP (protobuf), as far as it takes to keep spans.

use crate::harness;
use anyhow::Context as _;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span,
};
use prost::Message as _;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A span, and the region whose process exported it.
#[derive(Debug, Clone)]
pub struct Received {
    pub region: String,
    pub span: Span,
}

pub struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Collector {
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        harness::background(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                // One that breaks off has lost what it was sending, as its sender can tell.
                connections.spawn(async move { drop(serve(stream, &kept).await) });
            }
        });
        Ok(Self { address, received })
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// All spans of one trace so far.
    pub fn spans(&self, trace_id: [u8; 16]) -> Vec<Received> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.iter().filter(|one| one.span.trace_id == trace_id).cloned().collect()
    }
}

async fn serve(stream: TcpStream, kept: &Mutex<Vec<Received>>) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let Some((name, value)) = line.split_once(':') else {
                if line.trim().is_empty() {
                    break;
                }
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let export = ExportTraceServiceRequest::decode(&*body).context("an OTLP export")?;
        kept.lock().unwrap_or_else(PoisonError::into_inner).extend(spans(export));
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn spans(export: ExportTraceServiceRequest) -> impl Iterator<Item = Received> {
    export.resource_spans.into_iter().flat_map(|of_resource| {
        of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| Received {
            region: attribute(&span, "godwit.region").unwrap_or_default(),
            span,
        })
    })
}

/// A text attribute of a span.
pub fn attribute(span: &Span, name: &str) -> Option<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}
