//! `godwit doctor`: what the settings come to, and whether everything they name answers.

use super::{
    About, block_on,
    status::{Asked, ask_all, endpoints},
};
use crate::{
    config::Config,
    storage::{
        Global, StorageError, WriteTx, global::position::PositionRow, migrate::SchemaStanding,
        redis::Redis,
    },
    topology::probe,
    vocab::{Op, OpKind, Region, causes},
};
use serde::Serialize;
use serde_json::Value;
use std::{error::Error, time::Duration};

/// Print the effective settings, secrets hidden, and try everything they name
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example: godwit doctor --config /etc/godwit/us-east-1.toml
         godwit doctor --output json | jq '.checks[] | select(.ok | not)'

Exits with 1 when a check fails.")]
pub struct Doctor {
    #[command(flatten)]
    about: About,
}

#[derive(Debug, Serialize)]
struct Facts {
    settings: Value,
    checks: Vec<Check>,
}

/// One dependency, tried.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: String,
    ok: bool,
    detail: String,
}

const BUDGET: Duration = Duration::from_secs(30);
/// A person is waiting, but the link may be long.
const PEER_PATIENCE: Duration = Duration::from_secs(3);

impl Doctor {
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.about.target.load()?;
        let endpoints = endpoints(&self.about.target, &config)?;
        let checks = block_on(async {
            let mut checks = database(&config).await;
            checks.push(redis(&config).await);
            let client = probe::peer_client(&config.routing, config.cluster.peer_tls.as_ref());
            match client {
                Ok(client) => {
                    let asked = ask_all(&client, &endpoints, PEER_PATIENCE).await;
                    checks.extend(asked.iter().map(|one| peer(one, &config.region)));
                }
                Err(error) => checks.push(Check::failed("peers", &error)),
            }
            Ok(checks)
        })?;
        let facts = Facts { settings: serde_json::to_value(&config)?, checks };
        self.about.output.print(&facts, Facts::text)?;
        let failed = facts.checks.iter().filter(|check| !check.ok).count();
        anyhow::ensure!(failed == 0, "{failed} of {} checks failed", facts.checks.len());
        Ok(())
    }
}

impl Check {
    fn passed(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ok: true, detail: detail.into() }
    }
    fn failed(name: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        Self { name: name.into(), ok: false, detail: causes(error) }
    }
}

const READER: &str = "database as reader";
const WRITER: &str = "database as writer";
const SCHEMA: &str = "schema";

async fn database(config: &Config) -> Vec<Check> {
    let op = Op::system(OpKind::Command, BUDGET);
    let global = match Global::connect(&config.database) {
        Ok(global) => global,
        Err(error) => return vec![Check::failed("database settings", &error)],
    };
    let mut checks = Vec::new();
    let position = match global.ping().await {
        Ok(()) => global.position().await,
        Err(error) => Err(error),
    };
    checks.push(match &position {
        Ok(position) => reader(position),
        Err(error) => Check::failed(READER, error),
    });
    if let Ok(position) = &position {
        let tried = try_write(&global, position, &op).await;
        checks.push(tried.unwrap_or_else(|error| Check::failed(WRITER, &error)));
    }
    let standby = position.as_ref().is_ok_and(|position| position.in_recovery);
    checks.push(match global.schema_standing().await {
        Ok(standing) => schema(standing, standby),
        Err(error) => Check::failed(SCHEMA, &error),
    });
    checks
}

fn reader(position: &PositionRow) -> Check {
    let epoch = position.history.current().epoch;
    let at = format!("epoch {epoch}, {}", position.lsn);
    if !position.in_recovery {
        return Check::passed(READER, format!("primary, {at}"));
    }
    match position.streaming {
        Some(true) => Check::passed(READER, format!("replica, {at}, streaming")),
        Some(false) => Check {
            name: READER.into(),
            ok: false,
            detail: format!(
                "replica, {at}, but no log comes in: is the primary reachable from here?"
            ),
        },
        None => Check {
            name: READER.into(),
            ok: false,
            detail: format!("replica, {at}; the role cannot see replication: grant it pg_monitor"),
        },
    }
}

/// On a replica the role is tried all the same: it is needed the moment the region is promoted.
async fn try_write(
    global: &Global,
    position: &PositionRow,
    op: &Op,
) -> Result<Check, StorageError> {
    let epoch = position.history.current().epoch;
    WriteTx::open(global, epoch, op).await?.rollback().await?;
    let may = if position.in_recovery { "connects; writes once promoted" } else { "connects" };
    Ok(Check::passed(WRITER, may))
}

