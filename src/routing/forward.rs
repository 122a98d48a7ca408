//! The hop: one request, carried whole to the primary region's internal listener.
//!
//! What was certainly not sent is tried again freely. What may have been sent is tried again only
//! if repeating it changes nothing: reads, and writes with a key (`shared/postgres.md` lesson 13).
//! A read whose answer is only late is not: the primary would do the same work again, for nobody.
//! When the time is up and a write may have been sent, its outcome is *unknown*, and said to be.
//! Dropping the future abandons the hop; the primary may still finish it.

use super::{
    breaker::{Breaker, BreakerState, HopOutcome, Pass},
    envelope::{self, Bearer, Envelope, Sealer},
};
use crate::{
    config::{BreakerConfig, Config},
    telemetry::metrics::{ForwardOutcome, Metrics, PeerMetrics},
    topology::probe::{self, Connect, ProbeError},
    vocab::{Bookmark, Epoch, IdempotencyKey, Op, Region, problem_kind, rng},
};
use bytes::Bytes;
use futures_util::{Stream, future::join_all, stream};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Connections kept to each peer. One would put all forwarded requests of a region on one thread
/// of the primary, because a listener gives a connection to one worker.
const CONNECTIONS: usize = 4;

/// Longest wait for one to be opened before it is needed.
const PREPARE: Duration = Duration::from_secs(1);

/// Answers up to this long are read whole before they are passed on, so that an answer that breaks
/// off can be asked for again; longer ones are streamed.
const WHOLE_BYTES_MAX: u64 = 64 * 1024;

/// Sends of one request, the first included.
const ATTEMPTS_MAX: u32 = 3;

/// A request to carry.
#[derive(Debug)]
pub struct Outgoing {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Only what the handlers need; never a credential.
    pub headers: Vec<(&'static str, Vec<u8>)>,
    pub body: Bytes,
    pub bearer: Bearer,
    /// Every write has one.
    pub key: Option<IdempotencyKey>,
    pub bookmark: Option<Bookmark>,
    pub consistency: String,
    pub traceparent: String,
}

/// An answer on its way back.
pub struct Incoming {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Body,
}

impl Incoming {
    fn is_of_this_attempt(&self) -> bool {
        is_of_this_attempt(self.status, self.problem().as_deref())
    }

    fn is_of_an_ending_process(&self) -> bool {
        self.status == 421 && self.headers.iter().any(|(name, _)| name == probe::ENDING)
    }

    /// The name of the problem that a refusal is, when its body is at hand.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Problem {
            r#type: String,
        }
        let Body::Whole(bytes) = &self.body else {
            return None;
        };
        let refusal = (self.status >= 400).then_some(bytes)?;
        let problem: Problem = serde_json::from_slice(refusal).ok()?;
        problem_kind(&problem.r#type).map(str::to_owned)
    }

    /// Does the primary say that a request with this key is under way?
    fn is_in_flight(&self) -> bool {
        self.status == 409 && self.problem().as_deref() == Some("idempotency-in-flight")
    }
}

/// Does an answer tell of the attempt it answers only, and not of the write? It may then have been
/// carried out by an attempt before. So it is with all that is judged before the journal is asked
/// and can change meanwhile: the write itself may have ended the credential.
#[must_use]
pub fn is_of_this_attempt(status: u16, problem: Option<&str>) -> bool {
    matches!(status, 401 | 403 | 408 | 421 | 429 | 500..=599)
        || problem.is_some_and(|problem| problem.starts_with("bookmark-"))
}

pub enum Body {
    Whole(Bytes),
    Stream(std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, HopError>>>>),
}

/// Why nothing, or nothing certain, came back.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("{0} is not among the configured regions")]
    UnknownPeer(Region),
    #[error("the breaker to {0} is open")]
    BreakerOpen(Region),
    /// Nothing was sent, or repeating it would change nothing: it had no effect.
    #[error("no answer from {peer}")]
    NoAnswer { peer: Region, source: HopError },
    /// An earlier attempt of ours has not ended yet.
    #[error("{peer} is still at work on the write")]
    StillUnderWay { peer: Region },
    /// It may have been carried out.
    #[error("no answer from {peer} to a write that was sent")]
    Unknown { peer: Region, source: HopError },
}

#[derive(Debug, thiserror::Error)]
pub enum HopError {
    /// Over a connection that, for all we know, is in order: see [`peer_client`] on one that is not.
    #[error("nothing came in time")]
    TimedOut,
    #[error("the connection failed")]
    Broken(#[source] reqwest::Error),
}

impl HopError {
    /// Was the request certainly not sent?
    fn is_unsent(&self) -> bool {
        matches!(self, Self::Broken(error) if error.is_connect())
    }
}

type Clients = Arc<[reqwest::Client]>;

struct Peer {
    base: String,
    /// Each keeps a connection of its own.
    clients: Mutex<Clients>,
    connect: Box<dyn Fn() -> Result<Clients, ProbeError> + Send + Sync>,
    next: AtomicUsize,
    breaker: Breaker,
    metrics: PeerMetrics,
}

impl Peer {
    fn clients(&self) -> Clients {
        Arc::clone(&self.clients.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens new connections for all that is sent from now on, unless that has been done since
    /// `old`. What is under way on the old ones is finished there.
    fn leave(&self, old: &Clients) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&clients, old) {
            return;
        }
        match (self.connect)() {
            Ok(new) => *clients = new,
            // The old ones still reach the processes that go on.
            Err(error) => tracing::warn!(error = %error, "no new connections to a peer"),
        }
    }

