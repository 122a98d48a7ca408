//! Items, as the contract has them, from a region that is far from the primary.

use crate::{
    client::{Answer, item},
    harness::{self, AP, EU, SOON, US, eventually},
    raw,
};
use anyhow::{Context as _, ensure};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

const COLLECTION: &str = "items";

pub async fn an_item_lives_through_all_its_changes_far_from_the_primary() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut caller = cluster.caller();
    let made = caller.create(AP, COLLECTION, &json!({"a": 1})).await?.wants(201)?;
    let id = made.id()?;
    let path = item(COLLECTION, &id);
    ensure!(made.header("location") == Some(&path) && made.route() == "forwarded", "{made}");
    ensure!(made.header("godwit-region") == Some(US) && made.etag()? == "\"1.1\"", "{made}");
    let shape = made.json();
    let members: Vec<_> = shape.as_object().context("an object")?.keys().cloned().collect();
    let mut expected = ["id", "collection", "version", "data", "created_at", "updated_at"];
    expected.sort_unstable();
    ensure!(members.iter().eq(expected.iter()), "{members:?}");
    ensure!(shape["created_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{shape}");

    let read = caller.get(AP, &path).await?.wants(200)?;
    ensure!(read.json() == shape && read.etag()? == made.etag()?, "{read}");
    ensure!(read.header("godwit-region") == Some(AP), "{read}");
    for tags in ["\"1.1\"", "W/\"1.1\"", "\"9.9\", \"1.1\"", "*"] {
        let ask = caller.ask(AP, Method::GET, &path).header("if-none-match", tags);
        let same = ask.send().await?.wants(304)?;
        ensure!(same.body.is_empty() && same.etag()? == "\"1.1\"", "{same}");
        ensure!(same.header("godwit-bookmark").is_some(), "{same}");
    }
    caller
        .ask(AP, Method::GET, &path)
        .header("if-none-match", "\"1.2\"")
        .send()
        .await?
        .wants(200)?;

    // Changing wants to know what is changed.
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let ask = caller.ask(AP, method, &path).json(&json!({}));
        ask.send().await?.wants_problem(428, "precondition-required")?;
    }
    let put = caller.put_if(AP, COLLECTION, &id, "\"1.1\"", &json!({"b": 2})).await?.wants(200)?;
    ensure!(put.version()? == 2 && put.etag()? == "\"1.2\"", "{put}");
    ensure!(put.json()["data"] == json!({"b": 2}), "{put}");
    ensure!(put.json()["created_at"] == shape["created_at"], "{put}");
    ensure!(put.json()["updated_at"].as_str() > shape["updated_at"].as_str(), "{put}");
    for late in ["\"1.1\"", "\"1.3\"", "\"2.2\"", "W/\"1.2\"", "\"other\""] {
        let lost = caller.put_if(AP, COLLECTION, &id, late, &json!({"c": 3})).await?;
        let lost = lost.wants_problem(412, "version-conflict")?;
        ensure!(lost.json()["current"] == put.json() && lost.etag()? == "\"1.2\"", "{lost}");
    }
    let put = caller.put_if(AP, COLLECTION, &id, "*", &json!({"d": 4})).await?.wants(200)?;
    ensure!(put.version()? == 3, "{put}");

    // An id that is taken is not created again.
    let ask = caller.ask(AP, Method::PUT, &path).header("if-none-match", "*").json(&json!({}));
    ask.send().await?.wants_problem(412, "version-conflict")?;
    let gone = caller.delete_if(AP, COLLECTION, &id, "\"1.3\"").await?.wants(204)?;
    ensure!(gone.body.is_empty(), "{gone}");
    caller.get(AP, &path).await?.wants_problem(404, "not-found")?;
    caller.get(EU, &path).await?.wants_problem(404, "not-found")?;
    caller.delete_if(AP, COLLECTION, &id, "*").await?.wants_problem(404, "not-found")?;
    caller.put_if(AP, COLLECTION, &id, "*", &json!({})).await?.wants_problem(404, "not-found")?;
    // Made again it goes on from where it was, so that no old tag fits.
    let ask =
        caller.ask(AP, Method::PUT, &path).header("if-none-match", "*").json(&json!({"e": 5}));
    let back = ask.send().await?.wants(201)?;
    ensure!(back.version()? > 3 && back.header("location") == Some(&path), "{back}");
    Ok(())
}

