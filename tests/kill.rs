//! `kill -9` at random moments: what was acknowledged is there after the next start, and nothing is there twice.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::random::Random;
use common::{Ending, PATIENCE, Server};
use serde_json::{Value, json};

/// A search for everything may ask for so many, however many documents a fast machine writes.
const ALL_HITS: [&str; 2] = ["--max-hits", "1000000"];
/// Kills over the same data folder, those before the first generation included.
const ROUNDS: u64 = 24;
const WRITERS: usize = 3;

/// A document's text; none where it is not there.
type State = Option<String>;

/// What may be found of one document.
#[derive(Debug, Default)]
struct Known {
    acknowledged: State,
    /// Asked for since, without an answer: each may or may not have happened.
    open: Vec<State>,
}

/// The documents of one writer: no other writes to them.
struct Writer {
    name: String,
    random: Random,
    known: BTreeMap<String, Known>,
    /// Written or deleted since the last check.
    touched: BTreeSet<String>,
    next: u64,
}

impl Writer {
    fn new(number: usize, random: Random) -> Self {
        Self { name: format!("w{number}"), random, known: BTreeMap::new(), touched: BTreeSet::new(), next: 0 }
    }

    /// Writes until the server is gone; returns the number of acknowledged requests.
    fn run(&mut self, server: &Server, gone: &AtomicBool) -> u64 {
        let mut acknowledged = 0;
        while !gone.load(Ordering::Acquire) {
            let answered = match self.random.below(8) {
                0..=2 => self.post(server),
                3..=5 => self.stream(server),
                6 => self.delete(server),
                _ => self.delete_many(server),
            };
            match answered {
                Some(true) => acknowledged += 1,
                Some(false) => {}
                None => return acknowledged,
            }
        }
        acknowledged
    }

    /// New documents and new versions of known ones, each id once.
    fn documents(&mut self, count: u64) -> BTreeMap<String, String> {
        let mut documents = BTreeMap::new();
        for _ in 0..count {
            let known = self.known.len() as u64;
            let update = known > 20 && self.random.below(3) == 0;
            let id = if update { self.some_id() } else { self.new_id() };
            let text = self.random.text(6);
            documents.insert(id, text);
        }
        documents
    }

    fn new_id(&mut self) -> String {
        self.next += 1;
        format!("{}-{}", self.name, self.next)
    }

    fn some_id(&mut self) -> String {
        let place = self.random.below(self.known.len() as u64) as usize;
        self.known.keys().nth(place).unwrap().clone()
    }

    fn intend(&mut self, id: &str, state: State) {
        self.touched.insert(id.to_owned());
        self.known.entry(id.to_owned()).or_default().open.push(state);
    }

    fn acknowledge(&mut self, id: &str, state: State) {
        *self.known.get_mut(id).unwrap() = Known { acknowledged: state, open: Vec::new() };
    }

    fn post(&mut self, server: &Server) -> Option<bool> {
        let count = 1 + self.random.below(4);
        let documents = self.documents(count);
        let body: Vec<Value> = documents.iter().map(|(id, text)| json!({"id": id, "text": text})).collect();
        let body = json!({"documents": body}).to_string();
        self.send(server, &documents.into_iter().collect::<Vec<_>>(), "application/json", &body)
    }

    fn stream(&mut self, server: &Server) -> Option<bool> {
        // More than one batch of the server now and then.
        let count = if self.random.below(6) == 0 { 300 } else { 20 };
        let documents: Vec<(String, String)> = self.documents(count).into_iter().collect();
        let body: String =
            documents.iter().map(|(id, text)| format!("{}\n", json!({"id": id, "text": text}))).collect();
        self.send(server, &documents, "application/x-ndjson", &body)
    }

    /// None where the connection broke, false where the server said no.
    fn send(&mut self, server: &Server, documents: &[(String, String)], kind: &str, body: &str) -> Option<bool> {
        for (id, text) in documents {
            self.intend(id, Some(text.clone()));
        }
        let answer = server.try_post_raw("/documents", kind, body.as_bytes())?;
        // A stream that a stopping server ends says how many of its documents are on disk.
        let written = answer.json()["written"].as_u64().unwrap_or(0) as usize;
        assert!(answer.status == 200 || answer.status == 503, "{}", answer.text());
        assert!(answer.status != 200 || written == documents.len(), "{}", answer.text());
        for (id, text) in &documents[..written] {
            self.acknowledge(id, Some(text.clone()));
        }
        Some(answer.status == 200)
    }

    fn delete(&mut self, server: &Server) -> Option<bool> {
        if self.known.is_empty() {
            return Some(false);
        }
        let id = self.some_id();
        self.intend(&id, None);
        let answer = server.try_delete(&format!("/documents/{id}"))?;
        assert!([200, 404, 503].contains(&answer.status), "{}", answer.text());
        if answer.status == 503 {
            return Some(false);
        }
        self.acknowledge(&id, None);
        Some(true)
    }

