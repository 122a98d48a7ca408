//! Back from a backup, as docs/DEPLOY.md has it: data that a right command destroyed.

use super::{command, equal, reigns, said, sql};
use crate::harness::{self, AP, Cluster, EU, REGIONS, SOON, US, eventually, region};
use anyhow::{Context as _, ensure};
use godwit::lab::{Layout, Order, Spec, Wan, control};
use serde_json::{Value, json};
use sqlx::Connection as _;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tokio::process::Command;

fn data(cluster: &Cluster, name: &str) -> anyhow::Result<PathBuf> {
    Ok(Layout::new(cluster.dir())?.data().join(name).join("postgres"))
}

/// A copy with its owners, which are not who tests run as where that is root.
async fn copied(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).output().await?;
    ensure!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    Ok(())
}

/// A base backup of a primary that serves on (PostgreSQL manual, "Making a Base Backup Using the Low Level API").
async fn backed_up(cluster: &Cluster, name: &str, to: &Path) -> anyhow::Result<()> {
    let mut database = sqlx::PgConnection::connect(&cluster.region(name).global_db).await?;
    sqlx::query("SELECT pg_backup_start('of a test', true)").execute(&mut database).await?;
    copied(&data(cluster, name)?, to).await?;
    let stop = "SELECT labelfile FROM pg_backup_stop(false)";
    let (label,): (String,) = sqlx::query_as(stop).fetch_one(&mut database).await?;
    database.close().await?;
    // A file that has Postgres' owner already.
    copied(&to.join("PG_VERSION"), &to.join("backup_label")).await?;
    Ok(fs::write(to.join("backup_label"), label)?)
}

/// Puts a backup in a database's place, to be replayed up to where `restore_point` was made, by the log of the
/// instance whose data is at `log`.
async fn restored(backup: &Path, at: &Path, log: &Path, restore_point: &str) -> anyhow::Result<()> {
    fs::rename(at, at.with_extension("before"))?;
    copied(backup, at).await?;
    fs::remove_file(at.join("postmaster.pid"))?;
    for entry in fs::read_dir(at.join("pg_wal"))? {
        let path = entry?.path();
        if path.is_file() {
            fs::remove_file(path)?;
        }
    }
    copied(&at.join("PG_VERSION"), &at.join("standby.signal")).await?;
    let archive = log.join("pg_wal");
    let archive = archive.to_str().context("a path in UTF-8")?;
    let settings = format!(
        "restore_command = 'cp \"{archive}/%f\" \"%p\"'\n\
         recovery_target_name = '{restore_point}'\n\
         recovery_target_action = 'pause'\n"
    );
    Ok(fs::write(at.join("postgresql.auto.conf"), settings)?)
}

pub async fn what_was_destroyed_is_restored_and_what_came_after_is_told_as_lost()
-> anyhow::Result<()> {
    let near = |spec: &mut Spec| spec.wan = Wan::Off;
    harness::own("restored", near, async |cluster| {
        reigns(cluster, US, 1, &REGIONS).await?;
        let backup = data(cluster, US)?.with_extension("backup");
        let mut caller = cluster.caller();
        let first = caller.create(US, "kept", &json!({"n": 1})).await?.wants(201)?.id()?;
        backed_up(cluster, US, &backup).await?;
        let second = caller.create(EU, "kept", &json!({"n": 2})).await?.wants(201)?.id()?;
        let of_before = caller.clone();
        sql(cluster, US, "SELECT pg_create_restore_point('before')::text").await?;
        // A right command.
        let gone = caller.read(US, "kept", &first).await?.etag()?;
        caller.delete_if(US, "kept", &first, &gone).await?.wants(204)?;
        let late = caller.create(US, "kept", &json!({"n": 3})).await?.wants(201)?.id()?;

        for name in REGIONS {
            cluster.lab.kill(&format!("{name}/postgres").parse()?).await?;
        }
        // Not where the primary was, so that its data can be looked at meanwhile.
        restored(&backup, &data(cluster, EU)?, &data(cluster, US)?, "before").await?;
        control::order(cluster.dir(), region(EU), Order::Start).await?;
        eventually("replay up to the moment", SOON, async || {
            let asked = "SELECT pg_get_wal_replay_pause_state()";
            match sql(cluster, EU, asked).await {
                Ok(state) if state == "paused" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        let promote = ["promote", EU, "--yes", "--accept-data-loss"];
        let promoted = command(cluster, &promote).output().await?;
        ensure!(promoted.status.success(), "{}", said(&promoted));
        let moved: Value = serde_json::from_slice(&promoted.stdout)?;
        ensure!(moved["epoch"] == 2 && moved["region"] == EU, "{moved}");
        for setting in ["restore_command", "recovery_target_name", "recovery_target_action"] {
            let mut database = sqlx::PgConnection::connect(&cluster.region(EU).global_db).await?;
            let reset = sqlx::AssertSqlSafe(format!("ALTER SYSTEM RESET {setting}"));
            sqlx::raw_sql(reset).execute(&mut database).await?;
        }

        for name in [US, AP] {
            let told = cluster.command(&["rejoin", name, "--yes", "--accept-data-loss"]).await?;
            ensure!(told["told"].is_string(), "{told}");
        }
        reigns(cluster, EU, 2, &REGIONS).await?;
        equal(cluster).await?;
        for name in REGIONS {
            // Whoever saw what was undone is told so.
            let lost = caller.clone().read(name, "kept", &late).await?;
            lost.wants_problem(409, "bookmark-lost")?;
            let mut fresh = caller.fresh();
            for id in [&first, &second] {
                of_before.clone().read(name, "kept", id).await?.wants(200)?;
                fresh.read(name, "kept", id).await?.wants(200)?;
            }
            fresh.read(name, "kept", &late).await?.wants(404)?;
        }
        // It is a region like the others again, and pauses nowhere as a replica.
        let back = command(cluster, &["switchover", US, "--yes"]).output().await?;
        ensure!(back.status.success(), "{}", said(&back));
        reigns(cluster, US, 3, &REGIONS).await?;
        equal(cluster).await.map(drop)
    })
    .await
}
