//! What was lost is carried out again, for an operator who asked for it.

use super::ledger::{Carries, LedgerError};
use crate::{
    topology::ledger::{Became, LedgerOrder as Order, LedgerOutcome as Outcome, Replayed},
    vocab::{Epoch, Op},
};
use serde::Serialize;

/// Writes that the primary is told to carry out at once; it stops earlier when its time is up.
const AT_ONCE: usize = 200;

/// How many came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub replayed: u64,
    /// Sent again by their clients.
    pub repeated: u64,
    /// Kept aside.
    pub conflict: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.replayed += other.replayed;
        self.repeated += other.repeated;
        self.conflict += other.conflict;
    }
}

/// Carries out again what `new`, the primary, has noted as lost of `epoch`, in the order in which it
/// had been committed, and tells `each` what came of it. Running it again goes on where it stopped;
/// what was kept aside is not tried again.
///
/// # Errors
/// When the primary does not answer, or refuses.
pub async fn replay(
    new: &impl Carries,
    epoch: Epoch,
    op: &Op,
    mut each: impl FnMut(&Replayed),
) -> Result<Tally, LedgerError> {
    let mut tally = Tally::default();
    let mut after = None;
    loop {
        let order = Order::Replay { epoch, after, limit: AT_ONCE };
        let Outcome::Replayed { writes, next } = new.order(order, op).await? else {
            return Err(LedgerError::Unexpected { region: new.name() });
        };
        for write in &writes {
            each(write);
            match write.became {
                Became::Replayed => tally.replayed += 1,
                Became::Repeated => tally.repeated += 1,
                Became::Conflict => tally.conflict += 1,
            }
        }
        match next {
            Some(mark) if !writes.is_empty() => after = Some(mark),
            _ => return Ok(tally),
        }
    }
}
