use super::*;
use crate::{
    domain::items::batch::Operation,
    storage::global::{
        lost::RequestDigest,
        testing::{Fixture, on_database},
    },
    vocab::{Actor, Bookmark, Etag, IdempotencyKey},
};

const ID: &str = "0199d2c4-7a00-7000-8000-00000000b0b0";
const COLLECTION: &str = "notes";

fn second() -> Epoch {
    Epoch::new(2).unwrap()
}

fn path() -> String {
    format!("/v1/collections/{COLLECTION}/items/{ID}")
}

fn rendered(done: &Done) -> Answer {
    let (status, row) = match done {
        Done::Created(row) => (201, row),
        Done::Changed(row) => (200, row),
        Done::Deleted(row) => (204, row),
    };
    let etag = (status != 204).then(|| row.etag().to_string());
    let body = Some(row.data.clone());
    Answer { status, etag, location: None, body, version: Some(row.version) }
}

/// A lost write of the item, `nth` in the order of their commits.
fn lost(
    at: &Fixture,
    nth: i64,
    method: &str,
    status: u16,
    version: i64,
    data: &str,
) -> JournalRecord {
    let body = format!(r#"{{"id":"{ID}","version":{version},"data":{data},"created_at":"x"}}"#);
    JournalRecord {
        tenant: at.scope.tenant(),
        key: format!("k{nth}").parse().unwrap(),
        actor: Actor::Operator,
        method: method.into(),
        path: path(),
        request_digest: RequestDigest::new([7; 32]),
        status,
        etag: None,
        location: (status == 201).then(path),
        body: (status != 204).then_some(body),
        version: Some(version),
        epoch: Epoch::FIRST,
        committed_at: chrono::DateTime::from_timestamp_millis(1_700_000_000_000 + nth).unwrap(),
    }
}

fn context<'a>(at: &'a Fixture, epoch: Epoch, key: &'a IdempotencyKey) -> WriteContext<'a> {
    WriteContext {
        global: &at.global,
        epoch,
        op: &at.op,
        scope: &at.scope,
        actor: Actor::Operator,
        key,
        digest: [7; 32],
        method: "PUT",
        path: "/",
    }
}

/// A write by a client.
async fn write(at: &Fixture, epoch: Epoch, key: &str, operation: Operation) -> Bookmark {
    let key = key.parse().unwrap();
    let collection = COLLECTION.parse().unwrap();
    let operations = [operation];
    let run = async |tx: &mut WriteTx| {
        crate::domain::items::batch::run(tx, &at.scope, &collection, &operations, &at.op).await
    };
    let written = write::write_once(context(at, epoch, &key), run, |done| rendered(&done[0])).await;
    written.unwrap().at
}

fn data(text: &str) -> ItemData {
    ItemData::parse(text.as_bytes()).unwrap()
}

fn create(text: &str) -> Operation {
    Operation::Create { id: ID.parse().unwrap(), data: data(text) }
}

fn put(etag: &str, text: &str) -> Operation {
    let tag: Etag = etag.parse().unwrap();
    let matches = crate::domain::items::precondition::Match::OneOf(vec![tag]);
    let precondition = crate::domain::items::precondition::Precondition::Matches(matches);
    Operation::Put { id: ID.parse().unwrap(), precondition, data: data(text) }
}

/// The second epoch, with what the first lost noted.
async fn failed_over(at: &Fixture, all: &[JournalRecord]) {
    at.sql("INSERT INTO cluster_epoch VALUES (2, '0/0', 'eu-west-1', now())").await;
    let mut tx = WriteTx::open(&at.global, second(), &at.op).await.unwrap();
    lost::note(&mut tx, all).await.unwrap();
    tx.commit().await.unwrap();
}

/// What comes of replaying all that is due.
async fn replayed(at: &Fixture) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for due in lost::due(&at.global, Epoch::FIRST, None, 100).await.unwrap() {
        outcomes.push(replay(&at.global, second(), &due, &at.op, rendered).await.unwrap());
    }
    outcomes
}

