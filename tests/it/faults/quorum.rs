//! With durability `quorum`, an acknowledged write is on the disk of a second region; the end of a
//! key is with any.

use super::{now, since};
use crate::{
    client::{Answer, Caller},
    harness::{self, AP, Cluster, EU, SOON, US, eventually},
};
use anyhow::{Context as _, ensure};
use godwit::lab::{Durability, Spec, Target, Wan};
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection as _, Executor as _};
use std::time::Duration;
use tokio::task::JoinSet;

const COLLECTION: &str = "quorum";
/// The time a request has, so that the test need not wait for the usual one.
const REQUEST_MS_MAX: u64 = 2_000;
/// Of the links to the primary, where a commit is to take long.
const ROUND_TRIP_MS: u64 = 800;

fn shape(spec: &mut Spec) {
    harness::patient(spec);
    spec.wan = Wan::Off;
    spec.durability = Durability::Quorum;
    harness::set(spec, "GODWIT__ROUTING__REQUEST_MS_MAX", &REQUEST_MS_MAX.to_string());
}

/// A commit whose wait is broken off is shown.
fn unhurried(spec: &mut Spec) {
    spec.wan = Wan::Off;
    spec.durability = Durability::Quorum;
}

pub async fn a_write_that_no_second_region_has_is_not_acknowledged() -> anyhow::Result<()> {
    harness::own("quorum", shape, async |cluster| {
        ensure!(cluster.facts.durability == "quorum", "{:?}", cluster.facts);
        let postgres = |region: &str| format!("{region}/postgres").parse::<Target>();
        create(cluster, "both").await?.wants(201)?;
        cluster.lab.kill(&postgres(EU)?).await?;
        create(cluster, "one").await?.wants(201).context("one replica is enough")?;
        cluster.lab.kill(&postgres(AP)?).await?;

        let began = now();
        let unknown = create(cluster, "none").await?.wants_problem(503, "outcome-unknown")?;
        let took = since(began);
        ensure!(took < Duration::from_millis(REQUEST_MS_MAX) + SOON, "{took:?}");
        ensure!(unknown.header("location") == Some("/v1/writes/none"), "{unknown}");
        // It waits on the primary, so nobody can tell yet.
        let asked = outcome(cluster).await?;
        ensure!(asked != "committed", "{asked}");

        cluster.lab.restart(&postgres(AP)?).await?;
        eventually("the write is committed", SOON, async || match outcome(cluster).await {
            Ok(state) if state == "committed" => Ok(()),
            Ok(state) => Err(state),
            Err(error) => Err(format!("{error:#}")),
        })
        .await?;
        let again = create(cluster, "none").await?.wants(201)?;
        ensure!(again.header("idempotency-replayed") == Some("true"), "{again}");
        cluster.lab.restart(&postgres(EU)?).await?;
        let mut caller = cluster.caller();
        let items = caller.items(US, COLLECTION, "").await?;
        ensure!(items.len() == 3, "{items:?}");
        Ok(())
    })
    .await
}

/// What the settings promise is not taken for what the database does.
pub async fn a_write_is_refused_where_commits_wait_for_nobody() -> anyhow::Result<()> {
    harness::own("unwaiting", shape, async |cluster| {
        let mut database = sqlx::PgConnection::connect(&cluster.region(US).global_db).await?;
        create(cluster, "waits").await?.wants(201)?;
        // Else the region's keeper sets it right.
        for statement in [
            "REVOKE ALTER SYSTEM ON PARAMETER synchronous_standby_names FROM godwit_control",
            "ALTER SYSTEM SET synchronous_standby_names = ''",
            "SELECT pg_reload_conf()",
        ] {
            database.execute(statement).await?;
        }
        eventually("a refusal", SOON, async || {
            let answer = create(cluster, "alone").await.map_err(|error| format!("{error:#}"))?;
            match answer.status {
                503 if answer.problem() != "outcome-unknown" => Ok(()),
                _ => Err(answer.to_string()),
            }
        })
        .await?;
        let refused = create(cluster, "later").await?.wants(503)?;
        ensure!(refused.problem() != "outcome-unknown", "{refused}");
        let give = "GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO godwit_control";
        database.execute(give).await?;
        let made = eventually("a write again", SOON, async || {
            let answer = create(cluster, "later").await.map_err(|error| format!("{error:#}"))?;
            if answer.status == 201 { Ok(answer) } else { Err(answer.to_string()) }
        });
        let made = made.await?;
        ensure!(made.header("idempotency-replayed").is_none(), "it had an effect before: {made}");
        Ok(())
    })
    .await
}