    fn note(
        &self,
        pass: Pass<'_>,
        began: Instant,
        ended: Instant,
        result: &Result<Incoming, HopError>,
    ) {
        let counted = match result {
            Ok(_) => {
                pass.report(ended, HopOutcome::Answered);
                ForwardOutcome::Answered
            }
            // A peer that is gone leaves a ping unanswered too, which breaks the connection, and the
            // watcher's probes. One that is only slow with this is no reason to stop all.
            Err(HopError::TimedOut) => {
                drop(pass);
                ForwardOutcome::TimedOut
            }
            Err(HopError::Broken(_)) => {
                pass.report(ended, HopOutcome::Failed);
                ForwardOutcome::Failed
            }
        };
        self.metrics.forwarded(counted, Some(ended.saturating_duration_since(began)));
    }
}

/// The hops to every peer. Shared by all requests of a process.
pub struct Forwarder {
    region: Region,
    sealer: Sealer,
    /// Longest silence in the midst of an answer that is passed on as it comes.
    idle: Duration,
    peers: BTreeMap<Region, Peer>,
}

impl Forwarder {
    /// # Errors
    /// When the certificates for peers cannot be used.
    pub fn new(config: &Config, connect: &Connect, metrics: &Metrics) -> Result<Self, ProbeError> {
        let breaker: &BreakerConfig = &config.routing.breaker;
        let mut peers = BTreeMap::new();
        for (region, peer) in config.peers() {
            let connect = Arc::clone(connect);
            let connect =
                move || (0..CONNECTIONS).map(|_| connect()).collect::<Result<Clients, _>>();
            peers.insert(
                region.clone(),
                Peer {
                    base: peer.internal_url.trim_end_matches('/').to_owned(),
                    clients: Mutex::new(connect()?),
                    connect: Box::new(connect),
                    next: AtomicUsize::new(0),
                    breaker: Breaker::new(breaker.clone()),
                    metrics: metrics.peer(region),
                },
            );
        }
        let sealer = Sealer::new(&config.cluster, config.routing.envelope_seconds_max);
        // A peer has no reason to be silent for as long as a whole request may take.
        let idle = Duration::from_millis(config.routing.request_ms_max);
        Ok(Self { region: config.region.clone(), sealer, idle, peers })
    }

    #[must_use]
    pub fn breaker_state(&self, region: &Region, now: Instant) -> Option<BreakerState> {
        self.peers.get(region).map(|peer| peer.breaker.state(now))
    }

    /// The watcher heard from this peer.
    pub fn probe_answered(&self, region: &Region, now: Instant) {
        if let Some(peer) = self.peers.get(region) {
            peer.breaker.probe_answered(now);
        }
    }

    /// Opens the connections to a peer that is about to take the writes, which would else wait for that:
    /// a round trip, or two with TLS.
    pub async fn prepare(&self, region: &Region) {
        let Some(peer) = self.peers.get(region) else { return };
        let clients = peer.clients();
        let opened = clients.iter().map(|client| probe::ask(client, &peer.base, PREPARE));
        // What cannot be opened now is opened when it is needed.
        join_all(opened).await;
    }

