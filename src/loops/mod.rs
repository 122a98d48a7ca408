//! Background work as loops: each pass looks at the current state and does one bounded, idempotent
//! piece of it, so that a pass may be cut off anywhere and simply run again.
//!
//! A loop decides what to do; the driver decides when. It owns the interval and its jitter,
//! wake-ups ([`Activator`]), cancellation, the time limit of a pass, restarts after a panic,
//! metrics, and the status that operators see. A loop does not sleep, retry or spawn.
//!
//! When what a loop depends on is gone, its pass says [`Tick::Waiting`] with a reason and the next
//! pass looks again. A panic costs the loop its state, never the process.

mod driver;
mod status;

pub use driver::Driver;
pub use status::{LoopStatus, PassStatus};

use crate::{
    lifecycle::Lifecycle,
    telemetry::Metrics,
    vocab::{Op, SharedClock, SharedRng},
};
use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Work that never ends.
pub trait Loop: Send + 'static {
    /// Room and noun, as in `topology.watcher`: the label in metrics and the name in the status.
    const NAME: &'static str;

    /// One pass over the current state: bounded, idempotent, done by `op.deadline`. May be dropped
    /// at any await. To be called again at once, activate yourself.
    fn tick(&mut self, op: &Op) -> impl Future<Output = Tick> + Send;
}

/// How a pass ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tick {
    /// Nothing to do.
    Idle,
    /// Did this many things.
    Worked(u64),
    /// Cannot do what there is to do, for this reason.
    Waiting(Cow<'static, str>),
}

/// Wakes a loop before its interval is over. Made before the loop, so that whatever causes work can
/// hold one. Wake-ups that come during a pass, however many, cause one more pass. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Activator(Arc<Notify>);

impl Activator {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    pub fn activate(&self) {
        self.0.notify_one();
    }
    async fn activated(&self) {
        self.0.notified().await;
    }
}

/// When a loop runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// From the end of one pass to the start of the next, give or take a tenth, so that the
    /// processes of a region do not march in step.
    pub interval: Duration,
    /// Longest pass; a longer one is dropped where it stands and counted as timed out.
    pub pass_max: Duration,
}

/// All loops of a process. Cheap to clone.
#[derive(Clone)]
pub struct Loops {
    lifecycle: Lifecycle,
    metrics: Arc<Metrics>,
    clock: SharedClock,
    rng: SharedRng,
    stopped: CancellationToken,
    board: Board,
}

type Board = Arc<Mutex<Vec<Arc<Mutex<LoopStatus>>>>>;

impl Loops {
    #[must_use]
    pub fn new(
        lifecycle: Lifecycle,
        metrics: Arc<Metrics>,
        clock: SharedClock,
        rng: SharedRng,
    ) -> Self {
        let (stopped, board) = (CancellationToken::new(), Arc::default());
        Self { lifecycle, metrics, clock, rng, stopped, board }
    }

    /// Starts a loop, its first pass at once. `make` gives its state, and a fresh one after a
    /// panic. It goes on while the process drains, because the requests that are finished then await
    /// what loops find out, until [`Loops::stop`].
    pub fn start<L: Loop>(
        &self,
        schedule: Schedule,
        activator: Activator,
        make: impl FnMut() -> L + Send + 'static,
    ) {
        let driver = self.driver(schedule, make);
        let stopped = self.stopped.clone();
        self.lifecycle.spawn(L::NAME, async move {
            stopped.run_until_cancelled_owned(driver.run(activator)).await;
        });
    }

    /// Stops every loop, in the middle of a pass if need be. To be called once nothing is served any
    /// more: the lifecycle's end waits for it.
    pub fn stop(&self) {
        self.stopped.cancel();
    }

    /// A driver to be stepped by hand; [`Loops::start`] is the same one, running.
    pub fn driver<L: Loop, M: FnMut() -> L + Send>(
        &self,
        schedule: Schedule,
        make: M,
    ) -> Driver<L, M> {
        let status = Arc::new(Mutex::new(LoopStatus::new(L::NAME, schedule)));
        lock(&self.board).push(Arc::clone(&status));
        let metrics = self.metrics.background(L::NAME);
        Driver::new(make, schedule, metrics, self.clock.clone(), self.rng.clone(), status)
    }

    /// Every loop and how its last pass went, in the order they were started.
    #[must_use]
    pub fn statuses(&self) -> Vec<LoopStatus> {
        lock(&self.board).iter().map(|status| lock(status).clone()).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
