//! One move after another, planned and not: what it costs, what is lost, and who is told.

use super::{
    LIST, Reading, Shot, TERM, Writing, command, equal, furthest, none_fails, now, quarantined,
    receive_no_more, refused, refused_kindly, reigns, rejoin, report, said, since, slots, sql,
    target, told_the_truth, write, writes_from,
};
use crate::{
    client::Caller,
    harness::{self, AP, Cluster, EU, REGIONS, SOON, US, eventually, region, set},
};
use anyhow::{Context as _, anyhow, ensure};
use futures_util::future::try_join_all;
use godwit::{
    lab::{Durability, Spec, Wan},
    vocab::Lsn,
};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};
use std::{
    num::NonZeroU8,
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Between two writes of a session; three sessions in each of three regions make 30 a second.
const PACE: Duration = Duration::from_millis(300);
const SESSIONS: usize = 3;
/// Longest write across a planned move, on a machine that has other things to do.
const HELD: Duration = Duration::from_secs(5);
/// From the end of a command to a write in the new epoch, sent after it, from any region.
const SENT_THERE: Duration = Duration::from_secs(2);
/// From the command to the first write from any region, at real distances.
const REPLACED: Duration = Duration::from_secs(8);

/// What makes each region's data the one that it is: a copy would have another directory.
async fn identities(cluster: &Cluster) -> anyhow::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for name in REGIONS {
        let system = sql(
            cluster,
            name,
            "SELECT concat_ws(' ', current_setting('data_directory'), system_identifier) \
             FROM pg_control_system()",
        );
        let system = system.await?;
        let directory = system.split(' ').next().context("a directory")?;
        found.push((system.clone(), std::fs::metadata(directory)?.ino()));
    }
    Ok(found)
}

/// What a report says of its last step, the old primary's return.
fn returned(report: &Value) -> anyhow::Result<&str> {
    let last = report["steps"].as_array().and_then(|steps| steps.last());
    let last = last.with_context(|| report.to_string())?;
    ensure!(last["step"].as_str().is_some_and(|step| step.starts_with("rejoin")), "{last}");
    last["told"].as_str().with_context(|| last.to_string())
}

/// The longest write that was under way in a span.
fn longest(shots: &[Shot], from: Instant, to: Instant) -> Duration {
    let during = shots.iter().filter(|shot| shot.ended > from && shot.began < to);
    during.map(Shot::took).max().unwrap_or_default()
}

/// Waits until all know the primary and its lease is fresh: on a machine that has other things to do it
/// may have run out just before, which is no fault of the move that comes next.
async fn steady(cluster: &Cluster, primary: &str) -> anyhow::Result<()> {
    eventually(&format!("a fresh lease of {primary}"), SOON, async || {
        for name in REGIONS {
            let told = report(cluster, name).await?;
            let fresh = u128::from(told["lease_ms"].as_u64().unwrap_or(0)) > TERM.as_millis() / 2;
            if told["primary"] != primary || (name == primary && !fresh) {
                return Err(told.to_string());
            }
        }
        Ok(())
    })
    .await
}

/// Demands that a write of each region is acknowledged in `epoch` soon after the command ended.
async fn goes_there(
    writing: &Writing,
    epoch: u32,
    regions: &[&str],
    ended_at: Instant,
) -> anyhow::Result<()> {
    for name in regions {
        let first = writing.goes_on_in(epoch, name, ended_at).await?;
        let took = first.saturating_duration_since(ended_at);
        eprintln!("{name} writes in epoch {epoch} {took:?} after the command");
        ensure!(took < SENT_THERE, "{name} in epoch {epoch}: {took:?}");
    }
    Ok(())
}

