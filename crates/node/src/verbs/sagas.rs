//! Sagas by name: documents that say what they are, and the sagas that run by them.

mod caller;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
    time::Duration,
};

use quorate_communication::message_queue::Queues;
use quorate_consistency::saga::{
    Config, Counts, Description, Operation, SagaError, Sagas, Search, Started, Status, Summary,
    declared::{Document, Hands},
};
use quorate_data::store::{RoomTables, SqlError, Store, StoreError, TransactError, reserved_for};
use quorate_foundations::{
    document::{Faults, Format},
    name::Name,
};
use quorate_resilience::policy::Registry;
use quorate_runtime::Env;
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell};

pub(crate) use self::caller::Outward;

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "saga_document",
    versions: &["CREATE TABLE quorate_saga_document (
        name TEXT NOT NULL, version BIGINT NOT NULL, format TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (name, version)
    )"],
};
const SOME: &str = "SELECT name, version, format, document FROM quorate_saga_document
    WHERE name > $1 OR (name = $1 AND version > $2) ORDER BY name, version LIMIT 16";
const INSERT: &str = "INSERT INTO quorate_saga_document (name, version, format, document) VALUES ($1, $2, $3, $4)
    ON CONFLICT (name, version) DO NOTHING";

/// The verbs on sagas. Cheap to clone.
#[derive(Clone)]
pub struct SagaCare {
    store: Store,
    caller: Arc<Outward>,
    opened: Arc<OnceCell<Opened>>,
    /// Held while a document is declared.
    declaring: Arc<Mutex<()>>,
}

struct Opened {
    sagas: Sagas,
    hands: Hands,
    /// What is declared, by name and version.
    documents: RwLock<BTreeMap<Name, BTreeMap<u32, Document>>>,
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
    /// Sagas refuse it.
    #[error(transparent)]
    Saga(#[from] SagaError),
}

impl From<SqlError> for DeclareSagaError {
    fn from(error: SqlError) -> Self {
        Self::Saga(error.into())
    }
}

impl Opened {
    /// The documents of a saga. Cheap: clones share what they say.
    fn known(&self, name: &Name) -> BTreeMap<u32, Document> {
        let documents = self.documents.read().unwrap_or_else(PoisonError::into_inner);
        documents.get(name).cloned().unwrap_or_default()
    }

