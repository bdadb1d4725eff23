//! BEIR's `queries.jsonl`; its documents are read by `jsonl`, its judgments by `qrels`.

use serde_json::Value;

use super::jsonl;
use crate::corpus::Query;

/// Reads `{"_id": …, "text": …}`; `answers`, a list of strings, is kept, other fields are passed over.
pub(super) fn query(line: &str) -> Result<Query, String> {
    let mut fields = jsonl::object(line)?;
    let id = jsonl::id(&mut fields)?;
    let text = jsonl::string(&mut fields, "text")?;
    if text.trim().is_empty() {
        return Err("`text` is missing or empty".into());
    }
    let answers = match fields.shift_remove("answers") {
        None | Some(Value::Null) => Vec::new(),
        Some(answers) => serde_json::from_value(answers).map_err(|_| "`answers` is not a list of strings")?,
    };
    Ok(Query { id, text, answers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_have_an_id_and_a_text() {
        let read = query(r#"{"_id": "q1", "text": "what", "metadata": {"a": 1}}"#).unwrap();
        assert_eq!(read, Query { id: "q1".into(), text: "what".into(), answers: Vec::new() });
        assert_eq!(query(r#"{"id": 1, "text": "what", "answers": ["a"]}"#).unwrap().answers, ["a"]);
        assert!(query(r#"{"_id": "q1", "text": " "}"#).unwrap_err().contains("empty"));
        assert!(query(r#"{"_id": "q1", "text": "a", "answers": "b"}"#).unwrap_err().contains("list"));
    }
}
