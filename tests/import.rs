//! Files in, documents, queries and judgments out of the store.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anced::corpus::{Error, Format, ImportOptions, ImportReport, Progress, Split, Store, import, import_reader};
use serde_json::json;

fn open() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import").join(name)
}

fn run(store: &Store, names: &[&str], options: &ImportOptions) -> Result<ImportReport, Error> {
    let paths: Vec<PathBuf> = names.iter().map(|name| fixture(name)).collect();
    import(store, &paths, options, &mut |_| {})
}

#[test]
fn a_beir_folder_is_imported_whole_and_again_without_effect() {
    let (_folder, store) = open();
    let report = run(&store, &["beir"], &ImportOptions::default()).unwrap();
    assert_eq!((report.documents, report.unchanged, report.queries, report.judgments), (3, 0, 2, 3));
    assert_eq!((report.skipped, report.unknown_judgments), (0, 2));
    assert!(
        report.first_errors[0].contains("valid.tsv, line 3: there is no document `gone`"),
        "{:?}",
        report.first_errors
    );
    assert!(report.first_errors[1].contains("valid.tsv, line 4: there is no query `q9`"), "{:?}", report.first_errors);
    assert_eq!(store.document("d1").unwrap().unwrap().document.metadata["lang"], "en");
    assert_eq!(store.judged_queries(Split::Train).unwrap()[0].0.text, "list all files");
    let dev = store.judgments(Split::Dev).unwrap();
    assert_eq!(
        dev.iter().map(|judgment| (judgment.document.as_str(), judgment.grade)).collect::<Vec<_>>(),
        [("d2", 2), ("gone", 1)]
    );

    let again = run(&store, &["beir"], &ImportOptions::default()).unwrap();
    assert_eq!((again.documents, again.unchanged, store.last_sequence().unwrap()), (3, 3, 3));
    assert_eq!(store.judgment_counts().unwrap().dev, 2);
}

#[test]
fn judgments_come_last_whatever_the_order_of_the_paths() {
    let (_folder, store) = open();
    let paths = ["beir/qrels/train.tsv", "beir/queries.jsonl.gz", "beir/corpus.jsonl"];
    let report = run(&store, &paths, &ImportOptions::default()).unwrap();
    assert_eq!((report.documents, report.queries, report.judgments, report.unknown_judgments), (3, 2, 1, 0));
    let as_test = ImportOptions { split: Some(Split::Test), ..ImportOptions::default() };
    run(&store, &["beir/qrels/train.tsv"], &as_test).unwrap();
    assert_eq!(store.judgment_counts().unwrap().test, 1);
}

#[test]
fn msmarco_files_are_told_by_their_names() {
    let (_folder, store) = open();
    let options = ImportOptions { format: Some(Format::Msmarco), ..ImportOptions::default() };
    let report = run(&store, &["msmarco"], &options).unwrap();
    assert_eq!((report.documents, report.queries, report.judgments, report.unknown_judgments), (3, 2, 2, 0));
    assert_eq!(store.document("0").unwrap().unwrap().document.text, "The presence of \"communication\" amid minds.");
    let document = store.document("D7").unwrap().unwrap().document;
    assert_eq!((document.title.as_str(), document.text.as_str()), ("A title", "The body."));
    assert_eq!(document.metadata["url"], "https://example.org/a");
    assert_eq!(store.judgments(Split::Dev).unwrap().len(), 2);
}

#[test]
fn dpr_passages_and_questions_are_unquoted() {
    for options in [ImportOptions::default(), ImportOptions { format: Some(Format::Dpr), ..ImportOptions::default() }] {
        let (_folder, store) = open();
        let report = run(&store, &["dpr/nq-test.qa.csv", "dpr/psgs_w100.tsv.gz"], &options).unwrap();
        assert_eq!((report.documents, report.queries), (2, 2));
        assert_eq!(store.document("1").unwrap().unwrap().document.text, "Aaron is a \"prophet\" and brother.");
        assert_eq!(store.document("2").unwrap().unwrap().document.title, "Aaron \"the\" priest");
        assert_eq!(store.query("nq-test.qa-1").unwrap().unwrap().answers, ["Aaron", "Moses' brother"]);
        assert_eq!(store.query("nq-test.qa-2").unwrap().unwrap().answers, ["Aaron", "Aaron's"]);
    }
}

