//! Godwit: an application backend that lives in several regions at once.

pub mod config;
pub mod identity;
pub mod routing;
pub mod telemetry;
pub mod topology;
pub mod vocab;
