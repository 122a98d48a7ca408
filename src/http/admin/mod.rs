//! `/v1/admin`: for operators of a tenant and of the cluster.

pub mod keys;
pub mod regions;
pub mod sessions;
pub mod users;
