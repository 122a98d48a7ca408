//! A small model: regions with clocks of their own, processes of three epochs, promotions that collect
//! promises, messages that are late, lost and out of order, restarts that forget, pauses. It runs the
//! very functions that the program runs. Each broken variant shows that the model would have seen the
//! fault.

use super::*;
use crate::vocab::{
    Clock as _,
    clock::ManualClock,
    rng::{self, SeededRng},
};

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
}

const REGIONS: [&str; 4] = ["a", "b", "c", "d"];
/// Region and epoch of each process: two neighbours, and two promotions.
const PROCESSES: [(usize, u32); 4] = [(0, 1), (0, 1), (1, 2), (2, 3)];

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
    promised: Option<Promise>,
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
    /// Regions that have promised its epoch.
    promised: BTreeMap<usize, u64>,
    /// When, by its own clock, all that those had granted before has run out.
    waits_until: Option<Instant>,
}

enum Message {
    Ask { process: usize, store: usize, sent_at: Instant },
    Answer { process: usize, store: usize, sent_at: Instant, verdict: Verdict },
    Promise { process: usize, store: usize },
    Promised { process: usize, store: usize, left_ms: u64 },
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
    /// Steps in which some process of each epoch held its lease.
    held: BTreeMap<Epoch, u64>,
}

fn region(index: usize) -> Region {
    format!("region-{}", REGIONS[index]).parse().unwrap()
}