    /// How many documents there are, and their bytes.
    fn size(&self) -> (usize, usize) {
        let documents = self.documents.read().unwrap_or_else(PoisonError::into_inner);
        let all = || documents.values().flat_map(BTreeMap::values);
        (all().count(), all().map(|document| document.text().len()).sum())
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Name, BTreeMap<u32, Document>>> {
        self.documents.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SagaCare {
    /// The most versions of documents.
    pub const MAX_DOCUMENTS: usize = 1_000;
    /// All documents together, in bytes: they are kept in memory.
    pub const MAX_TOTAL: usize = 32 << 20;

    /// The verbs on the sagas of `store`. Those that are open go on, if what is declared knows them. Where the store has no room or time for their
    /// tables, each verb tries again; where it keeps no sagas, each says so.
    pub async fn open(env: &Env, store: &Store, registry: &Registry) -> Result<Self, DeclareSagaError> {
        let caller = Arc::new(Outward::new(env, registry.clone()));
        let care = Self { store: store.clone(), caller, opened: Arc::default(), declaring: Arc::default() };
        match care.opened().await {
            Err(DeclareSagaError::Saga(SagaError::Store(
                cause @ (StoreError::DiskFull | StoreError::Busy | StoreError::Overloaded { .. }),
            ))) => {
                tracing::warn!(%cause, "sagas go on once somebody asks for them and the store lets us");
            }
            Err(DeclareSagaError::Saga(SagaError::Store(StoreError::Unsupported { .. }))) => {}
            opened => drop(opened?),
        }
        Ok(care)
    }

    async fn opened(&self) -> Result<&Opened, DeclareSagaError> {
        self.opened.get_or_try_init(|| self.begin()).await
    }

    async fn begin(&self) -> Result<Opened, DeclareSagaError> {
        // Each node would run what it knows the documents of, and documents do not come to other nodes yet.
        self.store.require(|engine| !engine.several_writers, "run sagas of documents yet").map_err(SagaError::from)?;
        let sagas = Sagas::open(&self.store, Config::default()).await?;
        self.store.declare(TABLES).await?;
        let queues = match Queues::open(&self.store).await {
            Ok(queues) => Some(queues),
            Err(cause) => {
                tracing::warn!(%cause, "sagas send no messages: there are no queues");
                None
            }
        };
        let hands = Hands { caller: self.caller.clone(), queues };
        let mut documents = BTreeMap::<Name, BTreeMap<u32, Document>>::new();
        for document in self.kept().await? {
            let (name, version) = (document.name().clone(), document.version());
            documents.entry(name.clone()).or_default().insert(version, document.clone());
            match sagas.define(document.definition(&hands)).await {
                // A program that embeds the node may have been first.
                Ok(()) | Err(SagaError::AlreadyDefined { .. }) => {}
                Err(cause @ SagaError::Invalid { .. }) => {
                    tracing::warn!(saga = name.as_str(), version, %cause, "a saga's document cannot be used any more");
                }
                Err(other) => return Err(other.into()),
            }
        }
        Ok(Opened { sagas, hands, documents: RwLock::new(documents) })
    }

    /// What is declared, in order; without what cannot be read any more, which is told in the log.
    async fn kept(&self) -> Result<Vec<Document>, DeclareSagaError> {
        let document = |row: &quorate_data::store::Row| {
            let (name, format, text) = (row.at(0).as_str()?, Format::named(row.at(2).as_str()?)?, row.at(3).as_str()?);
            let read = Document::read(text, format);
            read.inspect_err(|wrong| tracing::warn!(name, %wrong, "a saga's document cannot be read any more")).ok()
        };
        let (mut all, mut after) = (Vec::new(), (Arc::<str>::from(""), 0));
        loop {
            // A few at a time: all of them are more than one answer may have.
            let rows = self.store.room_query(SOME, vec![after.0.into(), after.1.into()]).await?;
            all.extend(rows.iter().filter_map(document));
            let place = rows.last().and_then(|row| Some((row.at(0).as_str()?.into(), row.at(1).as_i64()?)));
            let Some(place) = place else { return Ok(all) };
            after = place;
        }
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

    /// Declares a version of a saga: it can be started from now on, also after every restart. The same again changes nothing.
    ///
    /// # Errors
    /// [`SagaError::AlreadyDefined`] where the version says something else.
    pub async fn declare(&self, name: &Name, text: &str, format: Format) -> Result<SagaDeclared, DeclareSagaError> {
        let document = self.check(name, text, format)?;
        let opened = self.opened().await?;
        let _alone = self.declaring.lock().await;
        let version = document.version();
        let declared = |new| SagaDeclared { name: name.clone(), version, new };
        if let Some(known) = opened.known(name).get(&version) {
            if known.text() == document.text() && known.format() == format {
                return Ok(declared(false));
            }
            return Err(SagaError::AlreadyDefined { name: name.clone(), version }.into());
        }
        let (count, bytes) = opened.size();
        if count >= Self::MAX_DOCUMENTS {
            return Err(DeclareSagaError::TooMany { max: Self::MAX_DOCUMENTS });
        }
        if bytes + text.len() > Self::MAX_TOTAL {
            return Err(DeclareSagaError::TooLarge { max: Self::MAX_TOTAL });
        }
        let of_rust = opened.sagas.definitions().into_iter().find(|(known, _)| known == name);
        if of_rust.is_some_and(|(_, versions)| versions.contains(&version)) {
            return Err(SagaError::AlreadyDefined { name: name.clone(), version }.into());
        }
        let row = [name.into(), version.into(), format.as_str().into(), document.text().clone().into()];
        // Ordering: durable before it can be started, so that no saga is of a version that is lost.
        let kept = self.store.transact(move |tx| {
            let row = row.clone();
            Box::pin(async move { tx.room_execute(INSERT, &row).await })
        });
        let written = kept.await.map_err(|failed| match failed {
            TransactError::Aborted(own) => DeclareSagaError::from(own),
            TransactError::Store(cause) => DeclareSagaError::Saga(cause.into()),
            other => SqlError::Failed { what: other.to_string() }.into(),
        })?;
        if written == 0 {
            // Declared before, and not taken up since: it says what it says.
            let sql = "SELECT format, document FROM quorate_saga_document WHERE name = $1 AND version = $2";
            let kept = self.store.room_query(sql, vec![name.into(), version.into()]).await?;
            let same = kept.first().is_some_and(|row| {
                row.at(0).as_str() == Some(format.as_str()) && row.at(1).as_str() == Some(&**document.text())
            });
            if !same {
                return Err(SagaError::AlreadyDefined { name: name.clone(), version }.into());
            }
        }
        opened.sagas.define(document.definition(&opened.hands)).await?;
        opened.write().entry(name.clone()).or_default().insert(version, document);
        Ok(declared(true))
    }

    /// The documents of a saga, in the order of their versions.
    pub async fn documents(&self, name: &Name) -> Result<Vec<Document>, DeclareSagaError> {
        let known = self.opened().await?.known(name);
        if known.is_empty() {
            return Err(SagaError::Undefined { name: name.clone() }.into());
        }
        Ok(known.into_values().collect())
    }

    /// What is registered: names with their versions.
    pub async fn definitions(&self) -> Result<Vec<(Name, Vec<u32>)>, DeclareSagaError> {
        Ok(self.opened().await?.sagas.definitions())
    }

    /// Starts a saga. `key`: what people look for it by; where none is given the document may say how to find it in the input.
    pub async fn start(
        &self,
        name: &Name,
        id: &str,
        input: Value,
        key: Option<&str>,
    ) -> Result<Started, DeclareSagaError> {
        let opened = self.opened().await?;
        let mut found = None;
        if key.is_none()
            && let Some((_, newest)) = opened.known(name).pop_last()
        {
            let wrong =
                |what| SagaError::Invalid { what: format!("the saga's key cannot be found in its input: {what}") };
            found = newest.key_of(&input).map_err(wrong)?;
        }
        Ok(opened.sagas.start(name, id, input, key.or(found.as_deref())).await?)
    }

    /// What is known of a saga, once it has ended or is stuck, or `patience` is over.
    pub async fn settled(&self, name: &Name, id: &str, patience: Duration) -> Result<Description, DeclareSagaError> {
        let sagas = &self.opened().await?.sagas;
        if patience.is_zero() {
            return Ok(sagas.get(name, id).await?);
        }
        Ok(sagas.settled(name, id, patience).await?)
    }

    /// Sagas in order of their names and ids.
    pub async fn list(&self, search: Search) -> Result<Vec<Summary>, DeclareSagaError> {
        Ok(self.opened().await?.sagas.list(search).await?)
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
        self.opened().await?.sagas.signal(name, id, signal_id, signal, data).await?;
        Ok(())
    }

    /// Decides about a saga.
    pub async fn operate(&self, name: &Name, id: &str, operation: Operation) -> Result<(), DeclareSagaError> {
        self.opened().await?.sagas.operate(name, id, operation).await?;
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
