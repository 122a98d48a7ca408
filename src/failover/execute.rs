//! Carries out a plan, step by step. Whoever runs it may be killed anywhere: what is done stays done,
//! and the next run finds it so.

mod contest;
mod promise;

use self::contest::Turn;
use super::{
    ledger::Lost,
    observe::{Cluster, Failure, Sight, order},
    plan::{Plan, Step, list},
    rejoin,
};
use crate::{
    storage::control::slot_of,
    topology::{
        FENCE_SEEN, Role, TopologyReport,
        ask::{Answer, Question},
        control::{Instance, Order, Outcome, Standby},
        probe::Asker,
    },
    vocab::{Epoch, Lsn, Members, Op, Region},
};
use futures_util::future::join_all;
use serde::Serialize;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// Longest wait for an answer to an order that takes moments.
const SOON: Duration = Duration::from_secs(10);
/// Longest promotion: all that was received is replayed.
const PROMOTION: Duration = Duration::from_secs(70);
/// Longest wait for the target to have all that the old primary has.
const CATCH_UP: Duration = Duration::from_secs(30);
/// Longest wait for every region to send its writes to the new primary.
const VERIFY: Duration = Duration::from_secs(30);
/// Longest wait for the others to stream from the target.
const STREAMS: Duration = Duration::from_millis(1_000);
/// Longest wait for those that were removed to be let go.
const PART: Duration = Duration::from_secs(20);
/// Before what a platform is at is ordered again.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Told as it goes.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    Begins(&'a Step),
    /// With what there is to tell of it.
    Done(&'a Step, &'a str, Duration),
    /// It has met another move before anything was done, and goes on in a later epoch.
    Anew(&'a str),
}

/// How a move went.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub region: Region,
    pub epoch: u32,
    pub from: Region,
    /// Who counts in the epoch; null when it had begun before.
    pub members: Option<Members>,
    /// Where the epoch began.
    pub began_at: Option<Lsn>,
    pub steps: Vec<Taken>,
    /// Time in which nothing could be done but wait for what the old primary had been granted.
    pub lease_wait_ms: u64,
    pub took_ms: u64,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Taken {
    pub step: String,
    pub took_ms: u64,
    pub told: String,
}

/// Why a move stopped.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// A safety rule said no.
    #[error("{0}")]
    Refused(String),
    /// Something failed; running the command again goes on from there.
    #[error("{0}")]
    Failed(String),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused { .. } => Self::Refused(failure.to_string()),
            Failure::Failed { .. } | Failure::Silent { .. } => Self::Failed(failure.to_string()),
        }
    }
}

/// One run of a plan.
pub struct Run<'a> {
    cluster: &'a Cluster,
    sight: &'a Sight,
    plan: &'a Plan,
    op: &'a Op,
    agent_max: Duration,
    /// The primary may have been fenced by this.
    fencing: bool,
    /// Where the fenced primary ended.
    final_lsn: Option<Lsn>,
    /// What it said as it gave its place up.
    handed_over: Option<String>,
    /// What those that receive no more have.
    detached: Vec<(Region, Lsn)>,
    /// Who may have something too, as those who promise tell.
    read_too: BTreeSet<Region>,
    /// How it goes on after having met another move.
    turn: Turn,
    began_at: Option<Lsn>,
    /// When what the old primary was granted has run out.
    granted_until: Option<Instant>,
    /// How long a region that is gone may have granted.
    term: Duration,
    /// The fence of the old primary is not all that there is to wait for.
    waits_for_others: bool,
    lease_wait: Duration,
}

impl<'a> Run<'a> {
    /// `term` is `lease.term_ms`, which is waited out for what regions have granted that are gone.
    #[must_use]
    pub fn new(
        cluster: &'a Cluster,
        sight: &'a Sight,
        plan: &'a Plan,
        agent_max: Duration,
        term: Duration,
        op: &'a Op,
    ) -> Self {
        Self {
            cluster,
            sight,
            plan,
            op,
            agent_max,
            fencing: false,
            final_lsn: None,
            handed_over: None,
            detached: Vec::new(),
            read_too: BTreeSet::new(),
            turn: Turn::Ends,
            began_at: None,
            granted_until: None,
            term,
            waits_for_others: false,
            lease_wait: Duration::ZERO,
        }
    }

