use super::*;
use crate::storage::global::testing::Fixture;
use sqlx::PgPool;

const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNo";

fn email(text: &str) -> Email {
    text.parse().unwrap()
}

struct Users {
    at: Fixture,
}

impl Users {
    async fn new(pool: &PgPool) -> Self {
        Self { at: Fixture::new(pool).await }
    }

    fn draft<'a>(&self, email: &'a Email, role: Role) -> NewUser<'a> {
        let id = UserId::mint(&self.at.op);
        NewUser { id, email, name: "Ada", role, password_hash: Some(HASH) }
    }

    async fn make(&self, text: &str, role: Role) -> UserRow {
        let (at, email) = (&self.at, email(text));
        let new = self.draft(&email, role);
        at.write(async |tx| insert(tx, &at.scope, &new, at.op.now()).await).await.0
    }

    async fn find(&self, id: UserId) -> Option<UserRow> {
        find(&self.at.global, &self.at.scope, id).await.unwrap().value
    }

    async fn refused(&self, new: &NewUser<'_>) -> StorageError {
        let at = &self.at;
        insert(&mut at.begin().await, &at.scope, new, at.op.now()).await.unwrap_err()
    }

    async fn suspend(&self, user: &UserRow) -> UserRow {
        let (at, now, next) = (&self.at, self.at.op.now(), user.version + 1);
        let suspend = async |tx: &mut WriteTx| {
            set_suspended(tx, &at.scope, user.id, next, Some(now), now).await
        };
        at.write(suspend).await.0
    }

    async fn delete(&self, user: &UserRow) -> bool {
        let (at, next) = (&self.at, user.version + 1);
        let delete =
            async |tx: &mut WriteTx| delete(tx, &at.scope, user.id, next, at.op.now()).await;
        at.write(delete).await.0
    }
}

#[sqlx::test(migrations = "migrations/global")]
async fn a_user_is_found_by_id_and_by_every_spelling_of_the_address(pool: PgPool) {
    let users = Users::new(&pool).await;
    let at = &users.at;
    let made = users.make("Ada@Example.com", Role::Editor).await;
    assert_eq!(
        (made.email.as_str(), made.role, made.version),
        ("Ada@Example.com", Role::Editor, 1)
    );
    assert!(made.password_changed_at.is_some() && made.suspended_at.is_none());
    assert_eq!(users.find(made.id).await.as_ref(), Some(&made));
    let by_email = async |scope: &TenantScope, text: &str| {
        find_by_email(&at.global, scope, &email(text)).await.unwrap().value
    };
    assert_eq!(by_email(&at.scope, "aDA@example.COM").await.as_ref(), Some(&made));
    assert_eq!(by_email(&at.scope, "eve@example.com").await, None);
    // Nobody of another tenant.
    assert_eq!(by_email(&at.other, "ada@example.com").await, None);
    assert_eq!(find(&at.global, &at.other, made.id).await.unwrap().value, None);
}

#[sqlx::test(migrations = "migrations/global")]
async fn an_address_is_one_persons_within_a_tenant(pool: PgPool) {
    let users = Users::new(&pool).await;
    let at = &users.at;
    let first = users.make("ada@example.com", Role::Viewer).await;
    let (again, other) = (email("ADA@example.com"), email("eve@example.com"));
    let taken = users.refused(&users.draft(&again, Role::Viewer)).await;
    assert!(matches!(taken, StorageError::Conflict(Constraint::UserEmail)), "{taken:?}");
    // Nor by a change.
    let second = users.make("eve@example.com", Role::Viewer).await;
    let change = UserChange { email: Some(&again), ..UserChange::default() };
    let mut tx = at.begin().await;
    let taken = update(&mut tx, &at.scope, second.id, 2, &change, at.op.now()).await;
    assert!(matches!(taken, Err(StorageError::Conflict(Constraint::UserEmail))), "{taken:?}");
    drop(tx);
    // Another tenant has people of its own.
    let theirs = users.draft(&other, Role::Viewer);
    at.write(async |tx| insert(tx, &at.other, &theirs, at.op.now()).await).await;
    assert_eq!(users.find(first.id).await, Some(first));
}

#[sqlx::test(migrations = "migrations/global")]
async fn a_change_changes_what_it_names_and_only_the_version_before(pool: PgPool) {
    let users = Users::new(&pool).await;
    let at = &users.at;
    let made = users.make("ada@example.com", Role::Viewer).await;
    let change = UserChange { role: Some(Role::Admin), ..UserChange::default() };
    let update_to = async |version| {
        let mut tx = at.begin().await;
        let done = update(&mut tx, &at.scope, made.id, version, &change, at.op.now()).await;
        if done.is_ok() {
            tx.commit().await.unwrap();
        }
        done
    };
    let changed = update_to(2).await.unwrap();
    assert_eq!((changed.role, changed.version, changed.name.as_str()), (Role::Admin, 2, "Ada"));
    assert_eq!(changed.email, made.email);
    for version in [1, 2, 9] {
        let refused = update_to(version).await;
        assert!(matches!(refused, Err(StorageError::Conflict(Constraint::UserId))), "{version}");
    }
    let mut tx = at.begin().await;
    let foreign = update(&mut tx, &at.other, made.id, 3, &change, at.op.now()).await;
    assert!(matches!(foreign, Err(StorageError::Conflict(Constraint::UserId))), "{foreign:?}");
}

