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
use std::collections::BTreeSet;

/// Requests under way at once: few, so that they are not refused for their rate.
const AT_ONCE: usize = 12;

/// Reads all of a run, from the primary.
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
    let mut closing = Closing { items: items(client, run, at).await?, ..Closing::default() };
    for (list, id) in (0..).zip(list_ids) {
        let answer = insist(client, at, &format!("{}/{id}", lists(run))).await?;
        let values = answer.body["data"]["values"].as_array().into_iter().flatten();
        closing.lists.insert(list, values.filter_map(Value::as_u64).collect());
    }
    let keys: BTreeSet<&str> = calls.iter().filter_map(|call| call.ask.write_key()).collect();
    let fate = |key: &str| {
        let (key, path) = (key.to_owned(), format!("/v1/writes/{key}"));
        async move {
            let fate = match insist(client, at, &path).await {
                Ok(answer) => fate(&answer),
                Err(_) => Fate::Unanswered,
            };
            (key, fate)
        }
    };
    let asked: Vec<_> = keys.into_iter().map(fate).collect();
    closing.writes = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    Ok(closing)
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
