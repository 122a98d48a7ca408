//! The laboratory's agent: a primary that was replaced becomes a follower, whatever breaks off.

use crate::{
    harness::{self, AP, Cluster, EU, SOON, US, eventually, region},
    laboratory::{connect, godwit, on_ports, said},
};
use anyhow::{Context as _, bail, ensure};
use godwit::{
    config::Config,
    lab::{Direction, Kind, LabFile, Layout, Severing, Target},
};
use secrecy::ExposeSecret as _;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, task::JoinSet};
use tokio_postgres::Client;

/// `lab.json` follows a promotion within this, on a machine that has other things to do.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
const SLOTS: &str = "SELECT slot_name::text FROM pg_replication_slots ORDER BY 1";
const STREAMS: &str = "SELECT a.state || '/' || s.slot_name FROM pg_stat_replication a \
     JOIN pg_replication_slots s ON s.active_pid = a.pid WHERE a.application_name = 'us-east-1'";
const WHOLE: &str =
    "SELECT count(*) || '/' || coalesce(sum(hashtext(item::text)::bigint), 0) FROM item";

pub async fn a_replaced_primary_comes_back_as_one_and_follows_once_it_is_told_to()
-> anyhow::Result<()> {
    let dir = harness::dir("replaced");
    let done = replaced(&dir).await;
    let down = lab(&dir, &["down", "--purge"]).await;
    done.and(down.map(drop))
}

async fn replaced(dir: &Path) -> anyhow::Result<()> {
    let layout = Layout::new(dir)?;
    up(dir).await?;
    part_ways(dir).await?;
    told_of(dir, EU).await?;
    lab(dir, &["kill", "us-east-1/postgres"]).await?;
    lab(dir, &["start", "us-east-1/postgres"]).await?;
    // Not only now: a laboratory that was started anew tells them apart by their timelines.
    for restarted in [false, true] {
        if restarted {
            lab(dir, &["down"]).await?;
            up(dir).await?;
        }
        ensure!(LabFile::read(dir)?.primary == region(EU));
        ensure!(ask(dir, US, "SELECT pg_is_in_recovery()::text").await? == "false");
        ensure!(ask(dir, US, "SELECT text FROM item WHERE id = -1").await? == "lost");
    }

    let follow = follow(&layout)?;
    let mut kept = String::new();
    for verb in ["stop", "stop", "keep", "keep", "rewind", "rewind", "start", "start"] {
        let told = order(dir, verb, &follow).await.with_context(|| verb.to_owned())?;
        if verb == "keep" {
            ensure!(kept.is_empty() || kept == told, "{kept} and {told}");
            kept = told;
        } else {
            ensure!(told.is_empty(), "{verb}: {told}");
        }
    }
    let kept = PathBuf::from(kept.trim_end());
    ensure!(kept.join("pg_control").exists() && fs::read_dir(kept.join("pg_wal"))?.count() > 0);
    follows(dir).await?;
    let told = fs::read_to_string(layout.data().join("us-east-1/postgres/postgresql.auto.conf"))?;
    ensure!(told.lines().count() == 2, "{told}");
    let refused = order(dir, "rewind", &follow).await;
    ensure!(format!("{refused:?}").contains("Postgres runs"), "{refused:?}");

    lab(dir, &["down"]).await?;
    up(dir).await?;
    let facts = LabFile::read(dir)?;
    ensure!(facts.primary == region(EU), "{}", facts.primary);
    follows(dir).await?;
    eventually("a third region that follows too", SOON, async || {
        let found = ask(dir, AP, "SELECT text FROM item WHERE id = -2").await;
        found.map(drop).map_err(|error| format!("{error:#}"))
    })
    .await
}