pub async fn a_head_is_answered_as_its_get_without_the_body() -> anyhow::Result<()> {
    const ALIKE: [&str; 6] =
        ["content-type", "etag", "cache-control", "godwit-route", "godwit-region", "godwit-epoch"];
    let cluster = harness::shared().await?;
    let mut caller = cluster.caller();
    let mut paths = vec!["/v1/collections/items-head/items?limit=2".to_owned()];
    // The second is passed on as it comes when it is forwarded.
    for length in [1, 200_000] {
        let data = json!({"text": "x".repeat(length)});
        let made = caller.create(US, "items-head", &data).await?.wants(201)?;
        paths.push(item("items-head", &made.id()?));
    }
    // So that no read has to wait, or be forwarded, because the replica is behind.
    let newest = paths.last().context("a path")?.clone();
    eventually("the replica has caught up", SOON, async || {
        let read = caller.clone().get(AP, &newest).await.map_err(|error| error.to_string())?;
        if read.route() == "local" { Ok(()) } else { Err(read.route().to_owned()) }
    })
    .await?;
    paths.push(item("items-head", "0193a0de-0000-7000-8000-000000000000"));
    paths.push("/v1/collections/items-head/items?limit=0".to_owned());
    for (region, consistency) in [(US, "session"), (AP, "eventual"), (AP, "strong")] {
        for path in &paths {
            for tag in ["\"1.1\"", "\"1.9\""] {
                let mut ask = async |method| {
                    let ask = caller.ask(region, method, path).header("if-none-match", tag);
                    ask.header("godwit-consistency", consistency).send().await
                };
                let (got, told) = (ask(Method::GET).await?, ask(Method::HEAD).await?);
                let what = format!("{path} in {region}, {consistency}: {got} and {told}");
                ensure!(got.status == told.status && told.body.is_empty(), "{what}");
                for name in ALIKE {
                    ensure!(got.header(name) == told.header(name), "{name} of {what}");
                }
                let length = (told.status != 304).then(|| got.body.len().to_string());
                ensure!(told.header("content-length") == length.as_deref(), "{what}");
            }
            // Not a byte of it, which a client library might pass over.
            let base = &cluster.region(region).public;
            let key = caller.key.clone().context("a key")?;
            let more = format!("godwit-consistency: {consistency}");
            let bytes = raw::head("HEAD", path, &key, &[&more]);
            let told = raw::send(base, &bytes, false).await?;
            ensure!(told.body.is_empty() && told.header("content-length").is_some(), "{told}");
        }
    }
    Ok(())
}

pub async fn a_merge_patch_changes_what_it_names() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut caller = cluster.caller();
    let data = json!({"keep": 1, "drop": 2, "deep": {"x": 1, "y": [1, 2]}});
    let made = caller.create(AP, COLLECTION, &data).await?.wants(201)?;
    let patch = json!({"drop": null, "deep": {"y": [3], "z": {"new": true}}, "added": "é"});
    let path = item(COLLECTION, &made.id()?);
    let ask = caller.ask(AP, Method::PATCH, &path).header("if-match", &made.etag()?);
    let ask = ask.body("application/merge-patch+json", patch.to_string());
    let patched = ask.send().await?.wants(200)?;
    let expected = json!({"keep": 1, "deep": {"x": 1, "y": [3], "z": {"new": true}}, "added": "é"});
    ensure!(patched.json()["data"] == expected && patched.version()? == 2, "{patched}");
    ensure!(caller.get(AP, &path).await?.json() == patched.json());
    for not_an_object in [json!([]), json!(null), json!("x")] {
        let ask = caller.ask(AP, Method::PATCH, &path).header("if-match", "*").json(&not_an_object);
        ask.send().await?.wants_problem(422, "validation")?;
    }
    Ok(())
}

