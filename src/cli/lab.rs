//! `godwit lab`: three regions on this machine.

mod status;
mod up;

use super::{Output, Refused, block_on, target::DEFAULT_LAB};
use crate::{
    lab::{self, Direction, Kind, Layout, Order, Severing, Target, control::Request},
    vocab::{Clock as _, Region, SystemClock},
};
use anyhow::{Context as _, bail};
use std::{io::Read as _, path::PathBuf, time::Duration};

/// Longest input that the agent reads.
const UPSTREAM_BYTES_MAX: u64 = 16 * 1024;

/// Longest wait for a laboratory to go down by itself.
const DOWN_PATIENCE: Duration = Duration::from_secs(40);

/// Three regions on this machine, with the real distances between them
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  godwit lab up --detach
  godwit lab cut us-east-1 ap-south-1
  godwit lab status
  godwit lab heal
  godwit lab down")]
pub struct Lab {
    #[command(subcommand)]
    action: Action,
    /// Where the laboratory keeps itself
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_LAB)]
    dir: PathBuf,
}

/// A region or one of its processes: REGION, or REGION/postgres, REGION/redis, REGION/api
#[derive(Debug, clap::Args)]
struct At {
    #[arg(value_name = "REGION[/PART]")]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Between {
    #[arg(value_name = "REGION")]
    a: Region,
    #[arg(value_name = "REGION")]
    b: Region,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Up(up::Up),
    /// Stop everything
    Down {
        /// And remove all it kept
        #[arg(long)]
        purge: bool,
    },
    /// What runs, and how the links are
    Status {
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// End processes without warning (SIGKILL)
    Kill(At),
    /// Start again what is dead, and wait until it answers
    Start(At),
    /// Stop processes where they are (SIGSTOP)
    Pause(At),
    /// Let paused processes go on (SIGCONT)
    Resume(At),
    /// Hold everything between two regions, as if the cable were cut
    Cut(Between),
    /// Undo every cut: what was held is delivered
    Heal,
    /// Take a region out of DNS (`up --dns`), as its operators would; it goes on running
    Drain {
        #[arg(value_name = "REGION")]
        region: Region,
    },
    /// Put a drained region back into DNS
    Undrain {
        #[arg(value_name = "REGION")]
        region: Region,
    },
    /// Set the round trip between two regions
    Delay {
        #[command(flatten)]
        between: Between,
        /// Up to a minute
        #[arg(value_name = "MS", value_parser = clap::value_parser!(u64).range(..=60_000))]
        ms: u64,
    },
    /// What a region's API process has its Postgres done to, beside SQL, when the primary moves
    ///
    /// `stop`, `start`; `keep` copies the log beside the data and prints where; `rewind` and
    /// `rebuild` make it a follower, and read `{"source", "primary_conninfo", "primary_slot_name"}`
    /// from standard input. Each can be given again, also after it was broken off.
    #[command(hide = true)]
    Agent {
        #[arg(value_name = "REGION")]
        region: Region,
        #[arg(value_name = "VERB", value_enum)]
        verb: Verb,
    },
    /// Reset every connection of a link once some more bytes have passed
    Sever {
        #[arg(value_name = "FROM")]
        from: Region,
        #[arg(value_name = "TO")]
        to: Region,
        /// Bytes that still pass
        #[arg(long, value_name = "BYTES")]
        after: u64,
        /// Which bytes count: those of FROM, who connects, or those of TO, who answers
        #[arg(long, value_enum)]
        direction: Direction,
        #[arg(long, value_enum, default_value = "http")]
        link: Kind,
    },
}

/// What the agent does: an [`Order`] without its details.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Verb {
    Stop,
    Start,
    Keep,
    Rewind,
    Rebuild,
}

impl Verb {
    fn order(self) -> anyhow::Result<Order> {
        let upstream = || {
            let told = std::io::stdin().take(UPSTREAM_BYTES_MAX);
            serde_json::from_reader(told).context("standard input does not say whom to follow")
        };
        Ok(match self {
            Self::Stop => Order::Stop,
            Self::Start => Order::Start,
            Self::Keep => Order::Keep,
            Self::Rewind => Order::Rewind(upstream()?),
            Self::Rebuild => Order::Rebuild(upstream()?),
        })
    }
}

