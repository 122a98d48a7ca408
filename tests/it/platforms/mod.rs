//! The primary is moved where a platform runs Postgres: its API is stood in for, the Postgres instances that it
//! promotes, demotes and restarts are real.
//!
//! What an operator or Amazon does between being asked and being done is theirs, and is not tested here: what is,
//! is that Godwit asks for the right thing in the right order, believes nothing that it was not told, and has the
//! cluster's promises kept with what comes of it.

mod amazon;
mod instances;
mod kubernetes;

use crate::{
    client::Caller,
    failover::{command, report, said},
    harness::{self, Cluster, REGIONS, SOON, eventually, set},
};
use anyhow::{Context as _, ensure};
use godwit::lab::Spec;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::sync::{Mutex, MutexGuard, PoisonError};

const COLLECTION: &str = "moved";

macro_rules! trials {
    ($($module:ident::$name:ident),+ $(,)?) => {
        vec![$(Trial::test(
            concat!("platforms::", stringify!($module), "::", stringify!($name)),
            || harness::run_alone($module::$name()),
        )),+]
    };
}

pub fn trials() -> Vec<Trial> {
    trials![
        kubernetes::an_operator_hands_over_by_its_token_and_fails_over_without,
        amazon::a_promoted_replica_is_the_primary_from_where_it_had_replayed,
        amazon::a_global_cluster_goes_over_with_all_its_regions,
    ]
}

/// A platform of `word` answers in the place of the agent.
fn run_by(spec: &mut Spec, word: &str, name: impl Fn(&str) -> String) {
    harness::patient(spec);
    set(spec, "GODWIT__FAILOVER__CONTROL", word);
    set(spec, "GODWIT__FAILOVER__AGENT", "");
    for region in REGIONS {
        let variable = format!("GODWIT__REGIONS__{}__DATABASE", region.to_uppercase());
        set(spec, &variable, &name(region));
    }
}

/// A command that moves the primary, and the words of the steps that it took.
async fn moved(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let output = command(cluster, arguments).arg("--yes").output().await?;
    let said = said(&output);
    ensure!(output.status.success(), "{arguments:?}: {}: {said}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).context(said.clone())?;
    let steps = report["steps"].as_array().context(said)?;
    let word = |step: &Value| step["step"].as_str()?.split(':').next().map(str::to_owned);
    Ok(steps.iter().filter_map(word).collect())
}

/// Writes in every region until each takes it, and reads all of it everywhere.
async fn goes_on(caller: &mut Caller, about: &str) -> anyhow::Result<()> {
    for region in REGIONS {
        let data = json!({ "about": about, "from": region });
        eventually(&format!("a write by {region}, {about}"), SOON, async || {
            let done = caller.create(region, COLLECTION, &data).await;
            let done = done.and_then(|answer| answer.wants(201));
            done.map(drop).map_err(|error| format!("{error:#}"))
        })
        .await?;
    }
    Ok(())
}

/// How many items a session sees in a region, its bookmark given.
async fn seen(caller: &mut Caller, region: &str) -> anyhow::Result<usize> {
    Ok(caller.items(region, COLLECTION, "limit=100").await?.len())
}

/// Waits until a region's report has these values.
async fn tells(cluster: &Cluster, name: &str, wanted: &[(&str, Value)]) -> anyhow::Result<()> {
    eventually(&format!("{name}: {wanted:?}"), SOON, async || {
        let told = report(cluster, name).await?;
        let all = wanted.iter().all(|(key, value)| told[key] == *value);
        if all { Ok(()) } else { Err(told.to_string()) }
    })
    .await
}

fn open<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
