//! Who asks: from a request's credential to a principal, here or with the help of other regions.

use crate::{
    http::{
        app::{App, Worker},
        cookies, headers, people,
        problem::{Kind, Problem},
        request::RequestState,
        routes::{Access, Route, Trait},
    },
    identity::{
        ApiKeySecret, Credential, Lookup, Principal, Resolved, SessionToken,
        resolve::vouched_session, sessions::principal, token,
    },
    routing::{PrimaryView, envelope::Bearer},
};
use actix_web::{dev::ServiceRequest, web::Data};
use std::{net::IpAddr, rc::Rc};

pub(super) enum Who {
    Known(Principal),
    /// Nobody has to be.
    Anyone,
    /// Well formed, but not found here: only the primary can say.
    Unresolved([u8; 32]),
}

const NO_CREDENTIAL: &str =
    "Send an API key or a session's token as `Authorization: Bearer ...`, or sign in.";

const NOT_A_PERSON: &str = "This is for who is signed in: an API key is nobody's account.";

/// Finds out who asks, whether they may ask that often, and whether this is for them.
pub(super) async fn authenticate(
    app: &App,
    route: &Route,
    state: &RequestState,
    request: &ServiceRequest,
    address: Option<IpAddr>,
) -> Result<Who, Problem> {
    let who = match presented(app, request)? {
        Some(Presented::Session(token)) => {
            Who::Known(signed_in(app, route, state, request, &token, address).await?)
        }
        // Whoever's it is: it is nobody's account.
        Some(Presented::Key(_)) if route.access == Access::Person => {
            return Err(Problem::new(Kind::Forbidden, NOT_A_PERSON));
        }
        Some(Presented::Key(key)) => key_holder(app, state, request, &key, address).await?,
        Some(Presented::Garbage) => {
            let detail = "The credential is neither an API key nor a session of ours.";
            return Err(refused(app, state, address, detail).await);
        }
        None => return Err(refused(app, state, address, NO_CREDENTIAL).await),
    };
    if let Who::Known(principal) = &who {
        let limit = match principal.credential {
            Credential::Key(id) => app.limiter.credential(id, state.op(), &app.metrics).await,
            Credential::Session { user, .. } => {
                app.limiter.person(user, state.op(), &app.metrics).await
            }
        };
        state.within(limit)?;
        permit(route.access, principal)?;
    }
    Ok(who)
}

/// What a request brings to be known by. What it says in `Authorization` it says on purpose; a cookie
/// comes along by itself.
enum Presented {
    Key(ApiKeySecret),
    Session(SessionToken),
    Garbage,
}

