//! What every handler shares.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::http::HeaderValue;

use super::admission::Doors;
use super::host::Names;
use super::keys::Keys;
use super::origin;
use super::problem::Problem;
use crate::generation::Retriever;
use crate::refresh::Refresh;
use crate::settings::Settings;
use crate::telemetry::{Metrics, Traces};

/// The state of one server, cheap to clone.
///
/// It can be served before its retriever is there: until [`App::attach`], `/healthz` and `/metrics` answer and
/// everything that needs a generation is refused with 503.
#[derive(Debug, Clone)]
pub struct App(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    retriever: OnceLock<Arc<Retriever>>,
    refresh: OnceLock<Refresh>,
    traces: OnceLock<Traces>,
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    keys: Keys,
    origins: Vec<HeaderValue>,
    names: Names,
    doors: Doors,
    stopping: AtomicBool,
    started: Instant,
}

impl App {
    /// A server's state without a retriever.
    pub fn new(settings: Arc<Settings>, metrics: Arc<Metrics>) -> Self {
        let keys = Keys::new(&settings);
        // `check_listen` refuses what is wrong with them before a server starts.
        let origins = origin::allowed(settings.cors_origins.as_deref()).unwrap_or_default();
        let names = Names::new(&settings).unwrap_or_default();
        let doors = Doors::new(&settings);
        Self(Arc::new(Shared {
            retriever: OnceLock::new(),
            refresh: OnceLock::new(),
            traces: OnceLock::new(),
            settings,
            metrics,
            keys,
            origins,
            names,
            doors,
            stopping: AtomicBool::new(false),
            started: Instant::now(),
        }))
    }

    /// Gives the server what it searches; a second call changes nothing and returns false.
    pub fn attach(&self, retriever: Arc<Retriever>) -> bool {
        self.0.retriever.set(retriever).is_ok()
    }

    /// Gives the server what trains; a second call changes nothing and returns false.
    pub fn attach_refresh(&self, refresh: Refresh) -> bool {
        self.0.refresh.set(refresh).is_ok()
    }

    /// Gives the server a collector to send traces to; a second call changes nothing and returns false.
    pub fn trace_to(&self, traces: Traces) -> bool {
        self.0.traces.set(traces).is_ok()
    }

    /// Sends the traces that are left. Blocking.
    pub fn close_traces(&self) {
        if let Some(traces) = self.traces() {
            traces.close();
        }
    }

    pub(super) fn traces(&self) -> Option<&Traces> {
        self.0.traces.get()
    }

    /// Runs a call on jobs, which blocks, where it does not hold up other requests.
    pub(super) async fn refreshing<T, F>(&self, call: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&Refresh) -> Result<T, crate::refresh::Error> + Send + 'static,
    {
        let refresh = self.0.refresh.get().cloned();
        let refresh = refresh.ok_or_else(|| Problem::from(crate::generation::Error::NotReady))?;
        match tokio::task::spawn_blocking(move || call(&refresh)).await {
            Ok(result) => result.map_err(Into::into),
            Err(error) => Err(Problem::internal(error)),
        }
    }

    /// The jobs, where the server is that far.
    pub fn refresh(&self) -> Option<Refresh> {
        self.0.refresh.get().cloned()
    }

    /// Refuses new requests from now on; [`super::serve`] calls it when it is told to stop.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    pub(super) fn stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Whose pages may ask.
    pub(super) fn origins(&self) -> &[HeaderValue] {
        &self.0.origins
    }

    /// By which names it may be asked.
    pub(super) fn names(&self) -> &Names {
        &self.0.names
    }

    pub(super) fn doors(&self) -> &Doors {
        &self.0.doors
    }

    pub(super) fn uptime_seconds(&self) -> u64 {
        self.0.started.elapsed().as_secs()
    }

    /// The retriever, or the problem that says why there is none.
    pub(super) fn retriever(&self) -> Result<&Arc<Retriever>, Problem> {
        self.0.retriever.get().ok_or_else(|| crate::generation::Error::NotReady.into())
    }

    /// Brings the gauges up to date that are read, not counted: of the disk from the start on, an import may fill it.
    /// Blocking.
    pub(super) fn observe(&self) {
        let metrics = self.metrics();
        if let Ok((free, size)) = crate::system::disk_bytes(&self.settings().data) {
            metrics.disk_free.set(i64::try_from(free).unwrap_or(i64::MAX));
            metrics.disk_size.set(i64::try_from(size).unwrap_or(i64::MAX));
        }
        if let Ok(retriever) = self.retriever() {
            retriever.observe();
        }
    }

    /// Whether searches are answered.
    pub(super) fn ready(&self) -> bool {
        !self.stopping() && self.retriever().is_ok_and(|retriever| retriever.ready())
    }

    /// Runs a call that blocks (the store, files) where it does not hold up other requests.
    pub(super) async fn blocking<T, E, F>(&self, call: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        E: Into<Problem> + Send + 'static,
        F: FnOnce(&Retriever) -> Result<T, E> + Send + 'static,
    {
        let retriever = self.retriever()?.clone();
        match tokio::task::spawn_blocking(move || call(&retriever)).await {
            Ok(result) => result.map_err(Into::into),
            Err(error) => Err(Problem::internal(error)),
        }
    }
}
