//! Signing in: known in every region at once, and ended in every region soon.

use crate::{
    client::{Answer, Caller},
    harness::{self, AP, Cluster, EU, REGIONS, SOON, Tenant, US, eventually},
};
use anyhow::{Context as _, ensure};
use godwit::lab::{Spec, Wan};
use reqwest::Method;
use serde_json::{Value, json};

pub const PASSWORD: &str = "vex-lodestar-quibble-7";
const OTHER: &str = "seven-teapots-at-noon";
pub const SESSION: &str = "/v1/session";
const SESSIONS: &str = "/v1/sessions";
pub const ACCOUNT: &str = "/v1/account";

/// Somebody of a tenant, made by its administrator.
pub struct Person {
    pub id: String,
    pub tenant: String,
    pub email: String,
}

impl Person {
    pub async fn make(tenant: &Tenant, email: &str, role: &str) -> anyhow::Result<Self> {
        let body = json!({"email": email, "name": "Ada King", "role": role, "password": PASSWORD});
        let mut admin = tenant.caller.clone();
        let made = admin.ask(US, Method::POST, "/v1/admin/users").json(&body).send().await?;
        let id = made.wants(201)?.id()?;
        Ok(Self { id, tenant: tenant.name.clone(), email: email.to_owned() })
    }

    pub async fn try_in(
        &self,
        cluster: &Cluster,
        region: &str,
        password: &str,
    ) -> anyhow::Result<Answer> {
        let body = json!({"tenant": self.tenant, "email": self.email, "password": password});
        let mut visitor = cluster.caller_with(None);
        visitor.ask(region, Method::POST, SESSION).json(&body).send().await
    }

    /// Signs in, and comes back with the token.
    pub async fn sign_in(&self, cluster: &Cluster, region: &str) -> anyhow::Result<Caller> {
        let answer = self.try_in(cluster, region, PASSWORD).await?.wants(201)?;
        let token = answer.json()["token"].as_str().context("a token")?.to_owned();
        ensure!(token.starts_with(&format!("v1.{region}.")), "{answer}");
        Ok(cluster.caller_with(Some(token)))
    }
}

pub async fn knows(person: &Caller, region: &str) -> anyhow::Result<Answer> {
    person.fresh().get(region, ACCOUNT).await
}

/// Waits until a region no longer knows a session.
pub async fn is_out(person: &Caller, region: &str) -> anyhow::Result<()> {
    becomes(person, region, 401).await
}

/// Waits until a region knows a session.
pub async fn is_in(person: &Caller, region: &str) -> anyhow::Result<()> {
    becomes(person, region, 200).await
}

