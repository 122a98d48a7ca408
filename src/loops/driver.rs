//! Runs one loop.

use super::{Activator, Loop, LoopStatus, PassStatus, Schedule, Tick, lock};
use crate::{
    telemetry::metrics::{LoopMetrics, TickOutcome},
    vocab::{Op, OpKind, SharedClock, SharedRng, rng},
};
use futures_util::FutureExt as _;
use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Waits after the first panic; twice as long after each further one in a row,
const RESTART_MIN: Duration = Duration::from_millis(100);
/// up to this.
const RESTART_MAX: Duration = Duration::from_secs(30);

/// One loop, its state and its record.
pub struct Driver<L, M> {
    make: M,
    /// None after a panic: made anew by the next step.
    state: Option<L>,
    /// Panics in a row.
    panics: u32,
    schedule: Schedule,
    metrics: LoopMetrics,
    clock: SharedClock,
    rng: SharedRng,
    status: Arc<Mutex<LoopStatus>>,
}

/// A pass, or what stood in its way.
enum Pass {
    Ended(Tick),
    TimedOut,
    Panicked,
}

impl<L: Loop, M: FnMut() -> L + Send> Driver<L, M> {
    pub(super) fn new(
        make: M,
        schedule: Schedule,
        metrics: LoopMetrics,
        clock: SharedClock,
        rng: SharedRng,
        status: Arc<Mutex<LoopStatus>>,
    ) -> Self {
        Self { make, state: None, panics: 0, schedule, metrics, clock, rng, status }
    }

    /// Passes for ever. Dropping it, at any moment, is how it ends.
    pub(super) async fn run(mut self, activator: Activator) {
        loop {
            let pause = self.step().await;
            // A loop that keeps panicking must not be woken into a storm.
            if self.panics > 0 {
                tokio::time::sleep(pause).await;
            } else {
                tokio::select! {
                    () = activator.activated() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }

    /// One pass. Gives the time until the next is due.
    pub async fn step(&mut self) -> Duration {
        let op =
            Op::new(OpKind::Loop, self.clock.clone(), self.rng.clone(), self.schedule.pass_max);
        let (started, started_at) = (self.clock.monotonic(), self.clock.now());
        let pass = self.attempt(&op).await;
        let took = self.clock.monotonic().saturating_duration_since(started);
        self.panics =
            if matches!(pass, Pass::Panicked) { self.panics.saturating_add(1) } else { 0 };
        let pause = self.pause();
        self.record(pass, started_at, took, pause);
        pause
    }

    async fn attempt(&mut self, op: &Op) -> Pass {
        let Self { make, state, schedule, .. } = self;
        let tick = async {
            // Made inside, so that a panic in the making is caught too.
            let state = state.get_or_insert_with(make);
            tokio::time::timeout(schedule.pass_max, state.tick(op)).await
        };
        // The state that a panic leaves behind is thrown away, which is what makes this safe.
        match AssertUnwindSafe(tick).catch_unwind().await {
            Ok(Ok(tick)) => Pass::Ended(tick),
            Ok(Err(_)) => Pass::TimedOut,
            Err(_) => {
                self.state = None;
                Pass::Panicked
            }
        }
    }

    fn pause(&self) -> Duration {
        let base = match self.panics {
            0 => self.schedule.interval,
            n => RESTART_MAX.min(RESTART_MIN * 2u32.saturating_pow(n - 1).min(1_000)),
        };
        let us = u64::try_from(base.as_micros()).unwrap_or(u64::MAX);
        let jitter = rng::below(&*self.rng, us / 5 + 1);
        Duration::from_micros(us - us / 10 + jitter)
    }

    fn record(
        &self,
        pass: Pass,
        started_at: chrono::DateTime<chrono::Utc>,
        took: Duration,
        pause: Duration,
    ) {
        let ended_at = started_at + took;
        let (outcome, done, reason) = match pass {
            Pass::Ended(Tick::Idle) => (TickOutcome::Idle, None, None),
            Pass::Ended(Tick::Worked(done)) => (TickOutcome::Worked, Some(done), None),
            Pass::Ended(Tick::Waiting(why)) => (TickOutcome::Waiting, None, Some(why.into_owned())),
            Pass::TimedOut => (TickOutcome::TimedOut, None, None),
            Pass::Panicked => (TickOutcome::Panicked, None, None),
        };
        self.metrics.ended(outcome, took, ended_at);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let last = PassStatus { started_at, took_us, outcome: outcome.as_str(), done, reason };
        let mut status = lock(&self.status);
        status.passes += 1;
        if matches!(outcome, TickOutcome::Idle | TickOutcome::Worked) {
            status.last_success_at = Some(ended_at);
        }
        if outcome == TickOutcome::Panicked {
            status.restarts += 1;
            self.metrics.restarted();
        }
        let before = status.last.replace(last.clone());
        drop(status);
        announce(L::NAME, before.as_ref(), &last, pause);
    }
}

/// Tells what changed, once, rather than every pass.
fn announce(name: &'static str, before: Option<&PassStatus>, now: &PassStatus, pause: Duration) {
    if now.outcome == TickOutcome::Panicked.as_str() {
        tracing::warn!(loop.name = name, restart.after_ms = pause.as_millis(), "a loop starts anew");
        return;
    }
    if before.is_some_and(|b| b.outcome == now.outcome && b.reason == now.reason) {
        return;
    }
    let reason = now.reason.as_deref().unwrap_or_default();
    if now.outcome == TickOutcome::TimedOut.as_str() {
        tracing::warn!(loop.name = name, took_us = now.took_us, "a loop's pass took too long");
    } else if now.outcome == TickOutcome::Waiting.as_str() {
        tracing::info!(loop.name = name, reason, "a loop waits");
    } else if before.is_some_and(|b| b.outcome == TickOutcome::Waiting.as_str()) {
        tracing::info!(loop.name = name, "a loop goes on");
    }
}
