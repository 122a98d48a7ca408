//! Hand-made histories: each violation, and its neighbours that are none.

use super::*;
use crate::{
    failover::drill::history::{Closing, Mark, MarkKind, Probe, Seen},
    vocab::Etag,
};
use proptest::prelude::*;

/// A history under construction. Each call takes ten microseconds, ten after the one before.
struct Story(History);

impl Story {
    fn new(durability: Durability) -> Self {
        let regions = ["us-east-1", "eu-west-1"].map(|name| name.parse().unwrap()).into();
        Self(History {
            run: "test".into(),
            seed: 1,
            durability,
            regions,
            calls: Vec::new(),
            marks: Vec::new(),
            ended_us: 1_000_000,
            closing: Closing::default(),
        })
    }

    fn call(mut self, session: u32, ask: Ask, outcome: Outcome) -> Self {
        let began_us = 100 + 20 * self.0.calls.len() as u64;
        let (status, problem) = match &outcome {
            Outcome::Ok(_) => (200, None),
            Outcome::Conflict => (412, Some("version-conflict")),
            Outcome::Told => (409, Some("bookmark-lost")),
            Outcome::Refused => (503, Some("no-primary")),
            Outcome::Unknown => (503, Some("outcome-unknown")),
        };
        self.0.calls.push(Call {
            session,
            asked: self.0.regions[0].clone(),
            ask,
            began_us,
            ended_us: began_us + 10,
            bookmark_in: None,
            bookmark_out: None,
            by: None,
            epoch: None,
            status,
            problem: problem.map(str::to_owned),
            outcome,
        });
        self
    }

    /// The bookmarks of the last call.
    fn marks(mut self, sent: &str, got: &str) -> Self {
        let call = self.0.calls.last_mut().unwrap();
        let read = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        (call.bookmark_in, call.bookmark_out) = (read(sent), read(got));
        self
    }

    fn times(mut self, began_us: u64, ended_us: u64) -> Self {
        let call = self.0.calls.last_mut().unwrap();
        (call.began_us, call.ended_us) = (began_us, ended_us);
        self
    }

    fn add(self, session: u32, key: &str, epoch: u32) -> Self {
        self.call(session, add(key), ok(epoch, key))
    }

    fn append(self, session: u32, before: &[u64], value: u64) -> Self {
        self.call(session, append(before, value), ok(1, ""))
    }

    fn read_list(self, session: u32, values: &[u64]) -> Self {
        let seen = Seen { values: values.into(), found: true, ..Seen::default() };
        self.call(session, Ask::ReadList { list: 1 }, Outcome::Ok(seen))
    }

    fn read_item(self, session: u32, key: &str, found: bool) -> Self {
        let seen = Seen { found, ..Seen::default() };
        self.call(session, Ask::ReadItem { key: key.into() }, Outcome::Ok(seen))
    }

    fn told(self, session: u32) -> Self {
        self.call(session, Ask::ReadList { list: 1 }, Outcome::Told).marks("1-1-99", "1-2-40")
    }

    fn ends_with(mut self, keys: &[&str], list: &[u64]) -> Self {
        self.0.closing.items =
            keys.iter().map(|key| ((*key).into(), format!("id-{key}"))).collect();
        self.0.closing.lists.insert(1, list.into());
        self
    }

    fn fate(mut self, key: &str, fate: Fate) -> Self {
        self.0.closing.writes.insert(key.into(), fate);
        self
    }

    fn finds(self, breaches: &[Breach]) -> Verdict {
        let verdict = judge(&self.0);
        let found: BTreeSet<Breach> = verdict.violations.iter().map(|v| v.breach).collect();
        assert_eq!(found, breaches.iter().copied().collect(), "{:#?}", verdict.violations);
        verdict
    }
}

