//! Who acknowledges: only who holds the lease, and after a later epoch nobody of an earlier one.

use super::{
    LIST, Shot, TERM, Writing, command, fence_is, fenced, now, readiness, ready, refused_kindly,
    rejoin, report, said, since, sql, target, told_the_truth, until,
};
use crate::{
    client::{self, Answer, Caller},
    faults::{edge::free_addresses, wire::Wire},
    harness::{self, AP, Cluster, EU, SOON, US, eventually, region},
};
use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use godwit::lab::{Direction, Spec};
use reqwest::Method;
use serde_json::json;
use sqlx::Connection as _;
use std::{
    fs,
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Between two writes of a session.
const PACE: Duration = Duration::from_millis(20);
/// From the end of a fault until writes go through.
const AGAIN: Duration = Duration::from_secs(2);

fn isolate(cluster: &Cluster) -> anyhow::Result<()> {
    for far in [EU, AP] {
        cluster.lab.cut(&region(US), &region(far))?;
    }
    Ok(())
}

/// Demands that nothing was acknowledged in a span, and that enough was asked then.
fn silent(shots: &[Shot], from: Instant, to: Instant) -> anyhow::Result<()> {
    let asked = shots.iter().filter(|shot| shot.began > from && shot.ended < to).count();
    ensure!(asked > 20, "{asked} writes are no test");
    let late = |shot: &&Shot| shot.acknowledged() && shot.ended > from && shot.began < to;
    let late: Vec<&Shot> = shots.iter().filter(late).collect();
    ensure!(late.is_empty(), "{} were acknowledged, such as {:?}", late.len(), late.first());
    Ok(())
}

/// Demands that every acknowledgement names this epoch.
fn of_one_epoch(shots: &[Shot], epoch: u32) -> anyhow::Result<()> {
    let other = shots.iter().find(|shot| shot.acknowledged() && shot.epoch != Some(epoch));
    ensure!(other.is_none(), "{other:?}");
    Ok(())
}

/// From `from` to the first acknowledgement of a write that was sent after it.
fn pause(shots: &[Shot], from: Instant) -> Option<Duration> {
    let after = shots.iter().filter(|shot| shot.acknowledged() && shot.began >= from);
    after.map(|shot| shot.ended.saturating_duration_since(from)).min()
}

pub async fn an_isolated_primary_acknowledges_nothing_past_its_lease() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let writing = Writing::everywhere(cluster, &[US], 3, PACE);
        writing.goes_on(US, now()).await?;
        isolate(cluster)?;
        let cut_at = now();
        fence_is(cluster, US, true).await?;
        let fenced_after = since(cut_at);
        // Whoever fences must leave it so for as long as the fault lasts.
        until(now() + TERM).await?;
        ensure!(fenced(cluster, US).await?, "the fence went down by itself");
        cluster.lab.heal();
        let healed_at = now();
        writing.goes_on(US, healed_at).await?;
        fence_is(cluster, US, false).await?;
        let collection = writing.collection.clone();
        let shots = writing.end().await;
        silent(&shots, cut_at + TERM, healed_at)?;
        refused_kindly(&shots)?;
        of_one_epoch(&shots, 1)?;
        let last = shots.iter().filter(|shot| shot.acknowledged() && shot.began < healed_at);
        let last = last.map(|shot| shot.ended).max().context("no write before the cut")?;
        let again = pause(&shots, healed_at).context("no write after it")?;
        eprintln!(
            "isolated: last acknowledged {:?} after the cut, fenced {fenced_after:?} after it, \
             acknowledges {again:?} after the heal",
            last.saturating_duration_since(cut_at)
        );
        ensure!(again < TERM + AGAIN, "{again:?}");
        told_the_truth(cluster, US, &collection, &shots).await
    })
    .await
}

