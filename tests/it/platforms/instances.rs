//! What a platform does to the Postgres instances that it runs, on the laboratory's.

use crate::harness::{Cluster, REGIONS, region};
use anyhow::Context as _;
use godwit::{
    config::Config,
    lab::{Order, Upstream, control},
};
use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::{collections::BTreeMap, path::PathBuf};
use tokio::sync::Mutex;

pub struct Instances {
    dir: PathBuf,
    /// As the superuser.
    urls: BTreeMap<String, String>,
    /// How the first region's instance reaches the second's.
    links: BTreeMap<(String, String), String>,
    /// One thing at a time is started: a process waits for its database, and the laboratory starts one part of a
    /// region after the other.
    turn: Mutex<()>,
}

impl Instances {
    /// Of a laboratory, whose database belongs to who controls it from now on.
    pub async fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut links = BTreeMap::new();
        for name in REGIONS {
            let config = Config::load(Some(&cluster.lab.config(&region(name))))?;
            for (peer, facts) in config.peers() {
                let conninfo = facts.replication.as_ref().context("a laboratory's replication")?;
                let conninfo = format!("{} application_name={name}", conninfo.expose_secret());
                links.insert((name.to_owned(), peer.to_string()), conninfo);
            }
        }
        let urls = REGIONS.map(|name| (name.to_owned(), cluster.region(name).global_db.clone()));
        let (dir, urls, turn) = (cluster.dir().to_owned(), BTreeMap::from(urls), Mutex::default());
        let own = Self { dir, urls, links, turn };
        // As docs/RUNBOOK.md has it for a platform.
        let fence = "CREATE ROLE godwit_database NOLOGIN;
            GRANT godwit_database TO godwit_owner, godwit_control;
            ALTER DATABASE godwit OWNER TO godwit_database";
        own.run(REGIONS[0], fence).await?;
        Ok(own)
    }

    async fn run(&self, name: &str, sql: &str) -> anyhow::Result<()> {
        let mut database = PgConnection::connect(&self.urls[name]).await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut database).await?;
        Ok(database.close().await?)
    }

    async fn order(&self, name: &str, order: Order) -> anyhow::Result<()> {
        control::order(&self.dir, region(name), order).await.map(drop)
    }

    /// What vacuum and its like log, fenced or not.
    pub async fn logs_by_itself(&self, name: &str) -> anyhow::Result<()> {
        self.run(name, "SELECT pg_logical_emit_message(false, 'itself', repeat('x', 10000))")
            .await?;
        self.run(name, "CHECKPOINT").await
    }

    pub async fn promote(&self, name: &str) -> anyhow::Result<()> {
        self.run(name, "SELECT pg_promote(true, 60)").await
    }

    /// Kills a region's processes, and starts them anew.
    pub async fn replace_processes(&self, cluster: &Cluster, name: &str) -> anyhow::Result<()> {
        let _one = self.turn.lock().await;
        let processes = format!("{name}/api").parse()?;
        cluster.lab.kill(&processes).await?;
        cluster.lab.restart(&processes).await
    }

    pub async fn crash(&self, name: &str) -> anyhow::Result<()> {
        let _one = self.turn.lock().await;
        let target = format!("{name}/postgres").parse()?;
        control::ask(&self.dir, &control::Request::Kill { target }).await?;
        self.order(name, Order::Start).await
    }

    /// Ends it cleanly, its replicas having all of it.
    pub async fn stop(&self, name: &str) -> anyhow::Result<()> {
        self.order(name, Order::Stop).await
    }

    /// Starts a stopped one as a replica of another.
    pub async fn start_behind(&self, name: &str, primary: &str) -> anyhow::Result<()> {
        let slot = self.slot(name, primary).await?;
        let conninfo = self.links[&(name.to_owned(), primary.to_owned())].clone();
        let upstream = Upstream {
            source: conninfo.clone(),
            primary_conninfo: conninfo,
            primary_slot_name: slot,
        };
        self.order(name, Order::Rewind(upstream)).await?;
        self.order(name, Order::Start).await
    }

    /// Has a replica follow another.
    pub async fn point(&self, name: &str, primary: &str) -> anyhow::Result<()> {
        let slot = self.slot(name, primary).await?;
        let conninfo = &self.links[&(name.to_owned(), primary.to_owned())];
        for (setting, value) in [("primary_slot_name", &slot), ("primary_conninfo", conninfo)] {
            let value = value.replace('\'', "''");
            self.run(name, &format!("ALTER SYSTEM SET {setting} = '{value}'")).await?;
        }
        self.run(name, "SELECT pg_reload_conf()").await
    }

    async fn slot(&self, name: &str, primary: &str) -> anyhow::Result<String> {
        let slot = format!("platform_{}", name.replace('-', "_"));
        let make = format!(
            "SELECT pg_create_physical_replication_slot('{slot}', true) WHERE NOT EXISTS (
                SELECT FROM pg_replication_slots WHERE slot_name = '{slot}')"
        );
        self.run(primary, &make).await?;
        Ok(slot)
    }
}
