//! Wrong input against a running server: each request is refused with its status and a problem that says what is wrong,
//! the process lives on, and nothing that it holds is lost.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use common::Server;
use common::raw::{self, Raw, exchange, request};
use serde_json::{Value, json};

/// What an answer must be.
enum Expected {
    /// A problem document: status, the last part of its type, parts of its detail.
    Problem(u16, &'static str, Vec<&'static str>),
    /// An error of OpenAI's shape: status and a part of its message.
    OpenAi(u16, &'static str),
    /// Refused by the HTTP parser, before any route: a status and no body.
    Parser(u16),
    /// Taken: a part of the body.
    Taken(&'static str),
}
use Expected::{OpenAi, Parser, Problem, Taken};

struct Case {
    name: String,
    request: Vec<u8>,
    expected: Expected,
}

fn posted(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    raw::posted(path, "", body)
}

fn lines(body: impl AsRef<[u8]>) -> Vec<u8> {
    request("POST", "/documents", "content-type: application/x-ndjson\r\n", body.as_ref())
}

fn got(path: &str) -> Vec<u8> {
    request("GET", path, "", b"")
}

fn nested(open: &str, inner: &str, close: &str, levels: usize) -> String {
    [open.repeat(levels), inner.to_owned(), close.repeat(levels)].concat()
}

fn bodies() -> Vec<(Vec<u8>, Expected)> {
    let refused = |kind, part| Problem(422, kind, vec![part]);
    let malformed = |part| Problem(400, "malformed-json", vec![part]);
    let too_large = || Problem(413, "body-too-large", vec!["max_body_bytes"]);
    let search = |body: &str| posted("/search", body);
    let big = "x".repeat(10 << 20);
    vec![
        (search("{\"query\": "), malformed("line 1, column 10")),
        (search("{\"query\": \"a\"} {"), malformed("trailing characters")),
        (search("{'query': 'a'}"), malformed("key must be a string")),
        (search(""), malformed("EOF")),
        (search("\u{feff}{\"query\": \"a\"}"), malformed("line 1")),
        (posted("/search", b"{\"query\": \"a\xff\"}"), malformed("invalid unicode")),
        (search("{\"query\": \"\\ud800\"}"), malformed("hex escape")),
        (search("{\"query\": \"\\udc00 a\"}"), malformed("surrogate")),
        (search("{\"query\": \"a\", \"min_score\": NaN}"), malformed("expected value")),
        (search("{\"query\": \"a\", \"min_score\": 1e999}"), malformed("number out of range")),
        (search("{\"query\": \"a\", \"min_score\": 1e39}"), refused("invalid-field", "min_score: ")),
        (search("{\"query\": \"a\", \"top_k\": 3}"), refused("unknown-field", "`top_k`")),
        (search("{\"query\": \"a\", \"query\": \"b\"}"), refused("invalid-field", "duplicate field `query`")),
        (search("[\"a\"]"), refused("invalid-field", "expected an object")),
        (search("{}"), refused("invalid-field", "query: missing")),
        (search("{\"query\": null, \"queries\": [null]}"), refused("invalid-field", "queries[0]")),
        (search("{\"query\": \"\"}"), refused("invalid-field", "query: empty")),
        (search("{\"query\": \" \\u00a0\\n\\t\"}"), refused("invalid-field", "query: empty")),
        (search(&format!("{{\"query\": \"{big}\"}}")), too_large()),
        (search(&format!("{{\"query\": \"{}\"}}", "x".repeat(20_000))), refused("invalid-field", "max_query_chars")),
        (search(&json!({"queries": vec!["a"; 2000]}).to_string()), refused("invalid-field", "max_batch")),
        (search("{\"query\": \"a\", \"k\": 0}"), refused("invalid-field", "k: 0")),
        (search("{\"query\": \"a\", \"k\": 1000000000}"), refused("invalid-field", "max_hits")),
        (search("{\"query\": \"a\", \"k\": 99999999999999999999}"), refused("invalid-field", "k: ")),
        (search("{\"query\": \"a\", \"offset\": -1}"), refused("invalid-field", "offset: invalid value")),
        (search("{\"query\": \"a\", \"offset\": 1000000000}"), refused("invalid-field", "max_hits")),
        (search("{\"query\": \"a\", \"ef\": 0}"), refused("invalid-field", "ef: 0")),
        (search("{\"query\": \"a\", \"include\": [\"score\"]}"), refused("invalid-field", "include[0]")),
        (search(&nested("[", "", "]", 100_000)), refused("invalid-field", "expected an object")),
        (search(&nested("{\"a\":", "1", "}", 100_000)), refused("unknown-field", "`a`")),
        (posted("/documents", "{\"documents\": [[\"a\", \"b\"]]}"), refused("invalid-field", "documents[0]")),
        (
            posted("/documents", "{\"documents\": [{\"id\": \"\"}]}"),
            refused("invalid-field", "documents[0]: the id is empty"),
        ),
        (
            posted("/documents", json!({"documents": [{"id": "new"}, {"id": "x".repeat(501)}]}).to_string()),
            refused("invalid-field", "documents[1]: the id is longer than 500 bytes"),
        ),
        (
            posted("/documents", "{\"documents\": [{\"id\": \"new\", \"lang\": \"en\"}]}"),
            refused("unknown-field", "`lang`"),
        ),
        (posted("/documents", "{\"documents\": [{\"id\": 7}]}"), refused("invalid-field", "documents[0].id")),
        (
            posted(
                "/documents",
                json!({"documents": [{"id": "new", "metadata": {"many": vec![1; 20_000]}}]}).to_string(),
            ),
            refused("invalid-field", "documents[0]: "),
        ),
        (
            posted(
                "/documents",
                format!(
                    "{{\"documents\": [{{\"id\": \"new\", \"metadata\": {{\"a\": {}}}}}]}}",
                    nested("[", "", "]", 60)
                ),
            ),
            refused("invalid-field", "nested"),
        ),
        (
            posted(
                "/documents",
                format!(
                    "{{\"documents\": [{{\"id\": \"new\", \"metadata\": {{\"a\": {}}}}}]}}",
                    nested("[", "", "]", 100_000)
                ),
            ),
            malformed("recursion limit"),
        ),
        (
            posted("/documents", json!({"documents": [{"id": "new", "metadata": {"big": big}}]}).to_string()),
            too_large(),
        ),
        (posted("/documents/delete", "{\"ids\": []}"), refused("invalid-field", "ids: empty")),
        (posted("/documents/delete", json!({"ids": ["x".repeat(5000), ""]}).to_string()), Taken("\"deleted\":0")),
        (
            posted("/embed", "{\"texts\": [\"a\"], \"kind\": \"both\"}"),
            refused("invalid-field", "kind: unknown variant"),
        ),
        (posted("/v1/embeddings", "{\"input\": [1, 2], \"model\": \"m\"}"), OpenAi(422, "token ids")),
        (
            posted("/v1/embeddings", "{\"input\": \"a\", \"model\": \"m\", \"dimensions\": 7}"),
            OpenAi(422, "dimensions: 7"),
        ),
        (posted("/v1/embeddings", "{\"input\": [], \"model\": \"m\"}"), OpenAi(422, "input: empty")),
        (posted("/v1/embeddings", "{"), OpenAi(400, "line 1")),
    ]
}

fn filters() -> Vec<(Vec<u8>, Expected)> {
    let cases = [
        (json!("en"), "filter"),
        (json!([]), "filter"),
        (json!({"and": {"a": 1}}), "filter.and: expected an array"),
        (json!({"or": [{"a": 1}, 3]}), "filter.or[1]: expected an object"),
        (json!({"not": 1}), "filter.not: expected an object"),
        (json!({"year": {}}), "filter.year: "),
        (json!({"year": {"above": 3}}), "filter.year.above: no such bound"),
        (json!({"year": {"gt": 1, "gte": 1}}), "two bounds on one side"),
        (json!({"year": {"gt": 1, "lt": "b"}}), "both bounds"),
        (json!({"year": {"gt": null}}), "filter.year.gt: expected a number or a string"),
        (json!({"year": [1, [2]]}), "filter.year[1]"),
        (json!({"year": vec![1; 20_000]}), "more than 10000"),
    ];
    let body = |filter: &Value| posted("/search", json!({"query": "a", "filter": filter}).to_string());
    let refused = |part| Problem(422, "invalid-field", vec![part]);
    let mut rows: Vec<_> = cases.iter().map(|(filter, part)| (body(filter), refused(*part))).collect();
    for (levels, expected) in
        [(60, refused("deeper than 32")), (100_000, Problem(400, "malformed-json", vec!["recursion limit"]))]
    {
        let filter = nested("{\"not\":", "{\"a\":1}", "}", levels);
        rows.push((posted("/search", format!("{{\"query\": \"a\", \"filter\": {filter}}}")), expected));
    }
    rows.push((got("/search?q=a&filter=%5B1%5D"), refused("filter: ")));
    rows.push((got("/search?q=a&filter=%7B"), Problem(400, "malformed-json", vec!["filter: ", "line 1"])));
    rows
}

fn streams() -> Vec<(Vec<u8>, Expected)> {
    let good = |id: &str| json!({"id": id, "text": format!("the line of {id}")}).to_string();
    let bad = |id: &str, wrong: &str| lines(format!("{}\n{wrong}\n{}\n", good(id), good("never")));
    let long = json!({"id": "never", "text": "x".repeat(9 << 20)}).to_string();
    vec![
        (bad("line-1", "{\"id\": "), Problem(400, "malformed-json", vec!["line 2: ", "EOF"])),
        (bad("line-2", "[\"never\"]"), Problem(422, "invalid-field", vec!["line 2: ", "expected an object"])),
        (bad("line-3", "{\"id\": \"never\", \"x\": 1}"), Problem(422, "unknown-field", vec!["line 2: ", "`x`"])),
        (bad("line-4", "{\"id\": \"\"}"), Problem(422, "invalid-field", vec!["line 2: ", "the id is empty"])),
        (bad("line-5", &long), Problem(413, "body-too-large", vec!["line 2: ", "max_body_bytes"])),
        (
            lines([good("line-6").as_bytes(), b"\n{\"id\": \"never\xff\"}\n"].concat()),
            Problem(400, "malformed-json", vec!["line 2: ", "invalid unicode"]),
        ),
        (lines("\n \n"), Problem(422, "invalid-field", vec!["documents: empty"])),
        (lines(""), Problem(422, "invalid-field", vec!["documents: empty"])),
        (
            posted(
                "/documents",
                json!({"documents": [
                    {"id": "twice", "text": "the first version"}, {"id": "twice", "text": "the second version"}
                ]})
                .to_string(),
            ),
            Taken("\"written\":2"),
        ),
    ]
}

fn routes() -> Vec<(Vec<u8>, Expected)> {
    let unknown = |part| Problem(404, "unknown-document", vec![part]);
    let nothing = || Problem(404, "unknown-route", vec!["there is no "]);
    let wrong_method = || Problem(405, "method-not-allowed", vec!["does not take"]);
    let refused = |part| Problem(422, "invalid-field", vec![part]);
    let long = "x".repeat(5000);
    vec![
        (got("/documents/none"), unknown("`none`")),
        (request("DELETE", "/documents/none", "", b""), unknown("`none`")),
        (got("/documents/..%2f..%2fetc%2fpasswd"), unknown("`../../etc/passwd`")),
        (got("/documents/%00"), unknown("no document")),
        (got("/documents/%e2%80%ae"), unknown("no document")),
        (got(&format!("/documents/{long}")), unknown("no document")),
        (request("DELETE", &format!("/documents/{long}"), "", b""), unknown("no document")),
        (got("/documents/%ff%fe"), Problem(400, "malformed-request", vec!["UTF-8"])),
        (got("/documents/"), nothing()),
        (got("/documents/../metrics"), nothing()),
        (got("//etc/passwd"), nothing()),
        (got("/%2e%2e/Cargo.toml"), nothing()),
        (got("/docs/../../Cargo.toml"), nothing()),
        (got("/nothing"), nothing()),
        (got("/SEARCH?q=a"), nothing()),
        (request("OPTIONS", "*", "", b""), nothing()),
        (request("PUT", "/search", "", b""), wrong_method()),
        (request("DELETE", "/documents", "", b""), wrong_method()),
        (request("TRACE", "/healthz", "", b""), wrong_method()),
        (got("/search"), refused("missing field `q`")),
        (got("/search?q=%20"), refused("query: empty")),
        // A byte that is no UTF-8 reads as U+FFFD there, as forms have it.
        (got("/search?q=%ff"), Taken("\"hits\":")),
        (got("/search?q=a&k=1e3"), refused("k: ")),
        (got("/search?q=a&offset=-1"), refused("offset: ")),
        (got("/search?q=a&min_score=NaN"), refused("min_score: ")),
        (got("/search?q=a&include=all"), refused("include: ")),
        (got("/search?q=a&x=1"), Problem(422, "unknown-field", vec!["`x`"])),
        (got("/documents?limit=0"), refused("limit: 0")),
        (got("/documents?after="), Taken("\"id\":\"kept-1\"")),
        (got("/search?q=a&k=1&include="), Taken("\"hits\":[{\"id\"")),
        (got(&format!("/documents?after={long}")), Taken("\"documents\":")),
    ]
}

fn heads() -> Vec<(Vec<u8>, Expected)> {
    let unsupported = |part| Problem(415, "unsupported-media-type", vec![part]);
    let malformed = |part| Problem(400, "malformed-request", vec![part]);
    let body = b"{\"query\": \"a\"}";
    let typed = |headers: &str| request("POST", "/search", headers, body);
    vec![
        (typed(""), unsupported("Content-Type is missing")),
        (typed("content-type: text/plain\r\n"), unsupported("`text/plain`")),
        (typed("content-type: application/x-www-form-urlencoded\r\n"), unsupported("application/json")),
        (typed("content-type: \u{e9}\r\n"), unsupported("application/json")),
        (typed("content-type: application/json\r\ncontent-encoding: gzip\r\n"), unsupported("compressed")),
        (typed("content-type: application/x-ndjson\r\n"), unsupported("application/json")),
        (b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n".to_vec(), malformed("Host is missing")),
        (request("GET", "/healthz", "host: other\r\n", b""), malformed("more than one header Host")),
        (request("GET", "/healthz", &format!("x-long: {}\r\n", "x".repeat(1 << 20)), b""), Parser(431)),
        (request("GET", "/healthz", &"x-many: 1\r\n".repeat(1000), b""), Parser(431)),
        (request("GET", "/healthz", "two words: 1\r\n", b""), Parser(400)),
        (request("GET", "/heal thz", "", b""), Parser(400)),
        (got(&format!("/{}", "x".repeat(100_000))), Parser(431)),
        (got(&format!("/{}", "x".repeat(20_000))), Problem(414, "target-too-long", vec!["max_uri_bytes"])),
        (got(&format!("/search?q={}", "x".repeat(20_000))), Problem(414, "target-too-long", vec!["POST"])),
        (got("http://elsewhere/healthz"), malformed("another host")),
        (got("http://localhost/healthz"), Taken("\"ok\"")),
        (request("CONNECT", "elsewhere:443", "", b""), malformed("no proxy")),
        (got("/docs/%2e%2e/%2e%2e/Cargo.toml"), Problem(404, "unknown-route", vec!["no file"])),
        (got("/docs/%00"), Problem(404, "unknown-route", vec!["no file"])),
        (got("/documents//"), Problem(404, "unknown-route", vec!["there is no"])),
        (request("POST", "/search", "content-type: application/json\r\ncontent-length: 15\r\n", body), Parser(400)),
        (typed("transfer-encoding: gzip\r\n"), Parser(400)),
        (typed("transfer-encoding: chunked, identity\r\n"), Parser(400)),
        (b"POST /search HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(), Parser(400)),
        (b"GET /healthz HTTP/9.9\r\nhost: x\r\n\r\n".to_vec(), Parser(400)),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), Parser(400)),
        (request("POST", "/search", "content-type: application/json\r\ncontent-length: 1\r\n", body), Parser(400)),
        (
            b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: -1\r\n\r\n"
                .to_vec(),
            Parser(400),
        ),
        (
            b"POST /search HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
              transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"
                .to_vec(),
            malformed("the body broke off"),
        ),
    ]
}

fn cases() -> Vec<Case> {
    let rows = [bodies(), filters(), streams(), routes(), heads()].into_iter().flatten();
    rows.map(|(request, expected)| {
        let name = String::from_utf8_lossy(&request[..request.len().min(400)]).into_owned();
        Case { name, request, expected }
    })
    .collect()
}

/// What is wrong with an answer, and its JSON body, if it has one.
fn check(case: &Case, raw: &Raw) -> (Vec<String>, Value) {
    let body: Value = serde_json::from_slice(&raw.body).unwrap_or_default();
    let mut wrong = Vec::new();
    let mut expect = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    let status = match &case.expected {
        Problem(status, kind, parts) => {
            expect(raw.header("content-type") == "application/problem+json", "a problem document".to_owned());
            expect(body["type"] == format!("urn:anced:problem:{kind}"), format!("of type {kind}"));
            expect(body["status"] == *status, "with its status".to_owned());
            expect(body["title"].as_str().is_some_and(|title| !title.is_empty()), "with a title".to_owned());
            expect(body["request_id"] == raw.header("x-request-id"), "with the id of the header".to_owned());
            let detail = body["detail"].as_str().unwrap_or_default();
            expect(parts.iter().all(|part| detail.contains(part)), format!("a detail with {parts:?}"));
            *status
        }
        OpenAi(status, part) => {
            let message = body["error"]["message"].as_str().unwrap_or_default();
            expect(message.contains(part), format!("a message with {part}"));
            *status
        }
        Parser(status) => {
            expect(raw.body.is_empty(), "no body".to_owned());
            *status
        }
        Taken(part) => {
            expect(raw.text().contains(part), format!("a body with {part}"));
            200
        }
    };
    expect(raw.status == status, format!("status {status}"));
    (wrong, body)
}

fn documents(server: &Server) -> Vec<(String, String)> {
    let page = server.get("/documents?limit=1000").json();
    let text = |document: &Value, field: &str| document[field].as_str().unwrap().to_owned();
    page["documents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|document| (text(document, "id"), text(document, "text")))
        .collect()
}

#[test]
fn wrong_input_is_refused_and_harms_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    let kept = json!({"documents": [
        {"id": "kept-1", "text": "dense text retrieval", "metadata": {"year": 2019}},
        {"id": "kept-2", "text": "the index is refreshed", "metadata": {"year": 2021}},
    ]});
    assert_eq!(server.post("/documents", &kept).status, 200);

    let mut failures = Vec::new();
    for case in cases() {
        let raw = exchange(server.port(), &case.request);
        let (mut wrong, body) = check(&case, &raw);
        let cut_stream = case.name.contains("x-ndjson") && case.name.contains("line-");
        if cut_stream && (&body["line"], &body["written"]) != (&json!(2), &json!(1)) {
            wrong.push("line 2 named and 1 document written".to_owned());
        }
        if !wrong.is_empty() {
            let (name, status, body) = (&case.name, raw.status, raw.text());
            failures.push(format!("{name}\n-> {status} {body}\nexpected: {}", wrong.join(", ")));
        }
        assert!(server.is_alive(), "dead after {}\n{}", case.name, server.log());
    }

    assert!(failures.is_empty(), "{}", failures.join("\n\n"));

    // Requests that break off, at every place, with and without a clean end.
    let whole = posted("/documents", json!({"documents": [{"id": "never", "text": "half a request"}]}).to_string());
    for end in (0..whole.len()).step_by(7) {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.write_all(&whole[..end]).unwrap();
        if end.is_multiple_of(2) {
            stream.shutdown(Shutdown::Write).unwrap();
        }
    }

    let wanted: Vec<(String, String)> = [
        ("kept-1", "dense text retrieval"),
        ("kept-2", "the index is refreshed"),
        ("line-1", "the line of line-1"),
        ("line-2", "the line of line-2"),
        ("line-3", "the line of line-3"),
        ("line-4", "the line of line-4"),
        ("line-5", "the line of line-5"),
        ("line-6", "the line of line-6"),
        ("twice", "the second version"),
    ]
    .map(|(id, text)| (id.to_owned(), text.to_owned()))
    .into();
    assert_eq!(documents(&server), wanted);
    for (id, text) in &wanted {
        assert_eq!(server.search_ids(text, 1), [id.as_str()]);
    }
    assert_eq!(server.search_ids("anything", 100).len(), wanted.len());
    assert_eq!(server.get("/readyz").status, 200);
    let log = server.log();
    assert!(!log.contains("panic"), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
    assert!(server.stop().success());

    let server = Server::start(data.path());
    assert_eq!(documents(&server), wanted);
    assert_eq!(server.search_ids("the second version", 1), ["twice"]);
}
