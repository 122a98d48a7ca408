//! The lists as a history that elle-cli reads (`--model list-append`).
//!
//! Appends are transactions of a read and an append, because `If-Match` makes them so. Session reads
//! may be old, which `--consistency-models serializable` allows; the strong reads at the end may
//! not, but nothing in the format says so.

use super::history::{Ask, Call, History, Outcome};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    pub index: usize,
    /// Nanoseconds.
    pub time: u64,
    pub process: u64,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub f: &'static str,
    pub value: Value,
}

/// The whole history. A write of several attempts is one operation.
#[must_use]
pub fn export(history: &History) -> Vec<Event> {
    let mut operations: Vec<Operation> = Vec::new();
    let mut writes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut calls: Vec<&Call> = history.calls.iter().collect();
    calls.sort_by_key(|call| call.began_us);
    for call in calls {
        let key = call.ask.write_key();
        if let Some(known) = key.and_then(|key| writes.get(key)) {
            operations[*known].again(call);
        } else if let Some(operation) = Operation::of(call) {
            if let Some(key) = key {
                writes.insert(key, operations.len());
            }
            operations.push(operation);
        }
    }
    // One after the other.
    let turns_us = (history.ended_us..).step_by(2);
    for ((list, values), began_us) in history.closing.lists.iter().zip(turns_us) {
        operations.push(Operation {
            session: u64::MAX,
            began_us,
            ended_us: began_us + 1,
            asked: json!([["r", list, null]]),
            kind: "ok",
            value: json!([["r", list, values]]),
        });
    }
    events(operations)
}

struct Operation {
    session: u64,
    began_us: u64,
    ended_us: u64,
    asked: Value,
    kind: &'static str,
    value: Value,
}

impl Operation {
    fn of(call: &Call) -> Option<Self> {
        let asked = match &call.ask {
            Ask::Append { list, value, .. } => {
                json!([["r", list, null], ["append", list, value]])
            }
            Ask::ReadList { list } => json!([["r", list, null]]),
            Ask::Add { .. } | Ask::ReadItem { .. } => return None,
        };
        let mut operation = Self {
            session: call.session.into(),
            began_us: call.began_us,
            ended_us: call.ended_us,
            value: asked.clone(),
            asked,
            kind: "fail",
        };
        operation.ends(call);
        Some(operation)
    }

    /// One more attempt: what is known stays known, what is unknown stays so unless it was done.
    fn again(&mut self, call: &Call) {
        self.ended_us = self.ended_us.max(call.ended_us);
        if self.kind != "ok" {
            self.ends(call);
        }
    }

    fn ends(&mut self, call: &Call) {
        match (&call.outcome, &call.ask) {
            (Outcome::Ok(_), Ask::Append { list, before, value, .. }) => {
                self.kind = "ok";
                self.value = json!([["r", list, before], ["append", list, value]]);
            }
            (Outcome::Ok(seen), Ask::ReadList { list }) => {
                self.kind = "ok";
                self.value = json!([["r", list, seen.values]]);
            }
            // A read without an answer has done nothing.
            (Outcome::Unknown, Ask::Append { .. }) => self.kind = "info",
            _ => {}
        }
    }
}

/// In the order of time. A process whose operation has no known end is not heard of again, as Jepsen
/// has it: its session goes on under another number.
fn events(operations: Vec<Operation>) -> Vec<Event> {
    let mut processes: BTreeMap<u64, u64> = BTreeMap::new();
    let mut last = 0;
    let mut edges = Vec::new();
    for operation in operations {
        let process = *processes.entry(operation.session).or_insert_with(|| {
            last += 1;
            last
        });
        if operation.kind == "info" {
            processes.remove(&operation.session);
        }
        edges.push((operation.began_us, 1, process, "invoke", operation.asked));
        edges.push((operation.ended_us, 0, process, operation.kind, operation.value));
    }
    edges.sort_by_key(|(at_us, end_first, process, ..)| (*at_us, *end_first, *process));
    let event = |(index, (at_us, _, process, kind, value))| Event {
        index,
        time: at_us * 1_000,
        process,
        kind,
        f: "txn",
        value,
    };
    edges.into_iter().enumerate().map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Durability,
        failover::drill::history::{Closing, Seen},
    };

    fn call(session: u32, began_us: u64, ask: Ask, outcome: Outcome) -> Call {
        let asked = "us-east-1".parse().unwrap();
        let (bookmark_in, bookmark_out, by, epoch, problem) = (None, None, None, None, None);
        let ended_us = began_us + 5;
        Call {
            session,
            asked,
            ask,
            began_us,
            ended_us,
            bookmark_in,
            bookmark_out,
            by,
            epoch,
            status: 0,
            problem,
            outcome,
        }
    }
    fn append(before: &[u64], value: u64) -> Ask {
        Ask::Append { key: format!("k{value}"), list: 3, before: before.into(), value }
    }
    fn history(calls: Vec<Call>) -> History {
        let closing = Closing { lists: [(3, vec![1, 2])].into(), ..Closing::default() };
        let regions = Vec::new();
        let (durability, marks) = (Durability::Async, Vec::new());
        History {
            run: "t".into(),
            seed: 1,
            durability,
            regions,
            calls,
            marks,
            ended_us: 100,
            closing,
        }
    }

    #[test]
    fn an_operation_is_what_elle_cli_reads() {
        let seen = Seen { values: vec![1], ..Seen::default() };
        let calls = vec![
            call(1, 10, append(&[], 1), Outcome::Ok(Seen::default())),
            call(1, 20, Ask::ReadList { list: 3 }, Outcome::Ok(seen)),
            call(1, 30, append(&[1], 2), Outcome::Unknown),
            call(1, 40, append(&[], 9), Outcome::Conflict),
        ];
        let found = serde_json::to_value(export(&history(calls))).unwrap();
        let line = |index: usize| found[index].to_string();
        assert_eq!(
            line(0),
            r#"{"f":"txn","index":0,"process":1,"time":10000,"type":"invoke","value":[["r",3,null],["append",3,1]]}"#
        );
        assert_eq!(found[1]["value"], json!([["r", 3, []], ["append", 3, 1]]));
        assert_eq!(found[3]["value"], json!([["r", 3, [1]]]));
        // After an unknown end the session has another number.
        let kinds: Vec<_> = found
            .as_array()
            .unwrap()
            .iter()
            .map(|e| (e["process"].as_u64(), e["type"].as_str()))
            .collect();
        assert_eq!(
            kinds[4..8],
            [
                (Some(1), Some("invoke")),
                (Some(1), Some("info")),
                (Some(2), Some("invoke")),
                (Some(2), Some("fail"))
            ]
        );
        assert_eq!(found[9]["value"], json!([["r", 3, [1, 2]]]));
    }

    #[test]
    fn a_write_of_several_attempts_is_one_operation() {
        for (outcomes, kind) in [
            (vec![Outcome::Unknown, Outcome::Ok(Seen::default())], "ok"),
            (vec![Outcome::Refused, Outcome::Refused], "fail"),
            (vec![Outcome::Unknown, Outcome::Refused], "info"),
        ] {
            let attempt = |(at, outcome)| call(1, at, append(&[], 1), outcome);
            let found = export(&history([10, 20].into_iter().zip(outcomes).map(attempt).collect()));
            assert_eq!(found.len(), 4);
            assert_eq!((found[1].kind, found[1].time), (kind, 25_000));
        }
    }
}
