//! A region's answers to what the others, or an operator, ask of it.

use super::clerk::Clerk;
use crate::{
    config::{Config, Durability},
    storage::control::{
        Beginning, ControlError, DatabaseControl, InstanceRow, Promotion, StandbyRow, Upstream,
        slot_of,
    },
    topology::{
        Role, Snapshot, Topology,
        ask::{Answer, Answers, Question},
        control::{Instance, Order, Outcome, Slot, Standby},
        lease::{Grantor, Promise},
    },
    vocab::{Lsn, Op, Platform, Region, causes},
};
use futures_util::future::BoxFuture;
use secrecy::ExposeSecret as _;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How long writes under way may take to end before a fence ends them.
const FENCE_GRACE: Duration = Duration::from_millis(1_000);

/// Answers for one process' region.
pub struct RegionAnswers {
    region: Region,
    grantor: Grantor,
    topology: Topology,
    control: Arc<dyn DatabaseControl>,
    durability: Durability,
    upstreams: Upstreams,
    clerk: Clerk,
}

/// How this region's database reaches each other's.
#[derive(Debug, Clone)]
pub struct Upstreams {
    region: Region,
    known: BTreeMap<Region, String>,
}

impl Upstreams {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let known = config.peers().filter_map(|(region, facts)| {
            if config.failover.control != Platform::Postgres {
                return Some((region.clone(), facts.database.clone()?));
            }
            let conninfo = facts.replication.as_ref()?.expose_secret();
            Some((region.clone(), format!("{conninfo} application_name={}", config.region)))
        });
        Self { region: config.region.clone(), known: known.collect() }
    }

    /// # Errors
    /// When the settings do not say how to reach it.
    pub fn of(&self, region: &Region) -> Result<Upstream, ControlError> {
        let conninfo = self.known.get(region);
        let conninfo = conninfo.ok_or(ControlError::NotConfigured("regions.NAME.replication"))?;
        Ok(Upstream { conninfo: conninfo.clone(), slot: slot_of(&self.region) })
    }

    /// The region that an instance with this `primary_conninfo` follows, or whose database its platform calls
    /// so.
    #[must_use]
    pub fn named(&self, conninfo: &str) -> Option<Region> {
        if let Some((region, _)) = self.known.iter().find(|(_, known)| *known == conninfo) {
            return Some(region.clone());
        }
        // Whoever wrote it may have said more or less than we do: the place is what counts.
        let place = |text: &str| {
            let word = |name: &str| {
                let found = text.split_whitespace().find_map(|word| word.strip_prefix(name));
                found.map(|value| value.trim_matches('\'').to_owned())
            };
            Some((word("host=")?, word("port=").unwrap_or_else(|| "5432".to_owned())))
        };
        let at = place(conninfo)?;
        let found = self.known.iter().find(|(_, known)| place(known) == Some(at.clone()));
        found.map(|(region, _)| region.clone())
    }

    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.known.keys()
    }
}

impl RegionAnswers {
    #[must_use]
    pub fn new(
        config: &Config,
        grantor: Grantor,
        topology: Topology,
        control: Arc<dyn DatabaseControl>,
        clerk: Clerk,
    ) -> Self {
        Self {
            clerk,
            region: config.region.clone(),
            grantor,
            topology,
            control,
            durability: config.failover.durability,
            upstreams: Upstreams::new(config),
        }
    }

    async fn settle(&self, question: Question, op: &Op) -> Answer {
        let failed = |reason: String| Answer::Failed { reason };
        match question {
            Question::Lease { epoch, region, term_ms } => {
                let granted = self.grantor.grant(epoch, &region, term_ms, op).await;
                granted.map_or_else(|error| failed(error.to_string()), Answer::Lease)
            }
            Question::Promise(wanted) => {
                let promised = self.grantor.promise(&wanted, op).await;
                promised.map_or_else(|error| failed(error.to_string()), Answer::Promise)
            }
            Question::Release { epoch } => {
                let released = self.grantor.release(epoch, op).await;
                released.map_or_else(|error| failed(error.to_string()), |()| Answer::Released)
            }
            Question::Order(order) => {
                let outcome = match self.carry_out(*order, op).await {
                    Ok(outcome) => outcome,
                    Err(ControlError::Underway(told)) => Outcome::Underway { told },
                    Err(ControlError::Refused(reason)) => Outcome::Refused { reason },
                    Err(error) => return failed(causes(&error)),
                };
                Answer::Order(Box::new(outcome))
            }
            // The listener answers these itself.
            Question::People(_) | Question::Guesses(_) => failed("nobody is known here".into()),
        }
    }

