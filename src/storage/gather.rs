//! What is asked while other asks are under way is asked together, at once.
//!
//! One round trip is waited for at a time; how long, whoever answers decides. Nobody waits for company: the first ask
//! is sent at once, and what gathers meanwhile is the next round trip. A busy connection so pays the price of one (messages,
//! system calls, wake-ups on both sides) once for many asks; one that is not busy pays it for each, as before.

use super::StorageError;
use tokio::sync::{mpsc, oneshot};

/// Asks waiting for the next round trips; whoever comes then waits for a place.
const WAITING_MAX: usize = 1024;

/// One ask, and who waits for its answer.
pub(super) struct Ask<Q, A> {
    pub(super) question: Q,
    answer: oneshot::Sender<Result<A, StorageError>>,
}

impl<Q, A> Ask<Q, A> {
    pub(super) fn answer(self, answer: Result<A, StorageError>) {
        // Whoever is gone needs no answer.
        let _ = self.answer.send(answer);
    }
}

/// Where to ask. The other end ends when the last of these is dropped.
pub(super) struct Asks<Q, A>(mpsc::Sender<Ask<Q, A>>);

impl<Q, A> Clone for Asks<Q, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q, A> Asks<Q, A> {
    /// Cancellation-safe: whoever is gone is not asked for, or the answer is dropped.
    ///
    /// # Errors
    /// The answer's own; [`StorageError::Unavailable`] when the connection is lost, or was.
    pub(super) async fn ask(&self, question: Q) -> Result<A, StorageError> {
        let lost = || StorageError::unavailable("the connection was lost");
        let (answer, answered) = oneshot::channel();
        self.0.send(Ask { question, answer }).await.map_err(|_| lost())?;
        answered.await.map_err(|_| lost())?
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Where they arrive. What is left in it when it is dropped learns that by its channel being closed.
pub(super) struct Gathered<Q, A>(mpsc::Receiver<Ask<Q, A>>);

impl<Q, A> Gathered<Q, A> {
    /// Waits for asks and puts all that are there, up to `most`, into `together`. `false` when nobody can ask
    /// any more. All may have gone away meanwhile: then there are none.
    pub(super) async fn next(&mut self, together: &mut Vec<Ask<Q, A>>, most: usize) -> bool {
        let more = self.0.recv_many(together, most).await > 0;
        together.retain(|ask| !ask.answer.is_closed());
        more
    }
}

pub(super) fn channel<Q, A>() -> (Asks<Q, A>, Gathered<Q, A>) {
    let (sender, asks) = mpsc::channel(WAITING_MAX);
    (Asks(sender), Gathered(asks))
}

/// Gives all of them the same answer.
pub(super) fn refuse<Q, A>(together: &mut Vec<Ask<Q, A>>, mut why: impl FnMut() -> StorageError) {
    for ask in together.drain(..) {
        ask.answer(Err(why()));
    }
}
