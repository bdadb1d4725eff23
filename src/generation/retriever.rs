//! The one path that answers searches and takes writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Mutex;

use super::catch_up::catch_up;
use super::find::{PATIENCE, find};
use super::{
    BuildProgress, DataFolder, Deleted, Embedded, Error, Fallback, Generation, GenerationInfo, Machine, SearchRequest,
    SearchResponse, StageTimes, Status, Written, upkeep, writing,
};
use crate::corpus::{Document, Store};
use crate::encoder::{Encoded, Side};
use crate::telemetry::Metrics;

/// A full queue is worth another try after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Answers searches from the live generation and takes writes; shared by every handler.
#[derive(Debug)]
pub struct Retriever {
    pub(super) data: DataFolder,
    pub(super) live: ArcSwapOption<Generation>,
    /// Held by the one write under way: the order of the log is the order of the index.
    pub(super) writer: Arc<Mutex<()>>,
    /// Held while a graph is rebuilt or an index saved, beside the writes.
    pub(super) caring: Arc<Mutex<()>>,
    /// Held while a generation is made live or removed.
    pub(super) swapping: Arc<Mutex<()>>,
    stopping: AtomicBool,
    pub(super) fallback: std::sync::Mutex<Option<Fallback>>,
    pub(super) machine: Machine,
    pub(super) metrics: Arc<Metrics>,
}

impl Retriever {
    /// A retriever without a generation yet.
    pub fn new(data: DataFolder, machine: &Machine) -> Self {
        Self {
            data,
            live: ArcSwapOption::empty(),
            writer: Arc::default(),
            caring: Arc::default(),
            swapping: Arc::default(),
            stopping: AtomicBool::new(false),
            fallback: std::sync::Mutex::default(),
            machine: machine.clone(),
            metrics: Arc::clone(&machine.metrics),
        }
    }

    /// Loads the generation that `LIVE` names, brings its index up to the store and makes it answer. Nothing is written
    /// to disk: enough for a process that only reads.
    ///
    /// # Errors
    /// No generation, a damaged one, or an encoder that fails.
    pub fn load(&self, machine: &Machine, progress: &mut dyn FnMut(BuildProgress)) -> Result<(), Error> {
        let number = self.data.live()?.ok_or(Error::NotReady)?;
        self.load_number(number, machine, progress)
    }

