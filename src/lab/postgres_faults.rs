//! Faults that are made inside a Postgres instance, as its administrator.

use anyhow::Context as _;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a long reader reads, and how often is vacuumed meanwhile.
const READ_FOR: Duration = Duration::from_secs(6);
const VACUUM_EVERY: Duration = Duration::from_millis(300);
/// Messages that pad the log, and how long that takes at least.
const PADS: u32 = 300;
const PAD_EVERY: Duration = Duration::from_millis(15);
/// How long waiting commits are looked for and cancelled.
const CANCELS: u32 = 40;
const CANCEL_EVERY: Duration = Duration::from_millis(50);

/// A connection, closed when dropped.
struct Session {
    client: Client,
    _driver: JoinSet<()>,
}

impl Session {
    /// What the fault itself writes waits for no replica.
    async fn open(url: &str) -> anyhow::Result<Self> {
        let mut config: tokio_postgres::Config = url.parse().context("the database's URL")?;
        config.application_name("godwit drill").options("-c synchronous_commit=local");
        config.connect_timeout(CONNECT_PATIENCE);
        let connecting = tokio::time::timeout(CONNECT_PATIENCE, config.connect(NoTls));
        let (client, connection) = connecting.await.context("no answer")??;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its errors reach the client's callers.
            let _ = connection.await;
        });
        Ok(Self { client, _driver: driver })
    }

    async fn run(&self, statements: &str) -> anyhow::Result<()> {
        Ok(self.client.batch_execute(statements).await?)
    }
}

/// Reads the replica in one long transaction while the primary vacuums what it sees.
///
/// # Errors
/// When a database cannot be asked; also when the reader is cancelled, which feedback from the
/// standby prevents.
pub async fn read_long(replica: &str, primary: &str) -> anyhow::Result<()> {
    let (reader, cleaner) = (Session::open(replica).await?, Session::open(primary).await?);
    let count = "SELECT count(*) FROM item";
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    reader.run(count).await?;
    let mut turns = tokio::time::interval(VACUUM_EVERY);
    let rounds = READ_FOR.as_millis() / VACUUM_EVERY.as_millis();
    for _ in 0..rounds {
        turns.tick().await;
        cleaner.run("VACUUM item").await?;
    }
    reader.run(count).await.context("the long reader was cancelled")?;
    reader.run("COMMIT").await
}

/// Cancels whichever commits wait for a replica, for two seconds, and returns how many there were.
///
/// # Errors
/// When the database cannot be asked.
pub async fn cancel_waits(primary: &str) -> anyhow::Result<u64> {
    let session = Session::open(primary).await?;
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let mut turns = tokio::time::interval(CANCEL_EVERY);
    let mut cancelled = 0;
    for _ in 0..CANCELS {
        turns.tick().await;
        cancelled += session.client.query(cancel, &[]).await?.len() as u64;
    }
    Ok(cancelled)
}

/// Pads the log to the end of its page, again and again, so that the commits beside end where pages
/// do; and at last ends its segment.
///
/// # Errors
/// When the database cannot be asked.
pub async fn fill_pages(primary: &str) -> anyhow::Result<()> {
    let session = Session::open(primary).await?;
    // A commit record takes some 40 to 300 bytes: it is to start that far from the page's end.
    let pad = "SELECT pg_logical_emit_message(false, 'godwit drill', repeat('x', greatest(1,
            (8192 - (pg_current_wal_insert_lsn() - '0/0'::pg_lsn) % 8192)::int
                - 60 - (random() * 400)::int)))";
    let mut turns = tokio::time::interval(PAD_EVERY);
    for _ in 0..PADS {
        turns.tick().await;
        session.run(pad).await?;
    }
    session.run("SELECT pg_switch_wal()").await
}