pub async fn a_revocation_that_no_second_region_has_is_not_acknowledged() -> anyhow::Result<()> {
    let shape = |spec: &mut Spec| {
        shape(spec);
        spec.durability = Durability::Async;
    };
    harness::own("revocation", shape, async |cluster| {
        let mut caller = cluster.caller();
        let wanted = json!({ "name": "to be ended", "scopes": ["read"], "days": 1 });
        let made = caller.ask(US, Method::POST, "/v1/admin/keys").json(&wanted).send().await?;
        let made = made.wants(201)?.json();
        let path = format!("/v1/admin/keys/{}", made["id"].as_str().context("id")?);
        let revoke = async || {
            let mut caller = cluster.caller();
            let ask = caller.ask(US, Method::DELETE, &path);
            ask.header("idempotency-key", "none").send().await
        };
        let postgres = |region: &str| format!("{region}/postgres").parse::<Target>();
        for region in [EU, AP] {
            cluster.lab.kill(&postgres(region)?).await?;
        }
        create(cluster, "others").await?.wants(201).context("other writes do not wait")?;
        let unknown = revoke().await?.wants_problem(503, "outcome-unknown")?;
        ensure!(unknown.header("location") == Some("/v1/writes/none"), "{unknown}");
        // It has ended here; that it stays so is what is not known.
        ensure!(outcome(cluster).await? == "committed");
        for region in [EU, AP] {
            cluster.lab.restart(&postgres(region)?).await?;
        }
        eventually("a second region has it", SOON, async || match revoke().await {
            Ok(answer) if answer.status == 204 => Ok(()),
            Ok(answer) => Err(answer.to_string()),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
    })
    .await
}

/// A replica shows a commit as soon as it has replayed it; the primary, which waits for the word of a
/// replica, shows it a way later. Who has seen it there must not be shown the old state here.
pub async fn what_a_replica_has_shown_the_primary_shows_too() -> anyhow::Result<()> {
    harness::own("shown", unhurried, async |cluster| {
        // Within the lease's term, so that the primary stays one.
        let (mut reader, mut put, id) = shown_by_a_replica_first(cluster).await?;
        let read = reader.read(US, COLLECTION, &id).await?;
        told_or_new(&read)?;
        put.join_next().await.context("a write")???.wants(200)?;
        Ok(())
    })
    .await
}

/// Nor once that replica is cut off, and with it all who could confirm what it has shown.
pub async fn what_a_replica_has_shown_before_it_was_cut_off_is_not_denied() -> anyhow::Result<()> {
    harness::own("denied", unhurried, async |cluster| {
        cluster.lab.kill(&format!("{AP}/postgres").parse()?).await?;
        let (mut reader, mut put, id) = shown_by_a_replica_first(cluster).await?;
        // Its word is on the way, and does not arrive.
        cluster.lab.cut(&US.parse()?, &EU.parse()?)?;
        let mut database = sqlx::PgConnection::connect(&cluster.region(US).global_db).await?;
        eventually("no standby", SOON, async || {
            let asked = sqlx::query_scalar(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication",
            );
            match asked.fetch_one(&mut database).await {
                Ok(0_i64) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        for _ in 0..3 {
            told_or_new(&reader.read(US, COLLECTION, &id).await?)?;
        }
        cluster.lab.heal();
        eventually("the new version", SOON, async || {
            let read = reader.read(US, COLLECTION, &id).await;
            let read = read.map_err(|error| format!("{error:#}"))?;
            told_or_new(&read).map_err(|error| error.to_string())?;
            if read.status == 200 { Ok(()) } else { Err(read.to_string()) }
        })
        .await?;
        let wrote = put.join_next().await.context("a write")???;
        ensure!(wrote.status == 200 || wrote.problem() == "outcome-unknown", "{wrote}");
        Ok(())
    })
    .await
}

type Putting = JoinSet<anyhow::Result<Answer>>;

/// Makes an item, and changes it while links are so long that eu-west-1 shows the change before the
/// primary can. Gives who has seen it there, and the write that still waits.
async fn shown_by_a_replica_first(cluster: &Cluster) -> anyhow::Result<(Caller, Putting, String)> {
    let mut caller = cluster.caller();
    let made = caller.create(US, COLLECTION, &json!({ "of": "one" })).await?.wants(201)?;
    let (id, etag) = (made.id()?, made.etag()?);
    for far in [EU, AP] {
        cluster.lab.delay(&US.parse()?, &far.parse()?, ROUND_TRIP_MS)?;
    }
    let mut reader = cluster.caller();
    let of = id.clone();
    let mut put = JoinSet::new();
    put.spawn(
        async move { caller.put_if(US, COLLECTION, &of, &etag, &json!({ "of": "two" })).await },
    );
    eventually("the new version in eu-west-1", SOON, async || {
        let read = reader.fresh().read(EU, COLLECTION, &id).await;
        let read = read.map_err(|error| format!("{error:#}"))?;
        if read.status == 200
            && read.version().is_ok_and(|version| version == 2)
            && read.route() != "forwarded"
        {
            reader.bookmark = read.header("godwit-bookmark").map(str::to_owned);
            return Ok(());
        }
        Err(read.to_string())
    })
    .await?;
    ensure!(put.try_join_next().is_none(), "the primary had shown it by then: no test");
    Ok((reader, put, id))
}

fn told_or_new(read: &Answer) -> anyhow::Result<()> {
    let told = read.status == 503 && read.problem() == "bookmark-timeout";
    ensure!(told || read.version().is_ok_and(|version| version == 2), "went back: {read}");
    Ok(())
}

async fn create(cluster: &Cluster, key: &str) -> anyhow::Result<Answer> {
    let path = format!("/v1/collections/{COLLECTION}/items");
    let mut caller = cluster.caller();
    let ask = caller.ask(US, Method::POST, &path).header("idempotency-key", key);
    ask.json(&json!({ "key": key })).send().await
}

async fn outcome(cluster: &Cluster) -> anyhow::Result<String> {
    let answer = cluster.caller().get(US, "/v1/writes/none").await?.wants(200)?;
    let state = answer.json()["status"].as_str().map(str::to_owned);
    state.with_context(|| answer.to_string())
}