async fn becomes(person: &Caller, region: &str, status: u16) -> anyhow::Result<()> {
    eventually(&format!("{status} in {region}"), SOON, async || match knows(person, region).await {
        Ok(answer) if answer.status == status => Ok(()),
        Ok(answer) => Err(answer.to_string()),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

async fn no_content(
    person: &mut Caller,
    region: &str,
    method: Method,
    path: &str,
) -> anyhow::Result<()> {
    person.ask(region, method, path).send().await?.wants(204)?;
    Ok(())
}

pub async fn who_signs_in_anywhere_is_known_everywhere_at_once() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("signin-known").await?;
    let ada = Person::make(&tenant, "ada@example.com", "editor").await?;
    for from in REGIONS {
        for to in REGIONS {
            let mut person = ada.sign_in(&cluster, from).await?;
            // The very next request.
            let known = knows(&person, to).await?.wants(200).context(format!("{from} to {to}"))?;
            ensure!(known.json()["id"] == ada.id.as_str(), "{known}");
            // With the role's scopes, and from there to the primary.
            let made = person.create(to, "signin", &json!({"by": "ada"})).await?.wants(201)?;
            person.read(from, "signin", &made.id()?).await?.wants(200)?;
            let admin = person.get(to, "/v1/admin/users").await?;
            admin.wants_problem(403, "forbidden")?;
        }
    }
    Ok(())
}

pub async fn what_is_wrong_with_a_sign_in_is_told_to_nobody() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("signin-wrong").await?;
    let ada = Person::make(&tenant, "ada@example.com", "viewer").await?;
    let nobody = Person { email: "eve@example.com".into(), id: String::new(), ..clone(&ada) };
    let nowhere = Person { tenant: "signin-no-such".into(), id: String::new(), ..clone(&ada) };
    let mut told = Vec::new();
    for region in [US, AP] {
        for (person, password) in [(&ada, OTHER), (&nobody, PASSWORD), (&nowhere, PASSWORD)] {
            let answer = person.try_in(&cluster, region, password).await?;
            let answer = answer.wants_problem(401, "unauthorized")?;
            ensure!(answer.header("set-cookie").is_none(), "{answer}");
            told.push(answer.json()["detail"].clone());
        }
    }
    ensure!(told.iter().all(|detail| *detail == told[0]), "{told:?}");
    // Known at the primary alone, the moment before.
    let body =
        json!({"tenant": tenant.name, "email": "new@example.com", "name": "N", "password": OTHER});
    let mut visitor = cluster.caller_with(None);
    visitor.ask(US, Method::POST, ACCOUNT).json(&body).send().await?.wants(201)?;
    let new = Person { email: "new@example.com".into(), id: String::new(), ..clone(&ada) };
    new.try_in(&cluster, AP, OTHER).await?.wants(201)?;
    Ok(())
}

fn clone(person: &Person) -> Person {
    let Person { id, tenant, email } = person;
    Person { id: id.clone(), tenant: tenant.clone(), email: email.clone() }
}

pub async fn a_session_is_ended_everywhere_by_whoever_may_end_it() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("signin-ended").await?;
    let ada = Person::make(&tenant, "ada@example.com", "editor").await?;
    let eve = Person::make(&tenant, "eve@example.com", "editor").await?;
    let mut own = ada.sign_in(&cluster, AP).await?;
    let mut others = Vec::new();
    for region in [EU, US, AP] {
        let other = ada.sign_in(&cluster, region).await?;
        // Every region has it in its Redis.
        for at in REGIONS {
            knows(&other, at).await?.wants(200)?;
        }
        others.push(other);
    }
    let [out, listed, rest] = &mut others[..] else { unreachable!("three were made") };
    let list = eventually("a list of four", SOON, async || {
        let list = own.get(EU, SESSIONS).await.and_then(|list| list.wants(200)?.items());
        let list = list.map_err(|error| format!("{error:#}"))?;
        if list.len() == 4 { Ok(list) } else { Err(format!("{list:?}")) }
    })
    .await?;
    ensure!(list.iter().filter(|row| row["current"] == true).count() == 1, "{list:?}");
    ensure!(list[0]["region"] == AP && list[1]["region"] == US && list[2]["region"] == EU);
    ensure!(list[0]["address"] == "127.0.0.1", "{list:?}");
    // Signing out is over here at once.
    no_content(out, US, Method::DELETE, SESSION).await?;
    knows(out, US).await?.wants_problem(401, "unauthorized")?;
    let one = format!("{SESSIONS}/{}", list[1]["id"].as_str().context("an id")?);
    // Nobody else's.
    let mut stranger = eve.sign_in(&cluster, EU).await?;
    stranger.ask(EU, Method::DELETE, &one).send().await?.wants_problem(404, "not-found")?;
    no_content(&mut own, EU, Method::DELETE, &one).await?;
    for region in REGIONS {
        is_out(out, region).await?;
        is_out(listed, region).await?;
        knows(rest, region).await?.wants(200)?;
    }
    no_content(&mut own, AP, Method::POST, "/v1/sessions:end-others").await?;
    for region in REGIONS {
        is_out(rest, region).await?;
        knows(&own, region).await?.wants(200)?;
    }
    let mut admin = tenant.caller.clone();
    let path = format!("/v1/admin/users/{}/sessions", ada.id);
    let left =
        admin.ask(AP, Method::GET, &path).header("godwit-consistency", "strong").send().await?;
    ensure!(left.wants(200)?.items()?.len() == 1);
    no_content(&mut admin, AP, Method::DELETE, &path).await?;
    for region in REGIONS {
        is_out(&own, region).await?;
        knows(&stranger, region).await?.wants(200)?;
    }
    Ok(())
}

