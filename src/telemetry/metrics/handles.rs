//! Metrics with their labels already looked up.

use super::labels::{Breaker, ForwardOutcome, Label, LeaseAnswer, TickOutcome};
use crate::vocab::Region;
use chrono::{DateTime, Utc};
use prometheus::{
    GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};
use std::{marker::PhantomData, sync::OnceLock, time::Duration};

/// A counter for each value of a label.
pub struct Counters<L> {
    all: Box<[IntCounter]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label> Counters<L> {
    pub(super) fn new(family: &IntCounterVec) -> Self {
        let child = |label: L| family.with_label_values(&label.values());
        Self { all: L::all().into_iter().map(child).collect(), label: PhantomData }
    }
    #[must_use]
    pub fn of(&self, label: L) -> &IntCounter {
        &self.all[label.index()]
    }
    pub fn count(&self, label: L) {
        self.of(label).inc();
    }
}

/// A gauge for each value of a label.
pub struct Gauges<L> {
    all: Box<[IntGauge]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label> Gauges<L> {
    pub(super) fn new(family: &IntGaugeVec) -> Self {
        let child = |label: L| family.with_label_values(&label.values());
        Self { all: L::all().into_iter().map(child).collect(), label: PhantomData }
    }
    #[must_use]
    pub fn of(&self, label: L) -> &IntGauge {
        &self.all[label.index()]
    }
}

/// The statuses this program answers, in order.
const STATUSES: [u16; 26] = [
    200, 201, 202, 204, 206, 301, 304, 307, 400, 401, 403, 404, 405, 406, 408, 409, 412, 413, 415,
    421, 422, 428, 429, 431, 500, 503,
];

/// One route and method. Observing costs two look-ups in arrays and no allocation, except for a
/// status that this program does not answer by itself.
pub struct RouteMetrics {
    family: IntCounterVec,
    seconds: Histogram,
    route: &'static str,
    method: &'static str,
    by_status: [OnceLock<IntCounter>; STATUSES.len()],
}

impl RouteMetrics {
    pub(super) fn new(
        family: IntCounterVec,
        seconds: Histogram,
        route: &'static str,
        method: &'static str,
        statuses: &[u16],
    ) -> Self {
        let by_status = std::array::from_fn(|_| OnceLock::new());
        let this = Self { family, seconds, route, method, by_status };
        for status in statuses {
            this.counted(*status, |_| ());
        }
        this
    }

    pub fn observe(&self, status: u16, took: Duration) {
        self.counted(status, IntCounter::inc);
        self.seconds.observe(took.as_secs_f64());
    }

    fn counted(&self, status: u16, then: impl FnOnce(&IntCounter)) {
        match STATUSES.binary_search(&status) {
            Ok(at) => then(self.by_status[at].get_or_init(|| self.child(status))),
            // A peer's status, passed on: three digits, so still bounded.
            Err(_) => then(&self.child(status)),
        }
    }

    fn child(&self, status: u16) -> IntCounter {
        self.family.with_label_values(&[self.route, self.method, status.to_string().as_str()])
    }
}

/// One peer.
pub struct PeerMetrics {
    forward_seconds: Histogram,
    forwards: Box<[IntCounter]>,
    breaker: IntGauge,
    reachable: IntGauge,
}

impl PeerMetrics {
    pub(super) fn new(
        seconds: &HistogramVec,
        forwards: &IntCounterVec,
        breaker: &IntGaugeVec,
        reachable: &IntGaugeVec,
        peer: &Region,
    ) -> Self {
        let peer = peer.as_str();
        let outcome = |o: &ForwardOutcome| forwards.with_label_values(&[peer, o.as_str()]);
        Self {
            forward_seconds: seconds.with_label_values(&[peer]),
            forwards: ForwardOutcome::ALL.iter().map(outcome).collect(),
            breaker: breaker.with_label_values(&[peer]),
            reachable: reachable.with_label_values(&[peer]),
        }
    }

    /// One hop. `took` is `None` when nothing was sent.
    pub fn forwarded(&self, outcome: ForwardOutcome, took: Option<Duration>) {
        self.forwards[outcome as usize].inc();
        if let Some(took) = took {
            self.forward_seconds.observe(took.as_secs_f64());
        }
    }
    pub fn set_breaker(&self, state: Breaker) {
        self.breaker.set(state as i64);
    }
    pub fn set_reachable(&self, reachable: bool) {
        self.reachable.set(i64::from(reachable));
    }
}

/// One region that is asked for the lease.
pub struct LeaseMetrics {
    answers: Box<[IntCounter]>,
}

impl LeaseMetrics {
    pub(super) fn new(answers: &IntCounterVec, peer: &Region) -> Self {
        let answer = |a: &LeaseAnswer| answers.with_label_values(&[peer.as_str(), a.as_str()]);
        Self { answers: LeaseAnswer::ALL.iter().map(answer).collect() }
    }

    pub fn answered(&self, answer: LeaseAnswer) {
        self.answers[answer as usize].inc();
    }
}

/// One background loop.
pub struct LoopMetrics {
    ticks: Box<[IntCounter]>,
    seconds: Histogram,
    restarts: IntCounter,
    /// Made with the first success, so that it is absent before.
    last_success: GaugeVec,
    name: &'static str,
}

impl LoopMetrics {
    pub(super) fn new(
        ticks: &IntCounterVec,
        seconds: &HistogramVec,
        restarts: &IntCounterVec,
        last_success: &GaugeVec,
        name: &'static str,
    ) -> Self {
        let outcome = |o: &TickOutcome| ticks.with_label_values(&[name, o.as_str()]);
        Self {
            ticks: TickOutcome::ALL.iter().map(outcome).collect(),
            seconds: seconds.with_label_values(&[name]),
            restarts: restarts.with_label_values(&[name]),
            last_success: last_success.clone(),
            name,
        }
    }

    /// One pass ended, at `at`.
    pub fn ended(&self, outcome: TickOutcome, took: Duration, at: DateTime<Utc>) {
        self.ticks[outcome as usize].inc();
        self.seconds.observe(took.as_secs_f64());
        if matches!(outcome, TickOutcome::Idle | TickOutcome::Worked) {
            #[expect(
                clippy::cast_precision_loss,
                reason = "microseconds since 1970 fit until 2255"
            )]
            let seconds = at.timestamp_micros() as f64 / 1e6;
            self.last_success.with_label_values(&[self.name]).set(seconds);
        }
    }
    pub fn restarted(&self) {
        self.restarts.inc();
    }
}
