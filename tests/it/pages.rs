//! The pages, as a browser without script uses them; `tests/pages` has what a person sees.

use crate::{
    client::Answer,
    harness::{self, AP, Cluster, EU, US},
    signin::{ACCOUNT, PASSWORD, Person, SESSION, is_out, knows},
};
use anyhow::{Context as _, ensure};
use reqwest::Method;
use std::collections::BTreeMap;

const FORM: &str = "application/x-www-form-urlencoded";
const OTHER: &str = "seven-teapots-at-noon";

/// A browser: its cookies, and the page it shows.
pub struct Browser<'a> {
    cluster: &'a Cluster,
    cookies: BTreeMap<String, String>,
    page: String,
}

impl<'a> Browser<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, cookies: BTreeMap::new(), page: String::new() }
    }

    async fn send(
        &mut self,
        region: &str,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
        site: &str,
    ) -> anyhow::Result<Answer> {
        let mut caller = self.cluster.caller_with(None);
        let mut ask = caller.ask(region, method.clone(), path);
        ask = ask.header("sec-fetch-site", site).header("sec-fetch-mode", "navigate");
        if !self.cookies.is_empty() {
            let all: Vec<_> = self.cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
            ask = ask.header("cookie", &all.join("; "));
        }
        if method == Method::POST {
            let body = reqwest::Url::parse_with_params("http://form/", fields)?;
            ask = ask.body(FORM, body.query().unwrap_or_default().to_owned());
        }
        let answer = ask.send().await?;
        for line in answer.headers.get_all("set-cookie") {
            let line = line.to_str()?;
            let pair = line.split(';').next().and_then(|pair| pair.split_once('='));
            let (name, value) = pair.with_context(|| line.to_owned())?;
            if line.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        if answer.status == 200 {
            self.page = String::from_utf8(answer.body.to_vec())?;
        }
        Ok(answer)
    }

    pub async fn get(&mut self, region: &str, path: &str) -> anyhow::Result<Answer> {
        self.send(region, Method::GET, path, &[], "same-origin").await
    }

    /// Sends a form of the page that is shown.
    async fn post(
        &mut self,
        region: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let hidden = ["csrf", "once", "version"].map(|name| (name, self.hidden(name)));
        let hidden = hidden.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        let all: Vec<_> = hidden.chain(fields.iter().copied()).collect();
        self.send(region, Method::POST, path, &all, "same-origin").await
    }

    /// Sends it, and looks at the page that comes of it.
    async fn done(
        &mut self,
        region: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let answer = self.post(region, path, fields).await?.wants(303)?;
        let next = answer.header("location").context("where to go on")?.to_owned();
        self.get(region, &next).await?.wants(200)?;
        Ok(())
    }

    fn hidden(&self, name: &str) -> Option<String> {
        let (_, rest) = self.page.split_once(&format!("name=\"{name}\" value=\""))?;
        Some(rest.split('"').next()?.replace("&#34;", "\""))
    }

    pub async fn sign_in(&mut self, region: &str, person: &Person) -> anyhow::Result<()> {
        self.get(region, "/sign-in").await?.wants(200)?;
        let Person { tenant, email, .. } = person;
        let fields = [("tenant", &**tenant), ("email", email), ("password", PASSWORD)];
        self.done(region, "/sign-in", &fields).await
    }

    fn shows(&self, text: &str) -> anyhow::Result<()> {
        ensure!(self.page.contains(text), "no {text:?} in {}", self.page);
        Ok(())
    }

    /// The tokens of its accounts.
    fn tokens(&self) -> Vec<String> {
        let all = self.cookies.get("__Host-godwit_session").map_or("", String::as_str);
        all.split('~').filter(|token| !token.is_empty()).map(str::to_owned).collect()
    }
}

