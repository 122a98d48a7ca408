//! Who may see and do what: every route, as the wrong tenant, as nobody, with too small a scope.

use crate::{
    client::{Answer, Ask, Caller},
    harness::{self, AP, REGIONS, SOON, US},
};
use anyhow::{Context as _, bail, ensure};
use godwit::{
    http::routes::{Access, ROUTES, Route},
    vocab::{Op, OpKind, Scope},
};
use reqwest::Method;
use serde_json::{Value, json};

const COLLECTION: &str = "tenancy";
/// In all that the victim has, and in no answer to anyone else.
const SECRET: &str = "for-nobody-elses-eyes";

/// What a tenant has, for others to ask for.
struct Victim {
    caller: Caller,
    item: String,
    etag: String,
    write: String,
    key: String,
    user: String,
    user_etag: String,
}

/// The routes that want a credential: all but those of who has none yet. Those that are about oneself take no
/// key; [`crate::signin`] has who may do what there.
fn closed_routes() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(|route| !route.is_for_anyone())
}

impl Victim {
    async fn new(mut caller: Caller) -> anyhow::Result<Self> {
        let write = format!("{SECRET}-write");
        let path = format!("/v1/collections/{COLLECTION}/items");
        let ask = caller.ask(US, Method::POST, &path).header("idempotency-key", &write);
        let made = ask.json(&json!({"secret": SECRET})).send().await?.wants(201)?;
        let key = json!({"name": SECRET, "scopes": ["read"]});
        let ask = caller.ask(US, Method::POST, "/v1/admin/keys").json(&key);
        let key = ask.send().await?.wants(201)?.id()?;
        // Each test's victims are another tenant's, where the address is free.
        let user = json!({"email": format!("{SECRET}@example.com"), "name": SECRET});
        let ask = caller.ask(US, Method::POST, "/v1/admin/users").json(&user);
        let user = ask.send().await?.wants(201)?;
        let (item, etag, user_etag) = (made.id()?, made.etag()?, user.etag()?);
        Ok(Self { item, etag, write, key, user: user.id()?, user_etag, caller })
    }

    /// All it has, as it is shown itself.
    async fn everything(&mut self) -> anyhow::Result<Vec<Value>> {
        let item = crate::client::item(COLLECTION, &self.item);
        let key = format!("/v1/admin/keys/{}", self.key);
        let user = format!("/v1/admin/users/{}", self.user);
        let list = format!("/v1/collections/{COLLECTION}/items");
        let lists = ["/v1/collections", "/v1/admin/keys", "/v1/admin/users"];
        let mut all = Vec::new();
        for path in [&*item, &key, &user, &list].into_iter().chain(lists) {
            let ask = self.caller.ask(US, Method::GET, path);
            all.push(ask.header("godwit-consistency", "strong").send().await?.wants(200)?.json());
        }
        Ok(all)
    }
}

fn op() -> Op {
    Op::system(OpKind::Test, SOON)
}

/// The route's path with the victim's names in it.
fn path_of(route: &Route, victim: &Victim) -> anyhow::Result<String> {
    let id = match route.path {
        path if path.starts_with("/v1/admin/keys/") => &victim.key,
        path if path.starts_with("/v1/admin/users/") => &victim.user,
        _ => &victim.item,
    };
    let path = route.path.replace("{collection}", COLLECTION);
    let path = path.replace("{key}", &victim.write).replace("{id}", id);
    let path = path.replace("{session}", "0199d2c4-7a00-7000-8000-00000000b0b0");
    ensure!(!path.contains('{'), "{}: a parameter that this test does not know", route.path);
    Ok(path)
}

