//! The hottest reads, an item by id, a key by hash or id and a session, on one connection per worker.
//!
//! A pool lends a connection to one request at a time; here the requests of one worker share one:
//! keys in a pipeline, items that are asked for at the same time in one statement ([`gather`]). What
//! that gave is in `docs/adr/0007-gathered-reads.md`.
//!
//! The connection is made when first needed and made again when it is lost: by one caller at a time,
//! after a pause that grows to a second, during which everyone else is refused at once.

mod gather;

use super::{
    LOCK_MS_MAX, NO_EPOCH, Read,
    api_keys::{self, KeyRow},
    items::ItemRow,
    sessions::{self, Entry},
    stored_epoch,
};
use crate::{
    config::DatabaseConfig,
    storage::{StorageError, TenantScope, tls},
    vocab::{
        ApiKeyId, Bookmark, Clock as _, Collection, ItemId, Lsn, Op, Role, SessionId, SystemClock,
        TenantId, TokenHash, UserId,
    },
};
use futures_util::FutureExt as _;
use gather::{Asks, Gatherer, Which};
use secrecy::ExposeSecret as _;
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};
use tokio_postgres::{
    Client, Row, Statement,
    types::{PgLsn, Type},
};

/// One row whatever is found, because the position is asked in the same statement. To be ended with
/// what the key is found by.
const API_KEY: &str = "SELECT p.epoch, p.lsn::text, k.id, k.tenant_id, t.name, k.name, k.prefix, \
     k.scopes, k.created_at, k.expires_at, k.revoked_at \
     FROM cluster_position AS p \
     LEFT JOIN (api_key AS k JOIN tenant AS t ON t.id = k.tenant_id) ON ";

/// A session by its token's hash.
const SESSION: &str = "SELECT p.epoch, p.lsn::text, s.id, s.tenant_id, s.user_id, u.role, s.generation, \
     s.created_at, s.expires_at, s.seen_at, s.ended_at IS NOT NULL OR s.generation < u.generation \
         OR u.deleted_at IS NOT NULL OR u.suspended_at IS NOT NULL \
     FROM cluster_position AS p \
     LEFT JOIN (user_session AS s JOIN tenant_user AS u ON u.id = s.user_id) ON s.token_hash = $1";

/// A user, and their session with an id.
const VOUCHED: &str = "SELECT u.tenant_id, u.role, u.generation, \
     u.deleted_at IS NOT NULL OR u.suspended_at IS NOT NULL, s.ended_at IS NOT NULL, s.id \
     FROM (SELECT) AS one \
     LEFT JOIN tenant_user AS u ON u.id = $2 \
     LEFT JOIN user_session AS s ON s.id = $1 AND s.user_id = u.id";

/// A user as a session that another region vouches for needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vouched {
    pub tenant: TenantId,
    pub role: Role,
    pub generation: i64,
    /// Suspended or deleted.
    pub barred: bool,
    /// Whether the session has been ended; `None` while it has no row.
    pub ended: Option<bool>,
}

impl Vouched {
    /// The rows that the user may reach, once the session has been judged.
    #[must_use]
    pub const fn scope(&self) -> TenantScope {
        TenantScope::new(self.tenant)
    }
}

/// Plans are made once, for any number of asks, and never by the size of a table that was small or
/// unknown when they were made: each row is found by its index. Costs so raised would call for JIT.
const PLANS: [(&str, &str); 6] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// Between two attempts to connect: short enough to be back within a second of the database,
/// long enough not to hinder its start.
const PAUSE_MS_MIN: u64 = 20;
const PAUSE_MS_MAX: u64 = 1_000;

/// One connection; all clones share it. Make one per worker.
#[derive(Clone)]
pub struct HotReads {
    shared: Arc<Shared>,
}

struct Shared {
    config: tokio_postgres::Config,
    tls: tls::Connector,
    connect_ms_max: Duration,
    answer_ms_max: Duration,
    live: RwLock<Option<Arc<Live>>>,
    /// Held while connecting.
    retry: tokio::sync::Mutex<Retry>,
}

