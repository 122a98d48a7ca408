//! The table of routes: method, path, intent, scope, handler. What is not in it does not exist; a GET
//! is a HEAD too.

use super::{account, admin, items, session, sessions, writes};
use crate::{
    routing::Intent,
    telemetry::metrics::{Metrics, RouteMetrics},
    vocab::Scope,
};
use actix_web::{
    Route as Handler,
    guard::{GuardContext, fn_guard},
    http::Method,
    web,
};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Who brings a credential with this scope; it belongs to the credential's tenant.
    Scope(Scope),
    /// Who is signed in, whatever they may do: it is about themselves.
    Person,
    /// Whoever has a password to show: nobody is known, and the handler bounds how often they try.
    Anyone,
    /// Whoever wants an account: nobody is known, and each address may try so often.
    Open,
}

/// What else is to be known of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trait {
    /// Answered only once another region has it too, whatever the cluster's durability: a failover
    /// must not undo it.
    KeptElsewhere,
    /// Its body can hold a password, which the digest of the request leaves out.
    Secret,
    /// A session that was ended anywhere is refused at once: what is found here is believed only where the
    /// directory is known to be new enough.
    Strict,
}

/// One method of one path.
pub struct Route {
    pub method: Method,
    /// Template, also the route's name in metrics, logs and the API description.
    pub path: &'static str,
    pub intent: Intent,
    pub access: Access,
    traits: &'static [Trait],
    handler: fn(Handler) -> Handler,
}

impl Route {
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.intent == Intent::Write
    }

    /// Whether it is the region's own affair, wherever the primary is.
    #[must_use]
    pub fn is_regional(&self) -> bool {
        self.intent == Intent::Regional
    }

    #[must_use]
    pub fn is(&self, what: Trait) -> bool {
        self.traits.contains(&what)
    }

    /// The scope it takes; `None` where nobody has to be known.
    #[must_use]
    pub const fn scope(&self) -> Option<Scope> {
        match self.access {
            Access::Scope(scope) => Some(scope),
            Access::Open | Access::Anyone | Access::Person => None,
        }
    }

    /// Whether nobody has to be known.
    #[must_use]
    pub const fn is_for_anyone(&self) -> bool {
        matches!(self.access, Access::Open | Access::Anyone)
    }

    /// The methods it answers. HEAD must be where GET is (RFC 9110 section 9.1): the handler's
    /// answer is the same, and the server keeps its body back.
    #[must_use]
    pub fn methods(&self) -> &[Method] {
        match self.method {
            Method::GET => &[Method::GET, Method::HEAD],
            _ => std::slice::from_ref(&self.method),
        }
    }

    /// The handler behind a guard of its methods.
    #[must_use]
    pub fn handler(&'static self) -> Handler {
        let ours = |context: &GuardContext<'_>| self.methods().contains(&context.head().method);
        (self.handler)(web::route().guard(fn_guard(ours)))
    }
}

/// A path with what is kept for it while the process lives.
pub struct Mounted {
    pub path: &'static str,
    /// Told of in the log line by line. Probes ask every second, and say the same.
    pub logged: bool,
    pub metrics: RouteMetrics,
}

/// What is served beside the table, without a credential.
pub const OPEN_PATHS: [&str; 9] = [
    "/api/health/liveness",
    "/api/health/readiness",
    "/api/health/startup",
    "/health",
    "/internal/v1/topology",
    "/internal/v1/ask",
    "/metrics",
    "/loops",
    "/openapi.json",
];

macro_rules! access {
    (Open) => {
        Access::Open
    };
    (Anyone) => {
        Access::Anyone
    };
    (Person) => {
        Access::Person
    };
    ($scope:ident) => {
        Access::Scope(Scope::$scope)
    };
}

macro_rules! routes {
    ($($method:ident $path:literal $intent:ident $access:ident $handler:path
        $(, $trait:ident)*;)+) => {
        [$(Route {
            method: Method::$method,
            path: $path,
            intent: Intent::$intent,
            access: access!($access),
            traits: &[$(Trait::$trait),*],
            handler: |route| route.to($handler),
        }),+]
    };
}

