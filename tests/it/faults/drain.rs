//! SIGTERM: what was accepted is answered.

use super::{in_flight, now, since};
use crate::{
    client,
    harness::{self, EU, SOON, US, eventually, region},
};
use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use godwit::lab::PartState;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use std::time::Duration;

/// Under way at once when the signal comes.
const UNDER_WAY: usize = 8;
/// The laboratory's drain, and room for a busy machine.
const GONE: Duration = Duration::from_secs(6);

pub async fn a_process_told_to_end_answers_what_it_accepted() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        // Over connections that are there: opening one so far away would outlast the drain.
        for number in 0..UNDER_WAY {
            cluster.caller().create(EU, "drained", &json!({"warm": number})).await?.wants(201)?;
        }
        // So far away that the requests are still under way.
        cluster.lab.delay(&region(US), &region(EU), 900)?;
        let facts = cluster.lab.facts().context("no facts")?;
        let pid = facts.regions[&region(EU)].pids.api.context("no process")?;
        let caller = cluster.caller();
        let creates = try_join_all((0..UNDER_WAY).map(|number| {
            let mut caller = caller.clone();
            async move { caller.create(EU, "drained", &json!({"n": number})).await?.wants(201) }
        }));
        let end = async {
            let http = client::http()?;
            let ops = &cluster.region(EU).ops;
            eventually("requests under way", SOON, async || {
                // The question is one of them.
                let count = in_flight(&http, ops).await.map_err(|error| error.to_string())?;
                if count > UNDER_WAY { Ok(()) } else { Err(count.to_string()) }
            })
            .await?;
            let told_at = now();
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
            eventually("no readiness", SOON, async || {
                let ready = http.get(format!("{ops}/api/health/readiness")).send().await;
                let ready = ready.map_err(|error| error.to_string())?.status().as_u16();
                if ready == 503 { Ok(()) } else { Err(ready.to_string()) }
            })
            .await?;
            anyhow::Ok(told_at)
        };
        let (_, told_at) = tokio::try_join!(creates, end)?;
        eventually("the end of the process", SOON, async || {
            let state = cluster.lab.status().regions[&region(EU)]["api"].state;
            if state == PartState::Dead { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await?;
        ensure!(since(told_at) < GONE, "ended after {:?}", since(told_at));
        Ok(())
    })
    .await
}
