//! Which generations a job needs: the one that it started from, and the one that it built.

use std::path::{Path, PathBuf};

use super::{DONE_FILE, Error, GENERATION_FILE, Job, PARENT_FILE, Refresh, check_room};

/// What its process noted in a job's folder.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Needs {
    /// The generation that it started from.
    pub(super) parent: Option<u64>,
    /// The generation that it built.
    pub(super) built: Option<u64>,
    /// It came to its end: nothing of what it needed to train is left.
    pub(super) is_over: bool,
}

impl Needs {
    /// What cannot be read is the process's to complain of.
    pub(super) fn of(folder: &Path) -> Self {
        let number = |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok();
        Self {
            parent: number(PARENT_FILE).filter(|parent| *parent != 0),
            built: number(GENERATION_FILE),
            is_over: folder.join(DONE_FILE).is_file(),
        }
    }
}

impl Refresh {
    /// Refuses to have a generation removed that the job which runs started from, or built.
    ///
    /// # Errors
    /// [`Error::Needed`].
    pub fn refuse_removal(&self, generation: u64) -> Result<(), Error> {
        let Some((job, needs)) = self.needs_of_running() else { return Ok(()) };
        let why = match Some(generation) {
            number if number == needs.parent => "started from it",
            number if number == needs.built => "built it",
            _ => return Ok(()),
        };
        Err(Error::Needed { generation, job, why })
    }

    /// Refuses to have a generation made live by hand that the job which runs has built: a live one's files are replaced
    /// while it is being measured, and the job makes it live itself, or does not.
    ///
    /// # Errors
    /// [`Error::Needed`].
    pub fn refuse_activation(&self, generation: u64) -> Result<(), Error> {
        match self.needs_of_running() {
            Some((job, needs)) if needs.built == Some(generation) => {
                Err(Error::Needed { generation, job, why: "compares it with the live one" })
            }
            _ => Ok(()),
        }
    }

    fn needs_of_running(&self) -> Option<(String, Needs)> {
        let running = self.slot().running.clone()?;
        let needs = Needs::of(&self.folder(&running.id));
        Some((running.id.clone(), needs))
    }

    /// Why a job that kept what it needs in its folder cannot go on all the same; none where it can.
    pub(super) fn lost(&self, id: &str) -> Option<String> {
        let Needs { parent, built, is_over } = Needs::of(&self.folder(id));
        let (needed, what) = if is_over { (built, "built") } else { (parent, "started from") };
        let gone = needed.filter(|number| !self.0.retriever.has(*number))?;
        Some(format!("generation {gone}, which it {what}, was removed"))
    }

    /// Refuses to go on with a job that the disk is too small for; one that came to its end writes nothing more.
    pub(super) fn check_room(&self, job: &Job) -> Result<(), Error> {
        let folder = self.folder(&job.id);
        let Needs { parent, is_over, .. } = Needs::of(&folder);
        let live = self.0.retriever.live()?.number();
        if is_over {
            return Ok(());
        }
        check_room(self.0.retriever.data(), parent.unwrap_or(live), &job.plan, &folder)
    }

    pub(super) fn folder(&self, id: &str) -> PathBuf {
        self.0.data.join("jobs").join(id)
    }
}