pub async fn a_password_a_suspension_and_a_deletion_end_what_was_begun_before() -> anyhow::Result<()>
{
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("signin-users").await?;
    let ada = Person::make(&tenant, "ada@example.com", "viewer").await?;
    let mut admin = tenant.caller.clone();
    let (mut own, other) = (ada.sign_in(&cluster, AP).await?, ada.sign_in(&cluster, EU).await?);
    let path = "/v1/account/password";
    let change = json!({"current_password": OTHER, "password": OTHER});
    let wrong = own.ask(AP, Method::PUT, path).json(&change).send().await?;
    wrong.wants_problem(422, "validation")?;
    let change = json!({"current_password": PASSWORD, "password": OTHER});
    own.ask(AP, Method::PUT, path).json(&change).send().await?.wants(200)?;
    for region in REGIONS {
        is_out(&other, region).await?;
        knows(&own, region).await?.wants(200)?;
    }
    // The replica may still have the old one.
    ada.try_in(&cluster, EU, OTHER).await?.wants(201)?;
    let user = format!("/v1/admin/users/{}", ada.id);
    let back = json!({ "password": PASSWORD });
    let ask = admin.ask(US, Method::PUT, &format!("{user}/password")).json(&back);
    ask.send().await?.wants(200)?;
    for region in REGIONS {
        is_out(&own, region).await?;
    }
    let again = ada.sign_in(&cluster, AP).await?;
    let ask = admin.ask(EU, Method::POST, &format!("{user}:suspend"));
    ask.send().await?.wants(200)?;
    for region in REGIONS {
        is_out(&again, region).await?;
    }
    for region in REGIONS {
        let refused = ada.try_in(&cluster, region, PASSWORD).await?;
        refused.wants_problem(403, "forbidden")?;
    }
    admin.ask(EU, Method::POST, &format!("{user}:resume")).send().await?.wants(200)?;
    let resumed = eventually("signed in again", SOON, async || {
        ada.sign_in(&cluster, AP).await.map_err(|error| format!("{error:#}"))
    })
    .await?;
    knows(&again, US).await?.wants_problem(401, "unauthorized")?;
    let etag = admin.get(US, &user).await?.wants(200)?.etag()?;
    let ask = admin.ask(US, Method::DELETE, &user).header("if-match", &etag);
    ask.send().await?.wants(204)?;
    for region in REGIONS {
        is_out(&resumed, region).await?;
    }
    ada.try_in(&cluster, US, PASSWORD).await?.wants_problem(401, "unauthorized")?;
    Ok(())
}

pub async fn a_new_role_is_that_of_the_sessions_too() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("signin-role").await?;
    let ada = Person::make(&tenant, "ada@example.com", "viewer").await?;
    let mut person = ada.sign_in(&cluster, AP).await?;
    for region in REGIONS {
        let refused = person.create(region, "roles", &json!({})).await?;
        refused.wants_problem(403, "forbidden")?;
    }
    let mut admin = tenant.caller.clone();
    let user = format!("/v1/admin/users/{}", ada.id);
    for (role, status) in [("editor", 201), ("guest", 403)] {
        let etag = admin.get(US, &user).await?.wants(200)?.etag()?;
        let ask = admin.ask(US, Method::PATCH, &user).header("if-match", &etag);
        ask.json(&json!({ "role": role })).send().await?.wants(200)?;
        // At the primary, at once.
        person.fresh().create(US, "roles", &json!({})).await?.wants(status)?;
        for region in REGIONS {
            eventually(&format!("{role} in {region}"), SOON, async || {
                let answer = person.fresh().create(region, "roles", &json!({})).await;
                let answer = answer.map_err(|error| format!("{error:#}"))?;
                if answer.status == status { Ok(()) } else { Err(answer.to_string()) }
            })
            .await?;
        }
    }
    Ok(())
}

pub async fn a_role_that_changes_while_somebody_signs_in_holds_for_them_too() -> anyhow::Result<()>
{
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("signin-meanwhile").await?;
    let ada = Person::make(&tenant, "ada@example.com", "viewer").await?;
    let mut admin = tenant.caller.clone();
    let user = format!("/v1/admin/users/{}", ada.id);
    for (region, role, status) in
        [(US, "editor", 201), (AP, "guest", 403), (EU, "editor", 201), (AP, "viewer", 403)]
    {
        let etag = admin.get(US, &user).await?.wants(200)?.etag()?;
        let ask = admin.ask(US, Method::PATCH, &user).header("if-match", &etag);
        // The password is being compared all this time, with what was read before.
        let (begun, changed) =
            tokio::join!(ada.sign_in(&cluster, region), ask.json(&json!({ "role": role })).send());
        changed?.wants(200)?;
        let mut person = begun?;
        eventually(&format!("{role}, signed in at {region}"), SOON, async || {
            let made = person.create(region, "meanwhile", &json!({})).await;
            let made = made.map_err(|error| format!("{error:#}"))?;
            if made.status == status { Ok(()) } else { Err(made.to_string()) }
        })
        .await?;
    }
    Ok(())
}