    fn delete_many(&mut self, server: &Server) -> Option<bool> {
        if self.known.is_empty() {
            return Some(false);
        }
        let ids: BTreeSet<String> = (0..3).map(|_| self.some_id()).collect();
        for id in &ids {
            self.intend(id, None);
        }
        let body = json!({"ids": ids}).to_string();
        let answer = server.try_post_raw("/documents/delete", "application/json", body.as_bytes())?;
        assert!([200, 503].contains(&answer.status), "{}", answer.text());
        if answer.status == 503 {
            return Some(false);
        }
        for id in &ids {
            self.acknowledge(id, None);
        }
        Some(true)
    }

    /// Compares the server with what is known; what is found is known from then on.
    fn check(&mut self, server: &Server, listed: &BTreeMap<String, String>) {
        for (id, known) in &mut self.known {
            let found = listed.get(id).cloned();
            let possible = std::iter::once(&known.acknowledged).chain(&known.open);
            assert!(possible.clone().any(|state| *state == found), "{id}: {found:?} is none of {known:?}");
            *known = Known { acknowledged: found, open: Vec::new() };
        }
        let touched = std::mem::take(&mut self.touched);
        let mut queries = Vec::new();
        for id in &touched {
            let answer = server.get(&format!("/documents/{id}"));
            let found = (answer.status == 200).then(|| answer.json()["text"].as_str().unwrap().to_owned());
            assert_eq!(found, self.known[id].acknowledged, "{id}: read by id and in the list");
            queries.extend(found.map(|text| (id, text)));
        }
        for some in queries.chunks(500) {
            let texts: Vec<&str> = some.iter().map(|(_, text)| text.as_str()).collect();
            for exact in [true, false] {
                let query = json!({"queries": texts, "k": 20, "exact": exact, "include": ["text"]});
                let answer = server.post("/search", &query).json();
                for ((id, text), result) in some.iter().zip(answer["results"].as_array().unwrap()) {
                    let hits = result["hits"].as_array().unwrap();
                    assert_once(hits);
                    let hit = hits.iter().find(|hit| hit["id"] == **id);
                    let hit = hit.unwrap_or_else(|| panic!("{id} is not found (exact: {exact})"));
                    assert_eq!(hit["text"], **text, "{id}");
                    assert!(hit["score"].as_f64().unwrap() > 0.999, "{id}: found by an old vector: {hit}");
                }
            }
        }
    }
}

fn assert_once(hits: &[Value]) {
    let ids: BTreeSet<&str> = hits.iter().map(|hit| hit["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), hits.len(), "a document twice: {hits:?}");
}

/// Every document by the list.
fn list(server: &Server) -> BTreeMap<String, String> {
    let mut documents = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = server.get(&format!("/documents?limit=1000&after={after}")).json();
        for document in page["documents"].as_array().unwrap() {
            let [id, text] = ["id", "text"].map(|field| document[field].as_str().unwrap().to_owned());
            assert!(documents.insert(id, text).is_none(), "{document} is listed twice");
        }
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => return documents,
        }
    }
}

/// Waits until the store and the index have held the same for a while.
fn settle(server: &Server) {
    let mut same = 0;
    let mut last = Value::Null;
    let started = Instant::now();
    while same < 10 {
        assert!(started.elapsed() < PATIENCE, "writes go on, or store and index differ for good: {last}");
        std::thread::sleep(Duration::from_millis(20));
        let status = server.get("/admin/status").json();
        let now = json!([status["sequence"], status["documents"], status["indexed"]]);
        same = if now == last && status["documents"] == status["indexed"] { same + 1 } else { 0 };
        last = now;
    }
}

fn check(server: &Server, writers: &mut [Writer]) {
    let listed = list(server);
    let status = server.get("/admin/status").json();
    assert_eq!((&status["documents"], &status["indexed"]), (&json!(listed.len()), &json!(listed.len())), "{status}");
    let known: usize = writers.iter().map(|writer| writer.known.len()).sum();
    assert!(listed.len() <= known || writers.is_empty(), "documents that nobody wrote");
    if !listed.is_empty() {
        // Everything that the index holds.
        let query = json!({"query": "anything", "k": listed.len(), "exact": true, "include": []});
        let answer = server.post("/search", &query).json();
        let hits = answer["hits"].as_array().unwrap_or_else(|| panic!("{} documents: {answer}", listed.len()));
        assert_once(hits);
        assert_eq!(hits.len(), listed.len(), "search finds another number of documents than there are");
    }
    for writer in writers {
        writer.check(server, &listed);
    }
}

