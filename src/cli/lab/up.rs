//! `godwit lab up`: in the foreground until Ctrl-C, or in the background.

use crate::{
    cli::{Output, Refused, block_on},
    lab::{self, Durability, Lab, LabFile, Layout, NotOurs, PortPlan, Progress, Spec, Step, Wan},
    vocab::{Clock as _, SystemClock},
};
use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs,
    io::{IsTerminal as _, Write as _},
    num::NonZeroU8,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{ChildStdout, Command},
    signal::unix::{Signal as SignalStream, SignalKind, signal},
};

/// Start everything; Ctrl-C stops it
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
#[command(after_help = "Example: godwit lab up --detach --port-base 20000 --dir /tmp/second")]
pub struct Up {
    /// Go on in the background once everything runs
    #[arg(long)]
    detach: bool,
    /// How far apart the regions are
    #[arg(long, value_enum, default_value_t)]
    wan: Wan,
    /// What an acknowledged write has survived
    #[arg(long, value_enum, default_value_t)]
    durability: Durability,
    /// API processes per region
    #[arg(long, value_name = "N", default_value = "1")]
    processes: NonZeroU8,
    /// Take all ports from N upward, not the usual ones
    #[arg(long, value_name = "N")]
    port_base: Option<u16>,
    /// Only Postgres, Redis and the links: run `godwit serve` yourself, with `regions/*/godwit.toml`
    #[arg(long)]
    bare: bool,
    /// And DNS that sends users to regions by health check, by PowerDNS (docs/DNS.md)
    #[arg(long, conflicts_with = "bare")]
    dns: bool,
    /// Where Postgres' programs are
    #[arg(long, value_name = "DIR", env = "GODWIT_LAB_PG_BIN")]
    pg_bin: Option<PathBuf>,
    /// The redis-server program
    #[arg(long, value_name = "FILE", env = "GODWIT_LAB_REDIS_SERVER")]
    redis_server: Option<PathBuf>,
    /// The `pdns_server` program
    #[arg(long, value_name = "FILE", env = "GODWIT_LAB_PDNS_SERVER")]
    pdns_server: Option<PathBuf>,
    #[arg(long, hide = true, env = "PATH", hide_env = true, default_value = "")]
    search_path: OsString,
    /// This is the background process: tells its parent on standard output.
    #[arg(long, hide = true)]
    supervise: bool,
}

/// What the background process tells its parent, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Told {
    Doing(String),
    Done(String),
    Ready,
}

impl Up {
    pub fn run(self, dir: PathBuf) -> anyhow::Result<()> {
        let layout = Layout::make(&dir).map_err(|error| match error.downcast::<NotOurs>() {
            Ok(not_ours) => Refused(not_ours.to_string()).into(),
            Err(error) => error,
        })?;
        if self.detach {
            return block_on(detach(&dir, &layout));
        }
        if self.supervise {
            // A session of its own: the end of the terminal's does not reach it.
            nix::unistd::setsid().context("no session of its own")?;
            let spec = self.spec(dir, Progress::new(tell_parent))?;
            return block_on(supervise(spec, |_| tell(&Told::Ready)));
        }
        let shown = Shown::new();
        let bar = shown.0.clone();
        let spec = self.spec(dir.clone(), Progress::new(move |step| shown.show(step)))?;
        let started_at = SystemClock.monotonic();
        block_on(supervise(spec, |facts| {
            bar.finish_and_clear();
            let took = SystemClock.monotonic() - started_at;
            let _ = Output::Text.print(facts, |facts| summary(facts, &dir, took, false));
        }))
    }

    fn spec(&self, dir: PathBuf, progress: Progress) -> anyhow::Result<Spec> {
        let binary = std::env::current_exe().context("which program is this?")?;
        let ports = self.port_base.map_or(PortPlan::Contract, PortPlan::From);
        Ok(Spec {
            ports,
            wan: self.wan,
            durability: self.durability,
            processes: self.processes,
            postgres_bin: self.pg_bin.clone(),
            redis_server: self.redis_server.clone(),
            pdns_server: self.pdns_server.clone(),
            dns: self.dns,
            bare: self.bare,
            progress,
            ..Spec::new(dir, binary, self.search_path.clone())
        })
    }
}

/// The signals that ask to stop.
struct Stops([SignalStream; 3]);

impl Stops {
    fn new() -> anyhow::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [a, b, c] = kinds.map(signal);
        Ok(Self([a?, b?, c?]))
    }
    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Runs a laboratory until it is asked to stop. Whatever happens, nothing of it is left running.
async fn supervise(spec: Spec, ready: impl FnOnce(&LabFile)) -> anyhow::Result<()> {
    let mut stops = Stops::new()?;
    let bare = spec.bare;
    let lab = tokio::select! {
        lab = Lab::prepare(spec) => lab?,
        () = stops.next() => bail!("interrupted"),
    };
    let started = tokio::select! {
        started = lab.start() => started,
        () = stops.next() => Err(anyhow::anyhow!("interrupted")),
        () = lab.down_asked() => Err(anyhow::anyhow!("asked to go down")),
    };
    if started.is_ok() {
        let facts = lab.facts().context("a laboratory that is up has no facts")?;
        ready(&facts);
        if bare {
            let _ = writeln!(std::io::stderr(), "bare: no schema, no tenant, no API");
        }
        tokio::select! {
            () = stops.next() => {}
            () = lab.down_asked() => {}
        }
    }
    // A second signal drops the laboratory, which kills what still runs.
    let down = tokio::select! {
        down = lab.down() => down,
        () = stops.next() => Err(anyhow::anyhow!("killed")),
    };
    started.and(down)
}

