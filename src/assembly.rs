//! Settings in, application out: builds everything that lives as long as the process.

pub mod operator;
mod replayer;

use crate::{
    changes::{self, FollowerLoop},
    config::{Config, RegionConfig},
    domain::upkeep::{PrimaryIn, UpkeepLoop},
    failover::{AutomaticLoop, Clerk, Cluster, KeeperLoop, RegionAnswers},
    http::{
        App, Servers,
        limits::{Limiter, forget::ForgetLoop, tell::TellLoop},
        openapi, routes,
    },
    identity::{Passwords, Resolver, Sessions},
    lifecycle::Lifecycle,
    loops::{Activator, Loops},
    queue::{self, Registrar, RegistrarLoop},
    routing::forward::Forwarder,
    storage::{
        Global,
        control::{self, DatabaseControl},
        migrate::SchemaStanding,
        redis::Redis,
    },
    telemetry::{Metrics, Telemetry},
    topology::{
        PrimaryAt, Topology,
        lease::{Granting, Grantor, RenewalLoop},
        note::NoteLoop,
        position::PositionLoop,
        probe::{Asker, Connect, connecting},
        schema::{SchemaLoop, SchemaWatch},
        seal::Sealer,
        tls::{CertificateLoop, Certificates},
        watcher::{Heard, WatcherLoop},
    },
    vocab::{
        Op, OpId, OpKind, Region, SharedClock, SharedRng, SystemClock, SystemRng, TokenHash, causes,
    },
};
use anyhow::Context as _;
use futures_util::future::BoxFuture;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::task::TaskTracker;

/// A process, built and bound.
pub struct Process {
    pub app: Arc<App>,
    pub servers: Servers,
    lifecycle: Lifecycle,
    grantor: Grantor,
    control: Arc<dyn DatabaseControl>,
}

/// Builds the application, binds its listeners and listens for the signals that end it. Connects
/// to nothing yet: a process starts whatever is down. Must be called on a runtime.
///
/// # Errors
/// When an address cannot be used or a certificate cannot be read.
pub fn build(config: Config, telemetry: Telemetry) -> anyhow::Result<Process> {
    let lifecycle = Lifecycle::new();
    lifecycle.watch_signals().context("signals")?;
    let clock: SharedClock = Arc::new(SystemClock);
    let rng: SharedRng = Arc::new(SystemRng);
    let metrics = Arc::new(Metrics::new(&config.region, &telemetry));
    let global = Global::connect(&config.database).context("database")?;
    let redis = Redis::new(&config.redis).context("redis")?;
    let peers = config.peers().map(|(peer, _)| peer.clone());
    let stale_after = Duration::from_millis(config.topology.stale_after_ms);
    let lease = config.lease.clone();
    let topology = Topology::new(config.region.clone(), peers, stale_after, lease, clock.clone());
    let grantor = Grantor::new(redis.clone(), topology.clone(), config.lease.term_ms);
    let control = control::of(&config).context("control database")?;
    let replayer = Arc::new(replayer::Replayer { global: global.clone() });
    let clerk = Clerk::new(&config, global.clone(), topology.clone(), replayer);
    let known = topology.clone();
    let answers = RegionAnswers::new(&config, grantor.clone(), known, Arc::clone(&control), clerk);
    let limiter = Limiter::new(&config.limits, redis.clone(), clock.clone());
    let limiter = Arc::new(limiter.telling(config.peers().map(|(peer, _)| peer.clone())));
    let certificates = Certificates::load(&config).context("certificates")?;
    let connect = connecting(&config.routing, certificates.peer.clone());
    let forwarder = Arc::new(Forwarder::new(&config, &connect, &metrics).context("peers")?);
    let sealer = Sealer::new(&config.cluster);
    let peers = Arc::new(askers(&config, &connect, &sealer)?);
    let registrar = Registrar::new(
        global.clone(),
        topology.clone(),
        Arc::clone(&peers),
        config.identity.session.each_max,
    );
    let loops = Loops::new(lifecycle.clone(), Arc::clone(&metrics), clock.clone(), rng.clone());
    let app = Arc::new(App {
        process: process_name(&clock, &rng),
        region: config.region.clone(),
        resolver: Resolver::new(&config.identity),
        passwords: Passwords::new(&config.identity.password).context("passwords")?,
        limiter,
        mounted: routes::mount(&metrics),
        schema: SchemaWatch::default(),
        sealer,
        sessions: Sessions::new(&config, redis.clone(), Arc::clone(&metrics)),
        registrar,
        peers,
        certificates,
        answers: Arc::new(answers),
        draining: lifecycle.draining().clone(),
        serves: AtomicBool::new(false),
        taken_in: TaskTracker::new(),
        config,
        clock,
        rng,
        topology,
        forwarder,
        global,
        redis,
        metrics,
        telemetry,
        loops,
    });
    let servers = Servers::bind(&app)?;
    Ok(Process { app, servers, lifecycle, grantor, control })
}

