//! Which files an import reads, and what each holds.

use std::fs;
use std::path::{Path, PathBuf};

use super::record::Kind;
use super::{Format, ImportOptions, dpr};
use crate::corpus::{Error, Split};

/// The name that stands for standard input.
pub(super) const STANDARD_INPUT: &str = "-";

/// One file and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) kind: Kind,
    pub(super) path: PathBuf,
}

/// The files of an import: documents first, then queries, then judgments.
pub(super) fn plan(paths: &[PathBuf], options: &ImportOptions) -> Result<Vec<Input>, Error> {
    let mut inputs = Vec::new();
    for path in paths {
        if path.as_os_str() == STANDARD_INPUT {
            inputs.push(Input { kind: standard_input(options), path: path.clone() });
        } else if metadata(path)?.is_dir() {
            inputs.extend(folder(path, options)?);
        } else {
            inputs.push(Input { kind: single(path, options)?, path: path.clone() });
        }
    }
    // Stable, so that files of a kind keep the order in which they were named.
    inputs.sort_by_key(|input| phase(&input.kind));
    Ok(inputs)
}

/// What a stream without a name holds: documents of the format, JSON lines where none is said.
pub(super) fn standard_input(options: &ImportOptions) -> Kind {
    match options.format {
        None | Some(Format::Jsonl | Format::Beir) => Kind::JsonDocuments,
        Some(Format::Msmarco) => Kind::MsmarcoPassages,
        Some(Format::Dpr) => Kind::DprPassages,
    }
}

fn phase(kind: &Kind) -> u8 {
    match kind {
        Kind::JsonDocuments | Kind::MsmarcoPassages | Kind::MsmarcoDocuments | Kind::DprPassages => 0,
        Kind::JsonQueries | Kind::MsmarcoQueries | Kind::DprQuestions(_) => 1,
        Kind::Judgments(_) => 2,
    }
}

fn single(path: &Path, options: &ImportOptions) -> Result<Kind, Error> {
    let split = options.split.or_else(|| split_of(&stem(path)));
    match classify(path, options.format)? {
        Some(content) => kind(path, content, split),
        None => {
            let reason = match options.format {
                None => "what the file holds cannot be told from its name; say it with --format beir|msmarco|dpr|jsonl",
                Some(Format::Msmarco) => {
                    "the name must hold `collection`, `docs`, `queries` or `qrels` to say what the file is"
                }
                Some(Format::Beir) => "the file must be corpus.jsonl, queries.jsonl or a qrels .tsv, plain or .gz",
                Some(Format::Dpr) => "the name must end in .tsv or .csv, plain or .gz",
                Some(Format::Jsonl) => "not a file of documents",
            };
            Err(Error::Format { path: path.to_path_buf(), reason: reason.into() })
        }
    }
}

fn folder(folder: &Path, options: &ImportOptions) -> Result<Vec<Input>, Error> {
    let mut files = entries(folder)?;
    let qrels = folder.join("qrels");
    if qrels.is_dir() && matches!(options.format, None | Some(Format::Beir)) {
        files.extend(entries(&qrels)?);
    }
    let mut inputs = Vec::new();
    for path in files {
        // Other files (licences, notes) lie in such folders too.
        let Some(content) = classify(&path, options.format)? else { continue };
        // In a folder the names of the files tell the splits apart; an option would put them all into one.
        let split = split_of(&stem(&path)).or(options.split);
        inputs.push(Input { kind: kind(&path, content, split)?, path });
    }
    if inputs.is_empty() {
        let reason = "the folder holds nothing to import: expected corpus.jsonl, queries.jsonl and qrels/*.tsv (beir), \
                      collection.tsv, queries.*.tsv and qrels.*.tsv (msmarco), psgs_w100.tsv and question files (dpr), \
                      or *.jsonl, each plain or .gz";
        return Err(Error::Format { path: folder.to_path_buf(), reason: reason.into() });
    }
    Ok(inputs)
}

/// What a file's name says about it.
enum Content {
    Known(Kind),
    Judgments,
}

fn kind(path: &Path, content: Content, split: Option<Split>) -> Result<Kind, Error> {
    match (content, split) {
        (Content::Known(kind), _) => Ok(kind),
        (Content::Judgments, Some(split)) => Ok(Kind::Judgments(split)),
        (Content::Judgments, None) => {
            let reason =
                "the name says no split; say it with --split train|dev|test, or put train, dev or test into the name";
            Err(Error::Format { path: path.to_path_buf(), reason: reason.into() })
        }
    }
}

