//! Regions are removed from the cluster, and added to it again.

use super::{
    Shot, TERM, Writing, command, equal, fenced, killed_after, none_fails, now, readiness, ready,
    refused, refused_kindly, reigns, report, said, since, slots, slots_of, sql, target,
    told_the_truth, until,
};
use crate::harness::{self, AP, Cluster, EU, REGIONS, SOON, US, eventually};
use anyhow::{Context as _, ensure};
use godwit::lab::{Durability, Spec, Wan};
use serde_json::Value;
use std::time::Duration;

const PACE: Duration = Duration::from_millis(300);
const SESSIONS: usize = 3;
/// Longest write across a change of the members, on a machine that has other things to do.
const HELD: Duration = Duration::from_secs(5);

/// Waits until a region's process knows that it was removed, and demands that it serves nothing.
async fn kept_apart(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    eventually(&format!("{name}, apart"), SOON, async || {
        match readiness(cluster, name).await.map_err(|error| error.to_string())? {
            (503, told) if told.contains("godwit region add") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let told = report(cluster, name).await.map_err(anyhow::Error::msg)?;
    ensure!(told["writable"] == false && told["lease_ms"].as_u64().unwrap_or(0) == 0, "{told}");
    Ok(())
}

/// Waits until commits at a region wait for one of these and for nobody else.
async fn waits_for(cluster: &Cluster, name: &str, others: &[&str]) -> anyhow::Result<()> {
    eventually(&format!("whom commits in {name} wait for"), SOON, async || {
        let query = "SELECT current_setting('synchronous_standby_names')";
        match sql(cluster, name, query).await {
            Ok(found) if REGIONS.iter().all(|at| found.contains(at) == others.contains(at)) => {
                Ok(())
            }
            other => Err(format!("{other:?}, wanted {others:?}")),
        }
    })
    .await
}

/// Demands that every region tells of these members.
async fn members_are(cluster: &Cluster, wanted: &[&str]) -> anyhow::Result<()> {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    for name in REGIONS {
        eventually(&format!("the members in {name}"), SOON, async || {
            let told = report(cluster, name).await?;
            if told["members"] == serde_json::json!(wanted) {
                Ok(())
            } else {
                Err(told["members"].to_string())
            }
        })
        .await?;
    }
    Ok(())
}

/// Waits until a region has heard nothing from others for so long that it counts them as away.
async fn misses(cluster: &Cluster, name: &str, others: &[&str]) -> anyhow::Result<()> {
    eventually(&format!("{name} to miss {others:?}"), SOON, async || {
        let told = report(cluster, name).await?;
        let away = |other: &&str| told["peers"][*other]["reachable"] == false;
        if others.iter().all(away) { Ok(()) } else { Err(told["peers"].to_string()) }
    })
    .await
}

pub async fn one_region_goes_on_without_two_that_are_gone_and_they_are_added_again()
-> anyhow::Result<()> {
    harness::own(
        "gone",
        |spec: &mut Spec| spec.durability = Durability::Quorum,
        async |cluster| {
            reigns(cluster, US, 1, &REGIONS).await?;
            for name in [US, AP] {
                cluster.lab.kill(&target(name)).await?;
            }
            misses(cluster, EU, &[US, AP]).await?;
            let remove = ["region", "remove", US, AP, "--gone", "--yes"];
            let why = refused(cluster, &remove).await?;
            ensure!(why.contains("--primary"), "{why}");
            let remove = [&remove[..], &["--primary", EU]].concat();
            let why = refused(cluster, &remove).await?;
            ensure!(why.contains("--accept-data-loss"), "{why}");
            let began = now();
            let moved = cluster.command(&[&remove[..], &["--accept-data-loss"]].concat()).await?;
            ensure!(moved["epoch"] == 2 && moved["members"] == serde_json::json!([EU]), "{moved}");
            reigns(cluster, EU, 2, &[EU]).await?;
            eprintln!("two gone: writes in {EU} {:?} after the command", since(began));
            slots_of(cluster, EU, &[]).await?;

            let writing = Writing::everywhere(cluster, &[EU], SESSIONS, PACE);
            for name in [US, AP] {
                cluster.lab.restart(&target(name)).await?;
            }
            for name in [US, AP] {
                kept_apart(cluster, name).await?;
            }
            // They stay so, and the one that is left goes on by itself.
            until(now() + 2 * TERM).await?;
            for name in [US, AP] {
                kept_apart(cluster, name).await?;
                let why = refused(cluster, &["rejoin", name, "--yes"]).await?;
                ensure!(why.contains("godwit region add"), "{why}");
            }
            writing.goes_on(EU, now()).await?;
            slots_of(cluster, EU, &[]).await?;
            let mut spans = Vec::new();
            for (name, epoch) in [(US, 3), (AP, 4)] {
                let began = now();
                let added = cluster.command(&["region", "add", name, "--yes"]).await?;
                ensure!(added["epoch"] == epoch, "{added}");
                eprintln!("{name} added: {}", added["notes"]);
                ready(cluster, name).await?;
                spans.push((began, now()));
            }
            let shots = writing.end().await;
            none_fails(&shots, spans)?;
            members_are(cluster, &REGIONS).await?;
            reigns(cluster, EU, 4, &REGIONS).await?;
            equal(cluster).await?;
            slots(cluster).await?;
            // Once more, where the one that is left is the primary.
            for name in [US, AP] {
                cluster.lab.kill(&target(name)).await?;
            }
            misses(cluster, EU, &[US, AP]).await?;
            let began = now();
            let alone = cluster.command(&["region", "remove", US, AP, "--gone", "--yes"]).await?;
            ensure!(alone["epoch"] == 5 && alone["members"] == serde_json::json!([EU]), "{alone}");
            reigns(cluster, EU, 5, &[EU]).await?;
            slots_of(cluster, EU, &[]).await?;
            eprintln!("two gone again: writes in {EU} {:?} after the command", since(began));
            for name in [US, AP] {
                cluster.lab.restart(&target(name)).await?;
                kept_apart(cluster, name).await?;
            }
            Ok(())
        },
    )
    .await
}

pub async fn a_replica_is_removed_and_added_again_and_no_write_fails() -> anyhow::Result<()> {
    harness::own(
        "members",
        |spec: &mut Spec| spec.durability = Durability::Quorum,
        async |cluster| {
            let writing = Writing::everywhere(cluster, &REGIONS, SESSIONS, PACE);
            for name in REGIONS {
                writing.goes_on(name, now()).await?;
            }
            let mut changes = Vec::new();
            let began = now();
            let removed = cluster.command(&["region", "remove", AP, "--alive", "--yes"]).await?;
            changes.push((began, now()));
            ensure!(removed["epoch"] == 2 && removed["region"] == US, "{removed}");
            kept_apart(cluster, AP).await?;
            members_are(cluster, &[US, EU]).await?;
            waits_for(cluster, US, &[EU]).await?;
            for name in REGIONS {
                writing.goes_on(name, now()).await?;
            }
            slots_of(cluster, US, &[EU]).await?;
            slots_of(cluster, EU, &[US]).await?;
            let again = cluster.command(&["region", "remove", AP, "--alive", "--yes"]).await?;
            ensure!(again["told"].as_str().is_some_and(|told| told.contains("already")), "{again}");

            let began = now();
            let added = cluster.command(&["region", "add", AP, "--yes"]).await?;
            changes.push((began, now()));
            ensure!(added["epoch"] == 3, "{added}");
            ready(cluster, AP).await?;
            waits_for(cluster, US, &[AP, EU]).await?;
            for name in REGIONS {
                writing.goes_on(name, now()).await?;
            }
            let again = cluster.command(&["region", "add", AP, "--yes"]).await?;
            ensure!(again["told"].as_str().is_some_and(|told| told.contains("already")), "{again}");
            members_are(cluster, &REGIONS).await?;
            let collection = writing.collection.clone();
            let shots = writing.end().await;
            none_fails(&shots, changes)?;
            told_the_truth(cluster, US, &collection, &shots).await?;
            let longest = shots.iter().map(Shot::took).max().unwrap_or_default();
            eprintln!("removed and added: {} writes, the longest {longest:?}", shots.len());
            ensure!(longest < HELD, "{longest:?}");
            reigns(cluster, US, 3, &REGIONS).await?;
            equal(cluster).await?;
            slots(cluster).await
        },
    )
    .await
}

pub async fn a_live_primary_that_is_removed_hands_over_and_leaves_one_region() -> anyhow::Result<()>
{
    harness::own(
        "alone",
        |_: &mut Spec| {},
        async |cluster| {
            let writing = Writing::everywhere(cluster, &REGIONS, SESSIONS, PACE);
            for name in REGIONS {
                writing.goes_on(name, now()).await?;
            }
            let remove = ["region", "remove", US, AP, "--alive", "--primary", EU, "--yes"];
            let moved = cluster.command(&remove).await?;
            ensure!(moved["epoch"] == 2 && moved["members"] == serde_json::json!([EU]), "{moved}");
            // Neither a slot that nobody uses nor a row that does not come is waited for.
            ensure!(moved["took_ms"].as_u64().is_some_and(|took| took < 15_000), "{moved}");
            for name in [US, AP] {
                kept_apart(cluster, name).await?;
            }
            // What they could forget together must be on the disk of one of them.
            let known = "SELECT max(epoch)::text FROM cluster_epoch";
            ensure!(sql(cluster, AP, known).await? == "2", "it has not received the epoch's row");
            ensure!(fenced(cluster, US).await?, "the old primary is not fenced");
            slots_of(cluster, EU, &[]).await?;
            for name in REGIONS {
                writing.goes_on(name, now()).await?;
            }
            for name in [AP, US] {
                cluster.command(&["region", "add", name, "--yes"]).await?;
                ready(cluster, name).await?;
            }
            for name in REGIONS {
                writing.goes_on(name, now()).await?;
            }
            let collection = writing.collection.clone();
            let shots = writing.end().await;
            // One member alone, or two that must both answer, while a third is rewound on this machine:
            // the lease may run out.
            let failed = shots.iter().filter(|shot| !shot.acknowledged()).count();
            eprintln!("alone: {failed} of {} writes failed", shots.len());
            refused_kindly(&shots)?;
            told_the_truth(cluster, EU, &collection, &shots).await?;
            members_are(cluster, &REGIONS).await?;
            reigns(cluster, EU, 4, &REGIONS).await?;
            equal(cluster).await?;
            slots(cluster).await
        },
    )
    .await
}

pub async fn what_would_split_the_cluster_is_refused() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let told = report(cluster, US).await.map_err(anyhow::Error::msg)?;
        let why = refused(cluster, &["region", "remove", AP, "--gone", "--yes"]).await?;
        ensure!(why.contains("ap-south-1 was said to be gone, and answers"), "{why}");
        let why = refused(cluster, &["region", "remove", AP, "--yes"]).await?;
        ensure!(why.contains("ap-south-1 answers: --alive"), "{why}");
        let why = refused(cluster, &["region", "remove", US, "--alive", "--yes"]).await?;
        ensure!(why.contains("--primary REGION"), "{why}");
        let why = refused(cluster, &["region", "remove", US, EU, AP, "--yes"]).await?;
        ensure!(why.contains("nobody would be left"), "{why}");
        let why = refused(cluster, &["region", "remove", "mars-1", "--yes"]).await?;
        ensure!(why.contains("not one of the cluster's regions"), "{why}");
        let there = cluster.command(&["region", "add", EU, "--yes"]).await?;
        ensure!(there["told"] == "eu-west-1 is a member already", "{there}");
        let after = report(cluster, US).await.map_err(anyhow::Error::msg)?;
        ensure!(told["epochs"] == after["epochs"], "{told} became {after}");
        Ok(())
    })
    .await
}

