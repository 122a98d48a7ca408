//! `godwit health`: what this process's own probes say, for where there is no program to ask them with.

use super::{Output, block_on, client::probe};
use crate::config::Config;
use anyhow::ensure;
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

/// Ask the process of these settings, on its ops listener, how it is
///
/// For a container's health check and for `kubectl exec`: the image has no shell and no curl.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: godwit health
         godwit health --probe liveness --config /etc/godwit/us-east-1.toml

Exits with 1 when it is not well, or does not answer.")]
pub struct Health {
    /// What to ask for
    #[arg(long, value_enum, default_value_t)]
    probe: Probe,
    /// Settings of the process; those in the environment alone without it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Probe {
    /// The process turns its event loop
    Liveness,
    /// It serves users well
    #[default]
    Readiness,
    /// Its start is done
    Startup,
}

impl Health {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = Config::load(self.config.as_deref())?;
        let name = match self.probe {
            Probe::Liveness => "liveness",
            Probe::Readiness => "readiness",
            Probe::Startup => "startup",
        };
        let url = format!("http://{}/api/health/{name}", reached(config.server.ops_addr));
        let (ok, told) = block_on(probe(&url))?;
        self.output.print(&told, lines)?;
        ensure!(ok, "no {name}");
        Ok(())
    }
}

/// Where a listener on all addresses is reached from here.
fn reached(listens: SocketAddr) -> SocketAddr {
    let ip = match listens {
        SocketAddr::V4(at) if at.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(at) if at.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        at => at.ip(),
    };
    SocketAddr::new(ip, listens.port())
}

/// How it is, and the checks that are not well, a line each.
fn lines(told: &serde_json::Value) -> String {
    let mut lines = vec![told["status"].as_str().unwrap_or("unknown").to_owned()];
    let checks = told["checks"].as_object().into_iter().flatten();
    let amiss = checks.filter(|(_, check)| check["status"] != "ok");
    lines.extend(amiss.map(|(name, check)| format!("{name}: {check}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:9181", "127.0.0.1:9181"),
            ("[::]:9181", "[::1]:9181"),
            ("10.0.0.7:9181", "10.0.0.7:9181"),
        ] {
            assert_eq!(reached(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
