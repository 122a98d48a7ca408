//! What a round cost, in seconds and in writes. Pure; `docs/DRILL.md` says how each is counted.

use super::{
    ground::CommandRecord,
    history::{Call, History, Mark, MarkKind},
};
use crate::vocab::{Epoch, Region};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Silence that counts as an outage though no request has failed in it. Far longer than the time
/// between two requests of a region.
const SILENCE_US: u64 = 1_000_000;
/// Bars of the chart.
const BUCKETS_MAX: u64 = 160;
const BUCKET_MS_MIN: u64 = 250;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measures {
    /// One for each time the primary moved.
    pub moves: Vec<Move>,
    pub reads: BTreeMap<Region, Availability>,
    pub writes: BTreeMap<Region, Availability>,
    /// Of writes that were under way from when something was broken, or a command began, until every
    /// region wrote in the new epoch; to the last mark where the primary did not move. How much longer
    /// each took than its region's median: before, or once the primary had moved where it ended after.
    pub write_pause: Percentiles,
    /// Of all writes, by region: from the first attempt to the acknowledgement.
    pub write_time: BTreeMap<Region, Percentiles>,
    /// In the regions that were not the primary when the round began. `None`: nobody knows which.
    pub surviving_reads_failed: Option<u64>,
    /// Most writes under way at once.
    pub writes_in_flight_max: usize,
    pub timeline: Vec<Mark>,
    pub chart: Chart,
}

/// From one epoch's last acknowledgement to the next one's first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub from: Epoch,
    pub to: Epoch,
    pub last_us: u64,
    pub first_us: u64,
    /// Time to recover: between the two.
    pub recovery_ms: u64,
    /// The same for the clients of each region; `None` where one of the two is missing.
    pub recovery_by_region_ms: BTreeMap<Region, Option<u64>>,
    /// From the start of the command that moved it to the first write acknowledged from each region.
    pub after_command_ms: BTreeMap<Region, Option<u64>>,
    /// The same until every region has one that the fault has left a way to write in; `None` while one
    /// has none.
    pub to_survivors_ms: Option<u64>,
    /// Of it: waiting until what the old primary was granted had run out.
    pub lease_wait_ms: Option<u64>,
    /// When the last region had its first; `None` while one has none.
    pub everywhere_us: Option<u64>,
    /// Handed over by a primary that was alive.
    pub planned: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Availability {
    pub answered: u64,
    pub failed: u64,
    /// Time in which no request was answered though some was asked.
    pub unavailable_ms: u64,
    pub longest_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    pub count: usize,
    pub p50_ms: u64,
    pub p99_ms: u64,
    pub max_ms: u64,
}

/// Requests that ended in each stretch of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chart {
    pub bucket_ms: u64,
    pub reads: Vec<u32>,
    pub writes: Vec<u32>,
    pub errors: Vec<u32>,
}

/// Of a round in which `survivors` were left a way to write once the primary had moved, by these
/// `commands`.
#[must_use]
pub fn measure(history: &History, survivors: &[Region], commands: &[CommandRecord]) -> Measures {
    let writes = Durations::of(history);
    let mut moves = moves(history);
    for one in &mut moves {
        let of = |region| one.after_command_ms.get(region).copied().flatten();
        one.to_survivors_ms = survivors
            .iter()
            .map(of)
            .collect::<Option<Vec<_>>>()
            .unwrap_or_default()
            .into_iter()
            .max();
        let by = commands.iter().filter(|command| command.ended == "done");
        if let Some((command, told)) = by
            .filter_map(|one| Some((one, report(&one.printed)?)))
            .find(|(_, told)| told.epoch == one.to.get())
        {
            one.planned = command.command.starts_with("switchover");
            one.lease_wait_ms = Some(told.lease_wait_ms);
        }
    }
    let by_region = |wanted: fn(&Call) -> bool| {
        let of = |region: &Region| {
            let calls = history.calls.iter().filter(|c| c.asked == *region && wanted(c));
            (region.clone(), availability(calls.collect(), history.ended_us))
        };
        history.regions.iter().map(of).collect()
    };
    Measures {
        reads: by_region(|call| !call.ask.is_write()),
        writes: by_region(|call| call.ask.is_write()),
        write_pause: writes.pause(history, &moves),
        surviving_reads_failed: None,
        write_time: writes.by_region(),
        writes_in_flight_max: writes.in_flight_max(),
        timeline: timeline(history, &moves),
        chart: chart(history),
        moves,
    }
}

