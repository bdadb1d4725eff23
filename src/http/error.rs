//! Why a server does not start or does not stop cleanly.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The errors of the http room that reach its caller; what a client did wrong is answered, not returned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address that others can reach, without the keys that protect it.
    #[error(
        "listen {listen}: others can reach this address and {missing} is not set; set ANCED_WRITE_KEY and \
         ANCED_ADMIN_KEY, or listen on 127.0.0.1"
    )]
    Unprotected {
        /// The address of the settings.
        listen: SocketAddr,
        /// The first setting that is missing.
        missing: &'static str,
    },
    /// A key that a client cannot send.
    #[error("{key}: a key is 1 to 1024 visible ASCII characters; set another one, or leave the setting away")]
    BadKey {
        /// Which setting.
        key: &'static str,
    },
    /// One half of what TLS needs.
    #[error("{missing} is missing: TLS needs tls_cert and tls_key, both PEM files; set both, or neither")]
    HalfTls {
        /// The setting that is missing.
        missing: &'static str,
    },
    /// A certificate or key that cannot be used.
    #[error(
        "{path}: {reason}; tls_cert names a PEM file with the certificate and its chain, tls_key one with the \
         certificate's private key"
    )]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An origin that no browser sends.
    #[error(
        "cors_origins: `{origin}` is not an origin; write each as browsers do, in small letters and without a path: \
         https://example.org, http://localhost:3000"
    )]
    BadOrigin {
        /// What was given.
        origin: String,
    },
    /// A name that is none.
    #[error("allowed_hosts: `{host}` is no name alone; write each without scheme, port and path: search.example.org")]
    BadHost {
        /// What was given.
        host: String,
    },
    /// Some requests took longer than the drain allows.
    #[error("{connections} connections were cut: their requests were not done after {seconds} s; raise drain_timeout")]
    Cut {
        /// How many connections still had a request under way.
        connections: usize,
        /// The setting `drain_timeout`, in seconds.
        seconds: u64,
    },
}
