//! Tells another region of guesses, one loop for each: what was taken here is taken there.

use super::Limiter;
use crate::{
    loops::{Loop, Schedule, Tick},
    telemetry::Metrics,
    topology::{
        ask::{Answer, Question},
        probe::Asker,
    },
    vocab::Op,
};
use std::{sync::Arc, time::Duration};

/// Told in one pass: a thousand subjects.
const QUESTIONS_MAX: u64 = 4;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is owed is the limiter's: a loop that starts anew loses nothing.
pub struct TellLoop {
    limiter: Arc<Limiter>,
    asker: Asker,
    metrics: Arc<Metrics>,
}

impl TellLoop {
    /// For one of the regions that the limiter is [`Limiter::telling`].
    #[must_use]
    pub fn new(limiter: Arc<Limiter>, asker: Asker, metrics: Arc<Metrics>) -> Self {
        Self { limiter, asker, metrics }
    }

    /// Within about this another region knows what was guessed here. A burst at each region's full bucket
    /// takes no longer, so less would not bound guessing more tightly.
    #[must_use]
    pub const fn schedule() -> Schedule {
        Schedule { interval: Duration::from_millis(500), pass_max: Duration::from_secs(10) }
    }
}

impl Loop for TellLoop {
    const NAME: &'static str = "limits.tell";

    async fn tick(&mut self, op: &Op) -> Tick {
        let Some(owed) = self.limiter.owed.get(self.asker.region()) else { return Tick::Idle };
        let mut told = 0;
        for _ in 0..QUESTIONS_MAX {
            let (guesses, aged) = owed.next(op);
            self.metrics.people.guesses_untold.inc_by(aged);
            let Some(guesses) = guesses else { break };
            let (id, subjects) = (guesses.id, guesses.all.len());
            let why = match self.asker.ask(Question::Guesses(guesses), PATIENCE, op).await {
                Ok(Answer::Noted) => {
                    owed.noted(id);
                    told += u64::try_from(subjects).unwrap_or(u64::MAX);
                    continue;
                }
                Ok(Answer::Failed { reason }) => reason,
                Ok(_) => "the answer is to another question".to_owned(),
                Err(error) => error.to_string(),
            };
            // Kept for it: the next pass tells it the same again.
            return Tick::Waiting(format!("{}: {why}", self.asker.region()).into());
        }
        if told == 0 { Tick::Idle } else { Tick::Worked(told) }
    }
}

#[cfg(test)]
mod tests;
