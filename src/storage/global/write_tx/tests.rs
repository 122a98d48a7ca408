use super::*;
use crate::{
    storage::global::{
        tenants,
        testing::{self, Fixture},
    },
    vocab::{Lsn, TenantId},
};
use sqlx::PgPool;

const TENANTS: &str = "SELECT count(*) FROM tenant WHERE name = 'new'";
const IN_TRANSACTION: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
     AND usename = current_user AND application_name = 'godwit' AND state LIKE 'idle in transaction%'";

async fn create(tx: &mut WriteTx) -> Result<(), StorageError> {
    let (id, now) = (TenantId::mint(&tx.op().clone()), tx.op().now());
    tenants::create(tx, id, "new", now).await.map(|_| ())
}

#[sqlx::test(migrations = "migrations/global")]
async fn a_write_meant_for_another_epoch_does_nothing(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let two = Epoch::new(2).unwrap();
    let mut tx = WriteTx::open(&at.global, two, &at.op).await.unwrap();
    let refused = create(&mut tx).await;
    assert!(
        matches!(refused, Err(StorageError::EpochMismatch { expected, found })
            if expected == two && found == Epoch::FIRST),
        "{refused:?}"
    );
    at.sql("INSERT INTO cluster_epoch VALUES (2, '0/1', 'eu-west-1', now())").await;
    let mut old = at.begin().await;
    let key = "k".parse().unwrap();
    let refused = old.claim(&at.scope, &key, &[0; 32]).await;
    assert!(matches!(refused, Err(StorageError::EpochMismatch { .. })), "{refused:?}");
    // Even one that wrote nothing is not said to be committed.
    let refused = at.begin().await.commit().await;
    assert!(matches!(refused, Err(CommitError::RolledBack(_))), "{refused:?}");
    assert_eq!(at.count(TENANTS).await, 0);
}

#[sqlx::test(migrations = "migrations/global")]
async fn a_fenced_database_is_read_only_to_sessions_that_were_open_before(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    at.sql(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', \
         current_database()); END $$; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name = 'godwit'",
    )
    .await;
    // The dead sessions in the pool are passed over; the new one knows of the fence.
    let refused = create(&mut at.begin().await).await;
    assert!(matches!(refused, Err(StorageError::ReadOnly)), "{refused:?}");
}

#[sqlx::test(migrations = "migrations/global")]
async fn dropped_between_statements_it_is_rolled_back_and_the_connection_lives(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    for _ in 0..10 {
        let mut tx = at.begin().await;
        create(&mut tx).await.unwrap();
        drop(tx);
    }
    at.until(IN_TRANSACTION, 0).await;
    assert_eq!(at.count(TENANTS).await, 0);
    at.write(create).await;
    assert_eq!(at.count(TENANTS).await, 1);
}

#[sqlx::test(migrations = "migrations/global")]
async fn cancelled_within_a_statement_its_connection_is_closed(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let mut holder = at.begin().await;
    create(&mut holder).await.unwrap();
    {
        let mut tx = at.begin().await;
        tx.ensure_epoch().await.unwrap();
        // Waits for the holder's uncommitted name, and is dropped while it does.
        let waiting = create(&mut tx);
        let until = at.until(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event_type = 'Lock'",
            1,
        );
        tokio::select! {
            created = waiting => panic!("did not wait: {created:?}"),
            () = until => {}
        }
    }
    holder.rollback().await.unwrap();
    at.until(IN_TRANSACTION, 0).await;
    // As many as the pool holds, at once: none is stuck in somebody's transaction.
    let (mut first, mut second, third) = (at.begin().await, at.begin().await, at.begin().await);
    first.ensure_epoch().await.unwrap();
    second.ensure_epoch().await.unwrap();
    third.commit().await.unwrap();
    assert_eq!(at.count(TENANTS).await, 0);
}

#[sqlx::test(migrations = "migrations/global")]
async fn a_failed_statement_cannot_be_committed_over(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let mut tx = at.begin().await;
    create(&mut tx).await.unwrap();
    assert!(matches!(create(&mut tx).await, Err(StorageError::Conflict(_))));
    // Postgres would answer this COMMIT with ROLLBACK, and no error.
    let committed = tx.commit().await;
    assert!(matches!(committed, Err(CommitError::RolledBack(_))), "{committed:?}");
    at.until(IN_TRANSACTION, 0).await;
    assert_eq!(at.count(TENANTS).await, 0);
}

