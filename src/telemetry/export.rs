//! The way out for spans: OTLP over HTTP, in batches, from a thread of its own.

use crate::vocab::{Region, causes};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanProcessor as _},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Spans that left, and spans that the collector did not take.
#[derive(Debug, Default)]
pub(super) struct SpanCounts {
    pub(super) exported: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// Counts what becomes of each batch: the SDK itself keeps silent.
#[derive(Debug)]
struct Counted {
    inner: SpanExporter,
    counts: Arc<SpanCounts>,
}

impl opentelemetry_sdk::trace::SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let result = self.inner.export(batch).await;
        let count = if result.is_ok() { &self.counts.exported } else { &self.counts.failed };
        count.fetch_add(spans, Ordering::Relaxed);
        result
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Longest wait for the collector's answer; a batch that fails is dropped.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Spans wait this long for company at most.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// About 10 MB of spans; what does not fit is dropped.
const SPANS_QUEUED_MAX: usize = 8_192;

pub(super) fn start(
    endpoint: &str,
    region: &Region,
    counts: Arc<SpanCounts>,
) -> Result<BatchSpanProcessor, ExporterBuildError> {
    let mut client = reqwest::blocking::Client::builder().timeout(EXPORT_TIMEOUT);
    if endpoint.starts_with("http:") {
        // A machine without certificate authorities has none to load.
        client = client.tls_certs_only(std::iter::empty::<reqwest::Certificate>());
    }
    let client =
        client.build().map_err(|error| ExporterBuildError::InternalFailure(causes(&error)))?;
    let inner = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(SPANS_QUEUED_MAX)
        .with_scheduled_delay(BATCH_DELAY)
        .build();
    let mut processor = BatchSpanProcessor::new(Counted { inner, counts }, batches);
    // Empty first: the default one would read the environment, which is `config`'s alone.
    let resource = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", "godwit"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("godwit.region", region.as_str().to_owned()),
    ]);
    processor.set_resource(&resource.build());
    Ok(processor)
}
