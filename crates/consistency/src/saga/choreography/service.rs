//! The handle: processes of a store are declared, followed and looked at.

mod care;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
};

use quorate_data::{
    event::Position,
    store::{Store, StoreError},
};
use quorate_foundations::{
    document::Format,
    name::Name,
    time::{Boot, Wall},
};
use quorate_runtime::tasks::Tasks;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, watch};

use super::{
    Counts, Declared, Description, Document, Graph, Looked, Process, ProcessError, Search, Standing, Start, Summary,
    cycle,
    follower::Follower,
    rows::{self, Place},
    watched::{Watched, lock},
};

/// The choreographed processes of a store. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Processes {
    shared: Arc<Shared>,
    /// Held, so that nobody follows the store's processes a second time.
    _room: Arc<Room>,
}

/// What is kept in memory of a store's processes: it is the only one, however often they are opened.
#[derive(Default)]
pub(super) struct Room(OnceCell<Arc<Shared>>);

struct Shared {
    store: Store,
    /// Each follower holds it, as handles do.
    room: Weak<Room>,
    clock: (Wall, Boot),
    tasks: Tasks,
    known: Mutex<BTreeMap<Name, Known>>,
    /// Held while a process is declared or taken back.
    declaring: AsyncMutex<()>,
}

#[derive(Clone)]
struct Known {
    /// `None`: its program did not declare it yet, or its document cannot be read any more.
    process: Option<Arc<Process>>,
    document: Option<Document>,
    /// Whether it is a program that declares it, and no document.
    is_of_program: bool,
    watched: Arc<Watched>,
    tasks: Tasks,
}

impl Processes {
    /// The most processes of a store: each of them reads the log for itself.
    pub const MAX_PROCESSES: usize = 100;
    /// So many courses are counted of each standing; where there are more, one more is said.
    pub const MAX_COUNTED: u64 = 100_000;
    /// The most entries of a listing.
    pub const MAX_PAGE: usize = 1_000;

    /// The processes of `store`, whose tables are made if they are not there. Those that documents declared go on at once, others when they are
    /// [declared](Self::declare) again. Opened a second time they are the same.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`](quorate_data::store::StoreError::Unsupported) on a store that several processes write to.
    pub async fn open(store: &Store) -> Result<Self, ProcessError> {
        store.require(|engine| !engine.several_writers, "follow processes yet")?;
        let room: Arc<Room> = store.room();
        let shared = room.0.get_or_try_init(|| Shared::open(store, &room)).await?.clone();
        Ok(Self { shared, _room: room })
    }

    /// Declares a process: it is followed from now on. One that was declared before goes on where it is, by what it says now; what is expected by then stays
    /// expected as it was.
    ///
    /// # Errors
    /// [`ProcessError::Invalid`], and [`ProcessError::Cycle`] where its reactions lead back to themselves, also with those of other processes:
    /// nothing was changed. Where the [outcome is unknown](ProcessError::is_outcome_unknown), repeat it.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the declaration.
    pub async fn declare(&self, process: Process) -> Result<(), ProcessError> {
        self.declared(Arc::new(process), None).await.map(drop)
    }

    /// As [`declare`](Self::declare), by a document, which is kept: after a restart it is followed by itself.
    ///
    /// # Errors
    /// As [`declare`](Self::declare); [`ProcessError::OfProgram`] where a program declared it.
    ///
    /// # Cancel safety
    /// As [`declare`](Self::declare).
    pub async fn declare_document(&self, document: Document) -> Result<Declared, ProcessError> {
        self.declared(Arc::new(document.process().clone()), Some(document)).await
    }

    async fn declared(&self, process: Arc<Process>, document: Option<Document>) -> Result<Declared, ProcessError> {
        let this = self.clone();
        self.to_its_end("process declared", async move { this.shared.declare(process, document).await }).await
    }

