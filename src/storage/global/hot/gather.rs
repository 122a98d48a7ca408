//! Item reads that arrive while others are under way are asked for together, in one statement.
//!
//! One statement is under way at a time. Nobody waits for company: the first ask is sent at once,
//! and what gathers until its answer comes is the next statement. A busy connection so pays the
//! price of a statement (a message, an executor, a position) once for many reads; one that is not
//! busy pays it for each, as before. Postgres would have worked on them one after the other anyway.

use crate::{
    storage::StorageError,
    vocab::{Collection, ItemId, TenantId},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::{
    Client, Row, Statement,
    types::{ToSql, Type},
};

/// A row for each ask, whatever is found: its number, the position, and the item or nulls.
///
/// The position is evaluated with the rows, after the statement's snapshot was taken, so it never
/// names less than what was seen (`cluster_position`).
pub(super) const ITEMS: &str = "SELECT ask.number, p.epoch, p.lsn, i.epoch, i.version, \
     i.data::text, i.created_at, i.updated_at \
     FROM cluster_position AS p \
     CROSS JOIN unnest($1::uuid[], $2::text[], $3::uuid[]) \
         WITH ORDINALITY AS ask (tenant_id, collection, id, number) \
     LEFT JOIN item AS i ON i.tenant_id = ask.tenant_id AND i.collection = ask.collection \
         AND i.id = ask.id";

pub(super) const PARAMETERS: [Type; 3] = [Type::UUID_ARRAY, Type::TEXT_ARRAY, Type::UUID_ARRAY];

/// Asks in one statement, at most: with items of 1 MiB its answer has 64 MiB.
const TOGETHER_MAX: usize = 64;
/// Asks waiting for the next statements; whoever comes then waits for a place.
const WAITING_MAX: usize = 1024;

type Answer = Result<Row, StorageError>;

struct Ask {
    tenant: TenantId,
    collection: Collection,
    id: ItemId,
    answer: oneshot::Sender<Answer>,
}

/// Where to ask. The gatherer ends when the last of these is dropped.
pub(super) struct Asks(mpsc::Sender<Ask>);

impl Asks {
    /// The row of [`ITEMS`] for one item. Cancellation-safe: whoever is gone is not asked for, or
    /// the answer is dropped.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when the connection is lost, or was.
    pub(super) async fn row(&self, tenant: TenantId, collection: Collection, id: ItemId) -> Answer {
        let lost = || StorageError::unavailable("the connection was lost");
        let (answer, answered) = oneshot::channel();
        let ask = Ask { tenant, collection, id, answer };
        self.0.send(ask).await.map_err(|_| lost())?;
        answered.await.map_err(|_| lost())?
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

pub(super) struct Gatherer {
    client: Arc<Client>,
    items: Statement,
    answer_ms_max: Duration,
    asks: mpsc::Receiver<Ask>,
}

/// The connection hung or is lost: nothing more can be asked on it.
struct Lost;

impl Gatherer {
    pub(super) fn new(
        client: Arc<Client>,
        items: Statement,
        answer_ms_max: Duration,
    ) -> (Asks, Self) {
        let (sender, asks) = mpsc::channel(WAITING_MAX);
        (Asks(sender), Self { client, items, answer_ms_max, asks })
    }

    /// Asks until nobody can ask any more, or the connection is of no more use. What is then left
    /// unanswered learns that by its channel being closed.
    pub(super) async fn run(mut self) {
        let mut together = Vec::with_capacity(TOGETHER_MAX);
        while self.asks.recv_many(&mut together, TOGETHER_MAX).await > 0 {
            together.retain(|ask| !ask.answer.is_closed());
            if let Err(Lost) = self.answer(&mut together).await {
                return;
            }
        }
    }

    async fn answer(&self, together: &mut Vec<Ask>) -> Result<(), Lost> {
        let Err(error) = self.statement(together).await else {
            return Ok(());
        };
        match error {
            StorageError::Unavailable(_) => return Err(Lost),
            StorageError::Timeout => refuse(together, || StorageError::Timeout),
            // It is the statement that was cancelled, not one read of it.
            StorageError::RecoveryConflict(cause) => {
                let cause = cause.to_string();
                refuse(together, || StorageError::RecoveryConflict(cause.as_str().into()));
            }
            error if together.len() == 1 => {
                let mut error = Some(error);
                refuse(together, || error.take().unwrap_or(StorageError::Timeout));
            }
            // One read cannot be answered. The others can, so each is asked for by itself.
            _ => {
                for ask in together.drain(..) {
                    Box::pin(self.answer(&mut vec![ask])).await?;
                }
            }
        }
        Ok(())
    }

    /// Answers all of them, or none.
    async fn statement(&self, together: &mut Vec<Ask>) -> Result<(), StorageError> {
        if together.is_empty() {
            return Ok(());
        }
        let tenants: Vec<_> = together.iter().map(|ask| ask.tenant.as_uuid()).collect();
        let collections: Vec<_> = together.iter().map(|ask| ask.collection.as_str()).collect();
        let ids: Vec<_> = together.iter().map(|ask| ask.id.as_uuid()).collect();
        let parameters: [&(dyn ToSql + Sync); 3] = [&tenants, &collections, &ids];
        let query = self.client.query(&self.items, &parameters);
        let rows = match tokio::time::timeout(self.answer_ms_max, query).await {
            Ok(rows) => rows?,
            Err(_) => return Err(StorageError::unavailable("the database hangs")),
        };
        let mut answers: Vec<Option<Row>> = Vec::new();
        answers.resize_with(together.len(), || None);
        for row in rows {
            let number: i64 = row.try_get(0)?;
            let place = usize::try_from(number - 1).ok().and_then(|at| answers.get_mut(at));
            *place.ok_or_else(misnumbered)? = Some(row);
        }
        for (ask, row) in together.drain(..).zip(answers) {
            // Whoever is gone needs no answer.
            let _ = ask.answer.send(row.ok_or(super::NO_EPOCH));
        }
        Ok(())
    }
}

fn misnumbered() -> StorageError {
    StorageError::Corrupt { table: "item", column: "number" }
}

fn refuse(together: &mut Vec<Ask>, mut why: impl FnMut() -> StorageError) {
    for ask in together.drain(..) {
        let _ = ask.answer.send(Err(why()));
    }
}
