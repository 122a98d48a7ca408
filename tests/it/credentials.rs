//! API keys through their life, in every region.

use crate::{
    client::Caller,
    harness::{self, AP, Cluster, EU, REGIONS, SOON, US, eventually},
};
use anyhow::{Context as _, ensure};
use godwit::vocab::{Clock as _, SystemClock};
use reqwest::Method;
use serde_json::json;
use sqlx::Connection as _;
use std::time::Duration;

/// Replication lag, the two seconds for which a credential is believed, and room for a machine
/// that is busy.
const REVOKED_WITHIN: Duration = Duration::from_secs(8);

async fn create(admin: &mut Caller, region: &str) -> anyhow::Result<(String, String)> {
    let wanted = json!({"name": "made here", "scopes": ["read", "write"], "days": 1});
    let made = admin.ask(region, Method::POST, "/v1/admin/keys").json(&wanted).send().await?;
    let made = made.wants(201)?;
    let key = made.json()["key"].as_str().context("no key")?.to_owned();
    Ok((made.id()?, key))
}

pub async fn a_new_key_works_at_once_everywhere_and_an_ended_one_nowhere() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut admin = cluster.caller();
    for (made_in, used_in) in [(US, AP), (AP, EU), (EU, US), (US, EU), (AP, AP)] {
        let (id, key) = create(&mut admin, made_in).await?;
        // No bookmark: the region cannot know yet, and asks the primary.
        let mut user = cluster.caller_with(Some(key));
        user.get(used_in, "/v1/collections").await?.wants(200).context(made_in)?;
        let created = user.create(used_in, "credentials", &json!({})).await?;
        created.wants(201).context(used_in)?;
        let path = format!("/v1/admin/keys/{id}");
        admin.ask(used_in, Method::DELETE, &path).send().await?.wants(204)?;
        let ended_at = SystemClock.monotonic();
        for region in REGIONS {
            eventually("a revoked key is refused", REVOKED_WITHIN, async || {
                let answer = user.fresh().get(region, "/v1/collections").await;
                let answer = answer.map_err(|error| error.to_string())?;
                if answer.problem() == "unauthorized" { Ok(()) } else { Err(answer.to_string()) }
            })
            .await
            .context(region)?;
        }
        ensure!(SystemClock.monotonic() - ended_at < REVOKED_WITHIN, "revoked too late");
        for region in REGIONS {
            let again = user.fresh().create(region, "credentials", &json!({})).await?;
            again.wants_problem(401, "unauthorized").context("revoked, and back")?;
        }
    }
    Ok(())
}

pub async fn a_key_past_its_time_is_refused() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut admin = cluster.caller();
    let (id, key) = create(&mut admin, US).await?;
    // A key lives for a day at least; this one has lived it.
    expire(&cluster, &id).await?;
    for region in REGIONS {
        let mut user = cluster.caller_with(Some(key.clone()));
        eventually("a key past its time is refused", SOON, async || {
            let answer = user.get(region, "/v1/collections").await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.problem() == "unauthorized" { Ok(()) } else { Err(answer.to_string()) }
        })
        .await?;
        let write = user.create(region, "credentials", &json!({})).await?;
        write.wants_problem(401, "unauthorized").context(region)?;
    }
    Ok(())
}

async fn expire(cluster: &Cluster, id: &str) -> anyhow::Result<()> {
    let url = &cluster.region(US).global_db;
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let statement = format!(
        "UPDATE api_key SET created_at = created_at - interval '1 day',
         expires_at = now() - interval '1 second' WHERE id = '{id}'"
    );
    let work = async {
        let changed = client.simple_query(&statement).await?;
        ensure!(matches!(changed[..], [tokio_postgres::SimpleQueryMessage::CommandComplete(1)]));
        Ok(())
    };
    tokio::select! {
        done = work => done,
        ended = connection => Err(anyhow::anyhow!("the connection ended: {ended:?}")),
    }
}

pub async fn a_key_gives_no_more_than_it_has() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let tenant = cluster.tenant("credentials-modest").await?;
    let key = cluster.key(&tenant.name, "admin,read", 1).await?;
    let mut modest = cluster.caller_with(Some(key));
    let greedy = json!({"name": "more", "scopes": ["read", "write"]});
    for region in [US, AP] {
        let ask = modest.ask(region, Method::POST, "/v1/admin/keys").json(&greedy);
        ask.send().await?.wants_problem(403, "forbidden").context(region)?;
    }
    // The secret is shown once, to who made it, and kept nowhere.
    let key = json!({"name": "shown once", "scopes": ["read"]});
    let ask = modest.ask(AP, Method::POST, "/v1/admin/keys").header("idempotency-key", "shown");
    let made = ask.json(&key).send().await?.wants(201)?;
    let secret = made.json()["key"].as_str().context("no key")?.to_owned();
    let ask = modest.ask(AP, Method::POST, "/v1/admin/keys").header("idempotency-key", "shown");
    let again = ask.json(&key).send().await?.wants(201)?;
    ensure!(again.header("idempotency-replayed") == Some("true"), "{again}");
    ensure!(again.json()["id"] == made.json()["id"] && again.json()["key"].is_null(), "{again}");
    for path in ["/v1/admin/keys", "/v1/writes/shown"] {
        let told = modest.get(AP, path).await?.wants(200)?;
        ensure!(!String::from_utf8_lossy(&told.body).contains(&secret), "{path} tells the secret");
    }
    Ok(())
}

/// So that a failover which loses one of them lists it.
pub async fn an_operators_writes_are_in_the_journal() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let name = "credentials-recorded";
    let mut admin = cluster.tenant(name).await?.caller;
    let keys = admin.get(US, "/v1/admin/keys").await?.wants(200)?.json();
    let id = keys["items"][0]["id"].as_str().context("no key")?.to_owned();
    cluster.command(&["key", "revoke", &id]).await?;
    let mut database = sqlx::PgConnection::connect(&cluster.region(US).global_db).await?;
    let recorded: Vec<(String, String)> = sqlx::query_as(
        "SELECT j.actor, j.path FROM write_journal AS j JOIN tenant AS t ON t.id = j.tenant_id
         WHERE t.name = $1 ORDER BY j.committed_at",
    )
    .bind(name)
    .fetch_all(&mut database)
    .await?;
    database.close().await?;
    let by_operator = |command: String| ("operator".to_owned(), command);
    let wanted = [
        by_operator(format!("tenant create {name}")),
        by_operator(format!("key create {id}")),
        by_operator(format!("key revoke {id}")),
    ];
    ensure!(recorded == wanted, "{recorded:?}");
    Ok(())
}
