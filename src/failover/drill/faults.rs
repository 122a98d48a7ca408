//! The faults, each as what is done and what must then be true. Pure: who does it is a [`Ground`].
//!
//! They are the suite of `shared/postgres.md`, and some smaller ones that move no primary.
//!
//! [`Ground`]: super::ground::Ground

use crate::vocab::{Region, Rng, rng};
use std::{fmt, str::FromStr, time::Duration};

/// What is done to a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// SIGKILL.
    Kill(Place),
    /// Start what is dead.
    Start(Place),
    /// SIGSTOP.
    Pause(Place),
    /// SIGCONT.
    Resume(Place),
    /// Nothing passes between two regions.
    Cut(Region, Region),
    /// Every link is whole and as long as it was.
    Heal,
    /// All of a region's links are longer by that many milliseconds.
    Slow(Region, u64),
    /// The next answer from `to` does not come back to `from`.
    DropAnswer {
        from: Region,
        to: Region,
    },
    /// A long transaction reads on the replica while the primary vacuums.
    ReadLong {
        replica: Region,
        primary: Region,
    },
    /// Backends that wait for a replica's acknowledgement are cancelled.
    CancelWaits(Region),
    /// The log is padded, so that commits end where its pages and segments do.
    FillPages(Region),
    Promote(Region),
    Switchover(Region),
    Rejoin(Region),
}

/// A region, or some of its processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub region: Region,
    pub part: Option<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Api,
    Postgres,
    Redis,
}

/// One thing that happens in a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Do(Act),
    /// A safety rule must refuse it, and say so in these words.
    Refused(Act, &'static str),
    /// The first of them that no safety rule refuses.
    FirstOf(Vec<Act>),
    /// Two people at once: at least one of them gets it done.
    AtOnce(Act, Act),
    /// Until writes are acknowledged that were asked in each of these regions from now on.
    Writes(Vec<Region>),
    /// The workload goes on meanwhile.
    Hold(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillPrimary,
    KillPostgres,
    PausePrimary,
    WakeAlone,
    CutOne,
    CutBoth,
    Delay,
    DropResponse,
    PromoteUnderLoad,
    Laggard,
    OldPrimaryReturns,
    LongReader,
    CancelInWait,
    PageBoundary,
    DoublePromote,
    Failback,
    KillUnreplicated,
    None,
    RestartPrimary,
    RestartReplicaApi,
    RestartReplica,
    RestartRedis,
}

/// Where a fault is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scene {
    pub primary: Region,
    /// The replica that is to take over.
    pub target: Region,
    /// The replicas that are not.
    pub others: Vec<Region>,
}

impl Scene {
    /// Chooses who is to take over. `None` without a replica.
    #[must_use]
    pub fn choose(regions: &[Region], primary: &Region, rng: &dyn Rng) -> Option<Self> {
        let mut others: Vec<Region> =
            regions.iter().filter(|region| *region != primary).cloned().collect();
        if others.is_empty() {
            return None;
        }
        let chosen = rng::below(rng, others.len() as u64);
        let target = others.remove(usize::try_from(chosen).unwrap_or(0));
        Some(Self { primary: primary.clone(), target, others })
    }

    fn replicas(&self) -> Vec<Region> {
        std::iter::once(&self.target).chain(&self.others).cloned().collect()
    }

    fn all(&self) -> Vec<Region> {
        std::iter::once(self.primary.clone()).chain(self.replicas()).collect()
    }

    /// Nothing passes between the primary and anyone else.
    fn isolate(&self) -> Vec<Step> {
        let cut = |replica| Step::Do(Act::Cut(self.primary.clone(), replica));
        self.replicas().into_iter().map(cut).collect()
    }
}

impl Fault {
    pub const ALL: [Self; 22] = [
        Self::KillPrimary,
        Self::KillPostgres,
        Self::PausePrimary,
        Self::WakeAlone,
        Self::CutOne,
        Self::CutBoth,
        Self::Delay,
        Self::DropResponse,
        Self::PromoteUnderLoad,
        Self::Laggard,
        Self::OldPrimaryReturns,
        Self::LongReader,
        Self::CancelInWait,
        Self::PageBoundary,
        Self::DoublePromote,
        Self::Failback,
        Self::KillUnreplicated,
        Self::None,
        Self::RestartPrimary,
        Self::RestartReplicaApi,
        Self::RestartReplica,
        Self::RestartRedis,
    ];

