//! Godwit: an application backend that lives in several regions at once.

pub mod config;
pub mod identity;
pub mod vocab;
