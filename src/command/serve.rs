//! `anced serve`: the server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::import::import;
use super::index::build_and_publish;
use super::progress::{Progress, Unit};
use super::{Engine, Usage};
use crate::corpus::ImportOptions;
use crate::generation::{DataFolder, Machine, Retriever, Standing};
use crate::http::{self, App};
use crate::refresh::{Limits, Refresh};
use crate::settings::{ServerArgs, Settings};
use crate::telemetry::{Metrics, Traces};

/// Serve searches, writes and the web page over HTTP.
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    engine: Engine,
    #[command(flatten)]
    server: ServerArgs,
    /// A folder or file that is imported where the data folder is empty.
    #[arg(long, value_name = "PATH")]
    sample: Option<PathBuf>,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<()> {
        crate::system::keep_large_blocks_apart();
        let settings = Arc::new(self.engine.settings(&[&self.server])?);
        http::check_listen(&settings)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no asynchronous runtime")?;
        let result = runtime.block_on(serve(&settings, self.sample));
        // Threads that still block were given their time while the server drained.
        runtime.shutdown_background();
        result
    }
}

async fn serve(settings: &Arc<Settings>, sample: Option<PathBuf>) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let listener = TcpListener::bind(settings.listen).await.with_context(|| {
        format!(
            "cannot listen on {}: is another server running there? choose another address with --listen",
            settings.listen
        )
    })?;
    let address = listener.local_addr()?;
    let metrics = Arc::new(Metrics::new()?);
    let (data, _lock) = DataFolder::open_locked(&settings.data).map_err(|error| advised(error, &settings.data))?;
    let app = App::new(Arc::clone(settings), Arc::clone(&metrics));
    if let Some(endpoint) = &settings.otlp_endpoint {
        app.trace_to(Traces::open(endpoint, settings.trace_share).map_err(Usage)?);
    }
    tracing::info!(%address, data = %settings.data.display(), "listening, getting ready");

    let mut preparing = {
        let (app, settings) = (app.clone(), Arc::clone(settings));
        tokio::task::spawn_blocking(move || {
            let retriever = prepare(data, &settings, Arc::clone(&metrics), sample.as_deref())?;
            let runtime = tokio::runtime::Handle::current();
            let limits = Limits::from(&*settings);
            let data = settings.data.clone();
            app.attach_refresh(Refresh::open(Arc::clone(&retriever), data, metrics, limits, runtime)?);
            let scheme = if settings.tls_cert.is_some() { "https" } else { "http" };
            describe(&retriever, format!("{scheme}://{address}/"));
            app.attach(Arc::clone(&retriever));
            anyhow::Ok(retriever)
        })
    };
    let mut prepared = None;
    let refreshing = app.clone();
    let shutdown = async {
        tokio::select! {
            () = signals.stop() => {}
            result = &mut preparing => {
                let failed = !matches!(result, Ok(Ok(_)));
                prepared = Some(result);
                if failed {
                    return;
                }
                signals.stop().await;
            }
        }
        tokio::spawn(async move {
            signals.stop().await;
            tracing::error!(
                "told to stop a second time: ending at once; the next start makes up for what is not saved"
            );
            crate::system::exit_at_once(1);
        });
        tracing::info!("stopping: requests under way are answered, new ones refused");
        if let Some(refresh) = refreshing.refresh() {
            // Its end also ends the answers to those who listen to it.
            tokio::spawn(async move { refresh.stop().await });
        }
    };
    let served = http::serve(listener, app.clone(), shutdown).await;
    if let Some(refresh) = app.refresh() {
        refresh.stop().await;
    }
    let tracing_app = app.clone();
    tokio::task::spawn_blocking(move || tracing_app.close_traces()).await?;
    let Some(prepared) = prepared else {
        // Stopped while it was getting ready: what is half-built is removed at the next start.
        tracing::info!("stopped before it was ready");
        return Ok(served?);
    };
    let retriever = prepared.context("getting ready failed")??;
    retriever.stop();
    retriever
        .save()
        .await
        .context("the index could not be saved; nothing is lost: the next start encodes again what its files lack")?;
    tracing::info!("stopped");
    Ok(served?)
}

/// Everything between an open data folder and a retriever that answers.
fn prepare(
    data: DataFolder,
    settings: &Settings,
    metrics: Arc<Metrics>,
    sample: Option<&Path>,
) -> anyhow::Result<Arc<Retriever>> {
    let machine = Machine::new(settings, metrics)?;
    // One that cannot be read is a damage that the start deals with.
    if matches!(data.live(), Ok(None)) {
        let manifests = data.manifests()?;
        let ready = manifests.iter().rfind(|manifest| manifest.status == Standing::Ready);
        if let Some(newest) = ready.or(manifests.last()) {
            // A first build whose process ended just before it was made live, or a file that somebody removed.
            tracing::warn!(generation = newest.number, "LIVE is missing, the newest generation is made live");
            data.set_live(newest.number)?;
        } else {
            if let Some(sample) = sample {
                import_sample(&data, sample)?;
            }
            build_and_publish(&data, &settings.model, &machine)?;
        }
    }
    let retriever = Retriever::new(data, &machine);
    let mut bar = Progress::new("catching up", Unit::Documents);
    let started = retriever.start(&machine, &mut |progress| bar.set(progress.done, Some(progress.total), ""));
    bar.finish();
    started?;
    Ok(Arc::new(retriever))
}

/// Imports the sample where the store is empty, or where an earlier start was ended while it did so.
fn import_sample(data: &DataFolder, sample: &Path) -> anyhow::Result<()> {
    let begun = data.path().join("sample-import");
    if data.store().last_sequence()? > 0 && !begun.exists() {
        return Ok(());
    }
    tracing::info!(sample = %sample.display(), "the data folder is empty, importing the sample");
    let failed = || format!("{}: cannot be written", begun.display());
    std::fs::write(&begun, format!("{}\n", sample.display())).with_context(failed)?;
    import(data.store(), &[sample], &ImportOptions::default())?;
    std::fs::remove_file(&begun).with_context(failed)
}

/// Says what to do about a folder that this user may not write.
fn advised(error: crate::generation::Error, data: &Path) -> anyhow::Error {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let is_denied = matches!(
        &error,
        crate::generation::Error::Io { source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem)
    );
    let error = anyhow::Error::new(error);
    if !is_denied {
        return error;
    }
    error.context(format!(
        "the data folder {} cannot be written: give this user the right to write it, or choose another with --data",
        data.display()
    ))
}

fn describe(retriever: &Retriever, url: String) {
    match retriever.status() {
        Ok(status) => tracing::info!(
            url,
            generation = status.generation.as_ref().map_or(0, |generation| generation.number),
            documents = status.indexed,
            model = status.model,
            device = status.device,
            precision = status.precision,
            "ready"
        ),
        Err(error) => tracing::error!(%error, "ready, but the store cannot be read"),
    }
}

/// The signals that tell the process what to do.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Heeded by the server; held here so that one which comes before, or after, does not end the process.
    _hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind, name| signal(kind).with_context(|| format!("cannot listen for {name}"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            _hangup: listen(SignalKind::hangup(), "SIGHUP")?,
        })
    }

    /// Ends when the process is asked to stop: SIGINT or SIGTERM.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
