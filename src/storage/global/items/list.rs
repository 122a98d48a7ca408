//! Lists of items, page by page.

use super::{ItemRow, Stored};
use crate::{
    storage::{
        StorageError, TenantScope,
        global::{Global, NO_EPOCH, Read, bookmark},
    },
    vocab::{Collection, ItemId},
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// What to list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    pub collection: Collection,
    /// Words to be found, in the syntax of web searches.
    pub q: Option<String>,
    /// JSON text that the document must contain (`@>`).
    pub filter: Option<String>,
    pub order: Order,
    /// The last item of the page before.
    pub after: Option<ListPosition>,
    /// Most items of the page.
    pub limit: i64,
    /// The page ends with the item that brings its documents to this many bytes.
    pub bytes_max: i64,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub items: Vec<ItemRow>,
    /// There was another item after the last of these.
    pub more: bool,
}

/// Equal times are told apart by id, in the same direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub by: OrderBy,
    pub descending: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderBy {
    Id,
    CreatedAt,
    UpdatedAt,
}

/// A place in a list: where the next page goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListPosition {
    /// Of the column that orders; of no meaning when that is the id.
    pub at: DateTime<Utc>,
    pub id: ItemId,
}

impl ItemRow {
    /// This item's place in a list of that order.
    #[must_use]
    pub const fn place(&self, by: OrderBy) -> ListPosition {
        let at = match by {
            OrderBy::UpdatedAt => self.updated_at,
            OrderBy::Id | OrderBy::CreatedAt => self.created_at,
        };
        ListPosition { at, id: self.id }
    }
}

/// A row as the columns give it; all but the position is absent when the page is empty.
struct Listed {
    at_epoch: i64,
    at_lsn: String,
    id: Option<Uuid>,
    collection: Option<String>,
    epoch: Option<i64>,
    version: Option<i64>,
    data: Option<String>,
    created_at: Option<DateTime<Utc>>,
    updated_at: Option<DateTime<Utc>>,
    more: Option<bool>,
}

impl Listed {
    fn item(self) -> Result<Option<ItemRow>, StorageError> {
        let Some(id) = self.id else {
            return Ok(None);
        };
        let corrupt = |column| StorageError::Corrupt { table: "item", column };
        let stored = Stored {
            id,
            collection: self.collection.ok_or(corrupt("collection"))?,
            epoch: self.epoch.ok_or(corrupt("epoch"))?,
            version: self.version.ok_or(corrupt("version"))?,
            data: self.data.ok_or(corrupt("data"))?,
            created_at: self.created_at.ok_or(corrupt("created_at"))?,
            updated_at: self.updated_at.ok_or(corrupt("updated_at"))?,
        };
        stored.try_into().map(Some)
    }
}

/// One statement for each order, because the order is what the index must match. The conditions
/// that are not asked for fall away when the statement is planned, which it is each time. Which
/// items the page has room for is told by the lengths alone, kept beside the documents; only theirs
/// are fetched and become text. One item more than the limit is looked at, to tell whether there is
/// another page.
macro_rules! page {
    ($global:ident, $scope:ident, $query:ident, $beyond:tt, $order:tt, $outer:tt) => {
        $global
            .read(|| {
                let after = $query.after;
                sqlx::query_as!(
                    Listed,
                    r#"SELECT p.epoch AS "at_epoch!", p.lsn::text AS "at_lsn!", i.id AS "id?",
                        i.collection AS "collection?", i.epoch AS "epoch?",
                        i.version AS "version?", i.data::text AS "data?",
                        i.created_at AS "created_at?", i.updated_at AS "updated_at?",
                        i.more AS "more?"
                    FROM cluster_position AS p
                    LEFT JOIN (
                        SELECT *, row_number() OVER page AS place,
                            sum(data_bytes) OVER page - data_bytes AS bytes_before,
                            lead(id) OVER page IS NOT NULL AS more
                        FROM (
                            SELECT id, collection, epoch, version, data, data_bytes,
                                created_at, updated_at
                            FROM item WHERE tenant_id = $1 AND collection = $2
                                AND ($3::text IS NULL
                                    OR search @@ websearch_to_tsquery('simple'::regconfig, $3))
                                AND ($4::text IS NULL OR data @> $4::text::jsonb)
                                AND ($5::uuid IS NULL OR "#
                        + $beyond
                        + ") ORDER BY "
                        + $order
                        + " LIMIT $7::bigint + 1) AS found WINDOW page AS (ORDER BY "
                        + $order
                        + " ROWS UNBOUNDED PRECEDING)
                    ) AS i ON i.place <= $7 AND i.bytes_before < $8 ORDER BY "
                        + $outer,
                    $scope.tenant().as_uuid(),
                    $query.collection.as_str(),
                    $query.q.as_deref(),
                    $query.filter.as_deref(),
                    after.map(|place| place.id.as_uuid()),
                    after.map(|place| place.at),
                    $query.limit,
                    $query.bytes_max,
                )
                .fetch_all(&$global.read)
            })
            .await?
    };
}

/// Up to `limit` items after `after`; fewer when their documents come to `bytes_max`, but one at
/// least if there is one. No item is left out or told twice while none changes its place.
///
/// # Errors
/// [`StorageError::InvalidData`] when `filter` is no JSON that Postgres can hold, or `q` holds a NUL.
pub async fn list(
    global: &Global,
    scope: &TenantScope,
    query: &ListQuery,
) -> Result<Read<Page>, StorageError> {
    let rows = match (query.order.by, query.order.descending) {
        (OrderBy::Id, false) => {
            page!(global, scope, query, "(id > $5 AND $6::timestamptz IS NOT NULL)", "id", "i.id")
        }
        (OrderBy::Id, true) => page!(
            global,
            scope,
            query,
            "(id < $5 AND $6::timestamptz IS NOT NULL)",
            "id DESC",
            "i.id DESC"
        ),
        (OrderBy::CreatedAt, false) => page!(
            global,
            scope,
            query,
            "(created_at, id) > ($6::timestamptz, $5)",
            "created_at, id",
            "i.created_at, i.id"
        ),
        (OrderBy::CreatedAt, true) => page!(
            global,
            scope,
            query,
            "(created_at, id) < ($6::timestamptz, $5)",
            "created_at DESC, id DESC",
            "i.created_at DESC, i.id DESC"
        ),
        (OrderBy::UpdatedAt, false) => page!(
            global,
            scope,
            query,
            "(updated_at, id) > ($6::timestamptz, $5)",
            "updated_at, id",
            "i.updated_at, i.id"
        ),
        (OrderBy::UpdatedAt, true) => page!(
            global,
            scope,
            query,
            "(updated_at, id) < ($6::timestamptz, $5)",
            "updated_at DESC, id DESC",
            "i.updated_at DESC, i.id DESC"
        ),
    };
    let first = rows.first().ok_or(NO_EPOCH)?;
    let at = bookmark(first.at_epoch, &first.at_lsn)?;
    let more = rows.last().is_some_and(|row| row.more == Some(true));
    let items = rows.into_iter().filter_map(|row| row.item().transpose());
    Ok(Read { value: Page { items: items.collect::<Result<_, _>>()?, more }, at })
}
