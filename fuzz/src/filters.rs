//! A filter and the metadata of some documents: what the postings give is what a look at every document gives.
//!
//! One JSON value a line: the filter, then metadata.

#[path = "../../src/corpus/store/tests/meaning.rs"]
mod meaning;

use anced::corpus::{Document, Filter, Store};
use serde_json::{Map, Value};
use tempfile::TempDir;

use self::meaning::matches;
use super::{Shared, document, scratch};

/// Documents in one input at most.
const DOCUMENTS: usize = 8;
/// Inputs after which the store is made anew.
const INPUTS: u32 = 2000;

thread_local! {
    static STORE: Shared<(Store, TempDir)> = const { Shared::new() };
}

pub fn run(input: &[u8]) {
    let mut values = input.split(|byte| *byte == b'\n').map_while(|line| serde_json::from_slice::<Value>(line).ok());
    let Some(filter) = values.next() else { return };
    let parsed = Filter::parse(&filter);
    let documents: Vec<Document> = values
        .filter(Value::is_object)
        .take(DOCUMENTS)
        .enumerate()
        .map(|(number, metadata)| document(number, "a", metadata))
        .filter(|document| document.check().is_ok())
        .collect();
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(!error.rule.is_empty());
            return;
        }
    };
    let open = || {
        let folder = scratch();
        (Store::open(folder.path()).unwrap(), folder)
    };
    STORE.with(|shared| shared.with(INPUTS, open, |(store, _)| compare(store, &filter, &parsed, &documents)));
}

fn compare(store: &Store, filter: &Value, parsed: &Filter, documents: &[Document]) {
    store.write(documents).unwrap();
    let found: Vec<u64> = store.matching(parsed).unwrap().iter().collect();
    let current = store.current(0, DOCUMENTS).unwrap();
    let expected: Vec<u64> =
        current.iter().filter(|one| matches(filter, &one.document.metadata)).map(|one| one.sequence).collect();
    assert_eq!(found, expected);
    let ids: Vec<String> = current.into_iter().map(|one| one.document.id).collect();
    store.delete(&ids).unwrap();
    assert!(store.matching(&Filter::parse(&Value::Object(Map::new())).unwrap()).unwrap().is_empty());
}
