//! Starts jobs, watches them, and makes what they made live.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::disk::{self, Sizes};
use super::events::{ENDED, EventLog, Events};
use super::process::{self, Limits, Wish};
use super::{EVENTS_FILE, Error, Job, State};
use crate::ance::Plan;
use crate::corpus::{AnsweredQueries, Store};
use crate::generation::Retriever;
use crate::settings::Settings;
use crate::telemetry::Metrics;

/// The refreshes of a server; cheap to clone.
#[derive(Debug, Clone)]
pub struct Refresh(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) retriever: Arc<Retriever>,
    pub(super) data: PathBuf,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: Limits,
    runtime: Handle,
    /// Held while a job is started or given up.
    changing: Mutex<()>,
    slot: Mutex<Slot>,
    /// Jobs that ended and whose records could not be written.
    pub(super) unwritten: Mutex<Vec<Job>>,
    /// Whether a job runs.
    pub(super) busy: watch::Sender<bool>,
}

/// The job that runs.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) running: Option<Arc<Running>>,
    stopping: bool,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) id: String,
    job: Mutex<Job>,
    pub(super) log: EventLog,
    wish: watch::Sender<Wish>,
}

impl Running {
    pub(super) fn job(&self) -> MutexGuard<'_, Job> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refresh {
    /// The refreshes of the server that holds the data folder at `data`. Jobs that ran when an earlier server ended are
    /// stopped ones now. Blocking; `runtime` is what jobs are watched on, `limits` what their processes may take.
    ///
    /// # Errors
    /// A store that cannot be read or written.
    pub fn open(
        retriever: Arc<Retriever>,
        data: PathBuf,
        metrics: Arc<Metrics>,
        limits: Limits,
        runtime: Handle,
    ) -> Result<Self, Error> {
        let (busy, _) = watch::channel(false);
        let shared = Shared {
            retriever,
            data,
            metrics,
            limits,
            runtime,
            changing: Mutex::default(),
            slot: Mutex::default(),
            unwritten: Mutex::default(),
            busy,
        };
        let refresh = Self(Arc::new(shared));
        refresh.warn_of_unread()?;
        for mut job in refresh.stored()? {
            let folder = refresh.folder(&job.id);
            if job.kept && (job.state == State::Running || job.is_kept()) && !folder.is_dir() {
                // A restored snapshot is without what a job that ran had on the disk.
                job.kept = false;
                refresh.put(&job)?;
            }
            if job.state == State::Running {
                job.enter(State::Stopped, Some("the server ended while the job ran".into()));
                refresh.put(&job)?;
                if !job.kept {
                    continue;
                }
                let log = EventLog::open(&folder.join(EVENTS_FILE))?;
                log.tell(&ended(&job, &[]), true);
                tracing::warn!(
                    job = job.id,
                    "a refresh was cut off; POST /admin/jobs/{}/resume goes on with it",
                    job.id
                );
            }
        }
        Ok(refresh)
    }

    /// Starts a refresh. Blocking.
    ///
    /// # Errors
    /// [`Error::Running`], [`Error::Refused`] where the settings cannot be or there is nothing to train on,
    /// [`Error::NoRoom`], [`Error::Stopping`], and whatever keeps the process from being started.
    pub fn start(&self, settings: &Settings) -> Result<Job, Error> {
        let _changing = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = self.check(settings)?;
        let job = Job::new(uuid::Uuid::now_v7().to_string(), plan);
        let settings = Settings { data: self.0.data.clone(), threads: threads(settings), ..settings.clone() };
        let folder = self.folder(&job.id);
        let launched = process::write_settings(&folder, &settings).and_then(|()| self.launch(job, settings));
        if launched.is_err()
            && let Err(error) = std::fs::remove_dir_all(&folder)
        {
            // No record leads to it.
            tracing::warn!(folder = %folder.display(), %error, "the folder of a job that did not start stays");
        }
        launched
    }