fn add(key: &str) -> Ask {
    Ask::Add { key: key.into() }
}
fn append(before: &[u64], value: u64) -> Ask {
    Ask::Append { key: format!("v{value}"), list: 1, before: before.into(), value }
}
fn ok(epoch: u32, key: &str) -> Outcome {
    let etag = Some(Etag { epoch: Epoch::new(epoch).unwrap(), version: 1 });
    let id = (!key.is_empty()).then(|| format!("id-{key}"));
    Outcome::Ok(Seen { etag, id, found: true, ..Seen::default() })
}
fn with_async() -> Story {
    Story::new(Durability::Async)
}
fn quorum() -> Story {
    Story::new(Durability::Quorum)
}

#[test]
fn what_is_there_at_the_end_is_not_lost() {
    let verdict = quorum().add(1, "a", 1).append(1, &[], 7).ends_with(&["a"], &[7]).finds(&[]);
    assert_eq!((verdict.tally.acknowledged, verdict.tally.lost), (2, 0));
}

#[test]
fn an_acknowledged_write_that_is_missing_is_lost() {
    let verdict = quorum().add(1, "a", 1).ends_with(&[], &[]).finds(&[Breach::Lost]);
    assert_eq!(verdict.lost[0].key, "a");
    quorum().append(1, &[], 7).ends_with(&[], &[8]).finds(&[Breach::Lost, Breach::Contradiction]);
    // By its number, not by how many there are.
    quorum()
        .append(1, &[], 7)
        .append(1, &[7], 8)
        .ends_with(&[], &[8])
        .finds(&[Breach::Lost, Breach::Contradiction]);
}

#[test]
fn with_async_a_lost_write_is_no_breach_if_it_is_told_and_listed() {
    let lost = || with_async().add(1, "a", 1).marks("", "1-1-50").ends_with(&[], &[]);
    assert_eq!(lost().finds(&[]).tally.lost, 1);
    let mut listed = lost().fate("a", Fate::Lost);
    listed.0.closing.rejoined = true;
    let mut unlisted = lost().fate("a", Fate::Unknown);
    unlisted.0.closing.rejoined = true;
    let probe = |told| {
        let region = "eu-west-1".parse().unwrap();
        Probe { key: "a".into(), region, told, says: "200".into() }
    };
    listed.0.closing.probes.push(probe(true));
    listed.finds(&[]);
    unlisted.finds(&[Breach::Unlisted]);
    let mut untold = lost();
    untold.0.closing.probes = vec![probe(true), probe(false)];
    untold.finds(&[Breach::Untold]);
}

#[test]
fn a_bookmark_of_a_lost_write_gets_no_good_answer_from_a_later_epoch() {
    let story = || with_async().add(1, "a", 1).marks("", "1-1-50");
    let read =
        |sent: &str, got: &str| story().read_list(2, &[]).marks(sent, got).ends_with(&[], &[]);
    read("1-1-50", "1-2-60").finds(&[Breach::Untold]);
    read("1-1-51", "1-2-60").finds(&[Breach::Untold]);
    // Before what is lost, for all that is known.
    read("1-1-4f", "1-2-60").finds(&[]);
    // In the old epoch still.
    read("1-1-50", "1-1-60").finds(&[]);
    // The write of another epoch.
    read("1-2-50", "1-3-60").finds(&[]);
    // Told, and goes on from the bookmark that it was given.
    story().told(1).read_list(1, &[]).marks("1-2-40", "1-2-60").ends_with(&[], &[]).finds(&[]);
}

/// Each call takes ten microseconds, and a bookmark is given at the end of one.
#[test]
fn who_is_told_of_a_loss_has_lost_something() {
    let told = |story: Story, sent: &str| story.told(1).marks(sent, "1-2-40");
    let false_loss = &[Breach::FalseLoss];
    let lost = || with_async().add(1, "a", 1).marks("", "1-1-50");
    told(lost(), "1-1-50").ends_with(&[], &[]).finds(&[]);
    // Nothing is missing.
    told(lost(), "1-1-50").ends_with(&["a"], &[]).finds(false_loss);
    // Unless the old primary had not handed over: its log held more than our writes.
    let mut abrupt = told(lost(), "1-1-50");
    let says = "promote eu-west-1".to_owned();
    abrupt.0.marks.push(Mark { at_us: 0, kind: MarkKind::Command, says });
    abrupt.ends_with(&["a"], &[]).finds(&[]);
    // What is missing is of another epoch.
    told(lost(), "1-3-50").ends_with(&[], &[]).finds(false_loss);
    // Something is missing, but what was committed behind the bookmark is there.
    let kept = |epoch| lost().add(2, "b", epoch);
    told(kept(1), "1-1-50").ends_with(&["b"], &[]).finds(false_loss);
    told(kept(2), "1-1-50").ends_with(&["b"], &[]).finds(&[]);
    // It sent nothing that could name anything.
    told(lost(), "").ends_with(&[], &[]).finds(false_loss);
}

