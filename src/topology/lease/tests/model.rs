//! A small model: regions with clocks of their own, processes of four epochs, promotions that collect
//! promises, messages that are late, lost and out of order, restarts that forget, pauses, regions that
//! die, and members that are removed and added with each promotion. It runs the very functions that the
//! program runs. Each broken variant shows that the model would have seen the fault.

use super::super::*;
use crate::vocab::{
    Clock as _, Quorum,
    clock::ManualClock,
    rng::{self, SeededRng},
};
use std::collections::BTreeSet;

/// What is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// A grant counts from when its answer came.
    CountsFromTheAnswer,
    /// A region that has forgotten grants at once.
    GrantsAtOnceAfterARestart,
    /// A restarted store's older note is believed.
    BelievesAnOlderNote,
    /// Half of the regions is enough.
    HalfIsEnough,
    /// No margin for clocks of different speed, neither in the lease nor before a promotion.
    NoMargin,
    /// A grant to another epoch is not waited out, neither by who grants nor by a promotion.
    TakesOver,
    /// A region loses its Redis and its processes at the same time.
    ForgetsItsPromise,
    /// A change of the members is promised by a majority of the new ones only.
    TheNewAlone,
    /// A region does not tell of changes that it has promised before.
    KeepsChangesToItself,
    /// Regions that are gone stand for what they have promised, whoever else does not answer.
    GoneForAll,
    /// Regions count that are no members.
    CountsStrangers,
}

const REGIONS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Region and epoch of each process: two neighbours, and three promotions.
const PROCESSES: [(usize, u32); 5] = [(0, 1), (0, 1), (1, 2), (2, 3), (0, 4)];

struct Store {
    /// Milliseconds that it counts in 1,000 of ours.
    speed: u64,
    ahead_ms: u64,
    instance: u64,
    record: Option<Record>,
    /// Notes of before, one of which may be found after a restart.
    older: Vec<Option<Record>>,
    /// What its database has on disk: no restart takes it back.
    written: Epoch,
    /// What its processes have promised: they outlive their Redis.
    promised: Remembered,
    /// When the region dies for good, and all of its processes.
    dies_ms: u64,
}

struct Process {
    region: Region,
    epoch: Epoch,
    speed: u64,
    hold: Hold,
    /// Of the first epoch from the start; of others once their promotion is done.
    begun: bool,
    /// When its promotion is asked for.
    starts_ms: u64,
    paused_until_ms: u64,
    /// Of its promotion, once it has looked: the promise, and what it takes.
    wanted: Option<(Promise, Quorum)>,
    /// Regions that have promised its epoch.
    promised: BTreeMap<usize, u64>,
    /// When, by its own clock, all that those had granted before has run out.
    waits_until: Option<Instant>,
}

#[derive(Clone)]
enum Message {
    Ask { process: usize, store: usize, sent_at: Instant },
    Answer { process: usize, store: usize, sent_at: Instant, verdict: Verdict },
    Promise { process: usize, store: usize },
    Promised { process: usize, store: usize, left_ms: u64, others: Vec<Members> },
}

struct World {
    broken: Broken,
    rng: SeededRng,
    config: LeaseConfig,
    began: Instant,
    now_ms: u64,
    stores: Vec<Store>,
    processes: Vec<Process>,
    /// Of 60 steps, in how many a store restarts, and replication brings something.
    restarts: u64,
    replications: u64,
    /// With the time each arrives.
    under_way: Vec<(u64, Message)>,
    /// Of each epoch that has begun.
    members: BTreeMap<Epoch, Members>,
    /// Steps in which some process of each epoch held its lease.
    held: BTreeMap<Epoch, u64>,
}

pub(super) fn region(index: usize) -> Region {
    format!("region-{}", REGIONS[index]).parse().unwrap()
}

