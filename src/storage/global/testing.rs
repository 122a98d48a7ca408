//! What this room's tests stand on: a migrated database with its first epoch, two tenants, and
//! pools whose sessions have the two roles' rights and no more.

use super::{Global, WriteTx, api_keys::NewKey};
use crate::{
    config::DatabaseConfig,
    storage::TenantScope,
    vocab::{ApiKeyId, Bookmark, Epoch, Op, OpKind, Scope, TenantId},
};
use sqlx::{ConnectOptions as _, PgPool};
use std::time::Duration;

pub(crate) struct Fixture {
    pub global: Global,
    /// As the superuser.
    pub pool: PgPool,
    pub config: DatabaseConfig,
    pub scope: TenantScope,
    pub other: TenantScope,
    pub op: Op,
}

/// Runs a test of another room on a database of its own, migrated. `name` tells it from any other.
pub(crate) fn on_database<F: Future<Output = ()>>(name: &'static str, test: fn(PgPool) -> F) {
    let mut args = sqlx::testing::TestArgs::new(name);
    args.migrator(&crate::storage::migrate::MIGRATOR);
    sqlx::testing::TestFn::run_test(test, args);
}

/// The settings for a test's database, sessions limited to the roles' rights.
pub(crate) fn config(pool: &PgPool) -> DatabaseConfig {
    let url = pool.connect_options().to_url_lossy();
    let with_role = |role: &str| {
        let mut url = url.clone();
        url.query_pairs_mut().append_pair("options", &format!("-crole={role}"));
        url.to_string()
    };
    let settings = serde_json::json!({
        "url": with_role("godwit_write"),
        "read_url": with_role("godwit_read"),
        "owner_url": url.to_string(),
        "write_connections_max": 3,
        "read_connections_max": 2,
    });
    serde_json::from_value(settings).unwrap()
}

pub(crate) fn op(budget: Duration) -> Op {
    Op::system(OpKind::Test, budget)
}

impl Fixture {
    pub async fn new(pool: &PgPool) -> Self {
        let epoch = "INSERT INTO cluster_epoch VALUES (1, '0/0', 'us-east-1', now())";
        sqlx::raw_sql(epoch).execute(pool).await.unwrap();
        let config = config(pool);
        let global = Global::connect(&config).unwrap();
        let op = op(Duration::from_secs(30));
        let mut scopes = Vec::new();
        for name in ["ours", "theirs"] {
            let mut tx = WriteTx::open(&global, Epoch::FIRST, &op).await.unwrap();
            let id = TenantId::mint(&op);
            super::tenants::create(&mut tx, id, name, op.now()).await.unwrap();
            tx.commit().await.unwrap();
            scopes.push(TenantScope::new(id));
        }
        let other = scopes.pop().unwrap();
        let scope = scopes.pop().unwrap();
        Self { global, pool: pool.clone(), config, scope, other, op }
    }

    pub async fn begin(&self) -> WriteTx {
        WriteTx::open(&self.global, Epoch::FIRST, &self.op).await.unwrap()
    }

    /// A whole transaction around one call.
    pub async fn write<T, E: std::fmt::Debug>(
        &self,
        work: impl AsyncFnOnce(&mut WriteTx) -> Result<T, E>,
    ) -> (T, Bookmark) {
        let mut tx = self.begin().await;
        let value = work(&mut tx).await.unwrap();
        (value, tx.commit().await.unwrap())
    }

    pub fn new_key(&self, hash: u8) -> NewKey<'static> {
        NewKey {
            id: ApiKeyId::mint(&self.op),
            name: "a key",
            prefix: "gw_test_ab",
            secret_hash: [hash; 32],
            scopes: [Scope::Read, Scope::Admin].into_iter().collect(),
            created_at: self.op.now(),
            expires_at: self.op.now() + chrono::Duration::days(90),
        }
    }

    /// Runs a statement as the superuser.
    pub async fn sql(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }

    /// A number, as the superuser.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Waits until the number is as wanted.
    pub async fn until(&self, sql: &'static str, wanted: i64) {
        let deadline = op(Duration::from_secs(10));
        loop {
            let found = self.count(sql).await;
            if found == wanted {
                return;
            }
            assert!(!deadline.remaining().is_zero(), "{sql} stays {found}, not {wanted}");
        }
    }
}
