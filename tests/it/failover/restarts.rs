//! Moves of the primary that are killed wherever they are, and run again.

use super::{
    Reading, Writing, command, equal, furthest, killed_after,
    moves::{doomed, told_lost},
    now, quarantined, ready, receive_no_more, refused_kindly, reigns, rejoin, said, since, slots,
    sql, target, told_the_truth,
};
use crate::{
    client::Caller,
    harness::{self, Cluster, REGIONS, SOON, US, eventually, region},
};
use anyhow::{Context as _, ensure};
use godwit::lab::{Durability, Layout, Spec, Wan};
use serde_json::Value;
use std::{collections::BTreeSet, fs, io, path::Path, process::Stdio, time::Duration};
use tokio_util::sync::CancellationToken;

const PACE: Duration = Duration::from_millis(100);

/// What the end of the last epoch has lost, each as collection and item.
const NOTED: &str = "SELECT coalesce(string_agg(item, ','), '') FROM lost_write \
     WHERE found_in = (SELECT max(epoch) FROM cluster_epoch)";

/// A command that moves the primary, killed after each of its steps.
struct Move {
    verb: &'static str,
    flags: &'static [&'static str],
    durability: Durability,
    /// The last of them ends with the command.
    steps: usize,
}

impl Move {
    /// Whether the primary is dead before it begins.
    fn of_a_dead_one(&self) -> bool {
        self.verb == "promote"
    }

    fn loses_nothing(&self) -> bool {
        !self.of_a_dead_one() || self.durability == Durability::Quorum
    }

    async fn ends_the_same(&self, name: &str) -> anyhow::Result<()> {
        let shape = |spec: &mut Spec| (spec.wan, spec.durability) = (Wan::Off, self.durability);
        harness::own(name, shape, async |cluster| {
            let mut from = US;
            for (count, epoch) in (1..self.steps).zip(2..) {
                let began = now();
                let killed = self.killed_after(cluster, count, from, epoch).await;
                let to =
                    killed.with_context(|| format!("killed after step {count}, from {from}"))?;
                eprintln!("{name}: killed after step {count}: in {to}, {:?}", since(began));
                from = to;
            }
            Ok(())
        })
        .await
    }

    /// Runs it, kills it, runs it again, and demands all that it promises. Returns where the primary
    /// is then.
    async fn killed_after(
        &self,
        cluster: &Cluster,
        count: usize,
        from: &'static str,
        epoch: u32,
    ) -> anyhow::Result<&'static str> {
        reigns(cluster, from, epoch - 1, &REGIONS).await?;
        let others = others(from, count);
        let mut to = others[0];
        let alive = if self.of_a_dead_one() { &others[..] } else { &REGIONS[..] };
        // A session that lost a write is told so ever after, and writes no more.
        let writing = self.loses_nothing().then(|| Writing::everywhere(cluster, &REGIONS, 1, PACE));
        for (writing, name) in writing.iter().zip(REGIONS) {
            writing.goes_on(name, now()).await?;
        }
        if self.of_a_dead_one() {
            cluster.lab.kill(&target(from)).await?;
            receive_no_more(cluster, &others).await?;
            to = furthest(cluster, others).await?;
        }
        let reading = Reading::begin(cluster, &others, read_on);
        let arguments = [&[self.verb, to, "--yes"], self.flags].concat();
        let told = killed_after(cluster, &arguments, count).await?;
        let numbered = |line: &&String| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
        let steps = told.iter().filter(numbered).count();
        ensure!(steps == self.steps, "{steps} steps: {told:#?}");
        let again = command(cluster, &arguments).output().await?;
        let told = || format!("killed after {told:#?}; then {}", said(&again));
        ensure!(again.status.success(), "{}", told());
        let report: Value = serde_json::from_slice(&again.stdout)?;
        ensure!(report["epoch"] == epoch && report["region"] == to, "{report} {}", told());
        reigns(cluster, to, epoch, alive).await.with_context(told)?;
        reading.end(10).await.with_context(told)?;
        if self.of_a_dead_one() {
            cluster.lab.restart(&target(from)).await?;
            rejoin(cluster, from).await.with_context(told)?;
        }
        ready(cluster, from).await.with_context(told)?;
        reigns(cluster, to, epoch, &REGIONS).await.with_context(told)?;
        if let Some(writing) = writing {
            for name in REGIONS {
                writing.goes_on(name, now()).await.with_context(told)?;
            }
            let collection = writing.collection.clone();
            let shots = writing.end().await;
            refused_kindly(shots.iter().filter(|shot| alive.contains(&shot.at.as_str())))?;
            told_the_truth(cluster, to, &collection, &shots).await.with_context(told)?;
        }
        equal(cluster).await.with_context(told)?;
        slots(cluster).await.with_context(told)?;
        Ok(to)
    }
}

