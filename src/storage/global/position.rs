//! How far this region's database has come.

use super::{Global, NO_EPOCH, bounded};
use crate::{
    storage::StorageError,
    vocab::{Epoch, EpochHistory, EpochStart, Lsn, Members, Region},
};
use std::time::Duration;

/// One look at the instance, all of it from one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionRow {
    /// A standby; otherwise a primary.
    pub in_recovery: bool,
    /// Replayed on a standby, flushed on a primary.
    pub lsn: Lsn,
    /// On a primary whose commits wait for a standby: up to here one has them, of those that stream now;
    /// zero where none does. What lies beyond, a standby may already have shown, and the primary not yet
    /// (`shared/postgres.md` lesson 7f).
    pub confirmed: Option<Lsn>,
    pub history: EpochHistory,
    /// On a primary: whether new transactions may not write (`default_transaction_read_only`).
    pub read_only: bool,
    /// On a standby: whether log is coming in. `None` on a primary, or when the role may not know
    /// (it must be a member of `pg_monitor`).
    pub streaming: Option<bool>,
    /// On a standby: how much log has come in, replayed or not.
    pub receive_lsn: Option<Lsn>,
    /// On a standby: its log comes from an instance that was promoted, and whose epoch has not come
    /// in yet.
    pub unbegun: bool,
}

impl Global {
    /// Where the database is, on a connection of its own. One caller at a time.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] or [`StorageError::Timeout`] within a second or so.
    pub async fn position(&self) -> Result<PositionRow, StorageError> {
        // The answer to the question is worth little when it is old.
        let bound = Duration::from_millis(2 * super::WATCH_MS_MAX);
        bounded(bound, ask(&self.watch)).await.and_then(PositionRow::try_from)
    }
}

/// Where the database behind `executor` is.
///
/// # Errors
/// When it cannot be asked, or has no epoch yet.
pub async fn position(executor: impl sqlx::PgExecutor<'_>) -> Result<PositionRow, StorageError> {
    ask(executor).await?.try_into()
}

struct Stored {
    in_recovery: bool,
    lsn: Option<String>,
    streaming: Option<bool>,
    read_only: bool,
    confirmed: Option<String>,
    receive_lsn: Option<String>,
    unbegun: bool,
    epochs: Option<Vec<i64>>,
    start_lsns: Option<Vec<String>>,
    regions: Option<Vec<String>>,
    /// With commas between.
    members: Option<Vec<Option<String>>>,
}

async fn ask(executor: impl sqlx::PgExecutor<'_>) -> Result<Stored, sqlx::Error> {
    let query = sqlx::query_as!(
        Stored,
        r#"SELECT
            pg_is_in_recovery() AS "in_recovery!",
            (SELECT lsn::text FROM cluster_position) AS lsn,
            CASE
                WHEN NOT pg_is_in_recovery() THEN NULL
                WHEN NOT EXISTS (SELECT FROM pg_stat_wal_receiver) THEN false
                ELSE (SELECT status = 'streaming' FROM pg_stat_wal_receiver)
            END AS streaming,
            current_setting('default_transaction_read_only')::boolean AS "read_only!",
            CASE WHEN NOT pg_is_in_recovery() AND current_setting('synchronous_standby_names') <> ''
                THEN (SELECT coalesce(max(flush_lsn), '0/0') FROM pg_stat_replication
                    WHERE sync_state IN ('quorum', 'sync'))::text
            END AS confirmed,
            CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()::text END AS receive_lsn,
            pg_is_in_recovery() AND coalesce(
                (SELECT received_tli FROM pg_stat_wal_receiver) >
                (SELECT timeline FROM cluster_epoch ORDER BY epoch DESC LIMIT 1), false)
                AS "unbegun!",
            array_agg(epoch ORDER BY epoch) AS epochs,
            array_agg(start_lsn::text ORDER BY epoch) AS start_lsns,
            array_agg(region ORDER BY epoch) AS regions,
            array_agg(array_to_string(members, ',') ORDER BY epoch)
                AS "members: Vec<Option<String>>"
        FROM cluster_epoch"#
    );
    query.fetch_one(executor).await
}