    #[must_use]
    pub const fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Carries `request` to `to`, the primary of `epoch`, within the operation's deadline.
    ///
    /// # Errors
    /// See [`ForwardError`]: whether it may have had an effect is always told.
    pub async fn send(
        &self,
        to: &Region,
        epoch: Epoch,
        request: &Outgoing,
        op: &Op,
    ) -> Result<Incoming, ForwardError> {
        let peer = self.peers.get(to).ok_or_else(|| ForwardError::UnknownPeer(to.clone()))?;
        let digest = envelope::body_digest(&request.body);
        let read = matches!(request.method.as_str(), "GET" | "HEAD");
        // Why an attempt failed that may have been carried out.
        let mut maybe_done: Option<HopError> = None;
        let mut attempt = 1;
        loop {
            let began = op.clock.monotonic();
            let Some(pass) = peer.breaker.admit(began) else {
                peer.metrics.forwarded(ForwardOutcome::Refused, None);
                return Err(match maybe_done {
                    Some(source) => ForwardError::Unknown { peer: to.clone(), source },
                    None => ForwardError::BreakerOpen(to.clone()),
                });
            };
            let sealed = self.seal(to, epoch, request, &digest, op);
            let patience = if read { op.remaining() } else { patience(op, attempt) };
            let clients = peer.clients();
            let client = &clients[peer.next.fetch_add(1, Ordering::Relaxed) % clients.len()];
            let result =
                attempt_once(client, &peer.base, request, &sealed, patience, self.idle).await;
            peer.note(pass, began, op.clock.monotonic(), &result);
            let error = match result {
                // Our own earlier attempt is still at work: its answer is the one to wait for.
                Ok(incoming) if attempt > 1 && incoming.is_in_flight() => {
                    let pause = Duration::from_millis(50 + rng::below(&*op.rng, 50));
                    if op.remaining() <= pause * 2 {
                        return Err(ForwardError::StillUnderWay { peer: to.clone() });
                    }
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Ok(incoming) if incoming.is_of_an_ending_process() && attempt < ATTEMPTS_MAX => {
                    peer.leave(&clients);
                    attempt += 1;
                    continue;
                }
                Ok(incoming) => match maybe_done {
                    Some(source) if incoming.is_of_this_attempt() => {
                        return Err(ForwardError::Unknown { peer: to.clone(), source });
                    }
                    _ => return Ok(incoming),
                },
                Err(error) => error,
            };
            let sent = !error.is_unsent();
            let repeatable = match &error {
                HopError::TimedOut => request.key.is_some() && !read,
                HopError::Broken(_) => read || request.key.is_some() || !sent,
            };
            let pause = Duration::from_millis(50 * u64::from(attempt) + rng::below(&*op.rng, 50));
            if attempt == ATTEMPTS_MAX || !repeatable || op.remaining() <= pause * 2 {
                let (peer, source) = (to.clone(), error);
                return Err(if !read && (sent || maybe_done.is_some()) {
                    ForwardError::Unknown { peer, source }
                } else {
                    ForwardError::NoAnswer { peer, source }
                });
            }
            if sent && !read {
                maybe_done = Some(error);
            }
            attempt += 1;
            tokio::time::sleep(pause).await;
        }
    }

    fn seal(&self, to: &Region, epoch: Epoch, request: &Outgoing, digest: &str, op: &Op) -> String {
        self.sealer.seal(&Envelope {
            from: self.region.clone(),
            to: to.clone(),
            epoch,
            method: request.method.clone(),
            path: request.path.clone(),
            body: digest.to_owned(),
            bearer: request.bearer.clone(),
            key: request.key.clone(),
            bookmark: request.bookmark,
            consistency: request.consistency.clone(),
            remaining_ms: u64::try_from(op.remaining().as_millis()).unwrap_or(u64::MAX),
            sealed_at: op.now(),
        })
    }
}

/// All the time there is for the last attempt of a write, half of it for each before, so that an
/// answer that was lost leaves time to ask for it again.
fn patience(op: &Op, attempt: u32) -> Duration {
    let remaining = op.remaining();
    if attempt == ATTEMPTS_MAX { remaining } else { remaining / 2 }
}

/// Sends the request once. `patience` is for what comes before anything is passed on: the head of
/// the answer, and all of an answer that is read whole.
async fn attempt_once(
    client: &reqwest::Client,
    base: &str,
    request: &Outgoing,
    sealed: &str,
    patience: Duration,
    idle: Duration,
) -> Result<Incoming, HopError> {
    let method = request.method.parse().unwrap_or(reqwest::Method::GET);
    let mut builder = client
        .request(method, format!("{base}{}", request.path))
        .header(envelope::HEADER, sealed)
        .header("traceparent", &request.traceparent);
    for (name, value) in &request.headers {
        builder = builder.header(*name, value.as_slice());
    }
    if !request.body.is_empty() {
        builder = builder.body(request.body.clone());
    }
    let arriving = async {
        let answer = builder.send().await.map_err(HopError::Broken)?;
        let status = answer.status().as_u16();
        let headers = answer.headers().iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
        let body = if answer.content_length().is_some_and(|length| length <= WHOLE_BYTES_MAX) {
            Body::Whole(answer.bytes().await.map_err(HopError::Broken)?)
        } else {
            Body::Stream(Box::pin(streamed(answer, idle)))
        };
        Ok(Incoming { status, headers, body })
    };
    tokio::time::timeout(patience, arriving).await.unwrap_or(Err(HopError::TimedOut))
}

/// The rest of an answer as it comes, for as long as the client takes to read it: each chunk has
/// its own time. Ends after the first failure: a broken body is never taken for a whole one.
fn streamed(
    answer: reqwest::Response,
    idle: Duration,
) -> impl Stream<Item = Result<Bytes, HopError>> {
    stream::unfold(Some(answer), move |answer| async move {
        let mut answer = answer?;
        let next = match tokio::time::timeout(idle, answer.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk?),
            Ok(Err(error)) => Err(HopError::Broken(error)),
            Err(_) => Err(HopError::TimedOut),
        };
        let rest = next.is_ok().then_some(answer);
        Some((next, rest))
    })
}

#[cfg(test)]
mod tests;
