//! What moving the primary has done to a region's Postgres beside SQL. A region's API process orders
//! it through `godwit lab agent`.
//!
//! Each order can be given again, also after it was broken off midway: it goes by what it finds.
//! An instance starts as what its data says: a primary that was replaced and not rewound comes back
//! as a primary, for Godwit to keep apart.

use super::{
    conninfo::ConnInfo,
    data::{self, Control, Role},
    laboratory::Inner,
    postgres::{self, Session},
    spec::Part,
    start,
};
use crate::vocab::Region;
use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf, time::Duration};

/// A clean end waits for its replicas to have everything, and gives one up that is silent for 5 s.
const STOP_GRACE: Duration = Duration::from_secs(20);
/// Longest run of what fetches, shorter than who ordered it waits: over a cut link it would last as
/// long as the cut, and hold up whatever is ordered next.
const FETCH_PATIENCE: Duration = Duration::from_secs(150);

/// What the agent can be told to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// End Postgres, cleanly if it can.
    Stop,
    /// Start it and wait until it accepts connections.
    Start,
    /// Keep a copy of what its log tells.
    Keep,
    /// Make its data that of a follower, fetching what differs.
    Rewind(Upstream),
    /// Make its data that of a follower, fetching everything.
    Rebuild(Upstream),
}

/// Whom to follow, and how.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Where to fetch from.
    pub source: String,
    pub primary_conninfo: String,
    pub primary_slot_name: String,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("slot", &self.primary_slot_name).finish_non_exhaustive()
    }
}

/// Carries out an order and returns the path that it tells of.
pub async fn carry_out(
    lab: &Inner,
    region: &Region,
    order: Order,
) -> anyhow::Result<Option<PathBuf>> {
    // Whoever gave it may be dead and have been started anew; the order itself goes on.
    let _one = lab.turn(region)?.lock().await;
    let told = match order {
        Order::Stop => stop(lab, region).await.map(|()| None),
        Order::Start => start(lab, region).await.map(|()| None),
        Order::Keep => keep(lab, region).await.map(Some),
        Order::Rewind(upstream) => rewind(lab, region, &upstream).await.map(|()| None),
        Order::Rebuild(upstream) => rebuild(lab, region, &upstream).await.map(|()| None),
    }?;
    lab.write_file()?;
    Ok(told)
}

async fn stop(lab: &Inner, region: &Region) -> anyhow::Result<()> {
    if let Some(child) = lab.running(region, Part::Postgres) {
        lab.paused().remove(&(region.clone(), Part::Postgres));
        child.stop(Signal::SIGINT, STOP_GRACE).await;
        ensure!(child.running().is_none(), "{region}: Postgres does not end");
    }
    Ok(())
}

async fn start(lab: &Inner, region: &Region) -> anyhow::Result<()> {
    let child = match lab.running(region, Part::Postgres) {
        Some(child) => child,
        None => start::launch_postgres(lab, region)?,
    };
    start::open(lab, region, &child).await.map(drop)
}

async fn keep(lab: &Inner, region: &Region) -> anyhow::Result<PathBuf> {
    demand_stopped(lab, region)?;
    data::keep(&lab.postgres_data(region), lab.account).await
}

async fn rewind(lab: &Inner, region: &Region, upstream: &Upstream) -> anyhow::Result<()> {
    demand_stopped(lab, region)?;
    let source = ConnInfo::parse(&upstream.source)?;
    let data = lab.postgres_data(region);
    if let Some(copy) = data::rewinding_from(&data)? {
        // Broken off. What the log told of was the last complete thing.
        data::restore(&data, &copy, lab.account).await?;
    } else {
        let role = data::startable(&data)?;
        if data::is_fresh(&data) {
            // Rewound or copied already, and not started since.
            return follow(lab, region, upstream, &data);
        }
        settle(lab, region, role).await?;
        let copy = data::keep(&data, lab.account).await?;
        data::mark_rewinding(&data, &copy)?;
    }
    // A promoted server names its new timeline in its control file only with the next checkpoint;
    // before that pg_rewind takes the two for one and does nothing.
    let fetched = async {
        let session = Session::to(&source).await.context("the source")?;
        session.run("CHECKPOINT").await.context("a checkpoint at the source")?;
        let bin = &lab.tools.postgres_bin;
        let command = postgres::rewind(bin, lab.account, &data, &source);
        lab.errand(region, "rewind", command, false).await
    };
    tokio::time::timeout(FETCH_PATIENCE, fetched).await.context("the source is too slow")??;
    follow(lab, region, upstream, &data)?;
    Ok(data::unmark(&data)?)
}

/// Has the data shut down cleanly, which `pg_rewind` wants.
async fn settle(lab: &Inner, region: &Region, role: Role) -> anyhow::Result<()> {
    if control(lab, region).await?.settled {
        return Ok(());
    }
    match role {
        // Not as a server: nobody must write to a primary that was replaced.
        Role::Primary => {
            // It may have been killed before it had its settings.
            start::configure(lab, region, Role::Primary, &lab.postgres_data(region))?;
            let bin = &lab.tools.postgres_bin;
            let command = postgres::single(bin, lab.account, &lab.postgres_data(region));
            lab.errand(region, "recover", command, false).await.map(drop)
        }
        Role::Replica => {
            start(lab, region).await?;
            stop(lab, region).await
        }
    }
}

async fn rebuild(lab: &Inner, region: &Region, upstream: &Upstream) -> anyhow::Result<()> {
    demand_stopped(lab, region)?;
    let source = ConnInfo::parse(&upstream.source)?;
    let data = lab.postgres_data(region);
    if data::startable(&data).is_ok() && !data::is_fresh(&data) {
        data::keep(&data, lab.account).await?;
    }
    data::clear_unfinished(&data)?;
    let partial = data::partial(&data);
    let bin = &lab.tools.postgres_bin;
    let command = postgres::fetch(bin, lab.account, &source, &partial);
    let fetched = lab.errand(region, "base-backup", command, false);
    tokio::time::timeout(FETCH_PATIENCE, fetched).await.context("the source is too slow")??;
    follow(lab, region, upstream, &partial)?;
    Ok(data::place(&data)?)
}

/// Makes the data that of a replica that follows `upstream`, as it will be when it starts.
fn follow(
    lab: &Inner,
    region: &Region,
    upstream: &Upstream,
    data: &std::path::Path,
) -> anyhow::Result<()> {
    start::configure(lab, region, Role::Replica, data)?;
    let told = [
        ("primary_conninfo", upstream.primary_conninfo.as_str()),
        ("primary_slot_name", upstream.primary_slot_name.as_str()),
    ];
    postgres::override_settings(data, &told, lab.account)
}

fn demand_stopped(lab: &Inner, region: &Region) -> anyhow::Result<()> {
    if lab.running(region, Part::Postgres).is_some() {
        bail!("{region}: Postgres runs; stop it first");
    }
    Ok(())
}

/// What the control file of a region's data says.
pub async fn control(lab: &Inner, region: &Region) -> anyhow::Result<Control> {
    let data = lab.postgres_data(region);
    let command = postgres::controldata(&lab.tools.postgres_bin, lab.account, &data);
    Control::parse(&lab.errand(region, "controldata", command, true).await?)
}
