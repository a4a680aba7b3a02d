//! The fields that carry a [`Hop`].

use http::{HeaderMap, HeaderName, HeaderValue, header};
use quorate_foundations::time::Mono;

use crate::hop::{Hop, HopError};

/// What is left of the deadline.
pub const TIMEOUT: HeaderName = HeaderName::from_static("quorate-timeout");
/// The same, as gRPC writes it.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Which attempt this is, and who retries.
pub const ATTEMPT: HeaderName = HeaderName::from_static("quorate-attempt");
/// How many attempts there were before, as gRPC writes it.
const GRPC_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// Writes on a request what the next hop is told, in place of what stands there.
pub fn write(headers: &mut HeaderMap, hop: Hop, now: Mono) {
    let grpc = is_grpc(headers);
    let left = hop.deadline.to_wire(now).and_then(|left| HeaderValue::try_from(left).ok());
    put(headers, if grpc { GRPC_TIMEOUT } else { TIMEOUT }, left);
    headers.remove(if grpc { TIMEOUT } else { GRPC_TIMEOUT });
    let says_something = hop.owned || hop.spent > 0 || hop.attempt > 1;
    put(headers, ATTEMPT, says_something.then(|| HeaderValue::try_from(hop.to_wire()).ok()).flatten());
    let before = hop.attempt.saturating_sub(1);
    put(headers, GRPC_ATTEMPTS, (grpc && before > 0).then(|| before.into()));
}

/// What a request that came at `now` brought. `None` in `deadline` is no deadline.
///
/// Where both fields of the deadline stand, the earlier one holds; where a field stands twice, it can't be read.
///
/// # Errors
/// [`HopError::Deadline`]: answer 400, since whoever sent it meant something. What is said of attempts is never an error: where
/// it can't be read, somebody else is taken to retry.
pub fn received(headers: &HeaderMap, now: Mono) -> Result<Hop, HopError> {
    let deadline = |name| {
        let left = one(headers, &name).map_err(|()| crate::deadline::WireError)?;
        Hop::from_wire(None, left, now).map(|hop| hop.deadline)
    };
    let deadline = deadline(TIMEOUT)?.earliest(deadline(GRPC_TIMEOUT)?);
    let told = one(headers, &ATTEMPT).ok().and_then(|attempts| Hop::from_wire(attempts, None, now).ok());
    let hop = told.unwrap_or(Hop { owned: true, ..Hop::FIRST });
    Ok(Hop { deadline, ..hop })
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(|text| Some(text.trim())).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => _ = headers.insert(name, value),
        None => _ = headers.remove(name),
    }
}

/// Whether what these headers go with is gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
