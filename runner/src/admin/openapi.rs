//! The routes, and the `OpenAPI` document that is made of them.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use utoipa::OpenApi;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::Ref;
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
    let (router, mut document) = described().split_for_parts();
    add_refusals(&mut document);
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

/// What any request may be answered, whatever its route.
fn add_refusals(document: &mut utoipa::openapi::OpenApi) {
    const ALWAYS: [(&str, &str); 5] = [
        ("400", "The request makes no sense"),
        ("401", "The token is missing, or another"),
        ("403", "It comes from somebody else's page, or is for somebody else's name"),
        ("500", "The runner or its queue failed"),
        ("503", "The runner or its queue is away: try again"),
    ];
    const WITH_BODY: [(&str, &str); 3] = [
        ("408", "The body comes too slowly"),
        ("413", "The body is too large"),
        ("415", "The `Content-Type` is none that is taken here"),
    ];
    let of_health = |path: &str| matches!(path, "/healthz" | "/readyz");
    for (_, item) in document.paths.paths.iter_mut().filter(|(path, _)| !of_health(path)) {
        let operations = [&mut item.get, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let with_body = if operation.request_body.is_some() { &WITH_BODY[..] } else { &[] };
            for (status, description) in ALWAYS.iter().chain(with_body) {
                let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
                let refusal = ResponseBuilder::new().description(*description).content("application/json", content);
                operation.responses.responses.entry((*status).to_owned()).or_insert_with(|| refusal.build().into());
            }
        }
    }
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
