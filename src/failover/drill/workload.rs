//! Sessions that write and read from every region until they are told to stop.
//!
//! Requests come at their own pace, whatever becomes of those before: each takes a session that is
//! idle, or a new one. So an outage is met by as many requests as it would meet, and not by a few
//! clients that all wait for the same dead connection.

use super::{
    client::{Answer, Client, Request, Verb, call},
    history::{Ask, Call, Outcome},
};
use crate::vocab::{Bookmark, Etag, Region, SharedRng, rng};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// Lists that are appended to. Few enough that sessions meet, enough that most appends succeed.
const LISTS: u32 = 12;
/// Sessions at once. A longer outage meets fewer requests than it would.
const SESSIONS_MAX: u32 = 1_000;
/// Of a hundred turns, after how many a session is over, and a new one begins that has seen nothing
/// yet. Else all would soon hold a bookmark of the new primary, which keeps them safe from the old.
const LEAVES_PERCENT: u64 = 20;
/// How long a write is tried again.
const WRITE_PATIENCE: Duration = Duration::from_secs(6);
/// Before the second attempt; twice as long before each further one, so that a cluster that is
/// merely slow is not drowned.
const PAUSE: Duration = Duration::from_millis(400);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A session's own items that it may read again.
const OWN_MAX: usize = 8;
/// Of a hundred writes, how many are adds.
const ADDS_PERCENT: u64 = 65;

/// What a workload is.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Names its collections.
    pub run: String,
    /// Writes a second from all regions together; as many reads beside.
    pub rate: u32,
}

/// What a workload saw.
#[derive(Debug)]
pub struct Ended {
    /// In the order in which they ended.
    pub calls: Vec<Call>,
    /// Requests that were left out, because every session waited for an answer.
    pub skipped: u64,
    /// How long after its turn each request was asked.
    pub late_us: Vec<u64>,
}

/// A workload under way.
pub struct Workload {
    shared: Arc<Shared>,
    arrivals: JoinSet<()>,
}

struct Shared {
    client: Arc<Client>,
    plan: Plan,
    regions: Vec<Region>,
    /// Ids of the lists.
    lists: Vec<String>,
    rng: SharedRng,
    calls: Mutex<Vec<Call>>,
    /// Of each region, when the latest write was asked that has been acknowledged.
    acknowledged: Mutex<BTreeMap<Region, u64>>,
    idle: Mutex<Vec<Session>>,
    /// Sessions so far, which numbers them.
    sessions: AtomicU32,
    /// Sessions at present, and those that there was no room for.
    users: AtomicU32,
    /// Requests that no session was left for.
    skipped: AtomicU64,
    /// How long after its turn each request was asked, for want of this machine's time.
    late_us: Mutex<Vec<u64>>,
    stop: CancellationToken,
}

struct Session {
    number: u32,
    bookmark: Option<Bookmark>,
    /// Key and id.
    own: Vec<(String, String)>,
    writes: u32,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The collection of a run's adds.
#[must_use]
pub fn adds(run: &str) -> String {
    format!("/v1/collections/drill-{run}-adds/items")
}

/// The collection of a run's lists.
#[must_use]
pub fn lists(run: &str) -> String {
    format!("/v1/collections/drill-{run}-lists/items")
}

/// Makes the lists, empty, and returns their ids in order.
///
/// # Errors
/// With what a region answered instead.
pub async fn prepare(client: &Client, run: &str, at: &Region) -> Result<Vec<String>, String> {
    let mut ids = Vec::new();
    for list in 0..LISTS {
        let key = format!("{run}-list-{list}");
        let body = json!({ "drill": run, "list": list, "values": [] });
        let request = Request::write(Verb::Post, lists(run), &key, &body);
        // A primary that missed one renewal of its lease takes writes again with the next.
        let answer = client.ask_until(at, &request, |answer| answer.status == 201).await;
        match answer.body["id"].as_str() {
            Some(id) if answer.status == 201 => ids.push(id.to_owned()),
            _ => return Err(said(at, &answer)),
        }
    }
    Ok(ids)
}

/// For messages.
#[must_use]
pub fn said(region: &Region, answer: &Answer) -> String {
    let problem = answer.problem.as_deref().unwrap_or("nothing that says why");
    format!("{region} answered {} ({problem})", answer.status)
}

impl Workload {
    /// Begins to ask.
    #[must_use]
    pub fn begin(client: Arc<Client>, plan: Plan, lists: Vec<String>, rng: SharedRng) -> Self {
        let regions = client.regions();
        let shared = Arc::new(Shared {
            client,
            plan,
            regions: regions.clone(),
            lists,
            rng,
            calls: Mutex::default(),
            acknowledged: Mutex::default(),
            idle: Mutex::default(),
            sessions: AtomicU32::new(0),
            users: AtomicU32::new(0),
            skipped: AtomicU64::new(0),
            late_us: Mutex::default(),
            stop: CancellationToken::new(),
        });
        let mut arrivals = JoinSet::new();
        for region in regions {
            arrivals.spawn(Arc::clone(&shared).arrive(region.clone(), Kind::Write));
            arrivals.spawn(Arc::clone(&shared).arrive(region, Kind::Read));
        }
        Self { shared, arrivals }
    }

