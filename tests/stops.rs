//! A stop at any time: the server ends by itself, and the next start makes up for what was not done.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use common::corpus::wait_for;
use common::raw::posted;
use common::{Ending, Server, outcome};
use serde_json::{Value, json};

const DOCUMENTS: usize = 1500;

fn corpus(file: &std::path::Path, documents: std::ops::Range<usize>) {
    let text = "a long text about dense retrieval and negatives ".repeat(30);
    let lines: String =
        documents.map(|at| format!("{}\n", json!({"_id": format!("d{at}"), "title": "", "text": text}))).collect();
    std::fs::write(file, lines).unwrap();
}

fn counts(server: &Server) -> (Value, Value) {
    let status = server.get("/admin/status").json();
    (status["documents"].clone(), status["indexed"].clone())
}

/// From the first moment to the last of a start over a sample: reading it, encoding it, catching up.
#[test]
fn a_stop_while_it_starts_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (data, sample) = (folder.path().join("data"), folder.path().join("corpus.jsonl"));
    corpus(&sample, 0..DOCUMENTS);
    let arguments = ["--sample", sample.to_str().unwrap()];
    let building = || std::fs::read_dir(data.join("generations")).is_ok_and(|mut entries| entries.next().is_some());
    let signs: [&dyn Fn(&Server) -> bool; 3] = [
        &|server| server.log().contains("listening"),
        &|server| server.log().contains("importing the sample"),
        &|_| building(),
    ];
    for (at, sign) in signs.into_iter().enumerate() {
        let server = Server::spawn(&data, &arguments);
        wait_for("the sign", || sign(&server));
        assert!(server.stop().success(), "{at}");
    }
    let server = Server::start_with(&data, &arguments);
    assert_eq!(counts(&server), (json!(DOCUMENTS), json!(DOCUMENTS)));
    assert!(server.stop().success());

    // Documents that the index has not seen yet.
    corpus(&sample, DOCUMENTS..2 * DOCUMENTS);
    let imported = outcome(&["import", "--data", data.to_str().unwrap(), sample.to_str().unwrap()], &[]);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let server = Server::spawn(&data, &[]);
    wait_for("the start", || server.try_get("/readyz").is_some_and(|answer| answer.status == 503));
    assert!(server.stop().success());
    let server = Server::start(&data);
    assert_eq!(counts(&server), (json!(2 * DOCUMENTS), json!(2 * DOCUMENTS)));
    assert!(server.stop().success());
}

#[test]
fn a_stop_under_writes_keeps_what_was_answered() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    let (stopped, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let written: Vec<String> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (server, stopped, over) = (&server, &stopped, &over);
                scope.spawn(move || {
                    let mut written = Vec::new();
                    for at in 0.. {
                        if over.load(Ordering::Acquire) {
                            return written;
                        }
                        let id = format!("w{writer}-{at}");
                        let body = json!({"documents": [{"id": &id, "text": format!("text {at} of {writer}")}]});
                        let answer = server.try_post_raw("/documents", "application/json", body.to_string().as_bytes());
                        match answer.map(|answer| answer.status) {
                            Some(200) => written.push(id),
                            Some(503) | None if stopped.load(Ordering::Acquire) => return written,
                            other => panic!("{other:?} before the stop"),
                        }
                    }
                    written
                })
            })
            .collect();
        // What is asserted here must end the test, not only this thread.
        let _ended = Ending(&over);
        wait_for("some writes", || server.get("/admin/status").json()["documents"].as_u64() > Some(50));
        stopped.store(true, Ordering::Release);
        server.signal("TERM");
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    assert!(server.wait().success(), "{}", server.log());
    let server = Server::start(data.path());
    for id in &written {
        assert_eq!(server.get(&format!("/documents/{id}")).status, 200, "{id}");
    }
    let (documents, indexed) = counts(&server);
    assert_eq!(documents, indexed);
    assert!(server.stop().success());
}

#[test]
fn a_hang_up_ends_nothing_and_a_second_stop_ends_at_once() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(data.path(), &["--drain-timeout", "600", "--stall-timeout", "600"]);
    server.signal("HUP");
    wait_for("the line", || server.log().contains("SIGHUP: there is no certificate"));
    assert!(server.is_alive() && server.get("/healthz").status == 200);

    // A request whose body never ends holds the stop up.
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let whole = posted("/search", "", br#"{"query": "a"}"#);
    stream.write_all(&whole[..whole.len() - 1]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    server.signal("TERM");
    wait_for("the drain", || server.log().contains("draining"));
    server.signal("HUP");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(server.is_alive(), "{}", server.log());
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(1), "{}", server.log());
    assert!(server.log().contains("a second time"), "{}", server.log());
    drop(stream);
}
