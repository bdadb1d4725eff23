//! `anced train`: rounds that end in a generation, the same again from the same seed, and gone on with after a kill.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Stdio;

use common::judged::prepared;
use common::{Outcome, anced, outcome, tiny_model};
use serde_json::{Value, json};

const QUICK: [&str; 12] = [
    "--rounds",
    "2",
    "--steps",
    "4",
    "--batch",
    "4",
    "--depth",
    "10",
    "--query-tokens",
    "16",
    "--passage-tokens",
    "24",
];

fn train(data: &Path, more: &[&str]) -> Outcome {
    let mut arguments = vec!["train", "--data", data.to_str().unwrap(), "--json"];
    arguments.extend(QUICK);
    arguments.extend(more);
    outcome(&arguments, &[])
}

fn events(outcome: &Outcome) -> Vec<Value> {
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

/// The digest of a generation's checkpoint: equal digests are equal weights.
fn digest(data: &Path, generation: u64) -> String {
    let file = data.join(format!("generations/{generation:06}/manifest.json"));
    let manifest: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    manifest["checkpoint_digest"].as_str().unwrap().to_owned()
}

#[test]
fn rounds_end_in_a_generation() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    prepared(data);
    let events = events(&train(data, &["--tolerance", "1"]));
    let found = of(&events, "data")[0];
    assert_eq!((&found["documents"], &found["train"], &found["dev"]), (&json!(60), &json!(40), &json!(20)));
    let steps = of(&events, "step");
    assert_eq!(steps.len(), 8);
    assert!(steps.iter().all(|step| step["loss"].as_f64().unwrap() > 0.0 && step["norm"].as_f64().unwrap() > 0.0));
    assert_eq!((&steps[3]["round"], &steps[4]["round"], &steps[7]["step"]), (&json!(1), &json!(2), &json!(8)));
    assert_eq!(of(&events, "measures").len(), 3, "before and after each round");
    // What is told of at its end lets itself be heard before: reading, each measurement, the shares of the end.
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let measured: Vec<usize> = (0..kinds.len()).filter(|&place| kinds[place] == "measures").collect();
    assert!(kinds[0] == "alive" && measured.iter().all(|&place| kinds[place - 1] == "alive"), "{kinds:?}");
    assert_eq!(kinds[measured[2] + 1], "alive", "{kinds:?}");
    let gate = events.iter().filter(|event| event["event"] == "phase" && event["phase"] == "gate");
    let gate: Vec<(u64, u64)> = gate.map(|at| (at["done"].as_u64().unwrap(), at["total"].as_u64().unwrap())).collect();
    assert_eq!((gate[0], gate.last()), ((0, 40), Some(&(40, 40))), "of both generations");
    let done = *of(&events, "done").first().unwrap();
    assert_eq!((&done["generation"], &done["published"]), (&json!(2), &json!(true)), "{done}");
    let shares = done["overlap"].as_array().unwrap();
    assert!(shares.len() == 2 && shares.iter().all(|share| share.as_f64().unwrap() > 0.0), "{done}");
    assert_eq!(std::fs::read_to_string(data.join("LIVE")).unwrap(), "2\n");
    assert_ne!(digest(data, 1), digest(data, 2));

    let measured = outcome(&["evaluate", "--data", data.to_str().unwrap(), "--split", "dev", "--exact", "--json"], &[]);
    let measured: Value = serde_json::from_str(&measured.stdout).unwrap();
    assert_eq!(measured["generation"], 2);
    let (ours, theirs) = (&done["measures"]["nDCG@10"], &measured["measures"]["nDCG@10"]);
    assert!((ours.as_f64().unwrap() - theirs.as_f64().unwrap()).abs() < 1e-9, "{done}, {measured}");
}

#[test]
fn the_seed_decides_everything() {
    let made = |seed: &str, more: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        prepared(folder.path());
        let mut arguments = vec!["--seed", seed];
        arguments.extend(more);
        events(&train(folder.path(), &arguments));
        digest(folder.path(), 2)
    };
    assert_eq!(made("7", &[]), made("7", &[]));
    assert_ne!(made("7", &[]), made("8", &[]));
    for negatives in ["bm25", "random", "bm25+random", "none"] {
        assert_ne!(made("7", &["--negatives", negatives]), made("7", &[]), "{negatives}");
    }
    assert_ne!(made("7", &["--loss", "pairwise", "--margin", "0.05"]), made("7", &[]));
    assert_ne!(made("7", &["--positive-share", "0.9", "--skip", "2"]), made("7", &[]));
    made("7", &["--recipe", "paper", "--dropout=false", "--mine-once"]);
}

