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
    vocab::Region,
};
use anyhow::{Context as _, bail};
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
}

impl Commands {
    /// Runs one to its end, with what it printed.
    async fn give(&self, verb: &str, region: &Region) -> (Acted, Option<String>) {
        let mut command = tokio::process::Command::new(&self.program);
        command.arg(verb).arg(region.as_str()).args(["--yes", "--output", "json"]);
        if verb == "promote" && self.durability == Durability::Async {
            command.arg("--accept-data-loss");
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
                postgres_faults::cancel_waits(&self.database(region)?).await?;
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

    async fn mend(&self) -> Acted {
        match self.mend_all().await {
            Ok(()) => Acted::Done,
            Err(error) => Acted::Failed(format!("{error:#}")),
        }
    }
}