impl Process {
    /// Answers probes and peers, waits for the schema that this program needs, then serves until the process is
    /// told to stop. Drains: first what is served to others, then the probes, then the loops.
    ///
    /// # Errors
    /// When a listener fails, or a task panicked.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { app, grantor, control, servers, lifecycle } = self;
        let (global, watch) = (app.global.clone(), app.schema.clone());
        app.loops.start(SchemaLoop::schedule(), Activator::new(), move || SchemaLoop {
            global: global.clone(),
            watch: watch.clone(),
        });
        // Whatever is waited for, a renewed certificate is shown.
        for tls in app.certificates.each() {
            let tls = Arc::clone(tls);
            app.loops.start(CertificateLoop::schedule(), Activator::new(), move || {
                CertificateLoop::new(Arc::clone(&tls))
            });
        }
        let (handles, draining) = (servers.handles(), lifecycle.draining().clone());
        let drained = Arc::clone(&app);
        lifecycle.spawn("servers.stop", async move {
            draining.cancelled().await;
            handles.drain(&drained).await;
        });
        let open = async {
            tokio::select! {
                begun = begin(&app, &grantor, &control) => begun?,
                () = lifecycle.draining().cancelled() => return Ok(()),
            }
            app.serves.store(true, Ordering::Release);
            anyhow::Ok(())
        };
        let served = tokio::select! {
            served = servers.run(open) => served,
            // Who would stop them has been cut off.
            () = lifecycle.ended().cancelled() => Ok(()),
        };
        app.loops.stop();
        let budget = Duration::from_secs(app.config.server.drain_seconds_max);
        lifecycle.finish(budget).await;
        app.global.close().await;
        served?;
        anyhow::ensure!(!lifecycle.has_failed(), "a task panicked; the log has it");
        Ok(())
    }
}

/// Starts the loops, and comes back once requests can be served. A process with an old schema would fail request
/// after request, so it takes none until the log has brought what it needs; nor while nobody knows, because the
/// database is away.
async fn begin(
    app: &Arc<App>,
    grantor: &Grantor,
    control: &Arc<dyn DatabaseControl>,
) -> anyhow::Result<()> {
    let stand_by = || {
        start_loops(app, grantor)?;
        keep(app, grantor.clone(), Arc::clone(control));
        take_over(app)
    };
    let seen = app.global.schema_standing().await;
    if let Err(error) = &seen {
        tracing::warn!(
            error = %causes(error),
            "the database does not answer: nothing is served until its schema was seen"
        );
        // What peers and operators want of the region, its database's return among it, needs no schema.
        stand_by()?;
    }
    let away = seen.is_err();
    let standing = match seen {
        Ok(standing) => standing,
        Err(_) => app.schema.seen().await,
    };
    if let SchemaStanding::Old { have, want } = standing {
        tracing::warn!(
            schema.have = have,
            schema.want = want,
            "the schema is too old: nothing is served until `godwit migrate` has run on the primary and its work \
             has been replicated here"
        );
        app.schema.suffices().await;
    }
    if !away {
        stand_by()?;
    }
    keep_journal(app);
    keep_sessions(app);
    Ok(())
}

