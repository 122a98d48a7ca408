//! `godwit key`: API keys, for when there is none yet to make others with.

use super::{About, block_on, table, tenant::BUDGET};
use crate::{
    assembly::operator::{KeyWish, Operator},
    storage::global::api_keys::KeyRow,
    vocab::{ApiKeyId, Op, OpKind, Scope, Scopes},
};
use chrono::{DateTime, Utc};
use serde::Serialize;

/// Make, list and revoke API keys
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: godwit key create --tenant acme --name ci --scopes read,write --days 30
         godwit key revoke 0193a0de-7f3c-7000-8000-5a1f00000000")]
pub struct Key {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a key; it is shown this once
    #[command(
        after_help = "Example: godwit key create --tenant acme --name ci --scopes read,write"
    )]
    Create {
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        name: String,
        /// What it may do: read, write, admin
        #[arg(long, value_delimiter = ',', default_value = "read,write")]
        scopes: Vec<Scope>,
        /// Days until it expires, 1 to 365
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=365))]
        days: u32,
        /// Part of the key that tells where it belongs: 1 to 16 of a-z and 0-9
        #[arg(long, default_value = "live")]
        environment: String,
        #[command(flatten)]
        about: About,
    },
    /// List a tenant's keys; never the keys themselves
    #[command(after_help = "Example: godwit key list --tenant acme --output json")]
    List {
        #[arg(long, value_name = "NAME")]
        tenant: String,
        #[command(flatten)]
        about: About,
    },
    /// End a key for good; a region that cached it follows within seconds
    #[command(after_help = "Example: godwit key revoke 0193a0de-7f3c-7000-8000-5a1f00000000")]
    Revoke {
        id: ApiKeyId,
        #[command(flatten)]
        about: About,
    },
}

#[derive(Serialize)]
struct Facts {
    id: ApiKeyId,
    /// Only of a key that was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    tenant: String,
    name: String,
    prefix: String,
    scopes: Scopes,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
}

impl Facts {
    fn new(row: KeyRow, key: Option<String>) -> Self {
        Self {
            id: row.id,
            key,
            tenant: row.tenant_name,
            name: row.name,
            prefix: row.prefix,
            scopes: row.scopes,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        }
    }

    fn standing(&self, now: DateTime<Utc>) -> String {
        let day = |at: DateTime<Utc>| at.format("%Y-%m-%d").to_string();
        match self.revoked_at {
            Some(at) => format!("revoked {}", day(at)),
            None if self.expires_at <= now => format!("expired {}", day(self.expires_at)),
            None => format!("until {}", day(self.expires_at)),
        }
    }

    fn row(&self, now: DateTime<Utc>) -> Vec<String> {
        let scopes: Vec<_> = self.scopes.iter().map(Scope::as_str).collect();
        let prefix = format!("{}...", self.prefix);
        vec![self.id.to_string(), prefix, scopes.join(","), self.standing(now), self.name.clone()]
    }
}

impl Key {
    pub fn run(self) -> anyhow::Result<()> {
        let op = Op::system(OpKind::Command, BUDGET);
        match self.action {
            Action::Create { tenant, name, scopes, days, environment, about } => {
                let config = about.target.load()?;
                let scopes = scopes.into_iter().collect();
                let wish = KeyWish {
                    tenant: &tenant,
                    name: &name,
                    scopes,
                    days,
                    environment: &environment,
                };
                let made = async { Operator::connect(&config, op).await?.create_key(&wish).await };
                let (row, secret) = block_on(made)?;
                let facts = Facts::new(row, Some(secret.reveal().to_owned()));
                about.output.print(&facts, |facts| {
                    let key = facts.key.as_deref().unwrap_or_default();
                    format!(
                        "{key}\nid {}, good until {}",
                        facts.id,
                        facts.expires_at.format("%Y-%m-%d")
                    )
                })
            }
            Action::List { tenant, about } => {
                let (config, now) = (about.target.load()?, op.now());
                let listed = async { Operator::connect(&config, op).await?.keys(&tenant).await };
                let keys = block_on(listed)?;
                let keys: Vec<Facts> = keys.into_iter().map(|row| Facts::new(row, None)).collect();
                about.output.print(&keys, |keys| {
                    let rows = keys.iter().map(|key| key.row(now));
                    table(&["ID", "KEY", "SCOPES", "GOOD", "NAME"], rows)
                })
            }
            Action::Revoke { id, about } => {
                let config = about.target.load()?;
                let done = async { Operator::connect(&config, op).await?.revoke_key(id).await };
                let facts = Facts::new(block_on(done)?, None);
                about
                    .output
                    .print(&facts, |facts| format!("{} `{}` is revoked", facts.id, facts.name))
            }
        }
    }
}
