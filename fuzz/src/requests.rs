//! A request to the whole server over a small corpus: never an internal error, and what is refused is told as a problem.
//!
//! The first line is the method and the target, the second the body's type, the rest is the body.

use std::sync::Arc;

use anced::generation::{Lock, Machine, Retriever};
use anced::http::{App, router};
use anced::settings::Settings;
use anced::telemetry::Metrics;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use super::{Shared, data_folder, document, headed, scratch, settings};

/// Requests after which the data folder is made anew: they write to it.
const REQUESTS: u32 = 5000;

struct World {
    runtime: Runtime,
    router: Router,
    _lock: Lock,
    _folder: TempDir,
}

thread_local! {
    static WORLD: Shared<World> = const { Shared::new() };
}

pub fn run(input: &[u8]) {
    let Some((request, rest)) = headed(input) else { return };
    let Some((kind, body)) = headed(rest) else { return };
    let Some((method, target)) = request.split_once(' ') else { return };
    let built = Request::builder().method(method).uri(target).header("host", "localhost").header("content-type", kind);
    let Ok(request) = built.body(Body::from(body.to_vec())) else { return };
    WORLD.with(|shared| shared.with(REQUESTS, World::new, |world| world.ask(request)));
}

impl World {
    fn new() -> Self {
        let folder = scratch();
        let settings = Settings { data: folder.path().into(), ..settings() };
        let metrics = Arc::new(Metrics::new().unwrap());
        let machine = Machine::new(&settings, Arc::clone(&metrics)).unwrap();
        let numbered = |number: u64| {
            document(number, &format!("text number {number}"), json!({"lang": "en", "year": 2000 + number}))
        };
        let (data, lock) = data_folder(folder.path(), &machine, &(0..20).map(numbered).collect::<Vec<_>>());
        let retriever = Retriever::new(data, &machine);
        retriever.start(&machine, &mut |_| {}).unwrap();
        let app = App::new(Arc::new(settings), metrics);
        app.attach(Arc::new(retriever));
        let runtime = Runtime::new().unwrap();
        let router = runtime.block_on(async { router(app) });
        Self { runtime, router, _lock: lock, _folder: folder }
    }

    fn ask(&self, request: Request<Body>) {
        let target = request.uri().clone();
        let (status, kind, body) = self.runtime.block_on(async {
            let answer = self.router.clone().oneshot(request).await.unwrap();
            let (head, body) = answer.into_parts();
            let kind = head.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            (head.status, kind.to_owned(), to_bytes(body, usize::MAX).await.unwrap())
        });
        assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{target}: {}", String::from_utf8_lossy(&body));
        if kind.ends_with("json") {
            let body: Value = serde_json::from_slice(&body).unwrap();
            if status.is_client_error() && kind == "application/problem+json" {
                assert_eq!(body["status"], status.as_u16(), "{target}: {body}");
                assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{target}: {body}");
            }
        } else {
            let told = !status.is_client_error() || status == StatusCode::METHOD_NOT_ALLOWED;
            assert!(told, "{target}: {status} as {kind}");
        }
    }
}
