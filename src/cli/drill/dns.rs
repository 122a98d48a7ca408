//! `godwit drill --dns`: every region lost in each way, and more than one at once; where that sends their users, and
//! how soon.
//!
//! Nothing else is judged than what users see: each place's users ask the laboratory's name server, go to the address
//! that they are told, and look who serves them there.

use super::{Cluster, Drill, ground::LabGround, progress, save};
use crate::{
    cli::{Misused, table},
    failover::drill::ground::{Acted, Ground as _},
    lab::{
        DRILLS,
        control::{Request, ask},
        dns::{DnsFacts, INTERVAL_SECONDS, Places, Users, resolve, served_by},
    },
    vocab::{Op, OpKind, Region},
};
use anyhow::{Context as _, bail};
use futures_util::future::join_all;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest wait for all users to be where they belong once a region is lost, and once it is back: one that was killed
/// replays its log first.
const MOVE_PATIENCE: Duration = Duration::from_secs(20);
const BACK_PATIENCE: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How a region is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    /// All of it is killed.
    Killed,
    /// All of it is stopped where it is: connections are accepted, and nothing answers.
    Frozen,
    /// Its API processes are killed.
    Api,
    /// Its Postgres is killed: it answers, and says that others serve its users better.
    Postgres,
    /// Its flag is raised. It serves whoever comes.
    Drained,
}

impl Way {
    const ALL: [Self; 5] = [Self::Killed, Self::Frozen, Self::Api, Self::Postgres, Self::Drained];

    const fn word(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Frozen => "frozen",
            Self::Api => "its API killed",
            Self::Postgres => "its Postgres killed",
            Self::Drained => "drained",
        }
    }

    fn lose(self, region: &Region) -> anyhow::Result<Request> {
        let (region, target) = (region.clone(), region.clone().into());
        Ok(match self {
            Self::Killed => Request::Kill { target },
            Self::Frozen => Request::Pause { target },
            Self::Api => Request::Kill { target: format!("{region}/api").parse()? },
            Self::Postgres => Request::Kill { target: format!("{region}/postgres").parse()? },
            Self::Drained => Request::Drain { region, drained: true },
        })
    }

    fn mend(self, region: &Region) -> Request {
        let (region, target) = (region.clone(), region.clone().into());
        match self {
            Self::Killed | Self::Api | Self::Postgres => Request::Start { target },
            Self::Frozen => Request::Resume { target },
            Self::Drained => Request::Drain { region, drained: false },
        }
    }
}

/// Every region in every way; every two and more killed, but one; and all drained, which needs no region to return.
fn cases(places: &Places) -> Vec<(BTreeSet<Region>, Way)> {
    let mut cases = Vec::new();
    for lost in places.losses() {
        match lost.len() {
            0 => {}
            1 => cases.extend(Way::ALL.map(|way| (lost.clone(), way))),
            all if all == places.regions().len() => cases.push((lost, Way::Drained)),
            _ => cases.push((lost, Way::Killed)),
        }
    }
    cases
}

/// The sets of lost regions on the way from none to these. To lose all at once would move nobody, and show nothing.
fn steps(lost: &BTreeSet<Region>, all: usize) -> Vec<BTreeSet<Region>> {
    if lost.len() < all {
        return vec![BTreeSet::new(), lost.clone()];
    }
    (0..=all).map(|count| lost.iter().take(count).cloned().collect()).collect()
}

/// Which region users of each place are sent to.
type Sent = BTreeMap<&'static str, Region>;

fn right(places: &Places, lost: &BTreeSet<Region>) -> Sent {
    let sent = |users: &Users| {
        let best = places.answers(&users.home, lost).into_iter().next();
        (users.place, best.unwrap_or_else(|| users.home.clone()))
    };
    places.users().iter().map(sent).collect()
}

/// Who is elsewhere than they belong, both before and after a change that is none of theirs.
fn strayed(before: &Sent, after: &Sent, told: &Sent) -> BTreeSet<String> {
    let stays = after.iter().filter(|(place, region)| before.get(*place) == Some(*region));
    let stray = stays.filter_map(|(place, region)| {
        let there = told.get(place).filter(|there| *there != region)?;
        Some(format!("users of {place} were sent to {there}, and had no reason to leave {region}"))
    });
    stray.collect()
}

