//! Reading a request's body: whole, bounded in bytes and time.

use super::{
    app::App,
    problem::{Kind, Problem},
    request::RequestState,
};
use actix_web::{
    HttpMessage as _,
    dev::ServiceRequest,
    error::PayloadError,
    http::header::CONTENT_LENGTH,
    web::{Bytes, BytesMut},
};
use futures_util::StreamExt as _;
use std::time::Duration;

/// # Errors
/// When it is too long, too slow, or breaks off.
pub async fn read(
    app: &App,
    state: &RequestState,
    request: &mut ServiceRequest,
) -> Result<Bytes, Problem> {
    let bytes_max = app.config.server.body_bytes_max;
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if declared.and_then(|text| text.parse::<usize>().ok()).is_some_and(|n| n > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let patience = Duration::from_millis(app.config.server.receive_ms_max);
    let collected = tokio::time::timeout(patience, collect(request, bytes_max)).await;
    let body = collected.map_err(|_| {
        let detail = "The body did not arrive in time.";
        Problem::new(Kind::RequestTimeout, detail).header("connection", "close")
    })??;
    state.facts.borrow_mut().request_bytes = body.len() as u64;
    Ok(body)
}

async fn collect(request: &mut ServiceRequest, bytes_max: usize) -> Result<Bytes, Problem> {
    let mut payload = request.take_payload();
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| match error {
            PayloadError::Overflow => too_large(bytes_max),
            error => Problem::new(Kind::Malformed, "The body broke off.").caused_by(error),
        })?;
        if body.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Kind::TooLarge, format!("A body may have up to {bytes_max} bytes."))
}
