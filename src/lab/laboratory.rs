//! A laboratory as one value: what runs, and the faults that can be made.

use super::{
    account::{self, Account},
    api,
    child::{Child, Notice, Nursery},
    data,
    dns::Dns,
    file::{LabFile, TenantFacts},
    layout::{Layout, make_dir, write_private},
    links::{LinkId, Links},
    lock,
    ports::Ports,
    processes,
    reign::Reign,
    secrets::Secrets,
    spec::{Part, Severing, Spec, Step, Target},
    status::Status,
    tools::{self, Tools},
};
use crate::vocab::{Region, SharedClock, SystemClock};
use anyhow::{Context as _, bail};
use nix::{fcntl::Flock, sys::signal::Signal};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longest wait for a process to stop when asked; then it is killed.
const API_GRACE: Duration = Duration::from_secs(4);
const POSTGRES_GRACE: Duration = Duration::from_secs(8);
const REDIS_GRACE: Duration = Duration::from_secs(2);

/// A laboratory, starting, running or going down. Dropping it kills all of it; [`Lab::down`] lets
/// it end well.
#[derive(Debug)]
pub struct Lab {
    inner: Arc<Inner>,
    _watching: JoinSet<()>,
}

/// What the laboratory's own tasks share.
pub(super) struct Inner {
    pub spec: Spec,
    pub layout: Layout,
    pub data: PathBuf,
    pub account: Option<Account>,
    pub tools: Tools,
    pub secrets: Secrets,
    pub ports: Ports,
    pub links: Links,
    pub nursery: Nursery,
    /// A rehearsal of DNS, once somebody asked for one.
    pub dns: OnceLock<Dns>,
    /// One at a time starts it.
    pub dns_turn: tokio::sync::Mutex<()>,
    parts: Mutex<BTreeMap<(Region, Part), Arc<Child>>>,
    paused: Mutex<BTreeSet<(Region, Part)>>,
    /// Programs that run once: `initdb`, `godwit migrate` and their like.
    errands: Mutex<Vec<(Region, Arc<Child>)>>,
    reign: Mutex<Option<Reign>>,
    pub tenant: OnceLock<TenantFacts>,
    /// Set once `lab.json` may tell of a laboratory that is up.
    pub up: OnceLock<()>,
    /// One writer of `lab.json` at a time.
    writing: Mutex<()>,
    /// One at a time starts or changes a region's parts.
    pub turns: BTreeMap<Region, tokio::sync::Mutex<()>>,
    pub down_asked: CancellationToken,
    _lock: Flock<File>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Lab {
    /// Takes the directory and the ports, finds the programs, stops what an earlier supervisor
    /// left, and opens the links. Nothing else runs yet.
    ///
    /// # Errors
    /// [`super::NotOurs`] when the directory holds something else; when another laboratory has the
    /// directory or something has a port; when Postgres or Redis
    /// are missing.
    pub async fn prepare(spec: Spec) -> anyhow::Result<Self> {
        let tools = Tools::find(&spec)?;
        if spec.dns {
            // Said now, and not after everything else has started.
            tools::powerdns(&spec)?;
        }
        let account = Account::choose()?;
        let layout = Layout::make(&spec.dir)?;
        let lock = lock::lock(&layout)?;
        let data = account::place_data(&layout, account)?;
        lock::sweep(&layout).await;
        let ports = Ports::take(spec.ports, &spec.regions, spec.processes.get())?;
        if spec.dns {
            ports.demand_dns()?;
        }
        make_dir(&layout.regions(), 0o700)?;
        let secrets = Secrets::of(&layout)?;
        let clock: SharedClock = Arc::new(SystemClock);
        let links = Links::open(&ports, spec.wan, &clock).await?;
        for region in &spec.regions {
            api::configure(&layout, &spec, region, &ports, &secrets)?;
        }
        let (notices, ends) = mpsc::channel(64);
        let inner = Arc::new(Inner {
            nursery: Nursery { tracker: TaskTracker::new(), notices },
            dns: OnceLock::new(),
            dns_turn: tokio::sync::Mutex::default(),
            parts: Mutex::default(),
            paused: Mutex::default(),
            errands: Mutex::default(),
            reign: Mutex::default(),
            tenant: OnceLock::new(),
            up: OnceLock::new(),
            writing: Mutex::default(),
            turns: spec
                .regions
                .iter()
                .map(|at| (at.clone(), tokio::sync::Mutex::default()))
                .collect(),
            down_asked: CancellationToken::new(),
            _lock: lock,
            spec,
            layout,
            data,
            account,
            tools,
            secrets,
            ports,
            links,
        });
        inner.turn_logs();
        let mut watching = JoinSet::new();
        watching.spawn(watch(Arc::downgrade(&inner), ends));
        watching.spawn(super::control::serve(Arc::downgrade(&inner))?);
        watching.spawn(super::reign::watch(Arc::downgrade(&inner)));
        Ok(Self { inner, _watching: watching })
    }

    /// Starts everything and returns when every region streams and answers.
    ///
    /// # Errors
    /// When a part does not come up: with the end of its log. What did come up keeps running until
    /// [`Lab::down`] or a drop.
    pub async fn start(&self) -> anyhow::Result<()> {
        super::start::start(&self.inner).await?;
        if self.inner.spec.dns {
            super::dns::start(&self.inner).await?;
        }
        self.inner.up.get_or_init(|| ());
        self.inner.write_file()
    }

    /// Stops everything in order: API processes, then Postgres, then Redis. Removes all it kept
    /// when the spec says so.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub async fn down(self) -> anyhow::Result<()> {
        self.inner.stop().await;
        if self.inner.spec.purge {
            account::purge(&self.inner.layout)?;
        }
        Ok(())
    }

