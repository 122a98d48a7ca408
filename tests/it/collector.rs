//! A receiver of OTLP over HTTP (protobuf), as far as it takes to keep spans.

use crate::listener::{self, Answer};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span,
};
use prost::Message as _;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
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
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        let address = listener::listen(move |asked| {
            let export = ExportTraceServiceRequest::decode(&*asked.body);
            kept.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(export.into_iter().flat_map(spans));
            async { Answer { status: 200, kind: "application/x-protobuf", body: String::new() } }
        })
        .await?;
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
