//! Sagas by name: documents that say what they are, and the sagas that run by them.

mod caller;
mod documents;

use std::{sync::Arc, time::Duration};

use quorate_communication::message_queue::{QueueError, Queues};
use quorate_consistency::saga::{
    Config, Counts, Description, Operation, SagaError, Sagas, Search, Started, Status, Summary,
    declared::{Document, Hands},
};
use quorate_data::store::{SqlError, Store, StoreError, reserved_for};
use quorate_foundations::{
    document::{Faults, Format},
    name::Name,
};
use quorate_resilience::policy::Registry;
use quorate_runtime::Env;
use serde_json::Value;
use tokio::sync::OnceCell;

pub(crate) use self::caller::Outward;
use self::documents::Opened;
pub(crate) use self::documents::TABLES;

/// The verbs on sagas. Cheap to clone.
///
/// Where several nodes share the store, each verb knows what any of them had declared when it was asked.
#[derive(Clone)]
pub struct SagaCare {
    store: Store,
    config: Config,
    caller: Arc<Outward>,
    opened: Arc<OnceCell<Opened>>,
}

/// What came of declaring a saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaDeclared {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: u32,
    /// Whether this version was not there yet.
    pub new: bool,
}

/// Why a saga was not declared.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeclareSagaError {
    /// The document can't be read, or the saga not be run.
    #[error("the document cannot be read")]
    Unreadable(#[source] Faults),
    /// The document is of another saga than the address.
    #[error("the document is of saga `{held}`, and the address is that of `{wanted}`")]
    Other {
        /// Of which saga it is.
        held: Name,
        /// Of which it should be.
        wanted: Name,
    },
    /// There are as many documents as a store keeps.
    #[error("a store keeps at most {max} versions of sagas")]
    TooMany {
        /// The most.
        max: usize,
    },
    /// All documents together would be too much.
    #[error("all documents of sagas may have {max} bytes together")]
    TooLarge {
        /// The most.
        max: usize,
    },
    /// The newest version was declared, and cannot be run here: another node may, or a newer quorate.
    #[error(
        "version {version} of saga `{name}` is declared, and cannot be used here: nothing is started by an older one"
    )]
    Unusable {
        /// Its name.
        name: Name,
        /// The version.
        version: i64,
    },
    /// Sagas refuse it.
    #[error(transparent)]
    Saga(#[from] SagaError),
}

impl From<SqlError> for DeclareSagaError {
    fn from(error: SqlError) -> Self {
        Self::Saga(error.into())
    }
}

/// How often it is looked for what others declared, in the time after which they count as gone.
const LOOKS: u32 = 5;
/// A look for what others declared may take so long at least: one that hangs on a dead connection would be the last. Long enough to make tables,
/// and to read many documents; what was read by then is known.
const LOOK: Duration = Duration::from_secs(60);
/// How often somebody else may be faster who declares something.
const MAX_TRIES: usize = 16;

/// The queues that sagas send to; `None` where the store keeps none. Whatever else is wrong with them may pass, and does not stand for that: sagas
/// would be turned back for it.
fn queues(opened: Result<Queues, QueueError>) -> Result<Option<Queues>, SagaError> {
    match opened {
        Ok(queues) => Ok(Some(queues)),
        Err(QueueError::Store(cause @ StoreError::Unsupported { .. })) => {
            tracing::warn!(%cause, "sagas send no messages: there are no queues");
            Ok(None)
        }
        Err(QueueError::Store(cause)) => Err(cause.into()),
        Err(QueueError::Tables(cause)) => Err(cause.into()),
        Err(other) => Err(SqlError::Failed { what: other.to_string() }.into()),
    }
}

fn taken(name: &Name, version: u32) -> DeclareSagaError {
    SagaError::AlreadyDefined { name: name.clone(), version }.into()
}

impl SagaCare {
    /// The most versions of documents.
    pub const MAX_DOCUMENTS: usize = 1_000;
    /// All documents together, in bytes: they are kept in memory.
    pub const MAX_TOTAL: usize = 32 << 20;

