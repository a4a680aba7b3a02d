//! Resilience policies: documents from a folder and documents that were declared over HTTP, in force together.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, atomic::AtomicI64},
};

use prometheus_client::metrics::gauge::Gauge;
use quorate_data::store::{DynTx, RoomTables, Row, SqlError, Store, StoreError, TransactError, Value};
use quorate_foundations::{
    document::{Fault, Faults, Format},
    name::Name,
};
use quorate_resilience::policy::{ApplyError, Changes, Document, Registry, Standing};
use tokio::sync::{Mutex, OnceCell};

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "policy",
    versions: &["CREATE TABLE quorate_policy (name TEXT PRIMARY KEY, format TEXT NOT NULL, document TEXT NOT NULL)"],
};
const ALL: &str = "SELECT name, format, document FROM quorate_policy ORDER BY name";
const UPSERT: &str = "INSERT INTO quorate_policy (name, format, document) VALUES ($1, $2, $3)
    ON CONFLICT (name) DO UPDATE SET format = $2, document = $3";
const DELETE: &str = "DELETE FROM quorate_policy WHERE name = $1";
/// How often a change is judged anew because another node made one meanwhile.
const ATTEMPTS: usize = 16;

/// The verbs on resilience policies. Cheap to clone.
///
/// All documents hold together, or what held before goes on: a document is in force once it was accepted, also after a restart.
/// Several nodes may change them in one store: each judges a change beside what all have declared, and takes that in with it.
#[derive(Clone)]
pub struct Policies {
    store: Store,
    /// Whether their table is there.
    table: Arc<OnceCell<()>>,
    registry: Registry,
    set: Arc<Mutex<Set>>,
    refused: Gauge<i64, AtomicI64>,
}

/// Where policies come from.
#[derive(Clone, Default)]
struct Set {
    files: BTreeMap<PathBuf, Vec<Document>>,
    declared: BTreeMap<Name, Kept>,
    /// Names of what was declared and cannot be read.
    unreadable: BTreeSet<String>,
    /// What was declared, and is not in force: it does not fit.
    left_out: BTreeSet<Name>,
    /// Whether what lies in the folder is not in force.
    files_refused: bool,
}

/// A document as it was declared.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What it is written in.
    pub format: Format,
    document: Document,
}

impl Kept {
    /// As it was sent.
    pub fn text(&self) -> &str {
        self.document.text()
    }
}

/// A policy and how the calls stand that pass it.
#[derive(Clone, Debug)]
pub struct Described {
    /// What it is called.
    pub name: Name,
    /// The file it stands in; `None` if it was declared.
    pub file: Option<PathBuf>,
    /// Each dependency that it applies to.
    pub dependencies: Vec<Standing>,
}

/// Something in a policy that can't work beside the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The policy.
    pub policy: Name,
    /// The file it stands in; `None` if it was declared.
    pub file: Option<PathBuf>,
    /// Where, and what.
    pub fault: Fault,
}

/// What came of declaring a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDeclared {
    /// The policy.
    pub name: Name,
    /// Whether there was none of that name.
    pub new: bool,
    /// Which dependencies' calls pass something else now.
    pub changes: Changes,
}