impl World {
    fn new(seed: u64, broken: Broken) -> Self {
        let rng = SeededRng::new(seed);
        // Within 4 % of true time: the margin is 10 % of the term.
        let apart = if broken == Broken::NoMargin { 100 } else { 40 };
        let speed = || 1_000 - apart + rng::below(&rng, 2 * apart + 1);
        let regions = 3 + usize::try_from(rng::below(&rng, 3)).unwrap();
        // In every other world regions die.
        let mortal = rng::below(&rng, 2) == 0;
        let stores = (0..regions).map(|_| Store {
            speed: speed(),
            ahead_ms: rng::below(&rng, 1_000_000),
            instance: 0,
            record: None,
            older: Vec::new(),
            written: Epoch::FIRST,
            promised: Remembered::default(),
            dies_ms: if mortal { rng::below(&rng, 120_000) } else { u64::MAX },
        });
        let stores: Vec<Store> = stores.collect();
        let all = (0..regions).map(region).collect();
        let processes = PROCESSES.iter().map(|(at, epoch)| Process {
            region: region(*at),
            epoch: Epoch::new(*epoch).unwrap(),
            speed: speed(),
            hold: Hold::default(),
            begun: *epoch == 1,
            starts_ms: u64::from(epoch - 1) * rng::below(&rng, 20_000),
            paused_until_ms: 0,
            wanted: None,
            promised: BTreeMap::new(),
            waits_until: None,
        });
        let processes = processes.collect();
        let margin_ms = if broken == Broken::NoMargin { 1 } else { 300 };
        Self {
            broken,
            config: LeaseConfig { margin_ms, ..LeaseConfig::default() },
            began: ManualClock::new().monotonic(),
            now_ms: 0,
            stores,
            processes,
            under_way: Vec::new(),
            members: BTreeMap::from([(Epoch::FIRST, all)]),
            held: BTreeMap::new(),
            restarts: 1 + rng::below(&rng, 3),
            replications: [0, 1, 4][usize::try_from(rng::below(&rng, 3)).unwrap()],
            rng,
        }
    }

    fn below(&self, bound: u64) -> u64 {
        rng::below(&self.rng, bound)
    }
    fn one_of(&self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap()
    }
    /// A process' own clock.
    fn instant(&self, process: usize) -> Instant {
        let speed = self.processes[process].speed;
        self.began + Duration::from_micros(self.now_ms * speed)
    }

    /// Anything from at once to long after its time; some are lost.
    fn send(&mut self, message: Message) {
        let delay = match self.below(10) {
            0 => return,
            1 => self.below(6_000),
            2..=4 => self.below(400),
            _ => self.below(30),
        };
        self.under_way.push((self.now_ms + delay, message));
    }

    fn step(&mut self) {
        self.now_ms += self.below(60);
        let (restarts, replications) = (self.restarts, self.replications);
        match self.below(60) {
            step if step < restarts => self.restart(),
            step if step < restarts + replications => self.replicate(),
            59 => {
                let process = self.one_of(self.processes.len());
                self.processes[process].paused_until_ms = self.now_ms + self.below(8_000);
            }
            _ => {
                let process = self.one_of(self.processes.len());
                let Process { starts_ms, paused_until_ms, begun, .. } = self.processes[process];
                if starts_ms.max(paused_until_ms) <= self.now_ms && self.lives(process) {
                    if !begun {
                        self.promote(process);
                    }
                    if !begun && self.processes[process].wanted.is_none() {
                        return;
                    }
                    let sent_at = self.instant(process);
                    for store in 0..self.stores.len() {
                        self.send(if self.processes[process].begun {
                            Message::Ask { process, store, sent_at }
                        } else {
                            Message::Promise { process, store }
                        });
                    }
                }
            }
        }
        while let Some(at) = self.due() {
            let (_, message) = self.under_way.swap_remove(at);
            self.arrive(&message);
        }
    }

    /// Replication brings an epoch that has begun.
    fn replicate(&mut self) {
        let store = self.one_of(self.stores.len());
        let begun = self.processes.iter().filter(|process| process.begun);
        let newest = begun.map(|process| process.epoch).max();
        let written = &mut self.stores[store].written;
        *written = newest.map_or(*written, |newest| newest.max(*written));
    }

