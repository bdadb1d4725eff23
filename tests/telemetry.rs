//! What a server tells of itself beside its metrics: log lines, slow queries, traces to a collector.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use common::Server;
use common::corpus::{fill, metrics, wait_for};
use common::raw::{exchange, posted, request};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use serde_json::{Value, json};

const STAGES: [&str; 5] = ["queue_ms", "tokenize_ms", "encode_ms", "search_ms", "fetch_ms"];

/// Lines of a log in JSON that have a message.
fn lines(server: &Server, message: &str) -> Vec<Value> {
    let log = server.log();
    let all =
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    all.filter(|line| line["message"] == message).collect()
}

/// The line of a request, once it is there.
fn line(server: &Server, message: &str, id: &str) -> Value {
    let found = || lines(server, message).into_iter().find(|line| line["request_id"] == id);
    wait_for(id, || found().is_some());
    found().unwrap()
}

#[test]
fn a_line_of_the_log_tells_the_generation_and_the_stages_of_a_search() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--log-format", "json", "--slow-query-ms", "0"]);
    exchange(server.port(), &posted("/search", "x-request-id: found\r\n", r#"{"query": "secret words"}"#));
    exchange(server.port(), &posted("/search", "x-request-id: wrong\r\n", r#"{"query": "secret words", "k": 0}"#));
    let found = line(&server, "request", "found");
    let facts = ["method", "route", "status", "generation", "level"].map(|key| found[key].clone());
    assert_eq!(json!(facts), json!(["POST", "/search", 200, 1, "INFO"]), "{found}");
    assert!(STAGES.iter().all(|stage| found[stage].as_f64() <= found["duration_ms"].as_f64()), "{found}");
    let wrong = line(&server, "request", "wrong");
    assert!(wrong["status"] == 422 && wrong["problem"].as_str().unwrap().starts_with("k: "), "{wrong}");
    assert!(STAGES.iter().all(|stage| wrong.get(stage).is_none()), "{wrong}");
    assert!(lines(&server, "slow query").is_empty() && !server.log().contains("secret words"));
}

#[test]
fn slow_queries_are_told_with_their_length_and_with_their_text_where_that_is_wished() {
    for with_text in [false, true] {
        let data = tempfile::tempdir().unwrap();
        let log_queries = format!("--log-queries={with_text}");
        let arguments = ["--log-format", "json", "--slow-query-ms", "1", &log_queries];
        let server = Server::start_with(data.path(), &arguments);
        // A hundred queries take more than a millisecond anywhere.
        let body = json!({"queries": vec!["naïve words"; 100], "k": 3, "filter": {"lang": "en"}}).to_string();
        exchange(server.port(), &posted("/search", "x-request-id: slow\r\n", body));
        let slow = line(&server, "slow query", "slow");
        let facts = ["level", "queries", "chars", "k", "filtered", "exact", "generation"].map(|key| slow[key].clone());
        assert_eq!(json!(facts), json!(["WARN", 100, 1100, 3, true, false, 1]), "{slow}");
        assert!(STAGES.iter().all(|stage| slow[stage].is_number()), "{slow}");
        assert_eq!(server.log().contains("naïve words"), with_text, "{slow}");
    }
}

/// A collector that keeps what it is sent.
struct Collector {
    port: u16,
    received: Arc<Mutex<Vec<ResourceSpans>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut reader = BufReader::new(stream.unwrap());
                let head: Vec<String> =
                    reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
                if head.is_empty() {
                    continue;
                }
                assert_eq!(head[0], "POST /v1/traces HTTP/1.1");
                let header = |name: &str| {
                    let lower = head.iter().map(|line| line.to_ascii_lowercase());
                    lower.filter_map(|line| Some(line.strip_prefix(name)?.trim().to_owned())).next().unwrap()
                };
                assert_eq!(header("content-type:"), "application/x-protobuf");
                let mut body = vec![0; header("content-length:").parse().unwrap()];
                reader.read_exact(&mut body).unwrap();
                let told = ExportTraceServiceRequest::decode(&body[..]).unwrap();
                kept.lock().unwrap().extend(told.resource_spans);
                let answer = ExportTraceServiceResponse::default().encode_to_vec();
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/x-protobuf";
                let length = answer.len();
                let mut stream = reader.into_inner();
                stream.write_all(format!("{head}\r\ncontent-length: {length}\r\n\r\n").as_bytes()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        });
        Self { port, received }
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.received.lock().unwrap();
        let scopes = received.iter().flat_map(|of| of.scope_spans.iter());
        scopes.flat_map(|scope| scope.spans.iter().cloned()).collect()
    }
}

fn attributes(span: &Span) -> BTreeMap<String, String> {
    let text = |value: &Attribute| match value {
        Attribute::StringValue(text) => text.clone(),
        Attribute::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let pairs = span.attributes.iter();
    pairs.map(|pair| (pair.key.clone(), text(pair.value.as_ref().unwrap().value.as_ref().unwrap()))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_collector_is_told_each_request_and_the_stages_of_a_search() {
    let collector = Collector::start();
    let data = tempfile::tempdir().unwrap();
    let endpoint = format!("http://127.0.0.1:{}", collector.port);
    let server = Server::start_with(data.path(), &["--log-format", "json", "--otlp-endpoint", &endpoint]);
    fill(&server);
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let headers = format!("x-request-id: mine\r\ntraceparent: 00-{trace}-{parent}-01\r\n");
    exchange(server.port(), &posted("/search", &headers, r#"{"query": "a vector", "k": 3}"#));
    exchange(server.port(), &posted("/search", "x-request-id: wrong\r\n", r#"{"query": "a", "k": 0}"#));
    exchange(server.port(), &request("GET", "/nowhere", "x-request-id: lost\r\n", b""));
    let unasked = format!("x-request-id: unasked\r\ntraceparent: 00-{trace}-{parent}-00\r\n");
    exchange(server.port(), &posted("/search", &unasked, r#"{"query": "a vector"}"#));
    assert_eq!(line(&server, "request", "mine")["trace_id"], trace);
    assert!(line(&server, "request", "unasked").get("trace_id").is_none());
    let of_wrong = line(&server, "request", "wrong")["trace_id"].as_str().unwrap().to_owned();
    assert!(server.stop().success());

    let spans = collector.spans();
    let of = |id: &str| {
        let found: Vec<_> =
            spans.iter().filter(|span| attributes(span).get("anced.request_id").is_some_and(|is| is == id)).collect();
        assert_eq!(found.len(), 1, "{id}: {found:?}");
        found[0]
    };
    let mine = of("mine");
    assert_eq!((hex(&mine.trace_id), hex(&mine.parent_span_id)), (trace.into(), parent.into()));
    assert_eq!((mine.name.as_str(), mine.kind), ("POST /search", 2));
    let known = attributes(mine);
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/search"),
        ("http.response.status_code", "200"),
        ("anced.generation", "1"),
    ] {
        assert_eq!(known.get(key).map(String::as_str), Some(value), "{known:?}");
    }
    let stages: Vec<&Span> = spans.iter().filter(|span| span.parent_span_id == mine.span_id).collect();
    let names: Vec<&str> = stages.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["tokenize", "queue", "encode", "search", "fetch"]);
    assert!(
        stages
            .iter()
            .all(|span| span.trace_id == mine.trace_id && span.start_time_unix_nano >= mine.start_time_unix_nano)
    );
    assert!(stages.windows(2).all(|pair| pair[0].end_time_unix_nano == pair[1].start_time_unix_nano));
    assert!(stages[4].end_time_unix_nano <= mine.end_time_unix_nano, "{stages:?} {mine:?}");

    assert_eq!(hex(&of("wrong").trace_id), of_wrong);
    assert!(spans.iter().all(|span| span.parent_span_id != of("wrong").span_id), "a refused search has no stages");
    assert_eq!(of("lost").name, "GET other");
    assert!(spans.iter().all(|span| attributes(span).get("anced.request_id").is_none_or(|id| id != "unasked")));
    assert!(spans.iter().all(|span| !span.name.ends_with("/readyz")), "probes are not traced");
    let resource = collector.received.lock().unwrap()[0].resource.clone().unwrap();
    assert!(resource.attributes.iter().any(|pair| pair.key == "service.name"), "{resource:?}");
}

#[test]
fn a_collector_that_is_away_is_told_once_and_hurts_nobody() {
    let data = tempfile::tempdir().unwrap();
    // The near end of a connection: its port is taken, and nobody listens on it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let endpoint = format!("http://{}", line.local_addr().unwrap());
    let mut server = Server::start_with(data.path(), &["--otlp-endpoint", &endpoint]);
    for _ in 0..20 {
        assert!(server.search_ids("a", 1).is_empty());
    }
    server.signal("TERM");
    assert!(server.wait().success());
    assert_eq!(server.log().matches("the collector takes no traces").count(), 1, "{}", server.log());

    let refused = common::outcome(&["serve", "--otlp-endpoint", "https://collector"], &[]);
    assert!(refused.code == Some(2) && refused.stderr.contains("otlp_endpoint"), "{refused:?}");
}

/// `auto` beside a CUDA build whose CUDA does not work goes on with the CPU, and says so for an alert.
#[test]
fn a_fall_back_to_the_cpu_shows() {
    let here = std::fs::read_dir(common::root().join(".onnxruntime")).unwrap();
    let library = here.map(|entry| entry.unwrap().path());
    let is_library = |path: &std::path::PathBuf| {
        path.file_name().unwrap().to_str().unwrap().starts_with("libonnxruntime.so") && path.is_file()
    };
    let library = library.filter(is_library).min().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join(library.file_name().unwrap());
    std::os::unix::fs::symlink(&library, &copy).unwrap();
    std::fs::write(folder.path().join("libonnxruntime_providers_cuda.so"), "not a library").unwrap();
    let fallback = |arguments: &[&str]| {
        let data = tempfile::tempdir().unwrap();
        let mut all = vec!["--onnxruntime", copy.to_str().unwrap()];
        all.extend(arguments);
        let mut server = Server::start_with(data.path(), &all);
        let told = metrics(&server)["anced_encoder_fallback"];
        server.signal("TERM");
        assert!(server.wait().success());
        (told, server.log().contains("CUDA cannot be used"))
    };
    assert_eq!(fallback(&["--device", "cpu"]), (0.0, false));
    assert_eq!(fallback(&["--device", "auto"]), (1.0, true));
}
