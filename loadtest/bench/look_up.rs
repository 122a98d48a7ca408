//! Looks sessions up as a worker does for a request, and nothing else of one: from the text of a token by its MAC
//! and the region's Redis to who is signed in. `loadtest/bench/run` calls it.
//!
//! Arguments: a region's settings, a file with a token a line, seconds, look-ups at once. Prints what `wrk` tells.

use anyhow::Context as _;
use godwit::{
    config::Config,
    identity::{Lookup, Sessions, sessions::principal},
    storage::{global::hot::HotReads, redis::Redis},
    telemetry::{Telemetry, metrics::Metrics},
    vocab::{Op, OpKind},
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{sync::Barrier, task::JoinSet};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As many as an API has on a machine of two cores.
const WORKERS: usize = 2;

struct Bench {
    config: Config,
    sessions: Sessions,
    tokens: Vec<String>,
    seconds: Duration,
    at_once: usize,
    began: Barrier,
}

fn main() -> anyhow::Result<()> {
    // `cargo bench` adds its own.
    let arguments: Vec<_> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [settings, tokens, seconds, at_once] = &arguments[..] else {
        anyhow::bail!("look_up SETTINGS TOKENS SECONDS AT_ONCE");
    };
    let mut config = Config::load(Some(Path::new(settings)))?;
    // Every one is looked up, however soon it comes round again.
    config.identity.session.cache_ms = 0;
    // What a process has beside its workers.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let sessions = runtime.block_on(async {
        let metrics = Metrics::new(&"bench-1".parse()?, &Telemetry::off());
        let redis = Redis::new(&config.redis)?;
        redis.ping().await?;
        anyhow::Ok(Sessions::new(&config, redis, Arc::new(metrics)))
    })?;
    let bench = Arc::new(Bench {
        sessions,
        tokens: std::fs::read_to_string(tokens)?.lines().map(str::to_owned).collect(),
        seconds: Duration::from_secs_f64(seconds.parse()?),
        at_once: at_once.parse()?,
        began: Barrier::new(WORKERS),
        config,
    });
    let mut took = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let bench = Arc::clone(&bench);
                scope.spawn(move || {
                    bench.work(worker).unwrap_or_else(|error| {
                        // The other would wait for this one.
                        eprintln!("look_up: {error:#}");
                        std::process::exit(1)
                    })
                })
            })
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().expect("a worker does not panic"));
        }
        all
    });
    took.sort_unstable();
    let ms = |share: usize| took[took.len() * share / 100].as_secs_f64() * 1_000.0;
    let per_second = f64::from(u32::try_from(took.len())?) / bench.seconds.as_secs_f64();
    println!(
        r#"{{"requests": {}, "per_second": {per_second:.1}, "p50_ms": {:.3}, "p99_ms": {:.3}}}"#,
        took.len(),
        ms(50),
        ms(99),
    );
    Ok(())
}

impl Bench {
    /// On a thread with a runtime and connections of its own, as a worker of the API.
    fn work(self: Arc<Self>, worker: usize) -> anyhow::Result<Vec<Duration>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let redis = Redis::new(&self.config.redis)?;
            let hot = HotReads::new(&self.config.database)?;
            // As in a process that runs for a while: each has been told as in use.
            let mine = self.tokens.len() / WORKERS;
            for at in 0..mine {
                self.look_up(worker + at * WORKERS, &redis, &hot).await?;
            }
            self.began.wait().await;
            let op = Op::system(OpKind::Command, self.seconds);
            let mut askers = JoinSet::new();
            for asker in 0..self.at_once / WORKERS {
                let (this, op, redis, hot) =
                    (Arc::clone(&self), op.clone(), redis.clone(), hot.clone());
                askers.spawn(async move {
                    let mut took = Vec::new();
                    let mut at = asker * mine / this.at_once;
                    while !op.remaining().is_zero() {
                        let began = op.clock.monotonic();
                        this.look_up(worker + at % mine * WORKERS, &redis, &hot).await?;
                        took.push(op.clock.monotonic() - began);
                        at += 1;
                    }
                    anyhow::Ok(took)
                });
            }
            let mut all = Vec::new();
            while let Some(took) = askers.join_next().await {
                all.extend(took??);
            }
            Ok(all)
        })
    }

    async fn look_up(&self, at: usize, redis: &Redis, hot: &HotReads) -> anyhow::Result<()> {
        let op = Op::system(OpKind::Request, Duration::from_secs(10));
        // The loop that tells so in a server is not what is measured.
        self.sessions.followed(op.clock.monotonic());
        let token = self.sessions.keys.parse(&self.tokens[at]).context("a token of another key")?;
        let hash = token.hash();
        let Lookup::Live(live) = self.sessions.find(&hash, redis, hot, &op).await? else {
            anyhow::bail!("a session is not in Redis");
        };
        self.sessions.renew(&hash, &live, &op).await;
        std::hint::black_box(principal(&live, Some(hash)));
        Ok(())
    }
}
