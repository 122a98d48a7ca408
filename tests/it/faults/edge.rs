//! A further API process of a region, whose way to the primary region is a [`Wire`]: what is done
//! to that way is felt by nobody else.

use super::wire::Wire;
use crate::{
    client::{self, Caller},
    harness::{Cluster, EU, SOON, US, eventually, region},
};
use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{collections::BTreeMap, fs, net::SocketAddr, process::Stdio};
use tempfile::TempDir;

/// The name of an edge among a caller's bases.
pub const EDGE: &str = "edge";

pub struct Edge {
    pub wire: Wire,
    pub internal: String,
    pub ops: String,
    public: String,
    dir: TempDir,
    child: tokio::process::Child,
}

/// Probes seldom, so that nearly all bytes on the wire are those of requests, and never opens its
/// breaker.
pub const QUIET: [(&str, &str); 3] = [
    ("GODWIT__TOPOLOGY__PROBE_INTERVAL_MS", "60000"),
    ("GODWIT__TOPOLOGY__STALE_AFTER_MS", "120000"),
    ("GODWIT__ROUTING__BREAKER__REQUESTS_MIN", "1000000"),
];

impl Edge {
    /// Starts one in eu-west-1 whose wire leads to us-east-1.
    pub async fn start(cluster: &Cluster, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let target = cluster.region(US).internal.replace("http://", "").parse()?;
        Self::start_towards(cluster, target, settings).await
    }

    /// Starts one whose wire leads to `target`.
    pub async fn start_towards(
        cluster: &Cluster,
        target: SocketAddr,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let wire = Wire::bind(target).await?;
        let dir = tempfile::tempdir()?;
        let log = fs::File::create(dir.path().join("log"))?;
        let [public, internal, ops] = free_addresses()?;
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_godwit"))
            .arg("serve")
            .arg("--config")
            .arg(cluster.lab.config(&region(EU)))
            .env("GODWIT__SERVER__PUBLIC_ADDR", public.to_string())
            .env("GODWIT__SERVER__INTERNAL_ADDR", internal.to_string())
            .env("GODWIT__SERVER__OPS_ADDR", ops.to_string())
            .env("GODWIT__REGIONS__US-EAST-1__INTERNAL_URL", format!("http://{}", wire.address()))
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let url = |address: SocketAddr| format!("http://{address}");
        let (public, internal, ops) = (url(public), url(internal), url(ops));
        let edge = Self { wire, internal, ops, public, dir, child };
        let http = client::http()?;
        let sound = eventually("a sound edge", SOON, async || {
            let answer = http.get(format!("{}/health", edge.public)).send().await;
            let answer = answer.map_err(|error| format!("{error:#}"))?;
            let text = answer.text().await.map_err(|error| format!("{error:#}"))?;
            if text.contains(r#""status":"ok","region""#) { Ok(()) } else { Err(text) }
        });
        sound.await.with_context(|| edge.log())?;
        Ok(edge)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Of the tenant `demo`; the edge is its region [`EDGE`].
    pub fn caller(&self, cluster: &Cluster) -> anyhow::Result<Caller> {
        let facts = &cluster.facts;
        let regions = facts.regions.iter();
        let regions = regions.map(|(name, facts)| (name.to_string(), facts.public.clone()));
        let own = [(EDGE.to_owned(), self.public.clone())];
        let bases: BTreeMap<_, _> = regions.chain(own).collect();
        let key = facts.tenant.as_ref().map(|tenant| tenant.api_key.clone());
        Ok(Caller::new(client::http()?, bases, key))
    }

    /// Ends it and judges its log.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        self.judged()
    }

    /// Asks it to end, as a supervisor does.
    pub fn tell_to_end(&self) -> anyhow::Result<()> {
        let pid = self.child.id().context("it has ended already")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?)
    }

    /// Waits until it has ended of itself and judges its log.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let status = tokio::time::timeout(SOON, self.child.wait()).await??;
        ensure!(status.success(), "ended with {status}: {}", self.log());
        self.judged()
    }

    fn judged(&self) -> anyhow::Result<()> {
        let log = self.log();
        let bad: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(r#""level":"ERROR""#) || !line.starts_with('{'))
            .collect();
        ensure!(bad.is_empty(), "in the edge's log:\n{}", bad.join("\n"));
        Ok(())
    }
}

/// Nobody else is given these while they are tried: each is asked of the system.
pub fn free_addresses() -> anyhow::Result<[SocketAddr; 3]> {
    let bind = || std::net::TcpListener::bind("127.0.0.1:0");
    let listeners = [bind()?, bind()?, bind()?];
    let [a, b, c] = listeners.map(|listener| listener.local_addr());
    Ok([a?, b?, c?])
}
