//! The description of the API, for programs and for people.

use super::{
    headers,
    openapi::description,
    problem::{Kind, Problem},
};
use actix_web::{HttpRequest, HttpResponse, http::header};
use std::sync::{Arc, LazyLock};
use utoipa_swagger_ui::Config;

/// The pages bring all they need, run no script and no style but their own files, and talk to nobody
/// but this region.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

static PAGES: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from("/openapi.json");
    // No validator: it would send the description to another host.
    Arc::new(config.try_it_out_enabled(true).validator_url("none"))
});

/// `GET /openapi.json`
pub async fn openapi(request: HttpRequest) -> HttpResponse {
    let description = description();
    let known = headers::joined(request.headers(), &header::IF_NONE_MATCH);
    let known = known.and_then(|tags| String::from_utf8(tags.into_owned()).ok());
    let is_known = known.is_some_and(|tags| {
        let mut tags = tags.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
        tags.any(|tag| tag == "*" || tag == description.etag)
    });
    let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header((header::ETAG, description.etag.as_str()));
    response.insert_header((header::CACHE_CONTROL, "public, no-cache"));
    if is_known {
        return response.finish();
    }
    response.content_type("application/json").body(description.text.as_str())
}

/// `GET /docs`: the pages name their files relative to `/docs/`.
pub async fn entrance() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "/docs/")).finish()
}

/// `GET /docs/{file}`
///
/// # Errors
/// When there is no such file.
pub async fn page(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let served = utoipa_swagger_ui::serve(request.match_info().query("file"), Arc::clone(&PAGES));
    let file = served
        .map_err(|_| Problem::new(Kind::Internal, "The page cannot be made."))?
        .ok_or_else(Problem::not_found)?;
    let mut response = HttpResponse::Ok();
    if file.gzpipped {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    Ok(response
        .content_type(file.content_type)
        .insert_header((header::CACHE_CONTROL, "public, max-age=3600"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .body(file.bytes.into_owned()))
}
