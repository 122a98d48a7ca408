//! Lists: found, ordered and walked through from a region that is far from the primary.

use crate::{
    client::Caller,
    harness::{self, AP, US},
};
use anyhow::{Context as _, ensure};
use futures_util::future::join;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;

/// Makes many items in one request; their ids, in order.
async fn fill(
    caller: &mut Caller,
    collection: &str,
    data: &[Value],
) -> anyhow::Result<Vec<String>> {
    let operations: Vec<_> =
        data.iter().map(|data| json!({"op": "create", "data": data})).collect();
    let path = format!("/v1/collections/{collection}/items:batch");
    let ask = caller.ask(US, Method::POST, &path).json(&json!({"operations": operations}));
    let done = ask.send().await?.wants(200)?.json();
    let results = done["results"].as_array().context("results")?;
    Ok(results.iter().filter_map(|done| Some(done["id"].as_str()?.to_owned())).collect())
}

pub async fn pages_hold_every_item_once_while_others_come() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let collection = "lists-walk";
    let mut caller = cluster.caller();
    let data: Vec<_> = (0..120).map(|n| json!({"n": n})).collect();
    let there = fill(&mut caller, collection, &data).await?;
    let done = CancellationToken::new();
    let mut writer = cluster.caller();
    let write_on = async {
        let mut n = 0;
        while !done.is_cancelled() {
            n += 1;
            writer.create(US, collection, &json!({"late": n})).await?.wants(201)?;
        }
        anyhow::Ok(n)
    };
    let read_all = async {
        let mut walks = Vec::new();
        for order in ["id", "-id", "created_at", "-created_at", "updated_at", "-updated_at"] {
            let query = format!("order={order}&limit=7");
            walks.push((order, caller.items(AP, collection, &query).await));
        }
        done.cancel();
        walks
    };
    let (walks, written) = join(read_all, write_on).await;
    ensure!(written? > 10, "nothing came meanwhile");
    for (order, walked) in walks {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for item in walked? {
            *times.entry(item["id"].as_str().context("an id")?.to_owned()).or_default() += 1;
        }
        let twice = times.iter().filter(|(_, times)| **times > 1).count();
        let missing = there.iter().filter(|id| !times.contains_key(*id)).count();
        ensure!((twice, missing) == (0, 0), "{order}: {twice} twice, {missing} missing");
    }
    Ok(())
}

pub async fn a_page_of_large_items_ends_early_and_none_is_left_out() -> anyhow::Result<()> {
    const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
    let cluster = harness::shared().await?;
    let collection = "lists-large";
    let mut caller = cluster.caller();
    let text = "x".repeat(1_000_000);
    let mut there = Vec::new();
    for n in 0..11 {
        // A small one now and then, which alone would fit.
        let data = if n % 5 == 4 { json!({"n": n}) } else { json!({"n": n, "text": text}) };
        there.push(caller.create(US, collection, &data).await?.wants(201)?.id()?);
    }
    for region in [US, AP] {
        let (mut found, mut pages) = (Vec::new(), Vec::new());
        for page in caller.pages(region, collection, "limit=200").await? {
            let bytes = page.body.len();
            ensure!(bytes < PAGE_BYTES_MAX + 1_100_000, "{bytes} bytes");
            let items = page.items()?;
            pages.push(items.len());
            found.extend(items.iter().filter_map(|item| Some(item["id"].as_str()?.to_owned())));
        }
        ensure!(found == there, "{found:?} for {there:?}");
        ensure!(pages == [6, 5], "{region}: {pages:?}");
    }
    Ok(())
}

