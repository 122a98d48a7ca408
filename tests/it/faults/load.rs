//! Readers and writers in every region, each noting what became of every request.

use crate::{
    client::{Answer, Caller, item},
    harness::{Cluster, REGIONS, US},
};
use anyhow::{Context as _, ensure};
use godwit::vocab::{Clock as _, SystemClock, SystemRng, rng};
use serde_json::json;
use sqlx::Connection as _;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Between two requests of a reader or writer: so few that the machine is not what is tested.
const PACE: Duration = Duration::from_millis(40);

/// The whole time a request may take, and room for a busy machine.
pub const DEADLINE: Duration = Duration::from_millis(11_500);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Of an item, with a bookmark that the region has long reached.
    Session,
    /// Of a list, whatever is there.
    Eventual,
    Create,
}

/// One request and what became of it.
#[derive(Debug)]
pub struct Shot {
    pub region: &'static str,
    pub kind: Kind,
    pub key: String,
    pub began: Instant,
    pub ended: Instant,
    /// Status, or 0 when the connection broke off.
    pub status: u16,
    pub problem: String,
    pub route: String,
    pub said: String,
}

impl Shot {
    pub fn failed(&self) -> bool {
        !matches!(self.status, 200 | 201)
    }
}

pub struct Load {
    stop: CancellationToken,
    workers: JoinSet<Vec<Shot>>,
}

impl Load {
    /// Begins, once an item is there for the readers in every region.
    pub async fn begin(cluster: &Cluster) -> anyhow::Result<Self> {
        let collection = format!("load-{}", rng::below(&SystemRng, u64::MAX >> 1));
        let stop = CancellationToken::new();
        let mut workers = JoinSet::new();
        let mut caller = cluster.caller();
        let made = caller.create(US, &collection, &json!({"text": "for readers"})).await?;
        let id = made.wants(201)?.id()?;
        for region in REGIONS {
            caller.read(region, &collection, &id).await?.wants(200)?;
            for kind in [Kind::Session, Kind::Eventual, Kind::Create] {
                let worker = Worker {
                    caller: caller.clone(),
                    region,
                    kind,
                    collection: collection.clone(),
                    item: item(&collection, &id),
                };
                workers.spawn(worker.run(stop.clone()));
            }
        }
        Ok(Self { stop, workers })
    }

    /// Ends, and gives every request in no order.
    pub async fn end(self) -> Vec<Shot> {
        self.stop.cancel();
        self.workers.join_all().await.into_iter().flatten().collect()
    }
}

struct Worker {
    caller: Caller,
    region: &'static str,
    kind: Kind,
    collection: String,
    item: String,
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) -> Vec<Shot> {
        let mut shots = Vec::new();
        let mut turns = tokio::time::interval(PACE);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            turns.tick().await;
            let key = format!("{}-{}-{}", self.collection, self.region, shots.len());
            let began = SystemClock.monotonic();
            let answer = self.ask(&key).await;
            let ended = SystemClock.monotonic();
            let (region, kind) = (self.region, self.kind);
            shots.push(match answer {
                Ok(answer) => Shot {
                    region,
                    kind,
                    key,
                    began,
                    ended,
                    status: answer.status,
                    problem: answer.problem(),
                    route: answer.route().to_owned(),
                    said: if answer.status < 300 { String::new() } else { answer.to_string() },
                },
                Err(error) => Shot {
                    region,
                    kind,
                    key,
                    began,
                    ended,
                    status: 0,
                    problem: String::new(),
                    route: String::new(),
                    said: format!("{error:#}"),
                },
            });
        }
        shots
    }

    async fn ask(&mut self, key: &str) -> anyhow::Result<Answer> {
        // Each goes on from where the load began, so that no read waits for a write of the load.
        let mut caller = self.caller.clone();
        let list = format!("/v1/collections/{}/items?limit=2", self.collection);
        match self.kind {
            Kind::Session => caller.get(self.region, &self.item).await,
            Kind::Eventual => {
                let ask = caller.ask(self.region, reqwest::Method::GET, &list);
                ask.header("godwit-consistency", "eventual").send().await
            }
            Kind::Create => {
                let path = format!("/v1/collections/{}/items", self.collection);
                let ask = caller.ask(self.region, reqwest::Method::POST, &path);
                ask.header("idempotency-key", key).json(&json!({"key": key})).send().await
            }
        }
    }
}

/// Demands that no request for which `excused` is false has failed.
pub fn none_failed(shots: &[Shot], excused: impl Fn(&Shot) -> bool) -> anyhow::Result<()> {
    let failed: Vec<&Shot> = shots.iter().filter(|shot| shot.failed() && !excused(shot)).collect();
    let some: Vec<String> = failed.iter().take(5).map(|shot| format!("{shot:?}")).collect();
    ensure!(failed.is_empty(), "{} requests failed, such as\n{}", failed.len(), some.join("\n"));
    Ok(())
}

/// Demands that each create was told the truth: made what it said it made, once, and nothing when
/// it said that it had no effect; and that each refusal says when to come back.
pub async fn told_the_truth(cluster: &Cluster, shots: &[Shot]) -> anyhow::Result<()> {
    let creates: Vec<&Shot> = shots.iter().filter(|shot| shot.kind == Kind::Create).collect();
    let collection = creates.first().context("no creates")?.key.rsplitn(5, '-').last();
    let collection = collection.context("a collection")?.to_owned();
    let there = effects(cluster, &collection).await?;
    for shot in creates {
        let effects = there.get(&shot.key).copied().unwrap_or(0);
        let true_word = match (shot.status, shot.problem.as_str()) {
            (201, _) => effects == 1,
            // Nobody answered, or the answer says that it is not known.
            (0, _) | (503, "outcome-unknown") => effects <= 1,
            (503, "no-primary" | "unavailable") | (421, "fenced") => effects == 0,
            _ => false,
        };
        ensure!(true_word, "{effects} effects of {shot:?}");
    }
    for shot in shots {
        let bids_back = shot.status != 503 || shot.said.contains("retry-after");
        ensure!(bids_back, "no Retry-After: {shot:?}");
    }
    Ok(())
}

/// Demands that each was answered within its deadline.
pub fn in_time<'a>(shots: impl Iterator<Item = &'a Shot>) -> anyhow::Result<()> {
    for shot in shots {
        let took = shot.ended.saturating_duration_since(shot.began);
        ensure!(took < DEADLINE, "took {took:?}: {shot:?}");
    }
    Ok(())
}

/// How many items each key has made, as the primary's database has it.
async fn effects(cluster: &Cluster, collection: &str) -> anyhow::Result<BTreeMap<String, i64>> {
    let mut database = sqlx::PgConnection::connect(&cluster.region(US).global_db).await?;
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT data->>'key', count(*) FROM item WHERE collection = $1 AND data ? 'key' GROUP BY 1",
    )
    .bind(collection)
    .fetch_all(&mut database)
    .await?;
    database.close().await?;
    Ok(rows.into_iter().collect())
}
