//! The lease, and the moves of the primary: who acknowledges, when, and what it costs.
//!
//! What leaves the primary where it is uses the laboratory kept for faults; whatever moves it takes
//! one of its own. All of it measures time, so nothing runs beside it.

mod automatic;
mod backup;
mod commands;
mod lease;
mod moves;
mod reads;
mod redis;
mod region;
mod rejoin;
mod restarts;
mod together;

use crate::{
    client::{self, Caller},
    harness::{self, Cluster, REGIONS, SOON, eventually, region},
};
use anyhow::{Context as _, bail, ensure};
use commands::{Told, killed_after};
pub use commands::{command, killed_in, refused, said};
use godwit::vocab::{Clock as _, Lsn, SystemClock, SystemRng, rng};
use libtest_mimic::Trial;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// `lease.term_ms` of a laboratory.
const TERM: Duration = Duration::from_secs(2);

macro_rules! trials {
    ($($run:ident $module:ident::{$($name:ident),+ $(,)?})+) => {
        vec![$($(Trial::test(
            concat!("failover::", stringify!($module), "::", stringify!($name)),
            || harness::$run($module::$name()),
        )),+),+]
    };
}

/// A question that a plain read asks.
const LIST: &str = "/v1/collections/anything/items?limit=1";

pub fn trials() -> Vec<Trial> {
    trials! {
        run_alone automatic::{
            a_dead_primary_is_replaced_by_itself_and_nothing_is_lost,
            without_a_quorum_nobody_takes_over_by_itself,
        }
        run_alone backup::{what_was_destroyed_is_restored_and_what_came_after_is_told_as_lost}
        run_alone lease::{
            an_isolated_primary_acknowledges_nothing_past_its_lease,
            a_commit_that_ends_past_the_lease_is_not_acknowledged,
            one_process_cut_off_fences_nobody_but_itself,
            a_redis_that_restarts_costs_a_pause_at_most,
            a_restarted_primary_waits_for_its_lease,
            a_primary_that_slept_through_a_promotion_is_kept_apart,
        }
        run_alone moves::{
            a_handover_ends_where_a_record_does,
            around_the_world_and_back_no_write_fails,
            a_killed_primary_is_replaced_and_its_lost_writes_are_told_of,
            a_laggard_is_refused_while_another_has_more,
            one_that_has_yet_to_replay_its_log_is_not_passed_over,
            with_two_processes_a_region_no_acknowledged_write_is_lost,
            a_write_past_its_time_is_not_sent_on_and_on,
        }
        run_alone reads::{a_session_reads_its_write_though_only_the_next_primary_has_it}
        run_alone redis::{one_that_restarts_in_the_middle_of_a_move_leaves_one_primary}
        run_alone rejoin::{
            what_two_epochs_lost_is_listed,
            two_promoted_from_one_timeline_are_not_taken_for_one,
            a_journal_that_cannot_be_read_is_not_thrown_away_unasked,
        }
        run_alone restarts::{
            a_promotion_killed_after_any_step_ends_the_same_when_run_again,
            a_promotion_in_quorum_killed_after_any_step_ends_the_same_when_run_again,
            a_switchover_killed_after_any_step_ends_the_same_when_run_again,
            a_rejoin_killed_midway_ends_the_same_when_run_again,
        }
        run_alone region::{
            one_region_goes_on_without_two_that_are_gone_and_they_are_added_again,
            a_replica_is_removed_and_added_again_and_no_write_fails,
            a_live_primary_that_is_removed_hands_over_and_leaves_one_region,
            what_would_split_the_cluster_is_refused,
            a_change_killed_after_any_step_ends_the_same_when_run_again,
            two_changes_at_once_leave_one_membership,
        }
        run_alone together::{two_people_at_once_leave_one_primary}
    }
}

fn now() -> Instant {
    SystemClock.monotonic()
}

fn since(began: Instant) -> Duration {
    now().saturating_duration_since(began)
}

async fn until(moment: Instant) -> anyhow::Result<()> {
    eventually("time", SOON, async || if now() >= moment { Ok(()) } else { Err("not yet".into()) })
        .await
}

/// A write and what became of it.
#[derive(Debug, Clone)]
struct Shot {
    at: String,
    key: String,
    began: Instant,
    ended: Instant,
    /// 0 when the connection broke off.
    status: u16,
    problem: String,
    /// `Godwit-Epoch`.
    epoch: Option<u32>,
    bids_back: bool,
    said: String,
}

