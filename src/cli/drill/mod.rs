//! `godwit drill`: break it, move it, and prove what that cost.

mod dns;
mod ground;

use super::{
    Misused, Output, block_on,
    target::{DEFAULT_LAB, Target},
};
use crate::{
    config::{Config, Durability},
    failover::drill::{
        client::Client,
        elle,
        faults::Fault,
        ground::Ground,
        history::History,
        page,
        report::{Report, Round, Summary, round_text, summary_text},
        run::{self, Order},
    },
    lab::{DRILLS, LabFile},
    vocab::{Op, OpKind, Region, rng},
};
use anyhow::{Context as _, bail};
use ground::{ClusterGround, Commands, LabGround};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Break a cluster under load, move its primary, and prove what that cost
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: godwit drill --fault kill-primary
         godwit drill --rounds 20 --seed 7
         godwit drill --config godwit.toml --key KEY --fault promote-under-load
         godwit drill --dns

Sessions in every region add items, append to lists by compare-and-set, and read back what they wrote
with their bookmarks, while something is broken and the primary moves. At the end all of it is read
back and judged: acknowledged writes that are missing (RPO), keys with two effects, reads that are
stale or go back, two epochs that acknowledge at once, clients that were not told of a loss; and
measured: the time from the last write of the old epoch to the first of the new (RTO), and how long
each region had no reads and no writes. docs/DRILL.md says how each is counted.

Without --fault each round takes another one, in an order that the seed gives. A laboratory is broken
on purpose; a cluster (--config) is not: it can be loaded (none) and switched over (promote-under-load).
Writes report.json, report.html, history.json and elle.json (for elle-cli) under --out. Exit code 1 when
any round is not clean: a rule was broken, or it could not begin or come to its end. The summary grades
what is promised (met, missed, not measured); a time that is missed fails no round.

With --dns no primary is moved: each region of a laboratory is lost in every way, and more than one at
once, and users of every continent ask DNS where to go, and go there. docs/DNS.md tells what comes of it.
Writes dns.json under --out. Exit code 1 when anybody is not served where they belong.")]
pub struct Drill {
    /// What to break; --list-faults tells the names
    #[arg(long, value_name = "NAME")]
    fault: Option<Fault>,
    /// Tell the faults, and do nothing
    #[arg(long)]
    list_faults: bool,
    /// Lose each region, and see DNS send its users elsewhere and back
    #[arg(long, conflicts_with_all = ["fault", "list_faults", "rounds", "seed", "rate"])]
    dns: bool,
    /// Rounds, one after the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Gives the faults and what the sessions choose [default: a random one]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Writes a second from all regions together; as many reads beside
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    rate: u32,
    /// API key with the scopes read and write [default: the laboratory's]
    #[arg(long, env = "GODWIT_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Where reports and histories are written [default: drills/TIME-SEED in the laboratory, or in .godwit]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What is drilled: who to ask, with what, and by which commands it is moved.
struct Cluster {
    bases: BTreeMap<Region, Vec<String>>,
    key: String,
    commands: Commands,
    /// The laboratory's directory.
    lab: Option<PathBuf>,
    real_round_trips: bool,
}

impl Drill {
    pub fn run(self) -> anyhow::Result<()> {
        if self.list_faults {
            return self.output.print(&listed(), |faults| {
                let rows = faults.iter().map(|fault| vec![fault.name.into(), fault.about.into()]);
                super::table(&["FAULT", "WHAT HAPPENS"], rows)
            });
        }
        let cluster = self.cluster()?;
        if self.dns {
            return block_on(self.rehearse(cluster));
        }
        if let Some(fault) = self.fault
            && cluster.lab.is_none()
            && !fault.is_planned()
        {
            return Err(Misused(format!(
                "{fault} needs a laboratory: a cluster is not broken on purpose"
            ))
            .into());
        }
        block_on(self.drill(cluster))
    }

    fn cluster(&self) -> anyhow::Result<Cluster> {
        let program = std::env::current_exe().context("this program cannot be found")?;
        // An empty variable is an unset one.
        let key = self.key.clone().filter(|key| !key.is_empty());
        if let Some(dir) = self.target.lab_dir() {
            let lab = LabFile::read(&dir)?;
            let bases = |(region, facts): (&Region, &crate::lab::RegionFacts)| {
                let more = facts.more.iter().map(|more| more.public.clone());
                (region.clone(), [facts.public.clone()].into_iter().chain(more).collect())
            };
            let key = key.or_else(|| lab.tenant.as_ref().map(|tenant| tenant.api_key.clone()));
            let durability =
                if lab.durability == "quorum" { Durability::Quorum } else { Durability::Async };
            let target = ["--lab".into(), dir.clone().into_os_string()];
            return Ok(Cluster {
                bases: lab.regions.iter().map(bases).collect(),
                key: key
                    .ok_or_else(|| Misused("the laboratory has no tenant: name a --key".into()))?,
                commands: Commands { program, target, durability, ledgers: PathBuf::new() },
                lab: Some(dir),
                real_round_trips: lab.wan == "real",
            });
        }
        let config = self.target.load()?;
        let key = key.ok_or_else(|| Misused("--config needs --key, or GODWIT_KEY".into()))?;
        let file = self.target.config.clone().unwrap_or_default();
        let target = ["--config".into(), file.into_os_string()];
        let commands = Commands {
            program,
            target,
            durability: config.failover.durability,
            ledgers: PathBuf::new(),
        };
        Ok(Cluster {
            bases: public_urls(&config)?,
            key,
            commands,
            lab: None,
            real_round_trips: true,
        })
    }

