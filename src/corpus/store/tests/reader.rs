//! A reader in another process that is killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;

use super::{document, open};
use crate::corpus::store::*;

const FOLDER: &str = "ANCED_TEST_READER_FOLDER";

/// Not a test of its own: what the next one starts and kills.
#[test]
fn reads_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = Store::open(Path::new(&folder)).unwrap();
    let _reading = store.env.read_txn().unwrap();
    println!("reading");
    loop {
        std::thread::park();
    }
}

#[test]
fn what_a_killed_process_read_does_not_make_the_file_grow() {
    let (_folder, store) = open();
    let written = |round: usize| document("a", &format!("{round} {}", "text ".repeat(20_000)), json!({}));
    (0..20).for_each(|round| drop(store.write(&[written(round)]).unwrap()));
    let pages = || store.env.info().last_page_number;
    let before = pages();

    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "corpus::store::tests::reader::reads_until_it_is_killed", "--nocapture"]);
    let mut reader = command.env(FOLDER, store.folder()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("reading")));
    (20..40).for_each(|round| drop(store.write(&[written(round)]).unwrap()));
    assert!(pages() > before + 200, "a reader that lives keeps what it reads: {} and {before} pages", pages());
    let before = pages();
    reader.kill().unwrap();
    reader.wait().unwrap();
    (40..80).for_each(|round| drop(store.write(&[written(round)]).unwrap()));
    assert!(pages() <= before, "{} pages, {before} when the reader was killed", pages());
}