impl Shot {
    fn acknowledged(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn took(&self) -> Duration {
        self.ended.saturating_duration_since(self.began)
    }
}

/// Sessions that write, each as often as its pace lets it, and try nothing twice.
struct Writing {
    collection: String,
    stop: CancellationToken,
    shots: Arc<Mutex<Vec<Shot>>>,
    sessions: JoinSet<()>,
}

impl Writing {
    fn begin<'a>(sessions: impl IntoIterator<Item = (&'a str, Caller)>, pace: Duration) -> Self {
        let collection = format!("moved-{}", rng::below(&SystemRng, u64::MAX >> 1));
        let (stop, shots) = (CancellationToken::new(), Arc::default());
        let mut running = JoinSet::new();
        for (number, (at, caller)) in (0..).zip(sessions) {
            let session = Session {
                caller,
                at: at.to_owned(),
                collection: collection.clone(),
                number,
                shots: Arc::clone(&shots),
            };
            running.spawn(session.run(pace, stop.clone()));
        }
        Self { collection, stop, shots, sessions: running }
    }

    /// So many sessions in each region.
    fn everywhere(cluster: &Cluster, regions: &[&str], each: usize, pace: Duration) -> Self {
        let sessions = regions.iter().flat_map(|at| (0..each).map(|_| (*at, cluster.caller())));
        Self::begin(sessions, pace)
    }

    fn so_far(&self) -> Vec<Shot> {
        self.shots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for an acknowledged write at `at` that was sent after `from`, and tells when it came.
    async fn goes_on(&self, at: &str, from: Instant) -> anyhow::Result<Instant> {
        self.first(at, from, Shot::acknowledged).await
    }

    /// The same, of a write in this epoch.
    async fn goes_on_in(&self, epoch: u32, at: &str, from: Instant) -> anyhow::Result<Instant> {
        self.first(at, from, |shot| shot.acknowledged() && shot.epoch == Some(epoch)).await
    }

    async fn first(
        &self,
        at: &str,
        from: Instant,
        wanted: impl Fn(&Shot) -> bool,
    ) -> anyhow::Result<Instant> {
        eventually(&format!("a write in {at}"), SOON, async || {
            let shots = self.so_far();
            let sent = |shot: &&Shot| shot.at == at && shot.began >= from;
            match shots.iter().find(|shot| sent(shot) && wanted(shot)) {
                Some(shot) => Ok(shot.ended),
                None => Err(format!("{:?}", shots.iter().rfind(sent))),
            }
        })
        .await
    }

    async fn end(mut self) -> Vec<Shot> {
        self.stop.cancel();
        while self.sessions.join_next().await.is_some() {}
        self.so_far()
    }
}

/// Sessions that read for as long as it goes on, one in each region; each tells how many it read.
struct Reading {
    stop: CancellationToken,
    sessions: JoinSet<anyhow::Result<usize>>,
}

impl Reading {
    fn begin<F>(
        cluster: &Cluster,
        regions: &[&'static str],
        read_on: impl Fn(Caller, &'static str, CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = anyhow::Result<usize>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let mut sessions = JoinSet::new();
        for at in regions {
            sessions.spawn(read_on(cluster.caller(), at, stop.clone()));
        }
        Self { stop, sessions }
    }

    /// Each must have read more often than this.
    async fn end(self, times: usize) -> anyhow::Result<()> {
        self.stop.cancel();
        for read in self.sessions.join_all().await {
            let read = read?;
            ensure!(read > times, "{read} reads are no test");
        }
        Ok(())
    }
}

struct Session {
    caller: Caller,
    at: String,
    collection: String,
    number: usize,
    shots: Arc<Mutex<Vec<Shot>>>,
}

impl Session {
    async fn run(mut self, pace: Duration, stop: CancellationToken) {
        let mut turns = tokio::time::interval(pace);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut count = 0;
        while !stop.is_cancelled() {
            turns.tick().await;
            let key = format!("{}-{}-{count}", self.collection, self.number);
            count += 1;
            let shot = write(&mut self.caller, &self.at, &self.collection, &key).await;
            self.shots.lock().unwrap_or_else(PoisonError::into_inner).push(shot);
        }
    }
}

/// One write, by a session that goes on with what it brings.
async fn write(caller: &mut Caller, at: &str, collection: &str, key: &str) -> Shot {
    let path = format!("/v1/collections/{collection}/items");
    let began = now();
    let ask = caller.ask(at, Method::POST, &path).header("idempotency-key", key);
    let answer = ask.json(&json!({ "key": key })).send().await;
    let shot = Shot {
        at: at.to_owned(),
        key: key.to_owned(),
        began,
        ended: now(),
        status: 0,
        problem: String::new(),
        epoch: None,
        bids_back: false,
        said: String::new(),
    };
    match answer {
        Err(error) => Shot { said: format!("{error:#}"), ..shot },
        Ok(answer) => Shot {
            status: answer.status,
            problem: answer.problem(),
            epoch: answer.header("godwit-epoch").and_then(|epoch| epoch.parse().ok()),
            bids_back: answer.header("retry-after").is_some(),
            said: if answer.status < 300 { String::new() } else { answer.to_string() },
            ..shot
        },
    }
}

/// Demands that each that was not acknowledged was told to come back, and nothing else.
fn refused_kindly<'a>(shots: impl IntoIterator<Item = &'a Shot>) -> anyhow::Result<()> {
    for shot in shots {
        let kindly = shot.status == 503 && shot.bids_back;
        ensure!(shot.acknowledged() || kindly, "{}: {shot:?}", shot.said);
    }
    Ok(())
}

/// Demands that no write failed that was under way in any of these spans. At other times the lease may
/// have run out, on a machine that has other things to do: each of those was told to come back.
fn none_fails(
    shots: &[Shot],
    spans: impl IntoIterator<Item = (Instant, Instant)>,
) -> anyhow::Result<()> {
    for (began, ended) in spans {
        let met = |shot: &&Shot| shot.began <= ended && shot.ended >= began;
        let failed: Vec<_> = shots.iter().filter(met).filter(|one| !one.acknowledged()).collect();
        ensure!(failed.is_empty(), "{} of {} failed: {failed:#?}", failed.len(), shots.len());
    }
    refused_kindly(shots)
}

/// The keys of a collection's items, as the primary tells them.
async fn there(
    cluster: &Cluster,
    at: &str,
    collection: &str,
) -> anyhow::Result<(BTreeSet<String>, usize)> {
    let (mut keys, mut count, mut cursor) = (BTreeSet::new(), 0, String::new());
    let mut caller = cluster.caller();
    loop {
        let path = format!("/v1/collections/{collection}/items?limit=100{cursor}");
        let ask = caller.ask(at, Method::GET, &path).header("godwit-consistency", "strong");
        let page = ask.send().await?.wants(200)?;
        for item in page.items()? {
            count += 1;
            let key = item["data"]["key"].as_str().context("an item without a key")?;
            keys.insert(key.to_owned());
        }
        match page.json()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok((keys, count)),
        }
    }
}