/// Steps of each, after each of which but the last it is killed.
const STEPS: usize = 5;

pub async fn a_change_killed_after_any_step_ends_the_same_when_run_again() -> anyhow::Result<()> {
    let shape = |spec: &mut Spec| spec.wan = Wan::Off;
    harness::own("changed", shape, async |cluster| {
        let writing = Writing::everywhere(cluster, &[US, EU], 1, PACE);
        for count in 1..=STEPS {
            for (arguments, steps, members) in [
                (&["region", "remove", AP, "--alive", "--yes"][..], STEPS, &[US, EU][..]),
                (&["region", "add", AP, "--yes"][..], STEPS - 1, &REGIONS[..]),
            ] {
                let told = killed_after(cluster, arguments, count.min(steps)).await?;
                let again = command(cluster, arguments).output().await?;
                let told = || format!("killed after {told:#?}; then {}", said(&again));
                ensure!(again.status.success(), "{}", told());
                let _: Value = serde_json::from_slice(&again.stdout)?;
                members_are(cluster, members).await.with_context(told)?;
                for name in [US, EU] {
                    writing.goes_on(name, now()).await.with_context(told)?;
                }
                let others: Vec<&str> =
                    members.iter().copied().filter(|name| *name != US).collect();
                slots_of(cluster, US, &others).await.with_context(told)?;
                if members.contains(&AP) {
                    ready(cluster, AP).await.with_context(told)?;
                } else {
                    kept_apart(cluster, AP).await.with_context(told)?;
                }
            }
        }
        let shots = writing.end().await;
        refused_kindly(&shots)?;
        equal(cluster).await?;
        slots(cluster).await
    })
    .await
}