/// It may have been in the log that is lost, behind the position that a bookmark tells.
#[test]
fn an_unanswered_write_that_is_missing_can_be_what_a_loss_is_told_of() {
    let story = |story: Story| {
        let begun = story.call(9, append(&[], 7), Outcome::Unknown);
        let read = begun.read_list(1, &[]).marks("", "1-1-50");
        read.told(1).marks("1-1-50", "1-2-40").ends_with(&[], &[])
    };
    story(with_async()).finds(&[]);
    story(quorum()).finds(&[]);
    let refused = with_async().call(9, append(&[], 7), Outcome::Refused).read_list(1, &[]);
    let refused = refused.marks("", "1-1-50").told(1).marks("1-1-50", "1-2-40");
    refused.ends_with(&[], &[]).finds(&[Breach::FalseLoss]);
}

#[test]
fn a_key_has_one_effect() {
    quorum().add(1, "a", 1).ends_with(&["a", "a"], &[]).finds(&[Breach::Duplicated]);
    quorum().append(1, &[], 7).ends_with(&[], &[7, 7]).finds(&[Breach::Duplicated]);
    let again = |outcome| quorum().add(1, "a", 1).call(1, add("a"), outcome).ends_with(&["a"], &[]);
    again(ok(1, "b")).finds(&[Breach::Duplicated]);
    again(ok(1, "a")).finds(&[]);
}

#[test]
fn a_session_reads_its_own_writes() {
    let item = |found| quorum().add(1, "a", 1).read_item(1, "a", found).ends_with(&["a"], &[]);
    item(true).finds(&[]);
    item(false).finds(&[Breach::Stale]);
    // Another session has no right to it.
    quorum().add(1, "a", 1).read_item(2, "a", false).ends_with(&["a"], &[]).finds(&[]);
    let list = |values: &[u64]| {
        quorum().append(1, &[3], 7).call(9, append(&[], 3), Outcome::Unknown).read_list(1, values)
    };
    list(&[3, 7]).ends_with(&[], &[3, 7]).finds(&[]);
    list(&[3]).ends_with(&[], &[3, 7]).finds(&[Breach::Stale, Breach::Backward]);
    // Without an acknowledgement it may be there or not.
    let unknown = || quorum().call(1, append(&[], 7), Outcome::Unknown).read_list(1, &[]);
    let verdict = unknown().ends_with(&[], &[7]).finds(&[]);
    assert_eq!(verdict.tally.recovered, 1);
}

#[test]
fn a_loss_excuses_what_is_lost_once_it_is_told_and_nothing_else() {
    let story = |told: bool, there: &[&str]| {
        let begun = with_async().add(1, "a", 1);
        let begun = if told { begun.told(1) } else { begun };
        begun.read_item(1, "a", false).ends_with(there, &[])
    };
    story(true, &[]).finds(&[]);
    story(false, &[]).finds(&[Breach::Stale]);
    story(true, &["a"]).finds(&[Breach::Stale, Breach::FalseLoss]);
    // What was acknowledged since is not excused.
    let later = with_async().add(2, "b", 1).told(1).add(1, "a", 2).read_item(1, "a", false);
    later.ends_with(&[], &[]).finds(&[Breach::Stale]);
}