    /// The suite at the end of `shared/postgres.md`, and two that its rules depend on most: a primary
    /// that nobody can tell of its end, and a loss that is certain with `async`. Rounds without a
    /// named fault go through it.
    #[must_use]
    pub fn suite() -> &'static [Self] {
        &Self::ALL[..17]
    }

    /// Name, and what happens in a sentence.
    #[must_use]
    pub const fn facts(self) -> (&'static str, &'static str) {
        match self {
            Self::KillPrimary => {
                ("kill-primary", "Every process of the primary region ends without warning.")
            }
            Self::KillPostgres => {
                ("kill-postgres", "The primary's database ends without warning; its API goes on.")
            }
            Self::PausePrimary => {
                ("pause-primary", "The primary region stands still, is replaced, and wakes up.")
            }
            Self::WakeAlone => (
                "wake-alone",
                "The primary stands still, is replaced, and wakes up cut off: nobody can tell it.",
            ),
            Self::CutOne => {
                ("cut-one", "The primary and one replica do not hear each other for a while.")
            }
            Self::CutBoth => (
                "cut-both",
                "The primary is cut off while its own clients go on writing, and is replaced.",
            ),
            Self::Delay => ("delay", "The primary's links are 300 ms longer."),
            Self::DropResponse => {
                ("drop-response", "Answers of forwarded writes are lost on the way back.")
            }
            Self::PromoteUnderLoad => {
                ("promote-under-load", "The primary moves as planned under a heavy load of writes.")
            }
            Self::Laggard => (
                "laggard",
                "The primary is lost while one replica is behind: that one must not take over.",
            ),
            Self::OldPrimaryReturns => (
                "old-primary-returns",
                "A primary that was replaced comes back by itself and is left so for a while.",
            ),
            Self::LongReader => (
                "long-reader-and-vacuum",
                "A replica is read in a long transaction while the primary vacuums.",
            ),
            Self::CancelInWait => {
                ("cancel-in-syncrep", "Commits that wait for a replica are cancelled.")
            }
            Self::PageBoundary => {
                ("page-boundary", "Commits end where the log's pages and segments do.")
            }
            Self::DoublePromote => ("double-promote", "Two people promote two regions at once."),
            Self::Failback => {
                ("failback", "The primary is lost, replaced, rejoined and made the primary again.")
            }
            Self::KillUnreplicated => (
                "kill-unreplicated",
                "The primary is cut off, takes its own clients' writes for a second more, and dies.",
            ),
            Self::None => ("none", "Nothing is broken."),
            Self::RestartPrimary => {
                ("restart-primary", "The primary's database ends without warning and starts again.")
            }
            Self::RestartReplicaApi => {
                ("restart-replica-api", "A replica's API ends without warning and starts again.")
            }
            Self::RestartReplica => {
                ("restart-replica", "A replica region ends without warning and starts again.")
            }
            Self::RestartRedis => (
                "restart-redis",
                "The primary region's Redis ends without warning and starts again.",
            ),
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// Needs no laboratory.
    #[must_use]
    pub const fn is_planned(self) -> bool {
        matches!(self, Self::None | Self::PromoteUnderLoad)
    }

    /// Writes a second that it takes at least: enough that a hundred are held while the primary
    /// moves.
    #[must_use]
    pub const fn rate_min(self) -> u32 {
        if matches!(self, Self::PromoteUnderLoad) { 200 } else { 0 }
    }

    /// By SIGKILL, and it is replaced.
    #[must_use]
    pub const fn kills_the_primary(self) -> bool {
        self.kills_the_primary_alone() || matches!(self, Self::Laggard | Self::KillUnreplicated)
    }

    /// No link is cut beside: a replica without the primary answers its reads.
    #[must_use]
    pub const fn kills_the_primary_alone(self) -> bool {
        matches!(
            self,
            Self::KillPrimary
                | Self::KillPostgres
                | Self::OldPrimaryReturns
                | Self::DoublePromote
                | Self::Failback
        )
    }

    /// The regions that are left a way to write once the primary has moved.
    #[must_use]
    pub fn survivors(self, scene: &Scene) -> Vec<Region> {
        let moves = |step: &Step| match step {
            Step::Do(act) => matches!(act, Act::Promote(_) | Act::Switchover(_)),
            Step::FirstOf(_) | Step::AtOnce(..) => true,
            _ => false,
        };
        let after = self.script(scene).into_iter().skip_while(|step| !moves(step));
        let first = after.filter_map(|step| match step {
            Step::Writes(regions) => Some(regions),
            _ => None,
        });
        first.take(1).flatten().collect()
    }

    /// What happens, in order.
    #[must_use]
    pub fn script(self, scene: &Scene) -> Vec<Step> {
        let (primary, target) = (&scene.primary, &scene.target);
        let at = |part| Place { region: primary.clone(), part };
        let done = |act| vec![Step::Do(act)];
        let all = || vec![Step::Writes(scene.all())];
        let survivors = || vec![Step::Writes(scene.replicas())];
        // Whoever was chosen may have received less than another.
        let promotions = || scene.replicas().into_iter().map(Act::Promote).collect();
        let promote = || vec![Step::FirstOf(promotions())];
        let rejoin = || [done(Act::Rejoin(primary.clone())), all()].concat();
        let hold = |seconds| vec![Step::Hold(Duration::from_secs(seconds))];
        let heal = || done(Act::Heal);
        let again = |place: Place, seconds| {
            [done(Act::Kill(place.clone())), hold(seconds), done(Act::Start(place)), all()].concat()
        };
        match self {
            Self::None => [hold(5), all()].concat(),
            Self::KillPrimary => {
                let lost = [done(Act::Kill(at(None))), promote(), survivors()].concat();
                [lost, done(Act::Start(at(None))), rejoin()].concat()
            }
            Self::OldPrimaryReturns => {
                let lost = [done(Act::Kill(at(None))), promote(), survivors()].concat();
                [lost, done(Act::Start(at(None))), hold(8), survivors(), rejoin()].concat()
            }
            Self::KillPostgres => {
                let place = at(Some(Part::Postgres));
                let lost = [done(Act::Kill(place.clone())), promote(), all()].concat();
                [lost, done(Act::Start(place)), rejoin()].concat()
            }
            Self::Failback => {
                let back = [done(Act::Switchover(primary.clone())), all()].concat();
                [Self::KillPostgres.script(scene), back].concat()
            }
            Self::PausePrimary => {
                let lost = [done(Act::Pause(at(None))), promote(), survivors(), hold(10)].concat();
                [lost, done(Act::Resume(at(None))), hold(3), rejoin()].concat()
            }
            Self::WakeAlone => scene.wake_alone(promote(), rejoin()),
            Self::CutOne => {
                let cut = done(Act::Cut(primary.clone(), target.clone()));
                let hearing = std::iter::once(primary).chain(&scene.others).cloned().collect();
                [cut, hold(6), vec![Step::Writes(hearing)], heal(), all()].concat()
            }
            Self::CutBoth => {
                // Until its lease and its replicas' patience have run out it is a primary like any other.
                let lost = [scene.isolate(), hold(8), promote(), survivors(), hold(4)].concat();
                [lost, heal(), hold(3), rejoin()].concat()
            }
            Self::KillUnreplicated => scene.kill_unreplicated(promote(), rejoin()),
            Self::Delay => {
                [done(Act::Slow(primary.clone(), 300)), hold(5), all(), heal(), all()].concat()
            }
            Self::DropResponse => {
                let from = scene.replicas().into_iter().cycle().take(6);
                let drop_one = |from| {
                    let drop = Act::DropAnswer { from, to: primary.clone() };
                    [done(drop), hold(1)].concat()
                };
                [from.flat_map(drop_one).collect(), all()].concat()
            }
            Self::PromoteUnderLoad => [done(Act::Switchover(target.clone())), all()].concat(),
            Self::Laggard => scene.laggard(rejoin()),
            Self::LongReader => {
                let (replica, primary) = (target.clone(), primary.clone());
                [done(Act::ReadLong { replica, primary }), all()].concat()
            }
            Self::CancelInWait => {
                let cancel = [hold(1), done(Act::CancelWaits(primary.clone()))].concat();
                [scene.isolate(), cancel, heal(), all()].concat()
            }
            Self::PageBoundary => [done(Act::FillPages(primary.clone())), all()].concat(),
            Self::DoublePromote => {
                let other = scene.others.first().unwrap_or(target).clone();
                let both = Step::AtOnce(Act::Promote(target.clone()), Act::Promote(other));
                let lost = [done(Act::Kill(at(None))), vec![both], survivors()].concat();
                [lost, done(Act::Start(at(None))), rejoin()].concat()
            }
            Self::RestartPrimary => again(at(Some(Part::Postgres)), 2),
            Self::RestartRedis => again(at(Some(Part::Redis)), 1),
            Self::RestartReplica => again(Place { region: target.clone(), part: None }, 3),
            Self::RestartReplicaApi => {
                again(Place { region: target.clone(), part: Some(Part::Api) }, 2)
            }
        }
    }
}

impl Scene {
    fn whole(&self) -> Place {
        Place { region: self.primary.clone(), part: None }
    }

    /// Until all has been healed it hears of no other epoch: its own lease alone can stop it.
    fn wake_alone(&self, promote: Vec<Step>, rejoin: Vec<Step>) -> Vec<Step> {
        let lost = [vec![Step::Do(Act::Pause(self.whole()))], self.isolate(), promote].concat();
        let alone = vec![
            Step::Writes(self.replicas()),
            Step::Do(Act::Resume(self.whole())),
            Step::Hold(Duration::from_secs(4)),
            Step::Do(Act::Heal),
            Step::Hold(Duration::from_secs(1)),
        ];
        [lost, alone, rejoin].concat()
    }

    /// What the cut holds back would be delivered, were it healed before the primary is replaced.
    fn kill_unreplicated(&self, promote: Vec<Step>, rejoin: Vec<Step>) -> Vec<Step> {
        let dies = vec![Step::Hold(Duration::from_secs(1)), Step::Do(Act::Kill(self.whole()))];
        let back = vec![
            Step::Writes(self.replicas()),
            Step::Do(Act::Heal),
            Step::Do(Act::Start(self.whole())),
        ];
        [self.isolate(), dies, promote, back, rejoin].concat()
    }

    /// The link is healed only once the primary has been replaced: what it holds would be
    /// delivered.
    fn laggard(&self, rejoin: Vec<Step>) -> Vec<Step> {
        let Some(further) = self.others.first().cloned() else {
            return vec![Step::Hold(Duration::from_secs(1))];
        };
        let mut steps = vec![
            Step::Do(Act::Cut(self.primary.clone(), self.target.clone())),
            Step::Hold(Duration::from_secs(3)),
            Step::Do(Act::Kill(self.whole())),
            Step::Refused(Act::Promote(self.target.clone()), "further than"),
            Step::Do(Act::Promote(further)),
            Step::Writes(self.replicas()),
            Step::Do(Act::Heal),
            Step::Do(Act::Start(self.whole())),
        ];
        steps.extend(rejoin);
        steps
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = crate::vocab::Malformed;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|fault| fault.name() == text);
        known.ok_or(Self::Err::new("fault", "a name that `godwit drill --list-faults` tells"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            None => write!(f, "{}", self.region),
            Some(Part::Api) => write!(f, "{}/api", self.region),
            Some(Part::Postgres) => write!(f, "{}/postgres", self.region),
            Some(Part::Redis) => write!(f, "{}/redis", self.region),
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(place) => write!(f, "kill {place}"),
            Self::Start(place) => write!(f, "start {place}"),
            Self::Pause(place) => write!(f, "pause {place}"),
            Self::Resume(place) => write!(f, "resume {place}"),
            Self::Cut(a, b) => write!(f, "cut {a} from {b}"),
            Self::Heal => f.write_str("heal every link"),
            Self::Slow(region, ms) => write!(f, "make every link of {region} {ms} ms longer"),
            Self::DropAnswer { from, to } => write!(f, "drop an answer of {to} to {from}"),
            Self::ReadLong { replica, primary } => {
                write!(f, "read {replica} in one long transaction while {primary} vacuums")
            }
            Self::CancelWaits(region) => write!(f, "cancel the commits of {region} that wait"),
            Self::FillPages(region) => write!(f, "pad the log of {region} to its pages' ends"),
            Self::Promote(region) => write!(f, "promote {region}"),
            Self::Switchover(region) => write!(f, "switchover {region}"),
            Self::Rejoin(region) => write!(f, "rejoin {region}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::rng::SeededRng;

    fn scene(seed: u64) -> Scene {
        let regions = ["ap-south-1", "eu-west-1", "us-east-1"].map(|name| name.parse().unwrap());
        let primary = &regions[2];
        Scene::choose(&regions, primary, &SeededRng::new(seed)).unwrap()
    }

    #[test]
    fn every_fault_has_a_name_of_its_own_and_is_found_by_it() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse::<Fault>().unwrap(), fault);
        }
        assert!("earthquake".parse::<Fault>().is_err());
        assert_eq!(Fault::suite().last(), Some(&Fault::KillUnreplicated));
    }

    /// What was broken is made good, and the last thing is that everyone can write.
    #[test]
    fn every_script_ends_with_a_whole_cluster() {
        for fault in Fault::ALL {
            let scene = scene(3);
            let script = fault.script(&scene);
            assert_eq!(script.last(), Some(&Step::Writes(scene.all())), "{fault}");
            let done = |wanted: fn(&Act) -> bool| {
                script.iter().filter(|step| matches!(step, Step::Do(act) if wanted(act))).count()
            };
            assert_eq!(
                done(|act| matches!(act, Act::Kill(_))),
                done(|act| matches!(act, Act::Start(_))),
                "{fault}"
            );
            assert_eq!(
                done(|act| matches!(act, Act::Pause(_))),
                done(|act| matches!(act, Act::Resume(_))),
                "{fault}"
            );
            let broken = done(|act| matches!(act, Act::Cut(..) | Act::Slow(..)));
            assert_eq!(broken > 0, done(|act| *act == Act::Heal) > 0, "{fault}");
            let promoted = script.iter().any(|step| match step {
                Step::Do(act) => matches!(act, Act::Promote(_)),
                Step::AtOnce(..) | Step::FirstOf(_) => true,
                _ => false,
            });
            assert_eq!(promoted, done(|act| matches!(act, Act::Rejoin(_))) > 0, "{fault}");
        }
    }

    #[test]
    fn whoever_must_write_after_the_move_has_survived_it() {
        let scene = scene(3);
        assert_eq!(Fault::KillPrimary.survivors(&scene), scene.replicas());
        assert_eq!(Fault::WakeAlone.survivors(&scene), scene.replicas());
        assert_eq!(Fault::KillPostgres.survivors(&scene), scene.all());
        assert_eq!(Fault::PromoteUnderLoad.survivors(&scene), scene.all());
        assert!(Fault::Delay.survivors(&scene).is_empty());
    }

    #[test]
    fn only_planned_faults_need_no_laboratory() {
        for fault in Fault::ALL {
            let commands = |step: &Step| match step {
                Step::Do(act) => matches!(act, Act::Switchover(_)),
                Step::Writes(_) | Step::Hold(_) => true,
                _ => false,
            };
            assert_eq!(fault.script(&scene(3)).iter().all(commands), fault.is_planned(), "{fault}");
        }
    }

    #[test]
    fn the_seed_chooses_who_takes_over() {
        assert_eq!(scene(5), scene(5));
        let chosen: std::collections::BTreeSet<_> =
            (0..20).map(|seed| scene(seed).target).collect();
        assert_eq!(chosen.len(), 2, "{chosen:?}");
        let lone = ["us-east-1".parse().unwrap()];
        assert!(Scene::choose(&lone, &lone[0], &SeededRng::new(1)).is_none());
    }
}
