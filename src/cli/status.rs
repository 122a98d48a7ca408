//! `godwit status`: every region at a glance, as each tells of itself.

use super::{Output, Target, block_on, table};
use crate::{
    lab::LabFile,
    topology::{
        Role, TopologyReport,
        control::{Standby, namesakes},
        lease::Promise,
        probe::{self, ProbeError},
        report::PeerReport,
    },
    vocab::{Bookmark, Clock as _, Epoch, Lsn, Members, Region, SystemClock},
};
use futures_util::future::join_all;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

/// Every region at a glance: role, epoch, position, lag, links
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: godwit status
         godwit status --config /etc/godwit/us-east-1.toml --watch
         godwit status --output json | jq .primary

LAG is the upper bound of how old a read in that region can be, BEHIND the log of the primary that
it has yet to replay; `unknown` means not measured, never zero.")]
pub struct Status {
    #[command(flatten)]
    target: Target,
    /// Ask again every second until interrupted; as JSON, a line each time
    #[arg(long)]
    watch: bool,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// An internal listener to ask.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) region: Region,
    pub(super) url: String,
}

/// What one listener answered.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) region: Region,
    pub(super) answer: Result<TopologyReport, String>,
    pub(super) took: Duration,
}

#[derive(Debug, Serialize)]
struct Facts {
    /// The region whose database accepts writes, in the highest epoch that any region knows.
    primary: Option<Region>,
    epoch: Option<Epoch>,
    /// The regions that count in it; null when no region tells.
    members: Option<Members>,
    regions: Vec<RegionFacts>,
    /// What an operator should know of.
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct RegionFacts {
    region: Region,
    reachable: bool,
    role: Option<Role>,
    epoch: Option<Epoch>,
    position: Option<Bookmark>,
    lag_ms: Option<u64>,
    lag_bytes: Option<u64>,
    streaming: Option<bool>,
    /// Whether it takes writes now.
    writable: bool,
    /// The regions that count, as far as it knows.
    members: Option<Members>,
    /// Why its data is not served, if it is not.
    quarantine: Option<String>,
    /// The promotion that it has promised not to stand in the way of.
    promise: Option<Promise>,
    schema: Option<String>,
    builds: BTreeSet<String>,
    round_trip_ms: Option<u64>,
    processes: Processes,
    /// Who follows its database; null when unknown.
    standbys: Option<Vec<Standby>>,
    /// How this region sees the others.
    peers: BTreeMap<Region, PeerReport>,
}

#[derive(Debug, Serialize)]
struct Processes {
    answering: usize,
    known: usize,
}

const EVERY: Duration = Duration::from_secs(1);
/// A first connection over the longest link, with time to spare.
const PATIENCE: Duration = Duration::from_secs(2);
/// Clears the terminal (ECMA-48: erase all, home).
const CLEAR: &str = "\x1b[2J\x1b[H";

impl Status {
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.target.load()?;
        let endpoints = endpoints(&self.target, &config)?;
        block_on(async {
            let client = probe::peer_client(&config.routing, config.cluster.peer_tls.as_ref())?;
            let look = async || facts(ask_all(&client, &endpoints, PATIENCE).await);
            if !self.watch {
                let facts = look().await;
                self.output.print(&facts, Facts::text)?;
                let any = facts.regions.iter().any(|region| region.reachable);
                anyhow::ensure!(any, "no region answers");
                return Ok(());
            }
            while self.show(&look().await)? {
                tokio::time::sleep(EVERY).await;
            }
            Ok(())
        })
    }

    /// `false` once nobody reads any more.
    fn show(&self, facts: &Facts) -> anyhow::Result<bool> {
        let mut out = std::io::stdout();
        let text = match self.output {
            Output::Json => serde_json::to_string(facts)?,
            Output::Text if out.is_terminal() => format!("{CLEAR}{}", facts.text()),
            Output::Text => format!("{}\n", facts.text()),
        };
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }
}

