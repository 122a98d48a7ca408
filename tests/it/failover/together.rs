//! Two people who move the primary at the same time.

use super::{
    Writing, command, equal, now, ready, refused_kindly, reigns, report, said, since, slots,
    told_the_truth,
};
use crate::harness::{self, AP, Cluster, EU, REGIONS, SOON, US, eventually};
use anyhow::{Context as _, ensure};
use godwit::lab::Spec;
use std::time::Duration;

const PACE: Duration = Duration::from_millis(200);

/// The epoch of the region that takes writes, once exactly one does and all know it.
async fn settled(cluster: &Cluster) -> anyhow::Result<(String, u64)> {
    eventually("one primary", SOON, async || {
        let mut found = Vec::new();
        for name in REGIONS {
            let told = report(cluster, name).await?;
            let epochs = told["epochs"].as_array().map(Vec::as_slice).unwrap_or_default();
            let epoch = epochs.iter().filter_map(|start| start["epoch"].as_u64()).max();
            found.push((name, told["writable"] == true, told["primary"].clone(), epoch));
        }
        let writable: Vec<_> = found.iter().filter(|(_, writable, ..)| *writable).collect();
        match writable.as_slice() {
            [(name, _, _, Some(epoch))] if found.iter().all(|(_, _, at, _)| at == *name) => {
                Ok(((*name).to_owned(), *epoch))
            }
            _ => Err(format!("{found:?}")),
        }
    })
    .await
}

pub async fn two_people_at_once_leave_one_primary() -> anyhow::Result<()> {
    harness::own(
        "together",
        |_: &mut Spec| {},
        async |cluster| {
            let writing = Writing::everywhere(cluster, &REGIONS, 2, PACE);
            for name in REGIONS {
                writing.goes_on(name, now()).await?;
            }
            // The first to have its epoch promised differs from time to time.
            for (one, other, last) in [(EU, AP, EU), (AP, US, US), (US, EU, AP)] {
                let began = now();
                let run = async |to| command(cluster, &["switchover", to, "--yes"]).output().await;
                let (first, second) = tokio::try_join!(run(one), run(other))?;
                for (to, output) in [(one, &first), (other, &second)] {
                    let code = output.status.code();
                    ensure!(matches!(code, Some(0 | 1 | 3)), "{to}: {}", said(output));
                    eprintln!("together: switchover {to} ended with {code:?}, {:?}", since(began));
                }
                let outcome = || format!("{one}: {}\n{other}: {}", said(&first), said(&second));
                let done = [&first, &second].iter().any(|output| output.status.success());
                ensure!(done, "each has stopped the other\n{}", outcome());
                // What the other one left is known a moment later.
                eventually("a move that ends well", SOON, async || {
                    let again = run(last).await.map_err(|error| error.to_string())?;
                    if again.status.success() { Ok(()) } else { Err(said(&again)) }
                })
                .await
                .with_context(outcome)?;
                let (primary, epoch) = settled(cluster).await?;
                ensure!(primary == last, "{primary}\n{}", outcome());
                for name in REGIONS {
                    ready(cluster, name).await?;
                    writing.goes_on(name, now()).await?;
                }
                reigns(cluster, last, u32::try_from(epoch)?, &REGIONS).await?;
            }
            let collection = writing.collection.clone();
            let shots = writing.end().await;
            let failed = shots.iter().filter(|shot| !shot.acknowledged()).count();
            eprintln!("together: {failed} of {} writes failed", shots.len());
            refused_kindly(&shots)?;
            told_the_truth(cluster, EU, &collection, &shots).await?;
            equal(cluster).await?;
            slots(cluster).await
        },
    )
    .await
}