/// The connection and what is asked on it. Dropping the last one closes it.
struct Live {
    client: Arc<Client>,
    items: Asks,
    key_by_hash: Statement,
    key_by_id: Statement,
    session: Statement,
    vouched: Statement,
}

#[derive(Default)]
struct Retry {
    failures: u32,
    not_before: Option<Instant>,
}

impl std::fmt::Debug for HotReads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HotReads").finish_non_exhaustive()
    }
}

impl HotReads {
    /// Connects when first used, on the runtime of whoever uses it first.
    ///
    /// # Errors
    /// When the address in the settings is no Postgres URL, or names certificates that cannot be
    /// read; never because the database is down.
    pub fn new(config: &DatabaseConfig) -> Result<Self, StorageError> {
        let (mut postgres, tls) = tls::parse(config.read_url.expose_secret())?;
        let connect_ms_max = Duration::from_millis(config.acquire_ms_max);
        let theirs = postgres.get_options().unwrap_or_default();
        let statement_ms = config.statement_ms_max.to_string();
        let lock_ms = LOCK_MS_MAX.min(config.statement_ms_max).to_string();
        let bounds = [
            ("default_transaction_read_only", "on"),
            ("statement_timeout", &*statement_ms),
            ("lock_timeout", &*lock_ms),
        ];
        let ours = PLANS.iter().chain(&bounds).map(|(name, value)| format!("-c {name}={value}"));
        let settings = std::iter::once(theirs.to_owned()).chain(ours).collect::<Vec<_>>().join(" ");
        postgres.application_name("godwit").options(settings).connect_timeout(connect_ms_max);
        Ok(Self {
            shared: Arc::new(Shared {
                config: postgres,
                tls,
                connect_ms_max,
                // The server ends a statement first, if it is alive.
                answer_ms_max: Duration::from_millis(config.statement_ms_max + 250),
                live: RwLock::default(),
                retry: tokio::sync::Mutex::default(),
            }),
        })
    }

    /// An item.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] at once while the database is known to be away.
    pub async fn item(
        &self,
        scope: &TenantScope,
        collection: &Collection,
        id: ItemId,
        op: &Op,
    ) -> Result<Read<Option<ItemRow>>, StorageError> {
        let ask = |live: Arc<Live>| {
            let collection = collection.clone();
            async move { live.items.ask(Which { tenant: scope.tenant(), collection, id }).await }
        };
        let row = self.row(ask, op).await?;
        let at = position(row.try_get(1)?, row.try_get(2)?)?;
        let Some(epoch) = row.try_get(3)? else {
            return Ok(Read { value: None, at });
        };
        let item = ItemRow {
            id,
            collection: collection.clone(),
            epoch: stored_epoch("item", epoch)?,
            version: row.try_get(4)?,
            data: row.try_get(5)?,
            created_at: row.try_get(6)?,
            updated_at: row.try_get(7)?,
        };
        Ok(Read { value: Some(item), at })
    }

    /// A key by the SHA-256 of the whole key.
    ///
    /// # Errors
    /// As [`HotReads::item`].
    pub async fn api_key(
        &self,
        secret_hash: &[u8; 32],
        op: &Op,
    ) -> Result<Read<Option<KeyRow>>, StorageError> {
        let ask = |live: Arc<Live>| async move {
            let hash = secret_hash.as_slice();
            live.client.query_opt(&live.key_by_hash, &[&hash]).await?.ok_or(NO_EPOCH)
        };
        key(&self.row(ask, op).await?)
    }

    /// A key by its id.
    ///
    /// # Errors
    /// As [`HotReads::item`].
    pub async fn api_key_by_id(
        &self,
        id: ApiKeyId,
        op: &Op,
    ) -> Result<Read<Option<KeyRow>>, StorageError> {
        let ask = |live: Arc<Live>| async move {
            live.client.query_opt(&live.key_by_id, &[&id.as_uuid()]).await?.ok_or(NO_EPOCH)
        };
        key(&self.row(ask, op).await?)
    }

