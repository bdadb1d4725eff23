//! The names that the server may be asked by.
//!
//! A page of elsewhere can have its own name lead to this machine (DNS rebinding); to the browser the server is then a
//! part of that page's site. Such a name is in the header Host, where addresses and `localhost` cannot be made up.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header;
use axum::http::uri::Authority;

use super::error::Error;
use super::problem::{Problem, Reason};
use crate::settings::Settings;

/// Whoever looks after the server asks these by any name: probes, and Prometheus beside it.
pub(super) const BY_ANY_NAME: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The names of the setting `allowed_hosts`.
/// By default only those that cannot be made up.
#[derive(Debug, Default)]
pub(super) struct Names {
    allowed: Vec<String>,
    /// Nothing is open to a page that has no key.
    any: bool,
}

impl Names {
    /// # Errors
    /// [`Error::BadHost`] where one is no name alone.
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let list = settings.allowed_hosts.as_deref().unwrap_or_default().split(',').map(str::trim);
        let names = list.filter(|name| !name.is_empty());
        let allowed: Vec<_> = names
            .map(|name| match name.parse::<Authority>() {
                Ok(authority) if authority.as_str() == authority.host() => Ok(plain(name)),
                _ => Err(Error::BadHost { host: name.to_owned() }),
            })
            .collect::<Result<_, _>>()?;
        let any = allowed.is_empty() && settings.write_key.is_some() && settings.admin_key.is_some();
        Ok(Self { allowed, any })
    }

    /// The problem with the name that a request asks by; its Host and its target name the same one.
    pub(super) fn fault(&self, request: &Request) -> Option<Problem> {
        if self.any || BY_ANY_NAME.contains(&request.uri().path()) {
            return None;
        }
        let Some(asked) = authority_of(request) else {
            // HTTP/1.0, which no browser speaks.
            return None;
        };
        let name = asked.parse::<Authority>().map(|authority| plain(authority.host())).unwrap_or_default();
        let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        if is_address || name == "localhost" || self.allowed.contains(&name) {
            return None;
        }
        let detail = format!(
            "not by the name `{asked}`, which another page may have made up; ask by address or `localhost`, add the name \
             to allowed_hosts, or set write_key and admin_key"
        );
        Some(Problem::new(Reason::ForeignHost, detail))
    }
}

/// In small letters, without the dot that a whole name may end with.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The name and the port that a request asks by.
pub(super) fn authority_of(request: &Request) -> Option<&str> {
    match request.headers().get(header::HOST) {
        Some(host) => Some(host.to_str().unwrap_or_default()),
        None => request.uri().authority().map(Authority::as_str),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn names(allowed: Option<&str>, keys: [Option<&str>; 2]) -> Result<Names, Error> {
        let [write_key, admin_key] = keys.map(|key| key.map(str::to_owned));
        Names::new(&Settings { allowed_hosts: allowed.map(str::to_owned), write_key, admin_key, ..Settings::default() })
    }

    fn is_taken(names: &Names, host: &[u8]) -> bool {
        names.fault(&Request::get("/").header("host", host).body(Body::empty()).unwrap()).is_none()
    }

    #[test]
    fn addresses_and_listed_names_are_taken() {
        let listed = names(Some("Search.example.org, anced"), [None, None]).unwrap();
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "127.0.0.1:1",
            "[::1]:80",
            "10.0.0.7",
            "search.example.org:443",
            "anced",
        ] {
            assert!(is_taken(&listed, host.as_bytes()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil",
            "x.localhost",
            "127.0.0.1.evil",
            "",
            "a b",
            "é",
            "[::1",
        ] {
            assert!(!is_taken(&listed, host.as_bytes()), "{host}");
        }
        assert!(listed.fault(&Request::get("/").body(Body::empty()).unwrap()).is_none(), "HTTP/1.0");
    }

    #[test]
    fn both_keys_or_none_of_it() {
        for keys in [[None, None], [Some("w"), None], [None, Some("a")]] {
            assert!(!is_taken(&names(None, keys).unwrap(), b"evil.example"), "{keys:?}");
        }
        let both = [Some("w"), Some("a")];
        assert!(is_taken(&names(None, both).unwrap(), b"any.example"));
        assert!(!is_taken(&names(Some("one.example"), both).unwrap(), b"any.example"), "who lists names means them");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for odd in ["https://a", "a:80", "a/b", "a b", "x@a"] {
            let error = names(Some(odd), [None, None]).unwrap_err().to_string();
            assert!(error.contains("allowed_hosts") && error.contains(odd), "{error}");
        }
    }
}