    /// Begins the epoch once a majority has promised it and what they had granted has run out.
    fn promote(&mut self, at: usize) {
        let now = self.instant(at);
        if self.processes[at].wanted.is_none() {
            self.processes[at].wanted = self.look(at);
        }
        let waits = !matches!(self.broken, Broken::NoMargin | Broken::TakesOver);
        let half = self.broken == Broken::HalfIsEnough;
        let for_all = self.broken == Broken::GoneForAll;
        let process = &mut self.processes[at];
        let Some((promise, quorum)) = &process.wanted else { return };
        let promised: BTreeSet<Region> = process.promised.keys().map(|at| region(*at)).collect();
        let enough = |members: &Members| {
            let answers = members.among(&promised);
            let gone =
                members.among(&quorum.gone.difference(&promised).cloned().collect::<Vec<_>>());
            (half && 2 * answers >= members.count())
                || (for_all && members.count() - answers - gone < members.needed())
        };
        let lacks = quorum.lacks(&promised).filter(|members| !enough(members));
        if (lacks.is_none() && promised.contains(&process.region)) || process.waits_until.is_some()
        {
            let told = quorum.tells_all(&promised);
            let term_ms = if told { 0 } else { self.config.term_ms };
            let left_ms = process.promised.values().max().copied().unwrap_or(0).max(term_ms);
            let left_ms = if waits { left_ms } else { 0 };
            let members = promise.members.clone().unwrap();
            // A tenth for the clocks.
            let wait = Duration::from_millis(left_ms + left_ms / 10);
            let until = *process.waits_until.get_or_insert(now + wait);
            if until <= now {
                process.begun = true;
                let (region, epoch) = (process.region.clone(), process.epoch);
                self.members.insert(epoch, members);
                let own = (0..self.stores.len()).find(|store| self::region(*store) == region);
                let written = &mut self.stores[own.unwrap()].written;
                *written = epoch.max(*written);
            }
        }
    }

    fn lives(&self, process: usize) -> bool {
        let region = &self.processes[process].region;
        self.stores
            .iter()
            .zip(0..)
            .all(|(store, at)| self::region(at) != *region || store.dies_ms > self.now_ms)
    }

    /// What the promotion of a process is to be, from the epoch that some region has heard of: others
    /// may have begun since. Each but some of the first removes and adds whom it likes.
    fn look(&self, at: usize) -> Option<(Promise, Quorum)> {
        let Process { region, epoch, .. } = &self.processes[at];
        let asked = self.one_of(self.stores.len());
        let after = self.stores[asked].written;
        let counted = self.members[&after].clone();
        if self.stores[asked].dies_ms <= self.now_ms || after >= *epoch || !counted.contains(region)
        {
            return None;
        }
        let dead = |at: &usize| self.stores[*at].dies_ms <= self.now_ms;
        let gone = (0..self.stores.len()).filter(|at| dead(at) && self.below(2) == 0);
        let gone: BTreeSet<Region> = gone.map(self::region).collect();
        let drawn = self.below(3);
        let members: Members = (0..self.stores.len())
            .map(self::region)
            .filter(|other| {
                let counts = match drawn {
                    0 => counted.contains(other),
                    1 => counted.contains(other) && self.below(2) == 0,
                    _ => self.below(2) == 0,
                };
                other == region || (counts && !gone.contains(other))
            })
            .collect();
        let before = match self.broken {
            Broken::TheNewAlone => Vec::new(),
            _ => vec![counted],
        };
        let promise = Promise {
            epoch: *epoch,
            region: region.clone(),
            planned: false,
            after: Some(after),
            members: Some(members.clone()),
            // At most one epoch holds the lease whatever a plan has heard of.
            accepts_loss: true,
        };
        Some((promise, Quorum { members, before, gone }))
    }

