//! `/v1/account`: people who make an account of their own. Reading and changing it is for who is signed
//! in, and comes with that.

use super::{
    admin::users::{changed, name},
    caller::Visitor,
    fields::Fields,
    items::one::json_type,
    problem::{Fault, Kind, Problem},
    secrets,
};
use crate::{
    config::Registration,
    domain::{
        Answer,
        tenants::parse_name as parse_tenant,
        users::{self, Draft},
    },
    identity::Password,
    storage::global::tenants,
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
