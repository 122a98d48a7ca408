//! A region's Postgres: its programs, its settings, and the few statements that it is asked.

use super::{
    account::Account, conninfo::ConnInfo, data::Role, layout::write_private, ports::local,
    secrets::Secrets,
};
use crate::vocab::{Epoch, Lsn, Region};
use anyhow::{Context as _, ensure};
use std::{fmt::Write as _, fs, path::Path, time::Duration};
use tokio::{process::Command, task::JoinSet};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// The database of the global plane, and the superuser that makes it.
pub const DATABASE: &str = "godwit";
const SUPERUSER: &str = "godwit";
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// The same through a relay, over which a connection takes several round trips.
const FAR_PATIENCE: Duration = Duration::from_secs(20);

/// To move the primary, and to be followed by one that was the primary: `migrations/README.md`.
const CONTROL: &str = "
    GRANT pg_monitor, pg_signal_backend TO godwit_control;
    GRANT SET, ALTER SYSTEM ON PARAMETER primary_conninfo, primary_slot_name,
        synchronous_standby_names, default_transaction_read_only TO godwit_control;
    GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf() TO godwit_control;
    GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean),
        pg_read_binary_file(text), pg_read_binary_file(text, bigint, bigint, boolean)
        TO godwit_replication;
    GRANT pg_checkpoint TO godwit_replication";

/// What a region's slot is called: the region, in the letters that a slot may have.
pub fn slot(region: &Region) -> String {
    region.as_str().replace('-', "_")
}

/// A connection URL as one of the roles.
pub fn url(role: &str, password: &str, port: u16) -> String {
    format!("postgres://{role}:{password}@{}/{DATABASE}", local(port))
}

/// How a follower, or `pg_rewind`, reaches the instance behind `port`, as libpq writes it.
pub fn following(secrets: &Secrets, port: u16) -> String {
    format!(
        "host=127.0.0.1 port={port} user=godwit_replication password={} dbname={DATABASE} \
         sslmode=disable gssencmode=disable",
        secrets.replication
    )
}

/// As the superuser.
pub fn superuser_url(secrets: &Secrets, port: u16) -> String {
    url(SUPERUSER, &secrets.superuser, port)
}

/// A program of Postgres, without our environment: `PGDATA` and its like would lead it astray.
pub fn program(bin: &Path, name: &str, account: Option<Account>) -> Command {
    let mut command = Command::new(bin.join(name));
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
    Account::apply(account, &mut command);
    command
}

/// `initdb` of a new primary into `data`, with the superuser's password in `password_file`.
pub fn initdb(bin: &Path, account: Option<Account>, data: &Path, password_file: &Path) -> Command {
    let mut command = program(bin, "initdb", account);
    command
        .args(["-U", SUPERUSER, "--auth=scram-sha-256", "--data-checksums", "--no-sync"])
        .args(["-E", "UTF8", "--locale=C", "--no-instructions"])
        .arg(format!("--pwfile={}", password_file.display()))
        .arg("-D")
        .arg(data);
    command
}

/// A copy of the primary on `port` into `data`. Straight from it: making a laboratory need not
/// take the time that the distance would cost.
pub fn base_backup(
    bin: &Path,
    account: Option<Account>,
    secrets: &Secrets,
    port: u16,
    slot: &str,
    data: &Path,
) -> Command {
    let mut command = program(bin, "pg_basebackup", account);
    command
        .env("PGPASSWORD", &secrets.replication)
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "godwit_replication", "-w"])
        .args(["-X", "stream", "-c", "fast", "--no-sync", "-S", slot, "-D"])
        .arg(data);
    command
}

/// A copy of whom `source` names into `data`. The slot is left to who follows: a sender that its
/// receiver has left may hold it for some seconds yet.
pub fn fetch(bin: &Path, account: Option<Account>, source: &ConnInfo, data: &Path) -> Command {
    let mut command = program(bin, "pg_basebackup", account);
    command
        .env("PGPASSWORD", source.get("password").unwrap_or_default())
        .args(["-d", &source.to_fetch(), "-w", "-X", "stream", "-c", "fast", "--no-sync"])
        .arg("-D")
        .arg(data);
    command
}

