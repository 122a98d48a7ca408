//! A process that the laboratory started.

use super::processes;
use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    process::Command,
    sync::{mpsc, watch},
};
use tokio_util::task::TaskTracker;

/// Enough of a log to see why a process failed.
const TAIL_BYTES: u64 = 2_000;

/// Running, or ended. A task of the laboratory waits for its end, so that it never stays a zombie.
#[derive(Debug)]
pub struct Child {
    name: String,
    pid: i32,
    log: PathBuf,
    ended: watch::Receiver<Option<Ended>>,
    expected: Arc<AtomicBool>,
}

#[derive(Debug, Clone)]
pub struct Ended {
    pub status: ExitStatus,
    /// What it printed, when that was captured.
    pub printed: Vec<u8>,
}

/// The end of a process, for who keeps the books.
#[derive(Debug)]
pub struct Notice {
    pub name: String,
    pub status: ExitStatus,
    /// Whether the laboratory ended it.
    pub expected: bool,
}

/// What starts processes.
#[derive(Debug)]
pub struct Nursery {
    pub tracker: TaskTracker,
    pub notices: mpsc::Sender<Notice>,
}

impl Nursery {
    /// Starts `command` with its own process group, so that the terminal's Ctrl-C reaches the
    /// laboratory alone. Its output goes to the end of `log`; `captured`, only its errors do.
    ///
    /// # Errors
    /// When the program cannot be run or the log not be written.
    pub fn spawn(
        &self,
        name: String,
        mut command: Command,
        log: &Path,
        captured: bool,
    ) -> anyhow::Result<Arc<Child>> {
        let file = fs::File::options().append(true).create(true).open(log);
        let file = file.with_context(|| log.display().to_string())?;
        let stdout = if captured { Stdio::piped() } else { file.try_clone()?.into() };
        command.stdin(Stdio::null()).stdout(stdout).stderr(file).process_group(0);
        let program = command.as_std().get_program().to_owned();
        let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.context("a process without an id")?;
        let (tell, ended) = watch::channel(None);
        let expected = Arc::new(AtomicBool::new(false));
        let notice = (self.notices.clone(), name.clone(), Arc::clone(&expected));
        self.tracker.spawn(async move {
            // Fails only if someone else had waited for it, which nobody does.
            let Ok(output) = child.wait_with_output().await else { return };
            let status = output.status;
            tell.send_replace(Some(Ended { status, printed: output.stdout }));
            let (notices, name, expected) = notice;
            let expected = expected.load(Ordering::Relaxed);
            // Full only when the books are far behind; the next notice brings them up to date.
            let _ = notices.try_send(Notice { name, status, expected });
        });
        Ok(Arc::new(Child { name, pid, log: log.to_owned(), ended, expected }))
    }
}

impl Child {
    /// The process id, while it runs.
    pub fn running(&self) -> Option<i32> {
        if self.ended.borrow().is_none() { Some(self.pid) } else { None }
    }

    /// Waits for its end.
    pub async fn end(&self) -> Ended {
        let mut ended = self.ended.clone();
        let seen = ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        match seen {
            Some(ended) => ended,
            // The runtime is going away, and this with it.
            None => std::future::pending().await,
        }
    }

    /// Waits for its successful end and returns what it printed.
    ///
    /// # Errors
    /// When it fails: with the end of its log.
    pub async fn success(&self) -> anyhow::Result<Vec<u8>> {
        self.expected.store(true, Ordering::Relaxed);
        let ended = self.end().await;
        if !ended.status.success() {
            bail!("{}", self.failure(ended.status));
        }
        Ok(ended.printed)
    }

    /// Waits until `check` says yes, at most for `patience`.
    ///
    /// # Errors
    /// When the process ends first or the patience does: with the last answer and the log's end.
    pub async fn until<T, F: Future<Output = Result<T, String>>>(
        &self,
        what: &str,
        patience: Duration,
        mut check: impl FnMut() -> F,
    ) -> anyhow::Result<T> {
        let mut last = String::from("never asked");
        let found = async {
            loop {
                match check().await {
                    Ok(found) => return found,
                    Err(status) => last = status,
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            found = tokio::time::timeout(patience, found) => if let Ok(found) = found {
                return Ok(found);
            },
            ended = self.end() => bail!("{}", self.failure(ended.status)),
        }
        bail!("{}: no {what} within {patience:?}; last: {last}{}", self.name, self.tail())
    }

    /// Asks with `signal`, and after `grace` kills.
    pub async fn stop(&self, signal: Signal, grace: Duration) {
        self.expected.store(true, Ordering::Relaxed);
        if let Some(pid) = self.running() {
            // First, so that one that was paused does nothing else when it goes on.
            processes::signal(pid, signal);
            processes::thaw(pid);
        }
        if tokio::time::timeout(grace, self.end()).await.is_err() {
            self.kill();
            // Nothing survives this but a process that waits for a broken disk.
            let _ = tokio::time::timeout(grace, self.end()).await;
        }
    }

    /// SIGKILL, to all of it.
    pub fn kill(&self) {
        self.expected.store(true, Ordering::Relaxed);
        if let Some(pid) = self.running() {
            processes::destroy(pid);
        }
    }

    fn failure(&self, status: ExitStatus) -> String {
        format!("{} ended ({status}){}", self.name, self.tail())
    }

    fn tail(&self) -> String {
        match tail(&self.log) {
            Some(tail) => format!("\n--- the end of {}\n{tail}", self.log.display()),
            None => String::new(),
        }
    }
}

/// The last lines of a log; `None` when it has none.
#[must_use]
pub fn tail(log: &Path) -> Option<String> {
    let mut file = fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    let from = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line is most likely a part of one.
    let whole = if from == 0 { &*text } else { text.split_once('\n').map_or(&*text, |(_, t)| t) };
    let whole = whole.trim();
    if whole.is_empty() { None } else { Some(whole.to_owned()) }
}