async fn item(at: &Fixture) -> Option<ItemRow> {
    let mut tx = WriteTx::open(&at.global, second(), &at.op).await.unwrap();
    let collection = COLLECTION.parse().unwrap();
    items::lock(&mut tx, &at.scope, &collection, ID.parse().unwrap()).await.unwrap()
}

fn became(outcomes: &[Outcome]) -> Vec<Became> {
    outcomes.iter().map(|outcome| outcome.became).collect()
}

#[test]
fn what_was_lost_of_one_item_is_made_again_in_its_order() {
    on_database("domain::replay::chain", |pool| async move {
        let at = Fixture::new(&pool).await;
        write(&at, Epoch::FIRST, "made", create(r#"{"n":1}"#)).await;
        let all = [
            lost(&at, 1, "PUT", 200, 2, r#"{"n": 1.10}"#),
            lost(&at, 2, "PATCH", 200, 3, r#"{"n": 1.100}"#),
            lost(&at, 3, "DELETE", 204, 3, ""),
            lost(&at, 4, "PUT", 201, 4, r#"{"n": 12345678901234567890.10}"#),
            lost(&at, 5, "PUT", 200, 5, r#"{"n": 2.0}"#),
        ];
        failed_over(&at, &all).await;
        let outcomes = replayed(&at).await;
        assert_eq!(became(&outcomes), [Became::Replayed; 5], "{outcomes:?}");
        let row = item(&at).await.unwrap();
        assert_eq!((row.version, row.epoch, row.data.as_str()), (5, second(), r#"{"n": 2.0}"#));
        assert_eq!(outcomes[4].etag.as_deref(), Some("\"2.5\""));
        assert_eq!(replayed(&at).await, []);

        // The client sends a lost request again: one effect, and the answer to it.
        let again = [put("\"1.1\"", r#"{"n":1.10}"#)];
        let collection = COLLECTION.parse().unwrap();
        let run = async |tx: &mut WriteTx| {
            crate::domain::items::batch::run(tx, &at.scope, &collection, &again, &at.op).await
        };
        let key = all[0].key.clone();
        let first = context(&at, second(), &key);
        let answer = write::write_once(first, run, |done| rendered(&done[0])).await.unwrap();
        assert!(answer.replayed);
        assert_eq!(answer.answer.etag.as_deref(), Some("\"2.2\""));
        let other = WriteContext { digest: [8; 32], ..first };
        let refused = write::write_once(other, run, |done| rendered(&done[0])).await;
        assert!(matches!(refused, Err(WriteError::KeyMismatch)), "{refused:?}");
    });
}

#[test]
fn an_item_that_was_changed_since_is_left_alone() {
    on_database("domain::replay::conflict", |pool| async move {
        let at = Fixture::new(&pool).await;
        write(&at, Epoch::FIRST, "made", create(r#"{"n":1}"#)).await;
        let all = [
            lost(&at, 1, "PUT", 200, 2, r#"{"n":2}"#),
            // Would fit what is there by its version alone.
            lost(&at, 2, "PUT", 200, 3, r#"{"n":3}"#),
            lost(&at, 3, "DELETE", 204, 3, ""),
            lost(&at, 4, "PUT", 201, 4, r#"{"n":4}"#),
        ];
        failed_over(&at, &all).await;
        write(&at, second(), "since", put("\"1.1\"", r#"{"n":"ours"}"#)).await;
        let outcomes = replayed(&at).await;
        assert_eq!(became(&outcomes), [Became::Conflict; 4], "{outcomes:?}");
        let why = outcomes[1].reason.as_deref().unwrap();
        assert_eq!(why, "the item has changed since: it is in version \"2.2\" now");
        assert_eq!(item(&at).await.unwrap().data, r#"{"n": "ours"}"#);
        assert_eq!(replayed(&at).await, []);
        assert_eq!(at.count("SELECT count(*) FROM lost_write WHERE reason IS NOT NULL").await, 4);
        // Their keys are free: what was not made again can be sent again.
        assert_eq!(at.count("SELECT count(*) FROM write_journal WHERE key LIKE 'k%'").await, 0);
    });
}

#[test]
fn what_its_client_has_sent_again_is_not_made_twice() {
    on_database("domain::replay::repeated", |pool| async move {
        let at = Fixture::new(&pool).await;
        let all = [
            lost(&at, 1, "POST", 201, 1, r#"{"n":1}"#),
            JournalRecord {
                request_digest: RequestDigest::new([9; 32]),
                ..lost(&at, 2, "PUT", 200, 2, r#"{"n":2}"#)
            },
        ];
        failed_over(&at, &all).await;
        write(&at, second(), "k1", create(r#"{"n":1}"#)).await;
        write(&at, second(), "k2", put("\"2.1\"", r#"{"n":"other"}"#)).await;
        let outcomes = replayed(&at).await;
        assert_eq!(became(&outcomes), [Became::Repeated, Became::Conflict]);
        let why = outcomes[1].reason.as_deref().unwrap();
        assert_eq!(why, "its key has been used for another request since");
        assert_eq!(item(&at).await.unwrap().version, 2);
    });
}

#[test]
fn what_cannot_be_made_again_is_kept_with_the_reason() {
    on_database("domain::replay::aside", |pool| async move {
        let at = Fixture::new(&pool).await;
        let batch = JournalRecord {
            path: format!("/v1/collections/{COLLECTION}/items:batch"),
            ..lost(&at, 1, "POST", 200, 1, "{}")
        };
        let key = JournalRecord {
            path: "/v1/admin/keys".into(),
            location: Some(format!("/v1/admin/keys/{ID}")),
            ..lost(&at, 2, "POST", 201, 1, "{}")
        };
        let user =
            JournalRecord { path: "/v1/admin/users".into(), ..lost(&at, 6, "POST", 201, 1, "{}") };
        let account =
            JournalRecord { path: "/v1/account".into(), ..lost(&at, 7, "POST", 201, 1, "{}") };
        let stranger =
            JournalRecord { tenant: ID.parse().unwrap(), ..lost(&at, 3, "PUT", 201, 1, "{}") };
        // Made in a lost version, and deleted in one.
        let later = lost(&at, 4, "PUT", 201, 3, "{}");
        let gone = lost(&at, 5, "PATCH", 200, 2, "{}");
        failed_over(&at, &[batch, key, stranger, later, gone, user, account]).await;
        let outcomes = replayed(&at).await;
        assert_eq!(became(&outcomes), [Became::Conflict; 7]);
        let why: Vec<_> =
            outcomes.iter().map(|outcome| outcome.reason.as_deref().unwrap_or_default()).collect();
        assert_eq!(
            why,
            [
                "a batch is recorded without its documents",
                "it is not a write of one item",
                "its tenant does not exist",
                "the item has changed since: it is in version \"2.1\" now",
                "it is not there any more",
                "a write of a user is recorded without their password",
                "a write of a user is recorded without their password",
            ]
        );
        assert_eq!(item(&at).await, None);
    });
}

#[test]
fn a_lost_revocation_is_made_again() {
    on_database("domain::replay::revocation", |pool| async move {
        let at = Fixture::new(&pool).await;
        let key = at.new_key(1);
        let tenant = at.scope.tenant();
        let add = async |tx: &mut WriteTx| {
            crate::storage::global::api_keys::insert(tx, tenant, &key).await
        };
        at.write(add).await;
        let revoked = JournalRecord {
            path: format!("/v1/admin/keys/{}", key.id),
            version: None,
            ..lost(&at, 1, "DELETE", 204, 1, "")
        };
        failed_over(&at, &[revoked]).await;
        assert_eq!(became(&replayed(&at).await), [Became::Replayed]);
        assert_eq!(at.count("SELECT count(*) FROM api_key WHERE revoked_at IS NOT NULL").await, 1);
    });
}
