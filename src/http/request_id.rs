//! The id of a request: the client's where it is sane, else a new one.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header that carries the id, both ways.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const MOST_CHARS: usize = 128;

/// 1 to 128 visible ASCII characters.
#[derive(Debug, Clone)]
pub(super) struct RequestId(String);

impl RequestId {
    /// The id that the client sent, or a UUIDv7.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(HEADER).and_then(|value| value.to_str().ok()).filter(|id| is_sane(id));
        Self(sent.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

fn is_sane(id: &str) -> bool {
    (1..=MOST_CHARS).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(sent: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(sent).unwrap());
        RequestId::of(&headers).as_str().to_owned()
    }

    #[test]
    fn only_sane_ids_are_taken_over() {
        assert_eq!(id(b"abc-123"), "abc-123");
        assert_eq!(id(&[b'x'; 128]), "x".repeat(128));
        for odd in [&b""[..], b"two words", b"tab\there", b"\xc3\xa9", &[b'x'; 129]] {
            let made = id(odd);
            assert_eq!(Uuid::parse_str(&made).unwrap().get_version_num(), 7, "{made}");
        }
    }
}
