//! Bringing a laboratory up, and parts of it back.
//!
//! Everything that does not wait for something else runs beside it. A new laboratory: the primary
//! is made, gets its roles and its schema, and is copied for each replica. One that was kept: all
//! instances start at once, and the schema is brought up to date.

use super::{
    account::Account,
    api,
    child::Child,
    file::TenantFacts,
    laboratory::Inner,
    layout::{make_dir, write_private},
    links::{Kind, LinkId},
    postgres::{self, DATABASE, Instance, Role, Session},
    redis,
    spec::{Durability, Part, Step, Target},
};
use crate::vocab::{Clock as _, Epoch, Region, SystemClock};
use anyhow::Context as _;
use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use std::{fs, path::Path, sync::Arc, time::Duration};
use tokio::process::Command;

/// Longest wait for a part to answer. Crash recovery replays at most `max_wal_size`.
const PATIENCE: Duration = Duration::from_mins(1);
/// Longest wait for a region to find nothing amiss once all are up.
const SOUND_PATIENCE: Duration = Duration::from_secs(30);
/// The tenant's key is made anew some days before it expires.
const KEY_DAYS: i64 = 365;
const KEY_DAYS_USED_MAX: i64 = 300;

pub async fn start(lab: &Arc<Inner>) -> anyhow::Result<()> {
    let _one = lab.starting.lock().await;
    let regions = &lab.spec.regions;
    for region in regions {
        let dir = lab.data.join(region.as_str());
        make_dir(&dir, 0o700)?;
        Account::give(lab.account, &dir)?;
    }
    let caches = try_join_all(regions.iter().map(|region| start_redis(lab, region)));
    tokio::try_join!(caches, start_databases(lab))?;
    if lab.spec.bare {
        return Ok(());
    }
    lab.spec.progress.tell(Step::Doing("waiting until every region finds all the others"));
    let apis = regions.iter().flat_map(|region| {
        let apis = lab.ports.regions.get(region).map_or(&[][..], |ports| &ports.apis);
        (1..).map(Part::Api).zip(apis).map(move |(part, api)| (region, part, api.public))
    });
    let sound = apis.map(|(region, part, port)| async move {
        let child = lab.running(region, part).context("an API process is gone")?;
        child.until("sound health", SOUND_PATIENCE, || api::sound(port)).await
    });
    try_join_all(sound).await?;
    lab.spec.progress.tell(Step::Done("every region answers"));
    Ok(())
}

/// Starts what is dead of the target.
pub async fn restart(lab: &Inner, target: &Target) -> anyhow::Result<()> {
    let parts = lab.aimed_at(target)?;
    let region = &target.region;
    let dead = |part: &Part| lab.running(region, *part).is_none();
    let wanted = |part: Part| parts.contains(&part) && dead(&part);
    let database = async {
        if wanted(Part::Postgres) {
            let primary = lab.reign.get().is_some_and(|(_, primary)| primary == region);
            let child = launch_postgres(lab, region, if primary { None } else { primary_of(lab) })?;
            open(lab, region, &child).await?;
        }
        anyhow::Ok(())
    };
    let cache = async { if wanted(Part::Redis) { start_redis(lab, region).await } else { Ok(()) } };
    tokio::try_join!(database, cache)?;
    let apis = parts.iter().filter(|part| matches!(part, Part::Api(_)) && dead(part));
    let apis = if lab.spec.bare { Vec::new() } else { apis.copied().collect() };
    try_join_all(apis.into_iter().map(|part| start_api(lab, region, part))).await?;
    Ok(())
}

fn primary_of(lab: &Inner) -> Option<Region> {
    lab.reign.get().map(|(_, primary)| primary.clone())
}

async fn start_redis(lab: &Inner, region: &Region) -> anyhow::Result<()> {
    let port = lab.ports.of(region)?.redis;
    let file = lab.redis_file(region);
    redis::configure(&file, port, &lab.secrets.redis, lab.account)?;
    let command = redis::server(&lab.tools.redis_server, lab.account, &file);
    let child = lab.launch(region, Part::Redis, command)?;
    child.until("answer", PATIENCE, || redis::answers(port, &lab.secrets.redis)).await
}