/// Makes `data`, shut down cleanly, what `source` has from where the two part.
pub fn rewind(bin: &Path, account: Option<Account>, data: &Path, source: &ConnInfo) -> Command {
    let mut command = program(bin, "pg_rewind", account);
    command
        .env("PGPASSWORD", source.get("password").unwrap_or_default())
        .args(["--source-server", &source.to_fetch(), "--no-sync", "--no-ensure-shutdown"])
        .arg("--target-pgdata")
        .arg(data);
    command
}

/// Crash recovery, then a clean end, without ever accepting a connection.
pub fn single(bin: &Path, account: Option<Account>, data: &Path) -> Command {
    let mut command = program(bin, "postgres", account);
    command.args(["--single", "-F", "-D"]).arg(data).arg("template1");
    command
}

pub fn controldata(bin: &Path, account: Option<Account>, data: &Path) -> Command {
    let mut command = program(bin, "pg_controldata", account);
    command.arg("-D").arg(data);
    command
}

pub fn server(bin: &Path, account: Option<Account>, data: &Path) -> Command {
    let mut command = program(bin, "postgres", account);
    command.arg("-D").arg(data);
    command
}

/// What one instance is told.
#[derive(Debug)]
pub struct Instance<'a> {
    pub region: &'a Region,
    pub port: u16,
    pub connections_max: u32,
    pub role: Role,
    /// The relay to the primary, where that is another region.
    pub upstream: Option<u16>,
    pub secrets: &'a Secrets,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// Writes the settings of an instance into its data directory.
pub fn configure(data: &Path, instance: &Instance, account: Option<Account>) -> anyhow::Result<()> {
    let write = |name: &str, text: &str| -> anyhow::Result<()> {
        let path = data.join(name);
        write_private(&path, text.as_bytes()).with_context(|| path.display().to_string())?;
        Ok(Account::give(account, &path)?)
    };
    write("postgresql.conf", &settings(instance))?;
    write(
        "pg_hba.conf",
        "host all all 127.0.0.1/32 scram-sha-256\n\
         host replication godwit_replication 127.0.0.1/32 scram-sha-256\n",
    )?;
    if instance.role == Role::Replica {
        write("standby.signal", "")?;
    }
    Ok(())
}

/// Replaces what `ALTER SYSTEM` has set, which goes over [`configure`]'s settings.
pub fn override_settings(
    data: &Path,
    told: &[(&str, &str)],
    account: Option<Account>,
) -> anyhow::Result<()> {
    let mut text = String::new();
    for (name, value) in told {
        ensure!(!value.contains(char::is_control), "{name}: not one line of text");
        writeln!(text, "{name} = '{}'", value.replace('\\', "\\\\").replace('\'', "''"))?;
    }
    let path = data.join("postgresql.auto.conf");
    write_private(&path, text.as_bytes()).with_context(|| path.display().to_string())?;
    Ok(Account::give(account, &path)?)
}

fn settings(instance: &Instance) -> String {
    let Instance { region, port, connections_max, upstream, secrets, .. } = instance;
    let follow = upstream.map_or(String::new(), |relay| {
        format!(
            "primary_conninfo = '{} application_name={region}'\nprimary_slot_name = '{}'\n",
            following(secrets, relay),
            slot(region)
        )
    });
    // After a crash Postgres syncs its files one by one, a thousand of them. Linux can sync all at
    // once.
    let recover =
        if cfg!(target_os = "linux") { "recovery_init_sync_method = syncfs\n" } else { "" };
    format!(
        "{follow}{recover}\
         cluster_name = '{region}'\n\
         listen_addresses = '127.0.0.1'\n\
         port = {port}\n\
         unix_socket_directories = ''\n\
         max_connections = {connections_max}\n\
         shared_buffers = '128MB'\n\
         huge_pages = off\n\
         jit = off\n\
         password_encryption = 'scram-sha-256'\n\
         timezone = 'UTC'\n\
         log_timezone = 'UTC'\n\
         log_line_prefix = '%m [%p] %q%u@%d '\n\
         log_lock_waits = on\n\
         fsync = on\n\
         synchronous_commit = on\n\
         full_page_writes = on\n\
         wal_level = replica\n\
         wal_log_hints = on\n\
         max_wal_senders = 20\n\
         max_replication_slots = 20\n\
         max_wal_size = '1GB'\n\
         wal_keep_size = '64MB'\n\
         # A replica that is away longer than this many bytes is made anew; a disk that is full\n\
         # would stop the primary.\n\
         max_slot_wal_keep_size = '1GB'\n\
         # A link that holds its bytes is noticed, and a connection made anew after it heals.\n\
         wal_sender_timeout = '5s'\n\
         wal_receiver_timeout = '5s'\n\
         wal_receiver_status_interval = '1s'\n\
         wal_retrieve_retry_interval = '250ms'\n\
         hot_standby = on\n\
         # Replay waits for readers less long than a request waits for its bookmark, and readers\n\
         # keep vacuum from removing what they see.\n\
         hot_standby_feedback = on\n\
         max_standby_streaming_delay = '400ms'\n\
         max_standby_archive_delay = '400ms'\n"
    )
}

