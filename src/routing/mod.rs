//! Where a request is answered: here, here after a wait, or in the primary region over one hop.
//!
//! [`decide`] judges, purely; [`forward`] carries; [`envelope`] signs what is carried;
//! [`breaker`] keeps a region that does not answer from holding up the others. A request is
//! forwarded once at most, only to the primary of the epoch the decision was made in, and a write
//! only with an idempotency key.

pub mod breaker;
pub mod decide;
pub mod envelope;
pub mod forward;

pub use decide::{Ask, Consistency, Decision, Intent, PrimaryView, Refusal, View, decide};