/// A laboratory's processes are asked directly: its settings name the relays between regions, and
/// a link that was cut must not hide a region that is well.
pub(super) fn endpoints(
    target: &Target,
    config: &crate::config::Config,
) -> anyhow::Result<Vec<Endpoint>> {
    let Some(dir) = target.lab_dir() else {
        let of = |(region, facts): (&Region, &crate::config::RegionConfig)| Endpoint {
            region: region.clone(),
            url: facts.internal_url.clone(),
        };
        return Ok(config.regions.iter().map(of).collect());
    };
    let lab = LabFile::read(&dir)?;
    let all = lab.regions.iter().flat_map(|(region, facts)| {
        let urls =
            std::iter::once(&facts.internal).chain(facts.more.iter().map(|more| &more.internal));
        urls.map(|url| Endpoint { region: region.clone(), url: url.clone() })
    });
    Ok(all.collect())
}

/// Asks all at once.
pub(super) async fn ask_all(
    client: &probe::PeerClient,
    endpoints: &[Endpoint],
    patience: Duration,
) -> Vec<Asked> {
    let ask = async |endpoint: &Endpoint| {
        let timed = async || {
            let started = SystemClock.monotonic();
            let answer = probe::ask(client, &endpoint.url, patience).await;
            (answer, SystemClock.monotonic().saturating_duration_since(started))
        };
        // The first also opens the connection; the second tells the round trip.
        let (answer, took) = match timed().await {
            (Ok(_), _) => timed().await,
            failed => failed,
        };
        let answer = answer.map_err(why).and_then(|report| {
            if report.region == endpoint.region {
                Ok(report)
            } else {
                Err(format!(
                    "{} is in {}: the settings name the wrong address",
                    endpoint.url, report.region
                ))
            }
        });
        Asked { region: endpoint.region.clone(), answer, took }
    };
    join_all(endpoints.iter().map(ask)).await
}

/// The cause that tells most; an HTTP client's own words are many and say little.
fn why(error: ProbeError) -> String {
    let error = anyhow::Error::new(error);
    let root = error.chain().last().map(ToString::to_string).unwrap_or_default();
    let first = error.to_string();
    if root == first { first } else { format!("{first} ({root})") }
}

fn facts(asked: Vec<Asked>) -> Facts {
    let mut by_region: BTreeMap<Region, Vec<Asked>> = BTreeMap::new();
    for one in asked {
        by_region.entry(one.region.clone()).or_default().push(one);
    }
    let mut warnings = Vec::new();
    let mut regions = Vec::new();
    for (region, asked) in by_region {
        for failure in asked.iter().filter_map(|one| one.answer.as_ref().err()) {
            warnings.push(format!("{region}: {failure}"));
        }
        regions.push(RegionFacts::new(region, asked));
    }
    let epoch = regions.iter().filter_map(|region| region.epoch).max();
    let primaries: Vec<_> = regions.iter().filter(|r| r.writable && r.epoch == epoch).collect();
    if primaries.len() > 1 {
        let names: Vec<_> = primaries.iter().map(|r| r.region.to_string()).collect();
        warnings.push(format!("more than one primary in one epoch: {}", names.join(", ")));
    }
    let primary = primaries.first().map(|found| found.region.clone());
    let there = primaries.first().and_then(|found| found.position);
    for region in &mut regions {
        region.compare(primary.as_ref(), there);
    }
    if primary.is_none() {
        warnings.push("no region takes writes; reads go on".to_owned());
    }
    let pending = regions.iter().filter_map(|region| region.promise.as_ref());
    let pending = pending.filter(|promise| Some(promise.epoch) > epoch);
    if let Some(promise) = pending.max_by_key(|promise| promise.epoch) {
        warnings.push(format!(
            "a move of the primary to {} in epoch {} is not finished: run it again",
            promise.region, promise.epoch
        ));
    }
    warnings.extend(regions.iter().filter_map(|region| region.concern(epoch)));
    let newest = regions.iter().filter(|region| region.members.is_some());
    let members = newest.max_by_key(|region| region.epoch);
    let members = members.and_then(|region| region.members.clone());
    Facts { primary, epoch, members, regions, warnings }
}

