//! A check of a data folder: its store, its generations, and the one against the other. Nothing of them is changed, and
//! a server may work in the folder meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use roaring::RoaringTreemap;
use serde::Serialize;

use super::folder::{LOCK, entries, file_name, is_locked, leftovers, live, numbers};
use super::manifest::{CHECKPOINT, FileRecord};
use super::{DataFolder, Error, Manifest, Standing};
use crate::corpus::{self, Operation, Store, StoreCheck, StoreContents};
use crate::index;

/// Entries of the log that are read at once.
const PAGE: usize = 10_000;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which part of the folder, by its path in it.
    pub place: String,
    /// What is wrong, and what to do.
    pub problem: String,
    /// Whether `anced verify --repair` puts it right.
    pub repairable: bool,
}

/// What a check found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Check {
    /// What is wrong; nothing where the folder is sound.
    pub findings: Vec<Finding>,
    /// What is worth knowing and harms nothing.
    pub notes: Vec<String>,
    /// What the store holds; none where it cannot be read.
    pub store: Option<StoreContents>,
    /// The generations that a start can load.
    pub sound: Vec<u64>,
    /// The generations whose index a repair builds anew: manifest and checkpoint are sound.
    pub rebuildable: Vec<u64>,
    /// What `LIVE` names.
    pub live: Option<u64>,
    /// Whether a server or another process that writes works in the folder.
    pub in_use: bool,
    /// The newest sound generation that passed its gate.
    #[serde(skip)]
    pub(super) newest: Option<u64>,
}

impl Check {
    fn find(&mut self, place: impl Into<String>, problem: impl Into<String>, repairable: bool) {
        self.findings.push(Finding { place: place.into(), problem: problem.into(), repairable });
    }

    /// Whether `LIVE` names a generation that a start can load, or there is none to name yet.
    pub(super) fn is_live_sound(&self) -> bool {
        self.live.is_some_and(|number| self.sound.contains(&number))
    }
}

/// A generation whose files are as its manifest says.
struct Read {
    manifest: Manifest,
    place: String,
    contents: index::Contents,
}

/// Checks the data folder at `data`.
///
/// # Errors
/// No data folder there, or one that cannot be listed; whatever else is wrong is a finding.
pub fn check(data: &Path) -> Result<Check, Error> {
    if !data.join("store").is_dir() {
        return Err(Error::Place(format!("{}: no data folder; name one with --data", data.display())));
    }
    let in_use = is_locked(&data.join(LOCK))?;
    check_with(data, in_use, || Store::open(&data.join("store")).map(Arc::new))
}

/// As [`check`], for the process that has the data folder open.
///
/// # Errors
/// As [`check`].
pub fn check_open(data: &DataFolder) -> Result<Check, Error> {
    check_with(data.path(), false, || Ok(Arc::clone(data.store())))
}

fn check_with(
    data: &Path,
    in_use: bool,
    store: impl FnOnce() -> Result<Arc<Store>, corpus::Error>,
) -> Result<Check, Error> {
    let mut check = Check { in_use, ..Check::default() };
    let folder = data.join("generations");
    let mut numbers = if folder.is_dir() { numbers(data)? } else { Vec::new() };
    numbers.sort_unstable();
    // Before the store is read: it must reach as far as the generations do.
    let mut read: Vec<Read> = numbers.iter().filter_map(|number| generation(data, *number, &mut check)).collect();
    match store().and_then(|store| Ok((store.check()?, store))) {
        Ok((checked, store)) => {
            read.retain(|generation| fits(generation, &store, &checked, &mut check));
            check.store = Some(checked.contents);
            for problem in &checked.findings {
                let advice = "restore a snapshot with `anced restore`, or import again into a new folder";
                check.find("store", format!("{problem}; {advice}"), false);
            }
            let without = checked.contents.judgments_without_document;
            if without > 0 {
                check.notes.push(format!("{without} judgments are of documents that are not in the corpus"));
            }
        }
        Err(error) => {
            check.find("store", error.to_string(), false);
            read.clear();
        }
    }
    check.sound = read.iter().map(|generation| generation.manifest.number).collect();
    let ready = read.iter().rfind(|generation| generation.manifest.status == Standing::Ready);
    check.newest = ready.map(|generation| generation.manifest.number);
    check_live(data, &numbers, &mut check);
    check_jobs(data, &mut check)?;
    if !check.in_use && folder.is_dir() {
        for path in leftovers(data)? {
            let name = path.strip_prefix(data).unwrap_or(&path).display().to_string();
            check.notes.push(format!("{name}: left by a process that was killed; the next start removes it"));
        }
    }
    Ok(check)
}

/// Compares the files of a generation with its manifest, and reads its index; none where something is wrong.
fn generation(data: &Path, number: u64, check: &mut Check) -> Option<Read> {
    let place = format!("generations/{number:06}");
    let folder = data.join(&place);
    loop {
        let manifest = match Manifest::read(&folder) {
            Ok(manifest) => manifest,
            // Removed meanwhile.
            Err(_) if !folder.is_dir() => return None,
            Err(error) => {
                check.find(place, error.to_string(), false);
                return None;
            }
        };
        let is_replaced = || Manifest::read(&folder).ok().as_ref() != Some(&manifest);
        let files = [&manifest.vectors_file, &manifest.graph_file].map(|name| folder.join(name));
        let of_checkpoint = |(name, _): &(&String, &FileRecord)| name.starts_with(CHECKPOINT);
        let (checkpoint, derived): (Vec<_>, Vec<_>) = manifest.files.iter().partition(of_checkpoint);
        let is_checkpoint_damaged = damage(&folder, &manifest, &checkpoint);
        let result = match (is_checkpoint_damaged, damage(&folder, &manifest, &derived)) {
            (Some(error), _) => Err((error, false)),
            (None, Some(error)) => Err((error, true)),
            (None, None) => index::contents(&files[0], &files[1], manifest.dimension)
                .map_err(|error| (format!("{error}; `anced verify --repair` rebuilds the index"), true)),
        };
        match result {
            Ok(contents) if manifest.number == number => return Some(Read { manifest, place, contents }),
            Ok(_) => {
                check.find(place, format!("it is a copy of generation {}; remove the folder", manifest.number), false)
            }
            // A save put newer files in the place of those being read, or the folder was removed.
            Err(_) if is_replaced() => continue,
            Err((error, is_derived)) => {
                if is_derived {
                    check.rebuildable.push(number);
                }
                check.find(place, error, is_derived);
            }
        }
        return None;
    }
}

