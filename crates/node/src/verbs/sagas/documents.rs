//! What is declared of sagas: kept in the store, and the same for every node that shares it.
//!
//! A row is never changed and never deleted. So whoever knows as many of them as there are knows all of them, and whoever wants to add one
//! proves with the number that nobody was faster.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use quorate_consistency::saga::{
    SagaError, Sagas,
    declared::{Document, Hands},
};
use quorate_data::store::{RoomTables, Row, SqlError, Store, TransactError, Value as Sql};
use quorate_foundations::{document::Format, name::Name};
use tokio::sync::{Mutex, MutexGuard};

use super::DeclareSagaError;

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "saga_document",
    versions: &["CREATE TABLE quorate_saga_document (
        name TEXT NOT NULL, version BIGINT NOT NULL, format TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (name, version)
    )"],
};
const COUNT: &str = "SELECT count(*) FROM quorate_saga_document";
const SOME: &str = "SELECT name, version FROM quorate_saga_document
    WHERE name > $1 OR (name = $1 AND version > $2) ORDER BY name, version LIMIT 100";
const ONE: &str = "SELECT format, document FROM quorate_saga_document WHERE name = $1 AND version = $2";
const INSERT: &str = "INSERT INTO quorate_saga_document (name, version, format, document) VALUES ($1, $2, $3, $4)
    ON CONFLICT (name, version) DO NOTHING";

/// The sagas of a store, and what is declared of them as far as this process has read it.
pub(super) struct Opened {
    pub(super) sagas: Sagas,
    pub(super) hands: Hands,
    held: RwLock<BTreeMap<Arc<str>, BTreeMap<i64, Held>>>,
    /// Held by whoever takes in or declares.
    alone: Mutex<()>,
}

/// A row that was read.
struct Held {
    /// `None`: this quorate cannot read it.
    document: Option<Document>,
    bytes: usize,
    /// Whether sagas of it run here by what it says.
    runs: bool,
}

impl Opened {
    pub(super) fn new(sagas: Sagas, hands: Hands) -> Self {
        Self { sagas, hands, held: RwLock::default(), alone: Mutex::default() }
    }

    fn held(&self) -> RwLockReadGuard<'_, BTreeMap<Arc<str>, BTreeMap<i64, Held>>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The documents of a saga, in the order of their versions. Cheap: clones share what they say.
    pub(super) fn documents(&self, name: &Name) -> Vec<Document> {
        let held = self.held();
        let versions = held.get(name.as_str()).into_iter().flat_map(BTreeMap::values);
        versions.filter_map(|held| held.document.clone()).collect()
    }

    /// What was declared as that version, where something was; `None` in it where this quorate cannot read it.
    pub(super) fn version(&self, name: &Name, version: u32) -> Option<Option<Document>> {
        self.held().get(name.as_str())?.get(&i64::from(version)).map(|held| held.document.clone())
    }

    /// The newest version that was declared, where this process cannot run it: it starts none by an older one instead.
    pub(super) fn newest_unusable(&self, name: &Name) -> Option<i64> {
        let held = self.held();
        let (declared, newest) = held.get(name.as_str())?.last_key_value()?;
        let is_known = match self.sagas.newest(name).map(|known| i64::from(known).cmp(declared)) {
            Some(Ordering::Greater) => true,
            Some(Ordering::Equal) => newest.runs,
            Some(Ordering::Less) | None => false,
        };
        (!is_known).then_some(*declared)
    }

