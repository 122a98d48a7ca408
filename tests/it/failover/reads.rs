//! Reads in the regions that are left, while there is no primary.

use super::{TERM, command, now, reigns, said, target, until};
use crate::harness::{self, AP, EU, REGIONS, US, region, set};
use anyhow::{Context as _, ensure};
use godwit::lab::{Durability, Spec, Wan};
use serde_json::json;
use tokio::task::JoinSet;

/// What it wrote is in the other replica, and there is nobody to ask for it until that is the primary.
pub async fn a_session_reads_its_write_though_only_the_next_primary_has_it() -> anyhow::Result<()> {
    let shape = |spec: &mut Spec| {
        (spec.wan, spec.durability) = (Wan::Off, Durability::Quorum);
        // On a machine that has other things to do a promotion takes longer.
        set(spec, "GODWIT__ROUTING__HOLD_MS_MAX", "20000");
        set(spec, "GODWIT__ROUTING__REQUEST_MS_MAX", "25000");
    };
    harness::own("reader", shape, async |cluster| {
        reigns(cluster, US, 1, &REGIONS).await?;
        cluster.lab.cut(&region(US), &region(EU))?;
        let mut caller = cluster.caller();
        let id = caller.create(US, "reader", &json!({})).await?.wants(201)?.id()?;
        cluster.lab.kill(&target(US)).await?;
        let mut reading = JoinSet::new();
        let (mut reader, item) = (caller.clone(), id.clone());
        reading.spawn(async move { reader.read(EU, "reader", &item).await });
        // Longer than a bookmark is waited for where there is a primary.
        until(now() + TERM / 2).await?;
        ensure!(reading.try_join_next().is_none(), "it was answered before there was a primary");
        let promoted = command(cluster, &["promote", AP, "--yes"]).output().await?;
        ensure!(promoted.status.success(), "{}", said(&promoted));
        let read = reading.join_next().await.context("no reader")???;
        ensure!(read.wants(200)?.id()? == id, "another item");
        Ok(())
    })
    .await
}
