//! The global plane: this region's own instance of the one replicated Postgres.
//!
//! Three pools, none of which connects before it is used, so that a process starts without its
//! database: `write` (as a member of `godwit_write`), `read` (as a member of `godwit_read`, read-only
//! sessions), and `watch`, one connection that the position is asked on, so that a busy pool cannot
//! make the position look old. The two hottest reads go through [`hot::HotReads`] instead.

pub mod api_keys;
pub mod credentials;
pub mod hot;
pub mod items;
pub mod journal;
pub mod lost;
pub mod position;
pub mod sessions;
pub mod tenants;
#[cfg(test)]
pub(crate) mod testing;
pub mod users;
mod warned;
mod write_tx;

pub use write_tx::WriteTx;

use super::StorageError;
use crate::{
    config::DatabaseConfig,
    vocab::{Bookmark, Epoch},
};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};
use std::{future::Future, time::Duration};

/// Longest wait for a row or advisory lock. Shorter than a statement may take, so that a writer
/// stuck behind another ends with its own error.
const LOCK_MS_MAX: u64 = 2_000;

/// The position's connection answers within this or is given up; the watcher asks again.
const WATCH_MS_MAX: u64 = 1_000;

/// What was read, and the position it was read at: never less than what the statement saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    pub value: T,
    pub at: Bookmark,
}

impl<T> Read<T> {
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Read<U> {
        Read { value: f(self.value), at: self.at }
    }
}

/// How full a pool is, for the metrics.
#[derive(Debug, Clone, Copy)]
pub struct PoolCount {
    pub pool: &'static str,
    pub used: u32,
    pub idle: u32,
    pub max: u32,
}

/// Cheap to clone; all clones share the pools.
#[derive(Debug, Clone)]
pub struct Global {
    write: PgPool,
    read: PgPool,
    watch: PgPool,
    /// Whether a write is refused where commits wait for nobody.
    waits: bool,
    /// A pooled read's whole time: a connection, then the statement.
    read_ms_max: Duration,
}

impl Global {
    /// Pools that connect when first used. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When an address in the settings is no Postgres URL; never because the database is down.
    pub fn connect(config: &DatabaseConfig) -> Result<Self, StorageError> {
        let acquire = Duration::from_millis(config.acquire_ms_max);
        let write = PgPoolOptions::new()
            .max_connections(config.write_connections())
            .acquire_timeout(acquire)
            // BEGIN is the test: `WriteTx::open` takes another connection when it fails.
            .test_before_acquire(false)
            .after_connect(|connection, _| Box::pin(write_tx::refuse_lazy_commit(connection)))
            .connect_lazy_with(options(config, &config.url, false)?);
        let read_options = options(config, &config.read_url, true)?
            // Lists differ so much by what they filter on that one plan does not fit them.
            .options([("plan_cache_mode", "force_custom_plan")]);
        let read = PgPoolOptions::new()
            .max_connections(config.read_connections_max)
            .acquire_timeout(acquire)
            .connect_lazy_with(read_options);
        let watch = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_millis(WATCH_MS_MAX))
            .test_before_acquire(false)
            // Not read-only by its own word, so that it sees whether the instance is.
            .connect_lazy_with(options(config, &config.read_url, false)?);
        let read_ms_max = acquire + Duration::from_millis(config.statement_ms_max);
        Ok(Self { write, read, watch, waits: config.waits, read_ms_max })
    }

    #[must_use]
    pub fn pools(&self) -> [PoolCount; 3] {
        [("write", &self.write), ("read", &self.read), ("watch", &self.watch)].map(|(pool, of)| {
            let idle = u32::try_from(of.num_idle()).unwrap_or(u32::MAX);
            let max = of.options().get_max_connections();
            PoolCount { pool, used: of.size().saturating_sub(idle), idle, max }
        })
    }

    /// For readiness: one round trip on the read pool.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn ping(&self) -> Result<(), StorageError> {
        let ping = sqlx::query_scalar!(r#"SELECT 1 AS "one!""#).fetch_one(&self.read);
        bounded(self.read_ms_max, ping).await.map(|_| ())
    }

    pub(in crate::storage) const fn read_pool(&self) -> &PgPool {
        &self.read
    }

    /// Closes every connection once it is free. For the end of the process.
    pub async fn close(&self) {
        self.write.close().await;
        self.read.close().await;
        self.watch.close().await;
    }

    /// A read that is tried again once when replay on the standby cancelled it
    /// (`shared/postgres.md` lesson 6).
    async fn read<T, F>(&self, statement: impl Fn() -> F) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        match bounded(self.read_ms_max, statement()).await {
            Err(error) if error.is_recovery_conflict() => {
                bounded(self.read_ms_max, statement()).await
            }
            outcome => outcome,
        }
    }
}

