use super::*;
use crate::{config::Config, telemetry::Telemetry, vocab::OpKind};
use std::io::Write as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// A forwarder of eu-west-1 whose only peer, us-east-1, is at this port. Its breaker opens at the
/// first failure.
fn forwarder(port: u16) -> (Forwarder, Region) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(
        file,
        r#"region = "eu-west-1"
        [regions.eu-west-1]
        internal_url = "http://127.0.0.1:1"
        [regions.us-east-1]
        internal_url = "http://127.0.0.1:{port}"
        [database]
        url = "postgres://writer:w@127.0.0.1/godwit"
        read_url = "postgres://reader:r@127.0.0.1/godwit"
        [redis]
        url = "redis://127.0.0.1:6381"
        [cluster]
        envelope_key_current = "k1"
        [cluster.envelope_keys.k1]
        secret = "0123456789abcdef0123456789abcdef"
        [routing.breaker]
        failure_percent = 1
        requests_min = 1"#
    )
    .unwrap();
    let config = Config::load_from(Some(file.path()), std::iter::empty()).unwrap();
    let metrics = Metrics::new(&config.region, &Telemetry::off());
    (Forwarder::new(&config, &metrics).unwrap(), "us-east-1".parse().unwrap())
}

fn request(method: &str, key: Option<&str>) -> Outgoing {
    Outgoing {
        method: method.to_owned(),
        path: "/v1/collections/books/items".to_owned(),
        headers: Vec::new(),
        body: Bytes::from_static(b"{}"),
        bearer: Bearer::Unresolved { hash: "00".repeat(32) },
        key: key.map(|key| key.parse().unwrap()),
        bookmark: None,
        consistency: "session".to_owned(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    }
}

fn op() -> Op {
    Op::system(OpKind::Test, Duration::from_secs(5))
}

/// Takes each request (RFC 9113, section 4.1: its HEADERS frame) and hangs up. Ends when dropped.
async fn take_and_hang_up(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        // Our SETTINGS, empty: a client may wait for them.
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.unwrap();
            if head[3] == 1 {
                break;
            }
        }
    }
}

/// What becomes of a request whose peer takes it and hangs up.
async fn hung_up_on(request: Outgoing) -> ForwardError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (forwarder, peer) = forwarder(listener.local_addr().unwrap().port());
    let op = op();
    let error = tokio::select! {
        outcome = forwarder.send(&peer, Epoch::FIRST, &request, &op) => {
            outcome.err().expect("nobody answers")
        }
        () = take_and_hang_up(listener) => unreachable!("it accepts for ever"),
    };
    assert_eq!(
        forwarder.breaker_state(&peer, op.clock.monotonic()),
        Some(BreakerState::Open),
        "the first failure opens the breaker, so the second attempt is not let through"
    );
    error
}

#[tokio::test]
async fn a_write_that_was_sent_is_unknown_though_the_breaker_opens_before_it_is_sent_again() {
    let error = hung_up_on(request("POST", Some("key-1"))).await;
    assert!(matches!(error, ForwardError::Unknown { .. }), "{error:?}");
}

#[tokio::test]
async fn a_read_that_was_sent_had_no_effect() {
    let error = hung_up_on(request("GET", None)).await;
    assert!(matches!(error, ForwardError::BreakerOpen(_)), "{error:?}");
}

#[tokio::test]
async fn a_write_that_could_not_be_sent_had_no_effect() {
    let deserted = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (forwarder, peer) = forwarder(deserted);
    let outcome = forwarder.send(&peer, Epoch::FIRST, &request("POST", Some("key-1")), &op()).await;
    let error = outcome.err().expect("nobody listens");
    assert!(matches!(error, ForwardError::BreakerOpen(_)), "{error:?}");
}
