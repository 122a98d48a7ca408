//! `/v1/account`: people who make an account of their own, and what who is signed in may see and change of
//! it.

use super::{
    admin::users::{changed, hash, name, one_user},
    caller::{Caller, Visitor},
    fields::Fields,
    items::one::{json_type, must_match},
    problem::{Fault, Kind, Problem},
    secrets,
    sessions::oneself,
};
use crate::{
    config::Registration,
    domain::{
        Answer, Refused,
        items::precondition::Match,
        tenants::parse_name as parse_tenant,
        users::{self, Draft, Subject},
    },
    identity::{Password, StoredHash, password::Verdict},
    storage::global::{
        credentials, tenants,
        users::{UserChange, find},
    },
    vocab::{Email, UserId},
};
use actix_web::{HttpRequest, HttpResponse, web::Bytes};

struct Wanted {
    tenant: String,
    email: Email,
    name: String,
    password: Password,
}

/// `POST /v1/account`
///
/// # Errors
/// A problem.
pub async fn register(
    visitor: Visitor,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    let settings = &visitor.app().config.identity;
    if settings.registration == Registration::Closed {
        let detail = "Here the administrators of a tenant make its accounts.";
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    json_type(&request, &["application/json"])?;
    secrets::no_query(&request)?;
    let Wanted { tenant: called, email, name, password } = parse(&body)?;
    let found = tenants::find_by_name(&visitor.app().global, &called).await;
    let tenant = visitor
        .read(found)?
        .ok_or_else(|| Problem::faults(&[Fault::new("tenant", "is the name of none")]))?;
    let about = [email.as_str(), &name, &tenant.name];
    let hash = visitor.app().passwords.hash(&password, &about, visitor.op()).await?;
    let (id, role) = (UserId::mint(visitor.op()), settings.registration_role);
    let caller = visitor.become_user(tenant.registration_scope(), id, email.folded());
    let password_hash = Some(hash.as_str());
    let draft = Draft { id, email: &email, name: &name, role, password_hash };
    caller
        .write(
            async |tx| users::register(tx, caller.scope(), &draft, caller.op()).await,
            |row| Answer { status: 201, ..changed(row) },
        )
        .await
}

/// `GET /v1/account`
///
/// # Errors
/// A problem.
pub async fn read(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let user = caller.person()?;
    one_user(&caller, &request, user).await
}

/// `PATCH /v1/account`: one's own name.
///
/// # Errors
/// A problem.
pub async fn change(
    caller: Caller,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    json_type(&request, &["application/merge-patch+json", "application/json"])?;
    let matches = must_match(request.headers())?;
    let mut fields = Fields::read(&body)?;
    let name = fields.required("name", name);
    let name = fields.end(name)?;
    let change = UserChange { name: Some(&name), ..UserChange::default() };
    let subject = Subject { matches: Some(&matches), ..oneself(&caller)? };
    caller.write(async |tx| users::change(tx, subject, &change, caller.op()).await, changed).await
}

/// `PUT /v1/account/password`. Ends one's other sessions.
///
/// # Errors
/// A problem.
pub async fn set_password(
    caller: Caller,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    json_type(&request, &["application/json"])?;
    secrets::no_query(&request)?;
    let mut fields = Fields::read(&body)?;
    fields.demand("current_password");
    fields.demand("password");
    let current = fields.secret("current_password", Password::parse);
    let wanted = fields.secret("password", Password::parse);
    let (current, wanted) = fields.end(current.zip(wanted))?;
    let (app, op, user) = (caller.app(), caller.op(), caller.person()?);
    let found = caller.read(find(&app.global, caller.scope(), user).await)?;
    let row = found.ok_or_else(Problem::not_found)?;
    let stored = credentials::hash_of(&app.global, caller.scope(), user).await?;
    let stored = stored.map(StoredHash::from_stored);
    caller.within(app.limiter.shown(user, op, &app.metrics).await)?;
    let verdict = app.passwords.verify(&current, stored.as_ref(), op).await?;
    let hash = hash(&caller, &wanted, &[&row.email, &row.name]).await?;
    // What was compared must be what is replaced: somebody may reset it at this moment.
    let seen = Match::OneOf(vec![row.etag()]);
    let subject = Subject { matches: Some(&seen), ..oneself(&caller)? };
    let kept = caller.session();
    let set = async |tx: &mut _| {
        // In here, so that a repetition of what was done is answered as that was.
        if verdict == Verdict::Wrong {
            return Err(Refused::WrongPassword.into());
        }
        users::set_password(tx, subject, hash.as_str(), kept, caller.op()).await
    };
    caller.write(set, changed).await
}

fn parse(body: &[u8]) -> Result<Wanted, Problem> {
    let mut fields = Fields::read(body)?;
    let tenant = fields.required("tenant", |text| parse_tenant(text).map(str::to_owned));
    let (email, name) = (fields.required("email", str::parse), fields.required("name", name));
    fields.demand("password");
    let password = fields.secret("password", Password::parse);
    let wanted =
        || Some(Wanted { tenant: tenant?, email: email?, name: name?, password: password? });
    let wanted = wanted();
    fields.end(wanted)
}
