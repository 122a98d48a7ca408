//! Telemetry: logs, traces and every metric, declared in one place each.
//!
//! What it promises: nothing here blocks a request. Log lines and spans go into bounded queues;
//! what does not fit, because standard output or the collector is slow or gone, is dropped and
//! counted (`godwit_log_lines_dropped_total`, `godwit_spans_exported_total{outcome="failed"}`).
//! Lines are JSON, so that no value can forge another line. Counters start at zero.
//!
//! What it refuses: label values from callers. A route is its template, a status one of the
//! three-digit codes, all else comes from an enum or from the settings.

pub mod metrics;
pub mod trace;
pub mod wide;

mod export;

pub use metrics::Metrics;
pub use trace::{Span, TraceContext, Tracer};
pub use wide::{RequestEvent, RequestLog};

use crate::{config::TelemetryConfig, vocab::Region};
use export::SpanCounts;
use std::{
    io::{BufWriter, Write},
    sync::Arc,
    time::Duration,
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How log lines look, and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON lines on standard output: `serve`, where the log is the output.
    Json,
    /// Words on standard error: commands, whose standard output is facts.
    Text,
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("telemetry.log is not a list of filter directives")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("this process has its logging already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    #[error("the trace exporter for telemetry.otlp_endpoint cannot be made")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// What the rooms use. Cheap to clone.
#[derive(Clone, Default)]
pub struct Telemetry {
    pub tracer: Tracer,
    pub requests: RequestLog,
    pub(in crate::telemetry) lines_dropped: Option<ErrorCounter>,
    pub(in crate::telemetry) spans: Arc<SpanCounts>,
}

impl Telemetry {
    /// Without logs or traces, for tests.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }
}

/// Flushes what is queued when dropped; the last thing a command drops, outside the runtime.
/// Bounded: about a second for the log, five for the traces.
#[must_use = "dropping it ends logging"]
pub struct Guard {
    telemetry: Telemetry,
    _lines: WorkerGuard,
}

impl Guard {
    #[must_use]
    pub fn telemetry(&self) -> Telemetry {
        self.telemetry.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Before the lines' own guard, which goes after this body: an export can still log.
        self.telemetry.tracer.shut_down();
    }
}

/// Lines kept for a reader that has fallen behind: some seconds of full load, and about 20 MB.
const LINES_QUEUED_MAX: usize = 32_768;
/// One write to the operating system carries up to this much.
const WRITE_BYTES: usize = 64 * 1024;

/// actix calls it an error when a client sends what is no request or hangs up: nobody must look at
/// that. kube does of each of its tries that fails: whoever asked tells of the last. The settings can bring them
/// back with the same targets.
const PEERS_DOING: &str = "actix_http=off,kube_client=off";

/// Starts logging for the whole process, panics included, and traces when an endpoint is set.
///
/// # Errors
/// When the filter cannot be read, logging has been started before, or the exporter cannot be made.
pub fn init(
    config: &TelemetryConfig,
    region: &Region,
    format: Format,
) -> Result<Guard, TelemetryError> {
    let filter = EnvFilter::builder().parse(format!("{PEERS_DOING},{}", config.log))?;
    let (writer, lines) = match format {
        Format::Json => queue(std::io::stdout()),
        Format::Text => queue(std::io::stderr()),
    };
    let telemetry = Telemetry {
        tracer: Tracer::off(),
        requests: RequestLog::new(writer.clone()),
        lines_dropped: Some(writer.error_counter()),
        spans: Arc::default(),
    };
    let base = tracing_subscriber::registry().with(filter);
    match format {
        Format::Json => base.with(json_layer(writer)).try_init()?,
        Format::Text => base.with(fmt::layer().with_ansi(false).with_writer(writer)).try_init()?,
    }
    let tracer = match &config.otlp_endpoint {
        Some(endpoint) => {
            let exporter = export::start(endpoint, region, Arc::clone(&telemetry.spans))?;
            Tracer::exporting(exporter, config.sample_ratio)
        }
        None => Tracer::off(),
    };
    std::panic::set_hook(Box::new(log_panic));
    Ok(Guard { telemetry: Telemetry { tracer, ..telemetry }, _lines: lines })
}

/// In the log's own format, rather than as loose lines between.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("without a message");
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    tracing::error!(target: "panic", { location, thread }, "{message}");
}

/// How long the log's thread rests after each write. Lines gather meanwhile and go out as one write,
/// and queueing a line has nobody to wake: under load that halves what a line costs. An idle
/// process still writes each line at once.
const REST: Duration = Duration::from_millis(5);

/// Writes what has been gathered, then rests.
struct Resting<W: Write>(BufWriter<W>);

impl<W: Write> Write for Resting<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }
    /// The log's thread calls it when its queue is empty.
    fn flush(&mut self) -> std::io::Result<()> {
        let flushed = self.0.flush();
        std::thread::park_timeout(REST);
        flushed
    }
}

/// The writer's thread gathers what is queued and writes it at once.
fn queue(to: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_QUEUED_MAX)
        .thread_name("godwit-log")
        .finish(Resting(BufWriter::with_capacity(WRITE_BYTES, to)))
}

fn json_layer<S, W>(writer: W) -> impl tracing_subscriber::Layer<S> + Send + Sync
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    fmt::layer().json().with_current_span(false).with_span_list(false).with_writer(writer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, PoisonError};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_value_with_line_breaks_and_quotes_stays_one_line() {
        let sink = Shared::default();
        let (writer, guard) = queue(sink.clone());
        let subscriber = tracing_subscriber::registry().with(json_layer(writer));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "request", name = "a\n{\"level\":\"ERROR\"}\r\u{2028}", "hello");
        });
        drop(guard);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.trim_end().lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<_> = line.as_object().unwrap().keys().collect();
        // The same outer keys as `wide` writes.
        assert_eq!(keys, ["fields", "level", "target", "timestamp"]);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_nobody_waits() {
        struct Stuck(std::sync::mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.recv().ok();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(4);
        let (mut writer, guard) = builder.finish(Stuck(held));
        for _ in 0..100 {
            writer.write_all(b"line\n").unwrap();
        }
        assert!(writer.error_counter().dropped_lines() >= 95);
        drop(release);
        drop(guard);
    }
}
