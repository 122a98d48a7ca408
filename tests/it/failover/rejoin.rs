//! `rejoin`: what an old primary alone has is listed before anything is done that could lose it.

use super::{command, ready, refused, reigns, rejoin, report, said, sql, target, write};
use crate::{
    client::Caller,
    harness::{self, AP, Cluster, EU, REGIONS, SOON, US, eventually},
};
use anyhow::{Context as _, ensure};
use godwit::lab::{Layout, Spec, Target, Wan};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::Command;

fn near(spec: &mut Spec) {
    spec.wan = Wan::Off;
}

fn postgres(name: &str) -> anyhow::Result<Target> {
    Ok(format!("{name}/postgres").parse()?)
}

/// An acknowledged write of the old primary's.
async fn acknowledged(caller: &mut Caller, key: &str, epoch: u32) -> anyhow::Result<()> {
    let shot = eventually("a write", SOON, async || {
        let shot = write(caller, US, "astray", key).await;
        if shot.status == 503 && shot.bids_back { Err(shot.said) } else { Ok(shot) }
    })
    .await?;
    ensure!(shot.acknowledged() && shot.epoch == Some(epoch), "{shot:?}");
    Ok(())
}

/// The keys of a list of lost writes.
fn listed(file: &Path) -> anyhow::Result<BTreeSet<String>> {
    let lines = fs::read_to_string(file)?;
    let keys = lines.lines().map(|line| {
        let line: Value = serde_json::from_str(line)?;
        Ok(line["key"].as_str().context("no key")?.to_owned())
    });
    keys.collect()
}

pub async fn what_two_epochs_lost_is_listed() -> anyhow::Result<()> {
    harness::own("astray", near, async |cluster| {
        reigns(cluster, US, 1, &REGIONS).await?;
        // The processes promise, and their databases receive nothing any more.
        for name in [EU, AP] {
            cluster.lab.pause(&postgres(name)?)?;
        }
        let mut caller = cluster.caller();
        acknowledged(&mut caller, "of-the-first", 1).await?;
        let removed =
            command(cluster, &["region", "remove", AP, "--alive", "--yes"]).output().await?;
        ensure!(removed.status.success(), "{}", said(&removed));
        acknowledged(&mut caller, "of-the-second", 2).await?;
        cluster.lab.kill(&target(US)).await?;
        for name in [EU, AP] {
            cluster.lab.resume(&postgres(name)?)?;
        }
        // The second epoch counts two, and one of them is gone for good.
        let gone =
            ["region", "remove", US, "--gone", "--primary", EU, "--accept-data-loss", "--yes"];
        eventually("an epoch without it", SOON, async || {
            let removed = command(cluster, &gone).output().await;
            let removed = removed.map_err(|error| error.to_string())?;
            if removed.status.success() { Ok(()) } else { Err(said(&removed)) }
        })
        .await?;
        cluster.lab.restart(&target(US)).await?;
        let file = Layout::new(cluster.dir())?.logs().join("lost");
        let ledger = file.to_str().context("no text")?;
        let told = cluster.command(&["region", "add", US, "--yes", "--ledger", ledger]).await?;
        let keys = listed(&file)?;
        let wanted = ["of-the-first", "of-the-second"].map(str::to_owned);
        ensure!(wanted.iter().all(|key| keys.contains(key)), "{keys:?} {told}");
        // They can be carried out again later too.
        let told = cluster.command(&["rejoin", US, "--yes", "--replay"]).await?;
        let replayed = told["replayed"]["replayed"].as_u64();
        ensure!(replayed.is_some_and(|count| count >= 2), "{told}");
        let here = cluster.caller().items(EU, "astray", "").await?;
        ensure!(here.len() == 2, "{here:?}");
        ready(cluster, US).await
    })
    .await
}

/// The file without which a Postgres does not start.
async fn version_file(cluster: &Cluster, name: &str) -> anyhow::Result<PathBuf> {
    let data = sql(cluster, name, "SELECT current_setting('data_directory')").await?;
    Ok(PathBuf::from(data).join("PG_VERSION"))
}

/// Has the agent of a region do one thing.
async fn agent(cluster: &Cluster, name: &str, verb: &str) -> anyhow::Result<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_godwit"));
    command.args(["lab", "agent", name, verb, "--dir"]).arg(cluster.dir());
    let done = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    ensure!(done.status.success(), "{verb}: {}", said(&done));
    Ok(String::from_utf8(done.stdout)?)
}

