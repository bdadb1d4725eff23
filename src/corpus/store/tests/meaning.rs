//! The meaning of filters, said once more without postings; the fuzz target of filters compares with it too.

use serde_json::{Map, Value};

/// Whether a filter that parses matches metadata.
pub(super) fn matches(filter: &Value, metadata: &Map<String, Value>) -> bool {
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