#[derive(Debug, Serialize)]
struct Case {
    how: Way,
    lost: BTreeSet<Region>,
    /// Where users of each place were sent in the end.
    answers: Sent,
    /// From the end of the last command that lost a region until everybody was served where they belong.
    moved_ms: Option<u64>,
    /// From the end of the last command that brought one back until everybody was served at home.
    back_ms: Option<u64>,
    /// What was not as it should have been.
    wrong: Vec<String>,
}

impl Case {
    const fn of(how: Way, lost: BTreeSet<Region>) -> Self {
        Self { how, lost, answers: Sent::new(), moved_ms: None, back_ms: None, wrong: Vec::new() }
    }
}

#[derive(Debug, Serialize)]
struct Told<'a> {
    place: &'a str,
    address: std::net::Ipv4Addr,
    home: &'a Region,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    at: String,
    domain: &'a str,
    /// Between two health checks; one failure counts.
    interval_seconds: u32,
    users: Vec<Told<'a>>,
    regions: &'a [Region],
    /// What was made good before.
    prepared: Vec<String>,
    cases: Vec<Case>,
}

/// The laboratory that is asked.
struct Rehearsal<'a> {
    dir: &'a Path,
    places: &'a Places,
    dns: DnsFacts,
    op: &'a Op,
}

