//! Requests against a server that has no generation yet: all that is refused before a search begins.

mod api;
mod health;
mod hosts;
mod keys;
mod limits;
mod origins;
mod page;
mod refusals;
mod served;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::{App, router};
use crate::settings::Settings;
use crate::telemetry::Metrics;

pub(super) fn app(settings: Settings) -> App {
    App::new(Arc::new(settings), Arc::new(Metrics::new().unwrap()))
}

fn server(settings: Settings) -> Router {
    router(app(settings))
}

/// An answer, read to its end.
struct Seen {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap_or_default().to_owned()
    }
}

async fn ask(server: &Router, mut request: Request<Body>) -> Seen {
    request.headers_mut().entry("host").or_insert_with(|| "localhost".parse().unwrap());
    let response = server.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Seen { status: head.status, headers: head.headers, bytes }
}

async fn get(server: &Router, path: &str) -> Seen {
    ask(server, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post(server: &Router, path: &str, body: impl Into<Body>) -> Seen {
    send(server, path, "application/json", body).await
}

async fn send(server: &Router, path: &str, kind: &str, body: impl Into<Body>) -> Seen {
    ask(server, Request::post(path).header("content-type", kind).body(body.into()).unwrap()).await
}