/// A request of this route that would do something. A route without one fails the tests.
fn request<'a>(
    caller: &'a mut Caller,
    region: &str,
    route: &Route,
    victim: &Victim,
) -> anyhow::Result<Ask<'a>> {
    let ask = caller.ask(region, route.method.as_str().parse()?, &path_of(route, victim)?);
    let matching = |ask: Ask<'a>| ask.header("if-match", &victim.etag);
    let matching_user = |ask: Ask<'a>| ask.header("if-match", &victim.user_etag);
    let password = json!({"password": "nobody-elses-kettle-5"});
    Ok(match (route.method.as_str(), route.path) {
        ("GET", _)
        | (
            "DELETE",
            "/v1/admin/keys/{id}"
            | "/v1/admin/users/{id}/sessions"
            | "/v1/admin/users/{id}/sessions/{session}"
            | "/v1/session"
            | "/v1/sessions/{id}",
        )
        | (
            "POST",
            "/v1/sessions:end-others"
            | "/v1/admin/users/{id}:suspend"
            | "/v1/admin/users/{id}:resume",
        ) => ask,
        ("POST", "/v1/collections/{collection}/items") => ask.json(&json!({"mine": true})),
        ("POST", "/v1/collections/{collection}/items:batch") => {
            let change = json!({"op": "patch", "id": victim.item, "data": {"secret": "gone"},
                "if_match": victim.etag});
            ask.json(&json!({"operations": [change]}))
        }
        ("PUT" | "PATCH", "/v1/collections/{collection}/items/{id}") => {
            matching(ask).json(&json!({"secret": "gone"}))
        }
        ("DELETE", "/v1/collections/{collection}/items/{id}") => matching(ask),
        ("POST", "/v1/admin/keys") => ask.json(&json!({"name": "mine", "scopes": ["read"]})),
        ("POST", "/v1/admin/users") => {
            let email = format!("{}@example.com", op().id);
            ask.json(&json!({"email": email, "name": "mine"}))
        }
        ("PATCH", "/v1/admin/users/{id}" | "/v1/account") => {
            matching_user(ask).json(&json!({"name": "gone"}))
        }
        ("DELETE", "/v1/admin/users/{id}") => matching_user(ask),
        ("PUT", "/v1/admin/users/{id}/password") => ask.json(&password),
        ("PUT", "/v1/account/password") => {
            ask.json(&json!({"current_password": "nobody-elses-kettle-4", "password": "x"}))
        }
        ("POST", "/v1/account" | "/v1/session") => ask.json(&json!({"tenant": "nobodys"})),
        ("PUT", "/v1/session") => ask.json(&json!({"session": victim.user})),
        (method, path) => bail!("{method} {path}: a new route needs a case here"),
    })
}

/// What a stranger may be told: nothing of the victim's. Routes that name no single thing of
/// anybody's answer with what is the stranger's own.
fn judge(route: &Route, answer: &Answer) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(&answer.body);
    let own = |is: bool| {
        ensure!(is, "{} {}: {answer}", route.method, route.path);
        Ok(())
    };
    match (route.method.as_str(), route.path) {
        // A collection is a name, which the stranger may have given to one of its own.
        (
            "GET",
            "/v1/collections"
            | "/v1/collections/{collection}/items"
            | "/v1/admin/keys"
            | "/v1/admin/users"
            | "/v1/admin/regions",
        ) => own(answer.status == 200 && !text.contains(SECRET)),
        // Its own key of that name was never used.
        ("GET", "/v1/writes/{key}") => {
            let unknown = json!({"key": format!("{SECRET}-write"), "status": "unknown"});
            own(answer.status == 200 && answer.json() == unknown)
        }
        ("POST", "/v1/collections/{collection}/items" | "/v1/admin/keys" | "/v1/admin/users") => {
            own(answer.status == 201)
        }
        _ => own(matches!(answer.problem().as_str(), "not-found" | "forbidden")
            && matches!(answer.status, 404 | 403)
            && !text.contains(SECRET)),
    }
}

