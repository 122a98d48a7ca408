//! Aurora for `PostgreSQL`: a global cluster, whose storage replicates and whose regions all go over at once
//! (Amazon Aurora User Guide, "Using switchover or failover in Amazon Aurora Global Database").

use super::{
    Acting, ControlError, Promotion,
    aws::{Api, Arn, client, promoted_from},
    managed::{Managing, Told},
};
use crate::{
    config::Config,
    vocab::{Bookmark, Platform},
};
use aws_sdk_rds::types::{GlobalCluster, GlobalClusterMemberSynchronizationStatus as Connected};

/// What a global cluster is that takes orders.
const AVAILABLE: &str = "available";

pub(super) struct Aurora {
    api: Api,
    global: String,
    /// The ARN of this region's cluster, when the setting is one.
    own: Option<Arn>,
}

impl Aurora {
    pub fn new(config: &Config) -> Self {
        let own = config.regions.get(&config.region).and_then(|own| own.database.as_deref());
        let own = own.and_then(|arn| Arn::parse(arn, "cluster"));
        let global = config.failover.global_database.clone().unwrap_or_default();
        Self { api: Api::new(Self::PLATFORM), global, own }
    }

    fn own(&self) -> Result<&Arn, ControlError> {
        self.own
            .as_ref()
            .ok_or(ControlError::NotConfigured("regions.NAME.database (the cluster's ARN)"))
    }

    async fn describe(&self) -> Result<GlobalCluster, ControlError> {
        let client = self.api.client(&self.own()?.region).await;
        let found = client.describe_global_clusters().global_cluster_identifier(&self.global);
        let found = found.send().await;
        let found = found.map_err(|error| self.api.failed("describe the global cluster", error))?;
        found.global_clusters().first().cloned().ok_or_else(|| {
            ControlError::Refused(format!("Aurora knows no global cluster {}", self.global))
        })
    }

    async fn look(&self) -> Result<Told, ControlError> {
        let own = self.own()?;
        let global = self.describe().await?;
        let members = global.global_cluster_members();
        let is_own = |arn: Option<&str>| arn == Some(own.text.as_str());
        let Some(member) = members.iter().find(|member| is_own(member.db_cluster_arn())) else {
            return Err(ControlError::Refused(format!(
                "{} has no member {}",
                self.global, own.text
            )));
        };
        let receiving = member.synchronization_status() == Some(&Connected::Connected);
        let status = global.status().unwrap_or("unknown");
        let client = self.api.client(&own.region).await;
        let found = client.describe_db_clusters().db_cluster_identifier(&own.name).send().await;
        let found = found.map_err(|error| self.api.failed("describe the cluster", error))?;
        let tags = found.db_clusters().first().map(|cluster| cluster.tag_list().to_vec());
        Ok(Told {
            follows: writer(&global).filter(|arn| *arn != own.text).map(str::to_owned),
            receiving: Some(receiving),
            promoted_from: promoted_from(&tags.unwrap_or_default()),
            busy: (status != AVAILABLE).then(|| status.to_owned()),
        })
    }

    async fn go_over(&self, how: &Promotion, from: Bookmark) -> Result<(), ControlError> {
        let own = self.own()?;
        if !how.planned && !how.accepts_loss {
            let why =
                "Aurora fails over with --accept-data-loss alone: it does not tell what is lost";
            return Err(ControlError::Refused(why.to_owned()));
        }
        self.api.keep(own, from).await?;
        if how.planned {
            let global = self.describe().await?;
            let old = writer(&global).and_then(|arn| Arn::parse(arn, "cluster"));
            let old = old.ok_or_else(|| ControlError::Refused("no cluster takes writes".into()))?;
            // The region that has the writer is asked for a switchover, the one that is to have it for a
            // failover.
            let asked = client(old.region).await.switchover_global_cluster();
            let asked = asked.global_cluster_identifier(&self.global);
            let asked = asked.target_db_cluster_identifier(&own.text).send().await;
            return asked.map(drop).map_err(|error| self.api.failed("switch over", error));
        }
        let asked = self.api.client(&own.region).await.failover_global_cluster();
        let asked = asked.global_cluster_identifier(&self.global).allow_data_loss(true);
        let asked = asked.target_db_cluster_identifier(&own.text).send().await;
        asked.map(drop).map_err(|error| self.api.failed("fail over", error))
    }
}

fn writer(global: &GlobalCluster) -> Option<&str> {
    let members = global.global_cluster_members();
    members.iter().find(|member| member.is_writer() == Some(true))?.db_cluster_arn()
}

impl Managing for Aurora {
    const PLATFORM: Platform = Platform::Aurora;
    const NOT_REMADE: &'static str = "Aurora brings a region of its global cluster back by itself \
        (docs/RUNBOOK.md, \"The database is run by a platform\")";

    fn told(&self) -> Acting<'_, Told> {
        Box::pin(self.look())
    }

    fn promote<'a>(&'a self, how: &'a Promotion, from: Bookmark) -> Acting<'a, ()> {
        Box::pin(self.go_over(how, from))
    }

    /// The switchover itself does it.
    fn hand_over<'a>(&'a self, _to: &'a str) -> Acting<'a, Option<String>> {
        Box::pin(async { Ok(None) })
    }

    fn follow<'a>(&'a self, name: &'a str) -> Acting<'a, ()> {
        Box::pin(async move {
            Err(ControlError::Underway(format!("Aurora has it follow another than {name} still")))
        })
    }
}
