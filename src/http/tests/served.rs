//! A server on a socket: slow clients, large bodies, and stopping.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::super::{Error, serve};
use super::*;

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), Error>>,
}

async fn start(settings: Settings) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { stopped.await.unwrap_or_default() };
    Running { address, stop, ended: tokio::spawn(serve(listener, app(settings), shutdown)) }
}

async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn it_answers_until_it_is_stopped() {
    let running = start(Settings::default()).await;
    assert!(exchange(running.address, HEALTH).await.starts_with("HTTP/1.1 200"));
    let idle = TcpStream::connect(running.address).await.unwrap();
    running.stop.send(()).unwrap();
    assert!(running.ended.await.unwrap().is_ok());
    assert!(TcpStream::connect(running.address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn a_body_past_the_limit_is_read_to_its_refusal() {
    let running = start(Settings { max_body_bytes: 1 << 20, ..Settings::default() }).await;
    let body = vec![b' '; 10 << 20];
    let head = format!(
        "POST /search HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = exchange(running.address, &[head.as_bytes(), &body].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("max_body_bytes"), "{answer}");
    assert!(exchange(running.address, HEALTH).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn who_leaves_a_body_unread_says_that_the_connection_ends() {
    let running = start(Settings::default()).await;
    let post = |path: &str, kind: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let body = " ".repeat(2000);
    for (path, kind, status) in
        [("/search", "text/plain", 415), ("/metrics", "application/json", 405), ("/no", "a/b", 404)]
    {
        let answer = exchange(running.address, post(path, kind, &body).as_bytes()).await.to_ascii_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
    // What was read to its end ends nothing.
    let both = [post("/search", "application/json", "{").as_bytes(), HEALTH].concat();
    let answers = exchange(running.address, &both).await;
    assert!(answers.starts_with("HTTP/1.1 400") && answers.contains("HTTP/1.1 200"), "{answers}");
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_are_given_up() {
    let running = start(Settings { request_timeout: 1, ..Settings::default() }).await;
    let head = exchange(running.address, b"GET /healthz HT").await;
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 4"), "{head}");
    let head =
        b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let answer = exchange(running.address, head).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("request_timeout"), "{answer}");
}

#[tokio::test]
async fn a_request_under_way_holds_the_stop_no_longer_than_the_drain() {
    let running = start(Settings { drain_timeout: 1, ..Settings::default() }).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head =
        b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    running.stop.send(()).unwrap();
    let error = running.ended.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Cut { connections: 1, seconds: 1 }), "{error}");
}

#[tokio::test]
async fn a_request_under_way_is_answered_while_draining() {
    let running = start(Settings::default()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head =
        b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n";
    stream.write_all(head).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    running.stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    stream.write_all(br#"{"query": "a"}"#).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("not-ready"), "{answer}");
    assert!(running.ended.await.unwrap().is_ok());
}