/// Starts the background process and waits until it is ready.
async fn detach(dir: &Path, layout: &Layout) -> anyhow::Result<()> {
    let started_at = SystemClock.monotonic();
    let mut stops = Stops::new()?;
    let log = layout.supervisor_log();
    let errors = fs::File::create(&log).with_context(|| log.display().to_string())?;
    let mut command = Command::new(std::env::current_exe().context("which program is this?")?);
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--detach");
    command.args(arguments).arg("--supervise");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    let mut child = command.spawn().context("cannot run the supervisor")?;
    let told = child.stdout.take().context("the supervisor has no output")?;
    let mut told = BufReader::new(told).lines();
    let shown = Shown::new();
    let ready = tokio::select! {
        ready = listen(&mut told, &shown) => ready,
        () = stops.next() => {
            if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                // It may be gone already.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM);
            }
            false
        }
    };
    shown.0.finish_and_clear();
    if !ready {
        let status = child.wait().await?;
        let tail = lab::tail(&log).unwrap_or_default();
        bail!("the laboratory did not start ({status})\n{tail}");
    }
    let took = SystemClock.monotonic() - started_at;
    let facts = LabFile::read(dir)?;
    Output::Text.print(&facts, |facts| summary(facts, dir, took, true))
}

/// Shows what the background process tells, until it is ready or gone.
async fn listen(told: &mut Lines<BufReader<ChildStdout>>, shown: &Shown) -> bool {
    while let Ok(Some(line)) = told.next_line().await {
        match serde_json::from_str(&line) {
            Ok(Told::Doing(what)) => shown.show(Step::Doing(&what)),
            Ok(Told::Done(what)) => shown.show(Step::Done(&what)),
            Ok(Told::Ready) => return true,
            Err(_) => {}
        }
    }
    false
}

fn tell_parent(step: Step<'_>) {
    match step {
        Step::Doing(what) => tell(&Told::Doing(what.to_owned())),
        Step::Done(what) => tell(&Told::Done(what.to_owned())),
        // To the log: the parent may have gone long ago.
        Step::Warning(what) => {
            let _ = writeln!(std::io::stderr(), "{what}");
        }
    }
}

fn tell(told: &Told) {
    if let Ok(line) = serde_json::to_string(told) {
        let mut out = std::io::stdout();
        // The parent may have gone; what it asked for goes on.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// Progress: a spinner on a terminal, lines elsewhere.
struct Shown(ProgressBar);

impl Shown {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    fn show(&self, step: Step<'_>) {
        match step {
            Step::Doing(what) => self.0.set_message(what.to_owned()),
            Step::Done(what) | Step::Warning(what) => {
                self.0.suspend(|| {
                    // Nobody may be reading.
                    let _ = writeln!(std::io::stderr(), "{what}");
                });
            }
        }
    }
}

fn summary(facts: &LabFile, dir: &Path, took: Duration, detached: bool) -> String {
    use std::fmt::Write as _;
    let mut text =
        format!("\n{} regions are up, after {:.1} s.\n\n", facts.regions.len(), took.as_secs_f64());
    let mut urls = Vec::new();
    let mut regions: Vec<_> = facts.regions.iter().collect();
    regions.sort_by_key(|(name, _)| **name != facts.primary);
    for (name, region) in regions {
        let role = if *name == facts.primary { "primary" } else { "replica" };
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {name:<12} {:<24} {role}", region.public);
        if role == "replica" {
            urls.push(&region.public);
        }
    }
    if let (Some(tenant), [first, .., last]) = (&facts.tenant, urls.as_slice()) {
        let _ = write!(
            text,
            "
Write in one region, read it in another (tenant {name}):

  export KEY={key}
  curl -i {first}/v1/collections/notes/items -H \"Authorization: Bearer $KEY\" \\
       -H 'Content-Type: application/json' -d '{{\"text\": \"hello\"}}'
  curl -i {last}/v1/collections/notes/items -H \"Authorization: Bearer $KEY\"
",
            name = tenant.name,
            key = tenant.api_key,
        );
    }
    if let Some(admin) = facts.tenant.as_ref().and_then(|tenant| tenant.admin.as_ref()) {
        let _ = write!(
            text,
            "
Its administrator is {}, with the password {}.
",
            admin.email, admin.password,
        );
    }
    if let Some(dns) = &facts.dns {
        let _ = write!(
            text,
            "
DNS, for somebody in Europe (docs/DNS.md):

  dig +short @{} -p {} {} +subnet=198.51.100.105/32
",
            dns.server.ip(),
            dns.server.port(),
            dns.domain,
        );
    }
    let at = if dir == Path::new(super::DEFAULT_LAB) {
        String::new()
    } else {
        format!(" --dir {}", dir.display())
    };
    let stop =
        if detached { format!("`godwit lab down{at}` stops") } else { "Ctrl-C stops".into() };
    let _ = write!(
        text,
        "
  godwit lab status{at}
  godwit lab cut us-east-1 ap-south-1{at}

{stop} it all.
"
    );
    text
}
