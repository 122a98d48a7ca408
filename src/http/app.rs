//! What every request of a process shares, and what one worker thread has of its own.

use super::{limits::Limiter, routes::Mounted};
use crate::{
    config::Config,
    identity::{Passwords, Resolver, Sessions},
    loops::Loops,
    queue::Registrar,
    routing::{PrimaryView, breaker::BreakerState, forward::Forwarder},
    storage::{Global, global::hot::HotReads, redis::Redis},
    telemetry::{Telemetry, metrics::Metrics},
    topology::{
        PrimaryAt, Topology, ask::Answers, probe::Asker, schema::SchemaWatch, seal::Sealer,
        tls::Certificates,
    },
    vocab::{Op, OpKind, Region, SharedClock, SharedRng},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Built once, by `assembly`.
pub struct App {
    pub config: Config,
    pub region: Region,
    /// Tells this process from its neighbours and its predecessor.
    pub process: String,
    pub clock: SharedClock,
    pub rng: SharedRng,
    pub topology: Topology,
    /// Believes, and signs, what regions say to each other.
    pub sealer: Sealer,
    /// What this region answers when another, or an operator, asks it.
    pub answers: Arc<dyn Answers>,
    pub forwarder: Arc<Forwarder>,
    pub global: Global,
    pub redis: Redis,
    pub resolver: Resolver,
    pub sessions: Sessions,
    /// Has sessions recorded where the primary is.
    pub registrar: Registrar,
    /// The other regions, to be asked.
    pub peers: Arc<BTreeMap<Region, Asker>>,
    pub certificates: Certificates,
    pub passwords: Passwords,
    pub limiter: Arc<Limiter>,
    pub metrics: Arc<Metrics>,
    pub telemetry: Telemetry,
    pub loops: Loops,
    pub schema: SchemaWatch,
    pub mounted: Vec<Mounted>,
    /// Cancelled when the process has been asked to stop: readiness turns away new traffic.
    pub draining: CancellationToken,
    /// Set once requests are served: the schema was seen, and is not too old.
    pub serves: AtomicBool,
    /// What peers have asked of this process and are not answered yet.
    pub taken_in: TaskTracker,
}

/// One per worker thread, made inside its runtime.
pub struct Worker {
    pub hot: HotReads,
    /// Driven by this thread: an answer that another thread waits for costs two wake-ups more, which is a
    /// third of what a session's look-up takes.
    pub redis: Redis,
}

impl App {
    /// The context of one request.
    #[must_use]
    pub fn op(&self) -> Op {
        let budget = Duration::from_millis(self.config.routing.request_ms_max);
        Op::new(OpKind::Request, self.clock.clone(), self.rng.clone(), budget)
    }

    /// The primary as requests see it: known now, and its breaker lets them through.
    #[must_use]
    pub fn primary(&self) -> PrimaryView {
        match self.topology.primary() {
            PrimaryAt::Here(epoch) => PrimaryView::Here(epoch),
            PrimaryAt::Unknown => PrimaryView::Unknown,
            PrimaryAt::Fenced(region) => PrimaryView::Fenced(region),
            PrimaryAt::Peer(region, epoch) => {
                match self.forwarder.breaker_state(&region, self.clock.monotonic()) {
                    Some(BreakerState::Closed | BreakerState::HalfOpen) => {
                        PrimaryView::Peer(region, epoch)
                    }
                    Some(BreakerState::Open) | None => PrimaryView::Tripped(region),
                }
            }
        }
    }
}
