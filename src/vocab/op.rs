//! The operation context: what every piece of work carries.

use super::{OpId, SharedClock, SharedRng};
use chrono::{DateTime, Utc};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What made an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    Request,
    Loop,
    Command,
    Test,
}

/// One piece of work: made by the HTTP gate, the loop driver, a command or a test, and passed to
/// all that does the work. It is the only way to the clock and to random numbers.
#[derive(Clone)]
pub struct Op {
    pub kind: OpKind,
    pub id: OpId,
    pub clock: SharedClock,
    pub rng: SharedRng,
    /// Monotonic. Past it nobody waits for the result.
    pub deadline: Instant,
}

impl Op {
    #[must_use]
    pub fn new(kind: OpKind, clock: SharedClock, rng: SharedRng, budget: Duration) -> Self {
        let id = OpId::mint_from(&*clock, &*rng);
        let deadline = clock.monotonic() + budget;
        Self { kind, id, clock, rng, deadline }
    }

    /// On the machine's own clock and generator.
    #[must_use]
    pub fn system(kind: OpKind, budget: Duration) -> Self {
        Self::new(kind, Arc::new(super::SystemClock), Arc::new(super::SystemRng), budget)
    }

    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Time left; zero once past the deadline.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(self.clock.monotonic())
    }
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Op").field("kind", &self.kind).field("id", &self.id).finish_non_exhaustive()
    }
}
