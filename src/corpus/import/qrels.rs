//! Judgments: BEIR's three columns with a header, and TREC's four, as MS MARCO has them.

use crate::corpus::document::id_rule;
use crate::corpus::{Judgment, Source, Split};

/// Whether the first line of a file names its columns.
pub(super) fn is_header(line: &str) -> bool {
    line.split('\t').next_back().is_some_and(|last| last.trim().eq_ignore_ascii_case("score"))
}

/// Reads `query⇥document⇥grade` (tabs, so that ids may hold spaces) or `query 0 document grade` (any white space).
pub(super) fn judgment(line: &str, split: Split) -> Result<Judgment, String> {
    let by_tab: Vec<&str> = line.trim_end_matches(['\r', '\t', ' ']).split('\t').map(str::trim).collect();
    let by_space: Vec<&str> = line.split_whitespace().collect();
    let (query, document, grade) = match (&by_tab[..], &by_space[..]) {
        ([query, document, grade], _) | ([query, _, document, grade], _) | (_, [query, _, document, grade]) => {
            (*query, *document, *grade)
        }
        _ => return Err("expected `query`, `document`, `grade` between tabs, or `query 0 document grade`".into()),
    };
    for (name, id) in [("query", query), ("document", document)] {
        if let Some(rule) = id_rule(id) {
            return Err(format!("{name}: {rule}"));
        }
    }
    let Some(grade) = whole_number(grade) else {
        return Err(format!("the grade `{grade}` is not a whole number"));
    };
    Ok(Judgment { query: query.into(), document: document.into(), grade, split, source: Source::File })
}

/// A whole number; some qrels are written with `1.0`.
fn whole_number(text: &str) -> Option<i32> {
    let whole =
        text.split_once('.').filter(|(_, rest)| rest.bytes().all(|byte| byte == b'0')).map_or(text, |(whole, _)| whole);
    whole.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_and_four_columns_are_read() {
        for (line, query, document, grade) in [
            ("q1\td1\t1", "q1", "d1", 1),
            ("q 1\td 1\t2.0\r", "q 1", "d 1", 2),
            ("q1\t0\td1\t0", "q1", "d1", 0),
            ("q1 Q0  d1 -1", "q1", "d1", -1),
        ] {
            let read = judgment(line, Split::Dev).unwrap();
            assert_eq!((read.query.as_str(), read.document.as_str(), read.grade), (query, document, grade), "{line}");
            assert_eq!((read.split, read.source), (Split::Dev, Source::File));
        }
        assert!(is_header("query-id\tcorpus-id\tscore"));
        assert!(!is_header("q1\td1\t1"));
    }

    #[test]
    fn other_lines_are_refused() {
        for (line, reason) in [
            ("q1 d1 1", "expected"),
            ("q1\td1", "expected"),
            ("q1\td1\tx", "`x` is not a whole number"),
            ("q1\td1\t0.5", "`0.5` is not"),
            ("\td1\t1", "query: the id is empty"),
        ] {
            let error = judgment(line, Split::Test).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
