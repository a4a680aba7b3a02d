//! Why there is no answer, and what that says about the upstream.

use std::io;

use http::{Uri, uri::Authority};

use crate::{
    http::{Elsewhere, failed, find},
    outcome::{Class, Verdict},
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can't be called. Nothing was sent.
    #[error("`{uri}` cannot be called: {why}")]
    Address {
        /// The address.
        uri: Uri,
        /// Why.
        why: &'static str,
    },
    /// There was no connection. Nothing was sent.
    #[error("`{endpoint}` cannot be reached")]
    Connect {
        /// The endpoint.
        endpoint: Authority,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// There was a connection, and no trust in it. Nothing was sent.
    #[cfg(feature = "tls")]
    #[error("`{endpoint}` is not called: {fault}")]
    Tls {
        /// The endpoint.
        endpoint: Authority,
        /// What is wrong.
        fault: crate::http::TlsFault,
        /// What TLS said.
        #[source]
        cause: io::Error,
    },
    /// A connection that had been kept was closed before any of the answer came.
    #[error("a kept connection to `{endpoint}` was closed")]
    Stale {
        /// The endpoint.
        endpoint: Authority,
        /// What broke.
        #[source]
        cause: hyper::Error,
    },
    /// The connection took the request and did not pass it on, or the other one said that it did not look at it.
    #[error("`{endpoint}` did not take the request")]
    Untaken {
        /// The endpoint.
        endpoint: Authority,
        /// What was said.
        #[source]
        cause: hyper::Error,
    },
    /// The connection broke. Whether the request was done is unknown.
    #[error("the connection to `{endpoint}` broke")]
    Broken {
        /// The endpoint.
        endpoint: Authority,
        /// What broke.
        #[source]
        cause: hyper::Error,
    },
}

impl Error {
    pub(super) fn judge(&self) -> Verdict {
        match self {
            Self::Address { .. } => Verdict { transient: false, unprocessed: true, ..Verdict::of(Class::Refusal) },
            Self::Connect { .. } => Verdict::UNSENT,
            #[cfg(feature = "tls")]
            Self::Tls { .. } => Verdict::UNTRUSTED,
            Self::Stale { .. } => Verdict::of(Class::Stale),
            Self::Untaken { cause, .. } => Verdict { unprocessed: true, ..failed(cause) },
            // It has nothing to send, and the other attempt goes on.
            Self::Broken { cause, .. } if find::<Elsewhere>(cause).is_some() => Verdict::of(Class::Stale),
            // What was to be sent broke off: no fault of the one it was sent to, and no better a second time.
            Self::Broken { cause, .. } if cause.is_user() => {
                Verdict { transient: false, ..Verdict::of(Class::Refusal) }
            }
            Self::Broken { cause, .. } => failed(cause),
        }
    }
}

/// What a request ended with of whose answer nothing came. `kept`: whether its connection had been idle before.
pub(super) fn broke(endpoint: Authority, cause: hyper::Error, kept: bool) -> Error {
    // What was to be sent broke off, by whatever error: that says nothing of the one it was sent to.
    if cause.is_user() {
        return Error::Broken { endpoint, cause };
    }
    if failed(&cause).unprocessed {
        return Error::Untaken { endpoint, cause };
    }
    let closed = cause.is_incomplete_message() || cause.is_closed() || cause.is_canceled() || is_reset(&cause);
    if kept && closed { Error::Stale { endpoint, cause } } else { Error::Broken { endpoint, cause } }
}

fn is_reset(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
        )
    })
}
