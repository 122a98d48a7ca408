use super::*;
use crate::{
    storage::global::{
        WriteTx,
        items::{self, Inserted, NewItem},
        testing::{self, Fixture},
    },
    vocab::Op,
};
use sqlx::PgPool;

fn books() -> Collection {
    "books".parse().unwrap()
}

async fn make(at: &Fixture) -> (ItemRow, crate::vocab::Bookmark) {
    let new = NewItem { id: ItemId::mint(&at.op), data: r#"{"n": 1.10}"# };
    let work =
        async |tx: &mut WriteTx| items::insert(tx, &at.scope, &books(), &new, at.op.now()).await;
    match at.write(work).await {
        (Inserted::New(row), written_at) => (row, written_at),
        (taken @ Inserted::Exists(_), _) => panic!("{taken:?}"),
    }
}

#[sqlx::test(migrations = "migrations/global")]
async fn reads_what_the_pool_reads_at_a_position_no_earlier(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let hot = HotReads::new(&at.config).unwrap();
    let (made, written_at) = make(&at).await;
    let read = hot.item(&at.scope, &books(), made.id, &at.op).await.unwrap();
    assert_eq!(read.value.as_ref(), Some(&made));
    assert!(read.at >= written_at);
    let absent = hot.item(&at.scope, &books(), ItemId::mint(&at.op), &at.op).await.unwrap();
    assert!(absent.value.is_none() && absent.at >= written_at);
    let foreign = hot.item(&at.other, &books(), made.id, &at.op).await.unwrap();
    assert_eq!(foreign.value, None);

    let new = at.new_key(7);
    let tenant = at.scope.tenant();
    let (key, _) = at.write(async |tx| api_keys::insert(tx, tenant, &new).await).await;
    assert_eq!(hot.api_key(&[7; 32], &at.op).await.unwrap().value, Some(key));
    assert_eq!(hot.api_key(&[8; 32], &at.op).await.unwrap().value, None);
}

#[sqlx::test(migrations = "migrations/global")]
async fn many_reads_share_one_connection_that_cannot_write(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    at.global.close().await;
    at.until(SESSIONS, 0).await;
    let hot = HotReads::new(&at.config).unwrap();
    let reads = (0..200).map(|_| {
        let (hot, at) = (hot.clone(), &at);
        async move { hot.item(&at.scope, &books(), ItemId::mint(&at.op), &at.op).await.map(|_| ()) }
    });
    futures_util::future::try_join_all(reads).await.unwrap();
    assert_eq!(at.count(SESSIONS).await, 1);
    let live = hot.live().unwrap();
    let refused = live.client.batch_execute("CREATE TEMP TABLE mine ()").await.unwrap_err();
    assert!(matches!(StorageError::from(refused), StorageError::ReadOnly));
}

const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity \
     WHERE datname = current_database() AND application_name = 'godwit'";

#[sqlx::test(migrations = "migrations/global")]
async fn a_lost_connection_is_made_again_without_a_failed_read(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let hot = HotReads::new(&at.config).unwrap();
    let (made, _) = make(&at).await;
    for _ in 0..3 {
        let read = hot.item(&at.scope, &books(), made.id, &at.op).await.unwrap();
        assert_eq!(read.value.as_ref(), Some(&made));
        at.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND application_name = 'godwit'",
        )
        .await;
    }
}

/// An address where nobody listens: bound, then let go.
fn deserted() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn config_at(config: &DatabaseConfig, port: u16) -> DatabaseConfig {
    let url = format!("postgres://godwit@127.0.0.1:{port}/godwit?sslmode=disable");
    DatabaseConfig { read_url: url.into(), ..config.clone() }
}

#[sqlx::test(migrations = "migrations/global")]
async fn while_the_database_is_away_everyone_is_refused_at_once(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let hot = HotReads::new(&config_at(&at.config, deserted())).unwrap();
    let budget = testing::op(Duration::from_secs(5));
    for _ in 0..1_000 {
        let refused = hot.api_key(&[0; 32], &at.op).await;
        assert!(matches!(refused, Err(StorageError::Unavailable(_))), "{refused:?}");
    }
    assert!(!budget.remaining().is_zero(), "a thousand refusals took five seconds");
}

#[sqlx::test(migrations = "migrations/global")]
async fn a_database_that_does_not_answer_costs_no_more_than_the_deadline(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    // Accepts and says nothing, like a server that has been stopped.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hot = HotReads::new(&config_at(&at.config, mute.local_addr().unwrap().port())).unwrap();
    let op: Op = testing::op(Duration::from_millis(200));
    let guard = testing::op(Duration::from_millis(1_500));
    let refused = hot.api_key(&[0; 32], &op).await;
    assert!(matches!(refused, Err(StorageError::Timeout)), "{refused:?}");
    assert!(!guard.remaining().is_zero());
}

/// A wrong index is not slow while tests are small, so the plan itself is looked at. Without
/// statistics, as after a bulk load, every index that begins alike looks alike.
#[sqlx::test(migrations = "migrations/global")]
async fn an_item_is_found_by_its_primary_key_before_there_are_statistics(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let tenant = at.scope.tenant().as_uuid();
    let mut session = pool.acquire().await.unwrap();
    let fill = format!(
        "INSERT INTO item (tenant_id, collection, id, epoch, version, data, created_at, updated_at)
         SELECT '{tenant}', 'books', gen_random_uuid(), 1, 1, '{{}}', now(), now()
         FROM generate_series(1, 3000);
         SET plan_cache_mode = force_generic_plan;
         PREPARE hot (uuid, text, uuid) AS {ITEM}"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut *session).await.unwrap();
    let explain = format!("EXPLAIN EXECUTE hot ('{tenant}', 'books', '{tenant}')");
    let plan: Vec<String> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_all(&mut *session).await.unwrap();
    assert!(plan.iter().any(|line| line.contains("using item_pkey on item")), "{plan:#?}");
}
