use super::*;
use crate::storage::global::{Global, testing::Fixture};
use sqlx::PgPool;

fn books() -> Collection {
    "books".parse().unwrap()
}

fn id(number: u128) -> ItemId {
    ItemId::from_stored(Uuid::from_u128(number))
}

async fn make(at: &Fixture, id: ItemId, data: &str) -> ItemRow {
    let new = NewItem { id, data };
    let work = async |tx: &mut WriteTx| insert(tx, &at.scope, &books(), &new, at.op.now()).await;
    match at.write(work).await.0 {
        Inserted::New(row) => row,
        Inserted::Exists(row) => panic!("exists: {row:?}"),
    }
}

async fn remove(at: &Fixture, id: ItemId) -> bool {
    let work = async |tx: &mut WriteTx| delete(tx, &at.scope, &books(), id, at.op.now()).await;
    at.write(work).await.0
}

#[sqlx::test(migrations = "migrations/global")]
async fn numbers_come_back_as_they_were_sent(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let row = make(&at, id(1), r#"{"n":12345678901234567890.12345678901234567890,"m":1.00}"#).await;
    assert_eq!(row.data, r#"{"m": 1.00, "n": 12345678901234567890.12345678901234567890}"#);
    assert_eq!((row.version, row.epoch), (1, Epoch::FIRST));
    assert_eq!(row.etag().to_string(), "\"1.1\"");
}

#[sqlx::test(migrations = "migrations/global")]
async fn each_change_is_the_next_version_of_the_one_locked(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let made = make(&at, id(1), r#"{"a":1}"#).await;
    let mut tx = at.begin().await;
    assert_eq!(lock(&mut tx, &at.scope, &books(), id(1)).await.unwrap(), Some(made.clone()));
    let now = at.op.now();
    let changed = update(&mut tx, &at.scope, &books(), id(1), 2, r#"{"a":2}"#, now).await.unwrap();
    assert_eq!((changed.version, changed.updated_at), (2, now));
    assert_eq!(changed.created_at, made.created_at);
    tx.commit().await.unwrap();
    for version in [2, 4] {
        let mut tx = at.begin().await;
        let refused = update(&mut tx, &at.scope, &books(), id(1), version, "{}", now).await;
        assert!(matches!(refused, Err(StorageError::Conflict(Constraint::ItemId))), "{refused:?}");
    }
}

#[sqlx::test(migrations = "migrations/global")]
async fn an_id_created_again_goes_on_from_the_deleted_version(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    make(&at, id(1), "{}").await;
    let change =
        async |tx: &mut WriteTx| update(tx, &at.scope, &books(), id(1), 2, "{}", at.op.now()).await;
    at.write(change).await;
    assert!(remove(&at, id(1)).await);
    assert!(!remove(&at, id(1)).await);
    assert_eq!(at.count("SELECT version FROM item_tombstone").await, 2);
    assert_eq!(make(&at, id(1), "{}").await.version, 3);
    assert_eq!(at.count("SELECT count(*) FROM item_tombstone").await, 0);
    assert!(remove(&at, id(1)).await);
    let later = at.op.now() + chrono::Duration::seconds(1);
    let forget = async |tx: &mut WriteTx| purge_tombstones(tx, later, 10).await;
    assert_eq!(at.write(forget).await.0, 1);
    assert_eq!(make(&at, id(1), "{}").await.version, 1);
}

/// The insert waits for a transaction that is deleting the same id; what it saw of tombstones when
/// it began is out of date by then.
#[sqlx::test(migrations = "migrations/global")]
async fn an_id_deleted_while_it_is_created_again_does_not_start_over(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    make(&at, id(1), "{}").await;
    let mut deleting = at.begin().await;
    assert!(delete(&mut deleting, &at.scope, &books(), id(1), at.op.now()).await.unwrap());
    let mut creating = at.begin().await;
    let (scope, books, new) = (&at.scope, books(), NewItem { id: id(1), data: "{}" });
    let create = insert(&mut creating, scope, &books, &new, at.op.now());
    let finish = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity \
             WHERE datname = current_database() AND wait_event_type = 'Lock'";
        at.until(waiting, 1).await;
        deleting.commit().await.unwrap();
    };
    let (created, ()) = tokio::join!(create, finish);
    assert!(matches!(created, Err(StorageError::Conflict(Constraint::ItemId))), "{created:?}");
    creating.rollback().await.unwrap();
    assert_eq!(make(&at, id(1), "{}").await.version, 2);
}

#[sqlx::test(migrations = "migrations/global")]
async fn a_taken_id_answers_with_the_item_that_has_it(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let made = make(&at, id(1), r#"{"a":1}"#).await;
    let mut tx = at.begin().await;
    let new = NewItem { id: id(1), data: r#"{"a":2}"# };
    let again = insert(&mut tx, &at.scope, &books(), &new, at.op.now()).await.unwrap();
    assert_eq!(again, Inserted::Exists(made));
    // The id is taken in one tenant's one collection only.
    let elsewhere = insert(&mut tx, &at.other, &books(), &new, at.op.now()).await.unwrap();
    assert!(matches!(elsewhere, Inserted::New(_)));
    let films = "films".parse().unwrap();
    let elsewhere = insert(&mut tx, &at.scope, &films, &new, at.op.now()).await.unwrap();
    assert!(matches!(elsewhere, Inserted::New(_)));
}

#[sqlx::test(migrations = "migrations/global")]
async fn many_are_inserted_in_the_order_given_or_the_first_taken_is_named(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    make(&at, id(7), "{}").await;
    let many = async |numbers: &[u128]| {
        let new: Vec<_> =
            numbers.iter().map(|number| NewItem { id: id(*number), data: r#"{"a":1}"# }).collect();
        let mut tx = at.begin().await;
        let inserted = insert_many(&mut tx, &at.scope, &books(), &new, at.op.now()).await.unwrap();
        tx.rollback().await.unwrap();
        inserted
    };
    let InsertedMany::New(rows) = many(&[3, 1, 2]).await else { panic!("taken") };
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [id(3), id(1), id(2)]);
    for (numbers, index) in [(&[1, 7, 2][..], 1), (&[1, 2, 1][..], 2), (&[7, 7][..], 0)] {
        match many(numbers).await {
            InsertedMany::Exists { index: found, row } => {
                assert_eq!((found, row.id), (index, id(numbers[index])));
            }
            InsertedMany::New(_) => panic!("{numbers:?} inserted"),
        }
    }
    assert_eq!(many(&[]).await, InsertedMany::New(Vec::new()));
    let hundreds: Vec<u128> = (100..600).collect();
    assert!(matches!(many(&hundreds).await, InsertedMany::New(rows) if rows.len() == 500));
}

#[sqlx::test(migrations = "migrations/global")]
async fn one_tenants_items_are_not_anothers(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let made = make(&at, id(1), "{}").await;
    let mut tx = at.begin().await;
    assert_eq!(lock(&mut tx, &at.other, &books(), id(1)).await.unwrap(), None);
    assert!(!delete(&mut tx, &at.other, &books(), id(1), at.op.now()).await.unwrap());
    let foreign = update(&mut tx, &at.other, &books(), id(1), 2, "{}", at.op.now()).await;
    assert!(foreign.is_err());
    assert_eq!(collections(&at.global, &at.other, None, 9).await.unwrap().value.collections, []);
    let mut tx = at.begin().await;
    assert_eq!(lock(&mut tx, &at.scope, &books(), id(1)).await.unwrap(), Some(made));
}

#[sqlx::test(migrations = "migrations/global")]
async fn refuses_documents_that_jsonb_cannot_hold(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for data in [r#"{"a":"\u0000"}"#, r#"{"a":1e999999}"#, "{", "[]", "1", "{\"a\":\"\0\"}", &deep]
    {
        let mut tx = at.begin().await;
        let new = NewItem { id: id(1), data };
        let refused = insert(&mut tx, &at.scope, &books(), &new, at.op.now()).await;
        assert!(matches!(refused, Err(StorageError::InvalidData(_))), "{refused:?} for {data:.40}");
    }
}

/// A search vector holds at most 1 MiB, and short words make it larger than their text.
#[sqlx::test(migrations = "migrations/global")]
async fn a_mebibyte_of_short_words_is_kept_and_its_beginning_found(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let words: Vec<String> = (0..180_000).map(|number| format!("{number:x}")).collect();
    let data = format!("{{\"text\":\"needle {}\",\"n\":7}}", words.join(" "));
    assert!(data.len() > 1_000_000 && data.len() <= 1024 * 1024, "{}", data.len());
    let made = make(&at, id(1), &data).await;
    assert_eq!(made.data.len(), data.len() + 3);
    for (q, found) in [("needle", 1), ("haystack", 0)] {
        let query = ListQuery {
            collection: books(),
            q: Some(q.to_owned()),
            filter: None,
            order: Order { by: OrderBy::Id, descending: false },
            after: None,
            limit: 10,
            bytes_max: i64::MAX,
        };
        let page = list(&at.global, &at.scope, &query).await.unwrap().value;
        assert_eq!(page.items.len(), found, "{q}");
    }
}

#[sqlx::test(migrations = "migrations/global")]
async fn collections_are_counted_by_name(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let none = collections(&at.global, &at.scope, None, 9).await.unwrap().value;
    assert_eq!(none, CollectionPage { collections: Vec::new(), more: false });
    make(&at, id(1), "{}").await;
    make(&at, id(2), "{}").await;
    let films: Collection = "Films".parse().unwrap();
    let new = NewItem { id: id(1), data: "{}" };
    let work = async |tx: &mut WriteTx| insert(tx, &at.scope, &films, &new, at.op.now()).await;
    let (_, written_at) = at.write(work).await;
    let counted = collections(&at.global, &at.scope, None, 9).await.unwrap();
    assert_eq!(counted.value.collections, [(films, 1), (books(), 2)]);
    assert!(counted.at >= written_at && !counted.value.more);
}

#[sqlx::test(migrations = "migrations/global")]
async fn pages_of_collections_tell_each_once_and_read_no_others(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    // 21 collections of as many items as their number says, but the eighth of 20,000.
    let fill = "INSERT INTO item
            (tenant_id, collection, id, epoch, version, data, created_at, updated_at)
         SELECT t.id, 'c' || lpad(c::text, 2, '0'), gen_random_uuid(), 1, 1, '{}', now(), now()
         FROM tenant AS t, generate_series(1, 21) AS c,
             generate_series(1, CASE WHEN c = 8 THEN 20000 ELSE c END)";
    // With `VACUUM` an index alone can tell what there is.
    before_counting(&pool, &[fill, "VACUUM ANALYZE item"]).await;
    for limit in [1, 7, 20, 21, 200] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let read = collections(&at.global, &at.scope, after.as_ref(), limit).await.unwrap();
            let CollectionPage { collections, more } = read.value;
            assert!(collections.len() <= usize::try_from(limit).unwrap());
            after = collections.last().map(|(name, _)| name.clone());
            seen.extend(collections);
            if !more {
                break;
            }
        }
        let counts: Vec<i64> = seen.iter().map(|(_, items)| *items).collect();
        let expected: Vec<i64> = (1..8).chain([20_000]).chain(9..22).collect();
        assert_eq!(counts, expected, "{limit}");
        assert!(seen.is_sorted());
    }
    let read =
        "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'item')::bigint
        + (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'item')";
    let reader = one_session(&at);
    let before = spent(&at, &reader, read).await;
    let page = collections(&reader, &at.scope, None, 7).await.unwrap().value;
    assert!(page.more && page.collections.len() == 7);
    let rows = spent(&at, &reader, read).await - before;
    assert!((28..40).contains(&rows), "{rows} rows read for 28 items in 7 collections");
}

/// Runs the statements, each in a transaction of its own, so that nothing of theirs is counted
/// later: their session tells its numbers before this ends, and autovacuum stays away.
async fn before_counting(pool: &PgPool, statements: &[&'static str]) {
    let mut session = pool.acquire().await.unwrap();
    let quiet = "ALTER TABLE item SET
        (autovacuum_enabled = false, toast.autovacuum_enabled = false)";
    let told = "SELECT pg_stat_force_next_flush()";
    for sql in [quiet].iter().chain(statements).chain(&[told]) {
        sqlx::raw_sql(*sql).execute(&mut *session).await.unwrap();
    }
}

/// A reader whose every statement is in the same session.
fn one_session(at: &Fixture) -> Global {
    let mut config = at.config.clone();
    config.read_connections_max = 1;
    Global::connect(&config).unwrap()
}

/// A number of the statistics, with all that the reader's session has done until now: a session
/// keeps what it counts to itself for a while.
async fn spent(at: &Fixture, reader: &Global, sql: &'static str) -> i64 {
    sqlx::query("SELECT pg_stat_force_next_flush()").execute(&reader.read).await.unwrap();
    at.count(sql).await
}

mod lists {
    use super::*;
    use crate::vocab::Op;

    /// Five times of change for forty items: many share each.
    async fn forty(at: &Fixture) -> Vec<ItemRow> {
        let mut rows = Vec::new();
        let now = at.op.now();
        for number in 0..40_u128 {
            // Ids in no order of time.
            let new = NewItem { id: id(number * 7 % 41), data: r#"{"tag":"x"}"# };
            let created_at = now + chrono::Duration::seconds(i64::try_from(number % 8).unwrap());
            let updated_at = now + chrono::Duration::minutes(i64::try_from(number % 5).unwrap());
            let work = async |tx: &mut WriteTx| -> Result<ItemRow, StorageError> {
                insert(tx, &at.scope, &books(), &new, created_at).await?;
                update(tx, &at.scope, &books(), new.id, 2, r#"{"tag":"x"}"#, updated_at).await
            };
            rows.push(at.write(work).await.0);
        }
        let other = NewItem { id: id(99), data: r#"{"tag":"x"}"# };
        at.write(async |tx| insert(tx, &at.other, &books(), &other, now).await).await;
        rows
    }

    fn query(by: OrderBy, descending: bool) -> ListQuery {
        ListQuery {
            collection: books(),
            q: None,
            filter: None,
            order: Order { by, descending },
            after: None,
            limit: 7,
            bytes_max: i64::MAX,
        }
    }

    async fn ids(at: &Fixture, query: &ListQuery) -> Vec<ItemId> {
        let page = list(&at.global, &at.scope, query).await.unwrap().value;
        page.items.iter().map(|row| row.id).collect()
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn pages_of_every_order_tell_each_item_once(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let rows = forty(&at).await;
        for by in [OrderBy::Id, OrderBy::CreatedAt, OrderBy::UpdatedAt] {
            for descending in [false, true] {
                let mut expected = rows.clone();
                match by {
                    OrderBy::Id => expected.sort_by_key(|row| row.id),
                    OrderBy::CreatedAt => expected.sort_by_key(|row| (row.created_at, row.id)),
                    OrderBy::UpdatedAt => expected.sort_by_key(|row| (row.updated_at, row.id)),
                }
                if descending {
                    expected.reverse();
                }
                let mut query = query(by, descending);
                let mut seen = Vec::new();
                loop {
                    let page = list(&at.global, &at.scope, &query).await.unwrap().value;
                    assert!(page.items.len() <= 7);
                    query.after = page.items.last().map(|last| last.place(by));
                    seen.extend(page.items);
                    if !page.more {
                        break;
                    }
                }
                assert_eq!(seen, expected, "{by:?} {descending}");
            }
        }
    }

    /// Three documents of 1,000 bytes and nine small ones, in turns.
    #[sqlx::test(migrations = "migrations/global")]
    async fn a_page_ends_when_its_bytes_do(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let large = format!(r#"{{"a": "{}"}}"#, "x".repeat(991));
        let mut rows = Vec::new();
        for number in 1..=12 {
            let data = if number % 4 == 0 { &large } else { "{}" };
            rows.push(make(&at, id(number), data).await);
        }
        assert_eq!(rows[3].data.len(), 1_000);
        // A page's bytes, its limit, and how many items each page has.
        let cases: [(i64, i64, &[usize]); 10] = [
            (1, 200, &[1; 12]),
            (2, 200, &[1; 12]),
            (3, 200, &[2, 2, 2, 2, 2, 2]),
            (1_000, 200, &[4, 4, 4]),
            (1_006, 200, &[4, 4, 4]),
            (1_007, 200, &[5, 5, 2]),
            (2_018, 200, &[11, 1]),
            (2_019, 200, &[12]),
            (i64::MAX, 200, &[12]),
            (1_007, 4, &[4, 4, 4]),
        ];
        for (bytes_max, limit, expected) in cases {
            for by in [OrderBy::Id, OrderBy::CreatedAt, OrderBy::UpdatedAt] {
                let mut query = ListQuery { limit, bytes_max, ..query(by, false) };
                let (mut seen, mut pages) = (Vec::new(), Vec::new());
                loop {
                    let page = list(&at.global, &at.scope, &query).await.unwrap().value;
                    pages.push(page.items.len());
                    query.after = page.items.last().map(|last| last.place(by));
                    seen.extend(page.items);
                    if !page.more {
                        break;
                    }
                }
                assert_eq!(pages, expected, "{bytes_max} by {by:?}");
                assert!(seen == rows, "{bytes_max} by {by:?}");
            }
        }
    }

    /// Sixty documents of 200,000 bytes that no compression makes smaller.
    #[sqlx::test(migrations = "migrations/global")]
    async fn a_page_reads_no_document_that_it_has_no_room_for(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let fill = "INSERT INTO item
                (tenant_id, collection, id, epoch, version, data, created_at, updated_at)
             SELECT t.id, 'books', gen_random_uuid(), 1, 1, jsonb_build_object('text', (
                 SELECT string_agg(encode(sha256(concat(t.id, n, part)::bytea), 'hex'), '')
                 FROM generate_series(1, 3125) AS part)), now(), now()
             FROM tenant AS t, generate_series(1, 60) AS n WHERE t.name = 'ours'";
        before_counting(&pool, &[fill]).await;

        let reader = one_session(&at);
        let read = "SELECT toast_blks_read + toast_blks_hit FROM pg_statio_user_tables
             WHERE relname = 'item'";
        for by in [OrderBy::Id, OrderBy::CreatedAt, OrderBy::UpdatedAt] {
            let before = spent(&at, &reader, read).await;
            let query = ListQuery { limit: 50, bytes_max: 400_000, ..query(by, true) };
            let page = list(&reader, &at.scope, &query).await.unwrap().value;
            assert!(page.more && page.items.len() == 2, "{}", page.items.len());
            let blocks = spent(&at, &reader, read).await - before;
            // 25 of 8 KiB for each document, and one or two for each of its 100 parts' index.
            assert!((50..400).contains(&blocks), "{blocks} blocks by {by:?}");
        }
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn an_empty_page_still_tells_where_it_was_read(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let written_at = at.write(async |tx| make_one(tx, &at.scope, &at.op).await).await.1;
        let read = list(&at.global, &at.other, &query(OrderBy::Id, false)).await.unwrap();
        assert!(read.value.items.is_empty() && !read.value.more && read.at >= written_at);
    }

    async fn make_one(
        tx: &mut WriteTx,
        scope: &TenantScope,
        op: &Op,
    ) -> Result<Inserted, StorageError> {
        insert(tx, scope, &books(), &NewItem { id: id(1), data: "{}" }, op.now()).await
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn finds_words_and_contained_documents(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        make(&at, id(1), r#"{"title":"The Left Hand of Darkness","year":1969,"tags":["sf"]}"#)
            .await;
        make(&at, id(2), r#"{"title":"Solaris","year":1961,"tags":["sf","sea"]}"#).await;
        make(&at, id(3), r#"{"title":"Middlemarch","left":"out"}"#).await;
        let find = async |q: Option<&str>, filter: Option<&str>| {
            let mut query = query(OrderBy::Id, false);
            query.q = q.map(str::to_owned);
            query.filter = filter.map(str::to_owned);
            ids(&at, &query).await
        };
        assert_eq!(find(Some("left darkness"), None).await, [id(1)]);
        assert_eq!(find(Some("\"hand of\""), None).await, [id(1)]);
        assert_eq!(find(Some("solaris or middlemarch"), None).await, [id(2), id(3)]);
        assert_eq!(find(Some("1961"), None).await, [id(2)]);
        assert_eq!(find(Some("left"), None).await, [id(1)], "names of members are not searched");
        assert_eq!(find(Some("\"(&|!<:*'"), None).await, []);
        assert_eq!(find(None, Some(r#"{"tags":["sf"]}"#)).await, [id(1), id(2)]);
        assert_eq!(find(None, Some(r#"{"tags":["sf"],"year":1961}"#)).await, [id(2)]);
        assert_eq!(find(Some("darkness"), Some(r#"{"year":1961}"#)).await, []);
        assert_eq!(find(None, Some("{}")).await, [id(1), id(2), id(3)]);
    }

    #[sqlx::test(migrations = "migrations/global")]
    async fn refuses_a_filter_that_is_no_json_and_words_that_are_no_text(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        let bad = |q: Option<&str>, filter: Option<&str>| ListQuery {
            q: q.map(str::to_owned),
            filter: filter.map(str::to_owned),
            ..query(OrderBy::Id, false)
        };
        for query in [
            bad(None, Some("{")),
            bad(None, Some(r#"{"a":"\u0000"}"#)),
            bad(None, Some(r#"{"a":1e999999}"#)),
            bad(Some("a\0b"), None),
        ] {
            let refused = list(&at.global, &at.scope, &query).await;
            assert!(matches!(refused, Err(StorageError::InvalidData(_))), "{refused:?}");
        }
    }

    /// What keeps a page flat as a collection grows: the order comes from an index, not from a sort
    /// of the collection.
    #[sqlx::test(migrations = "migrations/global")]
    async fn pages_come_from_an_index(pool: PgPool) {
        let at = Fixture::new(&pool).await;
        at.sql(
            "INSERT INTO item (tenant_id, collection, id, epoch, version, data, created_at, updated_at)
             SELECT t.id, 'books', gen_random_uuid(), 1, 1, '{}', now() + n * interval '1 s',
                 now() + n * interval '1 s'
             FROM tenant AS t, generate_series(1, 5000) AS n; ANALYZE item",
        )
        .await;
        for (order, index) in [
            ("id", "item_pkey"),
            ("created_at", "item_created_idx"),
            ("updated_at", "item_updated_idx"),
        ] {
            for (direction, beyond) in [("", ">"), (" DESC", "<")] {
                let keys =
                    if order == "id" { "id".to_owned() } else { format!("{order}{direction}, id") };
                let sql = format!(
                    "EXPLAIN SELECT * FROM item
                     WHERE tenant_id = (SELECT id FROM tenant LIMIT 1) AND collection = 'books'
                     AND ({order}, id) {beyond} ((SELECT {order} FROM item LIMIT 1), gen_random_uuid())
                     ORDER BY {keys}{direction} LIMIT 50"
                );
                let sql = sqlx::AssertSqlSafe(sql);
                let plan: Vec<String> = sqlx::query_scalar(sql).fetch_all(&pool).await.unwrap();
                let plan = plan.join("\n");
                assert!(plan.contains(index) && !plan.contains("Sort"), "{plan}");
            }
        }
    }
}