impl RegionFacts {
    fn new(region: Region, asked: Vec<Asked>) -> Self {
        let known = asked.len();
        let round_trip = asked.iter().filter(|one| one.answer.is_ok()).map(|one| one.took).min();
        let reports: Vec<_> = asked.into_iter().filter_map(|one| one.answer.ok()).collect();
        let builds = reports.iter().map(|report| report.build.clone()).collect();
        let answering = reports.len();
        // One process of the region is enough for its writes.
        let writable = reports.iter().any(|report| report.writable);
        // The process that knows most of its database speaks for the region.
        let best =
            reports.into_iter().max_by_key(|report| (report.role.is_some(), report.position));
        let round_trip_ms = round_trip.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
        let processes = Processes { answering, known };
        Self {
            region,
            reachable: best.is_some(),
            role: best.as_ref().and_then(|best| best.role),
            epoch: best.as_ref().and_then(TopologyReport::epoch),
            position: best.as_ref().and_then(|best| best.position),
            lag_ms: best.as_ref().and_then(|best| best.lag_ms),
            lag_bytes: best.as_ref().and_then(|best| best.lag_bytes),
            streaming: best.as_ref().and_then(|best| best.streaming),
            writable,
            members: best.as_ref().and_then(|best| best.members.clone()),
            quarantine: best.as_ref().and_then(|best| best.quarantine.clone()),
            promise: best.as_ref().and_then(|best| best.promise.clone()),
            schema: best.as_ref().and_then(|best| best.schema.clone()),
            builds,
            round_trip_ms,
            processes,
            standbys: best.as_ref().and_then(|best| best.standbys.clone()),
            peers: best.map(|best| best.peers).unwrap_or_default(),
        }
    }

    /// A replica counts from what it last heard of the primary; who sees both knows better. Where
    /// it hears nothing any more, and nobody sees both, nobody knows.
    fn compare(&mut self, primary: Option<&Region>, there: Option<Bookmark>) {
        let hears = primary
            .and_then(|primary| self.peers.get(primary))
            .is_some_and(|facts| facts.reachable);
        if self.role != Some(Role::Replica) {
            return;
        }
        let both = there.zip(self.position).filter(|(there, here)| there.epoch == here.epoch);
        let seen = both.map(|(there, here)| there.lsn.bytes_since(here.lsn));
        let told = self.lag_bytes.filter(|_| hears);
        self.lag_bytes = seen.max(told);
    }

    fn concern(&self, epoch: Option<Epoch>) -> Option<String> {
        let region = &self.region;
        if !self.reachable {
            return None;
        }
        if self.role.is_none() {
            return Some(format!("{region}: its database does not answer"));
        }
        if let Some(quarantine) = &self.quarantine {
            return Some(format!("{region}: {quarantine}"));
        }
        if self.epoch < epoch {
            return Some(format!("{region}: has not heard of the current epoch"));
        }
        if self.role == Some(Role::Primary) && !self.writable {
            return Some(format!(
                "{region}: a primary that takes no writes: no majority of regions grants it its epoch, or it is fenced"
            ));
        }
        if self.role == Some(Role::Replica) && self.streaming == Some(false) {
            return Some(format!("{region}: its replica receives no log"));
        }
        let twice = namesakes(self.standbys.as_deref().unwrap_or_default());
        if !twice.is_empty() {
            let names: Vec<_> = twice.into_iter().collect();
            let names = names.join(", ");
            return Some(format!(
                "{region}: two standbys go by the name {names}: neither is counted on for a commit"
            ));
        }
        let schema = self.schema.as_deref().filter(|schema| schema.starts_with("old"))?;
        Some(format!("{region}: schema is {schema}"))
    }

    fn row(&self) -> Vec<String> {
        let unknown = || "unknown".to_owned();
        let replica = self.role == Some(Role::Replica);
        let measured = |value: Option<String>| match value {
            Some(value) => value,
            None if self.role == Some(Role::Primary) => "-".to_owned(),
            None => unknown(),
        };
        let lag = self.lag_ms.filter(|_| replica).map(|ms| format!("{ms} ms"));
        let behind = self.lag_bytes.filter(|_| replica).map(bytes);
        let position = self.position.map(|at| at.lsn).as_ref().map(Lsn::to_string);
        vec![
            self.region.to_string(),
            self.role.map_or_else(unknown, |role| role.to_string()),
            self.epoch.map_or_else(unknown, |epoch| epoch.to_string()),
            position.unwrap_or_else(unknown),
            measured(lag),
            measured(behind),
            self.links(),
            format!("{}/{}", self.processes.answering, self.processes.known),
            self.round_trip_ms.map_or_else(|| "no answer".to_owned(), |ms| format!("{ms} ms")),
        ]
    }

