use super::*;
use crate::{
    storage::global::{
        journal::{self, Found, JournalEntry},
        testing::Fixture,
    },
    vocab::{Actor, Etag, Op},
};
use chrono::Duration;
use sqlx::PgPool;

const PATH: &str = "/v1/collections/notes/items/0199d2c4-7a00-7000-8000-00000000b0b0";

fn second() -> Epoch {
    Epoch::new(2).unwrap()
}

/// A write as a journal has it, `age` seconds old.
fn record(at: &Fixture, key: &str, age: i64) -> JournalRecord {
    JournalRecord {
        tenant: at.scope.tenant(),
        key: key.parse().unwrap(),
        actor: Actor::Operator,
        method: "PUT".into(),
        path: PATH.into(),
        request_digest: RequestDigest::new([7; 32]),
        status: 200,
        etag: Some("\"1.2\"".into()),
        location: None,
        body: Some(r#"{"n":1.10}"#.into()),
        version: Some(2),
        epoch: Epoch::FIRST,
        // What Postgres keeps of it.
        committed_at: chrono::DateTime::from_timestamp_micros(
            (at.op.now() - Duration::seconds(age)).timestamp_micros(),
        )
        .unwrap(),
    }
}

/// Puts a write into the journal, in an epoch.
async fn journalled(at: &Fixture, record: &JournalRecord, epoch: Epoch) {
    let entry = JournalEntry {
        scope: &at.scope,
        key: &record.key,
        actor: record.actor,
        method: &record.method,
        path: &record.path,
        request_digest: record.request_digest.into_bytes(),
        status: record.status,
        etag: record.etag.as_deref(),
        location: record.location.as_deref(),
        body: record.body.as_deref(),
        version: record.version,
        epoch,
        committed_at: record.committed_at,
    };
    at.write(async |tx| journal::insert(tx, &entry).await).await;
}

async fn promoted(at: &Fixture) {
    at.sql("INSERT INTO cluster_epoch VALUES (2, '0/0', 'eu-west-1', now())").await;
}

async fn in_second<T>(
    at: &Fixture,
    work: impl AsyncFnOnce(&mut WriteTx) -> Result<T, StorageError>,
) -> T {
    let mut tx = WriteTx::open(&at.global, second(), &at.op).await.unwrap();
    let value = work(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    value
}

#[sqlx::test(migrations = "migrations/global")]
async fn an_epochs_journal_is_read_backwards_page_by_page(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    // Two of one moment: the order goes on by key.
    let ages = [("a", 3), ("b", 3), ("c", 1), ("d", 2), ("e", 5)];
    for (key, age) in ages {
        journalled(&at, &record(&at, key, age), Epoch::FIRST).await;
    }
    at.sql("UPDATE write_journal SET committed_at = (SELECT committed_at FROM write_journal WHERE key = 'a') WHERE key = 'b'").await;
    journalled(&at, &record(&at, "later", 0), second()).await;
    let mut seen = String::new();
    let mut after = None;
    loop {
        let page = page(&at.global, Epoch::FIRST, after.as_ref(), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.mark());
        assert!(page.iter().all(|record| record.body.is_none()));
        seen.extend(page.iter().map(|record| record.key.as_str()));
    }
    assert_eq!(seen, "cdbae");
}

#[sqlx::test(migrations = "migrations/global")]
async fn records_are_told_whole_and_as_many_as_a_page_holds(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    let large = format!(r#"{{"n":"{}"}}"#, "x".repeat(PAGE_BYTES));
    let mut all = vec![record(&at, "a", 1), record(&at, "b", 2), record(&at, "c", 3)];
    all[0].body = Some(large.clone());
    all[2].body = Some(large);
    for record in &all {
        journalled(&at, record, Epoch::FIRST).await;
    }
    let wanted = |keys: &[&str]| -> Vec<_> {
        keys.iter().map(|key| (at.scope.tenant(), key.parse().unwrap())).collect()
    };
    let told = recorded(&at.global, &wanted(&["a", "b", "c"])).await.unwrap();
    assert_eq!(told, all[..1]);
    let told = recorded(&at.global, &wanted(&["none", "b", "c"])).await.unwrap();
    assert_eq!(told, all[1..2]);
    assert_eq!(recorded(&at.global, &[]).await.unwrap(), []);
    let other = [(at.other.tenant(), "a".parse().unwrap())];
    assert_eq!(recorded(&at.global, &other).await.unwrap(), []);
}

#[sqlx::test(migrations = "migrations/global")]
async fn lost_is_what_neither_came_by_replication_nor_was_sent_again(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    journalled(&at, &record(&at, "came", 9), Epoch::FIRST).await;
    promoted(&at).await;
    let mut entries = Vec::new();
    for (key, digest) in [("again", [7; 32]), ("other", [8; 32])] {
        let request_digest = RequestDigest::new(digest);
        entries.push(JournalRecord { request_digest, ..record(&at, key, 0) });
    }
    for entry in &entries {
        let record = entry.clone();
        let of = JournalEntry {
            scope: &at.scope,
            key: &record.key,
            actor: record.actor,
            method: "PUT",
            path: PATH,
            request_digest: record.request_digest.into_bytes(),
            status: 200,
            etag: None,
            location: None,
            body: None,
            version: None,
            epoch: second(),
            committed_at: record.committed_at,
        };
        in_second(&at, async |tx| journal::insert(tx, &of).await).await;
    }
    let all = ["came", "gone", "again", "other"].map(|key| record(&at, key, 5));
    let asked = all.clone().map(|record| (record.tenant, record.key, record.request_digest));
    let found = missing(&at.global, Epoch::FIRST, &asked).await.unwrap();
    assert_eq!(found, [Standing::Present, Standing::Lost, Standing::Repeated, Standing::Lost]);

    let became = in_second(&at, async |tx| note(tx, &all).await).await;
    assert_eq!(became, [None, None, Some(Became::Repeated), None]);
    assert_eq!(at.count("SELECT count(*) FROM lost_write WHERE found_in = 2").await, 3);
    // Noted again it stays as it is.
    let became = in_second(&at, async |tx| note(tx, &all[2..]).await).await;
    assert_eq!(became, [Some(Became::Repeated), None]);
    assert_eq!(at.count("SELECT count(*) FROM lost_write").await, 3);
    assert!(ended_at(&at.global, Epoch::FIRST).await.unwrap().is_some());
    assert_eq!(ended_at(&at.global, second()).await.unwrap(), None);
}

#[sqlx::test(migrations = "migrations/global")]
async fn a_lost_write_is_told_to_be_lost_until_it_is_made_again(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    promoted(&at).await;
    let gone = record(&at, "gone", 5);
    in_second(&at, async |tx| note(tx, std::slice::from_ref(&gone)).await).await;
    let told = async |scope| journal::find(&at.global, scope, &gone.key).await.unwrap().value;
    let Found::Lost(row) = told(&at.scope).await else { panic!("not lost") };
    assert_eq!((row.path.as_str(), row.committed_at), (PATH, gone.committed_at));
    assert_eq!(told(&at.other).await, Found::Nothing);

    let conflict = async |tx: &mut WriteTx| {
        mark(tx, &gone, Became::Conflict, None, Some("the item has changed")).await
    };
    in_second(&at, conflict).await;
    assert!(matches!(told(&at.scope).await, Found::Lost(_)));

    let again = JournalEntry {
        scope: &at.scope,
        key: &gone.key,
        actor: gone.actor,
        method: "PUT",
        path: PATH,
        request_digest: [9; 32],
        status: 200,
        etag: None,
        location: None,
        body: None,
        version: None,
        epoch: second(),
        committed_at: at.op.now(),
    };
    in_second(&at, async |tx| journal::insert(tx, &again).await).await;
    assert!(matches!(told(&at.scope).await, Found::Committed(_)));
}

#[sqlx::test(migrations = "migrations/global")]
async fn what_became_of_a_lost_write_is_noted_once(pool: PgPool) {
    let at = Fixture::new(&pool).await;
    promoted(&at).await;
    let mut all = [record(&at, "late", 1), record(&at, "early", 9), record(&at, "theirs", 5)];
    all[2].tenant = "0199d2c4-7a00-7000-8000-00000000ffff".parse().unwrap();
    in_second(&at, async |tx| note(tx, &all).await).await;
    let listed = due(&at.global, Epoch::FIRST, None, 10).await.unwrap();
    let keys: Vec<_> = listed.iter().map(|due| due.record.key.as_str()).collect();
    assert_eq!(keys, ["early", "theirs", "late"]);
    // That tenant is not there.
    assert_eq!((&listed[0].scope, &listed[1].scope), (&Some(at.scope.clone()), &None));
    assert_eq!(listed[0].record, all[1]);
    let after = listed[0].record.mark();
    assert_eq!(due(&at.global, Epoch::FIRST, Some(&after), 1).await.unwrap(), listed[1..2]);

    let tag = Etag { epoch: second(), version: 2 };
    let etag = tag.to_string();
    let replayed = async |tx: &mut WriteTx| {
        mark(tx, &all[1], Became::Replayed, Some(&etag), None).await?;
        mark(tx, &all[1], Became::Conflict, None, Some("too late")).await
    };
    in_second(&at, replayed).await;
    let is = async |tag| in_second(&at, async |tx| is_replays(tx, &all[0], tag).await).await;
    assert!(is(tag).await && !is(Etag { version: 3, ..tag }).await);
    assert_eq!(due(&at.global, Epoch::FIRST, None, 10).await.unwrap(), listed[1..]);
    assert_eq!(due(&at.global, second(), None, 10).await.unwrap(), []);

    let op: &Op = &at.op;
    let forget = async |before| in_second(&at, async |tx| purge(tx, before, 10).await).await;
    assert_eq!(forget(op.now() - Duration::days(1)).await, 0);
    assert_eq!(forget(op.now() + Duration::days(1)).await, 3);
}

#[test]
fn a_record_names_its_item_however_it_was_spelled() {
    let id = "0199d2c4-7a00-7000-8000-00000000b0b0";
    let record = |path: &str, location: Option<&str>| {
        let text = serde_json::json!({
            "tenant": id, "key": "k", "actor": "operator", "method": "POST", "path": path,
            "request_digest": "07".repeat(32), "status": 200, "etag": null, "location": location,
            "body": null, "version": 1, "epoch": 1, "committed_at": "2026-11-21T00:00:00Z",
        });
        let record: JournalRecord = serde_json::from_value(text).unwrap();
        record.item_text()
    };
    let wanted = Some(format!("notes/{id}"));
    assert_eq!(record(&format!("/v1/collections/notes/items/{id}"), None), wanted);
    assert_eq!(record(&format!("/v1/collections/n%6Ftes/items/{id}?x=/items/1"), None), wanted);
    let location = format!("/v1/collections/notes/items/{id}");
    assert_eq!(record("/v1/collections/notes/items", Some(&location)), wanted);
    for path in
        ["/v1/collections/notes/items", "/v1/collections/notes/items:batch", "/v1/admin/keys"]
    {
        assert_eq!(record(path, None), None, "{path}");
    }
}