    /// How many documents there are, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let held = self.held();
        let all = || held.values().flat_map(BTreeMap::values);
        (all().count(), all().map(|held| held.bytes).sum())
    }

    /// Whoever declares does it alone in this process.
    pub(super) async fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock().await
    }

    /// Takes in what was declared by now, at whichever node. As a rule one query.
    ///
    /// # Cancel safety
    /// Cancel safe: what was not taken in is taken in the next time.
    pub(super) async fn take_in(&self, store: &Store) -> Result<(), DeclareSagaError> {
        if self.is_complete(store).await? {
            return Ok(());
        }
        let alone = self.alone().await;
        self.take_in_alone(store, &alone).await
    }

    /// The same, by whoever is [`alone`](Self::alone).
    pub(super) async fn take_in_alone(&self, store: &Store, _: &MutexGuard<'_, ()>) -> Result<(), DeclareSagaError> {
        if self.is_complete(store).await? {
            return Ok(());
        }
        let mut after = (Arc::<str>::from(""), 0);
        loop {
            let rows = store.room_query(SOME, vec![after.0.into(), after.1.into()]).await?;
            for (name, version) in rows.iter().filter_map(place) {
                if !self.holds(&name, version) {
                    self.read(store, name, version).await?;
                }
            }
            let Some(last) = rows.last().and_then(place) else { return Ok(()) };
            after = last;
        }
    }

    async fn is_complete(&self, store: &Store) -> Result<bool, DeclareSagaError> {
        let rows = store.room_query(COUNT, vec![]).await?;
        Ok(counted(&rows) <= self.size().0)
    }

    fn holds(&self, name: &str, version: i64) -> bool {
        self.held().get(name).is_some_and(|versions| versions.contains_key(&version))
    }

    /// Reads a row, and has its sagas run. What cannot be read or run is told in the log.
    async fn read(&self, store: &Store, name: Arc<str>, version: i64) -> Result<(), DeclareSagaError> {
        let rows = store.room_query(ONE, vec![name.clone().into(), version.into()]).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let text = row.at(1).as_str().unwrap_or_default();
        let wrong = match document(&name, version, row.at(0).as_str(), text) {
            Ok(document) => match self.define(&document).await {
                Ok(()) => return Ok(()),
                Err(cause @ SagaError::Invalid { .. }) => {
                    let held = Held { bytes: text.len(), document: Some(document), runs: false };
                    self.hold(name.clone(), version, held);
                    cause.to_string()
                }
                Err(SagaError::AlreadyDefined { .. }) => {
                    self.hold(name.clone(), version, Held { document: None, bytes: text.len(), runs: false });
                    "the program around this node defines that version itself".to_owned()
                }
                Err(other) => return Err(other.into()),
            },
            Err(wrong) => {
                self.hold(name.clone(), version, Held { document: None, bytes: text.len(), runs: false });
                wrong
            }
        };
        tracing::warn!(saga = &*name, version, %wrong, "a saga's document cannot be used here; its sagas wait for whoever can");
        Ok(())
    }

    /// Has sagas of a document run, and knows it from then on.
    ///
    /// # Errors
    /// [`SagaError::AlreadyDefined`] where a program that embeds the node was first with something else.
    pub(super) async fn define(&self, document: &Document) -> Result<(), SagaError> {
        let runs_already =
            || self.sagas.document(document.name(), document.version()).as_ref() == Some(document.text());
        match self.sagas.define(document.definition(&self.hands)).await {
            Ok(()) => {}
            // It was taken in before what failed then.
            Err(SagaError::AlreadyDefined { .. }) if runs_already() => {}
            Err(other) => return Err(other),
        }
        let held = Held { bytes: document.text().len(), document: Some(document.clone()), runs: true };
        self.hold(document.name().as_str().into(), document.version().into(), held);
        Ok(())
    }

    fn hold(&self, name: Arc<str>, version: i64, held: Held) {
        if !held.runs
            && let Ok(name) = Name::new(name.clone())
        {
            // Nor does a step start an older one instead.
            self.sagas.withhold(&name, u32::try_from(version).unwrap_or(u32::MAX));
        }
        let mut all = self.held.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(name).or_default().insert(version, held);
    }

    /// Writes a document, if there are still as many as are known here. `false`: another node declared something meanwhile, and nothing was
    /// written.
    pub(super) async fn keep(&self, store: &Store, document: &Document) -> Result<bool, DeclareSagaError> {
        let known = self.size().0;
        let row: [Sql; 4] = [
            document.name().into(),
            document.version().into(),
            document.format().as_str().into(),
            document.text().clone().into(),
        ];
        let kept = store.transact(move |tx| {
            let row = row.clone();
            Box::pin(async move {
                if counted(&tx.room_query(COUNT, &[]).await?) > known {
                    return Ok(false);
                }
                Ok(tx.room_execute(INSERT, &row).await? > 0)
            })
        });
        kept.await.map_err(|failed: TransactError<SqlError>| match failed {
            TransactError::Aborted(own) => own.into(),
            TransactError::Store(cause) => DeclareSagaError::Saga(cause.into()),
            other => SqlError::Failed { what: other.to_string() }.into(),
        })
    }
}

fn counted(rows: &[Row]) -> usize {
    let count = rows.first().and_then(|row| row.at(0).as_i64());
    count.and_then(|count| usize::try_from(count).ok()).unwrap_or_default()
}

fn place(row: &Row) -> Option<(Arc<str>, i64)> {
    Some((row.at(0).as_str()?.into(), row.at(1).as_i64()?))
}

/// The document of a row, or why it is none.
fn document(name: &str, version: i64, format: Option<&str>, text: &str) -> Result<Document, String> {
    let format = format.and_then(Format::named).ok_or_else(|| "its format is none that is known".to_owned())?;
    let read = Document::read(text, format).map_err(|faults| faults.to_string())?;
    if read.name().as_str() == name && i64::from(read.version()) == version {
        Ok(read)
    } else {
        Err(format!("it says that it is version {} of saga `{}`", read.version(), read.name().as_str()))
    }
}
