//! What a laboratory is asked to be, and the words to name its parts.

use super::links::Kind;
use crate::vocab::{Malformed, Region};
use serde::{Deserialize, Serialize};
use std::{ffi::OsString, fmt, num::NonZeroU8, path::PathBuf, str::FromStr, sync::Arc};

/// What to build.
#[derive(Clone)]
pub struct Spec {
    /// Where it keeps everything.
    pub dir: PathBuf,
    /// The first is the primary of a new laboratory.
    pub regions: Vec<Region>,
    pub ports: PortPlan,
    pub wan: Wan,
    pub durability: Durability,
    /// API processes per region.
    pub processes: NonZeroU8,
    /// The `godwit` program whose `serve`, `migrate`, `tenant` and `key` are run.
    pub binary: PathBuf,
    /// Given to each `godwit` that it runs, beside the supervisor's own environment.
    pub environment: Vec<(String, String)>,
    /// Where Postgres' programs are; looked for when `None`.
    pub postgres_bin: Option<PathBuf>,
    /// The redis-server program; looked for when `None`.
    pub redis_server: Option<PathBuf>,
    /// The `pdns_server` program of a rehearsal of DNS; looked for when `None`.
    pub pdns_server: Option<PathBuf>,
    /// Has DNS from the start, not only when somebody asks for it.
    pub dns: bool,
    /// `PATH`, to look for them in.
    pub search_path: OsString,
    /// Postgres, Redis and the relays, without schema, tenant and API.
    pub bare: bool,
    /// Removes all it kept when it goes down or is dropped.
    pub purge: bool,
    pub progress: Progress,
}

impl Spec {
    /// Three regions at their real distances, on the contract's ports, one API process each.
    #[must_use]
    pub fn new(dir: PathBuf, binary: PathBuf, search_path: OsString) -> Self {
        Self {
            dir,
            regions: known_regions(),
            ports: PortPlan::Contract,
            wan: Wan::Real,
            durability: Durability::default(),
            processes: NonZeroU8::MIN,
            binary,
            environment: Vec::new(),
            postgres_bin: None,
            redis_server: None,
            pdns_server: None,
            dns: false,
            search_path,
            bare: false,
            purge: false,
            progress: Progress::default(),
        }
    }
}

/// The regions of the contract.
#[must_use]
pub fn known_regions() -> Vec<Region> {
    let known = ["us-east-1", "eu-west-1", "ap-south-1"];
    known.map(|name| name.parse().expect("a region's name")).into()
}

/// Which ports to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortPlan {
    /// Those that `shared/contract.md` names.
    Contract,
    /// All from this one upward.
    From(u16),
    /// A hundred that no other laboratory of this plan uses, for tests.
    Free,
}

/// How far apart the regions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Wan {
    /// As far as the real ones
    #[default]
    Real,
    /// In one place
    Off,
}

/// What an acknowledged write has survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Durability {
    /// It is on the primary's disk
    #[default]
    Async,
    /// It is on the disk of one more region too (`synchronous_standby_names = 'ANY 1 (...)'`)
    Quorum,
}

impl Durability {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Quorum => "quorum",
        }
    }
}

impl Wan {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Real => "real",
            Self::Off => "off",
        }
    }

    /// The round trip between two regions, in milliseconds.
    pub(super) fn round_trip_ms(self, a: &Region, b: &Region) -> u64 {
        let mut pair = [a.as_str(), b.as_str()];
        pair.sort_unstable();
        match (self, pair) {
            (Self::Off, _) => 0,
            (Self::Real, ["eu-west-1", "us-east-1"]) => 75,
            (Self::Real, ["ap-south-1", "us-east-1"]) => 190,
            (Self::Real, ["ap-south-1", "eu-west-1"]) => 120,
            // Two regions nobody has measured: an ocean apart.
            (Self::Real, _) => 100,
        }
    }
}

/// Told of each step, from whatever task takes it.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Tell>>);