fn presented(app: &App, request: &ServiceRequest) -> Result<Option<Presented>, Problem> {
    let session = |text: &str| app.sessions.keys.parse(text).map(Presented::Session);
    if headers::is_authorized(request.headers()) {
        let Some(text) = headers::bearer(request.headers()) else {
            return Ok(Some(Presented::Garbage));
        };
        let found = if text.starts_with(token::PREFIX) {
            session(text)
        } else {
            ApiKeySecret::parse(text).map(Presented::Key)
        };
        return Ok(Some(found.unwrap_or(Presented::Garbage)));
    }
    let Some(text) = cookies::session(request.headers()) else {
        return Ok(None);
    };
    // Another site can have a browser send it. What changes nothing it cannot read either.
    if !request.method().is_safe() && !cookies::is_same_origin(request.headers()) {
        let detail = "A cookie alone does for a page of this site only: send Sec-Fetch-Site or Origin, \
                      as browsers do, or the session's token as `Authorization: Bearer`.";
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    Ok(Some(session(text).unwrap_or(Presented::Garbage)))
}

/// Counts a refusal against the address that it is for, which may have had too many.
async fn refused(
    app: &App,
    state: &RequestState,
    address: Option<IpAddr>,
    detail: &'static str,
) -> Problem {
    let counted = counted(app, state, address).await;
    counted.err().unwrap_or_else(|| Problem::new(Kind::Unauthorized, detail))
}

async fn counted(app: &App, state: &RequestState, address: Option<IpAddr>) -> Result<(), Problem> {
    match address {
        Some(address) => state.within(app.limiter.refused(address, state.op(), &app.metrics).await),
        None => Ok(()),
    }
}

/// Looks a session up: here, then where it began and at the primary.
async fn signed_in(
    app: &App,
    route: &Route,
    state: &RequestState,
    request: &ServiceRequest,
    token: &SessionToken,
    address: Option<IpAddr>,
) -> Result<Principal, Problem> {
    let worker = request.app_data::<Data<Worker>>().expect("server sets the worker");
    let (hash, op) = (token.hash(), state.op());
    let found = people::look_up(app, &worker.redis, &worker.hot, token, op).await?;
    // A write that is carried to the primary is judged there.
    let strict = route.is(Trait::Strict)
        || route.is_write() && matches!(app.primary(), PrimaryView::Here(_));
    let found = match found {
        Lookup::Live(live) if strict => {
            Box::pin(people::confirmed(app, &worker.hot, live, op)).await?
        }
        found => found,
    };
    let Lookup::Live(live) = found else {
        return Err(refused(app, state, address, "The session is over: sign in again.").await);
    };
    if app.sessions.renew(&hash, &live, op).await {
        Box::pin(people::tell_of_use(app, request.request(), token, &live, op)).await;
    }
    let known = principal(&live, Some(hash));
    state.facts.borrow_mut().session = Some(Rc::new((token.clone(), live)));
    Ok(known)
}

async fn key_holder(
    app: &App,
    state: &RequestState,
    request: &ServiceRequest,
    key: &ApiKeySecret,
    address: Option<IpAddr>,
) -> Result<Who, Problem> {
    let worker = request.app_data::<Data<Worker>>().expect("server sets the worker");
    match app.resolver.presented(key, &worker.hot, state.op()).await {
        Ok(Resolved::Valid(principal)) => Ok(Who::Known(principal)),
        Ok(Resolved::Ended) => {
            Err(refused(app, state, address, "The API key has expired or was revoked.").await)
        }
        // A miss on the primary is the truth; on a replica it proves nothing.
        Ok(Resolved::Absent) if matches!(app.primary(), PrimaryView::Here(_)) => {
            Err(refused(app, state, address, "The credential is not a valid API key.").await)
        }
        // Each of these costs a hop, so it counts against the address even if it is well meant.
        Ok(Resolved::Absent) => {
            counted(app, state, address).await?;
            Ok(Who::Unresolved(key.hash()))
        }
        Err(error) if matches!(app.primary(), PrimaryView::Peer(..)) => {
            // Once for every request while the database is away, which the position loop tells.
            tracing::debug!(error = %error, "credential look-up failed here, the primary is asked");
            Ok(Who::Unresolved(key.hash()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether a route is for somebody.
pub(super) fn permit(access: Access, principal: &Principal) -> Result<(), Problem> {
    let detail = match (access, principal.credential) {
        (Access::Scope(scope), _) if !principal.scopes.contains(scope) => {
            format!("The credential lacks the scope `{scope}`.")
        }
        (Access::Person, Credential::Key(_)) => NOT_A_PERSON.to_owned(),
        _ => return Ok(()),
    };
    Err(Problem::new(Kind::Forbidden, detail))
}

/// How a principal is told to the primary.
pub(super) fn bearer(principal: &Principal) -> Bearer {
    match principal.credential {
        Credential::Key(id) => Bearer::Key(id),
        Credential::Session { id, user, generation, .. } => {
            Bearer::Session { id, user, generation }
        }
    }
}

/// Who a region says that asks, as this region's database knows them.
pub(super) async fn believe(
    app: &App,
    state: &RequestState,
    request: &ServiceRequest,
    bearer: &Bearer,
) -> Result<Principal, Problem> {
    let worker = request.app_data::<Data<Worker>>().expect("server sets the worker");
    let resolved = match bearer {
        Bearer::Key(id) => app.resolver.vouched(*id, &worker.hot, state.op()).await?,
        Bearer::Session { id, user, generation } => {
            vouched_session(*id, *user, *generation, &worker.hot, state.op()).await?
        }
        Bearer::Unresolved { hash } => {
            let mut bytes = [0; 32];
            let decoded = hex::decode_to_slice(hash, &mut bytes);
            decoded.map_err(|_| {
                Problem::new(Kind::Malformed, "The credential's hash is malformed.")
            })?;
            app.resolver.hash(bytes, &worker.hot, state.op()).await?
        }
        Bearer::Anyone => Resolved::Absent,
    };
    match resolved {
        Resolved::Valid(principal) => Ok(principal),
        Resolved::Ended | Resolved::Absent => {
            Err(Problem::new(Kind::Unauthorized, "The credential is not valid, or not any more."))
        }
    }
}