    /// How it sees the others: only what is not well is named.
    fn links(&self) -> String {
        if self.peers.is_empty() {
            return if self.reachable { "none".to_owned() } else { "unknown".to_owned() };
        }
        let unwell: Vec<_> = self
            .peers
            .iter()
            .filter_map(|(peer, facts)| match (facts.reachable, facts.breaker.as_str()) {
                (true, "closed") => None,
                (true, breaker) => Some(format!("{peer} breaker {breaker}")),
                (false, "closed") => Some(format!("{peer} unreachable")),
                (false, breaker) => Some(format!("{peer} unreachable, breaker {breaker}")),
            })
            .collect();
        if unwell.is_empty() { "all well".to_owned() } else { unwell.join("; ") }
    }
}

fn bytes(count: u64) -> String {
    // One decimal, without a float.
    let of = |unit: u64, name: &str| {
        let tenths = (u128::from(count) * 10 / u128::from(unit)).to_string();
        let (whole, tenth) = tenths.split_at(tenths.len() - 1);
        format!("{whole}.{tenth} {name}")
    };
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => of(1024, "KiB"),
        1_048_576..1_073_741_824 => of(1_048_576, "MiB"),
        _ => of(1_073_741_824, "GiB"),
    }
}

const HEAD: [&str; 9] =
    ["REGION", "ROLE", "EPOCH", "POSITION", "LAG", "BEHIND", "LINKS", "PROCESSES", "ROUND TRIP"];

impl Facts {
    /// Who follows the primary, and whom a commit there waits for.
    fn asked(&self) -> Option<String> {
        let primary = self.regions.iter().find(|one| Some(&one.region) == self.primary.as_ref())?;
        let standbys = primary.standbys.as_ref()?;
        let (asked, others): (Vec<_>, Vec<_>) =
            standbys.iter().partition(|one| matches!(one.acknowledges.as_str(), "quorum" | "sync"));
        let of = |some: &[&Standby]| {
            let each = some.iter().map(|one| {
                let flushed = one.flushed.map_or_else(|| "unknown".to_owned(), |at| at.to_string());
                format!("{} ({flushed})", one.name)
            });
            each.collect::<Vec<_>>().join(", ")
        };
        let waits = if asked.is_empty() {
            "commits wait for no standby".to_owned()
        } else {
            format!("commits wait for one of {}", of(&asked))
        };
        let line =
            if others.is_empty() { waits } else { format!("{waits}; {} follow", of(&others)) };
        Some(format!("\n{line}"))
    }

    fn text(&self) -> String {
        let head = match (&self.primary, self.epoch) {
            (Some(primary), Some(epoch)) => format!("primary {primary}, epoch {epoch}"),
            (_, Some(epoch)) => format!("no primary, epoch {epoch}"),
            _ => "no primary, epoch unknown".to_owned(),
        };
        let strangers = self.members.as_ref().map(|members| {
            let others = self.regions.iter().filter(|one| !members.contains(&one.region));
            others.map(|one| one.region.to_string()).collect::<Vec<_>>().join(", ")
        });
        let head = match (&self.members, strangers.filter(|others| !others.is_empty())) {
            (Some(members), Some(others)) => format!("{head}, members {members}; not {others}"),
            _ => head,
        };
        let mut lines = vec![head, String::new()];
        lines.push(table(&HEAD, self.regions.iter().map(RegionFacts::row)));
        lines.extend(self.asked());
        if !self.warnings.is_empty() {
            lines.push(String::new());
            lines.extend(self.warnings.iter().map(|warning| format!("! {warning}")));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests;
