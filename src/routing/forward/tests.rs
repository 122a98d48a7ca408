use super::*;
use crate::{config::testing, telemetry::Telemetry, topology::probe::peer_client, vocab::OpKind};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A forwarder of eu-west-1 whose only peer, us-east-1, is at this port. Its breaker opens at the
/// first failure.
fn forwarder(port: u16) -> (Forwarder, Region) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let home = testing::MINIMAL.replacen("us-east-1", "eu-west-1", 2);
    let config = testing::config(&format!(
        r#"{home}
        [regions.us-east-1]
        internal_url = "http://127.0.0.1:{port}"
        [routing.breaker]
        failure_percent = 1
        requests_min = 1"#
    ));
    let metrics = Metrics::new(&config.region, &Telemetry::off());
    let routing = config.routing.clone();
    let connect: Connect = Arc::new(move || peer_client(&routing, None));
    (Forwarder::new(&config, &connect, &metrics).unwrap(), "us-east-1".parse().unwrap())
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

/// Long enough for a request to reach a peer on this machine, short enough to be waited out.
fn hasty() -> Op {
    Op::system(OpKind::Test, Duration::from_millis(1_500))
}

/// Returns once the operation's time is up.
async fn time_is_up(op: &Op) {
    while !op.remaining().is_zero() {
        tokio::task::yield_now().await;
    }
}

// Frames and their flags: RFC 9113, sections 4.1 and 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200`, from the static table (RFC 7541, appendix A).
const OK: &[u8] = &[0x88];
/// `:status` as a literal, 8 in that table.
const UNAUTHORIZED: &[u8] = b"\x08\x03401";
const FORBIDDEN: &[u8] = b"\x08\x03403";
/// `content-length: 10`, 28 in that table.
const TEN_BYTES: &[u8] = b"\x0f\x0d\x0210";

/// The primary's end of a connection, frame by frame.
struct Far(TcpStream);

impl Far {
    async fn accept(listener: &TcpListener) -> Self {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        let mut this = Self(stream);
        // Ours, empty: a client may wait for them. Theirs take effect when we say so.
        this.frame(SETTINGS, 0, 0, &[]).await;
        this.frame(SETTINGS, ACK, 0, &[]).await;
        this
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// The stream of the next request, as soon as its head is here. None when the client hung up.
    async fn request(&mut self) -> Option<u32> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            if head[3] == HEADERS {
                return Some(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
            }
        }
    }

    async fn head(&mut self, stream: u32, fields: &[&[u8]]) {
        self.frame(HEADERS, END_HEADERS, stream, &fields.concat()).await;
    }
}

/// Takes each request and hangs up. Ends when dropped.
async fn take_and_hang_up(listener: TcpListener) {
    loop {
        Far::accept(&listener).await.request().await.expect("a request");
    }
}

/// Takes each request and does with it as told by its number, from 1. Ends when dropped.
async fn take(listener: TcpListener, requests: &AtomicUsize, act: impl AsyncFn(Far, u32, usize)) {
    let mut serving = FuturesUnordered::new();
    loop {
        tokio::select! {
            peer = Far::accept(&listener) => serving.push(async {
                let mut peer = peer;
                let stream = peer.request().await.expect("a request");
                act(peer, stream, requests.fetch_add(1, Ordering::Relaxed) + 1).await;
            }),
            Some(()) = serving.next() => {}
        }
    }
}

/// Never answers, and keeps the connection.
async fn silence(_peer: Far, _stream: u32, _number: usize) {
    std::future::pending::<()>().await;
}

struct Sent {
    outcome: Result<Incoming, ForwardError>,
    breaker: Option<BreakerState>,
    requests: usize,
}

/// Sends to a peer that does as told.
async fn sent(
    request: Outgoing,
    op: impl FnOnce() -> Op,
    act: impl AsyncFn(Far, u32, usize),
) -> Sent {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (forwarder, peer) = forwarder(listener.local_addr().unwrap().port());
    let requests = AtomicUsize::new(0);
    // Its time begins once all is there.
    let op = op();
    let outcome = tokio::select! {
        outcome = forwarder.send(&peer, Epoch::FIRST, &request, &op) => outcome,
        () = take(listener, &requests, act) => unreachable!("it accepts for ever"),
    };
    let breaker = forwarder.breaker_state(&peer, op.clock.monotonic());
    Sent { outcome, breaker, requests: requests.into_inner() }
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

/// The body of an answer, up to where it ended or broke off.
async fn received(body: Body) -> (usize, Option<HopError>) {
    let Body::Stream(mut chunks) = body else { panic!("read whole") };
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => bytes += chunk.len(),
            Err(error) => {
                assert!(chunks.next().await.is_none(), "goes on after a failure");
                return (bytes, Some(error));
            }
        }
    }
    (bytes, None)
}

#[tokio::test]
async fn a_long_answer_may_take_longer_than_the_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (forwarder, peer) = forwarder(listener.local_addr().unwrap().port());
    let op = hasty();
    let answering = async {
        let mut far = Far::accept(&listener).await;
        let stream = far.request().await.expect("a request");
        far.head(stream, &[OK]).await;
        for _ in 0..8 {
            far.frame(DATA, 0, stream, &[b'x'; 16_000]).await;
        }
        time_is_up(&op).await;
        far.frame(DATA, END_STREAM, stream, &[b'x'; 16_000]).await;
        far
    };
    let request = request("GET", None);
    let asking = async {
        let answer = forwarder.send(&peer, Epoch::FIRST, &request, &op).await.ok().unwrap();
        received(answer.body).await
    };
    let (_far, (bytes, failure)) = tokio::join!(answering, asking);
    assert!(failure.is_none(), "{failure:?} after {bytes} bytes");
    assert_eq!(bytes, 9 * 16_000);
}

