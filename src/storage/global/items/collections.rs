//! What collections there are, page by page.

use crate::{
    storage::{
        StorageError, TenantScope,
        global::{Global, NO_EPOCH, Read, bookmark},
    },
    vocab::Collection,
};

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionPage {
    /// Each with the number of its items.
    pub collections: Vec<(Collection, i64)>,
    /// There was another collection after the last of these.
    pub more: bool,
}

/// Up to `limit` of the tenant's collections by name, after `after`, and how many items each holds.
///
/// The key begins with tenant and collection, so that a name is found by one descent into it from
/// the name before, however many items lie between; Postgres does this for no DISTINCT or GROUP BY.
/// Only the collections of the page are counted. Names are in the order of the key, which is that
/// of the database's collation.
///
/// # Errors
/// When the database fails.
pub async fn collections(
    global: &Global,
    scope: &TenantScope,
    after: Option<&Collection>,
    limit: i64,
) -> Result<Read<CollectionPage>, StorageError> {
    let rows = global
        .read(|| {
            sqlx::query!(
                r#"WITH RECURSIVE name AS (
                    (SELECT collection, 1::bigint AS place FROM item
                        WHERE tenant_id = $1 AND collection > $2 ORDER BY collection LIMIT 1)
                    UNION ALL
                    SELECT next.collection, name.place + 1 FROM name CROSS JOIN LATERAL (
                        SELECT collection FROM item
                        WHERE tenant_id = $1 AND collection > name.collection
                        ORDER BY collection LIMIT 1
                    ) AS next WHERE name.place <= $3
                )
                SELECT p.epoch AS "at_epoch!", p.lsn::text AS "at_lsn!",
                    c.collection AS "collection?", c.items AS "items?", c.more AS "more?"
                FROM cluster_position AS p
                LEFT JOIN (
                    SELECT collection, place, place < (SELECT max(place) FROM name) AS more,
                        (SELECT count(*) FROM item
                            WHERE tenant_id = $1 AND collection = name.collection) AS items
                    FROM name WHERE place <= $3
                ) AS c ON true
                ORDER BY c.place"#,
                scope.tenant().as_uuid(),
                // Before every name: none is empty.
                after.map_or("", Collection::as_str),
                limit,
            )
            .fetch_all(&global.read)
        })
        .await?;
    let first = rows.first().ok_or(NO_EPOCH)?;
    let at = bookmark(first.at_epoch, &first.at_lsn)?;
    let more = rows.last().is_some_and(|row| row.more == Some(true));
    let mut collections = Vec::with_capacity(rows.len());
    for row in rows {
        if let (Some(collection), Some(items)) = (row.collection, row.items) {
            let corrupt = StorageError::Corrupt { table: "item", column: "collection" };
            collections.push((collection.parse().map_err(|_| corrupt)?, items));
        }
    }
    Ok(Read { value: CollectionPage { collections, more }, at })
}