    async fn drill(self, mut cluster: Cluster) -> anyhow::Result<()> {
        let op = Op::system(OpKind::Command, Duration::from_hours(24));
        let seed = self.seed.unwrap_or_else(|| rng::below(&*op.rng, 1_000_000));
        let at = op.now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let stamp = op.now().format("%Y%m%dT%H%M%SZ");
        let out = self.out.clone();
        let kept = cluster.lab.as_deref().unwrap_or(Path::new(DEFAULT_LAB)).join(DRILLS);
        let out = out.unwrap_or_else(|| kept.join(format!("{stamp}-{seed}")));
        fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
        cluster.commands.ledgers.clone_from(&out);
        let durability = cluster.commands.durability;
        let real_round_trips = cluster.real_round_trips;
        let (rate, rounds) = (self.rate, Vec::new());
        let report = Report { seed, at, durability, rate, real_round_trips, rounds };
        let report = if let Some(dir) = cluster.lab.clone() {
            let ground = LabGround::new(dir, cluster.commands.clone()).await?;
            self.rounds(&cluster, &ground, Fault::suite(), report, &out, &op).await?
        } else {
            let ground = ClusterGround(cluster.commands.clone());
            let planned = [Fault::PromoteUnderLoad];
            self.rounds(&cluster, &ground, &planned, report, &out, &op).await?
        };
        self.output.print(&Printed::of(&report), |printed| {
            format!("{}\n{}\n", summary_text(printed.report), out.join("report.html").display())
        })?;
        if !report.passed() {
            let unclean = report.rounds.iter().filter(|round| !round.passed()).count();
            bail!("{unclean} of {} rounds are not clean", report.rounds.len());
        }
        Ok(())
    }

    async fn rounds(
        &self,
        cluster: &Cluster,
        ground: &impl Ground,
        possible: &[Fault],
        mut report: Report,
        out: &Path,
        op: &Op,
    ) -> anyhow::Result<Report> {
        let faults = run::faults(self.fault, possible, self.rounds, report.seed);
        for (number, fault) in (1..).zip(faults) {
            let progress = progress(&format!("round {number} of {}, {fault}", self.rounds));
            let order = Order {
                number,
                seed: run::seed_of(report.seed, number),
                fault,
                rate: self.rate,
                durability: report.durability,
                run: hex::encode(rng::below(&*op.rng, u64::MAX).to_be_bytes()),
            };
            let key = cluster.key.clone().into();
            let client = Client::new(cluster.bases.clone(), key, Arc::clone(&op.clock))?;
            let told = progress.clone();
            let tell = move |says: &str| told.set_message(says.to_owned());
            let ran = run::run(client, ground, &order, &tell).await;
            progress.finish_and_clear();
            // What cannot be made good would be amiss in the next round too.
            let goes_on = ran.is_ok();
            let round = match ran {
                Ok((round, history)) => {
                    let dir = match self.rounds {
                        1 => out.to_owned(),
                        _ => out.join(format!("round-{number:02}")),
                    };
                    save_history(&dir, &history)?;
                    round
                }
                Err(why) => Round::not_run(&order, why),
            };
            self.tell(&round)?;
            report.rounds.push(round);
            // After each round, so that an interrupted drill has told what it found.
            save(&out.join("report.json"), &Printed::of(&report))?;
            fs::write(out.join("report.html"), page::render(&report)?)?;
            if !goes_on {
                break;
            }
        }
        Ok(report)
    }

    /// Each round as it ends, for whoever waits.
    fn tell(&self, round: &Round) -> anyhow::Result<()> {
        match self.output {
            Output::Text => self.output.print(round, round_text),
            Output::Json => Ok(()),
        }
    }
}

/// The report, and what all rounds come to.
#[derive(Serialize)]
struct Printed<'a> {
    summary: Summary,
    #[serde(flatten)]
    report: &'a Report,
}

impl<'a> Printed<'a> {
    fn of(report: &'a Report) -> Self {
        Self { summary: report.summary(), report }
    }
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    about: &'static str,
    /// Whether rounds without a named fault take it.
    suite: bool,
}

fn listed() -> Vec<Listed> {
    let fault = |fault: Fault| {
        let (name, about) = fault.facts();
        Listed { name, about, suite: Fault::suite().contains(&fault) }
    };
    Fault::ALL.map(fault).into()
}

fn public_urls(config: &Config) -> anyhow::Result<BTreeMap<Region, Vec<String>>> {
    let url = |(region, facts): (&Region, &crate::config::RegionConfig)| {
        let url = facts.public_url.clone();
        let url = url.with_context(|| format!("regions.{region}.public_url is not set"))?;
        Ok((region.clone(), vec![url]))
    };
    config.regions.iter().map(url).collect()
}

fn save_history(dir: &Path, history: &History) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    save(&dir.join("history.json"), history)?;
    save(&dir.join("elle.json"), &elle::export(history))
}

fn save<T: Serialize>(path: &Path, facts: &T) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    serde_json::to_writer(&mut file, facts)?;
    file.flush().with_context(|| path.display().to_string())
}

fn progress(what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{prefix}  {elapsed}  {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
