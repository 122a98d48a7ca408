//! From an API key to who holds it, and what any credential comes to.

use super::key::ApiKeySecret;
use crate::{
    config::IdentityConfig,
    storage::{
        StorageError, TenantScope,
        global::{
            api_keys::KeyRow,
            hot::{HotReads, Vouched},
        },
    },
    vocab::{Actor, ApiKeyId, Op, Scopes, SessionId, TokenHash, UserId},
};
use std::{sync::Arc, time::Duration};

/// By what somebody is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    Key(ApiKeyId),
    Session {
        id: SessionId,
        user: UserId,
        /// Of the user, when the session was begun.
        generation: i64,
        /// `None` where another region has looked the session up.
        token: Option<TokenHash>,
    },
}

/// Who is asking, once known.
#[derive(Debug, Clone)]
pub struct Principal {
    pub credential: Credential,
    pub actor: Actor,
    pub scope: TenantScope,
    pub scopes: Scopes,
}

/// What a look-up in the local replica says.
#[derive(Debug)]
pub enum Resolved {
    Valid(Principal),
    /// Expired or revoked. On a replica this is as good as the truth: neither is ever undone.
    Ended,
    /// Not here. On a replica that proves nothing.
    Absent,
}

/// Remembers keys that were found, for a bounded time; never that one was not.
pub struct Resolver {
    by_hash: moka::sync::Cache<[u8; 32], Arc<KeyRow>>,
    by_id: moka::sync::Cache<ApiKeyId, Arc<KeyRow>>,
}

impl Resolver {
    #[must_use]
    pub fn new(config: &IdentityConfig) -> Self {
        let life = Duration::from_millis(config.credential_cache_ms);
        Self {
            by_hash: bounded(config.credentials_cached_max, life),
            by_id: bounded(config.credentials_cached_max, life),
        }
    }

    /// Looks a presented key up.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn presented(
        &self,
        key: &ApiKeySecret,
        hot: &HotReads,
        op: &Op,
    ) -> Result<Resolved, StorageError> {
        self.hash(key.hash(), hot, op).await
    }

    /// Looks a key's hash up, for a region that could not.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn hash(
        &self,
        hash: [u8; 32],
        hot: &HotReads,
        op: &Op,
    ) -> Result<Resolved, StorageError> {
        if let Some(row) = self.by_hash.get(&hash) {
            return Ok(judge(&row, op));
        }
        let Some(row) = hot.api_key(&hash, op).await?.value else {
            return Ok(Resolved::Absent);
        };
        let row = Arc::new(row);
        self.by_hash.insert(hash, Arc::clone(&row));
        Ok(judge(&row, op))
    }

    /// Looks up a key that another region has resolved: its membership is asked for again here.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn vouched(
        &self,
        id: ApiKeyId,
        hot: &HotReads,
        op: &Op,
    ) -> Result<Resolved, StorageError> {
        if let Some(row) = self.by_id.get(&id) {
            return Ok(judge(&row, op));
        }
        let Some(row) = hot.api_key_by_id(id, op).await?.value else {
            return Ok(Resolved::Absent);
        };
        let row = Arc::new(row);
        self.by_id.insert(id, Arc::clone(&row));
        Ok(judge(&row, op))
    }
}

fn bounded<K, V>(entries_max: u64, life: Duration) -> moka::sync::Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    moka::sync::Cache::builder().max_capacity(entries_max).time_to_live(life).build()
}

/// Judges a session that another region has looked up, in this region's database, which is the primary's.
/// One without a row has begun while there was no primary: it is good if nothing has ended all sessions of
/// its user since, which is what its row will be judged by.
///
/// # Errors
/// When the database does not answer.
pub async fn vouched_session(
    id: SessionId,
    user: UserId,
    generation: i64,
    hot: &HotReads,
    op: &Op,
) -> Result<Resolved, StorageError> {
    let Some(found) = vouched_user(id, user, generation, hot, op).await? else {
        return Ok(Resolved::Ended);
    };
    Ok(Resolved::Valid(Principal {
        credential: Credential::Session { id, user, generation, token: None },
        actor: Actor::User(user),
        scope: found.scope(),
        scopes: found.role.scopes(),
    }))
}

/// The user as they are now, if that session of theirs is good; as [`vouched_session`] judges it.
///
/// # Errors
/// When the database does not answer.
pub async fn vouched_user(
    id: SessionId,
    user: UserId,
    generation: i64,
    hot: &HotReads,
    op: &Op,
) -> Result<Option<Vouched>, StorageError> {
    let found = hot.vouched(id, user, op).await?;
    Ok(found.filter(|found| !found.barred && !found.ended.unwrap_or(generation < found.generation)))
}

fn judge(row: &KeyRow, op: &Op) -> Resolved {
    if row.revoked_at.is_some() || row.expires_at <= op.now() {
        return Resolved::Ended;
    }
    Resolved::Valid(Principal {
        credential: Credential::Key(row.id),
        actor: Actor::ApiKey(row.id),
        scope: row.scope(),
        scopes: row.scopes,
    })
}