/// Every route of the API. Paths of one template stand together; requests are matched against them
/// in this order, so the busiest comes first.
pub static ROUTES: [Route; 36] = routes! {
    GET    "/v1/collections/{collection}/items/{id}"      Read  Read  items::one::read;
    PUT    "/v1/collections/{collection}/items/{id}"      Write Write items::one::put;
    PATCH  "/v1/collections/{collection}/items/{id}"      Write Write items::one::patch;
    DELETE "/v1/collections/{collection}/items/{id}"      Write Write items::one::delete;
    GET    "/v1/collections"                              Read  Read  items::collections::list;
    GET    "/v1/collections/{collection}/items"           Read  Read  items::list::list;
    POST   "/v1/collections/{collection}/items"           Write Write items::one::create;
    POST   "/v1/collections/{collection}/items:batch"     Write Write items::batch::run;
    GET    "/v1/writes/{key}"                             Read  Read  writes::read;
    GET    "/v1/admin/keys"                               Read  Admin admin::keys::list, Strict;
    POST   "/v1/admin/keys"                               Write Admin admin::keys::create;
    GET    "/v1/admin/keys/{id}"                          Read  Admin admin::keys::read, Strict;
    DELETE "/v1/admin/keys/{id}"                          Write Admin admin::keys::revoke, KeptElsewhere;
    GET    "/v1/admin/users"                              Read  Admin admin::users::list, Strict;
    POST   "/v1/admin/users"                              Write Admin admin::users::create, Secret;
    POST   "/v1/admin/users/{id}:suspend"                 Write Admin admin::users::suspend, KeptElsewhere;
    POST   "/v1/admin/users/{id}:resume"                  Write Admin admin::users::resume;
    PUT    "/v1/admin/users/{id}/password"                Write Admin admin::users::set_password, Secret, KeptElsewhere;
    GET    "/v1/admin/users/{id}/sessions"                Read  Admin admin::sessions::list, Strict;
    DELETE "/v1/admin/users/{id}/sessions"                Write Admin admin::sessions::end_all, KeptElsewhere;
    DELETE "/v1/admin/users/{id}/sessions/{session}"      Write Admin admin::sessions::end, KeptElsewhere;
    GET    "/v1/admin/users/{id}"                         Read  Admin admin::users::read, Strict;
    PATCH  "/v1/admin/users/{id}"                         Write Admin admin::users::change, KeptElsewhere;
    DELETE "/v1/admin/users/{id}"                         Write Admin admin::users::delete, KeptElsewhere;
    GET    "/v1/admin/regions"                            Read  Admin admin::regions::list, Strict;
    POST   "/v1/account"                                  Write Open  account::register, Secret;
    GET    "/v1/account"                                  Read  Person account::read;
    PATCH  "/v1/account"                                  Write Person account::change;
    PUT    "/v1/account/password"                         Write Person account::set_password, Secret, KeptElsewhere;
    POST   "/v1/session"                                  Regional Anyone session::sign_in;
    GET    "/v1/session"                                  Regional Person session::accounts;
    PUT    "/v1/session"                                  Regional Person session::switch;
    DELETE "/v1/session"                                  Regional Person session::sign_out;
    GET    "/v1/sessions"                                 Read  Person sessions::list, Strict;
    POST   "/v1/sessions:end-others"                      Write Person sessions::end_others, KeptElsewhere;
    DELETE "/v1/sessions/{id}"                            Write Person sessions::end, KeptElsewhere;
};

/// Statuses that every route is counted with from zero.
const READ_STATUSES: [u16; 6] = [200, 304, 401, 404, 429, 503];
const WRITE_STATUSES: [u16; 8] = [200, 201, 204, 401, 409, 412, 429, 503];

/// The table, then the open paths, with metrics.
#[must_use]
pub fn mount(metrics: &Metrics) -> Vec<Mounted> {
    let table = ROUTES.iter().map(|route| {
        let statuses: &[u16] = match route.intent {
            Intent::Read => &READ_STATUSES,
            Intent::Write | Intent::Regional => &WRITE_STATUSES,
        };
        let method = match route.method {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            _ => "DELETE",
        };
        let metrics = metrics.route(route.path, method, statuses);
        Mounted { path: route.path, logged: true, metrics }
    });
    let open = OPEN_PATHS.iter().map(|path| Mounted {
        path,
        logged: false,
        metrics: metrics.route(path, "GET", &[200]),
    });
    table.chain(open).collect()
}

/// Where an open path stands in what [`mount`] made.
#[must_use]
pub fn open_path(path: &str) -> Option<usize> {
    OPEN_PATHS.iter().position(|open| *open == path).map(|index| ROUTES.len() + index)
}