pub async fn around_the_world_and_back_no_write_fails() -> anyhow::Result<()> {
    harness::own(
        "world",
        |_: &mut Spec| {},
        async |cluster| {
            let before = identities(cluster).await?;
            let writing = Writing::everywhere(cluster, &REGIONS, SESSIONS, PACE);
            for name in REGIONS {
                writing.goes_on(name, now()).await?;
            }
            let mut spans = Vec::new();
            for ((epoch, from), to) in (2..).zip([US, EU, AP]).zip([EU, AP, US]) {
                steady(cluster, from).await?;
                let began = now();
                let report = cluster.command(&["switchover", to, "--yes"]).await?;
                ensure!(report["epoch"] == epoch && report["region"] == to, "{report}");
                let told = returned(&report)?;
                ensure!(told.starts_with("rewound"), "the old primary was not rewound: {told}");
                goes_there(&writing, epoch, &REGIONS, now()).await?;
                spans.push((to, began, now()));
                reigns(cluster, to, epoch, &REGIONS).await?;
            }
            let collection = writing.collection.clone();
            let shots = writing.end().await;
            none_fails(&shots, spans.iter().map(|(_, from, end)| (*from, *end)))?;
            for (to, from, end) in spans {
                let longest = longest(&shots, from, end);
                eprintln!("switchover to {to}: {:?}, longest write {longest:?}", end - from);
                ensure!(longest < HELD, "to {to}: {longest:?}");
            }
            told_the_truth(cluster, EU, &collection, &shots).await?;
            let sums = equal(cluster).await?;
            eprintln!("{} writes, all the same everywhere: {sums}", shots.len());
            let after = identities(cluster).await?;
            ensure!(before == after, "made anew: {before:?} became {after:?}");
            slots(cluster).await
        },
    )
    .await
}

/// Whether what is flushed ends within a record: a page of the log is full, and its record goes on.
const WITHIN_A_RECORD: &str = "SELECT CASE WHEN flushed < inserted AND (flushed - '0/0') % 8192 = 0 \
     THEN flushed::text ELSE '' END \
     FROM (SELECT pg_current_wal_flush_lsn() AS flushed, pg_current_wal_insert_lsn() AS inserted) AS at";

/// What was told of the old epoch, within a record that came to nothing, is not told to be lost.
pub async fn a_handover_ends_where_a_record_does() -> anyhow::Result<()> {
    harness::own(
        "whole",
        |_: &mut Spec| {},
        async |cluster| {
            let superuser = &cluster.region(US).global_db;
            let mut open = sqlx::PgConnection::connect(superuser).await?;
            // A session that may be ended, as ours may.
            open.execute("CREATE ROLE passer_by LOGIN PASSWORD 'short'").await?;
            let mut passer_by: Url = superuser.parse()?;
            let named =
                passer_by.set_username("passer_by").and(passer_by.set_password(Some("short")));
            named.map_err(|()| anyhow!("{passer_by}"))?;
            open = sqlx::PgConnection::connect(passer_by.as_str()).await?;
            let record = "SELECT pg_logical_emit_message(true, 'open', repeat('x', 100000))";
            open.execute("BEGIN").await?;
            open.execute(record).await?;
            let told = eventually("a position within a record", SOON, async || {
                match sql(cluster, US, WITHIN_A_RECORD).await.map_err(|error| error.to_string())? {
                    at if at.is_empty() => Err("not yet".to_owned()),
                    at => Ok(at),
                }
            });
            let told: Lsn = told.await?.parse()?;
            let report = cluster.command(&["switchover", EU, "--yes"]).await?;
            let began_at = report["began_at"].as_str().with_context(|| report.to_string())?;
            ensure!(began_at.parse::<Lsn>()? >= told, "epoch 2 began at {began_at}, before {told}");
            let mut caller = cluster.caller();
            let bookmark = format!("1-1-{:x}", told.get());
            let ask = caller.ask(EU, Method::GET, LIST).header("godwit-bookmark", &bookmark);
            ask.send().await?.wants(200).map(drop)
        },
    )
    .await
}

/// Plain reads, each by a session of its own, none of which may fail.
async fn read_on(
    caller: Caller,
    at: &'static str,
    stop: CancellationToken,
) -> anyhow::Result<usize> {
    let (mut count, mut failed) = (0, Vec::new());
    let mut turns = tokio::time::interval(Duration::from_millis(50));
    while !stop.is_cancelled() {
        turns.tick().await;
        count += 1;
        let read = caller.fresh().get(at, "/v1/collections/reigns/items?limit=2").await;
        match read {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => failed.push(format!("{at}: {answer}")),
            Err(error) => failed.push(format!("{at}: {error:#}")),
        }
    }
    ensure!(failed.is_empty(), "{} of {count} reads failed: {failed:#?}", failed.len());
    Ok(count)
}

