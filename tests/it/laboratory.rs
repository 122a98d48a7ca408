//! The laboratory itself: its faults bite, and nothing outlives it.

use crate::harness::{self, AP, Cluster, SOON, US, eventually, region};
use anyhow::{Context as _, ensure};
use godwit::lab::{self, Layout, PartState, Target};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, path::Path, process::Output, time::Duration};
use tokio::{process::Command, task::JoinSet};
use tokio_postgres::{Client, NoTls};

/// Who waits for a link to heal, or a part to come back, waits no longer.
const BACK_WITHIN: Duration = Duration::from_secs(3);
/// A question to a paused server is given up after this.
const PATIENCE: Duration = Duration::from_millis(500);

pub async fn a_cut_replica_streams_again_at_once_when_the_link_heals() -> anyhow::Result<()> {
    harness::own(
        "cut",
        |spec| spec.bare = true,
        async |cluster| {
            let (primary, _a) = session(cluster, US).await?;
            let (replica, _b) = session(cluster, AP).await?;
            let primary_knows =
                "SELECT 1 FROM pg_stat_replication WHERE application_name = 'ap-south-1'";
            let pid = cluster.facts.regions[&region(AP)].pids.postgres;
            primary.batch_execute("CREATE TABLE far (n int)").await?;
            cluster.lab.cut(&region(US), &region(AP))?;
            primary.batch_execute("INSERT INTO far VALUES (1)").await?;
            // Long enough for both ends to give up their connection.
            eventually("the primary misses the replica", SOON, async || {
                let found = primary.query(primary_knows, &[]).await.map_err(|e| e.to_string())?;
                if found.is_empty() { Ok(()) } else { Err("still connected".into()) }
            })
            .await?;
            let leaked = replica.query("SELECT n FROM far", &[]).await.unwrap_or_default();
            ensure!(leaked.is_empty(), "the cut leaks");

            cluster.lab.heal();
            eventually("the replica has what was written", BACK_WITHIN, async || {
                let found =
                    replica.query("SELECT n FROM far", &[]).await.map_err(|e| e.to_string())?;
                if found.len() == 1 { Ok(()) } else { Err("nothing yet".into()) }
            })
            .await?;
            let now = cluster.lab.facts().context("it is up")?;
            ensure!(now.regions[&region(AP)].pids.postgres == pid, "the replica was started anew");
            Ok(())
        },
    )
    .await
}

pub async fn a_fault_reaches_every_process_of_a_region_and_no_other() -> anyhow::Result<()> {
    harness::own(
        "faults",
        |spec| spec.bare = true,
        async |cluster| {
            let lab = &cluster.lab;
            let target: Target = region(AP).into();
            let postgres: Target = "ap-south-1/postgres".parse()?;
            lab.pause(&postgres)?;
            let asked = tokio::time::timeout(PATIENCE, session(cluster, AP)).await;
            ensure!(asked.is_err(), "a paused Postgres answers");
            ensure!(states(cluster, AP) == [PartState::Paused, PartState::Running]);
            lab.resume(&postgres)?;
            session(cluster, AP).await?;

            lab.kill(&target).await?;
            ensure!(states(cluster, AP) == [PartState::Dead; 2]);
            ensure!(states(cluster, US) == [PartState::Running; 2]);
            let facts = lab.facts().context("it is up")?;
            ensure!(facts.regions[&region(AP)].pids.postgres.is_none(), "lab.json names the dead");
            tokio::time::timeout(SOON, lab.restart(&target)).await??;
            session(cluster, AP).await?;
            ensure!(states(cluster, AP) == [PartState::Running; 2]);

            // It goes down with a part of it paused.
            lab.pause(&target)
        },
    )
    .await
}

