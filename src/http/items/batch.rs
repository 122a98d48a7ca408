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

/// An operation without its `data`, which must not pass through a tagged enum: serde buffers there,
/// and a buffered number is no longer every digit of itself.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Raw {
    Create {
        #[serde(default)]
        id: Option<ItemId>,
    },
    Put {
        id: ItemId,
        #[serde(default)]
        if_match: Option<String>,
        #[serde(default)]
        if_none_match: Option<String>,
    },
    Patch {
        id: ItemId,
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

fn operation(index: usize, mut raw: Value, op: &Op) -> Result<Operation, Problem> {
    let at = |problem: Problem| problem.member("operation", index.into());
    let invalid =
        |why: String| at(Problem::new(Kind::Validation, format!("operations[{index}]: {why}.")));
    let given = raw.as_object_mut().and_then(|members| members.remove("data"));
    let needed = || given.as_ref().ok_or_else(|| invalid("missing field `data`".to_owned()));
    let data = || {
        ItemData::from_value(needed()?).map_err(|error: DataError| {
            Problem::from(Refused::Operation { index, refused: Box::new(Refused::Data(error)) })
        })
    };
    let raw: Raw = serde_json::from_value(raw).map_err(|error| invalid(error.to_string()))?;
    let matches = |text: &str| Match::parse(text, false).map_err(|malformed| at(malformed.into()));
    Ok(match raw {
        Raw::Create { id } => {
            Operation::Create { id: id.unwrap_or_else(|| ItemId::mint(op)), data: data()? }
        }
        Raw::Put { id, if_match, if_none_match } => {
            let precondition = match (if_match, if_none_match.as_deref()) {
                (Some(text), None) => Precondition::Matches(matches(&text)?),
                (None, Some("*")) => Precondition::Absent,
                _ => {
                    let detail = "A put has if_match, or if_none_match \"*\".";
                    return Err(at(Problem::new(Kind::PreconditionRequired, detail)));
                }
            };
            Operation::Put { id, precondition, data: data()? }
        }
        Raw::Patch { id, if_match } => {
            let patch = needed()?.clone();
            if !patch.is_object() {
                return Err(at(DataError::NotAnObject.into()));
            }
            Operation::Patch { id, matches: matches(&if_match)?, patch }
        }
        Raw::Delete { .. } if given.is_some() => {
            return Err(invalid("a delete has no `data`".to_owned()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::OpKind;
    use std::time::Duration;

    const ID: &str = "0199d2c4-7a00-7000-8000-00000000b0b0";

    fn parsed(operation: &str) -> Result<Operation, Problem> {
        let op = Op::system(OpKind::Test, Duration::from_secs(1));
        let body = format!("{{\"operations\":[{operation}]}}");
        parse(body.as_bytes(), &op).map(|mut operations| operations.remove(0))
    }

    #[test]
    fn numbers_keep_every_digit() {
        let data =
            r#"{"n":[12345678901234567890123456789.000100,-257692514146151917097446092570624]}"#;
        let of = |rest: &str| parsed(&format!(r#"{{"data":{data},{rest}}}"#)).unwrap();
        let Operation::Create { data: created, .. } = of(r#""op":"create""#) else { panic!() };
        assert_eq!(created.as_str(), data);
        let put = format!(r#""op":"put","id":"{ID}","if_none_match":"*""#);
        let Operation::Put { data: put, .. } = of(&put) else { panic!() };
        assert_eq!(put.as_str(), data);
        let patch = format!(r#""op":"patch","id":"{ID}","if_match":"*""#);
        let Operation::Patch { patch, .. } = of(&patch) else { panic!() };
        assert_eq!(patch.to_string(), data);
    }

    #[test]
    fn an_operation_has_its_members_and_no_other() {
        for operation in [
            r#"{"op":"create"}"#.to_owned(),
            r#"{"op":"create","data":[]}"#.to_owned(),
            r#"{"op":"create","data":{},"if_match":"*"}"#.to_owned(),
            r#"{"op":"upsert","data":{}}"#.to_owned(),
            "[]".to_owned(),
            format!(r#"{{"op":"delete","id":"{ID}","if_match":"*","data":{{}}}}"#),
            format!(r#"{{"op":"delete","id":"{ID}"}}"#),
            format!(r#"{{"op":"patch","id":"{ID}","if_match":"*"}}"#),
        ] {
            let refused = parsed(&operation).unwrap_err();
            assert_eq!(refused.kind(), Kind::Validation, "{operation}");
        }
        let put = format!(r#"{{"op":"put","id":"{ID}","data":{{}}}}"#);
        assert_eq!(parsed(&put).unwrap_err().kind(), Kind::PreconditionRequired);
    }
}
