//! What a region says of its health, for every fault and every two together: `docs/HEALTH.md` is made here.

use crate::{
    client,
    harness::{self, AP, Cluster, EU, SOON, US, eventually, region, set},
};
use anyhow::{Context as _, ensure};
use godwit::{
    lab::Spec,
    vocab::{Clock as _, SystemClock},
};
use serde_json::Value;
use std::{fmt, fs, path::Path, time::Duration};

/// The primary's region first: the other two are alike but for what happens to them.
const REGIONS: [&str; 3] = [US, EU, AP];
const PRIMARY: &str = US;

/// A look at all regions is believed when all looks for so long say the same.
const STEADY: Duration = Duration::from_secs(1);

/// Regions give each other up sooner than by default, or this would take a quarter of an hour.
const HASTY: [(&str, &str); 6] = [
    ("GODWIT__TOPOLOGY__PROBE_MS_MAX", "1000"),
    ("GODWIT__TOPOLOGY__STALE_AFTER_MS", "1500"),
    ("GODWIT__LEASE__TERM_MS", "1500"),
    ("GODWIT__LEASE__MARGIN_MS", "200"),
    ("GODWIT__LEASE__RENEW_INTERVAL_MS", "400"),
    ("GODWIT__LEASE__RENEW_MS_MAX", "600"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Database(&'static str),
    Redis(&'static str),
    /// All of it.
    Region(&'static str),
    /// Between two regions, for everything.
    Link(&'static str, &'static str),
}

use Fault::{Database, Link, Redis};

const FAULTS: [Fault; 10] = [
    Database(US),
    Redis(US),
    Fault::Region(US),
    Database(EU),
    Redis(EU),
    Fault::Region(EU),
    Fault::Region(AP),
    Link(US, EU),
    Link(US, AP),
    Link(EU, AP),
];

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Database(at) => write!(out, "Postgres of {at} dead"),
            Redis(at) => write!(out, "Redis of {at} dead"),
            Fault::Region(at) => write!(out, "all of {at} dead"),
            Link(a, b) => write!(out, "{a} and {b} cut off from each other"),
        }
    }
}

impl Fault {
    /// Whether this is a part of that.
    fn is_part_of(self, other: Self) -> bool {
        match (self, other) {
            (Database(part) | Redis(part), Self::Region(whole)) => part == whole,
            (Link(a, b), Self::Region(whole)) => a == whole || b == whole,
            _ => false,
        }
    }

    async fn make(self, cluster: &Cluster) -> anyhow::Result<()> {
        let lab = &cluster.lab;
        match self {
            Database(at) => lab.kill(&format!("{at}/postgres").parse()?).await,
            Redis(at) => lab.kill(&format!("{at}/redis").parse()?).await,
            Self::Region(at) => lab.kill(&region(at).into()).await,
            Link(a, b) => lab.cut(&region(a), &region(b)),
        }
    }

    async fn mend(self, cluster: &Cluster, others: &[Self]) -> anyhow::Result<()> {
        match self {
            Database(at) => cluster.lab.restart(&format!("{at}/postgres").parse()?).await,
            Redis(at) => cluster.lab.restart(&format!("{at}/redis").parse()?).await,
            Self::Region(at) => cluster.lab.restart(&region(at).into()).await,
            Link(..) => {
                cluster.lab.heal();
                for other in others {
                    if let Link(a, b) = other {
                        cluster.lab.cut(&region(a), &region(b))?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// What is so, from the faults alone: the contract's table of health, and who may grant the lease.
struct World<'a>(&'a [Fault]);

impl World<'_> {
    fn lives(&self, at: &'static str) -> bool {
        !self.0.contains(&Fault::Region(at))
    }

    fn has_database(&self, at: &'static str) -> bool {
        self.lives(at) && !self.0.contains(&Database(at))
    }

    fn has_redis(&self, at: &'static str) -> bool {
        self.lives(at) && !self.0.contains(&Redis(at))
    }

    fn linked(&self, a: &'static str, b: &'static str) -> bool {
        a == b || !self.0.contains(&Link(a, b)) && !self.0.contains(&Link(b, a))
    }

    /// Writes need the primary's database and the grants of a majority, each kept in a region's Redis.
    fn takes_writes(&self) -> bool {
        let grants = |at: &&&'static str| self.has_redis(at) && self.linked(PRIMARY, at);
        self.has_database(PRIMARY) && REGIONS.iter().filter(grants).count() * 2 > REGIONS.len()
    }

    /// What a region says, as [`Said`] tells it.
    fn says(&self, at: &'static str) -> Option<Said> {
        if !self.lives(at) {
            return None;
        }
        let writes = match (self.takes_writes() && self.linked(PRIMARY, at), at == PRIMARY) {
            (false, _) => "refused",
            (true, true) => "local",
            (true, false) => "forwarded",
        };
        let streams = at == PRIMARY || self.has_database(PRIMARY) && self.linked(PRIMARY, at);
        let (database, redis) = (self.has_database(at), self.has_redis(at));
        let status = match (database, redis && streams && writes != "refused") {
            (false, _) => "error",
            (true, false) => "degraded",
            (true, true) => "ok",
        };
        Some(Said {
            liveness: 200,
            readiness: if database && redis { 200 } else { 503 },
            health: if database { 200 } else { 503 },
            status: status.into(),
            writes: writes.into(),
        })
    }
}

/// What a region says of itself; `None` in the place of it: nothing, it is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    liveness: u16,
    readiness: u16,
    health: u16,
    status: String,
    writes: String,
}

impl fmt::Display for Said {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = if self.readiness == 200 { "ready" } else { "not ready" };
        write!(out, "{} {}, {ready}, writes {}", self.health, self.status, self.writes)
    }
}

async fn says(http: &reqwest::Client, base: &str) -> anyhow::Result<Option<Said>> {
    let ask = async |path: &str| http.get(format!("{base}{path}")).send().await;
    let Ok(liveness) = ask("/api/health/liveness").await else {
        return Ok(None);
    };
    let readiness = ask("/api/health/readiness").await?;
    let health = ask("/health").await?;
    let code = health.status().as_u16();
    let told: Value = health.json().await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Some(Said {
        liveness: liveness.status().as_u16(),
        readiness: readiness.status().as_u16(),
        health: code,
        status: text(&told["status"]),
        writes: text(&told["checks"]["primary"]["writes"]),
    }))
}

/// Waits until every region says what it should, and goes on doing so.
async fn settles(
    cluster: &Cluster,
    http: &reqwest::Client,
    faults: &[Fault],
) -> anyhow::Result<Vec<Option<Said>>> {
    let expected: Vec<_> = REGIONS.iter().map(|at| World(faults).says(at)).collect();
    let named: Vec<_> = faults.iter().map(ToString::to_string).collect();
    let mut since = None;
    eventually(&named.join(" and "), SOON, async || {
        let looks = REGIONS.iter().map(|at| says(http, &cluster.region(at).public));
        let said = futures_util::future::try_join_all(looks).await;
        let said = said.map_err(|error| format!("{error:#}"))?;
        let now = SystemClock.monotonic();
        if said != expected {
            since = None;
            return Err(format!("{said:#?} in the place of {expected:#?}"));
        }
        let since = *since.get_or_insert(now);
        if now - since >= STEADY { Ok(said) } else { Err("not for long".into()) }
    })
    .await
}

fn row(faults: &[Fault], said: &[Option<Said>]) -> String {
    let named: Vec<_> = faults.iter().map(ToString::to_string).collect();
    let named = if named.is_empty() { "nothing".to_owned() } else { named.join("; ") };
    let told = said.iter().map(|said| match said {
        None => "no answer".to_owned(),
        Some(said) => said.to_string(),
    });
    let cells: Vec<_> = std::iter::once(named).chain(told).collect();
    format!("| {} |", cells.join(" | "))
}

const HEAD: &str = "\
# Health, fault by fault

Made by the test `health::every_fault_and_every_two_are_told_as_the_contract_says`, from what three regions of a laboratory said while it broke
them. us-east-1 is the primary; eu-west-1 and ap-south-1 are alike but for what is done to them. Nobody has promoted another region yet.

A cell is what the region's public listener answers: the code and `status` of `/health`, which Route 53 asks; whether
`/api/health/readiness` is 200, which a kubelet and a balancer ask; and what becomes of writes there. `/api/health/liveness` is 200 wherever a
region answers at all. What is dead was killed (SIGKILL), and is back as it was by a start.

- A region without its own Postgres is 503: another serves its users better. One without its Redis is not ready, which takes it out
  of a balancer that follows readiness; asked past the balancer it is 200: its reads and its sign-in go on by its directory, and while it is the
  only region left they are better than none.
- A region without a primary is degraded, and 200: reads go on.
- Writes need the primary's Postgres and the grants of a majority of regions, which are kept in their Redis.

";

pub async fn every_fault_and_every_two_are_told_as_the_contract_says() -> anyhow::Result<()> {
    let hasty = |spec: &mut Spec| {
        for (name, value) in HASTY {
            set(spec, name, value);
        }
    };
    let rows = harness::own("health", hasty, async |cluster| {
        let http = client::http()?;
        let mut rows = vec![row_of(cluster, &http, &[]).await?];
        for (n, first) in FAULTS.iter().enumerate() {
            first.make(cluster).await?;
            rows.push(row_of(cluster, &http, &[*first]).await?);
            for second in &FAULTS[n + 1..] {
                if second.is_part_of(*first) || first.is_part_of(*second) {
                    continue;
                }
                second.make(cluster).await?;
                rows.push(row_of(cluster, &http, &[*first, *second]).await?);
                second.mend(cluster, &[*first]).await?;
                settles(cluster, &http, &[*first]).await?;
            }
            first.mend(cluster, &[]).await?;
            settles(cluster, &http, &[]).await?;
        }
        Ok(rows)
    })
    .await?;
    let columns = format!("| broken | {} |\n|---|---|---|---|\n", REGIONS.join(" | "));
    let made = format!("{HEAD}{columns}{}\n", rows.join("\n"));
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/HEALTH.md");
    let there = fs::read_to_string(&place).unwrap_or_default();
    let fresh = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/HEALTH.md");
    fs::write(&fresh, &made).context("target")?;
    ensure!(there == made, "`cp target/HEALTH.md docs/HEALTH.md`, then look at the diff");
    Ok(())
}

async fn row_of(
    cluster: &Cluster,
    http: &reqwest::Client,
    faults: &[Fault],
) -> anyhow::Result<String> {
    Ok(row(faults, &settles(cluster, http, faults).await?))
}