fn classify(path: &Path, format: Option<Format>) -> Result<Option<Content>, Error> {
    let name = file_name(path);
    let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, ""));
    let is_json = matches!(extension, "jsonl" | "ndjson" | "json");
    let in_qrels = path.parent().and_then(Path::file_name).is_some_and(|folder| folder == "qrels");
    let is_judgments = name.contains("qrels") || (in_qrels && extension == "tsv");
    let known = |kind| Ok(Some(Content::Known(kind)));
    match format {
        Some(Format::Jsonl) => known(Kind::JsonDocuments),
        Some(Format::Beir) | None if is_json && stem.starts_with("queries") => known(Kind::JsonQueries),
        Some(Format::Beir) if is_json => known(Kind::JsonDocuments),
        Some(Format::Beir) if extension == "tsv" => Ok(Some(Content::Judgments)),
        None if matches!(extension, "jsonl" | "ndjson") => known(Kind::JsonDocuments),
        Some(Format::Msmarco) | None if is_judgments => Ok(Some(Content::Judgments)),
        Some(Format::Dpr) if matches!(extension, "tsv" | "csv") => known(dpr_kind(path, stem)?),
        None if stem.starts_with("psgs_w100") || name.ends_with(".qa.csv") => known(dpr_kind(path, stem)?),
        Some(Format::Msmarco) | None if extension == "tsv" => Ok(msmarco_kind(&name).map(Content::Known)),
        _ => Ok(None),
    }
}

fn msmarco_kind(name: &str) -> Option<Kind> {
    if name.contains("queries") {
        Some(Kind::MsmarcoQueries)
    } else if name.contains("docs") {
        Some(Kind::MsmarcoDocuments)
    } else if name.contains("collection") {
        Some(Kind::MsmarcoPassages)
    } else {
        None
    }
}

/// A passage file is known by its name or its header, which takes a look inside.
fn dpr_kind(path: &Path, stem: &str) -> Result<Kind, Error> {
    let is_passages = stem.contains("psgs") || (metadata(path)?.is_file() && dpr::is_header(&super::first_line(path)?));
    Ok(if is_passages { Kind::DprPassages } else { Kind::DprQuestions(stem.to_owned()) })
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::File { path: folder.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn metadata(path: &Path) -> Result<fs::Metadata, Error> {
    fs::metadata(path).map_err(|source| Error::File { path: path.to_path_buf(), source })
}

/// The file's name in lower case, without `.gz`.
fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.strip_suffix(".gz").map(str::to_owned).unwrap_or(name)
}

fn stem(path: &Path) -> String {
    let name = file_name(path);
    name.rsplit_once('.').map(|(stem, _)| stem.to_owned()).unwrap_or(name)
}

/// The split that a word of the name says: `qrels.dev.small`, `msmarco-doctrain-qrels`, `validation`.
fn split_of(stem: &str) -> Option<Split> {
    stem.split(|character: char| !character.is_ascii_alphanumeric()).find_map(|word| {
        match word.strip_prefix("doc").unwrap_or(word) {
            "train" | "training" => Some(Split::Train),
            "dev" | "valid" | "validation" | "val" => Some(Split::Dev),
            "test" => Some(Split::Test),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(name: &str, format: Option<Format>, split: Option<Split>) -> Result<Kind, String> {
        let options = ImportOptions { format, skip_bad: false, split };
        single(Path::new(name), &options).map_err(|error| error.to_string())
    }

    #[test]
    fn names_say_what_files_hold() {
        use Format::{Beir, Msmarco};
        for (name, format, kind) in [
            ("a/corpus.jsonl.gz", None, Kind::JsonDocuments),
            ("a/queries.jsonl", None, Kind::JsonQueries),
            ("a/queries.jsonl", Some(Format::Jsonl), Kind::JsonDocuments),
            ("a/qrels/valid.tsv", None, Kind::Judgments(Split::Dev)),
            ("validation.tsv", Some(Beir), Kind::Judgments(Split::Dev)),
            ("qrels.dev.small.tsv", None, Kind::Judgments(Split::Dev)),
            ("msmarco-doctrain-qrels.tsv.gz", None, Kind::Judgments(Split::Train)),
            ("msmarco-docdev-queries.tsv", None, Kind::MsmarcoQueries),
            ("msmarco-docs.tsv", Some(Msmarco), Kind::MsmarcoDocuments),
            ("collection.tsv", None, Kind::MsmarcoPassages),
            ("psgs_w100.tsv.gz", None, Kind::DprPassages),
        ] {
            assert_eq!(planned(name, format, None), Ok(kind), "{name}");
        }
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        assert!(planned("notes.tsv", None, None).unwrap_err().contains("--format"));
        assert!(planned("top1000.tsv", Some(Format::Msmarco), None).unwrap_err().contains("collection"));
        assert!(planned("2019qrels-pass.txt", None, None).unwrap_err().contains("--split"));
        assert_eq!(planned("2019qrels-pass.txt", None, Some(Split::Test)), Ok(Kind::Judgments(Split::Test)));
        let missing = ImportOptions::default();
        let error = plan(&[PathBuf::from("no/such/corpus.jsonl")], &missing).unwrap_err().to_string();
        assert!(error.contains("no/such/corpus.jsonl"), "{error}");
    }
}
