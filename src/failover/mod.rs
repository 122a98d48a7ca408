//! Moving the primary: observe, plan, act, and prove what it cost.
//!
//! Nothing here acts before it has a plan, and no plan is made from what was not observed. Every step
//! can tell that it is done, so that running a command again resumes it.

pub mod drill;
mod region;

pub use region::RegionAnswers;
