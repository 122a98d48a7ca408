//! `godwit switchover`, `godwit promote`, `godwit rejoin`: what on-call types. Each looks, says what it
//! would do and why not, asks, acts, and can be run again wherever it was stopped.

use super::{Misused, Output, Refused, Target, block_on, status};
use crate::{
    config::Config,
    failover::{
        self, Cluster, Move, Plan, Progress, Report, Run, Sight, Stopped,
        ledger::{Lost, write_lines},
        rejoin::{self, Keeping},
        replay::Tally,
    },
    topology::{probe::connecting, seal::Sealer, tls::Tls},
    vocab::{Epoch, Op, OpKind, Region},
};
use anyhow::Context as _;
use serde::Serialize;
use std::{
    fs::File,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest run of a command, agent aside.
const BUDGET: Duration = Duration::from_secs(300);

/// What the three have in common.
#[derive(Debug, clap::Args)]
struct Common {
    /// The region
    #[arg(value_name = "REGION")]
    region: Region,
    #[command(flatten)]
    how: How,
}

/// How a command on the cluster goes about it.
#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Tell each step on standard error as it is done, in a pipe too
    #[arg(long)]
    progress: bool,
    #[command(flatten)]
    target: Target,
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,
}

/// What a command on the cluster has to hand.
pub(super) struct Hand {
    pub(super) config: Config,
    pub(super) cluster: Cluster,
    /// Longest work of a region's agent, with time to tell of it.
    pub(super) agent_max: Duration,
    pub(super) op: Op,
}

/// Hand the primary to another region; both are alive, and nothing is lost
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: godwit switchover eu-west-1
         godwit switchover eu-west-1 --yes --output json

Writes are held at every region's gate and let through to the new primary. The old one follows it. Run
again after an interruption, it goes on from there; `godwit switchover OLD` takes an unfinished one back.")]
pub struct Switchover {
    #[command(flatten)]
    common: Common,
}

/// Make a replica the primary; the primary is gone
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: godwit promote eu-west-1 --dry-run
         godwit promote eu-west-1 --accept-data-loss

Refuses while another replica has more, and unless no acknowledged write can be lost. What is lost after
all is listed by `godwit rejoin` once the old primary is back.")]
pub struct Promote {
    #[command(flatten)]
    common: Common,
    /// Promote even if writes that were acknowledged may be lost
    #[arg(long)]
    accept_data_loss: bool,
}

/// Bring a region whose database has left the cluster's history back as a replica
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: godwit rejoin us-east-1

         godwit rejoin us-east-1 --replay

Lists the writes that it acknowledged and no other region has, in a file and on the new primary, whose
clients are told of them; keeps a copy of what its log had; goes back to where its epoch ended (pg_rewind,
or a fresh copy); and follows the primary.")]
pub struct Rejoin {
    #[command(flatten)]
    common: Common,
    /// Where the writes are listed that it alone had, one JSON document a line
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Go on where what it alone has cannot be listed: its Postgres does not start
    #[arg(long)]
    accept_data_loss: bool,
    /// Carry out again on the primary, in their order, all that are noted as lost; what no longer fits
    /// is kept aside
    #[arg(long)]
    replay: bool,
}

impl Switchover {
    pub fn run(self) -> anyhow::Result<()> {
        self.common.run(Move::Switchover)
    }
}

impl Promote {
    pub fn run(self) -> anyhow::Result<()> {
        self.common.run(Move::Promote { accept_data_loss: self.accept_data_loss })
    }
}

/// The cluster that a command acts on.
fn cluster(target: &Target, config: &Config) -> anyhow::Result<Cluster> {
    let tls = config.cluster.peer_tls.as_ref().map(Tls::peer).transpose()?;
    let connect = connecting(&config.routing, tls);
    let listeners = status::endpoints(target, config)?;
    let listeners = listeners.into_iter().map(|endpoint| (endpoint.region, endpoint.url));
    Ok(Cluster::new(connect, Sealer::new(&config.cluster), listeners)?)
}

impl Common {
    fn run(&self, how: Move) -> anyhow::Result<()> {
        self.how.run(async |hand| {
            let sight = hand.cluster.observe(&hand.op).await;
            let durability = hand.config.failover.durability;
            let planner = |sight: &Sight| failover::plan(sight, &self.region, how, durability);
            let plan = planner(&sight).map_err(|reasons| {
                Refused(refusal(&format!("{} does not become the primary", self.region), &reasons))
            })?;
            if self.how.dry_run {
                return self.how.output.print(&plan, printed);
            }
            self.how.confirm(&printed(&plan), self.region.as_str())?;
            let report = self.how.carry_out(hand, &sight, &plan, planner).await?;
            self.how.output.print(&report, summary)
        })
    }
}