/// A write that is let into the database while the lease lasts and commits once it does not: its row
/// is held meanwhile.
pub async fn a_commit_that_ends_past_the_lease_is_not_acknowledged() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let mut caller = cluster.caller();
        let made = caller.create(US, "late", &json!({ "late": false })).await?.wants(201)?;
        let (id, etag) = (made.id()?, made.etag()?);
        isolate(cluster)?;
        // Sent late in the lease, so that it need not wait for the row for long.
        eventually("the last of the lease", SOON, async || {
            let told = report(cluster, US).await?;
            match told["lease_ms"].as_u64() {
                Some(200..=700) => Ok(()),
                left => Err(format!("{left:?} ms")),
            }
        })
        .await?;
        let mut holder = sqlx::PgConnection::connect(&cluster.region(US).global_db).await?;
        let mut held = holder.begin().await?;
        let lock = sqlx::query("SELECT FROM item WHERE id = $1::uuid FOR UPDATE").bind(&id);
        lock.execute(&mut *held).await?;
        let mut writer = cluster.caller();
        let path = client::item("late", &id);
        let ask = writer.ask(US, Method::PUT, &path).header("if-match", &etag);
        let put = ask.header("idempotency-key", "late").json(&json!({ "late": true })).send();
        let past = async {
            eventually("the end of the lease", SOON, async || {
                let told = report(cluster, US).await?;
                if told["writable"] == false { Ok(()) } else { Err(told.to_string()) }
            })
            .await?;
            held.rollback().await.context("the row could not be let go")
        };
        let (put, ()) = tokio::try_join!(put, past)?;
        put.wants_problem(503, "outcome-unknown")?;
        let version = sqlx::query_as("SELECT version FROM item WHERE id = $1::uuid").bind(&id);
        let (version,): (i64,) = version.fetch_one(&mut holder).await?;
        ensure!(version == 2, "it was not committed, so that nothing was shown");
        cluster.lab.heal();
        // Nobody has taken over meanwhile: it counts after all.
        eventually("what became of it", SOON, async || {
            let asked = cluster.caller().get(US, "/v1/writes/late").await;
            let asked = asked.map_err(|error| format!("{error:#}"))?;
            if asked.json()["status"] == "committed" { Ok(()) } else { Err(asked.to_string()) }
        })
        .await
    })
    .await
}

/// A further API process of the primary region, whose ways to the others are [`Wire`]s.
struct Neighbour {
    wires: [Wire; 2],
    public: String,
    dir: TempDir,
    child: tokio::process::Child,
}

