//! Bookmarks and a replica that stands still, waits or is held up (`shared/postgres.md`).

use super::{in_flight, now, since};
use crate::{
    client::{self, Answer},
    harness::{self, AP, Cluster, EU, SOON, US, eventually},
};
use anyhow::{Context as _, ensure};
use futures_util::future::join_all;
use godwit::vocab::{SystemRng, rng};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use std::time::Duration;

const PAGE_BYTES: u64 = 8192;
/// Positions past a page's header, which no replica comes to: the headers' two lengths.
const PAST_HEADER: [u64; 2] = [24, 40];
/// Log positions are multiples of 8, so one commit in about a thousand ends where a page does: that
/// none of these many does is less likely than one in a hundred thousand.
const CREATES_MAX: usize = 12_000;
/// Far below the time after which a read is forwarded.
const PROMPT: Duration = Duration::from_millis(450);

pub async fn database(cluster: &Cluster, name: &str) -> anyhow::Result<PgConnection> {
    Ok(PgConnection::connect(&cluster.region(name).global_db).await?)
}

fn fresh(name: &str) -> String {
    format!("{name}-{}", rng::below(&SystemRng, u64::MAX >> 1))
}

/// As the naive version would find out: with the insert position as bookmark, a commit that ends
/// with its page is never reached by an idle replica.
pub async fn a_commit_at_the_end_of_a_page_is_reached_by_an_idle_replica() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let collection = fresh("page");
        let mut caller = cluster.caller();
        let mut chars = 0;
        for _ in 0..CREATES_MAX {
            let pad: String = (0..chars).map(|_| digit()).collect();
            let made = caller.create(US, &collection, &json!({"pad": pad})).await?.wants(201)?;
            let lsn = made.at()?.lsn.get();
            let end = lsn % PAGE_BYTES;
            if end == 0 || PAST_HEADER.contains(&end) {
                return reached_promptly(&caller, &collection, &made).await;
            }
            chars = rng::below(&SystemRng, 400);
        }
        anyhow::bail!("none of {CREATES_MAX} commits ended with a page")
    })
    .await
}

fn digit() -> char {
    let digit = rng::below(&SystemRng, 36);
    u32::try_from(digit).ok().and_then(|digit| char::from_digit(digit, 36)).unwrap_or('0')
}

async fn reached_promptly(
    caller: &client::Caller,
    collection: &str,
    made: &Answer,
) -> anyhow::Result<()> {
    let began = now();
    let read = caller.clone().read(EU, collection, &made.id()?).await?.wants(200)?;
    let here = matches!(read.route(), "local" | "waited");
    ensure!(here && since(began) < PROMPT, "{:?} for {}: {read}", since(began), made.at()?);
    Ok(())
}

/// Stops a replica's replay, and returns once it has stopped.
pub async fn pause(replica: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::query("SELECT pg_wal_replay_pause()").execute(&mut *replica).await?;
    eventually("a paused replay", SOON, async || {
        let state = sqlx::query_scalar::<_, String>("SELECT pg_get_wal_replay_pause_state()");
        let state = state.fetch_one(&mut *replica).await.map_err(|error| error.to_string())?;
        if state == "paused" { Ok(()) } else { Err(state) }
    })
    .await
}

pub async fn go_on(replica: &mut PgConnection) -> anyhow::Result<()> {
    sqlx::query("SELECT pg_wal_replay_resume()").execute(replica).await?;
    Ok(())
}

/// The naive version takes its snapshot, then waits, and answers with what was there before.
pub async fn a_read_that_waited_sees_what_it_waited_for() -> anyhow::Result<()> {
    const READERS: usize = 20;
    harness::faulty(async |cluster| {
        let collection = fresh("waited");
        let mut replica = database(cluster, EU).await?;
        let mut caller = cluster.caller();
        let made = caller.create(US, &collection, &json!({"n": -1})).await?.wants(201)?;
        let (id, mut etag) = (made.id()?, made.etag()?);
        let http = client::http()?;
        let ops = &cluster.region(EU).ops;
        let mut waited = 0;
        for round in 0..5 {
            pause(&mut replica).await?;
            let put = caller.put_if(US, &collection, &id, &etag, &json!({"n": round})).await?;
            etag = put.wants(200)?.etag()?;
            let reads = join_all((0..READERS).map(|_| {
                let (mut caller, collection, id) = (caller.clone(), &collection, &id);
                async move { caller.read(EU, collection, id).await }
            }));
            let resume = async {
                eventually("waiting readers", SOON, async || {
                    let count = in_flight(&http, ops).await.map_err(|error| error.to_string())?;
                    if count >= READERS { Ok(()) } else { Err(count.to_string()) }
                })
                .await
                // Those who came in time have waited; a busy machine may have been too slow.
                .or_else(|_| anyhow::Ok(()))?;
                go_on(&mut replica).await
            };
            let resume = async { tokio::time::timeout(PROMPT, resume).await };
            let (reads, resumed) = tokio::join!(reads, resume);
            match resumed {
                Ok(resumed) => resumed?,
                Err(_) => go_on(&mut replica).await?,
            }
            for read in reads {
                let read = read?.wants(200)?;
                ensure!(read.json()["data"]["n"] == round, "round {round}: {read}");
                waited += usize::from(read.route() == "waited");
            }
        }
        ensure!(waited > 0, "no read waited");
        replica.close().await?;
        Ok(())
    })
    .await
}

