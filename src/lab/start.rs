//! Bringing a laboratory up, and parts of it back.
//!
//! Everything that does not wait for something else runs beside it. A new laboratory: the primary
//! is made, gets its roles and its schema, and is copied for each replica. One that was kept: all
//! instances start at once, each as what its data says, and the schema is brought up to date.

use super::{
    account::Account,
    agent, api,
    child::Child,
    data::{self, Role},
    file::{AdminFacts, TenantFacts},
    laboratory::Inner,
    layout::{make_dir, write_private},
    links::{Kind, LinkId},
    ports::{ApiPorts, local},
    postgres::{self, DATABASE, Instance, Session},
    redis,
    reign::Reign,
    spec::{Durability, Part, Step, Target},
};
use crate::vocab::{Clock as _, Epoch, Region, SystemClock};
use anyhow::Context as _;
use chrono::{DateTime, Utc};
use futures_util::future::{join_all, try_join_all};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path, sync::Arc, time::Duration};
use tokio::process::Command;

/// Longest wait for a part to answer. Crash recovery replays at most `max_wal_size`.
const PATIENCE: Duration = Duration::from_mins(1);
/// Longest wait for a kept replica to stream before it is copied anew.
const KEPT_PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for a region to find nothing amiss once all are up.
const SOUND_PATIENCE: Duration = Duration::from_secs(30);
/// The tenant's key is made anew some days before it expires.
const KEY_DAYS: i64 = 365;
const KEY_DAYS_USED_MAX: i64 = 300;

pub async fn start(lab: &Arc<Inner>) -> anyhow::Result<()> {
    let _all = join_all(lab.turns.values().map(tokio::sync::Mutex::lock)).await;
    let regions = &lab.spec.regions;
    for region in regions {
        let dir = lab.data.join(region.as_str());
        make_dir(&dir, 0o700)?;
        Account::give(lab.account, &dir)?;
    }
    let caches = try_join_all(regions.iter().map(|region| start_redis(lab, region)));
    let (_, replaced) = tokio::try_join!(caches, start_databases(lab))?;
    for region in &replaced {
        let word = format!("{region} was the primary, was replaced, and was not rejoined since");
        lab.spec.progress.tell(Step::Warning(&word));
    }
    // With one of them kept apart, none finds nothing amiss.
    if lab.spec.bare || !replaced.is_empty() {
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

/// Starts what is dead of the target. A database that does not start keeps nothing else down: data
/// that is half rewound is made whole by what the region's API process orders.
pub async fn restart(lab: &Inner, target: &Target) -> anyhow::Result<()> {
    let parts = lab.aimed_at(target)?;
    let region = &target.region;
    let ended = try_join_all(parts.iter().map(|part| let_end(lab, region, *part)));
    let dead = |part: &Part| lab.running(region, *part).is_none();
    let wanted = |part: Part| parts.contains(&part) && dead(&part);
    let database = async {
        if wanted(Part::Postgres) {
            let child = launch_postgres(lab, region)?;
            open(lab, region, &child).await?;
        }
        anyhow::Ok(())
    };
    let cache = async { if wanted(Part::Redis) { start_redis(lab, region).await } else { Ok(()) } };
    let (database, cache, ended) = tokio::join!(database, cache, ended);
    cache?;
    ended?;
    let apis = parts.iter().filter(|part| matches!(part, Part::Api(_)) && dead(part));
    let apis = if lab.spec.bare { Vec::new() } else { apis.copied().collect() };
    try_join_all(apis.into_iter().map(|part| start_api(lab, region, part))).await?;
    database
}

/// Waits for the end of an API process that was told to end: it runs, and soon does not.
async fn let_end(lab: &Inner, region: &Region, part: Part) -> anyhow::Result<()> {
    let Part::Api(number) = part else { return Ok(()) };
    let Some(child) = lab.running(region, part) else { return Ok(()) };
    // One that was paused goes on once it is resumed.
    if lab.answers_for(region, part) && api::is_ending(api_of(lab, region, number)?.ops).await {
        let end = tokio::time::timeout(PATIENCE, child.end()).await;
        end.with_context(|| format!("{region}: its API process does not come to its end"))?;
    }
    Ok(())
}

async fn start_redis(lab: &Inner, region: &Region) -> anyhow::Result<()> {
    let port = lab.ports.of(region)?.redis;
    let file = lab.redis_file(region);
    redis::configure(&file, port, &lab.secrets.redis, lab.account)?;
    let command = redis::server(&lab.tools.redis_server, lab.account, &file);
    let child = lab.launch(region, Part::Redis, command)?;
    child.until("answer", PATIENCE, || redis::answers(port, &lab.secrets.redis)).await
}

fn api_of<'a>(
    lab: &'a Inner,
    region: &Region,
    number: impl Into<usize>,
) -> anyhow::Result<&'a ApiPorts> {
    let index = number.into().checked_sub(1).context("processes are counted from one")?;
    lab.ports.of(region)?.apis.get(index).context("no such API process")
}

