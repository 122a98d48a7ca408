//! Carries out the plan of [`super::work`] against the API.

use super::{
    rows::Row,
    work::{Answer, Existing, Next, Tally, Work},
};
use crate::{
    cli::client::{ApiClient, ApiError, Call, Verb},
    vocab::{Collection, ItemId, Op},
};
use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::Value;

/// Look-ups of one batch under way at once.
const LOOK_UPS: usize = 16;

/// Loads batches into one collection.
pub(super) struct Loader {
    pub(super) api: ApiClient,
    pub(super) collection: Collection,
    pub(super) replace: bool,
    pub(super) op: Op,
}

/// The part of an item that matters here.
#[derive(Deserialize)]
struct Item {
    data: Value,
}

impl Loader {
    /// # Errors
    /// When the API is away for too long or will not take anything from us.
    pub(super) async fn load(&self, rows: Vec<Row>) -> anyhow::Result<Tally> {
        let mut tally = Tally::default();
        let mut parts = vec![Work::new(rows, self.replace, self.op.id.to_string())];
        while let Some(mut part) = parts.pop() {
            let mut next = Next::Send;
            loop {
                next = match next {
                    Next::Send => {
                        let answer = self.send(&part).await?;
                        part.answered(answer, &mut tally)
                    }
                    Next::LookUp => {
                        let found = self.look_up(part.ids()).await?;
                        part.looked_up(found, &mut tally)
                    }
                    Next::Split(other) => {
                        parts.push(other);
                        Next::Send
                    }
                    Next::Done => break,
                };
            }
        }
        Ok(tally)
    }

    async fn send(&self, work: &Work) -> anyhow::Result<Answer> {
        let body = work.body();
        let key = work.key(&self.collection, &body);
        let path = format!("/v1/collections/{}/items:batch", self.collection);
        let call = Call { method: Verb::Post, path: &path, body: Some(&body), key: Some(&key) };
        let problem = match self.api.send(call, &self.op).await {
            Ok(answer) if answer.replayed => {
                return Ok(Answer::Replayed { retried: answer.retried });
            }
            Ok(_) => return Ok(Answer::Done),
            Err(ApiError::Problem(problem)) => problem,
            Err(error) => return Err(error.into()),
        };
        match (problem.kind(), problem.operation) {
            // Not found: deleted between a look-up and its replacement.
            ("version-conflict", _) | ("not-found", Some(_)) => Ok(Answer::Conflict),
            ("too-large", None) => Ok(Answer::TooLarge),
            (_, Some(index)) => Ok(Answer::Refused { index, detail: problem.to_string() }),
            _ => Err(ApiError::Problem(problem).into()),
        }
    }

    async fn look_up(&self, ids: Vec<ItemId>) -> anyhow::Result<Vec<Existing>> {
        let look_ups = stream::iter(ids).map(|id| self.look_up_one(id));
        look_ups.buffered(LOOK_UPS).try_collect().await
    }

    async fn look_up_one(&self, id: ItemId) -> anyhow::Result<Existing> {
        let path = format!("/v1/collections/{}/items/{id}", self.collection);
        let call = Call { method: Verb::Get, path: &path, body: None, key: None };
        match self.api.send(call, &self.op).await {
            Ok(answer) => {
                let item: Item = serde_json::from_slice(&answer.body).with_context(|| {
                    format!("{} answered something else than an item", self.api.base())
                })?;
                let etag = answer.etag.context("an item came without its ETag")?;
                Ok(Existing::Present { etag, data: item.data })
            }
            Err(ApiError::Problem(problem)) if problem.kind() == "not-found" => {
                Ok(Existing::Absent)
            }
            Err(error) => Err(error.into()),
        }
    }
}