    /// Returns when someone asked, by `lab down`, that this laboratory go down.
    pub async fn down_asked(&self) {
        self.inner.down_asked.cancelled().await;
    }

    /// SIGKILL; returns when they are dead.
    ///
    /// # Errors
    /// When there is no such part.
    pub async fn kill(&self, target: &Target) -> anyhow::Result<()> {
        self.inner.kill(target).await
    }

    /// Starts what is dead of the target and waits until it answers.
    ///
    /// # Errors
    /// When there is no such part or it does not come up.
    pub async fn restart(&self, target: &Target) -> anyhow::Result<()> {
        self.inner.restart(target).await
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// When there is no such part.
    pub fn pause(&self, target: &Target) -> anyhow::Result<()> {
        self.inner.pause(target)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When there is no such part.
    pub fn resume(&self, target: &Target) -> anyhow::Result<()> {
        self.inner.resume(target)
    }

    /// Holds everything between two regions, until [`Lab::heal`].
    ///
    /// # Errors
    /// When there are no such two regions.
    pub fn cut(&self, a: &Region, b: &Region) -> anyhow::Result<()> {
        self.inner.links.cut(a, b)
    }

    /// Ends every cut.
    pub fn heal(&self) {
        self.inner.links.heal();
    }

    /// Sets the round trip between two regions.
    ///
    /// # Errors
    /// When there are no such two regions.
    pub fn delay(&self, a: &Region, b: &Region, round_trip_ms: u64) -> anyhow::Result<()> {
        self.inner.links.delay(a, b, round_trip_ms)
    }

    /// Resets every connection of a link after some more bytes.
    ///
    /// # Errors
    /// When there is no such link.
    pub fn sever(&self, severing: &Severing) -> anyhow::Result<()> {
        self.inner.sever(severing)
    }

    #[must_use]
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// What `lab.json` says; before the laboratory is up, `None`.
    #[must_use]
    pub fn facts(&self) -> Option<LabFile> {
        self.inner.facts()
    }

    /// The settings of a region's first API process.
    #[must_use]
    pub fn config(&self, region: &Region) -> PathBuf {
        self.inner.layout.config(region)
    }
}

/// Keeps `lab.json` true and tells of deaths that nobody asked for.
async fn watch(lab: Weak<Inner>, mut ends: mpsc::Receiver<Notice>) {
    while let Some(end) = ends.recv().await {
        let Some(lab) = lab.upgrade() else { return };
        if !end.expected {
            let word = format!("{} ended ({})", end.name, end.status);
            lab.spec.progress.tell(Step::Warning(&word));
        }
        if let Err(error) = lab.write_file() {
            lab.spec.progress.tell(Step::Warning(&format!("lab.json: {error:#}")));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.inner.kill_all();
        if self.inner.spec.purge {
            // Best effort: a backend may be writing its last. The next purge removes the rest.
            let _ = account::purge(&self.inner.layout);
        }
    }
}

impl Inner {
    fn parts(&self) -> MutexGuard<'_, BTreeMap<(Region, Part), Arc<Child>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn paused(&self) -> MutexGuard<'_, BTreeSet<(Region, Part)>> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn errands(&self) -> MutexGuard<'_, Vec<(Region, Arc<Child>)>> {
        self.errands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is the primary, once there is one.
    pub fn reign(&self) -> Option<Reign> {
        self.reign.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a claim unless a later one is known, and tells whether it was taken.
    pub fn crown(&self, claim: Reign) -> bool {
        let mut reign = self.reign.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = reign.as_ref().is_none_or(|known| claim.is_after(known));
        if taken {
            *reign = Some(claim);
        }
        taken
    }

    /// The right to start or change a region's parts, once it is locked.
    pub fn turn(&self, region: &Region) -> anyhow::Result<&tokio::sync::Mutex<()>> {
        self.turns.get(region).with_context(|| format!("no region {region} in this laboratory"))
    }

    pub fn log(&self, region: &Region, name: &str) -> PathBuf {
        self.layout.logs().join(format!("{region}-{name}.log"))
    }
    pub fn postgres_data(&self, region: &Region) -> PathBuf {
        self.data.join(region.as_str()).join("postgres")
    }
    pub fn redis_file(&self, region: &Region) -> PathBuf {
        self.data.join(region.as_str()).join("redis.conf")
    }

    /// Keeps the logs of the run before, and no more.
    fn turn_logs(&self) {
        for entry in fs::read_dir(self.layout.logs()).into_iter().flatten().flatten() {
            let path = entry.path();
            let own = path == self.layout.supervisor_log();
            if path.extension().is_some_and(|extension| extension == "log") && !own {
                // A log that stays is merely longer.
                let _ = fs::rename(&path, path.with_extension("log.before"));
            }
        }
    }

    /// Starts a part that goes on, and remembers it.
    pub fn launch(
        &self,
        region: &Region,
        part: Part,
        command: tokio::process::Command,
    ) -> anyhow::Result<Arc<Child>> {
        if self.down_asked.is_cancelled() {
            bail!("the laboratory goes down");
        }
        let log = self.log(region, &part.to_string());
        let mut parts = self.parts();
        let child = self.nursery.spawn(format!("{region}/{part}"), command, &log, false)?;
        parts.insert((region.clone(), part), Arc::clone(&child));
        self.paused().remove(&(region.clone(), part));
        Ok(child)
    }

    /// Runs a program to its end and returns what it printed. Dropped, it kills it.
    pub async fn errand(
        &self,
        region: &Region,
        name: &str,
        command: tokio::process::Command,
        captured: bool,
    ) -> anyhow::Result<Vec<u8>> {
        if self.down_asked.is_cancelled() {
            bail!("the laboratory goes down");
        }
        let log = self.log(region, name);
        let child = self.nursery.spawn(format!("{region}: {name}"), command, &log, captured)?;
        self.errands().push((region.clone(), Arc::clone(&child)));
        let errand = Errand { lab: self, child };
        errand.child.success().await
    }

    pub fn running(&self, region: &Region, part: Part) -> Option<Arc<Child>> {
        let child = self.parts().get(&(region.clone(), part)).cloned();
        child.filter(|child| child.running().is_some())
    }

    /// Whether it runs and was not paused.
    pub fn answers_for(&self, region: &Region, part: Part) -> bool {
        let paused = self.paused().contains(&(region.clone(), part));
        !paused && self.running(region, part).is_some()
    }

    /// The parts that a target names, in the order of their starting.
    pub fn aimed_at(&self, target: &Target) -> anyhow::Result<Vec<Part>> {
        let ports = self.ports.of(&target.region)?;
        let apis = (1..).map(Part::Api).take(ports.apis.len());
        let all = [Part::Postgres, Part::Redis].into_iter().chain(apis);
        let hit: Vec<Part> = all.filter(|part| target.hits(*part)).collect();
        if hit.is_empty() {
            bail!("no {target} in this laboratory");
        }
        Ok(hit)
    }

    fn each(
        &self,
        target: &Target,
        mut act: impl FnMut(Part, i32, &Arc<Child>),
    ) -> anyhow::Result<()> {
        for part in self.aimed_at(target)? {
            if let Some(child) = self.running(&target.region, part)
                && let Some(pid) = child.running()
            {
                act(part, pid, &child);
            }
        }
        Ok(())
    }

    pub async fn kill(&self, target: &Target) -> anyhow::Result<()> {
        let mut killed = Vec::new();
        self.each(target, |_, _, child| {
            child.kill();
            killed.push(Arc::clone(child));
        })?;
        if target.hits(Part::Postgres) {
            // What works on its data dies with it.
            let errands = self.errands();
            let here = errands.iter().filter(|(region, _)| *region == target.region);
            killed.extend(here.map(|(_, errand)| Arc::clone(errand)).inspect(|at| at.kill()));
        }
        for child in killed {
            child.end().await;
        }
        self.write_file()
    }
    pub fn pause(&self, target: &Target) -> anyhow::Result<()> {
        self.each(target, |part, pid, _| {
            processes::freeze(pid);
            self.paused().insert((target.region.clone(), part));
        })
    }
    pub fn resume(&self, target: &Target) -> anyhow::Result<()> {
        self.each(target, |part, pid, _| {
            processes::thaw(pid);
            self.paused().remove(&(target.region.clone(), part));
        })
    }
    pub async fn restart(&self, target: &Target) -> anyhow::Result<()> {
        let _one = self.turn(&target.region)?.lock().await;
        super::start::restart(self, target).await?;
        self.write_file()
    }
    pub fn sever(&self, severing: &Severing) -> anyhow::Result<()> {
        let Severing { from, to, kind, direction, after } = severing;
        let id = LinkId { from: from.clone(), to: to.clone(), kind: *kind };
        self.links.sever(&id, *direction, *after)
    }

    /// Stops all, in order, each with a bounded wait.
    pub async fn stop(&self) {
        self.down_asked.cancel();
        self.links.hurry();
        if let Some(dns) = self.dns.get() {
            dns.stop().await;
        }
        let errands: Vec<_> = self.errands().drain(..).collect();
        let killed = errands.iter().map(|(_, errand)| errand.stop(Signal::SIGKILL, REDIS_GRACE));
        futures_util::future::join_all(killed).await;
        let all: Vec<_> =
            self.parts().iter().map(|((_, part), child)| (*part, child.clone())).collect();
        let of = |wanted: fn(Part) -> bool, signal, grace: Duration| {
            let chosen = all.iter().filter(move |(part, _)| wanted(*part));
            futures_util::future::join_all(chosen.map(move |(_, child)| child.stop(signal, grace)))
        };
        of(|part| matches!(part, Part::Api(_)), Signal::SIGTERM, API_GRACE).await;
        of(|part| part == Part::Postgres, Signal::SIGINT, POSTGRES_GRACE).await;
        of(|part| part == Part::Redis, Signal::SIGTERM, REDIS_GRACE).await;
        for region in &self.spec.regions {
            // What remains of it, the next start removes.
            let _ = data::clear_unfinished(&self.postgres_data(region));
        }
        // So that nobody takes it for a laboratory that runs.
        let _ = fs::remove_file(self.layout.lab_file());
        super::control::remove(&self.layout);
    }

    pub fn kill_all(&self) {
        self.down_asked.cancel();
        if let Some(dns) = self.dns.get() {
            dns.kill();
        }
        let errands = self.errands().drain(..).collect::<Vec<_>>();
        let parts = self.parts().values().cloned().collect::<Vec<_>>();
        for child in errands.iter().map(|(_, errand)| errand).chain(&parts) {
            child.kill();
        }
        let _ = fs::remove_file(self.layout.lab_file());
        super::control::remove(&self.layout);
    }

    /// Writes `lab.json`, once there is something to tell.
    pub fn write_file(&self) -> anyhow::Result<()> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.down_asked.is_cancelled() {
            return Ok(());
        }
        let Some(facts) = self.facts() else { return Ok(()) };
        write_private(&self.layout.lab_file(), &serde_json::to_vec_pretty(&facts)?)?;
        Ok(())
    }
}

/// A program that runs once, in the list of those for as long as somebody waits for it.
struct Errand<'a> {
    lab: &'a Inner,
    child: Arc<Child>,
}

impl Drop for Errand<'_> {
    fn drop(&mut self) {
        self.lab.errands().retain(|(_, other)| !Arc::ptr_eq(other, &self.child));
        self.child.kill();
    }
}
