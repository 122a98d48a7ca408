//! All links between the regions.

use super::{
    ports::{Ports, local},
    relay::{Direction, Link, LinkState},
    spec::Wan,
};
use crate::vocab::{Region, SharedClock};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// What a link carries.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Requests to the internal listener
    Http,
    /// Replication
    Postgres,
}

/// One way from one region to another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId {
    /// Who connects.
    pub from: Region,
    pub to: Region,
    pub kind: Kind,
}

/// What `lab status` tells of each link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkFacts {
    pub from: Region,
    pub to: Region,
    pub kind: Kind,
    pub port: u16,
    #[serde(flatten)]
    pub state: LinkState,
}

#[derive(Debug)]
pub struct Links(BTreeMap<LinkId, Link>);

impl Links {
    /// Opens every link at its distance.
    ///
    /// # Errors
    /// When a port cannot be bound.
    pub async fn open(ports: &Ports, wan: Wan, clock: &SharedClock) -> anyhow::Result<Self> {
        let mut links = BTreeMap::new();
        for (id, port) in &ports.links {
            let there = ports.of(&id.to)?;
            let targets = match id.kind {
                Kind::Http => there.apis.iter().map(|api| local(api.internal)).collect(),
                Kind::Postgres => vec![local(there.postgres)],
            };
            let one_way = one_way(wan.round_trip_ms(&id.from, &id.to));
            let link = Link::bind(clock.clone(), local(*port), targets, one_way).await;
            let link = link.with_context(|| format!("the relay on port {port}"))?;
            links.insert(id.clone(), link);
        }
        Ok(Self(links))
    }

    /// # Errors
    /// When there are no such two regions.
    pub fn cut(&self, a: &Region, b: &Region) -> anyhow::Result<()> {
        self.between(a, b)?.for_each(Link::cut);
        Ok(())
    }

    /// Ends every cut.
    pub fn heal(&self) {
        self.0.values().for_each(Link::heal);
    }

    /// Sets the round trip between two regions.
    ///
    /// # Errors
    /// When there are no such two regions.
    pub fn delay(&self, a: &Region, b: &Region, round_trip_ms: u64) -> anyhow::Result<()> {
        self.between(a, b)?.for_each(|link| link.delay(one_way(round_trip_ms)));
        Ok(())
    }

    /// Lets everything through at once, so that what shuts down need not wait for the distance.
    pub fn hurry(&self) {
        self.heal();
        self.0.values().for_each(|link| link.delay(Duration::ZERO));
    }

    /// # Errors
    /// When there is no such link.
    pub fn sever(&self, id: &LinkId, direction: Direction, after: u64) -> anyhow::Result<()> {
        let link = self.0.get(id);
        let link = link.with_context(|| format!("no link from {} to {}", id.from, id.to))?;
        link.sever(direction, after);
        Ok(())
    }

    #[must_use]
    pub fn facts(&self) -> Vec<LinkFacts> {
        let facts = |(id, link): (&LinkId, &Link)| LinkFacts {
            from: id.from.clone(),
            to: id.to.clone(),
            kind: id.kind,
            port: link.address().port(),
            state: link.state(),
        };
        self.0.iter().map(facts).collect()
    }

    fn between(&self, a: &Region, b: &Region) -> anyhow::Result<impl Iterator<Item = &Link>> {
        let joins = |id: &LinkId| (&id.from, &id.to) == (a, b) || (&id.from, &id.to) == (b, a);
        if !self.0.keys().any(joins) {
            bail!("no link between {a} and {b} in this laboratory");
        }
        Ok(self.0.iter().filter(move |(id, _)| joins(id)).map(|(_, link)| link))
    }
}

fn one_way(round_trip_ms: u64) -> Duration {
    Duration::from_millis(round_trip_ms) / 2
}