/// Demands that every acknowledged write is there, once, and none that was told to have had no
/// effect.
async fn told_the_truth(
    cluster: &Cluster,
    at: &str,
    collection: &str,
    shots: &[Shot],
) -> anyhow::Result<()> {
    let (keys, count) = there(cluster, at, collection).await?;
    ensure!(keys.len() == count, "{count} items of {} keys", keys.len());
    for shot in shots {
        let known = shot.status != 0 && shot.problem != "outcome-unknown";
        let right = !known || keys.contains(&shot.key) == shot.acknowledged();
        ensure!(right, "{}: {shot:?}", if shot.acknowledged() { "lost" } else { "has effect" });
    }
    ensure!(shots.iter().any(Shot::acknowledged), "nothing was acknowledged at all");
    Ok(())
}

/// `/internal/v1/topology` of a region's first process.
pub async fn report(cluster: &Cluster, name: &str) -> Result<Value, String> {
    let url = format!("{}/internal/v1/topology", cluster.region(name).internal);
    // A fresh connection each time, as the listener speaks HTTP/2 too.
    let answer = client::http().map_err(|error| error.to_string())?.get(url).send().await;
    answer.map_err(|error| error.to_string())?.json().await.map_err(|error| error.to_string())
}

/// The status of a region's readiness.
async fn readiness(cluster: &Cluster, name: &str) -> anyhow::Result<(u16, String)> {
    let url = format!("{}/api/health/readiness", cluster.region(name).public);
    let answer = client::http()?.get(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

async fn ready(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    eventually(&format!("a ready {name}"), SOON, async || {
        match readiness(cluster, name).await.map_err(|error| error.to_string())? {
            (200, _) => Ok(()),
            (_, said) => Err(said),
        }
    })
    .await
}

/// Waits until an old primary knows that it is one.
async fn quarantined(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    eventually(&format!("the quarantine of {name}"), SOON, async || {
        match readiness(cluster, name).await.map_err(|error| error.to_string())? {
            (503, told) if told.contains("godwit rejoin") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// The one value of a query, asked as the superuser.
async fn sql(cluster: &Cluster, name: &str, query: &'static str) -> anyhow::Result<String> {
    let mut database = sqlx::PgConnection::connect(&cluster.region(name).global_db).await?;
    let (found,): (String,) = sqlx::query_as(query).fetch_one(&mut database).await?;
    database.close().await?;
    Ok(found)
}

/// Whether a region's database is fenced.
async fn fenced(cluster: &Cluster, name: &str) -> anyhow::Result<bool> {
    let query = "SELECT current_setting('default_transaction_read_only')";
    Ok(sql(cluster, name, query).await? == "on")
}

/// Waits for a fence to go up or down.
async fn fence_is(cluster: &Cluster, name: &str, wanted: bool) -> anyhow::Result<()> {
    eventually(&format!("{name}: fenced = {wanted}"), SOON, async || {
        match fenced(cluster, name).await {
            Ok(found) if found == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Waits until these regions receive nothing more, as their primary is dead.
async fn receive_no_more(cluster: &Cluster, regions: &[&str]) -> anyhow::Result<()> {
    let receives =
        "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')::text";
    for name in regions {
        eventually(&format!("the end of what {name} receives"), SOON, async || {
            match sql(cluster, name, receives).await {
                Ok(receives) if receives == "false" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
    }
    Ok(())
}

/// The region that has received more than the other; the first when neither has.
async fn furthest(
    cluster: &Cluster,
    [first, other]: [&'static str; 2],
) -> anyhow::Result<&'static str> {
    let received = "SELECT pg_last_wal_receive_lsn()::text";
    let [ours, theirs] =
        [sql(cluster, first, received).await?, sql(cluster, other, received).await?];
    Ok(if theirs.parse::<Lsn>()? > ours.parse()? { other } else { first })
}

/// Demands that writes from every region named are acknowledged in `epoch`.
async fn writes_from(caller: &Caller, epoch: u32, regions: &[&str]) -> anyhow::Result<()> {
    for at in regions {
        let mut caller = caller.fresh();
        // On a machine that has other things to do, a lease may be late for a moment.
        let what = format!("a write from {at}");
        let shot = eventually(&what, SOON, async || {
            let key = format!("reigns-{epoch}-{at}-{}", rng::below(&SystemRng, u64::MAX >> 1));
            let shot = write(&mut caller, at, "reigns", &key).await;
            if shot.status == 503 && shot.bids_back { Err(shot.said) } else { Ok(shot) }
        })
        .await?;
        ensure!(shot.acknowledged() && shot.epoch == Some(epoch), "{at}: {shot:?}");
    }
    Ok(())
}

/// Demands that `target` is the primary of `epoch` and takes writes from every region named.
async fn reigns(
    cluster: &Cluster,
    target: &str,
    epoch: u32,
    regions: &[&str],
) -> anyhow::Result<()> {
    writes_from(&cluster.caller(), epoch, regions).await?;
    let told = report(cluster, target).await.map_err(anyhow::Error::msg)?;
    ensure!(told["role"] == "primary" && told["writable"] == true, "{told}");
    for other in REGIONS.iter().filter(|other| **other != target) {
        let Ok(told) = report(cluster, other).await else { continue };
        ensure!(told["writable"] == false, "{other} too: {told}");
    }
    Ok(())
}

/// What every region's database holds, once they hold the same.
async fn equal(cluster: &Cluster) -> anyhow::Result<String> {
    eventually("the same data everywhere", SOON, async || {
        let mut found = BTreeSet::new();
        for name in REGIONS {
            let sums = sql(
                cluster,
                name,
                "SELECT concat_ws('/', \
                 (SELECT count(*) FROM item), \
                 (SELECT sum(hashtextextended(item::text, 0)) FROM item), \
                 (SELECT count(*) FROM write_journal), \
                 (SELECT sum(hashtextextended(write_journal::text, 0)) FROM write_journal))",
            );
            found.insert(sums.await.map_err(|error| format!("{error:#}"))?);
        }
        if found.len() == 1 { Ok(found.into_iter().collect()) } else { Err(format!("{found:?}")) }
    })
    .await
}

/// Waits until a region has slots for these and for nobody else.
async fn slots_of(cluster: &Cluster, name: &str, others: &[&str]) -> anyhow::Result<()> {
    let mut wanted: Vec<String> = others.iter().map(|at| at.replace('-', "_")).collect();
    wanted.sort_unstable();
    let wanted = wanted.join(",");
    eventually(&format!("the slots of {name}"), SOON, async || {
        let query = "SELECT coalesce(string_agg(slot_name, ',' ORDER BY slot_name), '') \
             FROM pg_replication_slots";
        match sql(cluster, name, query).await {
            Ok(found) if found == wanted => Ok(()),
            other => Err(format!("{other:?}, wanted {wanted}")),
        }
    })
    .await
}

/// Demands that each region has the slots of the two others and no more.
async fn slots(cluster: &Cluster) -> anyhow::Result<()> {
    for name in REGIONS {
        let others: Vec<&str> = REGIONS.into_iter().filter(|at| *at != name).collect();
        slots_of(cluster, name, &others).await?;
    }
    Ok(())
}

/// Brings a region back as a follower and tells how it came back.
async fn rejoin(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    let told = cluster.command(&["rejoin", name, "--yes"]).await?;
    let told = told["told"].as_str().with_context(|| format!("rejoin {name}: {told}"))?.to_owned();
    if told.contains("copied anew") {
        bail!("{name} was copied anew: {told}");
    }
    ready(cluster, name).await?;
    Ok(told)
}

fn target(name: &str) -> godwit::lab::Target {
    region(name).into()
}
