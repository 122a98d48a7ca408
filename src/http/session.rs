//! `/v1/session`: signing in and out, in whichever region somebody is.

use super::{
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
    identity::Password,
    storage::global::sessions::Live,
    vocab::{
        Email, SessionId,
        guess::{Account, Network},
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
        account: Account::of(&tenant, &email),
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
    let begun = Begun { token: token.reveal(), session: live.id, expires_at: live.expires_at };
    Ok(HttpResponse::Created()
        .insert_header((header::SET_COOKIE, cookies::begin(&token, lasts)))
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
    Ok(HttpResponse::NoContent().insert_header((header::SET_COOKIE, cookies::end())).finish())
}