/// What a command that moves the primary prints, as far as it is measured.
#[derive(Deserialize)]
struct Told {
    epoch: u32,
    lease_wait_ms: u64,
}

/// After what it may have said to a person.
fn report(printed: &str) -> Option<Told> {
    serde_json::from_str(&printed[printed.find('{')?..]).ok()
}

fn moves(history: &History) -> Vec<Move> {
    let mut epochs: BTreeMap<Epoch, Vec<&Call>> = BTreeMap::new();
    for call in &history.calls {
        if let Some(epoch) = call.acknowledges() {
            epochs.entry(epoch).or_default().push(call);
        }
    }
    let mut previous: Option<(Epoch, Vec<&Call>)> = None;
    let mut moves = Vec::new();
    for (to, new) in epochs {
        if let Some((from, old)) = previous.replace((to, new.clone())) {
            moves.extend(one_move(history, (from, &old), (to, &new)));
        }
    }
    moves
}

/// Between two epochs and the writes that each acknowledged.
fn one_move(
    history: &History,
    (from, old): (Epoch, &[&Call]),
    (to, new): (Epoch, &[&Call]),
) -> Option<Move> {
    let last = |region: Option<&Region>| {
        let of = old.iter().filter(|call| region.is_none_or(|region| call.asked == *region));
        of.map(|call| call.ended_us).max()
    };
    let first = |region: Option<&Region>| {
        let of = new.iter().filter(|call| region.is_none_or(|region| call.asked == *region));
        of.map(|call| call.ended_us).min()
    };
    let (last_us, first_us) = (last(None)?, first(None)?);
    let commands = history.marks.iter().filter(|mark| mark.kind == MarkKind::Command);
    // One that was refused, or given before, did not move it.
    let begun = commands.map(|mark| mark.at_us).filter(|at| *at <= first_us).max();
    let between = |from: Option<u64>, to: Option<u64>| {
        from.zip(to).map(|(from, to): (u64, u64)| ms(to.saturating_sub(from)))
    };
    let by_region = |since: &dyn Fn(&Region) -> Option<u64>| {
        let of = |region: &Region| (region.clone(), between(since(region), first(Some(region))));
        history.regions.iter().map(of).collect()
    };
    let everywhere: Option<Vec<u64>> =
        history.regions.iter().map(|region| first(Some(region))).collect();
    Some(Move {
        from,
        to,
        last_us,
        first_us,
        recovery_ms: ms(first_us.saturating_sub(last_us)),
        recovery_by_region_ms: by_region(&|region| last(Some(region))),
        after_command_ms: by_region(&|_| begun),
        to_survivors_ms: None,
        lease_wait_ms: None,
        everywhere_us: everywhere.and_then(|each| each.into_iter().max()),
        planned: false,
    })
}

fn ms(us: u64) -> u64 {
    (us + 500) / 1_000
}

