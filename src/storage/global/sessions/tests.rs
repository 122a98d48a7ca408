use super::*;
use crate::{
    storage::global::{
        credentials::{self, Rehash},
        hot::HotReads,
        testing::Fixture,
        users::{self, NewUser, UserRow},
    },
    vocab::{Email, Epoch},
};
use chrono::Duration;
use sqlx::PgPool;

const EACH_MAX: u32 = 20;

struct People {
    at: Fixture,
    hot: HotReads,
}

impl People {
    async fn new(pool: &PgPool) -> Self {
        let at = Fixture::new(pool).await;
        let hot = HotReads::new(&at.config).unwrap();
        Self { at, hot }
    }

    async fn user(&self, text: &str) -> UserRow {
        let (at, email): (_, Email) = (&self.at, text.parse().unwrap());
        let id = UserId::mint(&at.op);
        let new = NewUser {
            id,
            email: &email,
            name: "Ada",
            role: Role::Editor,
            password_hash: Some("h"),
        };
        at.write(async |tx| users::insert(tx, &at.scope, &new, at.op.now()).await).await.0
    }

    fn known(&self, user: &UserRow, token: u8) -> Known {
        let now = self.at.op.now();
        let home: Region = "ap-south-1".parse().unwrap();
        Known {
            session: Live {
                id: SessionId::mint(&self.at.op),
                tenant: self.at.scope.tenant(),
                user: user.id,
                role: user.role,
                generation: 1,
                created_at: now,
                expires_at: now + Duration::days(7),
            },
            token: TokenHash::new([token; 32]),
            home: home.clone(),
            device: "curl/8".into(),
            address: "203.0.113.9".into(),
            seen_at: now,
            seen_in: home,
            ended_at: None,
        }
    }

    async fn apply(&self, known: &[Known]) -> Vec<SessionId> {
        let now = self.at.op.now();
        self.at.write(async |tx| apply(tx, known, EACH_MAX, now).await).await.0
    }

    async fn end_all(&self, user: &UserRow, kept: Option<SessionId>) -> u64 {
        let (at, now) = (&self.at, self.at.op.now());
        at.write(async |tx| end_all(tx, &at.scope, user.id, kept, now).await).await.0
    }

    async fn entry(&self, known: &Known) -> &'static str {
        match self.hot.session(&known.token, &self.at.op).await.unwrap().value {
            Entry::Live { session, .. } => {
                assert_eq!((session.id, session.user), (known.session.id, known.session.user));
                "live"
            }
            Entry::Ended => "ended",
            Entry::Absent => "absent",
        }
    }

    /// What has changed since then, and how far that is.
    async fn changes(&self, horizon: Horizon) -> (Vec<(SessionId, bool)>, Horizon) {
        let (mut all, mut after, mut to) = (Vec::new(), None, None);
        loop {
            let (now, pages_of) = (self.at.op.now(), 2);
            let page = changed_since(&self.at.global, horizon, after, now, pages_of).await.unwrap();
            all.extend(page.changes.iter().map(|change| (change.id, change.ended)));
            to.get_or_insert(page.horizon);
            after = page.next;
            if after.is_none() {
                return (all, to.unwrap());
            }
        }
    }
}

