//! Which path leads where, and what it asks for.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::Router;
use axum::handler::Handler;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;

use super::app::App;
use super::deadline::within_deadline;
use super::envelope::{CLIENT_GONE, envelope};
use super::keys::{Access, guard};
use super::origin::{cors, no_foreign_writes};
use super::problem::{Problem, Reason};
use super::{
    admin, documents, embed, feedback, generations, head, health, jobs, openai, openapi, outlook, page, search,
};

/// A route of the API.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) access: Access,
    handler: MethodRouter<App>,
}

impl Route {
    fn get<T: 'static>(path: &'static str, access: Access, handler: impl Handler<T, App>) -> Self {
        Self { method: Method::GET, path, access, handler: get(handler) }
    }

    fn post<T: 'static>(path: &'static str, access: Access, handler: impl Handler<T, App>) -> Self {
        Self { method: Method::POST, path, access, handler: post(handler) }
    }

    fn delete<T: 'static>(path: &'static str, access: Access, handler: impl Handler<T, App>) -> Self {
        Self { method: Method::DELETE, path, access, handler: delete(handler) }
    }
}

/// Every route of the API, and what it asks for; `/openapi.json` shows the same.
pub(super) fn routes() -> Vec<Route> {
    use Access::{Admin, Open, Search, Write};
    vec![
        Route::post("/search", Search, search::post),
        Route::get("/search", Search, search::get),
        Route::get("/search/examples", Search, search::examples),
        Route::post("/documents", Write, documents::write),
        Route::get("/documents", Search, documents::list),
        Route::post("/documents/delete", Write, documents::delete_many),
        Route::get("/documents/{id}", Search, documents::read),
        Route::delete("/documents/{id}", Write, documents::delete),
        Route::post("/feedback", Search, feedback::post),
        Route::post("/embed", Search, embed::post),
        Route::post("/v1/embeddings", Search, openai::embeddings),
        Route::get("/v1/models", Search, openai::models),
        Route::get("/admin/status", Admin, admin::status),
        Route::get("/admin/generations", Admin, generations::list),
        Route::post("/admin/generations/{number}/activate", Admin, generations::activate),
        Route::delete("/admin/generations/{number}", Admin, generations::remove),
        Route::get("/admin/refresh", Admin, outlook::read),
        Route::post("/admin/refresh", Admin, jobs::start),
        Route::get("/admin/jobs", Admin, jobs::list),
        Route::get("/admin/jobs/{id}", Admin, jobs::read),
        Route::delete("/admin/jobs/{id}", Admin, jobs::cancel),
        Route::get("/admin/jobs/{id}/events", Admin, jobs::events),
        Route::post("/admin/jobs/{id}/resume", Admin, jobs::resume),
        Route::get("/healthz", Open, health::live),
        Route::get("/readyz", Open, health::ready),
        Route::get("/metrics", Open, health::metrics),
        Route::get("/openapi.json", Open, openapi::document),
    ]
}

/// Those that answer a POST with 202.
const ACCEPTING: [&str; 2] = ["/admin/refresh", "/admin/jobs/{id}/resume"];

static PATHS: LazyLock<BTreeSet<&'static str>> = LazyLock::new(|| routes().iter().map(|route| route.path).collect());

/// A path of the API by its pattern.
pub(super) fn known_path(pattern: &str) -> Option<&'static str> {
    PATHS.get(pattern).copied()
}

/// The whole server as a service.
pub fn router(app: App) -> Router {
    declare_metrics(&app);
    let mut router = pages();
    for Route { path, access, handler, .. } in routes() {
        router = router.route(path, handler.route_layer(from_fn_with_state((app.clone(), access), guard)));
    }
    // A document may have the name of a route.
    let guarded = |access| from_fn_with_state((app.clone(), access), guard);
    let named_delete = get(documents::read)
        .route_layer(guarded(Access::Search))
        .merge(delete(documents::delete).route_layer(guarded(Access::Write)));
    surrounded(router.route("/documents/delete", named_delete), app)
}

/// Puts around routes what surrounds every request.
pub(super) fn surrounded(routes: Router<App>, app: App) -> Router {
    let routes = routes
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app.clone(), within_deadline))
        .layer(CatchPanicLayer::custom(after_panic))
        .layer(from_fn_with_state(app.clone(), head::check))
        .layer(from_fn_with_state(app.clone(), no_foreign_writes));
    let routes = match cors(app.origins()) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes.layer(from_fn_with_state(app.clone(), envelope)).with_state(app)
}

/// The web page and the page of the API.
fn pages() -> Router<App> {
    let mut router = Router::new()
        .route("/", get(page::index))
        .route("/training", get(page::training))
        .route("/docs", get(page::docs_redirect))
        .route("/docs/", get(page::docs))
        .route("/docs/{*file}", get(page::docs));
    for file in page::files() {
        router = router.route(&format!("/{file}"), get(page::file));
    }
    router.route_layer(CompressionLayer::new())
}

/// Shows every route with every status in the metrics before its first request.
fn declare_metrics(app: &App) {
    let metrics = app.metrics();
    let refusals = Reason::statuses();
    for Route { method, path, .. } in routes() {
        let done = if ACCEPTING.contains(&path) && method == Method::POST { "202" } else { "200" };
        // A method that a route does not take is counted under that method.
        let refused = refusals.iter().filter(|status| **status != StatusCode::METHOD_NOT_ALLOWED);
        for status in [done, CLIENT_GONE].into_iter().chain(refused.map(StatusCode::as_str)) {
            metrics.http_requests.with_label_values(&[path, method.as_str(), status]);
        }
        metrics.http_request_duration.with_label_values(&[path]);
    }
    for route in ["static", "other"] {
        metrics.http_request_duration.with_label_values(&[route]);
    }
    metrics.http_requests.with_label_values(&["static", "GET", "200"]);
    metrics.http_requests.with_label_values(&["other", "GET", "404"]);
}

async fn unknown_route(method: Method, uri: Uri) -> Problem {
    Problem::new(
        Reason::UnknownRoute,
        format!("there is no {method} {}; GET /openapi.json lists what there is", uri.path()),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::new(
        Reason::MethodNotAllowed,
        format!("{} does not take {method}; the header Allow lists what it takes", uri.path()),
    )
}

fn after_panic(payload: Box<dyn Any + Send>) -> Response {
    let said = payload.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without a message");
    Problem::internal(format_args!("panic: {said}")).into_response()
}
