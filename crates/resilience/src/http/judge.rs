//! What the head of an answer says about the upstream.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use super::headers::is_grpc;
use crate::outcome::{Class, Verdict};

/// What an answer with this status and these headers says; the table stands in the [module](super).
pub fn verdict(status: StatusCode, headers: &HeaderMap) -> Verdict {
    match headers.get("grpc-status").filter(|_| is_grpc(headers)) {
        Some(code) => of_grpc(code.to_str().ok().and_then(|code| code.parse().ok()), headers),
        None => of_http(status, headers),
    }
}

fn of_http(status: StatusCode, headers: &HeaderMap) -> Verdict {
    let asked = headers.get(header::RETRY_AFTER).and_then(|value| asks(value.to_str().ok()?, headers));
    let retry_after = asked.flatten();
    let class = match status {
        StatusCode::TOO_MANY_REQUESTS => Class::Throttled,
        StatusCode::SERVICE_UNAVAILABLE if asked.is_some() => Class::Throttled,
        StatusCode::REQUEST_TIMEOUT => Class::Fault,
        status if status.is_server_error() => Class::Fault,
        status if status.is_client_error() => Class::Refusal,
        _ => Class::Success,
    };
    let lasts = [
        StatusCode::NOT_IMPLEMENTED,
        StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        StatusCode::NETWORK_AUTHENTICATION_REQUIRED,
    ];
    Verdict { class, unprocessed: false, transient: !lasts.contains(&status), retry_after }
}

/// What the trailers of an answer say, if they are gRPC's.
pub(super) fn of_trailers(trailers: &HeaderMap) -> Option<Verdict> {
    let code = trailers.get("grpc-status")?;
    Some(of_grpc(code.to_str().ok().and_then(|code| code.parse().ok()), trailers))
}

/// Whether a `Retry-After` says anything, and if it can be told, after how long. A date is told by the one of the same answer.
fn asks(text: &str, headers: &HeaderMap) -> Option<Option<Duration>> {
    if let Some(span) = seconds(text) {
        return Some(Some(span));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let date = headers.get(header::DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    Some(date.map(|date| at.duration_since(date).unwrap_or_default()))
}

fn of_grpc(code: Option<u16>, headers: &HeaderMap) -> Verdict {
    const DEADLINE_EXCEEDED: u16 = 4;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const UNAVAILABLE: u16 = 14;
    let (class, transient) = match code {
        Some(0) => (Class::Success, true),
        Some(RESOURCE_EXHAUSTED) => (Class::Throttled, true),
        Some(UNAVAILABLE) => (Class::Fault, true),
        // UNKNOWN, INTERNAL, DATA_LOSS, and what no code is.
        Some(2 | 13 | 15 | DEADLINE_EXCEEDED) | None => (Class::Fault, false),
        Some(_) => (Class::Refusal, true),
    };
    let pushback = headers.get("grpc-retry-pushback-ms").map(|value| {
        let text = value.to_str().ok()?;
        text.parse().ok().map(Duration::from_millis)
    });
    match pushback {
        Some(None) => Verdict { transient: false, ..Verdict::of(class) },
        Some(retry_after) => Verdict { class, unprocessed: false, transient, retry_after },
        None => Verdict { class, unprocessed: false, transient, retry_after: None },
    }
}

/// A whole number of seconds, and nothing else.
fn seconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().map_or(Duration::MAX, Duration::from_secs))
}
