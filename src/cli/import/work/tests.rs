use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

fn row(number: u8) -> Row {
    let id = format!("00000000-0000-8000-8000-0000000000{number:02x}");
    Row { line: number.into(), id: id.parse().unwrap(), data: format!("{{\"n\":{number}}}") }
}
fn rows(numbers: impl IntoIterator<Item = u8>) -> Vec<Row> {
    numbers.into_iter().map(row).collect()
}
fn work(numbers: impl IntoIterator<Item = u8>, replace: bool) -> Work {
    Work::new(rows(numbers), replace, "run".into())
}
fn present(data: Value) -> Existing {
    Existing::Present { etag: "\"1.4\"".into(), data }
}

#[test]
fn one_refused_row_does_not_keep_the_others_out() {
    let (mut work, mut tally) = (work([1, 2, 3], false), Tally::default());
    let refused = Answer::Refused { index: 1, detail: "a number is out of range".into() };
    assert!(matches!(work.answered(refused, &mut tally), Next::Send));
    assert_eq!(work.ids(), [row(1).id, row(3).id]);
    assert!(matches!(work.answered(Answer::Done, &mut tally), Next::Done));
    assert_eq!((tally.created, tally.refused[0].line), (2, 2));
}

#[test]
fn what_exists_is_left_alone_replaced_or_refused_by_what_it_holds() {
    for (replace, expected) in [(false, 1), (true, 0)] {
        let (mut work, mut tally) = (work([1, 2, 3], replace), Tally::default());
        assert!(matches!(work.answered(Answer::Conflict, &mut tally), Next::LookUp));
        let found =
            vec![present(json!({"n": 1})), present(json!({"n": "other"})), Existing::Absent];
        assert!(matches!(work.looked_up(found, &mut tally), Next::Send));
        let body: Value = serde_json::from_str(&work.body()).unwrap();
        let ops: Vec<_> = body["operations"].as_array().unwrap().iter().map(|o| &o["op"]).collect();
        assert_eq!(ops.len(), 2 - expected);
        if replace {
            assert_eq!(body["operations"][0]["if_match"], json!("\"1.4\""));
        }
        assert!(matches!(work.answered(Answer::Done, &mut tally), Next::Done));
        assert_eq!((tally.already_there, tally.created), (1, 1));
        assert_eq!(tally.refused.len(), expected);
        assert_eq!(tally.replaced, u64::from(replace));
    }
}

#[test]
fn the_key_follows_the_content_until_something_was_looked_up() {
    let cities = "cities".parse().unwrap();
    let key = |work: &Work| work.key(&cities, &work.body());
    let (mut first, again) = (work([1, 2], false), Work::new(rows([1, 2]), true, "other".into()));
    assert_eq!(key(&first), key(&again));
    assert_ne!(key(&first), key(&work([1, 3], false)));
    assert_ne!(key(&first), first.key(&"towns".parse().unwrap(), &first.body()));
    let before = key(&first);
    let mut tally = Tally::default();
    first.answered(Answer::Replayed { retried: false }, &mut tally);
    first.looked_up(vec![Existing::Absent, Existing::Absent], &mut tally);
    assert_ne!(key(&first), before, "it would be replayed for ever");
}

#[test]
fn an_attempt_of_ours_that_had_no_answer_counts_as_ours() {
    let (mut work, mut tally) = (work([1], false), Tally::default());
    work.answered(Answer::Replayed { retried: true }, &mut tally);
    work.looked_up(vec![present(json!({"n": 1}))], &mut tally);
    assert_eq!((tally.created, tally.already_there), (1, 0));
}

#[test]
fn what_never_stands_still_is_given_up() {
    let (mut work, mut tally) = (work([1, 2], true), Tally::default());
    let mut look_ups = 0;
    while !matches!(work.answered(Answer::Conflict, &mut tally), Next::Done) {
        look_ups += 1;
        let found = vec![present(json!(look_ups)), present(json!(look_ups))];
        if matches!(work.looked_up(found, &mut tally), Next::Done) {
            break;
        }
    }
    assert_eq!(look_ups, LOOK_UPS_MAX);
    assert!(tally.refused.iter().all(|r| r.reason == Reason::KeepsChanging));
    assert_eq!(tally.refused.len(), 2);
}

