//! Starts the program, nothing else.

fn main() -> std::process::ExitCode {
    anced::command::run()
}
