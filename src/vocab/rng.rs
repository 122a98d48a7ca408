//! Randomness, as a parameter.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex, PoisonError},
};

/// A source of random bytes.
pub trait Rng: Send + Sync + 'static {
    fn fill(&self, bytes: &mut [u8]);
}

pub type SharedRng = Arc<dyn Rng>;

/// A uniform number below `bound` (which must not be 0), for jitter; not for secrets.
#[must_use]
pub fn below(rng: &dyn Rng, bound: u64) -> u64 {
    let mut bytes = [0; 8];
    rng.fill(&mut bytes);
    // Multiply-shift: the bias is under 2^-32 for every bound used here.
    u64::try_from((u128::from(u64::from_le_bytes(bytes)) * u128::from(bound)) >> 64).unwrap_or(0)
}

/// The operating system's generator. A thread asks it for some hundred bytes at a time: a request
/// needs a few dozen, in several pieces, and each question is a system call.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

const BUFFER_BYTES: usize = 512;

/// Random bytes not yet given out: those from `next` on. What was given out is wiped.
struct Buffer {
    bytes: [u8; BUFFER_BYTES],
    next: usize,
}

thread_local! {
    static BUFFER: RefCell<Buffer> =
        const { RefCell::new(Buffer { bytes: [0; BUFFER_BYTES], next: BUFFER_BYTES }) };
}

impl Buffer {
    fn give(&mut self, bytes: &mut [u8]) {
        if self.next + bytes.len() > BUFFER_BYTES {
            ask_system(&mut self.bytes);
            self.next = 0;
        }
        let given = &mut self.bytes[self.next..self.next + bytes.len()];
        bytes.copy_from_slice(given);
        given.fill(0);
        self.next += bytes.len();
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that draws randomness")]
fn ask_system(bytes: &mut [u8]) {
    // Without randomness no key, id or secret would be safe to hand out.
    getrandom::fill(bytes).expect("the operating system has no random numbers");
}

impl Rng for SystemRng {
    fn fill(&self, bytes: &mut [u8]) {
        if bytes.len() > BUFFER_BYTES {
            ask_system(bytes);
        } else {
            BUFFER.with_borrow_mut(|buffer| buffer.give(bytes));
        }
    }
}

/// `SplitMix64` from a seed: the same bytes every run, for tests and drills. Never for secrets.
#[derive(Debug)]
pub struct SeededRng(Mutex<u64>);

impl SeededRng {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Rng for SeededRng {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = *state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^= mixed >> 31;
            chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_bytes_are_given_out_twice() {
        let mut seen = BTreeSet::new();
        for size in (8..1_000).chain((8..64).cycle().take(2_000)) {
            let mut bytes = vec![0; size];
            SystemRng.fill(&mut bytes);
            assert!(seen.insert(bytes[..8].to_vec()), "given out twice");
            assert_ne!(bytes[size - 8..], [0; 8], "not filled to the end");
        }
    }
}
