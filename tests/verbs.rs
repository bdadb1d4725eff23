//! The command line: exit codes, one JSON object on standard output, and verbs that work together.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;

use common::{Ending, Outcome, Server, outcome, tiny_model};
use serde_json::{Value, json};

const BEIR: &str = "tests/fixtures/import/beir";

/// Runs a verb over a data folder.
fn run(data: &Path, verb: &str, more: &[&str]) -> Outcome {
    let model = tiny_model();
    let mut arguments = vec![verb, "--data", data.to_str().unwrap()];
    if verb != "import" {
        arguments.extend(["--model", model.to_str().unwrap()]);
    }
    arguments.extend(more);
    outcome(&arguments, &[])
}

/// The one JSON object that a verb printed; logs are elsewhere.
fn object(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let value: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    assert!(value.is_object() && outcome.stdout.lines().count() == 1, "{outcome:?}");
    value
}

fn assert_failed(outcome: &Outcome, code: i32, says: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    for part in says {
        assert!(outcome.stderr.contains(part), "`{part}` is not in {outcome:?}");
    }
    assert!(outcome.stdout.is_empty() && !outcome.stderr.contains("panicked"), "{outcome:?}");
}

#[test]
fn the_verbs_work_together_and_print_one_object() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();

    let imported = object(&run(data, "import", &["--json", BEIR]));
    assert_eq!((&imported["documents"], &imported["queries"]), (&json!(3), &json!(2)), "{imported}");
    let again = object(&run(data, "import", &["--json", BEIR]));
    assert_eq!(again["unchanged"], 3, "{again}");

    for number in [1, 2] {
        let built = object(&run(data, "index", &["--json"]));
        assert_eq!((&built["generation"], &built["documents"]), (&json!(number), &json!(3)), "{built}");
        assert_eq!(std::fs::read_to_string(data.join("LIVE")).unwrap(), format!("{number}\n"));
    }
    let named =
        |number: &str| outcome(&["index", "--json", "--data", data.to_str().unwrap(), "--generation", number], &[]);
    for number in [1, 2] {
        assert_eq!(object(&named(&number.to_string()))["generation"], number);
        assert_eq!(std::fs::read_to_string(data.join("LIVE")).unwrap(), format!("{number}\n"));
    }
    assert_failed(&named("7"), 1, &["no such generation"]);
    assert_failed(&run(data, "index", &["--generation", "1"]), 2, &["--model", "--generation"]);
    let found = object(&run(data, "search", &["--json", "-k", "2", "list", "all", "files"]));
    assert_eq!((&found["generation"], found["hits"].as_array().unwrap().len()), (&json!(2), 2), "{found}");
    let filtered = object(&run(data, "search", &["--json", "--filter", r#"{"lang": "en"}"#, "list"]));
    assert!(filtered["hits"].as_array().unwrap().iter().all(|hit| hit["metadata"]["lang"] == "en"), "{filtered}");
    let trec = data.join("out.trec");
    for (more, number) in [(vec!["--generation", "1"], 1), (vec!["--exact", "--bm25"], 2)] {
        let mut arguments = vec!["--json", "--split", "dev", "--run", trec.to_str().unwrap()];
        arguments.extend(more);
        let measured = object(&run(data, "evaluate", &arguments));
        assert_eq!((&measured["generation"], &measured["split"]), (&json!(number), &json!("dev")), "{measured}");
        assert!(measured["measures"]["nDCG@10"].is_number(), "{measured}");
        assert_eq!(measured["bm25"].is_object(), number == 2, "{measured}");
        assert!(std::fs::read_to_string(&trec).unwrap().contains("Q0"));
    }
    let inspected = object(&outcome(&["model", "inspect", "--json", tiny_model().to_str().unwrap()], &[]));
    assert_eq!((&inspected["dimension"], &inspected["model_type"]), (&json!(32), &json!("bert")), "{inspected}");

    // For people: text, and nothing of it on standard error but logs.
    for (verb, more) in [("import", vec![BEIR]), ("index", vec![]), ("search", vec!["list"])] {
        let told = run(data, verb, &more);
        assert!(told.code == Some(0) && !told.stdout.is_empty(), "{told:?}");
    }
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let usage: [(&str, &[&str], &[&str]); 9] = [
        ("import", &[], &["PATHS"]),
        ("import", &["--format", "csv", BEIR], &["csv", "beir"]),
        ("search", &[], &["QUERY"]),
        ("search", &["  "], &["the query is empty"]),
        ("search", &["-k", "0", "x"], &["-k", "1..=10000"]),
        ("search", &["--filter", "{", "x"], &["--filter"]),
        ("search", &["--filter", r#"{"year": {"over": 3}}"#, "x"], &["--filter", "over"]),
        ("evaluate", &["--split", "final"], &["final", "train"]),
        ("index", &["extra"], &["extra"]),
    ];
    for (verb, more, says) in usage {
        assert_failed(&run(data, verb, more), 2, says);
    }
    assert_failed(&outcome(&["tidy"], &[]), 2, &["tidy"]);
    for help in ["--help", "--version"] {
        let shown = outcome(&[help], &[]);
        assert!(shown.code == Some(0) && shown.stdout.contains("anced"), "{shown:?}");
    }

    let missing = data.join("nothing-here");
    for (verb, more) in [("search", vec!["x"]), ("evaluate", vec![])] {
        assert_failed(
            &run(&missing, verb, &more),
            1,
            &["nothing-here", "no data folder", "anced import", "anced index"],
        );
        assert!(!missing.exists(), "{verb} made a data folder");
    }
    assert_failed(&run(data, "import", &["tests/fixtures/import/bad.jsonl"]), 1, &["bad.jsonl, line 4"]);
    assert_failed(&run(data, "import", &["/nowhere.jsonl"]), 1, &["/nowhere.jsonl"]);
    assert_failed(&run(data, "search", &["x"]), 1, &["no generation yet", "anced index"]);
    assert_eq!(run(data, "index", &[]).code, Some(0));
    assert_failed(&run(data, "evaluate", &[]), 1, &["no judgments", "test"]);
    assert_eq!(run(data, "import", &[BEIR]).code, Some(0));
    assert_failed(
        &run(data, "evaluate", &["--split", "dev", "--generation", "7"]),
        1,
        &["000007", "no such generation"],
    );
}

#[test]
fn what_is_imported_while_the_server_rests_is_found_when_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let server = Server::start(data);
    let answer = server.post("/documents", &json!({"documents": [{"id": "d1", "text": "will be replaced"}]}));
    assert_eq!(answer.status, 200);
    assert_failed(&run(data, "import", &[BEIR]), 1, &["in use by another anced", "REST API"]);
    // Those that only read may do so beside it.
    assert_eq!(run(data, "search", &["--json", "x"]).code, Some(0));
    assert!(server.stop().success());

    assert_eq!(run(data, "import", &[BEIR]).code, Some(0));
    // A command that only reads brings its own copy of the index up to the store.
    let found = object(&run(data, "search", &["--json", "list"]));
    assert_eq!(found["hits"].as_array().unwrap().len(), 3, "{found}");
    let server = Server::start(data);
    let status = server.get("/admin/status").json();
    assert_eq!((&status["documents"], &status["indexed"]), (&json!(3), &json!(3)), "{status}");
    let mut ids = server.search_ids("anything", 10);
    ids.sort();
    assert_eq!(ids, ["d1", "d2", "d3"]);
    assert_ne!(server.get("/documents/d1").json()["text"], "will be replaced");
    server.kill();
}

#[test]
fn a_stop_while_the_server_gets_ready_ends_it_well() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    assert_eq!(run(data, "import", &["tests/data/nl2bash"]).code, Some(0));
    let mut in_the_middle = 0;
    for wait in [0, 100, 300, 600] {
        let mut server = Server::spawn(data, &[]);
        assert_eq!(server.get("/healthz").status, 200);
        std::thread::sleep(std::time::Duration::from_millis(wait));
        let ready = server.get("/readyz").status;
        server.signal("TERM");
        assert!(matches!(ready, 200 | 503), "{ready}");
        in_the_middle += usize::from(ready == 503);
        assert_eq!(server.wait().code(), Some(0), "{}", server.log());
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
    assert!(in_the_middle > 0, "each was ready before it was stopped: this proves nothing");
    let half: Vec<_> = std::fs::read_dir(data.join("generations")).unwrap().flatten().collect();
    assert!(half.len() <= 1, "each start removes what the last left: {half:?}");
}

#[test]
fn a_reader_is_not_disturbed_by_a_server_that_saves() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let server = Server::start_with(data, &["--save-after", "1"]);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut written = 0;
            while !over.load(std::sync::atomic::Ordering::Acquire) {
                let document = json!({"id": format!("{}", written % 50), "text": format!("text number {written}")});
                assert_eq!(server.post("/documents", &json!({"documents": [document]})).status, 200);
                written += 1;
            }
            written
        });
        // What is asserted here must end the test, not only this thread.
        let _ended = Ending(&over);
        let searched: Vec<Outcome> = (0..12).map(|_| run(data, "search", &["--json", "text number 1"])).collect();
        over.store(true, std::sync::atomic::Ordering::Release);
        assert!(writing.join().unwrap() > 12);
        for outcome in searched {
            object(&outcome);
        }
    });
    assert!(!server.log().contains("could not be saved"), "{}", server.log());
}