    /// What the directory says of a token.
    ///
    /// # Errors
    /// As [`HotReads::item`].
    pub async fn session(&self, token: &TokenHash, op: &Op) -> Result<Read<Entry>, StorageError> {
        let ask = |live: Arc<Live>| async move {
            let token = token.as_bytes().as_slice();
            live.client.query_opt(&live.session, &[&token]).await?.ok_or(NO_EPOCH)
        };
        session(&self.row(ask, op).await?)
    }

    /// A user and one of their sessions, for which a region vouches. `None`: no such user.
    ///
    /// # Errors
    /// As [`HotReads::item`].
    pub async fn vouched(
        &self,
        id: SessionId,
        user: UserId,
        op: &Op,
    ) -> Result<Option<Vouched>, StorageError> {
        let ask = |live: Arc<Live>| async move {
            let (id, user) = (id.as_uuid(), user.as_uuid());
            live.client.query_opt(&live.vouched, &[&id, &user]).await?.ok_or(NO_EPOCH)
        };
        vouched(&self.row(ask, op).await?)
    }

    /// The row that `ask` gets. Tried once more when replay cancelled it, or when the connection
    /// turned out to be dead: a read does no harm twice.
    async fn row<F>(&self, ask: impl Fn(Arc<Live>) -> F, op: &Op) -> Result<Row, StorageError>
    where
        F: Future<Output = Result<Row, StorageError>>,
    {
        match self.attempt(&ask, op).await? {
            Err(StorageError::RecoveryConflict(_) | StorageError::Unavailable(_)) => {
                self.attempt(&ask, op).await?
            }
            outcome => outcome,
        }
    }

    /// The outer error: no connection, or no answer. The inner one: what the statement came to.
    async fn attempt<F>(
        &self,
        ask: impl Fn(Arc<Live>) -> F,
        op: &Op,
    ) -> Result<Result<Row, StorageError>, StorageError>
    where
        F: Future<Output = Result<Row, StorageError>>,
    {
        let live = match self.live() {
            Some(live) => live,
            None => match tokio::time::timeout(op.remaining(), Box::pin(self.connect())).await {
                Ok(connected) => connected?,
                Err(_) => return Err(StorageError::Timeout),
            },
        };
        let bound = self.shared.answer_ms_max.min(op.remaining());
        let Ok(outcome) = tokio::time::timeout(bound, ask(Arc::clone(&live))).await else {
            if bound == self.shared.answer_ms_max {
                // It neither answered nor ended the statement: whatever is sent here waits too.
                self.forget(&live);
                return Err(StorageError::unavailable("the database hangs"));
            }
            return Err(StorageError::Timeout);
        };
        if matches!(outcome, Err(StorageError::Unavailable(_))) {
            // Dead, or told by the server that it is about to be.
            self.forget(&live);
        }
        Ok(outcome)
    }

    fn live(&self) -> Option<Arc<Live>> {
        let live = self.shared.live.read().unwrap_or_else(PoisonError::into_inner);
        live.as_ref().filter(|live| live.usable()).cloned()
    }

    fn forget(&self, hung: &Arc<Live>) {
        let mut live = self.shared.live.write().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().is_some_and(|live| Arc::ptr_eq(live, hung)) {
            *live = None;
        }
    }

    /// Single flight: whoever comes while another connects finds the result.
    async fn connect(&self) -> Result<Arc<Live>, StorageError> {
        let mut retry = self.shared.retry.lock().await;
        if let Some(live) = self.live() {
            return Ok(live);
        }
        if retry.not_before.is_some_and(|at| SystemClock.monotonic() < at) {
            return Err(StorageError::unavailable("the last attempt to connect has just failed"));
        }
        let opened = tokio::time::timeout(self.shared.connect_ms_max, self.shared.open()).await;
        match opened.unwrap_or(Err(StorageError::Timeout)) {
            Ok(live) => {
                *retry = Retry::default();
                let live = Arc::new(live);
                let mut slot = self.shared.live.write().unwrap_or_else(PoisonError::into_inner);
                *slot = Some(Arc::clone(&live));
                Ok(live)
            }
            Err(error) => {
                let pause = PAUSE_MS_MAX.min(PAUSE_MS_MIN << retry.failures.min(10));
                retry.failures += 1;
                retry.not_before = Some(SystemClock.monotonic() + Duration::from_millis(pause));
                Err(match error {
                    StorageError::Timeout => StorageError::unavailable("connecting took too long"),
                    error => error,
                })
            }
        }
    }
}

