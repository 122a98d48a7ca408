//! The description of the API, for programs and for people.

use actix_web::HttpResponse;
use utoipa_swagger_ui::SwaggerUi;

/// `GET /openapi.json`
pub async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(super::openapi::json())
}

/// `/docs`
pub fn pages() -> SwaggerUi {
    SwaggerUi::new("/docs/{_:.*}").config(utoipa_swagger_ui::Config::from("/openapi.json"))
}