impl Neighbour {
    async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let to = |name: &str| -> anyhow::Result<SocketAddr> {
            Ok(cluster.region(name).internal.replace("http://", "").parse()?)
        };
        let wires = [Wire::bind(to(EU)?).await?, Wire::bind(to(AP)?).await?];
        let dir = tempfile::tempdir()?;
        let settings = dir.path().join("godwit.toml");
        fs::copy(cluster.lab.config(&region(US)), &settings)?;
        let log = fs::File::create(dir.path().join("log"))?;
        let [public, internal, ops] = free_addresses()?;
        let link = |wire: &Wire| format!("http://{}", wire.address());
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_godwit"))
            .arg("serve")
            .arg("--config")
            .arg(settings)
            .env("GODWIT__SERVER__PUBLIC_ADDR", public.to_string())
            .env("GODWIT__SERVER__INTERNAL_ADDR", internal.to_string())
            .env("GODWIT__SERVER__OPS_ADDR", ops.to_string())
            .env("GODWIT__REGIONS__EU-WEST-1__INTERNAL_URL", link(&wires[0]))
            .env("GODWIT__REGIONS__AP-SOUTH-1__INTERNAL_URL", link(&wires[1]))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { wires, public: format!("http://{public}"), dir, child })
    }

    /// Holds, or delivers, all that goes between it and the other regions.
    fn cut(&self, cut: bool) {
        for wire in &self.wires {
            wire.hold(Direction::Request, cut);
            wire.hold(Direction::Response, cut);
        }
    }

    /// Its clients' word for it is the region's.
    fn caller(&self, cluster: &Cluster) -> Caller {
        cluster.caller().at_base(US, &self.public)
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        let log = fs::read_to_string(self.dir.path().join("log"))?;
        let bad = log.lines().find(|line| line.contains(r#""level":"ERROR""#));
        ensure!(bad.is_none(), "in its log: {bad:?}");
        Ok(())
    }
}

pub async fn one_process_cut_off_fences_nobody_but_itself() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let neighbour = Neighbour::start(cluster).await?;
        eventually("the neighbour's first write", SOON, async || {
            let mut caller = neighbour.caller(cluster);
            let made = caller.create(US, "neighbour", &serde_json::json!({})).await;
            let made = made.map_err(|error| format!("{error:#}"))?;
            if made.status == 201 { Ok(()) } else { Err(made.to_string()) }
        })
        .await?;
        let whole = Writing::everywhere(cluster, &[US], 1, PACE);
        let alone = Writing::begin([(US, neighbour.caller(cluster))], PACE);
        whole.goes_on(US, now()).await?;
        alone.goes_on(US, now()).await?;
        neighbour.cut(true);
        let cut_at = now();
        // A region that has lost its lease is fenced by now: see the test above.
        let end = cut_at + 4 * TERM;
        eventually("the end of the cut", SOON, async || {
            if fenced(cluster, US).await.map_err(|error| error.to_string())? {
                return Ok(false);
            }
            if now() > end { Ok(true) } else { Err("not yet".into()) }
        })
        .await?
        .then_some(())
        .context("the database was fenced, though its region holds the lease")?;
        let healed_at = now();
        neighbour.cut(false);
        alone.goes_on(US, healed_at).await?;

        let collections = [whole.collection.clone(), alone.collection.clone()];
        let (whole, alone) = (whole.end().await, alone.end().await);
        let failed = whole.iter().find(|shot| !shot.acknowledged());
        ensure!(failed.is_none(), "the one that is well did not go on: {failed:?}");
        silent(&alone, cut_at + TERM, healed_at)?;
        refused_kindly(&alone)?;
        for (collection, shots) in collections.iter().zip([&whole, &alone]) {
            of_one_epoch(shots, 1)?;
            told_the_truth(cluster, US, collection, shots).await?;
        }
        let again = pause(&alone, healed_at);
        eprintln!("one of two: acknowledges {again:?} after its network is back");
        neighbour.end().await
    })
    .await
}

pub async fn a_redis_that_restarts_costs_a_pause_at_most() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let writing = Writing::everywhere(cluster, &[US], 2, PACE);
        writing.goes_on(US, now()).await?;
        let mut restarted = Vec::new();
        for name in [AP, EU, US, US] {
            let redis = format!("{name}/redis").parse()?;
            cluster.lab.kill(&redis).await?;
            cluster.lab.restart(&redis).await?;
            let back_at = now();
            writing.goes_on(US, back_at).await?;
            restarted.push((name, back_at));
            // The next fault meets a lease that is whole again, or not, as it comes: what a region
            // has forgotten it waits out for a term.
            until(back_at + TERM + AGAIN).await?;
        }
        let ended_at = now();
        let collection = writing.collection.clone();
        let shots = writing.end().await;
        refused_kindly(&shots)?;
        of_one_epoch(&shots, 1)?;
        for (name, back_at) in restarted {
            let again = pause(&shots, back_at).context("no write after it")?;
            ensure!(again < TERM + AGAIN, "{name}: writes again after {again:?}");
            let settled = |shot: &&Shot| {
                let span = back_at + TERM..back_at + TERM + AGAIN;
                span.contains(&shot.began) && shot.ended < ended_at && !shot.acknowledged()
            };
            let late = shots.iter().find(settled);
            ensure!(late.is_none(), "{name}, a term later: {late:?}");
            eprintln!("redis of {name} restarted: acknowledges {again:?} after it is back");
        }
        ensure!(!fenced(cluster, US).await?, "the database was left fenced");
        told_the_truth(cluster, US, &collection, &shots).await
    })
    .await
}

