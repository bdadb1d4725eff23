//! TLS: both versions of HTTP over it, certificates that change while it runs, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::corpus::wait_for;
use common::raw::{self, Raw, exchange, request};
use common::{Server, outcome};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

struct Pair {
    cert: CertificateDer<'static>,
    cert_pem: String,
    key_pem: String,
}

fn pair() -> Pair {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    Pair { cert: made.cert.der().clone(), cert_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() }
}

fn trusting(pair: &Pair, version: &'static SupportedProtocolVersion, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(pair.cert.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn name() -> ServerName<'static> {
    "localhost".try_into().unwrap()
}

/// Asks over TLS; none where the certificate is not trusted or the server is not there.
fn asked(port: u16, config: Arc<ClientConfig>, request: &[u8]) -> Option<Raw> {
    use std::io::Write;
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(config, name()).unwrap(), stream);
    stream.write_all(request).ok()?;
    Some(raw::answer(&mut stream))
}

/// Over HTTP/2; the status and the body.
fn asked_http2(port: u16, config: Arc<ClientConfig>, path: &str) -> (u16, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let stream = tokio_rustls::TlsConnector::from(config).connect(name(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("https://localhost{path}");
        let request = axum::http::Request::get(uri).body(()).unwrap();
        let (answer, _) = sender.ready().await.unwrap().send_request(request, true).unwrap();
        let (head, mut body) = answer.await.unwrap().into_parts();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            bytes.extend_from_slice(&chunk.unwrap());
        }
        (head.status.as_u16(), bytes)
    })
}

#[test]
fn it_speaks_tls_and_takes_new_certificates_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let [first, second] = [pair(), pair()];
    let write = |certificate: &str, secret: &str| {
        std::fs::write(&cert, certificate).unwrap();
        std::fs::write(&key, secret).unwrap();
    };
    write(&first.cert_pem, &first.key_pem);
    let files = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let server = Server::spawn(&folder.path().join("data"), &files);
    let get = request("GET", "/readyz", "", b"");
    let status = |pair: &Pair| {
        let config = trusting(pair, &TLS13, &[b"http/1.1"]);
        asked(server.port(), config, &get).map(|answer| answer.status)
    };
    wait_for("the server", || status(&first) == Some(200));

    // TLS 1.2 without a word on HTTP, and HTTP/2.
    assert_eq!(asked(server.port(), trusting(&first, &TLS12, &[]), &get).unwrap().status, 200);
    let both: [&[u8]; 2] = [b"h2", b"http/1.1"];
    let (status_2, body) = asked_http2(server.port(), trusting(&first, &TLS13, &both), "/search?q=a");
    assert_eq!(status_2, 200, "{}", String::from_utf8_lossy(&body));
    assert!(String::from_utf8_lossy(&body).contains("\"generation\":1"));

    // Plain HTTP is told what to do, and noise ends nothing but its connection.
    let plain = exchange(server.port(), &get);
    assert_eq!((plain.status, plain.text().contains("https://")), (400, true), "{}", plain.text());
    assert_eq!(status(&second), None, "an unknown certificate");

    // A key of another certificate: the pair of before stays, and the log says so.
    write(&second.cert_pem, &first.key_pem);
    server.signal("HUP");
    wait_for("the complaint", || server.log().contains("cannot be used, the one of before stays"));
    assert_eq!((status(&first), status(&second)), (Some(200), None));

    // The right pair, without a signal: the files are looked at.
    write(&second.cert_pem, &second.key_pem);
    wait_for("the new certificate", || status(&second) == Some(200));
    assert_eq!(status(&first), None);
    assert!(server.stop().success());
}

#[test]
fn certificates_that_cannot_be_used_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.display().to_string()
    };
    let [one, other] = [pair(), pair()];
    let cert = file("cert.pem", &one.cert_pem);
    let (key, other_key) = (file("key.pem", &one.key_pem), file("other.pem", &other.key_pem));
    let noise = file("noise.pem", "no certificate");
    let cases: [(&str, &[&str], i32, &[&str]); 6] = [
        ("half", &["--tls-cert", &cert], 2, &["tls_key is missing", "set both"]),
        ("the other half", &["--tls-key", &key], 2, &["tls_cert is missing"]),
        ("no file", &["--tls-cert", "/nowhere.pem", "--tls-key", &key], 1, &["/nowhere.pem", "PEM file"]),
        ("no certificate", &["--tls-cert", &noise, "--tls-key", &key], 1, &[&noise, "no certificate in it"]),
        ("no key", &["--tls-cert", &cert, "--tls-key", &noise], 1, &[&noise, "no private key in it"]),
        ("another key", &["--tls-cert", &cert, "--tls-key", &other_key], 1, &[&other_key, "not the key of", &cert]),
    ];
    for (name, arguments, code, says) in cases {
        let data = folder.path().join("data");
        let mut all = vec!["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
        all.extend(arguments);
        let outcome = outcome(&all, &[]);
        assert_eq!(outcome.code, Some(code), "{name}: {outcome:?}");
        assert!(says.iter().all(|part| outcome.stderr.contains(part)), "{name}: {outcome:?}");
        assert!(!Path::exists(&data), "{name}");
    }
}