#[sqlx::test(migrations = "migrations/global")]
async fn whatever_comes_in_whatever_order_and_however_often_comes_to_the_same(pool: PgPool) {
    let people = People::new(&pool).await;
    let ada = people.user("ada@example.com").await;
    let begun = people.known(&ada, 1);
    let now = people.at.op.now();
    let ended = Known { ended_at: Some(now), ..begun.clone() };
    let used = Known { seen_at: now + Duration::hours(2), ..begun.clone() };
    assert_eq!(people.entry(&begun).await, "absent");
    for order in [[&begun, &used, &begun], [&used, &begun, &used]] {
        for one in order {
            people.apply(std::slice::from_ref(one)).await;
            assert_eq!(people.entry(&begun).await, "live");
        }
    }
    // An end is for good, also where it comes before its beginning, or together with it.
    people.apply(&[begun.clone(), ended.clone(), used.clone()]).await;
    assert_eq!(people.entry(&begun).await, "ended");
    people.apply(&[used, begun.clone()]).await;
    assert_eq!(people.entry(&begun).await, "ended");
    let late = people.known(&ada, 2);
    people.apply(&[Known { ended_at: Some(now), ..late.clone() }]).await;
    people.apply(std::slice::from_ref(&late)).await;
    assert_eq!(people.entry(&late).await, "ended");
    // Nothing comes of what is over already, or of nobody here.
    let mut over = people.known(&ada, 3);
    over.session.expires_at = now - Duration::seconds(1);
    let mut nobody = people.known(&ada, 4);
    nobody.session.user = UserId::mint(&people.at.op);
    let mut stranger = people.known(&ada, 5);
    stranger.session.tenant = people.at.other.tenant();
    let lost = people.apply(&[over.clone(), nobody.clone(), stranger.clone()]).await;
    assert_eq!(lost, [nobody.session.id]);
    for one in [over, nobody, stranger] {
        assert_eq!(people.entry(&one).await, "absent");
    }
}

#[sqlx::test(migrations = "migrations/global")]
async fn what_is_ended_for_a_user_is_ended_for_a_row_that_comes_late(pool: PgPool) {
    let people = People::new(&pool).await;
    let ada = people.user("ada@example.com").await;
    let eve = people.user("eve@example.com").await;
    let (first, kept, late, hers) = (
        people.known(&ada, 1),
        people.known(&ada, 2),
        people.known(&ada, 3),
        people.known(&eve, 4),
    );
    people.apply(&[first.clone(), kept.clone(), hers.clone()]).await;
    assert_eq!(people.end_all(&ada, Some(kept.session.id)).await, 1);
    people.apply(&[late.clone(), kept.clone()]).await;
    for (one, wanted) in [(&first, "ended"), (&kept, "live"), (&late, "ended"), (&hers, "live")] {
        assert_eq!(people.entry(one).await, wanted, "{}", one.token);
    }
    // One that began since is of the next generation.
    let mut next = people.known(&ada, 5);
    next.session.generation = 2;
    people.apply(std::slice::from_ref(&next)).await;
    assert_eq!(people.entry(&next).await, "live");
    let vouched = async |known: &Known| {
        people.hot.vouched(known.session.id, known.session.user, &people.at.op).await.unwrap()
    };
    assert_eq!(vouched(&late).await.unwrap().ended, Some(true));
    assert_eq!(vouched(&next).await.unwrap().ended, Some(false));
    let unrecorded = vouched(&people.known(&ada, 6)).await.unwrap();
    assert_eq!((unrecorded.ended, unrecorded.generation), (None, 2));
    // Suspended: what comes now is ended too.
    let (at, now) = (&people.at, people.at.op.now());
    at.write(async |tx| users::set_suspended(tx, &at.scope, eve.id, 2, Some(now), now).await).await;
    let later = people.known(&eve, 7);
    people.apply(std::slice::from_ref(&later)).await;
    assert_eq!(people.entry(&later).await, "ended");
    assert!(vouched(&later).await.unwrap().barred);
}

#[sqlx::test(migrations = "migrations/global")]
async fn one_session_is_ended_by_its_owner_alone(pool: PgPool) {
    let people = People::new(&pool).await;
    let (ada, eve) = (people.user("ada@example.com").await, people.user("eve@example.com").await);
    let known = people.known(&ada, 1);
    people.apply(std::slice::from_ref(&known)).await;
    let (at, id, now) = (&people.at, known.session.id, people.at.op.now());
    let end = async |scope: &TenantScope, user: UserId| {
        at.write(async |tx| end(tx, scope, user, id, now).await).await.0
    };
    assert!(!end(&at.scope, eve.id).await && !end(&at.other, ada.id).await);
    assert_eq!(people.entry(&known).await, "live");
    assert!(end(&at.scope, ada.id).await);
    assert!(!end(&at.scope, ada.id).await);
    assert_eq!(people.entry(&known).await, "ended");
}

