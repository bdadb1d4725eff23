//! `kill -9` at random moments of refreshes, of the server, of the training process, and of both, while documents and
//! votes are written: the server comes back on the last live generation or the new one, what was acknowledged is there,
//! and the refresh goes on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anced::corpus::{Split, Store};
use anced::generation::{Manifest, Standing};
use common::generations::live;
use common::jobs::{PATIENCE, ended, job, resume, start};
use common::judged::prepared;
use common::random::Random;
use common::references::References;
use common::{Answer, Ending, Server};
use serde_json::{Value, json};

/// What a job's events say as it comes on; `done` is said before the swap, `live` after it.
const MOMENTS: [&str; 8] = ["started", "data", "mine", "train", "build", "gate", "done", "live"];

/// The place of `done` there.
const DONE: usize = 6;

/// What is struck, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    KillServer,
    KillTraining,
    KillBoth,
    /// SIGTERM: a good end, whatever is under way.
    StopServer,
}

const BLOWS: [(Blow, usize); 4] =
    [(Blow::KillServer, 12), (Blow::KillTraining, 7), (Blow::KillBoth, 5), (Blow::StopServer, 4)];

/// So strong that each generation scores in a way of its own.
fn settings() -> Value {
    json!({
        "rounds": 2, "steps": 5, "batch": 4, "depth": 10, "lr": 0.002, "warmup": 0,
        "query_tokens": 16, "passage_tokens": 24, "tolerance": 1,
    })
}

/// What was written: of each document the acknowledged text, none where it is not there, and those asked for since
/// without an answer; of each vote the same.
struct Written {
    random: Random,
    documents: BTreeMap<String, Option<String>>,
    open_documents: BTreeMap<String, Vec<Option<String>>>,
    votes: BTreeSet<(String, String)>,
    open_votes: BTreeSet<(String, String)>,
    /// Documents and votes since the last check.
    touched: BTreeSet<String>,
    voted: BTreeSet<(String, String)>,
    next: u64,
}

fn stopping(answer: &Answer) -> bool {
    answer.status == 503 && answer.json()["type"] == "urn:anced:problem:stopping"
}

impl Written {
    fn new(random: Random) -> Self {
        Self {
            random,
            documents: BTreeMap::new(),
            open_documents: BTreeMap::new(),
            votes: BTreeSet::new(),
            open_votes: BTreeSet::new(),
            touched: BTreeSet::new(),
            voted: BTreeSet::new(),
            next: 0,
        }
    }

    /// Writes until told to end, or the server is gone or stops.
    fn write(&mut self, server: &Server, end: &AtomicBool) {
        while !end.load(Ordering::Acquire) {
            let known = self.documents.len() as u64;
            let some = (known > 0).then(|| self.random.below(known) as usize);
            let some = some.and_then(|at| self.documents.keys().nth(at).cloned());
            self.next += 1;
            let answered = match (self.random.below(5), some) {
                (0 | 1, _) => self.vote(server),
                (2, Some(id)) if self.documents[&id].is_some() => self.put(server, id, None),
                (3, Some(id)) => {
                    let text = self.random.text(5);
                    self.put(server, id, Some(text))
                }
                _ => {
                    let text = self.random.text(5);
                    self.put(server, format!("n{}", self.next), Some(text))
                }
            };
            if !answered {
                return;
            }
            std::thread::sleep(Duration::from_millis(self.random.below(40)));
        }
    }

    /// Writes a document, or deletes it; false where the server is gone or stops.
    fn put(&mut self, server: &Server, id: String, text: Option<String>) -> bool {
        self.touched.insert(id.clone());
        self.open_documents.entry(id.clone()).or_default().push(text.clone());
        let answer = match &text {
            Some(text) => {
                let body = json!({"documents": [{"id": id, "text": text}]}).to_string();
                server.try_post_raw("/documents", "application/json", body.as_bytes())
            }
            None => server.try_delete(&format!("/documents/{id}")),
        };
        let Some(answer) = answer.filter(|answer| !stopping(answer)) else { return false };
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
        self.open_documents.remove(&id);
        self.documents.insert(id, text);
        true
    }

