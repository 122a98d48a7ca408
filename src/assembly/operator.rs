//! What an operator does with the settings in hand, where there is no API yet to ask: the first
//! tenants and keys. It writes through the same transactions as everyone else, as the writer's
//! role, on the primary's database, and each leaves its record in the journal: what a failover loses
//! of an operator's work is in the same list as all else.

pub mod users;

use crate::{
    config::{Config, DatabaseConfig},
    domain::{
        api_keys::{self, DAYS, Draft, NAME_CHARS_MAX},
        tenants,
        write::{Refused, WorkError},
    },
    identity::{ApiKeySecret, Passwords},
    storage::{
        CommitError, Constraint, Global, Read, StorageError, TenantScope, WriteTx,
        global::{
            api_keys::{self as stored_keys, KeyRow},
            journal::{self, JournalEntry},
            position::PositionRow,
            tenants::{self as stored_tenants, TenantRow},
        },
    },
    vocab::{Actor, ApiKeyId, Epoch, IdempotencyKey, Op, Scopes},
};
use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

/// An operator at the primary's database.
pub struct Operator {
    global: Global,
    epoch: Epoch,
    op: Op,
    passwords: Passwords,
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct KeyWish<'a> {
    pub tenant: &'a str,
    pub name: &'a str,
    pub scopes: Scopes,
    pub days: u32,
    /// The part of the key that tells where it belongs: `lab`, `live`.
    pub environment: &'a str,
}

/// How often a database that is slow to answer is asked before it counts as gone. Each try is
/// bounded by a second or two.
const TRIES: u32 = 5;

/// Where the database is. Nobody asks again for an operator as the watcher does for a region.
async fn position(global: &Global) -> Result<PositionRow, StorageError> {
    for _ in 1..TRIES {
        match global.position().await {
            Err(StorageError::Unavailable(_) | StorageError::Timeout) => {}
            known => return known,
        }
    }
    global.position().await
}

/// Where the journal has the method and the answer of a request: that it was a command, and done.
const METHOD: &str = "COMMAND";
const DONE: u16 = 200;

/// Rows of a page that a listing reads at once.
const PAGE: i64 = 500;

/// All rows of a listing, which gives a page of those that come after one.
async fn every<T>(
    page: impl AsyncFn(Option<&T>) -> Result<Read<Vec<T>>, StorageError>,
) -> anyhow::Result<Vec<T>> {
    let mut all: Vec<T> = Vec::new();
    loop {
        let next = page(all.last()).await?.value;
        if next.is_empty() {
            return Ok(all);
        }
        all.extend(next);
    }
}

impl Operator {
    /// # Errors
    /// When the database does not answer, has no schema yet, or is a standby.
    pub async fn connect(config: &Config, op: Op) -> anyhow::Result<Self> {
        // A new cluster's first tenant is made before any process is there that has commits wait.
        let database = DatabaseConfig { waits: false, ..config.database.clone() };
        let global = Global::connect(&database)?;
        let position = position(&global).await.with_context(|| {
            format!("the database of {} cannot be used (has `godwit migrate` run?)", config.region)
        })?;
        let current = position.history.current().clone();
        anyhow::ensure!(
            !position.in_recovery,
            "the database of {} is a standby: use the settings of the primary, {}",
            config.region,
            current.region
        );
        let passwords = Passwords::new(&config.identity.password)?;
        Ok(Self { global, epoch: current.epoch, op, passwords })
    }