#[test]
fn a_killed_run_goes_on_to_the_same_end() {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    prepared(whole.path());
    prepared(cut.path());
    events(&train(whole.path(), &[]));
    // Killed after each of these lines; the run is then gone on with.
    let mut job: Option<String> = None;
    for kind in ["data", "step", "measures", "step", "took"] {
        let mut arguments = vec!["train", "--data", cut.path().to_str().unwrap(), "--json"];
        arguments.extend(QUICK);
        if let Some(job) = &job {
            arguments.extend(["--resume", job]);
        }
        let mut child = anced(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seen = lines
            .map_while(Result::ok)
            .any(|line| serde_json::from_str::<Value>(&line).is_ok_and(|event| event["event"] == kind));
        assert!(seen, "no {kind}");
        child.kill().unwrap();
        child.wait().unwrap();
        let names = std::fs::read_dir(cut.path().join("jobs")).unwrap();
        job = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).next();
    }
    let done = train(cut.path(), &["--resume", &job.unwrap()]);
    let last: Value = serde_json::from_str(done.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((done.code, &last["generation"]), (Some(0), &json!(2)), "{done:?}");
    assert_eq!(last["rounds"].as_array().unwrap().len(), 3, "{last}");
    assert_eq!(digest(cut.path(), 2), digest(whole.path(), 2));
}

#[test]
fn a_run_that_came_to_its_end_is_not_trained_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    prepared(data);
    let first = events(&train(data, &["--tolerance", "1"]));
    let names = std::fs::read_dir(data.join("jobs")).unwrap();
    let job = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).next().unwrap();
    let live = || std::fs::read_to_string(data.join("LIVE")).unwrap();
    // Cut off before its generation was live.
    std::fs::write(data.join("LIVE"), "1\n").unwrap();
    let again = events(&train(data, &["--tolerance", "1", "--resume", &job]));
    assert_eq!(again, of(&first, "done").into_iter().cloned().collect::<Vec<_>>());
    assert_eq!(live(), "2\n");
    assert_eq!(events(&train(data, &["--tolerance", "1", "--resume", &job])), again, "live already");

    // Another one is live by now.
    events(&train(data, &["--tolerance", "1"]));
    assert_eq!(live(), "3\n");
    let late = events(&train(data, &["--tolerance=-1", "--resume", &job]));
    assert!(of(&late, "step").is_empty(), "{late:?}");
    let done = of(&late, "done")[0];
    assert_eq!((&done["generation"], &done["live"], &done["published"]), (&json!(2), &json!(3), &json!(false)));
    assert_eq!(live(), "3\n");
}

#[test]
fn what_cannot_be_trained_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    prepared(data);
    for (more, code, says) in [
        (vec!["--rounds", "1000000000", "--steps", "1"], 1, "are missing; make room, or train fewer rounds"),
        (vec!["--rounds", "0"], 2, "rounds"),
        (vec!["--lr", "0"], 2, "learning rate"),
        (vec!["--measure", "speed"], 2, "speed"),
        (vec!["--positive-share", "0"], 2, "positive share"),
        (vec!["--skip", "10", "--depth", "10"], 2, "skip"),
        (vec!["--negatives", "guess"], 2, "guess"),
        (vec!["--loss", "pairwise", "--negatives", "none"], 2, "negatives"),
        (vec!["--resume", "yesterday"], 1, "yesterday"),
        (vec!["--resume", "../generations"], 1, "no such run"),
    ] {
        let mut arguments = vec!["train", "--data", data.to_str().unwrap()];
        arguments.extend(&more);
        let told = outcome(&arguments, &[]);
        assert!(told.code == Some(code) && told.stderr.contains(says), "{more:?}: {told:?}");
    }
    assert_eq!(std::fs::read_to_string(data.join("LIVE")).unwrap(), "1\n");

    let empty = tempfile::tempdir().unwrap();
    let model = tiny_model();
    let told = outcome(&["train", "--data", empty.path().to_str().unwrap(), "--model", model.to_str().unwrap()], &[]);
    assert!(told.code == Some(1) && told.stderr.contains("no train query"), "{told:?}");
}

#[test]
fn a_job_heeds_no_settings_of_the_place_that_it_starts_in() {
    let (data, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(place.path().join("anced.toml"), "rounds = \n").unwrap();
    let start = |more: &[&str]| {
        let mut command = anced(&["train", "--json", "--data", data.path().to_str().unwrap()]);
        command.args(more).current_dir(place.path()).env_remove("ANCED_CONFIG");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // Its end would ask the process to stop.
        let input = child.stdin.take();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        child.wait().unwrap();
        drop(input);
        said
    };
    assert!(start(&[]).contains("anced.toml"), "{}", start(&[]));
    let said = start(&["--job", "none"]);
    assert!(said.contains("jobs/none") && !said.contains("anced.toml"), "{said}");
}
