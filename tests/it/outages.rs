//! Who is signed in while something is broken.

use crate::{
    harness::{self, AP, EU, REGIONS, SOON, Tenant, US, eventually, region},
    pages::Browser,
    signin::{ACCOUNT, PASSWORD, Person, SESSION, is_in, is_out, knows},
};
use anyhow::{Context as _, ensure};
use deadpool_redis::redis::{Client, cmd};
use godwit::lab::Spec;
use reqwest::Method;
use serde_json::json;

fn of(name: &str) -> godwit::lab::Target {
    region(name).into()
}

/// Waits until a region's replica knows of so many sessions.
async fn recorded(tenant: &Tenant, person: &Person, at: &str, count: usize) -> anyhow::Result<()> {
    let path = format!("/v1/admin/users/{}/sessions", person.id);
    let mut admin = tenant.caller.fresh();
    eventually(&format!("{count} sessions in {at}"), SOON, async || {
        let list = admin.get(at, &path).await.and_then(|list| list.wants(200)?.items());
        let list = list.map_err(|error| format!("{error:#}"))?;
        if list.len() == count { Ok(()) } else { Err(format!("{list:?}")) }
    })
    .await
}

pub async fn a_session_outlives_its_region_and_its_redis() -> anyhow::Result<()> {
    harness::own(
        "outlives",
        |_: &mut Spec| {},
        async |cluster| {
            let tenant = cluster.tenant("outlives").await?;
            let ada = Person::make(&tenant, "ada@example.com", "viewer").await?;
            let mut people = Vec::new();
            for _ in 0..5 {
                people.push(ada.sign_in(cluster, AP).await?);
            }
            // A Redis that is back with nothing in it.
            for name in [AP, EU] {
                recorded(&tenant, &ada, name, people.len()).await?;
                cluster.lab.kill(&format!("{name}/redis").parse()?).await?;
                // While it is away the directory knows.
                knows(&people[0], name).await?.wants(200).context(name)?;
                cluster.lab.restart(&of(name)).await?;
                for person in &people {
                    knows(person, name).await?.wants(200).context(name)?;
                }
            }
            // What was ended before is not known again by that.
            let mut out = ada.sign_in(cluster, AP).await?;
            out.ask(AP, Method::DELETE, SESSION).send().await?.wants(204)?;
            is_out(&out, EU).await?;
            cluster.lab.kill(&format!("{AP}/redis").parse()?).await?;
            cluster.lab.restart(&of(AP)).await?;
            is_out(&out, AP).await?;
            // Everything of the region that they signed in at.
            cluster.lab.kill(&of(AP)).await?;
            for name in [US, EU] {
                for person in &people {
                    knows(person, name).await?.wants(200).context(name)?;
                }
                knows(&out, name).await?.wants(401)?;
            }
            Ok(())
        },
    )
    .await
}

