//! `/v1/admin/users/{id}/sessions`: where a tenant's people are signed in.

use super::users::{id, subject};
use crate::{
    domain::users,
    http::{
        caller::Caller,
        problem::Problem,
        sessions::{done, page_of, session_id},
    },
    storage::global::users::find,
};
use actix_web::{HttpRequest, HttpResponse};

/// `GET /v1/admin/users/{id}/sessions`
///
/// # Errors
/// A problem.
pub async fn list(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let user = id(&request)?;
    let found = caller.read(find(&caller.app().global, caller.scope(), user).await)?;
    found.ok_or_else(Problem::not_found)?;
    page_of(&caller, &request, user).await
}

/// `DELETE /v1/admin/users/{id}/sessions`
///
/// # Errors
/// A problem.
pub async fn end_all(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let subject = subject(&caller, id(&request)?, None);
    let end = async |tx: &mut _| users::end_sessions(tx, subject, None, caller.op()).await;
    caller.write(end, |_| done()).await
}

/// `DELETE /v1/admin/users/{id}/sessions/{session}`
///
/// # Errors
/// A problem.
pub async fn end(caller: Caller, request: HttpRequest) -> Result<HttpResponse, Problem> {
    let (user, session) = (id(&request)?, session_id(&request, "session")?);
    let subject = subject(&caller, user, None);
    caller
        .write(async |tx| users::end_session(tx, subject, session, caller.op()).await, |()| done())
        .await
}
