//! Lost writes are carried out again by the rules of writes, and answered as HTTP answers them.

use crate::{
    domain,
    failover::Replays,
    http::item_answer,
    storage::{Global, StorageError, global::lost::Due},
    topology::ledger::Replayed,
    vocab::{Epoch, Op},
};
use futures_util::future::BoxFuture;

pub struct Replayer {
    pub global: Global,
}

impl Replays for Replayer {
    fn replay<'a>(
        &'a self,
        epoch: Epoch,
        due: &'a Due,
        op: &'a Op,
    ) -> BoxFuture<'a, Result<Replayed, StorageError>> {
        Box::pin(async move {
            let outcome = domain::replay::replay(&self.global, epoch, due, op, item_answer).await?;
            let record = &due.record;
            Ok(Replayed {
                tenant: record.tenant,
                key: record.key.clone(),
                method: record.method.clone(),
                path: record.path.clone(),
                became: outcome.became,
                etag: outcome.etag,
                reason: outcome.reason,
            })
        })
    }
}
