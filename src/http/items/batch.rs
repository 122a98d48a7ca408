//! `POST /v1/collections/{collection}/items:batch`

use super::{collection, one::json_type};
use crate::{
    domain::{
        Answer, ItemData, Refused,
        items::{
            batch::{self, Done, OPERATIONS_MAX, Operation},
            data::DataError,
            precondition::{Match, Precondition},
        },
    },
    http::{
        caller::Caller,
        problem::{Kind, Problem},
    },
    vocab::{ItemId, Op},
};
use actix_web::{HttpRequest, HttpResponse, web::Bytes};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    operations: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Raw {
    Create {
        #[serde(default)]
        id: Option<ItemId>,
        data: Value,
    },
    Put {
        id: ItemId,
        data: Value,
        #[serde(default)]
        if_match: Option<String>,
        #[serde(default)]
        if_none_match: Option<String>,
    },
    Patch {
        id: ItemId,
        data: Value,
        if_match: String,
    },
    Delete {
        id: ItemId,
        if_match: String,
    },
}

#[derive(Serialize)]
struct Outcome {
    status: u16,
    id: ItemId,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
}

/// All or none of up to 500 operations.
///
/// # Errors
/// A problem; with `operation`, the index of the first operation that was refused.
pub async fn run(
    caller: Caller,
    request: HttpRequest,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    let collection = collection(&request, true)?;
    json_type(&request, &["application/json"])?;
    let operations = parse(&body, caller.op())?;
    caller
        .write(
            async |tx| batch::run(tx, caller.scope(), &collection, &operations, caller.op()).await,
            |done| render(done),
        )
        .await
}

fn parse(body: &[u8], op: &Op) -> Result<Vec<Operation>, Problem> {
    let value = crate::domain::items::data::parse_value(body)?;
    let body: Body = serde_json::from_value(value).map_err(|error| {
        Problem::new(Kind::Validation, format!("The body is {{\"operations\": [...]}}: {error}."))
    })?;
    if body.operations.is_empty() || body.operations.len() > OPERATIONS_MAX {
        let detail = format!("operations has 1 to {OPERATIONS_MAX} entries.");
        return Err(Problem::new(Kind::Validation, detail));
    }
    let operations = body.operations.into_iter().enumerate();
    operations.map(|(index, raw)| operation(index, raw, op)).collect()
}

fn operation(index: usize, raw: Value, op: &Op) -> Result<Operation, Problem> {
    let at = |problem: Problem| problem.member("operation", index.into());
    let data = |value: &Value| {
        ItemData::from_value(value).map_err(|error: DataError| {
            Problem::from(Refused::Operation { index, refused: Box::new(Refused::Data(error)) })
        })
    };
    let raw: Raw = serde_json::from_value(raw).map_err(|error| {
        at(Problem::new(Kind::Validation, format!("operations[{index}]: {error}.")))
    })?;
    let matches = |text: &str| Match::parse(text, false).map_err(|malformed| at(malformed.into()));
    Ok(match raw {
        Raw::Create { id, data: value } => {
            Operation::Create { id: id.unwrap_or_else(|| ItemId::mint(op)), data: data(&value)? }
        }
        Raw::Put { id, data: value, if_match, if_none_match } => {
            let precondition = match (if_match, if_none_match.as_deref()) {
                (Some(text), None) => Precondition::Matches(matches(&text)?),
                (None, Some("*")) => Precondition::Absent,
                _ => {
                    let detail = "A put has if_match, or if_none_match \"*\".";
                    return Err(at(Problem::new(Kind::PreconditionRequired, detail)));
                }
            };
            Operation::Put { id, precondition, data: data(&value)? }
        }
        Raw::Patch { id, data: patch, if_match } => {
            if !patch.is_object() {
                return Err(at(DataError::NotAnObject.into()));
            }
            Operation::Patch { id, matches: matches(&if_match)?, patch }
        }
        Raw::Delete { id, if_match } => Operation::Delete { id, matches: matches(&if_match)? },
    })
}

fn render(done: &[Done]) -> Answer {
    #[derive(Serialize)]
    struct Results {
        results: Vec<Outcome>,
    }
    let results = done.iter().map(|done| match done {
        Done::Created(item) | Done::Changed(item) => Outcome {
            status: if matches!(done, Done::Created(_)) { 201 } else { 200 },
            id: item.id,
            version: Some(item.version),
            etag: Some(item.etag().to_string()),
        },
        Done::Deleted(item) => Outcome { status: 204, id: item.id, version: None, etag: None },
    });
    let body = serde_json::to_string(&Results { results: results.collect() }).ok();
    Answer { status: 200, etag: None, location: None, body, version: None }
}