#[test]
fn a_session_never_goes_back() {
    let reads = |first: &[u64], second: &[u64]| {
        let asked = quorum()
            .call(8, append(&[], 1), Outcome::Unknown)
            .call(8, append(&[], 2), Outcome::Unknown)
            .call(8, append(&[], 3), Outcome::Unknown);
        asked.read_list(1, first).read_list(1, second).ends_with(&[], &[1, 2, 3])
    };
    reads(&[1, 2], &[1, 2]).finds(&[]);
    reads(&[1, 2], &[1, 2, 3]).finds(&[]);
    reads(&[1, 2], &[1]).finds(&[Breach::Backward]);
    reads(&[1, 2], &[1, 3]).finds(&[Breach::Backward]);
    let bookmarks =
        |sent: &str, got: &str| quorum().read_list(1, &[]).marks(sent, got).ends_with(&[], &[]);
    bookmarks("1-1-50", "1-1-50").finds(&[]);
    bookmarks("1-1-50", "1-2-40").finds(&[]);
    bookmarks("1-1-50", "1-1-4f").finds(&[Breach::Backward]);
    bookmarks("1-2-50", "1-1-60").finds(&[Breach::Backward]);
    // Another session may be behind.
    let two = quorum().append(1, &[], 1).read_list(1, &[1]).read_list(2, &[]);
    two.ends_with(&[], &[1]).finds(&[]);
    // Told of the loss, it starts anew.
    let told = with_async().append(1, &[], 1).told(1).read_list(1, &[]).ends_with(&[], &[]);
    told.finds(&[]);
}

#[test]
fn at_most_one_epoch_acknowledges() {
    // The newer epoch's acknowledgement ends at 300.
    let story = |began_us, ended_us, outcome| {
        let newer = quorum().add(1, "new", 2).times(200, 300);
        newer.call(2, add("old"), outcome).times(began_us, ended_us).ends_with(&["new", "old"], &[])
    };
    story(301, 400, ok(1, "old")).finds(&[Breach::TwoEpochs]);
    // It may have been committed before.
    story(299, 400, ok(1, "old")).finds(&[]);
    story(100, 150, ok(1, "old")).finds(&[]);
    story(301, 400, ok(2, "old")).finds(&[]);
    // An earlier attempt was committed in the old epoch, and is only told again.
    let replay = match ok(1, "old") {
        Outcome::Ok(seen) => Outcome::Ok(Seen { replayed: true, ..seen }),
        other => other,
    };
    story(301, 400, replay).finds(&[]);
    story(301, 400, Outcome::Unknown).finds(&[]);
}

#[test]
fn answers_agree_with_what_is_there() {
    let refused = |there: &[&str]| {
        quorum()
            .call(1, add("a"), Outcome::Refused)
            .call(1, add("a"), Outcome::Told)
            .marks("1-1-50", "1-2-40")
            .ends_with(there, &[])
    };
    assert_eq!(refused(&[]).finds(&[Breach::FalseLoss]).tally.refused, 1);
    refused(&["a"]).finds(&[Breach::Contradiction, Breach::FalseLoss]);
    // One of its attempts may have.
    let unknown =
        || quorum().call(1, add("a"), Outcome::Unknown).call(1, add("a"), Outcome::Refused);
    unknown().ends_with(&["a"], &[]).finds(&[]);
    let key_says = |there: &[&str], fate| unknown().ends_with(there, &[]).fate("a", fate);
    key_says(&["a"], Fate::Committed).finds(&[]);
    assert_eq!(key_says(&[], Fate::Unknown).finds(&[]).tally.without_effect, 1);
    assert_eq!(key_says(&[], Fate::Unanswered).finds(&[]).tally.unresolved, 1);
    key_says(&[], Fate::Committed).finds(&[Breach::Contradiction]);
    key_says(&["a"], Fate::Unknown).finds(&[Breach::Contradiction]);
    key_says(&["a"], Fate::Lost).finds(&[Breach::Contradiction]);
    quorum().ends_with(&["nobody"], &[]).finds(&[Breach::Contradiction]);
    quorum().ends_with(&[], &[9]).finds(&[Breach::Contradiction]);
}

#[test]
fn an_acknowledged_append_stands_behind_what_it_was_put_behind() {
    let story = |last: &[u64]| {
        quorum().append(1, &[], 1).append(2, &[1], 2).append(3, &[1, 2], 3).ends_with(&[], last)
    };
    story(&[1, 2, 3]).finds(&[]);
    story(&[2, 1, 3]).finds(&[Breach::Contradiction]);
    story(&[1, 3]).finds(&[Breach::Lost, Breach::Contradiction]);
}