fn damage(folder: &Path, manifest: &Manifest, files: &[(&String, &FileRecord)]) -> Option<String> {
    let files = files.iter().map(|(name, record)| ((*name).clone(), (*record).clone())).collect();
    Manifest { files, ..manifest.clone() }.verify(folder).err().map(|error| error.to_string())
}

/// Whether an index holds the documents that the store had when it was saved, no more and no less.
fn fits(generation: &Read, store: &Store, checked: &StoreCheck, check: &mut Check) -> bool {
    let Read { manifest, place, contents } = generation;
    let applied = manifest.applied_sequence;
    let build = "build a new generation with `anced index`";
    if manifest.store != store.identity() {
        check.find(place, format!("it was made from another store; put that back, or {build}"), false);
        return false;
    }
    if applied > checked.contents.writes {
        let writes = checked.contents.writes;
        let problem =
            format!("its index reaches to write {applied}, and the store has {writes}; put the store back, or {build}");
        check.find(place, problem, false);
        return false;
    }
    let mut problems = contents.findings.clone();
    match later(store, applied) {
        Ok((written, gone)) => {
            let mut required = checked.current.clone();
            required.remove_range(applied.saturating_add(1)..);
            // What was written while it was built may be in it, what was taken away meanwhile need not.
            let allowed = &required | &(&written | &gone);
            let missing = (&required - &contents.documents).len();
            let surplus = (&contents.documents - &allowed).len();
            for (count, what) in [(missing, "documents are missing"), (surplus, "vectors are of no document")] {
                if count > 0 {
                    problems.push(format!("{count} {what}"));
                }
            }
        }
        Err(error) => problems.push(error.to_string()),
    }
    if !problems.is_empty() {
        let problem =
            format!("its index is not that of the store: {}; `anced verify --repair` rebuilds it", problems.join(", "));
        check.rebuildable.push(manifest.number);
        check.find(place, problem, true);
    }
    problems.is_empty()
}

/// The sequences that the log writes and takes away after one of its entries.
fn later(store: &Store, applied: u64) -> Result<(RoaringTreemap, RoaringTreemap), corpus::Error> {
    let (mut written, mut gone, mut after) = (RoaringTreemap::new(), RoaringTreemap::new(), applied);
    loop {
        let changes = store.changes(after, PAGE)?;
        let Some(last) = changes.last() else { return Ok((written, gone)) };
        after = last.sequence;
        for change in &changes {
            match change.operation {
                Operation::Write { replaced } => {
                    written.insert(change.sequence);
                    gone.extend(replaced);
                }
                Operation::Delete { removed } => gone.extend([removed]),
            }
        }
    }
}

fn check_live(data: &Path, numbers: &[u64], check: &mut Check) {
    let problem = match live(data) {
        Ok(named) => {
            check.live = named;
            match named {
                _ if check.is_live_sound() => return,
                None if numbers.is_empty() => {
                    check.notes.push("no generation yet: `anced index` or `anced serve` makes the first".into());
                    return;
                }
                None => "names no generation".into(),
                Some(number) if numbers.contains(&number) => format!("names generation {number}, which is not sound"),
                Some(number) => format!("names generation {number}, which is not there"),
            }
        }
        Err(error) => error.to_string(),
    };
    // Where its index can be rebuilt, it is, and `LIVE` stays.
    let is_rebuilt = check.live.is_some_and(|number| check.rebuildable.contains(&number));
    let (advice, repairable) = match check.newest {
        _ if is_rebuilt => ("`anced verify --repair` rebuilds that one's index".into(), true),
        Some(newest) => {
            (format!("a start falls back to generation {newest}, `anced verify --repair` makes LIVE name it"), true)
        }
        None => ("no sound generation is left: restore a snapshot, or build one with `anced index`".into(), false),
    };
    check.find("LIVE", format!("{problem}; {advice}"), repairable);
}

/// A job's folder has the settings that it runs with; one of the command line need not.
fn check_jobs(data: &Path, check: &mut Check) -> Result<(), Error> {
    let folder = data.join("jobs");
    let jobs: Vec<PathBuf> = if folder.is_dir() { entries(&folder)? } else { Vec::new() };
    for job in jobs {
        let place = format!("jobs/{}", file_name(&job));
        if !job.is_dir() {
            check.notes.push(format!("{place}: not a job's folder, and nothing of anced's"));
            continue;
        }
        for name in ["settings.json", "plan.json", "done.json"] {
            let Ok(text) = std::fs::read(job.join(name)) else { continue };
            if let Err(error) = serde_json::from_slice::<serde_json::Value>(&text) {
                let advice = "the job cannot be gone on with; remove it with DELETE /admin/jobs/ID and start another";
                check.find(&place, format!("{name}: {error}; {advice}"), false);
            }
        }
    }
    Ok(())
}