/// Why a policy isn't in force. What was in force before still is.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The document can't be read.
    #[error("the document cannot be read")]
    Unreadable(#[source] Faults),
    /// The document holds more than one policy, or another one than the address names.
    #[error("the document holds {}, and the address is that of `{wanted}`", held.join(", "))]
    Other {
        /// What it holds.
        held: Vec<String>,
        /// What it should hold.
        wanted: Name,
    },
    /// Something can't work.
    #[error("{} of the policies cannot work together", .0.len())]
    Impossible(Vec<Misfit>),
    /// All that is declared would be too much.
    #[error("all policies that are declared may have {max} bytes together, and would have {bytes}")]
    TooLarge {
        /// How much it would be.
        bytes: usize,
        /// The most.
        max: usize,
    },
    /// The policy stands in a file, where it has to be changed.
    #[error("policy `{name}` stands in {file}: change it there", file = file.display())]
    InFile {
        /// The policy.
        name: Name,
        /// The file.
        file: PathBuf,
    },
    /// There is none.
    #[error("no policy is called `{name}`")]
    NotFound {
        /// The name.
        name: Name,
    },
    /// They can't be in force together.
    #[error(transparent)]
    Refused(ApplyError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The table of policies failed.
    #[error("the policy could not be kept")]
    Keeping(#[source] Arc<TransactError<SqlError>>),
}

impl Policies {
    /// The longest document, or file of documents, in bytes.
    pub const MAX_BYTES: usize = 256 << 10;
    /// All documents that are declared, in bytes: they are kept in memory.
    pub const MAX_TOTAL: usize = 8 << 20;

    /// The policies kept in `store`, for the calls of `registry`; none is in force yet. `refused` is 1 while something that was
    /// asked for isn't in force. Where the disk is too full for their table there are none; it is made when one is declared.
    ///
    /// # Errors
    /// [`SqlError`]: their table couldn't be made or read.
    pub async fn open(store: &Store, registry: Registry, refused: Gauge<i64, AtomicI64>) -> Result<Self, SqlError> {
        let table = OnceCell::new();
        let declared = match table.get_or_try_init(|| store.declare(TABLES)).await {
            Ok(()) => store.room_query(ALL, vec![]).await?,
            Err(SqlError::Store(StoreError::DiskFull)) => vec![],
            Err(other) => return Err(other),
        };
        let mut set = Set::default();
        set.hold(&declared);
        Ok(Self { store: store.clone(), table: Arc::new(table), registry, set: Arc::new(Mutex::new(set)), refused })
    }

    /// The policies in force: to make calls that pass them.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Brings what was declared into force, with no files beside it. What can't be beside what comes before it, in the order of
    /// names, is told in the log, and isn't in force.
    pub async fn begin(&self) {
        let mut set = self.set.lock().await;
        self.apply_what_fits(&mut set);
        self.tell(&set);
    }

    /// Brings `set` into force, without those of its declared policies that do not fit.
    fn apply_what_fits(&self, set: &mut Set) {
        let before = std::mem::take(&mut set.left_out);
        let Err(mut cause) = self.apply(set) else { return };
        let all: Vec<Name> = set.declared.keys().cloned().collect();
        set.left_out = all.iter().cloned().collect();
        set.let_in(&all, &mut cause);
        if let Err(stuck) = self.apply(set) {
            // What was in force before still is.
            tracing::warn!(cause = %stuck, "the policies that were declared are not in force");
            set.left_out = all.into_iter().collect();
        } else if set.left_out != before {
            let left_out: Vec<&str> = set.left_out.iter().map(Name::as_str).collect();
            tracing::warn!(?left_out, %cause, "policies that were declared do not fit, and are not in force");
        }
    }

    /// Brings `set` into force, with what was left out of it if that fits by now.
    fn apply_changed(&self, set: &mut Set) -> Result<Changes, PolicyError> {
        let left_out = std::mem::take(&mut set.left_out);
        match self.apply(set) {
            Err(_) if !left_out.is_empty() => {
                set.left_out = left_out;
                self.apply(set)
            }
            applied => applied,
        }
    }

    /// Takes in what all nodes have declared, where others may have: what a change is judged beside.
    async fn take_in(&self, set: &mut Set) -> Result<Option<Arc<Vec<Row>>>, PolicyError> {
        if !self.store.capabilities().several_writers {
            return Ok(None);
        }
        let rows = self.store.room_query(ALL, vec![]).await.map_err(of_sql)?;
        set.hold(&rows);
        self.apply_what_fits(set);
        self.tell(set);
        Ok(Some(Arc::new(rows)))
    }

    /// Lets the documents in files be these.
    ///
    /// # Errors
    /// [`PolicyError::Impossible`], [`PolicyError::Refused`]: they cannot be in force beside what is declared.
    pub async fn replace_files(&self, files: BTreeMap<PathBuf, Vec<Document>>) -> Result<Changes, PolicyError> {
        let mut set = self.set.lock().await;
        let mut next = Set { files, ..set.clone() };
        let applied = self.apply_changed(&mut next);
        match &applied {
            Ok(_) => *set = Set { files_refused: false, ..next },
            Err(_) => set.files_refused = true,
        }
        self.tell(&set);
        applied
    }

    /// What is wrong with documents in files by themselves, with nothing that is declared beside them; changes nothing.
    ///
    /// # Errors
    /// As those of [`replace_files`](Self::replace_files).
    pub fn check_files(files: BTreeMap<PathBuf, Vec<Document>>) -> Result<(), PolicyError> {
        let alone = Set { files, ..Set::default() };
        Registry::check(&alone.documents()).map_err(|refused| alone.told(refused))
    }

    /// Something in the folder can't be read: what was in force still is.
    pub(crate) async fn refuse_files(&self) {
        let mut set = self.set.lock().await;
        set.files_refused = true;
        self.tell(&set);
    }

    fn tell(&self, set: &Set) {
        let all_in_force = !set.files_refused && set.left_out.is_empty() && set.unreadable.is_empty();
        self.refused.set(i64::from(!all_in_force));
    }

    /// Declares the policy called `name`, now and after every restart.
    ///
    /// # Errors
    /// [`PolicyError`]. [`PolicyError::Store`] and [`PolicyError::Keeping`] may leave it unknown whether it holds after a restart.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the work.
    pub async fn declare(&self, name: &Name, text: &str, format: Format) -> Result<PolicyDeclared, PolicyError> {
        let kept = self.read(name, text, format)?;
        let (this, name) = (self.clone(), name.clone());
        self.to_its_end(async move { this.declare_read(name, kept).await }).await
    }

    async fn declare_read(&self, name: Name, kept: Kept) -> Result<PolicyDeclared, PolicyError> {
        self.table.get_or_try_init(|| self.store.declare(TABLES)).await.map_err(of_sql)?;
        let mut set = self.set.lock().await;
        let values = [name.as_str().into(), kept.format.as_str().into(), kept.text().into()];
        for _ in 0..ATTEMPTS {
            let judged = self.take_in(&mut set).await?;
            let mut next = set.with(&name, kept.clone())?;
            let new = !set.declared.contains_key(&name);
            let changes = self.apply_changed(&mut next)?;
            if self.keep(UPSERT, &values, judged, &mut set, next).await? {
                return Ok(PolicyDeclared { name, new, changes });
            }
        }
        Err(StoreError::Busy.into())
    }

    /// Does `sql` in the table, and lets `next` be what is. `false` where the table no longer is as it was `judged`: what it has
    /// holds again.
    async fn keep(
        &self,
        sql: &'static str,
        values: &[Value],
        judged: Option<Arc<Vec<Row>>>,
        set: &mut Set,
        next: Set,
    ) -> Result<bool, PolicyError> {
        let values: Arc<[Value]> = values.into();
        let keeping = self.store.transact(move |tx: &mut DynTx| {
            let (values, judged) = (values.clone(), judged.clone());
            Box::pin(async move {
                if let Some(judged) = judged
                    && tx.room_query(ALL, &[]).await? != *judged
                {
                    return Ok(false);
                }
                tx.room_execute(sql, &values).await?;
                Ok(true)
            })
        });
        self.settle(keeping.await, set, next).await
    }

    /// What declaring it would find wrong; changes nothing.
    ///
    /// # Errors
    /// As those of [`declare`](Self::declare), but the store's.
    pub async fn check(&self, name: &Name, text: &str, format: Format) -> Result<(), PolicyError> {
        let kept = self.read(name, text, format)?;
        let mut next = self.set.lock().await.with(name, kept)?;
        let left_out = std::mem::take(&mut next.left_out);
        if Registry::check(&next.documents()).is_ok() {
            return Ok(());
        }
        next.left_out = left_out;
        Registry::check(&next.documents()).map_err(|refused| next.told(refused))
    }

    /// Takes a policy that was declared out of force. Calls of its dependencies then pass no policy.
    ///
    /// # Errors
    /// [`PolicyError::NotFound`], [`PolicyError::InFile`], and the store's.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the work.
    pub async fn delete(&self, name: &Name) -> Result<Changes, PolicyError> {
        let (this, name) = (self.clone(), name.clone());
        self.to_its_end(async move { this.delete_declared(name).await }).await
    }

    async fn delete_declared(&self, name: Name) -> Result<Changes, PolicyError> {
        let mut set = self.set.lock().await;
        for _ in 0..ATTEMPTS {
            let judged = self.take_in(&mut set).await?;
            let mut next = set.clone();
            next.left_out.remove(&name);
            if next.declared.remove(&name).is_none() && !next.unreadable.remove(name.as_str()) {
                return Err(match set.file_of(&name) {
                    Some(file) => PolicyError::InFile { name: name.clone(), file: file.clone() },
                    None => PolicyError::NotFound { name },
                });
            }
            let changes = self.apply_changed(&mut next)?;
            if self.keep(DELETE, &[name.as_str().into()], judged, &mut set, next).await? {
                return Ok(changes);
            }
        }
        Err(StoreError::Busy.into())
    }

    /// Does `work` in a task of its own. What is in force, what is in the table and what is known of both must not part because
    /// whoever asked has gone.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, PolicyError>> + Send + 'static,
    ) -> Result<T, PolicyError> {
        let done = self.store.env().tasks().to_its_end("policies/change", work).await;
        done.unwrap_or_else(|| Err(StoreError::OutcomeUnknown.into()))
    }

    /// At most `limit` policies behind `after`, in order of their names.
    pub async fn list(&self, after: Option<&Name>, limit: usize) -> Vec<Described> {
        let mut all = self.set.lock().await.names();
        all.retain(|(name, _)| after.is_none_or(|after| name > after));
        all.sort();
        all.truncate(limit);
        let standings = self.registry.standings();
        all.into_iter().map(|(name, file)| described(name, file, &standings)).collect()
    }

    /// A policy and how its calls stand.
    ///
    /// # Errors
    /// [`PolicyError::NotFound`].
    pub async fn describe(&self, name: &Name) -> Result<Described, PolicyError> {
        let names = self.set.lock().await.names();
        let found = names.into_iter().find(|(known, _)| known == name);
        let (name, file) = found.ok_or_else(|| PolicyError::NotFound { name: name.clone() })?;
        Ok(described(name, file, &self.registry.standings()))
    }

    /// A document as it was declared.
    ///
    /// # Errors
    /// [`PolicyError::NotFound`], [`PolicyError::InFile`].
    pub async fn document(&self, name: &Name) -> Result<Kept, PolicyError> {
        let set = self.set.lock().await;
        set.declared.get(name).cloned().ok_or_else(|| match set.file_of(name) {
            Some(file) => PolicyError::InFile { name: name.clone(), file: file.clone() },
            None => PolicyError::NotFound { name: name.clone() },
        })
    }

    fn read(&self, name: &Name, text: &str, format: Format) -> Result<Kept, PolicyError> {
        let mut documents = Document::read_all(text, format).map_err(PolicyError::Unreadable)?;
        match (documents.pop(), documents.is_empty()) {
            (Some(document), true) if document.policy().name == *name => Ok(Kept { format, document }),
            (last, _) => {
                let all = documents.into_iter().chain(last);
                let held = all.map(|document| format!("`{}`", document.policy().name)).collect();
                Err(PolicyError::Other { held, wanted: name.clone() })
            }
        }
    }

    fn apply(&self, set: &Set) -> Result<Changes, PolicyError> {
        self.registry.apply(&set.documents()).map_err(|refused| set.told(refused))
    }

    /// What was applied becomes what is, if the store kept it, which is returned; else what the store has holds again, or, where
    /// that cannot be read, what was before.
    async fn settle(
        &self,
        kept: Result<bool, TransactError<SqlError>>,
        set: &mut Set,
        next: Set,
    ) -> Result<bool, PolicyError> {
        if let Ok(true) = kept {
            *set = next;
        } else {
            if let Ok(rows) = self.store.room_query(ALL, vec![]).await {
                set.hold(&rows);
            }
            // It held a moment ago; if it can't again, that is no reason to say less than what went wrong first.
            self.apply_what_fits(set);
        }
        self.tell(set);
        kept.map_err(|cause| match cause {
            TransactError::Store(cause) | TransactError::Aborted(SqlError::Store(cause)) => cause.into(),
            other => PolicyError::Keeping(Arc::new(other)),
        })
    }
}

impl Set {
    /// Lets what is declared be what the table has.
    fn hold(&mut self, rows: &[Row]) {
        let before = std::mem::take(&mut self.unreadable);
        self.declared.clear();
        for row in rows {
            let text = |nth| row.at(nth).as_str().unwrap_or_default();
            let (name, format) = (text(0), Format::named(text(1)));
            match format.ok_or_else(|| "its format is not known".to_owned()).and_then(|format| kept(text(2), format)) {
                Ok(kept) => _ = self.declared.insert(kept.document.policy().name.clone(), kept),
                Err(why) => {
                    // It stays in the table, for whoever understands it.
                    if !before.contains(name) {
                        tracing::warn!(policy = name, why, "a policy that was declared cannot be read");
                    }
                    self.unreadable.insert(name.to_owned());
                }
            }
        }
        self.left_out.retain(|name| self.declared.contains_key(name));
    }

    /// No longer leaves out those of `names` that fit beside all that is in already. `cause` is why the last of the others did
    /// not. It halves what does not fit together, so that few misfits among many names are found soon.
    fn let_in(&mut self, names: &[Name], cause: &mut PolicyError) {
        for name in names {
            self.left_out.remove(name);
        }
        let Err(refused) = Registry::check(&self.documents()) else { return };
        let refused = self.told(refused);
        self.left_out.extend(names.iter().cloned());
        match names.split_at(names.len() / 2) {
            ([], _) => *cause = refused,
            (first, second) => {
                self.let_in(first, cause);
                self.let_in(second, cause);
            }
        }
    }

    /// What was declared and is not left out.
    fn fitting(&self) -> impl Iterator<Item = (&Name, &Kept)> {
        self.declared.iter().filter(|(name, _)| !self.left_out.contains(*name))
    }

    /// All documents that should be in force, those of files first.
    fn documents(&self) -> Vec<Document> {
        let declared = self.fitting().map(|(_, kept)| &kept.document);
        self.files.values().flatten().chain(declared).cloned().collect()
    }

    fn of_files(&self) -> impl Iterator<Item = (Name, Option<PathBuf>)> {
        let name = |document: &Document| document.policy().name.clone();
        self.files.iter().flat_map(move |(file, all)| all.iter().map(move |one| (name(one), Some(file.clone()))))
    }

    /// The names of all policies, with their files.
    fn names(&self) -> Vec<(Name, Option<PathBuf>)> {
        self.of_files().chain(self.declared.keys().map(|name| (name.clone(), None))).collect()
    }

    fn file_of(&self, name: &Name) -> Option<&PathBuf> {
        let holds = |documents: &[Document]| documents.iter().any(|document| document.policy().name == *name);
        self.files.iter().find(|(_, documents)| holds(documents)).map(|(file, _)| file)
    }

    /// The same with a policy that is declared.
    fn with(&self, name: &Name, kept: Kept) -> Result<Self, PolicyError> {
        if let Some(file) = self.file_of(name) {
            return Err(PolicyError::InFile { name: name.clone(), file: file.clone() });
        }
        let mut next = self.clone();
        next.unreadable.remove(name.as_str());
        next.left_out.remove(name);
        next.declared.insert(name.clone(), kept);
        let (bytes, max) = (next.declared.values().map(|kept| kept.text().len()).sum(), Policies::MAX_TOTAL);
        if bytes > max { Err(PolicyError::TooLarge { bytes, max }) } else { Ok(next) }
    }

    /// A refusal with the names and files of what it is about.
    fn told(&self, refused: ApplyError) -> PolicyError {
        let ApplyError::Impossible(findings) = refused else { return PolicyError::Refused(refused) };
        // In the order of `documents`.
        let fitting = self.fitting().map(|(name, _)| (name.clone(), None));
        let names: Vec<(Name, Option<PathBuf>)> = self.of_files().chain(fitting).collect();
        let one = |finding: quorate_resilience::policy::Finding| {
            let (policy, file) = names.get(finding.of)?.clone();
            Some(Misfit { policy, file, fault: finding.fault })
        };
        PolicyError::Impossible(findings.into_iter().filter_map(one).collect())
    }
}

fn of_sql(error: SqlError) -> PolicyError {
    match error {
        SqlError::Store(cause) => cause.into(),
        other => PolicyError::Keeping(Arc::new(TransactError::Aborted(other))),
    }
}

fn kept(text: &str, format: Format) -> Result<Kept, String> {
    let documents = Document::read_all(text, format).map_err(|faults| faults.to_string())?;
    let document = documents.into_iter().next().ok_or("it holds no policy")?;
    Ok(Kept { format, document })
}

fn described(name: Name, file: Option<PathBuf>, standings: &[Standing]) -> Described {
    let dependencies = standings.iter().filter(|standing| standing.policy.name == name).cloned().collect();
    Described { name, file, dependencies }
}
