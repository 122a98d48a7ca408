//! Users: those who register, those whom administrators make, and what is never kept of them.

use crate::{
    client::{Answer, Ask, Caller},
    harness::{self, AP, Cluster, EU, REGIONS, US},
};
use anyhow::{Context as _, ensure};
use godwit::vocab::{Clock as _, SystemClock};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::Connection as _;
use std::{fs, time::Duration};

const USERS: &str = "/v1/admin/users";
const GOOD: &str = "vex-lodestar-quibble-7";

fn user(id: &str) -> String {
    format!("{USERS}/{id}")
}

fn person(tenant: &str, email: &str, password: &str) -> Value {
    json!({"tenant": tenant, "email": email, "name": "Ada King", "password": password})
}

async fn register(visitor: &mut Caller, region: &str, body: &Value) -> anyhow::Result<Answer> {
    visitor.ask(region, Method::POST, "/v1/account").json(body).send().await
}

async fn make(admin: &mut Caller, region: &str, body: &Value) -> anyhow::Result<Answer> {
    admin.ask(region, Method::POST, USERS).json(body).send().await?.wants(201)
}

/// The pointers of a validation problem.
fn pointers(answer: &Answer) -> Vec<String> {
    let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().filter_map(|fault| fault["pointer"].as_str().map(str::to_owned)).collect()
}

fn invalid(answer: Answer, wanted: &[&str]) -> anyhow::Result<Answer> {
    let answer = answer.wants_problem(422, "validation")?;
    ensure!(pointers(&answer) == wanted, "wanted {wanted:?}: {answer}");
    Ok(answer)
}

pub async fn who_registers_far_from_the_primary_is_seen_everywhere_at_once() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("users-register").await?;
    for made_in in [AP, US, EU] {
        let mut visitor = cluster.caller_with(None);
        let email = format!("Ada.{made_in}@Example.com");
        let made = register(&mut visitor, made_in, &person(&tenant.name, &email, GOOD)).await?;
        let made = made.wants(201)?;
        ensure!((made.route() == "local") == (made_in == US), "{made}");
        let document = made.json();
        ensure!(document["role"] == "guest" && document["email"] == email.as_str(), "{made}");
        ensure!(document["password"].is_null() && document["password_changed_at"].is_string());
        for region in REGIONS {
            let mut admin = tenant.caller.clone();
            admin.bookmark.clone_from(&visitor.bookmark);
            let read = admin.get(region, &user(&made.id()?)).await?.wants(200)?;
            ensure!(read.json() == document && read.etag()? == made.etag()?, "{region}: {read}");
            // In any spelling.
            let path = format!("{USERS}?email=ADA.{made_in}%40example.COM");
            let found = admin.get(region, &path).await?.wants(200)?;
            ensure!(found.items()? == [document.clone()], "{region}: {found}");
            let taken = person(&tenant.name, &email.to_uppercase(), GOOD);
            let taken = register(&mut visitor.clone(), region, &taken).await?;
            invalid(taken, &["#/email"]).context(region)?;
        }
    }
    Ok(())
}

pub async fn a_repeated_registration_makes_one_user() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("users-repeated").await?;
    let mut visitor = cluster.caller_with(None);
    let mut again = async |region: &str, email: &str, password: &str| {
        let ask = visitor.ask(region, Method::POST, "/v1/account").header("idempotency-key", "one");
        ask.json(&person(&tenant.name, email, password)).send().await?.wants(201)
    };
    let first = again(AP, "ada@example.com", GOOD).await?;
    ensure!(first.header("idempotency-replayed").is_none(), "{first}");
    ensure!(first.header("idempotency-key") == Some("one"), "{first}");
    // Nothing that was made of the password is kept, so that another is not told from it.
    for (region, password) in [(AP, GOOD), (US, GOOD), (EU, "seven-teapots-at-noon")] {
        let replayed = again(region, "ada@example.com", password).await?;
        ensure!(replayed.header("idempotency-replayed") == Some("true"), "{replayed}");
        ensure!(replayed.json() == first.json() && replayed.etag()? == first.etag()?);
    }
    // Another person's key of that name is their own, and so is that of the tenant's clients.
    let other = again(AP, "eve@example.com", GOOD).await?;
    ensure!(other.id()? != first.id()?, "{other}");
    let mut client = tenant.caller.clone();
    let ask = client.ask(AP, Method::POST, "/v1/collections/users/items");
    ask.header("idempotency-key", "one").json(&json!({})).send().await?.wants(201)?;
    let path = format!("{USERS}?limit=200");
    let mut admin = tenant.caller.clone();
    admin.bookmark.clone_from(&client.bookmark);
    ensure!(admin.get(EU, &path).await?.items()?.len() == 2);
    Ok(())
}

