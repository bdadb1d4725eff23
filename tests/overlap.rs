//! `anced train --overlap`: negatives of newer checkpoints come while training goes on, also after a kill.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use common::judged::prepared;
use common::{anced, outcome};
use serde_json::{Value, json};

const ROUNDS: u64 = 5;
/// So many that mining comes to its end long before training does.
const STEPS: u64 = 400;

fn arguments<'a>(data: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let quick = "--json --overlap --inference-threads 1 --rounds 5 --steps 400 --batch 4 --depth 10 --query-tokens 16 \
                 --passage-tokens 24 --tolerance 1";
    let mut arguments = vec!["train", "--data", data.to_str().unwrap()];
    arguments.extend(quick.split_whitespace());
    arguments.extend(more);
    arguments
}

fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// What was used from which step on, as the run says at its end; it begins with the first step and goes on upwards.
fn used(done: &Value) -> Vec<(u64, u64)> {
    let used: Vec<(u64, u64)> = done["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|used| (number(&used["round"]), number(&used["from_step"])))
        .collect();
    assert_eq!(used[0].1, 0, "{done}");
    assert!(used.is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1), "{done}");
    // Nothing is mined by a checkpoint that was not there yet.
    assert!(used.iter().all(|(round, from_step)| round * STEPS <= *from_step && *from_step < ROUNDS * STEPS), "{done}");
    let shares = done["overlap"].as_array().unwrap();
    assert!(shares.len() == used.len() && shares.iter().all(|share| share.as_f64().unwrap() > 0.0), "{done}");
    used
}

#[test]
fn newer_negatives_come_while_training_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    prepared(folder.path());
    let run = outcome(&arguments(folder.path(), &[]), &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let events: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let done = *of(&events, "done").first().unwrap();
    let used = used(done);
    assert!(used.len() > 1, "more than one checkpoint mined: {done}");
    let told: Vec<(u64, u64)> =
        of(&events, "candidates").iter().map(|event| (number(&event["round"]), number(&event["from_step"]))).collect();
    assert_eq!(told, used);

    let steps: Vec<u64> = of(&events, "step").iter().map(|step| number(&step["step"])).collect();
    assert_eq!(steps, (1..=ROUNDS * STEPS).collect::<Vec<_>>());
    let place = |wanted: &dyn Fn(&Value) -> bool| events.iter().position(wanted).unwrap();
    let first_step = place(&|event| event["event"] == "step");
    let last_step = place(&|event| event["event"] == "step" && event["step"] == ROUNDS * STEPS);
    let beside = place(&|event| event["event"] == "phase" && event["beside"] == true && event["phase"] == "encode");
    assert!(first_step < beside && beside < last_step, "both sides are told of as they work");

    // Every checkpoint that mined was measured, and so was the last one.
    let measures = done["rounds"].as_array().unwrap();
    assert_eq!(measures.len() as u64, ROUNDS + 1);
    assert!(used.iter().all(|(round, _)| measures[*round as usize].is_object()), "{done}");
    assert!(measures[ROUNDS as usize].is_object(), "{done}");
    let best = number(&done["best_round"]);
    let value = |measures: &Value| measures["nDCG@10"].as_f64();
    let highest = measures[1..].iter().filter_map(value).fold(0.0, f64::max);
    assert_eq!(value(&measures[best as usize]), Some(highest), "{done}");
    assert_eq!((&done["generation"], done["published"].is_boolean()), (&json!(2), true));
}

#[test]
fn a_killed_run_goes_on_with_the_newest_negatives() {
    let folder = tempfile::tempdir().unwrap();
    prepared(folder.path());
    let mut job: Option<String> = None;
    // Killed in the first mining, between the steps, and after the first negatives of a trained checkpoint.
    let stops: [&dyn Fn(&Value) -> bool; 3] =
        [&|event| event["event"] == "phase", &|event| event["event"] == "step" && event["step"] == 7, &|event| {
            event["event"] == "candidates" && number(&event["round"]) > 0
        }];
    let mut newest = 0;
    for is_enough in stops {
        let more = job.as_ref().map_or_else(Vec::new, |job| vec!["--resume", job]);
        let mut child =
            anced(&arguments(folder.path(), &more)).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stop = lines
            .map_while(Result::ok)
            .map(|line| serde_json::from_str::<Value>(&line).unwrap())
            .find(|event| is_enough(event));
        newest = stop.unwrap()["round"].as_u64().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let names = std::fs::read_dir(folder.path().join("jobs")).unwrap();
        job = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).next();
    }
    let run = outcome(&arguments(folder.path(), &["--resume", &job.unwrap()]), &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let events: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = of(&events, "candidates")[0];
    assert!(number(&first["round"]) >= newest && newest > 0, "the newest are taken at once: {first}");
    let steps: Vec<u64> = of(&events, "step").iter().map(|step| number(&step["step"])).collect();
    assert_eq!(steps[0], number(&first["from_step"]) + 1, "from the step that was saved last");
    assert!(steps[0] > STEPS, "a checkpoint is never newer than the state: {}", steps[0]);
    assert_eq!(steps.last(), Some(&(ROUNDS * STEPS)));
    let done = *of(&events, "done").first().unwrap();
    let used = used(done);
    assert!(used.len() > 1 && used[0].0 == 0, "{done}");
    assert!(used.contains(&(number(&first["round"]), number(&first["from_step"]))), "{done}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let told = outcome(&arguments(folder.path(), &["--mine-once"]), &[]);
    assert!(told.code == Some(2) && told.stderr.contains("overlap"), "{told:?}");
}