impl World {
    fn new(seed: u64, broken: Broken) -> Self {
        let rng = SeededRng::new(seed);
        // Within 4 % of true time: the margin is 10 % of the term.
        let apart = if broken == Broken::NoMargin { 100 } else { 40 };
        let speed = || 1_000 - apart + rng::below(&rng, 2 * apart + 1);
        let regions = 3 + usize::try_from(rng::below(&rng, 2)).unwrap();
        let stores = (0..regions).map(|_| Store {
            speed: speed(),
            ahead_ms: rng::below(&rng, 1_000_000),
            instance: 0,
            record: None,
            older: Vec::new(),
            written: Epoch::FIRST,
            promised: None,
        });
        let stores = stores.collect();
        let processes = PROCESSES.iter().map(|(at, epoch)| Process {
            region: region(*at),
            epoch: Epoch::new(*epoch).unwrap(),
            speed: speed(),
            hold: Hold::default(),
            begun: *epoch == 1,
            starts_ms: u64::from(epoch - 1) * rng::below(&rng, 20_000),
            paused_until_ms: 0,
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
                if starts_ms.max(paused_until_ms) <= self.now_ms {
                    if !begun {
                        self.promote(process);
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
        let majority = majority(self.stores.len());
        let waits = !matches!(self.broken, Broken::NoMargin | Broken::TakesOver);
        let process = &mut self.processes[at];
        if process.promised.len() >= majority {
            let left_ms = process.promised.values().max().copied().filter(|_| waits).unwrap_or(0);
            // A tenth for the clocks.
            let wait = Duration::from_millis(left_ms + left_ms / 10);
            let until = *process.waits_until.get_or_insert(now + wait);
            if until <= now {
                process.begun = true;
                let (region, epoch) = (process.region.clone(), process.epoch);
                let own = (0..self.stores.len()).find(|store| self::region(*store) == region);
                let written = &mut self.stores[own.unwrap()].written;
                *written = epoch.max(*written);
            }
        }
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
            store.promised = None;
        }
    }

    fn arrive(&mut self, message: &Message) {
        match *message {
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
                let Process { epoch, region, .. } = &self.processes[process];
                let wanted = Promise { epoch: *epoch, region: region.clone(), planned: false };
                // As `Grantor` remembers.
                let kept = self.stores[store].promised.as_ref();
                if kept.is_some_and(|kept| kept.epoch > wanted.epoch) {
                    return;
                }
                let (found, known) = self.found(store);
                let (answer, record) = judge_promise(&found, &wanted, known, self.config.term_ms);
                self.keep(store, record);
                if let Promised::Yes { left_ms } = answer {
                    self.stores[store].promised = Some(wanted);
                    self.send(Message::Promised { process, store, left_ms });
                }
            }
            Message::Promised { process, store, left_ms } => {
                self.processes[process].promised.insert(store, left_ms);
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
        let kept = self.stores[at].promised.as_ref().filter(|kept| kept.epoch > epoch);
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
        let needed = match self.broken {
            Broken::HalfIsEnough => self.stores.len() / 2,
            _ => majority(self.stores.len()),
        };
        let holds = |at: &usize| {
            let process = &self.processes[*at];
            let until = process.hold.until(process.epoch, needed);
            until.is_some_and(|until| self.instant(*at) < until)
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
    for epoch in 1..=3 {
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
    ] {
        let found = (0..4_000).find(|seed| run(*seed, broken).is_err());
        assert!(found.is_some(), "{broken:?} goes unnoticed");
    }
}

fn found(now_ms: u64, record: Option<Record>) -> Found {
    Found { instance: "one".to_owned(), now_ms, record }
}

fn noted(epoch: u32, by: usize, until_ms: u64) -> Record {
    let grant = Grant { epoch: Epoch::new(epoch).unwrap(), region: region(by), until_ms };
    let instance = "one".to_owned();
    Record { instance, quiet_until_ms: 0, grant: Some(grant), promise: None }
}

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

/// A region whose database has the row of the latest of these and of all before.
fn knows(number: u32) -> Known {
    Known { written: Epoch::new(number), heard: Epoch::new(number) }
}

fn verdict(found: &Found, of: u32, by: usize, known: Known) -> Verdict {
    judge(found, epoch(of), &region(by), known, 3_000).0
}

fn promised(found: &Found, of: u32, by: usize, known: Known) -> Promised {
    let wanted = Promise { epoch: epoch(of), region: region(by), planned: false };
    judge_promise(found, &wanted, known, 3_000).0
}

#[test]
fn refusals_say_why_and_for_how_long() {
    let forgotten = found(10_000, None);
    assert_eq!(verdict(&forgotten, 1, 0, knows(1)), Verdict::Quiet { left_ms: 3_000 });
    let mut quiet = noted(1, 0, 12_000);
    quiet.quiet_until_ms = 11_000;
    let quiet = found(10_000, Some(quiet));
    assert_eq!(verdict(&quiet, 1, 0, knows(1)), Verdict::Quiet { left_ms: 1_000 });
    assert_eq!(promised(&quiet, 2, 1, knows(1)), Promised::Quiet { left_ms: 1_000 });
    let held = found(10_000, Some(noted(1, 0, 12_000)));
    assert_eq!(verdict(&held, 1, 0, knows(1)), Verdict::Granted);
    let taken = Verdict::Taken { epoch: epoch(1), region: region(0), left_ms: 2_000 };
    assert_eq!(verdict(&held, 2, 1, knows(2)), taken);
    // The same epoch of another region is another reign.
    assert_eq!(verdict(&held, 1, 1, knows(1)), taken);
    assert_eq!(verdict(&held, 1, 0, knows(2)), Verdict::Outranked { epoch: epoch(2) });
    let over = found(10_000, Some(noted(2, 1, 9_000)));
    assert_eq!(verdict(&over, 1, 0, knows(1)), Verdict::Outranked { epoch: epoch(2) });
    assert_eq!(verdict(&over, 3, 2, knows(3)), Verdict::Granted);
    // Its database has no row of it, or does not answer.
    assert_eq!(verdict(&over, 3, 2, knows(2)), Verdict::Unheard);
    assert_eq!(verdict(&held, 1, 0, Known::default()), Verdict::Unheard);
}

#[test]
fn a_promise_ends_the_epochs_before_it_and_tells_what_they_were_granted() {
    let held = found(10_000, Some(noted(1, 0, 12_000)));
    assert_eq!(promised(&held, 2, 1, knows(1)), Promised::Yes { left_ms: 2_000 });
    let wanted = Promise { epoch: epoch(2), region: region(1), planned: true };
    let (_, record) = judge_promise(&held, &wanted, knows(1), 3_000);
    let after = found(10_500, record);
    assert_eq!(verdict(&after, 1, 0, knows(1)), Verdict::Outranked { epoch: epoch(2) });
    // Asked again, or once it has begun, for the same: the same.
    assert_eq!(promised(&after, 2, 1, knows(1)), Promised::Yes { left_ms: 1_500 });
    assert_eq!(promised(&after, 2, 1, knows(2)), Promised::Yes { left_ms: 1_500 });
    let to_another = Promised::Outranked { epoch: epoch(2), region: Some(region(1)) };
    assert_eq!(promised(&after, 2, 2, knows(1)), to_another);
    assert_eq!(promised(&after, 3, 2, knows(1)), Promised::Yes { left_ms: 1_500 });
    // What has begun is promised to nobody.
    let begun = Promised::Outranked { epoch: epoch(2), region: None };
    assert_eq!(promised(&held, 2, 1, knows(2)), begun);
    // The promised epoch itself is expected, and waits for what was granted before it.
    let expected = Verdict::Taken { epoch: epoch(1), region: region(0), left_ms: 1_500 };
    assert_eq!(verdict(&after, 2, 1, knows(1)), expected);
    let taken = Verdict::Taken { epoch: epoch(1), region: region(0), left_ms: 1_500 };
    assert_eq!(verdict(&after, 2, 1, knows(2)), taken);
}

#[test]
fn a_grant_is_released_only_once_a_later_epoch_is_promised() {
    let held = found(10_000, Some(noted(1, 0, 12_000)));
    assert_eq!(release(&held, epoch(1), 3_000), None);
    let wanted = Promise { epoch: epoch(2), region: region(1), planned: true };
    let (_, record) = judge_promise(&held, &wanted, knows(1), 3_000);
    let promised = found(10_000, record);
    assert_eq!(release(&promised, epoch(2), 3_000), None);
    let after = found(10_001, release(&promised, epoch(1), 3_000));
    assert_eq!(verdict(&after, 2, 1, knows(2)), Verdict::Granted);
    assert_eq!(verdict(&after, 1, 0, knows(1)), Verdict::Outranked { epoch: epoch(2) });
}

#[test]
fn a_clock_that_was_set_back_holds_nobody_up_for_more_than_a_term() {
    let held = found(10_000, Some(noted(1, 0, 3_600_000)));
    let (verdict, record) = judge(&held, epoch(2), &region(1), knows(2), 3_000);
    let taken = Verdict::Taken { epoch: Epoch::FIRST, region: region(0), left_ms: 3_000 };
    assert_eq!(verdict, taken);
    assert_eq!(record, Some(noted(1, 0, 13_000)));
}

#[test]
fn another_instance_of_the_store_is_asked_as_if_it_had_forgotten() {
    let held = Found { instance: "two".to_owned(), ..found(10_000, Some(noted(1, 0, 12_000))) };
    assert_eq!(verdict(&held, 1, 0, knows(1)), Verdict::Quiet { left_ms: 3_000 });
}

#[test]
fn a_majority_is_counted_from_the_regions_that_granted_longest() {
    let clock = ManualClock::new();
    let config = LeaseConfig::default();
    let (start, life) = (clock.monotonic(), Duration::from_millis(2_700));
    let mut hold = Hold::default();
    assert_eq!(hold.until(Epoch::FIRST, 2), None);
    hold.granted(&region(0), Epoch::FIRST, start, &config);
    assert_eq!(hold.until(Epoch::FIRST, 2), None);
    let later = start + Duration::from_millis(500);
    hold.granted(&region(1), Epoch::FIRST, later, &config);
    assert_eq!(hold.until(Epoch::FIRST, 2), Some(start + life));
    hold.granted(&region(0), Epoch::FIRST, later, &config);
    // An older grant that comes late takes nothing back.
    hold.granted(&region(0), Epoch::FIRST, start, &config);
    assert_eq!(hold.until(Epoch::FIRST, 2), Some(later + life));
    assert_eq!(hold.until(Epoch::new(2).unwrap(), 2), None);
    hold.granted(&region(0), Epoch::new(2).unwrap(), later, &config);
    assert_eq!(hold.until(Epoch::FIRST, 2), None);
    assert_eq!([1, 2, 3, 4, 5].map(majority), [1, 2, 2, 3, 3]);
}
