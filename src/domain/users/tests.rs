use super::*;
use crate::storage::global::testing::{Fixture, on_database};

const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNo";

fn all() -> Right {
    Right::Administrator(Role::Admin.scopes())
}

/// Administers, and nothing else.
fn narrow() -> Right {
    Right::Administrator([Scope::Admin].into_iter().collect())
}

struct Users {
    at: Fixture,
}

impl Users {
    fn subject(&self, id: UserId, right: Right) -> Subject<'_> {
        Subject { scope: &self.at.scope, id, matches: None, right }
    }

    async fn try_make(&self, email: &str, role: Role, right: Right) -> Result<UserRow, WorkError> {
        let (at, email) = (&self.at, email.parse().unwrap());
        let id = UserId::mint(&at.op);
        let draft = Draft { id, email: &email, name: "Ada", role, password_hash: Some(HASH) };
        let mut tx = at.begin().await;
        let made = create(&mut tx, &at.scope, right, &draft, &at.op).await?;
        tx.commit().await.unwrap();
        Ok(made)
    }

    async fn make(&self, email: &str, role: Role) -> UserRow {
        self.try_make(email, role, Right::Operator).await.unwrap()
    }

    async fn act<T>(
        &self,
        work: impl AsyncFnOnce(&mut WriteTx) -> Result<T, WorkError>,
    ) -> Result<T, WorkError> {
        let mut tx = self.at.begin().await;
        let done = work(&mut tx).await?;
        tx.commit().await.unwrap();
        Ok(done)
    }

    async fn suspend(&self, id: UserId, right: Right) -> Result<UserRow, WorkError> {
        let (subject, op) = (self.subject(id, right), &self.at.op);
        self.act(async |tx| suspend(tx, subject, op).await).await
    }

    async fn demote(&self, id: UserId, right: Right) -> Result<UserRow, WorkError> {
        let to = UserChange { role: Some(Role::Viewer), ..UserChange::default() };
        let (subject, op) = (self.subject(id, right), &self.at.op);
        self.act(async |tx| change(tx, subject, &to, op).await).await
    }

    async fn delete(&self, id: UserId, right: Right) -> Result<UserRow, WorkError> {
        let (subject, op) = (self.subject(id, right), &self.at.op);
        self.act(async |tx| delete(tx, subject, op).await).await
    }
}

fn is_last(done: &Result<UserRow, WorkError>) -> bool {
    matches!(done, Err(WorkError::Refused(Refused::LastAdmin)))
}

fn is_beyond<T>(done: &Result<T, WorkError>) -> bool {
    matches!(done, Err(WorkError::Refused(Refused::Beyond(_))))
}

#[test]
fn a_name_has_something_to_see_and_no_control_characters() {
    for good in ["Ada", "\u{738b}", "Conan O'Brien", &"n".repeat(100)] {
        assert_eq!(parse_name(good), Ok(good));
    }
    for bad in ["", "  ", "a\nb", "a\0", "\u{85}", &"n".repeat(101)] {
        assert!(parse_name(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_last_administrator_stays_one_except_by_an_operator() {
    on_database("domain::users::last_admin", |pool| async move {
        let users = Users { at: Fixture::new(&pool).await };
        let one = users.make("one@example.com", Role::Admin).await.id;
        let two = users.make("two@example.com", Role::Admin).await.id;
        let editor = users.make("editor@example.com", Role::Editor).await.id;
        users.suspend(two, all()).await.unwrap();
        // Twice is once, and the suspended one does not count.
        users.suspend(two, all()).await.unwrap();
        assert!(is_last(&users.suspend(one, all()).await));
        assert!(is_last(&users.demote(one, all()).await));
        assert!(is_last(&users.delete(one, all()).await));
        // Who is no administrator now may go.
        users.suspend(editor, all()).await.unwrap();
        users.demote(two, all()).await.unwrap();
        users.delete(two, all()).await.unwrap();
        let stays = UserChange { role: Some(Role::Admin), name: Some("Eve"), email: None };
        let subject = users.subject(one, all());
        let kept = users.act(async |tx| change(tx, subject, &stays, &users.at.op).await).await;
        assert_eq!(kept.unwrap().name, "Eve");
        users.suspend(one, Right::Operator).await.unwrap();
        users.delete(one, Right::Operator).await.unwrap();
    });
}

#[test]
fn nobody_gives_or_takes_over_more_than_they_have() {
    on_database("domain::users::beyond", |pool| async move {
        let users = Users { at: Fixture::new(&pool).await };
        let editor = users.make("editor@example.com", Role::Editor).await.id;
        let guest = users.try_make("guest@example.com", Role::Guest, narrow()).await.unwrap().id;
        assert!(is_beyond(&users.try_make("x@example.com", Role::Viewer, narrow()).await));
        let op = &users.at.op;
        let address = "mine@example.com".parse().unwrap();
        for (id, may) in [(editor, false), (guest, true)] {
            let subject = users.subject(id, narrow());
            let set = users.act(async |tx| set_password(tx, subject, HASH, None, op).await).await;
            assert_eq!(is_beyond(&set), !may);
            let to = UserChange { email: Some(&address), ..UserChange::default() };
            let moved = users.act(async |tx| change(tx, subject, &to, op).await).await;
            assert_eq!(is_beyond(&moved), !may);
            let to = UserChange { role: Some(Role::Editor), ..UserChange::default() };
            assert!(is_beyond(&users.act(async |tx| change(tx, subject, &to, op).await).await));
            // A name gives nothing, and whoever administers may keep anybody out.
            let to = UserChange { name: Some("Other"), ..UserChange::default() };
            users.act(async |tx| change(tx, subject, &to, op).await).await.unwrap();
            users.suspend(id, narrow()).await.unwrap();
            let back = users.act(async |tx| resume(tx, subject, op).await).await;
            assert_eq!(is_beyond(&back), !may);
        }
    });
}

#[test]
fn a_precondition_that_does_not_hold_shows_who_is_there() {
    on_database("domain::users::precondition", |pool| async move {
        let users = Users { at: Fixture::new(&pool).await };
        let made = users.make("ada@example.com", Role::Viewer).await;
        let stale = Match::parse("\"1.7\"", false).unwrap();
        let known = Match::parse(&made.etag().to_string(), false).unwrap();
        let op = &users.at.op;
        let subject = Subject { matches: Some(&stale), ..users.subject(made.id, all()) };
        let refused = users.act(async |tx| delete(tx, subject, op).await).await;
        let Err(WorkError::Refused(Refused::UserConflict(there))) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(*there, made);
        let subject = Subject { matches: Some(&known), ..subject };
        users.act(async |tx| delete(tx, subject, op).await).await.unwrap();
        let gone = users.act(async |tx| resume(tx, subject, op).await).await;
        assert!(matches!(gone, Err(WorkError::Refused(Refused::NotFound))), "{gone:?}");
    });
}

#[test]
fn a_taken_address_is_an_answer() {
    on_database("domain::users::taken", |pool| async move {
        let users = Users { at: Fixture::new(&pool).await };
        users.make("ada@example.com", Role::Viewer).await;
        let again = users.try_make("Ada@Example.com", Role::Viewer, all()).await;
        assert!(matches!(again, Err(WorkError::Refused(Refused::EmailTaken))), "{again:?}");
    });
}
