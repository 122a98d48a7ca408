//! How things stand at the end: every item, every list, what every key says, and what every region
//! says to the bookmarks of what was lost.

use super::{
    checker::LostWrite,
    client::{Answer, Client, Request},
    history::{Call, Closing, Fate, Probe},
    workload::{adds, lists, said},
};
use crate::vocab::Region;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Requests under way at once: few, so that they are not refused for their rate.
const AT_ONCE: usize = 12;

/// Reads all of a run, from the primary. A write that was held up on its way, and whose client was
/// told that its outcome is unknown, can take effect meanwhile: all is read anew then, so that what is
/// there and what the keys say are of one moment.
///
/// # Errors
/// With what a region answered instead, for as long as it was asked.
pub async fn read(
    client: &Client,
    run: &str,
    list_ids: &[String],
    calls: &[Call],
    at: &Region,
) -> Result<Closing, String> {
    // One that does not answer is found out once, not for each of thousands of keys.
    insist(client, at, &format!("{}?limit=1", adds(run))).await?;
    let keys: BTreeSet<&str> = calls.iter().filter_map(|call| call.ask.write_key()).collect();
    let mut writes = fates(client, keys.into_iter().map(str::to_owned).collect(), at).await;
    loop {
        let items = items(client, run, at).await?;
        let mut lists_at = BTreeMap::new();
        for (list, id) in (0..).zip(list_ids) {
            let answer = insist(client, at, &format!("{}/{id}", lists(run))).await?;
            let values = answer.body["data"]["values"].as_array().into_iter().flatten();
            lists_at.insert(list, values.filter_map(Value::as_u64).collect());
        }
        let open = writes.iter().filter(|(_, fate)| **fate != Fate::Committed);
        let open = open.map(|(key, _)| key.clone()).collect();
        let mut late = fates(client, open, at).await;
        late.retain(|_, fate| *fate == Fate::Committed);
        if late.is_empty() {
            return Ok(Closing { items, lists: lists_at, writes, ..Closing::default() });
        }
        writes.extend(late);
    }
}

/// What became of each, by its key.
async fn fates(client: &Client, keys: Vec<String>, at: &Region) -> BTreeMap<String, Fate> {
    let fate = |key: String| async move {
        let answer = insist(client, at, &format!("/v1/writes/{key}")).await;
        let fate = answer.map_or(Fate::Unanswered, |answer| fate(&answer));
        (key, fate)
    };
    let asked: Vec<_> = keys.into_iter().map(fate).collect();
    stream::iter(asked).buffer_unordered(AT_ONCE).collect().await
}

async fn items(client: &Client, run: &str, at: &Region) -> Result<Vec<(String, String)>, String> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = insist(client, at, &format!("{}?limit=200{cursor}", adds(run))).await?;
        for item in page.body["items"].as_array().into_iter().flatten() {
            let (key, id) = (item["data"]["key"].as_str(), item["id"].as_str());
            items.extend(key.zip(id).map(|(key, id)| (key.to_owned(), id.to_owned())));
        }
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(items),
        }
    }
}

/// Until it is answered well.
async fn insist(client: &Client, at: &Region, path: &str) -> Result<Answer, String> {
    let request = Request::strong(path.to_owned());
    let answer = client.ask_until(at, &request, |answer| answer.status == 200).await;
    if answer.status == 200 { Ok(answer) } else { Err(format!("{path}: {}", said(at, &answer))) }
}

fn fate(answer: &Answer) -> Fate {
    match answer.body["status"].as_str() {
        Some("committed") => Fate::Committed,
        Some("queued") => Fate::Queued,
        Some("dead") => Fate::Dead,
        Some("lost") => Fate::Lost,
        Some("unknown") => Fate::Unknown,
        _ => Fate::Unanswered,
    }
}

/// Shows every region the bookmark of every lost write.
pub async fn probe(client: &Client, run: &str, lost: &[LostWrite]) -> Vec<Probe> {
    let regions = client.regions();
    let each = lost.iter().flat_map(|lost| regions.iter().map(move |region| (lost, region)));
    let ask = |(lost, region): (&LostWrite, &Region)| {
        let path = format!("{}?limit=1", adds(run));
        let (key, region, bookmark) = (lost.key.clone(), region.clone(), lost.bookmark);
        async move {
            // A region that cannot answer has not said anything yet.
            let says = |answer: &Answer| !matches!(answer.status, 0 | 429 | 500..=599);
            let answer = client.ask_until(&region, &Request::get(path, bookmark), says).await;
            let told = answer.problem.as_deref() == Some("bookmark-lost");
            Probe { key, told, says: said(&region, &answer), region }
        }
    };
    let asked: Vec<_> = each.map(ask).collect();
    stream::iter(asked).buffer_unordered(AT_ONCE).collect().await
}
