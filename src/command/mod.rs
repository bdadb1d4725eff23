//! The command line, one file a verb.
//!
//! Results go to standard output (`--json`: one JSON object), logs and progress to standard error. The exit code is 0
//! done, 1 failed, 2 wrong usage, 3 training was stopped and can be gone on with.

mod child;
mod evaluate;
mod import;
mod index;
mod model;
mod progress;
mod restore;
mod search;
mod serve;
mod snapshot;
mod train;
mod verify;

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::http;
use crate::settings::{self, CommonArgs, EncoderArgs, FlagGroup, IndexArgs, Settings};

/// An online dense-retrieval search server that retrains itself.
#[derive(Debug, Parser)]
#[command(name = "anced", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, for the time that the process runs")]
enum Verb {
    /// Serve searches, writes and the web page over HTTP.
    Serve(serve::Serve),
    /// Import documents, queries and judgments from files.
    Import(import::Import),
    /// Build a generation from the store and make it live.
    Index(index::IndexVerb),
    /// Train the encoder with ANCE rounds and build a generation of the result.
    Train(train::Train),
    /// Search from the command line.
    Search(search::Search),
    /// Measure a generation on the judgments of a split.
    Evaluate(evaluate::Evaluate),
    /// Copy the data folder, also while a server serves from it.
    Snapshot(snapshot::SnapshotVerb),
    /// Make a data folder of a snapshot.
    Restore(restore::Restore),
    /// Check a data folder, and repair what is derived.
    Verify(verify::Verify),
    /// Look into checkpoints, and convert older ones.
    Model(model::Model),
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
struct General {
    /// The settings file; `anced.toml` of the working folder by default.
    #[arg(long, env = "ANCED_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
}

impl General {
    /// Reads the settings with the flags of a verb over them, and starts the logs.
    fn settings(&self, groups: &[&dyn FlagGroup]) -> anyhow::Result<Settings> {
        let mut all: Vec<&dyn FlagGroup> = vec![&self.common];
        all.extend(groups);
        started(Settings::load(self.config.as_deref(), &all)?)
    }

    /// The flags alone, for a process that finds its settings elsewhere; starts the logs.
    fn flags(&self) -> anyhow::Result<Settings> {
        started(Settings::of_flags(&[&self.common])?)
    }
}

/// Settings, once the logs are written as they say.
fn started(settings: Settings) -> anyhow::Result<Settings> {
    crate::telemetry::init_logs(settings.log_format, &settings.log_filter)
        .map_err(|reason| anyhow::Error::new(Usage(reason)))?;
    Ok(settings)
}

/// What every verb takes that runs a checkpoint over an index.
#[derive(Debug, Clone, Args)]
struct Engine {
    #[command(flatten)]
    general: General,
    #[command(flatten)]
    encoder: EncoderArgs,
    #[command(flatten)]
    index: IndexArgs,
}

impl Engine {
    /// As [`General::settings`].
    fn settings(&self, groups: &[&dyn FlagGroup]) -> anyhow::Result<Settings> {
        let mut all: Vec<&dyn FlagGroup> = vec![&self.encoder, &self.index];
        all.extend(groups);
        self.general.settings(&all)
    }
}

/// A mistake in how the program was called.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Runs the program with the process's arguments, and ends the process.
///
/// What is to be kept is on the disk by then, and threads may still be at work, such as those of a start that was told to
/// stop: nothing waits for them, and no library takes apart at the end of the process what they use.
pub fn run() -> ! {
    let code = code();
    // Whoever read it has gone.
    let _ = std::io::stdout().flush();
    crate::system::exit_at_once(code.into())
}

/// Runs a verb and returns the exit code.
fn code() -> u8 {
    // A file-size limit must be an error of a write, not the end of the process, also for files outside the store.
    crate::system::ignore_file_size_signal();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to do where even this cannot be printed.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let result = match cli.verb {
        Verb::Serve(verb) => verb.run(),
        Verb::Import(verb) => verb.run(),
        Verb::Index(verb) => verb.run(),
        Verb::Train(verb) => verb.run(),
        Verb::Search(verb) => verb.run(),
        Verb::Evaluate(verb) => verb.run(),
        Verb::Snapshot(verb) => verb.run(),
        Verb::Restore(verb) => verb.run(),
        Verb::Verify(verb) => verb.run(),
        Verb::Model(verb) => verb.run(),
    };
    match result {
        Ok(()) => 0,
        // Whoever reads the output has had enough: `anced search … | head`.
        Err(error) if broken_pipe(&error) => 0,
        Err(error) => {
            eprintln!("anced: {}", message(&error));
            let refused_listen = matches!(
                error.downcast_ref(),
                Some(
                    http::Error::Unprotected { .. }
                        | http::Error::BadKey { .. }
                        | http::Error::BadOrigin { .. }
                        | http::Error::BadHost { .. }
                        | http::Error::HalfTls { .. }
                )
            );
            let recipe = matches!(error.downcast_ref(), Some(crate::ance::Error::Recipe(_)));
            let usage = error.is::<settings::Error>() || error.is::<Usage>() || refused_listen || recipe;
            let is_stopped = matches!(error.downcast_ref(), Some(crate::ance::Error::Stopped));
            match (is_stopped, usage) {
                (true, _) => child::STOPPED,
                (false, true) => 2,
                (false, false) => 1,
            }
        }
    }
}

/// An error and its causes on one line; a cause that the text before it already tells is not told again.
fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        _ if told.contains(&cause) => told,
        _ => format!("{told}: {cause}"),
    })
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Prints a line to standard output.
fn print(line: &str) -> anyhow::Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::other("no room");
        let error = anyhow::Error::new(crate::generation::Error::Io { path: "a/b".into(), source: cause });
        assert_eq!(message(&error), "a/b: no room");
        let error = Err::<(), _>(error).context("cannot save").unwrap_err();
        assert_eq!(message(&error), "cannot save: a/b: no room");
    }
}