pub async fn numbers_and_text_come_back_as_they_were() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut caller = cluster.caller();
    let text = r#"{"big": 12345678901234567890123456789, "small": 0.100, "neg": -0.5,
        "text": "\u00e9\ud83d\ude00 \"\\ \n </script>", "": {"\u2028": null}, "list": [true, false, [], {}]}"#;
    let sent: Value = serde_json::from_str(text)?;
    let path = format!("/v1/collections/{COLLECTION}/items");
    for region in [AP, US] {
        let ask = caller.ask(region, Method::POST, &path).body("application/json", text);
        let made = ask.send().await?.wants(201)?;
        let read = caller.read(EU, COLLECTION, &made.id()?).await?.wants(200)?;
        for answer in [&made, &read] {
            ensure!(answer.json()["data"] == sent, "{answer}");
            let body = String::from_utf8_lossy(&answer.body);
            ensure!(body.contains("12345678901234567890123456789") && body.contains("0.100"));
        }
    }
    Ok(())
}

pub async fn a_batch_is_all_or_nothing() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut caller = cluster.caller();
    let collection = "items-batch";
    let a = caller.create(AP, collection, &json!({"n": "a"})).await?.wants(201)?;
    let b = caller.create(AP, collection, &json!({"n": "b"})).await?.wants(201)?;
    let path = format!("/v1/collections/{collection}/items:batch");
    let (a_id, b_id) = (a.id()?, b.id()?);
    let fresh = fresh_id(&a_id);
    let operations = json!([
        {"op": "create", "data": {"n": "c"}},
        {"op": "put", "id": a_id, "data": {"n": "a2"}, "if_match": "\"1.1\""},
        {"op": "patch", "id": a_id, "data": {"more": 1}, "if_match": "\"1.2\""},
        {"op": "delete", "id": b_id, "if_match": "*"},
        {"op": "put", "id": fresh, "data": {"n": "d"}, "if_none_match": "*"},
    ]);
    let ask = caller.ask(AP, Method::POST, &path).json(&json!({"operations": operations}));
    let done = ask.send().await?.wants(200)?;
    let results = done.json()["results"].clone();
    let statuses: Vec<_> =
        results.as_array().context("results")?.iter().map(|r| r["status"].as_u64()).collect();
    ensure!(statuses == [201, 200, 200, 204, 201].map(Some), "{done}");
    let read = caller.read(AP, collection, &a_id).await?.wants(200)?;
    ensure!(read.version()? == 3 && read.json()["data"] == json!({"n": "a2", "more": 1}), "{read}");
    caller.read(AP, collection, &b_id).await?.wants(404)?;
    caller.read(AP, collection, &fresh).await?.wants(200)?;

    let list = format!("/v1/collections/{collection}/items");
    let before = caller.get(AP, &list).await?.wants(200)?.json();
    // The last one cannot be: none of those before it was.
    let bad: [(Value, u16, &str); 5] = [
        (
            json!({"op": "patch", "id": a_id, "data": {}, "if_match": "\"1.1\""}),
            412,
            "version-conflict",
        ),
        (json!({"op": "delete", "id": b_id, "if_match": "*"}), 404, "not-found"),
        (json!({"op": "create", "data": []}), 422, "validation"),
        (json!({"op": "burn", "id": a_id}), 422, "validation"),
        (json!({"op": "put", "id": a_id, "data": {}}), 428, "precondition-required"),
    ];
    for (last, status, kind) in bad {
        let operations = json!([
            {"op": "create", "data": {"n": "never"}},
            {"op": "delete", "id": fresh, "if_match": "*"},
            last,
        ]);
        let ask = caller.ask(AP, Method::POST, &path).json(&json!({"operations": operations}));
        let refused = ask.send().await?.wants_problem(status, kind)?;
        ensure!(refused.json()["operation"] == 2, "{refused}");
        let after = caller.get(AP, &list).await?.wants(200)?.json();
        ensure!(after == before, "half a batch: {after}");
    }
    let many =
        |count| json!({"operations": vec![json!({"op": "create", "data": {"n": 1}}); count]});
    for count in [0, 501] {
        let ask = caller.ask(AP, Method::POST, &path).json(&many(count));
        ask.send().await?.wants_problem(422, "validation")?;
    }
    let ask = caller.ask(AP, Method::POST, &path).json(&many(500));
    let done = ask.send().await?.wants(200)?;
    ensure!(done.json()["results"].as_array().is_some_and(|results| results.len() == 500));
    Ok(())
}

