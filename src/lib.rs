//! Godwit: an application backend that lives in several regions at once.

pub mod assembly;
pub mod changes;
pub mod cli;
pub mod config;
pub mod domain;
pub mod failover;
pub mod http;
pub mod identity;
pub mod lab;
pub mod lifecycle;
pub mod loops;
pub mod queue;
pub mod routing;
pub mod storage;
pub mod telemetry;
pub mod topology;
pub mod vocab;
