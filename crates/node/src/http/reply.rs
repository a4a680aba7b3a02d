//! What replies have in common.

use std::sync::Mutex;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, DATE, ETAG, LINK},
};
use quorate_data::{event::Version, store::Token};
use quorate_runtime::Env;
use serde::Serialize;

use super::request::TOKEN;

/// JSON that is no event.
pub(crate) const JSON: &str = "application/json";

/// A reply whose body is `value` in JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Bytes> {
    let body = serde_json::to_vec(value).unwrap_or_else(|wrong| unreachable!("replies have a JSON form: {wrong}"));
    bytes(status, JSON, body.into())
}

/// A reply of these bytes.
pub(crate) fn bytes(status: StatusCode, media: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// As axum takes it.
pub(crate) fn whole(response: Response<Bytes>) -> Response<Body> {
    response.map(Body::from)
}

/// With the version of the stream it shows.
pub(crate) fn tag(headers: &mut HeaderMap, version: Version) {
    headers.insert(ETAG, quoted(version.get()));
}

/// With the token of everything it shows.
pub(crate) fn token(headers: &mut HeaderMap, token: &Token) {
    headers.insert(TOKEN, value(token.to_string().into()));
}

/// With the address of the next page.
pub(crate) fn next(headers: &mut HeaderMap, address: &str) {
    headers.insert(LINK, value(format!("<{address}>; rel=\"next\"").into()));
}

fn quoted(number: u64) -> HeaderValue {
    let mut text = BytesMut::with_capacity(22);
    text.extend_from_slice(b"\"");
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    text.extend_from_slice(b"\"");
    value(text.freeze())
}

/// A header's value that we wrote ourselves.
fn value(text: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| unreachable!("only printable ASCII was written"))
}

/// `Date`, written once a second. hyper's own reads a clock of its own.
#[derive(Default)]
pub(crate) struct DateHeader {
    last: Mutex<Option<(i64, HeaderValue)>>,
}

impl DateHeader {
    pub(crate) fn stamp(&self, env: &Env, headers: &mut HeaderMap) {
        let second = env.wall().unix_nanos().div_euclid(1_000_000_000);
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.as_ref().is_none_or(|(at, _)| *at != second) {
            let text = jiff::Timestamp::from_second(second).unwrap_or_default().strftime("%a, %d %b %Y %H:%M:%S GMT");
            *last = Some((second, value(text.to_string().into())));
        }
        if let Some((_, date)) = &*last {
            headers.insert(DATE, date.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DateHeader, HeaderMap};
    use quorate_runtime::Env;

    #[test]
    fn the_date_is_written_as_http_wants_it() {
        let mut headers = HeaderMap::new();
        DateHeader::default().stamp(&Env::real(), &mut headers);
        let date = headers["date"].to_str().unwrap();
        assert_eq!(date.len(), "Sun, 06 Nov 1994 08:49:37 GMT".len(), "{date}");
        assert!(date.ends_with(" GMT") && &date[3..5] == ", ", "{date}");
    }
}
