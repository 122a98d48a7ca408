//! The checker is tested against servers that break one rule each (`src/config/broken.rs`): a drill
//! that passes one of them is worth nothing.

use super::{ONE_AT_A_TIME, round, told};
use crate::harness::{self, Cluster};
use anyhow::{Context as _, bail, ensure};
use godwit::lab::Spec;
use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The server without a fence goes on acknowledging when it wakes up alone.
pub async fn a_primary_that_is_never_fenced_is_found_out() -> anyhow::Result<()> {
    finds("fencing", "wake-alone", 30, "two_epochs").await
}

/// A client that holds the bookmark of a lost write is answered as if nothing had happened.
pub async fn a_bookmark_without_its_epoch_is_found_out() -> anyhow::Result<()> {
    finds("bookmark-without-epoch", "kill-unreplicated", 30, "untold").await
}

/// A replica answers a bookmark before it has the write. Few writes, so that no other one's position
/// makes up for it.
pub async fn a_bookmark_from_before_the_commit_is_found_out() -> anyhow::Result<()> {
    finds("insert-position", "delay", 12, "stale").await
}

async fn finds(sabotage: &str, fault: &str, rate: u32, breach: &str) -> anyhow::Result<()> {
    let binary = broken_server()?;
    let _alone = ONE_AT_A_TIME.lock().await;
    let shape = |spec: &mut Spec| {
        spec.binary = binary;
        harness::set(spec, "GODWIT_BROKEN", sabotage);
    };
    harness::own(&format!("drill-{sabotage}"), shape, async |cluster| {
        says_that_it_is_broken(cluster, sabotage)?;
        let (out, rate) = (tempfile::tempdir()?, rate.to_string());
        let path = out.path().to_str().context("a path")?;
        let drill = ["drill", "--fault", fault, "--seed", "5", "--rate", &rate, "--out", path];
        let ended = cluster.command(&drill).await;
        let round = round(out.path(), &ended)?;
        let violations = round["verdict"]["violations"].as_array();
        let found = violations.into_iter().flatten().filter(|one| one["breach"] == breach).count();
        ensure!(found > 0, "{sabotage} goes unnoticed: {}", told(&round));
        ensure!(ended.is_err(), "the drill ended as if nothing had been found");
        Ok(())
    })
    .await
}

/// Else it would be the sabotage that fails to show, and not the checker that fails to see.
fn says_that_it_is_broken(cluster: &Cluster, sabotage: &str) -> anyhow::Result<()> {
    for region in harness::REGIONS {
        let log = cluster.log(region)?;
        let said = log.iter().any(|line| line["fields"]["word"] == sabotage);
        ensure!(said, "{region} does not say that it is broken");
    }
    Ok(())
}

/// Beside the program, and newer than what it is made of.
fn broken_server() -> anyhow::Result<PathBuf> {
    let broken = Path::new(env!("CARGO_BIN_EXE_godwit")).with_file_name("godwit-broken");
    let Ok(built_at) = fs::metadata(&broken).and_then(|file| file.modified()) else {
        bail!("{} is missing: run `make broken`", broken.display());
    };
    for part in ["Cargo.lock", "Cargo.toml", "migrations", "src"] {
        let changed_at = changed_at(&Path::new(env!("CARGO_MANIFEST_DIR")).join(part))?;
        let fresh = changed_at <= built_at;
        ensure!(fresh, "{} is older than {part}: run `make broken`", broken.display());
    }
    Ok(broken)
}

/// When the newest file was changed.
fn changed_at(path: &Path) -> anyhow::Result<SystemTime> {
    let mut newest = fs::metadata(path)?.modified()?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            newest = newest.max(changed_at(&entry?.path())?);
        }
    }
    Ok(newest)
}
