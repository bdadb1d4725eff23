//! Connections over a pipe in memory, whose clock stands still but for the waiting.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::get;
use futures_util::stream;
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;

/// An answer that no window and no buffer holds.
const LARGE: usize = 4 << 20;

struct Served {
    client: DuplexStream,
    ended: JoinHandle<io::Result<()>>,
    stop: watch::Sender<bool>,
}

/// Answers of every kind on one end of a pipe.
async fn served(http2: bool, in_reserve: bool) -> Served {
    let (client, server) = tokio::io::duplex(64 << 10);
    let settings =
        Settings { idle_timeout: 4, stall_timeout: 20, min_rate: 1000, max_connections: 1, ..Settings::default() };
    let parts =
        |length: usize| stream::iter((0..length / 1000).map(|_| Ok::<_, io::Error>(Bytes::from(vec![7; 1000]))));
    let now_and_then = || {
        stream::unfold((), |()| async {
            sleep(Duration::from_secs(60)).await;
            Some((Ok::<_, io::Error>(Bytes::from_static(b"event\n")), ()))
        })
    };
    let router = Router::new()
        .route("/small", get(|| async { "small" }))
        .route("/large", get(|| async { vec![7_u8; LARGE] }))
        .route("/unknown", get(move || async move { Response::new(Body::from_stream(parts(LARGE))) }))
        .route("/events", get(move || async move { Response::new(Body::from_stream(now_and_then())) }));
    let (stop, stopping) = watch::channel(false);
    let places = Places::new(&settings);
    let mut place = places.next().await.unwrap();
    if in_reserve {
        place = places.next().await.unwrap();
    }
    assert_eq!(place.in_reserve, in_reserve);
    let limits = Limits::new(&settings);
    let common = Common { router, places, limits, settings: Arc::new(settings), tls: None, stopping };
    let ended = tokio::spawn(async move {
        match http2 {
            true => common.http2(server, &place).await,
            false => common.http1(server, &place).await,
        }
    });
    Served { client, ended, stop }
}

/// A client of HTTP/2 with windows of `window` bytes.
async fn client(stream: DuplexStream, window: u32) -> SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(1 << 20);
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

async fn ask(sender: &mut SendRequest<Bytes>, path: &str) -> h2::RecvStream {
    let request = axum::http::Request::get(format!("http://localhost{path}")).body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    answer.await.unwrap().into_body()
}