/// Asks a process, again and again, whether it takes writes, until it does.
struct Watch {
    /// When the last question was sent that was answered with no, or not at all.
    not_yet: Arc<Mutex<Option<Instant>>>,
    asking: JoinSet<()>,
}

impl Watch {
    /// From outside there is no telling when it began to: only that it had not by then.
    fn begin(url: String) -> anyhow::Result<Self> {
        let not_yet = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&not_yet);
        let http = client::http()?;
        let mut asking = JoinSet::new();
        asking.spawn(async move {
            let mut turns = tokio::time::interval(Duration::from_millis(5));
            turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                turns.tick().await;
                let asked_at = now();
                if let Ok(answer) = http.get(&url).send().await
                    && let Ok(told) = answer.json::<serde_json::Value>().await
                    && told["writable"] == true
                {
                    return;
                }
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked_at);
            }
        });
        Ok(Self { not_yet, asking })
    }

    async fn end(mut self) -> anyhow::Result<Instant> {
        let ended = tokio::time::timeout(SOON, self.asking.join_next()).await;
        ended.context("it never took writes")?;
        let not_yet = *self.not_yet.lock().unwrap_or_else(PoisonError::into_inner);
        not_yet.context("it took writes at once")
    }
}

pub async fn a_restarted_primary_waits_for_its_lease() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let api = "us-east-1/api".parse()?;
        let writing = Writing::everywhere(cluster, &[US], 3, PACE);
        writing.goes_on(US, now()).await?;
        cluster.lab.kill(&api).await?;
        let killed_at = now();
        let watch = Watch::begin(format!("{}/internal/v1/topology", cluster.region(US).internal))?;
        cluster.lab.restart(&api).await?;
        writing.goes_on(US, killed_at).await?;
        let not_yet = watch.end().await?;
        let shots = writing.so_far();
        let early =
            |shot: &&Shot| shot.acknowledged() && shot.began > killed_at && shot.ended < not_yet;
        let early = shots.iter().find(early);
        ensure!(early.is_none(), "acknowledged before it had the lease: {early:?}");
        let again = pause(&shots, killed_at).context("no write after it")?;
        eprintln!("restarted: acknowledges {again:?} after the kill");

        isolate(cluster)?;
        cluster.lab.kill(&api).await?;
        let killed_at = now();
        cluster.lab.restart(&api).await?;
        let (status, told) = readiness(cluster, US).await?;
        ensure!(status == 503 && told.contains("quarantined until a majority"), "{status} {told}");
        let mut caller = cluster.caller();
        let end = now() + 2 * TERM;
        while now() < end {
            let read = caller.get(US, LIST).await?;
            read.wants_problem(503, "no-primary")?;
        }
        let told = report(cluster, US).await.map_err(anyhow::Error::msg)?;
        ensure!(told["writable"] == false && told["lease_ms"].is_null(), "{told}");
        let healed_at = now();
        cluster.lab.heal();
        writing.goes_on(US, healed_at).await?;
        caller.get(US, LIST).await?.wants(200)?;
        let collection = writing.collection.clone();
        let shots = writing.end().await;
        // An answer may still be on its way from a process that is dead.
        let shots: Vec<Shot> = shots.into_iter().filter(|shot| shot.began > killed_at).collect();
        silent(&shots, killed_at, healed_at)?;
        // Nobody listens while it is dead.
        refused_kindly(shots.iter().filter(|shot| shot.status != 0))?;
        of_one_epoch(&shots, 1)?;
        told_the_truth(cluster, US, &collection, &shots).await
    })
    .await
}

/// Reads that go on side by side, each a plain one of a fresh session.
async fn reads(cluster: &Cluster, at: &str, count: usize) -> anyhow::Result<Vec<Answer>> {
    let caller = cluster.caller();
    try_join_all((0..count).map(|_| {
        let mut caller = caller.fresh();
        async move { caller.get(at, LIST).await }
    }))
    .await
}

