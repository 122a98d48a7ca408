//! What a drill is held on: a laboratory, which can be broken, or a cluster, which is only moved.
//!
//! The primary is moved by the very commands that a person would give, run as programs of their own:
//! so the drill has no path of its own, and what it measures is what a person would wait for.

use crate::{
    config::Durability,
    failover::drill::{
        faults::{Act, Place},
        ground::{Acted, Ground},
    },
    lab::{
        self, Direction, Kind, LabFile, LinkFacts, Severing,
        control::{Request, ask},
        postgres_faults,
    },
    vocab::{Clock as _, Region, SystemClock},
};
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf, process::Stdio, time::Duration};

/// Longest run of a command. Copying a whole database takes longest.
const COMMAND_PATIENCE: Duration = Duration::from_mins(5);

/// Gives the commands that move the primary.
#[derive(Debug, Clone)]
pub struct Commands {
    /// This program.
    pub program: PathBuf,
    /// `--lab DIR` or `--config FILE`.
    pub target: [std::ffi::OsString; 2],
    pub durability: Durability,
    /// Where the lists of lost writes are kept.
    pub ledgers: PathBuf,
}

impl Commands {
    /// Runs one to its end, with what it printed.
    async fn give(&self, verb: &str, region: &Region) -> (Acted, Option<String>) {
        let mut command = tokio::process::Command::new(&self.program);
        command.arg(verb).arg(region.as_str()).args(["--yes", "--output", "json"]);
        if verb == "promote" && self.durability == Durability::Async {
            command.arg("--accept-data-loss");
        }
        if verb == "rejoin" {
            command.arg("--ledger").arg(self.ledger(region));
        }
        command.args(&self.target).stdin(Stdio::null()).kill_on_drop(true);
        let ended = match tokio::time::timeout(COMMAND_PATIENCE, command.output()).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => return (Acted::Failed(error.to_string()), None),
            Err(_) => {
                return (Acted::Failed(format!("not done within {COMMAND_PATIENCE:?}")), None);
            }
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (out, said) = (text(&ended.stdout), text(&ended.stderr));
        let why = said.lines().last().unwrap_or("it said nothing").to_owned();
        let acted = match ended.status.code() {
            Some(0) => Acted::Done,
            Some(3) => Acted::Refused(why),
            _ => Acted::Failed(why),
        };
        (acted, Some(format!("{said}\n{out}").trim().to_owned()))
    }

    /// One that is not there yet: each round can lose some.
    fn ledger(&self, region: &Region) -> PathBuf {
        let path = |number| self.ledgers.join(format!("lost-{region}-{number}.ndjson"));
        (1..u32::MAX).map(path).find(|path| !path.exists()).unwrap_or_else(|| path(u32::MAX))
    }

    /// `None` when it is no command.
    async fn act(&self, act: &Act) -> Option<(Acted, Option<String>)> {
        match act {
            Act::Promote(region) => Some(self.give("promote", region).await),
            Act::Switchover(region) => Some(self.give("switchover", region).await),
            Act::Rejoin(region) => Some(self.give("rejoin", region).await),
            _ => None,
        }
    }
}