pub async fn what_is_no_session_of_ours_is_refused_and_a_key_is_nobodys_account()
-> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("signin-forged").await?;
    let ada = Person::make(&tenant, "ada@example.com", "viewer").await?;
    let person = ada.sign_in(&cluster, EU).await?;
    let token = person.key.clone().context("a token")?;
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    let elsewhere = token.replacen(EU, AP, 1);
    for bad in [&forged, &elsewhere, "v1.eu-west-1.x.y", "v1."] {
        let refused = knows(&cluster.caller_with(Some(bad.to_owned())), US).await?;
        refused.wants_problem(401, "unauthorized")?;
    }
    let mut key = tenant.caller.clone();
    for (method, path) in [
        (Method::GET, ACCOUNT),
        (Method::GET, SESSIONS),
        (Method::DELETE, SESSION),
        (Method::POST, "/v1/sessions:end-others"),
    ] {
        key.ask(AP, method, path).send().await?.wants_problem(403, "forbidden")?;
    }
    Ok(())
}

pub async fn a_browser_is_signed_in_by_its_cookie_on_pages_of_this_site_alone() -> anyhow::Result<()>
{
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("signin-cookie").await?;
    let ada = Person::make(&tenant, "ada@example.com", "editor").await?;
    let begun = ada.try_in(&cluster, AP, PASSWORD).await?.wants(201)?;
    let set = begun.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok());
    let set = set.filter(|cookie| cookie.starts_with("__Host-godwit_session=")).collect::<Vec<_>>();
    let [set] = set[..] else { anyhow::bail!("{begun}") };
    for flag in ["; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/"] {
        ensure!(set.contains(flag) && !set.contains("Domain"), "{set}");
    }
    let cookie = set.split(';').next().unwrap_or_default();
    let mut browser = cluster.caller_with(None);
    let known = browser.ask(EU, Method::GET, ACCOUNT).header("cookie", cookie).send().await?;
    ensure!(known.wants(200)?.json()["email"] == "ada@example.com");
    let path = "/v1/collections/signin/items";
    for (site, status) in [("same-origin", 201), ("cross-site", 403), ("same-site", 403)] {
        let ask = browser.ask(EU, Method::POST, path).header("cookie", cookie);
        let answer = ask.header("sec-fetch-site", site).json(&json!({})).send().await?;
        answer.wants(status).context(site)?;
    }
    let ask = browser.ask(EU, Method::POST, path).header("cookie", cookie).json(&json!({}));
    ask.send().await?.wants_problem(403, "forbidden")?;
    let ask = browser.ask(AP, Method::DELETE, SESSION).header("cookie", cookie);
    let out = ask.header("sec-fetch-site", "same-origin").send().await?.wants(204)?;
    let cleared = out.header("set-cookie").unwrap_or_default().to_owned();
    ensure!(
        cleared.starts_with("__Host-godwit_session=;") && cleared.contains("Max-Age=0"),
        "{out}"
    );
    let known = browser.ask(AP, Method::GET, ACCOUNT).header("cookie", cookie).send().await?;
    known.wants_problem(401, "unauthorized")?;
    Ok(())
}

/// A password is nowhere but in the request.
pub async fn nothing_of_a_password_or_a_token_is_in_a_log() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("signin-logs").await?;
    let ada = Person::make(&tenant, "ada@example.com", "viewer").await?;
    let person = ada.sign_in(&cluster, AP).await?;
    ada.try_in(&cluster, AP, OTHER).await?.wants(401)?;
    knows(&person, EU).await?.wants(200)?;
    let token = person.key.clone().context("a token")?;
    let random = token.split('.').nth(2).context("the random part")?;
    for region in REGIONS {
        let lines: Vec<Value> = cluster.log(region)?;
        let text = serde_json::to_string(&lines)?;
        ensure!(region == US || text.contains("/v1/session") || text.contains(ACCOUNT), "{region}");
        for secret in [PASSWORD, OTHER, random] {
            ensure!(!text.contains(secret), "{region} logs {secret}");
        }
    }
    Ok(())
}

