//! `Idempotency-Key` on requests that change something.

use axum::body::Body;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH},
    request::Parts,
};

use super::{
    problem::{Code, Problem},
    request,
};
use crate::verbs::{Key, Reply};

pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest key, in bytes.
const MAX_KEY: usize = 255;
/// Who sends requests while nobody is asked who they are.
const PRINCIPAL: &str = "anonymous";

/// The request's idempotency key, bound to who sends it, to method and path, and to everything that matters in it.
pub(super) fn key(head: &Parts, body: &Bytes) -> Result<Option<Key>, Problem> {
    let Some(text) = request::header(&head.headers, &KEY)? else { return Ok(None) };
    let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    if key.is_empty() || key.len() > MAX_KEY || key.contains(|c: char| !matches!(c, ' '..='~') || "\"\\".contains(c)) {
        let detail = format!("an idempotency key is 1 to {MAX_KEY} printable ASCII characters without quotes inside");
        return Err(Problem::new(Code::InvalidParameter, detail).with("header", KEY.as_str()));
    }
    let scope = hash([PRINCIPAL, head.method.as_str(), head.uri.path(), key].map(str::as_bytes));
    Ok(Some(Key { scope, fingerprint: fingerprint(&head.headers, head.uri.query(), body) }))
}

fn fingerprint(headers: &HeaderMap, query: Option<&str>, body: &Bytes) -> [u8; 32] {
    let matters =
        |name: &HeaderName| [CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH].contains(name) || name.as_str().starts_with("ce-");
    let mut parts: Vec<(&str, &[u8])> = headers
        .iter()
        .filter(|(name, _)| matters(name))
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    parts.sort_unstable();
    let parts = parts.into_iter().flat_map(|(name, value)| [name.as_bytes(), value]);
    hash(parts.chain(query.map(str::as_bytes)).chain([&body[..]]))
}

/// A hash of parts, each with its length, so that no two lists of parts look alike.
fn hash<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// A reply in the form in which it is kept.
pub(super) fn kept(response: &Response<Bytes>) -> Reply {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    Reply {
        status: response.status().as_u16(),
        headers: response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
        body: response.body().clone(),
    }
}

/// A kept reply as it goes out; a repeated one says so.
pub(super) fn told((reply, replayed): (Reply, bool)) -> Result<Response<Body>, Problem> {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
    let pair = |(name, value): (String, String)| Some((name.parse::<HeaderName>().ok()?, value.parse().ok()?));
    response.headers_mut().extend(reply.headers.into_iter().filter_map(pair));
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::{Code, key};
    use bytes::Bytes;
    use http::{Request, request::Parts};

    fn head(path: &str, headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::post(path), |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn keyed(path: &str, headers: &[(&str, &str)], body: &'static str) -> super::Key {
        let all = [&[("idempotency-key", "k")], headers].concat();
        key(&head(path, &all), &Bytes::from_static(body.as_bytes())).unwrap().unwrap()
    }

    #[test]
    fn a_key_belongs_to_its_path_and_its_fingerprint_covers_the_rest() {
        let first = keyed("/a", &[("if-match", "\"1\"")], "x");
        assert_eq!(first, keyed("/a", &[("if-match", "\"1\""), ("accept", "whatever")], "x"));
        assert_ne!(first.scope, keyed("/b", &[("if-match", "\"1\"")], "x").scope);
        for other in [
            keyed("/a?mode=none", &[("if-match", "\"1\"")], "x"),
            keyed("/a", &[("if-match", "\"2\"")], "x"),
            keyed("/a", &[("if-match", "\"1\"")], "y"),
            keyed("/a", &[("if-match", "\"1\""), ("content-type", "a/b")], "x"),
            keyed("/a", &[("if-match", "\"1\""), ("ce-id", "1")], "x"),
        ] {
            assert_eq!(first.scope, other.scope);
            assert_ne!(first.fingerprint, other.fingerprint);
        }
    }

    #[test]
    fn a_key_may_be_quoted_and_has_an_end() {
        let plain = key(&head("/a", &[("idempotency-key", "k")]), &Bytes::new()).unwrap();
        assert_eq!(plain, key(&head("/a", &[("idempotency-key", "\"k\"")]), &Bytes::new()).unwrap());
        for bad in ["", "\"\"", "\"", "a\"b", &"k".repeat(256)] {
            let refused = key(&head("/a", &[("idempotency-key", bad)]), &Bytes::new()).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidParameter, "{bad}");
        }
        assert!(key(&head("/a", &[]), &Bytes::new()).unwrap().is_none());
    }
}
