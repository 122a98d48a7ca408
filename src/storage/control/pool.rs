//! What is the same whatever runs the instance: SQL, as the control role.

use super::{Beginning, ControlError, InstanceRow, SlotRow, StandbyRow};
use crate::{
    config::{Config, DatabaseConfig},
    storage::{StorageError, global::position},
    vocab::{Clock as _, Lsn, Platform, SystemClock},
};
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{future::Future, time::Duration};

/// Longest ordinary statement. Past it the instance is as good as gone.
const STATEMENT_MS_MAX: u64 = 5_000;
/// Longest for a session that was ended to be gone.
const END_MS_MAX: u64 = 3_000;
/// Between two looks at what is under way.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Longest for a receiver to end, or a setting to be seen.
pub(super) const SETTLE_MAX: Duration = Duration::from_secs(10);

/// A region's own instance, as the control role.
pub(super) struct ControlPool {
    /// `None` where `database.control_url` is missing.
    pool: Option<PgPool>,
}

/// The statements.
impl ControlPool {
    /// Connects when first used. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the address in the settings is no Postgres URL.
    pub fn new(config: &Config) -> Result<Self, StorageError> {
        let url = config.database.control_url.as_ref();
        let pool = url.map(|url| pool(&config.database, url.expose_secret())).transpose()?;
        Ok(Self { pool })
    }

    pub fn get(&self) -> Result<&PgPool, ControlError> {
        self.pool.as_ref().ok_or(ControlError::NotConfigured("database.control_url"))
    }

    pub async fn run(&self, sql: String) -> Result<(), ControlError> {
        let pool = self.get()?;
        bounded(sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool)).await?;
        Ok(())
    }

    pub async fn in_recovery(&self) -> Result<bool, ControlError> {
        let pool = self.get()?;
        let query = sqlx::query_scalar!(r#"SELECT pg_is_in_recovery() AS "it!""#);
        Ok(bounded(query.fetch_one(pool)).await?)
    }

    pub async fn read(&self) -> Result<InstanceRow, ControlError> {
        let pool = self.get()?;
        let known = position::position(pool).await?;
        let facts = sqlx::query!(
            r#"SELECT
                (SELECT system_identifier::text FROM pg_control_system()) AS "system!",
                CASE WHEN NOT pg_is_in_recovery() THEN
                    ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer
                END AS timeline,
                CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()::text END AS received,
                EXISTS (SELECT FROM pg_stat_wal_receiver) AS "receiving!",
                current_setting('primary_conninfo') AS "conninfo!",
                current_setting('synchronous_standby_names') AS "waits_for!""#
        );
        let facts = bounded(facts.fetch_one(pool)).await?;
        let standbys = sqlx::query!(
            r#"SELECT application_name AS "name!", state AS "state!", sync_state AS "acknowledges!",
                flush_lsn::text AS flushed
            FROM pg_stat_replication ORDER BY application_name, pid"#
        );
        let standbys = bounded(standbys.fetch_all(pool)).await?;
        let slots = sqlx::query!(
            r#"SELECT slot_name::text AS "name!", active AS "active!",
                restart_lsn::text AS restart, wal_status AS wal
            FROM pg_replication_slots WHERE slot_type = 'physical' ORDER BY slot_name"#
        );
        let slots = bounded(slots.fetch_all(pool)).await?;
        Ok(InstanceRow {
            platform: Platform::Postgres,
            platform_answers: None,
            in_recovery: known.in_recovery,
            system: facts.system,
            timeline: facts.timeline.and_then(|timeline| timeline.try_into().ok()),
            lsn: known.lsn,
            received: parsed(facts.received.as_deref())?,
            receiving: facts.receiving,
            conninfo: facts.conninfo,
            read_only: known.read_only,
            waits_for: facts.waits_for,
            epochs: known.history.starts().to_vec(),
            standbys: standbys
                .into_iter()
                .map(|row| {
                    let (name, state, acknowledges) = (row.name, row.state, row.acknowledges);
                    Ok(StandbyRow {
                        name,
                        state,
                        acknowledges,
                        flushed: parsed(row.flushed.as_deref())?,
                    })
                })
                .collect::<Result<_, StorageError>>()?,
            slots: slots
                .into_iter()
                .map(|row| {
                    let (name, active, wal) = (row.name, row.active, row.wal);
                    Ok(SlotRow { name, active, restart: parsed(row.restart.as_deref())?, wal })
                })
                .collect::<Result<_, StorageError>>()?,
        })
    }
}

