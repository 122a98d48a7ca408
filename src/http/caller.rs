//! What a handler is given: who asks, the operation, and the ways to read and write. Never where
//! it runs.

use super::{
    app::{App, Worker},
    limits::Standing,
    problem::Problem,
    request::{Facts, RequestState, WriteFacts},
    routes::{ROUTES, Trait},
};
use crate::{
    config::Durability,
    domain::{Answer, Committed, WriteContext, WriteError, write::WorkError},
    identity::{Credential, Principal, SessionToken},
    storage::{
        Read, StorageError, TenantScope, WriteTx,
        global::{hot::HotReads, sessions::Live},
    },
    vocab::{Actor, Bookmark, IdempotencyKey, Op, Scopes, SessionId, UserId},
};
use actix_web::{
    FromRequest, HttpRequest, HttpResponse, HttpResponseBuilder, dev::Payload, http::StatusCode,
    web::Data,
};
use std::{
    cell::Ref,
    future::{Ready, ready},
    rc::Rc,
    time::Duration,
};

/// Left of a request's time when a wait for another region ends.
const LEFT_FOR_THE_ANSWER: Duration = Duration::from_millis(250);

pub struct Caller {
    asked: Asked,
    scope: TenantScope,
    actor: Actor,
    scopes: Scopes,
    credential: Option<Credential>,
    /// The name of the write in the journal, where it is not the one that was sent.
    key: Option<IdempotencyKey>,
}

/// Somebody whom nobody has to know. Becomes a caller once the handler knows for whom it works.
pub struct Visitor(Asked);

/// One request.
struct Asked {
    app: Data<App>,
    worker: Data<Worker>,
    state: Rc<RequestState>,
    method: String,
    path: String,
}

