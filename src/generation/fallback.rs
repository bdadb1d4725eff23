//! A start with a damaged generation: the newest sound one answers until somebody decides.

use std::sync::PoisonError;

use super::catch_up::catch_up;
use super::{BuildProgress, Error, Generation, Machine, Manifest, Retriever, Standing};
use crate::index;

/// Why another generation answers than the one that `LIVE` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// The generation that `LIVE` names; none where it names none.
    pub named: Option<u64>,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

/// Whether an error says that files are damaged, so that those of another generation may do: not that the machine cannot
/// run an encoder, which it could not run for any other generation either.
fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Damaged(_) | Error::Index(index::Error::File { .. }))
}

impl Retriever {
    /// Why another generation answers than the one that `LIVE` names; none where that one does.
    pub fn fallback(&self) -> Option<Fallback> {
        self.fallback.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_fallback(&self, fallback: Option<Fallback>) {
        *self.fallback.lock().unwrap_or_else(PoisonError::into_inner) = fallback;
    }

    /// Loads the generation that `LIVE` names or, where that is damaged, the newest sound one that passed its gate.
    ///
    /// `LIVE` stays as it is: once the damaged files are put back, the next start has the generation that was wanted.
    pub(super) fn load_or_fall_back(
        &self,
        machine: &Machine,
        progress: &mut dyn FnMut(BuildProgress),
    ) -> Result<(), Error> {
        let named = self.data.live();
        let loaded = match &named {
            Ok(Some(number)) => self.load_number(*number, machine, progress),
            Ok(None) => return Err(Error::NotReady),
            Err(Error::Damaged(reason)) => Err(Error::Damaged(reason.clone())),
            Err(_) => return self.load(machine, progress),
        };
        let Err(reason) = loaded else { return Ok(()) };
        if !is_damage(&reason) {
            return Err(reason);
        }
        let named = named.ok().flatten();
        tracing::error!(generation = named, error = %reason, "the live generation is damaged, looking for another");
        let others = self.data.manifests()?.into_iter().rev();
        let others = others.filter(|manifest| manifest.status == Standing::Ready && Some(manifest.number) != named);
        for Manifest { number, .. } in others {
            match Generation::open(&self.data, number, machine) {
                Ok(generation) => {
                    catch_up(&generation, self.data.store(), progress)?;
                    self.take_over(std::sync::Arc::new(generation));
                    let reason = reason.to_string();
                    tracing::error!(
                        generation = number,
                        live = named,
                        "generation {number} answers instead of the one that LIVE names; put the damaged files back and \
                         start again, or settle it with POST /admin/generations/{number}/activate"
                    );
                    self.set_fallback(Some(Fallback { named, reason }));
                    return Ok(());
                }
                Err(error) if is_damage(&error) => {
                    tracing::error!(generation = number, %error, "this one is damaged too");
                }
                Err(error) => return Err(error),
            }
        }
        Err(reason)
    }
}
