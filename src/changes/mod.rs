//! What the primary did, as this region's replica tells it: in the order of commits, without gaps.
//!
//! Each process follows by itself and acts on what is its own and its region's. Everything may be seen
//! twice. While the replica or Redis does not answer, nothing is passed over: it is looked at again.

pub mod sessions;

pub use sessions::{FollowerLoop, Heard};
