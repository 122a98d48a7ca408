//! `[server]`: the three listeners and what they accept.

use super::{ConfigError, positive};
use serde::{Deserialize, Serialize};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// The API. Loopback by default: an address that others can reach is a choice to be made.
    pub public_addr: SocketAddr,
    /// Other regions only.
    pub internal_addr: SocketAddr,
    /// Metrics and probes.
    pub ops_addr: SocketAddr,
    /// Mutual TLS on the internal listener; without it, it speaks plain HTTP and must be shielded.
    pub internal_tls: Option<InternalTls>,
    /// Threads that answer requests; 0 means one per core.
    pub workers: usize,
    /// Longest request body.
    pub body_bytes_max: usize,
    /// A page of a list ends with the item that brings its documents to this many bytes, so that no
    /// answer is longer than this and one item. Too low: small pages, many round trips. Too high:
    /// each list in flight reads and renders that much in Postgres, some 5 ms for 1 MiB, and holds
    /// it in memory there and, twice, here.
    pub page_bytes_max: usize,
    /// Longest request head, names and values together.
    pub headers_bytes_max: usize,
    /// Longest time for a request's head, and again for its body, to arrive.
    pub receive_ms_max: u64,
    /// Longest time for requests in flight to end after SIGTERM.
    pub drain_seconds_max: u64,
}

/// PEM files.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InternalTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authority that signed the other regions' certificates; others are turned away.
    pub authority: PathBuf,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            public_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            internal_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 9081)),
            ops_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 9181)),
            internal_tls: None,
            workers: 0,
            body_bytes_max: 1024 * 1024,
            // Four of the largest items; 200 ordinary ones of up to 20 KiB.
            page_bytes_max: 4 * 1024 * 1024,
            headers_bytes_max: 16 * 1024,
            receive_ms_max: 10_000,
            drain_seconds_max: 20,
        }
    }
}

impl ServerConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        positive("server.body_bytes_max", self.body_bytes_max as u64)?;
        positive("server.page_bytes_max", self.page_bytes_max as u64)?;
        positive("server.headers_bytes_max", self.headers_bytes_max as u64)?;
        positive("server.receive_ms_max", self.receive_ms_max)
    }
}
