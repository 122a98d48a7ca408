//! What becomes of one batch, as a pure plan: what to send next, and what each answer means.
//!
//! Every row has an id before it is sent, so that it exists once or not at all, however often the
//! import runs. What an answer leaves in doubt is looked up rather than believed: an answer kept
//! for the batch's key tells that it was loaded once, not that it is there still.

use super::{
    rows::{Reason, Refusal, Row},
    same::same,
};
use crate::vocab::{Collection, IdempotencyKey, ItemId};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Look-ups of one batch. Each follows an answer that something had changed since the last.
const LOOK_UPS_MAX: u32 = 5;

/// Rows that are yet to be settled.
pub(super) struct Work {
    entries: Vec<Entry>,
    replace: bool,
    look_ups: u32,
    /// An attempt of ours may have done what the last answer only repeats.
    perhaps_ours: bool,
    /// One run of the command.
    run: String,
}

struct Entry {
    row: Row,
    /// The version to replace; none: to create.
    etag: Option<String>,
}

/// What came of rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) created: u64,
    pub(super) already_there: u64,
    pub(super) replaced: u64,
    pub(super) refused: Vec<Refusal>,
}

impl Tally {
    fn refuse(&mut self, row: &Row, reason: Reason, detail: impl Into<String>) {
        self.refused.push(Refusal { line: row.line, reason, detail: detail.into() });
    }
}

/// The API's answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// All of it was done now.
    Done,
    /// All of it was done under this key before; by us, perhaps, in an attempt without an answer.
    Replayed {
        retried: bool,
    },
    /// None of it: some row exists, or is in another version.
    Conflict,
    /// None of it, because of this one.
    Refused {
        index: usize,
        detail: String,
    },
    TooLarge,
}

/// What is there under an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Existing {
    Absent,
    Present { etag: String, data: Value },
}

/// What to do next.
pub(super) enum Next {
    Send,
    LookUp,
    /// Send, and this other part too.
    Split(Work),
    Done,
}

impl Work {
    pub(super) fn new(rows: Vec<Row>, replace: bool, run: String) -> Self {
        let entries = rows.into_iter().map(|row| Entry { row, etag: None }).collect();
        Self { entries, replace, look_ups: 0, perhaps_ours: false, run }
    }

    pub(super) fn ids(&self) -> Vec<ItemId> {
        self.entries.iter().map(|entry| entry.row.id).collect()
    }

    /// The request's body.
    pub(super) fn body(&self) -> String {
        let operations: Vec<_> = self.entries.iter().map(Entry::operation).collect();
        format!("{{\"operations\":[{}]}}", operations.join(","))
    }

    /// The first attempt's key comes from the content alone, so that a run that was cut off and
    /// begun again asks for nothing new. After a look-up the question is a new one.
    pub(super) fn key(&self, collection: &Collection, body: &str) -> IdempotencyKey {
        let mut hash = Sha256::new();
        hash.update(collection.as_str());
        hash.update(b"\0");
        hash.update(body);
        if self.look_ups > 0 {
            hash.update(format!("\0{}\0{}", self.run, self.look_ups));
        }
        let key = format!("import-{}", hex::encode(hash.finalize()));
        key.parse().expect("hexadecimal is visible ASCII")
    }

    pub(super) fn answered(&mut self, answer: Answer, tally: &mut Tally) -> Next {
        match answer {
            Answer::Done => {
                for entry in self.entries.drain(..) {
                    let count = match entry.etag {
                        None => &mut tally.created,
                        Some(_) => &mut tally.replaced,
                    };
                    *count += 1;
                }
                Next::Done
            }
            Answer::Replayed { retried } => {
                self.perhaps_ours = retried;
                Next::LookUp
            }
            Answer::Conflict => Next::LookUp,
            Answer::Refused { index, detail } if index < self.entries.len() => {
                let entry = self.entries.remove(index);
                tally.refuse(&entry.row, Reason::RefusedByApi, detail);
                self.go_on()
            }
            Answer::Refused { detail, .. } => {
                for entry in self.entries.drain(..) {
                    tally.refuse(&entry.row, Reason::RefusedByApi, detail.clone());
                }
                Next::Done
            }
            Answer::TooLarge if self.entries.len() > 1 => {
                let entries = self.entries.split_off(self.entries.len() / 2);
                let run = self.run.clone();
                Next::Split(Self { entries, run, ..*self })
            }
            Answer::TooLarge => {
                for entry in self.entries.drain(..) {
                    tally.refuse(
                        &entry.row,
                        Reason::TooLong,
                        "the API takes no body of this length",
                    );
                }
                Next::Done
            }
        }
    }

    /// `found` has one for each of [`Work::ids`].
    pub(super) fn looked_up(&mut self, found: Vec<Existing>, tally: &mut Tally) -> Next {
        self.look_ups += 1;
        let ours = std::mem::take(&mut self.perhaps_ours);
        let replace = self.replace;
        let settled = std::mem::take(&mut self.entries).into_iter().zip(found);
        for (mut entry, existing) in settled {
            match existing {
                Existing::Absent => entry.etag = None,
                Existing::Present { data, .. } if entry.row.is(&data) => {
                    match (ours, &entry.etag) {
                        (true, None) => tally.created += 1,
                        (true, Some(_)) => tally.replaced += 1,
                        (false, _) => tally.already_there += 1,
                    }
                    continue;
                }
                Existing::Present { etag, .. } if replace => entry.etag = Some(etag),
                Existing::Present { .. } => {
                    let detail = format!("{} is there and differs", entry.row.id);
                    tally.refuse(&entry.row, Reason::OtherData, detail);
                    continue;
                }
            }
            if self.look_ups >= LOOK_UPS_MAX {
                let detail = format!("{} changed each time it was looked at", entry.row.id);
                tally.refuse(&entry.row, Reason::KeepsChanging, detail);
                continue;
            }
            self.entries.push(entry);
        }
        self.go_on()
    }

    fn go_on(&self) -> Next {
        if self.entries.is_empty() { Next::Done } else { Next::Send }
    }
}

impl Row {
    fn is(&self, data: &Value) -> bool {
        serde_json::from_str(&self.data).is_ok_and(|ours: Value| same(&ours, data))
    }
}

/// Bytes of an operation beside its data.
pub(super) const OPERATION_BYTES: usize = 120;

impl Entry {
    fn operation(&self) -> String {
        let Row { id, data, .. } = &self.row;
        match &self.etag {
            None => format!(r#"{{"op":"create","id":"{id}","data":{data}}}"#),
            Some(etag) => {
                let etag = Value::from(etag.as_str());
                format!(r#"{{"op":"put","id":"{id}","data":{data},"if_match":{etag}}}"#)
            }
        }
    }
}

#[cfg(test)]
mod tests;
