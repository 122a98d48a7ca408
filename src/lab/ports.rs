//! The ports of a laboratory: which, for what, and whether they are free.

use super::{
    links::{Kind, LinkId},
    spec::PortPlan,
};
use crate::vocab::Region;
use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use std::{
    collections::BTreeMap,
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

/// Where the relays listen on the contract's ports.
const RELAYS_FROM: u16 = 9701;
/// Above the relays of nine regions.
const DNS: DnsPorts = DnsPorts { server: 9853, balancers: 9880, flags: 9881 };
/// The blocks of a hundred that laboratories of [`PortPlan::Free`] share out among themselves:
/// below what operating systems give to outgoing connections.
const FREE_FROM: u16 = 14_000;
const FREE_BLOCKS: u16 = 160;
/// Enough to recognise what is in the way: another laboratory has them all.
const TAKEN_SHOWN_MAX: usize = 6;

/// The three listeners of an API process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiPorts {
    pub public: u16,
    pub internal: u16,
    pub ops: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionPorts {
    /// One per API process, never none.
    pub apis: Vec<ApiPorts>,
    pub postgres: u16,
    pub redis: u16,
}

/// What a rehearsal of DNS listens on, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsPorts {
    pub server: u16,
    /// Of every region's balancer, each on an address of its own.
    pub balancers: u16,
    pub flags: u16,
}

impl DnsPorts {
    fn all(self) -> [(u16, String); 3] {
        let Self { server, balancers, flags } = self;
        [(server, "DNS"), (balancers, "DNS' balancers"), (flags, "DNS' drain flags")]
            .map(|(port, who)| (port, who.to_owned()))
    }
}

#[derive(Debug)]
pub struct Ports {
    pub regions: BTreeMap<Region, RegionPorts>,
    pub links: BTreeMap<LinkId, u16>,
    /// Shared out, and not asked for until somebody wants DNS.
    pub dns: DnsPorts,
    /// Keeps other laboratories off a block of [`PortPlan::Free`].
    block: Option<Flock<File>>,
}

impl Ports {
    /// Shares out the ports and makes sure that nobody has them.
    ///
    /// # Errors
    /// When one is in use, naming it and who wanted it; when there are not enough.
    pub fn take(plan: PortPlan, regions: &[Region], processes: u8) -> anyhow::Result<Self> {
        let ports = match plan {
            PortPlan::Contract => Self::of_contract(regions, processes)?,
            PortPlan::From(base) => Self::upward(base, regions, processes)?,
            PortPlan::Free => return Self::free(regions, processes),
        };
        demand_free(ports.all())?;
        Ok(ports)
    }

    fn of_contract(regions: &[Region], processes: u8) -> anyhow::Result<Self> {
        // More would run into each other's ranges: 8081 to 8180, 9081 to 9180.
        if regions.len() > 9 || processes > 9 {
            bail!("more than 9 regions or processes do not fit the usual ports: use --port-base N");
        }
        let mut made = BTreeMap::new();
        for (index, region) in (0u16..).zip(regions) {
            let api = |process: u16| {
                let port = |first: u16| first + index + 10 * process;
                ApiPorts { public: port(8081), internal: port(9081), ops: port(9181) }
            };
            let apis = (0..processes.into()).map(api).collect();
            let ports = RegionPorts { apis, postgres: 5541 + index, redis: 6381 + index };
            made.insert(region.clone(), ports);
        }
        let links = links(regions, RELAYS_FROM..);
        Ok(Self { regions: made, links, dns: DNS, block: None })
    }

    fn upward(base: u16, regions: &[Region], processes: u8) -> anyhow::Result<Self> {
        let pairs = regions.len() * regions.len().saturating_sub(1);
        let needed = regions.len() * (3 * usize::from(processes) + 2) + 2 * pairs + 3;
        if base == 0 || usize::from(base) + needed > usize::from(u16::MAX) {
            bail!("no room for {needed} ports from {base} upward");
        }
        let mut ports = base..;
        let mut next = || ports.next().expect("there is room");
        let mut made = BTreeMap::new();
        for region in regions {
            let mut api = || ApiPorts { public: next(), internal: next(), ops: next() };
            let apis = (0..processes).map(|_| api()).collect();
            made.insert(region.clone(), RegionPorts { apis, postgres: next(), redis: next() });
        }
        let links = links(regions, &mut ports);
        let mut next = || ports.next().expect("there is room");
        let dns = DnsPorts { server: next(), balancers: next(), flags: next() };
        Ok(Self { regions: made, links, dns, block: None })
    }

    fn free(regions: &[Region], processes: u8) -> anyhow::Result<Self> {
        for block in 0..FREE_BLOCKS {
            let base = FREE_FROM + 100 * block;
            let path = std::env::temp_dir().join(format!("godwit-ports-{base}.lock"));
            // One that belongs to another user or is held is another laboratory's.
            let options = File::options().write(true).create(true).truncate(false).open(path);
            let Ok(file) = options else { continue };
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            let mut ports = Self::upward(base, regions, processes)?;
            if taken(ports.all().into_iter().chain(ports.dns.all())).is_empty() {
                ports.block = Some(lock);
                return Ok(ports);
            }
        }
        bail!("no {FREE_BLOCKS} blocks of ports from {FREE_FROM} upward has a free one")
    }

