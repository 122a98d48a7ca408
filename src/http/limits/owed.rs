//! What one peer has yet to be told of guesses.

use crate::vocab::{
    Op, OpId,
    guess::{GUESS_AGE_MAX, GUESSED_AT_ONCE_MAX, Guess, Guessed, Guesses},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What is guessed at, and not told yet, at most: a megabyte. A process that looks at as many passwords
/// as its cores allow comes to this many in minutes, and a peer that answers is told within one.
pub const SUBJECTS_MAX: usize = 10_000;

/// A token that was told as taken too early is back in the peer's bucket after about this long: then
/// there is nothing left to make up for.
const CREDIT_MAX: Duration = Duration::from_mins(1);

/// Guesses by what they are at. Never waits: each call looks at, or changes, what is in memory.
#[derive(Default)]
pub struct Owed(Mutex<Ledger>);

#[derive(Default)]
struct Ledger {
    by_subject: BTreeMap<Guessed, Entry>,
    /// Told, and not answered: the same again, by the same id, until it is. With the time of its latest
    /// guess.
    under_way: Option<(Guesses, Instant)>,
}

/// At one thing.
struct Entry {
    /// Below zero when a try was told as a guess while its password was being looked at, which was right:
    /// the next guess is not told.
    net: i64,
    latest: Instant,
}

impl Owed {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A try is a guess until it is found to be right. `false` when there is no room: the peer is not told
    /// of it.
    #[must_use]
    pub fn guessed(&self, at: Guessed, op: &Op) -> bool {
        self.ledger().add(at, 1, op.clock.monotonic())
    }

    /// A try was none. Without room the peer is told one too many.
    pub fn was_right(&self, at: Guessed, op: &Op) {
        self.ledger().add(at, -1, op.clock.monotonic());
    }

    /// What the peer is to be told now, and how many guesses are too old to be told. Says the same until
    /// that is [`Owed::noted`].
    #[must_use]
    pub fn next(&self, op: &Op) -> (Option<Guesses>, u64) {
        let mut ledger = self.ledger();
        let aged = ledger.forget(op.clock.monotonic());
        (ledger.next(op), aged)
    }

    /// The peer has taken what had this id.
    pub fn noted(&self, id: OpId) {
        self.ledger().under_way.take_if(|(guesses, _)| guesses.id == id);
    }
}

impl Ledger {
    fn add(&mut self, at: Guessed, count: i64, now: Instant) -> bool {
        if let Some(entry) = self.by_subject.get_mut(&at) {
            entry.net = entry.net.saturating_add(count);
            entry.latest = now;
            if entry.net == 0 {
                self.by_subject.remove(&at);
            }
            return true;
        }
        if self.by_subject.len() >= SUBJECTS_MAX {
            return false;
        }
        self.by_subject.insert(at, Entry { net: count, latest: now });
        true
    }

    fn forget(&mut self, now: Instant) -> u64 {
        let age = |latest| now.saturating_duration_since(latest);
        let mut aged = 0;
        if let Some((guesses, _)) =
            self.under_way.take_if(|(_, latest)| age(*latest) > GUESS_AGE_MAX)
        {
            aged += guesses.all.iter().map(|guess| u64::from(guess.count)).sum::<u64>();
        }
        self.by_subject.retain(|_, entry| match u64::try_from(entry.net) {
            Ok(_) if age(entry.latest) <= GUESS_AGE_MAX => true,
            Ok(guesses) => {
                aged += guesses;
                false
            }
            Err(_) => age(entry.latest) <= CREDIT_MAX,
        });
        aged
    }

    fn next(&mut self, op: &Op) -> Option<Guesses> {
        if let Some((guesses, _)) = &self.under_way {
            return Some(guesses.clone());
        }
        let owed = self.by_subject.iter().filter(|(_, entry)| entry.net > 0);
        let owed = owed.take(GUESSED_AT_ONCE_MAX).map(|(at, entry)| {
            let count = u32::try_from(entry.net).unwrap_or(u32::MAX);
            (Guess { at: *at, count }, entry.latest)
        });
        let (all, latest): (Vec<_>, Vec<_>) = owed.unzip();
        let latest = latest.into_iter().max()?;
        for guess in &all {
            self.by_subject.remove(&guess.at);
        }
        let guesses = Guesses { id: OpId::mint(op), all };
        self.under_way = Some((guesses.clone(), latest));
        Some(guesses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{OpKind, SystemRng, clock::ManualClock};
    use std::{
        net::{IpAddr, Ipv4Addr},
        sync::Arc,
    };

    fn at(number: u32) -> Guessed {
        Guessed::Address(IpAddr::V4(Ipv4Addr::from_bits(number)).into())
    }

    fn op() -> (Arc<ManualClock>, Op) {
        let clock = Arc::new(ManualClock::new());
        let op = Op::new(OpKind::Test, clock.clone(), Arc::new(SystemRng), Duration::ZERO);
        (clock, op)
    }

    /// What is told, and noted.
    fn told(owed: &Owed, op: &Op) -> Vec<(Guessed, u32)> {
        let (Some(guesses), _) = owed.next(op) else { return Vec::new() };
        owed.noted(guesses.id);
        guesses.all.into_iter().map(|guess| (guess.at, guess.count)).collect()
    }

    #[test]
    fn only_what_was_not_right_is_told() {
        let (owed, (_, op)) = (Owed::default(), op());
        for number in [1, 1, 1, 2] {
            assert!(owed.guessed(at(number), &op));
        }
        owed.was_right(at(1), &op);
        owed.was_right(at(2), &op);
        assert_eq!(told(&owed, &op), [(at(1), 2)]);
        assert_eq!(told(&owed, &op), []);
    }

    #[test]
    fn a_try_that_was_told_too_early_is_made_up_for_by_the_next_guess() {
        let (owed, (clock, op)) = (Owed::default(), op());
        let early = || {
            assert!(owed.guessed(at(1), &op));
            assert_eq!(told(&owed, &op), [(at(1), 1)]);
            owed.was_right(at(1), &op);
        };
        early();
        assert_eq!(told(&owed, &op), []);
        assert!(owed.guessed(at(1), &op));
        assert_eq!(told(&owed, &op), []);
        assert!(owed.guessed(at(1), &op));
        assert_eq!(told(&owed, &op), [(at(1), 1)]);
        // Later the peer's bucket has its token back.
        early();
        clock.advance(CREDIT_MAX + Duration::from_millis(1));
        assert_eq!(told(&owed, &op), []);
        assert!(owed.guessed(at(1), &op));
        assert_eq!(told(&owed, &op), [(at(1), 1)]);
    }

    #[test]
    fn what_was_not_noted_is_told_again_as_it_was_and_what_came_since_apart() {
        let (owed, (_, op)) = (Owed::default(), op());
        assert!(owed.guessed(at(1), &op));
        let (first, _) = owed.next(&op);
        assert!(owed.guessed(at(1), &op));
        assert_eq!(owed.next(&op), (first.clone(), 0));
        owed.noted(OpId::mint(&op));
        assert_eq!(owed.next(&op), (first.clone(), 0));
        owed.noted(first.as_ref().unwrap().id);
        let (second, _) = owed.next(&op);
        assert_ne!(second.as_ref().unwrap().id, first.unwrap().id);
        assert_eq!(second.unwrap().all, [Guess { at: at(1), count: 1 }]);
    }

    #[test]
    fn nothing_is_told_that_is_older_than_an_hour() {
        let (owed, (clock, op)) = (Owed::default(), op());
        assert!(owed.guessed(at(1), &op) && owed.guessed(at(1), &op));
        assert!(owed.next(&op).0.is_some());
        clock.advance(GUESS_AGE_MAX / 2);
        assert!(owed.guessed(at(2), &op));
        clock.advance(GUESS_AGE_MAX / 2 + Duration::from_millis(1));
        let (guesses, aged) = owed.next(&op);
        assert_eq!((guesses.unwrap().all[0].at, aged), (at(2), 2));
        clock.advance(GUESS_AGE_MAX);
        assert_eq!(owed.next(&op), (None, 1));
    }

    #[test]
    fn a_peer_that_is_away_is_owed_no_more_than_there_is_room_for() {
        let (owed, (_, op)) = (Owed::default(), op());
        let subjects = u32::try_from(SUBJECTS_MAX).unwrap();
        assert!((0..subjects).all(|number| owed.guessed(at(number), &op)));
        assert!(!owed.guessed(at(subjects), &op));
        assert!(owed.guessed(at(7), &op), "what is known has room");
        let mut all = Vec::new();
        loop {
            let some = told(&owed, &op);
            assert!(some.len() <= GUESSED_AT_ONCE_MAX);
            if some.is_empty() {
                break;
            }
            all.extend(some);
        }
        assert_eq!(all.len(), SUBJECTS_MAX);
        assert_eq!(all.iter().map(|(_, count)| count).sum::<u32>(), subjects + 1);
        assert!(owed.guessed(at(subjects), &op));
    }
}
