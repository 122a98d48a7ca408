//! What regions ask each other to find, keep and carry out again what a failover lost.

use crate::vocab::{Epoch, IdempotencyKey, TenantId};
use serde::{Deserialize, Serialize};

pub use crate::storage::global::lost::{
    Became, JournalMark, JournalRecord, RequestDigest, Standing,
};

/// As [`super::control::Order`], each can be given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerOrder {
    /// Of an old primary: what it wrote in that epoch, the latest first, from before `after`; without
    /// the bodies.
    Journal { epoch: Epoch, after: Option<JournalMark>, limit: usize },
    /// The records of these writes with all they have, as many from the front as an answer holds.
    Recorded { writes: Vec<(TenantId, IdempotencyKey)> },
    /// Of the primary: what it has of these writes of an old one's.
    Missing { epoch: Epoch, writes: Vec<(TenantId, IdempotencyKey, RequestDigest)> },
    /// Of the primary: keep these as lost.
    Note { lost: Vec<JournalRecord> },
    /// Of the primary: carry out again what was lost of that epoch, in the order in which it had been
    /// committed, from after `after`: up to `limit` writes.
    Replay { epoch: Epoch, after: Option<JournalMark>, limit: usize },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerOutcome {
    Journal {
        records: Vec<JournalRecord>,
    },
    /// In the order in which they were asked for.
    Missing {
        standings: Vec<Standing>,
    },
    /// Kept; what has become of each, in the order in which they came.
    Noted {
        became: Vec<Option<Became>>,
    },
    /// What came of each, and from where to go on; `None` at the end.
    Replayed {
        writes: Vec<Replayed>,
        next: Option<JournalMark>,
    },
}

/// What came of carrying out a lost write again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    pub tenant: TenantId,
    pub key: IdempotencyKey,
    pub method: String,
    pub path: String,
    pub became: Became,
    /// The tag of what it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Why it was kept aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{
        control::{Order, Outcome},
        lease::Promise,
    };

    fn same<T>(value: &T)
    where
        T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let text = serde_json::to_string(value).unwrap();
        let read: Result<T, _> = serde_json::from_str(&text);
        assert_eq!(&read.unwrap(), value, "{text}");
    }

    #[test]
    fn numbers_come_through_inside_an_order_and_an_outcome() {
        let epoch = Epoch::FIRST;
        let promise = Promise {
            epoch,
            region: "eu-west-1".parse().unwrap(),
            planned: true,
            after: None,
            members: None,
            accepts_loss: false,
        };
        same(&Order::Fence { promise });
        let record = JournalRecord {
            tenant: "0199d2c4-7a00-7000-8000-00000000b0b0".parse().unwrap(),
            key: "k".parse().unwrap(),
            actor: crate::vocab::Actor::Operator,
            method: "PUT".into(),
            path: "/".into(),
            request_digest: RequestDigest::new([7; 32]),
            status: 201,
            etag: None,
            location: None,
            body: Some(r#"{"n":12345678901234567890.10}"#.into()),
            version: Some(i64::MAX),
            epoch,
            committed_at: chrono::DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap(),
        };
        let order = |order| same(&Order::Ledger(order));
        let outcome = |outcome| same(&Outcome::Ledger(outcome));
        order(LedgerOrder::Journal { epoch, after: Some(record.mark()), limit: 1_000 });
        let writes = vec![(record.tenant, record.key.clone(), record.request_digest)];
        order(LedgerOrder::Missing { epoch, writes });
        order(LedgerOrder::Note { lost: vec![record.clone()] });
        outcome(LedgerOutcome::Journal { records: vec![record] });
        outcome(LedgerOutcome::Noted { became: vec![None, Some(Became::Repeated)] });
    }
}