#[test]
fn a_sample_whose_import_was_interrupted_is_imported_whole() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let line = data.join("one.jsonl");
    std::fs::write(&line, "{\"id\": \"own\", \"text\": \"a document of the user's\"}\n").unwrap();
    assert_eq!(run(data, "import", &[line.to_str().unwrap()]).code, Some(0));
    let documents = |server: &Server| server.get("/admin/status").json()["documents"].clone();

    // Documents of the user's own: no sample is wanted.
    let server = Server::start_with(data, &["--sample", BEIR]);
    assert_eq!(documents(&server), 1);
    server.kill();

    // As a kill between a first build and its publication leaves it: the generation is taken, not built again.
    std::fs::remove_file(data.join("LIVE")).unwrap();
    let server = Server::start_with(data, &["--sample", BEIR]);
    let status = server.get("/admin/status").json();
    assert_eq!((&status["documents"], &status["generation"]["number"]), (&json!(1), &json!(1)), "{status}");
    assert!(!data.join("generations/000002").exists());
    server.kill();

    // As a kill in the middle of the sample leaves it.
    std::fs::remove_file(data.join("LIVE")).unwrap();
    std::fs::remove_dir_all(data.join("generations")).unwrap();
    std::fs::write(data.join("sample-import"), BEIR).unwrap();
    let server = Server::start_with(data, &["--sample", BEIR]);
    assert_eq!(documents(&server), 4);
    assert!(!data.join("sample-import").exists());
    server.kill();
}
