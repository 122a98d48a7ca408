//! `CloudNativePG`: an API server with one `Cluster` for each region, and what its operator does.

use super::{
    Away, goes_on, instances::Instances, moved, moved_though_killed, open, run_by, seen,
    taken_back_around_silence, tells,
};
use crate::{
    harness::{self, AP, EU, REGIONS, US},
    listener::{self, Answer, Asked},
};
use anyhow::{Context as _, ensure};
use godwit::lab::Spec;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
};

/// How often an object is read before its demotion begins.
const READS: u32 = 3;
const TOKEN: &str = "a-service-account";
const CLUSTERS: &str = "/apis/postgresql.cnpg.io/v1/namespaces/godwit/clusters/";

/// The API server, and the operator.
struct Operator {
    clusters: Mutex<BTreeMap<String, Value>>,
    instances: OnceLock<Instances>,
    /// Promotions, each with the token that it was told.
    promotions: Mutex<Vec<(String, Option<String>)>>,
    failures: Mutex<Vec<String>>,
    away: Away,
    /// A demotion that is begun once its object has been read so often: an operator takes its time.
    demotion: Mutex<Option<(u32, String, Value, Value)>>,
}

fn name(region: &str) -> String {
    format!("godwit-{region}")
}

fn region(name: &str) -> &str {
    name.trim_start_matches("godwit-")
}

/// RFC 7396.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            into.as_object_mut().expect("an object").remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

impl Operator {
    fn new() -> Self {
        let clusters = REGIONS.map(|at| {
            let own = name(at);
            let cluster = json!({
                "apiVersion": "postgresql.cnpg.io/v1",
                "kind": "Cluster",
                "metadata": { "name": own, "namespace": "godwit" },
                "spec": { "replica": { "self": own, "primary": name(US), "source": name(US) } },
                // Of a demotion of long ago.
                "status": { "demotionToken": "of-before" },
            });
            (own, cluster)
        });
        let clusters = Mutex::new(BTreeMap::from(clusters));
        Self {
            clusters,
            instances: OnceLock::new(),
            promotions: Mutex::default(),
            failures: Mutex::default(),
            away: Away::default(),
            demotion: Mutex::default(),
        }
    }

    fn answer(self: &Arc<Self>, asked: &Asked) -> (u16, Value) {
        if self.away.is() {
            return (503, json!({ "kind": "Status", "code": 503, "reason": "ServiceUnavailable" }));
        }
        if asked.authorization != format!("Bearer {TOKEN}") {
            return (401, json!({ "kind": "Status", "code": 401 }));
        }
        let path = asked.path.split('?').next().unwrap_or_default();
        let found = path.strip_prefix(CLUSTERS).unwrap_or_default().to_owned();
        let mut clusters = open(&self.clusters);
        let Some(cluster) = clusters.get_mut(&found) else {
            return (404, json!({ "kind": "Status", "code": 404, "message": path }));
        };
        match asked.method.as_str() {
            "GET" => {
                let told = cluster.clone();
                drop(clusters);
                self.was_read(&found);
                (200, told)
            }
            "PATCH" => {
                let before = cluster["spec"]["replica"].clone();
                let patch = serde_json::from_slice(&asked.body).unwrap_or_default();
                let mut wanted = cluster.clone();
                merge(&mut wanted, &patch);
                // The operator's webhook: "promotionToken is only allowed for primary clusters".
                let replica = &wanted["spec"]["replica"];
                if replica["primary"] != found.as_str() && replica["promotionToken"].is_string() {
                    return (422, json!({ "kind": "Status", "code": 422, "reason": "Invalid" }));
                }
                *cluster = wanted;
                let after = cluster["spec"]["replica"].clone();
                if before["primary"] == found.as_str() && after["primary"] != found.as_str() {
                    *open(&self.demotion) = Some((READS, found, before, after));
                } else {
                    self.at_work(found, before, after);
                }
                (200, cluster.clone())
            }
            _ => (405, json!({ "kind": "Status", "code": 405 })),
        }
    }

    fn was_read(self: &Arc<Self>, cluster: &str) {
        let mut demotion = open(&self.demotion);
        let Some((left, found, before, after)) = demotion.take() else { return };
        if found == cluster && left == 0 {
            self.at_work(found, before, after);
        } else {
            let left = if found == cluster { left - 1 } else { left };
            *demotion = Some((left, found, before, after));
        }
    }

