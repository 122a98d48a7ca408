//! Item reads that arrive while others are under way are asked for together, in one statement
//! ([`crate::storage::gather`]). Postgres would have worked on them one after the other anyway.

use crate::{
    storage::{
        StorageError,
        gather::{self, Gathered, refuse},
    },
    vocab::{Collection, ItemId, TenantId},
};
use std::{sync::Arc, time::Duration};
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

/// Which item.
pub(super) struct Which {
    pub(super) tenant: TenantId,
    pub(super) collection: Collection,
    pub(super) id: ItemId,
}

type Ask = gather::Ask<Which, Row>;
/// Gives the row of [`ITEMS`] for one item.
pub(super) type Asks = gather::Asks<Which, Row>;

pub(super) struct Gatherer {
    client: Arc<Client>,
    items: Statement,
    answer_ms_max: Duration,
    asks: Gathered<Which, Row>,
}

/// The connection hung or is lost: nothing more can be asked on it.
struct Lost;

impl Gatherer {
    pub(super) fn new(
        client: Arc<Client>,
        items: Statement,
        answer_ms_max: Duration,
    ) -> (Asks, Self) {
        let (sender, asks) = gather::channel();
        (sender, Self { client, items, answer_ms_max, asks })
    }

    /// Asks until nobody can ask any more, or the connection is of no more use. What is then left
    /// unanswered learns that by its channel being closed.
    pub(super) async fn run(mut self) {
        let mut together = Vec::with_capacity(TOGETHER_MAX);
        while self.asks.next(&mut together, TOGETHER_MAX).await {
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
        let tenants: Vec<_> = together.iter().map(|ask| ask.question.tenant.as_uuid()).collect();
        let collections: Vec<_> =
            together.iter().map(|ask| ask.question.collection.as_str()).collect();
        let ids: Vec<_> = together.iter().map(|ask| ask.question.id.as_uuid()).collect();
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
            ask.answer(row.ok_or(super::NO_EPOCH));
        }
        Ok(())
    }
}

fn misnumbered() -> StorageError {
    StorageError::Corrupt { table: "item", column: "number" }
}
