//! The inputs that fuzzing kept (`fuzz/seeds`), each through its target: what was found once stays mended.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

#[test]
fn kept_inputs_find_nothing() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (name, run) in fuzz::TARGETS {
        let mut inputs: Vec<_> =
            std::fs::read_dir(seeds.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name} has no inputs");
        for input in inputs {
            let bytes = std::fs::read(&input).unwrap();
            let found = std::panic::catch_unwind(|| run(&bytes));
            assert!(found.is_ok(), "{} fails its target", input.display());
        }
    }
}
