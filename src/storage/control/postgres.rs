//! Plain Postgres, by SQL as the control role, and by the agent.

use super::{
    Acting, Agent, AgentError, Beginning, ControlError, DatabaseControl, InstanceRow, Promotion,
    Upstream, any_of,
    pool::{ControlPool, SETTLE_MAX, bounded, parsed},
    slot_of,
};
use crate::{
    config::Config,
    storage::StorageError,
    vocab::{Lsn, Region},
};
use serde::Serialize;
use std::time::Duration;

/// Longest promotion, all that was received replayed.
const PROMOTE_MAX: Duration = Duration::from_secs(60);
/// A reload reaches every session within this: what began later has read the new settings.
const RELOAD_SEEN: Duration = Duration::from_millis(100);

pub struct Postgres {
    pool: ControlPool,
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
        Ok(Self { pool: ControlPool::new(config)?, agent: Agent::new(&config.failover) })
    }

    /// Sets parameters of the instance, each by itself: ALTER SYSTEM takes no transaction.
    async fn set(&self, settings: &[(&str, Option<&str>)]) -> Result<(), ControlError> {
        for (name, value) in settings {
            let sql = match value {
                Some(value) => format!("ALTER SYSTEM SET {name} = {}", quoted(value)),
                None => format!("ALTER SYSTEM RESET {name}"),
            };
            self.pool.run(sql).await?;
        }
        self.pool.run("SELECT pg_reload_conf()".to_owned()).await
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
}

/// What needs more than a statement or two.
impl Postgres {
    async fn stop_receiving(&self) -> Result<(), ControlError> {
        if !self.pool.in_recovery().await? {
            return Err(ControlError::Refused("it is a primary: it follows nobody".into()));
        }
        self.set(&[("primary_conninfo", Some(""))]).await?;
        let pool = self.pool.get()?;
        // One that has been started since it last received knows only what it has replayed of its own
        // log: how far that goes is known once it has come to its end, and waits for more. One that was restored
        // to a moment (`recovery_target_action = 'pause'`) waits there, and has no more than that.
        self.pool.settle(SETTLE_MAX, "its receiver ends, and its own log is replayed", || async {
            let query = sqlx::query_scalar!(
                r#"SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)
                    AND (pg_last_wal_receive_lsn() IS NOT NULL OR EXISTS (
                        SELECT FROM pg_stat_activity WHERE backend_type = 'startup' AND (wait_event IN
                            ('RecoveryWalStream', 'RecoveryRetrieveRetryInterval')
                            OR wait_event = 'RecoveryPause' AND EXISTS (
                                SELECT FROM pg_settings
                                WHERE name LIKE 'recovery\_target%' AND setting <> '' AND name NOT IN
                                    ('recovery_target_action', 'recovery_target_inclusive',
                                    'recovery_target_timeline'))))) AS "ended!""#
            );
            Ok(bounded(query.fetch_one(pool)).await?)
        })
        .await
    }

    /// A session that began a transaction before it read the new setting may still write: it is
    /// waited for, and ended when it takes too long.
    async fn end_writes(&self, grace: Duration) -> Result<Lsn, ControlError> {
        if self.pool.in_recovery().await? {
            return Err(ControlError::Refused("it is a standby: there is nothing to fence".into()));
        }
        self.set(&[("default_transaction_read_only", Some("on"))]).await?;
        self.is_fenced(true).await?;
        let seen_by = self.pool.now().await? + RELOAD_SEEN;
        tokio::time::sleep(RELOAD_SEEN).await;
        self.pool.end_writers(seen_by, grace, true).await?;
        self.pool.final_position().await
    }

    async fn lift_fence(&self) -> Result<(), ControlError> {
        self.set(&[("default_transaction_read_only", None)]).await?;
        self.is_fenced(false).await
    }

    /// Waits until a session has read that the instance is fenced, or that it is not.
    async fn is_fenced(&self, wanted: bool) -> Result<(), ControlError> {
        let pool = self.pool.get()?;
        self.pool.settle(SETTLE_MAX, "the fence is seen", || async {
            let query = sqlx::query_scalar!(
                r#"SELECT current_setting('default_transaction_read_only')::boolean = $1 AS "it!""#,
                wanted
            );
            Ok(bounded(query.fetch_one(pool)).await?)
        })
        .await
    }

    async fn stop_recovery(&self) -> Result<(), ControlError> {
        if !self.pool.in_recovery().await? {
            return Ok(());
        }
        // It must not take a write before its epoch is there.
        self.set(&[("default_transaction_read_only", Some("on"))]).await?;
        // Postgres itself would look for the end only every tenth of a second, and nobody writes meanwhile.
        let promote = sqlx::query_scalar!(r#"SELECT pg_promote(false) AS "asked!""#);
        let asked = bounded(promote.fetch_one(self.pool.get()?)).await;
        // One that was ordered before, by a command that was killed, may have ended meanwhile.
        if !self.pool.in_recovery().await? {
            return Ok(());
        }
        if !asked? {
            return Err(ControlError::Refused("the promotion cannot be asked for".into()));
        }
        let what = "it leaves recovery";
        self.pool.settle(PROMOTE_MAX, what, || async { Ok(!self.pool.in_recovery().await?) }).await
    }

    async fn have_slots(
        &self,
        wanted: &[(Region, Option<Lsn>)],
        dropped: &[Region],
    ) -> Result<u64, ControlError> {
        let pool = self.pool.get()?;
        let standby = self.pool.in_recovery().await?;
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
        let dropped = bounded(drop.fetch_one(self.pool.get()?)).await?;
        Ok(u64::try_from(dropped).unwrap_or_default())
    }

    async fn re_point(&self, upstream: &Upstream) -> Result<(), ControlError> {
        if !self.pool.in_recovery().await? {
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
        Box::pin(self.pool.read())
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
    fn hand_over<'a>(&'a self, _to: &'a Upstream) -> Acting<'a, Option<String>> {
        Box::pin(async { Ok(None) })
    }
    fn promote<'a>(&'a self, _how: &'a Promotion) -> Acting<'a, ()> {
        Box::pin(self.stop_recovery())
    }
    fn begin<'a>(&'a self, beginning: &'a Beginning) -> Acting<'a, Lsn> {
        Box::pin(async move {
            let wanted: Vec<_> = beginning.others.iter().map(|at| (at.clone(), None)).collect();
            self.have_slots(&wanted, &[]).await?;
            let asked: &[Region] = if beginning.quorum { &beginning.others } else { &[] };
            self.set(&[("synchronous_standby_names", Some(&any_of(asked)))]).await?;
            let start = self.pool.write_epoch(beginning, None).await?;
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

/// A string constant (PostgreSQL manual, 4.1.2.1).
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