    /// When the latest write was asked in a region that has been acknowledged since.
    #[must_use]
    pub fn acknowledged_us(&self, region: &Region) -> Option<u64> {
        locked(&self.shared.acknowledged).get(region).copied()
    }

    /// Asks nothing new, waits for what is under way, and gives all that it saw.
    pub async fn end(mut self) -> Ended {
        self.shared.stop.cancel();
        while self.arrivals.join_next().await.is_some() {}
        let mut calls = std::mem::take(&mut *locked(&self.shared.calls));
        calls.sort_by_key(|call| call.ended_us);
        let late_us = std::mem::take(&mut *locked(&self.shared.late_us));
        Ended { calls, skipped: self.shared.skipped.load(Ordering::Relaxed), late_us }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write,
    Read,
}

impl Shared {
    async fn arrive(self: Arc<Self>, region: Region, kind: Kind) {
        let regions = u32::try_from(self.regions.len()).unwrap_or(1).max(1);
        let pause = Duration::from_secs(1) * regions / self.plan.rate.max(1);
        let pause_us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        let mut turns = tokio::time::interval(pause);
        let mut before_us = None;
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut jobs = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                _ = turns.tick() => {}
            }
            let now_us = self.client.now_us();
            if let Some(before_us) = before_us.replace(now_us) {
                locked(&self.late_us).push((now_us - before_us).saturating_sub(pause_us));
            }
            while jobs.try_join_next().is_some() {}
            match self.session() {
                Some(session) => {
                    drop(jobs.spawn(Arc::clone(&self).work(session, region.clone(), kind)));
                }
                None => drop(self.skipped.fetch_add(1, Ordering::Relaxed)),
            }
        }
        while jobs.join_next().await.is_some() {}
    }

    /// One that is idle, or a new one.
    fn session(&self) -> Option<Session> {
        if let Some(session) = locked(&self.idle).pop() {
            return Some(session);
        }
        let others = self.users.fetch_add(1, Ordering::Relaxed);
        (others < SESSIONS_MAX).then(|| self.new_session())
    }

    fn new_session(&self) -> Session {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        Session { number, bookmark: None, own: Vec::new(), writes: 0 }
    }

    async fn work(self: Arc<Self>, mut session: Session, region: Region, kind: Kind) {
        match kind {
            Kind::Read => self.read_something(&mut session, &region).await,
            Kind::Write if self.below(100) < ADDS_PERCENT => self.add(&mut session, &region).await,
            Kind::Write => self.append(&mut session, &region).await,
        }
        if self.below(100) < LEAVES_PERCENT {
            session = self.new_session();
        }
        locked(&self.idle).push(session);
    }

    fn below(&self, bound: u64) -> u64 {
        rng::below(&*self.rng, bound.max(1))
    }

    fn any_region(&self) -> Region {
        let which = self.below(self.regions.len() as u64);
        self.regions[usize::try_from(which).unwrap_or(0)].clone()
    }

    fn any_list(&self) -> u32 {
        u32::try_from(self.below(self.lists.len() as u64)).unwrap_or(0)
    }

    fn list_path(&self, list: u32) -> String {
        let id = self.lists.get(list as usize).map_or("", String::as_str);
        format!("{}/{id}", lists(&self.plan.run))
    }