pub async fn a_primary_that_slept_through_a_promotion_is_kept_apart() -> anyhow::Result<()> {
    harness::own("slept", |_: &mut Spec| {}, async |cluster| {
        // Many, so that some are anywhere between the socket and the commit when it stops.
        let writing = Writing::everywhere(cluster, &[US], 12, PACE);
        writing.goes_on(US, now()).await?;
        // Of two replicas the one that has more is promoted; which one that is must not be chance.
        cluster.lab.cut(&region(US), &region(AP))?;
        writing.goes_on(US, now() + TERM / 4).await?;
        cluster.lab.pause(&target(US))?;
        let began = now();
        let promote = ["promote", EU, "--yes", "--accept-data-loss"];
        let promoted = command(cluster, &promote).output().await?;
        ensure!(promoted.status.success(), "{}", said(&promoted));
        eprintln!("slept: promoted after {:?}", since(began));
        let mut caller = cluster.caller();
        let first = caller.create(EU, "slept", &serde_json::json!({})).await?.wants(201)?;
        ensure!(first.header("godwit-epoch") == Some("2"), "{first}");

        cluster.lab.heal();
        cluster.lab.resume(&target(US))?;
        let resumed_at = now();
        // A strong read is never the old primary's word, from the first moment on.
        let strong = async {
            let mut caller = cluster.caller();
            while since(resumed_at) < TERM {
                let ask = caller.ask(US, Method::GET, LIST);
                let read = ask.header("godwit-consistency", "strong").send().await?;
                let new = read.header("godwit-epoch") == Some("2");
                ensure!(read.status == 503 || (read.status == 200 && new), "{read}");
            }
            anyhow::Ok(())
        };
        let quarantined = eventually("its quarantine", SOON, async || {
            match readiness(cluster, US).await.map_err(|error| error.to_string())? {
                (503, told) if told.contains("godwit rejoin") => Ok(since(resumed_at)),
                other => Err(format!("{other:?}")),
            }
        });
        let (quarantined, ()) = tokio::try_join!(quarantined, strong)?;
        for read in reads(cluster, US, 20).await? {
            let read = read.wants(200)?;
            let away = read.route() == "forwarded" && read.header("godwit-region") == Some(EU);
            ensure!(away, "{read}");
        }
        let through = writing.goes_on(US, resumed_at).await?;
        fence_is(cluster, US, true).await?;
        let shots = writing.end().await;
        let old = |shot: &&Shot| {
            shot.acknowledged() && shot.ended > resumed_at && shot.epoch != Some(2)
        };
        let old = shots.iter().find(old);
        ensure!(old.is_none(), "acknowledged after its epoch had ended: {old:?}");
        let slept = |shot: &&Shot| shot.acknowledged() && shot.began > began;
        ensure!(shots.iter().filter(slept).all(|shot| shot.epoch == Some(2)), "{began:?}");
        eprintln!(
            "slept: quarantined {quarantined:?} after it woke, its clients' writes go to the new \
             primary after {:?}",
            through.saturating_duration_since(resumed_at)
        );
        let told = rejoin(cluster, US).await?;
        ready(cluster, US).await?;
        // Its own word that it follows comes before the primary's.
        eventually("both streams", SOON, async || {
            let streams = sql(
                cluster,
                EU,
                "SELECT coalesce(string_agg(application_name, ',' ORDER BY 1), '') \
                 FROM pg_stat_replication WHERE state = 'streaming'",
            );
            match streams.await.map_err(|error| error.to_string())?.as_str() {
                "ap-south-1,us-east-1" => Ok(()),
                streams => Err(format!("{told}; streams: {streams}")),
            }
        })
        .await?;
        for read in reads(cluster, US, 5).await? {
            let read = read.wants(200)?;
            ensure!(matches!(read.route(), "local" | "waited"), "{read}");
        }
        Ok(())
    })
    .await
}
