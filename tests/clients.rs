//! Many clients at once, clients that leave, and a stop while they wait.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::corpus::{TOPICS, assert_same_hits, fill, metrics, search, wait_for};
use common::{Answer, Server, raw};
use serde_json::{Value, json};

#[test]
fn concurrent_clients_get_what_one_alone_gets() {
    let data = tempfile::tempdir().unwrap();
    let server = &Server::start(data.path());
    fill(server);
    let queries: Vec<String> =
        (0..64).map(|at| format!("{} and {} {}", TOPICS[at % 8], TOPICS[at / 8], "more ".repeat(at % 9))).collect();
    let ask = |query: &str| search(server, json!({"query": query, "k": 10}));
    let alone: Vec<Value> = queries.iter().map(|query| ask(query)).collect();
    let together: Vec<Vec<Value>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..64)
            .map(|client| {
                let (queries, ask) = (&queries, &ask);
                scope.spawn(move || (0..8).map(|turn| ask(&queries[(client + turn * 7) % 64])).collect())
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for (client, answers) in together.iter().enumerate() {
        for (turn, answer) in answers.iter().enumerate() {
            assert_same_hits(&answer["hits"], &alone[(client + turn * 7) % 64]["hits"]);
        }
    }
    let samples = metrics(server);
    let (runs, texts) = (samples["anced_encoder_batch_queries_count"], samples["anced_encoder_batch_queries_sum"]);
    assert!(texts > runs, "{texts} texts in {runs} runs: nothing was batched");
}

/// Queries that take the encoder a while.
fn slow_body(queries: usize) -> Value {
    let query = "a long query about dense retrieval and its negatives ".repeat(80);
    json!({"queries": vec![query; queries], "k": 1})
}

#[test]
fn a_full_queue_turns_searches_away_and_health_still_answers() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--queue-limit", "4"]);
    fill(&server);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..24)
            .map(|_| scope.spawn(|| (0..4).map(|_| server.post("/search", &slow_body(64))).collect::<Vec<_>>()))
            .collect();
        assert_eq!(server.get("/healthz").status, 200);
        assert_eq!(server.get("/readyz").status, 200);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!(!refused.is_empty(), "nothing was refused");
    assert!(answers.iter().any(|answer| answer.status == 200), "nothing was answered");
    for answer in &answers {
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
    }
    for answer in &refused {
        assert_eq!(answer.json()["type"], "urn:anced:problem:queue-full");
        assert!(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    }
    let samples = metrics(&server);
    assert_eq!(samples["anced_rejected_requests_total{reason=\"queue_full\"}"], refused.len() as f64);
    assert_eq!(samples["anced_encoder_queue_depth"], 0.0);
    assert_eq!(search(&server, json!({"query": "a"}))["hits"].as_array().unwrap().len(), 10);
}

/// Each request is under way when the stop comes, which its `100 Continue` proves, and is finished after it.
#[test]
fn a_stop_answers_every_request_that_was_taken() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    fill(&server);
    let request = raw::posted("/search", "expect: 100-continue\r\n", slow_body(60).to_string());
    let body = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut clients: Vec<TcpStream> = (0..12)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
            stream.write_all(&request[..body]).unwrap();
            let mut go_on = [0; 25];
            stream.read_exact(&mut go_on).unwrap();
            assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
            stream
        })
        .collect();
    server.signal("TERM");
    wait_for("the end of new connections", || TcpStream::connect(("127.0.0.1", server.port())).is_err());
    for stream in &mut clients {
        stream.write_all(&request[body..]).unwrap();
    }
    for stream in &mut clients {
        let answer = raw::answer(stream);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["results"].as_array().unwrap().len(), 60);
    }
    assert!(server.wait().success(), "{}", server.log());
}

#[test]
fn a_request_whose_client_left_is_counted_and_logged() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let request = raw::posted("/search", "x-request-id: left-1\r\n", slow_body(1000).to_string());
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream.write_all(&request).unwrap();
    drop(stream);
    let gone = "anced_http_requests_total{method=\"POST\",route=\"/search\",status=\"499\"}";
    wait_for("the count", || metrics(&server)[gone] == 1.0);
    wait_for("the log line", || server.log().lines().any(|line| line.contains("left-1") && line.contains("499")));
}
