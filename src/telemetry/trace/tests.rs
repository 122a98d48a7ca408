use super::*;
use crate::{
    telemetry::export,
    vocab::{OpKind, rng::SeededRng},
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message as _;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    time::Duration,
};

const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn op() -> Op {
    Op::system(OpKind::Test, Duration::from_secs(5))
}

#[test]
fn reads_what_the_recommendation_allows_and_nothing_else() {
    let parsed = TraceContext::parse(HEADER).unwrap();
    assert_eq!(parsed.to_string(), HEADER);
    assert!(parsed.sampled);
    let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert!(TraceContext::parse(later).is_some());
    assert!(TraceContext::parse(&format!("{later}-what-comes")).is_some());
    for bad in [
        "",
        "00",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        "00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what",
        "00-é0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
    ] {
        assert_eq!(TraceContext::parse(bad), None, "{bad}");
    }
}

#[test]
fn without_an_endpoint_nothing_records_and_the_callers_choice_travels_on() {
    let tracer = Tracer::off();
    let caller = TraceContext::parse(HEADER).unwrap();
    let span = tracer.request(&op(), Some(caller));
    assert!(!span.is_recording());
    assert!(span.context().sampled && span.context().trace_id == caller.trace_id);
    assert_ne!(span.context().span_id, caller.span_id);
    assert!(!tracer.request(&op(), None).context().sampled);
}

proptest! {
    #[test]
    fn survives_its_own_spelling(seed: u64, sampled: bool) {
        let rng = SeededRng::new(seed);
        let context = TraceContext::root(&rng, sampled);
        prop_assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
        let child = context.child(&rng);
        prop_assert_eq!(TraceContext::parse(&child.to_string()), Some(child));
    }

    #[test]
    fn never_panics(header in "\\PC{0,70}") {
        let _ = TraceContext::parse(&header);
    }
}

/// Answers one export over HTTP and gives what it carried.
fn receive_one(listener: &TcpListener) -> ExportTraceServiceRequest {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    reader
        .get_mut()
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .unwrap();
    ExportTraceServiceRequest::decode(&*body).unwrap()
}

#[test]
fn the_ids_we_hand_on_are_those_of_the_exported_spans() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let region = "ap-south-1".parse().unwrap();
    let counts = Arc::default();
    let tracer =
        Tracer::exporting(export::start(&endpoint, &region, Arc::clone(&counts)).unwrap(), 1.0);

    let op = op();
    let request = tracer.request(&op, TraceContext::parse(HEADER));
    let mut hop = request.child(&op, Kind::Client, "forward.request.send");
    hop.set("server.address", "us-east-1");
    let (request_context, hop_context) = (request.context(), hop.context());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let inner =
        runtime.block_on(request.scope(async { span(&op, Kind::Internal, "storage.items.read") }));
    assert!(inner.is_some());
    drop((inner, hop, request));
    // A scope, because shutting down waits for the collector's answer.
    let exported = std::thread::scope(|threads| {
        let collector = threads.spawn(|| receive_one(&listener));
        tracer.shut_down();
        collector.join().unwrap()
    });
    let resource = &exported.resource_spans[0];
    let mut attributes: Vec<_> =
        resource.resource.iter().flat_map(|r| &r.attributes).map(|a| a.key.as_str()).collect();
    attributes.sort_unstable();
    assert_eq!(attributes, ["godwit.region", "service.name", "service.version"]);
    let spans = &resource.scope_spans[0].spans;
    let find = |name: &str| spans.iter().find(|s| s.name == name).unwrap();
    assert_eq!(find("http.request").span_id, request_context.span_id);
    assert_eq!(find("http.request").parent_span_id, TraceContext::parse(HEADER).unwrap().span_id);
    assert_eq!(find("forward.request.send").span_id, hop_context.span_id);
    assert_eq!(find("forward.request.send").parent_span_id, request_context.span_id);
    assert_eq!(find("storage.items.read").parent_span_id, request_context.span_id);
    assert!(spans.iter().all(|s| s.trace_id == request_context.trace_id));
    assert_eq!(counts.exported.load(std::sync::atomic::Ordering::Relaxed), 3);
}