pub async fn a_rewind_that_is_broken_off_ends_well_when_it_is_ordered_again() -> anyhow::Result<()>
{
    let shape = |spec: &mut godwit::lab::Spec| spec.bare = true;
    harness::own("rewind", shape, async |cluster| {
        let dir = cluster.dir();
        let layout = Layout::new(dir)?;
        part_ways(dir).await?;
        let follow = follow(&layout)?;
        // Without warning: what it had to write it has not.
        cluster.lab.kill(&"us-east-1/postgres".parse::<Target>()?).await?;
        order(dir, "stop", &follow).await?;

        cluster.lab.sever(&Severing {
            from: region(US),
            to: region(EU),
            kind: Kind::Postgres,
            direction: Direction::Response,
            // More than is asked to begin with, less than a file of the log.
            after: 4_000_000,
        })?;
        let failed = order(dir, "rewind", &follow).await;
        ensure!(failed.is_err(), "it came through a link that broke");
        stays_down(cluster, dir, &follow).await?;

        cluster.lab.delay(&region(US), &region(EU), 150)?;
        let killed = tokio::join!(order(dir, "rewind", &follow), kill_once_it_fetches(cluster)).0;
        ensure!(killed.is_err(), "it came through its own end");
        cluster.lab.delay(&region(US), &region(EU), 0)?;
        stays_down(cluster, dir, &follow).await?;

        order(dir, "rewind", &follow).await?;
        order(dir, "start", &follow).await?;
        follows(dir).await?;

        for verb in ["stop", "rebuild", "rebuild", "start"] {
            order(dir, verb, &follow).await.with_context(|| verb.to_owned())?;
        }
        follows(dir).await
    })
    .await
}

/// Promotes eu-west-1 while us-east-1 goes on: each has rows that the other has not.
async fn part_ways(dir: &Path) -> anyhow::Result<()> {
    for (name, others) in [(EU, ["ap_south_1", "us_east_1"]), (US, ["ap_south_1", "eu_west_1"])] {
        let slots = asked(dir, name, SLOTS).await?;
        ensure!(slots == others, "{name}: {slots:?}");
    }
    let (us, _us) = sql(dir, US).await?;
    us.batch_execute(
        "CREATE TABLE item (id int PRIMARY KEY, text text NOT NULL);
         INSERT INTO item SELECT id, md5(id::text) FROM generate_series(1, 50000) AS id",
    )
    .await?;
    eventually("a replica with all of it", SOON, async || {
        let count = ask(dir, EU, "SELECT count(*)::text FROM item").await;
        match count.map_err(|error| format!("{error:#}"))?.as_str() {
            "50000" => Ok(()),
            count => Err(count.to_owned()),
        }
    })
    .await?;
    // What is held on the way arrives when the link heals: a replica that then followed the old
    // primary still would have parted from the new one too.
    lab(dir, &["kill", "ap-south-1/postgres"]).await?;
    lab(dir, &["cut", US, EU]).await?;
    us.batch_execute(
        "UPDATE item SET text = 'lost ' || text WHERE id % 3 = 0;
         INSERT INTO item VALUES (-1, 'lost')",
    )
    .await?;
    let (eu, _eu) = sql(dir, EU).await?;
    eu.batch_execute("SELECT pg_promote()").await?;
    eu.batch_execute(
        "UPDATE item SET text = 'new ' || text WHERE id % 5 = 0; INSERT INTO item VALUES (-2, 'new')",
    )
    .await?;
    lab(dir, &["heal"]).await.map(drop)
}

/// us-east-1 streams from eu-west-1 by its slot and has what that has.
async fn follows(dir: &Path) -> anyhow::Result<()> {
    eventually("us-east-1 to follow eu-west-1", SOON, async || {
        let streams = ask(dir, EU, STREAMS).await.map_err(|error| format!("{error:#}"))?;
        let [ours, theirs] = [ask(dir, US, WHOLE).await, ask(dir, EU, WHOLE).await];
        let (ours, theirs) = (ours.map_err(|e| e.to_string())?, theirs.map_err(|e| e.to_string())?);
        if streams == "streaming/us_east_1" && ours == theirs {
            Ok(())
        } else {
            Err(format!("{streams}: {ours} of {theirs}"))
        }
    })
    .await?;
    ensure!(ask(dir, US, "SELECT pg_is_in_recovery()::text").await? == "true");
    ensure!(asked(dir, US, "SELECT text FROM item WHERE id = -1").await?.is_empty());
    Ok(())
}