    /// A vote on one of the documents that stay, for a query that nobody asked before.
    fn vote(&mut self, server: &Server) -> bool {
        let vote = (self.random.text(3), format!("d{}", self.random.below(60)));
        self.open_votes.insert(vote.clone());
        self.voted.insert(vote.clone());
        let body = json!({"query": vote.0, "id": vote.1, "grade": 1}).to_string();
        let answer = server.try_post_raw("/feedback", "application/json", body.as_bytes());
        let Some(answer) = answer.filter(|answer| !stopping(answer)) else { return false };
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.open_votes.remove(&vote);
        self.votes.insert(vote);
        true
    }

    /// Compares the server with what was acknowledged; what is found is known from then on.
    fn check(&mut self, server: &Server, references: &mut References) {
        for id in std::mem::take(&mut self.touched) {
            let answer = server.get(&format!("/documents/{id}"));
            let found = (answer.status == 200).then(|| answer.json()["text"].as_str().unwrap().to_owned());
            let open = self.open_documents.remove(&id).unwrap_or_default();
            let acknowledged = self.documents.get(&id).cloned().flatten();
            assert!(
                acknowledged == found || open.contains(&found),
                "{id}: {found:?}, acknowledged {acknowledged:?}, open {open:?}\n{}",
                server.log()
            );
            if let Some(text) = &found {
                let answer = server.post("/search", &json!({"query": text, "k": 3})).json();
                let best = &answer["hits"][0];
                assert!(best["id"] == *id && best["text"] == **text, "{id} is not found: {answer}\n{}", server.log());
                references.check(text, &answer);
            }
            self.documents.insert(id, found);
        }
        let answer = server.post("/search", &json!({"query": "anything", "k": 5000, "exact": true})).json();
        let found: BTreeSet<&str> =
            answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect();
        let there = self.documents.iter().filter(|(_, text)| text.is_some()).map(|(id, _)| id.clone());
        let expected: BTreeSet<String> = there.chain((0..60).map(|at| format!("d{at}"))).collect();
        assert_eq!(found, expected.iter().map(String::as_str).collect(), "{}", server.log());
        references.check("anything", &answer);

        for vote in std::mem::take(&mut self.voted) {
            // The vote once more tells how many there were.
            let body = json!({"query": vote.0, "id": vote.1, "grade": 1});
            let up = server.post("/feedback", &body).json()["votes"]["up"].as_u64().unwrap();
            let possible = if self.open_votes.remove(&vote) { 1..=2 } else { 2..=2 };
            assert!(possible.contains(&up), "{vote:?}: {up} votes\n{}", server.log());
            self.votes.insert(vote);
        }
    }
}

/// The kinds of a job's events so far, phases by their names.
fn told(data: &Path, id: &str) -> Vec<String> {
    let text = std::fs::read(data.join("jobs").join(id).join("events.jsonl")).unwrap_or_default();
    let kind = |line: &str| {
        let event: Value = serde_json::from_str(line).ok()?;
        let kind = event["event"].as_str()?;
        Some(match kind {
            "phase" => event["phase"].as_str()?.to_owned(),
            "step" => "train".to_owned(),
            _ => kind.to_owned(),
        })
    };
    String::from_utf8_lossy(&text).lines().filter_map(kind).collect()
}

/// How far a job has come by its events from `first` on, and whether it ended.
fn moment(told: &[String], first: usize) -> (Option<usize>, bool) {
    let since = told.get(first..).unwrap_or_default();
    let furthest = since.iter().filter_map(|kind| MOMENTS.iter().position(|moment| moment == kind)).max();
    (furthest, since.iter().any(|kind| kind == "ended"))
}

