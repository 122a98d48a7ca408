//! Whether there is anything to test.

use crate::harness::{self, REGIONS};
use anyhow::ensure;
use serde_json::json;

pub async fn every_region_answers() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut caller = cluster.caller();
    for region in REGIONS {
        let made = caller.create(region, "smoke", &json!({"from": region})).await?.wants(201)?;
        for reader in REGIONS {
            let read = caller.read(reader, "smoke", &made.id()?).await?.wants(200)?;
            ensure!(read.json()["data"]["from"] == region, "{read}");
        }
    }
    Ok(())
}
