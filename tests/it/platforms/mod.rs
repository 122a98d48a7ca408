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
    failover::{command, killed_in, refused, report, said},
    harness::{self, Cluster, REGIONS, SOON, US, eventually, set},
};
use anyhow::{Context as _, ensure};
use godwit::lab::Spec;
use instances::Instances;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

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

/// A command that moves the primary, killed as each of these steps begins and run again. The names of the steps
/// that it took in the end.
///
/// The processes of `target` are killed with it each time: what they were told is theirs to find again. An order
/// that was on its way may have been carried out all the same, and the next run find nothing left to do.
async fn moved_though_killed(
    cluster: &Cluster,
    instances: Option<&Instances>,
    arguments: &[&str],
    target: &str,
    steps: &[&str],
) -> anyhow::Result<Vec<String>> {
    let instances = instances.context("no instances")?;
    for step in steps {
        // It says so itself while the old primary is started as a replica.
        eventually(&format!("the step {step}"), SOON, async || {
            let killed = killed_in(cluster, &[arguments, &["--yes"]].concat(), step).await;
            match killed.map_err(|error| format!("{error:#}")) {
                Err(said) if !said.contains(&format!("{target} is the primary of epoch")) => {
                    Err(said)
                }
                _ => Ok(()),
            }
        })
        .await?;
        instances.replace_processes(cluster, target).await?;
    }
    moved(cluster, arguments).await
}

/// A command that moves the primary, and the names of the steps that it took.
async fn moved(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let output = command(cluster, arguments).arg("--yes").output().await?;
    let said = said(&output);
    ensure!(output.status.success(), "{arguments:?}: {}: {said}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).context(said.clone())?;
    let steps = report["steps"].as_array().context(said)?;
    let word = |step: &Value| step["step"].as_str()?.split(':').next().map(str::to_owned);
    Ok(steps.iter().filter_map(word).collect())
}

/// Whether an API answers nothing but that it does not work.
#[derive(Default)]
struct Away(AtomicBool);

impl Away {
    fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A switchover that was killed once the primary was fenced is taken back, and none is begun while the platform
/// does not answer. One that may have been asked to demote the primary must, before that goes on.
async fn taken_back_around_silence(
    cluster: &Cluster,
    caller: &mut Caller,
    (away, demotes): (&Away, bool),
    target: &str,
) -> anyhow::Result<()> {
    let switchover = ["switchover", target, "--yes"];
    killed_in(cluster, &switchover, "catch up").await?;
    tells(cluster, US, &[("writable", json!(false))]).await?;
    away.0.store(true, Ordering::Relaxed);
    let planned = async || {
        let output = command(cluster, &["switchover", target, "--dry-run"]).output().await;
        output.map_err(|error| error.to_string())
    };
    eventually("a plan that is refused", SOON, async || {
        let output = planned().await?;
        let is_told = said(&output).contains("does not answer, and promotes nothing");
        if is_told { Ok(()) } else { Err(said(&output)) }
    })
    .await?;
    refused(cluster, &switchover).await?;
    if demotes {
        let output = command(cluster, &["switchover", US, "--yes"]).output().await?;
        ensure!(output.status.code() == Some(1), "{}: {}", output.status, said(&output));
        away.0.store(false, Ordering::Relaxed);
    }
    moved(cluster, &["switchover", US]).await?;
    goes_on(caller, "taken back").await?;
    away.0.store(false, Ordering::Relaxed);
    eventually("a plan", SOON, async || {
        let output = planned().await?;
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    })
    .await
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
