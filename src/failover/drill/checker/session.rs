//! What one session may see: its own acknowledged writes, nothing going back, and the truth about
//! what a failover lost.

use super::{Breach, Violation, Write, violation};
use crate::{
    failover::drill::history::{Ask, Call, History, Outcome, Seen},
    vocab::{Bookmark, Epoch, Lsn},
};
use std::collections::{BTreeMap, BTreeSet};

/// What a session knows.
#[derive(Default)]
struct Memory<'a> {
    /// Its acknowledged adds, and whether it was told of a loss since.
    items: BTreeMap<&'a str, bool>,
    /// Its acknowledged appends: list, value and key, and whether it was told of a loss since.
    values: BTreeMap<(u32, u64), (&'a str, bool)>,
    /// Each list as it saw it last.
    lists: BTreeMap<u32, Vec<u64>>,
}

struct Judge<'a> {
    /// Keys of acknowledged writes that are missing.
    lost: BTreeSet<&'a str>,
    /// The first position of each epoch that is known to be lost.
    lost_from: BTreeMap<Epoch, Lsn>,
    found: Vec<Violation>,
}

/// Judges each session by itself.
pub fn judge(history: &History, writes: &[Write]) -> Vec<Violation> {
    let lost = writes.iter().filter(|write| write.is_lost());
    let mut judge = Judge {
        lost: lost.map(|write| write.key).collect(),
        lost_from: lost_from(writes),
        found: Vec::new(),
    };
    let mut sessions: BTreeMap<u32, Vec<&Call>> = BTreeMap::new();
    for call in &history.calls {
        sessions.entry(call.session).or_default().push(call);
    }
    for calls in sessions.values_mut() {
        calls.sort_by_key(|call| call.began_us);
        let mut memory = Memory::default();
        for call in calls {
            judge.bookmarks(call);
            judge.call(&mut memory, call);
        }
    }
    judge.found
}

/// An acknowledgement's bookmark lies at its commit or beyond. The commit is lost, so whatever lies
/// at the bookmark or beyond in that epoch is lost too.
fn lost_from(writes: &[Write]) -> BTreeMap<Epoch, Lsn> {
    let mut from: BTreeMap<Epoch, Lsn> = BTreeMap::new();
    for write in writes.iter().filter(|write| write.is_lost()) {
        for call in &write.attempts {
            let Some(Bookmark { epoch, lsn }) = call.bookmark_out else { continue };
            if call.acknowledges() == Some(epoch) {
                let first = from.entry(epoch).or_insert(lsn);
                *first = lsn.min(*first);
            }
        }
    }
    from
}

impl<'a> Judge<'a> {
    fn find(&mut self, breach: Breach, call: &Call, says: String) {
        self.found.push(violation(breach, call, says));
    }

    /// A good answer's bookmark is no earlier than the one sent; and one sent that names what is
    /// lost gets no good answer from a later epoch.
    fn bookmarks(&mut self, call: &Call) {
        let (Some(sent), Outcome::Ok(_)) = (call.bookmark_in, &call.outcome) else { return };
        let Some(got) = call.bookmark_out else { return };
        if got < sent {
            let says = format!("sent bookmark {sent}, got {got} from {}", call.asked);
            self.find(Breach::Backward, call, says);
        }
        let lost = self.lost_from.get(&sent.epoch).is_some_and(|from| sent.lsn >= *from);
        if lost && got.epoch > sent.epoch {
            let says = format!(
                "sent bookmark {sent}, which names a lost write, and {} answered {} with {got}",
                call.asked, call.status
            );
            self.find(Breach::Untold, call, says);
        }
    }

    fn call(&mut self, memory: &mut Memory<'a>, call: &'a Call) {
        match (&call.outcome, &call.ask) {
            (Outcome::Told, _) => memory.told(),
            (Outcome::Ok(_), Ask::Add { key }) => drop(memory.items.insert(key, false)),
            (Outcome::Ok(_), Ask::Append { key, list, before, value }) => {
                memory.values.insert((*list, *value), (key, false));
                let mut values = before.clone();
                values.push(*value);
                // A replayed answer may be older than what was read since.
                let newer = memory.lists.get(list).is_none_or(|seen| seen.len() < values.len());
                if newer {
                    memory.lists.insert(*list, values);
                }
            }
            (Outcome::Ok(seen), Ask::ReadItem { key }) => {
                let told = memory.items.get(key.as_str());
                if let (false, Some(told)) = (seen.found, told)
                    && !(*told && self.lost.contains(key.as_str()))
                {
                    let says = format!("{} does not have its own {key}", call.asked);
                    self.find(Breach::Stale, call, says);
                }
            }
            (Outcome::Ok(seen), Ask::ReadList { list }) => self.list(memory, call, *list, seen),
            _ => {}
        }
    }

    fn list(&mut self, memory: &mut Memory<'a>, call: &Call, list: u32, seen: &Seen) {
        for ((own_list, value), (key, told)) in &memory.values {
            let excused = *told && self.lost.contains(key);
            if *own_list == list && !excused && !seen.values.contains(value) {
                let says =
                    format!("{} has list {list} without its own {value} ({key})", call.asked);
                self.found.push(violation(Breach::Stale, call, says));
            }
        }
        if let Some(before) = memory.lists.get(&list)
            && !seen.values.starts_with(before)
        {
            let says = format!(
                "{} has list {list} with {} values, which do not go on from the {} seen before",
                call.asked,
                seen.values.len(),
                before.len()
            );
            self.find(Breach::Backward, call, says);
        }
        memory.lists.insert(list, seen.values.clone());
    }
}

impl Memory<'_> {
    /// What was lost need not be seen again, nor what was seen with it.
    fn told(&mut self) {
        self.lists.clear();
        self.items.values_mut().for_each(|told| *told = true);
        self.values.values_mut().for_each(|(_, told)| *told = true);
    }
}
