//! Who is told of a loss has lost something: `bookmark-lost` to a bookmark that names no lost write
//! makes a client throw away, or write again, what is there.

use super::{Breach, Violation, Write, violation};
use crate::{
    failover::drill::history::{Call, History, Mark, MarkKind, Outcome},
    vocab::{Bookmark, Epoch},
};
use std::collections::BTreeMap;

/// What a bookmark can name.
struct Ground {
    /// Of each epoch, when the last of its writes began that are there at the end.
    kept_until_us: BTreeMap<Epoch, u64>,
    /// Missing writes: their epoch, if it is known.
    missing: Vec<Option<Epoch>>,
    /// A primary was replaced that had not handed over. A bookmark is a position of its log, and what is
    /// lost of that need not hold a write of ours.
    abrupt: bool,
}

/// Judges each answer that tells of a loss.
pub fn judge(history: &History, writes: &[Write]) -> Vec<Violation> {
    let ground = Ground::of(history, writes);
    let mut sessions: BTreeMap<u32, Vec<&Call>> = BTreeMap::new();
    for call in &history.calls {
        sessions.entry(call.session).or_default().push(call);
    }
    let mut found = Vec::new();
    for calls in sessions.values_mut() {
        calls.sort_by_key(|call| call.began_us);
        // Since when it has each bookmark.
        let mut given_us: BTreeMap<Bookmark, u64> = BTreeMap::new();
        for call in calls {
            if call.outcome == Outcome::Told
                && let Some(why) = ground.is_false(call, &given_us)
            {
                let says = format!("{} told of a loss, and {why}", call.asked);
                found.push(violation(Breach::FalseLoss, call, says));
            }
            if let Some(bookmark) = call.bookmark_out {
                given_us.entry(bookmark).or_insert(call.ended_us);
            }
        }
    }
    found
}

impl Ground {
    fn of(history: &History, writes: &[Write]) -> Self {
        let mut kept_until_us = BTreeMap::new();
        for write in writes.iter().filter(|write| write.there) {
            for epoch in write.attempts.iter().filter_map(|call| call.acknowledges()) {
                let latest = kept_until_us.entry(epoch).or_default();
                *latest = write.first().began_us.max(*latest);
            }
        }
        // One without an answer too: a position is that of the log, also of what it held for nobody yet.
        let missing = |write: &Write| {
            let epoch = write.attempts.iter().find_map(|call| call.acknowledges());
            let counts = write.acknowledged.is_some() || !write.is_refused();
            (counts && !write.there).then_some(epoch)
        };
        let promoted =
            |mark: &Mark| mark.kind == MarkKind::Command && mark.says.starts_with("promote");
        Self {
            kept_until_us,
            missing: writes.iter().filter_map(missing).collect(),
            abrupt: history.marks.iter().any(promoted),
        }
    }

    /// Why what it was told cannot be true.
    fn is_false(&self, call: &Call, given_us: &BTreeMap<Bookmark, u64>) -> Option<String> {
        let Some(sent) = call.bookmark_in else {
            return Some("it had sent no bookmark".to_owned());
        };
        let given_us = given_us.get(&sent).copied().unwrap_or(call.began_us);
        // An epoch has one log: what was committed in it after the bookmark was given lies beyond.
        if self.kept_until_us.get(&sent.epoch).is_some_and(|until| *until > given_us) {
            return Some(format!(
                "a write of epoch {} that was asked for after bookmark {sent} had been given is there",
                sent.epoch
            ));
        }
        // Not by when they began: a log holds more than writes, so that a position can lie beyond
        // its end before any write is lost there.
        let named = self.missing.iter().any(|epoch| epoch.is_none_or(|epoch| epoch == sent.epoch));
        (!named && !self.abrupt)
            .then(|| format!("no write is missing that bookmark {sent} could name"))
    }
}