async fn start_api(lab: &Inner, region: &Region, part: Part) -> anyhow::Result<()> {
    let Part::Api(number) = part else { return Ok(()) };
    let listeners = api_of(lab, region, number)?;
    let mut command = godwit(lab, &["serve"]);
    command.arg("--config").arg(lab.layout.config_of(region, number.into()));
    let child = lab.launch(region, part, command)?;
    // Without a database it serves nobody; what is ordered of it, it does all the same.
    let database = lab.answers_for(region, Part::Postgres);
    let at = local(if database { listeners.public } else { listeners.ops });
    child.until("answer", PATIENCE, || api::get(at, "/api/health/liveness")).await?;
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
        // A fence that was left up is not for who makes the laboratory.
        command.env("PGOPTIONS", "-c default_transaction_read_only=off");
    }
    command
}

/// Returns the regions that were replaced as the primary and not rejoined since.
async fn start_databases(lab: &Inner) -> anyhow::Result<Vec<Region>> {
    let regions = &lab.spec.regions;
    for region in regions {
        // What a run before did not finish.
        data::clear_unfinished(&lab.postgres_data(region))?;
    }
    let (primary, timeline) = match kept_primary(lab).await? {
        Some(kept) => kept,
        None => (make_primary(lab).await?, 1),
    };
    let primary = &primary;
    lab.crown(Reign { epoch: Epoch::FIRST, timeline, region: primary.clone() });
    let others: Vec<&Region> = regions.iter().filter(|region| *region != primary).collect();
    for region in &others {
        if data::kept(&lab.postgres_data(region)).is_some() {
            launch_postgres(lab, region)?;
        }
    }
    let server = launch_postgres(lab, primary)?;
    let session = open(lab, primary, &server).await?;
    session.make_database(&lab.secrets).await?;
    let port = lab.ports.of(primary)?.postgres;
    Session::open(&lab.secrets, port, DATABASE).await?.empower().await?;
    lab.spec.progress.tell(Step::Done(&format!("{primary}: Postgres, the primary")));
    let (mut replaced, mut follows) = (Vec::new(), Vec::new());
    for region in others {
        let goes_on = session.make_slot(&postgres::slot(region)).await?;
        match data::kept(&lab.postgres_data(region)) {
            Some(Role::Primary) => replaced.push(region.clone()),
            kept => follows.push((region, goes_on && kept.is_some())),
        }
    }
    let session = prepare_schema(lab, primary, timeline, session).await?;
    let session = &session;
    let following = follows.len();
    let follow = follows.into_iter().map(|(region, goes_on)| async move {
        follow(lab, primary, region, session, goes_on).await?;
        start_apis(lab, region).await
    });
    let apart = replaced.iter().map(|region| async move {
        let child = lab.running(region, Part::Postgres).context("Postgres is gone")?;
        open(lab, region, &child).await?;
        start_apis(lab, region).await
    });
    let serve = async {
        // Before a process is there that fences what holds no lease yet, which ends sessions.
        if !lab.spec.bare {
            make_tenant(lab, primary).await?;
        }
        start_apis(lab, primary).await
    };
    tokio::try_join!(try_join_all(follow), try_join_all(apart), serve)?;
    be_durable(lab, primary, &server, session, following).await?;
    Ok(replaced)
}

/// The region that kept a primary's data, and its timeline. Of several, the one on the latest: it
/// replaced the others.
async fn kept_primary(lab: &Inner) -> anyhow::Result<Option<(Region, u32)>> {
    let mut latest: Option<(Region, u32)> = None;
    for region in &lab.spec.regions {
        if data::kept(&lab.postgres_data(region)) != Some(Role::Primary) {
            continue;
        }
        let timeline = agent::control(lab, region).await?.timeline;
        if latest.as_ref().is_none_or(|(_, known)| timeline > *known) {
            latest = Some((region.clone(), timeline));
        }
    }
    Ok(latest)
}

