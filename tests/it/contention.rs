//! Many writers, few items.

use crate::{
    client::{Answer, Caller},
    harness::{self, AP, EU, REGIONS, US},
};
use anyhow::{Context as _, bail, ensure};
use futures_util::future::try_join_all;
use godwit::vocab::{Clock as _, SystemClock};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

const CLIENTS: usize = 64;
const ITEMS: usize = 8;
const LASTS: Duration = Duration::from_secs(30);
const COLLECTION: &str = "contention";

struct Item {
    id: String,
    etag: String,
    wins: AtomicI64,
}

/// Each adds one to a counter it has read, under `If-Match`, from every region. As many updates as
/// were answered with 200 must be there at the end: none lost, none twice.
pub async fn sixty_four_clients_lose_no_update() -> anyhow::Result<()> {
    let _busy = harness::busy().await;
    let cluster = harness::shared().await?;
    let mut maker = cluster.caller();
    let mut items = Vec::new();
    for _ in 0..ITEMS {
        let made = maker.create(US, COLLECTION, &json!({"n": 0})).await?.wants(201)?;
        items.push(Item { id: made.id()?, etag: made.etag()?, wins: AtomicI64::new(0) });
    }
    let until = SystemClock.monotonic() + LASTS;
    let conflicts = AtomicI64::new(0);
    let clients = (0..CLIENTS).map(|client| {
        let (item, mut caller) = (&items[client % ITEMS], cluster.caller());
        let conflicts = &conflicts;
        async move {
            let (mut etag, mut n) = (item.etag.clone(), 0);
            for turn in 0.. {
                if SystemClock.monotonic() > until {
                    break;
                }
                let region = REGIONS[(client + turn) % REGIONS.len()];
                let wanted = json!({"n": n + 1, "by": client});
                let answer = caller.put_if(region, COLLECTION, &item.id, &etag, &wanted).await?;
                // A machine with too much to do says so, and has not done it.
                if answer.problem() == "unavailable" {
                    continue;
                }
                n = match answer.status {
                    200 => {
                        item.wins.fetch_add(1, Ordering::Relaxed);
                        n + 1
                    }
                    412 => {
                        conflicts.fetch_add(1, Ordering::Relaxed);
                        current(answer.clone())?["data"]["n"].as_i64().context("a counter")?
                    }
                    _ => bail!("{answer}"),
                };
                etag = answer.etag()?;
            }
            anyhow::Ok(())
        }
    });
    try_join_all(clients).await?;
    // A loser shows that there was something to lose.
    ensure!(conflicts.load(Ordering::Relaxed) > 0, "nobody was in anybody's way");
    for item in &items {
        for region in [US, EU, AP] {
            let last = strong(&mut maker, region, &item.id).await?;
            let wins = item.wins.load(Ordering::Relaxed);
            ensure!(wins > 0, "an item that nobody could update");
            ensure!(last.version()? - 1 == wins, "{wins} answers of 200, but {last}");
            ensure!(last.json()["data"]["n"] == wins, "an update was lost: {wins}, but {last}");
        }
    }
    Ok(())
}

/// What a 412 carries: the item as it is, with its entity tag.
fn current(answer: Answer) -> anyhow::Result<Value> {
    let answer = answer.wants_problem(412, "version-conflict")?;
    let current = answer.json()["current"].clone();
    let version = current["version"].as_i64().context("412 without the current item")?;
    let tagged = answer.etag()?.trim_matches('"').ends_with(&format!(".{version}"));
    ensure!(tagged && current["data"].is_object(), "{answer}");
    Ok(current)
}

async fn strong(caller: &mut Caller, region: &str, id: &str) -> anyhow::Result<Answer> {
    let path = crate::client::item(COLLECTION, id);
    let ask = caller.ask(region, reqwest::Method::GET, &path);
    ask.header("godwit-consistency", "strong").send().await?.wants(200)
}