pub async fn a_refused_batch_shows_no_version_that_it_made() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut caller = cluster.caller();
    let collection = "items-batch-own";
    let made = caller.create(US, collection, &json!({"n": "a"})).await?.wants(201)?;
    let path = format!("/v1/collections/{collection}/items:batch");
    let there = made.id()?;
    let fresh = fresh_id(&there);
    let create = |id: &str| json!({"op": "create", "id": id, "data": {"n": "b"}});
    let put_new = |id: &str| json!({"op": "put", "id": id, "data": {}, "if_none_match": "*"});
    let patch =
        |id: &str, tag: &str| json!({"op": "patch", "id": id, "data": {"m": 1}, "if_match": tag});
    let delete = |id: &str| json!({"op": "delete", "id": id, "if_match": "*"});
    // Whether the last operation, which is refused, met what is committed.
    let cases = [
        (vec![create(&fresh), create(&fresh)], false),
        (vec![put_new(&fresh), create(&fresh)], false),
        (vec![create(&fresh), patch(&fresh, "\"1.9\"")], false),
        (vec![patch(&there, "\"1.1\""), patch(&there, "\"1.1\"")], false),
        (vec![delete(&there), put_new(&there), put_new(&there)], false),
        (vec![create(&there)], true),
        (vec![create(&fresh), create(&there)], true),
        (vec![put_new(&fresh), patch(&there, "\"1.9\"")], true),
    ];
    for (operations, committed) in cases {
        let last = operations.len() - 1;
        let ask = caller.ask(AP, Method::POST, &path).json(&json!({"operations": operations}));
        let refused = ask.send().await?.wants_problem(412, "version-conflict")?;
        let document = refused.json();
        ensure!(document["operation"] == last, "{operations:?}: {refused}");
        let current = committed.then(|| made.json());
        ensure!(document.get("current") == current.as_ref(), "{operations:?}: {refused}");
        let tag = committed.then_some("\"1.1\"");
        ensure!(refused.header("etag") == tag, "{operations:?}: {refused}");
    }
    // The first of two is refused when the item was there before both.
    let operations = json!({"operations": [create(&there), create(&there)]});
    let refused = caller.ask(AP, Method::POST, &path).json(&operations).send().await?;
    let document = refused.wants_problem(412, "version-conflict")?.json();
    ensure!(document["operation"] == 0 && document["current"] == made.json(), "{document}");
    Ok(())
}

/// Another id of the same form: UUIDs differ in their random end.
fn fresh_id(id: &str) -> String {
    let (head, last) = id.split_at(id.len() - 1);
    format!("{head}{}", if last == "0" { '1' } else { '0' })
}

