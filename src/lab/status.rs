//! How a laboratory stands: for `lab status`, and for `lab.json`.

use super::{
    api,
    dns::{Dns, DnsFacts},
    file::{LabFile, MoreApi, Pids, RegionFacts},
    laboratory::Inner,
    links::LinkFacts,
    ports::RegionPorts,
    postgres, redis,
    spec::Part,
};
use crate::vocab::Region;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// What `lab status` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub dir: PathBuf,
    pub supervisor: u32,
    pub primary: Option<Region>,
    pub regions: BTreeMap<Region, BTreeMap<String, PartFacts>>,
    pub links: Vec<LinkFacts>,
    /// Where somebody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsFacts>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartFacts {
    pub state: PartState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Where it listens.
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartState {
    Running,
    Paused,
    Dead,
}

impl Inner {
    pub fn status(&self) -> Status {
        let paused = self.paused().clone();
        let facts = |region: &Region, part: Part, port: u16| {
            let pid = self.running(region, part).and_then(|child| child.running());
            let state = match pid {
                None => PartState::Dead,
                Some(_) if paused.contains(&(region.clone(), part)) => PartState::Paused,
                Some(_) => PartState::Running,
            };
            (part.to_string(), PartFacts { state, pid, port })
        };
        let region = |(region, ports): (&Region, &RegionPorts)| {
            let mut parts = BTreeMap::from([
                facts(region, Part::Postgres, ports.postgres),
                facts(region, Part::Redis, ports.redis),
            ]);
            if !self.spec.bare {
                let apis = (1..).map(Part::Api).zip(&ports.apis);
                parts.extend(apis.map(|(part, api)| facts(region, part, api.public)));
            }
            (region.clone(), parts)
        };
        Status {
            dir: self.layout.root().to_owned(),
            supervisor: std::process::id(),
            primary: self.reign().map(|reign| reign.region),
            regions: self.ports.regions.iter().map(region).collect(),
            links: self.links.facts(),
            dns: self.dns.get().map(Dns::facts),
        }
    }

    pub fn facts(&self) -> Option<LabFile> {
        self.up.get()?;
        let reign = self.reign()?;
        let pid = |region: &Region, part| {
            let running = self.running(region, part)?.running()?;
            u32::try_from(running).ok()
        };
        let region = |(region, ports): (&Region, &RegionPorts)| {
            let more = (2..).zip(ports.apis.iter().skip(1)).map(|(number, api)| MoreApi {
                public: api::base_url(api.public),
                internal: api::base_url(api.internal),
                ops: api::base_url(api.ops),
                pid: pid(region, Part::Api(number)),
            });
            let first = ports.apis.first()?;
            let facts = RegionFacts {
                public: api::base_url(first.public),
                internal: api::base_url(first.internal),
                ops: api::base_url(first.ops),
                global_db: postgres::superuser_url(&self.secrets, ports.postgres),
                redis: redis::url(&self.secrets.redis, ports.redis),
                pids: Pids {
                    api: pid(region, Part::Api(1)),
                    postgres: pid(region, Part::Postgres),
                    redis: pid(region, Part::Redis),
                },
                more: more.collect(),
            };
            Some((region.clone(), facts))
        };
        Some(LabFile {
            epoch: reign.epoch,
            primary: reign.region,
            durability: self.spec.durability.word().into(),
            wan: self.spec.wan.word().into(),
            tenant: self.tenant.get().cloned(),
            regions: self.ports.regions.iter().filter_map(region).collect(),
            dns: self.dns.get().map(Dns::facts),
        })
    }
}