/// Longest wait for a cluster to find its way by itself where it can be mended, and where it cannot,
/// or has been: a busy machine takes long.
const ALONE_PATIENCE: Duration = Duration::from_secs(20);
const WELL_PATIENCE: Duration = Duration::from_mins(1);
/// Longest run of `godwit status`.
const LOOK_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Commands {
    /// What `godwit status` finds amiss; asked again for as long as there is patience.
    async fn amiss(&self, patience: Duration) -> Vec<Amiss> {
        let clock = SystemClock;
        let until = clock.monotonic() + patience;
        loop {
            let found = self.look().await;
            if found.is_empty() || clock.monotonic() > until {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn look(&self) -> Vec<Amiss> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(["status", "--output", "json"]).args(&self.target);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let asked = tokio::time::timeout(LOOK_PATIENCE, command.output()).await;
        let told = asked.ok().and_then(Result::ok);
        match told.and_then(|told| serde_json::from_slice(&told.stdout).ok()) {
            Some(status) => amiss(&status),
            None => vec![Amiss { region: None, why: "`godwit status` tells nothing".to_owned() }],
        }
    }
}

/// Something that a round must not begin with.
#[derive(Debug, PartialEq, Eq)]
struct Amiss {
    region: Option<Region>,
    why: String,
}

impl std::fmt::Display for Amiss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.region {
            Some(region) => write!(f, "{region} {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// Of what `godwit status` printed. Pure.
fn amiss(status: &Value) -> Vec<Amiss> {
    let mut found = Vec::new();
    for facts in status["regions"].as_array().into_iter().flatten() {
        let Some(region) = facts["region"].as_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let why = if facts["reachable"] != true {
            "does not answer"
        } else if facts["role"].is_null() {
            "has a database that does not answer"
        } else if !facts["quarantine"].is_null() {
            "is quarantined"
        } else if facts["epoch"] != status["epoch"] {
            "has not heard of the current epoch"
        } else if facts["role"] == "replica" && facts["streaming"] != true {
            "receives no log"
        } else {
            continue;
        };
        found.push(Amiss { region: Some(region), why: why.to_owned() });
    }
    if status["primary"].is_null() {
        found.push(Amiss { region: None, why: "no region takes writes".to_owned() });
    }
    found
}

fn listed(amiss: &[Amiss]) -> String {
    amiss.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A cluster: nothing is broken there.
#[derive(Debug)]
pub struct ClusterGround(pub Commands);

impl Ground for ClusterGround {
    async fn act(&self, act: &Act) -> (Acted, Option<String>) {
        match self.0.act(act).await {
            Some(acted) => acted,
            None => (Acted::Failed("only a laboratory is broken on purpose".into()), None),
        }
    }

    async fn restore(&self) -> Result<Vec<String>, String> {
        let amiss = self.0.amiss(WELL_PATIENCE).await;
        if amiss.is_empty() { Ok(Vec::new()) } else { Err(listed(&amiss)) }
    }

    async fn mend(&self) -> Acted {
        Acted::Done
    }
}

#[derive(Debug)]
pub struct LabGround {
    pub dir: PathBuf,
    pub commands: Commands,
    /// Of each pair of regions, as it was when the drill began.
    round_trips_ms: BTreeMap<(Region, Region), u64>,
}

impl LabGround {
    /// # Errors
    /// When no laboratory runs there.
    pub async fn new(dir: PathBuf, commands: Commands) -> anyhow::Result<Self> {
        let status = ask(&dir, &Request::Status).await?;
        let distance =
            |link: &LinkFacts| ((link.from.clone(), link.to.clone()), link.state.round_trip_ms);
        let round_trips_ms = status.links.iter().map(distance).collect();
        Ok(Self { dir, commands, round_trips_ms })
    }

    async fn ask(&self, request: Request) -> anyhow::Result<lab::Status> {
        ask(&self.dir, &request).await
    }

    async fn lengthen(&self, of: Option<&Region>, by_ms: u64) -> anyhow::Result<()> {
        for ((a, b), round_trip_ms) in &self.round_trips_ms {
            // Each pair is there both ways.
            if a < b && of.is_none_or(|region| region == a || region == b) {
                let (a, b, round_trip_ms) = (a.clone(), b.clone(), round_trip_ms + by_ms);
                self.ask(Request::Delay { a, b, round_trip_ms }).await?;
            }
        }
        Ok(())
    }

    fn database(&self, region: &Region) -> anyhow::Result<String> {
        let file = LabFile::read(&self.dir)?;
        let facts = file.regions.get(region);
        Ok(facts.with_context(|| format!("no {region} in this laboratory"))?.global_db.clone())
    }

    async fn do_it(&self, act: &Act) -> anyhow::Result<()> {
        match act {
            Act::Kill(place) => drop(self.ask(Request::Kill { target: target(place)? }).await?),
            Act::Start(place) => drop(self.ask(Request::Start { target: target(place)? }).await?),
            Act::Pause(place) => drop(self.ask(Request::Pause { target: target(place)? }).await?),
            Act::Resume(place) => drop(self.ask(Request::Resume { target: target(place)? }).await?),
            Act::Cut(a, b) => {
                self.ask(Request::Cut { a: a.clone(), b: b.clone() }).await?;
            }
            Act::Heal => {
                self.ask(Request::Heal).await?;
                self.lengthen(None, 0).await?;
            }
            Act::Slow(region, by_ms) => self.lengthen(Some(region), *by_ms).await?,
            Act::DropAnswer { from, to } => {
                let (from, to, kind) = (from.clone(), to.clone(), Kind::Http);
                let severing =
                    Severing { from, to, kind, direction: Direction::Response, after: 0 };
                self.ask(Request::Sever(severing)).await?;
            }
            Act::ReadLong { replica, primary } => {
                let (replica, primary) = (self.database(replica)?, self.database(primary)?);
                postgres_faults::read_long(&replica, &primary).await?;
            }
            Act::CancelWaits(region) => {
                let cancelled = postgres_faults::cancel_waits(&self.database(region)?).await?;
                // Elsewhere no commit waits.
                let waits = self.commands.durability == Durability::Quorum;
                ensure!(cancelled > 0 || !waits, "no commit waited in {region}");
            }
            Act::FillPages(region) => postgres_faults::fill_pages(&self.database(region)?).await?,
            Act::Promote(_) | Act::Switchover(_) | Act::Rejoin(_) => bail!("that is a command"),
        }
        Ok(())
    }

    /// Every region runs, hears the others and follows the one that is the primary.
    async fn mend_all(&self) -> anyhow::Result<()> {
        let file = LabFile::read(&self.dir)?;
        self.do_it(&Act::Heal).await?;
        for region in file.regions.keys() {
            let place = Place { region: region.clone(), part: None };
            self.do_it(&Act::Resume(place.clone())).await?;
            self.do_it(&Act::Start(place)).await?;
        }
        Ok(())
    }
}

fn target(place: &Place) -> anyhow::Result<lab::Target> {
    Ok(place.to_string().parse()?)
}

impl Ground for LabGround {
    async fn act(&self, act: &Act) -> (Acted, Option<String>) {
        if let Some(acted) = self.commands.act(act).await {
            return acted;
        }
        match self.do_it(act).await {
            Ok(()) => (Acted::Done, None),
            Err(error) => (Acted::Failed(format!("{error:#}")), None),
        }
    }

    async fn restore(&self) -> Result<Vec<String>, String> {
        let amiss = self.commands.amiss(ALONE_PATIENCE).await;
        if amiss.is_empty() {
            return Ok(Vec::new());
        }
        self.mend_all().await.map_err(|error| format!("{}: {error:#}", listed(&amiss)))?;
        let mut done =
            vec![format!("{}: healed every link, started what was dead", listed(&amiss))];
        for one in self.commands.amiss(ALONE_PATIENCE).await {
            let Some(region) = &one.region else { continue };
            match self.commands.give("rejoin", region).await {
                (Acted::Done, _) => done.push(format!("{one}: rejoined it")),
                (Acted::Refused(why) | Acted::Failed(why), _) => {
                    return Err(format!("{one}, and to rejoin it: {why}"));
                }
            }
        }
        let amiss = self.commands.amiss(WELL_PATIENCE).await;
        if amiss.is_empty() { Ok(done) } else { Err(listed(&amiss)) }
    }

    async fn mend(&self) -> Acted {
        match self.mend_all().await {
            Ok(()) => Acted::Done,
            Err(error) => Acted::Failed(format!("{error:#}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_round_does_not_begin_on_a_cluster_that_is_not_whole() {
        let region = |name: &str, role: &str| {
            json!({ "region": name, "reachable": true, "role": role, "epoch": 2,
                    "quarantine": null, "streaming": role == "replica" })
        };
        let whole = json!({
            "primary": "a-1", "epoch": 2, "regions": [region("a-1", "primary"), region("b-1", "replica")],
        });
        assert_eq!(amiss(&whole), []);
        for (what, value, why) in [
            ("reachable", json!(false), "does not answer"),
            ("role", json!(null), "has a database that does not answer"),
            ("quarantine", json!("left"), "is quarantined"),
            ("epoch", json!(1), "has not heard of the current epoch"),
            ("streaming", json!(null), "receives no log"),
        ] {
            let mut status = whole.clone();
            status["regions"][1][what] = value;
            assert_eq!(listed(&amiss(&status)), format!("b-1 {why}"));
        }
        let mut status = whole;
        status["primary"] = Value::Null;
        assert_eq!(listed(&amiss(&status)), "no region takes writes");
    }
}
