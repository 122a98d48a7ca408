//! The life of a process: tasks that are known by name, signals, and an orderly end.
//!
//! Two tokens tell the end. *Draining* (the first SIGTERM or SIGINT, or a task's panic): take
//! nothing new, finish what is in flight. *Ended* (a second signal, or the drain's time is up):
//! stop where you are. Every task ends with the second; those that have nothing to finish watch the
//! first.
//!
//! A task that panics has broken an invariant, so the whole process drains and exits with a failure
//! rather than limping on with a part missing; whoever supervises it starts a fresh one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Shared by everything that runs for long. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    draining: CancellationToken,
    ended: CancellationToken,
    tasks: TaskTracker,
    failed: Arc<AtomicBool>,
    cut_off: Arc<AtomicUsize>,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every task ended by itself.
    Whole,
    /// Time was up, or a second signal came: this many tasks were cut off.
    CutOff { tasks: usize },
}

impl Lifecycle {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled once no new work is taken.
    #[must_use]
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Cancelled once nothing may go on.
    #[must_use]
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Whether a task panicked: the process must not exit with success.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Runs `work` until it ends or the process does. The one place that spawns.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let guard = PanicGuard { lifecycle: self.clone(), name };
        let (ended, cut_off) = (self.ended.clone(), Arc::clone(&self.cut_off));
        tokio::spawn(self.tasks.track_future(async move {
            let _guard = guard;
            if ended.run_until_cancelled_owned(work).await.is_none() {
                cut_off.fetch_add(1, Ordering::AcqRel);
            }
        }));
    }

    /// Begins the drain. Doing it again changes nothing.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Drains on the first SIGTERM or SIGINT and ends on the second.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    pub fn watch_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let this = self.clone();
        self.spawn("lifecycle.signals", async move {
            // Ends with the drain of others, so that it is not itself waited for.
            let drained = this.draining.clone();
            let first = async {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            };
            if let Some(name) = drained.run_until_cancelled(first).await {
                tracing::info!(signal = name, "draining");
                this.drain();
            }
            this.watch_again(terminate, interrupt);
        });
        Ok(())
    }

    /// Not tracked: a second signal may never come, and nobody waits for it.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    fn watch_again(
        self,
        mut terminate: tokio::signal::unix::Signal,
        mut interrupt: tokio::signal::unix::Signal,
    ) {
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("a signal while draining: ending at once");
            self.ended.cancel();
        });
    }

    /// Drains, waits for every task up to `budget`, then ends what is left and waits for that: a
    /// task that is cut off ends at its next await.
    pub async fn finish(&self, budget: Duration) -> Drained {
        self.drain();
        self.tasks.close();
        if tokio::time::timeout(budget, self.tasks.wait()).await.is_err() {
            self.ended.cancel();
            self.tasks.wait().await;
        }
        self.ended.cancel();
        match self.cut_off.load(Ordering::Acquire) {
            0 => Drained::Whole,
            tasks => Drained::CutOff { tasks },
        }
    }
}

struct PanicGuard {
    lifecycle: Lifecycle,
    name: &'static str,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic hook has told what and where; this says what follows from it.
            tracing::error!(task = self.name, "a task panicked: draining the process");
            self.lifecycle.failed.store(true, Ordering::Release);
            self.lifecycle.drain();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_task_that_panics_drains_the_process() {
        let life = Lifecycle::new();
        life.spawn("test.panics", async { panic!("on purpose") });
        tokio::time::timeout(SOON, life.draining().cancelled()).await.unwrap();
        assert!(life.has_failed());
        assert_eq!(life.finish(SOON).await, Drained::Whole);
    }

    #[tokio::test]
    async fn what_watches_the_drain_ends_whole() {
        let life = Lifecycle::new();
        let token = life.draining().clone();
        life.spawn("test.polite", async move { token.cancelled().await });
        assert_eq!(life.finish(SOON).await, Drained::Whole);
        assert!(!life.has_failed());
    }

    #[tokio::test]
    async fn what_does_not_end_is_cut_off_and_counted() {
        let life = Lifecycle::new();
        life.spawn("test.stubborn", std::future::pending());
        let drained =
            tokio::time::timeout(SOON, life.finish(Duration::from_millis(5))).await.unwrap();
        assert_eq!(drained, Drained::CutOff { tasks: 1 });
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_ends() {
        let life = Lifecycle::new();
        life.watch_signals().unwrap();
        life.spawn("test.stubborn", std::future::pending());
        let me = nix::unistd::Pid::this();
        nix::sys::signal::kill(me, nix::sys::signal::Signal::SIGTERM).unwrap();
        tokio::time::timeout(SOON, life.draining().cancelled()).await.unwrap();
        assert!(!life.ended().is_cancelled());
        nix::sys::signal::kill(me, nix::sys::signal::Signal::SIGINT).unwrap();
        let drained = tokio::time::timeout(SOON, life.finish(SOON * 6)).await.unwrap();
        assert_eq!(drained, Drained::CutOff { tasks: 1 });
    }
}
