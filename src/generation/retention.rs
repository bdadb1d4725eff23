//! Which generations stay on disk.

use std::sync::Arc;

use super::retriever::blocking;
use super::{DataFolder, Error, Manifest, Retriever, Standing};

/// The receipt of a removal.
#[derive(Debug, Clone, Copy)]
pub struct Removed {
    /// The generation that is gone.
    pub number: u64,
    /// What its files took on disk.
    pub bytes: u64,
}

impl Retriever {
    /// Removes a generation from the disk. Its number is not given again.
    ///
    /// # Errors
    /// [`Error::Live`], [`Error::UnknownGeneration`], [`Error::SwapRunning`], a folder that cannot be removed.
    pub async fn remove(self: &Arc<Self>, number: u64) -> Result<Removed, Error> {
        let turn = self.turn()?;
        let retriever = Arc::clone(self);
        blocking(move || {
            let _turn = turn;
            let removed = retriever.remove_held(number)?;
            retriever.show_measures();
            Ok(removed)
        })
        .await
    }

    /// Removes what a training that ended had begun to build; blocking.
    ///
    /// # Errors
    /// A folder that cannot be removed; the next start tries again.
    pub fn remove_unfinished(&self) -> Result<(), Error> {
        self.data.remove_unfinished()
    }

    fn remove_held(&self, number: u64) -> Result<Removed, Error> {
        if self.live()?.number() == number || self.data.live()? == Some(number) {
            return Err(Error::Live(number));
        }
        let manifest = Manifest::read(&self.data.generation(number));
        let bytes = manifest.map_or(0, |manifest| manifest.bytes());
        self.data.remove(number)?;
        tracing::info!(generation = number, bytes, "generation removed");
        Ok(Removed { number, bytes })
    }

    /// Whether a generation is on the disk.
    pub fn has(&self, number: u64) -> bool {
        self.data.generation(number).is_dir()
    }

    /// The data folder that its generations lie in.
    pub fn data(&self) -> &DataFolder {
        &self.data
    }

    /// Removes old generations, as many as `keep_generations` says are too many, and returns their numbers; blocking. Of
    /// those that passed the gate and of those that did not so many stay, the newest of each: trainings that fail do not
    /// push out what one can go back to. The live one and the one that it was trained from stay in any case. Those whose
    /// removal fails are told to the log.
    pub fn keep_newest(&self) -> Vec<u64> {
        // Somebody is just changing which there are; the end of the next job comes back to it.
        let Ok(_turn) = self.turn() else { return Vec::new() };
        let listed = self.live().and_then(|live| Ok((live, self.data.manifests()?)));
        let (live, manifests) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "old generations stay: they cannot be listed");
                return Vec::new();
            }
        };
        let needed = [Some(live.number()), live.manifest().parent];
        let (ready, others): (Vec<_>, Vec<_>) =
            manifests.iter().rev().partition(|manifest| manifest.status == Standing::Ready);
        let old = [ready, others].into_iter().flat_map(|kind| kind.into_iter().skip(self.machine.keep_generations));
        let mut old: Vec<u64> = old.map(|manifest| manifest.number).collect();
        old.retain(|number| !needed.contains(&Some(*number)));
        old.sort_unstable();
        old.retain(|number| {
            let removed = self.remove_held(*number);
            removed.inspect_err(|error| tracing::warn!(generation = number, %error, "old generation stays")).is_ok()
        });
        self.show_measures();
        old
    }
}
