//! Laboratories for tests: started when first asked for, brought down whatever happens.

use crate::{client::Caller, collector::Collector};
use anyhow::{Context as _, bail, ensure};
use futures_util::FutureExt as _;
use godwit::{
    lab::{self, Lab, LabFile, Layout, PortPlan, RegionFacts, Spec},
    vocab::{Clock as _, Region, SystemClock},
};
use libtest_mimic::Failed;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::{RwLock, Semaphore},
};

pub const US: &str = "us-east-1";
pub const EU: &str = "eu-west-1";
pub const AP: &str = "ap-south-1";
pub const REGIONS: [&str; 3] = [US, EU, AP];

/// The round trips of a laboratory, in milliseconds.
const DISTANCES: [(&str, &str, u64); 3] = [(US, EU, 75), (US, AP, 190), (EU, AP, 120)];

/// Long enough for anything on a machine that has other things to do.
pub const SOON: Duration = Duration::from_secs(30);

/// Laboratories of their own at once.
const OWN_AT_ONCE: usize = 2;

/// Settings for a machine that has other things to do: what is slow there has not failed, and what
/// is silent for a while is not gone.
const PATIENT: [(&str, &str); 4] = [
    ("GODWIT__DATABASE__ACQUIRE_MS_MAX", "9000"),
    ("GODWIT__TOPOLOGY__PROBE_MS_MAX", "8000"),
    ("GODWIT__TOPOLOGY__STALE_AFTER_MS", "16000"),
    ("GODWIT__ROUTING__CONNECT_MS_MAX", "5000"),
];

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(4).enable_all().build().expect("a runtime")
});
static SHARED: tokio::sync::Mutex<Option<Arc<Cluster>>> = tokio::sync::Mutex::const_new(None);
/// Starting a laboratory keeps a core busy: one at a time.
static STARTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
static FAULTY: tokio::sync::Mutex<Option<Cluster>> = tokio::sync::Mutex::const_new(None);
static OWN: Semaphore = Semaphore::const_new(OWN_AT_ONCE);
/// Held alone by a test that measures time, by all others together.
static QUIET: RwLock<()> = RwLock::const_new(());
/// Held by a test that keeps the shared laboratory busy all by itself.
static BUSY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// Every directory that a laboratory of this run was given.
static DIRS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Before any test: what a killed run left is stopped and removed, and signals are heard.
pub fn begin() {
    rustls::crypto::ring::default_provider().install_default().expect("the first provider");
    RUNTIME.block_on(clear_leftovers());
    RUNTIME.spawn(async {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [mut a, mut b, mut c] = kinds.map(|kind| signal(kind).expect("a signal handler"));
        tokio::select! { _ = a.recv() => {}, _ = b.recv() => {}, _ = c.recv() => {} }
        sweep_all().await;
        std::process::exit(130);
    });
}

/// Runs one test to its end, beside others.
pub fn run(test: impl Future<Output = anyhow::Result<()>>) -> Result<(), Failed> {
    RUNTIME.block_on(async {
        let _others = QUIET.read().await;
        test.await.map_err(|error| format!("{error:#}").into())
    })
}

/// Runs one test that measures time, beside nothing else.
pub fn run_alone(test: impl Future<Output = anyhow::Result<()>>) -> Result<(), Failed> {
    RUNTIME.block_on(async {
        let _quiet = QUIET.write().await;
        test.await.map_err(|error| format!("{error:#}").into())
    })
}

/// After all tests: stops the laboratories that were kept, and fails when a process of them logged
/// an error that no test had announced.
pub fn end(failed: bool) -> Result<(), Failed> {
    let outcome = RUNTIME.block_on(async {
        let shared = SHARED.lock().await.take();
        let outcome = match shared {
            None => Ok(()),
            Some(shared) => match Arc::into_inner(shared) {
                Some(cluster) => cluster.close(!failed).await,
                None => Err(anyhow::anyhow!("a test still holds the shared laboratory")),
            },
        };
        let faulty = match FAULTY.lock().await.take() {
            None => Ok(()),
            Some(cluster) => cluster.close(!failed).await,
        };
        // Nothing is left to stop unless the above went wrong.
        sweep_all().await;
        outcome.and(faulty)
    });
    outcome.map_err(|error| format!("{error:#}").into())
}

