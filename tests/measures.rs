//! Measures agree with ir_measures, query by query; `benches/compare/measures.py` writes the values.

// Helpers outside #[test] functions may unwrap as well.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use anced::corpus::Split;
use anced::evaluation::{Measure, evaluate, read_qrels, read_run, write_run};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    mean: f64,
    queries: BTreeMap<String, f64>,
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/measures").join(name)
}

fn expected() -> BTreeMap<Measure, Expected> {
    serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap()
}

#[test]
fn every_value_is_the_one_of_ir_measures() {
    let judgments = read_qrels(&fixture("qrels"), Split::Test).unwrap();
    let rankings = read_run(&fixture("run.trec")).unwrap();
    let expected = expected();
    assert!(expected.len() >= 7);
    let measures: Vec<Measure> = expected.keys().copied().collect();
    let report = evaluate(&rankings, &judgments, &measures);
    for (measure, expected) in &expected {
        let mean = report.mean(*measure).unwrap();
        assert!((mean - expected.mean).abs() < 1e-9, "{measure}: {mean}, ir_measures says {}", expected.mean);
        let values: BTreeMap<String, f64> =
            report.per_query(*measure).unwrap().map(|(query, value)| (query.to_owned(), value)).collect();
        assert!(values.keys().eq(expected.queries.keys()), "{measure}: other queries");
        for (query, value) in &values {
            let expected = expected.queries[query];
            assert!((value - expected).abs() < 1e-9, "{measure} of {query}: {value}, ir_measures says {expected}");
        }
    }
}

#[test]
fn a_written_run_measures_as_the_one_it_came_from() {
    let judgments = read_qrels(&fixture("qrels"), Split::Test).unwrap();
    let rankings = read_run(&fixture("run.trec")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.trec");
    write_run(&path, "again", &rankings).unwrap();
    let again = read_run(&path).unwrap();
    assert_eq!(evaluate(&again, &judgments, &Measure::STANDARD), evaluate(&rankings, &judgments, &Measure::STANDARD));
}
