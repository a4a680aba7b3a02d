//! A stack whose policies become others while calls are made: what a configuration that is read again changes.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

use super::{
    Stack, Timed,
    policies::Policies,
    replaced::{Replaced, Seen},
    service::Guarded,
};
use crate::timeout::Timers;

/// The policies that hold now.
pub(crate) struct Current(Replaced<Arc<Policies>>);

impl Current {
    pub(crate) fn new(stack: Stack<()>) -> Self {
        Self(Replaced::new(stack.policies))
    }

    /// Lets the policies of `stack` hold, for calls that begin from now on.
    pub(crate) fn replace(&self, stack: Stack<()>) {
        self.0.replace(stack.policies);
    }

    pub(super) fn policies(&self) -> Arc<Policies> {
        self.0.held()
    }
}

/// The policies of one dependency as a layer, which a [registry](crate::policy::Registry) replaces when its documents change.
/// Cheap to clone.
///
/// A call passes the policies that held when it began. What they have in common with those before (a circuit, a count, a place
/// that is taken) is the same, so that nothing is forgotten.
#[derive(Clone)]
pub struct Live<P> {
    pub(super) current: Arc<Current>,
    protocol: P,
}

impl<P> Live<P> {
    pub(crate) const fn new(current: Arc<Current>, protocol: P) -> Self {
        Self { current, protocol }
    }

    /// What became of calls so far, with a word for each thing that can; see [`Stack::counts`].
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.current.policies().memory.counts.all().collect()
    }
}

impl<P> fmt::Debug for Live<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("dependency", &self.current.policies().name).finish_non_exhaustive()
    }
}

impl<P> Timed for Live<P> {
    fn timers(&self) -> Timers {
        self.current.policies().timers.clone()
    }
}

impl<S, P: Clone> Layer<S> for Live<P> {
    type Service = Living<S, P>;

    fn layer(&self, service: S) -> Self::Service {
        let (policies, seen) = self.current.0.first();
        let guarded = Guarded::new(service, policies, self.protocol.clone());
        Living { guarded, current: self.current.clone(), seen }
    }
}

/// A service behind a [`Live`] stack. Cheap to clone, as far as `S` is.
#[derive(Clone)]
pub struct Living<S, P> {
    guarded: Guarded<S, P>,
    current: Arc<Current>,
    seen: Seen,
}

impl<S, P, R> Service<R> for Living<S, P>
where
    Guarded<S, P>: Service<R>,
{
    type Response = <Guarded<S, P> as Service<R>>::Response;
    type Error = <Guarded<S, P> as Service<R>>::Error;
    type Future = <Guarded<S, P> as Service<R>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Readiness is the service's, whatever the policies.
        self.guarded.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        if let Some(policies) = self.current.0.newer(&mut self.seen) {
            self.guarded.adopt(policies);
        }
        self.guarded.call(request)
    }
}

impl<S, P> fmt::Debug for Living<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Living").field("dependency", &self.current.policies().name).finish_non_exhaustive()
    }
}
