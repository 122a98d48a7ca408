//! RDS and Aurora: the query API (its answers have the shapes of the API Reference), and what is done behind it.

use super::{
    Away, goes_on, instances::Instances, moved, moved_though_killed, open, run_by, seen,
    taken_back_around_silence, tells,
};
use crate::{
    harness::{self, AP, EU, REGIONS, US},
    listener::{self, Answer, Asked},
};
use anyhow::{Context as _, ensure};
use godwit::{lab::Spec, vocab::Bookmark};
use serde_json::json;
use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
};

const GLOBAL: &str = "godwit-global";

/// What the API has of one database, by its region.
#[derive(Debug, Clone)]
struct Database {
    status: &'static str,
    source: Option<String>,
    tags: BTreeMap<String, String>,
}

struct Amazon {
    databases: Mutex<BTreeMap<String, Database>>,
    /// Of the global cluster.
    state: Mutex<(&'static str, String)>,
    instances: OnceLock<Instances>,
    acts: Mutex<Vec<String>>,
    failures: Mutex<Vec<String>>,
    away: Away,
}

fn instance(region: &str) -> String {
    format!("arn:aws:rds:{region}:123456789012:db:godwit-{region}")
}

fn member(region: &str) -> String {
    format!("arn:aws:rds:{region}:123456789012:cluster:godwit-{region}")
}

fn tag_list(of: &Database) -> String {
    let tag = |(key, value): (&String, &String)| {
        format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>")
    };
    of.tags.iter().map(tag).collect()
}

impl Amazon {
    fn new() -> Self {
        let database = |at: &str| Database {
            status: "available",
            source: (at != US).then(|| instance(US)),
            tags: BTreeMap::new(),
        };
        Self {
            databases: Mutex::new(REGIONS.map(|at| (at.to_owned(), database(at))).into()),
            state: Mutex::new(("available", US.to_owned())),
            instances: OnceLock::new(),
            acts: Mutex::default(),
            failures: Mutex::default(),
            away: Away::default(),
        }
    }

    fn at_work(self: &Arc<Self>, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let own = Arc::clone(self);
        harness::background(async move {
            if let Err(error) = work.await {
                open(&own.failures).push(format!("{error:#}"));
            }
        });
    }

    fn answer(self: &Arc<Self>, asked: &Asked) -> (u16, String) {
        if self.away.is() {
            return (503, failure("ServiceUnavailable"));
        }
        let form: BTreeMap<String, String> =
            reqwest::Url::parse(&format!("http://x/?{}", String::from_utf8_lossy(&asked.body)))
                .map(|url| url.query_pairs().into_owned().collect())
                .unwrap_or_default();
        let of = |key: &str| form.get(key).cloned().unwrap_or_default();
        let action = of("Action");
        // Signed for one region: `AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/rds/aws4_request, ...`.
        let region = asked.authorization.split('/').nth(2).unwrap_or_default().to_owned();
        if !asked.authorization.starts_with("AWS4-HMAC-SHA256 ") || !REGIONS.contains(&&*region) {
            return (403, failure("SignatureDoesNotMatch"));
        }
        let done = match action.as_str() {
            "DescribeDBInstances" => self.describe(&of("DBInstanceIdentifier"), "DBInstance"),
            "DescribeDBClusters" => self.describe(&of("DBClusterIdentifier"), "DBCluster"),
            "DescribeGlobalClusters" => Ok(self.describe_global()),
            "AddTagsToResource" => self.tag(&of("ResourceName"), &form),
            "PromoteReadReplica" => self.promote_replica(&of("DBInstanceIdentifier")),
            "SwitchoverGlobalCluster" if region != open(&self.state).1 => {
                Err("InvalidGlobalClusterStateFault")
            }
            "SwitchoverGlobalCluster" | "FailoverGlobalCluster" => {
                self.go_over(&action, &of("TargetDbClusterIdentifier"), &of("AllowDataLoss"))
            }
            _ => Err("InvalidAction"),
        };
        match done {
            Ok(result) => {
                let wrapped = format!(
                    "<{action}Response xmlns=\"http://rds.amazonaws.com/doc/2014-10-31/\">\
                     <{action}Result>{result}</{action}Result></{action}Response>"
                );
                (200, wrapped)
            }
            Err(code) => (400, failure(code)),
        }
    }

    fn describe(&self, identifier: &str, kind: &str) -> Result<String, &'static str> {
        let region = identifier.strip_prefix("godwit-").unwrap_or_default();
        let databases = open(&self.databases);
        let found = databases.get(region).ok_or("DBInstanceNotFound")?;
        let tag = |name: &str, value: &str| format!("<{name}>{value}</{name}>");
        let source = found.source.as_deref();
        let source = source.map(|arn| tag("ReadReplicaSourceDBInstanceIdentifier", arn));
        let mut facts = tag(&format!("{kind}Identifier"), identifier);
        if kind == "DBInstance" {
            facts += &tag("DBInstanceStatus", found.status);
            facts += &source.unwrap_or_default();
        }
        facts += &tag("TagList", &tag_list(found));
        Ok(tag(&format!("{kind}s"), &tag(kind, &facts)))
    }