#[sqlx::test(migrations = "migrations/global")]
async fn changes_come_in_the_order_of_commits_and_none_is_left_out(pool: PgPool) {
    let people = People::new(&pool).await;
    let (ada, eve) = (people.user("ada@example.com").await, people.user("eve@example.com").await);
    let hers: Vec<_> = (1..6).map(|token| people.known(&ada, token)).collect();
    let his = people.known(&eve, 9);
    people.apply(&hers).await;
    people.apply(std::slice::from_ref(&his)).await;
    // Beginning is no change.
    let (changes, from) = people.changes(Horizon::START).await;
    assert_eq!(changes, []);
    // One that began before another and commits after it.
    let (at, now) = (&people.at, people.at.op.now());
    let mut slow = at.begin().await;
    assert!(end(&mut slow, &at.scope, eve.id, his.session.id, now).await.unwrap());
    assert_eq!(people.end_all(&ada, None).await, 5);
    let (changes, to) = people.changes(from).await;
    let mut all: Vec<_> = hers.iter().map(|known| (known.session.id, true)).collect();
    // Of one transaction in the order of their ids.
    all.sort();
    assert_eq!(changes, all);
    slow.commit().await.unwrap();
    let (changes, mut to) = people.changes(to).await;
    assert!(changes.contains(&(his.session.id, true)), "{changes:?}");
    // Once nothing is under way any more, nothing comes again. Other tests' transactions count too: it is
    // one server.
    loop {
        let (again, next) = people.changes(to).await;
        to = next;
        if again.is_empty() {
            break;
        }
        assert!(!at.op.remaining().is_zero(), "{again:?}");
    }
    // Whose role is another is looked up anew.
    people.apply(&[people.known(&eve, 8)]).await;
    at.write(async |tx| have_changed(tx, eve.id, now).await).await;
    let (changes, _) = people.changes(to).await;
    assert!(changes.len() == 1 && !changes[0].1, "{changes:?}");
    // Of an epoch that begins, everything since its first transaction is seen again.
    let ahead = Horizon { xid: u64::MAX / 2, ..to };
    at.sql("INSERT INTO cluster_epoch VALUES (2, '0/1', 'eu-west-1', now())").await;
    let mut tx = WriteTx::open(&at.global, Epoch::from_stored(2).unwrap(), &at.op).await.unwrap();
    have_changed(&mut tx, eve.id, now).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(people.changes(ahead).await.0.len(), 1);
}

