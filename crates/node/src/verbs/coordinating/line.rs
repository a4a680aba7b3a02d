//! How services that take part are called: through the policies of whom they are, and only where the configuration allows it.

use std::{
    sync::{Arc, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use quorate_consistency::two_phase_commit::{NotSent, ParticipantError};
use quorate_foundations::name::Name;
use quorate_resilience::{
    CallError, Class, Verdict,
    client::{Client, Error},
    deadline::Deadline,
    hop::Hop,
    http::Http,
};
use quorate_runtime::BoxFuture;
use tower::{Layer as _, Service};

use super::Shared;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Judge = fn(&Error) -> Verdict;

/// The way to one service. Cheap to clone.
#[derive(Clone)]
pub(super) struct Line {
    shared: Arc<Shared>,
    dependency: Name,
    encrypts: bool,
    time: Duration,
}

impl Line {
    pub(super) fn new(shared: &Arc<Shared>, address: &str) -> Result<Self, ParticipantError> {
        let wrong = |what: String| ParticipantError::Unsuitable { what };
        let uri: http::Uri = address.parse().map_err(|_| wrong(format!("`{address}` is no address")))?;
        let host = uri.host().unwrap_or_default().to_owned();
        let dependency = Name::new(host).map_err(|cause| wrong(cause.to_string()))?;
        let time = shared.config.prepare_timeout.max(shared.config.call_timeout);
        let encrypts = uri.scheme_str() == Some("https");
        Ok(Self { shared: shared.clone(), dependency, encrypts, time })
    }

    async fn send(
        self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError> {
        let calls = self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let calls = calls.ok_or_else(|| NotSent("the node stops".into()))?;
        // The coordinator retries, and nobody on the way.
        let hop = Hop { owned: true, ..Hop::until(Deadline::after(self.shared.env.mono(), self.time)) };
        request.extensions_mut().insert(hop);
        let judge: Judge = Client::judge;
        let stack = self.shared.registry.stack(&self.dependency, Http::default().failing_as(judge));
        let stack = stack.map_err(|cause| NotSent(cause.into()))?;
        let answered = stack.layer(calls.client(self.encrypts).await).call(request).await.map_err(failed)?;
        Ok(answered.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

impl Service<Request<Full<Bytes>>> for Line {
    type Response = Response<UnsyncBoxBody<Bytes, BoxError>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

/// What prevented an answer: where nothing can have been done it says so.
fn failed(error: CallError<Error>) -> BoxError {
    let is_unsent = match &error {
        CallError::Rejected(_) | CallError::Upstream(Error::Address { .. }, _) => true,
        CallError::Upstream(error, class) => Client::judge(error).unprocessed || *class == Class::Untrusted,
        _ => false,
    };
    if is_unsent { NotSent(error.into()).into() } else { error.into() }
}
