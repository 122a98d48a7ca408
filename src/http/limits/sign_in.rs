//! Tries to sign in: bounded by address and by account, in all regions together.
//!
//! A try takes a token from its address' bucket and one from its account's before the password is looked
//! at, or, if one of them is empty, none, and is refused. A right password gives both back, so that only
//! guesses count. Whether the account exists makes no difference. An address that has signed in to the
//! account before has a bucket of its own for it, so that nobody elsewhere can keep its owner out.
//!
//! What is taken here is owed to the other regions ([`super::tell`]) and taken there too; what they tell
//! is taken here and told to nobody. While Redis is away each process bounds by itself, and right
//! passwords count as well; the others are told all the same.

use super::{Kind, Limiter, Standing, Subject, count, full_in_ms, local};
use crate::{
    storage::{
        StorageError,
        redis::limits::{self, Named, Taken},
    },
    telemetry::Metrics,
    vocab::{
        Op,
        guess::{Account, GUESS_AGE_MAX, Guessed, Guesses},
    },
};
use std::{net::IpAddr, time::Duration};

/// What is told again, by the same id, within this is not taken again: a region tells nothing that is
/// older than [`GUESS_AGE_MAX`], by a clock that may run differently.
const TOLD_MEMORY: Duration = GUESS_AGE_MAX.saturating_add(Duration::from_mins(1));

/// One try, before its password is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignIn {
    pub address: IpAddr,
    pub account: Account,
    /// Somebody has signed in to the account from this address before.
    pub familiar: bool,
}

impl SignIn {
    /// What it counts against: its address first.
    fn guessed(&self) -> [Guessed; 2] {
        let (account, address) = (self.account, self.address.into());
        let at = if self.familiar {
            Guessed::Familiar { account, address }
        } else {
            Guessed::Account(account)
        };
        [Guessed::Address(address), at]
    }
}

impl Limiter {
    /// Lets a try through to its password, or refuses it: then `allowed` is false, and the standing is the
    /// one of the bucket that takes longer. Else it is the address', which tells nothing of the account.
    ///
    /// Cancelled, it may have counted.
    pub async fn sign_in(&self, tried: SignIn, op: &Op, metrics: &Metrics) -> Standing {
        let guessed = tried.guessed();
        let standings = match self.take_both(guessed, op).await {
            Some(standings) => standings,
            None => self.both_locally(guessed),
        };
        let refuses = standings.iter().filter(|standing| !standing.allowed);
        if let Some(refuses) = refuses.max_by_key(|standing| standing.reset) {
            count(*refuses, metrics);
            return *refuses;
        }
        for standing in standings {
            count(standing, metrics);
        }
        for owed in self.owed.values() {
            let untold = guessed.into_iter().filter(|at| !owed.guessed(*at, op)).count();
            metrics.people.guesses_untold.inc_by(u64::try_from(untold).unwrap_or(u64::MAX));
        }
        standings[0]
    }

    /// The password of a try that was let through was right: what it took is given back.
    pub async fn signed_in(&self, tried: SignIn, op: &Op) {
        let guessed = tried.guessed();
        for owed in self.owed.values() {
            for at in guessed {
                owed.was_right(at, op);
            }
        }
        if self.is_away() {
            return;
        }
        let buckets = guessed.map(|at| self.named(at));
        if let Err(error) = limits::give_back(&self.redis, &buckets, op).await {
            self.went_away(&error);
        }
    }

    /// Takes what another region tells that was taken there; once, however often it is told.
    ///
    /// # Errors
    /// When Redis does not answer: it may have been taken or not, and is to be told again.
    pub async fn told(&self, guesses: &Guesses, op: &Op) -> Result<(), StorageError> {
        let guesses_at = guesses.all.iter().map(|guess| (self.named(guess.at), guess.count));
        let buckets: Vec<_> = guesses_at.collect();
        limits::take_once(&self.redis, guesses.id, TOLD_MEMORY, &buckets, op).await.map(drop)
    }

    fn guessing(&self, at: Guessed) -> &Kind {
        match at {
            Guessed::Address(_) => &self.sign_in_address,
            Guessed::Account(_) => &self.sign_in_account,
            Guessed::Familiar { .. } => &self.sign_in_familiar,
        }
    }

    fn named(&self, at: Guessed) -> Named {
        let kind = self.guessing(at);
        Named { kind: kind.of, id: at.to_string(), rate: kind.rate }
    }

    /// `None` when Redis is away.
    async fn take_both(&self, guessed: [Guessed; 2], op: &Op) -> Option<[Standing; 2]> {
        if self.is_away() {
            return None;
        }
        let buckets = guessed.map(|at| self.named(at));
        let taken = match limits::take_each(&self.redis, &buckets, op).await {
            Ok(taken) => taken,
            Err(error) => {
                self.went_away(&error);
                return None;
            }
        };
        let standing = |at, taken: Taken| {
            let kind = self.guessing(at);
            // Only what is empty refuses; the other one kept its token.
            let allowed = taken.granted > 0 || taken.remaining > 0;
            let full_in_ms = full_in_ms(kind.rate, taken.remaining.into());
            let reset_ms = if allowed { full_in_ms } else { taken.retry_ms };
            Standing {
                name: kind.label,
                rate: kind.rate,
                remaining: taken.remaining,
                reset: Duration::from_millis(reset_ms),
                local: false,
                allowed,
            }
        };
        let [(first, its), (second, that)] = [(guessed[0], taken[0]), (guessed[1], taken[1])];
        Some([standing(first, its), standing(second, that)])
    }

    /// The local bound gives nothing back: a try that the second bucket refuses counts against the first.
    fn both_locally(&self, guessed: [Guessed; 2]) -> [Standing; 2] {
        guessed.map(|at| local(self.guessing(at), Subject::Guessed(at)))
    }
}

#[cfg(test)]
mod tests;