    /// What a refresh with these settings would do; nothing is started. Blocking.
    ///
    /// # Errors
    /// As [`start`](Self::start), but for the process.
    pub fn check(&self, settings: &Settings) -> Result<Plan, Error> {
        let plan = Plan::from_settings(settings).map_err(|error| Error::Refused(error.to_string()))?;
        self.refuse_busy()?;
        self.refuse_fallback()?;
        let queries = something_to_train_on(self.0.retriever.store())?.train;
        let live = self.0.retriever.live()?;
        let parameters = live.encoder().checkpoint().parameters() as u64;
        let sizes = Sizes { parameters, documents: self.0.retriever.store().count()?, queries };
        disk::check(&self.0.data, disk::needed(&live.manifest(), sizes, &plan))?;
        Ok(plan)
    }

    /// How many queries there are to train on and to measure with. Blocking.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn answered_queries(&self) -> Result<AnsweredQueries, Error> {
        Ok(self.0.retriever.store().answered_queries()?)
    }

    /// Goes on with a job that stopped, failed or was cancelled. Blocking.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::NotResumable`], [`Error::Lost`], and as [`start`](Self::start).
    pub fn resume(&self, id: &str) -> Result<Job, Error> {
        let _changing = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.refuse_busy()?;
        let mut job = self.job(id)?;
        if !job.is_kept() {
            return Err(Error::NotResumable { id: job.id, state: job.state });
        }
        if let Some(reason) = job.lost {
            return Err(Error::Lost { id: job.id, reason });
        }
        self.refuse_fallback()?;
        self.check_room(&job)?;
        let file = self.folder(id).join(super::SETTINGS_FILE);
        let text = std::fs::read(&file).map_err(Error::io(&file))?;
        let settings = serde_json::from_slice(&text)?;
        job.resumes += 1;
        job.enter(State::Running, None);
        self.launch(job, settings)
    }

    /// Asks a job that runs to stop, with its state kept; of one that does not run any more, and did not come to its
    /// end, gives up what it keeps on the disk. Blocking.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Ended`], a folder that cannot be removed.
    pub fn cancel(&self, id: &str) -> Result<Job, Error> {
        if let Some(running) = self.running(id) {
            running.wish.send_replace(Wish::Cancel);
            return Ok(running.job().clone());
        }
        let _changing = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut job = self.job(id)?;
        if self.running(id).is_some() || !job.is_kept() {
            return Err(Error::Ended { id: job.id, state: job.state });
        }
        job.kept = false;
        job.enter(State::Cancelled, Some("cancelled, and what it kept on the disk was removed".into()));
        self.put(&job)?;
        let folder = self.folder(id);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&folder)(error)),
            _ => Ok(job),
        }
    }

    /// Every job, oldest first. Blocking.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn jobs(&self) -> Result<Vec<Job>, Error> {
        let mut jobs = self.stored()?;
        for job in &mut jobs {
            if let Some(running) = self.running(&job.id) {
                *job = running.job().clone();
            } else if job.is_kept() {
                job.lost = self.lost(&job.id);
            }
        }
        Ok(jobs)
    }

    /// A job. Blocking.
    ///
    /// # Errors
    /// [`Error::Unknown`], a store that cannot be read.
    pub fn job(&self, id: &str) -> Result<Job, Error> {
        self.jobs()?.into_iter().find(|job| job.id == id).ok_or_else(|| Error::Unknown(id.to_owned()))
    }

    /// The events of a job after one of them by number (0 for all): those that were, then those that come. Blocking.
    ///
    /// # Errors
    /// [`Error::Unknown`], a file that cannot be read.
    pub fn events(&self, id: &str, after: u64) -> Result<Events, Error> {
        match self.running(id) {
            Some(running) => running.log.listen(after),
            None => Events::past(&self.folder(&self.job(id)?.id).join(EVENTS_FILE), after),
        }
    }

    /// Asks the job that runs to stop with its state kept, lets none start any more, and waits for its end.
    pub async fn stop(&self) {
        {
            let mut slot = self.slot();
            slot.stopping = true;
            if let Some(running) = &slot.running {
                tracing::info!(job = running.id, "the refresh is asked to save its state");
                running.wish.send_if_modified(|wish| {
                    let goes_on = *wish == Wish::GoOn;
                    if goes_on {
                        *wish = Wish::Stop;
                    }
                    goes_on
                });
            }
        }
        // The sender lives as long as this.
        let _ = self.0.busy.subscribe().wait_for(|busy| !busy).await;
    }

    pub(super) fn slot(&self) -> MutexGuard<'_, Slot> {
        self.0.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self, id: &str) -> Option<Arc<Running>> {
        self.slot().running.clone().filter(|running| running.id == id)
    }

    fn refuse_busy(&self) -> Result<(), Error> {
        let slot = self.slot();
        match &slot.running {
            _ if slot.stopping => Err(Error::Stopping),
            Some(running) => Err(Error::Running(running.id.clone())),
            None => Ok(()),
        }
    }

    /// A training starts from the generation that `LIVE` names, and is measured against it.
    fn refuse_fallback(&self) -> Result<(), Error> {
        let (Some(fallback), live) = (self.0.retriever.fallback(), self.0.retriever.live()?.number()) else {
            return Ok(());
        };
        let reason = fallback.reason;
        Err(Error::Refused(format!(
            "generation {live} answers instead of a damaged one ({reason}); put that one's files back and start again, or \
             settle it with POST /admin/generations/{live}/activate"
        )))
    }

    fn show_start(&self, job: &Job) {
        let metrics = &self.0.metrics;
        let count = |steps: u64| i64::try_from(steps).unwrap_or(i64::MAX);
        metrics.refresh_step.set(count(job.step));
        metrics.refresh_steps.set(count(job.plan.recipe.schedule.steps));
        metrics.refresh_loss.set(job.loss.unwrap_or(f64::NAN));
        metrics.refresh_running.set(1);
    }

    /// Lets another job start; whoever hears of this one's end finds none running.
    pub(super) fn leave(&self, running: &Running, ended: &str) {
        {
            let mut slot = self.slot();
            running.log.tell(ended, true);
            slot.running = None;
        }
        self.0.busy.send_replace(false);
    }

    fn launch(&self, mut job: Job, settings: Settings) -> Result<Job, Error> {
        let log = EventLog::open(&self.folder(&job.id).join(EVENTS_FILE))?;
        let (wish, wishes) = watch::channel(Wish::GoOn);
        let running = Arc::new(Running { id: job.id.clone(), job: Mutex::new(job.clone()), log, wish });
        {
            let mut slot = self.slot();
            if slot.stopping {
                return Err(Error::Stopping);
            }
            slot.running = Some(Arc::clone(&running));
        }
        self.0.busy.send_replace(true);
        // Not before it has its place: a record of a job that never started would say that it runs.
        if let Err(error) = self.put(&job) {
            job.enter(State::Stopped, Some(error.to_string()));
            self.leave(&running, &ended(&job, &[]));
            return Err(error);
        }
        self.show_start(&job);
        running.log.tell(&json!({"event": "started", "job": job.id, "resumes": job.resumes}).to_string(), true);
        tracing::info!(job = job.id, resumes = job.resumes, "refresh started");
        let refresh = self.clone();
        self.0.runtime.spawn(async move {
            let (state, reason) = refresh.work(&running, wishes, &settings).await;
            // The end is told to the store, which may have to wait for other writers.
            let ending = tokio::task::spawn_blocking(move || refresh.end(&running, state, reason));
            if let Err(error) = ending.await {
                tracing::error!(%error, "the end of a refresh was not recorded");
            }
        });
        Ok(job)
    }
}

/// The event of a job's end, after which these generations were removed.
pub(super) fn ended(job: &Job, removed: &[u64]) -> String {
    let told: Value = json!({
        "event": ENDED,
        "state": job.state,
        "reason": job.reason,
        "generation": job.generation,
        "removed": removed,
    });
    told.to_string()
}

fn threads(settings: &Settings) -> usize {
    if settings.refresh_threads > 0 { settings.refresh_threads } else { settings.threads }
}

/// Refuses where there is too little to learn from, or to measure with.
fn something_to_train_on(store: &Store) -> Result<AnsweredQueries, Error> {
    let queries = store.answered_queries()?;
    match queries.missing(AnsweredQueries::LEAST) {
        Some(missing) => Err(Error::Refused(missing)),
        None => Ok(queries),
    }
}
