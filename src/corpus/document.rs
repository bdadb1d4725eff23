//! A document as users write and read it.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::metadata;

/// Bytes that an id of a document or a query has at most; a key of the store must hold it.
pub(super) const ID_BYTES: usize = 500;

/// One document: what a search finds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Document {
    /// Unique in the corpus; 1 to 500 bytes of UTF-8.
    pub id: String,
    /// May be empty.
    pub title: String,
    /// May be empty.
    pub text: String,
    /// Any JSON object; filters read it.
    pub metadata: Map<String, Value>,
}

/// The fields as they are read; all but the id may be absent.
#[derive(Deserialize)]
#[serde(remote = "Document", deny_unknown_fields)]
struct Fields {
    id: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    metadata: Map<String, Value>,
}

/// Reads an object; a derived reader would also take a list, field by position.
impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Document;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a document as an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Document, A::Error> {
                Fields::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl Document {
    /// Whether the store takes the document.
    ///
    /// # Errors
    /// The id is empty or longer than 500 bytes, or the metadata are nested too deep or hold too many values.
    pub fn check(&self) -> Result<(), InvalidDocument> {
        let refuse = |rule| Err(InvalidDocument { id: shortened(&self.id), rule });
        if let Some(rule) = id_rule(&self.id) {
            return refuse(rule);
        }
        match metadata::rule(&self.metadata) {
            Some(rule) => refuse(rule),
            None => Ok(()),
        }
    }
}

/// A document that the store does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("document `{id}`: {rule}")]
pub struct InvalidDocument {
    /// The document's id, shortened where it is long.
    pub id: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// A document together with the sequence number of the write that made it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDocument {
    /// The number of the write, the key of the document's vectors in every index.
    pub sequence: u64,
    /// The document as it was written.
    pub document: Document,
}

/// The rule that an id breaks, if any.
pub(super) fn id_rule(id: &str) -> Option<&'static str> {
    match id.len() {
        0 => Some("the id is empty; give it 1 to 500 bytes"),
        1..=ID_BYTES => None,
        _ => Some("the id is longer than 500 bytes of UTF-8"),
    }
}

/// An id for an error message: its first characters where it is long.
pub(super) fn shortened(id: &str) -> String {
    match id.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", id.get(..end).unwrap_or_default()),
        None => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(id: &str, metadata: Value) -> Document {
        let Value::Object(metadata) = metadata else { panic!("not an object") };
        Document { id: id.to_owned(), title: String::new(), text: String::new(), metadata }
    }

    #[test]
    fn a_document_is_an_object_and_not_a_list() {
        let read = |text: &str| serde_json::from_str::<Document>(text);
        assert_eq!(read(r#"{"id": "a"}"#).unwrap(), document("a", serde_json::json!({})));
        for (wrong, part) in [
            (r#"["a", "b"]"#, "expected a document as an object"),
            (r#""a""#, "expected a document as an object"),
            (r#"{"title": "a"}"#, "missing field `id`"),
            (r#"{"id": "a", "body": "b"}"#, "unknown field `body`"),
            (r#"{"id": "a", "id": "b"}"#, "duplicate field `id`"),
        ] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains(part), "{wrong}: {error}");
        }
    }

    #[test]
    fn ids_have_1_to_500_bytes() {
        for id in ["a", "ä b\u{0}c", &"x".repeat(500), &"é".repeat(250)] {
            assert_eq!(document(id, serde_json::json!({})).check(), Ok(()));
        }
        assert!(document("", serde_json::json!({})).check().unwrap_err().to_string().contains("empty"));
        let long = document(&"é".repeat(251), serde_json::json!({})).check().unwrap_err();
        assert!(long.to_string().contains("500 bytes") && long.id.ends_with('…') && long.id.len() < 200, "{long}");
    }

    #[test]
    fn metadata_are_bounded_in_depth_and_number() {
        // Built by hand: `json!` copies what it nests, recursing.
        let deep = (0..100_000).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        let refused = document("a", Value::Object(Map::from_iter([("deep".to_owned(), deep)])));
        assert!(refused.check().unwrap_err().to_string().contains("nested"));
        let many: Vec<u32> = (0..20_000).collect();
        assert!(document("a", serde_json::json!({"many": many})).check().unwrap_err().to_string().contains("values"));
        // Dropping the nested arrays would recurse; they live until the test process ends.
        std::mem::forget(refused);
    }
}