fn schema(standing: SchemaStanding, standby: bool) -> Check {
    match standing {
        SchemaStanding::Current => Check::passed(SCHEMA, "current"),
        SchemaStanding::Newer => Check::passed(SCHEMA, "newer than this program, which is fine"),
        SchemaStanding::Old { have, want } => {
            let have = have.map_or_else(|| "empty".to_owned(), |have| have.to_string());
            let cure = if standby { "migrate the primary" } else { "run `godwit migrate`" };
            let detail = format!("is {have}, needs {want}: {cure}");
            Check { name: SCHEMA.into(), ok: false, detail }
        }
    }
}

async fn redis(config: &Config) -> Check {
    let tried = match Redis::new(&config.redis) {
        Ok(redis) => redis.ping().await,
        Err(error) => Err(error),
    };
    match tried {
        Ok(()) => Check::passed("redis", "answers"),
        Err(error) => Check::failed("redis", &error),
    }
}

fn peer(asked: &Asked, own: &Region) -> Check {
    let what = if asked.region == *own { "this region" } else { "region" };
    let name = format!("{what} {}", asked.region);
    match &asked.answer {
        Ok(report) => match report.role {
            Some(role) => {
                Check::passed(name, format!("{role}, answers in {} ms", asked.took.as_millis()))
            }
            None => {
                Check { name, ok: false, detail: "answers, but its database does not".to_owned() }
            }
        },
        Err(failure) => Check { name, ok: false, detail: failure.clone() },
    }
}

impl Facts {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        flatten("", &self.settings, &mut lines);
        lines.push(String::new());
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for Check { name, ok, detail } in &self.checks {
            let verdict = if *ok { "ok  " } else { "FAIL" };
            lines.push(format!("{verdict}  {name:<width$}  {detail}"));
        }
        lines.join("\n")
    }
}

/// `section.key = value`, as the settings file has them.
fn flatten(prefix: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let path =
                    if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&path, member, lines);
            }
        }
        Value::Null => lines.push(format!("# {prefix} is not set")),
        value => lines.push(format!("{prefix} = {value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_and_checks_are_lines_to_be_read() {
        let facts = Facts {
            settings: json!({
                "region": "us-east-1",
                "database": {"url": "[redacted]", "owner_url": null, "statement_ms_max": 5_000},
                "limits": {"trusted_proxies": []},
            }),
            checks: vec![
                Check::passed("redis", "answers"),
                Check::failed("region eu-west-1", &StorageError::Timeout),
            ],
        };
        insta::assert_snapshot!(facts.text(), @r#"
        # database.owner_url is not set
        database.statement_ms_max = 5000
        database.url = "[redacted]"
        limits.trusted_proxies = []
        region = "us-east-1"

        ok    redis             answers
        FAIL  region eu-west-1  the database took too long
        "#);
    }

    #[test]
    fn a_chain_of_causes_is_told_once() {
        let cause = std::io::Error::other("connection refused");
        let error = StorageError::Unavailable(Box::new(cause));
        assert_eq!(
            Check::failed("x", &error).detail,
            "the database cannot be reached: connection refused"
        );
    }

    #[test]
    fn an_old_schema_says_what_cures_it_where() {
        let old = SchemaStanding::Old { have: None, want: 7 };
        assert_eq!(schema(old, false).detail, "is empty, needs 7: run `godwit migrate`");
        assert_eq!(schema(old, true).detail, "is empty, needs 7: migrate the primary");
        assert!(schema(SchemaStanding::Newer, true).ok);
    }

    #[test]
    fn no_secret_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = r#"
            region = "us-east-1"
            regions.us-east-1.internal_url = "http://127.0.0.1:9081"
            database.url = "postgres://writer:hidden-1@127.0.0.1/godwit"
            database.read_url = "postgres://reader:hidden-2@127.0.0.1/godwit"
            database.owner_url = "postgres://owner:hidden-3@127.0.0.1/godwit"
            redis.url = "redis://:hidden-4@127.0.0.1:6381"
            cluster.envelope_key_current = "k1"
            cluster.envelope_keys.k1.secret = "hidden-5-0123456789abcdef0123456789abcdef"
        "#;
        std::fs::write(file.path(), text).unwrap();
        let config = Config::load(Some(file.path())).unwrap();
        let facts = Facts { settings: serde_json::to_value(&config).unwrap(), checks: Vec::new() };
        let text = facts.text();
        assert!(
            text.contains("database.url = \"[redacted]\"") && !text.contains("hidden"),
            "{text}"
        );
    }
}
