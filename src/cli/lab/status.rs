//! What `godwit lab status` looks like.

use crate::{
    lab::{PartState, Status},
    vocab::Region,
};
use comfy_table::{Table, presets};
use std::{collections::BTreeMap, fmt::Write as _};

pub fn text(status: &Status) -> String {
    let primary = status.primary.as_ref().map_or("not there yet", Region::as_str);
    let mut text = format!(
        "laboratory in {}, supervised by process {}; primary: {primary}\n\n",
        status.dir.display(),
        status.supervisor
    );
    // Writing to a string does not fail.
    let _ = writeln!(text, "{}\n", parts(status));
    let _ = writeln!(text, "{}", links(status));
    if let Some(dns) = &status.dns {
        let state = if dns.pid.is_some() { "on" } else { "DEAD; it was on" };
        let _ = writeln!(text, "\nDNS of {} {state} {}", dns.domain, dns.server);
        for region in &dns.drained {
            let _ = writeln!(text, "{region} is DRAINED");
        }
    }
    text
}

fn parts(status: &Status) -> Table {
    let mut table = table(["region", "part", "state", "pid", "port"]);
    for (region, parts) in &status.regions {
        for (part, facts) in parts {
            let state = match facts.state {
                PartState::Running => "running",
                PartState::Paused => "PAUSED",
                PartState::Dead => "DEAD",
            };
            let pid = facts.pid.map_or("-".to_owned(), |pid| pid.to_string());
            table.add_row([region.as_str(), part, state, &pid, &facts.port.to_string()]);
        }
    }
    table
}

/// A line for each pair of regions: a fault between them is on all their links.
fn links(status: &Status) -> Table {
    let mut pairs: BTreeMap<[&Region; 2], (u64, bool, usize, u64)> = BTreeMap::new();
    for link in &status.links {
        let mut pair = [&link.from, &link.to];
        pair.sort();
        let (ms, cut, connections, severed) = pairs.entry(pair).or_default();
        *ms = (*ms).max(link.state.round_trip_ms);
        *cut |= link.state.cut;
        *connections += link.state.connections;
        *severed += link.state.severed;
    }
    let mut table = table(["between", "and", "round trip", "link", "connections", "severed"]);
    for ([a, b], (ms, cut, connections, severed)) in pairs {
        let state = if cut { "CUT" } else { "whole" };
        let [ms, connections, severed] =
            [format!("{ms} ms"), connections.to_string(), severed.to_string()];
        table.add_row([a.as_str(), b.as_str(), &ms, state, &connections, &severed]);
    }
    table
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}