pub async fn a_user_lives_through_all_changes_far_from_the_primary() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut admin = cluster.tenant("users-life").await?.caller;
    let wanted = json!({"email": "grace@example.com", "name": "Grace"});
    let ask = admin.ask(AP, Method::POST, USERS).header("idempotency-key", "grace");
    let made = ask.json(&wanted).send().await?.wants(201)?;
    let (path, id) = (user(&made.id()?), made.id()?);
    ensure!(made.header("location") == Some(&path), "{made}");
    ensure!(made.json()["role"] == "viewer" && made.json()["password_changed_at"].is_null());
    let etag = made.etag()?;
    let ask = admin.ask(EU, Method::GET, &path).header("if-none-match", &etag);
    ask.send().await?.wants(304)?;

    let rename = json!({"name": "Grace Hopper", "role": "editor"});
    let ask = admin.ask(AP, Method::PATCH, &path).json(&rename);
    ask.send().await?.wants_problem(428, "precondition-required")?;
    let ask = admin.ask(AP, Method::PATCH, &path).header("if-match", &etag).json(&rename);
    let changed = ask.send().await?.wants(200)?;
    ensure!(changed.json()["role"] == "editor" && changed.version()? == 2, "{changed}");
    ensure!(changed.json()["email"] == "grace@example.com", "{changed}");
    for method in [Method::PATCH, Method::DELETE] {
        let ask = admin.ask(AP, method, &path).header("if-match", &etag).json(&rename);
        let stale = ask.send().await?.wants_problem(412, "version-conflict")?;
        ensure!(stale.json()["current"] == changed.json(), "{stale}");
        ensure!(stale.etag()? == changed.etag()?, "{stale}");
    }
    commands(&mut admin, &path, &etag).await?;

    let ask = admin.ask(AP, Method::DELETE, &path);
    ask.send().await?.wants_problem(428, "precondition-required")?;
    let ask = admin.ask(AP, Method::DELETE, &path).header("if-match", "*");
    ask.send().await?.wants(204)?;
    // A late repetition of the creation does not bring them back, and the address is free.
    let ask = admin.ask(AP, Method::POST, USERS).header("idempotency-key", "grace");
    let late = ask.json(&wanted).send().await?.wants(201)?;
    ensure!(late.header("idempotency-replayed") == Some("true") && late.id()? == id, "{late}");
    for region in REGIONS {
        admin.get(region, &path).await?.wants_problem(404, "not-found").context(region)?;
    }
    let suspend = admin.ask(EU, Method::POST, &format!("{path}:suspend")).send().await?;
    suspend.wants_problem(404, "not-found")?;
    ensure!(make(&mut admin, AP, &wanted).await?.id()? != id);
    let mut database = sqlx::PgConnection::connect(&cluster.region(US).global_db).await?;
    let left: i64 = sqlx::query_scalar(
        "SELECT num_nonnulls(email, email_folded, name, password_hash)::bigint FROM tenant_user
         WHERE id = $1::text::uuid AND deleted_at IS NOT NULL",
    )
    .bind(&id)
    .fetch_one(&mut database)
    .await?;
    ensure!(left == 0, "{left} personal things are left");
    Ok(database.close().await?)
}