    /// Does `work` whoever leaves: between telling a follower to stop and having it followed again nobody watches.
    async fn to_its_end<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, ProcessError>> + Send + 'static,
    ) -> Result<T, ProcessError> {
        let done = self.shared.tasks.to_its_end(what, work).await;
        done.unwrap_or_else(|| Err(StoreError::OutcomeUnknown.into()))
    }

    /// Takes a process back: it is not followed any more, and its courses are forgotten. Its alarms stay in the log.
    ///
    /// # Errors
    /// [`ProcessError::Undeclared`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the removal.
    pub async fn remove(&self, name: &Name) -> Result<(), ProcessError> {
        let (this, name) = (self.clone(), name.clone());
        self.to_its_end("process removed", async move { this.removed(&name).await }).await
    }

    async fn removed(&self, name: &Name) -> Result<(), ProcessError> {
        let _alone = self.shared.declaring.lock().await;
        let known = self.known(name)?;
        known.tasks.shut_down().await;
        let of = name.clone();
        let removed = self.shared.store.transact(move |tx| {
            let of = of.clone();
            Box::pin(async move { Ok::<_, ProcessError>(rows::remove(tx, &of).await?) })
        });
        match removed.await.map_err(ProcessError::of_transaction) {
            Ok(_) => drop(lock(&self.shared.known).remove(name)),
            Err(cause) => {
                // Where it is not known whether it is gone, declaring it again has to write it.
                if let Some(process) = known.process {
                    let document = known.document.filter(|_| !cause.is_outcome_unknown());
                    self.shared.follow(process, document, known.is_of_program)?;
                }
                return Err(cause);
            }
        }
        Ok(())
    }

    /// The names of all processes, in order.
    pub fn names(&self) -> Vec<Name> {
        lock(&self.shared.known).keys().cloned().collect()
    }

    /// How a process stands.
    ///
    /// # Errors
    /// [`ProcessError::Undeclared`].
    pub async fn describe(&self, name: &Name) -> Result<Description, ProcessError> {
        let Known { process, document, is_of_program, watched, .. } = self.known(name)?;
        let courses = rows::census(&self.shared.store, name, &Standing::ALL).await?;
        let position = self.position(name, &watched).await?;
        let (name, trouble, counts) = (name.clone(), watched.why(), watched.counts());
        Ok(Description { name, process, document, is_of_program, trouble, position, counts, courses })
    }

    /// What happened in each process since it is followed here.
    pub fn counts(&self) -> Vec<(Name, Counts)> {
        let known = lock(&self.shared.known);
        known.iter().map(|(name, known)| (name.clone(), known.watched.counts())).collect()
    }

    /// So far the log was followed, as it moves: also woken whenever something became overdue.
    ///
    /// # Errors
    /// [`ProcessError::Undeclared`].
    pub fn watch(&self, name: &Name) -> Result<watch::Receiver<Position>, ProcessError> {
        Ok(self.known(name)?.watched.subscribe())
    }

    /// Courses of a process, in order of their keys.
    ///
    /// # Errors
    /// [`ProcessError::Undeclared`]; [`ProcessError::Invalid`] where the limit is out of range.
    pub async fn list(&self, name: &Name, search: Search) -> Result<Vec<Summary>, ProcessError> {
        self.known(name)?;
        let max = Self::MAX_PAGE;
        if !(1..=max).contains(&search.limit) {
            return Err(ProcessError::invalid(format!("`limit` is 1 to {max}, {} was asked for", search.limit)));
        }
        let limit = i64::try_from(search.limit).unwrap_or(i64::MAX);
        Ok(rows::list(&self.shared.store, name, search.standing, &search.after, limit).await?)
    }

    /// How a course stands.
    ///
    /// # Errors
    /// [`ProcessError::Undeclared`], [`ProcessError::NotFound`].
    pub async fn look(&self, name: &Name, key: &str) -> Result<Looked, ProcessError> {
        self.known(name)?;
        let key: Arc<str> = key.into();
        let kept = rows::look(&self.shared.store, name, &key).await?;
        let kept = kept.ok_or_else(|| ProcessError::NotFound { name: name.clone(), key })?;
        Ok(Looked { course: kept.course, trail: kept.trail, first_at: kept.first_at })
    }

    /// What led to what in a course, and what is missing in it.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub async fn graph(&self, name: &Name, key: &str) -> Result<Graph, ProcessError> {
        let looked = self.look(name, key).await?;
        Ok(Graph::of(name.as_str(), key, &looked.course, &looked.trail))
    }

    fn known(&self, name: &Name) -> Result<Known, ProcessError> {
        let known = lock(&self.shared.known).get(name).cloned();
        known.ok_or_else(|| ProcessError::Undeclared { name: name.clone() })
    }
}

impl Shared {
    async fn open(store: &Store, room: &Arc<Room>) -> Result<Arc<Self>, ProcessError> {
        store.declare(rows::TABLES).await?;
        // Never behind what was written: nothing runs longer than it was to, whatever was done to the wall clock meanwhile.
        let (wall, boot, written) = (store.env().wall(), store.env().boot(), rows::clock(store).await?);
        let clock = (written.map_or(wall, |written| written.max(wall)), boot);
        let tasks = store.env().tasks().child("processes");
        let (known, declaring) = (Mutex::default(), AsyncMutex::default());
        let room = Arc::downgrade(room);
        let shared = Arc::new(Self { store: store.clone(), room, clock, tasks, known, declaring });
        for (name, document) in rows::declared(store).await? {
            let is_of_program = document.is_none();
            let read = document.and_then(|(format, text)| Document::read(&text, Format::named(&format)?).ok());
            match read {
                Some(document) => shared.follow(Arc::new(document.process().clone()), Some(document), false)?,
                None => {
                    let watched = Arc::new(Watched::new());
                    watched.trouble(Some(
                        "nobody declares it: neither a program nor a document that can be read".to_owned(),
                    ));
                    let tasks = shared.tasks.child("process");
                    let known = Known { process: None, document: None, is_of_program, watched, tasks };
                    lock(&shared.known).insert(name, known);
                }
            }
        }
        Ok(shared)
    }

