//! Where users are, and which region serves them: what a rehearsal of DNS answers by.
//!
//! Whose users are whose is `regions.yaml`'s. Users have made-up networks, one per continent, in what RFC 5737 sets
//! aside for documentation.

use crate::{lab::spec::Wan, vocab::Region};
use anyhow::{Context as _, ensure};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// Made by `make regions`.
const REGIONS: &str = include_str!("../regions.json");

/// Users that no network places.
pub const NOWHERE: &str = "*";

/// The continents by Route 53's codes, in a /27 each.
const CONTINENTS: [(&str, u8); 7] =
    [("AF", 0), ("AN", 32), ("AS", 64), ("EU", 96), ("NA", 128), ("OC", 160), ("SA", 192)];
/// Of a host in each network.
const HOST: u8 = 9;

#[derive(Deserialize)]
struct Listed {
    domain: String,
    regions: BTreeMap<Region, Serves>,
}

#[derive(Deserialize)]
struct Serves {
    continents: BTreeSet<String>,
    default: bool,
}

/// Users that DNS sends to the same region as long as it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Users {
    /// A continent, or [`NOWHERE`].
    pub place: &'static str,
    /// One of them.
    pub address: Ipv4Addr,
    pub home: Region,
}

/// Who is served where.
#[derive(Debug, Clone)]
pub struct Places {
    pub domain: String,
    regions: Vec<Region>,
    users: Vec<Users>,
}

impl Places {
    /// Of a laboratory with these regions.
    ///
    /// # Errors
    /// When they are not those of `regions.yaml`.
    pub fn of(regions: &[Region]) -> anyhow::Result<Self> {
        let Listed { domain, regions: listed } =
            serde_json::from_str(REGIONS).context("regions.json")?;
        let here: BTreeSet<&Region> = regions.iter().collect();
        ensure!(
            here == listed.keys().collect(),
            "whose users are whose is known of the regions of regions.yaml only"
        );
        let home = |place: &str| {
            let serves = |(_, it): &(&Region, &Serves)| {
                if place == NOWHERE { it.default } else { it.continents.contains(place) }
            };
            let found = listed.iter().find(serves).map(|(region, _)| region.clone());
            found.with_context(|| format!("users of {place} have no region"))
        };
        let mut users = Vec::new();
        for (place, network) in CONTINENTS {
            let address = Ipv4Addr::new(198, 51, 100, network + HOST);
            users.push(Users { place, address, home: home(place)? });
        }
        let address = Ipv4Addr::new(203, 0, 113, HOST);
        users.push(Users { place: NOWHERE, address, home: home(NOWHERE)? });
        Ok(Self { domain, regions: regions.to_vec(), users })
    }

    #[must_use]
    pub fn users(&self) -> &[Users] {
        &self.users
    }

    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// A region, then the others from the nearest on: by the laboratory's distances from it, as if its users were
    /// beside it.
    #[must_use]
    pub fn nearest(&self, home: &Region) -> Vec<Region> {
        let mut all = self.regions.clone();
        let distance = |region: &Region| match region {
            own if own == home => None,
            other => Some((Wan::Real.round_trip_ms(home, other), other.clone())),
        };
        all.sort_by_key(distance);
        all
    }

    /// Where users of `home` may be sent while `lost` get nobody, best first. With all lost that is their own again:
    /// it may be the checks that fail.
    #[must_use]
    pub fn answers(&self, home: &Region, lost: &BTreeSet<Region>) -> Vec<Region> {
        if !lost.contains(home) {
            return vec![home.clone()];
        }
        let mut well = self.nearest(home);
        well.retain(|region| !lost.contains(region));
        if well.is_empty() { vec![home.clone()] } else { well }
    }

    /// Every set of regions.
    #[must_use]
    pub fn losses(&self) -> Vec<BTreeSet<Region>> {
        let mut sets = vec![BTreeSet::new()];
        for region in &self.regions {
            let with = |set: &BTreeSet<Region>| set.iter().chain([region]).cloned().collect();
            let more: Vec<_> = sets.iter().map(with).collect();
            sets.extend(more);
        }
        sets.sort_by_key(BTreeSet::len);
        sets
    }
}

/// The network of a continent's users.
pub fn networks() -> impl Iterator<Item = (&'static str, String)> {
    CONTINENTS.into_iter().map(|(place, network)| (place, format!("198.51.100.{network}/27")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::known_regions;
    use serde_json::json;
    use std::{fs, path::Path};

    /// Where Route 53 may send whom, by `terraform/modules/dns`. Its own test holds the records to the same file.
    const ANSWERS: &str = "terraform/modules/dns/tests/answers.json";

    #[test]
    fn users_are_sent_where_the_records_of_terraform_send_them() {
        let places = Places::of(&known_regions()).unwrap();
        let case = |lost: &BTreeSet<Region>| {
            let names: Vec<_> = lost.iter().map(Region::as_str).collect();
            let answer = |users: &Users| {
                let mut told = places.answers(&users.home, lost);
                told.sort();
                let told: Vec<_> = told.iter().map(Region::as_str).collect();
                (users.place.to_owned(), told.join(" "))
            };
            (names.join(","), places.users().iter().map(answer).collect::<BTreeMap<_, _>>())
        };
        let cases: BTreeMap<_, _> = places.losses().iter().map(case).collect();
        let made = json!({
            "made": "Made by the unit tests of src/lab/dns/places.rs from regions.yaml. Without the regions that a key names, users of a \
                     continent may be sent to any of these; those whom nobody can place are *.",
            "answers": cases,
        });
        let made = format!("{}\n", serde_json::to_string_pretty(&made).unwrap());
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::write(root.join("target/answers.json"), &made).unwrap();
        let there = fs::read_to_string(root.join(ANSWERS)).unwrap_or_default();
        assert!(there == made, "`cp target/answers.json {ANSWERS}`, then look at the diff");
    }

    #[test]
    fn who_loses_their_region_is_sent_to_the_nearest_that_is_well() {
        let places = Places::of(&known_regions()).unwrap();
        let region = |name: &str| name.parse::<Region>().unwrap();
        let sent = |home: &str, lost: &[&str]| {
            places.answers(&region(home), &lost.iter().map(|name| region(name)).collect())[0]
                .clone()
        };
        assert_eq!(sent("ap-south-1", &[]), region("ap-south-1"));
        assert_eq!(sent("ap-south-1", &["us-east-1"]), region("ap-south-1"));
        assert_eq!(sent("ap-south-1", &["ap-south-1"]), region("eu-west-1"));
        assert_eq!(sent("us-east-1", &["us-east-1", "eu-west-1"]), region("ap-south-1"));
        let all = ["ap-south-1", "eu-west-1", "us-east-1"];
        assert_eq!(sent("eu-west-1", &all), region("eu-west-1"));
        assert_eq!(places.losses().len(), 8);
        assert!(Places::of(&[region("eu-west-1")]).is_err());
    }
}
