//! Whether Postgres warned while a statement ran.
//!
//! A COMMIT whose wait for a standby is cancelled succeeds, with nothing but a WARNING
//! (`shared/postgres.md` lesson 7). The driver gives warnings to nobody but the log. So while that one
//! statement is polled, the thread's log goes to an ear that keeps them: a poll reads one
//! connection, so what it hears is that connection's. Which warning it is is not asked: its text is
//! in the server's language.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::pin,
    sync::LazyLock,
};
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::{Interest, NoSubscriber},
};

/// Where the driver logs what the server says beside its answers.
const TARGET: &str = "sqlx::postgres::notice";

/// Made once: a new one would make every log statement of the process ask again whether it is
/// wanted. The second hears nothing: a log statement that is first met while there is but one
/// listener asks only whoever listens at that moment, and remembers the answer.
static EAR: LazyLock<(Dispatch, Dispatch)> =
    LazyLock::new(|| (Dispatch::new(Ear), Dispatch::new(NoSubscriber::new())));

thread_local! {
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs the future, and tells the last warning that came while it was polled.
pub(super) async fn warned<F: Future>(future: F) -> (F::Output, Option<String>) {
    let mut future = pin!(future);
    let mut warning = None;
    let output = poll_fn(|context| {
        HEARD.set(None);
        let poll = tracing::dispatcher::with_default(&EAR.0, || future.as_mut().poll(context));
        if let Some(heard) = HEARD.take() {
            warning = Some(heard);
        }
        poll
    })
    .await;
    (output, warning)
}

struct Ear;

impl Ear {
    fn wants(metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && *metadata.level() <= Level::WARN
    }
}

impl Subscriber for Ear {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::wants(metadata) { Interest::always() } else { Interest::never() }
    }
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Self::wants(metadata)
    }
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }
    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        HEARD.set(Some(text.0));
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.0);
        }
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{PgPool, raw_sql};

    const WARN: &str = "DO $$ BEGIN RAISE WARNING 'watch out'; END $$";

    #[sqlx::test]
    async fn hears_what_its_own_statement_is_warned_of_and_nothing_else(pool: PgPool) {
        let (mut one, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        let quiet = async {
            let (outcome, heard) =
                warned(raw_sql("SELECT pg_sleep(0.05)").execute(&mut *one)).await;
            outcome.unwrap();
            heard
        };
        let loud = async {
            for _ in 0..20 {
                raw_sql(WARN).execute(&mut *other).await.unwrap();
            }
            let (outcome, heard) = warned(raw_sql(WARN).execute(&mut *other)).await;
            outcome.unwrap();
            heard
        };
        let (quiet, loud) = tokio::join!(quiet, loud);
        assert_eq!((quiet, loud.as_deref()), (None, Some("watch out")));
        let notice = raw_sql("DO $$ BEGIN RAISE NOTICE 'by the way'; END $$").execute(&mut *other);
        assert_eq!(warned(notice).await.1, None);
        let both =
            raw_sql("DO $$ BEGIN RAISE WARNING 'a'; END $$; SELECT 1").fetch_one(&mut *other);
        let (row, heard) = warned(both).await;
        assert!(row.is_ok() && heard.as_deref() == Some("a"), "{heard:?}");
    }
}
