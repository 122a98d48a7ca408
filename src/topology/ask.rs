//! What one region's process asks of another's, at `POST /internal/v1/ask`: a signed question, and a
//! signed answer to it.

use super::{
    control::{Order, Outcome},
    lease::{Promise, Promised, Verdict},
    seal::{Purpose, Refused, Sealer},
};
use crate::{
    storage::global::{
        credentials::{Credentials, Rehash},
        sessions::{Known, Live},
    },
    vocab::{
        Bookmark, Email, Epoch, Op, OpId, Region, Role, SessionId, TokenHash, UserId,
        guess::Guesses,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// Where a region's internal listener is asked.
pub const PATH: &str = "/internal/v1/ask";

/// How long a question is good for, either way: two clocks differ, and so do a question's age and its
/// asker's patience. Questions repeat without harm; this only bounds how long a copied one is good.
const LIFE: TimeDelta = TimeDelta::seconds(30);

/// Longest question or answer, signed. A record of the journal alone can have a document of 1 MiB,
/// escaped twice on its way.
pub const BYTES_MAX: usize = 8 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// A term of the lease, for that region's epoch.
    Lease { epoch: Epoch, region: Region, term_ms: u64 },
    /// No more grants before that epoch.
    Promise(Promise),
    /// The grant of that epoch need not be waited out: its database is fenced.
    Release { epoch: Epoch },
    /// To be carried out on the region's own database.
    Order(Box<Order>),
    /// Wrong passwords that were tried there: they count here too.
    Guesses(Guesses),
    /// Of people and their sessions.
    People(OfPeople),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfPeople {
    /// To be recorded in the directory, by the primary of that epoch.
    Record { epoch: Epoch, known: Vec<Known> },
    /// Who is signed in by that token.
    Session { token: TokenHash },
    /// What signing in needs to know, of the primary: a tenant's name, who, and the address they come from.
    Credentials { tenant: String, email: Email, from: String },
    /// What no primary has recorded yet: to be kept, and owed, there too.
    Owed { known: Vec<Known> },
    /// A newer hash of the same password, for the primary of that epoch.
    Rehash { epoch: Epoch, change: Rehash },
    /// Whether a session of that generation is good, of a region whose directory is new enough.
    Confirm { id: SessionId, user: UserId, generation: i64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Lease(Verdict),
    Promise(Promised),
    Released,
    Order(Box<Outcome>),
    Recorded(Recorded),
    /// This region is not the primary of that epoch.
    Elsewhere,
    /// It cannot be done, and asking again will not change that.
    Refused {
        reason: String,
    },
    /// The role of the session's user, if it is good.
    Confirmed(Option<Role>),
    Session(Seen),
    /// It counts here, now or since it was told before.
    Noted,
    Credentials(Option<Credentials>),
    /// It could not be done, or may have been done in part: asking again is harmless.
    Failed {
        reason: String,
    },
}

/// What was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// From where on it can be read.
    pub at: Bookmark,
    /// Of users whom a failover has lost: nothing was recorded of these, and they are over.
    pub lost: Vec<SessionId>,
}

/// What a region knows of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    Live(Live),
    /// For good.
    Ended,
    Absent {
        /// Its database is the primary's: it is in no directory.
        primary: bool,
        /// Its Redis has answered.
        asked: bool,
    },
}

/// What is signed of a question.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    pub to: Region,
    pub question: Question,
    /// Names the question in its answer.
    pub id: OpId,
    pub sent_at: DateTime<Utc>,
}

/// What is signed of an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answered {
    pub from: Region,
    pub id: OpId,
    pub answer: Answer,
}

impl Asked {
    #[must_use]
    pub fn new(to: Region, question: Question, op: &Op) -> Self {
        Self { to, question, id: OpId::mint(op), sent_at: op.now() }
    }

    #[must_use]
    pub fn seal(&self, sealer: &Sealer) -> String {
        sealer.seal(Purpose::Ask, self)
    }

    /// Opens a question that reached `region`.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn open(
        sealer: &Sealer,
        sealed: &str,
        region: &Region,
        now: DateTime<Utc>,
    ) -> Result<Self, Refused> {
        let asked: Self = sealer.open(Purpose::Ask, sealed)?;
        if (now - asked.sent_at).abs() > LIFE {
            return Err(Refused::Expired);
        }
        if asked.to != *region {
            return Err(Refused::Misdirected);
        }
        Ok(asked)
    }

    /// Opens the answer to this question.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn answer(&self, sealer: &Sealer, sealed: &str) -> Result<Answer, Refused> {
        let answered: Answered = sealer.open(Purpose::Answer, sealed)?;
        if answered.id != self.id || answered.from != self.to {
            return Err(Refused::Misdirected);
        }
        Ok(answered.answer)
    }
}

impl Answered {
    #[must_use]
    pub fn seal(&self, sealer: &Sealer) -> String {
        sealer.seal(Purpose::Answer, self)
    }
}

/// Who answers for a region.
pub trait Answers: Send + Sync + 'static {
    /// Bounded by the operation's deadline. What it has begun it may finish when dropped.
    fn answer<'a>(&'a self, question: Question, op: &'a Op) -> BoxFuture<'a, Answer>;
}
