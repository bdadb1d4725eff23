//! Which generations stay on disk.

use std::sync::Arc;

use super::retriever::blocking;
use super::{Error, Manifest, Retriever};

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

    /// Removes all generations but the `keep` newest, the live one and the one that it was trained from; those whose
    /// manifest cannot be read stay, for somebody to look at. Returns the numbers of those that are gone; what cannot be
    /// removed is told to the log. The caller has its turn.
    pub(super) fn keep_newest(&self, keep: usize) -> Vec<u64> {
        let listed = self.live().and_then(|live| Ok((live, self.data.manifests()?)));
        let (live, manifests) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "old generations stay: they cannot be listed");
                return Vec::new();
            }
        };
        let needed = [Some(live.number()), live.manifest().parent];
        let old = manifests.iter().rev().skip(keep).map(|manifest| manifest.number).rev();
        let old = old.filter(|number| !needed.contains(&Some(*number)));
        old.filter(|number| {
            let removed = self.remove_held(*number);
            removed.inspect_err(|error| tracing::warn!(generation = number, %error, "old generation stays")).is_ok()
        })
        .collect()
    }
}