/// Makes the first region a new primary. Without their primary the replicas' data is of no use.
async fn make_primary(lab: &Inner) -> anyhow::Result<Region> {
    for region in &lab.spec.regions {
        data::discard(&lab.postgres_data(region))?;
    }
    let first = lab.spec.regions.first().context("a laboratory without regions")?;
    initialise(lab, first).await?;
    Ok(first.clone())
}

/// Last, because until replicas follow nobody can say that a commit has reached one.
async fn be_durable(
    lab: &Inner,
    primary: &Region,
    server: &Child,
    session: &Session,
    following: usize,
) -> anyhow::Result<()> {
    let (replicas, chosen_from): (Vec<&Region>, usize) = match lab.spec.durability {
        Durability::Async => (Vec::new(), 0),
        Durability::Quorum => {
            (lab.spec.regions.iter().filter(|at| *at != primary).collect(), following)
        }
    };
    session.wait_for_one_of(&replicas).await?;
    let chosen =
        || async { session.chooses_from(chosen_from).await.map_err(|error| format!("{error:#}"))? };
    server.until("durability", PATIENCE, chosen).await
}

/// A new primary.
async fn initialise(lab: &Inner, region: &Region) -> anyhow::Result<()> {
    lab.spec.progress.tell(Step::Doing(&format!("{region}: making a Postgres primary")));
    let data = lab.postgres_data(region);
    let password_file = data::password_file(&data);
    write_private(&password_file, lab.secrets.superuser.as_bytes())?;
    Account::give(lab.account, &password_file)?;
    let partial = data::partial(&data);
    let bin = &lab.tools.postgres_bin;
    let command = postgres::initdb(bin, lab.account, &partial, &password_file);
    let made = lab.errand(region, "initdb", command, false).await;
    fs::remove_file(&password_file)?;
    made?;
    Ok(data::place(&data)?)
}

/// Starts a region's Postgres as what its data says.
pub(super) fn launch_postgres(lab: &Inner, region: &Region) -> anyhow::Result<Arc<Child>> {
    let data = lab.postgres_data(region);
    configure(lab, region, data::startable(&data)?, &data)?;
    let command = postgres::server(&lab.tools.postgres_bin, lab.account, &data);
    lab.launch(region, Part::Postgres, command)
}

/// Writes an instance's settings. A replica's name the primary of now; what `ALTER SYSTEM` has set
/// goes over them.
pub(super) fn configure(
    lab: &Inner,
    region: &Region,
    role: Role,
    data: &Path,
) -> anyhow::Result<()> {
    let primary = lab.reign().map(|reign| reign.region).filter(|primary| primary != region);
    let relay = |to| {
        let link = LinkId { from: region.clone(), to, kind: Kind::Postgres };
        lab.ports.links.get(&link).copied().context("no link to the primary")
    };
    let upstream = match role {
        Role::Primary => None,
        Role::Replica => primary.map(relay).transpose()?,
    };
    let instance = Instance {
        region,
        port: lab.ports.of(region)?.postgres,
        // Both pools of every process, and room for who looks on.
        connections_max: 100 + 90 * u32::from(lab.spec.processes.get()),
        role,
        upstream,
        secrets: &lab.secrets,
    };
    postgres::configure(data, &instance, lab.account)
}

