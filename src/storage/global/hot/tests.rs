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

/// Statements for items on this connection so far.
async fn statements(hot: &HotReads) -> i64 {
    let count = "SELECT sum(generic_plans)::bigint FROM pg_prepared_statements \
                 WHERE statement LIKE '%ORDINALITY%'";
    hot.live().unwrap().client.query_one(count, &[]).await.unwrap().get(0)
}

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
     AND datname = current_database() AND application_name = 'godwit'";

/// Holds one statement up at a lock while `asks` gather behind it.
async fn while_held_up<T>(at: &Fixture, hot: &HotReads, asks: impl Future<Output = T>) -> T {
    hot.item(&at.scope, &books(), ItemId::mint(&at.op), &at.op).await.unwrap();
    let mut holder = at.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE item").execute(&mut *holder).await.unwrap();
    let books = books();
    let first = hot.item(&at.scope, &books, ItemId::mint(&at.op), &at.op);
    let release = async {
        at.until(WAITING, 1).await;
        holder.commit().await.unwrap();
    };
    let (first, (), outcome) = tokio::join!(first, release, asks);
    first.unwrap();
    outcome
}

#[sqlx::test(migrations = "migrations/global")]
async fn reads_that_gather_are_one_statement_and_each_gets_its_own_item(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let hot = HotReads::new(&at.config).unwrap();
    let (mine, _) = make(&at).await;
    let (also_mine, _) = make(&at).await;
    let shelf: Collection = "shelf".parse().unwrap();
    let nothing = ItemId::mint(&at.op);
    let wanted = [
        (&at.scope, books(), mine.id, Some(&mine)),
        (&at.other, books(), mine.id, None),
        (&at.scope, shelf, mine.id, None),
        (&at.scope, books(), also_mine.id, Some(&also_mine)),
        (&at.scope, books(), nothing, None),
        (&at.scope, books(), mine.id, Some(&mine)),
    ];
    let asks =
        wanted.iter().map(|(scope, collection, id, _)| hot.item(scope, collection, *id, &at.op));
    let answers = while_held_up(&at, &hot, futures_util::future::join_all(asks)).await;
    for (answer, (.., expected)) in answers.into_iter().zip(&wanted) {
        assert_eq!(answer.unwrap().value.as_ref(), *expected);
    }
    // The one before, the one held up, and one for all that gathered meanwhile.
    assert_eq!(statements(&hot).await, 3);
}

#[sqlx::test(migrations = "migrations/global")]
async fn who_gives_up_is_not_asked_for_and_holds_nobody_up(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let hot = HotReads::new(&at.config).unwrap();
    let (mine, _) = make(&at).await;
    let hasty = testing::op(Duration::from_millis(1));
    let asks = async {
        let given_up = hot.item(&at.scope, &books(), mine.id, &hasty).await;
        (given_up, hot.item(&at.scope, &books(), mine.id, &at.op).await)
    };
    let (given_up, answered) = Box::pin(while_held_up(&at, &hot, asks)).await;
    assert!(matches!(given_up, Err(StorageError::Timeout)), "{given_up:?}");
    assert_eq!(answered.unwrap().value, Some(mine));
}

#[sqlx::test(migrations = "migrations/global")]
async fn an_item_that_cannot_be_read_spoils_no_other_read(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let (bad, _) = make(&at).await;
    let (good, _) = make(&at).await;
    let spoil = format!(
        "ALTER TABLE item RENAME TO item_kept;
         CREATE VIEW item AS SELECT tenant_id, collection, id, epoch, version,
             CASE WHEN id = '{}' THEN id::text::jsonb ELSE data END AS data, created_at, updated_at
         FROM item_kept;
         GRANT SELECT ON item TO godwit_read",
        bad.id
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(spoil)).execute(&at.pool).await.unwrap();
    let hot = HotReads::new(&at.config).unwrap();
    let books = books();
    let asks = [good.id, bad.id, good.id];
    let asks = asks.iter().map(|id| hot.item(&at.scope, &books, *id, &at.op));
    let answers = while_held_up(&at, &hot, futures_util::future::join_all(asks)).await;
    let [first, refused, last] = answers.try_into().unwrap();
    assert!(matches!(refused, Err(StorageError::InvalidData(_))), "{refused:?}");
    assert_eq!(first.unwrap().value.as_ref(), Some(&good));
    assert_eq!(last.unwrap().value.as_ref(), Some(&good));
}

#[sqlx::test(migrations = "migrations/global")]
async fn a_statement_held_up_too_long_ends_for_all_that_are_in_it(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let mut config = at.config.clone();
    config.statement_ms_max = 50;
    let hot = HotReads::new(&config).unwrap();
    let books = books();
    hot.item(&at.scope, &books, ItemId::mint(&at.op), &at.op).await.unwrap();
    let mut holder = at.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE item").execute(&mut *holder).await.unwrap();
    let asks = (0..3).map(|_| hot.item(&at.scope, &books, ItemId::mint(&at.op), &at.op));
    for outcome in futures_util::future::join_all(asks).await {
        assert!(matches!(outcome, Err(StorageError::Timeout)), "{outcome:?}");
    }
    holder.rollback().await.unwrap();
    hot.item(&at.scope, &books, ItemId::mint(&at.op), &at.op).await.unwrap();
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
    let plans = PLANS.map(|(name, value)| format!("SET {name} = {value};")).concat();
    let fill = format!(
        "PREPARE hot (uuid[], text[], uuid[]) AS {};
         {plans}
         INSERT INTO item (tenant_id, collection, id, epoch, version, data, created_at, updated_at)
         SELECT '{tenant}', 'books', gen_random_uuid(), 1, 1, '{{}}', now(), now()
         FROM generate_series(1, 3000);",
        gather::ITEMS,
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut *session).await.unwrap();
    let explain = format!("EXPLAIN EXECUTE hot ('{{{tenant}}}', '{{books}}', '{{{tenant}}}')");
    let plan: Vec<String> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_all(&mut *session).await.unwrap();
    assert!(plan.iter().any(|line| line.contains("using item_pkey on item")), "{plan:#?}");
}
