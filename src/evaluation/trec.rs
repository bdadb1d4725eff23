//! TREC run and qrels files: columns separated by white space.

use std::collections::{HashMap, HashSet};
use std::fs::{File, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::Error;
use super::ranking::Ranking;
use crate::corpus::{Judgment, Source, Split};

/// Writes a run: `query Q0 document rank score tag`, queries in the given order, documents by score. The file is
/// there whole or not at all.
///
/// # Errors
/// Names that are empty or hold white space, scores that are not finite, and whatever writing says.
pub fn write_run(path: &Path, tag: &str, rankings: &[Ranking]) -> Result<(), Error> {
    check_name("tag", tag)?;
    for ranking in rankings {
        check_name("query", &ranking.query)?;
        for (document, score) in &ranking.documents {
            check_name("document", document)?;
            if !score.is_finite() {
                return Err(Error::Score { query: ranking.query.clone(), document: document.clone(), score: *score });
            }
        }
    }
    replace_file(path, |file| {
        for Ranking { query, documents } in rankings {
            let mut documents: Vec<&(String, f32)> = documents.iter().collect();
            documents.sort_by(|one, other| other.1.total_cmp(&one.1));
            for (position, (document, score)) in documents.into_iter().enumerate() {
                writeln!(file, "{query} Q0 {document} {rank} {score} {tag}", rank = position + 1)?;
            }
        }
        Ok(())
    })
    .map_err(|source| Error::Write { path: path.to_path_buf(), source })
}

/// Reads a run; queries come in the order of their first line, documents in the order of the file.
///
/// # Errors
/// A file that cannot be read, and the first line that is wrong.
pub fn read_run(path: &Path) -> Result<Vec<Ranking>, Error> {
    let mut rankings: Vec<Ranking> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut seen: HashSet<(usize, String)> = HashSet::new();
    read_lines(path, |columns| {
        let &[query, _, document, _, score, _] = columns else {
            return Err(format!("{} columns instead of 6: query Q0 document rank score tag", columns.len()));
        };
        let number = score.parse::<f32>().ok().filter(|number| number.is_finite());
        let number = number.ok_or_else(|| format!("`{score}` is not a score"))?;
        let place = *places.entry(query.to_owned()).or_insert(rankings.len());
        if !seen.insert((place, document.to_owned())) {
            return Err(format!("document `{document}` comes twice for query `{query}`"));
        }
        if place == rankings.len() {
            rankings.push(Ranking { query: query.to_owned(), documents: Vec::new() });
        }
        if let Some(ranking) = rankings.get_mut(place) {
            ranking.documents.push((document.to_owned(), number));
        }
        Ok(())
    })?;
    Ok(rankings)
}

/// Reads qrels, `query iteration document grade`, as judgments of the given split.
///
/// # Errors
/// A file that cannot be read, and the first line that is wrong.
pub fn read_qrels(path: &Path, split: Split) -> Result<Vec<Judgment>, Error> {
    let mut judgments: Vec<Judgment> = Vec::new();
    let mut seen: HashSet<(String, String)> = HashSet::new();
    read_lines(path, |columns| {
        let &[query, _, document, grade] = columns else {
            return Err(format!("{} columns instead of 4: query iteration document grade", columns.len()));
        };
        let grade = grade.parse().map_err(|_| format!("`{grade}` is not a grade, a whole number"))?;
        if !seen.insert((query.to_owned(), document.to_owned())) {
            return Err(format!("document `{document}` is judged twice for query `{query}`"));
        }
        judgments.push(Judgment {
            query: query.to_owned(),
            document: document.to_owned(),
            grade,
            split,
            source: Source::File,
        });
        Ok(())
    })?;
    Ok(judgments)
}

fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(Error::Name { what, name: name.to_owned() });
    }
    Ok(())
}

/// Hands the columns of each line that is not blank to `take`, which says what is wrong with them.
fn read_lines(path: &Path, mut take: impl FnMut(&[&str]) -> Result<(), String>) -> Result<(), Error> {
    let failed = |source| Error::Read { path: path.to_path_buf(), source };
    let file = BufReader::new(File::open(path).map_err(failed)?);
    for (position, line) in file.split(b'\n').enumerate() {
        let wrong = |reason| Error::Line { path: path.to_path_buf(), line: position + 1, reason };
        let line = line.map_err(failed)?;
        let line = std::str::from_utf8(&line).map_err(|_| wrong("not UTF-8".to_owned()))?;
        let columns: Vec<&str> = line.split_whitespace().collect();
        if !columns.is_empty() {
            take(&columns).map_err(wrong)?;
        }
    }
    Ok(())
}

