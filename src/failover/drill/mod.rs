//! The drill: a workload from every region, a fault, a failover, and what it cost.
//!
//! [`run::run`] holds one round on a [`ground::Ground`]: who breaks, mends and moves is not known
//! here. The [`workload`] asks through the public listeners alone and keeps a [`history`] of every
//! request; the [`checker`] judges it and [`measures`] counts it, both pure. A round that cannot be
//! read back at its end is failed, never taken for clean.

pub mod checker;
pub mod client;
mod closing;
pub mod elle;
pub mod faults;
pub mod ground;
pub mod history;
pub mod limits;
pub mod measures;
pub mod page;
pub mod report;
pub mod run;
pub mod workload;
