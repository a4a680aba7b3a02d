//! The relays of the configuration, by name.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use quorate_communication::{
    message_queue::QueueError,
    outbox::{Description, Relay, RelayError},
    transports::{Embedded, TransportError, connect},
};
use quorate_data::{
    event::Position,
    store::{Retry, Store},
    subscription::{ParkedEvent, Selection, SubscriptionError},
};
use quorate_foundations::{name::Name, time::Wall};
use quorate_runtime::Env;

use super::{
    MessageQueues,
    at_work::{AtWork, in_the_way},
};
use crate::config::{ReachError, RelaySpec};

/// How long to wait before a relay that could not be started is tried again, and how often one is looked after that ended.
const AGAIN: Duration = Duration::from_secs(1);

/// The verbs on the relays that the configuration names. Cheap to clone.
///
/// Every verb on one relay fails with [`RelayCareError::NotFound`] if there is none of that name.
#[derive(Clone)]
pub struct RelayCare {
    store: Store,
    queues: MessageQueues,
    all: Arc<BTreeMap<Name, One>>,
}

/// A relay of the configuration.
struct One {
    spec: RelaySpec,
    at_work: AtWork<Relay>,
}

/// How a relay stands.
#[derive(Clone, Debug)]
pub struct RelayStanding {
    /// As it was configured.
    pub spec: RelaySpec,
    /// How it works; if it could not be started yet, when that was last tried and why it failed.
    pub how: Result<Description, Option<(Wall, String)>>,
}

/// What can go wrong with a relay of the configuration. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayCareError {
    /// The configuration names no such relay.
    #[error("there is no relay `{name}`")]
    NotFound {
        /// The name.
        name: Name,
    },
    /// It could not be started yet. It is tried again every second.
    #[error("the relay `{name}` has not started yet: {why}")]
    NotStarted {
        /// The name.
        name: Name,
        /// Why.
        why: String,
    },
    /// The relay failed.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The subscription by which it follows the log failed.
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
}

impl RelayCareError {
    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotFound { .. } => Retry::Never,
            Self::NotStarted { .. } => Retry::After(AGAIN),
            Self::Relay(cause) => cause.retry(),
            Self::Subscription(cause) => cause.retry(),
        }
    }
}

/// Why a relay cannot be started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error(transparent)]
    Queues(#[from] QueueError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Relay(#[from] RelayError),
}

impl RelayCare {
    /// The verbs on the relays `specs` of `store`. None works before this [runs](Self::run).
    pub fn new(store: &Store, queues: &MessageQueues, specs: &[RelaySpec]) -> Self {
        let one = |spec: &RelaySpec| (spec.name.clone(), One { spec: spec.clone(), at_work: AtWork::not_yet() });
        Self { store: store.clone(), queues: queues.clone(), all: Arc::new(specs.iter().map(one).collect()) }
    }

    /// Starts all relays, tries those again that cannot be started, and looks after those that end, until the tasks of `env` are told to stop.
    pub async fn run(self, env: Env) {
        let stop = env.tasks().stop().clone();
        while !self.all.is_empty() && !stop.is_cancelled() {
            let idle = self.all.values().filter(|one| !one.works());
            // Side by side, for a broker that is away takes its time.
            let starting = join_all(idle.map(|one| self.begin(one, &env)));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = starting => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = env.sleep(AGAIN) => {}
            }
        }
    }

    /// Tries to start one.
    ///
    /// # Cancel safety
    /// Nothing is awaited between its start and the note of it: whoever stops all finds all that were started.
    async fn begin(&self, one: &One, env: &Env) {
        match self.start(&one.spec).await {
            Ok(relay) => one.at_work.works(relay),
            Err(cause) => one.at_work.failed(("relay", &one.spec.name), env.wall(), &cause),
        }
    }

    async fn start(&self, spec: &RelaySpec) -> Result<Relay, StartError> {
        let address = spec.reach.whole(self.store.env()).await?;
        let embedded = match address.is_embedded() {
            true => Some(Embedded::new(&self.store, self.queues.opened().await?)),
            false => None,
        };
        let transport = connect(self.store.env(), &address, embedded.as_ref())?;
        Ok(Relay::start(&self.store, &spec.name, transport, spec.relay.clone()).await?)
    }

    /// Stops all: what they have published by then is settled.
    pub async fn shut_down(&self) {
        let at_work = self.all.values().filter_map(|one| one.at_work.get().ok());
        join_all(at_work.map(|relay| async move { relay.stop().await })).await;
    }

    /// Whether the subscription of this name is a relay's.
    pub fn owns(&self, subscription: &Name) -> bool {
        self.all.contains_key(subscription)
    }

    /// How at most `limit` relays behind `after` stand, in order of their names.
    pub async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<RelayStanding>, RelayCareError> {
        let mut standing = Vec::new();
        let behind = self.all.iter().filter(|(name, _)| after.is_none_or(|after| *name > after));
        for (name, _) in behind.take(limit) {
            standing.push(self.describe(name).await?);
        }
        Ok(standing)
    }

    /// How a relay stands right now.
    pub async fn describe(&self, name: &Name) -> Result<RelayStanding, RelayCareError> {
        let one = self.one(name)?;
        let how = match one.at_work.get() {
            Ok(relay) => match relay.describe().await {
                // Its subscription was deleted: it begins anew.
                Err(SubscriptionError::NotFound { .. }) => Err(None),
                described => Ok(described?),
            },
            Err(why) => Err(why),
        };
        Ok(RelayStanding { spec: one.spec.clone(), how })
    }

    /// Has a relay publish nothing until it is resumed, also after a restart, and in every process that shares the store.
    pub async fn pause(&self, name: &Name, reason: &str) -> Result<RelayStanding, RelayCareError> {
        self.relay(name)?.pause(reason).await?;
        self.describe(name).await
    }

    /// Has a relay go on from where it was.
    pub async fn resume(&self, name: &Name) -> Result<RelayStanding, RelayCareError> {
        self.relay(name)?.resume().await?;
        self.describe(name).await
    }

    /// Has a relay try its broker again at once.
    pub async fn wake(&self, name: &Name) -> Result<RelayStanding, RelayCareError> {
        self.relay(name)?.wake();
        self.describe(name).await
    }

    /// At most `limit` parked events behind `after`, in order of position.
    pub async fn parked(&self, name: &Name, after: Position, limit: u32) -> Result<Vec<ParkedEvent>, RelayCareError> {
        Ok(self.relay(name)?.subscription().parked(after, limit).await?)
    }

    /// Lets parked events be published again, in order. Returns how many.
    pub async fn replay(&self, name: &Name, which: Selection) -> Result<usize, RelayCareError> {
        Ok(self.relay(name)?.replay(which).await?)
    }

    /// Gives parked events up. Returns how many.
    pub async fn discard(&self, name: &Name, which: Selection) -> Result<usize, RelayCareError> {
        let relay = self.relay(name)?;
        let discarded = relay.subscription().discard(which).await?;
        // What was behind them may go on.
        relay.wake();
        Ok(discarded)
    }

    fn one(&self, name: &Name) -> Result<&One, RelayCareError> {
        self.all.get(name).ok_or_else(|| RelayCareError::NotFound { name: name.clone() })
    }

    fn relay(&self, name: &Name) -> Result<Relay, RelayCareError> {
        let not_yet = |why| RelayCareError::NotStarted { name: name.clone(), why: in_the_way(why) };
        self.one(name)?.at_work.get().map_err(not_yet)
    }
}

impl One {
    fn works(&self) -> bool {
        self.at_work.get().is_ok_and(|relay| !relay.has_ended())
    }
}
