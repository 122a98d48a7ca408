use super::*;
use crate::{
    topology::ledger::RequestDigest,
    vocab::{Actor, OpKind},
};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

fn op() -> Op {
    Op::system(OpKind::Test, Duration::from_secs(30))
}

fn at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_700_000_000_000 + ms).unwrap()
}

fn tenant() -> TenantId {
    "0199d2c4-7a00-7000-8000-00000000b0b0".parse().unwrap()
}

fn record(number: usize, ms: i64) -> JournalRecord {
    JournalRecord {
        tenant: tenant(),
        key: format!("k{number}").parse().unwrap(),
        actor: Actor::Operator,
        method: "PUT".into(),
        path: format!("/v1/collections/c/items/{number}"),
        request_digest: RequestDigest::new([7; 32]),
        status: 200,
        etag: None,
        location: None,
        body: Some(format!(r#"{{"data":{{"n":{number}.10}}}}"#)),
        version: Some(2),
        epoch: Epoch::FIRST,
        committed_at: at(ms),
    }
}

/// A region with a journal; the new primary keeps a list too.
#[derive(Default)]
struct Region {
    journal: Vec<JournalRecord>,
    standings: HashMap<String, Standing>,
    noted: Mutex<Vec<JournalRecord>>,
    asked: Mutex<usize>,
}

impl Region {
    fn answer(&self, order: Order) -> Outcome {
        match order {
            Order::Journal { epoch, after, limit } => {
                *self.asked.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                assert_eq!(epoch, Epoch::FIRST);
                let before = |record: &&JournalRecord| {
                    after.as_ref().is_none_or(|mark| {
                        (record.committed_at, record.key.as_str())
                            < (mark.committed_at, mark.key.as_str())
                    })
                };
                let mut records: Vec<_> = self.journal.iter().filter(before).cloned().collect();
                records.sort_by(|a, b| {
                    (b.committed_at, b.key.as_str()).cmp(&(a.committed_at, a.key.as_str()))
                });
                records.truncate(limit);
                for record in &mut records {
                    record.body = None;
                }
                Outcome::Journal { records }
            }
            Order::Recorded { writes } => {
                let find = |(_, key): &(TenantId, IdempotencyKey)| {
                    self.journal.iter().find(|record| record.key == *key).cloned()
                };
                // Pages of answers are shorter than what was asked for.
                Outcome::Journal { records: writes.iter().filter_map(find).take(7).collect() }
            }
            Order::Missing { writes, .. } => {
                let of = |key: &IdempotencyKey| {
                    self.standings.get(key.as_str()).copied().unwrap_or(Standing::Lost)
                };
                Outcome::Missing { standings: writes.iter().map(|(_, key, _)| of(key)).collect() }
            }
            Order::Note { lost } => {
                let again = |record: &JournalRecord| {
                    let standing = self.standings.get(record.key.as_str());
                    (standing == Some(&Standing::Repeated)).then_some(Became::Repeated)
                };
                let became = lost.iter().map(again).collect();
                self.noted.lock().unwrap_or_else(PoisonError::into_inner).extend(lost);
                Outcome::Noted { became }
            }
            Order::Replay { .. } => panic!("nobody asked for it"),
        }
    }
}

impl Carries for Region {
    fn order<'a>(&'a self, order: Order, _: &'a Op) -> BoxFuture<'a, Result<Outcome, LedgerError>> {
        Box::pin(async move { Ok(self.answer(order)) })
    }
    fn name(&self) -> String {
        "somewhere".into()
    }
}

/// Numbers of what is lost of a journal with these records and standings, in order; and how many
/// pages were read.
async fn lost_of(journal: Vec<(JournalRecord, Standing)>) -> (Vec<String>, usize) {
    let standings =
        journal.iter().map(|(record, standing)| (record.key.to_string(), *standing)).collect();
    let old = Region {
        journal: journal.into_iter().map(|(record, _)| record).collect(),
        ..Region::default()
    };
    let new = Region { standings, ..Region::default() };
    let lost = collect(&old, &new, Epoch::FIRST, &op()).await.unwrap();
    let noted = new.noted.into_inner().unwrap();
    assert!(noted.iter().eq(lost.iter().map(|lost| &lost.record)));
    assert!(noted.iter().all(|record| record.body.is_some()));
    let keys = lost.iter().map(|lost| lost.record.key.to_string()).collect();
    (keys, old.asked.into_inner().unwrap())
}

#[test]
fn a_minute_without_a_gap_is_the_end() {
    use Standing::{Lost, Present, Repeated};
    // Seconds before the newest, what was found, and whether that is the last to look at.
    let cases: &[&[(i64, Standing, bool)]] = &[
        &[(0, Present, false), (59, Present, false), (60, Present, true)],
        &[(0, Present, false), (7_200, Present, true)],
        &[(0, Lost, false), (61, Present, false), (120, Present, false), (121, Present, true)],
        &[(0, Present, false), (59, Lost, false), (70, Present, false), (129, Present, false)],
        &[(0, Present, false), (59, Repeated, false), (61, Present, false), (121, Present, true)],
        &[(0, Lost, false), (7_200, Lost, false), (90_000, Repeated, false)],
    ];
    for case in cases {
        let mut scan = Scan::default();
        for (seconds, standing, last) in *case {
            let over = scan.sees(at(-seconds * 1_000), *standing);
            assert_eq!(over, *last, "{seconds} of {case:?}");
        }
    }
}

#[tokio::test]
async fn none_is_lost_of_what_came_across_and_little_is_read_to_know_it() {
    assert_eq!(lost_of(Vec::new()).await, (vec![], 1));
    let hour = (0..36_000_usize).map(|n| {
        let ms = -100 * i64::try_from(n).unwrap();
        (record(n, ms), Standing::Present)
    });
    assert_eq!(lost_of(hour.collect()).await, (vec![], 1));
}

#[tokio::test]
async fn thousands_that_were_lost_are_all_found_in_the_order_of_their_commits() {
    let journal = (0..9_000_usize).map(|n| {
        // The older half is there.
        let standing = if n < 4_500 { Standing::Lost } else { Standing::Present };
        (record(n, -100 * i64::try_from(n).unwrap()), standing)
    });
    let (lost, _) = lost_of(journal.collect()).await;
    let wanted: Vec<_> = (0..4_500).rev().map(|n| format!("k{n}")).collect();
    assert_eq!(lost, wanted);
}

#[tokio::test]
async fn a_lost_write_that_began_before_others_that_came_across_is_found() {
    let journal = (0..2_000_usize).map(|n| {
        let standing = if n == 250 { Standing::Lost } else { Standing::Present };
        (record(n, -100 * i64::try_from(n).unwrap()), standing)
    });
    assert_eq!(lost_of(journal.collect()).await.0, ["k250"]);
}

#[tokio::test]
async fn a_write_that_was_sent_again_is_listed_as_such() {
    let old = Region { journal: vec![record(1, 0)], ..Region::default() };
    let standings = HashMap::from([("k1".to_owned(), Standing::Repeated)]);
    let new = Region { standings, ..Region::default() };
    let lost = collect(&old, &new, Epoch::FIRST, &op()).await.unwrap();
    assert_eq!(lost[0].became, Some(Became::Repeated));
}

#[test]
fn a_line_is_one_lost_write_with_its_answer_as_it_was() {
    let lost = [
        Lost { record: record(1, 0), became: None },
        Lost { record: record(2, 1), became: Some(Became::Repeated) },
    ];
    let mut lines = Vec::new();
    write_lines(&lost, &mut lines).unwrap();
    let text = String::from_utf8(lines).unwrap();
    assert_eq!(text.lines().count(), 2);
    let first = text.lines().next().unwrap();
    assert!(first.ends_with(r#""became":null,"body":{"data":{"n":1.10}}}"#), "{first}");
    assert!(first.starts_with(r#"{"committed_at":"2023-11-14T22:13:20Z","epoch":1,"#), "{first}");
}
