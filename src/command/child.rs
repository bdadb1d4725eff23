//! What `anced train` does differently as the child of a server.

use std::fs::{File, TryLockError};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::ance;
use crate::settings::Settings;

/// The exit code of a run that was asked to stop: its state is kept, and it can be gone on with.
pub(super) const STOPPED: u8 = 3;
/// After it was asked to stop a run that has steps to save ends within this, with what it saved last.
const GRACE: Duration = Duration::from_secs(20);
/// So long one run waits for another to end: what a dead server left ends within [`GRACE`].
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether a run that was asked to stop still has something to save.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Whether the run was asked to stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    asked: Arc<AtomicBool>,
    /// Whether steps would be lost by an end at once.
    unsaved: Arc<AtomicBool>,
}

impl Stop {
    /// Asked by the end of standard input, which comes also when the server dies, by SIGTERM and by SIGINT.
    pub(super) fn when_told() -> anyhow::Result<Self> {
        let stop = Self::default();
        let signalled = stop.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || signalled.wait_for_signals())?;
        let closed = stop.clone();
        std::thread::Builder::new().name("standard input".into()).spawn(move || {
            let mut buffer = [0; 64];
            let mut input = std::io::stdin().lock();
            while matches!(input.read(&mut buffer), Ok(count) if count > 0) {}
            closed.end();
        })?;
        Ok(stop)
    }

    fn wait_for_signals(&self) {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let (Ok(mut terminate), Ok(mut interrupt)) =
                (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
            else {
                return;
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            self.end();
        });
    }

    /// Asks the run to stop, and ends the process where it does not in time.
    fn end(&self) {
        self.asked.store(true, Ordering::Release);
        let since = Instant::now();
        while since.elapsed() < GRACE && self.unsaved.load(Ordering::Acquire) {
            std::thread::sleep(LOOK_AGAIN);
        }
        eprintln!("anced: {}", ance::Error::Stopped);
        crate::system::exit_at_once(STOPPED.into());
    }

    /// # Errors
    /// [`ance::Error::Stopped`] where the run was asked to stop.
    pub(super) fn check(&self) -> Result<(), ance::Error> {
        if self.asked.load(Ordering::Acquire) { Err(ance::Error::Stopped) } else { Ok(()) }
    }

    /// Whether there is anything to save. Where there is not, the run ends at once when it is asked to stop: what it has
    /// is on the disk, and what it is at is soon done again.
    pub(super) fn heed(&self, event: &ance::Event) {
        match event {
            ance::Event::Step { .. } => self.unsaved.store(true, Ordering::Release),
            ance::Event::Took { phase: "train", .. } => self.unsaved.store(false, Ordering::Release),
            _ => {}
        }
    }
}

/// The settings of a job that a server prepared in a folder.
pub(super) fn settings(folder: &Path) -> anyhow::Result<Settings> {
    let file = folder.join(crate::refresh::SETTINGS_FILE);
    let text = std::fs::read(&file).with_context(|| format!("{}: no such job", file.display()))?;
    serde_json::from_slice(&text).with_context(|| file.display().to_string())
}

/// The right to train in a data folder: one run at a time, also where a server died and another took its place.
pub(super) fn turn(data: &Path, stop: &Stop) -> anyhow::Result<File> {
    let path = data.join(crate::generation::TRAIN_LOCK);
    let failed = || path.display().to_string();
    let file = File::options().create(true).truncate(false).write(true).open(&path).with_context(failed)?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if started.elapsed() < PATIENCE => {
                stop.check()?;
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!("{}: another training runs in this data folder", path.display())
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
    }
}
