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

/// Nothing moves here, so that nobody waits for a lease to end: on a machine that is too busy for a
/// renewal in time it would end, and writes would be refused.
const LONG_LEASE: [(&str, &str); 2] =
    [("GODWIT__LEASE__TERM_MS", "12000"), ("GODWIT__LEASE__RENEW_MS_MAX", "4000")];

fn shape(spec: &mut Spec) {
    harness::patient(spec);
    for (name, value) in LONG_LEASE {
        harness::set(spec, name, value);
    }
    spec.wan = Wan::Off;
}

/// A drill measures time: not while another keeps the machine busy.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub async fn a_drill_that_moves_nothing_is_clean_and_leaves_its_report() -> anyhow::Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    harness::own("drill", shape, async |cluster| {
        for fault in ["restart-replica-api", "cut-one"] {
            let out = tempfile::tempdir()?;
            let ended = drill(cluster, fault, out.path()).await;
            let round = &round(out.path(), &ended)?;
            is_clean(round)?;
            let tally = &round["verdict"]["tally"];
            let count = |what: &str| tally[what].as_u64().unwrap_or(0);
            let told = told(round);
            ensure!(count("acknowledged") > 50, "few writes were acknowledged: {told}");
            ensure!(count("reads") > 50, "few reads were answered: {told}");
            ensure!(count("lost") == 0, "something was lost: {told}");
            ensure!(count("unresolved") == 0, "keys that could not be asked: {told}");
            saved(out.path(), &ended?)?;
        }
        Ok(())
    })
    .await
}

/// With `async` the writes are gone that no other region had. Each is in the ledger, and every region
/// says so to whoever holds its bookmark; else the checker finds it.
pub async fn what_is_lost_is_listed_and_told() -> anyhow::Result<()> {
    let _alone = ONE_AT_A_TIME.lock().await;
    harness::own(
        "drill-async",
        |_| (),
        async |cluster| {
            let out = tempfile::tempdir()?;
            let ended = drill(cluster, "kill-unreplicated", out.path()).await;
            let round = &round(out.path(), &ended)?;
            is_clean(round)?;
            let lost = round["verdict"]["lost"].as_array().context("what was lost")?;
            ensure!(!lost.is_empty(), "nothing was lost: {}", told(round));
            ensure!(lost.iter().all(|one| one["fate"] == "lost"), "not in the ledger: {lost:?}");
            let region = round["primary_before"].as_str().context("a primary")?;
            let ledger = out.path().join(format!("lost-{region}-1.ndjson"));
            let ledger =
                fs::read_to_string(&ledger).with_context(|| ledger.display().to_string())?;
            ensure!(ledger.lines().count() >= lost.len(), "the ledger lacks some: {ledger}");
            Ok(())
        },
    )
    .await
}

async fn drill(cluster: &Cluster, fault: &str, out: &Path) -> anyhow::Result<Value> {
    let out = out.to_str().context("a path")?;
    cluster.command(&["drill", "--fault", fault, "--seed", "5", "--rate", "30", "--out", out]).await
}

/// The drill's only round, however it ended.
fn round(out: &Path, ended: &anyhow::Result<Value>) -> anyhow::Result<Value> {
    let report = fs::read(out.join("report.json"));
    let report = report.with_context(|| format!("no report: {ended:?}"))?;
    let report: Value = serde_json::from_slice(&report)?;
    Ok(report["rounds"][0].clone())
}

fn is_clean(round: &Value) -> anyhow::Result<()> {
    let none = |what: &Value| what.as_array().is_some_and(Vec::is_empty);
    ensure!(round["not_run"].is_null(), "it could not begin: {}", told(round));
    ensure!(none(&round["verdict"]["violations"]), "a rule was broken: {}", told(round));
    ensure!(none(&round["failures"]), "it did not come to its end: {}", told(round));
    Ok(())
}

/// What tells why a round is as it is. All of it is far too long for a test's output.
fn told(round: &Value) -> String {
    let (verdict, measures) = (&round["verdict"], &round["measures"]);
    let some = |of: &Value| of.as_array().map(|all| all[..all.len().min(8)].to_vec());
    let facts = serde_json::json!({
        "fault": round["fault"], "not_run": round["not_run"], "failures": round["failures"],
        "violations": some(&verdict["violations"]), "tally": verdict["tally"],
        "uncounted": round["uncounted"], "late": round["late"], "timeline": measures["timeline"],
        "reads": measures["reads"], "writes": measures["writes"], "commands": round["commands"],
    });
    format!("{facts:#}")
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