    /// Asks once and records it.
    async fn ask(
        &self,
        session: &mut Session,
        region: &Region,
        ask: Ask,
        mut request: Request<'_>,
    ) -> Outcome {
        request.bookmark = session.bookmark;
        let answer = self.client.ask(region, session.number, &request).await;
        let call = call(session.number, region, ask, session.bookmark, &answer);
        session.bookmark = answer.bookmark.or(session.bookmark);
        if call.ask.is_write() && call.seen().is_some() {
            let mut acknowledged = locked(&self.acknowledged);
            let latest = acknowledged.entry(region.clone()).or_default();
            *latest = call.began_us.max(*latest);
        }
        let outcome = call.outcome.clone();
        locked(&self.calls).push(call);
        outcome
    }

    /// Asks again, with the same key, while the answer is not final and there is patience.
    async fn insist(
        &self,
        session: &mut Session,
        region: &Region,
        ask: &Ask,
        request: &Request<'_>,
    ) -> Outcome {
        let patience_us = u64::try_from(WRITE_PATIENCE.as_micros()).unwrap_or(u64::MAX);
        let until_us = self.client.now_us() + patience_us;
        let mut pause = PAUSE;
        loop {
            let outcome = self.ask(session, region, ask.clone(), request.clone()).await;
            let over = self.stop.is_cancelled() || self.client.now_us() > until_us;
            if over || matches!(outcome, Outcome::Ok(_) | Outcome::Conflict) {
                return outcome;
            }
            if outcome == Outcome::Told {
                // The session has a bookmark now that is not lost.
                continue;
            }
            let jitter = Duration::from_millis(self.below(300));
            tokio::select! {
                () = tokio::time::sleep(pause + jitter) => {}
                () = self.stop.cancelled() => return outcome,
            }
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    async fn add(&self, session: &mut Session, region: &Region) {
        session.writes += 1;
        let key = format!("{}-{}-{}", self.plan.run, session.number, session.writes);
        let body = json!({ "drill": self.plan.run, "key": key });
        let request = Request::write(Verb::Post, adds(&self.plan.run), &key, &body);
        let ask = Ask::Add { key: key.clone() };
        let Outcome::Ok(seen) = self.insist(session, region, &ask, &request).await else { return };
        if let Some(id) = seen.id {
            if session.own.len() >= OWN_MAX {
                session.own.remove(0);
            }
            session.own.push((key, id));
        }
        let elsewhere = self.any_region();
        self.read_own(session, &elsewhere).await;
    }

    /// Compare and set: the list as it was read, with one more number.
    async fn append(&self, session: &mut Session, region: &Region) {
        let list = self.any_list();
        let Some((etag, before)) = self.read_list(session, region, list).await else { return };
        session.writes += 1;
        let key = format!("{}-{}-{}", self.plan.run, session.number, session.writes);
        // No two writes have the same number.
        let value = u64::from(session.number) << 32 | u64::from(session.writes);
        let mut values = before.clone();
        values.push(value);
        let body = json!({ "drill": self.plan.run, "list": list, "values": values });
        let mut request = Request::write(Verb::Put, self.list_path(list), &key, &body);
        request.if_match = Some(etag);
        let ask = Ask::Append { key: key.clone(), list, before, value };
        if let Outcome::Ok(_) = self.insist(session, region, &ask, &request).await {
            let elsewhere = self.any_region();
            self.read_list(session, &elsewhere, list).await;
        }
    }

    async fn read_something(&self, session: &mut Session, region: &Region) {
        if session.own.is_empty() || self.below(2) == 0 {
            let list = self.any_list();
            self.read_list(session, region, list).await;
        } else {
            self.read_own(session, region).await;
        }
    }

    async fn read_own(&self, session: &mut Session, region: &Region) {
        let which = usize::try_from(self.below(session.own.len() as u64)).unwrap_or(0);
        let Some((key, id)) = session.own.get(which).cloned() else { return };
        let path = format!("{}/{id}", adds(&self.plan.run));
        let request = Request::get(path, None);
        self.ask(session, region, Ask::ReadItem { key }, request).await;
    }

    async fn read_list(
        &self,
        session: &mut Session,
        region: &Region,
        list: u32,
    ) -> Option<(Etag, Vec<u64>)> {
        let request = Request::get(self.list_path(list), None);
        match self.ask(session, region, Ask::ReadList { list }, request).await {
            Outcome::Ok(seen) => Some((seen.etag?, seen.values)),
            _ => None,
        }
    }
}