pub async fn a_replica_that_stands_still_is_not_waited_for_longer_than_the_budget()
-> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let collection = fresh("still");
        let mut replica = database(cluster, EU).await?;
        let mut caller = cluster.caller();
        let made = caller.create(US, &collection, &json!({"n": 0})).await?.wants(201)?;
        let id = made.id()?;
        caller.read(EU, &collection, &id).await?.wants(200)?;
        pause(&mut replica).await?;
        let put = caller.put_if(US, &collection, &id, &made.etag()?, &json!({"n": 1})).await?;
        put.wants(200)?;
        let began = now();
        let read = caller.clone().read(EU, &collection, &id).await?.wants(200)?;
        let took = since(began);
        ensure!(read.json()["data"]["n"] == 1 && read.route() == "forwarded", "{read}");
        ensure!(took < Duration::from_millis(1_500), "took {took:?}");
        // So it could have been stale.
        let mut eventual = caller.fresh();
        let path = client::item(&collection, &id);
        let ask = eventual.ask(EU, reqwest::Method::GET, &path);
        let stale = ask.header("godwit-consistency", "eventual").send().await?.wants(200)?;
        ensure!(stale.json()["data"]["n"] == 0 && stale.route() == "local", "{stale}");

        go_on(&mut replica).await?;
        eventually("local reads", Duration::from_secs(2), async || {
            let read = caller.clone().read(EU, &collection, &id).await;
            let read = read.map_err(|error| format!("{error:#}"))?;
            let here = matches!(read.route(), "local" | "waited");
            if here && read.json()["data"]["n"] == 1 { Ok(()) } else { Err(read.to_string()) }
        })
        .await?;
        replica.close().await?;
        Ok(())
    })
    .await
}

/// Without feedback from the standby, the vacuum's cleaning waits for the long reader and all
/// replay behind it.
pub async fn a_long_reader_and_a_vacuum_hold_up_no_bookmark() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let collection = fresh("vacuum");
        let (mut replica, mut primary) =
            (database(cluster, EU).await?, database(cluster, US).await?);
        let mut caller = cluster.caller();
        let made = caller.create(US, &collection, &json!({"n": 0})).await?.wants(201)?;
        let (id, mut etag) = (made.id()?, made.etag()?);
        caller.read(EU, &collection, &id).await?.wants(200)?;
        sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ").execute(&mut replica).await?;
        let count = "SELECT count(*) FROM item";
        let seen: i64 = sqlx::query_scalar(count).fetch_one(&mut replica).await?;
        for number in 1..=20 {
            let put = caller.put_if(US, &collection, &id, &etag, &json!({"n": number})).await?;
            let put = put.wants(200)?;
            etag = put.etag()?;
            sqlx::query("VACUUM item").execute(&mut primary).await?;
            let began = now();
            let read = caller.read(EU, &collection, &id).await?.wants(200)?;
            let took = since(began);
            ensure!(read.json()["data"]["n"] == number, "{read}");
            let here = matches!(read.route(), "local" | "waited");
            ensure!(here && took < Duration::from_secs(1), "{took:?}: {read}");
        }
        let still: i64 = sqlx::query_scalar(count)
            .fetch_one(&mut replica)
            .await
            .context("the long reader was cancelled")?;
        ensure!(seen == still, "the long reader saw {seen}, then {still}");
        sqlx::query("COMMIT").execute(&mut replica).await?;
        replica.close().await?;
        primary.close().await?;
        Ok(())
    })
    .await
}

/// As the naive version would find out: a promoted replica's replay position stays where it was, so
/// one that is told by it comes to no later bookmark.
pub async fn a_promoted_replica_comes_to_what_it_writes() -> anyhow::Result<()> {
    harness::own("promoted", harness::patient, async |cluster| {
        // Nobody but this test asks, and the old primary never comes back.
        for target in [US, EU, AP].map(|name| format!("{name}/api")) {
            cluster.lab.kill(&target.parse()?).await?;
        }
        cluster.lab.kill(&"us-east-1/postgres".parse()?).await?;
        let mut promoted = database(cluster, EU).await?;
        let done: bool =
            sqlx::query_scalar("SELECT pg_promote(true, 30)").fetch_one(&mut promoted).await?;
        ensure!(done, "it is not promoted");
        // The row that a promotion writes first.
        let row =
            "INSERT INTO cluster_epoch VALUES (2, pg_last_wal_replay_lsn(), 'eu-west-1', now())";
        sqlx::query(row).execute(&mut promoted).await?;
        let told = "SELECT epoch, lsn > pg_last_wal_replay_lsn(), lsn >= pg_current_wal_flush_lsn()
             FROM cluster_position";
        let told: (i64, bool, bool) = sqlx::query_as(told).fetch_one(&mut promoted).await?;
        ensure!(told == (2, true, true), "epoch, beyond the replayed, up to the written: {told:?}");
        Ok(())
    })
    .await
}