/// A connection as an administrator, closed when dropped.
#[derive(Debug)]
pub struct Session {
    client: Client,
    _driver: JoinSet<()>,
}

impl Session {
    /// To the database, or to `postgres` while there is none.
    ///
    /// # Errors
    /// When the instance does not accept it.
    pub async fn open(secrets: &Secrets, port: u16, database: &str) -> anyhow::Result<Self> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).dbname(database).user(SUPERUSER);
        config.password(&secrets.superuser).connect_timeout(CONNECT_PATIENCE);
        // What makes the laboratory must not wait for a replica that it has yet to make, and is
        // not whom a fence is for.
        let free = "-c synchronous_commit=local -c default_transaction_read_only=off";
        config.application_name("godwit lab").options(free);
        Self::connect(&config).await
    }

    /// As who, and to where, a connection string names.
    ///
    /// # Errors
    /// When it names no address, or the instance does not accept it.
    pub async fn to(there: &ConnInfo) -> anyhow::Result<Self> {
        let mut config = tokio_postgres::Config::new();
        config.host(there.get("host").context("a connection string without a host")?);
        config.port(there.get("port").unwrap_or("5432").parse().context("a port")?);
        config.user(there.get("user").context("a connection string without a user")?);
        config.dbname(there.get("dbname").unwrap_or(DATABASE));
        config.password(there.get("password").unwrap_or_default());
        config.connect_timeout(FAR_PATIENCE).application_name("godwit lab");
        Self::connect(&config).await
    }

    async fn connect(config: &tokio_postgres::Config) -> anyhow::Result<Self> {
        let patience = config.get_connect_timeout().copied().unwrap_or(CONNECT_PATIENCE);
        let connecting = tokio::time::timeout(patience, config.connect(NoTls));
        let (client, connection) = connecting.await.context("no answer")??;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its errors reach the client's callers.
            let _ = connection.await;
        });
        Ok(Self { client, _driver: driver })
    }

    /// Runs statements that return nothing worth reading.
    pub async fn run(&self, statements: &str) -> anyhow::Result<()> {
        Ok(self.client.batch_execute(statements).await?)
    }

    /// The first column of every row.
    pub async fn column(&self, query: &str) -> anyhow::Result<Vec<String>> {
        let messages = self.client.simple_query(query).await?;
        let value = |message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(value).collect())
    }

    async fn holds(&self, query: &str) -> anyhow::Result<bool> {
        Ok(!self.column(query).await?.is_empty())
    }

    /// Makes the login roles that are missing, and the database.
    pub async fn make_database(&self, secrets: &Secrets) -> anyhow::Result<()> {
        for (role, attributes, password) in [
            ("godwit_owner", "CREATEROLE", &secrets.owner),
            ("godwit_app", "", &secrets.app),
            ("godwit_reader", "", &secrets.reader),
            ("godwit_replication", "REPLICATION", &secrets.replication),
            // A slot is kept by who may replicate.
            ("godwit_control", "REPLICATION", &secrets.control),
        ] {
            let known = format!("SELECT 1 FROM pg_roles WHERE rolname = '{role}'");
            if !self.holds(&known).await? {
                let make = format!("CREATE ROLE {role} LOGIN {attributes} PASSWORD '{password}'");
                self.run(&make).await?;
            }
        }
        self.run("GRANT pg_monitor TO godwit_reader").await?;
        let known = format!("SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'");
        if !self.holds(&known).await? {
            self.run(&format!("CREATE DATABASE {DATABASE} OWNER godwit_owner")).await?;
        }
        Ok(())
    }

    /// Grants what moving the primary takes, on the server and in this database.
    pub async fn empower(&self) -> anyhow::Result<()> {
        self.run(CONTROL).await
    }

    /// Puts the login roles into the groups that the schema has made.
    pub async fn join_groups(&self) -> anyhow::Result<()> {
        self.run(
            "GRANT godwit_write TO godwit_app; GRANT godwit_read TO godwit_reader; \
             GRANT godwit_failover TO godwit_control",
        )
        .await
    }

    /// Makes a replica's slot unless it is there. Tells whether a replica kept from before can go
    /// on from it: not when the slot is new, or has lost what the replica still needs.
    pub async fn make_slot(&self, slot: &str) -> anyhow::Result<bool> {
        let query = format!(
            "SELECT coalesce(wal_status, 'lost') FROM pg_replication_slots WHERE slot_name = '{slot}'"
        );
        let status = self.column(&query).await?;
        match status.first().map(String::as_str) {
            Some("lost") => self.run(&format!("SELECT pg_drop_replication_slot('{slot}')")).await?,
            Some(_) => return Ok(true),
            None => {}
        }
        self.run(&format!("SELECT pg_create_physical_replication_slot('{slot}', true)")).await?;
        Ok(false)
    }

    /// Whether the replica of `region` streams from here, or how it stands.
    pub async fn streams(&self, region: &Region) -> anyhow::Result<Result<(), String>> {
        let query =
            format!("SELECT state FROM pg_stat_replication WHERE application_name = '{region}'");
        Ok(match self.column(&query).await?.as_slice() {
            [] => Err("not connected to the primary".into()),
            states if states.iter().any(|state| state == "streaming") => Ok(()),
            states => Err(states.join(", ")),
        })
    }

    /// Lets a commit wait until one of `standbys` has it on its disk too; with none, until it is on
    /// the primary's. It outlasts a restart, so that none is acknowledged for less meanwhile.
    pub async fn wait_for_one_of(&self, standbys: &[&Region]) -> anyhow::Result<()> {
        let names: Vec<String> = standbys.iter().map(|region| format!("\"{region}\"")).collect();
        let wanted =
            if names.is_empty() { String::new() } else { format!("ANY 1 ({})", names.join(", ")) };
        // Each by itself: ALTER SYSTEM takes no transaction.
        self.run(&format!("ALTER SYSTEM SET synchronous_standby_names = '{wanted}'")).await?;
        self.run("SELECT pg_reload_conf()").await
    }

    /// Whether commits wait for that many replicas to choose from, or how many there are.
    pub async fn chooses_from(&self, replicas: usize) -> anyhow::Result<Result<(), String>> {
        let query = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'";
        let found = self.column(query).await?;
        let found = found.first().context("no count")?;
        Ok(if *found == replicas.to_string() { Ok(()) } else { Err(format!("{found} replicas")) })
    }

    /// On a primary, how far it has come.
    pub async fn position(&self) -> anyhow::Result<Lsn> {
        self.lsn("SELECT pg_current_wal_flush_lsn()").await
    }

    /// On a replica, how far it has replayed.
    pub async fn replayed(&self) -> anyhow::Result<Lsn> {
        self.lsn("SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')").await
    }

    async fn lsn(&self, query: &str) -> anyhow::Result<Lsn> {
        let found = self.column(query).await?;
        Ok(found.first().context("no position")?.parse()?)
    }

    /// The current epoch.
    pub async fn epoch(&self) -> anyhow::Result<Epoch> {
        let found = self.column("SELECT max(epoch) FROM cluster_epoch").await?;
        Ok(found.first().context("no epoch")?.parse()?)
    }
}

/// Whether the server `pid` has written beside its data that it accepts connections, or what else.
/// Asking the server itself would fork a process and write a line of log each time.
pub fn accepts(data: &Path, pid: i32) -> Result<(), String> {
    let state = fs::read_to_string(data.join("postmaster.pid")).map_err(|e| e.to_string())?;
    let lines: Vec<&str> = state.lines().map(str::trim).collect();
    match (lines.first(), lines.get(7)) {
        (Some(first), _) if *first != pid.to_string() => Err("not started".into()),
        (_, Some(&"ready")) => Ok(()),
        (_, other) => Err(other.unwrap_or(&"starting").to_string()),
    }
}
