//! Which region is the primary now, as its database tells: the laboratory itself moves nothing, and
//! is told of nothing.

use super::{
    laboratory::Inner,
    postgres::{DATABASE, Session},
    spec::{Part, Step},
};
use crate::vocab::{Epoch, Region};
use anyhow::Context as _;
use futures_util::future::join_all;
use std::{sync::Weak, time::Duration};

/// Between two looks at a database.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);
/// Longest wait for one to answer.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// What a primary claims to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reign {
    pub epoch: Epoch,
    /// A promotion begins a timeline, and writes its epoch a moment later.
    pub timeline: u32,
    pub region: Region,
}

impl Reign {
    /// Whether it came after the other. A primary that was replaced and comes back did not.
    pub fn is_after(&self, other: &Self) -> bool {
        (self.epoch, self.timeline) > (other.epoch, other.timeline)
    }
}

/// Follows every promotion, for as long as there is a laboratory.
pub async fn watch(lab: Weak<Inner>) {
    let regions = lab.upgrade().map(|lab| lab.spec.regions.clone()).unwrap_or_default();
    // Each by itself: a database that does not answer holds up nobody else's news.
    join_all(regions.iter().map(|region| watch_one(&lab, region))).await;
}

async fn watch_one(lab: &Weak<Inner>, region: &Region) {
    let mut kept = None;
    let mut turns = tokio::time::interval(LOOK_INTERVAL);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let Some(lab) = lab.upgrade() else { return };
        if lab.up.get().is_none() || !lab.answers_for(region, Part::Postgres) {
            kept = None;
            continue;
        }
        let looked = tokio::time::timeout(LOOK_PATIENCE, look(&lab, region, kept.take())).await;
        // What it cannot tell now it tells at the next look.
        let Ok(Ok((session, claim))) = looked else { continue };
        kept = Some(session);
        let Some(claim) = claim else { continue };
        let word = format!("{region} is the primary now");
        if lab.crown(claim) {
            lab.spec.progress.tell(Step::Done(&word));
            if let Err(error) = lab.write_file() {
                lab.spec.progress.tell(Step::Warning(&format!("lab.json: {error:#}")));
            }
        }
    }
}

async fn look(
    lab: &Inner,
    region: &Region,
    session: Option<Session>,
) -> anyhow::Result<(Session, Option<Reign>)> {
    let session = if let Some(session) = session {
        session
    } else {
        Session::open(&lab.secrets, lab.ports.of(region)?.postgres, DATABASE).await?
    };
    let Some(timeline) = session.timeline().await? else { return Ok((session, None)) };
    let epoch = if lab.spec.bare { Epoch::FIRST } else { session.epoch().await? };
    let claim = Reign { epoch, timeline, region: region.clone() };
    Ok((session, Some(claim)))
}

impl Session {
    /// The timeline that it writes on; `None` on a replica.
    pub async fn timeline(&self) -> anyhow::Result<Option<u32>> {
        let query = "SELECT CASE WHEN NOT pg_is_in_recovery() \
             THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END";
        let found = self.column(query).await?;
        let found = found.first().context("no answer")?;
        // A null is an empty text here.
        let timeline = |text: &str| u32::from_str_radix(text, 16).context("no timeline");
        if found.is_empty() { Ok(None) } else { timeline(found).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promotion_comes_after_what_it_replaced_before_and_after_its_epoch_is_written() {
        let reign = |epoch, timeline, region: &str| Reign {
            epoch: Epoch::new(epoch).unwrap(),
            timeline,
            region: region.parse().unwrap(),
        };
        let first = reign(1, 1, "us-east-1");
        let promoted = reign(1, 2, "eu-west-1");
        let written = reign(2, 2, "eu-west-1");
        // Promoted without having heard of the other promotion.
        let elsewhere = reign(3, 2, "ap-south-1");
        let in_order = [first, promoted, written, elsewhere];
        for (index, later) in in_order.iter().enumerate() {
            assert!(in_order[..index].iter().all(|earlier| later.is_after(earlier)));
            assert!(in_order[index..].iter().all(|other| !later.is_after(other)));
        }
    }
}
