//! The schema's one owner. `godwit migrate` runs it; `serve` only asks how the schema stands.

use super::StorageError;
use crate::{
    config::DatabaseConfig,
    vocab::{Epoch, Members, Op, Region},
};
use secrecy::ExposeSecret as _;
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool,
    migrate::{Migrate as _, MigrateError, Migrator},
    postgres::PgConnectOptions,
};
use std::time::Duration;

/// `migrations/global/`, embedded.
pub(in crate::storage) static MIGRATOR: Migrator = sqlx::migrate!("migrations/global");

/// Of the lock that one migration at a time holds.
const LOCK: i64 = 0x676f_6477_6974_0001;

/// Between two attempts to take it. Waiting inside Postgres would hold a snapshot, and `CREATE INDEX
/// CONCURRENTLY` waits for every snapshot: two migrations would wait for each other.
const LOCK_POLL_MS: u64 = 250;

/// A migration must not stand in line for a table's lock with all later writers behind it.
const TABLE_LOCK_MS_MAX: u64 = 10_000;

/// Longest look at how the schema stands.
const STANDING_MAX: Duration = Duration::from_secs(2);

/// What `migrate` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrateOutcome {
    /// This many migrations.
    Applied(usize),
    UpToDate,
    /// Nothing: the server is a standby, and gets its schema from the primary.
    Standby,
}

/// How a database's schema stands to what this program was built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaStanding {
    Current,
    /// Lacks migrations. `have` is the newest it has, `want` the newest there is.
    Old {
        have: Option<i64>,
        want: i64,
    },
    /// Has migrations that this program has not heard of; it has all that this program needs.
    Newer,
}