/// Suspension and password: whatever the version, unless one is named.
async fn commands(admin: &mut Caller, path: &str, stale: &str) -> anyhow::Result<()> {
    let suspend = format!("{path}:suspend");
    let ask = admin.ask(EU, Method::POST, &suspend).header("if-match", stale);
    ask.send().await?.wants_problem(412, "version-conflict")?;
    let first = admin.ask(AP, Method::POST, &suspend).send().await?.wants(200)?;
    ensure!(first.json()["suspended_at"].is_string() && first.version()? == 3, "{first}");
    let twice = admin.ask(US, Method::POST, &suspend).send().await?.wants(200)?;
    ensure!(twice.json() == first.json(), "{twice}");
    let password = format!("{path}/password");
    let ask = admin.ask(AP, Method::PUT, &password).json(&json!({"password": GOOD}));
    let set = ask.send().await?.wants(200)?;
    ensure!(set.json()["password_changed_at"].is_string() && set.version()? == 4, "{set}");
    let resumed =
        admin.ask(EU, Method::POST, &format!("{path}:resume")).send().await?.wants(200)?;
    ensure!(resumed.json()["suspended_at"].is_null() && resumed.version()? == 5, "{resumed}");
    ensure!(admin.get(AP, path).await?.json() == resumed.json(), "{resumed}");
    Ok(())
}

pub async fn a_tenant_keeps_an_administrator() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("users-last").await?;
    let mut admin = tenant.caller.clone();
    let wanted =
        |name: &str| json!({"email": format!("{name}@example.com"), "name": name, "role": "admin"});
    let one = make(&mut admin, US, &wanted("one")).await?;
    let two = make(&mut admin, AP, &wanted("two")).await?;
    let (one, two) = (user(&one.id()?), user(&two.id()?));
    admin.ask(AP, Method::POST, &format!("{two}:suspend")).send().await?.wants(200)?;
    for region in [US, AP] {
        let suspend = admin.ask(region, Method::POST, &format!("{one}:suspend")).send().await?;
        suspend.wants_problem(409, "last-admin").context(region)?;
        let ask = admin.ask(region, Method::PATCH, &one).header("if-match", "*");
        let demote = ask.json(&json!({"role": "editor"})).send().await?;
        demote.wants_problem(409, "last-admin").context(region)?;
        let delete = admin.ask(region, Method::DELETE, &one).header("if-match", "*").send().await?;
        delete.wants_problem(409, "last-admin").context(region)?;
    }
    let still = admin.get(AP, &one).await?.wants(200)?;
    ensure!(still.json()["role"] == "admin" && still.json()["suspended_at"].is_null(), "{still}");
    admin.ask(AP, Method::POST, &format!("{two}:resume")).send().await?.wants(200)?;
    admin.ask(AP, Method::POST, &format!("{one}:suspend")).send().await?.wants(200)?;
    // A key cannot give, or take over, what it does not have.
    let narrow = cluster.key(&tenant.name, "admin", 1).await?;
    let mut narrow = cluster.caller_with(Some(narrow));
    let ask = narrow.ask(AP, Method::POST, USERS).json(&wanted("three"));
    ask.send().await?.wants_problem(403, "forbidden")?;
    let ask = narrow.ask(AP, Method::PUT, &format!("{two}/password"));
    let ask = ask.json(&json!({"password": GOOD}));
    ask.send().await?.wants_problem(403, "forbidden")?;
    Ok(())
}

/// Bodies of a registration, and the members that are wrong with them.
fn bad_bodies(tenant: &str) -> Vec<(Value, Vec<&'static str>)> {
    let with = |name: &str, value: Value| {
        let mut body = person(tenant, "bad@example.com", GOOD);
        body[name] = value;
        body
    };
    vec![
        (json!({}), vec!["#/tenant", "#/email", "#/name", "#/password"]),
        (with("tenant", json!("users-nobodys")), vec!["#/tenant"]),
        (with("tenant", json!("No Such")), vec!["#/tenant"]),
        (with("email", json!("ada")), vec!["#/email"]),
        (with("email", json!("ada@localhost")), vec!["#/email"]),
        (with("email", json!(["ada@example.com"])), vec!["#/email"]),
        (with("name", json!(" ")), vec!["#/name"]),
        (with("name", json!("a\u{0}")), vec!["#/name"]),
        (with("name", json!("n".repeat(101))), vec!["#/name"]),
        (with("password", json!("hunter2")), vec!["#/password"]),
        (with("password", json!(12_345_678_901_u64)), vec!["#/password"]),
        (with("password", json!("password1234")), vec!["#/password"]),
        (with("password", json!("bad@example.com")), vec!["#/password"]),
        (with("password", json!("Ada King")), vec!["#/password"]),
        (with("password", json!("x".repeat(257))), vec!["#/password"]),
        (with("password", json!("x".repeat(1_000_000))), vec!["#/password"]),
        (with("role", json!("admin")), vec!["#/role"]),
    ]
}

