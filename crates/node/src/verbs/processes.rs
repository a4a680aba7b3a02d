//! Choreographed processes by name: documents that say what they are, and the courses that are followed by them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use quorate_consistency::saga::choreography::{
    Declared, Description, Document, Graph, Looked, Overview, ProcessError, Processes, Search, Standing, Summary,
};
use quorate_data::store::{Store, StoreError};
use quorate_foundations::{
    document::{Faults, Format},
    name::Name,
};
use tokio::sync::OnceCell;

/// The verbs on processes. Cheap to clone.
#[derive(Clone)]
pub struct ProcessCare {
    store: Store,
    opened: Arc<OnceCell<Processes>>,
    /// Why the store did not let us when it was tried last.
    refused: Arc<Mutex<Option<Arc<str>>>>,
}

/// How often it is tried again where the store was in the way.
const AGAIN: Duration = Duration::from_secs(3);

/// Why a process was not declared, or nothing could be said of it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessCareError {
    /// The document can't be read, or the process not be followed.
    #[error("the document cannot be read")]
    Unreadable(#[source] Faults),
    /// The document is of another process than the address.
    #[error("the document is of process `{held}`, and the address is that of `{wanted}`")]
    Other {
        /// Of which process it is.
        held: Name,
        /// Of which it should be.
        wanted: Name,
    },
    /// The process has no document.
    #[error("process `{name}` has no document: a program declares it")]
    NoDocument {
        /// The process.
        name: Name,
    },
    /// The process's document cannot be read any more.
    #[error("the document of process `{name}` cannot be read by this version: declare it again, or remove it")]
    Illegible {
        /// The process.
        name: Name,
    },
    /// Processes refuse it.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

impl ProcessCare {
    /// The verbs on the processes of `store`. Those that documents declared are followed at once. Where the store has no room or time for their
    /// tables, it is tried again every few seconds, and by each verb; where it keeps no processes, each says so.
    pub async fn open(store: &Store) -> Result<Self, ProcessError> {
        let care = Self { store: store.clone(), opened: Arc::default(), refused: Arc::default() };
        match care.opened().await.map(drop) {
            Err(ProcessError::Store(StoreError::Unsupported { .. })) => {}
            opened => care.begun(opened)?,
        }
        Ok(care)
    }

    /// Goes by what came of opening them for the first time.
    fn begun(&self, opened: Result<(), ProcessError>) -> Result<(), ProcessError> {
        match opened {
            Err(ProcessError::Store(
                cause @ (StoreError::DiskFull | StoreError::Busy | StoreError::Overloaded { .. }),
            )) => {
                tracing::warn!(%cause, "processes are followed once the store lets us");
                *self.refused() = Some(cause.to_string().into());
                self.store.env().tasks().spawn("processes/open", self.clone().open_again());
                Ok(())
            }
            opened => opened,
        }
    }

    /// Opens them, however often that takes: what is overdue in them nobody tells before.
    async fn open_again(self) {
        let stop = self.store.env().tasks().stop().clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.store.env().sleep(AGAIN) => {}
            }
            match self.opened().await {
                Ok(_) => return tracing::info!("processes are followed"),
                Err(ProcessError::Store(StoreError::Closed)) => return,
                Err(cause) => *self.refused() = Some(cause.to_string().into()),
            }
        }
    }

    async fn opened(&self) -> Result<&Processes, ProcessError> {
        self.opened.get_or_try_init(|| Processes::open(&self.store)).await
    }

    /// Reads a document as declaring it would, and changes nothing.
    pub fn check(&self, name: &Name, text: &str, format: Format) -> Result<Document, ProcessCareError> {
        let document = Document::read(text, format).map_err(ProcessCareError::Unreadable)?;
        let held = document.process().name();
        if held != name {
            return Err(ProcessCareError::Other { held: held.clone(), wanted: name.clone() });
        }
        Ok(document)
    }

    /// Declares a process: it is followed from now on, also after every restart. One that was declared before goes on where it is.
    pub async fn declare(&self, name: &Name, text: &str, format: Format) -> Result<Declared, ProcessCareError> {
        let document = self.check(name, text, format)?;
        Ok(self.opened().await?.declare_document(document).await?)
    }

    /// Takes a process back, with its courses; what it said stays in the log.
    pub async fn remove(&self, name: &Name) -> Result<(), ProcessCareError> {
        Ok(self.opened().await?.remove(name).await?)
    }

    /// How processes stand, at most `limit` in order of their names, behind `after`.
    pub async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Overview>, ProcessCareError> {
        Ok(self.opened().await?.overview(after, limit).await)
    }

    /// How a process stands, and what it says.
    pub async fn describe(&self, name: &Name) -> Result<Description, ProcessCareError> {
        Ok(self.opened().await?.describe(name).await?)
    }

    /// A process's document, as it was declared.
    pub async fn document(&self, name: &Name) -> Result<Document, ProcessCareError> {
        let Description { document, is_of_program, .. } = self.describe(name).await?;
        document.ok_or_else(|| match is_of_program {
            true => ProcessCareError::NoDocument { name: name.clone() },
            false => ProcessCareError::Illegible { name: name.clone() },
        })
    }

    /// Courses of a process in order of their keys.
    pub async fn courses(&self, name: &Name, search: Search) -> Result<Vec<Summary>, ProcessCareError> {
        Ok(self.opened().await?.list(name, search).await?)
    }

    /// How a course stands, and what has happened in it.
    pub async fn course(&self, name: &Name, key: &str) -> Result<Looked, ProcessCareError> {
        Ok(self.opened().await?.look(name, key).await?)
    }

    /// What led to what in a course.
    pub async fn graph(&self, name: &Name, key: &str) -> Result<Graph, ProcessCareError> {
        Ok(self.opened().await?.graph(name, key).await?)
    }

    /// Has a stopped course go on; how it stands then.
    pub async fn resume(&self, name: &Name, key: &str, by: &str, note: &str) -> Result<Standing, ProcessCareError> {
        Ok(self.opened().await?.resume(name, key, by, note).await?)
    }

    /// How all processes stand; `None` where none are followed.
    pub async fn overview(&self) -> Option<Vec<Overview>> {
        Some(self.opened.get()?.overview(None, Processes::MAX_PROCESSES).await)
    }

    /// Why no process is followed yet, on a store that can have some.
    pub fn unopened(&self) -> Option<Arc<str>> {
        if self.opened.initialized() { None } else { self.refused().clone() }
    }

    fn refused(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The processes that do not go on right now, and why not.
    pub fn troubles(&self) -> Vec<(Name, Arc<str>)> {
        self.opened.get().map(Processes::troubles).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use quorate_data::store::sqlite;
    use quorate_runtime::Env;

    use super::*;

    #[tokio::test]
    async fn processes_of_a_store_that_was_busy_are_followed_although_nobody_asks() {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("a.db"))).await.unwrap();
        let care = ProcessCare { store: store.clone(), opened: Arc::default(), refused: Arc::default() };
        assert!(care.begun(Err(StoreError::Closed.into())).is_err(), "what does not pass is told at once");
        care.begun(Err(StoreError::Busy.into())).unwrap();
        assert!(care.unopened().is_some() && care.overview().await.is_none());
        let followed = async {
            while care.unopened().is_some() {
                store.env().sleep(Duration::from_millis(10)).await;
            }
        };
        store.env().timeout(Duration::from_secs(120), followed).await.unwrap();
        assert_eq!(care.overview().await.unwrap().len(), 0);
        store.close().await.unwrap();
    }
}