/// An outage lasts from the last answer, or from when the next request was asked if that is later,
/// to the next answer, or to the end.
fn availability(mut calls: Vec<&Call>, end_us: u64) -> Availability {
    calls.sort_by_key(|call| call.ended_us);
    let mut found = Availability::default();
    let mut since_us = None;
    // Since the last answer: when the first of those was asked that failed or ended only now.
    let (mut asked_us, mut failures) = (None::<u64>, 0u64);
    let close = |found: &mut Availability, since: Option<u64>, asked: Option<u64>, failures, at| {
        let Some(asked) = asked else { return };
        let began = since.map_or(asked, |since: u64| since.max(asked));
        let length: u64 = u64::saturating_sub(at, began);
        if failures > 0 || length > SILENCE_US {
            found.unavailable_ms += ms(length);
            found.longest_ms = found.longest_ms.max(ms(length));
        }
    };
    for call in calls {
        asked_us = Some(asked_us.map_or(call.began_us, |at| at.min(call.began_us)));
        if call.outcome.is_answer() {
            found.answered += 1;
            close(&mut found, since_us, asked_us, failures, call.ended_us);
            (since_us, asked_us, failures) = (Some(call.ended_us), None, 0);
        } else {
            found.failed += 1;
            failures += 1;
        }
    }
    close(&mut found, since_us, asked_us, failures, end_us);
    found
}

/// Each acknowledged write: where, from when, to when.
struct Durations<'a>(Vec<(&'a Region, u64, u64)>);

