//! Errors at the border: problem documents (RFC 9457), each of a kind that is explained on a page we serve.
//!
//! `type` is that page's address, `title` and `status` follow from it, `detail` says what happened this time, `retry`
//! whether repeating can help (`never`, `now`, `after`, then with `retryafter`), and `outcome` whether anything may
//! have changed (`unchanged`, `unknown`, `partial` where all was done but what the problem names,
//! `done` where only the reply is missing, or `answered` where whoever was asked says no, and says what it did). Programs match on `type`, never on `detail`.

mod code;
mod convert;

use std::{error::Error, time::Duration};

use axum::response::IntoResponse;
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response,
    header::{ALLOW, ETAG, RETRY_AFTER},
};
use quorate_data::store::Retry;
use serde_json::{Map, Value, json};

use super::reply;

pub(crate) use code::Code;

/// The media type of a problem document.
pub(crate) const PROBLEM: &str = "application/problem+json";

/// What an error says, and what its causes say.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&(dyn Error + 'static)| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Whether anything may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Unchanged,
    Unknown,
    /// All was done but what the problem names.
    Partial,
    /// It was done; only its reply cannot be given.
    Done,
    /// Whoever was asked says no; what it did is for it to say.
    Answered,
}

/// Why a request was not done.
#[derive(Clone, Debug)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    code: Code,
    detail: String,
    retry: Retry,
    outcome: Outcome,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// Repeating does not help, nothing changed.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        let (retry, outcome) = (Retry::Never, Outcome::Unchanged);
        Self(Box::new(Inner { code, detail: detail.into(), retry, outcome, members: Map::new(), headers: Vec::new() }))
    }

    /// The same, told by an error and its causes.
    pub(crate) fn of(code: Code, error: &(dyn Error + 'static)) -> Self {
        Self::new(code, with_causes(error))
    }

    #[must_use]
    pub(crate) fn retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    #[must_use]
    pub(crate) fn after(self, span: Duration) -> Self {
        self.retry(Retry::After(span))
    }

    #[must_use]
    pub(crate) fn unknown(mut self) -> Self {
        self.0.outcome = Outcome::Unknown;
        self
    }

    /// All that was asked was done, except what the problem names.
    #[must_use]
    pub(crate) fn partial(mut self) -> Self {
        self.0.outcome = Outcome::Partial;
        self
    }

    /// It was done, and only its reply cannot be given.
    #[must_use]
    pub(crate) fn done(mut self) -> Self {
        self.0.outcome = Outcome::Done;
        self
    }

    /// Whoever was asked says no, and what it did is for it to say.
    #[must_use]
    pub(crate) fn answered(mut self) -> Self {
        self.0.outcome = Outcome::Answered;
        self
    }

    /// With a member of its own.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// With a header of its own.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.0.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// With the current version of the stream it is about.
    #[must_use]
    pub(crate) fn at_version(mut self, version: u64) -> Self {
        let tag = HeaderValue::try_from(format!("\"{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        self.0.headers.push((ETAG, tag));
        self.with("streamversion", version.to_string())
    }

    /// With the current version of the metadata it is about.
    #[must_use]
    pub(crate) fn at_metadata(mut self, version: u64) -> Self {
        let tag = HeaderValue::try_from(format!("\"{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        self.0.headers.push((ETAG, tag));
        self.with("metadataversion", version.to_string())
    }

    /// With the methods that would do.
    #[must_use]
    pub(crate) fn allow(mut self, methods: &str) -> Self {
        if let Ok(methods) = HeaderValue::from_str(methods) {
            self.0.headers.push((ALLOW, methods));
        }
        self
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// The document.
    pub(crate) fn document(&self) -> Value {
        let Inner { code, detail, retry, outcome, members, .. } = &*self.0;
        let mut document = json!({
            "type": code.address(),
            "title": code.title(),
            "status": code.status().as_u16(),
            "detail": detail,
            "retry": match retry { Retry::Never => "never", Retry::Now => "now", Retry::After(_) => "after" },
            "outcome": match outcome {
                Outcome::Unchanged => "unchanged",
                Outcome::Unknown => "unknown",
                Outcome::Partial => "partial",
                Outcome::Done => "done",
                Outcome::Answered => "answered",
            },
        });
        if let Retry::After(span) = retry {
            document["retryafter"] = format!("{}ms", span.as_millis()).into();
        }
        members.iter().for_each(|(name, value)| document[name] = value.clone());
        document
    }
}

impl Problem {
    /// The document as a reply.
    pub(crate) fn render(&self) -> Response<Bytes> {
        let mut response = reply::bytes(self.0.code.status(), PROBLEM, self.document().to_string().into());
        let headers = response.headers_mut();
        if let Retry::After(span) = self.0.retry {
            headers.insert(RETRY_AFTER, HeaderValue::from(span.as_secs_f64().ceil() as u64));
        }
        headers.extend(self.0.headers.iter().cloned());
        response
    }
}

impl IntoResponse for Problem {
    /// Carries the problem to the surface's edge, which knows the trace it belongs to and renders it.
    fn into_response(self) -> axum::response::Response {
        let mut response = self.0.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
