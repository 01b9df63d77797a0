//! The routes, and the `OpenAPI` document that is made of them.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ApiError;
use super::{Runner, activity, dead, enqueue, events, follow_ups, handlers, health, jobs, metrics, page, stats, wait};

/// What the document says beside the routes.
#[derive(OpenApi)]
#[openapi(
    info(title = "Sandhog", description = "The HTTP API of a runner. `docs/admin-api.md` tells of it in words.", license(name = "Apache-2.0")),
    modifiers(&Bearer),
    security(("token" = [])),
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// All routes, to a runner.
pub(super) fn routes(runner: Arc<Runner>) -> Router {
    let (router, document) = described().split_for_parts();
    let document = document.to_pretty_json().expect("the document is strings");
    router
        .route(
            "/v1/openapi.json",
            axum::routing::get(async move || {
                ([(axum::http::header::CONTENT_TYPE, "application/json")], document.clone())
            }),
        )
        // The page and the metrics have no part in the document.
        .merge(page::routes())
        .route("/metrics", axum::routing::get(metrics::metrics))
        .fallback(async || ApiError::new(StatusCode::NOT_FOUND, "no-such-route", "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method-refused", "this path does not take this method")
        })
        .with_state(runner)
}

/// The routes that are described.
fn described() -> OpenApiRouter<Arc<Runner>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(jobs::list, enqueue::enqueue))
        .routes(routes!(jobs::show, jobs::cancel))
        .routes(routes!(wait::wait))
        .routes(routes!(follow_ups::follow_ups))
        .routes(routes!(dead::list))
        .routes(routes!(dead::groups))
        .routes(routes!(dead::requeue_all))
        .routes(routes!(dead::delete_all))
        .routes(routes!(dead::show, dead::delete))
        .routes(routes!(dead::requeue))
        .routes(routes!(handlers::list))
        .routes(routes!(handlers::pause))
        .routes(routes!(handlers::resume))
        .routes(routes!(handlers::rollback))
        .routes(routes!(handlers::pin))
        .routes(routes!(handlers::unpin))
        .routes(routes!(stats::stats))
        .routes(routes!(activity::activity))
        .routes(routes!(stats::drain))
        .routes(routes!(events::stream))
}