    fn at_work(self: &Arc<Self>, cluster: String, before: Value, after: Value) {
        let operator = Arc::clone(self);
        harness::background(async move {
            if let Err(error) = operator.reconcile(&cluster, &before, &after).await {
                open(&operator.failures).push(format!("{cluster}: {error:#}"));
            }
        });
    }

    async fn reconcile(&self, own: &str, before: &Value, after: &Value) -> anyhow::Result<()> {
        let instances = self.instances.get().context("asked before there is anything to do")?;
        let (was, is) = (before["primary"] == own, after["primary"] == own);
        let source = region(after["source"].as_str().context("a source")?).to_owned();
        if was && !is {
            instances.stop(region(own)).await?;
            let token = format!("of-{own}");
            open(&self.clusters).get_mut(own).context("it")?["status"]["demotionToken"] =
                json!(token);
            return instances.start_behind(region(own), &source).await;
        }
        if is && !was {
            let token = after["promotionToken"].as_str().map(str::to_owned);
            open(&self.promotions).push((region(own).to_owned(), token));
            return instances.promote(region(own)).await;
        }
        if before["source"] != after["source"] {
            instances.point(region(own), &source).await?;
        }
        Ok(())
    }
}

async fn serve(operator: &Arc<Operator>) -> anyhow::Result<SocketAddr> {
    let own = Arc::clone(operator);
    listener::listen(move |asked| {
        let (status, body) = own.answer(&asked);
        async move { Answer { status, kind: "application/json", body: body.to_string() } }
    })
    .await
}

pub async fn an_operator_hands_over_by_its_token_and_fails_over_without() -> anyhow::Result<()> {
    let operator = Arc::new(Operator::new());
    let address = serve(&operator).await?;
    let settings = tempfile::NamedTempFile::new()?;
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "here", "cluster": { "server": format!("http://{address}") } }],
        "users": [{ "name": "godwit", "user": { "token": TOKEN } }],
        "contexts": [{
            "name": "here",
            "context": { "cluster": "here", "user": "godwit", "namespace": "godwit" },
        }],
        "current-context": "here",
    });
    std::fs::write(&settings, kubeconfig.to_string())?;
    let shape = |spec: &mut Spec| {
        run_by(spec, "cloudnativepg", name);
        harness::set(spec, "KUBECONFIG", &settings.path().to_string_lossy());
    };
    harness::own("cloudnativepg", shape, async |cluster| {
        let instances = Instances::of(cluster).await?;
        operator.instances.set(instances).map_err(|_| anyhow::anyhow!("set twice"))?;
        let mut caller = cluster.caller();
        goes_on(&mut caller, "before").await?;

        taken_back_around_silence(cluster, &mut caller, (&operator.away, true), EU).await?;

        let killed = ["fence", "hand over", "promote", "begin", "release"];
        moved_though_killed(cluster, operator.instances.get(), &["switchover", EU], EU, &killed)
            .await?;
        // Each was asked for once, and with what the old primary gave.
        let told = (EU.to_owned(), Some(format!("of-{}", name(US))));
        ensure!(*open(&operator.promotions) == [told], "{:?}", open(&operator.promotions));
        goes_on(&mut caller, "handed over").await?;
        for at in [US, AP] {
            tells(cluster, at, &[("role", json!("replica")), ("streaming", json!(true))]).await?;
        }
        ensure!(seen(&mut caller, US).await? == 9, "what was written before, and after");

        // The region is gone, its operator with it.
        cluster.lab.kill(&harness::region(EU).into()).await?;
        moved(cluster, &["promote", AP, "--accept-data-loss"]).await?;
        ensure!(open(&operator.promotions).last() == Some(&(AP.to_owned(), None)));
        tells(cluster, US, &[("primary", json!(AP)), ("streaming", json!(true))]).await?;
        let cluster_us = open(&operator.clusters)[&name(US)]["spec"]["replica"].clone();
        ensure!(cluster_us["source"] == name(AP), "{cluster_us}");
        let answer =
            caller.create(US, super::COLLECTION, &json!({ "about": "failed over" })).await?;
        answer.wants(201)?;
        let failures = open(&operator.failures).clone();
        ensure!(failures.is_empty(), "{failures:?}");
        Ok(())
    })
    .await
}
