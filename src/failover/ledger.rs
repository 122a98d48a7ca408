//! What a failover lost: the old primary's journal read backwards, and compared with the new one's.
//!
//! Replication brings commits in their order, so what was lost is the end of the old primary's
//! commits. The journal is in the order of `committed_at`, which a process takes a moment before its
//! commit: the two orders differ by no more than a write may take and the clocks of one region's
//! processes differ. So once [`SETTLED`] of the journal is there on the new primary without a gap,
//! all before it is.

use crate::{
    topology::{
        ask::{Answer, Question},
        control,
        ledger::{Became, JournalRecord, LedgerOrder as Order, LedgerOutcome as Outcome, Standing},
        probe::{Asker, ProbeError},
    },
    vocab::{Epoch, IdempotencyKey, Op, TenantId},
};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::value::RawValue;
use std::{io, time::Duration};

/// Without a gap for this long, the journal has none before. Longer than any write takes
/// (`routing.request_ms_max`, and less again by which clocks differ); shorter than what is kept of
/// an epoch's journal (`storage::global::journal::purge`).
const SETTLED: TimeDelta = TimeDelta::seconds(60);

/// Records of a page of the journal, and writes that are asked for at once.
const PAGE: usize = 1_000;

/// Longest wait for one answer; the region itself gives up earlier.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{region} does not answer")]
    NoAnswer { region: String, source: ProbeError },
    #[error("{region}: {reason}")]
    Refused { region: String, reason: String },
    #[error("{region} gave an answer to another question")]
    Unexpected { region: String },
}

/// A write that was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub record: JournalRecord,
    /// What has become of it, if anything has.
    pub became: Option<Became>,
}

/// Who carries out the orders of the ledger.
pub trait Carries: Sync {
    fn order<'a>(&'a self, order: Order, op: &'a Op)
    -> BoxFuture<'a, Result<Outcome, LedgerError>>;
    fn name(&self) -> String;
}

impl Carries for Asker {
    fn order<'a>(
        &'a self,
        order: Order,
        op: &'a Op,
    ) -> BoxFuture<'a, Result<Outcome, LedgerError>> {
        Box::pin(async move {
            let question = Question::Order(Box::new(control::Order::Ledger(order)));
            let region = self.name();
            match self.ask(question, PATIENCE, op).await {
                Ok(Answer::Order(outcome)) => match *outcome {
                    control::Outcome::Ledger(outcome) => Ok(outcome),
                    control::Outcome::Refused { reason } => {
                        Err(LedgerError::Refused { region, reason })
                    }
                    _ => Err(LedgerError::Unexpected { region }),
                },
                Ok(Answer::Failed { reason }) => Err(LedgerError::Refused { region, reason }),
                Ok(_) => Err(LedgerError::Unexpected { region }),
                Err(source) => Err(LedgerError::NoAnswer { region, source }),
            }
        })
    }

    fn name(&self) -> String {
        self.region().to_string()
    }
}

/// When to stop reading backwards. Pure.
#[derive(Debug, Default)]
struct Scan {
    /// The latest of the records that are all there.
    run: Option<DateTime<Utc>>,
}

impl Scan {
    /// Takes the next older record; tells whether it was the last to look at.
    fn sees(&mut self, committed_at: DateTime<Utc>, standing: Standing) -> bool {
        if standing != Standing::Present {
            self.run = None;
            return false;
        }
        *self.run.get_or_insert(committed_at) - committed_at >= SETTLED
    }
}

/// Finds what `old` committed in `epoch` and `new`, the primary, has not got, and notes it there.
/// In the order in which it had been committed. Running it again finds the same.
///
/// # Errors
/// When one of the two does not answer, or refuses.
pub async fn collect(
    old: &impl Carries,
    new: &impl Carries,
    epoch: Epoch,
    op: &Op,
) -> Result<Vec<Lost>, LedgerError> {
    let mut missing = scan(old, new, epoch, op).await?;
    missing.reverse();
    let mut lost = Vec::with_capacity(missing.len());
    while lost.len() < missing.len() {
        let rest = &missing[lost.len()..];
        let writes = rest[..rest.len().min(PAGE)].to_vec();
        let first = writes[0].clone();
        let records = journal(old, Order::Recorded { writes }, op).await?;
        if records.first().is_none_or(|record| (record.tenant, record.key.clone()) != first) {
            return Err(LedgerError::Unexpected { region: old.name() });
        }
        match new.order(Order::Note { lost: records.clone() }, op).await? {
            Outcome::Noted { became } if became.len() == records.len() => {
                let noted = records.into_iter().zip(became);
                lost.extend(noted.map(|(record, became)| Lost { record, became }));
            }
            _ => return Err(LedgerError::Unexpected { region: new.name() }),
        }
    }
    Ok(lost)
}

/// The latest first.
async fn scan(
    old: &impl Carries,
    new: &impl Carries,
    epoch: Epoch,
    op: &Op,
) -> Result<Vec<(TenantId, IdempotencyKey)>, LedgerError> {
    let (mut scan, mut missing) = (Scan::default(), Vec::new());
    let mut after = None;
    loop {
        let records = journal(old, Order::Journal { epoch, after, limit: PAGE }, op).await?;
        let Some(last) = records.last() else {
            return Ok(missing);
        };
        after = Some(last.mark());
        let writes = records.iter();
        let writes = writes.map(|one| (one.tenant, one.key.clone(), one.request_digest)).collect();
        let standings = match new.order(Order::Missing { epoch, writes }, op).await? {
            Outcome::Missing { standings } if standings.len() == records.len() => standings,
            _ => return Err(LedgerError::Unexpected { region: new.name() }),
        };
        for (record, standing) in records.into_iter().zip(standings) {
            if scan.sees(record.committed_at, standing) {
                return Ok(missing);
            }
            if standing != Standing::Present {
                missing.push((record.tenant, record.key));
            }
        }
    }
}

async fn journal(
    old: &impl Carries,
    order: Order,
    op: &Op,
) -> Result<Vec<JournalRecord>, LedgerError> {
    match old.order(order, op).await? {
        Outcome::Journal { records } => Ok(records),
        _ => Err(LedgerError::Unexpected { region: old.name() }),
    }
}

/// Writes one lost write a line, as JSON.
///
/// # Errors
/// The writer's own.
pub fn write_lines(lost: &[Lost], mut to: impl io::Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        record: Rest<'a>,
        body: Option<&'a RawValue>,
    }
    /// All of a record but the body, which is JSON already.
    #[derive(Serialize)]
    struct Rest<'a> {
        committed_at: DateTime<Utc>,
        epoch: Epoch,
        tenant: TenantId,
        key: &'a IdempotencyKey,
        actor: String,
        method: &'a str,
        path: &'a str,
        request_digest: String,
        status: u16,
        etag: Option<&'a str>,
        location: Option<&'a str>,
        version: Option<i64>,
        became: Option<Became>,
    }
    for Lost { record, became } in lost {
        let line = Line {
            record: Rest {
                committed_at: record.committed_at,
                epoch: record.epoch,
                tenant: record.tenant,
                key: &record.key,
                actor: record.actor.to_string(),
                method: &record.method,
                path: &record.path,
                request_digest: record.request_digest.to_string(),
                status: record.status,
                etag: record.etag.as_deref(),
                location: record.location.as_deref(),
                version: record.version,
                became: *became,
            },
            body: record.body.as_deref().and_then(|body| serde_json::from_str(body).ok()),
        };
        serde_json::to_writer(&mut to, &line)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}

#[cfg(test)]
mod tests;
