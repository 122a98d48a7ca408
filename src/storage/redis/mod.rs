//! The region's own Redis: rate limits now; nothing in it must survive it.
//!
//! Two ways in, neither of which connects before it is used: one multiplexed connection for short
//! look-ups on the request path, which pipelines them and reconnects by itself, and a pool for work
//! that needs a connection of its own. Every call ends within `redis.response_ms_max`; when Redis is
//! down it is [`StorageError::Unavailable`], and the caller falls back on what it knows itself.

pub mod limits;

use super::StorageError;
use crate::config::RedisConfig;
use deadpool_redis::redis::{
    self, Client,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use secrecy::ExposeSecret as _;
use std::time::Duration;

/// Connections for work that needs one of its own. Such work is rare; what comes in bulk goes over
/// the multiplexed connection.
const POOL_CONNECTIONS_MAX: usize = 8;

/// Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Redis {
    hot: ConnectionManager,
    pool: deadpool_redis::Pool,
    response_ms_max: Duration,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

impl Redis {
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the address in the settings is no Redis URL; never because Redis is down.
    pub fn new(config: &RedisConfig) -> Result<Self, StorageError> {
        let other = |error: redis::RedisError| StorageError::Other(error.into());
        let url = config.url.expose_secret();
        let response_ms_max = Duration::from_millis(config.response_ms_max);
        let settings = ConnectionManagerConfig::new()
            .set_response_timeout(Some(response_ms_max))
            .set_connection_timeout(Some(response_ms_max))
            // The next call is the retry.
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(5))
            .set_max_delay(Duration::from_millis(50));
        let client = Client::open(url).map_err(other)?;
        let hot = ConnectionManager::new_lazy_with_config(client, settings).map_err(other)?;
        let pool = deadpool_redis::Config::from_url(url)
            .builder()
            .map_err(|error| StorageError::Other(error.into()))?
            .max_size(POOL_CONNECTIONS_MAX)
            .wait_timeout(Some(response_ms_max))
            .create_timeout(Some(response_ms_max))
            .recycle_timeout(Some(response_ms_max))
            .runtime(deadpool_redis::Runtime::Tokio1)
            .build()
            .map_err(|error| StorageError::Other(error.into()))?;
        Ok(Self { hot, pool, response_ms_max })
    }

    /// For readiness.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when Redis does not answer in time.
    pub async fn ping(&self) -> Result<(), StorageError> {
        let mut connection = self.hot.clone();
        let ping = redis::cmd("PING");
        self.bounded(self.response_ms_max, ping.query_async::<()>(&mut connection)).await
    }

    /// A connection of one's own.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`] when none can be had in time.
    pub async fn connection(&self) -> Result<deadpool_redis::Connection, StorageError> {
        self.pool.get().await.map_err(StorageError::unavailable)
    }

    async fn bounded<T>(
        &self,
        remaining: Duration,
        command: impl Future<Output = redis::RedisResult<T>>,
    ) -> Result<T, StorageError> {
        match tokio::time::timeout(self.response_ms_max.min(remaining), command).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(StorageError::unavailable("Redis took too long")),
        }
    }
}