fn options(
    config: &DatabaseConfig,
    url: &SecretString,
    read_only: bool,
) -> Result<PgConnectOptions, StorageError> {
    let options: PgConnectOptions = url.expose_secret().parse()?;
    // `default_transaction_read_only` is left alone on the write pool: it is how a fence tells
    // a session that its database no longer takes writes.
    let read_only = read_only.then_some(("default_transaction_read_only", "on".to_owned()));
    let settings = [
        ("statement_timeout", config.statement_ms_max.to_string()),
        ("lock_timeout", LOCK_MS_MAX.min(config.statement_ms_max).to_string()),
        // A transaction whose client has vanished must not hold its locks for long.
        ("idle_in_transaction_session_timeout", (2 * config.statement_ms_max).to_string()),
    ];
    Ok(options
        .application_name("godwit")
        .options(settings)
        .options(read_only)
        .disable_statement_logging())
}

/// The one way out for every statement: the server's own timeout cannot help when the server hangs.
async fn bounded<T>(
    bound: Duration,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StorageError> {
    match tokio::time::timeout(bound, statement).await {
        Ok(outcome) => outcome.map_err(StorageError::from),
        Err(_) => Err(StorageError::unavailable("the database hangs")),
    }
}

/// A position from its columns.
fn bookmark(epoch: i64, lsn: &str) -> Result<Bookmark, StorageError> {
    let lsn = lsn.parse();
    let lsn =
        lsn.map_err(|_| StorageError::Corrupt { table: "cluster_position", column: "lsn" })?;
    Ok(Bookmark { epoch: stored_epoch("cluster_epoch", epoch)?, lsn })
}

fn stored_epoch(table: &'static str, epoch: i64) -> Result<Epoch, StorageError> {
    Epoch::from_stored(epoch).ok_or(StorageError::Corrupt { table, column: "epoch" })
}

/// What a statement that returns its position gives when there is no first epoch: no Godwit schema.
const NO_EPOCH: StorageError = StorageError::Corrupt { table: "cluster_epoch", column: "epoch" };

#[cfg(test)]
mod tests {
    use super::{
        testing::{self, Fixture},
        *,
    };
    use crate::vocab::Op;

    fn deserted(config: &DatabaseConfig) -> DatabaseConfig {
        // Bound, then let go: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url: SecretString = format!("postgres://godwit@127.0.0.1:{port}/godwit").into();
        DatabaseConfig { url: url.clone(), read_url: url, acquire_ms_max: 200, ..config.clone() }
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn starts_without_its_database_and_is_unavailable_within_its_bound(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let global = Global::connect(&deserted(&at.config)).unwrap();
        let guard = testing::op(Duration::from_secs(8));
        let unavailable = |error: StorageError| {
            assert!(matches!(error, StorageError::Unavailable(_)), "{error:?}");
        };
        unavailable(global.ping().await.unwrap_err());
        unavailable(global.position().await.unwrap_err());
        unavailable(tenants::find_by_name(&global, "x").await.unwrap_err());
        unavailable(WriteTx::open(&global, Epoch::FIRST, &at.op).await.unwrap_err());
        assert!(!guard.remaining().is_zero());
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_write_waits_for_a_connection_no_longer_than_its_deadline(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let held = [at.begin().await, at.begin().await, at.begin().await];
        assert_eq!(at.global.pools()[0].used, 3);
        let op: Op = testing::op(Duration::from_millis(100));
        let refused = WriteTx::open(&at.global, Epoch::FIRST, &op).await;
        assert!(matches!(refused, Err(StorageError::Timeout)), "{refused:?}");
        drop(held);
        at.begin().await.commit().await.unwrap();
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_read_that_replay_cancelled_is_tried_once_more(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let attempts = std::cell::Cell::new(0);
        let cancelled = || {
            attempts.set(attempts.get() + 1);
            let raise = "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$";
            sqlx::raw_sql(raise).execute(&at.pool)
        };
        let failed = at.global.read(cancelled).await.unwrap_err();
        assert!(failed.is_recovery_conflict() && attempts.get() == 2, "{failed:?}");
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_slow_statement_ends_by_the_servers_clock(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let config = DatabaseConfig { statement_ms_max: 100, ..at.config.clone() };
        let global = Global::connect(&config).unwrap();
        let slow = || sqlx::raw_sql("SELECT pg_sleep(20)").execute(&global.read);
        let ended = global.read(slow).await.unwrap_err();
        assert!(matches!(ended, StorageError::Timeout), "{ended:?}");
    }
}
