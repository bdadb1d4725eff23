//! MS MARCO's tab-separated files; no quoting, as the collection is written.

use serde_json::{Map, Value};

use crate::corpus::{Document, Query};

/// Reads `pid⇥text` of `collection.tsv`.
pub(super) fn passage(line: &str) -> Result<Document, String> {
    let Some((id, text)) = line.split_once('\t') else {
        return Err("expected `pid`, a tab, `text`; there is no tab".into());
    };
    Ok(Document { id: id.trim().into(), title: String::new(), text: text.into(), metadata: Map::new() })
}

/// Reads `docid⇥url⇥title⇥body` of `msmarco-docs.tsv`; the address becomes the metadata field `url`.
pub(super) fn document(line: &str) -> Result<Document, String> {
    let fields: Vec<&str> = line.splitn(4, '\t').collect();
    let [id, url, title, body] = fields[..] else {
        return Err(format!("expected `docid`, `url`, `title`, `body` between tabs, found {} fields", fields.len()));
    };
    let metadata = Map::from_iter([("url".to_owned(), Value::from(url))]);
    Ok(Document { id: id.trim().into(), title: title.into(), text: body.into(), metadata })
}

/// Reads `qid⇥text` of `queries.*.tsv`.
pub(super) fn query(line: &str) -> Result<Query, String> {
    match line.split_once('\t') {
        Some((id, text)) if !text.trim().is_empty() => {
            Ok(Query { id: id.trim().into(), text: text.trim().into(), answers: Vec::new() })
        }
        Some(_) => Err("the query is empty".into()),
        None => Err("expected `qid`, a tab, the query; there is no tab".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_separated_by_tabs_without_quoting() {
        let read = passage("7\ta \"quoted\" text\twith a tab").unwrap();
        assert_eq!((read.id.as_str(), read.text.as_str()), ("7", "a \"quoted\" text\twith a tab"));
        let read = document("D1\thttp://x\tTitle\tBody").unwrap();
        assert_eq!(
            (read.title.as_str(), read.text.as_str(), &read.metadata["url"]),
            ("Title", "Body", &"http://x".into())
        );
        assert_eq!(query("12\twhat is it").unwrap().text, "what is it");
    }

    #[test]
    fn missing_fields_are_refused() {
        assert!(passage("7 text").unwrap_err().contains("no tab"));
        assert!(document("D1\thttp://x\tTitle").unwrap_err().contains("found 3 fields"));
        assert!(query("12").unwrap_err().contains("no tab"));
        assert!(query("12\t ").unwrap_err().contains("empty"));
    }
}
