//! Starts the program, nothing else.

fn main() {
    anced::command::run()
}