/// The two other regions, each of which is the first in its turn.
fn others(from: &str, turn: usize) -> [&'static str; 2] {
    let at = REGIONS.iter().position(|name| *name == from).expect("one of them");
    let [one, other] = [1, 2].map(|after| REGIONS[(at + after) % REGIONS.len()]);
    if turn.is_multiple_of(3) { [other, one] } else { [one, other] }
}

/// A session that goes on reading where the primary is not. What a replica has shown it is in every
/// epoch after: a move keeps all that the furthest has.
async fn read_on(
    mut caller: Caller,
    at: &'static str,
    stop: CancellationToken,
) -> anyhow::Result<usize> {
    let mut count = 0;
    while !stop.is_cancelled() {
        let read = caller.get(at, "/v1/collections/reigns/items?limit=1").await?;
        ensure!(read.problem() != "bookmark-lost", "{at}: {read}");
        count += usize::from(read.status == 200);
    }
    Ok(count)
}

pub async fn a_promotion_killed_after_any_step_ends_the_same_when_run_again() -> anyhow::Result<()>
{
    let promote = Move {
        verb: "promote",
        flags: &["--accept-data-loss"],
        durability: Durability::Async,
        steps: 7,
    };
    promote.ends_the_same("resumed").await
}

/// Its steps have another order, and no acknowledged write may be lost.
pub async fn a_promotion_in_quorum_killed_after_any_step_ends_the_same_when_run_again()
-> anyhow::Result<()> {
    let promote = Move { verb: "promote", flags: &[], durability: Durability::Quorum, steps: 7 };
    promote.ends_the_same("resumed-quorum").await
}

pub async fn a_switchover_killed_after_any_step_ends_the_same_when_run_again() -> anyhow::Result<()>
{
    let switchover =
        Move { verb: "switchover", flags: &[], durability: Durability::Async, steps: 10 };
    switchover.ends_the_same("handed").await
}

/// What there is to see of a rejoin that has come so far.
#[derive(Debug, Clone, Copy)]
enum Sign {
    /// The list of what was lost.
    Ledger,
    /// Its Postgres is down.
    Down,
    /// The copy of its log.
    Copy,
    /// The mark of data that is half rewound.
    Mark,
}

impl Sign {
    /// How many of it there are of a region.
    fn count(self, cluster: &Cluster, name: &str, ledger: &Path) -> anyhow::Result<usize> {
        let beside = Layout::new(cluster.dir())?.data().join(name);
        Ok(match self {
            Self::Ledger => usize::from(ledger.exists()),
            Self::Down => {
                let facts = cluster.lab.facts().context("no facts of the laboratory")?;
                usize::from(facts.regions[&region(name)].pids.postgres.is_none())
            }
            Self::Copy => {
                let names = fs::read_dir(beside)?.map(|entry| Ok(entry?.file_name()));
                let names = names.collect::<io::Result<Vec<_>>>()?;
                let copies = names.iter().filter_map(|name| name.to_str()?.strip_prefix("kept-"));
                copies.filter(|number| number.parse::<u32>().is_ok()).count()
            }
            Self::Mark => usize::from(beside.join("postgres.rewinding").exists()),
        })
    }
}