pub async fn a_repeated_write_has_one_effect() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let mut caller = cluster.caller();
    let collection = "items-repeated";
    let path = format!("/v1/collections/{collection}/items");
    let asked = caller.get(AP, "/v1/writes/repeat-1").await?.wants(200)?;
    ensure!(asked.json()["status"] == "unknown", "{asked}");
    let mut answers: Vec<Answer> = Vec::new();
    // Each region is asked once; the answer is the first one's.
    for region in [AP, EU, US, AP] {
        let ask = caller.ask(region, Method::POST, &path).header("idempotency-key", "repeat-1");
        let answer = ask.json(&json!({"n": 1})).send().await?.wants(201)?;
        let replayed = answer.header("idempotency-replayed");
        ensure!(replayed == (!answers.is_empty()).then_some("true"), "{answer}");
        if let Some(first) = answers.first() {
            ensure!(first.body == answer.body && first.etag()? == answer.etag()?, "{answer}");
            ensure!(first.header("location") == answer.header("location"), "{answer}");
        }
        answers.push(answer);
    }
    // The key belongs to that request.
    for (path, body) in
        [(path.as_str(), json!({"n": 2})), ("/v1/collections/other/items", json!({"n": 1}))]
    {
        for region in [AP, US] {
            let ask = caller.ask(region, Method::POST, path).header("idempotency-key", "repeat-1");
            ask.json(&body).send().await?.wants_problem(422, "idempotency-mismatch")?;
        }
    }
    let listed = caller.get(AP, &path).await?.wants(200)?.json();
    ensure!(listed["items"].as_array().is_some_and(|items| items.len() == 1), "{listed}");
    for region in [AP, US] {
        let told = caller.get(region, "/v1/writes/repeat-1").await?.wants(200)?;
        let facts = told.json();
        ensure!(facts["status"] == "committed" && facts["response"]["status"] == 201, "{told}");
        ensure!(facts["response"]["body"] == answers[0].json(), "{told}");
        ensure!(facts["method"] == "POST" && facts["path"] == path.as_str(), "{told}");
    }
    // A refusal has no effect, so that its key is free for another try.
    let id = answers[0].id()?;
    for (etag, status) in [("\"1.9\"", 412), ("\"1.1\"", 200)] {
        let ask = caller.ask(AP, Method::PUT, &item(collection, &id));
        let ask = ask.header("if-match", etag).header("idempotency-key", "repeat-2");
        ask.json(&json!({"n": 3})).send().await?.wants(status)?;
    }
    // One that nobody chose is made at the edge, and can be asked for as well.
    let made = caller.create(AP, collection, &json!({})).await?.wants(201)?;
    let key = made.header("idempotency-key").context("no key was told")?.to_owned();
    let told = caller.get(AP, &format!("/v1/writes/{key}")).await?.wants(200)?;
    ensure!(told.json()["status"] == "committed", "{told}");
    Ok(())
}

pub async fn twins_at_the_same_time_have_one_effect() -> anyhow::Result<()> {
    let cluster = harness::shared().await?;
    let collection = "items-twins";
    let path = format!("/v1/collections/{collection}/items");
    for round in 0..10 {
        let key = format!("twins-{round}");
        let twins = [US, EU, AP, US, EU, AP].map(|region| {
            let (mut caller, key, path) = (cluster.caller(), &key, &path);
            async move {
                let ask = caller.ask(region, Method::POST, path).header("idempotency-key", key);
                ask.json(&json!({"round": round})).send().await
            }
        });
        let mut ids = Vec::new();
        let mut first = 0;
        for answer in join_all(twins).await {
            let answer = answer?;
            match answer.status {
                201 => {
                    first += usize::from(answer.header("idempotency-replayed").is_none());
                    ids.push(answer.id()?);
                }
                _ => drop(answer.wants_problem(409, "idempotency-in-flight")?),
            }
        }
        ids.dedup();
        ensure!(first == 1 && ids.len() == 1, "{first} first answers of {ids:?}");
    }
    let mut caller = cluster.caller();
    let ask = caller.ask(US, Method::GET, &path).header("godwit-consistency", "strong");
    let listed = ask.send().await?.wants(200)?.json();
    ensure!(listed["items"].as_array().is_some_and(|items| items.len() == 10), "{listed}");
    Ok(())
}
