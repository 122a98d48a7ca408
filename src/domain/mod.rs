//! The product's rules: what a write means, whichever region it came in through.
//!
//! Every write runs in one transaction with its record in the write journal, under the epoch it was
//! decided in, exactly once per idempotency key. Refusals have no effect and leave no record. When
//! the database dies during the commit the outcome is unknown, and said to be.

pub mod api_keys;
pub mod items;
pub mod replay;
pub mod tenants;
pub mod upkeep;
pub mod users;
pub mod write;

pub use items::data::{DataError, ItemData};
pub use write::{Answer, Committed, Refused, WriteContext, WriteError};
