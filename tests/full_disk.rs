//! A store that finds no more room says so and loses nothing; a small limit on file size stands in for a full disk.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

use anced::corpus::{Document, Error, Store};

const FOLDER: &str = "FULL_DISK_TEST_FOLDER";

fn document(number: u64) -> Document {
    Document {
        id: number.to_string(),
        title: String::new(),
        text: "x".repeat(10_000),
        metadata: serde_json::Map::new(),
    }
}

#[test]
fn a_write_without_room_is_refused_and_earlier_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new("sh")
        .args(["-c", "ulimit -f 4096; exec \"$0\" --exact fill --ignored --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{} {printed} {}", run.status, String::from_utf8_lossy(&run.stderr));
    let kept: u64 = printed.split_once("kept ").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
    assert!(kept > 0);

    let store = Store::open(folder.path()).unwrap();
    assert_eq!((store.count().unwrap(), store.last_sequence().unwrap()), (kept, kept));
    assert_eq!(store.current(0, 1_000_000).unwrap().len() as u64, kept);
    assert_eq!(store.write(&[document(kept)]).unwrap()[0].sequence, kept + 1);
}

#[test]
#[ignore = "run by the test above, under its limit"]
fn fill() {
    // Without the test above (`--include-ignored`) there is no limit to meet.
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = Store::open(Path::new(&folder)).unwrap();
    let mut kept = 0;
    let error = loop {
        match store.write(&[document(kept)]) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 10_000, "the limit does not hold");
    };
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("write documents") && message.contains("file size"), "{message}");
    assert_eq!(store.count().unwrap(), kept);
    assert_eq!(store.document(&(kept - 1).to_string()).unwrap().unwrap().document, document(kept - 1));
    assert!(store.write(&[document(kept)]).is_err());
    println!("kept {kept} documents");
}

/// The map takes as much address space as it can have, far more than a disk; where the system gives little, the store
/// ends there.
#[test]
fn a_store_without_address_space_refuses_the_write_and_grows_with_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new("sh")
        .args(["-c", "ulimit -v 500000; exec \"$0\" --exact fill_map --ignored --nocapture --test-threads 1"])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{} {printed} {}", run.status, String::from_utf8_lossy(&run.stderr));
    let kept: u64 = printed.split_once("kept ").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();

    let store = Store::open(folder.path()).unwrap();
    assert_eq!((store.count().unwrap(), store.last_sequence().unwrap()), (kept, kept));
    assert_eq!(store.write(&large(kept)).unwrap()[0].sequence, kept + 1);
}

fn large(first: u64) -> Vec<Document> {
    (first..first + 100).map(|number| Document { text: "x".repeat(200_000), ..document(number) }).collect()
}

#[test]
#[ignore = "run by the test above, under its limit"]
fn fill_map() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = Store::open(Path::new(&folder)).unwrap();
    let mut kept = 0;
    let error = loop {
        match store.write(&large(kept)) {
            Ok(_) => kept += 100,
            Err(error) => break error,
        }
        assert!(kept < 10_000, "the limit does not hold");
    };
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("ulimit -v"), "{error}");
    assert_eq!(store.count().unwrap(), kept);
    assert!(store.document(&(kept - 1).to_string()).unwrap().is_some());
    println!("kept {kept} documents");
}
