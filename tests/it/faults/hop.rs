//! The hop to the primary, broken off at any byte.

use super::edge::{EDGE, Edge, QUIET};
use crate::{
    client::{Answer, Caller},
    harness::{self, Cluster, SOON, US, eventually},
};
use anyhow::{Context as _, ensure};
use godwit::{
    lab::Direction,
    vocab::{
        Clock as _, SystemClock, SystemRng,
        rng::{self, Rng, SeededRng},
    },
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

const CREATES: usize = 200;
/// Every so many creates carry nearly a mebibyte.
const BIG_EVERY: usize = 20;
/// Sends of one request by the edge itself: it is cut up to as often.
const ATTEMPTS: u64 = 3;

fn draw(rng: &dyn Rng, bound: u64) -> u64 {
    rng::below(rng, bound)
}

/// Shows the seed when the test fails.
async fn seeded(test: impl AsyncFnOnce(&SeededRng) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let seed = draw(&SystemRng, u64::from(u32::MAX));
    test(&SeededRng::new(seed)).await.with_context(|| format!("with seed {seed}"))
}

pub async fn a_create_cut_at_any_byte_happens_once() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    seeded(async |rng| {
        let edges = [Edge::start(&cluster, &QUIET).await?, Edge::start(&cluster, &QUIET).await?];
        let seeds = [draw(rng, u64::MAX >> 1), draw(rng, u64::MAX >> 1)];
        let collection = format!("cut-{}", draw(rng, u64::MAX >> 1));
        let halves = tokio::try_join!(
            create_through(&cluster, &edges[0], &collection, 0, seeds[0]),
            create_through(&cluster, &edges[1], &collection, 1, seeds[1]),
        )?;
        let told: BTreeSet<String> = halves.0.into_iter().chain(halves.1).collect();
        ensure!(told.len() == CREATES, "{} ids for {CREATES} creates", told.len());
        let items = cluster.caller().items(US, &collection, "limit=50").await?;
        let there: BTreeSet<String> = ids(&items);
        ensure!(items.len() == CREATES && there == told, "{} items", items.len());
        let numbers: BTreeSet<u64> =
            items.iter().filter_map(|item| item["data"]["n"].as_u64()).collect();
        ensure!(numbers.len() == CREATES, "only {} of the creates are there", numbers.len());
        for edge in edges {
            edge.end().await?;
        }
        Ok(())
    })
    .await
}

fn ids(items: &[Value]) -> BTreeSet<String> {
    items.iter().filter_map(|item| Some(item["id"].as_str()?.to_owned())).collect()
}

/// Every second create, one after the other, each with its connection cut at least once. Returns
/// the ids that were told.
async fn create_through(
    cluster: &Cluster,
    edge: &Edge,
    collection: &str,
    first: usize,
    seed: u64,
) -> anyhow::Result<Vec<String>> {
    let rng = SeededRng::new(seed);
    let (mut caller, mut primary) = (edge.caller(cluster)?, cluster.caller());
    let mut told = Vec::new();
    for number in (first..CREATES).step_by(2) {
        let key = format!("{collection}-{number}");
        let pad = if number % BIG_EVERY < 2 { draw(&rng, 1_000_000) } else { draw(&rng, 300) };
        let pad = usize::try_from(pad)?;
        let body = json!({"n": number, "pad": "x".repeat(pad)});
        let fired = edge.wire.fired();
        for _ in 0..=draw(&rng, ATTEMPTS) {
            // Not further than the shortest such message is long, so that it is surely cut.
            match draw(&rng, 3) {
                0 => edge.wire.cut(Direction::Request, draw(&rng, 400)),
                1 => edge.wire.cut(Direction::Request, draw(&rng, body.to_string().len() as u64)),
                _ => edge.wire.cut(Direction::Response, draw(&rng, 150 + pad as u64)),
            }
        }
        let made = create_until_told(&mut caller, collection, &key, &body).await?;
        edge.wire.uncut();
        ensure!(edge.wire.fired() > fired, "create {number} was not cut");
        let again = create(&mut primary, US, collection, &key, &body).await?.wants(201)?;
        ensure!(again.header("idempotency-replayed") == Some("true"), "{again}");
        ensure!(again.json() == made.json(), "{again} is not {made}");
        ensure!(again.etag()? == made.etag()?, "{again} is not {made}");
        told.push(made.id()?);
    }
    Ok(told)
}

