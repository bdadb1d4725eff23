//! Many connections, slow ones, and too few descriptors: who behaves is answered, and the server lives on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::corpus::wait_for;
use common::raw::{self, exchange, request};
use common::{Answer, Server};
use serde_json::json;

fn connected(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Reads one answer of `/healthz` from a connection that stays open.
fn health(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"}") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// Whether the server ended a connection, and whatever it said before.
fn end(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    stream.read_to_end(&mut said).map(drop).unwrap_or_else(|error| {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it is open still");
    });
    String::from_utf8(said).unwrap()
}

/// The connections that a server has open.
fn sockets(server: &Server) -> usize {
    let descriptors = std::fs::read_dir(PathBuf::from(format!("/proc/{}/fd", server.pid()))).unwrap();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

fn set_descriptors(server: &Server, soft: usize) {
    let pid = server.pid().to_string();
    let set = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")]).status();
    assert!(set.unwrap().success(), "prlimit (util-linux) is needed");
}

fn write(server: &Server, documents: std::ops::Range<usize>, text: &str) -> Answer {
    let documents: Vec<_> = documents.map(|at| json!({"id": format!("d{at}"), "text": text})).collect();
    server.post("/documents", &json!({"documents": documents}))
}

#[test]
fn slow_clients_are_cut_off() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    for at in 0..4 {
        assert_eq!(write(&server, at * 60..(at + 1) * 60, &"x y ".repeat(25_000)).status, 200);
    }
    assert!(server.stop().success());
    let quick = ["--head-timeout", "2", "--idle-timeout", "2", "--stall-timeout", "3", "--min-rate", "100000000"];
    let server = Server::start_with(data.path(), &quick);
    let rest = settled(&server);

    let mut silent = connected(&server);
    let mut half_head = connected(&server);
    half_head.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-more").unwrap();
    let mut idle = connected(&server);
    assert!(health(&mut idle).starts_with("HTTP/1.1 200"));
    for stream in [&mut silent, &mut half_head, &mut idle] {
        assert_eq!(end(stream), "");
    }

    // A body that stops coming is refused, in whichever form it came.
    let whole = raw::posted("/search", "", b"{\"query\": \"a\"}");
    let lines = request("POST", "/documents", "content-type: application/x-ndjson\r\n", b"{\"id\": \"never\"");
    for sent in [&whole[..whole.len() - 3], &lines[..lines.len() - 3]] {
        let mut stream = connected(&server);
        stream.write_all(sent).unwrap();
        let answer = raw::answer(&mut stream);
        assert_eq!(answer.status, 408, "{}", answer.text());
        assert!(answer.text().contains("too-slow") && answer.text().contains("stall_timeout"), "{}", answer.text());
    }

    // An answer of 24 MB that nobody reads holds its connection no longer than the others.
    wait_for("the ends of those before", || sockets(&server) <= rest);
    let page = request("GET", "/documents?limit=1000", "", b"");
    let mut deaf = connected(&server);
    deaf.write_all(&page).unwrap();
    wait_for("the connection", || sockets(&server) > rest);
    wait_for("its end", || sockets(&server) <= rest);
    assert!(server.stop().success());

    // Who reads gets all of it; as slowly as a machine with other work lets one read.
    let server = Server::start(data.path());
    let read = exchange(server.port(), &page);
    assert!(read.status == 200 && read.body.len() > 20_000_000, "{} {}", read.status, read.body.len());
    assert_eq!(read.header("content-length"), read.body.len().to_string());
    assert!(server.stop().success());
}

/// Sockets when those of earlier requests are gone.
fn settled(server: &Server) -> usize {
    let (mut count, mut same) = (sockets(server), 0);
    while same < 30 {
        std::thread::sleep(Duration::from_millis(10));
        let now = sockets(server);
        same = if now == count { same + 1 } else { 0 };
        count = now;
    }
    count
}

#[test]
fn a_connection_too_many_is_refused_and_health_still_answers() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--max-connections", "20", "--head-timeout", "600"]);
    let rest = settled(&server);
    let mut taken: Vec<TcpStream> = (0..20).map(|_| connected(&server)).collect();
    wait_for("all connections", || sockets(&server) >= rest + 20);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(exchange(server.port(), &request("GET", path, "", b"")).status, 200, "{path}");
    }
    let refused = exchange(server.port(), &request("GET", "/search?q=a", "", b""));
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"), "{}", refused.text());
    assert!(refused.text().contains("too many connections"), "{}", refused.text());
    // Those that have a place are served as ever.
    assert!(health(&mut taken[7]).starts_with("HTTP/1.1 200"));
    drop(taken);
    wait_for("places", || exchange(server.port(), &request("GET", "/search?q=a", "", b"")).status == 200);
    assert!(server.stop().success());
}

#[test]
fn hundreds_of_open_connections_hold_up_neither_searches_nor_a_stop() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--drain-timeout", "20", "--head-timeout", "600"]);
    assert_eq!(write(&server, 0..20, "dense text retrieval").status, 200);
    let mut open: Vec<TcpStream> = (0..400).map(|_| connected(&server)).collect();
    for (at, stream) in open.iter_mut().enumerate().filter(|(at, _)| at % 4 == 0) {
        let sent = raw::posted("/search", "", b"{\"query\": \"a\"}");
        // Half of them stop in the head, half in the body.
        let length = if at % 8 == 0 { 30 } else { sent.len() - 1 };
        stream.write_all(&sent[..length]).unwrap();
    }
    for _ in 0..50 {
        assert_eq!(server.search_ids("dense text", 5).len(), 5);
    }
    assert!(health(&mut open[1]).starts_with("HTTP/1.1 200"));
    // Bodies under way would be waited for; the others are not.
    let (bodies, others): (Vec<_>, Vec<_>) = open.into_iter().enumerate().partition(|(at, _)| at % 8 == 4);
    drop(bodies);
    assert!(server.stop().success());
    drop(others);
}

#[test]
fn without_descriptors_it_waits_and_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(data.path(), &["--head-timeout", "600"]);
    let mut early = connected(&server);
    assert!(health(&mut early).starts_with("HTTP/1.1 200"));
    let used = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    set_descriptors(&server, used + 5);
    let many: Vec<TcpStream> = (0..40).map(|_| connected(&server)).collect();
    wait_for("the complaint", || server.log().contains("no connection can be taken now"));
    for _ in 0..20 {
        assert!(health(&mut early).starts_with("HTTP/1.1 200"), "who has a connection is answered");
    }
    assert!(server.is_alive());
    drop(many);
    wait_for("a new connection", || server.try_get("/healthz").is_some_and(|answer| answer.status == 200));
    let complaints = server.log().matches("no connection can be taken now").count();
    assert!(complaints <= 3, "{complaints} lines: one each 10 s is enough");
    assert!(server.stop().success());
}

#[test]
fn a_low_limit_on_descriptors_bounds_the_connections() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::spawn_by(&["prlimit", "--nofile=128:128"], data.path(), &["--head-timeout", "600"]);
    server.wait_until_ready();
    wait_for("the warning", || {
        server.log().lines().any(|line| line.contains("too low for max_connections") && line.contains("LimitNOFILE"))
    });
    let open: Vec<TcpStream> = (0..64).map(|_| connected(&server)).collect();
    wait_for("the refusal", || exchange(server.port(), &request("GET", "/search?q=a", "", b"")).status == 503);
    assert_eq!(exchange(server.port(), &request("GET", "/healthz", "", b"")).status, 200);
    assert!(!server.log().contains("no connection can be taken now"), "{}", server.log());
    drop(open);
    assert!(server.stop().success());
}