type Tell = dyn Fn(Step<'_>) + Send + Sync;

/// One piece of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// What is going on now.
    Doing(&'a str),
    /// What is done.
    Done(&'a str),
    /// What went wrong without being asked for.
    Warning(&'a str),
}

impl Progress {
    pub fn new(tell: impl Fn(Step<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }
    pub(super) fn tell(&self, step: Step<'_>) {
        if let Some(tell) = &self.0 {
            tell(step);
        }
    }
}

/// A process of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    Postgres,
    Redis,
    /// Counted from 1.
    Api(u8),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres => f.pad("postgres"),
            Self::Redis => f.pad("redis"),
            Self::Api(1) => f.pad("api"),
            Self::Api(number) => f.pad(&format!("api-{number}")),
        }
    }
}

/// What a fault is aimed at: `REGION`, `REGION/postgres`, `REGION/redis`, `REGION/api` (all of its
/// API processes) or `REGION/api-2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub region: Region,
    pub(super) parts: Parts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parts {
    All,
    Apis,
    One(Part),
}

impl Target {
    pub(super) fn hits(&self, part: Part) -> bool {
        match self.parts {
            Parts::All => true,
            Parts::Apis => matches!(part, Part::Api(_)),
            Parts::One(one) => one == part,
        }
    }
}

impl From<Region> for Target {
    fn from(region: Region) -> Self {
        Self { region, parts: Parts::All }
    }
}

impl FromStr for Target {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad =
            Malformed::new("target", "REGION, or REGION/postgres, REGION/redis or REGION/api");
        let (region, part) = text.split_once('/').map_or((text, None), |(r, p)| (r, Some(p)));
        let parts = match part {
            None => Parts::All,
            Some("postgres") => Parts::One(Part::Postgres),
            Some("redis") => Parts::One(Part::Redis),
            Some("api") => Parts::Apis,
            Some(other) => {
                let number = other.strip_prefix("api-").and_then(|n| n.parse().ok());
                Parts::One(Part::Api(number.filter(|n| *n > 0).ok_or(bad)?))
            }
        };
        Ok(Self { region: region.parse()?, parts })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts {
            Parts::All => write!(f, "{}", self.region),
            Parts::Apis => write!(f, "{}/api", self.region),
            Parts::One(Part::Api(number)) => write!(f, "{}/api-{number}", self.region),
            Parts::One(part) => write!(f, "{}/{part}", self.region),
        }
    }
}
crate::vocab::serde_as_text!(Target);

/// A fault that waits for its byte; see [`super::relay::Link::sever`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Severing {
    pub from: Region,
    pub to: Region,
    pub kind: Kind,
    pub direction: super::relay::Direction,
    pub after: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_region_or_some_of_its_processes() {
        let target = |text: &str| text.parse::<Target>().unwrap();
        assert!(target("us-east-1").hits(Part::Redis) && target("us-east-1").hits(Part::Api(2)));
        assert!(target("us-east-1/api").hits(Part::Api(2)));
        assert!(!target("us-east-1/api-1").hits(Part::Api(2)));
        assert!(!target("us-east-1/postgres").hits(Part::Redis));
        for text in ["us-east-1", "us-east-1/api", "us-east-1/api-2", "us-east-1/redis"] {
            assert_eq!(target(text).to_string(), text);
        }
        for text in ["", "US", "us-east-1/", "us-east-1/disk", "us-east-1/api-0", "a/api-x"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn distances_are_the_same_both_ways() {
        let [us, eu, ap] = known_regions().try_into().unwrap();
        assert_eq!(
            (Wan::Real.round_trip_ms(&us, &ap), Wan::Real.round_trip_ms(&ap, &us)),
            (190, 190)
        );
        assert_eq!(
            (Wan::Real.round_trip_ms(&us, &eu), Wan::Real.round_trip_ms(&ap, &eu)),
            (75, 120)
        );
        assert_eq!(Wan::Off.round_trip_ms(&us, &ap), 0);
    }
}
