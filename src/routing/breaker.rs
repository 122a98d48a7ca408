//! A circuit breaker per peer: after enough failures, stop asking for a while.
//!
//! It counts only failures of the hop itself (no connection, or one that broke); an answer of any
//! status is a success. An answer that is late over a connection in order says nothing: it may be
//! one tenant's heavy query, no reason to stop everyone's writes. The watcher's probe keeps running
//! while the breaker is open, and a probe that is answered lets requests through again at once: a
//! healed link need not wait out the cool-down.

use crate::config::BreakerConfig;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerState {
    Closed,
    /// One request at a time may try.
    HalfOpen,
    Open,
}

impl BreakerState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// How a request that was let through ended, as far as the breaker is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopOutcome {
    Answered,
    Failed,
}

#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed {
        recent: VecDeque<(Instant, HopOutcome)>,
    },
    Open {
        until: Instant,
    },
    HalfOpen {
        successes: u32,
        /// A request is under way to find out.
        trying: bool,
    },
}

/// One request that was let through. Dropping it without a report says nothing of the peer, and
/// makes room for the next to try.
#[derive(Debug)]
#[must_use = "report how the request ended"]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    trial: bool,
}

impl Pass<'_> {
    pub fn report(mut self, now: Instant, outcome: HopOutcome) {
        self.trial = false;
        self.breaker.report(now, outcome);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.trial
            && let State::HalfOpen { trying, .. } = &mut *self.breaker.state_now()
        {
            *trying = false;
        }
    }
}

/// Requests remembered at most; at a high rate the window is shorter than its time.
const RECENT_MAX: usize = 1_000;

impl Breaker {
    #[must_use]
    pub const fn new(config: BreakerConfig) -> Self {
        Self { config, state: Mutex::new(State::Closed { recent: VecDeque::new() }) }
    }

    fn state_now(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locked<T>(&self, now: Instant, act: impl FnOnce(&mut State, &BreakerConfig) -> T) -> T {
        let mut state = self.state_now();
        if let State::Open { until } = *state
            && now >= until
        {
            *state = State::HalfOpen { successes: 0, trying: false };
        }
        act(&mut state, &self.config)
    }

    /// Would a request be let through now? Takes nothing.
    #[must_use]
    pub fn state(&self, now: Instant) -> BreakerState {
        self.locked(now, |state, _| match state {
            State::Closed { .. } => BreakerState::Closed,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
            State::Open { .. } => BreakerState::Open,
        })
    }

    /// Lets a request through, or not. While half-open only one may be under way.
    pub fn admit(&self, now: Instant) -> Option<Pass<'_>> {
        let trial = self.locked(now, |state, _| match state {
            State::Closed { .. } => Some(false),
            State::Open { .. } | State::HalfOpen { trying: true, .. } => None,
            State::HalfOpen { trying, .. } => {
                *trying = true;
                Some(true)
            }
        })?;
        Some(Pass { breaker: self, trial })
    }

    fn report(&self, now: Instant, outcome: HopOutcome) {
        self.locked(now, |state, config| {
            let opened = State::Open { until: now + Duration::from_millis(config.cool_down_ms) };
            match (&mut *state, outcome) {
                (State::Closed { recent }, outcome) => {
                    remember(recent, now, outcome, Duration::from_millis(config.window_ms));
                    if outcome == HopOutcome::Failed && trips(recent, config) {
                        *state = opened;
                    }
                }
                (State::HalfOpen { successes, trying }, HopOutcome::Answered) => {
                    *trying = false;
                    *successes += 1;
                    if *successes >= config.successes_to_close {
                        *state = State::Closed { recent: VecDeque::new() };
                    }
                }
                (State::HalfOpen { .. }, HopOutcome::Failed) => *state = opened,
                // A request sent before it opened; its fate changes nothing.
                (State::Open { .. }, _) => {}
            }
        });
    }

    /// A probe of the peer was answered: stop waiting out the cool-down.
    pub fn probe_answered(&self, now: Instant) {
        self.locked(now, |state, _| {
            if matches!(state, State::Open { .. }) {
                *state = State::HalfOpen { successes: 0, trying: false };
            }
        });
    }
}