/// Acknowledged writes that the primary alone has, and the sessions that made them. It is cut off.
pub(super) async fn doomed(
    cluster: &Cluster,
    primary: &str,
) -> anyhow::Result<Vec<(Caller, String)>> {
    let others = || REGIONS.into_iter().filter(|name| *name != primary);
    let mut warm = cluster.caller();
    let seen = warm.create(primary, "doomed", &json!({})).await?.wants(201)?.id()?;
    for far in others() {
        warm.read(far, "doomed", &seen).await?.wants(200)?;
    }
    for far in others() {
        cluster.lab.cut(&region(primary), &region(far))?;
    }
    let cut_at = now();
    let create = async || {
        let mut caller = cluster.caller();
        let item = caller.create(primary, "doomed", &json!({})).await?.wants(201)?;
        anyhow::Ok((caller, item.id()?))
    };
    let made = try_join_all((0..3).map(|_| create())).await?;
    ensure!(since(cut_at) < TERM, "too slow a machine: {:?}", since(cut_at));
    Ok(made)
}

/// Demands that whoever holds the bookmark of a lost write is told so, in each region.
pub(super) async fn told_lost(lost: &[(Caller, String)], regions: &[&str]) -> anyhow::Result<()> {
    for (caller, id) in lost {
        for at in regions {
            let mut caller = caller.clone();
            caller.read(at, "doomed", id).await?.wants_problem(409, "bookmark-lost")?;
            // And who asks without it finds that there is no such thing.
            caller.fresh().read(at, "doomed", id).await?.wants(404)?;
        }
    }
    Ok(())
}

pub async fn a_killed_primary_is_replaced_and_its_lost_writes_are_told_of() -> anyhow::Result<()> {
    harness::own(
        "killed",
        |_: &mut Spec| {},
        async |cluster| {
            reigns(cluster, US, 1, &REGIONS).await?;
            let reading = Reading::begin(cluster, &[EU, AP], read_on);
            let lost = doomed(cluster, US).await?;
            cluster.lab.kill(&target(US)).await?;
            let killed_at = now();
            // Whoever still asks the dead one over a link that is cut waits for the end of its time.
            for at in [EU, AP] {
                eventually("notice of its death", SOON, async || {
                    let told = report(cluster, at).await?;
                    if told["primary"].is_null() {
                        Ok(())
                    } else {
                        Err(told["primary"].to_string())
                    }
                })
                .await?;
            }
            // Of fresh sessions: what they wrote must not be what was lost.
            let writing = Writing::everywhere(cluster, &[EU, AP], 2, Duration::from_millis(50));
            let why = refused(cluster, &["promote", EU, "--yes"]).await?;
            ensure!(why.contains("--accept-data-loss") && why.contains("async"), "{why}");
            let asked_at = now();
            let promote = ["promote", EU, "--yes", "--accept-data-loss"];
            let promoted = command(cluster, &promote).output().await?;
            ensure!(promoted.status.success(), "{}", said(&promoted));
            let promoted_at = now();
            let moved: Value = serde_json::from_slice(&promoted.stdout)?;
            ensure!(moved["epoch"] == 2, "{moved}");
            goes_there(&writing, 2, &[EU, AP], promoted_at).await?;
            for at in [EU, AP] {
                let first = writing.goes_on(at, killed_at).await?;
                let took = first.saturating_duration_since(asked_at);
                eprintln!(
                    "promoted: {at} writes {took:?} after the command, lease wait {} ms",
                    moved["lease_wait_ms"]
                );
                ensure!(took < REPLACED, "{at}: {took:?}");
            }
            reigns(cluster, EU, 2, &[EU, AP]).await?;
            told_lost(&lost, &[EU, AP]).await?;
            cluster.lab.heal();

            cluster.lab.restart(&target(US)).await?;
            quarantined(cluster, US).await?;
            let mut caller = cluster.caller();
            let read = caller.get(US, "/v1/collections/doomed/items").await?.wants(200)?;
            ensure!(read.header("godwit-region") == Some(EU) && read.items()?.len() == 1, "{read}");
            let told = rejoin(cluster, US).await?;
            ensure!(told.contains("rewound"), "{told}");
            reading.end(20).await?;
            let collection = writing.collection.clone();
            let shots = writing.end().await;
            told_the_truth(cluster, EU, &collection, &shots).await?;
            reigns(cluster, EU, 2, &REGIONS).await?;
            equal(cluster).await?;
            told_lost(&lost, &REGIONS).await?;
            slots(cluster).await
        },
    )
    .await
}

