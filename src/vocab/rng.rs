//! Randomness, as a parameter.

use std::sync::{Arc, Mutex, PoisonError};

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

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    #[expect(clippy::disallowed_methods, reason = "the one place that draws randomness")]
    fn fill(&self, bytes: &mut [u8]) {
        // Without randomness no key, id or secret would be safe to hand out.
        getrandom::fill(bytes).expect("the operating system has no random numbers");
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