/// What needs more than a statement or two.
impl ControlPool {
    /// Waits until `done` says so.
    pub async fn settle<F>(
        &self,
        bound: Duration,
        what: &str,
        mut done: impl FnMut() -> F,
    ) -> Result<(), ControlError>
    where
        F: Future<Output = Result<bool, ControlError>>,
    {
        let end = SystemClock.monotonic() + bound;
        while !done().await? {
            if SystemClock.monotonic() > end {
                return Err(ControlError::NotYet(format!("not within {bound:?}: {what}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// The instance's clock.
    pub async fn now(&self) -> Result<DateTime<Utc>, ControlError> {
        let query = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#);
        Ok(bounded(query.fetch_one(self.get()?)).await?)
    }

    /// Waits until no transaction is open that began before `seen_by` and could write, and ends those that
    /// take longer than `grace`. Sessions of superusers are a platform's own where there is one, and
    /// cannot be ended.
    pub async fn end_writers(
        &self,
        seen_by: DateTime<Utc>,
        grace: Duration,
        superusers_too: bool,
    ) -> Result<(), ControlError> {
        let pool = self.get()?;
        let began = SystemClock.monotonic();
        loop {
            let open = sqlx::query_scalar!(
                r#"SELECT pid AS "pid!" FROM pg_stat_activity
                WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
                    AND application_name <> 'godwit control'
                    AND (backend_xid IS NOT NULL OR xact_start <= $1)
                    AND ($2 OR NOT EXISTS (
                        SELECT FROM pg_roles WHERE pg_roles.oid = usesysid AND rolsuper))"#,
                seen_by,
                superusers_too
            );
            let open = bounded(open.fetch_all(pool)).await?;
            if open.is_empty() {
                return Ok(());
            }
            if SystemClock.monotonic().saturating_duration_since(began) < grace {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            for pid in open {
                self.end_session(pid).await?;
            }
        }
    }

    /// Ends every session with this database that began before `seen_by`: it has settings of before. Not
    /// those of control, which go by none of them, nor a platform's own, which may be copying or rewinding a replica.
    #[cfg(any(feature = "cloudnativepg", feature = "rds"))]
    pub async fn end_sessions(&self, seen_by: DateTime<Utc>) -> Result<(), ControlError> {
        let pool = self.get()?;
        // All at once: to wait for each by itself takes a tenth of a second.
        let what = "sessions that began before the setting end";
        self.settle(Duration::from_millis(END_MS_MAX), what, || async {
            let query = sqlx::query_scalar!(
                r#"SELECT count(pg_terminate_backend(pid)) AS "left!" FROM pg_stat_activity
                WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
                    AND application_name <> 'godwit control' AND datname = current_database()
                    AND backend_start <= $1
                    AND NOT EXISTS (SELECT FROM pg_roles
                        WHERE pg_roles.oid = usesysid AND (rolsuper OR rolreplication))"#,
                seen_by
            );
            Ok(bounded(query.fetch_one(pool)).await? == 0)
        })
        .await
    }

    async fn end_session(&self, pid: i32) -> Result<(), ControlError> {
        let end = sqlx::query_scalar!(
            r#"SELECT pg_terminate_backend($1, $2) OR NOT EXISTS (
                SELECT FROM pg_stat_activity WHERE pid = $1) AS "gone!""#,
            pid,
            i64::try_from(END_MS_MAX).unwrap_or(i64::MAX)
        );
        if within(Duration::from_millis(END_MS_MAX * 2), end.fetch_one(self.get()?)).await? {
            return Ok(());
        }
        let why = format!("session {pid} may still write and does not end");
        Err(ControlError::Refused(why))
    }

    /// The position after which a fenced instance has nothing.
    pub async fn final_position(&self) -> Result<Lsn, ControlError> {
        let pool = self.get()?;
        // What was flushed last may be a whole page of the log, which ends within a record of a write
        // that came to nothing. The next primary could not replay that: it would begin before a
        // position that was told, and this one would have to be rewound.
        let mut tx = bounded(pool.begin_with("BEGIN READ WRITE")).await?;
        let end = sqlx::query_scalar!(
            r#"SELECT pg_logical_emit_message(true, 'godwit', 'fenced')::text AS "at!""#
        );
        bounded(end.fetch_one(&mut *tx)).await?;
        bounded(tx.commit()).await?;
        let query = sqlx::query_scalar!(r#"SELECT pg_current_wal_flush_lsn()::text AS "lsn!""#);
        let lsn = bounded(query.fetch_one(pool)).await?;
        parsed(Some(&lsn))?.ok_or_else(|| ControlError::Refused("no position".into()))
    }

    /// The epoch's row. Where it begins is where replay ended: what the promotion wrote after is of
    /// the new epoch. An instance that was the primary already goes on from where it is. (Crashed in
    /// between, it has replayed its own few records of the promotion too: less than any write is
    /// long, so that no bookmark of a lost one lies between.) `start` is where it is known to begin by who
    /// promoted it.
    pub async fn write_epoch(
        &self,
        beginning: &Beginning,
        start: Option<Lsn>,
    ) -> Result<Lsn, ControlError> {
        let Beginning { epoch, region, members, .. } = beginning;
        let members: Option<Vec<String>> =
            members.as_ref().map(|all| all.iter().map(ToString::to_string).collect());
        let pool = self.get()?;
        let mut tx = bounded(pool.begin_with("BEGIN READ WRITE")).await?;
        let insert = sqlx::query!(
            r#"INSERT INTO cluster_epoch (epoch, start_lsn, region, at, timeline, members)
            SELECT $1,
                CASE
                    WHEN $4::text IS NOT NULL THEN $4::text::pg_lsn
                    WHEN own.timeline > last.timeline
                        THEN coalesce(pg_last_wal_replay_lsn(), pg_current_wal_flush_lsn())
                    ELSE pg_current_wal_flush_lsn()
                END,
                $2, clock_timestamp(), own.timeline, coalesce($3, last.members)
            FROM (SELECT epoch, timeline, members FROM cluster_epoch ORDER BY epoch DESC LIMIT 1) AS last,
                (SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))
                    ::bit(32)::integer AS timeline) AS own
            WHERE last.epoch < $1
            ON CONFLICT (epoch) DO NOTHING"#,
            epoch.to_stored(),
            region.as_str(),
            members.as_deref(),
            start.map(|lsn| lsn.to_string())
        );
        bounded(insert.execute(&mut *tx)).await?;
        let found = sqlx::query!(
            r#"SELECT start_lsn::text AS "start_lsn!", region,
                epoch = (SELECT max(epoch) FROM cluster_epoch) AS "newest!",
                ($2::text[] IS NULL OR members IS NOT DISTINCT FROM $2) AS "agreed!"
            FROM cluster_epoch WHERE epoch = $1"#,
            epoch.to_stored(),
            members.as_deref()
        );
        let found = bounded(found.fetch_optional(&mut *tx)).await?;
        let found =
            found.filter(|found| found.newest && found.agreed && found.region == region.as_str());
        let Some(found) = found else {
            return Err(ControlError::Refused(format!(
                "epoch {epoch} cannot begin in {region}: it, or a later one, has begun already"
            )));
        };
        bounded(tx.commit()).await?;
        parsed(Some(&found.start_lsn))?.ok_or_else(|| ControlError::Refused("no position".into()))
    }
}

fn pool(config: &DatabaseConfig, url: &str) -> Result<PgPool, StorageError> {
    let options: PgConnectOptions = url.parse()?;
    let options = options
        .application_name("godwit control")
        .options([
            ("statement_timeout", "0"),
            ("lock_timeout", "2000"),
            // The row of an epoch is written before anybody follows it.
            ("synchronous_commit", "local"),
        ])
        .disable_statement_logging();
    Ok(PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(Duration::from_millis(config.acquire_ms_max))
        .connect_lazy_with(options))
}

pub(super) async fn bounded<T>(
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StorageError> {
    within(Duration::from_millis(STATEMENT_MS_MAX), statement).await
}

async fn within<T>(
    bound: Duration,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StorageError> {
    match tokio::time::timeout(bound, statement).await {
        Ok(outcome) => outcome.map_err(StorageError::from),
        Err(_) => Err(StorageError::Timeout),
    }
}

pub(super) fn parsed(text: Option<&str>) -> Result<Option<Lsn>, StorageError> {
    let corrupt = StorageError::Corrupt { table: "pg_stat_replication", column: "lsn" };
    text.map(str::parse).transpose().map_err(|_| corrupt)
}