pub async fn a_laggard_is_refused_while_another_has_more() -> anyhow::Result<()> {
    harness::own(
        "laggard",
        |_: &mut Spec| {},
        async |cluster| {
            reigns(cluster, US, 1, &REGIONS).await?;
            cluster.lab.cut(&region(US), &region(AP))?;
            let mut caller = cluster.caller();
            let shot = write(&mut caller, US, "laggard", "more").await;
            ensure!(shot.acknowledged(), "{shot:?}");
            // eu-west-1 has it once it can answer for it by itself.
            eventually("the write in eu-west-1", SOON, async || {
                let list = "/v1/collections/laggard/items";
                let read = caller.clone().get(EU, list).await.map_err(|error| error.to_string())?;
                let here = matches!(read.route(), "local" | "waited");
                if here && read.status == 200 { Ok(()) } else { Err(read.to_string()) }
            })
            .await?;
            cluster.lab.kill(&target(US)).await?;
            for more in [&[][..], &["--accept-data-loss"]] {
                let why = refused(cluster, &[&["promote", AP, "--yes"], more].concat()).await?;
                ensure!(why.contains("promote eu-west-1"), "{why}");
            }
            let promote = ["promote", EU, "--yes", "--accept-data-loss"];
            cluster.command(&promote).await?;
            reigns(cluster, EU, 2, &[EU, AP]).await?;
            let items = caller.items(AP, "laggard", "").await?;
            ensure!(items.len() == 1, "{items:?}");
            cluster.lab.heal();
            cluster.lab.restart(&target(US)).await?;
            rejoin(cluster, US).await?;
            equal(cluster).await?;
            slots(cluster).await
        },
    )
    .await
}

/// A standby that was started anew tells what it has replayed, and may have more on its disk.
pub async fn one_that_has_yet_to_replay_its_log_is_not_passed_over() -> anyhow::Result<()> {
    let quorum = |spec: &mut Spec| spec.durability = Durability::Quorum;
    harness::own("replaying", quorum, async |cluster| {
        reigns(cluster, US, 1, &REGIONS).await?;
        cluster.lab.cut(&region(US), &region(EU))?;
        let mut database = sqlx::PgConnection::connect(&cluster.region(AP).global_db).await?;
        for statement in
            ["ALTER SYSTEM SET recovery_min_apply_delay = '1h'", "SELECT pg_reload_conf()"]
        {
            database.execute(statement).await?;
        }
        let mut caller = cluster.caller();
        caller.create(US, "replaying", &json!({})).await?.wants(201)?;
        cluster.lab.kill(&target(US)).await?;
        let postgres = format!("{AP}/postgres").parse()?;
        cluster.lab.kill(&postgres).await?;
        cluster.lab.restart(&postgres).await?;
        cluster.lab.heal();
        // What it tells of is what it has replayed, which is less than the other has.
        eventually("a look at its database", SOON, async || {
            let look = ["promote", AP, "--dry-run", "--accept-data-loss"];
            let looked = command(cluster, &look).output().await;
            let looked = said(&looked.map_err(|error| error.to_string())?);
            if looked.contains("further than") { Ok(()) } else { Err(looked) }
        })
        .await?;
        for flag in [&[][..], &["--accept-data-loss"]] {
            let promote = [&["promote", EU, "--yes"], flag].concat();
            let promoted = command(cluster, &promote).output().await?;
            let why = said(&promoted);
            ensure!(!promoted.status.success(), "what {AP} has was lost: {why}");
            ensure!(why.contains("its own log is replayed"), "{why}");
        }

        let mut database = sqlx::PgConnection::connect(&cluster.region(AP).global_db).await?;
        for statement in ["ALTER SYSTEM RESET recovery_min_apply_delay", "SELECT pg_reload_conf()"]
        {
            database.execute(statement).await?;
        }
        eventually("a promotion", SOON, async || {
            let again = command(cluster, &["promote", AP, "--yes"]).output().await;
            let again = again.map_err(|error| error.to_string())?;
            if again.status.success() { Ok(()) } else { Err(said(&again)) }
        })
        .await?;
        let items = caller.items(AP, "replaying", "").await?;
        ensure!(items.len() == 1, "{items:?}");
        Ok(())
    })
    .await
}

