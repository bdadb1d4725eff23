//! Who may do what: the three keys, compared in constant time.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::admission::{admit, let_out};
use super::app::App;
use super::error::Error;
use super::host::Names;
use super::origin;
use super::places::InReserve;
use super::problem::{Problem, Reason};
use super::tls::Tls;
use crate::settings::Settings;

const MOST_KEY_CHARS: usize = 1024;

/// What a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing.
    Open,
    /// Any of the three keys, where a search key is set.
    Search,
    /// The write key or the admin key, where a write key is set.
    Write,
    /// The admin key, where one is set.
    Admin,
}

type Hash = [u8; 32];

/// Hashes of the keys: of one length, so that comparing tells nothing about theirs.
pub(super) struct Keys {
    search: Option<Hash>,
    write: Option<Hash>,
    admin: Option<Hash>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Keys")
    }
}

impl Keys {
    pub(super) fn new(settings: &Settings) -> Self {
        let hashed = |key: &Option<String>| key.as_ref().map(|key| hash(key.as_bytes()));
        Self {
            search: hashed(&settings.search_key),
            write: hashed(&settings.write_key),
            admin: hashed(&settings.admin_key),
        }
    }

    fn allow(&self, access: Access, presented: Option<&[u8]>) -> bool {
        let (needed, accepted) = match access {
            Access::Open => return true,
            Access::Search => (self.search, vec![self.search, self.write, self.admin]),
            Access::Write => (self.write, vec![self.write, self.admin]),
            Access::Admin => (self.admin, vec![self.admin]),
        };
        if needed.is_none() {
            return true;
        }
        let Some(presented) = presented.map(hash) else {
            return false;
        };
        let equal = accepted.iter().flatten().fold(Choice::from(0), |any, key| any | key.ct_eq(&presented));
        equal.into()
    }
}

fn hash(key: &[u8]) -> Hash {
    Sha256::digest(key).into()
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Guards a route: the key first, then the way in.
pub(super) async fn guard(State((app, access)): State<(App, Access)>, request: Request, next: Next) -> Response {
    if !app.keys().allow(access, bearer(request.headers())) {
        let detail = match access {
            Access::Admin => "this needs the admin key: `Authorization: Bearer …`",
            Access::Write => "this needs the write key or the admin key: `Authorization: Bearer …`",
            Access::Search | Access::Open => "this needs the search key: `Authorization: Bearer …`",
        };
        return Problem::new(Reason::Unauthorized, detail).into_response();
    }
    if access == Access::Open {
        return next.run(request).await;
    }
    if request.extensions().get::<InReserve>().is_some() {
        return Problem::new(Reason::QueueFull, "too many connections are open; try again in 1 s").into_response();
    }
    if app.stopping() {
        return Problem::stopping().into_response();
    }
    match admit(&app, request).await {
        Ok((request, _admitted)) => let_out(&app, next.run(request).await),
        Err(problem) => problem.into_response(),
    }
}

/// Refuses to listen where others can reach the server while writes or `/admin` are open, keys that nobody can send,
/// origins and hosts that are none, and certificates that cannot be used.
///
/// # Errors
/// [`Error::Unprotected`], [`Error::BadKey`], [`Error::BadOrigin`], [`Error::BadHost`], [`Error::HalfTls`] and
/// [`Error::Tls`], which say what to set.
pub fn check_listen(settings: &Settings) -> Result<(), Error> {
    let keys =
        [("search_key", &settings.search_key), ("write_key", &settings.write_key), ("admin_key", &settings.admin_key)];
    for (name, key) in keys {
        let Some(key) = key else { continue };
        let sendable = (1..=MOST_KEY_CHARS).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !sendable {
            return Err(Error::BadKey { key: name });
        }
    }
    origin::allowed(settings.cors_origins.as_deref())?;
    Names::new(settings)?;
    Tls::open(settings)?;
    if settings.listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let needed = [("write_key", &settings.write_key), ("admin_key", &settings.admin_key)];
    match needed.into_iter().find(|(_, key)| key.is_none()) {
        Some((missing, _)) => Err(Error::Unprotected { listen: settings.listen, missing }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(keys: [Option<&str>; 3]) -> Settings {
        let [search_key, write_key, admin_key] = keys.map(|key| key.map(str::to_owned));
        Settings { search_key, write_key, admin_key, ..Settings::default() }
    }

    #[test]
    fn a_higher_key_opens_what_a_lower_one_does() {
        let keys = Keys::new(&settings([Some("s"), Some("w"), Some("a")]));
        let opened = |key: &str| {
            [Access::Search, Access::Write, Access::Admin].map(|access| keys.allow(access, Some(key.as_bytes())))
        };
        assert_eq!(opened("s"), [true, false, false]);
        assert_eq!(opened("w"), [true, true, false]);
        assert_eq!(opened("a"), [true, true, true]);
        assert_eq!(opened("x"), [false, false, false]);
        assert_eq!(opened(""), [false, false, false]);
        assert!(keys.allow(Access::Open, None));
        assert!(!keys.allow(Access::Search, None));
    }

    #[test]
    fn what_has_no_key_is_open() {
        let keys = Keys::new(&settings([None, Some("w"), Some("a")]));
        assert!(keys.allow(Access::Search, None));
        assert!(!keys.allow(Access::Write, None));
        assert!(!keys.allow(Access::Admin, Some(b"w")));
    }

    #[test]
    fn bearer_tokens_are_read_whatever_the_case_of_the_scheme() {
        let token = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(|token| String::from_utf8(token.to_vec()).unwrap())
        };
        assert_eq!(token("Bearer k").as_deref(), Some("k"));
        assert_eq!(token("bearer  k").as_deref(), Some("k"));
        assert_eq!(token("Basic k"), None);
        assert_eq!(token("Bear"), None);
    }

    #[test]
    fn open_addresses_need_a_write_key_and_an_admin_key() {
        let listening =
            |address: &str, keys| check_listen(&Settings { listen: address.parse().unwrap(), ..settings(keys) });
        for loopback in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            assert!(listening(loopback, [None, None, None]).is_ok(), "{loopback}");
        }
        for open in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "[::ffff:10.0.0.1]:80"] {
            assert!(listening(open, [None, Some("w"), Some("a")]).is_ok(), "{open}");
            for keys in [[Some("s"), None, None], [None, Some("w"), None], [None, None, Some("a")]] {
                let error = listening(open, keys).unwrap_err().to_string();
                assert!(error.contains("ANCED_WRITE_KEY") && error.contains("ANCED_ADMIN_KEY"), "{error}");
            }
        }
    }

    #[test]
    fn keys_that_nobody_can_send_are_refused() {
        for bad in ["", "two words", "kĂ©y", "line\n"] {
            let error = check_listen(&settings([None, None, Some(bad)])).unwrap_err().to_string();
            assert!(error.starts_with("admin_key"), "{error}");
        }
    }
}