pub async fn what_cannot_be_a_user_is_refused_by_the_name_of_what_is_wrong() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("users-bad").await?;
    let mut visitor = cluster.caller_with(None);
    for region in [US, AP] {
        for (body, wanted) in bad_bodies(&tenant.name) {
            let refused = register(&mut visitor, region, &body).await?;
            let shown: String = body.to_string().chars().take(80).collect();
            let refused = invalid(refused, &wanted).context(shown)?;
            let said = String::from_utf8_lossy(&refused.body).into_owned();
            for secret in ["hunter2", "12345678901", "password1234", "Ada King", "xxxxxxxx"] {
                ensure!(!said.contains(secret), "the refusal repeats a password: {said}");
            }
        }
        for (body, status, kind) in [
            (b"{\"password\":\"hunter2".to_vec(), 400, "malformed"),
            (b"[]".to_vec(), 422, "validation"),
            (vec![b' '; 2 * 1024 * 1024], 413, "too-large"),
        ] {
            let ask = visitor.ask(region, Method::POST, "/v1/account");
            told(ask.body("application/json", body), status, kind).await?;
        }
        let form = visitor.ask(region, Method::POST, "/v1/account").body("text/plain", "x");
        told(form, 415, "unsupported-media-type").await?;
        // What is in an address is kept, here and by everyone on the way.
        let asked = visitor.ask(region, Method::POST, "/v1/account?password=hunter2");
        told(asked.json(&person(&tenant.name, "q@example.com", GOOD)), 400, "malformed").await?;
        let ask = visitor.ask(region, Method::DELETE, "/v1/account");
        ask.send().await?.wants_problem(405, "method-not-allowed")?;
    }
    let mut admin = tenant.caller.clone();
    for region in [US, AP] {
        let lists = ["limit=0", "cursor=x", "email=x", "role=admin", "cursor=%ff"];
        for query in lists {
            let listed = admin.get(region, &format!("{USERS}?{query}")).await?;
            listed.wants_problem(422, "validation").context(query)?;
        }
        let ask =
            admin.ask(region, Method::POST, USERS).json(&json!({"name": "x", "role": "king"}));
        invalid(ask.send().await?, &["#/email", "#/role"])?;
        for path in [user("x"), user("0193a0de-0000-7000-8000-000000000000")] {
            admin.get(region, &path).await?.wants_problem(404, "not-found")?;
            let ask = admin.ask(region, Method::PUT, &format!("{path}/password"));
            told(ask.json(&json!({"password": GOOD})), 404, "not-found").await?;
        }
    }
    ensure!(admin.get(US, USERS).await?.items()?.is_empty(), "something was made");
    Ok(())
}

async fn told(ask: Ask<'_>, status: u16, kind: &str) -> anyhow::Result<()> {
    ask.send().await?.wants_problem(status, kind).map(|_| ())
}

pub async fn users_are_listed_in_pages_while_others_come_and_go() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut admin = cluster.tenant("users-pages").await?.caller;
    let mut ids = Vec::new();
    for index in 0..5 {
        let body = json!({"email": format!("u{index}@example.com"), "name": "Somebody"});
        ids.push(make(&mut admin, AP, &body).await?.id()?);
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = admin.get(EU, &format!("{USERS}?limit=2{cursor}")).await?.wants(200)?;
        let items = page.items()?;
        seen.extend(items.iter().filter_map(|user| user["id"].as_str().map(str::to_owned)));
        if seen.len() == 2 {
            let ask = admin.ask(EU, Method::DELETE, &user(&ids[2])).header("if-match", "*");
            ask.send().await?.wants(204)?;
        }
        match page.json()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    ids.remove(2);
    ensure!(seen == ids, "{seen:?}, not {ids:?}");
    Ok(())
}

