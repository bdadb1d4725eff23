//! Filters over postings against a look at every document.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

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

/// All values at a dotted path, found by going down it.
fn at<'value>(value: &'value Value, path: &[&str]) -> Vec<&'value Value> {
    match (value, path) {
        (Value::Array(elements), _) => elements.iter().flat_map(|element| at(element, path)).collect(),
        (Value::Object(map), [name, rest @ ..]) => map.get(*name).map(|inner| at(inner, rest)).unwrap_or_default(),
        (Value::Object(_), []) | (_, [_, ..]) => Vec::new(),
        (scalar, []) => vec![scalar],
    }
}

fn is_equal(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

fn is_inside(value: &Value, bounds: &Map<String, Value>) -> bool {
    bounds.iter().all(|(name, bound)| {
        let order = match (value, bound) {
            (Value::Number(value), Value::Number(bound)) => {
                value.as_f64().unwrap().partial_cmp(&bound.as_f64().unwrap())
            }
            (Value::String(value), Value::String(bound)) => Some(value.cmp(bound)),
            _ => None,
        };
        order.is_some_and(|order| match name.as_str() {
            "gt" => order.is_gt(),
            "gte" => order.is_ge(),
            "lt" => order.is_lt(),
            _ => order.is_le(),
        })
    })
}

/// The meaning of filters, said once more without postings.
fn matches(filter: &Value, metadata: &Value) -> bool {
    filter.as_object().unwrap().iter().all(|(name, condition)| match (name.as_str(), condition) {
        ("and", Value::Array(all)) => all.iter().all(|filter| matches(filter, metadata)),
        ("or", Value::Array(any)) => any.iter().any(|filter| matches(filter, metadata)),
        ("not", filter) => !matches(filter, metadata),
        (field, condition) => {
            let found = at(metadata, &field.split('.').collect::<Vec<_>>());
            match condition {
                Value::Object(bounds) => found.iter().any(|value| is_inside(value, bounds)),
                Value::Array(any) => any.iter().any(|wanted| found.iter().any(|value| is_equal(value, wanted))),
                wanted => found.iter().any(|value| is_equal(value, wanted)),
            }
        }
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
                .filter(|found| matches(filter, &Value::Object(found.document.metadata.clone())))
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
