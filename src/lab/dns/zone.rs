//! What PowerDNS is told: the records of `terraform/modules/dns`, in its own words.
//!
//! | Route 53 | here |
//! |---|---|
//! | geolocation records of DOMAIN | a `services` entry of the geoip backend, by network |
//! | failover and latency records of REGION.failover.DOMAIN | a Lua record: the first of the region and, by distance, the others that is in |
//! | calculated check: endpoint and not drained | `inside` |
//! | weighted record of REGION.DOMAIN | an address: no release is on trial here |

use super::{
    CHECK_SECONDS_MAX, INTERVAL_SECONDS,
    places::{NOWHERE, Places, networks},
};
use crate::lab::ports::DnsPorts;
use std::{fmt::Write as _, net::Ipv4Addr};

/// Of an alias to a balancer. Nothing here keeps an answer.
const TTL_SECONDS: u32 = 60;
/// Apart from the names of regions.
const RULES: &str = "rules";

/// Where a region's balancer listens: an address of its own, as in the world outside.
pub fn address(index: usize) -> Ipv4Addr {
    let last = u8::try_from(11 + index).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 0, 0, last)
}

/// `pdns.conf`. Paths are relative: a socket's may have a hundred bytes at most.
pub fn settings(ports: DnsPorts) -> String {
    format!(
        "launch=geoip
geoip-zones-file=zones.yaml
geoip-database-files=
local-address=127.0.0.1
local-port={port}
socket-dir=.
daemon=no
guardian=no
write-pid=no
receiver-threads=1
distributor-threads=1
edns-subnet-processing=yes
enable-lua-records=yes
lua-health-checks-interval={INTERVAL_SECONDS}
# Every question is looked at anew.
cache-ttl=0
query-cache-ttl=0
negquery-cache-ttl=0
# Asks nobody outside.
security-poll-suffix=
",
        port = ports.server,
    )
}

/// The zone.
pub fn zone(places: &Places, ports: DnsPorts) -> String {
    let domain = &places.domain;
    let mut records = format!(
        "    {domain}:
      - soa: ns.{domain} hostmaster.{domain} 1 7200 3600 86400 60
      - ns: ns.{domain}
    ns.{domain}:
      - a: 127.0.0.1
    {RULES}.{domain}:
      - lua: {rules}
",
        rules = record("LUA", &rules(places, ports)),
    );
    for (index, region) in places.regions().iter().enumerate() {
        let order: Vec<_> = places.nearest(region).iter().map(|one| format!("'{one}'")).collect();
        let asks = format!(";include('{RULES}') return sent({{{}}})", order.join(", "));
        // Writing to a string does not fail.
        let _ = write!(
            records,
            "    {region}.{domain}:
      - a: {address}
    {region}.failover.{domain}:
      - lua: {asks}
",
            address = address(index),
            asks = record("A", &[asks]),
        );
    }
    let home = |place: &str| {
        let users = places.users().iter().find(|users| users.place == place);
        users.map_or(String::new(), |users| format!("{}.failover.{domain}", users.home))
    };
    let mut services = format!("      default: {}\n", home(NOWHERE));
    for (place, network) in networks() {
        let _ = writeln!(services, "      {network}: {}", home(place));
    }
    format!(
        "domains:
- domain: {domain}
  ttl: {TTL_SECONDS}
  records:
{records}  services:
    {domain}:
{services}"
    )
}

/// Lua, a statement a line. `ifurlextup` answers addresses: of one check's two it is the first alone while the check
/// is well, and both while it is not, or has not been made yet.
fn rules(places: &Places, ports: DnsPorts) -> Vec<String> {
    let DnsPorts { balancers: web, flags, .. } = ports;
    let mut rules = vec!["balancers = {}".to_owned()];
    for (index, region) in places.regions().iter().enumerate() {
        rules.push(format!("balancers['{region}'] = '{}'", address(index)));
    }
    rules.extend([
        "function well(url)".to_owned(),
        "local groups = {{['192.0.2.1'] = url}, {['192.0.2.2'] = url}}".to_owned(),
        format!("local how = {{timeout = '{CHECK_SECONDS_MAX}', selector = 'all', backupSelector = 'all'}}"),
        "return #ifurlextup(groups, how) == 1 end".to_owned(),
        "function inside(region)".to_owned(),
        format!("local healthy = well('http://' .. balancers[region] .. ':{web}/health')"),
        format!("local drained = well('http://127.0.0.1:{flags}/' .. region .. '/drained')"),
        "return healthy and not drained end".to_owned(),
        "function sent(order)".to_owned(),
        "for _, region in ipairs(order) do".to_owned(),
        "if inside(region) then return balancers[region] end end".to_owned(),
        "return balancers[order[1]] end".to_owned(),
    ]);
    rules
}

/// A Lua record in YAML: its text strings hold 255 bytes each, and are joined, with a blank between them by some
/// versions and without by others.
fn record(kind: &str, lines: &[String]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| format!("\"{line} \"")).collect();
    let text = format!("{kind} {}", lines.join(" "));
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::known_regions;

    #[test]
    fn no_text_string_of_the_zone_is_too_long() {
        let ports = DnsPorts { server: 65_533, balancers: 65_534, flags: 65_535 };
        let places = Places::of(&known_regions()).unwrap();
        let zone = zone(&places, ports);
        for text in zone.split('"').skip(1).step_by(2) {
            assert!(text.len() <= 255, "{text}");
        }
        assert!(zone.contains("sent({''ap-south-1'', ''eu-west-1'', ''us-east-1''})"), "{zone}");
    }
}
