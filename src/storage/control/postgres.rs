//! Plain Postgres, by SQL as the control role, and by the agent.

use super::{
    Acting, Agent, AgentError, Beginning, ControlError, DatabaseControl, InstanceRow, SlotRow,
    StandbyRow, Upstream, any_of, slot_of,
};
use crate::{
    config::{Config, DatabaseConfig},
    storage::{StorageError, global::position},
    vocab::{Clock as _, Lsn, Region, SystemClock},
};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{future::Future, time::Duration};

/// Longest ordinary statement. Past it the instance is as good as gone.
const STATEMENT_MS_MAX: u64 = 5_000;
/// Longest promotion, all that was received replayed.
const PROMOTE_MAX: Duration = Duration::from_secs(60);
/// Longest for a session that was ended to be gone.
const END_MS_MAX: u64 = 3_000;
/// A reload reaches every session within this: what began later has read the new settings.
const RELOAD_SEEN: Duration = Duration::from_millis(100);
/// Between two looks at what is under way.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Longest for a receiver to end, or a setting to be seen.
const SETTLE_MAX: Duration = Duration::from_secs(10);

pub struct Postgres {
    /// `None` where `database.control_url` is missing.
    pool: Option<PgPool>,
    agent: Option<Agent>,
}

/// What the agent is told for a rewind or a copy.
#[derive(Serialize)]
struct Source<'a> {
    #[serde(rename = "source")]
    from: &'a str,
    primary_conninfo: &'a str,
    primary_slot_name: &'a str,
}

impl Postgres {
    /// Connects when first used. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the address in the settings is no Postgres URL.
    pub fn new(config: &Config) -> Result<Self, StorageError> {
        let url = config.database.control_url.as_ref();
        let pool = url.map(|url| pool(&config.database, url.expose_secret())).transpose()?;
        Ok(Self { pool, agent: Agent::new(&config.failover) })
    }

    fn pool(&self) -> Result<&PgPool, ControlError> {
        self.pool.as_ref().ok_or(ControlError::NotConfigured("database.control_url"))
    }

