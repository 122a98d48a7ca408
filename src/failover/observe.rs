//! What a plan is made from: every region's own account of itself, asked at the same time.

use crate::{
    topology::{
        TopologyReport,
        ask::{Answer, Question},
        control::{Instance, Order, Outcome},
        lease::Promise,
        probe::{self, Asker, Connect, PeerClient, ProbeError},
        seal::Sealer,
    },
    vocab::{Epoch, EpochStart, Members, Op, Region, causes},
};
use futures_util::future::join_all;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Longest wait for a region to tell of itself: a first connection over the longest link, and a look
/// at its database.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How often another process of a region is looked for, where one that is about to end, or has yet to start,
/// answers for it.
const OTHERS_MAX: u32 = 3;

/// The regions of a cluster, and how their processes are asked.
pub struct Cluster {
    connect: Connect,
    /// Whose connections have led to processes that serve.
    client: Mutex<PeerClient>,
    sealer: Sealer,
    /// Internal listeners, any of which answers for its region.
    listeners: BTreeMap<Region, Vec<String>>,
}

/// The cluster at one moment.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    pub regions: BTreeMap<Region, Seen>,
}

/// One region.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What its process tells, or why it does not.
    pub report: Result<TopologyReport, String>,
    /// What its database is, or why that cannot be told.
    pub instance: Result<Instance, String>,
    /// The listener that answered.
    pub listener: Option<String>,
}

impl Cluster {
    /// # Errors
    /// When a client cannot be built.
    pub fn new(
        connect: Connect,
        sealer: Sealer,
        listeners: impl IntoIterator<Item = (Region, String)>,
    ) -> Result<Self, ProbeError> {
        let mut by_region: BTreeMap<Region, Vec<String>> = BTreeMap::new();
        for (region, listener) in listeners {
            by_region.entry(region).or_default().push(listener);
        }
        let client = Mutex::new(connect()?);
        Ok(Self { connect, client, sealer, listeners: by_region })
    }

    fn client(&self) -> PeerClient {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a region's process tells; of several one that serves, where there is one.
    async fn told(&self, listener: &str) -> Result<TopologyReport, ProbeError> {
        let mut answer = probe::ask(&self.client(), listener, PATIENCE).await;
        for _ in 0..OTHERS_MAX {
            if !answer.as_ref().is_ok_and(|told| told.starting || told.ending) {
                break;
            }
            let client = (self.connect)()?;
            let other = probe::ask(&client, listener, PATIENCE).await;
            if other.is_ok() {
                *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
                answer = other;
            }
        }
        answer
    }

    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.listeners.keys()
    }

    /// Asks every region.
    pub async fn observe(&self, op: &Op) -> Sight {
        let seen = self.listeners.iter().map(async |(region, listeners)| {
            (region.clone(), self.see(region, listeners, op).await)
        });
        Sight { regions: join_all(seen).await.into_iter().collect() }
    }

    async fn see(&self, region: &Region, listeners: &[String], op: &Op) -> Seen {
        let asked = listeners.iter().map(async |listener| (listener, self.told(listener).await));
        let mut failure = "no listener is known".to_owned();
        let mut found = None;
        for (listener, answer) in join_all(asked).await {
            match answer {
                Ok(report) if report.region == *region => {
                    found.get_or_insert((listener.clone(), report));
                }
                Ok(report) => failure = format!("{listener} is {}", report.region),
                Err(error) => failure = causes(&error),
            }
        }
        let Some((listener, report)) = found else {
            let instance = Err("its process does not answer".to_owned());
            return Seen { report: Err(failure), instance, listener: None };
        };
        let asker = self.asker_at(region, &listener);
        let instance = match order(&asker, Order::Look, PATIENCE, op).await {
            Ok(Outcome::Instance(instance)) => Ok(*instance),
            Ok(other) => Err(format!("it answered {other:?}")),
            Err(failure) => Err(failure.to_string()),
        };
        Seen { report: Ok(report), instance, listener: Some(listener) }
    }

    /// What each region's process tells, without a look at its database.
    pub async fn report(&self, sight: &Sight) -> Vec<(Region, Result<TopologyReport, String>)> {
        let asked = self.listeners.iter().map(async |(region, listeners)| {
            let seen = sight.regions.get(region).and_then(|seen| seen.listener.as_ref());
            let Some(listener) = seen.or(listeners.first()) else {
                return (region.clone(), Err("no listener is known".to_owned()));
            };
            let report = self.told(listener).await;
            (region.clone(), report.map_err(|error| causes(&error)))
        });
        join_all(asked).await
    }