/// Writes beside the file, then renames, so that a reader never meets half of it.
fn replace_file(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Temporary files are the owner's alone by default; this one is to be as any other new file.
    let readable = Permissions::from_mode(0o666);
    let file = tempfile::Builder::new().prefix(".run-").permissions(readable).tempfile_in(folder)?;
    let mut writer = BufWriter::new(file.as_file());
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(query: &str, documents: &[(&str, f32)]) -> Ranking {
        Ranking { query: query.into(), documents: documents.iter().map(|(id, score)| ((*id).into(), *score)).collect() }
    }

    #[test]
    fn a_run_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.trec");
        std::fs::write(&path, "an older run").unwrap();
        let rankings =
            [ranking("q2", &[("b", 0.1), ("ä", 1.5e-8), ("c", -3.0)]), ranking("q1", &[("b", 16_777_217.0)])];
        write_run(&path, "bm25", &rankings).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().next(), Some("q2 Q0 b 1 0.1 bm25"));
        assert_eq!(read_run(&path).unwrap(), rankings);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left behind");
    }

    #[test]
    fn documents_are_written_by_score() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.trec");
        write_run(&path, "t", &[ranking("q", &[("low", 1.0), ("high", 2.0)])]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "q Q0 high 1 2 t\nq Q0 low 2 1 t\n");
    }

    #[test]
    fn what_a_run_cannot_express_is_refused_and_the_old_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.trec");
        write_run(&path, "t", &[]).unwrap();
        let cases = [
            ("t t", ranking("q", &[]), "tag `t t`"),
            ("t", ranking("a query", &[]), "query `a query`"),
            ("t", ranking("", &[]), "query ``"),
            ("t", ranking("q", &[("a\u{a0}b", 1.0)]), "document `a\u{a0}b`"),
            ("t", ranking("q", &[("a", f32::NAN)]), "not a finite number"),
        ];
        for (tag, ranking, expected) in cases {
            let error = write_run(&path, tag, &[ranking]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        let missing = folder.path().join("no/such/folder/run.trec");
        let error = write_run(&missing, "t", &[]).unwrap_err().to_string();
        assert!(error.contains("no/such/folder/run.trec: cannot be written"), "{error}");
    }

    #[test]
    fn a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let runs: [(&[u8], &str); 5] = [
            (b"q Q0 a 1 0.5 t\n\nq Q0 b 2 t\n", "file:3: 5 columns instead of 6"),
            (b"q Q0 a 1 much t\n", "file:1: `much` is not a score"),
            (b"q Q0 a 1 NaN t\n", "file:1: `NaN` is not a score"),
            (b"q Q0 a 1 1 t\nq Q0 a 2 1 t", "file:2: document `a` comes twice for query `q`"),
            (b"q Q0 a 1 1 t\nq Q0 \xff 2 1 t", "file:2: not UTF-8"),
        ];
        for (text, expected) in runs {
            std::fs::write(&path, text).unwrap();
            let error = read_run(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let qrels = [
            ("q 0 a\n", "file:1: 3 columns instead of 4"),
            ("q 0 a 1\nq 0 b one\n", "file:2: `one` is not a grade"),
            ("q 0 a 1\nq 0 a 0\n", "file:2: document `a` is judged twice"),
        ];
        for (text, expected) in qrels {
            std::fs::write(&path, text).unwrap();
            let error = read_qrels(&path, Split::Test).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = read_qrels(&folder.path().join("absent"), Split::Test).unwrap_err().to_string();
        assert!(error.contains("absent: cannot be read"), "{error}");
    }

    #[test]
    fn qrels_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qrels");
        std::fs::write(&path, "1\t0\td1\t2\r\n1 0 d2 -1\n").unwrap();
        let judgments = read_qrels(&path, Split::Dev).unwrap();
        let found: Vec<_> =
            judgments.iter().map(|one| (one.query.as_str(), one.document.as_str(), one.grade, one.split)).collect();
        assert_eq!(found, [("1", "d1", 2, Split::Dev), ("1", "d2", -1, Split::Dev)]);
    }
}