    async fn run(&self, sql: String) -> Result<(), ControlError> {
        let pool = self.pool()?;
        bounded(sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool)).await?;
        Ok(())
    }

    /// Sets parameters of the instance, each by itself: ALTER SYSTEM takes no transaction.
    async fn set(&self, settings: &[(&str, Option<&str>)]) -> Result<(), ControlError> {
        for (name, value) in settings {
            let sql = match value {
                Some(value) => format!("ALTER SYSTEM SET {name} = {}", quoted(value)),
                None => format!("ALTER SYSTEM RESET {name}"),
            };
            self.run(sql).await?;
        }
        self.run("SELECT pg_reload_conf()".to_owned()).await
    }

    async fn call(
        &self,
        verb: &'static str,
        input: &(impl Serialize + Sync),
    ) -> Result<String, ControlError> {
        let agent = self.agent.as_ref().ok_or(ControlError::NotConfigured("failover.agent"))?;
        // Sessions of an instance that stops are of no further use.
        agent.call(verb, input).await.map_err(|error| match error {
            AgentError::Refused { .. } => ControlError::Refused(error.to_string()),
            error => error.into(),
        })
    }

    async fn in_recovery(&self) -> Result<bool, ControlError> {
        let pool = self.pool()?;
        let query = sqlx::query_scalar!(r#"SELECT pg_is_in_recovery() AS "it!""#);
        Ok(bounded(query.fetch_one(pool)).await?)
    }

    async fn read(&self) -> Result<InstanceRow, ControlError> {
        let pool = self.pool()?;
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
impl Postgres {
    /// Waits until `done` says so.
    async fn settle<F>(
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

    async fn stop_receiving(&self) -> Result<(), ControlError> {
        if !self.in_recovery().await? {
            return Err(ControlError::Refused("it is a primary: it follows nobody".into()));
        }
        self.set(&[("primary_conninfo", Some(""))]).await?;
        let pool = self.pool()?;
        // One that has been started since it last received knows only what it has replayed of its own
        // log: how far that goes is known once it has come to its end, and waits for more.
        self.settle(SETTLE_MAX, "its receiver ends, and its own log is replayed", || async {
            let query = sqlx::query_scalar!(
                r#"SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)
                    AND (pg_last_wal_receive_lsn() IS NOT NULL OR EXISTS (
                        SELECT FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event IN
                            ('RecoveryWalStream', 'RecoveryRetrieveRetryInterval'))) AS "ended!""#
            );
            Ok(bounded(query.fetch_one(pool)).await?)
        })
        .await
    }

    /// A session that began a transaction before it read the new setting may still write: it is
    /// waited for, and ended when it takes too long.
    async fn end_writes(&self, grace: Duration) -> Result<Lsn, ControlError> {
        if self.in_recovery().await? {
            return Err(ControlError::Refused("it is a standby: there is nothing to fence".into()));
        }
        self.set(&[("default_transaction_read_only", Some("on"))]).await?;
        self.is_fenced(true).await?;
        let pool = self.pool()?;
        let began = SystemClock.monotonic();
        let query = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#);
        let seen_by = bounded(query.fetch_one(pool)).await? + RELOAD_SEEN;
        tokio::time::sleep(RELOAD_SEEN).await;
        loop {
            let open = sqlx::query_scalar!(
                r#"SELECT pid AS "pid!" FROM pg_stat_activity
                WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
                    AND application_name <> 'godwit control'
                    AND (backend_xid IS NOT NULL OR xact_start <= $1)"#,
                seen_by
            );
            let open = bounded(open.fetch_all(pool)).await?;
            if open.is_empty() {
                break;
            }
            if SystemClock.monotonic().saturating_duration_since(began) < grace {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            for pid in open {
                let end = sqlx::query_scalar!(
                    r#"SELECT pg_terminate_backend($1, $2) AS "gone!""#,
                    pid,
                    i64::try_from(END_MS_MAX).unwrap_or(i64::MAX)
                );
                let bound = Duration::from_millis(END_MS_MAX * 2);
                if !within(bound, end.fetch_one(pool)).await? {
                    let why = format!("session {pid} may still write and does not end");
                    return Err(ControlError::Refused(why));
                }
            }
        }
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

    async fn lift_fence(&self) -> Result<(), ControlError> {
        self.set(&[("default_transaction_read_only", None)]).await?;
        self.is_fenced(false).await
    }

    /// Waits until a session has read that the instance is fenced, or that it is not.
    async fn is_fenced(&self, wanted: bool) -> Result<(), ControlError> {
        let pool = self.pool()?;
        self.settle(SETTLE_MAX, "the fence is seen", || async {
            let query = sqlx::query_scalar!(
                r#"SELECT current_setting('default_transaction_read_only')::boolean = $1 AS "it!""#,
                wanted
            );
            Ok(bounded(query.fetch_one(pool)).await?)
        })
        .await
    }

    async fn stop_recovery(&self) -> Result<(), ControlError> {
        if !self.in_recovery().await? {
            return Ok(());
        }
        // It must not take a write before its epoch is there.
        self.set(&[("default_transaction_read_only", Some("on"))]).await?;
        // Postgres itself would look for the end only every tenth of a second, and nobody writes meanwhile.
        let promote = sqlx::query_scalar!(r#"SELECT pg_promote(false) AS "asked!""#);
        let asked = bounded(promote.fetch_one(self.pool()?)).await;
        // One that was ordered before, by a command that was killed, may have ended meanwhile.
        if !self.in_recovery().await? {
            return Ok(());
        }
        if !asked? {
            return Err(ControlError::Refused("the promotion cannot be asked for".into()));
        }
        let what = "it leaves recovery";
        self.settle(PROMOTE_MAX, what, || async { Ok(!self.in_recovery().await?) }).await
    }

    /// The epoch's row. Where it begins is where replay ended: what the promotion wrote after is of
    /// the new epoch. An instance that was the primary already goes on from where it is. (Crashed in
    /// between, it has replayed its own few records of the promotion too: less than any write is
    /// long, so that no bookmark of a lost one lies between.)
    async fn write_epoch(&self, beginning: &Beginning) -> Result<Lsn, ControlError> {
        let Beginning { epoch, region, members, .. } = beginning;
        let members: Option<Vec<String>> =
            members.as_ref().map(|all| all.iter().map(ToString::to_string).collect());
        let pool = self.pool()?;
        let mut tx = bounded(pool.begin_with("BEGIN READ WRITE")).await?;
        let insert = sqlx::query!(
            r#"INSERT INTO cluster_epoch (epoch, start_lsn, region, at, timeline, members)
            SELECT $1,
                CASE WHEN own.timeline > last.timeline
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
            members.as_deref()
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

    async fn have_slots(
        &self,
        wanted: &[(Region, Option<Lsn>)],
        dropped: &[Region],
    ) -> Result<u64, ControlError> {
        let pool = self.pool()?;
        let standby = self.in_recovery().await?;
        let slots = sqlx::query!(
            r#"SELECT slot_name::text AS "name!", active AS "active!", restart_lsn::text AS restart,
                wal_status IS NOT DISTINCT FROM 'lost' AS "lost!"
            FROM pg_replication_slots WHERE slot_type = 'physical'"#
        );
        let slots = bounded(slots.fetch_all(pool)).await?;
        let mut changed = 0;
        for (region, come_to) in wanted {
            let name = slot_of(region);
            let slot = slots.iter().find(|slot| slot.name == name);
            let Some(slot) = slot.filter(|slot| slot.active || !slot.lost) else {
                // Who is so far behind that its slot was lost is copied anew, and needs one that
                // keeps what comes then.
                if slot.is_some() {
                    self.drop_idle_slot(&name).await?;
                }
                let make = sqlx::query!(
                    r#"SELECT 1 AS "one!" FROM pg_create_physical_replication_slot($1::text::name, true)"#,
                    name
                );
                bounded(make.fetch_one(pool)).await?;
                changed += 1;
                continue;
            };
            let kept = parsed(slot.restart.as_deref())?;
            if let Some(come_to) = come_to
                && standby
                && !slot.active
                && kept.is_none_or(|kept| kept < *come_to)
            {
                let advance = sqlx::query!(
                    r#"SELECT 1 AS "one!" FROM pg_replication_slot_advance($1::text::name, $2::text::pg_lsn)"#,
                    name,
                    come_to.to_string()
                );
                bounded(advance.fetch_one(pool)).await?;
            }
        }
        for region in dropped {
            changed += self.drop_idle_slot(&slot_of(region)).await?;
        }
        Ok(changed)
    }

    /// By name and idle again: another process of this region may have been here.
    async fn drop_idle_slot(&self, name: &str) -> Result<u64, ControlError> {
        let drop = sqlx::query_scalar!(
            r#"SELECT count(pg_drop_replication_slot(slot_name)) AS "dropped!"
            FROM pg_replication_slots
            WHERE slot_name = $1 AND slot_type = 'physical' AND NOT active"#,
            name
        );
        let dropped = bounded(drop.fetch_one(self.pool()?)).await?;
        Ok(u64::try_from(dropped).unwrap_or_default())
    }

    async fn re_point(&self, upstream: &Upstream) -> Result<(), ControlError> {
        if !self.in_recovery().await? {
            return Err(ControlError::Refused("it is a primary: rejoin it".into()));
        }
        let Upstream { conninfo, slot } = upstream;
        self.set(&[("primary_slot_name", Some(slot)), ("primary_conninfo", Some(conninfo))]).await
    }

    async fn copied(&self, verb: &'static str, upstream: &Upstream) -> Result<(), ControlError> {
        let Upstream { conninfo, slot } = upstream;
        let source = Source { from: conninfo, primary_conninfo: conninfo, primary_slot_name: slot };
        self.call(verb, &source).await.map(|_| ())
    }
}

impl DatabaseControl for Postgres {
    fn look(&self) -> Acting<'_, InstanceRow> {
        Box::pin(self.read())
    }
    fn detach(&self) -> Acting<'_, ()> {
        Box::pin(self.stop_receiving())
    }
    fn fence(&self, grace: Duration) -> Acting<'_, Lsn> {
        Box::pin(self.end_writes(grace))
    }
    fn unfence(&self) -> Acting<'_, ()> {
        Box::pin(self.lift_fence())
    }
    fn promote(&self) -> Acting<'_, ()> {
        Box::pin(self.stop_recovery())
    }
    fn begin<'a>(&'a self, beginning: &'a Beginning) -> Acting<'a, Lsn> {
        Box::pin(async move {
            let wanted: Vec<_> = beginning.others.iter().map(|at| (at.clone(), None)).collect();
            self.have_slots(&wanted, &[]).await?;
            let asked: &[Region] = if beginning.quorum { &beginning.others } else { &[] };
            self.set(&[("synchronous_standby_names", Some(&any_of(asked)))]).await?;
            let start = self.write_epoch(beginning).await?;
            self.lift_fence().await?;
            Ok(start)
        })
    }
    fn follow<'a>(&'a self, upstream: &'a Upstream) -> Acting<'a, ()> {
        Box::pin(self.re_point(upstream))
    }
    fn wait_for<'a>(&'a self, regions: &'a [Region]) -> Acting<'a, ()> {
        Box::pin(
            async move { self.set(&[("synchronous_standby_names", Some(&any_of(regions)))]).await },
        )
    }
    fn keep_slots<'a>(
        &'a self,
        wanted: &'a [(Region, Option<Lsn>)],
        dropped: &'a [Region],
    ) -> Acting<'a, u64> {
        Box::pin(self.have_slots(wanted, dropped))
    }
    fn stop(&self) -> Acting<'_, ()> {
        Box::pin(async move { self.call("stop", &()).await.map(|_| ()) })
    }
    fn start(&self) -> Acting<'_, ()> {
        Box::pin(async move { self.call("start", &()).await.map(|_| ()) })
    }
    fn keep(&self) -> Acting<'_, String> {
        Box::pin(self.call("keep", &()))
    }
    fn rewind<'a>(&'a self, upstream: &'a Upstream) -> Acting<'a, ()> {
        Box::pin(self.copied("rewind", upstream))
    }
    fn rebuild<'a>(&'a self, upstream: &'a Upstream) -> Acting<'a, ()> {
        Box::pin(self.copied("rebuild", upstream))
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

async fn bounded<T>(
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

fn parsed(text: Option<&str>) -> Result<Option<Lsn>, StorageError> {
    let corrupt = StorageError::Corrupt { table: "pg_stat_replication", column: "lsn" };
    text.map(str::parse).transpose().map_err(|_| corrupt)
}

/// A string constant (PostgreSQL manual, 4.1.2.1).
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