/// Reads a body to its end, at 64 KiB a second; returns how much came and whether it was all.
async fn slowly(body: &mut h2::RecvStream) -> (usize, bool) {
    let mut length = 0;
    while let Some(chunk) = body.data().await {
        let Ok(chunk) = chunk else { return (length, false) };
        length += chunk.len();
        sleep(Duration::from_millis(chunk.len() as u64 * 1000 / (64 << 10))).await;
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    (length, true)
}

/// Seconds until the server ends a connection.
async fn seconds(ended: JoinHandle<io::Result<()>>) -> u64 {
    let started = Instant::now();
    tokio::time::timeout(Duration::from_secs(600), ended).await.expect("it is open still").unwrap().ok();
    started.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_gets_all_of_an_answer() {
    for path in ["/large", "/unknown"] {
        let mut served = served(false, false).await;
        let request = format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n");
        served.client.write_all(request.as_bytes()).await.unwrap();
        let (mut length, mut buffer) = (0, vec![0; 64 << 10]);
        loop {
            // Far longer in all than the four seconds between requests.
            sleep(Duration::from_millis(500)).await;
            match served.client.read(&mut buffer).await.unwrap() {
                0 => break,
                read => length += read,
            }
        }
        assert!(length > LARGE - 1000, "{path}: {length}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_gets_all_of_an_answer_of_http_2() {
    for path in ["/large", "/unknown"] {
        let served = served(true, false).await;
        let mut sender = client(served.client, 32 << 10).await;
        let mut body = ask(&mut sender, path).await;
        let (length, all) = slowly(&mut body).await;
        assert!(all && length > LARGE - 1000, "{path}: {length}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_takes_ends_its_connection() {
    let mut served_1 = served(false, false).await;
    served_1.client.write_all(b"GET /unknown HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(seconds(served_1.ended).await, 20);
    for (path, window) in [("/large", 0), ("/unknown", 0), ("/large", 1), ("/unknown", 1)] {
        let served = served(true, false).await;
        let mut sender = client(served.client, window).await;
        let body = ask(&mut sender, path).await;
        // Other requests change nothing.
        let others = tokio::spawn(async move {
            loop {
                sleep(Duration::from_secs(2)).await;
                let request = axum::http::Request::get("http://localhost/small").body(()).unwrap();
                let Ok((answer, _)) = sender.send_request(request, true) else { return };
                if answer.await.is_err() {
                    return;
                }
            }
        });
        let seconds = seconds(served.ended).await;
        assert!((20..=25).contains(&seconds), "{path}, {window}: {seconds} s");
        others.await.unwrap();
        drop(body);
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_trickle_are_too_few() {
    let served = served(true, false).await;
    let mut sender = client(served.client, 1).await;
    let mut body = ask(&mut sender, "/unknown").await;
    tokio::spawn(async move {
        while let Some(Ok(chunk)) = body.data().await {
            sleep(Duration::from_secs(5)).await;
            body.flow_control().release_capacity(chunk.len()).ok();
        }
    });
    let seconds = seconds(served.ended).await;
    assert!((20..=25).contains(&seconds), "{seconds} s");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_events_may_wait() {
    for http2 in [false, true] {
        let mut served = served(http2, false).await;
        let mut events = 0;
        if http2 {
            let mut sender = client(served.client, 1 << 10).await;
            let mut body = ask(&mut sender, "/events").await;
            while events < 10 {
                body.data().await.unwrap().unwrap();
                events += 1;
            }
        } else {
            served.client.write_all(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut buffer = [0; 1000];
            while events < 10 {
                assert!(served.client.read(&mut buffer).await.unwrap() > 0);
                events += 1;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_2_that_is_gone_is_found_out() {
    let served = served(true, false).await;
    let (sender, connection) = h2::client::handshake(served.client).await.unwrap();
    let (gone, went) = tokio::sync::oneshot::channel::<()>();
    let halted = tokio::spawn(async move {
        let mut connection = pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => {}
            _ = went => {}
        }
        // The pipe stays open, and nobody answers pings any more.
        std::future::pending::<()>().await;
    });
    let mut sender: SendRequest<Bytes> = sender.ready().await.unwrap();
    let _body = ask(&mut sender, "/events").await;
    gone.send(()).unwrap();
    let seconds = seconds(served.ended).await;
    assert!((20..=60).contains(&seconds), "{seconds} s");
    halted.abort();
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_last_byte_of_an_answer() {
    for http2 in [false, true] {
        let mut served = served(http2, false).await;
        let stop = served.stop;
        tokio::spawn(async move {
            sleep(Duration::from_secs(1)).await;
            stop.send(true).unwrap();
        });
        let length = if http2 {
            let mut sender = client(served.client, 1 << 20).await;
            let mut body = ask(&mut sender, "/large").await;
            slowly(&mut body).await.0
        } else {
            served.client.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut all = Vec::new();
            served.client.read_to_end(&mut all).await.unwrap();
            all.len()
        };
        assert!(length >= LARGE, "http2 {http2}: {length}");
        assert!(served.ended.await.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_the_reserve_ends_with_its_first_answer() {
    let served = served(true, true).await;
    let mut sender = client(served.client, 1 << 20).await;
    let mut body = ask(&mut sender, "/small").await;
    assert_eq!(slowly(&mut body).await, (5, true));
    assert_eq!(seconds(served.ended).await, 0);
}

#[test]
fn the_refusal_of_plain_http_is_whole() {
    let text = speak_tls();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["status"], 400);
    assert!(head.contains(&format!("x-request-id: {}", body["request_id"].as_str().unwrap())), "{head}");
}
