//! A region's side of the lease: its note, read, judged and replaced as one step.

use super::{
    Found, Known, Promise, Promised, Record, Remembered, Verdict, judge, judge_promise, release,
};
use crate::{
    storage::{
        StorageError,
        redis::{Redis, lease},
    },
    topology::{Snapshot, Topology},
    vocab::{Epoch, Members, Op, Region},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Others may replace the note between our look and our word; more often than this, somebody
/// hammers on it.
const TRIES: u32 = 8;

/// Cheap to clone.
#[derive(Clone)]
pub struct Grantor {
    redis: Redis,
    topology: Topology,
    term_ms: u64,
    /// What this region has promised, as far as this process knows, for when Redis forgets it.
    promised: Arc<Mutex<Remembered>>,
}

impl Grantor {
    #[must_use]
    pub fn new(redis: Redis, topology: Topology, term_ms: u64) -> Self {
        Self { redis, topology, term_ms, promised: Arc::default() }
    }

    /// Grants `region` its epoch for a term, or says why not.
    ///
    /// # Errors
    /// When this region's Redis does not answer: nothing is granted then.
    pub async fn grant(
        &self,
        epoch: Epoch,
        region: &Region,
        term_ms: u64,
        op: &Op,
    ) -> Result<Verdict, StorageError> {
        if term_ms != self.term_ms {
            return Ok(Verdict::OtherTerm { term_ms: self.term_ms });
        }
        let outranks =
            |kept: &Promise| kept.epoch > epoch || (kept.epoch == epoch && kept.region != *region);
        if let Some(kept) = self.promised().filter(outranks) {
            return Ok(Verdict::Outranked { epoch: kept.epoch });
        }
        self.settle(op, |found| judge(found, epoch, region, self.known(), self.term_ms)).await
    }

    /// Promises that no epoch before the wanted one is granted anything any more.
    ///
    /// # Errors
    /// When this region's Redis does not answer: it may have been noted or not.
    pub async fn promise(&self, wanted: &Promise, op: &Op) -> Result<Promised, StorageError> {
        let kept = self.promised();
        let over = kept.filter(|kept| {
            // A program that knows of no members must not overtake a change of them.
            kept.epoch > wanted.epoch
                || (kept.epoch == wanted.epoch && !kept.agrees(wanted))
                || (wanted.members.is_none() && self.counts_otherwise(kept))
        });
        if let Some(kept) = over {
            let region = Some(kept.region);
            return Ok(Promised::Outranked { epoch: kept.epoch, region });
        }
        let known = self.known();
        let answer =
            self.settle(op, |found| judge_promise(found, wanted, known, self.term_ms)).await?;
        let Promised::Yes { left_ms, mut others } = answer else { return Ok(answer) };
        others.extend(self.begun_since(wanted));
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        others.extend(promised.others(wanted).cloned());
        promised.note(wanted, known);
        drop(promised);
        others.sort_unstable();
        others.dedup();
        self.topology.promises(wanted);
        Ok(Promised::Yes { left_ms, others })
    }

    /// The members of epochs that are known here to have begun, and not to who promotes.
    fn begun_since(&self, wanted: &Promise) -> Vec<Members> {
        let Some(after) = wanted.after else { return Vec::new() };
        self.topology.look(|snapshot| {
            let since = |epoch: Epoch| after < epoch && epoch < wanted.epoch;
            let begun = snapshot.starts().filter(|start| since(start.epoch));
            begun.filter_map(|start| start.members.clone()).collect()
        })
    }

    /// Whether a promise is of other members than the regions of the settings.
    fn counts_otherwise(&self, kept: &Promise) -> bool {
        let settings = self.topology.look(Snapshot::settings);
        let heard = self.known().heard;
        Some(kept.epoch) > heard && kept.members.as_ref().is_some_and(|kept| *kept != settings)
    }

    /// Notes, for the processes of this region, that another is being added, for `span` and while
    /// `epoch` is the newest: its slot is kept, and it is not left alone.
    ///
    /// # Errors
    /// When this region's Redis does not answer.
    pub async fn welcome(
        &self,
        region: &Region,
        epoch: Epoch,
        span: Duration,
        op: &Op,
    ) -> Result<(), StorageError> {
        lease::note_welcome(&self.redis, region, epoch, span, op).await
    }

    /// Those of `regions` that are being added in `epoch`.
    ///
    /// # Errors
    /// When this region's Redis does not answer.
    pub async fn welcomed(
        &self,
        regions: &[Region],
        epoch: Epoch,
        op: &Op,
    ) -> Result<BTreeSet<Region>, StorageError> {
        lease::welcomed(&self.redis, regions, epoch, op).await
    }

    /// Ends the grant of an epoch whose database takes no more writes for good.
    ///
    /// # Errors
    /// When this region's Redis does not answer.
    pub async fn release(&self, epoch: Epoch, op: &Op) -> Result<(), StorageError> {
        self.settle(op, |found| ((), release(found, epoch, self.term_ms))).await
    }

    /// The note as it is, for who tells of it; `None` when it is another instance's, or none.
    ///
    /// # Errors
    /// When this region's Redis does not answer.
    pub async fn look(&self, op: &Op) -> Result<(Option<Record>, u64), StorageError> {
        let (found, _) = self.find(op).await?;
        let kept = found.record.filter(|record| record.instance == found.instance);
        if let Some(record) = &kept {
            let known = self.known();
            let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
            for promise in record.overtaken.iter().chain(&record.promise) {
                promised.note(promise, known);
            }
        }
        Ok((kept, found.now_ms))
    }

    /// The latest.
    fn promised(&self) -> Option<Promise> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner).latest().cloned()
    }

    fn known(&self) -> Known {
        self.topology.look(|snapshot: &Snapshot| Known {
            written: snapshot.written,
            heard: snapshot.epoch_highest(),
        })
    }

    async fn find(&self, op: &Op) -> Result<(Found, Option<String>), StorageError> {
        let note = lease::look(&self.redis, op).await?;
        // A note that cannot be read is another version's: as if there were none.
        let record = note.text.as_deref().and_then(|text| serde_json::from_str(text).ok());
        Ok((Found { instance: note.instance, now_ms: note.now_ms, record }, note.text))
    }

    async fn settle<T>(
        &self,
        op: &Op,
        judge: impl Fn(&Found) -> (T, Option<Record>),
    ) -> Result<T, StorageError> {
        for _ in 0..TRIES {
            let (found, before) = self.find(op).await?;
            let (answer, after) = judge(&found);
            let Some(mut after) = after else { return Ok(answer) };
            // What Redis has forgotten this process has not, and a neighbour of tomorrow is to know.
            after.promise = after.promise.or_else(|| self.promised());
            let after = serde_json::to_string(&after).expect("a record is plain data");
            if lease::replace(&self.redis, before.as_deref(), &after, op).await? {
                return Ok(answer);
            }
        }
        Err(StorageError::Timeout)
    }
}
