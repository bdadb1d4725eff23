//! TLS: a certificate and its key from PEM files, taken anew when they change.
//!
//! The cryptography is ring's: it builds with the C compiler that is needed anyhow, where aws-lc-rs brings CMake and
//! several times the code.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use super::error::Error;
use crate::settings::Settings;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// The pair that connections are served with.
#[derive(Debug)]
pub(super) struct Tls {
    cert: PathBuf,
    key: PathBuf,
    pair: ArcSwap<CertifiedKey>,
    /// Of the files as they were looked at last, whether they could be used or not.
    seen: Mutex<[u8; 32]>,
}

impl ResolvesServerCert for Tls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair.load_full())
    }
}

impl Tls {
    /// Reads the files of the settings; none where neither is set.
    pub(super) fn open(settings: &Settings) -> Result<Option<Arc<Self>>, Error> {
        let (cert, key) = match (&settings.tls_cert, &settings.tls_key) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(Error::HalfTls { missing: "tls_key" }),
            (None, Some(_)) => return Err(Error::HalfTls { missing: "tls_cert" }),
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        };
        let files = Files::read(&cert, &key)?;
        let (pair, seen) = (ArcSwap::from_pointee(files.pair(&cert, &key)?), Mutex::new(files.digest()));
        Ok(Some(Arc::new(Self { cert, key, pair, seen })))
    }

    /// What turns connections into ones of TLS 1.2 or 1.3, for HTTP/2 or HTTP/1.1.
    pub(super) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, Error> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| Error::Tls { path: self.cert.clone(), reason: error.to_string() })?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Self>::clone(self);
        let mut config = config.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Takes the files anew where they changed. Those that cannot be used are said so once, and the pair of before
    /// stays.
    fn refresh(&self) {
        let files = match Files::read(&self.cert, &self.key) {
            Ok(files) => files,
            Err(error) => {
                if self.is_new(Sha256::digest(error.to_string()).into()) {
                    tracing::error!(%error, "the certificate cannot be read anew, the one of before stays");
                }
                return;
            }
        };
        if !self.is_new(files.digest()) {
            return;
        }
        match files.pair(&self.cert, &self.key) {
            Ok(pair) => {
                self.pair.store(Arc::new(pair));
                tracing::info!(cert = %self.cert.display(), "the certificate changed, new connections get the new one");
            }
            Err(error) => tracing::error!(%error, "the new certificate cannot be used, the one of before stays"),
        }
    }

    fn is_new(&self, digest: [u8; 32]) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *seen, digest) != digest
    }
}

/// Heeds each SIGHUP, and looks at the files every few seconds, for ever.
pub(super) async fn watch(tls: Option<Arc<Tls>>) {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => Some(hangup),
        Err(error) => {
            tracing::warn!(%error, "cannot listen for SIGHUP; a certificate's files are looked at all the same");
            None
        }
    };
    loop {
        let asked = async {
            match hangup.as_mut() {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = asked => match tls {
                Some(_) => tracing::info!("SIGHUP: looking at the certificate"),
                None => tracing::info!("SIGHUP: there is no certificate to look at, nothing changes"),
            },
        }
        let Some(tls) = tls.clone() else { continue };
        if let Err(error) = tokio::task::spawn_blocking(move || tls.refresh()).await {
            tracing::error!(%error, "the look at the certificate failed");
        }
    }
}

/// The bytes of both files.
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(cert: &Path, key: &Path) -> Result<Self, Error> {
        let read = |path: &Path| std::fs::read(path).map_err(|error| fault(path, &error.to_string()));
        Ok(Self { cert: read(cert)?, key: read(key)? })
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.cert.len().to_le_bytes())
            .chain_update(&self.cert)
            .chain_update(&self.key)
            .finalize()
            .into()
    }

    fn pair(&self, cert: &Path, key: &Path) -> Result<CertifiedKey, Error> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.cert).collect();
        let chain = chain.map_err(|error| fault(cert, &error.to_string()))?;
        if chain.is_empty() {
            return Err(fault(cert, "no certificate in it"));
        }
        let secret = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| fault(key, "no private key in it that can be read"))?;
        let provider: CryptoProvider = ring::default_provider();
        let pair = CertifiedKey::from_der(chain, secret, &provider);
        pair.map_err(|error| fault(key, &format!("not the key of {}: {error}", cert.display())))
    }
}

fn fault(path: &Path, reason: &str) -> Error {
    Error::Tls { path: path.to_path_buf(), reason: reason.to_owned() }
}
