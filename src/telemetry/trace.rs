//! Traces: W3C trace context (Recommendation of 2021-11-23) and the spans we export.
//!
//! A request always has a [`TraceContext`]; a [`Span`] records only when an endpoint is set and the
//! trace is sampled, and costs a few random bytes otherwise. Spans are made here rather than by
//! `tracing` spans, so that the ids we answer and forward are those of the exported spans.

use crate::vocab::{Op, Rng, SharedClock};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor as _,
};
use std::{fmt, sync::Arc, time::Instant};

/// Which trace a request belongs to, and the span within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// Whether the caller keeps this trace.
    pub sampled: bool,
}

impl TraceContext {
    /// A new trace.
    #[must_use]
    pub fn root(rng: &dyn Rng, sampled: bool) -> Self {
        let mut random = [0; 24];
        rng.fill(&mut random);
        let mut context = Self { trace_id: [0; 16], span_id: [0; 8], sampled };
        context.trace_id.copy_from_slice(&random[..16]);
        context.span_id.copy_from_slice(&random[16..]);
        // All zero means "none" in both ids.
        context.trace_id[15] |= u8::from(context.trace_id == [0; 16]);
        context.span_id[7] |= u8::from(context.span_id == [0; 8]);
        context
    }

    /// The same trace, another span.
    #[must_use]
    pub fn child(&self, rng: &dyn Rng) -> Self {
        let mut span_id = [0; 8];
        rng.fill(&mut span_id);
        span_id[7] |= u8::from(span_id == [0; 8]);
        Self { span_id, ..*self }
    }

    /// A `traceparent` header. `None` when it is not one, and then a new trace begins (section
    /// 3.2). A later version is read by the parts that version 00 has.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let bytes = header.as_bytes();
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        if bytes.len() < 55 || !dashes || !header.is_ascii() {
            return None;
        }
        let [version] = unhex(&header[..2])?;
        let whole = bytes.len() == 55 || (version > 0 && bytes[55] == b'-');
        let (trace_id, span_id) = (unhex(&header[3..35])?, unhex(&header[36..52])?);
        let [flags] = unhex(&header[53..55])?;
        if !whole || version == 0xFF || trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        Some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }

    #[must_use]
    pub fn trace_id_hex(&self) -> impl fmt::Display + use<> {
        Hex(self.trace_id)
    }
}

/// The header's value.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-0{}", Hex(self.trace_id), Hex(self.span_id), u8::from(self.sampled))
    }
}

struct Hex<const N: usize>([u8; N]);
impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        let text = &mut text[..N * 2];
        hex::encode_to_slice(self.0, text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(text).map_err(|_| fmt::Error)?)
    }
}

/// Lower case only, as the Recommendation demands.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

/// What a span is to its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answers a request.
    Server,
    /// Sends one.
    Client,
    /// Neither.
    Internal,
}

/// Makes spans. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tracer {
    exporting: Option<Arc<Exporting>>,
}

struct Exporting {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    /// New traces whose id's last seven bytes are below this are kept (OpenTelemetry's rule), so
    /// that every region decides alike.
    kept_below: u64,
}

tokio::task_local! {
    static CURRENT: (Tracer, TraceContext);
}

impl Tracer {
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a ratio of 0 to 1 of 2^56 fits"
    )]
    pub(super) fn exporting(processor: BatchSpanProcessor, sample_ratio: f64) -> Self {
        let kept_below = (sample_ratio.clamp(0.0, 1.0) * (1u64 << 56) as f64) as u64;
        let scope = InstrumentationScope::builder("godwit").build();
        Self { exporting: Some(Arc::new(Exporting { processor, scope, kept_below })) }
    }

    pub(super) fn shut_down(&self) {
        if let Some(exporting) = &self.exporting {
            // Best effort: what the collector does not take in time is lost, and it is only traces.
            exporting.processor.shutdown().ok();
        }
    }

    /// The span of a request that arrived with `incoming`. The caller's choice to sample is
    /// honoured; a new trace is sampled by the ratio.
    pub fn request(&self, op: &Op, incoming: Option<TraceContext>) -> Span {
        let context = if let Some(parent) = incoming {
            parent.child(&*op.rng)
        } else {
            let root = TraceContext::root(&*op.rng, false);
            let sampled = self.exporting.as_ref().is_some_and(|e| e.keeps(&root));
            TraceContext { sampled, ..root }
        };
        self.start(op, Kind::Server, "http.request", context, incoming.map(|parent| (parent, true)))
    }

    fn start(
        &self,
        op: &Op,
        kind: Kind,
        name: &'static str,
        context: TraceContext,
        parent: Option<(TraceContext, bool)>,
    ) -> Span {
        let exporting = self.exporting.clone().filter(|_| context.sampled);
        let recording = exporting.map(|exporting| {
            Box::new(Recording {
                exporting,
                clock: op.clock.clone(),
                started: op.clock.monotonic(),
                data: span_data(op, kind, name, context, parent),
            })
        });
        Span { context, recording }
    }
}

