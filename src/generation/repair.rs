//! The repair of what is derived: indexes, and the file that names the live generation. Documents, queries and judgments
//! are never touched.

use super::catch_up::catch_up;
use super::{BuildProgress, Check, DataFolder, Error, Generation, Machine};

/// Puts right what `check` found and is derived: indexes are built anew from their checkpoints and the store, and `LIVE`
/// names the newest sound generation where it names none. Returns what was done, for people. What a killed process left
/// half-written is gone since the folder was opened.
///
/// The caller holds the data folder's lock and checks again afterwards: an index that is whole again may make `LIVE`
/// right, so that is looked at in a second call.
///
/// # Errors
/// A checkpoint that does not run, a store that cannot be read, a full disk.
pub fn repair(
    data: &DataFolder,
    check: &Check,
    machine: &Machine,
    progress: &mut dyn FnMut(BuildProgress),
) -> Result<Vec<String>, Error> {
    let mut done = Vec::new();
    for &number in &check.rebuildable {
        let generation = Generation::without_index(data, number, machine)?;
        catch_up(&generation, data.store(), progress)?;
        generation.index().verify()?;
        generation.save_again()?;
        let documents = generation.index().count();
        done.push(format!("generations/{number:06}: its index is built anew, with {documents} documents"));
    }
    if check.rebuildable.is_empty()
        && !check.is_live_sound()
        && let Some(newest) = check.newest
    {
        data.set_live(newest)?;
        done.push(format!("LIVE: names generation {newest} now"));
    }
    Ok(done)
}
