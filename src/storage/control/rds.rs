//! RDS for `PostgreSQL`: `PromoteReadReplica`, for good. A replica follows who it was made from and nobody
//! else; an old primary never becomes one (Amazon RDS User Guide, "Working with DB instance read replicas").

use super::{
    Acting, ControlError, Promotion,
    aws::{Api, Arn, promoted_from},
    managed::{Managing, Told},
};
use crate::{
    config::Config,
    vocab::{Bookmark, Platform},
};

/// What an instance is while it is promoted. Others may last for hours, and stop nothing.
const AT_IT: [&str; 2] = ["modifying", "rebooting"];

pub(super) struct Rds {
    api: Api,
    /// Its ARN, when the setting is one.
    own: Option<Arn>,
}

impl Rds {
    pub fn new(config: &Config) -> Self {
        let own = config.regions.get(&config.region).and_then(|own| own.database.as_deref());
        Self { api: Api::new(Self::PLATFORM), own: own.and_then(|arn| Arn::parse(arn, "db")) }
    }

    fn own(&self) -> Result<&Arn, ControlError> {
        self.own
            .as_ref()
            .ok_or(ControlError::NotConfigured("regions.NAME.database (the instance's ARN)"))
    }

    async fn describe(&self) -> Result<Told, ControlError> {
        let own = self.own()?;
        let client = self.api.client(&own.region).await;
        let found = client.describe_db_instances().db_instance_identifier(&own.name).send().await;
        let found = found.map_err(|error| self.api.failed("describe the instance", error))?;
        let [instance] = found.db_instances() else {
            return Err(ControlError::Refused(format!("RDS knows no instance {}", own.name)));
        };
        let status = instance.db_instance_status().unwrap_or("unknown");
        Ok(Told {
            follows: instance.read_replica_source_db_instance_identifier().map(str::to_owned),
            receiving: None,
            promoted_from: promoted_from(instance.tag_list()),
            busy: AT_IT.contains(&status).then(|| status.to_owned()),
        })
    }
}

impl Managing for Rds {
    const PLATFORM: Platform = Platform::Rds;
    const NOT_REMADE: &'static str = "an RDS instance cannot be made a replica: a new one is made of the \
        primary (docs/RUNBOOK.md, \"The database is run by a platform\")";

    fn told(&self) -> Acting<'_, Told> {
        Box::pin(self.describe())
    }

    fn promote<'a>(&'a self, _how: &'a Promotion, from: Bookmark) -> Acting<'a, ()> {
        Box::pin(async move {
            let own = self.own()?;
            self.api.keep(own, from).await?;
            let client = self.api.client(&own.region).await;
            let asked =
                client.promote_read_replica().db_instance_identifier(&own.name).send().await;
            match asked {
                // Asked before, or it makes a backup: it is promoted once that has ended.
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(|it| it.is_invalid_db_instance_state_fault()) =>
                {
                    Err(ControlError::Underway("RDS does not take the order yet".to_owned()))
                }
                asked => {
                    asked.map(drop).map_err(|error| self.api.failed("promote the replica", error))
                }
            }
        })
    }

    /// It has no word for it: once the replica is promoted the two have nothing to do with each other.
    fn hand_over<'a>(&'a self, _to: &'a str) -> Acting<'a, Option<String>> {
        Box::pin(async { Ok(None) })
    }

    fn follow<'a>(&'a self, name: &'a str) -> Acting<'a, ()> {
        Box::pin(async move {
            let why = format!("it cannot be made to follow {name}: {}", Self::NOT_REMADE);
            Err(ControlError::Refused(why))
        })
    }
}