async fn create(
    caller: &mut Caller,
    region: &str,
    collection: &str,
    key: &str,
    body: &Value,
) -> anyhow::Result<Answer> {
    let path = format!("/v1/collections/{collection}/items");
    let ask = caller.ask(region, reqwest::Method::POST, &path);
    ask.header("idempotency-key", key).json(body).send().await
}

/// Sends it until the answer is a success. All other answers must say that the outcome is unknown,
/// because bytes of it had been sent, or that a sending before is still at work.
async fn create_until_told(
    caller: &mut Caller,
    collection: &str,
    key: &str,
    body: &Value,
) -> anyhow::Result<Answer> {
    eventually(key, SOON, async || {
        // An answer that broke off is no answer.
        let answer = create(caller, EDGE, collection, key, body).await;
        let answer = answer.map_err(|error| format!("{error:#}"))?;
        let other = match answer.status {
            201 => return Ok(Ok(answer)),
            409 => answer.wants_problem(409, "idempotency-in-flight"),
            _ => wants_unknown(answer, key),
        };
        match other {
            Ok(answer) => Err(answer.to_string()),
            Err(wrong) => Ok(Err(wrong)),
        }
    })
    .await?
}

/// Demands that the answer says where to ask and with which key to repeat.
fn wants_unknown(answer: Answer, key: &str) -> anyhow::Result<Answer> {
    let answer = answer.wants_problem(503, "outcome-unknown")?;
    let outcome = format!("/v1/writes/{key}");
    let document = answer.json();
    ensure!(document["outcome"] == outcome && document["idempotency_key"] == key, "{answer}");
    ensure!(answer.header("location") == Some(outcome.as_str()), "{answer}");
    ensure!(answer.header("idempotency-key") == Some(key), "{answer}");
    Ok(answer)
}

pub async fn a_long_answer_cut_midway_is_never_taken_for_whole() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    seeded(async |rng| {
        let edge = Edge::start(&cluster, &QUIET).await?;
        let mut caller = edge.caller(&cluster)?;
        let collection = format!("long-{}", draw(rng, u64::MAX >> 1));
        for number in 0..20 {
            let body = json!({"n": number, "pad": "y".repeat(50_000)});
            caller.create(US, &collection, &body).await?.wants(201)?;
        }
        let path = format!("/v1/collections/{collection}/items?limit=20");
        let whole = read_strong(&mut caller, &path).await?.wants(200)?;
        ensure!(whole.body.len() > 1_000_000 && whole.route() == "forwarded", "{whole}");
        let mut broken = 0;
        for _ in 0..40 {
            edge.wire.cut(Direction::Response, draw(rng, 1_000_000));
            match read_strong(&mut caller, &path).await {
                Ok(answer) => {
                    let answer = answer.wants(200)?;
                    ensure!(answer.body == whole.body, "{} bytes", answer.body.len());
                }
                Err(_) => broken += 1,
            }
        }
        ensure!(broken >= 20, "only {broken} of 40 answers broke off");
        edge.wire.uncut();
        edge.end().await
    })
    .await
}

async fn read_strong(caller: &mut Caller, path: &str) -> anyhow::Result<Answer> {
    let ask = caller.ask(EDGE, reqwest::Method::GET, path);
    ask.header("godwit-consistency", "strong").send().await
}

/// As [`QUIET`], and impatient.
fn impatient() -> Vec<(&'static str, &'static str)> {
    [&QUIET[..], &[("GODWIT__ROUTING__REQUEST_MS_MAX", "2000")]].concat()
}

/// The edge's patience, and room for a busy machine.
const IMPATIENT: Duration = Duration::from_millis(3_500);