    async fn carry_out(&self, order: Order, op: &Op) -> Result<Outcome, ControlError> {
        let control = &self.control;
        let done = |()| Outcome::Done;
        let leaves = matches!(
            order,
            Order::Follow { .. }
                | Order::Stop
                | Order::Keep
                | Order::Rewind { .. }
                | Order::Rebuild { .. }
        );
        // However late such an order comes, the primary is not brought down by it. One that has just
        // started, and that nobody has confirmed, serves nothing and may be one of before.
        let reigns = self
            .topology
            .look(|snapshot| snapshot.reign().is_some() && snapshot.quarantine().is_none());
        if leaves && reigns {
            return Err(ControlError::Refused(format!("{} is the primary", self.region)));
        }
        match order {
            Order::Look => {
                let promises = self.grantor.look(op).await.is_ok();
                let instance = self.instance(control.look().await?);
                let instance = Instance { promises: Some(promises), ..instance };
                Ok(Outcome::Instance(Box::new(instance)))
            }
            Order::Detach { promise } => {
                self.stands(&promise, op).await?;
                match control.detach().await {
                    // A run before that was killed had it promoted, which has just come to its end.
                    Err(ControlError::Refused(_))
                        if self.ours(&promise).is_ok() && !control.look().await?.in_recovery =>
                    {
                        Ok(Outcome::Done)
                    }
                    detached => detached.map(done),
                }
            }
            Order::Fence { promise } => {
                self.stands(&promise, op).await?;
                Ok(Outcome::At { lsn: control.fence(FENCE_GRACE).await? })
            }
            Order::HandOver { promise } => {
                self.stands(&promise, op).await?;
                let to = self.upstreams.of(&promise.region)?;
                Ok(Outcome::HandedOver { token: control.hand_over(&to).await? })
            }
            Order::Promote { promise, token } => {
                self.stands(&promise, op).await?;
                self.ours(&promise)?;
                let Promise { planned, accepts_loss, .. } = promise;
                let how = Promotion { planned, accepts_loss, token };
                control.promote(&how).await.map(done)
            }
            Order::Begin { promise } => Ok(Outcome::At { lsn: self.begin(promise, op).await? }),
            Order::Follow { region, promise } => {
                if let Some(promise) = promise {
                    self.not_overtaken(&promise, op).await?;
                }
                control.follow(&self.upstreams.of(&region)?).await.map(done)
            }
            Order::Welcome { region, epoch, span_ms } => {
                let span = Duration::from_millis(span_ms);
                Ok(self.grantor.welcome(&region, epoch, span, op).await.map(done)?)
            }
            Order::Keep => Ok(Outcome::Kept { place: control.keep().await? }),
            Order::Rewind { region } => {
                control.rewind(&self.upstreams.of(&region)?).await.map(done)
            }
            Order::Rebuild { region } => {
                control.rebuild(&self.upstreams.of(&region)?).await.map(done)
            }
            Order::Stop => control.stop().await.map(done),
            Order::Start => control.start().await.map(done),
            Order::Ledger(order) => Ok(Outcome::Ledger(self.clerk.carry_out(order, op).await?)),
        }
    }

    async fn begin(&self, promise: Promise, op: &Op) -> Result<Lsn, ControlError> {
        self.stands(&promise, op).await?;
        self.ours(&promise)?;
        self.counts_as_well(&promise)?;
        let members = promise.members.clone();
        let counted = members.clone().unwrap_or_else(|| self.topology.look(Snapshot::members));
        let others = counted.others(&self.region).cloned().collect();
        let beginning = Beginning {
            epoch: promise.epoch,
            region: self.region.clone(),
            members,
            others,
            quorum: self.durability == Durability::Quorum,
        };
        self.control.begin(&beginning).await
    }