pub async fn a_person_lives_on_the_pages_of_every_region() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("pages-life").await?;
    let mut browser = Browser::new(&cluster);
    browser.get(AP, "/").await?.wants(303)?;
    browser.get(AP, "/account").await?.wants(303)?;
    browser.get(AP, "/register").await?.wants(200)?;
    let fields = [("tenant", &*tenant.name), ("email", "ada@example.com"), ("name", "Ada")];
    let weak = [&fields[..], &[("password", "password")]].concat();
    let refused = browser.post(AP, "/register", &weak).await?.wants(422)?;
    let text = String::from_utf8_lossy(&refused.body);
    ensure!(text.contains("ada@example.com") && text.contains("too easy to guess"), "{text}");
    browser.done(AP, "/register", &[&fields[..], &[("password", PASSWORD)]].concat()).await?;
    let ada = Person {
        id: String::new(),
        tenant: tenant.name.clone(),
        email: "ada@example.com".to_owned(),
    };
    browser.sign_in(EU, &ada).await?;
    // What was written is seen in every region at once: the bookmark comes along.
    browser.get(AP, "/account/name").await?.wants(200)?;
    browser.done(AP, "/account/name", &[("name", "Ada <King>")]).await?;
    for region in [EU, US, AP] {
        browser.get(region, "/account").await?.wants(200)?;
        browser.shows("Ada &#60;King&#62;")?;
    }
    let mut other = Browser::new(&cluster);
    other.sign_in(US, &ada).await?;
    browser.get(EU, "/account/password").await?.wants(200)?;
    let fields = [("current_password", OTHER), ("password", OTHER)];
    browser.post(EU, "/account/password", &fields).await?.wants(422)?;
    let fields = [("current_password", PASSWORD), ("password", OTHER)];
    browser.done(EU, "/account/password", &fields).await?;
    let token = other.tokens().remove(0);
    is_out(&cluster.caller_with(Some(token)), US).await?;
    let over = other.get(US, "/sessions").await?.wants(303)?;
    ensure!(over.header("location") == Some("/sign-in?done=over"), "{over}");
    ensure!(other.tokens().is_empty(), "a session that is over is kept");
    browser.done(US, "/sign-out", &[]).await?;
    ensure!(browser.tokens().is_empty(), "signed out, and yet a token is kept");
    browser.shows("You are signed out.")?;
    Ok(())
}

pub async fn a_form_is_done_once_and_only_for_whom_it_was_shown_to() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("pages-once").await?;
    let ada = Person::make(&tenant, "ada@example.com", "viewer").await?;
    let eve = Person::make(&tenant, "eve@example.com", "viewer").await?;
    // Twice, of the same page.
    let mut new = Browser::new(&cluster);
    new.get(AP, "/register").await?.wants(200)?;
    let fields = [
        ("tenant", &*tenant.name),
        ("email", "new@example.com"),
        ("name", "New"),
        ("password", PASSWORD),
    ];
    for _ in 0..2 {
        new.post(AP, "/register", &fields).await?.wants(303)?;
    }
    // With another password it is not what was done: nobody is told that it is set.
    let other = [&fields[..3], &[("password", OTHER)]].concat();
    new.post(AP, "/register", &other).await?.wants(422)?;
    let mut browser = Browser::new(&cluster);
    browser.sign_in(US, &ada).await?;
    let mut second = Browser::new(&cluster);
    second.sign_in(US, &ada).await?;
    let mut hers = Browser::new(&cluster);
    hers.sign_in(US, &eve).await?;
    browser.get(EU, "/account/name").await?.wants(200)?;
    hers.get(EU, "/account/name").await?.wants(200)?;
    second.get(EU, "/account/name").await?.wants(200)?;
    let tag = browser.hidden("csrf").context("a tag")?;
    let version = browser.hidden("version").context("a version")?;
    let strangers = [hers.hidden("csrf"), second.hidden("csrf"), new.hidden("csrf"), None];
    let post = async |browser: &mut Browser<'_>, tag: Option<&str>, site: &str| {
        let fields = [("name", "Changed"), ("version", &*version), ("csrf", tag.unwrap_or(""))];
        browser.send(EU, Method::POST, "/account/name", &fields, site).await
    };
    for stranger in &strangers {
        post(&mut browser, stranger.as_deref(), "same-origin").await?.wants(403)?;
    }
    for site in ["same-site", "cross-site", "none"] {
        post(&mut browser, Some(&tag), site).await?.wants(403)?;
    }
    // The session of somebody else is none of hers.
    browser.get(EU, "/sessions").await?.wants(200)?;
    let (_, id) = browser.page.split_once("/sessions/").context("another session")?;
    let path = format!("/sessions/{}/end", id.split('/').next().unwrap_or_default());
    hers.get(EU, "/account").await?.wants(200)?;
    hers.post(EU, &path, &[]).await?.wants(404)?;
    second.get(EU, "/account").await?.wants(200)?;
    // Shown to this browser in this session: in any region.
    browser.get(EU, "/account").await?.wants(200)?;
    browser.shows("Ada King")?;
    post(&mut browser, Some(&tag), "same-origin").await?.wants(303)?;
    browser.get(AP, "/account").await?.wants(200)?;
    browser.shows("Changed")?;
    Ok(())
}