async fn start_api(lab: &Inner, region: &Region, part: Part) -> anyhow::Result<()> {
    let Part::Api(number) = part else { return Ok(()) };
    let index = usize::from(number) - 1;
    let listeners = lab.ports.of(region)?.apis.get(index).context("no such API process")?;
    let mut command = godwit(lab, &["serve"]);
    command.arg("--config").arg(lab.layout.config_of(region, index + 1));
    let child = lab.launch(region, part, command)?;
    child.until("answer", PATIENCE, || api::get(listeners.public, "/api/health/liveness")).await?;
    Ok(())
}

async fn start_apis(lab: &Inner, region: &Region) -> anyhow::Result<()> {
    if lab.spec.bare {
        return Ok(());
    }
    let apis = (1..=lab.spec.processes.get()).map(Part::Api);
    try_join_all(apis.map(|part| start_api(lab, region, part))).await?;
    lab.spec.progress.tell(Step::Done(&format!("{region}: API")));
    Ok(())
}

/// The program that this is; its environment is ours, so that `GODWIT__SECTION__KEY` reaches it.
fn godwit(lab: &Inner, arguments: &[&str]) -> Command {
    let mut command = Command::new(&lab.spec.binary);
    command.args(arguments).current_dir(lab.layout.root());
    command.envs(lab.spec.environment.iter().map(|(name, value)| (name, value)));
    if arguments.first() != Some(&"serve") {
        // Beside three regions that start, a connection can take its time.
        command.env("GODWIT__DATABASE__ACQUIRE_MS_MAX", "30000");
    }
    command
}

async fn start_databases(lab: &Inner) -> anyhow::Result<()> {
    let regions = &lab.spec.regions;
    for region in regions {
        // What a run before did not finish.
        postgres::clear_unfinished(&lab.postgres_data(region))?;
    }
    let role = |region: &Region| postgres::kept(&lab.postgres_data(region));
    let kept_primary = regions.iter().find(|region| role(region) == Some(Role::Primary));
    let primary = kept_primary.or(regions.first()).context("a laboratory without regions")?;
    let replicas: Vec<&Region> = regions.iter().filter(|region| *region != primary).collect();
    // Without its primary a replica's data is of no use: this is a new laboratory.
    if kept_primary.is_none() {
        for region in &replicas {
            postgres::discard(&lab.postgres_data(region))?;
        }
        initialise(lab, primary).await?;
    }
    let kept = replicas.iter().filter(|region| role(region) == Some(Role::Replica));
    for region in kept {
        launch_postgres(lab, region, Some(primary.clone()))?;
    }
    let server = launch_postgres(lab, primary, None)?;
    let session = open(lab, primary, &server).await?;
    session.make_database(&lab.secrets).await?;
    let port = lab.ports.of(primary)?.postgres;
    Session::open(&lab.secrets, port, DATABASE).await?.empower().await?;
    lab.spec.progress.tell(Step::Done(&format!("{primary}: Postgres, the primary")));
    let mut follows = Vec::new();
    for region in replicas {
        let goes_on = session.make_slot(&postgres::slot(region)).await?;
        follows.push((region, goes_on && lab.running(region, Part::Postgres).is_some()));
    }
    let session = prepare_schema(lab, primary, session).await?;
    let session = &session;
    let follow = follows.into_iter().map(|(region, goes_on)| async move {
        follow(lab, primary, region, session, goes_on).await?;
        start_apis(lab, region).await
    });
    let serve = async {
        start_apis(lab, primary).await?;
        if lab.spec.bare { Ok(()) } else { make_tenant(lab, primary).await }
    };
    tokio::try_join!(try_join_all(follow), serve)?;
    be_durable(lab, primary, &server, session).await
}

