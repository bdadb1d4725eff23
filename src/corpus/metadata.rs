//! Metadata as the filters see them: every value at its dotted path, and its key in the postings.

use std::cmp::Ordering;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Levels of objects and arrays that metadata may have.
const DEPTH: usize = 32;
/// Values that the metadata of one document may hold.
const VALUES: usize = 10_000;
/// Bytes of a path that a key holds as they are; of a longer one it holds the digest.
const PATH_BYTES: usize = 128;
/// Bytes of a string that a key holds as they are; a longer one ends in its digest.
pub(super) const STRING_BYTES: usize = 256;
const DIGEST_PATH: u8 = 0xff;

/// The key under which the postings list every document.
pub(super) const EVERY_DOCUMENT: &[u8] = &[0xfe];

/// A value that a filter can compare.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
}

impl Scalar {
    /// The scalar of a JSON value, none for arrays and objects.
    pub(super) fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            // Without serde_json's `arbitrary_precision` every number has an f64. Adding 0 turns -0 into 0.
            Value::Number(number) => Self::Number(number.as_f64()? + 0.0),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(_) | Value::Object(_) => return None,
        })
    }

    /// The order of two scalars of one type: numbers by size, strings bytewise; none across types.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(left), Self::Number(right)) => left.partial_cmp(right),
            (Self::Text(left), Self::Text(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
            _ => None,
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Number(_) => 2,
            Self::Text(_) => 3,
        }
    }

    /// The scalar as bytes that sort as the scalars of its type do, but for strings past [`STRING_BYTES`].
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Null => Vec::new(),
            Self::Bool(value) => vec![u8::from(*value)],
            Self::Number(value) => ordered(*value).to_be_bytes().to_vec(),
            Self::Text(text) if text.len() <= STRING_BYTES => text.as_bytes().to_vec(),
            Self::Text(text) => {
                let mut bytes = start(text.as_bytes()).to_vec();
                bytes.extend_from_slice(&Sha256::digest(text.as_bytes()));
                bytes
            }
        }
    }
}

/// The first [`STRING_BYTES`] bytes of a string.
fn start(text: &[u8]) -> &[u8] {
    text.get(..STRING_BYTES).unwrap_or(text)
}

/// The bytes at which the value parts of keys start that hold this value of a bound, or a greater one.
pub(super) fn sortable(value: &Scalar) -> Vec<u8> {
    match value {
        Scalar::Text(text) => start(text.as_bytes()).to_vec(),
        other => other.bytes(),
    }
}

/// The value part of a key read back, as a number or a string as `like` is; none where the key does not hold it all.
pub(super) fn decode(like: &Scalar, value: &[u8]) -> Option<Scalar> {
    match like {
        Scalar::Number(_) => Some(Scalar::Number(unordered(u64::from_be_bytes(value.try_into().ok()?)))),
        Scalar::Text(_) if value.len() <= STRING_BYTES => Some(Scalar::Text(String::from_utf8(value.to_vec()).ok()?)),
        _ => None,
    }
}

/// An integer that sorts as the float does.
fn ordered(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 0 { bits | (1 << 63) } else { !bits }
}

/// The inverse of [`ordered`].
fn unordered(number: u64) -> f64 {
    f64::from_bits(if number >> 63 == 1 { number & !(1 << 63) } else { !number })
}

/// The part of a key that says path and type; the value follows it.
pub(super) fn key_start(path: &str, like: &Scalar) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + PATH_BYTES);
    match u8::try_from(path.len()) {
        Ok(length) if path.len() <= PATH_BYTES => {
            key.push(length);
            key.extend_from_slice(path.as_bytes());
        }
        _ => {
            key.push(DIGEST_PATH);
            key.extend_from_slice(&Sha256::digest(path.as_bytes()));
        }
    }
    key.push(like.tag());
    key
}

/// The key of a value at a path.
pub(super) fn key(path: &str, value: &Scalar) -> Vec<u8> {
    let mut key = key_start(path, value);
    key.extend_from_slice(&value.bytes());
    key
}

/// Calls `visit` with every value and its dotted path; each element of an array is at the array's path.
///
/// Values deeper than the store takes are passed over.
pub(super) fn walk(metadata: &Map<String, Value>, visit: &mut dyn FnMut(&str, Scalar)) {
    let mut path = String::new();
    object(metadata, &mut path, DEPTH, visit);
}

fn object(map: &Map<String, Value>, path: &mut String, depth: usize, visit: &mut dyn FnMut(&str, Scalar)) {
    let outer = path.len();
    for (name, inner) in map {
        if depth < DEPTH {
            path.push('.');
        }
        path.push_str(name);
        value(inner, path, depth, visit);
        path.truncate(outer);
    }
}

fn value(inner: &Value, path: &mut String, depth: usize, visit: &mut dyn FnMut(&str, Scalar)) {
    match inner {
        Value::Array(elements) if depth > 0 => {
            elements.iter().for_each(|element| value(element, path, depth - 1, visit))
        }
        Value::Object(map) if depth > 0 => object(map, path, depth - 1, visit),
        scalar => {
            if let Some(scalar) = Scalar::of(scalar) {
                visit(path, scalar);
            }
        }
    }
}

/// The keys of all values, each once.
pub(super) fn keys(metadata: &Map<String, Value>) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    walk(metadata, &mut |path, scalar| keys.push(key(path, &scalar)));
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The rule that metadata break, if any.
pub(super) fn rule(metadata: &Map<String, Value>) -> Option<&'static str> {
    // A stack of its own, so that no depth of nesting can exhaust the thread's.
    let mut open: Vec<(&Value, usize)> = metadata.values().map(|value| (value, 1)).collect();
    let mut values = 0;
    while let Some((value, depth)) = open.pop() {
        if depth > DEPTH {
            return Some("the metadata are nested deeper than 32 levels");
        }
        values += 1;
        if values > VALUES {
            return Some("the metadata hold more than 10000 values");
        }
        match value {
            Value::Array(elements) => open.extend(elements.iter().map(|element| (element, depth + 1))),
            Value::Object(map) => open.extend(map.values().map(|inner| (inner, depth + 1))),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_of_numbers_sort_as_numbers(left in any::<f64>(), right in any::<f64>()) {
            prop_assume!(left.is_finite() && right.is_finite());
            let (left, right) = (Scalar::Number(left + 0.0), Scalar::Number(right + 0.0));
            prop_assert_eq!(key("year", &left).cmp(&key("year", &right)), left.compare(&right).unwrap());
        }

        #[test]
        fn keys_fit_the_store_and_differ(path in ".{0,200}", left in ".{0,400}", right in ".{0,400}") {
            let (a, b) = (key(&path, &Scalar::Text(left.clone())), key(&path, &Scalar::Text(right.clone())));
            prop_assert!(a.len() <= 511 && b.len() <= 511);
            prop_assert_eq!(a == b, left == right);
        }
    }

    #[test]
    fn elements_and_nested_fields_have_their_paths() {
        let value = serde_json::json!({"a": [1, [true, {"b": "x"}]], "c": {"d": {"e": null}}, "f": [], "": 2});
        let mut seen = Vec::new();
        walk(value.as_object().unwrap(), &mut |path, scalar| seen.push((path.to_owned(), scalar)));
        let expected = [
            ("a", Scalar::Number(1.0)),
            ("a", Scalar::Bool(true)),
            ("a.b", Scalar::Text("x".into())),
            ("c.d.e", Scalar::Null),
            ("", Scalar::Number(2.0)),
        ];
        assert_eq!(seen, expected.map(|(path, scalar)| (path.to_owned(), scalar)));
    }
}
