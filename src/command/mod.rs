//! The command line, one file a verb.

/// Runs the program; the exit code is 0 done, 1 failed, 2 wrong usage.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
