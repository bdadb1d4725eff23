//! Documents as JSON, one a line: plain ones and BEIR's `corpus.jsonl`.

use serde_json::{Map, Value};

use crate::corpus::Document;

/// Reads `{"id": …, "title": …, "text": …, "metadata": {…}}`; `_id` will do for `id`, other fields become metadata.
pub(super) fn document(line: &str) -> Result<Document, String> {
    let mut fields = object(line)?;
    let id = id(&mut fields)?;
    if !fields.contains_key("text") && !fields.contains_key("title") {
        return Err("neither `text` nor `title`".into());
    }
    let title = string(&mut fields, "title")?;
    let text = string(&mut fields, "text")?;
    let mut metadata = match fields.shift_remove("metadata") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(metadata)) => metadata,
        Some(_) => return Err("`metadata` is not an object".into()),
    };
    for (name, value) in fields {
        if metadata.contains_key(&name) {
            return Err(format!("`{name}` is both in `metadata` and beside it"));
        }
        metadata.insert(name, value);
    }
    Ok(Document { id, title, text, metadata })
}

/// A line as a JSON object.
pub(super) fn object(line: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(line) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err("not a JSON object".into()),
        // The text ends in the place, whose line is always 1: the column alone is worth saying.
        Err(error) => Err(format!("not JSON: {}", error.to_string().replace(" at line 1 column", " at column"))),
    }
}

/// Takes the id out: a string or a whole number, at `id` or `_id`.
pub(super) fn id(fields: &mut Map<String, Value>) -> Result<String, String> {
    let name = if fields.contains_key("id") { "id" } else { "_id" };
    match fields.shift_remove(name) {
        Some(Value::String(id)) => Ok(id),
        Some(Value::Number(number)) if !number.is_f64() => Ok(number.to_string()),
        Some(_) => Err(format!("`{name}` is neither a string nor a whole number")),
        None => Err("no `id` (or `_id`)".into()),
    }
}

/// Takes a text out, empty where it is missing or null.
pub(super) fn string(fields: &mut Map<String, Value>, name: &str) -> Result<String, String> {
    match fields.shift_remove(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("`{name}` is not a string")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn other_fields_become_metadata() {
        let read =
            document(r#"{"_id": 7, "lang": "en", "text": "t", "title": null, "metadata": {"year": 2020}}"#).unwrap();
        assert_eq!((read.id.as_str(), read.title.as_str(), read.text.as_str()), ("7", "", "t"));
        assert_eq!(Value::Object(read.metadata), json!({"year": 2020, "lang": "en"}));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, reason) in [
            ("{", "not JSON: EOF"),
            ("[]", "not a JSON object"),
            (r#""text""#, "not a JSON object"),
            (r#"{"text": "a"}"#, "no `id`"),
            (r#"{"id": "a"}"#, "neither `text` nor `title`"),
            (r#"{"id": 1.5, "text": "a"}"#, "`id` is neither"),
            (r#"{"_id": null, "text": "a"}"#, "`_id` is neither"),
            (r#"{"id": "a", "text": 3}"#, "`text` is not a string"),
            (r#"{"id": "a", "text": "", "metadata": []}"#, "`metadata` is not an object"),
            (r#"{"id": "a", "text": "", "x": 1, "metadata": {"x": 1}}"#, "`x` is both"),
            (r#"{"id": "a", "text": "\ud800"}"#, "at column"),
        ] {
            let error = document(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
        assert!(document(&"[".repeat(100_000)).unwrap_err().contains("recursion limit"));
    }
}
