//! Asking a peer about itself, and the HTTP client that regions speak to each other with.

use super::{
    ask::{self, Answer, Asked, Question},
    report::TopologyReport,
    seal::{Refused, Sealer},
    tls::{self, Tls, TlsError},
};
use crate::{
    config::{PeerTls, RoutingConfig},
    vocab::{Op, Region, causes},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Where a region's internal listener answers about the topology.
pub const PATH: &str = "/internal/v1/topology";

/// On the answer of a process that is about to end, has yet to start, or knows less than others of its region
/// may: whoever takes a new connection is to be asked from now on. With 421 it has done nothing of what was asked.
pub const ENDING: &str = "godwit-ending";

/// What regions speak to each other with: [`peer_client`] makes one.
pub type PeerClient = reqwest::Client;

/// Makes one whose connections are new.
pub type Connect = Arc<dyn Fn() -> Result<PeerClient, ProbeError> + Send + Sync>;

/// How often a question is put to another process, in the place of one that is about to end or has yet to start.
const OTHERS_MAX: u32 = 3;

/// A report is a few kilobytes; more than this is not from a peer of ours.
const REPORT_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("the peer's certificate files cannot be used")]
    Tls(#[from] TlsError),
    #[error("the HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
    #[error("no answer")]
    NoAnswer(#[source] reqwest::Error),
    #[error("answered {0}")]
    Status(u16),
    #[error("the answer is not a topology report")]
    NotAReport(#[source] serde_json::Error),
    #[error("the answer is too long")]
    TooLong,
    #[error("the answer is not believed")]
    Untrusted(#[source] Refused),
}

/// A client for internal listeners: HTTP/2 over kept connections, mutual TLS where configured, no
/// redirects, no proxies. A connection that stops answering pings is dropped within seconds, so
/// that a link that went dark and came back is noticed.
///
/// # Errors
/// When the certificate files cannot be read or used.
pub fn peer_client(
    routing: &RoutingConfig,
    tls: Option<&PeerTls>,
) -> Result<PeerClient, ProbeError> {
    peer_client_with(routing, tls.map(Tls::peer).transpose()?.as_ref())
}

/// The same, with certificates that can change meanwhile.
///
/// # Errors
/// When the client cannot be built.
pub fn peer_client_with(
    routing: &RoutingConfig,
    tls: Option<&Arc<Tls>>,
) -> Result<PeerClient, ProbeError> {
    let tls = tls.map_or_else(tls::of_this_machine, |tls| tls.client());
    let builder = reqwest::Client::builder()
        .http2_prior_knowledge()
        .http2_keep_alive_interval(Duration::from_secs(1))
        .http2_keep_alive_timeout(Duration::from_secs(2))
        .http2_keep_alive_while_idle(true)
        // A body of 1 MiB must not wait for window updates over a long link.
        .http2_initial_stream_window_size(2 * 1024 * 1024)
        // As large as it can be (RFC 9113, section 6.9.1): what slow clients have not read yet of
        // their answers, each within its own window, must not hold up the answers to others.
        .http2_initial_connection_window_size((1 << 31) - 1)
        .connect_timeout(Duration::from_millis(routing.connect_ms_max))
        .tcp_nodelay(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_backend_preconfigured(tls);
    builder.build().map_err(ProbeError::Client)
}

/// How regions are connected to, each time anew.
#[must_use]
pub fn connecting(routing: &RoutingConfig, tls: Option<Arc<Tls>>) -> Connect {
    let routing = routing.clone();
    Arc::new(move || peer_client_with(&routing, tls.as_ref()))
}

/// Asks one internal listener about itself.
///
/// # Errors
/// When it does not answer in time, or not with a report.
pub async fn ask(
    client: &reqwest::Client,
    base: &str,
    patience: Duration,
) -> Result<TopologyReport, ProbeError> {
    let url = format!("{}{PATH}", base.trim_end_matches('/'));
    let answer = client.get(url).timeout(patience).send().await.map_err(ProbeError::NoAnswer)?;
    serde_json::from_slice(&body(answer, REPORT_BYTES_MAX).await?).map_err(ProbeError::NotAReport)
}

async fn body(mut answer: reqwest::Response, bytes_max: usize) -> Result<Vec<u8>, ProbeError> {
    if !answer.status().is_success() {
        return Err(ProbeError::Status(answer.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(ProbeError::NoAnswer)? {
        if body.len() + chunk.len() > bytes_max {
            return Err(ProbeError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Asks one region what only the cluster's own may ask. Cheap to clone.
#[derive(Clone)]
pub struct Asker {
    client: Arc<Mutex<PeerClient>>,
    /// How another process of the region is come to; `None` when that one is meant.
    connect: Option<Connect>,
    sealer: Sealer,
    region: Region,
    base: String,
}

impl Asker {
    /// `base` is the region's internal listener.
    #[must_use]
    pub fn new(client: PeerClient, sealer: Sealer, region: Region, base: &str) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        Self { client: Arc::new(Mutex::new(client)), connect: None, sealer, region, base }
    }

    /// Asks any process of the region: one that is about to end, or has yet to start, is left.
    #[must_use]
    pub fn of_any(self, connect: Connect) -> Self {
        Self { connect: Some(connect), ..self }
    }

    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// # Errors
    /// When no answer comes in time, or none that the region has signed. The question may have been
    /// carried out all the same.
    pub async fn ask(
        &self,
        question: Question,
        patience: Duration,
        op: &Op,
    ) -> Result<Answer, ProbeError> {
        let asked = Asked::new(self.region.clone(), question, op);
        let url = format!("{}{}", self.base, ask::PATH);
        let sealed = asked.seal(&self.sealer);
        let send = || {
            let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
            client.post(&url).body(sealed.clone()).timeout(patience).send()
        };
        let is_leaving =
            |answer: &reqwest::Response| answer.headers().contains_key(ENDING) && self.leave();
        let mut answer = send().await.map_err(ProbeError::NoAnswer)?;
        for _ in 0..OTHERS_MAX {
            if !is_leaving(&answer) || answer.status() != reqwest::StatusCode::MISDIRECTED_REQUEST {
                break;
            }
            answer = send().await.map_err(ProbeError::NoAnswer)?;
        }
        let body = body(answer, ask::BYTES_MAX).await?;
        let sealed = std::str::from_utf8(&body).map_err(|_| Refused::Malformed);
        sealed.and_then(|sealed| asked.answer(&self.sealer, sealed)).map_err(ProbeError::Untrusted)
    }

    /// Has the next question go over a connection of its own.
    fn leave(&self) -> bool {
        match self.connect.as_ref().map(|connect| connect()) {
            Some(Ok(client)) => {
                *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
                true
            }
            Some(Err(error)) => {
                tracing::warn!(error = %causes(&error), "no new connection to a peer");
                false
            }
            None => false,
        }
    }
}
