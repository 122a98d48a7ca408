//! The drill, on a laboratory of its own: what it breaks without moving the primary must come out
//! clean, and what it saves must be there.

mod broken;

pub use broken::{
    a_bookmark_from_before_the_commit_is_found_out, a_bookmark_without_its_epoch_is_found_out,
    a_primary_that_is_never_fenced_is_found_out,
};

use crate::harness::{self, Cluster};
use anyhow::{Context as _, ensure};
use godwit::lab::{Spec, Wan};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

fn shape(spec: &mut Spec) {
    harness::patient(spec);
    spec.wan = Wan::Off;
}

pub async fn a_drill_that_moves_nothing_is_clean_and_leaves_its_report() -> anyhow::Result<()> {
    harness::own("drill", shape, async |cluster| {
        for fault in ["restart-replica-api", "cut-one"] {
            let out = tempfile::tempdir()?;
            let report = drill(cluster, fault, out.path()).await?;
            let round = &report["rounds"][0];
            ensure!(round["verdict"]["violations"] == serde_json::json!([]), "{fault}: {round}");
            ensure!(round["failures"] == serde_json::json!([]), "{fault}: {round}");
            let tally = &round["verdict"]["tally"];
            let count = |what: &str| tally[what].as_u64().unwrap_or(0);
            ensure!(count("acknowledged") > 50 && count("reads") > 50, "{fault}: {tally}");
            ensure!(count("lost") == 0 && count("unresolved") == 0, "{fault}: {tally}");
            saved(out.path(), &report)?;
        }
        Ok(())
    })
    .await
}

/// With `async` the writes are gone that no other region had. Each is in the ledger, and every region
/// says so to whoever holds its bookmark; else the checker finds it.
pub async fn what_is_lost_is_listed_and_told() -> anyhow::Result<()> {
    harness::own(
        "drill-async",
        |_| (),
        async |cluster| {
            let out = tempfile::tempdir()?;
            let path = out.path().to_str().context("a path")?;
            let drill = ["drill", "--fault", "kill-unreplicated", "--seed", "5", "--rate", "30"];
            let ended = cluster.command(&[&drill[..], &["--out", path]].concat()).await;
            let report = fs::read(out.path().join("report.json"));
            let report = report.with_context(|| format!("no report: {ended:?}"))?;
            let report: Value = serde_json::from_slice(&report)?;
            let round = &report["rounds"][0];
            ensure!(round["verdict"]["violations"] == serde_json::json!([]), "{round}");
            ensure!(round["failures"] == serde_json::json!([]), "{round}");
            let lost = round["verdict"]["lost"].as_array().context("what was lost")?;
            ensure!(!lost.is_empty(), "nothing was lost: {round}");
            ensure!(lost.iter().all(|one| one["fate"] == "lost"), "not in the ledger: {lost:?}");
            Ok(())
        },
    )
    .await
}

async fn drill(cluster: &Cluster, fault: &str, out: &Path) -> anyhow::Result<Value> {
    let out = out.to_str().context("a path")?;
    cluster.command(&["drill", "--fault", fault, "--seed", "5", "--rate", "30", "--out", out]).await
}

/// The files are there, and say what the command said.
fn saved(out: &Path, printed: &Value) -> anyhow::Result<()> {
    let json = |name: &str| -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&fs::read(out.join(name)).context(name.to_owned())?)?)
    };
    ensure!(json("report.json")? == *printed, "the saved report is another one");
    let page = fs::read_to_string(out.join("report.html"))?;
    ensure!(page.contains("<svg") && !page.contains("src="), "the page needs something else");
    let calls = json("history.json")?["calls"].as_array().map_or(0, Vec::len);
    ensure!(calls > 100, "{calls} calls in the history");
    elle(&json("elle.json")?)
}

/// As elle-cli wants it: indices in order, and each process asks one thing after the other.
fn elle(history: &Value) -> anyhow::Result<()> {
    let events = history.as_array().context("a list of events")?;
    ensure!(!events.is_empty(), "no events");
    let mut asking: BTreeMap<u64, bool> = BTreeMap::new();
    let mut last = 0;
    for (index, event) in events.iter().enumerate() {
        ensure!(event["index"] == index && event["f"] == "txn", "{event}");
        let time = event["time"].as_u64().context("a time")?;
        ensure!(time >= last, "time goes back: {event}");
        last = time;
        let asks = event["type"] == "invoke";
        let process = event["process"].as_u64().context("a process")?;
        let before = asking.insert(process, asks).unwrap_or(false);
        ensure!(before != asks, "process {process} does two things at once: {event}");
        for part in event["value"].as_array().context("a value")? {
            ensure!(part[0] == "r" || (part[0] == "append" && part[2].is_u64()), "{event}");
        }
    }
    ensure!(asking.values().all(|asks| !asks), "an operation has no end");
    Ok(())
}