/// Index files and folders beside those that the manifests name.
fn leftovers(data: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![data.to_path_buf(), data.join("generations")];
    while let Some(folder) = folders.pop() {
        let mut index_files = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            index_files += u32::from(name.ends_with(".usearch"));
            if name.starts_with(".tmp") || name.ends_with(".new") || index_files > 1 {
                found.push(entry.path().display().to_string());
            }
            if name.parse::<u64>().is_ok() {
                folders.push(entry.path());
            }
        }
    }
    found
}

/// Runs the writers until `end` has ended the server; returns the number of acknowledged requests.
fn write_until(server: &Server, writers: &mut [Writer], end: impl FnOnce(&Server)) -> u64 {
    let gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let running: Vec<_> = writers.iter_mut().map(|writer| scope.spawn(|| writer.run(server, &gone))).collect();
        // What is asserted there must end the test, not only this thread.
        let _gone = Ending(&gone);
        end(server);
        gone.store(true, Ordering::Release);
        running.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_process_is_killed() {
    let mut random = Random::from_seed("kill");
    let data = tempfile::tempdir().unwrap();
    let sleep = |most: Duration, random: &mut Random| {
        std::thread::sleep(Duration::from_micros(random.below(most.as_micros() as u64 + 1)));
    };

    // How long a first start, a later start and a stop take here, on a folder of their own.
    let probe = tempfile::tempdir().unwrap();
    let time = |from: Instant| from.elapsed().min(Duration::from_secs(3));
    let from = Instant::now();
    drop(Server::start(probe.path()));
    let first_start = time(from);

    for _ in 0..4 {
        let server = Server::spawn(data.path(), &[]);
        sleep(first_start, &mut random);
        server.kill();
    }

    let mut writers: Vec<Writer> = (0..WRITERS).map(|number| Writer::new(number, random.fork())).collect();
    let (mut start, mut stop) = (first_start, Duration::from_millis(100));
    let (mut acknowledged, mut cut, mut ended) = (0, 0, 0);
    for round in 0..ROUNDS {
        if round % 3 == 2 {
            // While it starts and encodes again what the last one could not save.
            let server = Server::spawn(data.path(), &[]);
            sleep(start, &mut random);
            server.kill();
        }
        // Saves after every few writes, now and then, or only at the end.
        let save_after = ["3", "60", "1000000"][random.below(3) as usize];
        let from = Instant::now();
        let mut server = Server::start_with(data.path(), &[&["--save-after", save_after], &ALL_HITS[..]].concat());
        start = time(from);
        check(&server, &mut writers);
        assert_eq!(leftovers(data.path()), Vec::<String>::new());

        let stopped = round % 4 == 3;
        acknowledged += write_until(&server, &mut writers, |server| {
            std::thread::sleep(Duration::from_millis(100));
            sleep(Duration::from_millis(300), &mut random);
            if stopped {
                // While it drains and saves.
                server.signal("TERM");
                sleep(stop, &mut random);
            }
            if round % 8 != 3 {
                server.signal("KILL");
            }
        });
        let from = Instant::now();
        match server.wait().code() {
            Some(code) => {
                // The stop was faster than the kill, or nobody killed it.
                assert!(stopped && code == 0, "{code}: {}", server.log());
                stop = stop.max(time(from));
                ended += 1;
            }
            None => cut += 1,
        }
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
    let server = Server::start_with(data.path(), &ALL_HITS);
    check(&server, &mut writers);
    let documents = list(&server).len();
    println!("{cut} kills under writes, {ended} stops, {acknowledged} acknowledged requests, {documents} documents");
    assert!(cut >= 18 && acknowledged > ROUNDS, "{cut} kills, {acknowledged} acknowledged requests prove little");
    assert!(server.stop().success());
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_write_leaves_the_index_whole() {
    let mut random = Random::from_seed("leave");
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--save-after", "20"]);
    for round in 0..40 {
        let lines: Vec<String> = (0..40)
            .map(|line| json!({"id": format!("{}", round % 7 * 40 + line), "text": random.text(6)}).to_string())
            .collect();
        let (kind, body) = match round % 2 {
            0 => ("application/json", format!("{{\"documents\": [{}]}}", lines.join(","))),
            _ => ("application/x-ndjson", lines.join("\n")),
        };
        let head = format!(
            "POST /documents HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // The whole request, or a part of it; then gone, after a while.
        let sent = if round % 3 == 0 { random.below(body.len() as u64) as usize } else { body.len() };
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body.as_bytes()[..sent]).unwrap();
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        if round % 5 == 0 {
            let gone = server.post("/documents/delete", &json!({"ids": [format!("{}", round % 7 * 40)]}));
            assert_eq!(gone.status, 200);
        }
    }
    // A write whose client has gone may still be under way: it ends by itself, and then nothing changes any more.
    let last = server.post("/documents", &json!({"documents": [{"id": "last", "text": "the last"}]}));
    assert_eq!(last.status, 200, "{}", last.text());
    settle(&server);
    check(&server, &mut []);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    server.kill();
    check(&Server::start(data.path()), &mut []);
}