impl Exporting {
    fn keeps(&self, context: &TraceContext) -> bool {
        let mut last = [0; 8];
        last[1..].copy_from_slice(&context.trace_id[9..]);
        u64::from_be_bytes(last) < self.kept_below
    }
}

fn span_data(
    op: &Op,
    kind: Kind,
    name: &'static str,
    context: TraceContext,
    parent: Option<(TraceContext, bool)>,
) -> SpanData {
    let started_at = op.now().into();
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(context.trace_id),
            SpanId::from_bytes(context.span_id),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: parent.map_or(SpanId::INVALID, |(p, _)| SpanId::from_bytes(p.span_id)),
        parent_span_is_remote: parent.is_some_and(|(_, remote)| remote),
        span_kind: match kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Internal => SpanKind::Internal,
        },
        name: name.into(),
        start_time: started_at,
        end_time: started_at,
        attributes: vec![KeyValue::new("godwit.op.id", op.id.to_string())],
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}

/// One piece of a trace, from its making to its drop.
#[must_use = "a span ends when dropped"]
pub struct Span {
    context: TraceContext,
    recording: Option<Box<Recording>>,
}

struct Recording {
    exporting: Arc<Exporting>,
    clock: SharedClock,
    started: Instant,
    data: SpanData,
}

impl Span {
    /// What `traceparent` says when this span calls another or answers.
    #[must_use]
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Whether anything that is set here will be seen; ask before making a costly value.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// A span within this one: `forward.request.send`, `storage.items.create`.
    pub fn child(&self, op: &Op, kind: Kind, name: &'static str) -> Self {
        let tracer =
            Tracer { exporting: self.recording.as_ref().map(|r| Arc::clone(&r.exporting)) };
        let context = self.context.child(&*op.rng);
        tracer.start(op, kind, name, context, Some((self.context, false)))
    }

    pub fn set(&mut self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        if let Some(recording) = &mut self.recording {
            recording.data.attributes.push(KeyValue::new(key, value));
        }
    }

    /// Marks it failed. `reason` is ours, never the caller's text.
    pub fn fail(&mut self, reason: &'static str) {
        if let Some(recording) = &mut self.recording {
            recording.data.status = Status::error(reason);
        }
    }

    /// Runs `work` with this as the span that [`span`] hangs new ones on.
    pub async fn scope<F: Future>(&self, work: F) -> F::Output {
        match &self.recording {
            Some(recording) => {
                let tracer = Tracer { exporting: Some(Arc::clone(&recording.exporting)) };
                CURRENT.scope((tracer, self.context), work).await
            }
            None => work.await,
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(recording) = self.recording.take() {
            let Recording { exporting, clock, started, mut data } = *recording;
            data.end_time = data.start_time + clock.monotonic().saturating_duration_since(started);
            data.instrumentation_scope = exporting.scope.clone();
            exporting.processor.on_end(data);
        }
    }
}

/// A span within the task's current one ([`Span::scope`]), for rooms that are not handed one.
/// `None`, and nearly free, when nothing records.
#[must_use = "a span ends when dropped"]
pub fn span(op: &Op, kind: Kind, name: &'static str) -> Option<Span> {
    CURRENT
        .try_with(|(tracer, parent)| {
            tracer.start(op, kind, name, parent.child(&*op.rng), Some((*parent, false)))
        })
        .ok()
}

#[cfg(test)]
mod tests;