impl How {
    /// Runs a command's work on the cluster that it names.
    pub(super) fn run(
        &self,
        work: impl AsyncFnOnce(&Hand) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let config = self.target.load()?;
        let agent_max = Duration::from_secs(config.failover.agent_seconds_max + 10);
        let op = Op::system(OpKind::Command, BUDGET + 5 * agent_max);
        block_on(async {
            let cluster = cluster(&self.target, &config)?;
            work(&Hand { config, cluster, agent_max, op }).await
        })
    }

    /// Carries a plan out, and tells as it goes. It is planned anew by `planner` where it met another.
    pub(super) async fn carry_out(
        &self,
        hand: &Hand,
        sight: &Sight,
        plan: &Plan,
        planner: impl Fn(&Sight) -> Result<Plan, Vec<String>>,
    ) -> anyhow::Result<Report> {
        let term = Duration::from_millis(hand.config.lease.term_ms);
        let run = Run::new(&hand.cluster, sight, plan, hand.agent_max, term, &hand.op);
        run.carry_out(planner, |progress| self.tell(progress)).await.map_err(told)
    }

    /// Asks on a terminal, for `word`. Elsewhere there is nobody to ask.
    pub(super) fn confirm(&self, what: &str, word: &str) -> anyhow::Result<()> {
        if self.yes {
            self.say(what.trim_end());
            return Ok(());
        }
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            let word =
                "nobody can be asked here: say --yes, or --dry-run to see what would be done";
            return Err(Misused(word.to_owned()).into());
        }
        let mut stderr = std::io::stderr();
        write!(stderr, "{what}\nType the region's name to go on: ")?;
        let mut answer = String::new();
        stdin.read_line(&mut answer)?;
        if answer.split_whitespace().eq(word.split_whitespace()) {
            return Ok(());
        }
        Err(Refused("not confirmed; nothing was done".to_owned()).into())
    }

    pub(super) fn tell(&self, progress: Progress<'_>) {
        match progress {
            Progress::Begins(step) => self.say(&format!("  .. {step}")),
            Progress::Done(_, told, took) => {
                self.say(&format!("  ok {:>6} ms  {told}", took.as_millis()));
            }
            Progress::Anew(why) => self.say(&format!("  .. planned anew: {why}")),
        }
    }

    /// Tells, on standard error, who wants to know.
    pub(super) fn say(&self, what: &str) {
        let mut stderr = std::io::stderr();
        if self.progress || stderr.is_terminal() {
            // Whoever reads along may have gone: no reason to stop in the middle.
            let _ = writeln!(stderr, "{what}");
        }
    }
}

/// What would be done.
#[derive(Serialize)]
struct Planned<'a> {
    region: &'a Region,
    primary: &'a Region,
    what: String,
}

#[derive(Serialize)]
struct Rejoined {
    region: Region,
    primary: Region,
    told: String,
    /// Writes that it alone had; null when its journal was not read.
    lost: Option<usize>,
    ledger: Option<PathBuf>,
    replayed: Option<Tally>,
}

impl Rejoin {
    pub fn run(self) -> anyhow::Result<()> {
        let Self { common: Common { region, how }, ledger, accept_data_loss, replay } = self;
        how.run(async |Hand { cluster, agent_max, op, .. }| {
            let sight = cluster.observe(op).await;
            let region = &region;
            let primary = primary(&sight, region)?;
            if !sight.members().contains(region) {
                let why = format!("{region} is no member of the cluster");
                return Err(Refused(format!("{why}: `godwit region add {region}`")).into());
            }
            let what = format!(
                "{region} follows {primary}; where it has gone on by itself, it goes back to where its \
                 epoch ended"
            );
            if how.dry_run {
                let plan = Planned { region, primary: &primary, what };
                return how.output.print(&plan, |plan| plan.what.clone());
            }
            how.confirm(&what, region.as_str())?;
            let mut file = None;
            let list = |epoch: Epoch, lost: &[Lost]| {
                file = keep(region, ledger.as_deref(), epoch, lost)?;
                Ok(())
            };
            let tell = |what: &str| how.say(&format!("  .. {what}"));
            let keeping = Keeping { tell: &tell, list, unlisted: accept_data_loss };
            let back = rejoin::go_back(cluster, region, &primary, *agent_max, op, keeping).await;
            let back = back.map_err(told)?;
            let mut replayed = None;
            if replay {
                let asker = cluster.asker(&sight, &primary).context("no such region")?;
                let tally = replayed.insert(Tally::default());
                for epoch in rejoin::ended(&sight.epochs_of(&primary)) {
                    *tally += failover::replay::replay(&asker, epoch, op, |_| ()).await?;
                }
            }
            let rejoined = Rejoined {
                region: region.clone(),
                primary,
                told: back.told,
                lost: back.lost.as_ref().map(Vec::len),
                ledger: file,
                replayed,
            };
            let lost = back.lost.unwrap_or_default();
            how.output.print(&rejoined, |rejoined| rejoined.text(&lost))
        })
    }
}