    fn asker_at(&self, region: &Region, listener: &str) -> Asker {
        let asker = Asker::new(self.client(), self.sealer.clone(), region.clone(), listener);
        asker.of_any(self.connect.clone())
    }

    /// How to ask a region that was seen to answer; its first listener when it was not.
    #[must_use]
    pub fn asker(&self, sight: &Sight, region: &Region) -> Option<Asker> {
        let seen = sight.regions.get(region).and_then(|seen| seen.listener.as_ref());
        let first = || self.listeners.get(region)?.first();
        Some(self.asker_at(region, seen.or_else(first)?))
    }
}

/// Why a region has not done what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// As things are it must not be done.
    #[error("{region}: {reason}")]
    Refused { region: Region, reason: String },
    /// It may have been done, or will be on the next attempt.
    #[error("{region}: {reason}")]
    Failed { region: Region, reason: String },
    /// Its process did not answer: that it was heard is not known.
    #[error("{region}: its process: {reason}")]
    Silent { region: Region, reason: String },
}

/// Gives a region an order.
///
/// # Errors
/// See [`Failure`].
pub async fn order(
    asker: &Asker,
    order: Order,
    patience: Duration,
    op: &Op,
) -> Result<Outcome, Failure> {
    let region = asker.region().clone();
    let question = Question::Order(Box::new(order));
    match asker.ask(question, patience, op).await {
        Ok(Answer::Order(outcome)) => match *outcome {
            Outcome::Refused { reason } => Err(Failure::Refused { region, reason }),
            outcome => Ok(outcome),
        },
        Ok(Answer::Failed { reason }) => Err(Failure::Failed { region, reason }),
        Ok(_) => {
            let reason = "it answered another question".to_owned();
            Err(Failure::Failed { region, reason })
        }
        Err(error) => Err(Failure::Silent { region, reason: causes(&error) }),
    }
}

impl Seen {
    fn epochs(&self) -> impl Iterator<Item = &EpochStart> {
        let instance = self.instance.iter().flat_map(|instance| &instance.epochs);
        instance.chain(self.report.iter().flat_map(|report| &report.epochs))
    }
}

impl Sight {
    /// The newest epoch that anybody's database has a row of.
    #[must_use]
    pub fn current(&self) -> Option<&EpochStart> {
        // An older program tells the same epoch without its members.
        let told = self.regions.values().flat_map(Seen::epochs);
        told.max_by_key(|start| (start.epoch, start.members.is_some()))
    }

    /// The regions that count; all of the settings where an epoch does not tell.
    #[must_use]
    pub fn members(&self) -> Members {
        let told = self.current().and_then(|start| start.members.clone());
        told.unwrap_or_else(|| self.regions.keys().cloned().collect())
    }

    /// Every epoch that a region's database has a row of.
    #[must_use]
    pub fn epochs_of(&self, region: &Region) -> Vec<EpochStart> {
        let seen = self.regions.get(region);
        let mut epochs: Vec<EpochStart> =
            seen.iter().flat_map(|seen| seen.epochs()).cloned().collect();
        epochs.sort_by_key(|start| start.epoch);
        epochs.dedup_by_key(|start| start.epoch);
        epochs
    }

    fn promises(&self) -> impl Iterator<Item = &Promise> {
        let reports = self.regions.values().filter_map(|seen| seen.report.as_ref().ok());
        reports.filter_map(|report| report.promise.as_ref())
    }

    /// Whether the epoch of a promise has been promised to another move too: to another region, or with
    /// other members.
    #[must_use]
    pub fn is_contested(&self, promise: &Promise) -> bool {
        self.promises().any(|other| other.epoch == promise.epoch && !other.agrees(promise))
    }

    /// The newest promise of an epoch that has yet to begin.
    #[must_use]
    pub fn pending(&self) -> Option<&Promise> {
        let current = self.current().map(|start| start.epoch);
        let pending = self.promises().filter(|promise| Some(promise.epoch) > current);
        pending.max_by_key(|promise| promise.epoch)
    }

    /// The epoch after all that have begun or been promised.
    #[must_use]
    pub fn next_epoch(&self) -> Option<Epoch> {
        let current = self.current()?.epoch;
        let newest = self.pending().map_or(current, |promise| promise.epoch.max(current));
        Epoch::new(newest.get().checked_add(1)?)
    }
}
