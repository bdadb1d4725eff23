//! Filters over postings against a look at every document.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::meaning::matches;
use super::{document, open};
use crate::corpus::{Document, Filter};

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..4i64).prop_map(Value::from),
        prop_oneof![Just(-0.0), Just(0.5), Just(-1e9), Just(1e300)].prop_map(Value::from),
        "[ab]{0,2}".prop_map(Value::from),
        // Strings that share all that a key holds of them, and some that are just as long as it holds.
        (250..260usize, "[ab]{0,2}").prop_map(|(length, end)| Value::from(format!("{}{end}", "a".repeat(length)))),
    ]
}

fn metadata() -> impl Strategy<Value = Map<String, Value>> {
    let value = prop_oneof![
        4 => scalar(),
        1 => prop::collection::vec(scalar(), 0..4).prop_map(Value::from),
        1 => scalar().prop_map(|inner| json!({"n": inner})),
        1 => scalar().prop_map(|inner| json!([{"n": inner}, [inner]])),
    ];
    prop::collection::btree_map("[xy]", value, 0..3).prop_map(|map| map.into_iter().collect())
}

fn filter() -> impl Strategy<Value = Value> {
    let field = prop_oneof![Just("x"), Just("y"), Just("x.n"), Just("y.n")];
    let bound = scalar()
        .prop_filter("numbers and strings have an order", |value| value.is_number() || value.is_string())
        .boxed();
    let range = (bound.clone(), bound, 0..6usize).prop_filter_map("bounds of one type", |(lower, upper, kind)| {
        let (low, high) = [("gt", "lt"), ("gt", "lte"), ("gte", "lt"), ("gte", "lte"), ("gt", ""), ("", "lte")][kind];
        (lower.is_number() == upper.is_number()).then(|| {
            let mut bounds = Map::from_iter([(low.to_owned(), lower), (high.to_owned(), upper)]);
            bounds.remove("");
            Value::Object(bounds)
        })
    });
    let condition = prop_oneof![scalar(), prop::collection::vec(scalar(), 0..3).prop_map(Value::from), range];
    let leaf = prop::collection::btree_map(field, condition, 0..3)
        .prop_map(|map| Value::Object(map.into_iter().map(|(field, value)| (field.to_owned(), value)).collect()));
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|all| json!({"and": all})),
            prop::collection::vec(inner.clone(), 0..3).prop_map(|any| json!({"or": any})),
            inner.prop_map(|inner| json!({"not": inner})),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn filters_find_what_a_look_at_every_document_finds(
        documents in prop::collection::vec(metadata(), 0..8),
        changed in prop::collection::vec(metadata(), 0..4),
        filters in prop::collection::vec(filter(), 1..12),
    ) {
        let (_folder, store) = open();
        // Written twice in part, so that what the first version had must be gone.
        for batch in [&documents, &changed] {
            let batch: Vec<Document> = batch
                .iter()
                .enumerate()
                .map(|(number, metadata)| document(&number.to_string(), "", Value::Object(metadata.clone())))
                .collect();
            store.write(&batch).unwrap();
        }
        let live = store.current(0, 100).unwrap();
        for filter in &filters {
            let expected: Vec<u64> = live
                .iter()
                .filter(|found| matches(filter, &found.document.metadata))
                .map(|found| found.sequence)
                .collect();
            let found = store.matching(&Filter::parse(filter).unwrap()).unwrap();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{}", filter);
        }
        let everything: Vec<String> = live.iter().map(|found| found.document.id.clone()).collect();
        store.delete(&everything).unwrap();
        prop_assert!(store.read("count", |transaction| store.tables.postings.is_empty(transaction)).unwrap());
    }
}
