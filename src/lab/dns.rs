//! A rehearsal of the DNS that sends users to regions, where somebody asks for one.
//!
//! PowerDNS answers for the domain of `regions.yaml` by the records that `terraform/modules/dns` makes in Route 53:
//! by the user's place, from health checks of each region's `/health` and of its drain flag. Each region has a
//! balancer on an address of its own (127.0.0.11 and up, on one port), which the answers name and the checks ask,
//! so that whoever follows an answer is served as by the real thing.
//!
//! - Nothing of it runs, and no port is taken, before it is asked for. It is ready in well under a second.
//! - Balancers and flags end with the supervisor. The name server is a child like every other: one that a killed
//!   supervisor left is found and stopped, and one that ended is started again by the next who asks for it.

mod flags;
mod places;
mod question;
mod zone;

use super::{
    api,
    child::Child,
    laboratory::Inner,
    layout::{make_dir, write_private},
    ports::local,
    relay::Link,
    spec::Step,
    tools,
};
use crate::vocab::{Region, SharedClock, SystemClock};
use anyhow::{Context as _, bail};
use flags::Flags;
pub use places::{NOWHERE, Places, Users};
pub use question::resolve;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::process::Command;

/// Between two health checks: as often as PowerDNS can. Route 53 takes ten, and wants three failures.
pub const INTERVAL_SECONDS: u32 = 1;
/// Longest wait of a check for its answer, as Route 53 waits.
const CHECK_SECONDS_MAX: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(2);

/// What `lab.json` and `lab status` tell of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsFacts {
    pub server: SocketAddr,
    pub domain: String,
    pub balancers: BTreeMap<Region, SocketAddr>,
    /// `/REGION/drained` is there while the region is drained.
    pub flags: SocketAddr,
    pub drained: BTreeSet<Region>,
    /// Absent once the name server has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
}

/// The parts of a rehearsal.
#[derive(Debug)]
pub(super) struct Dns {
    places: Places,
    server: SocketAddr,
    balancers: BTreeMap<Region, Link>,
    flags: Flags,
    child: Mutex<Option<Arc<Child>>>,
}

impl Dns {
    async fn open(lab: &Inner) -> anyhow::Result<Self> {
        let places = Places::of(&lab.spec.regions)?;
        let ports = lab.ports.dns;
        let clock: SharedClock = Arc::new(SystemClock);
        let mut balancers = BTreeMap::new();
        for (index, region) in places.regions().iter().enumerate() {
            let listen = SocketAddr::from((zone::address(index), ports.balancers));
            let apis = lab.ports.of(region)?.apis.iter().map(|api| local(api.public)).collect();
            let link = Link::bind(clock.clone(), listen, apis, Duration::ZERO).await;
            let link = link.map_err(|error| {
                let hint = match error.kind() {
                    std::io::ErrorKind::AddrNotAvailable => format!(
                        " (macOS has 127.0.0.1 alone: `sudo ifconfig lo0 alias {}`)",
                        listen.ip()
                    ),
                    _ => String::new(),
                };
                anyhow::Error::new(error)
                    .context(format!("the balancer of {region} on {listen}{hint}"))
            })?;
            balancers.insert(region.clone(), link);
        }
        let flags = Flags::open(local(ports.flags)).await;
        let flags = flags.with_context(|| format!("the drain flags on port {}", ports.flags))?;
        let dir = lab.layout.dns();
        make_dir(&dir, 0o700)?;
        write_private(&dir.join("pdns.conf"), zone::settings(ports).as_bytes())?;
        write_private(&dir.join("zones.yaml"), zone::zone(&places, ports).as_bytes())?;
        let (server, child) = (local(ports.server), Mutex::default());
        Ok(Self { places, server, balancers, flags, child })
    }

    /// The name server, while it runs.
    fn child(&self) -> Option<Arc<Child>> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).clone();
        child.filter(|child| child.running().is_some())
    }

    pub fn facts(&self) -> DnsFacts {
        let balancer = |(region, link): (&Region, &Link)| (region.clone(), link.address());
        DnsFacts {
            server: self.server,
            domain: self.places.domain.clone(),
            balancers: self.balancers.iter().map(balancer).collect(),
            flags: self.flags.address(),
            drained: self.flags.all(),
            pid: self.child().and_then(|child| child.running()),
        }
    }

    pub async fn stop(&self) {
        if let Some(child) = self.child() {
            child.stop(nix::sys::signal::Signal::SIGTERM, GRACE).await;
        }
    }

    pub fn kill(&self) {
        if let Some(child) = self.child() {
            child.kill();
        }
    }

    /// Whether the answers for every region's users are there. Asking also has their health checks begun.
    async fn answers(&self) -> Result<(), String> {
        for users in self.places.users() {
            let told = resolve(self.server, &self.places.domain, users.address).await?;
            if told.len() != 1 {
                return Err(format!("{told:?} for users of {}", users.place));
            }
        }
        Ok(())
    }
}

/// Starts the rehearsal, or what has ended of it, and returns when it answers.
///
/// # Errors
/// When PowerDNS is missing, a port is taken, or it does not come up: with the end of its log.
pub(super) async fn start(lab: &Inner) -> anyhow::Result<()> {
    if lab.spec.bare {
        bail!("a bare laboratory has no API whose health could be asked");
    }
    let _one = lab.dns_turn.lock().await;
    let program = tools::powerdns(&lab.spec)?;
    let dns = if let Some(dns) = lab.dns.get() {
        dns
    } else {
        let made = Dns::open(lab).await?;
        lab.dns.get_or_init(|| made)
    };
    let child = match dns.child() {
        Some(child) => child,
        None => launch(lab, dns, &program)?,
    };
    child.until("answer", PATIENCE, || dns.answers()).await?;
    lab.spec.progress.tell(Step::Done(&format!("DNS of {} on {}", dns.places.domain, dns.server)));
    Ok(())
}

fn launch(lab: &Inner, dns: &Dns, program: &std::path::Path) -> anyhow::Result<Arc<Child>> {
    // Held from the question to the answer, so that who stops the laboratory sees what was started.
    let mut known = dns.child.lock().unwrap_or_else(PoisonError::into_inner);
    if lab.down_asked.is_cancelled() {
        bail!("the laboratory goes down");
    }
    let dir = lab.layout.dns();
    let mut command = Command::new(program);
    // By its absolute path it is recognised as the laboratory's.
    let mut config = std::ffi::OsString::from("--config-dir=");
    config.push(&dir);
    command.env_clear().env("LC_ALL", "C").current_dir(&dir).arg(config);
    let log = lab.layout.logs().join("dns.log");
    let child = lab.nursery.spawn("dns".to_owned(), command, &log, false)?;
    *known = Some(Arc::clone(&child));
    Ok(child)
}

/// Raises or lowers a region's drain flag.
///
/// # Errors
/// When there is no DNS, or no such region.
pub(super) fn drain(lab: &Inner, region: &Region, drained: bool) -> anyhow::Result<()> {
    lab.ports.of(region)?;
    let dns = lab.dns.get().context("no DNS in this laboratory: `godwit lab up --dns`")?;
    dns.flags.set(region, drained);
    Ok(())
}

/// Who serves a user that was sent to this balancer.
///
/// # Errors
/// With what came instead of an answer.
pub async fn served_by(balancer: SocketAddr) -> Result<Region, String> {
    let body = api::get(balancer, "/health").await?;
    let told: serde_json::Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
    let region = told["region"].as_str().and_then(|region| region.parse().ok());
    region.ok_or_else(|| format!("no region in {body}"))
}
