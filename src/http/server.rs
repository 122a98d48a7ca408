//! The three listeners, and what wraps what.
//!
//! Outer to inner, on every listener: 1. `observe` (operation, span, metrics, log line); 2. on the public
//! one `site`, which makes what a browser asks for a request of the API, and its answer a page; 3. the table
//! of routes, or a problem for what is not in it; 4. `gate` (limits, credential, judgment), on each route of
//! the API, and on the internal listener `while_serving` around it; 5. the handler.

use super::{
    app::{App, Worker},
    docs, gate, gauges, health, internal, observe,
    problem::{Kind, Problem},
    routes::ROUTES,
    site,
};
use crate::storage::{global::hot::HotReads, redis::Redis};
use actix_web::{
    App as Actix, FromRequest, Handler, HttpRequest, HttpResponse, HttpServer, Responder, Route,
    dev::{Server, ServerHandle},
    http::Method,
    middleware::from_fn,
    web::{self, Data, PayloadConfig, ServiceConfig},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the {listener} listener failed")]
    Failed { listener: &'static str, source: std::io::Error },
    #[error("the database address cannot be used")]
    Database(#[from] crate::storage::StorageError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listener {
    Public,
    Internal,
}

/// An actix server over one set of routes. Each worker thread makes its own pipelined connection.
macro_rules! server {
    ($app:expr, $workers:expr, $routes:expr $(, $first:path)?) => {{
        let app = Data::from(Arc::clone($app));
        let server = &$app.config.server;
        let body_bytes_max = server.body_bytes_max;
        HttpServer::new(move || {
            let hot = HotReads::new(&app.config.database);
            let hot = hot.expect("the database address was checked when the application was built");
            let redis = Redis::new(&app.config.redis);
            let redis =
                redis.expect("the Redis address was checked when the application was built");
            Actix::new()
                .app_data(app.clone())
                .app_data(Data::new(Worker { hot, redis }))
                .app_data(PayloadConfig::new(body_bytes_max))
                $(.wrap(from_fn($first)))?
                .wrap(from_fn(observe::observe))
                .configure($routes)
                .default_service(web::to(unknown))
        })
        .workers($workers)
        .client_request_timeout(Duration::from_millis(server.receive_ms_max))
        .keep_alive(Duration::from_secs(75))
        // An HTTP/2 answer is several small writes: the second must not wait for the first's ACK.
        .tcp_nodelay(true)
        .shutdown_timeout(server.drain_seconds_max)
        .disable_signals()
    }};
}

/// The listeners, bound and not yet running.
pub struct Servers {
    public: Server,
    internal: Server,
    ops: Server,
}

impl Servers {
    /// Binds all three.
    ///
    /// # Errors
    /// When an address is taken.
    pub fn bind(app: &Arc<App>) -> Result<Self, ServerError> {
        let config = &app.config.server;
        let workers = match config.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            workers => workers,
        };
        let public = server!(app, workers, public_routes, site::serve)
            .bind(config.public_addr)
            .map_err(at(config.public_addr))?;
        let inner = server!(app, workers, internal_routes)
            // A body of 1 MiB must not wait for window updates over a long link.
            .h2_initial_window_size(2 * 1024 * 1024)
            .h2_initial_connection_window_size(16 * 1024 * 1024);
        let inner = match &app.certificates.internal {
            None => inner.bind_auto_h2c(config.internal_addr),
            Some(tls) => inner.bind_rustls_0_23(config.internal_addr, tls.server()),
        };
        let ops = server!(app, 1, ops_routes).bind(config.ops_addr).map_err(at(config.ops_addr))?;
        Ok(Self {
            public: public.run(),
            internal: inner.map_err(at(config.internal_addr))?.run(),
            ops: ops.run(),
        })
    }

    /// What stops them.
    #[must_use]
    pub fn handles(&self) -> Handles {
        let Self { public, internal, ops } = self;
        Handles { public: public.handle(), internal: internal.handle(), ops: ops.handle() }
    }

    /// Answers probes and peers at once, and clients when `open` is done; until all three are stopped. A client
    /// that connects before waits; a peer is told to go to another process.
    ///
    /// # Errors
    /// Those of `open`, and when a listener fails.
    pub async fn run<E: From<ServerError>>(
        self,
        open: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let public = async {
            open.await?;
            running("public", self.public).await
        };
        let (internal, ops) = (running("internal", self.internal), running("ops", self.ops));
        tokio::try_join!(public, internal, ops).map(|_| ())
    }
}

async fn running<E: From<ServerError>>(
    listener: &'static str,
    server: impl Future<Output = std::io::Result<()>>,
) -> Result<(), E> {
    server.await.map_err(|source| E::from(ServerError::Failed { listener, source }))
}

/// What stops the listeners.
pub struct Handles {
    public: ServerHandle,
    internal: ServerHandle,
    ops: ServerHandle,
}

/// Peers ask every 250 ms, and hear then that this process ends: they go to another one. Meanwhile they find
/// somebody who tells them so, where they would else find a closed door.
const LEAVING: Duration = Duration::from_secs(1);

/// From the last answer to a peer until it is surely on its way.
const SENT: Duration = Duration::from_millis(250);

impl Handles {
    /// Ends what is served: nothing new is taken, what is under way is answered, within
    /// `server.drain_seconds_max`. Clients' connections end with their last answer. Peers keep theirs for as long
    /// as they can, so they are closed once nothing is under way on them. Probes are answered to the end.
    pub async fn drain(self, app: &App) {
        let budget = Duration::from_secs(app.config.server.drain_seconds_max);
        let answered = async {
            tokio::join!(self.public.stop(true), tokio::time::sleep(LEAVING));
            app.taken_in.close();
            app.taken_in.wait().await;
            tokio::time::sleep(SENT).await;
        };
        // Past it whoever still waits has waited in vain.
        let _ = tokio::time::timeout(budget, answered).await;
        self.internal.stop(false).await;
        self.ops.stop(true).await;
    }
}

fn at(address: SocketAddr) -> impl FnOnce(std::io::Error) -> ServerError {
    move |source| ServerError::Listen { address, source }
}

fn public_routes(config: &mut ServiceConfig) {
    api(config, Listener::Public);
    page(config, "/health", health::region);
    page(config, "/openapi.json", docs::openapi);
    page(config, "/docs", docs::entrance);
    page(config, "/docs/{file:.*}", docs::page);
    probes(config);
}

fn internal_routes(config: &mut ServiceConfig) {
    api(config, Listener::Internal);
    page(config, crate::topology::probe::PATH, internal::topology);
    config.service(
        web::resource(crate::topology::ask::PATH)
            .app_data(PayloadConfig::new(crate::topology::ask::BYTES_MAX))
            .route(web::post().to(internal::ask))
            .default_service(web::to(|| std::future::ready(wrong_method("POST")))),
    );
    probes(config);
}

fn ops_routes(config: &mut ServiceConfig) {
    page(config, "/metrics", gauges::metrics);
    page(config, "/loops", loops);
    page(config, "/api/health/startup", health::startup);
    probes(config);
}

fn probes(config: &mut ServiceConfig) {
    page(config, "/api/health/liveness", health::liveness);
    page(config, "/api/health/readiness", health::readiness);
}

/// A path beside the table: to be read, by anyone who reaches the listener.
fn page<F, Args>(config: &mut ServiceConfig, path: &str, handler: F)
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let resource = web::resource(path)
        .route(web::get().to(handler.clone()))
        .route(web::head().to(handler))
        .default_service(web::to(|| std::future::ready(wrong_method("GET, HEAD"))));
    config.service(resource);
}