    /// A message whose time has come, if the process it is for is not paused.
    fn due(&self) -> Option<usize> {
        self.under_way.iter().position(|(at, message)| {
            let awake = match message {
                Message::Ask { .. } | Message::Promise { .. } => true,
                Message::Answer { process, .. } | Message::Promised { process, .. } => {
                    self.processes[*process].paused_until_ms <= self.now_ms
                }
            };
            *at <= self.now_ms && awake
        })
    }

    /// A store comes back as another instance, empty or with an older note.
    fn restart(&mut self) {
        let at = self.one_of(self.stores.len());
        let older = self.stores[at].older.len();
        let found = match (older, self.below(2)) {
            (0, _) | (_, 0) => None,
            _ => self.stores[at].older[self.one_of(older)].clone(),
        };
        let store = &mut self.stores[at];
        (store.record, store.instance) = (found, store.instance + 1);
        if self.broken == Broken::ForgetsItsPromise {
            store.promised = Remembered::default();
        }
    }

    fn arrive(&mut self, message: &Message) {
        match message.clone() {
            Message::Ask { store, .. } | Message::Promise { store, .. }
                if self.stores[store].dies_ms <= self.now_ms => {}
            Message::Ask { process, store, sent_at } => {
                let (epoch, region) =
                    (self.processes[process].epoch, self.processes[process].region.clone());
                let verdict = self.judged(store, epoch, &region);
                self.send(Message::Answer { process, store, sent_at, verdict });
            }
            Message::Answer { process, store, sent_at, verdict: Verdict::Granted } => {
                let from = match self.broken {
                    Broken::CountsFromTheAnswer => self.instant(process),
                    _ => sent_at,
                };
                let Process { hold, epoch, .. } = &mut self.processes[process];
                hold.granted(&region(store), *epoch, from, &self.config);
            }
            Message::Answer { .. } => {}
            Message::Promise { process, store } => {
                let (wanted, _) = self.processes[process].wanted.clone().unwrap();
                // As `Grantor` remembers.
                let kept = self.stores[store].promised.latest();
                if kept.is_some_and(|kept| kept.epoch > wanted.epoch) {
                    return;
                }
                let (found, known) = self.found(store);
                let (answer, record) = judge_promise(&found, &wanted, known, self.config.term_ms);
                self.keep(store, record);
                if let Promised::Yes { left_ms, mut others } = answer {
                    // As `Grantor` tells.
                    let (after, written) = (wanted.after.unwrap(), self.stores[store].written);
                    let begun =
                        self.members.iter().filter(|(at, _)| after < **at && **at <= written);
                    others.extend(begun.map(|(_, members)| members.clone()));
                    others.extend(self.stores[store].promised.others(&wanted).cloned());
                    self.stores[store].promised.note(&wanted, known);
                    self.send(Message::Promised { process, store, left_ms, others });
                }
            }
            Message::Promised { process, store, left_ms, others } => {
                let process = &mut self.processes[process];
                let (_, quorum) = process.wanted.as_mut().unwrap();
                process.promised.insert(store, left_ms);
                if !matches!(self.broken, Broken::KeepsChangesToItself | Broken::TheNewAlone) {
                    for members in others {
                        quorum.add(members);
                    }
                }
            }
        }
    }

    fn found(&self, at: usize) -> (Found, Known) {
        let store = &self.stores[at];
        let instance = match self.broken {
            Broken::BelievesAnOlderNote => "same".to_owned(),
            _ => store.instance.to_string(),
        };
        let now_ms = store.ahead_ms + self.now_ms * store.speed / 1_000;
        let known = Known { written: Some(store.written), heard: Some(store.written) };
        (Found { instance, now_ms, record: store.record.clone() }, known)
    }

    fn keep(&mut self, at: usize, record: Option<Record>) {
        if let Some(record) = record {
            let store = &mut self.stores[at];
            let before = store.record.replace(record);
            store.older.push(before);
        }
    }