impl Shared {
    async fn open(&self) -> Result<Live, StorageError> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        // Moves the connection's bytes; the requests that wait when it ends get the error.
        drive(connection.map(drop));
        let (by_hash, by_id) =
            (format!("{API_KEY} k.secret_hash = $1"), format!("{API_KEY} k.id = $1"));
        let (items, key_by_hash, key_by_id, session, vouched) = futures_util::future::try_join5(
            client.prepare_typed(gather::ITEMS, &gather::PARAMETERS),
            client.prepare_typed(&by_hash, &[Type::BYTEA]),
            client.prepare_typed(&by_id, &[Type::UUID]),
            client.prepare_typed(SESSION, &[Type::BYTEA]),
            client.prepare_typed(VOUCHED, &[Type::UUID, Type::UUID]),
        )
        .await?;
        let client = Arc::new(client);
        let (items, gatherer) = Gatherer::new(Arc::clone(&client), items, self.answer_ms_max);
        drive(gatherer.run());
        Ok(Live { client, items, key_by_hash, key_by_id, session, vouched })
    }
}

impl Live {
    fn usable(&self) -> bool {
        !self.client.is_closed() && !self.items.is_closed()
    }
}

/// Either end of the connection: it ends by itself when the other is dropped, or with the
/// connection, and whoever waits for it is told; nothing is lost by letting go of it here.
#[expect(clippy::disallowed_methods, reason = "the connection's own halves, which end with it")]
fn drive(half: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(half);
}

fn key(row: &Row) -> Result<Read<Option<KeyRow>>, StorageError> {
    let stored = api_keys::Stored {
        at_epoch: row.try_get(0)?,
        at_lsn: row.try_get(1)?,
        id: row.try_get(2)?,
        tenant_id: row.try_get(3)?,
        tenant_name: row.try_get(4)?,
        name: row.try_get(5)?,
        prefix: row.try_get(6)?,
        scopes: row.try_get(7)?,
        created_at: row.try_get(8)?,
        expires_at: row.try_get(9)?,
        revoked_at: row.try_get(10)?,
    };
    stored.read()
}

fn session(row: &Row) -> Result<Read<Entry>, StorageError> {
    let stored = sessions::Stored {
        id: row.try_get(2)?,
        tenant_id: row.try_get(3)?,
        user_id: row.try_get(4)?,
        role: row.try_get(5)?,
        generation: row.try_get(6)?,
        created_at: row.try_get(7)?,
        expires_at: row.try_get(8)?,
        seen_at: row.try_get(9)?,
        ended: row.try_get(10)?,
    };
    let at = super::bookmark(row.try_get(0)?, row.try_get(1)?)?;
    Ok(Read { value: stored.entry()?, at })
}

fn vouched(row: &Row) -> Result<Option<Vouched>, StorageError> {
    let corrupt = |column| StorageError::Corrupt { table: "tenant_user", column };
    let Some(tenant) = row.try_get(0)? else {
        return Ok(None);
    };
    let role: Option<&str> = row.try_get(1)?;
    let role = role.and_then(|role| role.parse().ok()).ok_or(corrupt("role"))?;
    let has_row: Option<uuid::Uuid> = row.try_get(5)?;
    Ok(Some(Vouched {
        tenant: TenantId::from_stored(tenant),
        role,
        generation: row.try_get(2)?,
        barred: row.try_get(3)?,
        ended: if has_row.is_some() { Some(row.try_get(4)?) } else { None },
    }))
}

fn position(epoch: i64, lsn: PgLsn) -> Result<Bookmark, StorageError> {
    Ok(Bookmark { epoch: stored_epoch("cluster_epoch", epoch)?, lsn: Lsn::new(lsn.into()) })
}

#[cfg(test)]
mod tests;