/// The description of the API that a process built from here serves.
#[must_use]
pub fn description() -> String {
    openapi::printed()
}

fn start_loops(app: &Arc<App>, grantor: &Grantor) -> anyhow::Result<()> {
    let config = &app.config;
    app.topology.begins();
    let (topology, global) = (app.topology.clone(), app.global.clone());
    let database = config.database.clone();
    app.loops.start(PositionLoop::schedule(&database), topology.waiting(), move || {
        PositionLoop::new(topology.clone(), global.clone(), &database)
    });
    let (topology, notes) = (app.topology.clone(), grantor.clone());
    app.loops.start(NoteLoop::schedule(), Activator::new(), move || {
        NoteLoop::new(topology.clone(), notes.clone())
    });
    let limiter = Arc::clone(&app.limiter);
    app.loops.start(ForgetLoop::schedule(), Activator::new(), move || {
        ForgetLoop::new(Arc::clone(&limiter))
    });
    renew(app, app.region.clone(), Granting::Own(grantor.clone()));
    let connect = connecting(&config.routing, app.certificates.peer.clone());
    let client = connect()?;
    for (peer, asker) in app.peers.iter() {
        tell(app, asker);
        renew(app, peer.clone(), Granting::Peer(asker.clone()));
        let (client, connect) = (client.clone(), Arc::clone(&connect));
        let (app, peer) = (Arc::clone(app), peer.clone());
        let heard: Arc<dyn Heard> = Arc::new(HopEar(Arc::clone(&app)));
        let (schedule, again) = (WatcherLoop::schedule(&config.topology), Activator::new());
        app.loops.clone().start(schedule, again.clone(), move || {
            let (topology, heard) = (app.topology.clone(), Arc::clone(&heard));
            let (client, again) = (client.clone(), again.clone());
            let connect = Arc::clone(&connect);
            WatcherLoop::new(peer.clone(), &app.config, client, connect, topology, heard, again)
        });
    }
    Ok(())
}

/// Forgets what the journal has kept long enough.
fn keep_journal(app: &Arc<App>) {
    let (global, journal, topology) =
        (app.global.clone(), app.config.journal.clone(), app.topology.clone());
    let primary: PrimaryIn = Arc::new(move || match topology.primary() {
        PrimaryAt::Here(epoch) => Some(epoch),
        PrimaryAt::Peer(..) | PrimaryAt::Fenced(_) | PrimaryAt::Unknown => None,
    });
    app.loops.start(UpkeepLoop::schedule(), Activator::new(), move || UpkeepLoop {
        global: global.clone(),
        config: journal.clone(),
        primary: Arc::clone(&primary),
    });
}

/// Follows the directory of sessions, and has what this region owes to it recorded.
fn keep_sessions(app: &Arc<App>) {
    let follower = Arc::clone(app);
    app.loops.start(FollowerLoop::schedule(), Activator::new(), move || {
        let sessions = follower.sessions.clone();
        let (global, redis) = (follower.global.clone(), follower.redis.clone());
        FollowerLoop::new(global, redis, Arc::new(SessionEar(sessions)))
    });
    let owing = Arc::clone(app);
    app.loops.start(RegistrarLoop::schedule(), Activator::new(), move || {
        let ear = Arc::new(SessionEar(owing.sessions.clone()));
        let (redis, metrics) = (owing.redis.clone(), Arc::clone(&owing.metrics));
        RegistrarLoop::new(owing.registrar.clone(), redis, ear, metrics)
    });
}

/// What is followed is what a process may believe of its sessions.
struct SessionEar(Sessions);

impl changes::Heard for SessionEar {
    fn changed(&self, token: &TokenHash) {
        self.0.forget(token);
    }

    fn followed(&self, at: Instant) {
        self.0.followed(at);
    }
}

impl queue::Heard for SessionEar {
    fn ended(&self, token: &TokenHash, op: &Op) {
        self.0.ended(token, op);
    }
}