#[sqlx::test(migrations = "migrations/global")]
async fn sessions_are_listed_and_forgotten(pool: PgPool) {
    let people = People::new(&pool).await;
    let ada = people.user("ada@example.com").await;
    let mut all: Vec<_> = (1..5).map(|token| people.known(&ada, token)).collect();
    all.sort_by_key(|known| known.session.id);
    people.apply(&all).await;
    let (at, now) = (&people.at, people.at.op.now());
    at.write(async |tx| end(tx, &at.scope, ada.id, all[1].session.id, now).await).await;
    let long_ago = now - Duration::days(1);
    let list = async |scope: &TenantScope, before, since, limit| {
        let rows = list(&at.global, scope, ada.id, before, since, now, limit).await.unwrap();
        rows.value.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let ids = [3, 2, 0].map(|at: usize| all[at].session.id);
    assert_eq!(list(&at.scope, None, long_ago, 10).await, ids);
    assert_eq!(list(&at.scope, None, long_ago, 1).await, ids[..1]);
    assert_eq!(list(&at.scope, Some(ids[0]), long_ago, 10).await, ids[1..]);
    assert_eq!(list(&at.other, None, long_ago, 10).await, []);
    assert_eq!(list(&at.scope, None, now + Duration::seconds(1), 10).await, []);
    let purge = async |before| at.write(async |tx| purge(tx, before, 3).await).await.0;
    assert_eq!(purge(now).await, 0);
    assert_eq!(purge(now + Duration::days(8)).await, 3);
    assert_eq!(purge(now + Duration::days(8)).await, 1);
}

#[sqlx::test(migrations = "migrations/global")]
async fn who_signs_in_is_found_by_tenant_and_address_and_known_from_where_they_were(pool: PgPool) {
    let people = People::new(&pool).await;
    let ada = people.user("ada@example.com").await;
    let find = async |tenant: &str, email: &str, from: &str| {
        let email: Email = email.parse().unwrap();
        credentials::find(&people.at.global, tenant, &email, from).await.unwrap().value
    };
    let found = find("ours", "ADA@example.com", "203.0.113.9").await.unwrap();
    assert_eq!((found.user, found.hash.as_deref(), found.familiar), (ada.id, Some("h"), false));
    assert_eq!((found.generation, found.suspended), (1, false));
    assert!(!format!("{found:?}").contains("\"h\""));
    assert_eq!(find("theirs", "ada@example.com", "::1").await, None);
    assert_eq!(find("nobodys", "ada@example.com", "::1").await, None);
    let known = people.known(&ada, 1);
    people.apply(&[Known { ended_at: Some(people.at.op.now()), ..known }]).await;
    assert!(find("ours", "ada@example.com", "203.0.113.9").await.unwrap().familiar);
    assert!(!find("ours", "ada@example.com", "203.0.113.10").await.unwrap().familiar);
    assert!(find("ours", "ada@example.com", "203.0.113.0/24").await.unwrap().familiar);
    // A newer hash takes the place of the one that was compared, and of no other.
    let at = &people.at;
    for (old, wanted) in [("other", "h"), ("h", "new")] {
        let change = Rehash { user: ada.id, old: old.into(), new: "new".into() };
        at.write(async |tx| credentials::rehash(tx, &change).await).await;
        let hash = credentials::hash_of(&at.global, &at.scope, ada.id).await.unwrap();
        assert_eq!(hash.as_deref(), Some(wanted));
    }
    assert_eq!(credentials::hash_of(&at.global, &at.other, ada.id).await.unwrap(), None);
}

#[sqlx::test(migrations = "migrations/global")]
async fn whose_role_changed_before_their_row_came_is_looked_up_anew(pool: PgPool) {
    let people = People::new(&pool).await;
    let ada = people.user("ada@example.com").await;
    let (same, mut older) = (people.known(&ada, 1), people.known(&ada, 2));
    older.session.role = Role::Admin;
    people.apply(&[same, older.clone()]).await;
    let (changes, _) = people.changes(Horizon::START).await;
    assert_eq!(changes, [(older.session.id, false)]);
}

#[sqlx::test(migrations = "migrations/global")]
async fn of_too_many_sessions_the_oldest_are_ended(pool: PgPool) {
    let people = People::new(&pool).await;
    let (ada, eve) = (people.user("ada@example.com").await, people.user("eve@example.com").await);
    let mut all: Vec<_> = (1..=22).map(|token| people.known(&ada, token)).collect();
    all.sort_by_key(|known| known.session.id);
    let hers = people.known(&eve, 99);
    people.apply(std::slice::from_ref(&hers)).await;
    people.apply(&all[..5]).await;
    people.apply(&all[5..]).await;
    for (index, known) in all.iter().enumerate() {
        assert_eq!(people.entry(known).await, if index < 2 { "ended" } else { "live" }, "{index}");
    }
    assert_eq!(people.entry(&hers).await, "live");
}

#[sqlx::test(migrations = "migrations/global")]
async fn the_session_that_is_kept_must_be_recorded(pool: PgPool) {
    let people = People::new(&pool).await;
    let ada = people.user("ada@example.com").await;
    let (at, now) = (&people.at, people.at.op.now());
    let mut tx = at.begin().await;
    let kept = Some(SessionId::mint(&at.op));
    let refused = end_all(&mut tx, &at.scope, ada.id, kept, now).await;
    assert!(matches!(refused, Err(StorageError::Unavailable(_))), "{refused:?}");
}
