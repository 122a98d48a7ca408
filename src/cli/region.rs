//! `godwit region remove`, `godwit region add`: who counts. Both look, plan, ask and act as the commands
//! that move the primary do, and can be run again wherever they were stopped.

use super::{
    Refused,
    failover::{Hand, How, keep, primary, printed, refusal, summary, told},
};
use crate::{
    failover::{
        Plan, Sight, adding,
        ledger::Lost,
        members::{self, Planned, Removal},
        rejoin::Keeping,
    },
    vocab::{Epoch, Region},
};
use serde::Serialize;
use std::{collections::BTreeSet, path::PathBuf};

/// Take regions out of the cluster that are gone for good, and add new ones
#[derive(Debug, clap::Args)]
pub struct RegionCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Add(Add),
    Remove(Remove),
}

/// Take regions out of the cluster: they count for nothing any more, and nothing is kept for them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: godwit region remove ap-south-1
         godwit region remove us-east-1 ap-south-1 --gone --primary eu-west-1 --accept-data-loss

A majority of the regions must answer. With --gone those that are named do not count for that: say it only
of regions that are down and stay down until they are added again, for you and for each other.")]
struct Remove {
    /// The regions
    #[arg(value_name = "REGION", required = true)]
    regions: Vec<Region>,
    /// They are down, and stay down until they are added again
    #[arg(long, conflicts_with = "alive")]
    gone: bool,
    /// They may answer, and are removed all the same
    #[arg(long)]
    alive: bool,
    /// Where the primary goes that is among them
    #[arg(long, value_name = "REGION")]
    primary: Option<Region>,
    /// Go on even if writes that were acknowledged may be lost
    #[arg(long)]
    accept_data_loss: bool,
    #[command(flatten)]
    how: How,
}

/// Add a region to the cluster: it is brought in as a replica, and counts then
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: godwit region add ap-south-1

Every region's settings must name it, and its process must run. What it alone has, if it was a primary
once, is listed as by `godwit rejoin`.")]
struct Add {
    /// The region
    #[arg(value_name = "REGION")]
    region: Region,
    /// Where the writes are listed that it alone had, one JSON document a line
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Go on where what it alone has cannot be listed: its Postgres does not start
    #[arg(long)]
    accept_data_loss: bool,
    #[command(flatten)]
    how: How,
}

/// All is so already.
#[derive(Debug, Serialize)]
struct Nothing {
    told: String,
}

impl RegionCommand {
    pub fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::Add(add) => add.run(),
            What::Remove(remove) => remove.run(),
        }
    }
}

fn nothing(how: &How, told: String) -> anyhow::Result<()> {
    how.output.print(&Nothing { told }, |nothing| format!("{}: nothing to do", nothing.told))
}

impl Remove {
    fn run(self) -> anyhow::Result<()> {
        let Self { regions, gone, alive, primary, accept_data_loss, how } = self;
        let names: Vec<&str> = regions.iter().map(Region::as_str).collect();
        let (word, what) = (names.join(" "), format!("{} not removed", names.join(", ")));
        let regions: BTreeSet<Region> = regions.iter().cloned().collect();
        let removal = Removal { regions, gone, alive, primary, accept_data_loss };
        how.run(async |hand| {
            let sight = hand.cluster.observe(&hand.op).await;
            let durability = hand.config.failover.durability;
            let planner = |sight: &Sight| members::remove(sight, &removal, durability);
            let planned = planner(&sight);
            let plan = match planned.map_err(|reasons| Refused(refusal(&what, &reasons)))? {
                Planned::Nothing(told) => return nothing(&how, told),
                Planned::Plan(plan) => plan,
            };
            carry_out(&how, hand, &sight, &plan, planner, &word).await
        })
    }
}

async fn carry_out(
    how: &How,
    hand: &Hand,
    sight: &Sight,
    plan: &Plan,
    planner: impl Fn(&Sight) -> Result<Planned, Vec<String>>,
    word: &str,
) -> anyhow::Result<()> {
    if how.dry_run {
        return how.output.print(plan, printed);
    }
    how.confirm(&printed(plan), word)?;
    let planner = |sight: &Sight| planner(sight)?.into_plan();
    let report = how.carry_out(hand, sight, plan, planner).await?;
    how.output.print(&report, summary)
}

impl Add {
    fn run(self) -> anyhow::Result<()> {
        let Self { region, ledger, accept_data_loss, how } = self;
        how.run(async |hand| {
            let durability = hand.config.failover.durability;
            let planner = |sight: &Sight| members::add(sight, &region, durability);
            let plan = |sight: &Sight| {
                planner(sight)
                    .map_err(|reasons| Refused(refusal(&format!("{region} not added"), &reasons)))
            };
            let sight = hand.cluster.observe(&hand.op).await;
            let planned = match plan(&sight)? {
                Planned::Nothing(told) => return nothing(&how, told),
                Planned::Plan(planned) => planned,
            };
            if sight.members().contains(&region) {
                return carry_out(&how, hand, &sight, &planned, planner, region.as_str()).await;
            }
            // Stopped in its last part, a run before has left a primary that is held.
            let streams = adding::streams(&sight, &region, &planned.from);
            let primary = if streams { planned.from.clone() } else { primary(&sight, &region)? };
            let first = format!("{region} is brought in as a replica of {primary}; then\n");
            let text = first + &printed(&planned);
            if how.dry_run {
                return how.output.print(&*planned, |_| text);
            }
            how.confirm(&text, region.as_str())?;
            let Hand { cluster, agent_max, op, .. } = hand;
            let (mut file, ends) = (None, planned.ends);
            let list = |epoch: Epoch, lost: &[Lost]| {
                file = keep(&region, ledger.as_deref(), epoch, lost)?.map(|at| (at, lost.len()));
                Ok(())
            };
            let came = if streams {
                "it follows already".to_owned()
            } else {
                let tell = |what: &str| how.say(&format!("  .. {region}: {what}"));
                let keeping = Keeping { tell: &tell, list, unlisted: accept_data_loss };
                let adding =
                    adding::bring_in(cluster, &region, &primary, ends, *agent_max, op, keeping);
                adding.await.map_err(told)?
            };
            let sight = hand.cluster.observe(&hand.op).await;
            let planned = match plan(&sight)? {
                Planned::Nothing(told) => return nothing(&how, told),
                Planned::Plan(planned) => planned,
            };
            let planner = |sight: &Sight| planner(sight)?.into_plan();
            let mut report = how.carry_out(hand, &sight, &planned, planner).await?;
            report.notes.insert(0, format!("{region}: {came}"));
            if let Some((path, count)) = file {
                let lost = format!(
                    "{count} writes had been committed there alone and are lost: {}",
                    path.display()
                );
                report.notes.insert(1, lost);
            }
            how.output.print(&report, summary)
        })
    }
}