pub async fn lists_find_and_order_what_they_are_asked_for() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let collection = "lists-find";
    let mut caller = cluster.caller();
    let data = [
        json!({"name": "Oslo", "kind": "city", "tags": ["cold", "sea"], "size": {"people": 700}}),
        json!({"name": "Mumbai", "kind": "city", "tags": ["sea"], "size": {"people": 12000}}),
        json!({"name": "Sahara", "kind": "desert", "tags": []}),
        json!({"name": "North Sea", "kind": "sea"}),
    ];
    // One after the other, so that their times and ids are too.
    let mut ids = Vec::new();
    for data in &data {
        ids.push(caller.create(US, collection, data).await?.wants(201)?.id()?);
    }
    // The one changed last is not the one made last.
    let etag = "\"1.1\"";
    caller.patch_if(US, collection, &ids[0], etag, &json!({"seen": true})).await?.wants(200)?;
    let names = |items: Vec<Value>| -> Vec<String> {
        items.iter().filter_map(|item| Some(item["data"]["name"].as_str()?.to_owned())).collect()
    };
    let all = ["Oslo", "Mumbai", "Sahara", "North Sea"];
    let back = ["North Sea", "Sahara", "Mumbai", "Oslo"];
    let cases: [(&str, &[&str]); 16] = [
        ("", &all),
        ("order=id", &all),
        ("order=-id", &back),
        ("order=created_at", &all),
        ("order=-created_at", &back),
        ("order=updated_at", &["Mumbai", "Sahara", "North Sea", "Oslo"]),
        ("order=-updated_at", &["Oslo", "North Sea", "Sahara", "Mumbai"]),
        ("q=sahara", &["Sahara"]),
        ("q=sea", &["Oslo", "Mumbai", "North Sea"]),
        ("q=sea%20-cold", &["Mumbai", "North Sea"]),
        ("q=%22north%20sea%22", &["North Sea"]),
        ("q=nowhere", &[]),
        ("filter=%7B%22kind%22%3A%22city%22%7D", &["Oslo", "Mumbai"]),
        ("filter=%7B%22tags%22%3A%5B%22sea%22%5D%7D&order=-id", &["Mumbai", "Oslo"]),
        ("filter=%7B%22size%22%3A%7B%22people%22%3A700%7D%7D", &["Oslo"]),
        ("filter=%7B%22kind%22%3A%22city%22%7D&q=mumbai", &["Mumbai"]),
    ];
    for (query, expected) in cases {
        for limit in [1, 2, 200] {
            let found = caller.items(AP, collection, &format!("{query}&limit={limit}")).await;
            let found = names(found.context(query)?);
            ensure!(found == expected, "{query} by {limit}: {found:?}");
        }
    }
    // Fifty when nothing is said.
    let many: Vec<_> = (0..60).map(|n| json!({"n": n})).collect();
    fill(&mut caller, "lists-many", &many).await?;
    let page = caller.get(AP, "/v1/collections/lists-many/items").await?.wants(200)?.json();
    ensure!(page["items"].as_array().is_some_and(|items| items.len() == 50), "{page}");
    ensure!(page["next_cursor"].is_string());
    let none = caller.get(AP, "/v1/collections/lists-none/items").await?.wants(200)?.json();
    ensure!(none == json!({"items": [], "next_cursor": null}), "{none}");
    Ok(())
}

pub async fn collections_come_by_name_in_pages_with_their_counts() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut caller = cluster.tenant("lists-collections").await?.caller;
    let empty = caller.get(AP, "/v1/collections").await?.wants(200)?.json();
    ensure!(empty["items"] == json!([]), "{empty}");
    let mut last = String::new();
    for (name, count) in [("beta", 3), ("alpha", 1)] {
        for _ in 0..count {
            last = caller.create(AP, name, &json!({})).await?.wants(201)?.id()?;
        }
    }
    let listed = caller.get(AP, "/v1/collections").await?.wants(200)?.json();
    let expected = json!([{"name": "alpha", "count": 1}, {"name": "beta", "count": 3}]);
    ensure!(listed["items"] == expected && listed["next_cursor"].is_null(), "{listed}");
    let (mut walked, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/collections?limit=1{cursor}");
        let page = caller.get(AP, &path).await?.wants(200)?;
        ensure!(page.items()?.len() == 1, "{page}");
        walked.extend(page.items()?);
        match page.json()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    ensure!(json!(walked) == expected, "{walked:?}");
    caller.delete_if(AP, "alpha", &last, "*").await?.wants(204)?;
    let listed = caller.get(AP, "/v1/collections").await?.wants(200)?.json();
    ensure!(listed["items"] == json!([{"name": "beta", "count": 3}]), "{listed}");
    Ok(())
}