/// Every row of every table of a region's database, as text.
async fn everything(cluster: &Cluster, region: &str) -> anyhow::Result<String> {
    let mut database = sqlx::PgConnection::connect(&cluster.region(region).global_db).await?;
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
            .fetch_all(&mut database)
            .await?;
    ensure!(tables.iter().any(|table| table == "write_journal"), "{tables:?}");
    let mut all = String::new();
    for table in tables {
        let rows = format!("SELECT string_agg(t::text, chr(10)) FROM {table} AS t");
        let rows: Option<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(rows)).fetch_one(&mut database).await?;
        all.push_str(&rows.unwrap_or_default());
    }
    database.close().await?;
    Ok(all)
}

/// What a careless program would keep of a request: the password, and fast hashes of it, of the body
/// and of the whole request.
fn traces_of(method: &str, path: &str, body: &Value, password: &str) -> Vec<String> {
    let body = body.to_string();
    let mut request = Sha256::new();
    for part in [method, path, "", "", &body] {
        request.update((part.len() as u64).to_be_bytes());
        request.update(part);
    }
    let hashes = [Sha256::digest(password), Sha256::digest(&body), request.finalize()];
    hashes.iter().map(hex::encode).chain([password.to_owned()]).collect()
}

pub async fn of_a_password_nothing_is_kept_but_its_argon2id_hash() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("users-traceless").await?;
    let mut traces = Vec::new();
    let mut visitor = cluster.caller_with(None);
    for (region, password) in [(US, "cobalt-heron-mistral-41"), (AP, "cobalt-heron-mistral-42")] {
        let body = person(&tenant.name, &format!("t.{region}@example.com"), password);
        traces.extend(traces_of("POST", "/v1/account", &body, password));
        register(&mut visitor, region, &body).await?.wants(201)?;
        // Refused, for its password too.
        let body = person(&tenant.name, "mistral@example.com", "Mistral@Example.com");
        traces.extend(traces_of("POST", "/v1/account", &body, "Mistral@Example.com"));
        invalid(register(&mut visitor, region, &body).await?, &["#/password"])?;
    }
    let mut admin = tenant.caller.clone();
    let password = "cobalt-heron-mistral-43";
    let body = json!({"email": "made@example.com", "name": "Made", "password": password});
    traces.extend(traces_of("POST", USERS, &body, password));
    let made = make(&mut admin, AP, &body).await?;
    let (path, password) = (format!("{}/password", user(&made.id()?)), "cobalt-heron-mistral-44");
    let body = json!({"password": password});
    traces.extend(traces_of("PUT", &path, &body, password));
    let set = admin.ask(AP, Method::PUT, &path).json(&body).send().await?.wants(200)?;
    let file = cluster.dir().join("logs").join("password.txt");
    fs::write(&file, "cobalt-heron-mistral-45\n")?;
    let file = file.to_str().context("a path")?;
    let made = ["user", "create", "--tenant", &tenant.name, "--email", "cli@example.com"];
    let more = ["--name", "Cli", "--password-file", file];
    let printed = cluster.command(&[&made[..], &more[..]].concat()).await?;
    fs::remove_file(file)?;
    ensure!(printed["password"].is_null(), "{printed}");
    traces.push("cobalt-heron-mistral-45".to_owned());
    traces.push(hex::encode(Sha256::digest("cobalt-heron-mistral-45")));

    let rows = everything(&cluster, US).await?;
    ensure!(rows.contains("t.ap-south-1@example.com"), "the search finds nothing at all");
    ensure!(rows.matches("$argon2id$v=19$m=19456,t=2,p=1$").count() >= 4, "no hashes");
    let mut logs = String::new();
    for region in REGIONS {
        logs.extend(cluster.log(region)?.iter().map(Value::to_string));
    }
    ensure!(logs.contains("/v1/account"), "the log has none of it");
    for trace in traces {
        ensure!(!rows.contains(&trace), "a table has {trace}");
        ensure!(!logs.contains(&trace), "a log has {trace}");
    }
    // The hash itself is nobody's to see.
    for told in [&set, &admin.get(AP, USERS).await?.wants(200)?] {
        ensure!(!String::from_utf8_lossy(&told.body).contains("argon2"), "{told}");
    }
    Ok(())
}

/// Longest answer while passwords are hashed as fast as they come in, on a machine that has other
/// things to do too.
const READ_WITHIN: Duration = Duration::from_secs(5);

