//! The watcher: one loop per peer that asks it about itself.
//!
//! A region has several processes, and a connection leads to one of them. One that has just begun does not know
//! yet whether its region takes writes: what another said of it a moment ago stands, for as long as if this one
//! had not answered.

use super::{PrimaryAt, Topology, probe, snapshot::Peer};
use crate::{
    config::{Config, TopologyConfig},
    loops::{Activator, Loop, Schedule, Tick},
    vocab::{Epoch, Op, Region, causes},
};
use futures_util::future::BoxFuture;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Between two probes of a peer that is about to become the primary.
const WHILE_MOVING: Duration = Duration::from_millis(25);

/// Told of every probe, so that what depends on a peer being there need not ask itself.
pub trait Heard: Send + Sync + 'static {
    fn heard(&self, peer: &Region, answered: bool);
    /// This peer, which answers, is about to take the writes. It is asked again only afterwards.
    fn is_next<'a>(&'a self, peer: &'a Region) -> BoxFuture<'a, ()>;
}

pub struct WatcherLoop {
    peer: Region,
    base: String,
    client: probe::PeerClient,
    connect: probe::Connect,
    patience: Duration,
    topology: Topology,
    heard: Arc<dyn Heard>,
    again: Activator,
    known: Peer,
    /// The epoch of the last move to this peer that was told of.
    told: Option<Epoch>,
}

impl WatcherLoop {
    #[must_use]
    pub fn new(
        peer: Region,
        config: &Config,
        client: probe::PeerClient,
        connect: probe::Connect,
        topology: Topology,
        heard: Arc<dyn Heard>,
        again: Activator,
    ) -> Self {
        let base = config.regions.get(&peer).map(|peer| peer.internal_url.clone());
        Self {
            peer,
            base: base.unwrap_or_default(),
            client,
            connect,
            patience: Duration::from_millis(config.topology.probe_ms_max),
            topology,
            heard,
            again,
            known: Peer::default(),
            told: None,
        }
    }

    #[must_use]
    pub fn schedule(config: &TopologyConfig) -> Schedule {
        Schedule {
            interval: Duration::from_millis(config.probe_interval_ms),
            pass_max: Duration::from_millis(config.probe_ms_max * 2),
        }
    }
}

impl Loop for WatcherLoop {
    const NAME: &'static str = "topology.watcher";

    async fn tick(&mut self, op: &Op) -> Tick {
        let sent_at = op.clock.monotonic();
        let answer = probe::ask(&self.client, &self.base, self.patience).await;
        let (tick, answered) = match answer {
            Ok(report) if report.region == self.peer => {
                if report.starting || report.ending {
                    self.leave();
                }
                let took = op.clock.monotonic().saturating_duration_since(sent_at);
                if self.topology.reachable(&self.known) && self.known.stands_against(&report) {
                    self.known.round_trip = Some(took);
                    self.known.failure = None;
                } else {
                    self.known = Peer {
                        report: Some(report),
                        heard_at: Some(sent_at),
                        round_trip: Some(took),
                        failure: None,
                    };
                }
                (Tick::Worked(1), true)
            }
            // Settings that point one region at another would send writes astray.
            Ok(report) => {
                self.failed(&format!("this address is {}, not {}", report.region, self.peer))
            }
            Err(error) => self.failed(&causes(&error)),
        };
        self.topology.publish_peer(&self.peer, self.known.clone());
        self.heard.heard(&self.peer, answered);
        let next = self.moves_here(op.clock.monotonic()).filter(|_| answered);
        if next.is_some() && next != self.told {
            self.told = next;
            self.heard.is_next(&self.peer).await;
        }
        // Writes are held for the next primary: it is looked at again at once.
        if answered && self.is_awaited(op.clock.monotonic()) {
            tokio::time::sleep(WHILE_MOVING).await;
            self.again.activate();
        }
        tick
    }
}

impl WatcherLoop {
    /// Whether this peer is about to take writes, and does not yet.
    fn is_awaited(&self, now: Instant) -> bool {
        let known = matches!(self.topology.primary(), PrimaryAt::Here(_) | PrimaryAt::Peer(..));
        !known
            && self.topology.look(|snapshot| {
                let to = snapshot.move_heard.as_ref().map(|(promise, _)| &promise.region);
                to == Some(&self.peer) && snapshot.awaits_a_primary(now)
            })
    }

    /// The epoch that is about to begin at this peer.
    fn moves_here(&self, now: Instant) -> Option<Epoch> {
        self.topology.look(|snapshot| {
            let promise = snapshot.moving().filter(|promise| promise.region == self.peer)?;
            snapshot.awaits_a_primary(now).then_some(promise.epoch)
        })
    }

    /// Has the next question go over a connection of its own: to another process, where there is one.
    fn leave(&mut self) {
        match (self.connect)() {
            Ok(client) => self.client = client,
            // The old one is as good as it was.
            Err(error) => tracing::warn!(error = %causes(&error), "no new connection to a peer"),
        }
    }

    /// Keeps what was last heard, and when: it ages by itself.
    fn failed(&mut self, reason: &str) -> (Tick, bool) {
        self.known.failure = Some(reason.to_owned());
        (Tick::Waiting(format!("{}: {reason}", self.peer).into()), false)
    }
}
