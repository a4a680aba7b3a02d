//! Handlers by the type of event that they hear.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::FutureExt as _;
use quorate_data::{
    event::{Recorded, Version},
    schema::{
        SchemaVersion,
        upcast::{UpcastError, Versioned},
    },
    store::{DynTx, Query, QueryItem},
    subscription::{Delivery, Subscription, SubscriptionError},
};
use quorate_runtime::BoxFuture;

use super::{Bus, Context, Event, event::version_of};
use crate::message_queue::Failed;

/// An event, as a handler hears it. Cheap to clone; clones are the same.
pub struct Heard<E> {
    event: Arc<E>,
    held: Arc<Held>,
}

/// What a handler holds while it runs.
pub(super) struct Held {
    pub(super) delivery: Delivery,
    pub(super) subscription: Subscription,
    /// Whether a transaction of a handler's was to settle it: then its lease may be lost to ourselves.
    pub(super) settles_itself: AtomicBool,
    /// Whether handlers of other parts of it come behind the one that runs.
    pub(super) is_followed: AtomicBool,
}

impl<E> Clone for Heard<E> {
    fn clone(&self) -> Self {
        Self { event: self.event.clone(), held: self.held.clone() }
    }
}

impl<E> Heard<E> {
    /// What happened.
    pub fn event(&self) -> &E {
        &self.event
    }

    /// The event as the log keeps it, with all its attributes.
    pub fn recorded(&self) -> &Recorded {
        &self.held.delivery.event
    }

    /// What it carries of the request that it came from.
    pub fn context(&self) -> Context {
        Context::of(self.recorded())
    }

    /// What to publish with because of it.
    pub fn consequence(&self) -> Context {
        Context::caused_by(self.recorded())
    }

    /// Its version in its stream.
    pub fn version(&self) -> Version {
        self.recorded().version()
    }

    /// How often it has now been handed out, counted from 1. Above 1, an earlier attempt may have done some or all of the work.
    pub fn attempt(&self) -> u32 {
        self.held.delivery.attempt
    }

    /// Settles the event in the handler's transaction: the work and its acknowledgement become durable together. Once that has committed,
    /// what the handler returns changes nothing any more.
    ///
    /// # Errors
    /// [`SubscriptionError::LeaseLost`]: somebody else has, or had, the event. [`SubscriptionError::Invalid`]: an upcaster has split it, and
    /// other parts are yet to be told; only the last one can be settled with. Return either from the transaction's closure.
    pub async fn ack_in(&self, tx: &mut DynTx) -> Result<(), SubscriptionError> {
        if self.held.is_followed.load(Ordering::Acquire) {
            let what = "the event was split into several, and only the last of them can be settled with a transaction";
            return Err(SubscriptionError::Invalid { what: what.to_owned() });
        }
        self.held.subscription.ack_in(tx, &self.held.delivery.lease).await?;
        // Ordering: before the commit, and read by whoever finds the lease lost, which is after it.
        self.held.settles_itself.store(true, Ordering::Release);
        Ok(())
    }
}

impl<E: fmt::Debug> fmt::Debug for Heard<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heard")
            .field("event", &self.event)
            .field("delivery", &self.held.delivery)
            .finish_non_exhaustive()
    }
}

type Handle = dyn Fn(Versioned, Arc<Held>) -> BoxFuture<'static, Result<(), Failed>> + Send + Sync;

/// Handlers by the type of event that they hear.
#[derive(Clone, Default)]
pub struct Handlers {
    by_type: BTreeMap<&'static str, (u32, Arc<Handle>)>,
}

/// Why an event cannot be told to its handler.
#[derive(Debug, thiserror::Error)]
pub(super) enum Untold {
    #[error("its `dataschema` names no version of its type")]
    Version,
    #[error("its data is no JSON")]
    Data(#[source] serde_json::Error),
    #[error(transparent)]
    Way(UpcastError),
    #[error("it is of version {is}, its handler reads version {wanted}, and no upcaster leads there")]
    Older { is: u32, wanted: u32 },
}

impl Handlers {
    /// The same, with `handler` for events of the type and version that `E` is of. Of two for one type the last one holds.
    ///
    /// A handler that returns an error hears the event again; [`Failed::park`] says that it is of no use.
    #[must_use]
    pub fn on<E, F, Fut>(mut self, handler: F) -> Self
    where
        E: Event,
        F: Fn(Heard<E>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failed>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let handle = move |event: Versioned, held: Arc<Held>| {
            let handler = handler.clone();
            Box::pin(async move {
                let unfit = |cause: &dyn fmt::Display| {
                    Failed::park(format!("its data is not what is read as {}: {cause}", E::TYPE))
                };
                // Reading is the user's as well, and reads the same every time.
                let read = catch_unwind(AssertUnwindSafe(|| serde_json::from_value::<E>(event.data)));
                let read = read.map_err(|_| unfit(&"reading it panicked"))?;
                let event = Arc::new(read.map_err(|cause| unfit(&cause))?);
                let running = AssertUnwindSafe(async { handler(Heard { event, held }).await });
                running.catch_unwind().await.unwrap_or_else(|_| Err(Failed::again("the handler panicked")))
            }) as BoxFuture<'static, _>
        };
        self.by_type.insert(E::TYPE, (version_of::<E>().get(), Arc::new(handle)));
        self
    }

    /// The events that these handlers hear, those included that become such by being brought to another version.
    pub fn filter(&self, bus: &Bus) -> Query {
        let own = self.by_type.keys().map(|kind| (*kind).to_owned());
        let origins = self.by_type.keys().flat_map(|kind| bus.upcasters().origins(kind));
        let kinds: BTreeSet<String> = own.chain(origins.map(|kind| kind.to_string())).collect();
        Query::of([QueryItem::types(kinds)])
    }

    /// Has the handlers of what `stored` is, in the versions they read, called one after the other. `None`: no handler is for it.
    pub(super) async fn call(&self, stored: Versioned, held: &Arc<Held>, bus: &Bus) -> Option<Result<(), Failed>> {
        let parked = |untold: Untold| Some(Err(Failed::park(told(&untold))));
        let current = match bus.upcasters().upcast(stored) {
            Ok(current) => current,
            Err(cause) => return parked(Untold::Way(cause)),
        };
        let mut parts = Vec::new();
        for event in current {
            let Some((wanted, handle)) = self.by_type.get(event.event_type.as_str()) else { continue };
            let is = event.version.get();
            if is < *wanted {
                return parked(Untold::Older { is, wanted: *wanted });
            }
            let target = SchemaVersion::new(*wanted).unwrap_or(event.version);
            let event = match bus.upcasters().downcast(event, target) {
                Ok(event) => event,
                Err(cause) => return parked(Untold::Way(cause)),
            };
            parts.push((event, handle));
        }
        let mut left = parts.len();
        let heard = if parts.is_empty() { None } else { Some(Ok(())) };
        for (event, handle) in parts {
            left -= 1;
            held.is_followed.store(left > 0, Ordering::Release);
            if let Err(failed) = handle(event, held.clone()).await {
                return Some(Err(failed));
            }
        }
        heard
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.by_type.iter().map(|(kind, (version, _))| (kind, version))).finish()
    }
}

/// An error and its causes.
pub(super) fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause: &&(dyn std::error::Error + 'static)| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
