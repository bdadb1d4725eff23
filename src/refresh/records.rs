//! The records of jobs in the store.

use std::sync::{MutexGuard, PoisonError};

use super::{Error, Job, Refresh};

impl Refresh {
    /// Every job, oldest first, as it was recorded. Records that this version does not read, of a newer one, are passed
    /// over: they must not keep the others from being seen.
    pub(super) fn stored(&self) -> Result<Vec<Job>, Error> {
        let mut unwritten = self.unwritten();
        self.write_again(&mut unwritten);
        let records = self.0.retriever.store().jobs()?;
        let mut jobs: Vec<Job> = records.iter().filter_map(|record| serde_json::from_str(record).ok()).collect();
        for ended in unwritten.iter() {
            match jobs.iter_mut().find(|job| job.id == ended.id) {
                Some(job) => job.clone_from(ended),
                None => jobs.push(ended.clone()),
            }
        }
        Ok(jobs)
    }

    /// Tells the log which records are passed over.
    pub(super) fn warn_of_unread(&self) -> Result<(), Error> {
        for record in self.0.retriever.store().jobs()? {
            if let Err(error) = serde_json::from_str::<Job>(&record) {
                let value: serde_json::Value = serde_json::from_str(&record).unwrap_or_default();
                let id = value["id"].as_str().unwrap_or("without an id");
                tracing::warn!(job = id, %error, "the record of a job is of another version and passed over");
            }
        }
        Ok(())
    }

    pub(super) fn put(&self, job: &Job) -> Result<(), Error> {
        let mut unwritten = self.unwritten();
        self.write(job)?;
        unwritten.retain(|ended| ended.id != job.id);
        Ok(())
    }

    /// As [`put`](Self::put) for a job that runs: it goes on where its record cannot be written.
    pub(super) fn put_or_log(&self, job: &Job) {
        if let Err(error) = self.put(job) {
            tracing::warn!(job = job.id, %error, "the record of a job is behind");
        }
    }

    /// As [`put`](Self::put) for a job that ended. Where its record cannot be written, on a full disk, it is kept in memory
    /// until it can: the store would say for ever that the job runs.
    pub(super) fn put_or_keep(&self, job: &Job) {
        if let Err(error) = self.put(job) {
            tracing::warn!(job = job.id, %error, "the end of a job is not recorded yet");
            let mut unwritten = self.unwritten();
            unwritten.retain(|ended| ended.id != job.id);
            unwritten.push(job.clone());
        }
    }

    fn write_again(&self, unwritten: &mut Vec<Job>) {
        unwritten.retain(|job| match self.write(job) {
            Ok(()) => {
                tracing::info!(job = job.id, "the end of a job is recorded at last");
                false
            }
            Err(error) => {
                tracing::debug!(job = job.id, %error, "the end of a job is not recorded yet");
                true
            }
        });
    }

    fn write(&self, job: &Job) -> Result<(), Error> {
        Ok(self.0.retriever.store().put_job(&job.id, &serde_json::to_string(job)?)?)
    }

    fn unwritten(&self) -> MutexGuard<'_, Vec<Job>> {
        self.0.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
