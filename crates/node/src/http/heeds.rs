//! Headers that make a request conditional or safe to repeat, refused where nobody looks at them: a condition that is
//! passed over destroys what it was to protect, and a key that is passed over has done twice what was to be done once.
//!
//! Source: RFC 9110, section 13.1; IETF draft "The Idempotency-Key HTTP Header Field".

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{
    HeaderMap,
    header::{IF_MATCH, IF_NONE_MATCH},
};

use super::{
    idempotency::KEY,
    problem::{Code, Problem},
};

/// Which of these headers the unsafe methods of a route look at, or why they do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heeds {
    /// `If-Match` and `If-None-Match`.
    pub(super) preconditions: Result<(), &'static str>,
    /// `Idempotency-Key`.
    pub(super) keys: Result<(), &'static str>,
}

impl Heeds {
    /// All of them.
    pub(super) const EVERYTHING: Self = Self { preconditions: Ok(()), keys: Ok(()) };

    /// Has `next` answer, unless the request says what would be passed over.
    pub(super) async fn answer(self, request: Request, next: Next) -> Response {
        match self.check(&request) {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    }

    fn check(self, request: &Request) -> Result<(), Problem> {
        if request.method().is_safe() {
            return Ok(());
        }
        self.check_headers(request.headers())
    }

    fn check_headers(self, headers: &HeaderMap) -> Result<(), Problem> {
        if let Err(why) = self.preconditions
            && let Some(name) = [IF_MATCH, IF_NONE_MATCH].into_iter().find(|name| headers.contains_key(name))
        {
            let detail = format!("`{name}` is not looked at here: {why}; leave it out");
            return Err(Problem::new(Code::InvalidPrecondition, detail).with("header", name.as_str()));
        }
        if let Err(why) = self.keys
            && headers.contains_key(KEY)
        {
            let detail = format!("no answer is kept for an `{KEY}` here: {why}; leave it out");
            return Err(Problem::new(Code::InvalidParameter, detail).with("header", KEY.as_str()));
        }
        Ok(())
    }
}

impl Default for Heeds {
    /// What changes something keeps its answer for a key, and has no version that a condition could be about.
    fn default() -> Self {
        Self { preconditions: Err("what this changes has no version to hold it against"), keys: Ok(()) }
    }
}