/// The table, one resource a path, each method behind the listener's gate.
fn api(config: &mut ServiceConfig, listener: Listener) {
    let mut index = 0;
    while let Some(first) = ROUTES.get(index) {
        let mut resource = web::resource(first.path);
        let mut allow = Vec::new();
        while let Some(route) = ROUTES.get(index).filter(|route| route.path == first.path) {
            allow.extend(route.methods().iter().map(Method::as_str));
            resource = resource.route(gated(index, listener));
            index += 1;
        }
        let allow = allow.join(", ");
        config.service(
            resource.default_service(web::to(move || std::future::ready(wrong_method(&allow)))),
        );
    }
}

fn gated(index: usize, listener: Listener) -> Route {
    let handler = ROUTES[index].handler();
    match listener {
        Listener::Public => {
            handler.wrap(from_fn(move |request, next| gate::public(index, request, next)))
        }
        Listener::Internal => handler
            .wrap(from_fn(move |request, next| gate::internal(index, request, next)))
            .wrap(from_fn(move |request, next| internal::while_serving(index, request, next))),
    }
}

async fn loops(app: Data<App>) -> HttpResponse {
    HttpResponse::Ok().json(app.loops.statuses())
}

async fn unknown(_: HttpRequest) -> Result<HttpResponse, Problem> {
    Err(Problem::not_found())
}