/// The laboratory that tests share: three regions at their real distances.
pub async fn shared() -> anyhow::Result<Arc<Cluster>> {
    let mut shared = SHARED.lock().await;
    if let Some(cluster) = &*shared {
        return Ok(Arc::clone(cluster));
    }
    let collector = Collector::start().await?;
    // Traces are kept when their caller asks for it, so that only the test of them pays for them.
    let traces = |spec: &mut Spec| {
        patient(spec);
        // All tests come from one address.
        for bucket in ["REGISTRATION", "SIGN_IN_ADDRESS"] {
            for what in ["BURST", "PER_HOUR"] {
                set(spec, &format!("GODWIT__LIMITS__{bucket}__{what}"), "10000");
            }
        }
        set(spec, "GODWIT__TELEMETRY__OTLP_ENDPOINT", &collector.url());
        set(spec, "GODWIT__TELEMETRY__SAMPLE_RATIO", "0.0");
    };
    let mut cluster = Cluster::start("shared", traces).await?;
    cluster.collector = Some(collector);
    let cluster = Arc::new(cluster);
    *shared = Some(Arc::clone(&cluster));
    Ok(cluster)
}

/// Gives `test` a laboratory of its own, made as `shape` changes it, and brings it down after,
/// whether the test ends, fails or panics.
pub async fn own<T>(
    name: &str,
    shape: impl FnOnce(&mut Spec),
    test: impl AsyncFnOnce(&Cluster) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let _turn = OWN.acquire().await?;
    let cluster = Cluster::start(name, shape).await?;
    let done = AssertUnwindSafe(test(&cluster)).catch_unwind().await;
    let closed = cluster.close(matches!(done, Ok(Ok(_)))).await;
    match done {
        Ok(done) => done.and_then(|done| closed.map(|()| done)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Gives `test` the laboratory that faults are made in, to itself. What the test broke is made
/// good after it; a laboratory that this does not heal fails the test and is not used again.
pub async fn faulty(test: impl AsyncFnOnce(&Cluster) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut slot = FAULTY.lock().await;
    let cluster = match slot.take() {
        Some(cluster) => cluster,
        None => Cluster::start("faulty", |_| {}).await?,
    };
    let done = AssertUnwindSafe(test(&cluster)).catch_unwind().await;
    let healed = cluster.heal().await;
    if matches!(done, Ok(Ok(()))) && healed.is_ok() {
        *slot = Some(cluster);
        return Ok(());
    }
    let closed = cluster.close(false).await;
    match done {
        Ok(done) => done.and(healed).and(closed),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A turn at keeping the shared laboratory busy: two at once would test the machine.
pub async fn busy() -> tokio::sync::MutexGuard<'static, ()> {
    BUSY.lock().await
}

/// A laboratory under test. `lab` makes the faults.
pub struct Cluster {
    pub lab: Lab,
    layout: Layout,
    /// As they were when it came up; [`Lab::facts`] knows the processes of now.
    pub facts: LabFile,
    announced: Mutex<Vec<String>>,
    http: reqwest::Client,
    /// Of the shared laboratory: where its traces go.
    collector: Option<Collector>,
}

/// A second tenant, and a key of it.
pub struct Tenant {
    pub name: String,
    pub caller: Caller,
}

impl Cluster {
    async fn start(name: &str, shape: impl FnOnce(&mut Spec)) -> anyhow::Result<Self> {
        let dir = dir(name);
        let mut spec = Spec::new(dir.clone(), env!("CARGO_BIN_EXE_godwit").into(), search_path());
        spec.ports = PortPlan::Free;
        shape(&mut spec);
        let _turn = STARTING.lock().await;
        let lab = lab::up(spec).await.with_context(|| format!("laboratory `{name}`"))?;
        let facts = lab.facts().context("a laboratory that is up has no facts")?;
        let layout = Layout::new(&dir)?;
        let http = crate::client::http()?;
        Ok(Self { lab, layout, facts, announced: Mutex::default(), http, collector: None })
    }

    /// Stops it, judges its logs and removes it; the logs stay when the tests were not `sound`.
    async fn close(self, sound: bool) -> anyhow::Result<()> {
        let Self { lab, layout, announced, .. } = self;
        lab.down().await?;
        let announced = announced.into_inner().unwrap_or_else(PoisonError::into_inner);
        let errors = error_lines(&layout, &announced)?;
        if sound && errors.is_empty() {
            lab::purge(&layout)?;
            return Ok(());
        }
        if let Ok(data) = fs::canonicalize(layout.data()) {
            fs::remove_dir_all(data)?;
        }
        eprintln!("the laboratory's logs are in {}", layout.logs().display());
        let some = errors.get(..20).unwrap_or(&errors).join("\n");
        ensure!(errors.is_empty(), "{} lines unannounced in the log:\n{some}", errors.len());
        Ok(())
    }

    /// Ends every fault and waits until each region finds nothing amiss.
    async fn heal(&self) -> anyhow::Result<()> {
        self.lab.heal();
        for (a, b, round_trip_ms) in DISTANCES {
            self.lab.delay(&region(a), &region(b), round_trip_ms)?;
        }
        for name in REGIONS {
            self.lab.resume(&region(name).into())?;
        }
        for name in REGIONS {
            self.lab.restart(&region(name).into()).await?;
        }
        for name in REGIONS {
            self.sound(name, SOON).await?;
        }
        Ok(())
    }

    /// Waits until a region finds nothing amiss.
    pub async fn sound(&self, name: &str, within: Duration) -> anyhow::Result<()> {
        let url = format!("{}/health", self.region(name).public);
        eventually(&format!("a sound {name}"), within, async || {
            let answer = self.http.get(&url).send().await;
            let answer = answer.map_err(|error| format!("{error:#}"))?;
            let health: Value = answer.json().await.map_err(|error| format!("{error:#}"))?;
            if health["status"] == "ok" { Ok(()) } else { Err(health.to_string()) }
        })
        .await
    }

    /// Tells that ERROR lines with this text are part of a test.
    #[expect(dead_code, reason = "for tests whose faults a person must be told of")]
    pub fn announce(&self, text: impl Into<String>) {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).push(text.into());
    }

    /// Of the tenant `demo`, with all scopes and a fresh session.
    pub fn caller(&self) -> Caller {
        self.caller_with(self.facts.tenant.as_ref().map(|tenant| tenant.api_key.clone()))
    }

    /// With this key, or none.
    pub fn caller_with(&self, key: Option<String>) -> Caller {
        let base =
            |(name, facts): (&Region, &RegionFacts)| (name.to_string(), facts.public.clone());
        let bases: BTreeMap<_, _> = self.facts.regions.iter().map(base).collect();
        Caller::new(self.http.clone(), bases, key)
    }

    pub fn collector(&self) -> anyhow::Result<&Collector> {
        self.collector.as_ref().context("only the shared laboratory has a collector")
    }

    pub fn dir(&self) -> &Path {
        self.layout.root()
    }

    pub fn region(&self, name: &str) -> &RegionFacts {
        &self.facts.regions[&region(name)]
    }

    /// A new tenant with a key of all scopes, by the commands that a user would give.
    pub async fn tenant(&self, name: &str) -> anyhow::Result<Tenant> {
        self.command(&["tenant", "create", name]).await?;
        let key = self.key(name, "read,write,admin", 1).await?;
        Ok(Tenant { name: name.to_owned(), caller: self.caller_with(Some(key)) })
    }

    /// A new key of a tenant.
    pub async fn key(&self, tenant: &str, scopes: &str, days: u32) -> anyhow::Result<String> {
        let days = days.to_string();
        let what = ["key", "create", "--tenant", tenant, "--name", "test", "--scopes", scopes];
        let printed = self.command(&[&what[..], &["--days", &days]].concat()).await?;
        Ok(printed["key"].as_str().context("`key create` printed no key")?.to_owned())
    }

    /// Runs a command of `godwit` on this laboratory and returns the JSON it prints.
    pub async fn command(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_godwit"));
        command.args(arguments).args(["--output", "json", "--lab"]).arg(self.layout.root());
        let output = command
            .env("GODWIT__DATABASE__ACQUIRE_MS_MAX", "30000")
            // What a command writes where it is run is not for the source tree.
            .current_dir(self.layout.logs())
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("godwit {} ended with {}: {said}", arguments.join(" "), output.status);
        }
        serde_json::from_slice(&output.stdout).context("what the command printed")
    }

    /// The log lines of a region's first API process so far, as JSON.
    pub fn log(&self, region: &str) -> anyhow::Result<Vec<Value>> {
        let path = self.layout.logs().join(format!("{region}-api.log"));
        let text = fs::read_to_string(path)?;
        // The last line may still be on its way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
    }
}

/// For tests of anything but how soon a region is given up.
pub fn patient(spec: &mut Spec) {
    for (name, value) in PATIENT {
        set(spec, name, value);
    }
}

/// Gives the laboratory's processes a setting, as `GODWIT__SECTION__KEY`.
pub fn set(spec: &mut Spec, name: &str, value: &str) {
    spec.environment.push((name.to_owned(), value.to_owned()));
}

/// Runs in the background for as long as the run does.
pub fn background(work: impl Future<Output = ()> + Send + 'static) {
    RUNTIME.spawn(work);
}

pub fn region(name: &str) -> Region {
    name.parse().expect("a region's name")
}

/// Waits until `check` says yes, and at the deadline tells what it said last.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut check: impl AsyncFnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let until = SystemClock.monotonic() + deadline;
    let mut turns = tokio::time::interval(Duration::from_millis(20));
    loop {
        turns.tick().await;
        match check().await {
            Ok(found) => return Ok(found),
            Err(last) if SystemClock.monotonic() > until => {
                bail!("not within {deadline:?}: {what}; last: {last}")
            }
            Err(_) => {}
        }
    }
}

/// A directory for a laboratory, which is swept of its processes when the run is interrupted.
pub fn dir(name: &str) -> PathBuf {
    let dir = runs_dir().join(format!("{}-{name}", std::process::id()));
    DIRS.lock().unwrap_or_else(PoisonError::into_inner).push(dir.clone());
    dir
}

fn runs_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("it")
}

