//! A region's answers to what the others, or an operator, ask of it.

use crate::{
    topology::{
        ask::{Answer, Answers, Question},
        lease::Grantor,
    },
    vocab::Op,
};
use futures_util::future::BoxFuture;

/// Answers for one process' region.
pub struct RegionAnswers {
    grantor: Grantor,
}

impl RegionAnswers {
    #[must_use]
    pub fn new(grantor: Grantor) -> Self {
        Self { grantor }
    }

    async fn settle(&self, question: Question, op: &Op) -> Answer {
        let done = match question {
            Question::Lease { epoch, region, term_ms } => {
                self.grantor.grant(epoch, &region, term_ms, op).await.map(Answer::Lease)
            }
            Question::Promise(wanted) => {
                self.grantor.promise(&wanted, op).await.map(Answer::Promise)
            }
            Question::Release { epoch } => {
                self.grantor.release(epoch, op).await.map(|()| Answer::Released)
            }
            Question::Order(_) => return Answer::Failed { reason: "no".into() },
        };
        done.unwrap_or_else(|error| Answer::Failed { reason: error.to_string() })
    }
}

impl Answers for RegionAnswers {
    fn answer<'a>(&'a self, question: Question, op: &'a Op) -> BoxFuture<'a, Answer> {
        Box::pin(self.settle(question, op))
    }
}
