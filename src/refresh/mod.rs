//! Jobs: a refresh is a training process beside the server, watched from its start until its generation is live.
//!
//! The process is `anced train`, at the lowest priority. It only reads the store, and tells what it does in JSON lines;
//! the store keeps the job, `jobs/ID/` what it needs to go on after any end of either process. Its standard input ends
//! with the server, and it ends with that.

mod disk;
mod error;
mod events;
mod job;
mod needs;
mod process;
mod records;
mod supervisor;
#[cfg(test)]
mod tests;
mod work;

pub use disk::check_room;
pub use error::Error;
pub use events::{Events, Told};
pub use job::{Job, RoundMeasures, State};
pub use process::Limits;
pub use supervisor::Refresh;

/// The settings of a job, in its folder.
pub(crate) const SETTINGS_FILE: &str = "settings.json";
/// The number of the generation that its process started from, in its folder; 0 for none.
pub(crate) const PARENT_FILE: &str = "parent";
/// The number of the generation that its process built, in its folder.
pub(crate) const GENERATION_FILE: &str = "generation";
/// What its process said at its end, in its folder.
pub(crate) const DONE_FILE: &str = "done.json";
/// Its events, in its folder.
const EVENTS_FILE: &str = "events.jsonl";
/// What its process says to people, in its folder.
const LOG_FILE: &str = "log";