pub async fn a_lost_answer_is_an_unknown_outcome_that_can_be_asked_for() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let edge = Edge::start(&cluster, &impatient()).await?;
    let mut caller = edge.caller(&cluster)?;
    let collection = format!("unknown-{}", draw(&SystemRng, u64::MAX >> 1));
    let body = json!({"text": "did it happen?"});
    // A connection to begin with: nothing is sent over one that does not answer.
    caller.create(EDGE, &collection, &json!({"n": 0})).await?.wants(201)?;

    edge.wire.hold(Direction::Response, true);
    let key = format!("{collection}-done");
    let began = SystemClock.monotonic();
    wants_unknown(create(&mut caller, EDGE, &collection, &key, &body).await?, &key)?;
    let took = SystemClock.monotonic().saturating_duration_since(began);
    ensure!(took < IMPATIENT, "took {took:?}");
    let path = format!("/v1/writes/{key}");
    let told = caller.get(US, &path).await?.wants(200)?.json();
    ensure!(told["status"] == "committed", "{told}");
    ensure!(told["response"]["status"] == 201, "{told}");
    // The edge's own replica has it too, once it has come so far.
    eventually("the outcome at the edge", SOON, async || {
        let told = caller.get(EDGE, &path).await.map_err(|error| format!("{error:#}"))?;
        if told.json()["status"] == "committed" { Ok(()) } else { Err(told.to_string()) }
    })
    .await?;
    edge.wire.hold(Direction::Response, false);
    let again = create(&mut caller, EDGE, &collection, &key, &body).await?.wants(201)?;
    ensure!(again.header("idempotency-replayed") == Some("true"), "{again}");
    ensure!(again.json() == told["response"]["body"], "{again} is not {told}");
    let items = caller.items(US, &collection, "limit=50").await?;
    ensure!(items.len() == 2, "{items:?}");
    edge.end().await
}

pub async fn a_late_write_that_was_sent_again_happens_once() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let edge = Edge::start(&cluster, &impatient()).await?;
    let mut caller = edge.caller(&cluster)?;
    let collection = format!("late-{}", draw(&SystemRng, u64::MAX >> 1));
    let body = json!({"text": "will it happen?"});
    caller.create(EDGE, &collection, &json!({"n": 0})).await?.wants(201)?;

    edge.wire.hold(Direction::Request, true);
    let key = format!("{collection}-late");
    wants_unknown(create(&mut caller, EDGE, &collection, &key, &body).await?, &key)?;
    let told = caller.get(US, &format!("/v1/writes/{key}")).await?.wants(200)?.json();
    ensure!(told["status"] == "unknown", "{told}");
    let made = create(&mut caller, US, &collection, &key, &body).await?.wants(201)?;
    ensure!(made.header("idempotency-replayed").is_none(), "{made}");
    // Now the first one arrives, up to three times over.
    let answered = edge.wire.carried(Direction::Response);
    edge.wire.hold(Direction::Request, false);
    eventually("an answer to what was held", SOON, async || {
        let now = edge.wire.carried(Direction::Response);
        if now > answered { Ok(()) } else { Err(format!("{now} bytes")) }
    })
    .await?;
    let again = create(&mut caller, EDGE, &collection, &key, &body).await?.wants(201)?;
    ensure!(again.json() == made.json(), "{again} is not {made}");
    let items = caller.items(US, &collection, "limit=50").await?;
    ensure!(items.len() == 2, "{items:?}");
    edge.end().await
}

pub async fn a_write_that_a_replica_knows_nothing_of_is_asked_of_the_primary() -> anyhow::Result<()>
{
    let cluster = harness::shared().await?;
    let edge = Edge::start(&cluster, &QUIET).await?;
    let mut caller = edge.caller(&cluster)?;
    let path = format!("/v1/writes/never-{}", draw(&SystemRng, u64::MAX >> 1));
    let told = caller.get(EDGE, &path).await?.wants(200)?;
    ensure!(told.json()["status"] == "unknown" && told.route() == "forwarded", "{told}");
    let told = caller.get(US, &path).await?.wants(200)?;
    ensure!(told.json()["status"] == "unknown" && told.route() == "local", "{told}");
    // Nobody can say.
    edge.wire.refuse(true);
    let told = caller.get(EDGE, &path).await?.wants_problem(503, "unavailable")?;
    ensure!(told.header("retry-after").is_some(), "{told}");
    edge.end().await
}
