//! How commands speak to a laboratory that runs: one line of JSON each way, on a socket.

use super::{
    agent::{self, Order},
    data::HalfRewound,
    dns,
    laboratory::Inner,
    layout::{Layout, write_private},
    spec::{Severing, Target},
    status::Status,
};
use crate::vocab::Region;
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Weak,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

/// The kernel's limit is 108 bytes on Linux and 104 on macOS, with an end mark.
const SOCKET_PATH_BYTES_MAX: usize = 100;
const REQUEST_BYTES_MAX: u64 = 64 * 1024;
/// Longest wait for an answer; starting a region again takes longest.
const ANSWER_PATIENCE: Duration = Duration::from_mins(2);

/// What can be asked of a laboratory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Request {
    Status,
    Down,
    Kill {
        target: Target,
    },
    Start {
        target: Target,
    },
    Pause {
        target: Target,
    },
    Resume {
        target: Target,
    },
    Cut {
        a: Region,
        b: Region,
    },
    Heal,
    Delay {
        a: Region,
        b: Region,
        round_trip_ms: u64,
    },
    Sever(Severing),
    Agent {
        region: Region,
        order: Order,
    },
    /// Has DNS started, where it does not run.
    Dns,
    /// Raises a region's drain flag, or lowers it.
    Drain {
        region: Region,
        drained: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Done(Box<Status>),
    /// What an order tells of.
    CarriedOut(Option<PathBuf>),
    /// It must not be done as things are.
    Refused(String),
    Failed(String),
}

/// An order that must not be carried out as things are.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotNow(String);

/// Asks the laboratory in `dir` and returns how it stands afterwards.
///
/// # Errors
/// When none runs there, or it could not do it.
pub async fn ask(dir: &Path, request: &Request) -> anyhow::Result<Status> {
    let exchanged = tokio::time::timeout(ANSWER_PATIENCE, exchange(dir, request)).await;
    match exchanged.context("the laboratory does not answer")?? {
        Answer::Done(status) => Ok(*status),
        _ => bail!("the laboratory answers something else"),
    }
}

/// Has an order carried out, however long it takes, and returns the path that it tells of. What was
/// begun goes on when this is dropped.
///
/// # Errors
/// [`NotNow`], and when no laboratory runs there, or it could not do it.
pub async fn order(dir: &Path, region: Region, order: Order) -> anyhow::Result<Option<PathBuf>> {
    match exchange(dir, &Request::Agent { region, order }).await? {
        Answer::CarriedOut(path) => Ok(path),
        _ => bail!("the laboratory answers something else"),
    }
}

async fn exchange(dir: &Path, request: &Request) -> anyhow::Result<Answer> {
    let layout = Layout::new(dir)?;
    let none = || {
        format!("no laboratory runs in {}: start one with `godwit lab up`", layout.root().display())
    };
    let stream = UnixStream::connect(socket(&layout)).await.with_context(none)?;
    let mut stream = BufReader::new(stream);
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let mut answer = String::new();
    // One that is killed just now resets the connection or closes it.
    stream.write_all(&line).await.with_context(none)?;
    stream.read_line(&mut answer).await.with_context(none)?;
    match serde_json::from_str(&answer).with_context(none)? {
        Answer::Refused(why) => Err(NotNow(why).into()),
        Answer::Failed(why) => bail!(why),
        answer => Ok(answer),
    }
}

/// Opens the socket and returns the task that answers on it.
///
/// # Errors
/// When it cannot be opened.
pub(super) fn serve(lab: Weak<Inner>) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let layout = lab.upgrade().context("the laboratory is gone")?.layout.clone();
    let path = socket(&layout);
    if !path.starts_with(layout.root()) {
        let parent = path.parent().context("a socket without a directory")?;
        claim(parent).with_context(|| parent.display().to_string())?;
    }
    // The lock says that nobody serves it.
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    write_private(&layout.root().join("control"), path.as_os_str().as_encoded_bytes())?;
    Ok(async move {
        let mut answering = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(answering.spawn(answer(stream, lab.clone()))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                },
                Some(_) = answering.join_next() => {}
            }
        }
    })
}

/// Removes the socket of a laboratory that went down.
pub(super) fn remove(layout: &Layout) {
    // What stays is replaced by the next one.
    let _ = fs::remove_file(socket(layout));
    let _ = fs::remove_file(layout.root().join("control"));
}

/// In the laboratory, or where a long path leaves no room for it, in the directory for temporary
/// files under a name made from that path.
fn socket(layout: &Layout) -> PathBuf {
    let own = layout.root().join("control.sock");
    if own.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return own;
    }
    let digest = Sha256::digest(layout.root().as_os_str().as_encoded_bytes());
    let name = format!("godwit-lab-{}", hex::encode(&digest[..8]));
    Path::new("/tmp").join(name).join("control.sock")
}

/// Makes a directory of our own where anybody may make one.
fn claim(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(dir)?;
            let ours = found.uid() == nix::unistd::Uid::effective().as_raw();
            let closed = found.mode().trailing_zeros() >= 6;
            if found.is_dir() && ours && closed {
                Ok(())
            } else {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to someone else"))
            }
        }
        made => made,
    }
}

async fn answer(stream: UnixStream, lab: Weak<Inner>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if (&mut stream).take(REQUEST_BYTES_MAX).read_line(&mut line).await.is_err() {
        return;
    }
    let Some(lab) = lab.upgrade() else { return };
    let answer = match serde_json::from_str(&line) {
        Err(error) => Answer::Failed(format!("not a request: {error}")),
        Ok(request) => match perform(&lab, request).await {
            Ok(answer) => answer,
            Err(error) if error.is::<HalfRewound>() => Answer::Refused(format!("{error:#}")),
            Err(error) => Answer::Failed(format!("{error:#}")),
        },
    };
    if let Ok(mut line) = serde_json::to_vec(&answer) {
        line.push(b'\n');
        // Whoever asked may have gone.
        let _ = stream.write_all(&line).await;
    }
}

async fn perform(lab: &Inner, request: Request) -> anyhow::Result<Answer> {
    match request {
        Request::Status => {}
        Request::Down => lab.down_asked.cancel(),
        Request::Kill { target } => lab.kill(&target).await?,
        Request::Start { target } => lab.restart(&target).await?,
        Request::Pause { target } => lab.pause(&target)?,
        Request::Resume { target } => lab.resume(&target)?,
        Request::Cut { a, b } => lab.links.cut(&a, &b)?,
        Request::Heal => lab.links.heal(),
        Request::Delay { a, b, round_trip_ms } => lab.links.delay(&a, &b, round_trip_ms)?,
        Request::Sever(severing) => lab.sever(&severing)?,
        Request::Dns => {
            dns::start(lab).await?;
            lab.write_file()?;
        }
        Request::Drain { region, drained } => {
            dns::drain(lab, &region, drained)?;
            lab.write_file()?;
        }
        Request::Agent { region, order } => {
            return agent::carry_out(lab, &region, order).await.map(Answer::CarriedOut);
        }
    }
    Ok(Answer::Done(Box::new(lab.status())))
}
