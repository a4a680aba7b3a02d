//! The inboxes of the configuration, by name.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use quorate_communication::{
    inbox::{Description, Failed, Inbox, InboxError, Parked, Replayed, Selection},
    message_queue::{NewMessage, QueueError, Queues},
    transports::{Embedded, Incoming, TransportError, connect},
};
use quorate_consistency::two_phase_commit::Ledger;
use quorate_data::store::{AppendError, DynTx, ExpectedVersion, Retry, Store};
use quorate_foundations::{name::Name, time::Wall};
use quorate_runtime::Env;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    MessageQueues,
    at_work::{AtWork, in_the_way},
};
use crate::config::{Destination, InboxSpec, ReachError};

/// How long to wait before an inbox that could not be started is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The verbs on the inboxes that the configuration names. Cheap to clone.
///
/// Every verb on one inbox fails with [`InboxCareError::NotFound`] if there is none of that name.
#[derive(Clone)]
pub struct InboxCare {
    store: Store,
    queues: MessageQueues,
    all: Arc<BTreeMap<Name, One>>,
}

/// An inbox of the configuration.
struct One {
    spec: InboxSpec,
    at_work: AtWork<Inbox>,
}

/// How an inbox stands.
#[derive(Clone, Debug)]
pub struct InboxStanding {
    /// As it was configured.
    pub spec: InboxSpec,
    /// How it works; if it could not be started yet, when that was last tried and why it failed.
    pub how: Result<Description, Option<(Wall, String)>>,
}

/// What can go wrong with an inbox of the configuration. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxCareError {
    /// The configuration names no such inbox.
    #[error("there is no inbox `{name}`")]
    NotFound {
        /// The name.
        name: Name,
    },
    /// It could not be started yet. It is tried again every second.
    #[error("the inbox `{name}` has not started yet: {why}")]
    NotStarted {
        /// The name.
        name: Name,
        /// Why.
        why: String,
    },
    /// The inbox failed.
    #[error(transparent)]
    Inbox(#[from] InboxError),
}

impl InboxCareError {
    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotFound { .. } => Retry::Never,
            Self::NotStarted { .. } => Retry::After(AGAIN),
            Self::Inbox(cause) => cause.retry(),
        }
    }
}

/// Why an inbox cannot be started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error(transparent)]
    Queues(#[from] QueueError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Inbox(#[from] InboxError),
}

impl InboxCare {
    /// The verbs on the inboxes `specs` of `store`. None works before this [runs](Self::run).
    pub fn new(store: &Store, queues: &MessageQueues, specs: &[InboxSpec]) -> Self {
        let one = |spec: &InboxSpec| (spec.name.clone(), One { spec: spec.clone(), at_work: AtWork::not_yet() });
        Self { store: store.clone(), queues: queues.clone(), all: Arc::new(specs.iter().map(one).collect()) }
    }

    /// Starts all inboxes, and tries those again that cannot be started, until all work or the tasks of `env` are told to stop.
    pub async fn run(self, env: Env) {
        let stop = env.tasks().stop().clone();
        loop {
            let idle = self.all.values().filter(|one| one.at_work.get().is_err());
            // Side by side, for a broker that is away takes its time.
            let starting = join_all(idle.map(|one| self.begin(one, &env)));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = starting => {}
            }
            if self.all.values().all(|one| one.at_work.get().is_ok()) {
                return;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
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
            Ok(inbox) => one.at_work.works(inbox),
            Err(cause) => one.at_work.failed(("inbox", &one.spec.name), env.wall(), &cause),
        }
    }

    async fn start(&self, spec: &InboxSpec) -> Result<Inbox, StartError> {
        let address = spec.reach.whole(self.store.env()).await?;
        let embedded = match address.is_embedded() {
            true => Some(Embedded::new(&self.store, self.queues.opened().await?)),
            false => None,
        };
        let transport = connect(self.store.env(), &address, embedded.as_ref())?;
        let queues = match &spec.into {
            Destination::Stream(_) => None,
            Destination::Queue(name) => {
                let queues = self.queues.opened().await?;
                // It may have been declared at another node.
                queues.refresh().await?;
                queues.get(name)?;
                Some(queues)
            }
        };
        let (into, missed) = (Arc::new((spec.into.clone(), queues.clone())), Arc::new(Notify::new()));
        let bell = missed.clone();
        let inbox = Inbox::start(&self.store, transport, spec.inbox.clone(), move |tx, message| {
            let (into, bell) = (into.clone(), bell.clone());
            Box::pin(async move { take_in(tx, &bell, &into.0, into.1.as_ref(), &message).await })
        });
        let inbox = inbox.await?;
        if let Some(queues) = queues {
            let tasks = self.store.env().tasks();
            tasks.spawn("queues of an inbox", look_again(queues, missed, tasks.stop().clone()));
        }
        Ok(inbox)
    }