/// Waits until a job has come to `wanted`, or ended; returns its training process, if there was one.
fn follow(data: &Path, server: &Server, id: &str, first: usize, wanted: usize) -> Option<u32> {
    let (started, mut training) = (Instant::now(), None);
    loop {
        let (furthest, has_ended) = moment(&told(data, id), first);
        if has_ended || furthest.is_some_and(|at| at >= wanted) {
            return training.or_else(|| training_of(server));
        }
        if training.is_none() {
            training = training_of(server);
        }
        assert!(started.elapsed() < PATIENCE, "{:?}\n{}", told(data, id), server.log());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The training process of a server.
fn training_of(server: &Server) -> Option<u32> {
    let found = Command::new("pgrep").args(["-P", &server.pid().to_string()]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().trim().parse().ok()
}

/// Kills a process that may be gone already.
fn kill(process: Option<u32>) {
    if let Some(process) = process {
        Command::new("kill").args(["-9", &process.to_string()]).stderr(std::process::Stdio::null()).status().unwrap();
    }
}

/// `LIVE`, the live generation and every other one on the disk are sound.
fn check_generations(data: &Path, server: &Server, allowed: &[u64]) -> u64 {
    let number = live(server);
    let named: u64 = std::fs::read_to_string(data.join("LIVE")).unwrap().trim().parse().unwrap();
    assert_eq!(named, number, "{}", server.log());
    assert!(allowed.contains(&number), "generation {number} is live, not one of {allowed:?}\n{}", server.log());
    for entry in std::fs::read_dir(data.join("generations")).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(found) = folder.file_name().unwrap().to_str().unwrap().parse::<u64>() else { continue };
        let manifest = Manifest::read(&folder).unwrap();
        assert_eq!(manifest.number, found);
        assert!(found != number || manifest.status == Standing::Ready, "live and {:?}: {found}", manifest.status);
        manifest.verify(&folder).unwrap();
    }
    number
}

/// The generation that a job has built, where it has.
fn built(data: &Path, id: &str) -> Option<u64> {
    std::fs::read_to_string(data.join("jobs").join(id).join("generation")).ok()?.trim().parse().ok()
}

/// What is left over where nothing is under way.
fn leftovers(data: &Path) -> Vec<String> {
    let names = std::fs::read_dir(data.join("generations")).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.parse::<u64>().is_err()).collect()
}

#[test]
fn a_refresh_survives_kills_of_the_server_and_of_its_training() {
    let mut random = Random::from_seed("kill-refresh");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    prepared(data);
    let serve = || Server::start_with(data, &["--keep-generations", "1000"]);
    let mut references = References::new(data);
    let mut written = Written::new(random.fork());

    // How long each part takes here, in a refresh that nothing disturbs.
    let mut server = Some(serve());
    let mut parts = [Duration::ZERO; MOMENTS.len()];
    let mut id = start(server.as_ref().unwrap(), &settings());
    for at in 1..MOMENTS.len() {
        let since = Instant::now();
        follow(data, server.as_ref().unwrap(), &id, 0, at);
        parts[at - 1] = since.elapsed().max(Duration::from_millis(2));
    }
    parts[MOMENTS.len() - 1] = Duration::from_millis(20);
    assert_eq!(ended(server.as_ref().unwrap(), &id)["state"], "done");

    let mut blows: Vec<Blow> = BLOWS.iter().flat_map(|(blow, times)| vec![*blow; *times]).collect();
    for at in (1..blows.len()).rev() {
        blows.swap(at, random.below(at as u64 + 1) as usize);
    }
    let turns = blows.len();
    let (mut kills, mut refreshes, mut struck_in) = (0, 1, BTreeMap::new());
    let (mut slowest_stop, mut before) = (Duration::ZERO, 2);
    for (turn, mut blow) in blows.into_iter().enumerate() {
        let running = server.take().unwrap_or_else(serve);
        let allowed: Vec<u64> = std::iter::once(before).chain(built(data, &id)).collect();
        before = check_generations(data, &running, &allowed);
        written.check(&running, &mut references);

        let found = job(&running, &id);
        let reason = found["reason"].as_str().unwrap_or_default();
        let first = told(data, &id).len();
        let first = match found["state"].as_str().unwrap() {
            "done" => {
                assert_eq!(Some(before), built(data, &id), "{found}");
                refreshes += u64::from(turn > 0);
                id = start(&running, &settings());
                0
            }
            state => {
                let is_expected = state == "stopped" && !reason.is_empty()
                    || state == "failed" && (reason.contains("signal: 9") || reason.contains("code 3"));
                assert!(is_expected && found["resumable"] == json!(true), "{found}\n{}", running.log());
                resume(&running, &id);
                first
            }
        };

        let at = turn % MOMENTS.len();
        let end = AtomicBool::new(false);
        let training = std::thread::scope(|scope| {
            scope.spawn(|| written.write(&running, &end));
            let _ending = Ending(&end);
            let training = follow(data, &running, &id, first, at);
            std::thread::sleep(Duration::from_micros(random.below(parts[at].as_micros() as u64)));
            let (furthest, has_ended) = moment(&told(data, &id), first);
            if blow != Blow::StopServer && (has_ended || furthest.is_some_and(|at| at >= DONE)) {
                // There is no training process any more.
                blow = Blow::KillServer;
            }
            match blow {
                Blow::KillServer => running.signal("KILL"),
                Blow::KillTraining => kill(training),
                Blow::KillBoth if random.below(2) == 0 => {
                    kill(training);
                    std::thread::sleep(Duration::from_micros(random.below(20_000)));
                    running.signal("KILL");
                }
                Blow::KillBoth => {
                    running.signal("KILL");
                    kill(training);
                }
                Blow::StopServer => {}
            }
            let part = furthest.map_or("start", |at| MOMENTS[at]);
            *struck_in.entry((part, blow)).or_insert(0) += 1;
            if blow == Blow::StopServer {
                // Writers end by the answer that the server stops.
                running.signal("TERM");
            }
            training
        });
        match blow {
            Blow::KillTraining => {
                let state = ended(&running, &id);
                assert!(["failed", "done"].map(Value::from).contains(&state["state"]), "{state}\n{}", running.log());
                assert_eq!(leftovers(data), Vec::<String>::new(), "of a training that was killed\n{}", running.log());
                kills += 1;
                server = Some(running);
            }
            Blow::StopServer => {
                let since = Instant::now();
                let mut stopped = running;
                assert_eq!(stopped.wait().code(), Some(0), "{}", stopped.log());
                assert!(!stopped.log().contains("panicked"), "{}", stopped.log());
                slowest_stop = slowest_stop.max(since.elapsed());
                let gone = training.is_none_or(|process| !Path::new(&format!("/proc/{process}")).exists());
                assert!(gone, "the training outlives its server's good end");
                assert_eq!(leftovers(data), Vec::<String>::new(), "after a good end\n{}", stopped.log());
            }
            Blow::KillServer | Blow::KillBoth => {
                let mut killed = running;
                assert_eq!(killed.wait().code(), None, "{}", killed.log());
                assert!(!killed.log().contains("panicked"), "{}", killed.log());
                kills += 1;
            }
        }
    }

    // After all that, one comes to its end.
    let running = server.take().unwrap_or_else(serve);
    if job(&running, &id)["state"] == "done" {
        id = start(&running, &settings());
    } else {
        resume(&running, &id);
    }
    let last = ended(&running, &id);
    assert_eq!(last["state"], "done", "{last}\n{}", running.log());
    refreshes += 1;
    let number = check_generations(data, &running, &[built(data, &id).unwrap()]);
    written.check(&running, &mut references);
    let answer = running.post("/search", &json!({"query": "when river breaks 0", "k": 10})).json();
    assert_eq!(references.check("when river breaks 0", &answer), number);
    let other = references.apart(number - 1, "when river breaks 0", &answer["hits"]);
    assert!(other > 1e-3, "generation {} would not have been told from {number}: {other}", number - 1);
    assert!(running.stop().success());
    // What the folder held when it was stopped needs no repair.
    assert_eq!(leftovers(data), Vec::<String>::new());

    let store = Store::open(&data.join("store")).unwrap();
    let judged = [Split::Train, Split::Dev].map(|split| store.judged_queries(split).unwrap()).concat();
    let judged: BTreeSet<(String, String)> = judged
        .into_iter()
        .flat_map(|(query, judgments)| judgments.into_iter().map(move |of| (query.text.clone(), of.document)))
        .collect();
    let lost: Vec<_> = written.votes.difference(&judged).collect();
    assert!(lost.is_empty(), "{lost:?}");
    println!(
        "{kills} kills, {} stops of at most {slowest_stop:.1?}, {refreshes} refreshes came to their end; {} documents, {} \
         votes; struck in: {struck_in:?}",
        turns - kills,
        written.documents.len(),
        written.votes.len(),
    );
    assert!(kills >= 20, "{kills} kills prove little");
    assert!(written.documents.len() > turns && written.votes.len() > turns, "too few writes prove little");
    let parts: BTreeSet<&str> = struck_in.keys().map(|(part, _)| *part).collect();
    assert!(parts.len() >= 5, "{struck_in:?}");
}