/// Writes what a region alone has to a file; `None` when it has nothing.
pub(super) fn keep(
    region: &Region,
    ledger: Option<&Path>,
    epoch: Epoch,
    lost: &[Lost],
) -> Result<Option<PathBuf>, Stopped> {
    if lost.is_empty() {
        return Ok(None);
    }
    let usual = || format!("lost-{region}-epoch-{epoch}.ndjson").into();
    let path: PathBuf = ledger.map_or_else(usual, Path::to_path_buf);
    let written = File::create(&path).and_then(|to| write_lines(lost, to));
    written.map_err(|error| {
        Stopped::Failed(format!("{} cannot be written: {error}", path.display()))
    })?;
    Ok(Some(path))
}

/// Lost writes that are shown; the file has them all.
const SHOWN_MAX: usize = 20;

impl Rejoined {
    fn text(&self, lost: &[Lost]) -> String {
        use std::fmt::Write as _;
        let mut text = format!("{} follows {}: {}\n", self.region, self.primary, self.told);
        // Writing to a string does not fail.
        if let Some(ledger) = &self.ledger {
            let _ = writeln!(
                text,
                "{} writes had been committed there alone and are lost; {} has them all:",
                lost.len(),
                ledger.display()
            );
        } else if self.lost == Some(0) {
            text.push_str("no acknowledged write was lost\n");
        }
        for Lost { record, .. } in lost.iter().take(SHOWN_MAX) {
            let at = record.committed_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            let _ = writeln!(
                text,
                "  {at}  {} {}  {} {}",
                record.tenant, record.key, record.method, record.path
            );
        }
        if lost.len() > SHOWN_MAX {
            let _ = writeln!(text, "  and {} more", lost.len() - SHOWN_MAX);
        }
        if let Some(Tally { replayed, repeated, conflict }) = self.replayed {
            let _ = writeln!(
                text,
                "carried out again: {replayed}; sent again by their clients: {repeated}; kept \
                 aside: {conflict}"
            );
        }
        text
    }
}

/// Whom a region that comes back is to follow.
pub(super) fn primary(sight: &Sight, region: &Region) -> anyhow::Result<Region> {
    let refuse = |why: String| Err(Refused(why).into());
    let Some(current) = sight.current() else {
        return refuse("no region tells which epoch it is in".to_owned());
    };
    if current.region == *region {
        return refuse(format!("{region} is the primary of epoch {}", current.epoch));
    }
    let seen = sight.regions.get(&current.region);
    if !seen.is_some_and(|seen| seen.report.as_ref().is_ok_and(|report| report.writable)) {
        return refuse(format!("{}, the primary, does not take writes", current.region));
    }
    match sight.regions.get(region).map(|seen| &seen.report) {
        None => refuse(format!("{region} is not one of the cluster's regions")),
        Some(Err(why)) => refuse(format!(
            "{region}: its process does not answer ({why}); it is what brings its database back"
        )),
        Some(Ok(_)) => Ok(current.region.clone()),
    }
}

pub(super) fn told(stopped: Stopped) -> anyhow::Error {
    match stopped {
        Stopped::Refused(why) => Refused(why).into(),
        Stopped::Failed(why) => {
            anyhow::anyhow!("{why}\nWhat was done stays done; run the same command again to go on")
        }
    }
}

pub(super) fn refusal(what: &str, reasons: &[String]) -> String {
    let list: Vec<String> = reasons.iter().map(|reason| format!("\n  - {reason}")).collect();
    format!("{what}:{}", list.concat())
}

pub(super) fn printed(plan: &Plan) -> String {
    use std::fmt::Write as _;
    let Plan { promise, from, ends, counted, steps, notes, .. } = plan;
    let mut text = format!("{from} -> {}, epoch {ends} -> {}\n", promise.region, promise.epoch);
    // Writing to a string does not fail.
    if let Some(members) = promise.members.as_ref().filter(|members| *members != counted) {
        let _ = writeln!(text, "  members: {counted} -> {members}");
    }
    for note in notes {
        let _ = writeln!(text, "  note: {note}");
    }
    for (number, step) in (1..).zip(steps) {
        let _ = writeln!(text, "  {number}. {step}");
    }
    text
}

pub(super) fn summary(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "{} is the primary of epoch {}: {} ms, of which {} ms waiting for the old primary's lease\n",
        report.region, report.epoch, report.took_ms, report.lease_wait_ms
    );
    // Writing to a string does not fail.
    if let Some(members) = &report.members {
        let _ = writeln!(text, "  members: {members}");
    }
    for note in &report.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    for step in &report.steps {
        let _ = writeln!(text, "  {:>6} ms  {}: {}", step.took_ms, step.step, step.told);
    }
    text
}