/// What a page of many addresses, and one of many accounts, can try.
pub async fn guesses_are_bounded_in_all_regions_together_and_who_is_right_gets_in()
-> anyhow::Result<()> {
    const BURST: usize = 6;
    let strict = |spec: &mut Spec| {
        harness::patient(spec);
        spec.wan = Wan::Off;
        // Each request says where it comes from.
        harness::set(spec, "GODWIT__LIMITS__TRUSTED_PROXIES", "127.0.0.1");
        for bucket in ["ADDRESS", "ACCOUNT", "FAMILIAR"] {
            for (what, count) in [("PER_HOUR", 1), ("BURST", BURST)] {
                let name = format!("GODWIT__LIMITS__SIGN_IN_{bucket}__{what}");
                harness::set(spec, &name, &count.to_string());
            }
        }
    };
    harness::own("guesses", strict, async |cluster| {
        let tenant = cluster.tenant("guesses").await?;
        let ada = Person::make(&tenant, "ada@example.com", "viewer").await?;
        let from = async |person: &Person, region: &str, address: &str, password: &str| {
            let (tenant, email) = (&person.tenant, &person.email);
            let body = json!({"tenant": tenant, "email": email, "password": password});
            let mut visitor = cluster.caller_with(None);
            let ask = visitor.ask(region, Method::POST, SESSION).header("x-forwarded-for", address);
            ask.json(&body).send().await
        };
        let (home, nobody) =
            ("198.51.100.7", Person { email: "x@example.com".into(), ..clone(&ada) });
        // However often: what was right does not count.
        for _ in 0..2 * BURST {
            from(&ada, US, home, PASSWORD).await?.wants(201)?;
        }
        let mut guessed = [0; 2];
        for (person, count) in [&ada, &nobody].into_iter().zip(&mut guessed) {
            for try_ in 0..100 {
                let address = format!("203.0.113.{try_}");
                let answer = from(person, REGIONS[try_ % 3], &address, OTHER).await?;
                match answer.status {
                    401 => *count += 1,
                    429 => ensure!(answer.header("retry-after").is_some(), "{answer}"),
                    _ => anyhow::bail!("{answer}"),
                }
            }
        }
        // Three regions that have yet to tell each other let through three bursts at most; an account that
        // is nobody's is bounded like any other.
        ensure!(guessed.iter().all(|count| (BURST..=3 * BURST + 1).contains(count)), "{guessed:?}");
        for region in REGIONS {
            eventually(&format!("told in {region}"), SOON, async || {
                let answer = from(&ada, region, "192.0.2.1", OTHER).await;
                let answer = answer.map_err(|error| format!("{error:#}"))?;
                if answer.status == 429 { Ok(()) } else { Err(answer.to_string()) }
            })
            .await?;
            from(&ada, region, home, PASSWORD).await?.wants(201).context(region)?;
        }
        // One address at many accounts.
        for account in 0..BURST {
            let person = Person { email: format!("a{account}@example.com"), ..clone(&ada) };
            from(&person, EU, "192.0.2.99", OTHER).await?;
        }
        for region in REGIONS {
            let person = Person { email: format!("{region}@example.com"), ..clone(&ada) };
            eventually(&format!("told in {region}"), SOON, async || {
                let answer = from(&person, region, "192.0.2.99", OTHER).await;
                let answer = answer.map_err(|error| format!("{error:#}"))?;
                if answer.status == 429 { Ok(()) } else { Err(answer.to_string()) }
            })
            .await?;
        }
        Ok(())
    })
    .await
}

pub async fn what_one_person_was_answered_is_not_anothers_to_repeat() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("signin-keys").await?;
    let ada = Person::make(&tenant, "ada@example.com", "editor").await?;
    let eve = Person::make(&tenant, "eve@example.com", "editor").await?;
    let mut answers = Vec::new();
    for (person, region) in [(&ada, AP), (&eve, AP), (&eve, EU)] {
        let mut caller = person.sign_in(&cluster, region).await?;
        let ask = caller.ask(region, Method::PATCH, ACCOUNT).header("if-match", "*");
        let ask = ask.and_header("idempotency-key", "one").json(&json!({"name": "Somebody"}));
        let answer = ask.send().await?.wants(200)?;
        ensure!(answer.json()["email"] == person.email.as_str(), "{answer}");
        answers.push(answer);
        // Each asks by the name that they gave it.
        let told = caller.get(region, "/v1/writes/one").await?.wants(200)?;
        ensure!(told.json()["key"] == "one" && told.json()["status"] == "committed", "{told}");
        ensure!(told.json()["response"]["body"]["email"] == person.email.as_str(), "{told}");
    }
    let replayed = |answer: &Answer| answer.header("idempotency-replayed").is_some();
    ensure!(!replayed(&answers[0]) && !replayed(&answers[1]) && replayed(&answers[2]));
    let mut program = tenant.caller.clone();
    let told = program.get(US, "/v1/writes/one").await?.wants(200)?;
    ensure!(told.json()["status"] == "unknown", "{told}");
    Ok(())
}