/// Last, because until replicas follow nobody can say that a commit has reached one.
async fn be_durable(
    lab: &Inner,
    primary: &Region,
    server: &Child,
    session: &Session,
) -> anyhow::Result<()> {
    let replicas: Vec<&Region> = match lab.spec.durability {
        Durability::Async => Vec::new(),
        Durability::Quorum => lab.spec.regions.iter().filter(|at| *at != primary).collect(),
    };
    session.wait_for_one_of(&replicas).await?;
    let chosen = || async {
        session.chooses_from(replicas.len()).await.map_err(|error| format!("{error:#}"))?
    };
    server.until("durability", PATIENCE, chosen).await
}

/// A new primary.
async fn initialise(lab: &Inner, region: &Region) -> anyhow::Result<()> {
    lab.spec.progress.tell(Step::Doing(&format!("{region}: making a Postgres primary")));
    let data = lab.postgres_data(region);
    let password_file = postgres::password_file(&data);
    write_private(&password_file, lab.secrets.superuser.as_bytes())?;
    Account::give(lab.account, &password_file)?;
    let partial = postgres::partial(&data);
    let bin = &lab.tools.postgres_bin;
    let command = postgres::initdb(bin, lab.account, &partial, &password_file);
    let made = lab.errand(region, "initdb", command, false).await;
    fs::remove_file(&password_file)?;
    made?;
    fs::rename(&partial, &data)?;
    Ok(())
}

/// Starts a region's Postgres: as the primary, or as a replica that follows `primary`.
fn launch_postgres(
    lab: &Inner,
    region: &Region,
    primary: Option<Region>,
) -> anyhow::Result<Arc<Child>> {
    let data = lab.postgres_data(region);
    configure(lab, region, primary, &data)?;
    let command = postgres::server(&lab.tools.postgres_bin, lab.account, &data);
    lab.launch(region, Part::Postgres, command)
}

fn configure(
    lab: &Inner,
    region: &Region,
    primary: Option<Region>,
    data: &Path,
) -> anyhow::Result<()> {
    let relay = |to| {
        let link = LinkId { from: region.clone(), to, kind: Kind::Postgres };
        lab.ports.links.get(&link).copied().context("no link to the primary")
    };
    let instance = Instance {
        region,
        port: lab.ports.of(region)?.postgres,
        // Both pools of every process, and room for who looks on.
        connections_max: 100 + 40 * u32::from(lab.spec.processes.get()),
        upstream: primary.map(relay).transpose()?,
        secrets: &lab.secrets,
    };
    postgres::configure(data, &instance, lab.account)
}

/// A session as soon as the instance accepts one.
async fn open(lab: &Inner, region: &Region, child: &Child) -> anyhow::Result<Session> {
    let port = lab.ports.of(region)?.postgres;
    let data = &lab.postgres_data(region);
    let open = || async move {
        postgres::accepts(data, child.running().unwrap_or(0))?;
        let opened = Session::open(&lab.secrets, port, "postgres").await;
        opened.map_err(|error| format!("{error:#}"))
    };
    child.until("connection", PATIENCE, open).await
}

/// Brings the schema up to date and returns a session in its database.
async fn prepare_schema(
    lab: &Inner,
    primary: &Region,
    session: Session,
) -> anyhow::Result<Session> {
    if lab.spec.bare {
        lab.reign.get_or_init(|| (Epoch::FIRST, primary.clone()));
        return Ok(session);
    }
    lab.spec.progress.tell(Step::Doing(&format!("{primary}: the schema")));
    let mut command = godwit(lab, &["migrate"]);
    command.arg("--config").arg(lab.layout.config(primary));
    lab.errand(primary, "migrate", command, false).await?;
    let port = lab.ports.of(primary)?.postgres;
    let session = Session::open(&lab.secrets, port, DATABASE).await?;
    session.join_groups().await?;
    let epoch = session.epoch().await?;
    lab.reign.get_or_init(|| (epoch, primary.clone()));
    lab.spec.progress.tell(Step::Done(&format!("{primary}: schema")));
    Ok(session)
}