#[sqlx::test(migrations = "migrations/global")]
async fn a_connection_that_dies_during_the_commit_leaves_the_outcome_unknown(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let mut tx = at.begin().await;
    create(&mut tx).await.unwrap();
    at.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND state = 'idle in transaction'",
    )
    .await;
    let committed = tx.commit().await;
    assert!(matches!(committed, Err(CommitError::Unknown(_))), "{committed:?}");
    at.write(create).await;
}

#[sqlx::test(migrations = "migrations/global")]
async fn a_commit_that_waits_past_the_deadline_leaves_the_outcome_unknown(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let op = testing::op(Duration::from_millis(700));
    let mut tx = WriteTx::open(&at.global, Epoch::FIRST, &op).await.unwrap();
    create(&mut tx).await.unwrap();
    let (connection, _) = tx.statement();
    // Stands for a standby that does not answer: something that COMMIT waits for.
    let slow = "CREATE FUNCTION pg_temp.slow() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_sleep(20); RETURN NULL; END'; \
         CREATE TEMP TABLE held (); \
         CREATE CONSTRAINT TRIGGER held AFTER INSERT ON held DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION pg_temp.slow(); INSERT INTO held DEFAULT VALUES";
    let outcome = sqlx::raw_sql(slow).execute(connection).await;
    tx.ended(outcome.map_err(StorageError::from)).unwrap();
    let committed = tx.commit().await;
    assert!(matches!(committed, Err(CommitError::Unknown(StorageError::Timeout))), "{committed:?}");
    at.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()",
    )
    .await;
}

#[sqlx::test(migrations = "migrations/global")]
async fn past_the_deadline_nothing_is_committed(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let clock = std::sync::Arc::new(crate::vocab::clock::ManualClock::new());
    let mut op = at.op.clone();
    op.clock = clock.clone();
    op.deadline = crate::vocab::Clock::monotonic(&*clock) + Duration::from_secs(5);
    let mut tx = WriteTx::open(&at.global, Epoch::FIRST, &op).await.unwrap();
    create(&mut tx).await.unwrap();
    clock.advance(Duration::from_secs(5));
    let committed = tx.commit().await;
    assert!(
        matches!(committed, Err(CommitError::RolledBack(StorageError::Timeout))),
        "{committed:?}"
    );
    at.until(IN_TRANSACTION, 0).await;
    assert_eq!(at.count(TENANTS).await, 0);
}

#[sqlx::test(migrations = "migrations/global")]
async fn roles_can_do_what_their_part_needs_and_no_more(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let denied = |outcome: Result<sqlx::postgres::PgQueryResult, sqlx::Error>| {
        let error = outcome.unwrap_err();
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        assert_eq!(code.as_deref(), Some("42501"), "{error}");
    };
    for sql in [
        "BEGIN READ WRITE; INSERT INTO tenant VALUES (gen_random_uuid(), 'x', now())",
        "BEGIN READ WRITE; DELETE FROM item",
        "BEGIN READ WRITE; UPDATE api_key SET revoked_at = NULL",
    ] {
        let mut reader = at.global.read.acquire().await.unwrap();
        denied(sqlx::raw_sql(sql).execute(&mut *reader).await);
        reader.close().await.unwrap();
    }
    // Nor is it asked: its sessions are read-only to begin with.
    let plain = sqlx::raw_sql("INSERT INTO tenant VALUES (gen_random_uuid(), 'x', now())");
    let refused: StorageError = plain.execute(&at.global.read).await.unwrap_err().into();
    assert!(matches!(refused, StorageError::ReadOnly), "{refused:?}");
    for sql in [
        "CREATE TABLE mine ()",
        "DROP TABLE item",
        "TRUNCATE item",
        "ALTER TABLE item ADD COLUMN mine int",
        "DELETE FROM tenant",
        "UPDATE write_journal SET status = 500",
        "UPDATE api_key SET scopes = '{admin}'",
        "DELETE FROM api_key",
        "INSERT INTO cluster_epoch VALUES (9, '0/0', 'x', now())",
        "DELETE FROM _sqlx_migrations",
    ] {
        denied(sqlx::raw_sql(sql).execute(&at.global.write).await);
    }
}

