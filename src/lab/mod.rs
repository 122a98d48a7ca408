//! The laboratory: every region for real on one machine, with real distances between them.
//!
//! One Postgres primary and a streaming replica per further region, a Redis and one or more API
//! processes per region, and between the regions relays that delay, hold or reset what they carry.
//! It is the quick start, the tests' harness and the drill's first stage, by one code path.
//!
//! - Everything it keeps is in one directory ([`Layout`]); a lock there keeps a second supervisor
//!   away, and what an earlier one left running is found and stopped first.
//! - It takes a directory that is empty or not there, and marks it; without the mark nothing in a
//!   directory is stopped, written or removed.
//! - It refuses to start when a port is taken, Postgres or Redis are missing or too old.
//! - Data directories are made under another name and renamed when whole, so that one with its own
//!   name is always complete.
//! - When one of its processes ends it says so and leaves it: starting it again is the
//!   experimenter's choice. When the supervisor itself is killed, its relays go with it and its
//!   processes stay until the next `lab up` or `lab down`.
//!
//! - What its Postgres instances are, primary or replica, is theirs to say: an instance starts as
//!   its data directory has it, and the region that is the primary is the one whose claim is newest.
//!
//! It speaks to Postgres and Redis as their administrator, before and beside what `storage` does,
//! which is why it has its own few statements.

mod account;
mod agent;
mod api;
mod child;
mod conninfo;
pub mod control;
mod data;
pub mod dns;
mod file;
mod laboratory;
mod layout;
mod links;
mod lock;
mod ports;
mod postgres;
pub mod postgres_faults;
mod processes;
mod redis;
mod reign;
pub mod relay;
mod secrets;
mod spec;
mod start;
mod status;
mod tools;

pub use account::purge;
pub use agent::{Order, Upstream};
pub use child::tail;
pub use file::{AdminFacts, LabFile, MoreApi, Pids, RegionFacts, TenantFacts};
pub use laboratory::Lab;
pub use layout::{DRILLS, Layout, NotOurs};
pub use links::{Kind, LinkFacts};
pub use lock::{lock, sweep};
pub use relay::{Direction, LinkState};
pub use spec::{
    Durability, Part, PortPlan, Progress, Severing, Spec, Step, Target, Wan, known_regions,
};
pub use status::{PartFacts, PartState, Status};

/// Brings a laboratory up. Cancelling it, or dropping what it returns, kills everything.
///
/// # Errors
/// When it does not come up; nothing of it is left running then.
pub async fn up(spec: Spec) -> anyhow::Result<Lab> {
    let lab = Lab::prepare(spec).await?;
    match lab.start().await {
        Ok(()) => Ok(lab),
        Err(error) => {
            lab.down().await?;
            Err(error)
        }
    }
}
