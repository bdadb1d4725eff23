//! What a job tells: kept in a file line by line, and told to whoever listens.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::broadcast;

use super::Error;

/// The last of a job's events that a listener is told of what was before.
const HISTORY: usize = 10_000;
/// Events that a slow listener may be behind; what is older passes it by.
const BEHIND: usize = 4096;
/// The last event of a job, until it is gone on with.
pub(super) const ENDED: &str = "ended";

/// One event.
#[derive(Debug, Clone)]
pub struct Told {
    /// From 1 for each job; none for an event that is not kept.
    pub number: Option<u64>,
    /// Its name.
    pub kind: String,
    /// The event as JSON, its name in it.
    pub json: Arc<str>,
}

impl Told {
    fn read(number: Option<u64>, json: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(json).ok()?;
        Some(Self { number, kind: value.get("event")?.as_str()?.to_owned(), json: json.into() })
    }
}

/// The events of a job that runs.
#[derive(Debug)]
pub(super) struct EventLog {
    path: PathBuf,
    writing: Mutex<Writing>,
    sender: broadcast::Sender<Told>,
}

#[derive(Debug)]
struct Writing {
    file: File,
    last: u64,
}

impl EventLog {
    /// Opens the file of a job, after what it holds.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error| Error::io(path)(error);
        let text = match std::fs::read(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            read => read.unwrap_or_default(),
        };
        let mut file = File::options().create(true).append(true).open(path).map_err(failed)?;
        let mut last = text.iter().filter(|byte| **byte == b'\n').count() as u64;
        if text.last().is_some_and(|byte| *byte != b'\n') {
            // The server was killed in the middle of a line.
            file.write_all(b"\n").map_err(failed)?;
            last += 1;
        }
        let (sender, _) = broadcast::channel(BEHIND);
        Ok(Self { path: path.to_path_buf(), writing: Mutex::new(Writing { file, last }), sender })
    }

    /// Tells an event; `keep` puts it into the file.
    pub(super) fn tell(&self, json: &str, keep: bool) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let number = keep.then(|| {
            writing.last += 1;
            if let Err(error) = writing.file.write_all(format!("{json}\n").as_bytes()) {
                tracing::warn!(file = %self.path.display(), %error, "an event of a job is not kept");
            }
            writing.last
        });
        if let Some(told) = Told::read(number, json) {
            // Nobody listening is fine.
            let _ = self.sender.send(told);
        }
    }

    /// What was told after event `after`, and what will be.
    pub(super) fn listen(&self, after: u64) -> Result<Events, Error> {
        // No event can come between what is read and what is heard.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let live = Some(self.sender.subscribe());
        Ok(Events { live, ..Events::past(&self.path, after)? })
    }
}

/// The events of a job: those that were, then those that come, to the job's end.
#[derive(Debug)]
pub struct Events {
    past: VecDeque<Told>,
    live: Option<broadcast::Receiver<Told>>,
}

impl Events {
    /// The events of a job that does not run.
    pub(super) fn past(path: &Path, after: u64) -> Result<Self, Error> {
        let mut past = VecDeque::new();
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self { past, live: None }),
            opened => opened.map_err(Error::io(path))?,
        };
        for (number, line) in (1..).zip(BufReader::new(file).split(b'\n')) {
            let line = line.map_err(Error::io(path))?;
            if number <= after {
                continue;
            }
            past.extend(Told::read(Some(number), &String::from_utf8_lossy(&line)));
            if past.len() > HISTORY {
                past.pop_front();
            }
        }
        Ok(Self { past, live: None })
    }

    /// The next event; none after the last one.
    pub async fn next(&mut self) -> Option<Told> {
        if let Some(told) = self.past.pop_front() {
            return Some(told);
        }
        loop {
            match self.live.as_mut()?.recv().await {
                Ok(told) => {
                    if told.kind == ENDED {
                        self.live = None;
                    }
                    return Some(told);
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => self.live = None,
            }
        }
    }
}