pub async fn without_a_primary_people_sign_in_and_out_and_it_is_recorded_later()
-> anyhow::Result<()> {
    harness::own(
        "leaderless",
        |_: &mut Spec| {},
        async |cluster| {
            let tenant = cluster.tenant("leaderless").await?;
            let ada = Person::make(&tenant, "ada@example.com", "viewer").await?;
            let eve = Person::make(&tenant, "eve@example.com", "viewer").await?;
            let before = ada.sign_in(cluster, EU).await?;
            let lost = ada.sign_in(cluster, US).await?;
            for name in [EU, AP] {
                recorded(&tenant, &ada, name, 2).await?;
            }
            cluster.lab.kill(&of(US)).await?;
            let mut begun = Vec::new();
            for name in [EU, AP, EU] {
                begun.push(ada.sign_in(cluster, name).await?);
            }
            let hers = eve.sign_in(cluster, AP).await?;
            // Who signed in at the region that is gone is still signed in.
            for name in [EU, AP] {
                for person in begun.iter().chain([&before, &lost, &hers]) {
                    knows(person, name).await?.wants(200).context(name)?;
                }
            }
            // Out at a region that did not begin it: the others are told at once.
            let mut out = begun.remove(0);
            out.ask(AP, Method::DELETE, SESSION).send().await?.wants(204)?;
            let mut gone = before.clone();
            gone.ask(EU, Method::DELETE, SESSION).send().await?.wants(204)?;
            for person in [&out, &gone] {
                for name in [EU, AP] {
                    is_out(person, name).await?;
                }
            }
            cluster.command(&["promote", EU, "--yes", "--accept-data-loss"]).await?;
            for name in [EU, AP] {
                recorded(&tenant, &ada, name, 3).await?;
            }
            for name in [EU, AP] {
                for person in begun.iter().chain([&lost, &hers]) {
                    knows(person, name).await?.wants(200).context(name)?;
                }
                for person in [&out, &gone] {
                    knows(person, name).await?.wants(401).context(name)?;
                }
            }
            // Written through the next primary as anybody's are.
            let mut person = hers.clone();
            let etag = person.get(AP, ACCOUNT).await?.wants(200)?.etag()?;
            let ask = person.ask(AP, Method::PATCH, ACCOUNT).header("if-match", &etag);
            ask.json(&json!({"name": "Eve"})).send().await?.wants(200)?;
            Ok(())
        },
    )
    .await
}

pub async fn what_no_primary_has_recorded_outlives_the_region_that_did_it() -> anyhow::Result<()> {
    harness::own(
        "unrecorded",
        |_: &mut Spec| {},
        async |cluster| {
            let tenant = cluster.tenant("unrecorded").await?;
            let ada = Person::make(&tenant, "ada@example.com", "viewer").await?;
            let mut out = ada.sign_in(cluster, AP).await?;
            let mut last = ada.sign_in(cluster, AP).await?;
            for name in [EU, AP] {
                recorded(&tenant, &ada, name, 2).await?;
            }
            cluster.lab.kill(&of(US)).await?;
            let mut begun = Vec::new();
            for _ in 0..3 {
                begun.push(ada.sign_in(cluster, AP).await?);
            }
            out.ask(AP, Method::DELETE, SESSION).send().await?.wants(204)?;
            knows(&out, EU).await?.wants(401)?;
            // Its Redis is not told of this one, and has it when it goes on.
            let redis = format!("{AP}/redis").parse()?;
            cluster.lab.pause(&redis)?;
            last.ask(AP, Method::DELETE, SESSION).send().await?.wants(204)?;
            cluster.lab.resume(&redis)?;
            knows(&last, AP).await?.wants(401)?;
            // Without its Redis it has its directory, which has not heard of the end.
            cluster.lab.kill(&redis).await?;
            knows(&out, AP).await?.wants(401)?;
            cluster.lab.restart(&of(AP)).await?;
            knows(&out, AP).await?.wants(401)?;
            // It has forgotten all of it.
            cluster.lab.kill(&of(AP)).await?;
            knows(&begun[0], EU).await?.wants(200)?;
            cluster.lab.restart(&of(AP)).await?;
            for person in &begun {
                is_in(person, AP).await?;
            }
            for person in [&out, &last] {
                is_out(person, AP).await?;
            }
            cluster.lab.kill(&of(AP)).await?;
            cluster.lab.restart(&of(US)).await?;
            for name in [EU, US] {
                recorded(&tenant, &ada, name, begun.len()).await?;
                for person in [&out, &last] {
                    is_out(person, name).await?;
                }
                for person in &begun {
                    knows(person, name).await?.wants(200).context(name)?;
                }
            }
            Ok(())
        },
    )
    .await
}