#[test]
fn an_answer_that_no_fault_explains_is_a_contradiction() {
    for (status, problem, strange) in [
        (500, "internal", true),
        (401, "unauthorized", true),
        (404, "not-found", true),
        (409, "idempotency-mismatch", true),
        (409, "idempotency-in-flight", false),
        (503, "unavailable", false),
        (429, "rate-limited", false),
        (0, "connection refused", false),
    ] {
        let mut story = quorum().call(1, add("a"), Outcome::Refused).ends_with(&[], &[]);
        (story.0.calls[0].status, story.0.calls[0].problem) = (status, Some(problem.into()));
        story.finds(if strange { &[Breach::Contradiction] } else { &[] });
    }
}

/// What one session does next.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Add,
    Append,
    AppendUnanswered { done: bool },
    AppendToOld,
    Read,
}

fn deeds() -> impl Strategy<Value = Vec<(u32, Deed)>> {
    let deed = prop_oneof![
        Just(Deed::Add),
        Just(Deed::Append),
        any::<bool>().prop_map(|done| Deed::AppendUnanswered { done }),
        Just(Deed::AppendToOld),
        Just(Deed::Read),
    ];
    prop::collection::vec((0u32..4, deed), 1..60)
}

/// A cluster that does one thing after the other and loses nothing.
fn sound(deeds: &[(u32, Deed)]) -> Story {
    let (mut story, mut list, mut items) = (quorum(), Vec::new(), Vec::new());
    for (number, (session, deed)) in deeds.iter().enumerate() {
        let value = number as u64;
        story = match deed {
            Deed::Add => {
                items.push(format!("a{number}"));
                story.add(*session, &format!("a{number}"), 1)
            }
            Deed::Append => {
                let before = list.clone();
                list.push(value);
                story.append(*session, &before, value)
            }
            Deed::AppendUnanswered { done } => {
                let before = list.clone();
                list.extend(done.then_some(value));
                story.call(*session, append(&before, value), Outcome::Unknown)
            }
            Deed::AppendToOld => story.call(*session, append(&[], value), Outcome::Conflict),
            Deed::Read => story.read_list(*session, &list),
        };
    }
    let items: Vec<&str> = items.iter().map(String::as_str).collect();
    story.ends_with(&items, &list)
}

proptest! {
    /// It accuses no cluster that is sound.
    #[test]
    fn a_sound_cluster_is_clean(deeds in deeds()) {
        let verdict = sound(&deeds).finds(&[]);
        prop_assert_eq!(verdict.tally.lost, 0);
    }

    /// Whichever acknowledged write is taken away, it is missed.
    #[test]
    fn every_missing_write_is_found(deeds in deeds(), which: prop::sample::Index) {
        let mut story = sound(&deeds);
        let writes: Vec<Ask> = story.0.calls.iter().filter(|call| call.ask.is_write() && call.seen().is_some())
            .map(|call| call.ask.clone()).collect();
        prop_assume!(!writes.is_empty());
        let key = match which.get(&writes) {
            Ask::Add { key } => {
                story.0.closing.items.retain(|(held, _)| held != key);
                key
            }
            Ask::Append { key, value, .. } => {
                story.0.closing.lists.get_mut(&1).unwrap().retain(|held| held != value);
                key
            }
            _ => unreachable!("a write"),
        };
        let verdict = judge(&story.0);
        prop_assert_eq!(verdict.count(Breach::Lost), 1);
        prop_assert_eq!(&verdict.lost[0].key, key);
    }

    /// The order in which calls are recorded does not matter, their times do.
    #[test]
    fn the_verdict_does_not_depend_on_the_order_of_recording(deeds in deeds(), by in 0usize..60) {
        let mut story = sound(&deeds);
        let before = judge(&story.0);
        let by = by % story.0.calls.len();
        story.0.calls.rotate_left(by);
        prop_assert_eq!(judge(&story.0), before);
    }
}