#[tokio::test]
async fn a_long_answer_that_falls_silent_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut forwarder, peer) = forwarder(listener.local_addr().unwrap().port());
    forwarder.idle = Duration::from_millis(50);
    let answering = async {
        let mut far = Far::accept(&listener).await;
        let stream = far.request().await.expect("a request");
        far.head(stream, &[OK]).await;
        far.frame(DATA, 0, stream, &[b'x'; 16_000]).await;
        far
    };
    let (request, op) = (request("GET", None), op());
    let asking = async {
        let answer = forwarder.send(&peer, Epoch::FIRST, &request, &op).await.ok().unwrap();
        received(answer.body).await
    };
    let (_far, (bytes, failure)) = tokio::join!(answering, asking);
    assert!(matches!(failure, Some(HopError::TimedOut)), "{failure:?}");
    assert_eq!(bytes, 16_000);
    assert!(!op.remaining().is_zero(), "it took all the time there was");
}

#[tokio::test]
async fn answers_that_nobody_reads_hold_up_no_other() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let client = peer_client(&crate::config::RoutingConfig::default(), None).unwrap();
    let mut far = None;
    let mut unread = Vec::new();
    // Each fills the window of its stream, all together more than 16 MiB.
    while unread.len() < 10 {
        let answering = async {
            let mut far = match far.take() {
                Some(far) => far,
                None => Far::accept(&listener).await,
            };
            let stream = far.request().await.expect("a request");
            far.head(stream, &[OK]).await;
            for _ in 0..131 {
                far.frame(DATA, 0, stream, &[b'x'; 16_000]).await;
            }
            far
        };
        let (answered, answer) = tokio::join!(answering, client.get(&url).send());
        far = Some(answered);
        unread.push(answer.unwrap());
    }
    let mut far = far.expect("connected");
    let answering = async {
        let stream = far.request().await.expect("a request");
        far.head(stream, &[OK, TEN_BYTES]).await;
        far.frame(DATA, END_STREAM, stream, b"0123456789").await;
    };
    let ((), answer) = tokio::join!(answering, client.get(&url).send());
    let answer = answer.unwrap();
    assert_eq!(answer.bytes().await.unwrap(), "0123456789");
}

/// An answer that is read whole, and stops in its midst.
async fn half_an_answer(mut far: Far, stream: u32, _number: usize) {
    far.head(stream, &[OK, TEN_BYTES]).await;
    far.frame(DATA, 0, stream, b"01234").await;
    silence(far, stream, 0).await;
}

#[tokio::test]
async fn a_read_that_is_answered_slowly_is_asked_once_and_trips_no_breaker() {
    for halfway in [false, true] {
        let sent = if halfway {
            sent(request("GET", None), hasty, half_an_answer).await
        } else {
            sent(request("GET", None), hasty, silence).await
        };
        let error = sent.outcome.err().expect("no answer");
        let slow = matches!(error, ForwardError::NoAnswer { source: HopError::TimedOut, .. });
        assert!(slow, "{error:?}");
        assert_eq!((sent.requests, sent.breaker), (1, Some(BreakerState::Closed)));
    }
}

#[tokio::test]
async fn a_write_that_is_answered_slowly_is_sent_again_and_trips_no_breaker() {
    let sent = sent(request("POST", Some("key-1")), hasty, silence).await;
    let error = sent.outcome.err().expect("no answer");
    let slow = matches!(error, ForwardError::Unknown { source: HopError::TimedOut, .. });
    assert!(slow, "{error:?}");
    assert_eq!(sent.breaker, Some(BreakerState::Closed));
    assert!(sent.requests > 1, "not sent again");
}

#[tokio::test]
async fn a_credential_refused_after_a_lost_answer_tells_nothing_of_the_write() {
    for refusal in [UNAUTHORIZED, FORBIDDEN] {
        let refuse_the_second = async |mut far: Far, stream, number| {
            if number > 1 {
                far.head(stream, &[refusal, TEN_BYTES]).await;
                far.frame(DATA, END_STREAM, stream, b"0123456789").await;
            }
            silence(far, stream, number).await;
        };
        let sent = sent(request("POST", Some("key-1")), hasty, refuse_the_second).await;
        let error = sent.outcome.err().expect("not known");
        assert!(matches!(error, ForwardError::Unknown { .. }), "{error:?}");
        assert_eq!(sent.requests, 2);
    }
}

#[tokio::test]
async fn a_process_that_is_about_to_end_is_left_for_whoever_takes_its_place() {
    const MISDIRECTED: &[u8] = b"\x08\x03421";
    const IS_ENDING: &[u8] = b"\x00\x0dgodwit-ending\x011";
    let act = async |mut far: Far, stream, number| {
        let head =
            if number == 1 { &[MISDIRECTED, IS_ENDING, TEN_BYTES][..] } else { &[OK, TEN_BYTES] };
        far.head(stream, head).await;
        far.frame(DATA, END_STREAM, stream, b"0123456789").await;
        silence(far, stream, number).await;
    };
    let sent = sent(request("POST", Some("key-1")), op, act).await;
    let answer = sent.outcome.expect("an answer");
    assert_eq!((answer.status, sent.requests), (200, 2));
}

#[tokio::test]
async fn who_is_next_is_connected_to_by_all_that_will_ask_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (forwarder, us) = forwarder(listener.local_addr().unwrap().port());
    let accepted = async {
        let mut kept = Vec::new();
        // None is closed, so that none is opened twice.
        while kept.len() < CONNECTIONS {
            kept.push(listener.accept().await.unwrap());
        }
    };
    tokio::select! {
        () = accepted => {}
        () = forwarder.prepare(&us) => panic!("not all were opened"),
    }
}
