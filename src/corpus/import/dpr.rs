//! DPR's files: `psgs_w100.tsv` and question files, tab-separated with quoting.

use csv::{ReaderBuilder, StringRecord};
use serde_json::Map;

use crate::corpus::{Document, Query};

/// Whether the first line of a passage file names its columns.
pub(super) fn is_header(line: &str) -> bool {
    line.trim_end() == "id\ttext\ttitle"
}

/// Reads `id⇥text⇥title`.
pub(super) fn passage(line: &str) -> Result<Document, String> {
    let fields = fields(line)?;
    match (fields.get(0), fields.get(1), fields.get(2), fields.len()) {
        (Some(id), Some(text), Some(title), 3) => {
            Ok(Document { id: id.into(), title: title.into(), text: text.into(), metadata: Map::new() })
        }
        _ => Err(format!(
            "expected `id`, `text`, `title` between tabs, found {} fields{}",
            fields.len(),
            open_quote(line)
        )),
    }
}

/// Reads `question⇥['answer', "answer"]`; the question's id is made of the file's stem and the line number.
pub(super) fn question(line: &str, stem: &str, number: u64) -> Result<Query, String> {
    let fields = fields(line)?;
    let (Some(text), Some(answers), 2) = (fields.get(0), fields.get(1), fields.len()) else {
        let count = fields.len();
        return Err(format!(
            "expected `question` and `answers` between tabs, found {count} fields{}",
            open_quote(line)
        ));
    };
    if text.trim().is_empty() {
        return Err("the question is empty".into());
    }
    let Some(answers) = string_list(answers.trim()) else {
        return Err("the answers are not a list of strings, as ['a', \"b\"]".into());
    };
    Ok(Query { id: format!("{stem}-{number}"), text: text.trim().into(), answers })
}

fn fields(line: &str) -> Result<StringRecord, String> {
    let mut builder = ReaderBuilder::new();
    builder.delimiter(b'\t').has_headers(false).flexible(true).buffer_capacity(line.len().max(1));
    let mut record = StringRecord::new();
    builder.from_reader(line.as_bytes()).read_record(&mut record).map_err(|error| error.to_string())?;
    Ok(record)
}

fn open_quote(line: &str) -> &'static str {
    if line.matches('"').count() % 2 == 1 { " (a quote is not closed on its line)" } else { "" }
}

/// Reads a list of string literals as Python writes it.
fn string_list(text: &str) -> Option<Vec<String>> {
    let mut rest = text.strip_prefix('[')?.trim_start();
    let mut strings = Vec::new();
    loop {
        if let Some(end) = rest.strip_prefix(']') {
            return end.trim().is_empty().then_some(strings);
        }
        let (string, after) = literal(rest)?;
        strings.push(string);
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with(']') => {}
            None => return None,
        }
    }
}

/// Reads one literal; returns it and what follows.
fn literal(text: &str) -> Option<(String, &str)> {
    let mut characters = text.chars();
    let quote = characters.next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let mut string = String::new();
    loop {
        match characters.next()? {
            '\\' => match characters.next()? {
                'n' => string.push('\n'),
                't' => string.push('\t'),
                'r' => string.push('\r'),
                'x' => string.push(code_point(&mut characters, 2)?),
                'u' => string.push(code_point(&mut characters, 4)?),
                'U' => string.push(code_point(&mut characters, 8)?),
                escaped @ ('\\' | '\'' | '"') => string.push(escaped),
                // Python keeps the backslash of an escape that it does not know.
                other => string.extend(['\\', other]),
            },
            end if end == quote => return Some((string, characters.as_str())),
            character => string.push(character),
        }
    }
}

fn code_point(characters: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let mut code = 0;
    for _ in 0..digits {
        code = code * 16 + characters.next()?.to_digit(16)?;
    }
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_are_unquoted() {
        let read = passage("1\t\"Aaron \"\"the\"\" prophet\"\tAaron").unwrap();
        assert_eq!(
            (read.id.as_str(), read.text.as_str(), read.title.as_str()),
            ("1", "Aaron \"the\" prophet", "Aaron")
        );
        assert_eq!(passage("2\tplain \"inner\" quotes\t\"T\"").unwrap().text, "plain \"inner\" quotes");
        assert!(is_header("id\ttext\ttitle\r"));
        assert!(passage("3\ttext").unwrap_err().contains("found 2 fields"));
        assert!(passage("3\t\"open\tTitle").unwrap_err().contains("a quote is not closed"));
    }

    #[test]
    fn questions_have_answers() {
        for (line, answers) in [
            ("who?\t['a']", vec!["a"]),
            ("who?\t['a', \"b's\", 'c \\'d\\'']", vec!["a", "b's", "c 'd'"]),
            ("who?\t\"['a', \"\"b's\"\"]\"", vec!["a", "b's"]),
            ("who?\t[]", vec![]),
            (r"who?	['\xe9\u00e9\U0001F600\\ \d']", vec!["éé😀\\ \\d"]),
            ("who?\t['a' ,'b', ]", vec!["a", "b"]),
        ] {
            let read = question(line, "nq-test.qa", 17).unwrap();
            assert_eq!((read.id.as_str(), read.text.as_str()), ("nq-test.qa-17", "who?"));
            assert_eq!(read.answers, answers, "{line}");
        }
    }

    #[test]
    fn bad_answers_are_refused() {
        for answers in ["", "a", "['a'", "['a' 'b']", "['a", "[a]", "['a']x", "[1]", r"['\ud800']", r"['\x']", "[,]"] {
            assert!(question(&format!("who?\t{answers}"), "q", 1).is_err(), "{answers}");
        }
        assert!(question("who?", "q", 1).unwrap_err().contains("found 1 fields"));
        assert!(question("\t['a']", "q", 1).is_err());
    }
}