/// Sessions that ask the second process of each region.
fn seconds(cluster: &Cluster) -> anyhow::Result<Caller> {
    let mut caller = cluster.caller();
    for name in REGIONS {
        let second = cluster.region(name).more.first().context("no second process")?;
        caller = caller.at_base(name, &second.public);
    }
    Ok(caller)
}

pub async fn with_two_processes_a_region_no_acknowledged_write_is_lost() -> anyhow::Result<()> {
    let shape = |spec: &mut Spec| {
        spec.processes = NonZeroU8::new(2).expect("two");
        (spec.wan, spec.durability) = (Wan::Off, Durability::Quorum);
    };
    harness::own("pairs", shape, async |cluster| {
        let callers = [cluster.caller(), seconds(cluster)?];
        let sessions = REGIONS.iter().flat_map(|at| callers.clone().map(|caller| (*at, caller)));
        let writing = Writing::begin(sessions, PACE);
        for name in REGIONS {
            writing.goes_on(name, now()).await?;
        }
        steady(cluster, US).await?;
        let began = now();
        let moved = cluster.command(&["switchover", EU, "--yes"]).await?;
        ensure!(moved["epoch"] == 2, "{moved}");
        let returned = now();
        for caller in &callers {
            writes_from(caller, 2, &REGIONS).await?;
        }
        reigns(cluster, EU, 2, &REGIONS).await?;

        cluster.lab.kill(&target(EU)).await?;
        receive_no_more(cluster, &[US, AP]).await?;
        let to = furthest(cluster, [US, AP]).await?;
        let moved = cluster.command(&["promote", to, "--yes"]).await?;
        ensure!(moved["epoch"] == 3, "{moved}");
        for caller in &callers {
            writes_from(caller, 3, &[US, AP]).await?;
        }
        reigns(cluster, to, 3, &[US, AP]).await?;
        cluster.lab.restart(&target(EU)).await?;
        quarantined(cluster, EU).await?;
        rejoin(cluster, EU).await?;
        for caller in &callers {
            writes_from(caller, 3, &REGIONS).await?;
        }
        for name in REGIONS {
            writing.goes_on_in(3, name, now()).await?;
        }
        let collection = writing.collection.clone();
        let shots = writing.end().await;
        let handed_over: Vec<Shot> =
            shots.iter().filter(|shot| shot.began <= returned).cloned().collect();
        none_fails(&handed_over, [(began, returned)])?;
        refused_kindly(shots.iter().filter(|shot| shot.at != EU))?;
        told_the_truth(cluster, to, &collection, &shots).await?;
        reigns(cluster, to, 3, &REGIONS).await?;
        equal(cluster).await?;
        slots(cluster).await
    })
    .await
}

/// The time that a write of this has, so that the test need not wait for the usual one.
const REQUEST_MS_MAX: u64 = 2_000;
/// Hops that one write may cost while its time lasts: several attempts, each asked for again while an
/// earlier one is at work.
const HOPS_MAX: usize = 100;

/// Right after a move another is thought to be near, and what has no answer is held for it: until its time
/// is up, and no longer.
pub async fn a_write_past_its_time_is_not_sent_on_and_on() -> anyhow::Result<()> {
    let shape = |spec: &mut Spec| {
        (spec.wan, spec.durability) = (Wan::Off, Durability::Quorum);
        set(spec, "GODWIT__ROUTING__REQUEST_MS_MAX", &REQUEST_MS_MAX.to_string());
    };
    harness::own("past", shape, async |cluster| {
        reigns(cluster, US, 1, &REGIONS).await?;
        cluster.command(&["switchover", EU, "--yes"]).await?;
        reigns(cluster, EU, 2, &REGIONS).await?;
        // Nobody is left who could confirm a commit.
        for name in [US, AP] {
            cluster.lab.kill(&format!("{name}/postgres").parse()?).await?;
        }
        let began = now();
        let answer = cluster.caller().create(AP, "past", &json!({})).await?;
        let took = now().saturating_duration_since(began);
        answer.wants_problem(503, "outcome-unknown")?;
        ensure!(took < Duration::from_millis(2 * REQUEST_MS_MAX), "{took:?}");
        let of_it = |line: &Value| line.to_string().contains("/v1/collections/past/items");
        let hops = cluster.log(EU)?.iter().filter(|line| of_it(line)).count();
        ensure!((1..HOPS_MAX).contains(&hops), "{hops} hops");
        Ok(())
    })
    .await
}