impl<'a> Durations<'a> {
    fn of(history: &'a History) -> Self {
        let mut begun: BTreeMap<&str, u64> = BTreeMap::new();
        let mut done: BTreeMap<&str, (&Region, u64)> = BTreeMap::new();
        for call in &history.calls {
            let Some(key) = call.ask.write_key() else { continue };
            let first = begun.entry(key).or_insert(call.began_us);
            *first = call.began_us.min(*first);
            if call.seen().is_some() {
                done.entry(key).or_insert((&call.asked, call.ended_us));
            }
        }
        let one = |(key, (region, ended)): (&str, (&'a Region, u64))| (region, begun[key], ended);
        Self(done.into_iter().map(one).collect())
    }

    fn by_region(&self) -> BTreeMap<Region, Percentiles> {
        let mut times: BTreeMap<Region, Vec<u64>> = BTreeMap::new();
        for (region, began, ended) in &self.0 {
            times.entry((*region).clone()).or_default().push(ended.saturating_sub(*began));
        }
        times.into_iter().map(|(region, times)| (region, Percentiles::of(times))).collect()
    }

    fn pause(&self, history: &History, moves: &[Move]) -> Percentiles {
        let troubles = history
            .marks
            .iter()
            .filter(|mark| matches!(mark.kind, MarkKind::Fault | MarkKind::Command));
        let Some(from) = troubles.clone().map(|mark| mark.at_us).min() else {
            return Percentiles::default();
        };
        let last_mark = history.marks.iter().map(|mark| mark.at_us).max().unwrap_or(from);
        let everywhere = moves.iter().map(|one| one.everywhere_us).collect::<Option<Vec<_>>>();
        let until = everywhere.unwrap_or_default().into_iter().max().unwrap_or(last_mark);
        let before = self.usual(|_, ended| ended < from);
        let after = self.usual(|began, _| began > until);
        let moved_us = moves.iter().map(|one| one.first_us).max();
        let under_way = self.0.iter().filter(|(_, began, ended)| *ended >= from && *began <= until);
        let pause = |(region, began, ended): &(&Region, u64, u64)| {
            // The new primary is not as far as the old one was.
            let moved = moved_us.is_some_and(|moved_us| *ended >= moved_us);
            let usual = after.get(region).filter(|_| moved).or_else(|| before.get(region))?;
            Some(ended.saturating_sub(*began).saturating_sub(*usual))
        };
        Percentiles::of(under_way.filter_map(pause).collect())
    }

    /// The median of each region, of the writes that are wanted by when they began and ended.
    fn usual(&self, wanted: impl Fn(u64, u64) -> bool) -> BTreeMap<&Region, u64> {
        let mut times: BTreeMap<&Region, Vec<u64>> = BTreeMap::new();
        for (region, began, ended) in
            self.0.iter().filter(|(_, began, ended)| wanted(*began, *ended))
        {
            times.entry(region).or_default().push(ended.saturating_sub(*began));
        }
        let median = |mut times: Vec<u64>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        times.into_iter().map(|(region, times)| (region, median(times))).collect()
    }

    fn in_flight_max(&self) -> usize {
        let mut edges: Vec<(u64, bool)> =
            self.0.iter().flat_map(|(_, began, ended)| [(*began, true), (*ended, false)]).collect();
        edges.sort_unstable();
        let (mut now, mut most) = (0usize, 0);
        for (_, begins) in edges {
            now = if begins { now + 1 } else { now.saturating_sub(1) };
            most = most.max(now);
        }
        most
    }
}

impl Measures {
    /// Of the regions beside the one that was the primary.
    #[must_use]
    pub fn with_primary(self, primary: &Region) -> Self {
        let replicas = self.reads.iter().filter(|(region, _)| *region != primary);
        let failed = replicas.map(|(_, reads)| reads.failed).sum();
        Self { surviving_reads_failed: Some(failed), ..self }
    }
}

impl Percentiles {
    /// Of microseconds, by nearest rank.
    #[must_use]
    pub fn of(mut times_us: Vec<u64>) -> Self {
        times_us.sort_unstable();
        let Some(last) = times_us.last().copied() else { return Self::default() };
        let rank = |percent: usize| {
            let rank = (times_us.len() * percent).div_ceil(100).max(1);
            ms(times_us[rank - 1])
        };
        Self { count: times_us.len(), p50_ms: rank(50), p99_ms: rank(99), max_ms: ms(last) }
    }
}

/// The marks, and what the workload saw by itself: the first write of each new epoch from each
/// region.
fn timeline(history: &History, moves: &[Move]) -> Vec<Mark> {
    let mut timeline = history.marks.clone();
    for one in moves {
        let last = format!("epoch {}: last acknowledged write", one.from);
        timeline.push(Mark { at_us: one.last_us, kind: MarkKind::Seen, says: last });
        for region in &history.regions {
            let new = history.calls.iter().filter(|call| {
                call.asked == *region && call.acknowledges().is_some_and(|epoch| epoch == one.to)
            });
            if let Some(at_us) = new.map(|call| call.ended_us).min() {
                let says = format!("epoch {}: first write acknowledged in {region}", one.to);
                timeline.push(Mark { at_us, kind: MarkKind::Seen, says });
            }
        }
    }
    timeline.sort_by_key(|mark| mark.at_us);
    timeline
}

fn chart(history: &History) -> Chart {
    let length_ms = history.ended_us / 1_000 + 1;
    let fair = length_ms.div_ceil(BUCKETS_MAX).max(BUCKET_MS_MIN);
    // A whole number of quarter seconds.
    let bucket_ms = fair.div_ceil(BUCKET_MS_MIN) * BUCKET_MS_MIN;
    let buckets = usize::try_from(length_ms.div_ceil(bucket_ms)).unwrap_or(1);
    let mut chart = Chart {
        bucket_ms,
        reads: vec![0; buckets],
        writes: vec![0; buckets],
        errors: vec![0; buckets],
    };
    for call in &history.calls {
        let bucket = usize::try_from(call.ended_us / 1_000 / bucket_ms).unwrap_or(usize::MAX);
        let column = match (call.outcome.is_answer(), call.ask.is_write()) {
            (false, _) => &mut chart.errors,
            (true, true) => &mut chart.writes,
            (true, false) => &mut chart.reads,
        };
        // What ended after the workload has no place in it.
        if let Some(count) = column.get_mut(bucket) {
            *count += 1;
        }
    }
    chart
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Durability,
        failover::drill::history::{Ask, Closing, Outcome, Seen},
        vocab::Etag,
    };
    use proptest::prelude::*;

    const US: &str = "us-east-1";
    const EU: &str = "eu-west-1";

    /// Region, key, from, to in milliseconds; the epoch that acknowledged it.
    type Attempt = (&'static str, &'static str, u64, u64, Option<u32>);

    fn history(attempts: &[Attempt], marks: &[(u64, MarkKind)], end_ms: u64) -> History {
        let call = |&(region, key, from, to, epoch): &Attempt| Call {
            session: 1,
            asked: region.parse().unwrap(),
            ask: Ask::Add { key: key.into() },
            began_us: from * 1_000,
            ended_us: to * 1_000,
            bookmark_in: None,
            bookmark_out: None,
            by: None,
            epoch: None,
            status: 0,
            problem: None,
            outcome: match epoch {
                None => Outcome::Refused,
                Some(epoch) => {
                    let etag = Some(Etag { epoch: Epoch::new(epoch).unwrap(), version: 1 });
                    Outcome::Ok(Seen { etag, ..Seen::default() })
                }
            },
        };
        let mark =
            |&(at_ms, kind): &_| Mark { at_us: at_ms * 1_000, kind, says: "something".into() };
        History {
            run: "test".into(),
            seed: 1,
            durability: Durability::Async,
            regions: [US, EU].map(|name| name.parse().unwrap()).into(),
            calls: attempts.iter().map(call).collect(),
            marks: marks.iter().map(mark).collect(),
            ended_us: end_ms * 1_000,
            closing: Closing::default(),
        }
    }
    fn region(name: &str) -> Region {
        name.parse().unwrap()
    }

    #[test]
    fn recovery_is_from_the_last_of_the_old_to_the_first_of_the_new() {
        let attempts = [
            (US, "a", 0, 100, Some(1)),
            (EU, "b", 50, 180, Some(1)),
            (US, "c", 200, 210, None),
            (EU, "d", 900, 1_000, Some(2)),
            (US, "c", 1_000, 1_250, Some(2)),
        ];
        let marks = [(150, MarkKind::Fault), (400, MarkKind::Command), (1_100, MarkKind::Command)];
        let printed = "said\n{\"epoch\":2,\"lease_wait_ms\":300}".to_owned();
        let command = CommandRecord {
            at_us: 400_000,
            took_ms: 500,
            command: "promote eu-west-1".into(),
            ended: "done".into(),
            printed,
        };
        let history = history(&attempts, &marks, 2_000);
        let measured = measure(&history, &[region(EU)], &[command]);
        let [moved] = &measured.moves[..] else { panic!("{:?}", measured.moves) };
        assert_eq!(moved.recovery_ms, 820);
        assert_eq!(moved.recovery_by_region_ms[&region(US)], Some(1_150));
        assert_eq!(moved.recovery_by_region_ms[&region(EU)], Some(820));
        assert_eq!(moved.after_command_ms[&region(EU)], Some(600));
        assert_eq!((moved.to_survivors_ms, moved.lease_wait_ms), (Some(600), Some(300)));
        assert!(!moved.planned);
        let all = measure(&history, &history.regions, &[]).moves.remove(0);
        assert_eq!((all.to_survivors_ms, all.lease_wait_ms), (Some(850), None));
        let says: Vec<_> = measured.timeline.iter().map(|mark| (mark.at_us, mark.kind)).collect();
        assert!(says.contains(&(180_000, MarkKind::Seen)), "{says:?}");
        assert!(says.contains(&(1_250_000, MarkKind::Seen)), "{says:?}");
        // `c` was asked at 200 and acknowledged at 1250, where 100 is usual.
        assert_eq!((measured.write_pause.max_ms, measured.write_pause.count), (950, 1));
        // What comes later, while the old primary is rewound, would hide how long the others paused.
        let later = [&attempts[..], &[(US, "e", 1_300, 1_600, Some(2))]].concat();
        let marks = [&marks[..], &[(2_000, MarkKind::Command)]].concat();
        let paused = measure(&self::history(&later, &marks, 3_000), &[], &[]).write_pause;
        // And there 300 is usual, from where the new primary is.
        assert_eq!((paused.max_ms, paused.count), (750, 1));
    }

    #[test]
    fn a_region_that_the_new_epoch_does_not_reach_has_no_recovery() {
        let attempts = [(US, "a", 0, 100, Some(1)), (EU, "b", 300, 400, Some(2))];
        let moved = measure(&history(&attempts, &[], 1_000), &[], &[]).moves.remove(0);
        assert_eq!(moved.recovery_by_region_ms[&region(US)], None);
        assert_eq!(moved.after_command_ms[&region(EU)], None);
        assert_eq!(moved.to_survivors_ms, None);
        assert!(measure(&history(&attempts[..1], &[], 1_000), &[], &[]).moves.is_empty());
    }

    #[test]
    fn unavailable_is_while_someone_asks_and_nobody_answers() {
        let of = |attempts: &[Attempt], end_ms| {
            let measured = measure(&history(attempts, &[], end_ms), &[], &[]);
            let found = &measured.writes[&region(US)];
            (found.unavailable_ms, found.longest_ms)
        };
        let ok = |from, to| (US, "a", from, to, Some(1));
        let no = |from, to| (US, "a", from, to, None);
        assert_eq!(of(&[ok(0, 10), ok(20, 30)], 40), (0, 0));
        // From the last answer, because the one that failed was under way before.
        assert_eq!(of(&[ok(0, 10), no(5, 30), ok(40, 50)], 60), (40, 40));
        // From when it was asked.
        assert_eq!(of(&[ok(0, 10), no(20, 30), ok(40, 50)], 60), (30, 30));
        // Two outages; the last to the end.
        assert_eq!(of(&[no(0, 5), ok(6, 10), no(20, 30)], 100), (90, 80));
        // Nothing failed, but nothing was answered either.
        assert_eq!(of(&[ok(0, 10), ok(20, 2_020)], 2_050), (2_000, 2_000));
        // Nobody asked.
        assert_eq!(of(&[ok(0, 10), ok(5_000, 5_010)], 5_020), (0, 0));
        assert_eq!(of(&[], 1_000), (0, 0));
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times = (1..=200).map(|ms| ms * 1_000).collect();
        let found = Percentiles::of(times);
        assert_eq!((found.p50_ms, found.p99_ms, found.max_ms), (100, 198, 200));
        assert_eq!(Percentiles::of(vec![7_000]).p50_ms, 7);
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }

    #[test]
    fn writes_in_flight_are_counted_from_first_attempt_to_acknowledgement() {
        let attempts = [
            (US, "a", 0, 10, None),
            (US, "a", 50, 60, Some(1)),
            (US, "b", 20, 30, Some(1)),
            (EU, "c", 60, 70, Some(1)),
        ];
        assert_eq!(measure(&history(&attempts, &[], 100), &[], &[]).writes_in_flight_max, 2);
    }

    proptest! {
        /// No outage is longer than the round, and none is counted twice.
        #[test]
        fn no_more_is_unavailable_than_there_was(
            attempts in prop::collection::vec((0u64..5_000, 1u64..500, any::<bool>()), 0..40)
        ) {
            let attempts: Vec<Attempt> = attempts.iter()
                .map(|(from, took, ok)| (US, "a", *from, from + took, ok.then_some(1))).collect();
            let measured = measure(&history(&attempts, &[], 6_000), &[], &[]);
            let found = &measured.writes[&region(US)];
            prop_assert!(found.longest_ms <= found.unavailable_ms);
            // Each of them is rounded.
            prop_assert!(found.unavailable_ms <= 6_000 + attempts.len() as u64);
            prop_assert_eq!(found.answered + found.failed, attempts.len() as u64);
            let chart = &measured.chart;
            let sum: u32 = chart.writes.iter().chain(&chart.errors).sum();
            prop_assert_eq!(sum as usize, attempts.len());
        }
    }
}