pub async fn two_changes_at_once_leave_one_membership() -> anyhow::Result<()> {
    let shape = |spec: &mut Spec| spec.wan = Wan::Off;
    harness::own("twice", shape, async |cluster| {
        let writing = Writing::everywhere(cluster, &[US], SESSIONS, PACE);
        writing.goes_on(US, now()).await?;
        let (remove_ap, remove_eu) = (
            &["region", "remove", AP, "--alive", "--yes"][..],
            &["region", "remove", EU, "--alive", "--yes"][..],
        );
        let (add_ap, add_eu) =
            (&["region", "add", AP, "--yes"][..], &["region", "add", EU, "--yes"][..]);
        // Whoever was stopped by the other is to run theirs again.
        for (one, other, members) in [
            (remove_ap, remove_ap, &[US, EU][..]),
            (add_ap, add_ap, &REGIONS[..]),
            (remove_ap, remove_eu, &[US][..]),
            (add_eu, add_ap, &REGIONS[..]),
            (remove_eu, add_ap, &[US, AP][..]),
            (add_eu, remove_ap, &[US, EU][..]),
            (add_ap, add_eu, &REGIONS[..]),
        ] {
            let run = async |what| command(cluster, what).output().await;
            let (first, second) = tokio::try_join!(run(one), run(other))?;
            let told = || format!("{one:?}: {}\n{other:?}: {}", said(&first), said(&second));
            let codes = [&first, &second].map(|output| output.status.code());
            ensure!(codes.iter().all(|code| matches!(code, Some(0 | 1 | 3))), "{}", told());
            ensure!(codes.contains(&Some(0)), "each has stopped the other: {}", told());
            eprintln!("at once: {one:?} {:?}, {other:?} {:?}", codes[0], codes[1]);
            for again in [one, other] {
                eventually("a change that ends well", SOON, async || {
                    let again = run(again).await.map_err(|error| error.to_string())?;
                    if again.status.success() { Ok(()) } else { Err(said(&again)) }
                })
                .await
                .with_context(told)?;
            }
            members_are(cluster, members).await.with_context(told)?;
            let others: Vec<&str> = members.iter().copied().filter(|name| *name != US).collect();
            slots_of(cluster, US, &others).await.with_context(told)?;
            writing.goes_on(US, now()).await.with_context(told)?;
        }
        for name in REGIONS {
            ready(cluster, name).await?;
        }
        let collection = writing.collection.clone();
        let shots = writing.end().await;
        refused_kindly(&shots)?;
        told_the_truth(cluster, US, &collection, &shots).await?;
        equal(cluster).await?;
        slots(cluster).await
    })
    .await
}
