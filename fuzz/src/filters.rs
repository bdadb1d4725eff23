//! A filter and the metadata of some documents: what the postings give is what a look at every document gives.
//!
//! One JSON value a line: the filter, then metadata.

use std::cell::RefCell;

use anced::corpus::{Document, Filter, Store};
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::scratch;

/// Documents in one input at most.
const DOCUMENTS: usize = 8;
/// Inputs after which the store is made anew: its log only grows.
const INPUTS: u32 = 2000;

struct World {
    store: Store,
    used: u32,
    _folder: TempDir,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

pub fn run(input: &[u8]) {
    let mut values = input.split(|byte| *byte == b'\n').map_while(|line| serde_json::from_slice::<Value>(line).ok());
    let Some(filter) = values.next() else { return };
    let parsed = Filter::parse(&filter);
    let documents: Vec<Document> = values
        .filter_map(|value| if let Value::Object(metadata) = value { Some(metadata) } else { None })
        .take(DOCUMENTS)
        .enumerate()
        .map(|(number, metadata)| Document { id: number.to_string(), title: String::new(), text: "a".into(), metadata })
        .filter(|document| document.check().is_ok())
        .collect();
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(!error.rule.is_empty());
            return;
        }
    };
    WORLD.with_borrow_mut(|world| {
        if world.as_ref().is_some_and(|world| world.used == INPUTS) {
            *world = None;
        }
        let world = world.get_or_insert_with(|| {
            let folder = scratch();
            World { store: Store::open(folder.path()).unwrap(), used: 0, _folder: folder }
        });
        world.used += 1;
        compare(&world.store, &filter, &parsed, &documents);
    });
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

/// The meaning of filters, said once more without postings.
fn matches(filter: &Value, metadata: &Map<String, Value>) -> bool {
    filter.as_object().unwrap().iter().all(|(name, condition)| match (name.as_str(), condition) {
        ("and", Value::Array(all)) => all.iter().all(|filter| matches(filter, metadata)),
        ("or", Value::Array(any)) => any.iter().any(|filter| matches(filter, metadata)),
        ("not", filter) => !matches(filter, metadata),
        (path, condition) => {
            let mut found = Vec::new();
            collect(metadata, path, &mut found);
            found.iter().any(|value| holds(value, condition))
        }
    })
}

/// All values whose names, joined by dots, are the path: names may hold dots themselves.
fn collect<'value>(map: &'value Map<String, Value>, path: &str, found: &mut Vec<&'value Value>) {
    for (name, value) in map {
        if name == path {
            flatten(value, "", true, found);
        } else if let Some(rest) = path.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('.')) {
            flatten(value, rest, false, found);
        }
    }
}

/// The values in nested arrays: themselves where the path ends, what their objects hold at its rest where it does not.
fn flatten<'value>(value: &'value Value, rest: &str, ended: bool, found: &mut Vec<&'value Value>) {
    match value {
        Value::Array(elements) => elements.iter().for_each(|element| flatten(element, rest, ended, found)),
        Value::Object(map) if !ended => collect(map, rest, found),
        Value::Object(_) => {}
        scalar if ended => found.push(scalar),
        _ => {}
    }
}

fn holds(value: &Value, condition: &Value) -> bool {
    match condition {
        Value::Object(bounds) => bounds.iter().all(|(name, bound)| {
            let order = match (value, bound) {
                (Value::Number(value), Value::Number(bound)) => {
                    value.as_f64().unwrap().partial_cmp(&bound.as_f64().unwrap())
                }
                (Value::String(value), Value::String(bound)) => Some(value.as_bytes().cmp(bound.as_bytes())),
                _ => None,
            };
            order.is_some_and(|order| match name.as_str() {
                "gt" => order.is_gt(),
                "gte" => order.is_ge(),
                "lt" => order.is_lt(),
                _ => order.is_le(),
            })
        }),
        Value::Array(any) => any.iter().any(|wanted| is_equal(value, wanted)),
        wanted => is_equal(value, wanted),
    }
}

fn is_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        _ => left == right,
    }
}
