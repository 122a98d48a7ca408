//! The region's own Redis: sessions, rate limits and the region's note of the lease.
//!
//! Two ways in, neither of which connects before it is used: one multiplexed connection for short
//! commands on the request path, which pipelines them and reconnects by itself (look-ups of sessions
//! that come together are one command), and a pool for work that needs a connection of its own. Every
//! call ends within `redis.response_ms_max`; when Redis is down it is [`StorageError::Unavailable`],
//! and the caller falls back on what it knows itself.

pub mod lease;
pub mod limits;
pub mod sessions;

use super::{
    StorageError,
    gather::{self, Asks},
};
use crate::{config::RedisConfig, vocab::TokenHash};
use deadpool_redis::redis::{
    self, Client, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use secrecy::ExposeSecret as _;
use std::time::Duration;

/// Connections for work that needs one of its own. Such work is rare; what comes in bulk goes over
/// the multiplexed connection.
const POOL_CONNECTIONS_MAX: usize = 8;

/// Cheap to clone; all clones share the connections. Who uses the multiplexed one first, or first after it was
/// lost, has it on their runtime.
#[derive(Clone)]
pub struct Redis {
    hot: ConnectionManager,
    sessions: Asks<TokenHash, sessions::Found>,
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
    /// When the address in the settings is no Redis URL, or the authority cannot be read; never because Redis is down.
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
        let client = match &config.authority {
            None => Client::open(url),
            Some(file) => {
                let root_cert =
                    std::fs::read(file).map_err(|error| StorageError::Other(error.into()))?;
                let tls = TlsCertificates { client_tls: None, root_cert: Some(root_cert) };
                Client::build_with_tls(url, tls)
            }
        };
        let client = client.map_err(other)?;
        let reached = client.get_connection_info().clone();
        let hot = ConnectionManager::new_lazy_with_config(client, settings).map_err(other)?;
        let (sessions, asked) = gather::channel();
        spawn(sessions::find_all(hot.clone(), response_ms_max, asked));
        let pool = deadpool_redis::Manager::new(reached).map_err(other)?;
        let pool = deadpool_redis::Pool::builder(pool)
            .max_size(POOL_CONNECTIONS_MAX)
            .wait_timeout(Some(response_ms_max))
            .create_timeout(Some(response_ms_max))
            .recycle_timeout(Some(response_ms_max))
            .runtime(deadpool_redis::Runtime::Tokio1)
            .build()
            .map_err(|error| StorageError::Other(error.into()))?;
        Ok(Self { hot, sessions, pool, response_ms_max })
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

    async fn bounded<T, E: Into<StorageError>>(
        &self,
        remaining: Duration,
        command: impl Future<Output = Result<T, E>>,
    ) -> Result<T, StorageError> {
        match tokio::time::timeout(self.response_ms_max.min(remaining), command).await {
            Ok(outcome) => outcome.map_err(Into::into),
            Err(_) => Err(StorageError::unavailable("Redis took too long")),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "ends with the last who can ask, or with its answer")]
fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

#[cfg(test)]
pub(crate) mod testing {
    use super::{Redis, redis};
    use crate::{
        config::RedisConfig,
        vocab::{Op, OpKind},
    };
    use std::{process::Stdio, time::Duration};
    use tokio::process::{Child, Command};

    /// A real server of one's own, in a directory of its own; both end with this value.
    pub struct Server {
        pub port: u16,
        _dir: tempfile::TempDir,
        child: Child,
    }

    impl Server {
        pub async fn start() -> Self {
            // Somebody else may take the port between our look and the server's: then the next.
            for _ in 0..5 {
                let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let port = free.local_addr().unwrap().port();
                drop(free);
                if let Some(server) = Self::start_on(port).await {
                    return server;
                }
            }
            panic!("redis-server does not start");
        }

        pub async fn start_on(port: u16) -> Option<Self> {
            let number = port.to_string();
            Self::start_with(&["--port", &number], port, connect(port)).await
        }

        /// With what it is to be told, for who then reaches it at that port by `redis`.
        pub async fn start_with(arguments: &[&str], port: u16, redis: Redis) -> Option<Self> {
            let dir = tempfile::tempdir().unwrap();
            let mut child = Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
                .arg(dir.path())
                .args(arguments)
                .stdout(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let deadline = Op::system(OpKind::Test, Duration::from_secs(10));
            while redis.ping().await.is_err() {
                if child.try_wait().unwrap().is_some() || deadline.remaining().is_zero() {
                    return None;
                }
            }
            Some(Self { port, _dir: dir, child })
        }

        /// The names of all that it keeps.
        pub async fn keys(&self) -> Vec<String> {
            let mut connection = connect(self.port).connection().await.unwrap();
            redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap()
        }

        pub async fn stop(mut self) -> u16 {
            self.child.kill().await.unwrap();
            self.port
        }
    }

    pub fn connect(port: u16) -> Redis {
        let url = format!("redis://127.0.0.1:{port}").into();
        // Generous: what these tests are about is not how fast this machine is.
        Redis::new(&RedisConfig { url, authority: None, response_ms_max: 1_000 }).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{Server, connect},
        *,
    };
    use crate::{
        config::testing::Signed,
        vocab::{Op, OpKind},
    };

    #[tokio::test]
    async fn is_unavailable_within_its_bound_and_comes_back_by_itself() {
        let server = Server::start().await;
        let redis = connect(server.port);
        redis.ping().await.unwrap();
        let mut own = redis.connection().await.unwrap();
        redis::cmd("PING").query_async::<()>(&mut own).await.unwrap();
        let port = server.stop().await;
        let guard = Op::system(OpKind::Test, Duration::from_secs(10));
        for _ in 0..3 {
            assert!(matches!(redis.ping().await, Err(StorageError::Unavailable(_))));
            assert!(matches!(redis.connection().await, Err(StorageError::Unavailable(_))));
        }
        assert!(!guard.remaining().is_zero());
        let _server = Server::start_on(port).await.unwrap();
        while redis.ping().await.is_err() {
            assert!(!guard.remaining().is_zero(), "does not come back");
        }
        redis.connection().await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_costs_no_more_than_the_bound() {
        let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", mute.local_addr().unwrap()).into();
        let redis = Redis::new(&RedisConfig { url, authority: None, response_ms_max: 50 }).unwrap();
        let guard = Op::system(OpKind::Test, Duration::from_secs(2));
        assert!(matches!(redis.ping().await, Err(StorageError::Unavailable(_))));
        assert!(matches!(redis.connection().await, Err(StorageError::Unavailable(_))));
        assert!(!guard.remaining().is_zero());
    }

    #[tokio::test]
    async fn over_tls_only_a_server_that_its_authority_signed_is_spoken_to() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let [ours, theirs] = ["ours", "theirs"].map(|name| Signed::new(dir.path(), name));
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let over = |scheme: &str, trusting: Option<&Signed>| {
            let url = format!("{scheme}://localhost:{port}").into();
            let authority = trusting.map(|signed| signed.authority.clone());
            Redis::new(&RedisConfig { url, authority, response_ms_max: 1_000 }).unwrap()
        };
        let number = port.to_string();
        let [authority, certificate, key] =
            [&ours.authority, &ours.certificate, &ours.key].map(|file| file.to_str().unwrap());
        let arguments = [
            ["--port", "0", "--tls-port", &number].as_slice(),
            &["--tls-auth-clients", "no", "--tls-ca-cert-file", authority],
            &["--tls-cert-file", certificate, "--tls-key-file", key],
        ]
        .concat();
        let redis = over("rediss", Some(&ours));
        let _server = Server::start_with(&arguments, port, redis.clone()).await.unwrap();
        redis.ping().await.unwrap();
        let mut own = redis.connection().await.unwrap();
        redis::cmd("PING").query_async::<()>(&mut own).await.unwrap();
        for refused in [over("rediss", Some(&theirs)), over("rediss", None), over("redis", None)] {
            assert!(refused.ping().await.is_err());
            assert!(refused.connection().await.is_err());
        }
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_at_the_start() {
        let url = "http://127.0.0.1".to_owned().into();
        assert!(Redis::new(&RedisConfig { url, authority: None, response_ms_max: 50 }).is_err());
    }
}