pub async fn a_region_that_was_cut_off_ends_what_was_ended_meanwhile() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let name = format!("cut-off-{}", std::process::id());
        let tenant = cluster.tenant(&name).await?;
        let ada = Person::make(&tenant, "ada@example.com", "admin").await?;
        let old = ada.sign_in(cluster, AP).await?;
        let mut own = ada.sign_in(cluster, US).await?;
        for at in REGIONS {
            knows(&old, at).await?.wants(200)?;
            recorded(&tenant, &ada, at, 2).await?;
        }
        for peer in [US, EU] {
            cluster.lab.cut(&region(peer), &region(AP))?;
        }
        // A row that comes late, of somebody who has been signed out everywhere meanwhile.
        let late = ada.sign_in(cluster, AP).await?;
        own.ask(US, Method::POST, "/v1/sessions:end-others").send().await?.wants(204)?;
        is_out(&old, EU).await?;
        // Cut off, it cannot know; where it matters it does not guess.
        eventually("a replica that knows that it is old", SOON, async || {
            let answer = old.fresh().get(AP, "/v1/admin/users").await;
            let answer = answer.map_err(|error| format!("{error:#}"))?;
            if answer.status == 503 { Ok(()) } else { Err(answer.to_string()) }
        })
        .await?;
        knows(&old, AP).await?.wants(200)?;
        cluster.lab.heal();
        for at in [AP, EU, US] {
            is_out(&old, at).await?;
            is_out(&late, at).await?;
        }
        for at in REGIONS {
            knows(&own, at).await?.wants(200)?;
        }
        ensure!(ada.try_in(cluster, AP, PASSWORD).await?.status == 201);
        Ok(())
    })
    .await
}

pub async fn a_page_offers_to_sign_in_again_where_nobody_can_tell() -> anyhow::Result<()> {
    harness::own(
        "again",
        |_: &mut Spec| {},
        async |cluster| {
            let tenant = cluster.tenant("again").await?;
            let ada = Person::make(&tenant, "ada@example.com", "viewer").await?;
            for name in [EU, AP] {
                recorded(&tenant, &ada, name, 0).await?;
            }
            // Nobody records it, nobody else is told, and the region that began it goes.
            cluster.lab.kill(&of(US)).await?;
            cluster.lab.cut(&region(AP), &region(EU))?;
            let mut browser = Browser::new(cluster);
            browser.sign_in(AP, &ada).await?;
            cluster.lab.kill(&of(AP)).await?;
            let page = browser.get(EU, "/account").await?.wants(503)?;
            ensure!(page.header("retry-after").is_some(), "{page}");
            let text = String::from_utf8_lossy(&page.body);
            ensure!(text.contains("href=\"/sign-in\""), "{text}");
            browser.sign_in(EU, &ada).await?;
            browser.get(EU, "/account").await?.wants(200)?;
            Ok(())
        },
    )
    .await
}

pub async fn a_full_redis_keeps_nobody_from_signing_in_or_out() -> anyhow::Result<()> {
    harness::faulty(async |cluster| {
        let name = format!("full-{}", std::process::id());
        let tenant = cluster.tenant(&name).await?;
        let ada = Person::make(&tenant, "ada@example.com", "viewer").await?;
        recorded(&tenant, &ada, AP, 0).await?;
        let before = ada.sign_in(cluster, AP).await?;
        recorded(&tenant, &ada, AP, 1).await?;
        let client = Client::open(cluster.region(AP).redis.as_str())?;
        let mut redis = client.get_multiplexed_async_connection().await?;
        let mut limit = async |bytes: &str| {
            let mut set = cmd("CONFIG");
            set.arg("SET").arg("maxmemory").arg(bytes);
            set.query_async::<()>(&mut redis).await
        };
        limit("1").await?;
        let outcome = async {
            // The directory has it in time, and is all there is.
            let mut during = ada.sign_in(cluster, AP).await?;
            for region in REGIONS {
                knows(&during, region).await?.wants(200).context(region)?;
                knows(&before, region).await?.wants(200).context(region)?;
            }
            during.ask(AP, Method::DELETE, SESSION).send().await?.wants(204)?;
            for region in REGIONS {
                is_out(&during, region).await?;
            }
            Ok(())
        }
        .await;
        limit("256mb").await?;
        outcome
    })
    .await
}
