//! A rate limit by key around a stack: of this process alone, or of all that share a count.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use quorate_foundations::name::Name;
use quorate_runtime::{BoxFuture, Env};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    outcome::{CallError, Rejection},
    rate_limit::{Keyed, Shared},
};

/// Lets through what each key may have: a layer to put around a [`Stack`](super::Stack), outside of all of its policies, where a
/// rate limit belongs.
///
/// `key` says whose call it is: a tenant's, a client's, or that of the whole dependency; a call of `None` is not limited. Each
/// call costs one unit, whatever its attempts. What is refused here never reaches the stack, whose counts don't show it.
///
/// # Example
/// ```
/// use quorate_resilience::{
///     CallError, Rejection,
///     kit::Upstream,
///     rate_limit::{Keyed, Rate},
///     stack::{LimitBy, Plain, Stack},
///     timeout::Timers,
/// };
/// use quorate_foundations::name::Name;
/// use quorate_runtime::Env;
/// use std::{num::NonZeroU32, sync::Arc, time::Duration};
/// use tower_layer::Layer as _;
/// use tower_service::Service as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let env = Env::real();
/// let stack = Stack::builder("orders".parse()?).build(&Timers::new(&env), Plain::idempotent())?;
/// let rate = Rate::new(NonZeroU32::MIN, Duration::from_secs(60));
/// let tenants = Arc::new(Keyed::new(rate, 1_000.try_into()?, 7)?);
/// // The request is the tenant's name.
/// let limit = LimitBy::own(&env, tenants, |tenant: &&str| tenant.parse::<Name>().ok());
/// let mut orders = limit.layer(stack.layer(Upstream::new(&env)));
/// assert_eq!(orders.call("a").await?, "a");
/// assert_eq!(orders.call("b").await?, "b");
/// assert!(matches!(orders.call("a").await, Err(CallError::Rejected(Rejection::Limit(_)))));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LimitBy<F> {
    count: Count,
    key: F,
}

#[derive(Clone)]
enum Count {
    Own(Env, Arc<Keyed<Name>>),
    Shared(Shared),
}

impl<F> LimitBy<F> {
    /// A limit that this process keeps by itself, on the clock of `env`.
    pub fn own(env: &Env, keyed: Arc<Keyed<Name>>, key: F) -> Self {
        Self { count: Count::Own(env.clone(), keyed), key }
    }

    /// A limit that all processes keep together. A call for which units are leased already waits for nobody; another one waits
    /// for the count, and if that can't be asked gets what [`OnUnavailable`](crate::rate_limit::OnUnavailable) says.
    pub fn shared(shared: Shared, key: F) -> Self {
        Self { count: Count::Shared(shared), key }
    }
}

impl<S, F: Clone> Layer<S> for LimitBy<F> {
    type Service = Limited<S, F>;

    fn layer(&self, service: S) -> Self::Service {
        Limited { service, limit: self.clone() }
    }
}

/// A stack's service behind a limit by key.
#[derive(Clone)]
pub struct Limited<S, F> {
    service: S,
    limit: LimitBy<F>,
}

impl<S, R, E, F> Service<R> for Limited<S, F>
where
    S: Service<R, Error = CallError<E>> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: 'static,
    F: Fn(&R) -> Option<Name>,
    R: Send + 'static,
    E: 'static,
{
    type Response = S::Response;
    type Error = CallError<E>;
    type Future = IfAllowed<S::Future, S::Response, CallError<E>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let allowed = match ((self.limit.key)(&request), &self.limit.count) {
            (None, _) => Ok(()),
            (Some(key), Count::Own(env, keyed)) => keyed.take(env.mono(), &key, 1).map(|_| ()).map_err(Rejection::from),
            (Some(key), Count::Shared(shared)) => match shared.take_known(&key, 1) {
                Some(known) => known.map(|_| ()).map_err(Rejection::from),
                None => {
                    let shared = shared.clone();
                    // The service that is ready is the one that is called.
                    let clone = self.service.clone();
                    let mut ready = std::mem::replace(&mut self.service, clone);
                    let asking = async move {
                        shared.take(&key, 1).await.map_err(Rejection::from)?;
                        ready.call(request).await
                    };
                    return IfAllowed { state: State::Asking { call: Box::pin(asking) } };
                }
            },
        };
        let state = match allowed {
            Ok(()) => State::Allowed { call: self.service.call(request) },
            Err(refused) => State::Refused { error: Some(refused.into()) },
        };
        IfAllowed { state }
    }
}

pin_project! {
    /// A call that is made if its key's limit allows it.
    ///
    /// # Cancel safety
    /// That of the call. Units that were taken for it stay taken.
    pub struct IfAllowed<C, T, E> {
        #[pin]
        state: State<C, T, E>,
    }
}

pin_project! {
    #[project = Projected]
    enum State<C, T, E> {
        Allowed { #[pin] call: C },
        Asking { call: BoxFuture<'static, Result<T, E>> },
        Refused { error: Option<E> },
    }
}

impl<C: Future<Output = Result<T, E>>, T, E> Future for IfAllowed<C, T, E> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            Projected::Allowed { call } => call.poll(cx),
            Projected::Asking { call } => call.as_mut().poll(cx),
            Projected::Refused { error } => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => panic!("a call was polled after its end"),
            },
        }
    }
}

impl<F> std::fmt::Debug for LimitBy<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LimitBy").field("shared", &matches!(self.count, Count::Shared(_))).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