    /// The verbs on the sagas of `store`. Those that are open go on, if what is declared knows them. Where the store has no room or time for their
    /// tables, each verb tries again, and over PostgreSQL the node itself; where it keeps no sagas, each says so.
    pub async fn open(env: &Env, store: &Store, registry: &Registry, config: Config) -> Result<Self, DeclareSagaError> {
        let caller = Arc::new(Outward::new(env, registry.clone()));
        let care = Self { store: store.clone(), config, caller, opened: Arc::default() };
        match care.opened().await {
            Err(DeclareSagaError::Saga(SagaError::Store(
                cause @ (StoreError::DiskFull | StoreError::Busy | StoreError::Overloaded { .. }),
            ))) => {
                tracing::warn!(%cause, "sagas go on once the store lets us, and over a data directory somebody asks for them");
            }
            Err(DeclareSagaError::Saga(SagaError::Store(StoreError::Unsupported { .. }))) => return Ok(care),
            opened => drop(opened?),
        }
        if care.has_others() {
            care.follow();
        }
        Ok(care)
    }

    async fn opened(&self) -> Result<&Opened, DeclareSagaError> {
        self.opened.get_or_try_init(|| self.begin()).await
    }

    /// The sagas, with all that was declared by now.
    async fn current(&self) -> Result<&Opened, DeclareSagaError> {
        let opened = self.opened().await?;
        if self.has_others() {
            opened.take_in(&self.store).await?;
        }
        Ok(opened)
    }

    /// Whether other nodes may declare something.
    fn has_others(&self) -> bool {
        self.store.capabilities().several_writers
    }

    async fn begin(&self) -> Result<Opened, DeclareSagaError> {
        let sagas = Sagas::open(&self.store, self.config.clone()).await?;
        self.store.declare(documents::TABLES).await?;
        let queues = queues(Queues::open(&self.store).await)?;
        let opened = Opened::new(sagas, Hands { caller: self.caller.clone(), queues });
        opened.take_in(&self.store).await?;
        Ok(opened)
    }

    /// Takes in what other nodes declare, though nobody asks for it here: their sagas may be left to this node. Where the sagas could not be opened
    /// yet, it opens them.
    fn follow(&self) {
        let (care, env, every) = (self.clone(), self.store.env().clone(), self.config.takeover / LOOKS);
        let most = self.config.takeover.max(LOOK);
        env.tasks().clone().spawn("saga documents", async move {
            let stop = env.tasks().stop();
            while stop.run_until_cancelled(env.sleep(every)).await.is_some() {
                match stop.run_until_cancelled(env.timeout(most, care.current())).await {
                    None | Some(Some(Err(DeclareSagaError::Saga(SagaError::Store(StoreError::Closed))))) => return,
                    Some(Some(Err(cause))) => {
                        tracing::warn!(%cause, "what others declared of sagas cannot be read; it is tried again");
                    }
                    Some(None) => {
                        tracing::warn!(?most, "what others declared of sagas was not read in time; it is tried again");
                    }
                    Some(Some(Ok(_))) => {}
                }
            }
        });
    }

    /// Reads a document as declaring it would, and changes nothing.
    pub fn check(&self, name: &Name, text: &str, format: Format) -> Result<Document, DeclareSagaError> {
        let document = Document::read(text, format).map_err(DeclareSagaError::Unreadable)?;
        if document.name() != name {
            return Err(DeclareSagaError::Other { held: document.name().clone(), wanted: name.clone() });
        }
        if let Some(step) = document.first_encrypted() {
            let what = format!("step `{step}` calls an `https://` address, and a node makes no encrypted calls yet");
            return Err(SagaError::Invalid { what }.into());
        }
        Ok(document)
    }

    /// Declares a version of a saga: it can be started from now on, at every node and also after every restart. The same again changes nothing.
    ///
    /// # Errors
    /// [`SagaError::AlreadyDefined`] where the version says something else. Where the outcome is unknown, or this is dropped, repeat it: what was
    /// written is taken in then.
    pub async fn declare(&self, name: &Name, text: &str, format: Format) -> Result<SagaDeclared, DeclareSagaError> {
        let document = self.check(name, text, format)?;
        let opened = self.opened().await?;
        let alone = opened.alone().await;
        let version = document.version();
        let declared = |new| SagaDeclared { name: name.clone(), version, new };
        for _ in 0..MAX_TRIES {
            opened.take_in_alone(&self.store, &alone).await?;
            if let Some(known) = opened.version(name, version) {
                let is_same = known.is_some_and(|known| known.text() == document.text() && known.format() == format);
                return is_same.then(|| declared(false)).ok_or_else(|| taken(name, version));
            }
            let of_rust = opened.sagas.definitions().into_iter().find(|(known, _)| known == name);
            if of_rust.is_some_and(|(_, versions)| versions.contains(&version)) {
                return Err(taken(name, version));
            }
            let (count, bytes) = opened.size();
            if count >= Self::MAX_DOCUMENTS {
                return Err(DeclareSagaError::TooMany { max: Self::MAX_DOCUMENTS });
            }
            if bytes + text.len() > Self::MAX_TOTAL {
                return Err(DeclareSagaError::TooLarge { max: Self::MAX_TOTAL });
            }
            // Ordering: durable before it can be started, so that no saga is of a version that is lost.
            if opened.keep(&self.store, &document).await? {
                opened.define(&document).await?;
                return Ok(declared(true));
            }
        }
        Err(SagaError::from(StoreError::Busy).into())
    }