impl Lab {
    pub fn run(self) -> anyhow::Result<()> {
        let Self { action, dir } = self;
        let ask = |request: Request| block_on(lab::control::ask(&dir, &request));
        let done = match action {
            Action::Up(up) => return up.run(dir),
            Action::Down { purge } => return block_on(down(&dir, purge)),
            Action::Status { output } => return output.print(&ask(Request::Status)?, status::text),
            Action::Kill(At { target }) => {
                ask(Request::Kill { target: target.clone() })?;
                format!("{target}: killed; `godwit lab start {target}` starts it again")
            }
            Action::Start(At { target }) => {
                ask(Request::Start { target: target.clone() })?;
                format!("{target}: runs")
            }
            Action::Pause(At { target }) => {
                ask(Request::Pause { target: target.clone() })?;
                format!("{target}: paused; `godwit lab resume {target}` lets it go on")
            }
            Action::Resume(At { target }) => {
                ask(Request::Resume { target: target.clone() })?;
                format!("{target}: goes on")
            }
            Action::Cut(Between { a, b }) => {
                ask(Request::Cut { a: a.clone(), b: b.clone() })?;
                format!("{a} and {b} no longer hear each other; `godwit lab heal` ends that")
            }
            Action::Heal => {
                ask(Request::Heal)?;
                "every link is whole".to_owned()
            }
            Action::Drain { region } => {
                ask(Request::Drain { region: region.clone(), drained: true })?;
                format!("{region}: DNS sends nobody there; `godwit lab undrain {region}` ends that")
            }
            Action::Undrain { region } => {
                ask(Request::Drain { region: region.clone(), drained: false })?;
                format!("{region}: DNS sends its users there again")
            }
            Action::Delay { between: Between { a, b }, ms } => {
                ask(Request::Delay { a: a.clone(), b: b.clone(), round_trip_ms: ms })?;
                format!("{a} and {b} are {ms} ms apart")
            }
            Action::Agent { region, verb } => {
                let told = block_on(lab::control::order(&dir, region, verb.order()?));
                let told =
                    told.map_err(|error| match error.downcast::<lab::control::NotNow>() {
                        Ok(not_now) => Refused(not_now.to_string()).into(),
                        Err(error) => error,
                    })?;
                // Nothing but what was asked for: a program reads it.
                return told.map_or(Ok(()), |path| {
                    Output::Text.print(&path, |path| path.display().to_string())
                });
            }
            Action::Sever { from, to, after, direction, link } => {
                let word = format!("the link from {from} to {to} breaks after {after} more bytes");
                ask(Request::Sever(Severing { from, to, kind: link, direction, after }))?;
                word
            }
        };
        Output::Text.print(&done, Clone::clone)
    }
}

async fn down(dir: &std::path::Path, purge: bool) -> anyhow::Result<()> {
    let layout = Layout::new(dir)?;
    if !layout.holds_one() {
        // Nothing there is ours to stop, still less to remove.
        let root = layout.root().display();
        return Output::Text.print(&(), |()| format!("no laboratory in {root}"));
    }
    let give_up_at = SystemClock.monotonic() + DOWN_PATIENCE;
    let mut asked = false;
    let lock = loop {
        match lab::lock(&layout) {
            Ok(lock) => break lock,
            Err(error) if SystemClock.monotonic() > give_up_at => {
                bail!("it does not go down within {DOWN_PATIENCE:?}: {error:#}")
            }
            // It may be too young to hear.
            Err(_) if !asked => asked = lab::control::ask(dir, &Request::Down).await.is_ok(),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let left = lab::sweep(&layout).await;
    if purge {
        lab::purge(&layout)?;
    }
    drop(lock);
    Output::Text.print(&(), |()| match (asked, left) {
        (false, 0) => "nothing ran".to_owned(),
        (true, 0) => "stopped".to_owned(),
        (_, left) => format!("stopped; {left} processes had lost their supervisor"),
    })
}