    /// Makes sure that nobody has what a rehearsal of DNS listens on.
    ///
    /// # Errors
    /// When one is in use, naming it.
    pub fn demand_dns(&self) -> anyhow::Result<()> {
        demand_free(self.dns.all())
    }

    fn all(&self) -> Vec<(u16, String)> {
        let mut all = Vec::new();
        for (region, ports) in &self.regions {
            for api in &ports.apis {
                all.push((api.public, format!("the public API of {region}")));
                all.push((api.internal, format!("the internal listener of {region}")));
                all.push((api.ops, format!("the ops listener of {region}")));
            }
            all.push((ports.postgres, format!("Postgres of {region}")));
            all.push((ports.redis, format!("Redis of {region}")));
        }
        for (link, port) in &self.links {
            all.push((*port, format!("the relay from {} to {}", link.from, link.to)));
        }
        all
    }

    /// # Errors
    /// When the region is not one of the laboratory's.
    pub fn of(&self, region: &Region) -> anyhow::Result<&RegionPorts> {
        self.regions.get(region).with_context(|| format!("no region {region} in this laboratory"))
    }
}

fn links(regions: &[Region], mut ports: impl Iterator<Item = u16>) -> BTreeMap<LinkId, u16> {
    let mut made = BTreeMap::new();
    for from in regions {
        for to in regions.iter().filter(|to| *to != from) {
            for kind in [Kind::Http, Kind::Postgres] {
                let link = LinkId { from: from.clone(), to: to.clone(), kind };
                made.insert(link, ports.next().expect("there is room"));
            }
        }
    }
    made
}

/// A port of this machine, for this machine only.
pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Which of these somebody has.
fn taken(wanted: impl IntoIterator<Item = (u16, String)>) -> Vec<String> {
    let mut taken = Vec::new();
    for (port, who) in wanted {
        if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            let why = match error.kind() {
                std::io::ErrorKind::AddrInUse => "is in use".to_owned(),
                _ => format!("cannot be had ({error})"),
            };
            taken.push(format!("port {port}, wanted by {who}, {why}"));
        }
    }
    taken
}

fn demand_free(wanted: impl IntoIterator<Item = (u16, String)>) -> anyhow::Result<()> {
    let taken = taken(wanted);
    if !taken.is_empty() {
        let more = taken.len().saturating_sub(TAKEN_SHOWN_MAX);
        let more = if more == 0 { String::new() } else { format!("\n  and {more} more") };
        bail!(
            "not every port is free:\n  {}{more}\nstop what uses them, or take other ports with --port-base N",
            taken[..taken.len().min(TAKEN_SHOWN_MAX)].join("\n  "),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::spec::known_regions;
    use std::collections::BTreeSet;

    #[test]
    fn the_usual_ports_are_the_contracts_and_none_is_given_twice() {
        let ports = Ports::of_contract(&known_regions(), 9).unwrap();
        let first = |name: &str| ports.regions[&name.parse().unwrap()].clone();
        assert_eq!(
            first("us-east-1").apis[0],
            ApiPorts { public: 8081, internal: 9081, ops: 9181 }
        );
        assert_eq!(first("ap-south-1").apis[0].public, 8083);
        assert_eq!((first("eu-west-1").postgres, first("ap-south-1").redis), (5542, 6383));
        for ports in [ports, Ports::upward(20_000, &known_regions(), 3).unwrap()] {
            let DnsPorts { server, balancers, flags } = ports.dns;
            let dns = [server, balancers, flags].map(|port| (port, "DNS".to_owned()));
            let all = [ports.all(), dns.into()].concat();
            let different: BTreeSet<_> = all.iter().map(|(port, _)| port).collect();
            assert_eq!(different.len(), all.len());
        }
        assert!(Ports::upward(65_500, &known_regions(), 3).is_err());
    }

    #[test]
    fn a_port_in_use_is_named_with_who_wanted_it() {
        let ours = Ports::take(PortPlan::Free, &known_regions(), 1).unwrap();
        let wanted = ours.regions[&"eu-west-1".parse().unwrap()].redis;
        let base = ours.all().iter().map(|(port, _)| *port).min().unwrap();
        let _taken = TcpListener::bind(local(wanted)).unwrap();
        let error = Ports::take(PortPlan::From(base), &known_regions(), 1).unwrap_err();
        let expected = format!("port {wanted}, wanted by Redis of eu-west-1, is in use");
        assert!(error.to_string().contains(&expected), "{error}");
    }

    #[test]
    fn two_laboratories_never_share_a_free_block() {
        let one = Ports::take(PortPlan::Free, &known_regions(), 1).unwrap();
        let two = Ports::take(PortPlan::Free, &known_regions(), 1).unwrap();
        let ports =
            |of: &Ports| of.all().into_iter().map(|(port, _)| port).collect::<BTreeSet<_>>();
        assert!(ports(&one).is_disjoint(&ports(&two)));
    }
}