    /// Makes a tenant. `None` when there is one of that name.
    ///
    /// # Errors
    /// When the name is unfit or the database fails.
    pub async fn create_tenant(&self, name: &str) -> anyhow::Result<Option<TenantRow>> {
        let name = tenants::parse_name(name)?;
        let mut tx = WriteTx::open(&self.global, self.epoch, &self.op).await?;
        match tenants::create(&mut tx, name, &self.op).await {
            Ok(tenant) => {
                let scope = tenant.operator_scope();
                self.record(&mut tx, &scope, &format!("tenant create {name}")).await?;
                tx.commit().await?;
                Ok(Some(tenant))
            }
            Err(StorageError::Conflict(Constraint::TenantName)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// # Errors
    /// When there is none of that name, or the database fails.
    pub async fn tenant(&self, name: &str) -> anyhow::Result<TenantRow> {
        let found = stored_tenants::find_by_name(&self.global, name).await?.value;
        found.with_context(|| format!("there is no tenant `{name}`"))
    }

    /// Every tenant, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenants(&self) -> anyhow::Result<Vec<TenantRow>> {
        every(async |last: Option<&TenantRow>| {
            stored_tenants::list(&self.global, last.map(|row| row.name.as_str()), PAGE).await
        })
        .await
    }

    /// Makes a key. The secret is told this once.
    ///
    /// # Errors
    /// When the wish is unfit, there is no such tenant, or the database fails.
    pub async fn create_key(&self, wish: &KeyWish<'_>) -> anyhow::Result<(KeyRow, ApiKeySecret)> {
        anyhow::ensure!(
            DAYS.contains(&wish.days),
            "a key lives {} to {} days",
            DAYS.start(),
            DAYS.end()
        );
        let characters = wish.name.chars().count();
        anyhow::ensure!(
            (1..=NAME_CHARS_MAX).contains(&characters),
            "a key's name has 1 to {NAME_CHARS_MAX} characters"
        );
        anyhow::ensure!(!wish.scopes.is_empty(), "a key without scopes can do nothing");
        let scope = self.scope(wish.tenant).await?;
        let secret = ApiKeySecret::mint(&self.op, wish.environment)?;
        let draft = Draft {
            id: ApiKeyId::mint(&self.op),
            name: wish.name,
            prefix: &secret.prefix(),
            secret_hash: secret.hash(),
            scopes: wish.scopes,
            days: wish.days,
        };
        let mut tx = WriteTx::open(&self.global, self.epoch, &self.op).await?;
        let row = api_keys::create(&mut tx, &scope, &draft, &self.op).await.map_err(told)?;
        self.record(&mut tx, &scope, &format!("key create {}", row.id)).await?;
        tx.commit().await?;
        Ok((row, secret))
    }

    /// Every key of a tenant, in the order of their making.
    ///
    /// # Errors
    /// When there is no such tenant, or the database fails.
    pub async fn keys(&self, tenant: &str) -> anyhow::Result<Vec<KeyRow>> {
        let scope = self.scope(tenant).await?;
        every(async |last: Option<&KeyRow>| {
            stored_keys::list(&self.global, &scope, last.map(|row| row.id), PAGE).await
        })
        .await
    }

    /// Ends a key for good.
    ///
    /// # Errors
    /// When there is no such key, or the database fails.
    pub async fn revoke_key(&self, id: ApiKeyId) -> anyhow::Result<KeyRow> {
        let found = stored_keys::find_by_id(&self.global, id).await?.value;
        let scope = found.with_context(|| format!("there is no key {id}"))?.scope();
        let mut tx = WriteTx::open(&self.global, self.epoch, &self.op).await?;
        let row = api_keys::revoke(&mut tx, &scope, id, &self.op).await.map_err(told)?;
        self.record(&mut tx, &scope, &format!("key revoke {id}")).await?;
        tx.commit().await.map_err(|error| match error {
            // Running it again is harmless, and is the way to know.
            CommitError::Unknown(cause) => {
                anyhow::Error::new(cause).context("it may be revoked or not; run it again")
            }
            CommitError::RolledBack(cause) => cause.into(),
        })?;
        Ok(row)
    }

    /// Leaves the record of a command, last before its commit. Nobody sends a command again with the
    /// same key, so each has one of its own; never a secret.
    async fn record(
        &self,
        tx: &mut WriteTx,
        scope: &TenantScope,
        command: &str,
    ) -> Result<(), StorageError> {
        let key = IdempotencyKey::mint(&self.op);
        let entry = JournalEntry {
            scope,
            key: &key,
            actor: Actor::Operator,
            method: METHOD,
            path: command,
            request_digest: Sha256::digest(command).into(),
            status: DONE,
            etag: None,
            location: None,
            body: None,
            version: None,
            epoch: self.epoch,
            committed_at: self.op.now(),
        };
        journal::insert(tx, &entry).await
    }

    async fn scope(&self, tenant: &str) -> anyhow::Result<TenantScope> {
        Ok(self.tenant(tenant).await?.operator_scope())
    }
}

fn told(error: WorkError) -> anyhow::Error {
    match error {
        WorkError::Storage(error) => error.into(),
        WorkError::Refused(Refused::NotFound) => anyhow::anyhow!("there is none such any more"),
        WorkError::Refused(Refused::EmailTaken) => {
            anyhow::anyhow!("somebody of the tenant has that e-mail address")
        }
        WorkError::Refused(refused) => anyhow::anyhow!("refused: {refused:?}"),
    }
}
