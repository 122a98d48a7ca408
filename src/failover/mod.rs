//! Moving the primary: observe, plan, act, and prove what it cost.
//!
//! Nothing here acts before it has a plan, and no plan is made from what was not observed. Every step
//! can tell that it is done, so that running a command again resumes it. What outlives a command is
//! the regions' promises (`topology::lease`) and each region's [`KeeperLoop`], which brings its own
//! instance to where the topology says it belongs.

pub mod adding;
mod automatic;
mod clerk;
pub mod drill;
pub mod execute;
mod keeper;
pub mod ledger;
pub mod members;
pub mod observe;
mod pair;
pub mod plan;
mod region;
pub mod rejoin;
pub mod replay;

pub use automatic::AutomaticLoop;
pub use clerk::{Clerk, Replays};
pub use execute::{Progress, Report, Run, Stopped};
pub use keeper::KeeperLoop;
pub use observe::{Cluster, Sight};
pub use plan::{Move, Plan, Step, plan};
pub use region::RegionAnswers;