#[expect(
    clippy::disallowed_methods,
    reason = "where Postgres and Redis are is the machine's to say"
)]
fn search_path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// ERROR lines, and lines that are none of ours, as a panic before logging would leave.
fn error_lines(layout: &Layout, announced: &[String]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(layout.logs())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.contains("-api") {
            continue;
        }
        let text = fs::read(&path)?;
        let text = String::from_utf8_lossy(&text);
        let bad = |line: &&str| match serde_json::from_str::<Value>(line) {
            Ok(line) => line["level"] == "ERROR",
            // A process that was killed leaves half a line.
            Err(_) => !line.starts_with('{') && !line.is_empty(),
        };
        let unlisted = |line: &&str| !announced.iter().any(|text| line.contains(text));
        found.extend(
            text.lines().filter(bad).filter(unlisted).map(|line| format!("{name}: {line}")),
        );
    }
    Ok(found)
}

/// Stops whatever runs of this run's laboratories, without asking them.
async fn sweep_all() {
    let dirs = DIRS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for dir in dirs {
        let Ok(layout) = Layout::new(&dir) else { continue };
        // One that is just starting may start one more process.
        while lab::sweep(&layout).await > 0 {}
    }
}

/// Stops and removes what a run that was killed has left.
async fn clear_leftovers() {
    for entry in fs::read_dir(runs_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.split_once('-').and_then(|(pid, _)| pid.parse().ok());
        let alive = pid.is_some_and(|pid| {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok()
        });
        if alive {
            continue;
        }
        if let Ok(layout) = Layout::new(&entry.path()) {
            lab::sweep(&layout).await;
            // What stays takes room and nothing else.
            let _ = lab::purge(&layout);
        }
    }
}