/// A session as soon as the instance accepts one.
pub(super) async fn open(lab: &Inner, region: &Region, child: &Child) -> anyhow::Result<Session> {
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
    timeline: u32,
    session: Session,
) -> anyhow::Result<Session> {
    if lab.spec.bare {
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
    lab.crown(Reign { epoch, timeline, region: primary.clone() });
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
    let goes_on = goes_on && {
        let followed = streams(lab, region, session, KEPT_PATIENCE).await;
        if let Err(error) = &followed {
            // It has what the primary has not, or follows who is no primary.
            let word = format!("{region} does not go on from what it kept: {error:#}");
            lab.spec.progress.tell(Step::Warning(&word));
        }
        followed.is_ok()
    };
    if !goes_on {
        lab.spec.progress.tell(Step::Doing(&format!("{region}: copying the primary")));
        if let Some(child) = lab.running(region, Part::Postgres) {
            child.stop(nix::sys::signal::Signal::SIGINT, Duration::from_secs(5)).await;
        }
        copy(lab, primary, region).await?;
        launch_postgres(lab, region)?;
        streams(lab, region, session, PATIENCE).await?;
    }
    let word = format!("{region}: Postgres, a streaming replica");
    lab.spec.progress.tell(Step::Done(&word));
    Ok(())
}

/// Waits until a region's replica streams from where `session` leads and has what is there now.
/// Makes the slots that the other regions need once it is the primary.
async fn streams(
    lab: &Inner,
    region: &Region,
    session: &Session,
    patience: Duration,
) -> anyhow::Result<()> {
    let child = lab.running(region, Part::Postgres).context("Postgres is gone")?;
    let own = open(lab, region, &child).await?;
    let wanted = session.position().await.context("the primary's position")?;
    let own = &own;
    let follows = || async move {
        session.streams(region).await.map_err(|error| format!("{error:#}"))??;
        let replayed = own.replayed().await.map_err(|error| format!("{error:#}"))?;
        if replayed >= wanted { Ok(()) } else { Err(format!("at {replayed} of {wanted}")) }
    };
    child.until("replication", patience, follows).await?;
    for other in lab.spec.regions.iter().filter(|other| *other != region) {
        own.make_slot(&postgres::slot(other)).await?;
    }
    Ok(())
}

/// Copies the primary, under another name until the copy is whole.
async fn copy(lab: &Inner, primary: &Region, region: &Region) -> anyhow::Result<()> {
    let data = lab.postgres_data(region);
    data::discard(&data)?;
    let partial = data::partial(&data);
    let port = lab.ports.of(primary)?.postgres;
    let bin = &lab.tools.postgres_bin;
    let slot = postgres::slot(region);
    let command = postgres::base_backup(bin, lab.account, &lab.secrets, port, &slot, &partial);
    lab.errand(region, "base-backup", command, false).await?;
    configure(lab, region, Role::Replica, &partial)?;
    // What the primary was told is not for its replica: above all not whom it followed itself.
    postgres::override_settings(&partial, &[], lab.account)?;
    Ok(data::place(&data)?)
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

/// The administrator of the tenant `demo`.
const ADMIN_EMAIL: &str = "admin@demo.example";

/// The tenant `demo`, its administrator and its key, by the commands that a user would give.
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
    let kept = kept.filter(|kept| kept.facts.id == tenant.id);
    let admin = match kept.as_ref().and_then(|kept| kept.facts.admin.clone()) {
        Some(admin) => admin,
        None => make_admin(lab, primary).await?,
    };
    let young = |kept: &KeptTenant| (now - kept.made_at).num_days() < KEY_DAYS_USED_MAX;
    let kept = if let Some(mut kept) = kept.filter(young) {
        kept.facts.admin = Some(admin);
        kept
    } else {
        let days = KEY_DAYS.to_string();
        let arguments = ["key", "create", "--tenant", "demo", "--name", "lab"];
        let more = ["--scopes", "read,write,admin", "--days", &days, "--environment", "lab"];
        let key = ask(lab, primary, &[&arguments[..], &more[..]].concat()).await?;
        let key: Key = serde_json::from_slice(&key).context("what `key create` printed")?;
        let (id, name, api_key) = (tenant.id, tenant.name, key.key);
        let facts = TenantFacts { id, name, api_key, admin: Some(admin) };
        KeptTenant { facts, made_at: now }
    };
    write_private(&path, &serde_json::to_vec_pretty(&kept)?)?;
    lab.tenant.get_or_init(|| kept.facts);
    lab.spec.progress.tell(Step::Done("tenant `demo`, its administrator and its API key"));
    Ok(())
}

/// Makes the administrator, or gives the one whose password was lost another.
async fn make_admin(lab: &Inner, primary: &Region) -> anyhow::Result<AdminFacts> {
    #[derive(Deserialize)]
    struct User {
        email: String,
        password: Option<String>,
    }
    let users = ask(lab, primary, &["user", "list", "--tenant", "demo"]).await?;
    let users: Vec<User> = serde_json::from_slice(&users).context("what `user list` printed")?;
    let made = if users.iter().any(|user| user.email == ADMIN_EMAIL) {
        let arguments = ["user", "set-password", "--tenant", "demo", ADMIN_EMAIL];
        ask(lab, primary, &[&arguments[..], &["--generate-password"]].concat()).await?
    } else {
        let arguments = ["user", "create", "--tenant", "demo", "--email", ADMIN_EMAIL];
        let more = ["--name", "Administrator", "--role", "admin", "--generate-password"];
        ask(lab, primary, &[&arguments[..], &more[..]].concat()).await?
    };
    let made: User = serde_json::from_slice(&made).context("what the command printed")?;
    let password = made.password.context("no password was made")?;
    Ok(AdminFacts { email: made.email, password })
}