fn remember(
    recent: &mut VecDeque<(Instant, HopOutcome)>,
    now: Instant,
    outcome: HopOutcome,
    window: Duration,
) {
    recent.push_back((now, outcome));
    let old = |at: &Instant| now.saturating_duration_since(*at) > window;
    while recent.len() > RECENT_MAX || recent.front().is_some_and(|(at, _)| old(at)) {
        recent.pop_front();
    }
}

fn trips(recent: &VecDeque<(Instant, HopOutcome)>, config: &BreakerConfig) -> bool {
    let failed = recent.iter().filter(|(_, outcome)| *outcome == HopOutcome::Failed).count();
    recent.len() >= config.requests_min as usize
        && failed * 100 >= recent.len() * usize::from(config.failure_percent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{Clock as _, clock::ManualClock};

    fn breaker() -> (Breaker, ManualClock) {
        (Breaker::new(BreakerConfig::default()), ManualClock::new())
    }
    fn fail(breaker: &Breaker, clock: &ManualClock, times: usize) {
        for _ in 0..times {
            let pass = breaker.admit(clock.monotonic()).expect("let through");
            pass.report(clock.monotonic(), HopOutcome::Failed);
        }
    }

    #[test]
    fn opens_at_half_of_at_least_five_and_not_before() {
        let (breaker, clock) = breaker();
        fail(&breaker, &clock, 4);
        assert_eq!(breaker.state(clock.monotonic()), BreakerState::Closed);
        fail(&breaker, &clock, 1);
        assert_eq!(breaker.state(clock.monotonic()), BreakerState::Open);
        assert!(breaker.admit(clock.monotonic()).is_none());
    }

    #[test]
    fn failures_among_many_answers_or_long_ago_do_not_open_it() {
        let (breaker, clock) = breaker();
        for _ in 0..10 {
            breaker.report(clock.monotonic(), HopOutcome::Answered);
        }
        fail(&breaker, &clock, 9);
        assert_eq!(breaker.state(clock.monotonic()), BreakerState::Closed);
        clock.advance(Duration::from_secs(61));
        fail(&breaker, &clock, 4);
        assert_eq!(breaker.state(clock.monotonic()), BreakerState::Closed);
    }

    #[test]
    fn tries_one_at_a_time_after_the_cool_down_and_closes_after_three() {
        let (breaker, clock) = breaker();
        fail(&breaker, &clock, 5);
        clock.advance(Duration::from_secs(30));
        for left in (0..3).rev() {
            let trial = breaker.admit(clock.monotonic()).expect("a trial");
            assert!(breaker.admit(clock.monotonic()).is_none(), "two at once");
            trial.report(clock.monotonic(), HopOutcome::Answered);
            let closed = breaker.state(clock.monotonic()) == BreakerState::Closed;
            assert_eq!(closed, left == 0);
        }
    }

    #[test]
    fn a_failed_trial_opens_it_again_and_an_abandoned_one_does_not_block_it() {
        let (breaker, clock) = breaker();
        fail(&breaker, &clock, 5);
        clock.advance(Duration::from_secs(30));
        fail(&breaker, &clock, 1);
        assert_eq!(breaker.state(clock.monotonic()), BreakerState::Open);
        clock.advance(Duration::from_secs(30));
        let abandoned = breaker.admit(clock.monotonic()).expect("a trial");
        assert!(breaker.admit(clock.monotonic()).is_none(), "two at once");
        drop(abandoned);
        assert!(breaker.admit(clock.monotonic()).is_some());
    }

    #[test]
    fn an_answered_probe_ends_the_cool_down() {
        let (breaker, clock) = breaker();
        fail(&breaker, &clock, 5);
        breaker.probe_answered(clock.monotonic());
        assert_eq!(breaker.state(clock.monotonic()), BreakerState::HalfOpen);
        assert!(breaker.admit(clock.monotonic()).is_some());
    }
}
