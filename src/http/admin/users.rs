//! `/v1/admin/users`: a tenant's people, as its administrators see them.

use crate::{
    domain::{
        Answer,
        items::precondition::Match,
        users::{self, Draft, Right, Subject, parse_name},
    },
    http::{
        caller::Caller,
        fields::Fields,
        items::one::{conditional, json_type, may_match, must_match},
        page,
        problem::{Kind, Problem},
        query, secrets,
    },
    identity::Password,
    storage::global::{
        tenants,
        users::{UserChange, UserRow, find, find_by_email, list as list_users},
    },
    vocab::{Email, Role, UserId},
};
use actix_web::{HttpRequest, HttpResponse, web::Bytes};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A user; of their password no more than when it was set.
#[derive(Serialize)]
struct User<'a> {
    id: UserId,
    email: &'a str,
    name: &'a str,
    role: Role,
    version: i64,
    password_changed_at: Option<DateTime<Utc>>,
    suspended_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl<'a> From<&'a UserRow> for User<'a> {
    fn from(row: &'a UserRow) -> Self {
        Self {
            id: row.id,
            email: &row.email,
            name: &row.name,
            role: row.role,
            version: row.version,
            password_changed_at: row.password_changed_at,
            suspended_at: row.suspended_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// The answer to a write that leaves this user.
#[must_use]
pub(in crate::http) fn changed(row: &UserRow) -> Answer {
    Answer {
        status: 200,
        etag: Some(row.etag().to_string()),
        location: None,
        body: serde_json::to_string(&User::from(row)).ok(),
        version: Some(row.version),
    }
}

fn created(row: &UserRow) -> Answer {
    let location = Some(format!("/v1/admin/users/{}", row.id));
    Answer { status: 201, location, ..changed(row) }
}

/// 412 with who is there now.
#[must_use]
pub fn version_conflict(current: &UserRow) -> Problem {
    let value = serde_json::to_value(User::from(current)).unwrap_or_default();
    Problem::new(Kind::VersionConflict, "The user has changed; `current` is what they are now.")
        .member("current", value)
        .header("etag", current.etag().to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    limit: Option<String>,
    cursor: Option<UserId>,
    email: Option<Email>,
}

#[derive(Serialize)]
struct Page<'a> {
    items: Vec<User<'a>>,
    next_cursor: Option<UserId>,
}

/// `GET /v1/admin/users`
///
/// # Errors
/// A problem.
pub async fn list(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let parameters = query::parse::<Parameters>(request.query_string()).ok_or_else(|| {
        let detail =
            "limit is 1 to 200, cursor the next_cursor of an earlier page, email an address.";
        Problem::new(Kind::Validation, detail)
    })?;
    let limit = page::limit(parameters.limit.as_deref())?;
    let (global, scope) = (&caller.app().global, caller.scope());
    let mut rows: Vec<UserRow> = match &parameters.email {
        Some(email) => {
            let found = caller.read(find_by_email(global, scope, email).await)?;
            found.into_iter().filter(|row| parameters.cursor.is_none_or(|at| row.id > at)).collect()
        }
        None => caller.read(list_users(global, scope, parameters.cursor, limit + 1).await)?,
    };
    let limit = usize::try_from(limit).unwrap_or(0);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = if more { rows.last().map(|row| row.id) } else { None };
    let items = rows.iter().map(User::from).collect();
    Ok(HttpResponse::Ok()
        .insert_header(("cache-control", "private, no-cache"))
        .json(Page { items, next_cursor }))
}

/// `GET /v1/admin/users/{id}`
///
/// # Errors
/// A problem.
pub async fn read(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let id = id(&request)?;
    one_user(&caller, &request, id).await
}

/// A user, to who may see them.
pub(in crate::http) async fn one_user(
    caller: &Caller,
    request: &HttpRequest,
    id: UserId,
) -> Result<HttpResponse, Problem> {
    let known = conditional(request)?;
    let found = caller.read(find(&caller.app().global, caller.scope(), id).await)?;
    let row = found.ok_or_else(Problem::not_found)?;
    let etag = ("etag", row.etag().to_string());
    if known.is_some_and(|known| known.holds(row.etag())) {
        return Ok(HttpResponse::NotModified().insert_header(etag).finish());
    }
    Ok(HttpResponse::Ok()
        .insert_header(etag)
        .insert_header(("cache-control", "private, no-cache"))
        .json(User::from(&row)))
}

struct Wanted {
    email: Email,
    name: String,
    role: Role,
    password: Option<Password>,
}

/// A name as a body has it.
pub(in crate::http) fn name(text: &str) -> Result<String, crate::vocab::Malformed> {
    parse_name(text).map(str::to_owned)
}

/// `POST /v1/admin/users`
///
/// # Errors
/// A problem.
pub async fn create(
    caller: Caller,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    json_type(&request, &["application/json"])?;
    secrets::no_query(&request)?;
    let mut fields = Fields::read(&body)?;
    let (email, name) = (fields.required("email", str::parse), fields.required("name", name));
    let role = fields.optional("role", str::parse).unwrap_or(Role::Viewer);
    let password = fields.secret("password", Password::parse);
    let wanted = email.zip(name).map(|(email, name)| Wanted { email, name, role, password });
    let Wanted { email, name, role, password } = fields.end(wanted)?;
    let hash = match password {
        Some(password) => Some(hash(&caller, &password, &[email.as_str(), &name]).await?),
        None => None,
    };
    let password_hash = hash.as_ref().map(|hash| hash.as_str());
    let id = UserId::mint(caller.op());
    let draft = Draft { id, email: &email, name: &name, role, password_hash };
    let right = Right::Administrator(caller.scopes());
    caller
        .write(
            async |tx| users::create(tx, caller.scope(), right, &draft, caller.op()).await,
            created,
        )
        .await
}

/// Hashes a password that must not be made of what is known `about` its owner.
pub(in crate::http) async fn hash(
    caller: &Caller,
    password: &Password,
    about: &[&str],
) -> Result<crate::identity::StoredHash, Problem> {
    let app = caller.app();
    let tenant = caller.read(tenants::name(&app.global, caller.scope()).await)?;
    let about = [about, &[tenant.as_deref().unwrap_or_default()]].concat();
    Ok(app.passwords.hash(password, &about, caller.op()).await?)
}

/// `PATCH /v1/admin/users/{id}`: name, role and e-mail address.
///
/// # Errors
/// A problem.
pub async fn change(
    caller: Caller,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    let id = id(&request)?;
    json_type(&request, &["application/merge-patch+json", "application/json"])?;
    let matches = must_match(request.headers())?;
    let mut fields = Fields::read(&body)?;
    let email: Option<Email> = fields.optional("email", str::parse);
    let name = fields.optional("name", name);
    let role = fields.optional("role", str::parse);
    let (email, name, role) = fields.end(Some((email, name, role)))?;
    let change = UserChange { email: email.as_ref(), name: name.as_deref(), role };
    let subject = subject(&caller, id, Some(&matches));
    caller.write(async |tx| users::change(tx, subject, &change, caller.op()).await, changed).await
}

/// `PUT /v1/admin/users/{id}/password`
///
/// # Errors
/// A problem.
pub async fn set_password(
    caller: Caller,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    let id = id(&request)?;
    json_type(&request, &["application/json"])?;
    secrets::no_query(&request)?;
    let matches = may_match(request.headers())?;
    let mut fields = Fields::read(&body)?;
    fields.demand("password");
    let password = fields.secret("password", Password::parse);
    let password = fields.end(password)?;
    let found = caller.read(find(&caller.app().global, caller.scope(), id).await)?;
    let user = found.ok_or_else(Problem::not_found)?;
    let hash = hash(&caller, &password, &[&user.email, &user.name]).await?;
    let subject = subject(&caller, id, matches.as_ref());
    caller
        .write(
            async |tx| users::set_password(tx, subject, hash.as_str(), None, caller.op()).await,
            changed,
        )
        .await
}

/// `POST /v1/admin/users/{id}:suspend`
///
/// # Errors
/// A problem.
pub async fn suspend(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let id = id(&request)?;
    let matches = may_match(request.headers())?;
    let subject = subject(&caller, id, matches.as_ref());
    caller.write(async |tx| users::suspend(tx, subject, caller.op()).await, changed).await
}

/// `POST /v1/admin/users/{id}:resume`
///
/// # Errors
/// A problem.
pub async fn resume(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let id = id(&request)?;
    let matches = may_match(request.headers())?;
    let subject = subject(&caller, id, matches.as_ref());
    caller.write(async |tx| users::resume(tx, subject, caller.op()).await, changed).await
}

/// `DELETE /v1/admin/users/{id}`
///
/// # Errors
/// A problem.
pub async fn delete(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let id = id(&request)?;
    let matches = must_match(request.headers())?;
    let subject = subject(&caller, id, Some(&matches));
    let gone = |row: &UserRow| Answer {
        status: 204,
        etag: None,
        location: None,
        body: None,
        version: Some(row.version),
    };
    caller.write(async |tx| users::delete(tx, subject, caller.op()).await, gone).await
}

pub(super) fn subject<'a>(
    caller: &'a Caller,
    id: UserId,
    matches: Option<&'a Match>,
) -> Subject<'a> {
    let right = Right::Administrator(caller.scopes());
    Subject { scope: caller.scope(), id, matches, right }
}

pub(super) fn id(request: &HttpRequest) -> Result<UserId, Problem> {
    request.match_info().query("id").parse().map_err(|_| Problem::not_found())
}