impl Rehearsal<'_> {
    /// What the name server tells users of every place.
    async fn look(&self) -> Result<Sent, String> {
        let asked = self.places.users().iter().map(|users| async move {
            let told = resolve(self.dns.server, &self.dns.domain, users.address).await;
            let told = told.map_err(|error| format!("users of {}: {error}", users.place))?;
            let is_told = |(_, at): &(&Region, &std::net::SocketAddr)| told == [at.ip()];
            let region = self.dns.balancers.iter().find(is_told).map(|(region, _)| region.clone());
            let region = region.ok_or_else(|| format!("users of {}: {told:?}", users.place))?;
            Ok((users.place, region))
        });
        join_all(asked).await.into_iter().collect()
    }

    /// Whether whoever was sent to these regions is served by them.
    async fn served(&self, told: &Sent) -> Result<(), String> {
        for region in told.values().collect::<BTreeSet<_>>() {
            let balancer = self.dns.balancers.get(region).ok_or("a region without a balancer")?;
            let by = served_by(*balancer).await.map_err(|error| format!("{region}: {error}"))?;
            if by != *region {
                return Err(format!("{by} serves whoever was sent to {region}"));
            }
        }
        Ok(())
    }

    /// Waits until everybody is served where they belong, and tells where that is and how long it took. Who had no
    /// reason to move must not have.
    async fn settle(
        &self,
        before: &Sent,
        after: &Sent,
        patience: Duration,
        wrong: &mut BTreeSet<String>,
    ) -> Result<(Sent, u64), String> {
        let since = self.op.clock.monotonic();
        loop {
            let looked = self.look().await;
            let last = match looked {
                Ok(told) => {
                    wrong.extend(strayed(before, after, &told));
                    let served = if told == *after {
                        self.served(&told).await
                    } else {
                        Err(format!("users are sent to {told:?}"))
                    };
                    let took = self.op.clock.monotonic() - since;
                    match served {
                        Ok(()) => {
                            let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                            return Ok((told, took));
                        }
                        Err(why) => why,
                    }
                }
                Err(why) => why,
            };
            if self.op.clock.monotonic() - since > patience {
                return Err(format!("not settled within {patience:?}: {last}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn give(&self, request: Request) -> Result<(), String> {
        ask(self.dir, &request).await.map(drop).map_err(|error| format!("{error:#}"))
    }

    /// Loses the regions, and brings them back.
    async fn play(&self, lost: &BTreeSet<Region>, way: Way) -> Case {
        let mut case = Case::of(way, lost.clone());
        let mut wrong = BTreeSet::new();
        let steps = steps(lost, self.places.regions().len());
        match self.walk(&steps, way, &mut wrong).await {
            Ok((answers, took)) => (case.answers, case.moved_ms) = (answers, Some(took)),
            Err(why) => case.wrong.push(why),
        }
        let home: Vec<_> = steps.into_iter().rev().collect();
        match self.walk(&home, way, &mut wrong).await {
            Ok((_, took)) => case.back_ms = Some(took),
            Err(why) => case.wrong.push(why),
        }
        case.wrong.extend(wrong);
        case
    }

    /// From each set of lost regions to the next. Tells where users are in the end, and how long the last step took.
    async fn walk(
        &self,
        steps: &[BTreeSet<Region>],
        way: Way,
        wrong: &mut BTreeSet<String>,
    ) -> Result<(Sent, u64), String> {
        let mut ended = (Sent::new(), 0);
        for step in steps.windows(2) {
            let [from, to] = step else { continue };
            for region in to.difference(from) {
                self.give(way.lose(region).map_err(|error| error.to_string())?).await?;
            }
            for region in from.difference(to) {
                self.give(way.mend(region)).await?;
            }
            let (before, after) = (right(self.places, from), right(self.places, to));
            let patience = if from.is_subset(to) { MOVE_PATIENCE } else { BACK_PATIENCE };
            ended = self.settle(&before, &after, patience, wrong).await?;
        }
        Ok(ended)
    }
}

impl Drill {
    pub(super) async fn rehearse(&self, cluster: Cluster) -> anyhow::Result<()> {
        let no_lab = || Misused("--dns needs a laboratory: nobody else's DNS is tried".into());
        let dir = cluster.lab.clone().ok_or_else(no_lab)?;
        let op = Op::system(OpKind::Command, Duration::from_hours(24));
        let stamp = op.now().format("%Y%m%dT%H%M%SZ");
        let out = self.out.clone();
        let out = out.unwrap_or_else(|| dir.join(DRILLS).join(format!("{stamp}-dns")));
        fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
        let ground = LabGround::new(dir.clone(), cluster.commands).await?;
        let mut prepared = ground.restore().await.map_err(anyhow::Error::msg)?;
        let dns =
            ask(&dir, &Request::Dns).await?.dns.context("DNS was started and is not told of")?;
        for region in &dns.drained {
            ask(&dir, &Request::Drain { region: region.clone(), drained: false }).await?;
            prepared.push(format!("{region} was drained: lowered its flag"));
        }
        let regions: Vec<Region> = dns.balancers.keys().cloned().collect();
        let places = &Places::of(&regions)?;
        let domain = dns.domain.clone();
        let rehearsal = Rehearsal { dir: &dir, places, dns, op: &op };
        let home = right(places, &BTreeSet::new());
        let settled = rehearsal.settle(&home, &home, BACK_PATIENCE, &mut BTreeSet::new()).await;
        settled.map_err(anyhow::Error::msg).context("before anything was lost")?;
        let users = places.users().iter().map(|users| Told {
            place: users.place,
            address: users.address,
            home: &users.home,
        });
        let mut report = Report {
            at: op.now().format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            domain: &domain,
            interval_seconds: INTERVAL_SECONDS,
            users: users.collect(),
            regions: places.regions(),
            prepared,
            cases: Vec::new(),
        };
        self.all(&rehearsal, &ground, &mut report, &out).await?;
        self.output.print(&report, |report| text(report, places, &out))?;
        let wrong = report.cases.iter().filter(|case| !case.wrong.is_empty()).count();
        if wrong > 0 {
            bail!("{wrong} of {} losses did not go as they should", report.cases.len());
        }
        Ok(())
    }

    async fn all(
        &self,
        rehearsal: &Rehearsal<'_>,
        ground: &LabGround,
        report: &mut Report<'_>,
        out: &Path,
    ) -> anyhow::Result<()> {
        let cases = cases(rehearsal.places);
        let bar = progress(&format!("{} losses", cases.len()));
        for (lost, way) in cases {
            bar.set_message(format!("{} {}", named(&lost), way.word()));
            let case = rehearsal.play(&lost, way).await;
            let came_back = case.back_ms.is_some();
            report.cases.push(case);
            // After each, so that an interrupted one has told what it found.
            save(&out.join("dns.json"), &report)?;
            if came_back {
                continue;
            }
            // What is broken now would be in the next too.
            for region in &lost {
                let lowered = Request::Drain { region: region.clone(), drained: false };
                ask(rehearsal.dir, &lowered).await?;
            }
            if let Acted::Failed(why) | Acted::Refused(why) = ground.mend().await {
                bail!("{} did not come back, and mending: {why}", named(&lost));
            }
            break;
        }
        bar.finish_and_clear();
        Ok(())
    }
}

fn named(lost: &BTreeSet<Region>) -> String {
    lost.iter().map(Region::as_str).collect::<Vec<_>>().join(", ")
}

/// For people: a line for each loss, and below it what was wrong.
fn text(report: &Report<'_>, places: &Places, out: &Path) -> String {
    let users = |home: &Region| format!("USERS OF {home}");
    let head = ["LOST".into(), "HOW".into()].into_iter().chain(report.regions.iter().map(users));
    let head: Vec<String> = head.chain(["MOVED".into(), "BACK".into()]).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let took = |ms: Option<u64>| {
        let text = |ms: u64| format!("{}.{} s", ms / 1_000, ms % 1_000 / 100);
        ms.map_or("never".to_owned(), text)
    };
    let row = |case: &Case| {
        let sent = |home: &Region| {
            let of_home = places.users().iter().filter(|users| users.home == *home);
            let there = of_home.filter_map(|users| case.answers.get(users.place));
            let there: BTreeSet<_> = there.map(Region::as_str).collect();
            there.into_iter().collect::<Vec<_>>().join(", ")
        };
        let cells = [named(&case.lost), case.how.word().to_owned()].into_iter();
        let cells = cells.chain(report.regions.iter().map(sent));
        cells.chain([took(case.moved_ms), took(case.back_ms)]).collect()
    };
    let mut text = table(&head, report.cases.iter().map(row));
    for case in &report.cases {
        for why in &case.wrong {
            // Writing to a string does not fail.
            let _ = write!(text, "\n{} {}: {why}", named(&case.lost), case.how.word());
        }
    }
    let saved: PathBuf = out.join("dns.json");
    format!("{text}\n\n{}\n", saved.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::known_regions;

    #[test]
    fn every_region_is_lost_in_every_way_and_every_two_at_once() {
        let places = Places::of(&known_regions()).unwrap();
        let cases = cases(&places);
        let ones = cases.iter().filter(|(lost, _)| lost.len() == 1).count();
        let twos = cases.iter().filter(|(lost, way)| lost.len() == 2 && *way == Way::Killed);
        assert_eq!((ones, twos.count(), cases.len()), (15, 3, 19));
        let (all, way) = cases.last().unwrap();
        assert_eq!((*way, steps(all, 3).len()), (Way::Drained, 4), "one after the other");
        // Else somebody who looks sees no difference, and the step is over before it began.
        for step in cases.iter().flat_map(|(lost, _)| steps(lost, 3)).collect::<Vec<_>>().windows(2)
        {
            assert_ne!(right(&places, &step[0]), right(&places, &step[1]), "{step:?}");
        }
    }

    #[test]
    fn who_moves_without_a_reason_is_told_of() {
        let places = Places::of(&known_regions()).unwrap();
        let lost = BTreeSet::from(["eu-west-1".parse().unwrap()]);
        let (before, after) = (right(&places, &BTreeSet::new()), right(&places, &lost));
        assert_eq!(after["EU"].as_str(), "us-east-1");
        assert!(strayed(&before, &after, &before).is_empty(), "not yet is no stray");
        assert!(strayed(&before, &after, &after).is_empty());
        let mut told = before.clone();
        told.insert("AS", "us-east-1".parse().unwrap());
        assert_eq!(strayed(&before, &after, &told).len(), 1);
    }
}
