//! `/openapi.json`: the API as a document, completed from the table of routes.

use std::sync::LazyLock;

use axum::http::{HeaderMap, Method};
use axum::response::Response;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Content, OpenApi as Document, Ref, RefOr, Response as Answered};
use utoipa::{OpenApi, ToSchema};

use super::host::BY_ANY_NAME;
use super::keys::Access;
use super::page::content;
use super::router::{Route, routes};
use super::{admin, documents, embed, feedback, generations, health, jobs, openai, outlook, search};

/// Why a request was refused, as RFC 9457 has it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProblemDetails {
    /// What kind of problem, for programs.
    #[schema(example = "urn:anced:problem:invalid-field")]
    r#type: String,
    /// What kind of problem, for people.
    #[schema(example = "A field breaks a rule")]
    title: String,
    #[schema(example = 422)]
    status: u16,
    /// What is wrong and what to do.
    #[schema(example = "k: 0; ask for at least one hit")]
    detail: String,
    /// The id that the log and the header `x-request-id` have.
    request_id: String,
    /// The field at fault.
    field: Option<String>,
}

/// Why a request was refused, as OpenAI's clients expect it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OpenAiError {
    error: OpenAiErrorBody,
}

/// The inside of an OpenAI error.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OpenAiErrorBody {
    message: String,
    /// `invalid_request_error`, `authentication_error` or `server_error`.
    r#type: String,
    /// The field at fault.
    param: Option<String>,
    code: String,
    request_id: String,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "anced",
        description = "Online dense-retrieval search. Every refusal is a problem document (RFC 9457), under `/v1` an error \
                       of OpenAI's shape; both carry the request's id, as the header `x-request-id` does."
    ),
    servers((url = "/")),
    paths(
        search::post,
        search::get,
        search::examples,
        documents::write,
        documents::list,
        documents::delete_many,
        documents::read,
        documents::delete,
        feedback::post,
        embed::post,
        openai::embeddings,
        openai::models,
        admin::status,
        generations::list,
        generations::activate,
        generations::remove,
        outlook::read,
        jobs::start,
        jobs::list,
        jobs::read,
        jobs::cancel,
        jobs::events,
        jobs::resume,
        health::live,
        health::ready,
        health::metrics,
        document,
    ),
    components(schemas(ProblemDetails, OpenAiError, OpenAiErrorBody)),
    tags(
        (name = "search", description = "Find documents"),
        (name = "documents", description = "Write, read and delete documents"),
        (name = "embeddings", description = "Encode texts"),
        (name = "admin", description = "Look after the server"),
        (name = "server", description = "Health, metrics, this document")
    )
)]
struct Api;

static JSON: LazyLock<(Vec<u8>, [u8; 32])> = LazyLock::new(|| {
    let json = serde_json::to_vec(&complete()).unwrap_or_default();
    let digest = Sha256::digest(&json).into();
    (json, digest)
});

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "server",
    responses((status = 200, description = "OpenAPI", body = Object, content_type = "application/json"))
)]
pub(super) async fn document(headers: HeaderMap) -> Response {
    let (json, digest) = &*JSON;
    content(&headers, json.as_slice().into(), "application/json", digest, "default-src 'none'")
}

/// The document with the keys and the refusals that the table of routes implies.
pub(super) fn complete() -> Document {
    let mut document = Api::openapi();
    let components = document.components.get_or_insert_with(Components::new);
    for (name, description) in [
        (
            "search_key",
            "ANCED_SEARCH_KEY; where none is set, searches are open. The write and admin keys are taken too.",
        ),
        ("write_key", "ANCED_WRITE_KEY; where none is set, writes are open. The admin key is taken too."),
        ("admin_key", "ANCED_ADMIN_KEY; where none is set, /admin is open."),
    ] {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        components.add_security_scheme(name, SecurityScheme::Http(bearer));
    }
    for route in routes() {
        let item = document.paths.paths.get_mut(route.path);
        if let Some(operation) = item.and_then(|item| operation_of(item, &route)) {
            complete_operation(operation, &route);
        }
    }
    document
}

/// Method and path as a name, as `get_documents_id`: handlers of different resources share their names.
fn operation_id(route: &Route) -> String {
    let words = route.path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(route.method.as_str().to_ascii_lowercase(), |id, word| id + "_" + word)
}

fn operation_of<'a>(item: &'a mut PathItem, route: &Route) -> Option<&'a mut Operation> {
    match route.method {
        Method::GET => item.get.as_mut(),
        Method::POST => item.post.as_mut(),
        Method::DELETE => item.delete.as_mut(),
        _ => None,
    }
}

fn complete_operation(operation: &mut Operation, route: &Route) {
    operation.operation_id = Some(operation_id(route));
    let key = match route.access {
        Access::Open => None,
        Access::Search => Some("search_key"),
        Access::Write => Some("write_key"),
        Access::Admin => Some("admin_key"),
    };
    let mut refusals = Vec::new();
    if let Some(key) = key {
        let nothing: [&str; 0] = [];
        // The first is the key to ask for, the others are taken too; the empty one is for where no key is set.
        let accepted = ["search_key", "write_key", "admin_key"].into_iter().skip_while(|name| *name != key);
        let accepted = accepted.map(|name| SecurityRequirement::new(name, nothing));
        operation.security = Some(accepted.chain([SecurityRequirement::default()]).collect());
        refusals
            .extend([("401", "A key is needed"), ("503", "Not ready, stopping, or too much waits; see Retry-After")]);
    }
    if operation.parameters.is_some() {
        refusals.extend([("400", "A parameter cannot be read"), ("414", "The target is too long")]);
    }
    if operation.request_body.is_some() {
        refusals.extend([
            ("400", "The body is not JSON"),
            ("408", "The body came too slowly"),
            ("413", "The body is too large"),
            ("415", "Not in this format"),
        ]);
    }
    if operation.request_body.is_some() || operation.parameters.is_some() {
        refusals.push(("422", "A field is unknown or breaks a rule"));
    }
    if route.method != Method::GET {
        refusals.push(("403", "A page of another origin asked"));
    }
    if !BY_ANY_NAME.contains(&route.path) {
        refusals.push(("421", "Asked by a name that is not in allowed_hosts, where a key is missing"));
    }
    if route.path == "/readyz" {
        refusals.push(("503", "They are not"));
    }
    if route.access == Access::Write {
        refusals.push(("507", "No room to write"));
    }
    refusals.push(("500", "The server failed"));
    let (kind, schema) = match route.path.starts_with("/v1/") {
        true => ("application/json", "OpenAiError"),
        false => ("application/problem+json", "ProblemDetails"),
    };
    for (status, description) in refusals {
        let mut answered = Answered::new(description);
        answered.content.insert(kind.into(), RefOr::T(Content::new(Some(Ref::from_schema_name(schema)))));
        operation.responses.responses.entry(status.into()).or_insert_with(|| answered.into());
    }
}
