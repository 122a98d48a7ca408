//! Two versions of the program and of the schema beside each other, and processes that are replaced.

use crate::{
    client,
    faults::{
        edge::{EDGE, Edge},
        load::Load,
    },
    harness::{self, AP, Cluster, EU, REGIONS, SOON, US, eventually, patient, region},
    signin::{Person, knows},
};
use anyhow::{Context as _, ensure};
use godwit::{
    lab::{Spec, Target},
    vocab::{Clock as _, SystemClock},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use std::time::Duration;

async fn owner(cluster: &Cluster) -> anyhow::Result<PgConnection> {
    Ok(PgConnection::connect(&cluster.region(US).global_db).await?)
}

/// What a probe of a region's process answers.
async fn probe(
    http: &reqwest::Client,
    cluster: &Cluster,
    at: &str,
    path: &str,
) -> anyhow::Result<(u16, Value)> {
    let answer = http.get(format!("{}{path}", cluster.region(at).ops)).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

/// Waits until a region says so of its schema.
async fn schema_is(cluster: &Cluster, at: &str, wanted: &str) -> anyhow::Result<()> {
    let http = client::http()?;
    eventually(&format!("a schema that is {wanted} in {at}"), SOON, async || {
        let told = probe(&http, cluster, at, "/api/health/readiness").await;
        let (status, told) = told.map_err(|error| format!("{error:#}"))?;
        let standing = &told["checks"]["schema"]["standing"];
        if status == 200 && standing == wanted { Ok(()) } else { Err(told.to_string()) }
    })
    .await
}

/// What `godwit health` says by its exit code.
async fn healthy(cluster: &Cluster, at: &str, probe: &str) -> anyhow::Result<bool> {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_godwit"));
    command.args(["health", "--probe", probe, "--output", "json", "--config"]);
    let told = command.arg(cluster.lab.config(&region(at))).output().await?;
    let facts: Value = serde_json::from_slice(&told.stdout)?;
    ensure!(facts["region"] == at, "{facts}");
    Ok(told.status.success())
}

/// What a process that serves answers within, as a rule.
const UNANSWERED: Duration = Duration::from_secs(1);

/// What a later version may bring, by the rules of `migrations/README.md`.
const EXPANSIONS: [&str; 5] = [
    "SET lock_timeout = '2s'; ALTER TABLE item ADD COLUMN note text;
     ALTER TABLE item ADD COLUMN rank integer NOT NULL DEFAULT 0",
    "SET lock_timeout = '2s'; ALTER TABLE write_journal ADD COLUMN note text;
     ALTER TABLE user_session ADD COLUMN note text; ALTER TABLE api_key ADD COLUMN note text",
    "CREATE TABLE later (id uuid PRIMARY KEY, item uuid)",
    "CREATE INDEX CONCURRENTLY later_item ON item (tenant_id, rank)",
    "INSERT INTO _sqlx_migrations SELECT 99990101000000, 'later', now(), true, '', 0",
];

pub async fn a_version_goes_on_serving_while_the_schema_of_the_next_comes() -> anyhow::Result<()> {
    harness::own("expand", patient, async |cluster| {
        let load = Load::begin(cluster).await?;
        let mut owner = owner(cluster).await?;
        for expansion in EXPANSIONS {
            sqlx::raw_sql(expansion).execute(&mut owner).await?;
        }
        for name in REGIONS {
            schema_is(cluster, name, "newer").await?;
        }
        let shots = load.end().await;
        let failed: Vec<_> = shots.iter().filter(|shot| shot.failed()).collect();
        ensure!(failed.is_empty(), "{} of {} failed: {failed:#?}", failed.len(), shots.len());
        // One that starts now takes it for its own.
        cluster.lab.kill(&format!("{AP}/api").parse()?).await?;
        cluster.lab.restart(&region(AP).into()).await?;
        schema_is(cluster, AP, "newer").await?;
        cluster.sound(AP, SOON).await
    })
    .await
}

pub async fn a_version_waits_for_its_schema_and_serves_once_it_has_come() -> anyhow::Result<()> {
    harness::own("contract", |_: &mut Spec| {}, async |cluster| {
        let mut caller = cluster.caller();
        let kept = caller.create(EU, "kept", &json!({"n": 1})).await?.wants(201)?.id()?;
        let apis = REGIONS.map(|name| format!("{name}/api").parse::<Target>());
        for api in &apis {
            cluster.lab.kill(api.as_ref().expect("a target")).await?;
        }
        // The schema of the version before: that of the last migration undone.
        let mut owner = owner(cluster).await?;
        for undone in [
            "ALTER TABLE cluster_epoch DROP COLUMN first_xid",
            "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)",
        ] {
            sqlx::raw_sql(undone).execute(&mut owner).await?;
        }
        let starts = apis.iter().map(|api| cluster.lab.restart(api.as_ref().expect("a target")));
        let migrated = async {
            let http = client::http()?;
            for name in REGIONS {
                eventually(&format!("{name} to wait"), SOON, async || {
                    let told = probe(&http, cluster, name, "/api/health/startup").await;
                    let (status, told) = told.map_err(|error| format!("{error:#}"))?;
                    let standing = told["checks"]["startup"]["schema"].as_str().unwrap_or_default();
                    if status == 503 && standing.starts_with("old: ") { Ok(()) } else { Err(told.to_string()) }
                })
                .await?;
                let (status, told) = probe(&http, cluster, name, "/api/health/liveness").await?;
                ensure!(status == 200, "{told}");
                let (status, told) = probe(&http, cluster, name, "/api/health/readiness").await?;
                ensure!(status == 503, "{told}");
                ensure!(!healthy(cluster, name, "readiness").await?);
                ensure!(healthy(cluster, name, "liveness").await?);
                // Who comes for anything else waits.
                let url = format!("{}/api/health/liveness", cluster.region(name).public);
                let answer = http.get(url).timeout(UNANSWERED).send().await;
                ensure!(answer.is_err(), "served with an old schema: {answer:?}");
                sends_peers_elsewhere(cluster, name).await?;
            }
            let done = cluster.command(&["migrate"]).await?;
            ensure!(done.to_string().contains("applied"), "{done}");
            Ok(())
        };
        let (started, migrated) = tokio::join!(futures_util::future::try_join_all(starts), migrated);
        migrated?;
        started?;
        for name in REGIONS {
            schema_is(cluster, name, "current").await?;
            cluster.sound(name, SOON).await?;
            caller.read(name, "kept", &kept).await?.wants(200)?;
            ensure!(healthy(cluster, name, "startup").await?);
        }
        Ok(())
    })
    .await
}

/// Peers are told that it has yet to start, over a connection of theirs: no other would do better here, but where
/// there is another process it may.
async fn sends_peers_elsewhere(cluster: &Cluster, at: &str) -> anyhow::Result<()> {
    let peer = reqwest::Client::builder().http2_prior_knowledge().build()?;
    let internal = &cluster.region(at).internal;
    let told = peer.get(format!("{internal}/internal/v1/topology")).send().await?;
    let told: Value = told.error_for_status()?.json().await?;
    ensure!(told["starting"] == true && told["writable"] == false, "{told}");
    for path in ["/v1/collections/kept/items", "/internal/v1/ask"] {
        let method = if path.starts_with("/v1") { Method::GET } else { Method::POST };
        let refused = peer.request(method, format!("{internal}{path}")).send().await?;
        let elsewhere = refused.headers().contains_key("godwit-ending");
        ensure!(refused.status() == 421 && elsewhere, "{path}: {refused:?}");
    }
    Ok(())
}

/// Nobody knows what its schema is.
pub async fn a_process_that_starts_without_its_database_waits_for_it() -> anyhow::Result<()> {
    harness::own(
        "away",
        |_: &mut Spec| {},
        async |cluster| {
            let mut caller = cluster.caller();
            let kept = caller.create(US, "kept", &json!({"n": 1})).await?.wants(201)?.id()?;
            let (api, postgres) = (format!("{AP}/api").parse()?, format!("{AP}/postgres").parse()?);
            cluster.lab.kill(&postgres).await?;
            cluster.lab.kill(&api).await?;
            cluster.lab.restart(&api).await?;
            let http = client::http()?;
            let begun = async || {
                let told = http.get(format!("{}/loops", cluster.region(AP).ops)).send().await?;
                anyhow::Ok(told.text().await?.contains("failover.keeper"))
            };
            eventually("what its database is ordered by", SOON, async || match begun().await {
                Ok(true) => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await?;
            for (path, wanted) in [("liveness", 200), ("startup", 503), ("readiness", 503)] {
                let (status, told) =
                    probe(&http, cluster, AP, &format!("/api/health/{path}")).await?;
                ensure!(status == wanted, "{path}: {told}");
            }
            let url = format!("{}/api/health/liveness", cluster.region(AP).public);
            let answer = http.get(url).timeout(UNANSWERED).send().await;
            ensure!(answer.is_err(), "served with a schema that nobody knows: {answer:?}");
            let peer = reqwest::Client::builder().http2_prior_knowledge().build()?;
            let url = format!("{}/v1/collections/kept/items", cluster.region(AP).internal);
            let refused = peer.get(url).send().await?;
            ensure!(refused.headers().contains_key("godwit-ending"), "{refused:?}");
            // Two of three are enough meanwhile.
            caller.create(US, "kept", &json!({"n": 2})).await?.wants(201)?;
            cluster.lab.restart(&postgres).await?;
            cluster.sound(AP, SOON).await?;
            caller.read(AP, "kept", &kept).await?.wants(200)?;
            Ok(())
        },
    )
    .await
}

/// Longest from the start of a process of the primary to its first answer.
const BEGUN: Duration = Duration::from_secs(20);

/// The first answer of a process that may not listen yet.
async fn first(
    mut ask: impl AsyncFnMut() -> anyhow::Result<client::Answer>,
) -> anyhow::Result<client::Answer> {
    let until = SystemClock.monotonic() + BEGUN;
    loop {
        match ask().await {
            Err(error) if SystemClock.monotonic() > until => return Err(error),
            Err(_) => tokio::task::yield_now().await,
            Ok(answer) => return Ok(answer),
        }
    }
}

/// A process of the primary's region that is killed and started at once has neither its lease nor, in the other
/// regions, anybody's word: until it has, what comes to it waits.
pub async fn a_process_that_has_just_begun_refuses_nobody() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let mut caller = cluster.caller();
        caller.create(EU, "begun", &json!({"n": 0})).await?.wants(201)?;
        let tenant = cluster.tenant("begun").await?;
        let person = Person::make(&tenant, "ada@begun.example", "viewer").await?;
        let person = person.sign_in(cluster, US).await?;
        for name in [US, EU] {
            knows(&person, name).await?.wants(200)?;
            let api: Target = format!("{name}/api").parse()?;
            cluster.lab.kill(&api).await?;
            let written = first(async || caller.create(name, "begun", &json!({"n": 1})).await);
            // Of which the directory must say that it goes on.
            let listed = first(async || person.fresh().get(name, "/v1/sessions").await);
            let (started, written, listed) =
                tokio::join!(cluster.lab.restart(&api), written, listed);
            started?;
            written.and_then(|answer| answer.wants(201)).context(format!("a write in {name}"))?;
            listed.and_then(|answer| answer.wants(200)).context(format!("sessions in {name}"))?;
            cluster.sound(name, SOON).await?;
        }
        Ok(())
    })
    .await
}

/// It runs when the start is asked for, and soon does not.
pub async fn a_process_that_is_about_to_end_is_started_anew() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let api: Target = format!("{AP}/api").parse()?;
        let pid = || {
            let facts = cluster.lab.facts().context("no facts")?;
            facts.regions[&region(AP)].pids.api.context("no process")
        };
        let before = pid()?;
        kill(Pid::from_raw(i32::try_from(before)?), Signal::SIGTERM)?;
        let http = client::http()?;
        eventually("the end to be told", SOON, async || {
            // Or it has ended already.
            let Ok(told) = probe(&http, cluster, AP, "/api/health/readiness").await else {
                return Ok(());
            };
            if told.1["checks"]["process"]["draining"] == true {
                Ok(())
            } else {
                Err(format!("{told:?}"))
            }
        })
        .await?;
        cluster.lab.restart(&api).await?;
        ensure!(pid()? != before, "the old one was taken for one that runs");
        cluster.sound(AP, SOON).await
    })
    .await
}

/// A minimal image may hold no authority; what speaks no TLS needs none.
pub async fn a_machine_without_certificate_authorities_is_enough_for_plain_http()
-> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let nowhere = [("SSL_CERT_FILE", "/nonexistent/ca.pem"), ("SSL_CERT_DIR", "/nonexistent")];
    let edge = Edge::start(&cluster, &nowhere).await?;
    let mut caller = edge.caller(&cluster)?;
    caller.create(EDGE, "plain", &json!({})).await?.wants(201)?;
    edge.end().await
}