impl TryFrom<Stored> for PositionRow {
    type Error = StorageError;

    fn try_from(stored: Stored) -> Result<Self, StorageError> {
        let corrupt = |column| StorageError::Corrupt { table: "cluster_epoch", column };
        let parsed = |text: &str| text.parse::<Lsn>().map_err(|_| corrupt("start_lsn"));
        let columns = (stored.lsn, stored.epochs, stored.start_lsns, stored.regions);
        let ((Some(lsn), Some(epochs), Some(start_lsns), Some(regions)), Some(members)) =
            (columns, stored.members)
        else {
            return Err(NO_EPOCH);
        };
        let parsed_members = |text: &String| {
            let regions = text.split(',').map(str::parse::<Region>);
            regions.collect::<Result<Members, _>>().map_err(|_| corrupt("members"))
        };
        let mut starts = Vec::with_capacity(epochs.len());
        let rows = epochs.into_iter().zip(&start_lsns).zip(regions.iter().zip(&members));
        for ((epoch, start_lsn), (region, members)) in rows {
            starts.push(EpochStart {
                epoch: Epoch::from_stored(epoch).ok_or(corrupt("epoch"))?,
                start_lsn: parsed(start_lsn)?,
                region: region.parse().map_err(|_| corrupt("region"))?,
                members: members.as_ref().map(parsed_members).transpose()?,
            });
        }
        Ok(Self {
            in_recovery: stored.in_recovery,
            lsn: parsed(&lsn)?,
            history: EpochHistory::new(starts).ok_or(NO_EPOCH)?,
            read_only: stored.read_only,
            confirmed: stored.confirmed.as_deref().map(parsed).transpose()?,
            streaming: stored.streaming,
            receive_lsn: stored.receive_lsn.as_deref().map(parsed).transpose()?,
            unbegun: stored.unbegun,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::global::{tenants, testing::Fixture};
    use crate::vocab::TenantId;
    use sqlx::PgPool;

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_primary_is_where_its_last_commit_was_flushed(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let id = TenantId::mint(&at.op);
        let create = async |tx: &mut super::super::WriteTx| {
            tenants::create(tx, id, "new", at.op.now()).await
        };
        let (_, written_at) = at.write(create).await;
        let row = at.global.position().await.unwrap();
        assert!(!row.in_recovery && row.streaming.is_none() && row.receive_lsn.is_none());
        assert!(row.lsn >= written_at.lsn);
        assert_eq!(row.history.current().epoch, written_at.epoch);
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn tells_every_epoch_it_has_heard_of(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        at.sql("INSERT INTO cluster_epoch VALUES (2, '0/16B3740', 'eu-west-1', now())").await;
        let history = position(&pool).await.unwrap().history;
        let starts: Vec<_> = history.starts().iter().map(|start| start.epoch.get()).collect();
        assert_eq!(starts, [1, 2]);
        assert_eq!(history.current().region.as_str(), "eu-west-1");
        assert_eq!(history.current().start_lsn, Lsn::new(0x16B_3740));
        assert_eq!(history.current().members, None);
        at.sql("UPDATE cluster_epoch SET members = '{eu-west-1,us-east-1}' WHERE epoch = 2").await;
        let history = position(&pool).await.unwrap().history;
        let members = history.current().members.as_ref().map(ToString::to_string);
        assert_eq!(members.as_deref(), Some("eu-west-1, us-east-1"));
        assert_eq!(history.starts()[0].members, None);
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_database_without_an_epoch_has_no_position(pool: PgPool) {
        assert!(matches!(position(&pool).await, Err(StorageError::Corrupt { .. })));
    }
}