impl SchemaStanding {
    /// Whether it has all that this program needs.
    #[must_use]
    pub const fn suffices(self) -> bool {
        matches!(self, Self::Current | Self::Newer)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MigrateFailure {
    #[error("setting database.owner_url is missing: migrations run as the schema's owner")]
    NoOwner,
    #[error("another migration holds the lock")]
    Locked,
    #[error("the database failed")]
    Storage(#[from] StorageError),
    #[error("a migration failed")]
    Migration(#[source] MigrateError),
}

impl From<sqlx::Error> for MigrateFailure {
    fn from(error: sqlx::Error) -> Self {
        Self::Storage(error.into())
    }
}

/// Brings the schema up to date and inserts the first epoch, with `region` as its primary and
/// `members` to count. Running it again changes nothing; two at a time take turns.
///
/// # Errors
/// When the owner cannot connect, another migration holds the lock past `op`'s deadline, or a
/// migration fails. Each migration is a transaction of its own: those before the failed one stay.
pub async fn run(
    config: &DatabaseConfig,
    region: &Region,
    members: &Members,
    op: &Op,
) -> Result<MigrateOutcome, MigrateFailure> {
    let url = config.owner_url.as_ref().ok_or(MigrateFailure::NoOwner)?;
    let options: PgConnectOptions = url.expose_secret().parse()?;
    let options = options
        .application_name("godwit migrate")
        .options([("lock_timeout", TABLE_LOCK_MS_MAX.to_string())]);
    let connected = tokio::time::timeout(op.remaining(), options.connect()).await;
    let mut connection = connected.map_err(|_| StorageError::Timeout)??;
    let standby = sqlx::query_scalar!(r#"SELECT pg_is_in_recovery() AS "standby!""#);
    let outcome = if standby.fetch_one(&mut connection).await? {
        MigrateOutcome::Standby
    } else {
        lock(&mut connection, op).await?;
        let applied = apply(&mut connection).await?;
        insert_first_epoch(&mut connection, region, members, op).await?;
        if applied == 0 { MigrateOutcome::UpToDate } else { MigrateOutcome::Applied(applied) }
    };
    // Ends the session, and with it the lock.
    connection.close().await?;
    Ok(outcome)
}

async fn lock(connection: &mut PgConnection, op: &Op) -> Result<(), MigrateFailure> {
    loop {
        let attempt = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "taken!""#, LOCK);
        if attempt.fetch_one(&mut *connection).await? {
            return Ok(());
        }
        let pause = op.remaining().min(Duration::from_millis(LOCK_POLL_MS));
        if pause.is_zero() {
            return Err(MigrateFailure::Locked);
        }
        tokio::time::sleep(pause).await;
    }
}

async fn apply(connection: &mut PgConnection) -> Result<usize, MigrateFailure> {
    let mut migrator = Migrator { migrations: MIGRATOR.migrations.clone(), ..Migrator::DEFAULT };
    // The lock is ours already; an older program leaves a newer schema alone.
    migrator.set_locking(false).set_ignore_missing(true);
    let before = applied(connection).await.map_err(MigrateFailure::Migration)?;
    migrator.run_direct(None, connection, false).await.map_err(MigrateFailure::Migration)?;
    let after = applied(connection).await.map_err(MigrateFailure::Migration)?;
    Ok(after.saturating_sub(before))
}

async fn applied(connection: &mut PgConnection) -> Result<usize, MigrateError> {
    connection.ensure_migrations_table(&MIGRATOR.table_name).await?;
    Ok(connection.list_applied_migrations(&MIGRATOR.table_name).await?.len())
}

async fn insert_first_epoch(
    connection: &mut PgConnection,
    region: &Region,
    members: &Members,
    op: &Op,
) -> Result<(), MigrateFailure> {
    let members: Vec<String> = members.iter().map(ToString::to_string).collect();
    let query = sqlx::query!(
        "INSERT INTO cluster_epoch (epoch, start_lsn, region, at, timeline, members)
        SELECT $1, '0/0'::pg_lsn, $2, $3,
            ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer, $4
        WHERE NOT EXISTS (SELECT FROM cluster_epoch)",
        Epoch::FIRST.to_stored(),
        region.as_str(),
        op.now(),
        &members,
    );
    query.execute(connection).await?;
    Ok(())
}

impl super::Global {
    /// How the schema stands to this program.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn schema_standing(&self) -> Result<SchemaStanding, StorageError> {
        let standing = schema_standing(self.read_pool());
        let told = tokio::time::timeout(STANDING_MAX, standing).await;
        told.unwrap_or_else(|_| Err(StorageError::unavailable("the database hangs")))
    }
}

/// How the schema behind `pool` stands to this program.
///
/// # Errors
/// When the database cannot be read.
pub async fn schema_standing(pool: &PgPool) -> Result<SchemaStanding, StorageError> {
    let wanted = || MIGRATOR.iter().map(|migration| migration.version);
    let want = wanted().max().unwrap_or(0);
    let exists =
        sqlx::query_scalar!(r#"SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS "exists!""#);
    if !exists.fetch_one(pool).await? {
        return Ok(SchemaStanding::Old { have: None, want });
    }
    let applied = sqlx::query_scalar!("SELECT version FROM _sqlx_migrations WHERE success");
    let applied = applied.fetch_all(pool).await?;
    if wanted().any(|version| !applied.contains(&version)) {
        return Ok(SchemaStanding::Old { have: applied.iter().max().copied(), want });
    }
    if applied.iter().any(|version| !MIGRATOR.version_exists(*version)) {
        return Ok(SchemaStanding::Newer);
    }
    Ok(SchemaStanding::Current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        storage::global::testing::{self, Fixture},
        vocab::Lsn,
    };

    fn region() -> Region {
        "us-east-1".parse().unwrap()
    }

    fn members() -> Members {
        [region(), "eu-west-1".parse().unwrap()].into_iter().collect()
    }

    fn op() -> Op {
        testing::op(Duration::from_secs(30))
    }

    #[sqlx::test(migrations = false)]
    async fn an_empty_database_is_brought_up_to_date_once(pool: PgPool) {
        let config = testing::config(&pool);
        let want = MIGRATOR.iter().map(|migration| migration.version).max().unwrap();
        let standing = schema_standing(&pool).await.unwrap();
        assert_eq!(standing, SchemaStanding::Old { have: None, want });
        let all = MIGRATOR.iter().count();
        let outcome = run(&config, &region(), &members(), &op()).await.unwrap();
        assert_eq!(outcome, MigrateOutcome::Applied(all));
        assert_eq!(schema_standing(&pool).await.unwrap(), SchemaStanding::Current);
        // The serving roles can ask, too.
        let global = crate::storage::Global::connect(&config).unwrap();
        assert_eq!(global.schema_standing().await.unwrap(), SchemaStanding::Current);
        let elsewhere = "eu-west-1".parse().unwrap();
        let all = members().iter().cloned().chain(["ap-south-1".parse().unwrap()]).collect();
        let again = run(&config, &elsewhere, &all, &op()).await.unwrap();
        assert_eq!(again, MigrateOutcome::UpToDate);
        let history = global.position().await.unwrap().history;
        assert_eq!(history.starts().len(), 1);
        assert_eq!(history.current().region, region());
        assert_eq!(history.current().members, Some(members()));
    }

    #[sqlx::test(migrations = false)]
    async fn two_at_a_time_take_turns(pool: PgPool) {
        let config = testing::config(&pool);
        let (region, members, first, second) = (region(), members(), op(), op());
        let outcomes = tokio::join!(
            run(&config, &region, &members, &first),
            run(&config, &region, &members, &second)
        );
        let mut outcomes = [outcomes.0.unwrap(), outcomes.1.unwrap()];
        outcomes.sort_by_key(|outcome| *outcome == MigrateOutcome::UpToDate);
        let all = MigrateOutcome::Applied(MIGRATOR.iter().count());
        assert_eq!(outcomes, [all, MigrateOutcome::UpToDate]);
    }

    #[sqlx::test(migrations = false)]
    async fn gives_up_at_the_deadline_when_another_holds_the_lock(pool: PgPool) {
        let mut holder = pool.acquire().await.unwrap();
        let lock = sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK);
        lock.execute(&mut *holder).await.unwrap();
        let op = testing::op(Duration::from_millis(600));
        let failed = run(&testing::config(&pool), &region(), &members(), &op).await;
        assert!(matches!(failed, Err(MigrateFailure::Locked)), "{failed:?}");
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_schema_is_old_when_it_lacks_one_migration_and_newer_when_it_has_more(pool: PgPool) {
        let sql = |sql: &'static str| sqlx::raw_sql(sql).execute(&pool);
        let foreign =
            "INSERT INTO _sqlx_migrations SELECT 99990101000000, 'later', now(), true, '', 0";
        sql(foreign).await.unwrap();
        assert_eq!(schema_standing(&pool).await.unwrap(), SchemaStanding::Newer);
        let config = testing::config(&pool);
        let outcome = run(&config, &region(), &members(), &op()).await.unwrap();
        assert_eq!(outcome, MigrateOutcome::UpToDate);
        sql("DELETE FROM _sqlx_migrations WHERE version = \
             (SELECT version FROM _sqlx_migrations ORDER BY version LIMIT 1 OFFSET 3)")
        .await
        .unwrap();
        let standing = schema_standing(&pool).await.unwrap();
        assert!(matches!(standing, SchemaStanding::Old { have: Some(_), .. }), "{standing:?}");
    }

    #[sqlx::test(migrations = false)]
    async fn needs_the_owners_address(pool: PgPool) {
        let config = DatabaseConfig { owner_url: None, ..testing::config(&pool) };
        let failed = run(&config, &region(), &members(), &op()).await;
        assert!(matches!(failed, Err(MigrateFailure::NoOwner)), "{failed:?}");
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn a_promoted_instance_stays_where_it_had_replayed_to_until_its_epoch_is_there(
        pool: PgPool,
    ) {
        let at = Fixture::new(&pool).await;
        let stands = async || at.global.position().await.unwrap().lsn;
        // The test's server never replayed anything.
        at.sql("UPDATE cluster_epoch SET timeline = 0").await;
        assert_eq!(stands().await, Lsn::new(0));
        // It is on its first timeline.
        for set in
            ["UPDATE cluster_epoch SET timeline = 1", "UPDATE cluster_epoch SET timeline = NULL"]
        {
            at.sql(set).await;
            assert!(stands().await > Lsn::new(0), "{set}");
        }
        at.sql("UPDATE cluster_epoch SET timeline = 0").await;
        at.sql("INSERT INTO cluster_epoch VALUES (2, '0/1', 'eu-west-1', now())").await;
        assert!(stands().await > Lsn::new(0), "the newest epoch counts");
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn who_moves_the_primary_reads_what_can_be_lost_and_writes_the_epoch_alone(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let mut connection = pool.acquire().await.unwrap();
        let mut run = async |sql: &'static str| {
            sqlx::raw_sql("SET ROLE godwit_failover").execute(&mut *connection).await.unwrap();
            let done = sqlx::raw_sql(sql).execute(&mut *connection).await;
            sqlx::raw_sql("RESET ROLE").execute(&mut *connection).await.unwrap();
            done
        };
        for sql in [
            "SELECT * FROM cluster_epoch",
            "SELECT * FROM cluster_position",
            "SELECT * FROM write_journal",
            "SELECT * FROM tenant",
            "SELECT * FROM _sqlx_migrations",
            "INSERT INTO cluster_epoch VALUES (2, '0/1', 'eu-west-1', now(), 2)",
        ] {
            run(sql).await.unwrap();
        }
        for sql in ["SELECT * FROM item", "DELETE FROM write_journal", "DELETE FROM cluster_epoch"]
        {
            assert!(run(sql).await.is_err(), "{sql}");
        }
        assert_eq!(at.count("SELECT count(*) FROM cluster_epoch").await, 2);
    }
}