#[test]
fn a_bad_line_stops_the_import_with_its_number() {
    let (_folder, store) = open();
    let error = run(&store, &["bad.jsonl"], &ImportOptions::default()).unwrap_err();
    let Error::Line(line) = &error else { panic!("{error}") };
    assert_eq!((line.line, line.path.as_path()), (4, fixture("bad.jsonl").as_path()));
    assert!(error.to_string().contains("bad.jsonl, line 4: neither `text` nor `title`"), "{error}");
    assert_eq!(store.count().unwrap(), 2, "the good lines before it stay");
}

#[test]
fn bad_lines_are_counted_on_request() {
    let (_folder, store) = open();
    let options = ImportOptions { skip_bad: true, ..ImportOptions::default() };
    let report = run(&store, &["bad.jsonl"], &options).unwrap();
    assert_eq!((report.documents, report.skipped, report.first_errors.len()), (3, 5, 5));
    for (message, part) in
        report.first_errors.iter().zip(["line 4", "line 5: not JSON", "line 6: not UTF-8", "line 7", "line 8: no `id`"])
    {
        assert!(message.contains(part), "{message}");
    }
    let found = store.document("a").unwrap().unwrap().document;
    assert_eq!(found.metadata["year"], 2020);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["documents"], &json["skipped"]), (&json!(3), &json!(5)));
}

#[test]
fn paths_that_hold_nothing_are_refused() {
    let (folder, store) = open();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let nothing = |path: &Path| {
        import(&store, &[path.to_path_buf()], &ImportOptions::default(), &mut |_| {}).unwrap_err().to_string()
    };
    assert!(nothing(&empty).contains("nothing to import"));
    assert!(nothing(&folder.path().join("missing.jsonl")).contains("missing.jsonl"));
    assert!(nothing(&fixture("beir/LICENSE.txt")).contains("--format"));
}

/// Hands out a few bytes at a time, as a pipe does.
struct Pipe<'bytes>(&'bytes [u8]);

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(7);
        (&mut self.0).take(count as u64).read(buffer)
    }
}

#[test]
fn a_stream_is_imported_in_batches_with_progress() {
    let lines: String =
        (0..2500).map(|number| format!("{{\"id\": {number}, \"text\": \"document {number}\"}}\n")).collect();
    let (_folder, store) = open();
    let mut seen: Vec<Progress> = Vec::new();
    let report =
        import_reader(&store, Path::new("-"), Pipe(lines.as_bytes()), &ImportOptions::default(), &mut |progress| {
            seen.push(progress)
        })
        .unwrap();
    assert_eq!((report.documents, store.count().unwrap()), (2500, 2500));
    assert_eq!(seen.iter().map(|progress| progress.records).collect::<Vec<_>>(), [1000, 2000, 2500]);
    assert_eq!(seen.last().unwrap(), &Progress { bytes_read: lines.len() as u64, bytes_total: None, records: 2500 });

    let tsv = ImportOptions { format: Some(Format::Msmarco), ..ImportOptions::default() };
    import_reader(&store, Path::new("-"), Pipe(b"p1\ta passage\n"), &tsv, &mut |_| {}).unwrap();
    assert_eq!(store.document("p1").unwrap().unwrap().document.text, "a passage");
}

#[test]
fn the_sample_corpus_has_the_counts_of_its_source() {
    let (_folder, store) = open();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nl2bash");
    let mut last = Progress::default();
    let report = import(&store, &[corpus], &ImportOptions::default(), &mut |progress| last = progress).unwrap();
    assert_eq!((report.documents, report.unchanged, report.skipped, report.unknown_judgments), (10_594, 0, 0, 0));
    assert_eq!(last.bytes_total, Some(last.bytes_read));
    assert_eq!(store.count().unwrap(), 10_594);
    for (split, queries, judgments) in [(Split::Train, 8728, 9684), (Split::Dev, 821, 911), (Split::Test, 1773, 2001)] {
        assert_eq!(store.judged_queries(split).unwrap().len(), queries);
        assert_eq!(store.judgments(split).unwrap().len(), judgments);
    }
    let sample = store.sample_queries(Split::Dev, 5).unwrap();
    assert_eq!((sample.len(), &sample), (5, &store.sample_queries(Split::Dev, 5).unwrap()));
}