    fn describe_global(&self) -> String {
        let (status, writer) = open(&self.state).clone();
        let members: String = REGIONS
            .map(|at| {
                format!(
                    "<GlobalClusterMember><DBClusterArn>{}</DBClusterArn><IsWriter>{}</IsWriter>\
                     <SynchronizationStatus>connected</SynchronizationStatus></GlobalClusterMember>",
                    member(at),
                    at == writer
                )
            })
            .concat();
        format!(
            "<GlobalClusters><GlobalClusterMember>\
             <GlobalClusterIdentifier>{GLOBAL}</GlobalClusterIdentifier><Status>{status}</Status>\
             <GlobalClusterMembers>{members}</GlobalClusterMembers></GlobalClusterMember></GlobalClusters>"
        )
    }

    fn tag(&self, arn: &str, form: &BTreeMap<String, String>) -> Result<String, &'static str> {
        let region = arn.split(':').nth(3).unwrap_or_default();
        let mut databases = open(&self.databases);
        let found = databases.get_mut(region).ok_or("DBInstanceNotFound")?;
        let value =
            |end: &str| form.iter().find(|(key, _)| key.ends_with(end)).map(|(_, it)| it.clone());
        let (key, value) = (value(".Key"), value(".Value"));
        found.tags.insert(key.ok_or("InvalidParameter")?, value.ok_or("InvalidParameter")?);
        Ok(String::new())
    }

    fn promote_replica(self: &Arc<Self>, identifier: &str) -> Result<String, &'static str> {
        let region = identifier.strip_prefix("godwit-").unwrap_or_default().to_owned();
        let mut databases = open(&self.databases);
        let found = databases.get_mut(&region).ok_or("DBInstanceNotFound")?;
        if found.status != "available" || found.source.is_none() {
            return Err("InvalidDBInstanceState");
        }
        found.status = "modifying";
        open(&self.acts).push(format!("promote {region}"));
        let own = Arc::clone(self);
        self.at_work(async move {
            let instances = own.instances.get().context("no instances")?;
            instances.promote(&region).await?;
            // It is started again, and by a crash: what it takes for the end of replay then is past the promotion.
            instances.crash(&region).await?;
            let mut databases = open(&own.databases);
            let found = databases.get_mut(&region).context("it")?;
            (found.status, found.source) = ("available", None);
            Ok(())
        });
        Ok(String::new())
    }

    fn go_over(
        self: &Arc<Self>,
        action: &str,
        target: &str,
        loss: &str,
    ) -> Result<String, &'static str> {
        let region = target.split(':').nth(3).unwrap_or_default().to_owned();
        let planned = action == "SwitchoverGlobalCluster";
        let mut state = open(&self.state);
        if state.0 != "available" || (!planned && loss != "true") || !target.starts_with("arn:") {
            return Err("InvalidGlobalClusterStateFault");
        }
        state.0 = if planned { "switching-over" } else { "failing-over" };
        let old = state.1.clone();
        drop(state);
        open(&self.acts).push(format!("{action} {region}"));
        let own = Arc::clone(self);
        self.at_work(async move {
            let instances = own.instances.get().context("no instances")?;
            if planned {
                instances.stop(&old).await?;
            }
            instances.promote(&region).await?;
            let others = REGIONS.into_iter().filter(|at| *at != region && *at != old);
            for other in others {
                instances.point(other, &region).await?;
            }
            if planned {
                instances.start_behind(&old, &region).await?;
            }
            *open(&own.state) = ("available", region);
            Ok(())
        });
        Ok(String::new())
    }
}

fn failure(code: &str) -> String {
    format!("<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>")
}

async fn serve(amazon: &Arc<Amazon>) -> anyhow::Result<SocketAddr> {
    let own = Arc::clone(amazon);
    listener::listen(move |asked| {
        let (status, body) = own.answer(&asked);
        async move { Answer { status, kind: "text/xml", body } }
    })
    .await
}

/// The variables of the SDK's own standard (AWS SDKs and Tools Reference Guide).
fn credentials(spec: &mut Spec, address: SocketAddr) {
    harness::set(spec, "AWS_ENDPOINT_URL_RDS", &format!("http://{address}"));
    harness::set(spec, "AWS_ACCESS_KEY_ID", "somebody");
    harness::set(spec, "AWS_SECRET_ACCESS_KEY", "something");
}

