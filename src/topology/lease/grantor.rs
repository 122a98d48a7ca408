//! A region's side of the lease: its note, read, judged and replaced as one step.

use super::{Found, Known, Promise, Promised, Record, Verdict, judge, judge_promise, release};
use crate::{
    storage::{
        StorageError,
        redis::{Redis, lease},
    },
    topology::{Snapshot, Topology},
    vocab::{Epoch, Op, Region},
};
use std::sync::{Arc, Mutex, PoisonError};

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
    promised: Arc<Mutex<Option<Promise>>>,
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
        if let Some(kept) = self.promised().filter(|kept| kept.epoch > wanted.epoch) {
            let region = Some(kept.region);
            return Ok(Promised::Outranked { epoch: kept.epoch, region });
        }
        let known = self.known();
        let answer =
            self.settle(op, |found| judge_promise(found, wanted, known, self.term_ms)).await?;
        if matches!(answer, Promised::Yes { .. }) {
            self.remember(wanted);
            self.topology.publish_promise(Some(wanted.clone()));
        }
        Ok(answer)
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
        if let Some(promise) = kept.as_ref().and_then(|record| record.promise.as_ref()) {
            self.remember(promise);
        }
        Ok((kept, found.now_ms))
    }

    fn remember(&self, promise: &Promise) {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        if promised.as_ref().is_none_or(|kept| kept.epoch <= promise.epoch) {
            *promised = Some(promise.clone());
        }
    }

    fn promised(&self) -> Option<Promise> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
            let Some(after) = after else { return Ok(answer) };
            let after = serde_json::to_string(&after).expect("a record is plain data");
            if lease::replace(&self.redis, before.as_deref(), &after, op).await? {
                return Ok(answer);
            }
        }
        Err(StorageError::Timeout)
    }
}
