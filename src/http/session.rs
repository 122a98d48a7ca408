//! `/v1/session`: signing in and out, in whichever region somebody is, and the accounts that a browser is
//! signed in to.

use super::{
    app::App,
    caller::{Caller, Visitor},
    cookies,
    fields::Fields,
    items::one::json_type,
    limits::sign_in::SignIn as Tried,
    people::{self, SignIn},
    problem::{Kind, Problem},
    secrets,
};
use crate::{
    domain::tenants::parse_name as parse_tenant,
    identity::{Lookup, Password, SessionToken, sessions::principal},
    storage::global::{hot::HotReads, sessions::Live, users::find},
    vocab::{
        Email, Op, SessionId, UserId,
        guess::{Account as Guessed, Network},
    },
};
use actix_web::{HttpRequest, HttpResponse, http::header, web::Bytes};
use chrono::{DateTime, Utc};
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
    let left = cookies::tokens(request.headers()).filter(|other| *other != token.reveal());
    let cookie = cookies::keep(left, caller.app().sessions.config().lasts());
    Ok(HttpResponse::NoContent().insert_header((header::SET_COOKIE, cookie)).finish())
}

/// One of the accounts that a browser is signed in to.
#[derive(Serialize)]
struct Account {
    session: SessionId,
    /// The one that asks.
    active: bool,
    /// `None` while this region has not heard of the user.
    email: Option<String>,
    name: Option<String>,
    expires_at: DateTime<Utc>,
}

#[derive(Serialize)]
struct Accounts {
    accounts: Vec<Account>,
}

/// `GET /v1/session`
///
/// # Errors
/// A problem.
pub async fn accounts(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut accounts = Vec::new();
    for (index, (_, live)) in signed_in(&caller, &request).await?.into_iter().enumerate() {
        let scope = principal(&live, None).scope;
        let user = caller.read(find(&caller.app().global, &scope, live.user).await)?;
        let (email, name) = user.map(|row| (row.email, row.name)).unzip();
        let (session, active) = (live.id, index == 0);
        accounts.push(Account { session, active, email, name, expires_at: live.expires_at });
    }
    let no_store = (header::CACHE_CONTROL, "no-store");
    Ok(HttpResponse::Ok().insert_header(no_store).json(Accounts { accounts }))
}

/// `PUT /v1/session`: another of the browser's accounts is the one in use.
///
/// # Errors
/// `not-found` when the browser is not signed in so.
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
    let place =
        all.iter().position(|(_, live)| live.id == wanted).ok_or_else(Problem::not_found)?;
    all[..=place].rotate_right(1);
    let tokens = all.iter().map(|(token, _)| token.reveal());
    let cookie = cookies::keep(tokens, caller.app().sessions.config().lasts());
    Ok(HttpResponse::NoContent().insert_header((header::SET_COOKIE, cookie)).finish())
}

/// Who asks, then the other accounts of their browser that this region knows.
async fn signed_in(
    caller: &Caller,
    request: &HttpRequest,
) -> Result<Vec<(SessionToken, Live)>, Problem> {
    let Some(known) = caller.signed_in() else {
        return Err(Problem::new(Kind::Internal, "This route is for who is signed in."));
    };
    let (app, op) = (caller.app(), caller.op());
    let mut all = vec![(*known).clone()];
    let brought = cookies::tokens(request.headers()).filter(|token| *token != known.0.reveal());
    for token in brought.filter_map(|text| app.sessions.keys.parse(text).ok()) {
        if let Ok(Lookup::Live(live)) = app.sessions.find(&token.hash(), caller.hot(), op).await {
            all.push((token, live));
        }
    }
    Ok(all)
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
    let mut kept = Vec::new();
    let brought = cookies::tokens(request.headers());
    for token in brought.filter_map(|text| app.sessions.keys.parse(text).ok()) {
        match app.sessions.find(&token.hash(), hot, op).await {
            Ok(Lookup::Ended) => {}
            Ok(Lookup::Live(live))
                if live.user == user || kept.len() + 1 == cookies::ACCOUNTS_MAX =>
            {
                if let Err(problem) = people::end(app, request, &token, live, op).await {
                    tracing::debug!(problem = %problem, "a session that was replaced runs out by itself");
                }
            }
            // What this region does not know another may.
            Ok(_) | Err(_) => kept.push(token),
        }
    }
    kept.truncate(cookies::ACCOUNTS_MAX - 1);
    kept
}