    /// Stops all: what they were taking in is done by then.
    pub async fn shut_down(&self) {
        let at_work = self.all.values().filter_map(|one| one.at_work.get().ok());
        join_all(at_work.map(|inbox| async move { inbox.stop().await })).await;
    }

    /// How at most `limit` inboxes behind `after` stand, in order of their names.
    pub async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<InboxStanding>, InboxCareError> {
        let mut standing = Vec::new();
        let behind = self.all.keys().filter(|name| after.is_none_or(|after| *name > after));
        for name in behind.take(limit) {
            standing.push(self.describe(name).await?);
        }
        Ok(standing)
    }

    /// How an inbox stands right now.
    pub async fn describe(&self, name: &Name) -> Result<InboxStanding, InboxCareError> {
        let one = self.one(name)?;
        let how = match one.at_work.get() {
            Ok(inbox) => Ok(inbox.describe().await?),
            Err(why) => Err(why),
        };
        Ok(InboxStanding { spec: one.spec.clone(), how })
    }

    /// At most `limit` parked messages with a place behind `after`, in order of their places; fewer where they are large.
    pub async fn parked(&self, name: &Name, after: u64, limit: u32) -> Result<Vec<Parked>, InboxCareError> {
        Ok(self.inbox(name)?.parked(after, limit).await?)
    }

    /// Takes parked messages in again, of each key in order, until one fails.
    pub async fn replay(&self, name: &Name, which: &Selection) -> Result<Replayed, InboxCareError> {
        Ok(self.inbox(name)?.replay(which).await?)
    }

    /// Gives parked messages up: they never take effect. Returns how many.
    pub async fn discard(&self, name: &Name, which: &Selection) -> Result<usize, InboxCareError> {
        Ok(self.inbox(name)?.discard(which).await?)
    }

    fn one(&self, name: &Name) -> Result<&One, InboxCareError> {
        self.all.get(name).ok_or_else(|| InboxCareError::NotFound { name: name.clone() })
    }

    fn inbox(&self, name: &Name) -> Result<Inbox, InboxCareError> {
        let not_yet = |why| InboxCareError::NotStarted { name: name.clone(), why: in_the_way(why) };
        self.one(name)?.at_work.get().map_err(not_yet)
    }
}

/// Has a message take effect: it is appended, or sent on, in the transaction that remembers it.
async fn take_in(
    tx: &mut DynTx,
    missed: &Notify,
    into: &Destination,
    queues: Option<&Queues>,
    message: &Incoming,
) -> Result<(), Failed> {
    let park = |wrong: &dyn std::error::Error| Err(Failed::park(wrong.to_string()));
    match (into, queues) {
        (Destination::Stream(template), _) => {
            let stream = template.stream(message).map_err(Failed::park)?;
            let apart = template.tells_aggregates_apart();
            let event = if apart { message.event.clone() } else { message.told_apart() };
            if Ledger::is_own_stream(stream.as_str()) || Ledger::is_own_type(&event.kind) {
                return Err(Failed::park("it would be written in a coordinator's place".to_owned()));
            }
            match tx.append(&stream, ExpectedVersion::Any, vec![event]).await {
                Ok(_) => Ok(()),
                // The next time is no better than this one.
                Err(
                    wrong @ (AppendError::Invalid { .. }
                    | AppendError::IdReused { .. }
                    | AppendError::Reserved { .. }
                    | AppendError::Tombstoned { .. }),
                ) => park(&wrong),
                Err(AppendError::Schema { cause, .. }) => park(&cause),
                Err(other) => Err(other.into()),
            }
        }
        (Destination::Queue(name), Some(queues)) => {
            // Looked for each time: it may have been deleted and made again.
            let queue = queues.get(name).map_err(|wrong| not_now(missed, wrong))?;
            let sent = NewMessage::of(message.told_apart()).in_group(message.key.clone());
            match queue.send_in(tx, vec![sent]).await {
                Ok(_) => Ok(()),
                Err(QueueError::Message { cause, .. }) => park(&cause),
                Err(wrong @ (QueueError::Invalid { .. } | QueueError::IdReused { .. })) => park(&wrong),
                Err(other) => Err(not_now(missed, other)),
            }
        }
        (Destination::Queue(name), None) => Err(Failed::again(format!("the queue `{name}` was not opened"))),
    }
}

/// Has the queues looked at again whenever one was missed, outside of the transaction that missed it, and as a rule before its next try:
/// another node may have declared it.
async fn look_again(queues: Queues, missed: Arc<Notify>, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = missed.notified() => {}
        }
        // Where the store refuses, it is missed again.
        let _as_before = queues.refresh().await;
    }
}

/// A queue that is full or was deleted is no message's fault.
fn not_now(missed: &Notify, wrong: QueueError) -> Failed {
    match wrong {
        QueueError::Full { .. } | QueueError::Crowded { .. } => Failed::not_now(wrong.to_string()),
        QueueError::NotFound { .. } => {
            missed.notify_one();
            Failed::not_now(wrong.to_string())
        }
        other => other.into(),
    }
}
