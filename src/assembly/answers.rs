//! Who answers what another region asks.

use crate::{
    http::limits::Limiter,
    topology::ask::{Answer, Answers, Question},
    vocab::{Op, causes},
};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Guesses are the limiter's; all else is the region's.
pub struct Answering<R> {
    pub limiter: Arc<Limiter>,
    pub region: R,
}

impl<R: Answers> Answers for Answering<R> {
    fn answer<'a>(&'a self, question: Question, op: &'a Op) -> BoxFuture<'a, Answer> {
        match question {
            Question::Guesses(guesses) => Box::pin(async move {
                match self.limiter.told(&guesses, op).await {
                    Ok(()) => Answer::Noted,
                    Err(error) => Answer::Failed { reason: causes(&error) },
                }
            }),
            other => self.region.answer(other, op),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::LimitsConfig,
        storage::redis::testing::{Server, connect},
        vocab::{Epoch, OpId, OpKind, SystemClock, guess::Guesses},
    };
    use std::time::Duration;

    struct Elsewhere;

    impl Answers for Elsewhere {
        fn answer<'a>(&'a self, question: Question, _: &'a Op) -> BoxFuture<'a, Answer> {
            assert!(!matches!(question, Question::Guesses(_)));
            Box::pin(async { Answer::Released })
        }
    }

    #[tokio::test]
    async fn guesses_are_noted_unless_redis_is_away_and_all_else_is_answered_by_the_region() {
        let server = Server::start().await;
        let redis = connect(server.port);
        let limiter = Limiter::new(&LimitsConfig::default(), redis, Arc::new(SystemClock));
        let answering = Answering { limiter: Arc::new(limiter), region: Elsewhere };
        let op = Op::system(OpKind::Test, Duration::from_secs(60));
        let told = Question::Guesses(Guesses { id: OpId::mint(&op), all: Vec::new() });
        assert_eq!(answering.answer(told.clone(), &op).await, Answer::Noted);
        let released = Question::Release { epoch: Epoch::FIRST };
        assert_eq!(answering.answer(released, &op).await, Answer::Released);
        server.stop().await;
        assert!(matches!(answering.answer(told, &op).await, Answer::Failed { .. }));
    }
}