    async fn declare(&self, process: Arc<Process>, document: Option<Document>) -> Result<Declared, ProcessError> {
        process.check()?;
        let _alone = self.declaring.lock().await;
        let name = process.name.clone();
        let known = lock(&self.known).clone();
        let same = |known: &Known| {
            let (old, new) = (known.document.as_ref()?, document.as_ref()?);
            (old.text() == new.text() && old.format() == new.format()).then_some(())
        };
        // One whose follower was told to stop, and then neither removed nor begun anew, is declared again.
        let is_followed = |known: &&Known| !known.tasks.stop().is_cancelled();
        if known.get(&name).filter(is_followed).and_then(same).is_some() {
            return Ok(Declared::Unchanged);
        }
        if document.is_some() && known.get(&name).is_some_and(|known| known.is_of_program) {
            return Err(ProcessError::OfProgram { name });
        }
        if known.len() >= Processes::MAX_PROCESSES && !known.contains_key(&name) {
            return Err(ProcessError::TooMany { max: Processes::MAX_PROCESSES });
        }
        let others = known.values().filter_map(|known| known.process.as_ref()).filter(|other| other.name != name);
        cycle::check(others.map(|other| &**other).chain([&*process]))?;
        if let Some(before) = known.get(&name) {
            before.tasks.shut_down().await;
        }
        let written = self.write(&process, document.as_ref()).await;
        match (&written, known.get(&name)) {
            (Ok(()), _) => {
                let is_of_program = document.is_none();
                self.follow(process, document, is_of_program)?;
            }
            // It goes on as it was. Where it is not known what the row says now, declaring it again has to write it, also by the text before.
            (Err(cause), Some(Known { process: Some(before), document, is_of_program, .. })) => {
                let document = document.clone().filter(|_| !cause.is_outcome_unknown());
                self.follow(before.clone(), document, *is_of_program)?;
            }
            (Err(_), _) => {}
        }
        written.map(|()| if known.contains_key(&name) { Declared::Changed } else { Declared::New })
    }

    async fn write(&self, process: &Process, document: Option<&Document>) -> Result<(), ProcessError> {
        let checkpoint = match process.start {
            Start::Now => self.store.head(),
            Start::Beginning => Position::ZERO,
        };
        let now = self.store.env().wall();
        let place = Place { born: now.unix_nanos(), revision: 0, checkpoint };
        let clock = self.now();
        let (name, document) = (
            process.name.clone(),
            document.map(|document| (Arc::from(document.format().as_str()), document.text().clone())),
        );
        let declared = self.store.transact(move |tx| {
            let (name, document) = (name.clone(), document.clone());
            Box::pin(async move { Ok::<_, ProcessError>(rows::declare(tx, &name, place, clock, document).await?) })
        });
        declared.await.map_err(ProcessError::of_transaction)
    }

    /// By the clock of the processes.
    fn now(&self) -> Wall {
        self.clock.0 + self.store.env().boot().saturating_since(self.clock.1)
    }

    /// Has a process followed.
    fn follow(
        &self,
        process: Arc<Process>,
        document: Option<Document>,
        is_of_program: bool,
    ) -> Result<(), ProcessError> {
        let stream = stream_of(&process)?;
        // Who watches it goes on watching.
        let before = lock(&self.known).get(&process.name).map(|before| before.watched.clone());
        let (tasks, watched) = (self.tasks.child("process"), before.unwrap_or_else(|| Arc::new(Watched::new())));
        let (of, watching) = (Some(process.clone()), watched.clone());
        let known = Known { process: of, document, is_of_program, watched: watching, tasks: tasks.clone() };
        lock(&self.known).insert(process.name.clone(), known);
        let (store, room, clock) = (self.store.clone(), self.room.upgrade(), self.clock);
        let follower = Follower { store, process, stream, watched, clock, swept: None, _room: room };
        tasks.clone().spawn("process", follower.run(tasks));
        Ok(())
    }
}

/// The stream in which stands what is said of a process's courses.
fn stream_of(process: &Process) -> Result<Name, ProcessError> {
    let stream = Name::new(format!("process-{}", process.name.as_str()));
    stream.map_err(|cause| ProcessError::invalid(format!("its name is part of a stream's: {cause}")))
}