pub async fn reads_go_on_while_passwords_are_hashed() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let _alone = harness::busy().await;
    let tenant = cluster.tenant("users-flood").await?;
    let mut flood = Vec::new();
    for index in 0..24 {
        let mut visitor = cluster.caller_with(None);
        let name = tenant.name.clone();
        flood.push(async move {
            let body = person(&name, &format!("f{index}@example.com"), GOOD);
            register(&mut visitor, US, &body).await?.wants(201)
        });
    }
    let flood = futures_util::future::try_join_all(flood);
    let mut reader = tenant.caller.clone();
    let reads = async {
        for _ in 0..40 {
            let began = SystemClock.monotonic();
            reader.get(US, "/v1/collections").await?.wants(200)?;
            let took = SystemClock.monotonic() - began;
            ensure!(took < READ_WITHIN, "a read took {took:?}");
        }
        Ok(())
    };
    let (flood, ()) = tokio::try_join!(flood, reads)?;
    ensure!(flood.len() == 24);
    Ok(())
}

pub async fn an_operator_makes_and_keeps_users_by_command() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let name = "users-operator";
    let mut admin = cluster.tenant(name).await?.caller;
    let run = async |arguments: &[&str], more: &[&str]| {
        let all = [&["user"], arguments, &["--tenant", name], more].concat();
        cluster.command(&all).await
    };
    let who = ["--email", "Ops@example.com", "--name", "Ops", "--role", "admin"];
    let made = run(&["create"], &[&who[..], &["--generate-password"]].concat()).await?;
    let password = made["password"].as_str().context("no password")?.to_owned();
    ensure!(password.len() >= 20 && made["role"] == "admin", "{made}");
    let id = made["id"].as_str().context("no id")?.to_owned();
    let again = run(&["create"], &who).await;
    ensure!(format!("{again:?}").contains("has that e-mail address"), "{again:?}");
    let shown = run(&["show", "ops@EXAMPLE.com"], &[]).await?;
    ensure!(shown["id"] == id.as_str() && shown["password"].is_null(), "{shown}");
    ensure!(run(&["show", &id], &[]).await? == shown);
    let reset = run(&["set-password", &id], &["--generate-password"]).await?;
    ensure!(reset["password"].is_string() && reset["password"] != made["password"], "{reset}");
    // The last administrator too.
    ensure!(run(&["suspend", &id], &[]).await?["suspended_at"].is_string());
    ensure!(run(&["resume", &id], &[]).await?["suspended_at"].is_null());
    let listed = run(&["list"], &[]).await?;
    ensure!(listed.as_array().is_some_and(|users| users.len() == 1), "{listed}");
    let ask = admin.ask(AP, Method::GET, &user(&id)).header("godwit-consistency", "strong");
    ask.send().await?.wants(200)?;
    run(&["delete", &id], &[]).await?;
    ensure!(run(&["list"], &[]).await? == json!([]));
    let mut database = sqlx::PgConnection::connect(&cluster.region(US).global_db).await?;
    let recorded: Vec<String> = sqlx::query_scalar(
        "SELECT j.path FROM write_journal AS j JOIN tenant AS t ON t.id = j.tenant_id
         WHERE t.name = $1 AND j.path LIKE 'user %' ORDER BY j.committed_at",
    )
    .bind(name)
    .fetch_all(&mut database)
    .await?;
    database.close().await?;
    let words = ["create", "set-password", "suspend", "resume", "delete"];
    ensure!(recorded == words.map(|word| format!("user {word} {id}")), "{recorded:?}");
    Ok(())
}

/// Of the laboratory's own tenant.
pub async fn the_laboratory_has_an_administrator() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let file: Value = serde_json::from_slice(&fs::read(cluster.dir().join("lab.json"))?)?;
    let admin = &file["tenant"]["admin"];
    let email = admin["email"].as_str().context("no address")?;
    ensure!(admin["password"].as_str().is_some_and(|made| made.len() >= 20), "no password");
    let path = format!("{USERS}?email={}", email.replace('@', "%40"));
    for region in REGIONS {
        let found = cluster.caller().get(region, &path).await?.wants(200)?;
        let [user] = &found.items()?[..] else { anyhow::bail!("{region}: {found}") };
        ensure!(user["role"] == "admin" && user["password_changed_at"].is_string(), "{found}");
    }
    Ok(())
}
