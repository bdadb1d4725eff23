//! What a job tells: kept in a file line by line, and told to whoever listens.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::broadcast;

use super::Error;

/// Events that are read from the file at once.
const PART: usize = 256;
/// Events that a slow listener may be behind; what is older it reads from the file, but for those that are not kept.
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
    bytes: u64,
    last: u64,
}

impl Writing {
    /// Keeps a line, and returns its number.
    fn keep(&mut self, json: &str) -> std::io::Result<u64> {
        let line = format!("{json}\n");
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            // Half a line would take the next one with it.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += line.len() as u64;
        self.last += 1;
        Ok(self.last)
    }
}

impl EventLog {
    /// Opens the file of a job, after what it holds.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error| Error::io(path)(error);
        let mut file = File::options().create(true).read(true).append(true).open(path).map_err(failed)?;
        let (mut reader, mut line) = (BufReader::new(&file), Vec::new());
        let (mut bytes, mut last) = (0, 0);
        while reader.read_until(b'\n', &mut line).map_err(failed)? > 0 {
            (bytes, last) = (bytes + line.len() as u64, last + 1);
            if !line.ends_with(b"\n") {
                // The server was killed in the middle of a line.
                file.write_all(b"\n").map_err(failed)?;
                bytes += 1;
                break;
            }
            line.clear();
        }
        let (sender, _) = broadcast::channel(BEHIND);
        Ok(Self { path: path.to_path_buf(), writing: Mutex::new(Writing { file, bytes, last }), sender })
    }

    /// Tells an event; `keep` puts it into the file.
    pub(super) fn tell(&self, json: &str, keep: bool) {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = keep
            .then(|| writing.keep(json))
            .transpose()
            .inspect_err(|error| tracing::warn!(file = %self.path.display(), %error, "an event of a job is not kept"));
        if let Some(told) = Told::read(kept.unwrap_or_default(), json) {
            // Nobody listening is fine.
            let _ = self.sender.send(told);
        }
    }

    /// What was told after event `after`, and what will be.
    pub(super) fn listen(&self, after: u64) -> Result<Events, Error> {
        let past = Events::past(&self.path, after)?;
        // No event can come between what is read and what is heard.
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let live = Some(self.sender.subscribe());
        Ok(Events { live, until: writing.last, heard: after.min(writing.last), ..past })
    }
}

/// The events of a job: those that were, then those that come, to the job's end.
#[derive(Debug)]
pub struct Events {
    /// What was read and not told yet.
    past: VecDeque<Told>,
    file: Option<Lines>,
    /// Whether there may be more in the file, of events up to `until`.
    has_more: bool,
    until: u64,
    /// The number of the last event that was told or is left out.
    heard: u64,
    /// What was heard before those that have to be read first.
    next: Option<Told>,
    live: Option<broadcast::Receiver<Told>>,
}

impl Events {
    /// The events of a job that does not run.
    pub(super) fn past(path: &Path, after: u64) -> Result<Self, Error> {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            opened => Some(Lines { reader: BufReader::new(opened.map_err(Error::io(path))?), number: 0 }),
        };
        Ok(Self { past: VecDeque::new(), file, has_more: true, until: u64::MAX, heard: after, next: None, live: None })
    }

    /// The next event; none after the last one.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            if self.past.is_empty() && self.has_more {
                self.read().await;
            }
            if let Some(told) = self.past.pop_front().or_else(|| self.next.take()) {
                self.heard = told.number.unwrap_or(self.heard);
                return Some(told);
            }
            match self.live.as_mut()?.recv().await {
                Ok(told) => {
                    if told.kind == ENDED {
                        self.live = None;
                    }
                    // Those between passed it by while it was busy.
                    self.until = told.number.unwrap_or_default().saturating_sub(1);
                    self.has_more = self.until > self.heard;
                    self.next = Some(told);
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => self.live = None,
            }
        }
    }

    /// Reads on in the file, on a thread that may wait for the disk.
    async fn read(&mut self) {
        let Some(mut file) = self.file.take() else { return self.has_more = false };
        let (after, until) = (self.heard, self.until);
        let read = tokio::task::spawn_blocking(move || {
            let read = file.part(after, until);
            (file, read)
        });
        match read.await {
            Ok((file, Ok((told, has_more)))) => (self.file, self.past, self.has_more) = (Some(file), told, has_more),
            Ok((_, Err(error))) => {
                tracing::warn!(%error, "events of a job cannot be read");
                self.has_more = false;
            }
            // The runtime is going down.
            Err(_) => self.has_more = false,
        }
    }
}

/// The file's lines, read one after the other while it grows.
#[derive(Debug)]
struct Lines {
    reader: BufReader<File>,
    /// Of the last line that was read.
    number: u64,
}

impl Lines {
    /// The next events whose numbers are above `after`, up to `until`, and whether there may be more of them.
    fn part(&mut self, after: u64, until: u64) -> std::io::Result<(VecDeque<Told>, bool)> {
        let (mut told, mut line) = (VecDeque::new(), Vec::new());
        while told.len() < PART && self.number < until {
            line.clear();
            let bytes = self.reader.read_until(b'\n', &mut line)?;
            let Some(json) = line.strip_suffix(b"\n") else {
                // The rest is just being written.
                self.reader.seek(SeekFrom::Current(-i64::try_from(bytes).unwrap_or(0)))?;
                return Ok((told, false));
            };
            self.number += 1;
            if self.number > after {
                told.extend(Told::read(Some(self.number), &String::from_utf8_lossy(json)));
            }
        }
        Ok((told, self.number < until))
    }
}
