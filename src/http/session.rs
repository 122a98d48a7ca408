//! `/v1/session`: signing in and out, in whichever region somebody is, and the accounts that a browser is
//! signed in to.

use super::{
    app::App,
    caller::{Caller, Visitor},
    cookies,
    fields::Fields,
    headers,
    items::one::json_type,
    limits::sign_in::SignIn as Tried,
    people::{self, SignIn},
    problem::{Kind, Problem},
    secrets,
};
use crate::{
    domain::tenants::parse_name as parse_tenant,
    identity::{Lookup, Password, SessionToken, sessions::principal},
    storage::global::{hot::HotReads, sessions::Live, tenants, users::find},
    vocab::{
        Email, Op, SessionId, UserId,
        guess::{Account as Guessed, Network},
    },
};
use actix_web::{HttpRequest, HttpResponse, http::header, web::Bytes};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use serde::Serialize;

/// What a client without cookies keeps.
#[derive(Serialize)]
struct Begun<'a> {
    token: &'a str,
    session: SessionId,
    expires_at: DateTime<Utc>,
}

/// `POST /v1/session`
///
/// # Errors
/// A problem. Whether it is the address or the password that is wrong is told to nobody.
pub async fn sign_in(
    visitor: Visitor,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    json_type(&request, &["application/json"])?;
    secrets::no_query(&request)?;
    let (app, op) = (visitor.app(), visitor.op());
    let mut fields = Fields::read(&body)?;
    let tenant = fields.required("tenant", |text| parse_tenant(text).map(str::to_owned));
    let email: Option<Email> = fields.required("email", str::parse);
    fields.demand("password");
    let password = fields.secret("password", Password::parse);
    let wanted = tenant.zip(email).zip(password);
    let ((tenant, email), password) = fields.end(wanted)?;
    let from = people::address(app, &request);
    let who = SignIn { tenant: &tenant, email: &email, from: &Network::from(from).to_string() };
    let found = people::find(app, &who, op).await?;
    let tried = Tried {
        address: from,
        account: Guessed::of(&tenant, &email),
        familiar: found.credentials.as_ref().is_some_and(|found| found.familiar),
    };
    // Before the password is looked at: a hash costs more than all of this.
    visitor.within(app.limiter.sign_in(tried, op, &app.metrics).await)?;
    let Some(user) = people::check(app, &who, found, &password, op).await? else {
        let detail = "Nobody of this tenant signs in with this address and password.";
        return Err(Problem::new(Kind::Unauthorized, detail));
    };
    app.limiter.signed_in(tried, op).await;
    if user.suspended {
        return Err(Problem::new(Kind::Forbidden, "This account is suspended."));
    }
    visitor.within(app.limiter.shown(user.user, op, &app.metrics).await)?;
    let lasts = app.sessions.config().lasts();
    let now = op.now();
    let live = Live {
        id: SessionId::mint(op),
        tenant: user.tenant,
        user: user.user,
        role: user.role,
        generation: user.generation,
        created_at: now,
        expires_at: now
            + chrono::Duration::seconds(i64::from(app.sessions.config().lasts_seconds_max)),
    };
    let token = app.sessions.keys.mint(&app.region, op);
    people::begin(app, &request, &token, live.clone(), op).await?;
    let others = others(app, visitor.hot(), &request, user.user, op).await;
    let tokens = std::iter::once(&token).chain(&others).map(SessionToken::reveal);
    let begun = Begun { token: token.reveal(), session: live.id, expires_at: live.expires_at };
    Ok(HttpResponse::Created()
        .insert_header((header::SET_COOKIE, cookies::keep(tokens, lasts)))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(begun))
}

/// `DELETE /v1/session`
///
/// # Errors
/// A problem.
pub async fn sign_out(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let Some(known) = caller.signed_in() else {
        return Err(Problem::new(Kind::Internal, "This route is for who is signed in."));
    };
    let (token, live) = &*known;
    people::end(caller.app(), &request, token, live.clone(), caller.op()).await?;
    // Another account of the browser is then the one in use.
    let left = tokens(&request).filter(|other| *other != token.reveal());
    let cookie = cookies::keep(left, caller.app().sessions.config().lasts());
    Ok(HttpResponse::NoContent().insert_header((header::SET_COOKIE, cookie)).finish())
}

/// The tokens of a browser. Who says who they are by `Authorization` is no browser.
fn tokens(request: &HttpRequest) -> impl Iterator<Item = &str> {
    let is_browser = !headers::is_authorized(request.headers());
    cookies::tokens(request.headers()).filter(move |_| is_browser)
}

/// One of the accounts that a browser is signed in to.
#[derive(Serialize)]
struct Account {
    session: SessionId,
    /// The one that asks.
    active: bool,
    /// `None`, as what follows, while this region has not heard of it.
    tenant: Option<String>,
    email: Option<String>,
    name: Option<String>,
    expires_at: DateTime<Utc>,
}