pub async fn a_journal_that_cannot_be_read_is_not_thrown_away_unasked() -> anyhow::Result<()> {
    harness::own("unread", near, async |cluster| {
        reigns(cluster, US, 1, &REGIONS).await?;
        let moved = command(cluster, &["switchover", EU, "--yes"]).output().await?;
        ensure!(moved.status.success(), "{}", said(&moved));
        let [of_us, of_ap] = [version_file(cluster, US).await?, version_file(cluster, AP).await?];
        let aside = of_us.with_extension("aside");
        cluster.lab.kill(&postgres(US)?).await?;
        fs::rename(&of_us, &aside)?;
        for again in [["rejoin", US, "--yes"], ["switchover", EU, "--yes"]] {
            let why = refused(cluster, &again).await?;
            ensure!(
                why.contains("cannot be listed") && why.contains("--accept-data-loss"),
                "{why}"
            );
            ensure!(aside.exists(), "something was done to it");
        }
        // Mended, it comes back as it is.
        fs::rename(&aside, &of_us)?;
        rejoin(cluster, US).await?;
        // One that was never a primary has nothing of its own.
        cluster.lab.kill(&postgres(AP)?).await?;
        fs::remove_file(&of_ap)?;
        let told = cluster.command(&["rejoin", AP, "--yes"]).await?;
        ensure!(told["told"].as_str().is_some_and(|told| told.contains("copied anew")), "{told}");
        // Who says so goes on without the list.
        cluster.lab.kill(&postgres(US)?).await?;
        fs::remove_file(&of_us)?;
        let told = cluster.command(&["rejoin", US, "--yes", "--accept-data-loss"]).await?;
        ensure!(
            told["told"].as_str().is_some_and(|told| told.contains("listed nowhere")),
            "{told}"
        );
        // One that was broken off is gone on with: it was listed before.
        agent(cluster, US, "stop").await?;
        let kept = PathBuf::from(agent(cluster, US, "keep").await?.trim());
        let name = kept.file_name().context("a copy without a name")?;
        fs::write(kept.with_file_name("postgres.rewinding"), name.as_encoded_bytes())?;
        let told = cluster.command(&["rejoin", US, "--yes"]).await?;
        ensure!(told["told"].as_str().is_some_and(|told| told.contains("a run before")), "{told}");
        let at = report(cluster, US).await.map_err(anyhow::Error::msg)?;
        ensure!(at["role"] == "replica", "{at}");
        reigns(cluster, EU, 2, &REGIONS).await
    })
    .await
}

/// Each of the two was promoted without having heard of the other, so that their timelines have one number:
/// `pg_rewind` takes them for one.
pub async fn two_promoted_from_one_timeline_are_not_taken_for_one() -> anyhow::Result<()> {
    harness::own("namesakes", near, async |cluster| {
        reigns(cluster, US, 1, &REGIONS).await?;
        cluster.lab.kill(&postgres(AP)?).await?;
        cluster.lab.kill(&target(US)).await?;
        let promote = async |name| {
            let what = ["promote", name, "--accept-data-loss", "--yes"];
            let promoted = command(cluster, &what).output().await?;
            ensure!(promoted.status.success(), "{}", said(&promoted));
            anyhow::Ok(())
        };
        promote(EU).await?;
        reigns(cluster, EU, 2, &[EU]).await?;
        cluster.lab.kill(&postgres(EU)?).await?;
        cluster.lab.restart(&postgres(AP)?).await?;
        eventually("ap-south-1 can be promoted", SOON, async || {
            promote(AP).await.map_err(|error| error.to_string())
        })
        .await?;
        reigns(cluster, AP, 3, &[AP]).await?;
        cluster.lab.restart(&postgres(EU)?).await?;
        ready(cluster, AP).await?;
        let back = cluster.command(&["rejoin", EU, "--yes"]).await?;
        ensure!(back["told"].as_str().is_some_and(|told| told.contains("copied anew")), "{back}");
        let epochs = "SELECT string_agg(epoch::text, ' ' ORDER BY epoch) FROM cluster_epoch";
        eventually("eu-west-1 has what ap-south-1 has", SOON, async || {
            let there = sql(cluster, EU, epochs).await.map_err(|error| format!("{error:#}"))?;
            if there == "1 3" { Ok(()) } else { Err(there) }
        })
        .await?;
        cluster.lab.restart(&target(US)).await?;
        rejoin(cluster, US).await?;
        for name in REGIONS {
            ready(cluster, name).await?;
        }
        Ok(())
    })
    .await
}