#[sqlx::test(migrations = "migrations/global")]
async fn a_deleted_user_leaves_an_id_and_nothing_else(pool: PgPool) {
    let users = Users::new(&pool).await;
    let at = &users.at;
    let made = users.make("ada@example.com", Role::Admin).await;
    assert!(users.delete(&made).await);
    assert!(!users.delete(&made).await);
    assert_eq!(users.find(made.id).await, None);
    assert_eq!(list(&at.global, &at.scope, None, 9).await.unwrap().value, []);
    let mut tx = at.begin().await;
    assert_eq!(lock(&mut tx, &at.scope, made.id).await.unwrap(), None);
    assert!(!lock_other_admins(&mut tx, &at.scope, UserId::mint(&at.op)).await.unwrap());
    drop(tx);
    let left = "SELECT count(*) FROM tenant_user WHERE deleted_at IS NOT NULL AND version = 2
        AND num_nonnulls(email, email_folded, name, password_hash, password_changed_at) = 0";
    assert_eq!(at.count(left).await, 1);
    assert_eq!(
        at.count("SELECT count(*) FROM tenant_user WHERE tenant_user::text ~* 'ada'").await,
        0
    );
    // A late creation under the id does not bring them back; the address is free.
    let address = email("ada@example.com");
    let late = NewUser { id: made.id, ..users.draft(&address, Role::Admin) };
    let refused = users.refused(&late).await;
    assert!(matches!(refused, StorageError::Conflict(Constraint::UserId)), "{refused:?}");
    assert_ne!(users.make("ada@example.com", Role::Viewer).await.id, made.id);
}

#[sqlx::test(migrations = "migrations/global")]
async fn a_password_goes_in_and_does_not_come_out(pool: PgPool) {
    let users = Users::new(&pool).await;
    let at = &users.at;
    let address = email("ada@example.com");
    let bare = NewUser { password_hash: None, ..users.draft(&address, Role::Viewer) };
    let (made, _) = at.write(async |tx| insert(tx, &at.scope, &bare, at.op.now()).await).await;
    assert_eq!(made.password_changed_at, None);
    let set =
        async |tx: &mut WriteTx| set_password(tx, &at.scope, made.id, 2, HASH, at.op.now()).await;
    let (with, _) = at.write(set).await;
    assert!(with.password_changed_at.is_some() && with.version == 2);
    let kept = "SELECT count(*) FROM tenant_user WHERE password_hash LIKE '$argon2id$%'";
    assert_eq!(at.count(kept).await, 1);
    assert!(!format!("{with:?}").contains("argon2id"));
    // Nobody's row is ever taken away.
    for pool in [&at.global.read, &at.global.write] {
        let deleted = sqlx::query("DELETE FROM tenant_user").execute(pool).await;
        assert!(deleted.is_err(), "{deleted:?}");
    }
}

#[sqlx::test(migrations = "migrations/global")]
async fn users_are_listed_page_by_page_each_tenants_alone(pool: PgPool) {
    let users = Users::new(&pool).await;
    let at = &users.at;
    let mut own = Vec::new();
    for index in 0..5 {
        let made = users.make(&format!("u{index}@example.com"), Role::Viewer).await;
        own.push(made);
    }
    let theirs = email("u9@example.com");
    let theirs = users.draft(&theirs, Role::Viewer);
    at.write(async |tx| insert(tx, &at.other, &theirs, at.op.now()).await).await;
    assert!(users.delete(&own[2]).await);
    let suspended = users.suspend(&own[3]).await;
    let mut ids: Vec<_> = [0, 1, 3, 4].map(|index: usize| own[index].id).into();
    ids.sort();
    let page = async |after| list(&at.global, &at.scope, after, 3).await.unwrap().value;
    let listed = |page: &[UserRow]| page.iter().map(|user| user.id).collect::<Vec<_>>();
    let first = page(None).await;
    assert_eq!(listed(&first), ids[..3]);
    let rest = page(Some(ids[2])).await;
    assert_eq!(listed(&rest), ids[3..]);
    assert!(first.iter().chain(&rest).any(|user| *user == suspended));
    assert!(page(Some(ids[3])).await.is_empty());
}

/// Each suspends the other at the same moment: one of them must see that nobody would be left.
#[sqlx::test(migrations = "migrations/global")]
async fn of_two_administrators_who_suspend_each_other_one_finds_nobody_left(pool: PgPool) {
    let users = Users::new(&pool).await;
    let at = &users.at;
    let one = users.make("one@example.com", Role::Admin).await;
    let two = users.make("two@example.com", Role::Admin).await;
    users.make("not@example.com", Role::Editor).await;
    let mut first = at.begin().await;
    assert!(lock_other_admins(&mut first, &at.scope, one.id).await.unwrap());
    let second = async {
        let mut second = at.begin().await;
        lock_other_admins(&mut second, &at.scope, two.id).await.unwrap()
    };
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock'";
    let first = async {
        at.until(waits, 1).await;
        let now = at.op.now();
        set_suspended(&mut first, &at.scope, one.id, 2, Some(now), now).await.unwrap();
        first.commit().await.unwrap();
    };
    let (left, ()) = tokio::join!(second, first);
    assert!(!left);
}