/// Makes a region follow the primary: from what it kept, or from a new copy. Returns when it
/// streams and has replayed the schema.
async fn follow(
    lab: &Inner,
    primary: &Region,
    region: &Region,
    session: &Session,
    goes_on: bool,
) -> anyhow::Result<()> {
    if !goes_on {
        lab.spec.progress.tell(Step::Doing(&format!("{region}: copying the primary")));
        if let Some(child) = lab.running(region, Part::Postgres) {
            child.stop(nix::sys::signal::Signal::SIGINT, Duration::from_secs(5)).await;
        }
        copy(lab, primary, region).await?;
        launch_postgres(lab, region, Some(primary.clone()))?;
    }
    let child = lab.running(region, Part::Postgres).context("Postgres is gone")?;
    let own = open(lab, region, &child).await?;
    let wanted = session.position().await.context("the primary's position")?;
    let own = &own;
    let follows = || async move {
        session.streams(region).await.map_err(|error| format!("{error:#}"))??;
        let replayed = own.replayed().await.map_err(|error| format!("{error:#}"))?;
        if replayed >= wanted { Ok(()) } else { Err(format!("at {replayed} of {wanted}")) }
    };
    child.until("replication", PATIENCE, follows).await?;
    lab.spec.progress.tell(Step::Done(&format!("{region}: Postgres, a streaming replica")));
    Ok(())
}

/// Copies the primary, under another name until the copy is whole.
async fn copy(lab: &Inner, primary: &Region, region: &Region) -> anyhow::Result<()> {
    let data = lab.postgres_data(region);
    postgres::discard(&data)?;
    let partial = postgres::partial(&data);
    let port = lab.ports.of(primary)?.postgres;
    let bin = &lab.tools.postgres_bin;
    let slot = postgres::slot(region);
    let command = postgres::base_backup(bin, lab.account, &lab.secrets, port, &slot, &partial);
    lab.errand(region, "base-backup", command, false).await?;
    configure(lab, region, Some(primary.clone()), &partial)?;
    fs::rename(&partial, &data)?;
    Ok(())
}

/// Asks one of our own commands, of the primary, for JSON.
async fn ask(lab: &Inner, primary: &Region, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let mut command = godwit(lab, arguments);
    command.args(["--output", "json", "--config"]).arg(lab.layout.config(primary));
    lab.errand(primary, arguments.first().unwrap_or(&"godwit"), command, true).await
}

/// What is kept of the tenant beside the database.
#[derive(Serialize, Deserialize)]
struct KeptTenant {
    #[serde(flatten)]
    facts: TenantFacts,
    made_at: DateTime<Utc>,
}

/// The tenant `demo` and its key, by the commands that a user would give.
async fn make_tenant(lab: &Inner, primary: &Region) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Tenant {
        id: crate::vocab::TenantId,
        name: String,
    }
    #[derive(Deserialize)]
    struct Key {
        key: String,
    }
    let path = lab.layout.secrets().join("tenant.json");
    let now = SystemClock.now();
    let kept =
        fs::read(&path).ok().and_then(|text| serde_json::from_slice::<KeptTenant>(&text).ok());
    let tenant = ask(lab, primary, &["tenant", "create", "demo", "--if-missing"]).await?;
    let tenant: Tenant = serde_json::from_slice(&tenant).context("what `tenant create` printed")?;
    let good = kept.filter(|kept| {
        kept.facts.id == tenant.id && (now - kept.made_at).num_days() < KEY_DAYS_USED_MAX
    });
    let facts = if let Some(kept) = good {
        kept.facts
    } else {
        let days = KEY_DAYS.to_string();
        let arguments = ["key", "create", "--tenant", "demo", "--name", "lab"];
        let more = ["--scopes", "read,write,admin", "--days", &days, "--environment", "lab"];
        let key = ask(lab, primary, &[&arguments[..], &more[..]].concat()).await?;
        let key: Key = serde_json::from_slice(&key).context("what `key create` printed")?;
        let facts = TenantFacts { id: tenant.id, name: tenant.name, api_key: key.key };
        let kept = KeptTenant { facts, made_at: now };
        write_private(&path, &serde_json::to_vec_pretty(&kept)?)?;
        kept.facts
    };
    lab.tenant.get_or_init(|| facts);
    lab.spec.progress.tell(Step::Done("tenant `demo` and its API key"));
    Ok(())
}