pub async fn an_interrupted_start_leaves_neither_process_nor_half_a_database() -> anyhow::Result<()>
{
    let dir = harness::dir("interrupted");
    let layout = Layout::new(&dir)?;
    let mut child = on_ports(0, &dir, &["lab", "up", "--bare"]).spawn()?;
    let pid = Pid::from_raw(child.id().context("it runs")?.try_into()?);
    eventually("it makes a database", SOON, async || {
        let begun = layout.data().join("us-east-1/postgres.partial").exists();
        if begun { Ok(()) } else { Err("not begun".into()) }
    })
    .await?;
    kill(pid, Signal::SIGINT)?;
    let status = tokio::time::timeout(SOON, child.wait()).await??;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(lab::sweep(&layout).await == 0, "a process outlived its supervisor");
    let left: Vec<_> =
        fs::read_dir(layout.data().join(US))?.flatten().map(|e| e.file_name()).collect();
    ensure!(left.iter().all(|name| name == "redis.conf"), "{left:?}");
    Ok(lab::purge(&layout)?)
}

pub async fn what_a_killed_supervisor_left_is_found_and_stopped() -> anyhow::Result<()> {
    let dir = harness::dir("killed");
    let layout = Layout::new(&dir)?;
    for round in 0..2 {
        let up = on_ports(1, &dir, &["lab", "up", "--bare", "--detach"]).output().await?;
        ensure!(up.status.success(), "round {round}: {}", said(&up));
        let again = on_ports(1, &dir, &["lab", "up", "--bare"]).output().await?;
        ensure!(said(&again).contains("already runs"), "{}", said(&again));
        kill(Pid::from_raw(fs::read_to_string(layout.lock())?.parse()?), Signal::SIGKILL)?;
    }
    let status = godwit(&dir, &["lab", "status"]).output().await?;
    ensure!(said(&status).contains("no laboratory runs"), "{}", said(&status));
    let down = godwit(&dir, &["lab", "down", "--purge"]).output().await?;
    ensure!(said(&down).contains("6 processes had lost their supervisor"), "{}", said(&down));
    ensure!(!dir.exists() && lab::sweep(&layout).await == 0);
    Ok(())
}

pub async fn a_directory_of_someone_else_is_neither_taken_nor_purged() -> anyhow::Result<()> {
    let dir = harness::dir("project");
    let precious = dir.join("data/photos/1.jpeg");
    fs::create_dir_all(precious.parent().context("a directory")?)?;
    fs::write(&precious, "years")?;
    for kind in [&[][..], &["--detach"]] {
        let mut up = on_ports(0, &dir, &[&["lab", "up", "--bare"], kind].concat());
        let up = tokio::time::timeout(SOON, up.output()).await.context("it was taken")??;
        ensure!(up.status.code() == Some(3), "{}: {}", up.status, said(&up));
        ensure!(said(&up).contains("is not empty and no laboratory's"), "{}", said(&up));
    }
    let down = godwit(&dir, &["lab", "down", "--purge"]).output().await?;
    ensure!(said(&down).contains("no laboratory in"), "{}", said(&down));
    let left: Vec<_> = fs::read_dir(&dir)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(precious.exists() && left == ["data"], "{left:?}");
    Ok(fs::remove_dir_all(dir)?)
}

/// The states of Postgres and Redis.
fn states(cluster: &Cluster, name: &str) -> Vec<PartState> {
    let status = cluster.lab.status();
    status.regions[&region(name)].values().map(|part| part.state).collect()
}

async fn session(cluster: &Cluster, name: &str) -> anyhow::Result<(Client, JoinSet<()>)> {
    connect(&cluster.region(name).global_db).await
}

pub async fn connect(database: &str) -> anyhow::Result<(Client, JoinSet<()>)> {
    let (client, connection) = tokio_postgres::connect(database, NoTls).await?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // Its errors reach the client's callers.
        let _ = connection.await;
    });
    Ok((client, driver))
}

pub fn godwit(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_godwit"));
    command.args(arguments).arg("--dir").arg(dir).kill_on_drop(true);
    command
}

/// Test runs beside each other differ in their process ids, and a run's callers in `third`. A bare
/// laboratory takes 30 ports.
pub fn on_ports(third: u32, dir: &Path, arguments: &[&str]) -> Command {
    let base = 10_000 + std::process::id() % 40 * 90 + 30 * third;
    let mut command = godwit(dir, arguments);
    command.args(["--port-base", &base.to_string()]);
    command
}

pub fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat()
}