    /// As [`load`](Self::load), for a generation by number.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_number(
        &self,
        number: u64,
        machine: &Machine,
        progress: &mut dyn FnMut(BuildProgress),
    ) -> Result<(), Error> {
        let generation = Generation::open(&self.data, number, machine)?;
        catch_up(&generation, self.data.store(), progress)?;
        self.take_over(Arc::new(generation));
        Ok(())
    }

    /// Makes a generation the one that answers.
    pub(super) fn take_over(&self, generation: Arc<Generation>) {
        let labels = encoder_labels(&generation);
        let fell_back = self.machine.runtime.fell_back(self.machine.encoder.device, generation.encoder().placement());
        let previous = self.live.swap(Some(generation));
        let metrics = &self.metrics;
        metrics.encoder_info.with_label_values(&labels).set(1);
        if let Some(old) = previous.map(|previous| encoder_labels(&previous)).filter(|old| *old != labels) {
            // It was shown when it became live.
            let _ = metrics.encoder_info.remove_label_values(&old);
        }
        metrics.encoder_fallback.set(i64::from(fell_back));
        metrics.live_generation_since.set(OffsetDateTime::now_utc().unix_timestamp_nanos() as f64 / 1e9);
    }

    /// Shows the measures of the generations on the disk, and no others.
    pub(super) fn show_measures(&self) {
        let manifests = match self.data.manifests() {
            Ok(manifests) => manifests,
            Err(error) => return tracing::warn!(%error, "the measures of generations cannot be shown"),
        };
        for manifest in &manifests {
            for (measure, value) in &manifest.measures {
                self.metrics.show_measure(manifest.number, measure, *value);
            }
        }
        self.metrics.keep_measures_of(&manifests.iter().map(|manifest| manifest.number).collect::<Vec<_>>());
    }

    /// As [`load`](Self::load), and saves what had to be encoded, so that the next start need not. Where the generation
    /// is damaged the newest sound one answers, and [`fallback`](Self::fallback) says so. For the process that holds the
    /// data folder's lock.
    ///
    /// # Errors
    /// As [`load`](Self::load), where no generation is sound. That the index could not be saved is told to the log: it
    /// can be searched all the same.
    pub fn start(&self, machine: &Machine, progress: &mut dyn FnMut(BuildProgress)) -> Result<(), Error> {
        self.load_or_fall_back(machine, progress)?;
        self.show_measures();
        upkeep::save_or_log(&*self.live()?, || ());
        Ok(())
    }

    /// The generation that answers now; a request takes it once and keeps it.
    ///
    /// # Errors
    /// None is live yet.
    pub fn live(&self) -> Result<Arc<Generation>, Error> {
        self.live.load_full().ok_or(Error::NotReady)
    }

    /// Refuses new work from now on; what is under way goes on.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Waits for the change of generation and the write under way, and puts what the index holds into its files.
    ///
    /// # Errors
    /// Files that cannot be written; the next start encodes again what is missing then.
    pub async fn save(&self) -> Result<(), Error> {
        let turn = Arc::clone(&self.swapping).lock_owned().await;
        let writer = Arc::clone(&self.writer);
        let Some(generation) = self.live.load_full() else { return Ok(()) };
        blocking(move || {
            let _turn = turn;
            generation.save(|| writer.blocking_lock_owned())
        })
        .await
    }

    /// Answers a search from the live generation, taken once.
    ///
    /// # Errors
    /// No generation, a full queue, a filter or store that fails.
    pub async fn search(&self, request: SearchRequest) -> Result<SearchResponse, Error> {
        let started = Instant::now();
        let generation = self.live()?;
        if request.queries.is_empty() || request.k == 0 {
            return Err(Error::InvalidRequest("a search needs at least one query and k of at least 1".into()));
        }
        let encoded = encode(&generation, request.queries.clone(), Side::Query).await?;
        let store = Arc::clone(self.data.store());
        let expansion = request.ef.unwrap_or(self.machine.expansion_search);
        let number = generation.number();
        let mut times = StageTimes {
            queue: encoded.times.queue,
            tokenize: encoded.times.tokenize,
            encode: encoded.times.encode,
            ..StageTimes::default()
        };
        let (results, search, fetch) =
            blocking(move || find(&generation, &store, &request, &encoded.vectors, expansion, PATIENCE)).await?;
        (times.search, times.fetch, times.total) = (search, fetch, started.elapsed());
        let stages = [times.queue, times.tokenize, times.encode, times.search, times.fetch];
        for (stage, time) in crate::telemetry::STAGES.iter().zip(stages) {
            self.metrics.search_stage_duration.with_label_values(&[stage]).observe(time.as_secs_f64());
        }
        Ok(SearchResponse { generation: number, times, results })
    }

    /// Encodes, commits and indexes documents; when it returns they are on disk and found by search. Documents that
    /// are there unchanged are not encoded again.
    ///
    /// # Errors
    /// A document that is not taken, an encoder, store or index that fails; nothing of the call is kept where the
    /// store did not take it.
    pub async fn write(&self, documents: Vec<Document>) -> Result<Written, Error> {
        for document in &documents {
            document.check().map_err(|error| Error::InvalidRequest(error.to_string()))?;
        }
        let store = Arc::clone(self.data.store());
        let accepted = documents.len();
        let changed = blocking(move || Ok(writing::only_changed(&store, documents)?)).await?;
        loop {
            self.refuse_when_stopping()?;
            let generation = self.live()?;
            let checkpoint = generation.encoder().checkpoint();
            let texts: Vec<String> =
                changed.iter().map(|document| checkpoint.passage(&document.title, &document.text)).collect();
            let vectors = generation.encoder().encode_passages(&texts).await.map_err(overloaded)?;
            let held = Arc::clone(&self.writer).lock_owned().await;
            if !Arc::ptr_eq(&self.live()?, &generation) {
                // Swapped meanwhile: these vectors are another model's, or this index is one that nobody searches any
                // more, whatever its number.
                continue;
            }
            let store = Arc::clone(self.data.store());
            let (count, written) = (changed.len(), Arc::clone(&generation));
            let sequence = blocking(move || {
                let _held = held;
                writing::commit(&written, &store, &changed, vectors)
            })
            .await?;
            self.care_for(&generation);
            self.metrics.documents_written.inc_by(count as u64);
            return Ok(Written { written: accepted, sequence });
        }
    }

    /// Deletes documents by id; unknown ids are passed over.
    ///
    /// # Errors
    /// A store or index that fails.
    pub async fn delete(&self, ids: Vec<String>) -> Result<Deleted, Error> {
        self.refuse_when_stopping()?;
        let held = Arc::clone(&self.writer).lock_owned().await;
        let generation = self.live()?;
        let store = Arc::clone(self.data.store());
        let written = Arc::clone(&generation);
        let deleted = blocking(move || {
            let _held = held;
            writing::delete(&written, &store, &ids)
        })
        .await?;
        self.care_for(&generation);
        self.metrics.documents_written.inc_by(deleted.deleted as u64);
        Ok(deleted)
    }

    /// The vectors of some texts.
    ///
    /// # Errors
    /// No generation, a full queue, an encoder that fails.
    pub async fn embed(&self, texts: Vec<String>, side: Side) -> Result<Embedded, Error> {
        let generation = self.live()?;
        let encoded = encode(&generation, texts, side).await?;
        Ok(Embedded {
            generation: generation.number(),
            model: generation.model(),
            vectors: encoded.vectors,
            tokens: encoded.tokens,
        })
    }

    /// The store, for reads by id and lists (blocking calls: use `spawn_blocking`).
    pub fn store(&self) -> &Arc<Store> {
        self.data.store()
    }

    /// Whether a generation is live and its encoder answered, and the server is not stopping.
    pub fn ready(&self) -> bool {
        self.live.load().as_ref().is_some_and(|generation| generation.encoder().is_open())
            && !self.stopping.load(Ordering::Acquire)
    }

    /// The state for operators; blocking but fast.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn status(&self) -> Result<Status, Error> {
        let live = self.live.load_full();
        let live = live.as_deref();
        let store = self.data.store();
        let text = |value: Option<String>| value.unwrap_or_default();
        Ok(Status {
            generation: live.map(|generation| generation.info(true)),
            documents: store.count()?,
            indexed: live.map_or(0, |generation| generation.index().count() as u64),
            sequence: store.last_sequence()?,
            index_bytes: live.map_or(0, |generation| generation.index().bytes() as u64),
            device: text(live.map(|generation| generation.encoder().placement().to_string())),
            precision: text(live.map(|generation| generation.encoder().precision().to_owned())),
            model: text(live.map(Generation::model)),
            queue_depth: live.map_or(0, |generation| generation.encoder().queue_depth()),
            fallback: self.fallback(),
        })
    }

    /// Every sound generation on disk, oldest first; blocking.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn generations(&self) -> Result<Vec<GenerationInfo>, Error> {
        let live = self.live.load().as_ref().map(|generation| generation.number());
        let manifests = self.data.manifests()?;
        Ok(manifests
            .iter()
            .map(|manifest| GenerationInfo::from_manifest(manifest, Some(manifest.number) == live))
            .collect())
    }

    /// Brings the gauges of generation and index up to date; called before they are read.
    pub fn observe(&self) {
        let metrics = &self.metrics;
        let live = self.live.load_full();
        let Some(generation) = live.as_deref() else { return };
        metrics.live_generation.set(i64::try_from(generation.number()).unwrap_or(i64::MAX));
        metrics.index_documents.set(i64::try_from(generation.index().count()).unwrap_or(i64::MAX));
        metrics.index_bytes.set(i64::try_from(generation.index().bytes()).unwrap_or(i64::MAX));
        if let Ok(created) = OffsetDateTime::parse(&generation.manifest().created, &Rfc3339) {
            metrics.live_generation_age.set((OffsetDateTime::now_utc() - created).whole_seconds().max(0));
        }
    }

    pub(super) fn refuse_when_stopping(&self) -> Result<(), Error> {
        if self.stopping.load(Ordering::Acquire) { Err(Error::Stopping) } else { Ok(()) }
    }
}

/// The labels of `encoder_info`: device, precision, model.
fn encoder_labels(generation: &Generation) -> [String; 3] {
    let encoder = generation.encoder();
    [encoder.placement().to_string(), encoder.precision().to_owned(), generation.model()]
}

/// Runs work that blocks on a thread for it. The work goes on to its end also when the caller leaves.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(Error::Panicked),
        // The runtime is going down.
        Err(_) => Err(Error::Stopping),
    }
}

async fn encode(generation: &Generation, texts: Vec<String>, side: Side) -> Result<Encoded, Error> {
    generation.encoder().encode(texts, side).await.map_err(overloaded)
}

fn overloaded(error: crate::encoder::Error) -> Error {
    match error {
        crate::encoder::Error::QueueFull { .. } => Error::Overloaded { retry_after: RETRY_AFTER },
        other => Error::Encoder(other),
    }
}