pub async fn a_browser_keeps_three_accounts() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("pages-three").await?;
    let mut people = Vec::new();
    for name in ["one", "two", "three", "four"] {
        people.push(Person::make(&tenant, &format!("{name}@example.com"), "viewer").await?);
    }
    let mut browser = Browser::new(&cluster);
    let mut first = None;
    for (person, region) in people.iter().zip([US, EU, AP, US]) {
        browser.sign_in(region, person).await?;
        first = first.or_else(|| browser.tokens().pop());
        browser.shows(&person.email)?;
    }
    ensure!(browser.tokens().len() == 3, "{} accounts", browser.tokens().len());
    // Nobody holds its token any more.
    is_out(&cluster.caller_with(first), EU).await?;
    browser.get(EU, "/accounts").await?.wants(200)?;
    for (person, there) in people.iter().zip([false, true, true, true]) {
        ensure!(browser.page.contains(&person.email) == there, "{}", person.email);
    }
    // Again as one of them: its session before is ended.
    let before = browser.tokens();
    browser.sign_in(AP, &people[2]).await?;
    ensure!(browser.tokens().len() == 3, "{} accounts", browser.tokens().len());
    is_out(&cluster.caller_with(Some(before[1].clone())), US).await?;
    browser.get(US, "/accounts").await?.wants(200)?;
    let session = browser.hidden("session").context("another account")?;
    browser.done(US, "/accounts/switch", &[("session", &session)]).await?;
    browser.shows(&people[3].email)?;
    let nobodys = [("session", &*people[0].id)];
    browser.get(US, "/accounts").await?.wants(200)?;
    browser.post(US, "/accounts/switch", &nobodys).await?.wants(404)?;
    // What is ended elsewhere gives way to the next account.
    let mut active = cluster.caller_with(browser.tokens().first().cloned());
    active.ask(EU, Method::DELETE, SESSION).send().await?.wants(204)?;
    is_out(&active, US).await?;
    let next = browser.get(US, "/account").await?.wants(303)?;
    ensure!(next.header("location") == Some("/accounts?done=other"), "{next}");
    browser.get(US, "/account").await?.wants(200)?;
    browser.shows(&people[2].email)?;
    browser.done(US, "/sign-out", &[]).await?;
    browser.shows(&people[1].email)?;
    let last = browser.tokens();
    ensure!(last.len() == 1, "{} accounts", last.len());
    knows(&cluster.caller_with(last.first().cloned()), EU).await?.wants(200)?;
    Ok(())
}

pub async fn what_is_no_form_of_ours_is_refused_by_a_page() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut visitor = cluster.caller_with(None);
    // Not even read without what a browser would bring.
    let ask = visitor.ask(EU, Method::POST, "/sign-in").body(FORM, vec![b'a'; 3 << 20]);
    is_page(&ask.send().await?.wants(403)?)?;
    for (kind, body, status) in [
        ("application/json", b"{}".to_vec(), 415),
        (FORM, Vec::new(), 403),
        (FORM, vec![0xff], 400),
        (FORM, vec![b'a'; 3 << 20], 413),
    ] {
        let ask = visitor.ask(EU, Method::POST, "/sign-in").header("sec-fetch-site", "same-origin");
        let ask = ask.header("cookie", "__Host-godwit_form=AAAAAAAAAAAAAAAAAAAAAA");
        is_page(&ask.body(kind, body).send().await?.wants(status)?)?;
    }
    // What is longer once it is encoded than a URI may be.
    for length in [22_000, 60_000] {
        let path = format!("/sessions?cursor={}", "!".repeat(length));
        visitor.get(EU, &path).await?.wants(303)?;
    }
    let put = visitor.ask(EU, Method::PUT, "/account").send().await?.wants(405)?;
    ensure!(put.header("allow") == Some("GET, HEAD"), "{put}");
    let post = visitor.ask(EU, Method::POST, "/account").body(FORM, "").send().await?;
    is_page(&post.wants(405)?)?;
    // An invented account is nobody's; the page goes on to where one signs in, and forgets it.
    let invented = "__Host-godwit_session=v1.eu-west-1.x.y";
    let out = visitor.ask(EU, Method::GET, "/account").header("cookie", invented).send().await?;
    let out = out.wants(303)?;
    ensure!(out.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")), "{out}");
    let style = visitor.get(EU, "/pages.css").await?.wants(200)?;
    ensure!(style.header("content-type") == Some("text/css; charset=utf-8"), "{style}");
    visitor.get(EU, ACCOUNT).await?.wants_problem(401, "unauthorized")?;
    Ok(())
}

fn is_page(answer: &Answer) -> anyhow::Result<()> {
    ensure!(answer.header("content-type") == Some("text/html; charset=utf-8"), "{answer}");
    let policy = answer.header("content-security-policy").unwrap_or_default();
    ensure!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{answer}");
    ensure!(answer.header("cache-control") == Some("no-store"), "{answer}");
    Ok(())
}