pub async fn a_promoted_replica_is_the_primary_from_where_it_had_replayed() -> anyhow::Result<()> {
    let amazon = Arc::new(Amazon::new());
    let address = serve(&amazon).await?;
    let shape = |spec: &mut Spec| {
        run_by(spec, "rds", instance);
        credentials(spec, address);
    };
    harness::own("rds", shape, async |cluster| {
        let instances = Instances::of(cluster).await?;
        amazon.instances.set(instances).map_err(|_| anyhow::anyhow!("set twice"))?;
        let mut caller = cluster.caller();
        goes_on(&mut caller, "before").await?;

        taken_back_around_silence(cluster, &mut caller, (&amazon.away, false), EU).await?;

        moved_though_killed(
            cluster,
            amazon.instances.get(),
            &["switchover", EU],
            EU,
            &["fence", "promote", "begin", "release"],
        )
        .await?;
        ensure!(*open(&amazon.acts) == [format!("promote {EU}")], "{:?}", open(&amazon.acts));
        goes_on(&mut caller, "promoted").await?;
        ensure!(seen(&mut caller, EU).await? == 9, "what was written before, and after");
        // The epoch began where the tag says that replay was, which a restart had Postgres forget.
        let kept = open(&amazon.databases)[EU].tags["godwit:promoted-from"].clone();
        let begun =
            &crate::failover::report(cluster, EU).await.map_err(anyhow::Error::msg)?["epochs"];
        let begun = begun.as_array().and_then(|all| all.last()).context("an epoch")?.clone();
        let from: Bookmark = kept.parse()?;
        // The second was promised to the move that was taken back, by which the third began where the first did.
        ensure!(from.epoch.get() == 3, "{kept}");
        ensure!(begun["start_lsn"] == from.lsn.to_string(), "{begun}, {kept}");
        // The old primary takes nothing. What it logs by itself goes on to who follows it, where it would be
        // taken for writes that the new epoch lost.
        tells(cluster, US, &[("primary", json!(EU)), ("writable", json!(false))]).await?;
        let instances = amazon.instances.get().context("instances")?;
        instances.logs_by_itself(US).await?;
        let apart = json!("quarantined: it went on where its epoch had ended; `godwit rejoin` it");
        let strayed = [("primary", json!(EU)), ("streaming", json!(true)), ("quarantine", apart)];
        let mut other = caller.fresh();
        let mut reading = async || {
            for region in [AP, EU] {
                let read = other.get(region, "/v1/collections/moved/items?limit=1").await?;
                ensure!(read.status == 200, "{region}: {read}");
            }
            anyhow::Ok(())
        };
        let strays = tells(cluster, AP, &strayed);
        tokio::pin!(strays);
        loop {
            tokio::select! {
                strayed = &mut strays => break strayed?,
                read = reading() => read?,
            }
        }
        reading().await?;
        let failures = open(&amazon.failures).clone();
        ensure!(failures.is_empty(), "{failures:?}");
        Ok(())
    })
    .await
}

pub async fn a_global_cluster_goes_over_with_all_its_regions() -> anyhow::Result<()> {
    let amazon = Arc::new(Amazon::new());
    let address = serve(&amazon).await?;
    let shape = |spec: &mut Spec| {
        run_by(spec, "aurora", member);
        harness::set(spec, "GODWIT__FAILOVER__GLOBAL_DATABASE", GLOBAL);
        credentials(spec, address);
    };
    harness::own("aurora", shape, async |cluster| {
        let instances = Instances::of(cluster).await?;
        amazon.instances.set(instances).map_err(|_| anyhow::anyhow!("set twice"))?;
        let mut caller = cluster.caller();
        goes_on(&mut caller, "before").await?;

        let killed = ["fence", "promote", "begin", "release"];
        moved_though_killed(cluster, amazon.instances.get(), &["switchover", EU], EU, &killed)
            .await?;
        goes_on(&mut caller, "switched over").await?;
        for at in [US, AP] {
            tells(cluster, at, &[("role", json!("replica")), ("streaming", json!(true))]).await?;
        }
        ensure!(seen(&mut caller, US).await? == 6, "what was written before, and after");
        cluster.lab.kill(&harness::region(EU).into()).await?;
        moved(cluster, &["promote", AP, "--accept-data-loss"]).await?;
        let acts = open(&amazon.acts).clone();
        let wanted =
            [format!("SwitchoverGlobalCluster {EU}"), format!("FailoverGlobalCluster {AP}")];
        ensure!(acts == wanted, "{acts:?}");
        tells(cluster, US, &[("primary", json!(AP)), ("streaming", json!(true))]).await?;
        let answer =
            caller.create(US, super::COLLECTION, &json!({ "about": "failed over" })).await?;
        answer.wants(201)?;
        let failures = open(&amazon.failures).clone();
        ensure!(failures.is_empty(), "{failures:?}");
        Ok(())
    })
    .await
}