/// The other regions' internal listeners.
fn askers(
    config: &Config,
    connect: &Connect,
    sealer: &Sealer,
) -> anyhow::Result<BTreeMap<Region, Asker>> {
    let client = connect()?;
    let asker = |(peer, facts): (&Region, &RegionConfig)| {
        let asker = Asker::new(client.clone(), sealer.clone(), peer.clone(), &facts.internal_url);
        (peer.clone(), asker.of_any(Arc::clone(connect)))
    };
    Ok(config.peers().map(asker).collect())
}

/// Takes over by itself when the settings say so.
fn take_over(app: &Arc<App>) -> anyhow::Result<()> {
    let config = &app.config;
    if !config.failover.automatic {
        return Ok(());
    }
    let connect = connecting(&config.routing, app.certificates.peer.clone());
    let listeners = config.regions.iter();
    let listeners = listeners.map(|(region, at)| (region.clone(), at.internal_url.clone()));
    let cluster = Arc::new(Cluster::new(connect, app.sealer.clone(), listeners)?);
    let app = Arc::clone(app);
    app.loops.clone().start(AutomaticLoop::schedule(), Activator::new(), move || {
        let (topology, config) = (app.topology.clone(), app.config.failover.clone());
        let term = Duration::from_millis(app.config.lease.term_ms);
        AutomaticLoop::new(topology, Arc::clone(&cluster), config, term)
    });
    Ok(())
}

/// Keeps this region's instance what the topology says it should be, where it may be moved at all.
fn keep(app: &Arc<App>, grantor: Grantor, control: Arc<dyn DatabaseControl>) {
    if app.config.database.control_url.is_none() {
        tracing::warn!(
            "database.control_url is missing: this region's database is neither fenced nor moved"
        );
        return;
    }
    let app = Arc::clone(app);
    app.loops.clone().start(KeeperLoop::schedule(), Activator::new(), move || {
        let (topology, redis) = (app.topology.clone(), app.redis.clone());
        KeeperLoop::new(&app.config, topology, Arc::clone(&control), grantor.clone(), redis)
    });
}

/// Tells that region of guesses at passwords.
fn tell(app: &Arc<App>, asker: &Asker) {
    let (limiter, metrics) = (Arc::clone(&app.limiter), Arc::clone(&app.metrics));
    let asker = asker.clone();
    app.loops.start(TellLoop::schedule(), Activator::new(), move || {
        TellLoop::new(Arc::clone(&limiter), asker.clone(), Arc::clone(&metrics))
    });
}

/// Asks that region for the lease for as long as this one is the primary.
fn renew(app: &Arc<App>, grants: Region, granting: Granting) {
    let schedule = RenewalLoop::schedule(&app.config.lease);
    let app = Arc::clone(app);
    let again = Activator::new();
    app.loops.clone().start(schedule, again.clone(), move || {
        let (topology, redis, again) = (app.topology.clone(), app.redis.clone(), again.clone());
        let (config, metrics) = (app.config.lease.clone(), app.metrics.lease(&grants));
        RenewalLoop::new(grants.clone(), granting.clone(), topology, redis, config, metrics, again)
    });
}

/// An answered probe lets requests through an open breaker again; and who is to be the next primary is
/// connected to.
struct HopEar(Arc<App>);

impl Heard for HopEar {
    fn heard(&self, peer: &Region, answered: bool) {
        if answered {
            self.0.forwarder.probe_answered(peer, self.0.clock.monotonic());
        }
    }

    fn is_next<'a>(&'a self, peer: &'a Region) -> BoxFuture<'a, ()> {
        Box::pin(self.0.forwarder.prepare(peer))
    }
}

/// Unlike any other process, this one's successor included.
fn process_name(clock: &SharedClock, rng: &SharedRng) -> String {
    let op = Op::new(OpKind::Command, clock.clone(), rng.clone(), Duration::ZERO);
    OpId::mint(&op).to_string()
}

#[cfg(test)]
mod tests;