fn wrong_method(allow: &str) -> Result<HttpResponse, Problem> {
    let detail = format!("This path offers {allow}.");
    Err(Problem::new(Kind::MethodNotAllowed, detail).header("allow", allow))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{InternalTls, PeerTls, RoutingConfig, testing::Signed},
        loops::{Loop as _, Tick},
        topology::{
            probe::{peer_client, peer_client_with},
            tls::{CertificateLoop, Tls},
        },
        vocab::{Op, OpKind},
    };
    use std::path::Path;

    /// What an authority signed for one region, as both ends have it.
    fn authority(dir: &Path, name: &str) -> (PeerTls, InternalTls) {
        let Signed { authority, certificate, key } = Signed::new(dir, name);
        let identity = dir.join(format!("{name}-identity.pem"));
        let both = [&certificate, &key].map(|file| std::fs::read_to_string(file).unwrap());
        std::fs::write(&identity, both.concat()).unwrap();
        let peer = PeerTls { identity, authority: authority.clone() };
        (peer, InternalTls { certificate, key, authority })
    }

    /// Renewed files, an authority's that has taken the place of another among them, are shown and believed from
    /// the next connection on, by both ends; what cannot be used changes nothing.
    #[actix_web::test]
    async fn certificates_are_replaced_while_the_listener_runs() {
        let dir = tempfile::tempdir().unwrap();
        let (before, internal) = authority(dir.path(), "before");
        let (after, renewed) = authority(dir.path(), "after");
        let (tls, peer) = (Tls::internal(&internal).unwrap(), Tls::peer(&before).unwrap());
        // The year 4096 begins.
        assert_eq!(tls.ends_at(), 67_090_118_400);
        let server = HttpServer::new(|| Actix::new().route("/", web::get().to(HttpResponse::Ok)))
            .workers(1)
            .disable_signals()
            .bind_rustls_0_23("127.0.0.1:0", tls.server())
            .unwrap();
        let url = format!("https://localhost:{}/", server.addrs()[0].port());
        let server = server.run();
        let handle = server.handle();
        let asking = async {
            let op = Op::system(OpKind::Test, Duration::from_secs(10));
            let mut loops = [&tls, &peer].map(|tls| CertificateLoop::new(Arc::clone(tls)));
            let routing = RoutingConfig::default();
            // A client of its own has a connection of its own.
            let ask = async |tls: &Arc<Tls>| {
                let client = peer_client_with(&routing, Some(tls)).unwrap();
                client.get(&url).send().await.ok().map(|answer| answer.status().as_u16())
            };
            let fresh = Tls::peer(&after).unwrap();
            assert_eq!((ask(&peer).await, ask(&fresh).await), (Some(200), None));
            assert_eq!(loops[0].tick(&op).await, Tick::Idle);

            // Half of it has come: a key that is another's.
            std::fs::copy(&renewed.key, &internal.key).unwrap();
            assert!(matches!(loops[0].tick(&op).await, Tick::Waiting(_)));
            assert_eq!(ask(&peer).await, Some(200));
            // One that has ended, in the place of one that has not.
            let ended = Signed::until(dir.path(), "ended", 2020);
            std::fs::copy(&ended.key, &internal.key).unwrap();
            std::fs::copy(&ended.certificate, &internal.certificate).unwrap();
            assert!(matches!(loops[0].tick(&op).await, Tick::Waiting(_)));
            assert_eq!(ask(&peer).await, Some(200));
            std::fs::copy(&renewed.key, &internal.key).unwrap();
            std::fs::remove_file(&internal.certificate).unwrap();
            assert!(matches!(loops[0].tick(&op).await, Tick::Waiting(_)));
            assert_eq!(ask(&peer).await, Some(200));

            std::fs::copy(&renewed.certificate, &internal.certificate).unwrap();
            std::fs::copy(&renewed.authority, &internal.authority).unwrap();
            assert_eq!(loops[0].tick(&op).await, Tick::Worked(1));
            assert_eq!(loops[0].tick(&op).await, Tick::Idle);
            assert_eq!((ask(&peer).await, ask(&fresh).await), (None, Some(200)));

            std::fs::copy(&after.identity, &before.identity).unwrap();
            std::fs::copy(&after.authority, &before.authority).unwrap();
            assert_eq!(loops[1].tick(&op).await, Tick::Worked(1));
            assert_eq!(ask(&peer).await, Some(200));
            handle.stop(false).await;
        };
        let ((), served) = tokio::join!(asking, server);
        served.unwrap();
    }

    #[actix_web::test]
    async fn a_listener_that_fails_is_named() {
        let failed = async { Err(std::io::Error::other("no more files")) };
        let error = running::<anyhow::Error>("internal", failed).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "the internal listener failed: no more files");
    }

    #[actix_web::test]
    async fn the_internal_listener_lets_in_only_who_its_authority_signed() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let (ours, internal) = authority(dir.path(), "ours");
        let (theirs, _) = authority(dir.path(), "theirs");
        let server = HttpServer::new(|| Actix::new().route("/", web::get().to(HttpResponse::Ok)))
            .workers(1)
            .disable_signals()
            .bind_rustls_0_23("127.0.0.1:0", Tls::internal(&internal).unwrap().server())
            .unwrap();
        let url = format!("https://localhost:{}/", server.addrs()[0].port());
        let server = server.run();
        let handle = server.handle();
        let asking = async {
            let routing = RoutingConfig::default();
            // Trusts our authority, but shows what another has signed.
            let stranger = PeerTls { identity: theirs.identity, authority: ours.authority.clone() };
            let mut answers = Vec::new();
            for tls in [&ours, &stranger] {
                let client = peer_client(&routing, Some(tls)).unwrap();
                answers.push(
                    client.get(&url).send().await.ok().map(|answer| answer.status().as_u16()),
                );
            }
            handle.stop(false).await;
            answers
        };
        let (answers, served) = tokio::join!(asking, server);
        served.unwrap();
        assert_eq!(answers, [Some(200), None]);
    }
}