pub async fn another_tenants_things_cannot_be_seen_or_changed() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut victim = Victim::new(cluster.tenant("tenancy-victim").await?.caller).await?;
    let stranger = cluster.tenant("tenancy-stranger").await?.caller;
    let before = victim.everything().await?;
    for region in REGIONS {
        for route in closed_routes() {
            // With the victim's bookmark: what cannot be seen must not be merely late.
            let mut caller = stranger.fresh();
            caller.bookmark.clone_from(&victim.caller.bookmark);
            let answer = request(&mut caller, region, route, &victim)?.send().await?;
            judge(route, &answer).context(region)?;
        }
    }
    let after = victim.everything().await?;
    ensure!(before == after, "changed by a stranger: {before:?} became {after:?}");
    // The requests were good ones: the victim itself may do each of them.
    let takes_keys = |route: &&Route| route.access != Access::Person;
    for route in closed_routes().filter(takes_keys).filter(|route| route.method != "DELETE") {
        let mut caller = victim.caller.clone();
        let answer = request(&mut caller, AP, route, &victim)?.send().await?;
        let fits = answer.status < 300 || answer.problem() == "version-conflict";
        ensure!(fits, "{} {}: {answer}", route.method, route.path);
    }
    Ok(())
}

pub async fn every_route_wants_a_credential_with_its_scope() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("tenancy-scopes").await?;
    let mut victim = Victim::new(tenant.caller.clone()).await?;
    let nobody = cluster.caller_with(None);
    let mut scoped = Vec::new();
    for scope in [Scope::Read, Scope::Write, Scope::Admin] {
        let key = cluster.key(&tenant.name, scope.as_str(), 1).await?;
        scoped.push((scope, cluster.caller_with(Some(key))));
    }
    let before = victim.everything().await?;
    for region in REGIONS {
        for route in closed_routes() {
            let name = format!("{} {} in {region}", route.method, route.path);
            let mut caller = nobody.clone();
            let answer = request(&mut caller, region, route, &victim)?.send().await?;
            let answer = answer.wants_problem(401, "unauthorized").context(name.clone())?;
            ensure!(answer.header("www-authenticate").is_some(), "{name}: {answer}");
            for (scope, caller) in scoped.iter().filter(|(scope, _)| Some(*scope) != route.scope())
            {
                let mut caller = caller.clone();
                let answer = request(&mut caller, region, route, &victim)?.send().await?;
                let name = format!("{name} with {}", scope.as_str());
                answer.wants_problem(403, "forbidden").context(name)?;
            }
            if route.method == "GET" && route.access != Access::Person {
                let path = path_of(route, &victim)?;
                let answer = nobody.clone().ask(region, Method::HEAD, &path).send().await?;
                ensure!(answer.status == 401, "HEAD for {name}: {answer}");
                let fitting = scoped.iter().find(|(scope, _)| Some(*scope) == route.scope());
                let mut caller = fitting.context("a key of the scope")?.1.clone();
                caller.bookmark.clone_from(&victim.caller.bookmark);
                let answer = request(&mut caller, region, route, &victim)?.send().await?;
                let got = answer.wants(200).context(name.clone())?;
                let answer = caller.ask(region, Method::HEAD, &path).send().await?;
                let as_got = answer.header("content-type") == got.header("content-type");
                ensure!(answer.status == 200 && as_got, "HEAD for {name}: {answer}");
            }
        }
    }
    let after = victim.everything().await?;
    ensure!(before == after, "changed without a right to: {before:?} became {after:?}");
    Ok(())
}

/// Between regions an envelope counts; an API key is as good as nothing.
pub async fn the_internal_listener_serves_no_client() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let victim = Victim::new(cluster.tenant("tenancy-internal").await?.caller).await?;
    for region in [US, AP] {
        let inside = cluster.region(region).internal.clone();
        for route in &ROUTES {
            for (name, value) in [("x-nothing", "x"), ("godwit-envelope", "x.y.z")] {
                let mut caller = victim.caller.at_base(region, &inside);
                let ask = request(&mut caller, region, route, &victim)?.header(name, value);
                let context = format!("{} {} in {region}", route.method, route.path);
                ask.send().await?.wants_problem(403, "untrusted").context(context)?;
            }
        }
    }
    Ok(())
}