    async fn take_all(&mut self, tell: &mut impl FnMut(Progress<'_>)) -> Result<Report, Stopped> {
        let began = self.now();
        let mut steps = Vec::new();
        for step in &self.plan.steps {
            tell(Progress::Begins(step));
            let step_began = self.now();
            let told = self.take(step).await.map_err(|stopped| self.and_way_back(stopped))?;
            let took = self.now().saturating_duration_since(step_began);
            tell(Progress::Done(step, &told, took));
            steps.push(Taken { step: step.to_string(), took_ms: millis(took), told });
        }
        Ok(Report {
            region: self.plan.promise.region.clone(),
            epoch: self.plan.promise.epoch.get(),
            from: self.plan.from.clone(),
            members: self.plan.promise.members.clone(),
            began_at: self.began_at,
            steps,
            lease_wait_ms: millis(self.lease_wait),
            took_ms: millis(self.now().saturating_duration_since(began)),
            notes: self.plan.notes.clone(),
        })
    }

    async fn take(&mut self, step: &Step) -> Result<String, Stopped> {
        match step {
            Step::Promise => self.promise().await,
            Step::Detach { regions } => self.detach(regions).await,
            Step::Fence { region } => self.fence(region).await,
            Step::CatchUp => self.catch_up().await,
            Step::Release => self.release().await,
            Step::WaitOut => self.wait_out().await,
            Step::HandOver { region } => self.hand_over(region).await,
            Step::Promote => self.promote().await,
            Step::Begin => self.begin().await,
            Step::Follow { regions } => Ok(self.follow(regions).await),
            Step::Verify => self.verify().await,
            Step::Part { regions } => Ok(self.part(regions).await),
            Step::Rejoin { region } => {
                let primary = &self.plan.promise.region;
                // What this run has fenced was handed over, all of it. Of another there may be something
                // to list, which `godwit rejoin` does.
                let handed_over = self.final_lsn.is_some();
                let list = |_: Epoch, lost: &[Lost]| match lost.len() {
                    count if count > 0 && !handed_over => Err(Stopped::Refused(format!(
                        "{region} has {count} writes that no other region has: `godwit rejoin \
                         {region}` lists them"
                    ))),
                    _ => Ok(()),
                };
                let keeping = rejoin::Keeping { tell: &|_| (), list, unlisted: handed_over };
                let (cluster, agent_max) = (self.cluster, self.agent_max);
                let back = rejoin::go_back(cluster, region, primary, agent_max, self.op, keeping);
                let rejoin::Back { told, lost, .. } = back.await?;
                match lost.map_or(0, |lost| lost.len()) {
                    0 => Ok(told),
                    count => Ok(format!("{told}; {count} writes were lost")),
                }
            }
        }
    }

    /// A planned move that stops behind its fence leaves nobody who takes writes.
    fn and_way_back(&self, stopped: Stopped) -> Stopped {
        if !self.fencing || self.began_at.is_some() {
            return stopped;
        }
        let from = &self.plan.from;
        let and = |why| {
            format!(
                "{why}\nNo region takes writes until this has ended; `godwit switchover {from}` takes \
                 the move back"
            )
        };
        match stopped {
            Stopped::Refused(why) => Stopped::Refused(and(why)),
            Stopped::Failed(why) => Stopped::Failed(and(why)),
        }
    }

    fn now(&self) -> Instant {
        self.op.clock.monotonic()
    }

    fn asker(&self, region: &Region) -> Result<Asker, Stopped> {
        let asker = self.cluster.asker(self.sight, region);
        asker.ok_or_else(|| Stopped::Failed(format!("{region} is not one of the regions")))
    }

    async fn order(
        &self,
        to: &Region,
        what: Order,
        patience: Duration,
    ) -> Result<Outcome, Stopped> {
        Ok(order(&self.asker(to)?, what, patience, self.op).await?)
    }

    async fn look(&self, region: &Region) -> Result<Instance, Stopped> {
        match self.order(region, Order::Look, SOON).await? {
            Outcome::Instance(instance) => Ok(*instance),
            other => Err(Stopped::Failed(format!("{region} answered {other:?}"))),
        }
    }

    async fn detach(&mut self, regions: &[Region]) -> Result<String, Stopped> {
        let promise = &self.plan.promise;
        let regions: Vec<Region> = regions.iter().chain(&self.read_too).cloned().collect();
        let detached = regions.iter().map(async |region| {
            let order = Order::Detach { promise: promise.clone() };
            self.order(region, order, SOON + SOON).await?;
            let instance = self.look(region).await?;
            Ok::<_, Stopped>((region.clone(), instance.reaches()))
        });
        let mut told = Vec::new();
        let mut positions = Vec::new();
        for (region, detached) in regions.iter().zip(join_all(detached).await) {
            match detached {
                Ok((region, lsn)) => {
                    told.push(format!("{region} at {lsn}"));
                    positions.push((region, lsn));
                }
                // Promised to another, it would go on past where the epoch begins.
                Err(why @ Stopped::Refused(_)) => {
                    self.turn = Turn::Either;
                    return Err(why);
                }
                // It is then as one that could not be read, which the plan must have allowed for; as
                // long as it can be, it may have more than the target.
                Err(why)
                    if *region != promise.region
                        && (promise.planned || promise.accepts_loss)
                        && self.look(region).await.is_err() =>
                {
                    told.push(format!("{region}: {why}"));
                }
                Err(why) => return Err(why),
            }
        }
        let of_target = positions.iter().find(|(region, _)| *region == promise.region);
        if let Some((_, own)) = of_target
            && let Some((region, lsn)) = positions.iter().max_by_key(|(_, lsn)| *lsn)
            && lsn > own
            // A run before that was killed had compared them and had it promoted, which has just come to
            // its end: whoever follows it has what it wrote since.
            && self.look(&promise.region).await?.role != Role::Primary
        {
            return Err(Stopped::Refused(format!(
                "{region} has come further than {} meanwhile, to {lsn}: promote {region}",
                promise.region
            )));
        }
        self.detached = positions;
        Ok(told.join(", "))
    }

    async fn fence(&mut self, region: &Region) -> Result<String, Stopped> {
        let order = Order::Fence { promise: self.plan.promise.clone() };
        self.fencing = true;
        match self.order(region, order, SOON).await? {
            Outcome::At { lsn } => {
                self.final_lsn = Some(lsn);
                // Every process of that region sees it within this.
                let seen = self.now() + FENCE_SEEN + FENCE_SEEN / 3;
                let others = self.granted_until.filter(|_| self.waits_for_others);
                self.granted_until = Some(others.map_or(seen, |others| others.max(seen)));
                Ok(format!("{region} ends at {lsn}"))
            }
            other => Err(Stopped::Failed(format!("{region} answered {other:?}"))),
        }
    }

    async fn catch_up(&mut self) -> Result<String, Stopped> {
        let target = &self.plan.promise.region;
        let others = self.detached.iter().map(|(_, lsn)| *lsn);
        let Some(wanted) = others.chain(self.final_lsn).max() else {
            return Err(Stopped::Failed("the old primary's end is not known".to_owned()));
        };
        let give_up = self.now() + CATCH_UP;
        let mut attach_at = self.now();
        loop {
            let instance = self.look(target).await?;
            if instance.role == Role::Primary {
                return Ok("promoted already".to_owned());
            }
            let reaches = instance.reaches();
            if reaches >= wanted {
                return Ok(format!("{target} has {reaches}"));
            }
            // A move that this one has overtaken may have detached it, or told it to follow another.
            let strays = !instance.receiving || instance.follows.as_ref() != Some(&self.plan.from);
            if strays && self.now() >= attach_at {
                self.order(target, self.to_follow(&self.plan.from), SOON).await?;
                attach_at = self.now() + Duration::from_secs(1);
            }
            if self.now() > give_up {
                let why = format!("{target} is at {reaches} of {wanted} after {CATCH_UP:?}");
                return Err(Stopped::Failed(why));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn to_follow(&self, region: &Region) -> Order {
        Order::Follow { region: region.clone(), promise: Some(self.plan.promise.clone()) }
    }

    /// Best effort: a region that does not hear it waits its grant out.
    async fn release(&mut self) -> Result<String, Stopped> {
        self.until_granted_has_run_out().await;
        let question = Question::Release { epoch: self.plan.ends };
        let asked = self.sight.regions.keys().map(async |region| {
            let asker = self.asker(region).ok()?;
            let answer = asker.ask(question.clone(), Duration::from_secs(2), self.op).await;
            matches!(answer, Ok(Answer::Released)).then(|| region.to_string())
        });
        let released: Vec<String> = join_all(asked).await.into_iter().flatten().collect();
        Ok(released.join(", "))
    }

    async fn until_granted_has_run_out(&mut self) {
        let began = self.now();
        if let Some(until) = self.granted_until {
            tokio::time::sleep(until.saturating_duration_since(began)).await;
        }
        self.lease_wait += self.now().saturating_duration_since(began);
    }

    async fn wait_out(&mut self) -> Result<String, Stopped> {
        let began = self.now();
        self.until_granted_has_run_out().await;
        Ok(format!("{} ms", millis(self.now().saturating_duration_since(began))))
    }

    async fn promote(&mut self) -> Result<String, Stopped> {
        // One that gave its place up is no primary any more, and may be starting.
        let fenced = self.final_lsn.is_some() && self.handed_over.is_none();
        if fenced && !self.look(&self.plan.from).await?.read_only {
            let from = &self.plan.from;
            let why =
                format!("the fence of {from} was lifted meanwhile; run the same command again");
            return Err(Stopped::Failed(why));
        }
        let promise = self.plan.promise.clone();
        let target = promise.region.clone();
        let order = Order::Promote { promise, token: self.handed_over.clone() };
        self.until_done(&target, order, PROMOTION).await?;
        Ok(target.to_string())
    }

    async fn hand_over(&mut self, region: &Region) -> Result<String, Stopped> {
        let order = Order::HandOver { promise: self.plan.promise.clone() };
        match self.until_done(region, order, SOON + SOON).await? {
            Outcome::HandedOver { token } => {
                self.handed_over = token;
                Ok(region.to_string())
            }
            other => Err(Stopped::Failed(format!("{region} answered {other:?}"))),
        }
    }

    /// Asks again as long as a platform is at it, which may restart the database meanwhile: up to
    /// `failover.agent_seconds_max`.
    async fn until_done(
        &self,
        to: &Region,
        what: Order,
        patience: Duration,
    ) -> Result<Outcome, Stopped> {
        let give_up = self.now() + self.agent_max;
        loop {
            match self.order(to, what.clone(), patience).await? {
                Outcome::Underway { told } if self.now() > give_up => {
                    let why = format!("{to}: {told}, not within {:?}", self.agent_max);
                    return Err(Stopped::Failed(why));
                }
                // Answered at once or late, and by who counts how often it is asked.
                Outcome::Underway { .. } => tokio::time::sleep(AGAIN).await,
                done => return Ok(done),
            }
        }
    }

    async fn begin(&mut self) -> Result<String, Stopped> {
        let promise = self.plan.promise.clone();
        let (target, epoch) = (promise.region.clone(), promise.epoch);
        if self.waits_for_others {
            self.until_granted_has_run_out().await;
        }
        match self.until_done(&target, Order::Begin { promise }, SOON + SOON).await? {
            Outcome::At { lsn } => {
                self.began_at = Some(lsn);
                Ok(format!("epoch {epoch} at {lsn}"))
            }
            other => Err(Stopped::Failed(format!("{target} answered {other:?}"))),
        }
    }

    /// Best effort: each region's keeper does it too.
    async fn follow(&self, regions: &[Region]) -> String {
        let primary = &self.plan.promise.region;
        let told = regions.iter().map(async |region| {
            match self.order(region, self.to_follow(primary), SOON).await {
                Ok(_) => Ok(region.to_string()),
                Err(why) => Err(format!("{region} will by itself ({why})")),
            }
        });
        let told = join_all(told).await;
        if self.plan.promise.planned {
            let follows = |name: &Region| told.contains(&Ok(name.to_string()));
            self.streams(&regions.iter().filter(|name| follows(name)).collect::<Vec<_>>()).await;
        }
        told.into_iter().map(|told| told.unwrap_or_else(|why| why)).collect::<Vec<_>>().join(", ")
    }

    /// The old primary goes on meanwhile. To connect takes several round trips, which the writes of
    /// the new epoch would else wait for wherever a replica has to acknowledge them.
    async fn streams(&self, regions: &[&Region]) {
        // Writes go on at the old primary until its lease has run out: it is to be fenced before.
        let half = self.granted_until.and_then(|until| until.checked_sub(self.term / 2));
        let give_up = self.now() + STREAMS;
        let give_up = half.map_or(give_up, |half| give_up.min(half));
        while self.now() < give_up {
            if let Ok(target) = self.look(&self.plan.promise.region).await {
                let streams = |region: &&Region| {
                    let is = |one: &Standby| one.name == region.as_str() && one.follows();
                    target.standbys.iter().any(is)
                };
                if regions.iter().all(streams) {
                    return;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Best effort: each region's keeper does what is left.
    async fn part(&self, regions: &[Region]) -> String {
        let target = &self.plan.promise.region;
        let give_up = self.now() + PART;
        loop {
            let mut left = Vec::new();
            match self.look(target).await {
                Ok(found) => {
                    let kept = |region: &&Region| {
                        found.slots.iter().any(|slot| slot.name == slot_of(region))
                    };
                    let kept = regions.iter().filter(kept);
                    left.extend(kept.map(|region| format!("{target} has a slot for {region}")));
                }
                Err(why) => left.push(why.to_string()),
            }
            for (region, report) in self.cluster.report(self.sight).await {
                // One that does not answer can be told nothing.
                let Some(report) = report.ok().filter(|_| regions.contains(&region)) else {
                    continue;
                };
                if report.role == Some(Role::Replica)
                    && report.epoch() < Some(self.plan.promise.epoch)
                {
                    left.push(format!("{region} has yet to receive that it was removed"));
                }
            }
            if left.is_empty() {
                return list(regions);
            }
            if self.now() > give_up {
                return format!("left to the keepers: {}", left.join(", "));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn verify(&mut self) -> Result<String, Stopped> {
        let target = &self.plan.promise.region;
        let give_up = self.now() + VERIFY;
        loop {
            let reports = self.cluster.report(self.sight).await;
            // A region that was left behind knows of the epoch from its peers alone.
            let sends = |told: &TopologyReport| told.primary.as_ref() == Some(target);
            // A primary that was replaced because it is cut off need not have heard of it.
            let left = |region: &Region| !self.plan.promise.planned && *region == self.plan.from;
            let asked = reports.iter().filter(|(region, _)| region == target || !left(region));
            let (there, not): (Vec<_>, Vec<_>) =
                asked.partition(|(_, report)| report.as_ref().is_ok_and(sends));
            let promise = &self.plan.promise;
            let as_wanted = |report: &TopologyReport| {
                report.epoch() >= Some(promise.epoch)
                    && (promise.members.is_none() || report.members == promise.members)
            };
            let writable = there
                .iter()
                .any(|(region, report)| region == target && report.as_ref().is_ok_and(as_wanted));
            let answering = |(_, report): &&&(Region, Result<_, _>)| report.is_ok();
            if writable && !not.iter().any(|seen| answering(&seen)) {
                let names = there.iter().map(|(region, _)| region.to_string());
                return Ok(names.collect::<Vec<_>>().join(", "));
            }
            if self.now() > give_up {
                let names = not.iter().map(|(region, _)| region.to_string());
                let names = names.collect::<Vec<_>>().join(", ");
                return Err(Stopped::Failed(if writable {
                    format!("after {VERIFY:?} {names} does not send writes to {target}")
                } else {
                    format!("{target} takes no writes in epoch {} within {VERIFY:?}", promise.epoch)
                }));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