#[test]
fn a_body_that_is_too_large_is_halved_down_to_the_row() {
    let mut tally = Tally::default();
    let mut parts = vec![work(0..5, false)];
    while let Some(mut part) = parts.pop() {
        match part.answered(Answer::TooLarge, &mut tally) {
            Next::Split(other) => parts.extend([part, other]),
            next => assert!(matches!(next, Next::Done)),
        }
    }
    let lines: BTreeSet<_> = tally.refused.iter().map(|r| r.line).collect();
    assert_eq!(lines, (0..5).collect());
}

/// The API as the contract has it: all or none, a journal of what was committed by key.
#[derive(Default)]
struct Api {
    items: BTreeMap<ItemId, (u64, Value)>,
    journal: BTreeMap<String, String>,
}

impl Api {
    fn batch(&mut self, key: &IdempotencyKey, body: &str) -> Answer {
        if let Some(earlier) = self.journal.get(key.as_str()) {
            assert_eq!(earlier, body, "one key, two requests");
            return Answer::Replayed { retried: false };
        }
        let parsed: Value = serde_json::from_str(body).unwrap();
        let mut items = self.items.clone();
        for operation in parsed["operations"].as_array().unwrap() {
            let id: ItemId = operation["id"].as_str().unwrap().parse().unwrap();
            let stored = items.get(&id).map(|(version, _)| *version);
            let expected = operation["if_match"].as_str().map(|tag| tag.parse().unwrap());
            if stored != expected {
                return Answer::Conflict;
            }
            items.insert(id, (stored.unwrap_or(0) + 1, operation["data"].clone()));
        }
        self.items = items;
        self.journal.insert(key.as_str().to_owned(), body.to_owned());
        Answer::Done
    }

    fn look_up(&self, id: ItemId) -> Existing {
        let existing = |(version, data): &(u64, Value)| Existing::Present {
            etag: version.to_string(),
            data: data.clone(),
        };
        self.items.get(&id).map_or(Existing::Absent, existing)
    }
}

/// One run. Dies without hearing the answer once `answers` were heard.
fn run(
    api: &mut Api,
    file: &[Row],
    batch: usize,
    replace: bool,
    run: &str,
    answers: usize,
) -> Option<Tally> {
    let (collection, mut tally, mut heard) = ("c".parse().unwrap(), Tally::default(), 0);
    for rows in file.chunks(batch) {
        let mut work = Work::new(rows.to_vec(), replace, run.to_owned());
        let mut next = Next::Send;
        while !matches!(next, Next::Done) {
            next = if matches!(next, Next::LookUp) {
                let found = work.ids().into_iter().map(|id| api.look_up(id)).collect();
                work.looked_up(found, &mut tally)
            } else {
                let body = work.body();
                let answer = api.batch(&work.key(&collection, &body), &body);
                heard += 1;
                if heard > answers {
                    return None;
                }
                work.answered(answer, &mut tally)
            };
        }
    }
    Some(tally)
}

proptest! {
    /// However often it runs, whatever batch size, wherever it died, whatever others deleted or
    /// changed in between: each row is there once, and every row is accounted for.
    #[test]
    fn a_rerun_never_duplicates(
        count in 1u8..20,
        runs in prop::collection::vec((1usize..7, any::<bool>(), 0usize..8), 0..4),
        meddled in prop::collection::vec((0u8..20, any::<bool>()), 0..6),
        replace: bool,
    ) {
        let (mut api, file) = (Api::default(), rows(0..count));
        let mut others = meddled.into_iter();
        for (at, (batch, replace, answers)) in runs.into_iter().enumerate() {
            run(&mut api, &file, batch, replace, &format!("run {at}"), answers);
            if let Some((number, delete)) = others.next() {
                let id = row(number).id;
                if delete {
                    api.items.remove(&id);
                } else if let Some((version, data)) = api.items.get_mut(&id) {
                    (*version, *data) = (*version + 1, json!("changed"));
                }
            }
        }
        let tally = run(&mut api, &file, 3, replace, "last", usize::MAX).unwrap();
        prop_assert_eq!(api.items.len(), file.len());
        let counted = tally.created + tally.already_there + tally.replaced;
        prop_assert_eq!(counted + tally.refused.len() as u64, u64::from(count));
        if replace {
            prop_assert_eq!(tally.refused.len(), 0);
            for row in &file {
                prop_assert!(row.is(&api.items[&row.id].1));
            }
        }
    }
}
