//! `godwit tenant`: whose data there is.

use super::{About, block_on, table};
use crate::{
    assembly::operator::Operator,
    storage::global::tenants::TenantRow,
    vocab::{Op, OpKind, TenantId},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::time::Duration;

/// Make and list tenants
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: godwit tenant create acme --config /etc/godwit/us-east-1.toml
         godwit tenant list")]
pub struct Tenant {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a tenant
    #[command(after_help = "Example: godwit tenant create acme --if-missing")]
    Create {
        /// 1 to 64 of a-z, 0-9 and -
        name: String,
        /// Do not fail when there is one of that name: tell its id
        #[arg(long)]
        if_missing: bool,
        #[command(flatten)]
        about: About,
    },
    /// List all tenants
    #[command(after_help = "Example: godwit tenant list --output json")]
    List {
        #[command(flatten)]
        about: About,
    },
}

#[derive(Serialize)]
struct Facts {
    id: TenantId,
    name: String,
    created_at: DateTime<Utc>,
}

impl From<TenantRow> for Facts {
    fn from(row: TenantRow) -> Self {
        Self { id: row.id, name: row.name, created_at: row.created_at }
    }
}

/// Longest time for one of these commands.
pub(super) const BUDGET: Duration = Duration::from_secs(30);

impl Tenant {
    pub fn run(self) -> anyhow::Result<()> {
        let op = Op::system(OpKind::Command, BUDGET);
        match self.action {
            Action::Create { name, if_missing, about } => {
                let config = about.target.load()?;
                let tenant = block_on(async {
                    let operator = Operator::connect(&config, op).await?;
                    if let Some(made) = operator.create_tenant(&name).await? {
                        return Ok(made);
                    }
                    anyhow::ensure!(if_missing, "there is a tenant `{name}` already");
                    operator.tenant(&name).await
                })?;
                about
                    .output
                    .print(&Facts::from(tenant), |facts| format!("{}  {}", facts.id, facts.name))
            }
            Action::List { about } => {
                let config = about.target.load()?;
                let tenants =
                    block_on(async { Operator::connect(&config, op).await?.tenants().await })?;
                let facts: Vec<Facts> = tenants.into_iter().map(Facts::from).collect();
                about.output.print(&facts, |facts| {
                    let rows = facts.iter().map(|tenant| {
                        let made = tenant.created_at.format("%Y-%m-%d %H:%M:%S UTC");
                        vec![tenant.name.clone(), tenant.id.to_string(), made.to_string()]
                    });
                    table(&["NAME", "ID", "CREATED"], rows)
                })
            }
        }
    }
}