#[sqlx::test(migrations = "migrations/global")]
async fn refuses_a_server_whose_commits_are_not_flushed(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    at.sql(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', \
         current_database()); END $$",
    )
    .await;
    let mut config = at.config.clone();
    config.acquire_ms_max = 300;
    let global = Global::connect(&config).unwrap();
    let refused = WriteTx::open(&global, Epoch::FIRST, &at.op).await;
    assert!(matches!(refused, Err(StorageError::Unavailable(_))), "{refused:?}");
}

/// `shared/postgres.md` lesson 1: when a commit ends on a page's end, the insert position already
/// points past the next page's header, 24 bytes that no replica replays until more is written. Pads
/// the log until a commit ends there. A flushed record never ends 24 bytes into a page.
#[sqlx::test(migrations = "migrations/global")]
async fn a_commit_that_ends_on_a_page_boundary_can_be_replayed(pool: PgPool) {
    const PAGE: u64 = 8_192;
    const HEADER: u64 = 24;
    let at = Fixture::new(&pool).await;
    let deadline = testing::op(Duration::from_mins(1));
    // What a transaction takes beside its padding, learnt from the one before. All is in eights.
    let mut beside = 0;
    loop {
        assert!(!deadline.remaining().is_zero(), "no commit ended on a page boundary");
        let mut tx = at.begin().await;
        tx.ensure_epoch().await.unwrap();
        let start = insert_position(&mut tx).await;
        let left = PAGE - start % PAGE;
        // To the end of this page, or of the next when this has no room.
        let padding = if left >= beside { left - beside } else { left + PAGE - HEADER - beside };
        let (connection, _) = tx.statement();
        let query = sqlx::query("SELECT pg_logical_emit_message(true, 'p', repeat('x', $1))::text");
        let outcome = query.bind(i32::try_from(padding).unwrap()).execute(connection).await;
        tx.ended(outcome.map_err(StorageError::from)).unwrap();
        let end = tx.commit().await.unwrap().lsn.get();
        assert_ne!(end % PAGE, HEADER, "{end} is where the next page's header ends");
        if end.is_multiple_of(PAGE) {
            return;
        }
        // Other databases of this server write to the same log: learn from undisturbed ones only.
        let taken = end - start - padding - HEADER * (end / PAGE - start / PAGE);
        if taken < 512 {
            beside = taken;
        }
    }
}

async fn insert_position(tx: &mut WriteTx) -> u64 {
    let (connection, _) = tx.statement();
    let query = sqlx::query_scalar::<_, String>("SELECT pg_current_wal_insert_lsn()::text");
    let outcome = query.fetch_one(connection).await;
    tx.ended(outcome.map_err(StorageError::from)).unwrap().parse::<Lsn>().unwrap().get()
}

/// `shared/postgres.md` lesson 7: COMMIT answers as ever, and warns. Nobody but this server has it.
#[sqlx::test(migrations = "migrations/global")]
async fn a_commit_whose_wait_for_a_standby_was_cancelled_is_unknown(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    // The tests' server waits for a standby that does not exist, where a session asks it to.
    at.sql(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = on', \
         current_database()); END $$",
    )
    .await;
    let global = Global::connect(&at.config).unwrap();
    let mut tx = WriteTx::open(&global, Epoch::FIRST, &at.op).await.unwrap();
    create(&mut tx).await.unwrap();
    let cancel = async {
        at.until(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event = 'SyncRep'",
            1,
        )
        .await;
        assert_eq!(at.count(TENANTS).await, 0, "others see it once the wait has ended");
        at.sql(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event = 'SyncRep'",
        )
        .await;
    };
    let (committed, ()) = tokio::join!(tx.commit(), cancel);
    let Err(CommitError::Unknown(StorageError::Other(why))) = committed else {
        panic!("{committed:?}")
    };
    assert!(why.to_string().starts_with("the server warned at the commit: "), "{why}");
    assert_eq!(at.count(TENANTS).await, 1);
}