impl Asked {
    fn of(request: &HttpRequest) -> Option<Self> {
        Some(Self {
            app: request.app_data::<Data<App>>().cloned()?,
            worker: request.app_data::<Data<Worker>>().cloned()?,
            state: RequestState::find(request),
            method: request.method().as_str().to_owned(),
            path: request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// Takes the value out of a read and notes its position for the answer.
    fn read<T>(&self, read: Result<Read<T>, StorageError>) -> Result<T, Problem> {
        let Read { value, at } = read?;
        self.note(at);
        Ok(value)
    }

    fn note(&self, at: Bookmark) {
        self.app.topology.note_position(at);
        let mut facts = self.state.facts.borrow_mut();
        facts.bookmark_out = facts.bookmark_out.max(Some(at));
    }
}

impl FromRequest for Visitor {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let broken = || Problem::new(super::problem::Kind::Internal, "No application.");
        ready(Asked::of(request).map(Self).ok_or_else(broken))
    }
}

impl Visitor {
    #[must_use]
    pub fn app(&self) -> &App {
        &self.0.app
    }
    #[must_use]
    pub fn hot(&self) -> &HotReads {
        &self.0.worker.hot
    }
    #[must_use]
    pub fn op(&self) -> &Op {
        self.0.state.op()
    }

    /// Takes the value out of a read and notes its position for the answer.
    ///
    /// # Errors
    /// The read's own.
    pub fn read<T>(&self, read: Result<Read<T>, StorageError>) -> Result<T, Problem> {
        self.0.read(read)
    }

    /// Goes on if a bucket lets it.
    ///
    /// # Errors
    /// `rate-limited`.
    pub fn within(&self, standing: Standing) -> Result<(), Problem> {
        self.0.state.within(standing)
    }

    /// Goes on as a caller of the tenant. An idempotency key is theirs who is `called` so: a stranger's must
    /// not take one that the tenant's own clients use.
    #[must_use]
    pub fn become_user(self, scope: TenantScope, user: UserId, called: &str) -> Caller {
        let sent = self.0.state.facts.borrow().write.as_ref().map(|write| write.key.clone());
        Caller {
            key: sent.map(|key| key.of_a_visitor(called)),
            asked: self.0,
            scope,
            actor: Actor::User(user),
            scopes: Scopes::default(),
            credential: None,
        }
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let principal = RequestState::find(request).facts.borrow().principal.clone();
        // The gate lets nobody through without a principal.
        let (Some(principal), Some(asked)) = (principal, Asked::of(request)) else {
            return ready(Err(Problem::new(super::problem::Kind::Unauthorized, "No credential.")));
        };
        let Principal { credential, scope, actor, scopes } = (*principal).clone();
        ready(Ok(Self { asked, scope, actor, scopes, credential: Some(credential), key: None }))
    }
}

impl Caller {
    #[must_use]
    pub fn app(&self) -> &App {
        &self.asked.app
    }
    #[must_use]
    pub fn hot(&self) -> &HotReads {
        &self.asked.worker.hot
    }
    #[must_use]
    pub fn op(&self) -> &Op {
        self.asked.state.op()
    }
    #[must_use]
    pub fn scope(&self) -> &TenantScope {
        &self.scope
    }
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.actor
    }
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// The user who is signed in.
    ///
    /// # Errors
    /// `forbidden` for an API key, which no route that asks this lets in.
    pub fn person(&self) -> Result<UserId, Problem> {
        match self.actor {
            Actor::User(user) => Ok(user),
            Actor::ApiKey(_) | Actor::Operator => {
                Err(Problem::new(super::problem::Kind::Forbidden, "This is for who is signed in."))
            }
        }
    }

    /// The session that asks.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self.credential? {
            Credential::Session { id, .. } => Some(id),
            Credential::Key(_) => None,
        }
    }

    /// The session that asks, as this region has looked it up.
    #[must_use]
    pub fn signed_in(&self) -> Option<Rc<(SessionToken, Live)>> {
        self.facts().session.clone()
    }

    /// Goes on if a bucket lets it.
    ///
    /// # Errors
    /// `rate-limited`.
    pub fn within(&self, standing: Standing) -> Result<(), Problem> {
        self.asked.state.within(standing)
    }

    /// What the journal calls a write that this caller calls so.
    #[must_use]
    pub fn journal_key(&self, sent: &IdempotencyKey) -> IdempotencyKey {
        match (&self.key, self.credential) {
            (Some(key), _) => key.clone(),
            (None, Some(Credential::Session { user, .. })) => sent.of_a_person(user),
            (None, _) => sent.clone(),
        }
    }

    fn facts(&self) -> Ref<'_, Facts> {
        self.asked.state.facts.borrow()
    }

    /// Takes the value out of a read and notes its position for the answer.
    ///
    /// # Errors
    /// The read's own.
    pub fn read<T>(&self, read: Result<Read<T>, StorageError>) -> Result<T, Problem> {
        self.asked.read(read)
    }

    /// Carries out one write and answers as recorded.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write<T>(
        &self,
        work: impl AsyncFn(&mut WriteTx) -> Result<T, WorkError>,
        render: impl Fn(&T) -> Answer,
    ) -> Result<HttpResponse, Problem> {
        let Some(write) = self.facts().write.clone() else {
            // A route that writes is declared to; the gate then sets this.
            return Err(Problem::new(
                super::problem::Kind::Internal,
                "This route is declared to read.",
            ));
        };
        let committed = self.commit(&write, work, render).await?;
        self.be_kept(&write, committed.at).await?;
        self.asked.note(committed.at);
        if committed.replayed {
            self.app().metrics.idempotent_replays.inc();
        }
        Ok(answer(committed))
    }

    /// Waits until another region has the write too, where its route asks for it and the commit has
    /// not waited for that already. Nothing is undone when none has it in time: the key tells later.
    async fn be_kept(&self, write: &WriteFacts, at: Bookmark) -> Result<(), WriteError> {
        let route = self.facts().mounted.and_then(|index| ROUTES.get(index));
        let waited = self.app().config.failover.durability == Durability::Quorum;
        if waited || !route.is_some_and(|route| route.is(Trait::KeptElsewhere)) {
            return Ok(());
        }
        let deadline = self.op().deadline.checked_sub(LEFT_FOR_THE_ANSWER);
        let deadline = deadline.unwrap_or(self.op().deadline);
        if self.app().topology.wait_elsewhere(at, deadline).await {
            return Ok(());
        }
        let why = "no other region has told within the time that it has it";
        let source = StorageError::Other(why.into());
        Err(WriteError::OutcomeUnknown { key: write.key.clone(), source })
    }

    async fn commit<T>(
        &self,
        write: &WriteFacts,
        work: impl AsyncFn(&mut WriteTx) -> Result<T, WorkError>,
        render: impl Fn(&T) -> Answer,
    ) -> Result<Committed, WriteError> {
        let key = self.journal_key(&write.key);
        let context = WriteContext {
            global: &self.app().global,
            epoch: write.epoch,
            op: self.op(),
            scope: &self.scope,
            actor: self.actor,
            key: &key,
            digest: write.digest,
            method: &self.asked.method,
            path: &self.asked.path,
        };
        let written = crate::domain::write::write_once(context, work, render).await;
        written.map_err(|error| match error {
            // By the name under which it can be sent again.
            WriteError::OutcomeUnknown { source, .. } => {
                WriteError::OutcomeUnknown { key: write.key.clone(), source }
            }
            error => error,
        })
    }
}

fn answer(committed: Committed) -> HttpResponse {
    let Committed { answer, replayed, .. } = committed;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = HttpResponseBuilder::new(status);
    if let Some(etag) = answer.etag {
        response.insert_header(("etag", etag));
    }
    if let Some(location) = answer.location {
        response.insert_header(("location", location));
    }
    if replayed {
        response.insert_header(("idempotency-replayed", "true"));
    }
    match answer.body {
        Some(body) => response.content_type("application/json").body(body),
        None => response.finish(),
    }
}