/// Data that is half rewound is not started, whoever asks.
async fn stays_down(
    cluster: &Cluster,
    dir: &Path,
    follow: &serde_json::Value,
) -> anyhow::Result<()> {
    let refused = order(dir, "start", follow).await;
    ensure!(format!("{refused:?}").contains("half rewound"), "{refused:?}");
    let refused = cluster.lab.restart(&region(US).into()).await;
    ensure!(format!("{refused:?}").contains("half rewound"), "{refused:?}");
    Ok(())
}

/// Kills what works on us-east-1's data as soon as there is such a thing.
async fn kill_once_it_fetches(cluster: &Cluster) -> anyhow::Result<()> {
    let log = Layout::new(cluster.dir())?.logs().join("us-east-1-rewind.log");
    let before = fs::metadata(&log)?.len();
    eventually("pg_rewind to say something", SOON, async || {
        let now = fs::metadata(&log).map_err(|error| error.to_string())?.len();
        if now > before { Ok(()) } else { Err("nothing yet".into()) }
    })
    .await?;
    cluster.lab.kill(&"us-east-1/postgres".parse::<Target>()?).await
}

async fn told_of(dir: &Path, primary: &str) -> anyhow::Result<()> {
    eventually("lab.json with the new primary", TOLD_WITHIN, async || {
        let facts = LabFile::read(dir).map_err(|error| format!("{error:#}"))?;
        if facts.primary == region(primary) { Ok(()) } else { Err(facts.primary.to_string()) }
    })
    .await
}

/// What us-east-1's agent is told: to follow eu-west-1, as its API process would say it.
fn follow(layout: &Layout) -> anyhow::Result<serde_json::Value> {
    let config = Config::load(Some(&layout.config(&region(US))))?;
    let source = config.regions[&region(EU)].replication.as_ref().context("no such setting")?;
    let source = source.expose_secret();
    Ok(json!({
        "source": source,
        "primary_conninfo": format!("{source} application_name={US}"),
        "primary_slot_name": "us_east_1",
    }))
}

/// Has the agent of us-east-1 called as its settings say, and returns what it prints.
async fn order(dir: &Path, verb: &str, follow: &serde_json::Value) -> anyhow::Result<String> {
    let config = Config::load(Some(&Layout::new(dir)?.config(&region(US))))?;
    let agent = &config.failover.agent;
    let (program, arguments) = agent.split_first().context("no agent")?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).arg(verb).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    // One that needs none does not read it.
    let _ = input.write_all(follow.to_string().as_bytes()).await;
    drop(input);
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!("{verb}: {} {}", output.status, said(&output));
    }
    Ok(String::from_utf8(output.stdout)?)
}

async fn up(dir: &Path) -> anyhow::Result<()> {
    let up = on_ports(2, dir, &["lab", "up", "--bare", "--detach"]).output().await?;
    ensure!(up.status.success(), "{}", said(&up));
    Ok(())
}

async fn lab(dir: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let done = godwit(dir, &[&["lab"], arguments].concat()).output().await?;
    ensure!(done.status.success(), "{arguments:?}: {}", said(&done));
    Ok(said(&done))
}

async fn sql(dir: &Path, name: &str) -> anyhow::Result<(Client, JoinSet<()>)> {
    connect(&LabFile::read(dir)?.regions[&region(name)].global_db).await
}

/// The first value of every row.
async fn asked(dir: &Path, name: &str, query: &str) -> anyhow::Result<Vec<String>> {
    let (client, _driver) = sql(dir, name).await?;
    let rows = client.query(query, &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The first value.
async fn ask(dir: &Path, name: &str, query: &str) -> anyhow::Result<String> {
    asked(dir, name, query).await?.into_iter().next().context("no row")
}