    /// Refuses an order of a promotion that another has overtaken, or that this region has forgotten.
    async fn stands(&self, promise: &Promise, op: &Op) -> Result<(), ControlError> {
        let (record, _) = self.grantor.look(op).await?;
        let kept = record.and_then(|record| record.promise);
        if kept.as_ref() == Some(promise) {
            return Ok(());
        }
        Err(kept.map_or_else(
            || {
                let why =
                    format!("{} has forgotten the promise: run the command again", self.region);
                ControlError::Refused(why)
            },
            |kept| self.has_promised(&kept),
        ))
    }

    /// Refuses an order of a promotion that another has overtaken.
    async fn not_overtaken(&self, promise: &Promise, op: &Op) -> Result<(), ControlError> {
        let (record, _) = self.grantor.look(op).await?;
        let kept = record.and_then(|record| record.promise);
        match kept.filter(|kept| kept.epoch > promise.epoch) {
            Some(later) => Err(self.has_promised(&later)),
            None => Ok(()),
        }
    }

    fn has_promised(&self, kept: &Promise) -> ControlError {
        let Promise { epoch, region, .. } = kept;
        ControlError::Refused(format!(
            "{} has promised epoch {epoch} to {region} since",
            self.region
        ))
    }

    fn ours(&self, promise: &Promise) -> Result<(), ControlError> {
        if promise.region == self.region {
            return Ok(());
        }
        Err(ControlError::Refused(format!("epoch {} is {}'s", promise.epoch, promise.region)))
    }

    /// A program that knows of no members must not begin an epoch where they are not all regions.
    fn counts_as_well(&self, promise: &Promise) -> Result<(), ControlError> {
        let (members, settings) =
            self.topology.look(|snapshot| (snapshot.members(), snapshot.settings()));
        if promise.members.is_some() || members == settings {
            return Ok(());
        }
        let why = format!("the cluster's members are {members}: use this version's `godwit`");
        Err(ControlError::Refused(why))
    }

    fn instance(&self, row: InstanceRow) -> Instance {
        Instance {
            platform: row.platform,
            role: if row.in_recovery { Role::Replica } else { Role::Primary },
            system: row.system,
            timeline: row.timeline,
            lsn: row.lsn,
            received: row.received,
            receiving: row.receiving,
            follows: self.upstreams.named(&row.conninfo),
            read_only: row.read_only,
            promises: None,
            platform_answers: row.platform_answers,
            waits_for: row.waits_for,
            epochs: row.epochs,
            standbys: standbys(row.standbys),
            slots: row
                .slots
                .into_iter()
                .map(|row| Slot {
                    name: row.name,
                    active: row.active,
                    restart: row.restart,
                    wal: row.wal,
                })
                .collect(),
        }
    }
}

/// As regions tell each other of them.
pub(super) fn standbys(rows: Vec<StandbyRow>) -> Vec<Standby> {
    let told = |row: StandbyRow| Standby {
        name: row.name,
        state: row.state,
        acknowledges: row.acknowledges,
        flushed: row.flushed,
    };
    rows.into_iter().map(told).collect()
}

impl Answers for RegionAnswers {
    fn answer<'a>(&'a self, question: Question, op: &'a Op) -> BoxFuture<'a, Answer> {
        Box::pin(self.settle(question, op))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_followed_is_known_by_its_place() {
        let known = [("us-east-1", 5541), ("ap-south-1", 5543)].map(|(region, port)| {
            let conninfo = format!("host=127.0.0.1 port={port} user=r application_name=eu-west-1");
            (region.parse().unwrap(), conninfo)
        });
        let region = "eu-west-1".parse().unwrap();
        let upstreams = Upstreams { region, known: BTreeMap::from(known) };
        let named = |text| upstreams.named(text).map(|region| region.to_string());
        assert_eq!(named("user=x host=127.0.0.1 port='5543'").as_deref(), Some("ap-south-1"));
        assert_eq!(named("host=127.0.0.1 port=5544"), None);
        assert_eq!(named(""), None);
        let us = upstreams.of(&"us-east-1".parse().unwrap()).unwrap();
        assert_eq!(us.slot, "eu_west_1");
    }
}
