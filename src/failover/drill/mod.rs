//! The drill: a workload from every region, a fault, a failover, and what it cost.

pub mod checker;
pub mod elle;
pub mod history;
pub mod measures;
pub mod page;
pub mod report;