#[derive(Serialize)]
struct Accounts {
    accounts: Vec<Account>,
    /// How many more there may be, which cannot be looked up at this moment.
    unknown: usize,
}

/// `GET /v1/session`
///
/// # Errors
/// A problem.
pub async fn accounts(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (mut accounts, mut unknown) = (Vec::new(), 0);
    for (index, (_, live)) in signed_in(&caller, &request).await?.into_iter().enumerate() {
        let Some(live) = live else {
            unknown += 1;
            continue;
        };
        let (global, scope) = (&caller.app().global, principal(&live, None).scope);
        // What is read is not vouched for by a position: nobody has waited for one.
        let user = find(global, &scope, live.user).await?.value;
        let tenant = tenants::name(global, &scope).await?.value;
        let (email, name) = user.map(|row| (row.email, row.name)).unzip();
        let (session, active, expires_at) = (live.id, index == 0, live.expires_at);
        accounts.push(Account { session, active, tenant, email, name, expires_at });
    }
    let no_store = (header::CACHE_CONTROL, "no-store");
    Ok(HttpResponse::Ok().insert_header(no_store).json(Accounts { accounts, unknown }))
}

/// `PUT /v1/session`: another of the browser's accounts is the one in use.
///
/// # Errors
/// `not-found` when the browser is not signed in so; `unavailable` when that cannot be found out.
pub async fn switch(
    caller: Caller,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    json_type(&request, &["application/json"])?;
    let mut fields = Fields::read(&body)?;
    let wanted: Option<SessionId> = fields.required("session", str::parse);
    let wanted = fields.end(wanted)?;
    let mut all = signed_in(&caller, &request).await?;
    let is_wanted = |live: &Option<Live>| live.as_ref().is_some_and(|live| live.id == wanted);
    let Some(place) = all.iter().position(|(_, live)| is_wanted(live)) else {
        if all.iter().any(|(_, live)| live.is_none()) {
            let detail = "Whether the browser is signed in so cannot be found out at this moment.";
            return Err(Problem::new(Kind::Unavailable, detail));
        }
        return Err(Problem::not_found());
    };
    all[..=place].rotate_right(1);
    let tokens = all.iter().map(|(token, _)| token.reveal());
    let cookie = cookies::keep(tokens, caller.app().sessions.config().lasts());
    Ok(HttpResponse::NoContent().insert_header((header::SET_COOKIE, cookie)).finish())
}

/// Who asks, then the other accounts of their browser.
async fn signed_in(caller: &Caller, request: &HttpRequest) -> Result<Vec<Brought>, Problem> {
    let Some(known) = caller.signed_in() else {
        return Err(Problem::new(Kind::Internal, "This route is for who is signed in."));
    };
    let (token, live) = (*known).clone();
    let mut all = brought(caller.app(), caller.hot(), request, caller.op()).await;
    all.retain(|(other, _)| other.reveal() != token.reveal());
    all.insert(0, (token, Some(live)));
    Ok(all)
}

/// A token that a browser has brought, and its session; `None`: nobody can tell at this moment.
type Brought = (SessionToken, Option<Live>);

/// The accounts of a browser that are not known to be over.
async fn brought(app: &App, hot: &HotReads, request: &HttpRequest, op: &Op) -> Vec<Brought> {
    let tokens = tokens(request).filter_map(|text| app.sessions.keys.parse(text).ok());
    let look_up = async |token: SessionToken| {
        let found = people::look_up(app, &app.redis, hot, &token, op).await;
        match found {
            Ok(Lookup::Live(live)) => Some((token, Some(live))),
            Ok(Lookup::Ended | Lookup::Absent { .. }) => None,
            Err(_) => Some((token, None)),
        }
    };
    join_all(tokens.map(look_up)).await.into_iter().flatten().collect()
}

/// The other accounts that a browser goes on with beside the one that `user` has just signed in to. A
/// session of theirs that the new one takes the place of is ended, and so is that of an account too many:
/// nobody would hold its token.
async fn others(
    app: &App,
    hot: &HotReads,
    request: &HttpRequest,
    user: UserId,
    op: &Op,
) -> Vec<SessionToken> {
    let mut all = brought(app, hot, request, op).await;
    let is_theirs = |live: &Option<Live>| live.as_ref().is_some_and(|live| live.user == user);
    let mut replaced: Vec<_> = all.extract_if(.., |(_, live)| is_theirs(live)).collect();
    replaced.extend(all.drain((cookies::ACCOUNTS_MAX - 1).min(all.len())..));
    let end = async |(token, live): Brought| {
        if let Some(live) = live
            && let Err(problem) = people::end(app, request, &token, live, op).await
        {
            tracing::debug!(problem = %problem, "a session that was replaced runs out by itself");
        }
    };
    join_all(replaced.into_iter().map(end)).await;
    all.into_iter().map(|(token, _)| token).collect()
}