    fn judged(&mut self, at: usize, epoch: Epoch, asker: &Region) -> Verdict {
        let (mut found, known) = self.found(at);
        if let (Broken::TakesOver, Some(record)) = (self.broken, &mut found.record) {
            record.grant = None;
        }
        let kept = self.stores[at].promised.latest().filter(|kept| kept.epoch > epoch);
        if let Some(kept) = kept {
            return Verdict::Outranked { epoch: kept.epoch };
        }
        let (verdict, mut record) = judge(&found, epoch, asker, known, self.config.term_ms);
        if let (Broken::GrantsAtOnceAfterARestart, Some(record)) = (self.broken, &mut record) {
            record.quiet_until_ms = 0;
        }
        self.keep(at, record);
        verdict
    }

    /// The epochs that hold a lease now: a process that is paused may go on at any moment.
    fn holding(&self) -> Vec<Epoch> {
        let holds = |at: &usize| {
            let process = &self.processes[*at];
            let Some(members) = self.members.get(&process.epoch) else { return false };
            let until = match self.broken {
                Broken::HalfIsEnough => {
                    let granted = |at: &Region| process.hold.until.get(at).copied();
                    let mut ends: Vec<Instant> = members.iter().filter_map(granted).collect();
                    ends.sort_unstable_by(|a, b| b.cmp(a));
                    ends.get((members.count() / 2).max(1) - 1).copied()
                }
                Broken::CountsStrangers => {
                    let mut ends: Vec<Instant> = process.hold.until.values().copied().collect();
                    ends.sort_unstable_by(|a, b| b.cmp(a));
                    ends.get(members.needed() - 1).copied()
                }
                _ => process.hold.until(process.epoch, members),
            };
            self.lives(*at) && until.is_some_and(|until| self.instant(*at) < until)
        };
        let held = (0..self.processes.len()).filter(holds);
        let mut epochs: Vec<Epoch> = held.map(|at| self.processes[at].epoch).collect();
        epochs.dedup();
        epochs
    }
}

/// Runs one world; `Err` with the time when two epochs held the lease, or one after a later one had.
fn run(seed: u64, broken: Broken) -> Result<BTreeMap<Epoch, u64>, u64> {
    let mut world = World::new(seed, broken);
    for _ in 0..1_500 {
        world.step();
        let holding = world.holding();
        let latest = world.held.keys().max();
        if holding.len() > 1 || holding.iter().any(|epoch| Some(epoch) < latest) {
            return Err(world.now_ms);
        }
        for epoch in holding {
            *world.held.entry(epoch).or_default() += 1;
        }
    }
    Ok(world.held)
}

#[test]
fn at_most_one_epoch_holds_the_lease_whatever_comes_late_restarts_or_pauses() {
    let mut held: BTreeMap<Epoch, u64> = BTreeMap::new();
    for seed in 0..600 {
        match run(seed, Broken::Nothing) {
            Ok(epochs) => {
                for (epoch, steps) in epochs {
                    *held.entry(epoch).or_default() += steps;
                }
            }
            Err(at_ms) => panic!("the wrong epoch holds the lease in world {seed} at {at_ms} ms"),
        }
    }
    // Otherwise the model shows nothing: each epoch has its time.
    for epoch in 1..=4 {
        let steps = held.get(&Epoch::new(epoch).unwrap()).copied().unwrap_or(0);
        assert!(steps > 10_000, "epoch {epoch} held the lease for {steps} steps");
    }
}

#[test]
fn the_model_finds_what_is_broken_on_purpose() {
    for broken in [
        Broken::CountsFromTheAnswer,
        Broken::GrantsAtOnceAfterARestart,
        Broken::BelievesAnOlderNote,
        Broken::HalfIsEnough,
        Broken::NoMargin,
        Broken::TakesOver,
        Broken::ForgetsItsPromise,
        Broken::TheNewAlone,
        Broken::KeepsChangesToItself,
        Broken::GoneForAll,
        Broken::CountsStrangers,
    ] {
        let found = (0..4_000).find(|seed| run(*seed, broken).is_err());
        assert!(found.is_some(), "{broken:?} goes unnoticed");
    }
}