    /// The documents of a saga, in the order of their versions.
    pub async fn documents(&self, name: &Name) -> Result<Vec<Document>, DeclareSagaError> {
        let known = self.current().await?.documents(name);
        if known.is_empty() {
            return Err(SagaError::Undefined { name: name.clone() }.into());
        }
        Ok(known)
    }

    /// What is registered: names with their versions.
    pub async fn definitions(&self) -> Result<Vec<(Name, Vec<u32>)>, DeclareSagaError> {
        Ok(self.current().await?.sagas.definitions())
    }

    /// Starts a saga by the newest version that was declared when this was asked, at whichever node. `key`: what people look for it by; where
    /// none is given the document may say how to find it in the input.
    ///
    /// # Errors
    /// [`DeclareSagaError::Unusable`] where that version cannot be run here: nothing was started.
    pub async fn start(
        &self,
        name: &Name,
        id: &str,
        input: Value,
        key: Option<&str>,
    ) -> Result<Started, DeclareSagaError> {
        let opened = self.current().await?;
        if let Some(version) = opened.newest_unusable(name) {
            return Err(DeclareSagaError::Unusable { name: name.clone(), version });
        }
        let mut found = None;
        if key.is_none()
            && let Some(newest) = opened.documents(name).pop()
        {
            let wrong =
                |what| SagaError::Invalid { what: format!("the saga's key cannot be found in its input: {what}") };
            found = newest.key_of(&input).map_err(wrong)?;
        }
        Ok(opened.sagas.start(name, id, input, key.or(found.as_deref())).await?)
    }

    /// What is known of a saga, once it has ended or is stuck, or `patience` is over.
    pub async fn settled(&self, name: &Name, id: &str, patience: Duration) -> Result<Description, DeclareSagaError> {
        let sagas = &self.current().await?.sagas;
        if patience.is_zero() {
            return Ok(sagas.get(name, id).await?);
        }
        Ok(sagas.settled(name, id, patience).await?)
    }

    /// Sagas in order of their names and ids.
    pub async fn list(&self, search: Search) -> Result<Vec<Summary>, DeclareSagaError> {
        Ok(self.current().await?.sagas.list(search).await?)
    }

    /// Tells a saga something.
    pub async fn signal(
        &self,
        name: &Name,
        id: &str,
        signal_id: &str,
        signal: &str,
        data: Value,
    ) -> Result<(), DeclareSagaError> {
        self.current().await?.sagas.signal(name, id, signal_id, signal, data).await?;
        Ok(())
    }

    /// Decides about a saga.
    pub async fn operate(&self, name: &Name, id: &str, operation: Operation) -> Result<(), DeclareSagaError> {
        self.current().await?.sagas.operate(name, id, operation).await?;
        Ok(())
    }

    /// How the saga stands that a stream belongs to; `None` where it belongs to none, or the store keeps no sagas.
    ///
    /// # Errors
    /// Where the sagas cannot be asked, nobody knows whose the stream is.
    pub async fn owner(&self, stream: &Name) -> Result<Option<Status>, DeclareSagaError> {
        if reserved_for(stream.as_str()) != Some("saga") {
            return Ok(None);
        }
        match self.opened().await {
            Ok(opened) => Ok(opened.sagas.owner(stream).await?),
            Err(DeclareSagaError::Saga(SagaError::Store(StoreError::Unsupported { .. }))) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// What happened to sagas since the node began; `None` where there are none.
    pub fn counts(&self) -> Option<Counts> {
        self.opened.get().map(|opened| opened.sagas.counts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_cannot_be_opened_just_now_are_not_taken_for_none() {
        let opened = |cause| queues(Err(QueueError::Store(cause)));
        assert!(matches!(opened(StoreError::Unsupported { engine: "none", what: "queues" }), Ok(None)));
        for passes in [StoreError::Busy, StoreError::Unreachable { what: "cut".to_owned() }] {
            assert!(matches!(opened(passes), Err(SagaError::Store(_))));
        }
    }
}