/// Runs a rejoin of `name` until its sign is there, and kills it then. It cannot end by itself.
async fn rejoin_killed_at(
    cluster: &Cluster,
    (name, primary): (&str, &str),
    arguments: &[&str],
    ledger: &Path,
    sign: Sign,
) -> anyhow::Result<()> {
    let before = sign.count(cluster, name, ledger)?;
    // There is nothing to fetch what differs by.
    cluster.lab.cut(&region(name), &region(primary))?;
    let mut child = command(cluster, arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    eventually(&format!("{sign:?} of a rejoin"), SOON, async || {
        match sign.count(cluster, name, ledger).map_err(|error| format!("{error:#}"))? {
            count if count > before => Ok(()),
            count => Err(format!("{count}")),
        }
    })
    .await?;
    let ended = child.try_wait()?;
    ensure!(ended.is_none(), "it has ended: {ended:?}");
    child.kill().await?;
    cluster.lab.heal();
    Ok(())
}

/// The lost writes that the list of a rejoin names, each as collection and item.
fn listed(ledger: &Path) -> anyhow::Result<BTreeSet<String>> {
    let text = fs::read_to_string(ledger)?;
    let item = |line: &str| {
        let line: Value = serde_json::from_str(line)?;
        let location = line["location"].as_str().context("no location")?;
        let item = location.strip_prefix("/v1/collections/").context("no item")?;
        Ok(item.replacen("/items", "", 1))
    };
    text.lines().map(item).collect()
}

pub async fn a_rejoin_killed_midway_ends_the_same_when_run_again() -> anyhow::Result<()> {
    let shape = |spec: &mut Spec| spec.wan = Wan::Off;
    harness::own("returned", shape, async |cluster| {
        let mut from = US;
        let signs = [Sign::Ledger, Sign::Down, Sign::Copy, Sign::Mark];
        for (sign, epoch) in signs.into_iter().zip(2..) {
            let began = now();
            reigns(cluster, from, epoch - 1, &REGIONS).await?;
            let lost = doomed(cluster, from).await?;
            cluster.lab.kill(&target(from)).await?;
            let to = furthest(cluster, others(from, 1)).await?;
            cluster.command(&["promote", to, "--yes", "--accept-data-loss"]).await?;
            cluster.lab.heal();
            cluster.lab.restart(&target(from)).await?;
            quarantined(cluster, from).await?;

            let ledger = Layout::new(cluster.dir())?.logs().join(format!("lost-{epoch}.ndjson"));
            let file = ledger.to_str().context("a path that is no text")?;
            let rejoin = ["rejoin", from, "--yes", "--ledger", file];
            rejoin_killed_at(cluster, (from, to), &rejoin, &ledger, sign).await?;
            let again = command(cluster, &rejoin).output().await?;
            let told = || format!("killed at {sign:?} in {from}; then {}", said(&again));
            ensure!(again.status.success(), "{}", told());
            ready(cluster, from).await.with_context(told)?;
            reigns(cluster, to, epoch, &REGIONS).await.with_context(told)?;
            told_lost(&lost, &REGIONS).await.with_context(told)?;
            let wanted: BTreeSet<_> = lost.iter().map(|(_, id)| format!("doomed/{id}")).collect();
            let found = listed(&ledger).with_context(told)?;
            ensure!(found == wanted, "{found:?} are listed, not {wanted:?}; {}", told());
            let noted = sql(cluster, to, NOTED).await?;
            let noted: BTreeSet<String> = noted.split(',').map(str::to_owned).collect();
            ensure!(noted == wanted, "{noted:?} are noted, not {wanted:?}; {}", told());
            equal(cluster).await.with_context(told)?;
            slots(cluster).await.with_context(told)?;
            eprintln!("returned: killed at {sign:?} in {from}: {:?}", since(began));
            from = to;
        }
        Ok(())
    })
    .await
}
