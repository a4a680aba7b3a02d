//! What a view is made of: its events, its tables, and the fold from one to the other.

use std::{fmt, sync::Arc};

use quorate_runtime::BoxFuture;

use super::{Forgotten, Kind, Prepare, ViewName, ViewNameError, ViewTx, name::check_table};
use crate::{
    event::{NewEvent, Position, Recorded},
    store::{Query, SqlError, StoreError},
};

/// The fold of a view: which events, into which tables, and how.
///
/// `apply` must be a function of the events and the view's own rows: no clock, no randomness, nothing from outside. Then
/// a view is the fold of the log, always, and can be thrown away and made again. What should happen outside because of an
/// event is an [effect](ViewTx::effect).
///
/// For one table with one row per key, [`Fold`](super::Fold) needs less writing.
pub trait Projection: Send + Sync + 'static {
    /// The view's name.
    fn name(&self) -> &ViewName;

    /// Its version, counted from 1. Another fold, other events or other tables are another version: it is built beside the
    /// old one, and readers switch when it has caught up.
    fn version(&self) -> u32;

    /// The events it is made of. The checkpoint moves over all others without looking at them again.
    fn query(&self) -> Query;

    /// Its tables.
    fn schema(&self) -> Schema;

    /// Applies `events`, in order: as many as the runtime finds good, each exactly once per build.
    ///
    /// Rows, checkpoint and effects commit together or not at all. It may be called again with the same events, or with
    /// fewer, after a failure that rolled everything back. [Stubs](Recorded::stub) and events whose data was
    /// [erased](Recorded::erased) come too; `data()` is then `None`.
    ///
    /// # Errors
    /// [`ApplyError::Event`] names the event that cannot be applied; for other errors the runtime finds it by applying the
    /// events one by one. What happens to it is [`Config::on_poison`](super::Config).
    fn apply<'t, 'x: 't>(
        &'t self,
        tx: &'t mut ViewTx<'x>,
        events: &'t [Recorded],
    ) -> BoxFuture<'t, Result<(), ApplyError>>;

    /// What an event belongs to: events of one key are applied in order, by one owner; when one of them is parked, later
    /// ones of its key are parked behind it. The stream unless said otherwise.
    ///
    /// With more than one shard, rows of different keys must not depend on each other's order. A view with several shards and
    /// [effects](Self::effects) keeps its key from version to version: how far effects were carried out is known for each shard,
    /// and by another key some would be lost at the switch, and others carried out again.
    ///
    /// An event over which this panics cannot be applied, and is dealt with as any other such event is, in the order of its
    /// stream.
    fn key<'e>(&self, event: &'e Recorded) -> &'e str {
        event.stream()
    }

    /// What is worked out of each event before its transaction, where neither the writer nor an append waits for it: handed to
    /// `apply` by [`ViewTx::prepared`], where there was room and time for it. Not for views in the append's transaction, nor for
    /// events whose data is encrypted. Default: nothing.
    fn ahead(&self) -> Option<Arc<dyn Prepare>> {
        None
    }

    /// How the values of a column are shown and compared, where its type in the engine does not say it: a decimal that is kept
    /// as a whole number, an instant.
    fn column_kind(&self, table: &str, column: &str) -> Option<Kind> {
        let (_, _) = (table, column);
        None
    }

    /// The kinds of effects that `apply` may ask for.
    fn effects(&self) -> Vec<EffectType> {
        Vec::new()
    }

    /// What else tells this fold from another one, for the [fingerprint](Self::fingerprint): a document's text, or a number
    /// to raise.
    fn fold(&self) -> String {
        String::new()
    }

    /// Events that exercise `apply`. When the view is started they are applied to tables that are thrown away again, and
    /// the rows they lead to are part of the fingerprint: a change of the code that shows in them is noticed.
    fn probe(&self) -> Vec<NewEvent> {
        Vec::new()
    }

    /// Forgets the data subject `subject`, whose data can no longer be read, in the view's rows. Unless it says otherwise, they
    /// are made anew from the log.
    fn forget<'t, 'x: 't>(
        &'t self,
        tx: &'t mut ViewTx<'x>,
        subject: &'t str,
    ) -> BoxFuture<'t, Result<Forgotten, ApplyError>> {
        let (_, _) = (tx, subject);
        Box::pin(std::future::ready(Ok(Forgotten::Rebuild)))
    }

    /// Tells this fold from another one, without [`probe`](Self::probe): name, version, events, tables, effects and
    /// [`fold`](Self::fold).
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self)
    }
}

/// The tables of a view, as statements in which `{loan}` stands for the table `loan`.
///
/// # Example
/// ```
/// use quorate_data::materialized_view::Schema;
/// let schema = Schema::new()
///     .table("loan", "CREATE TABLE {loan} (id TEXT PRIMARY KEY, state TEXT NOT NULL, amount BIGINT)")
///     .index("loan_state", "CREATE INDEX {loan_state} ON {loan} (state)");
/// # assert_eq!(schema.tables().count(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: EntryKind,
    name: String,
    create: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryKind {
    Table,
    Index,
}

impl Schema {
    /// The most tables and indexes of a view, together.
    pub const MAX_ENTRIES: usize = 64;

    /// No tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with the table `name`, made by `create`.
    #[must_use]
    pub fn table(self, name: impl Into<String>, create: impl Into<String>) -> Self {
        self.with(EntryKind::Table, name, create)
    }

    /// The same with the index `name`, made by `create`.
    #[must_use]
    pub fn index(self, name: impl Into<String>, create: impl Into<String>) -> Self {
        self.with(EntryKind::Index, name, create)
    }

    fn with(mut self, kind: EntryKind, name: impl Into<String>, create: impl Into<String>) -> Self {
        self.entries.push(Entry { kind, name: name.into(), create: create.into() });
        self
    }

    /// The names of its tables, in order.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|entry| entry.kind == EntryKind::Table).map(|entry| &*entry.name)
    }

    /// The statements that make its tables and indexes, in order.
    pub fn statements(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.create)
    }

    /// Checks names and limits; whether the statements are right, only the store can tell.
    ///
    /// # Errors
    /// [`InvalidSchema`].
    pub fn check(&self) -> Result<(), InvalidSchema> {
        if self.tables().next().is_none() {
            return Err(InvalidSchema::NoTable);
        }
        if self.entries.len() > Self::MAX_ENTRIES {
            return Err(InvalidSchema::TooLarge { entries: self.entries.len() });
        }
        for (n, entry) in self.entries.iter().enumerate() {
            check_table(&entry.name)?;
            if self.entries[..n].iter().any(|earlier| earlier.name == entry.name) {
                return Err(InvalidSchema::Twice { name: entry.name.clone() });
            }
            if !entry.create.contains(&format!("{{{}}}", entry.name)) {
                return Err(InvalidSchema::Elsewhere { name: entry.name.clone() });
            }
        }
        Ok(())
    }
}

/// Why a view's tables were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSchema {
    /// There is no table.
    #[error("a view has at least one table")]
    NoTable,
    /// There are too many.
    #[error("a view has at most {max} tables and indexes, this one has {entries}", max = Schema::MAX_ENTRIES)]
    TooLarge {
        /// How many there are.
        entries: usize,
    },
    /// A name is used twice.
    #[error("`{name}` is declared twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A statement does not mention what it should make.
    #[error("the statement for `{name}` does not say `{{{name}}}`")]
    Elsewhere {
        /// The table or index.
        name: String,
    },
    /// A name breaks the rules.
    #[error(transparent)]
    Name(#[from] ViewNameError),
}

/// A kind of effect: something that should happen outside because of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectType {
    /// Its name, such as `mail`.
    pub name: &'static str,
    /// What a rebuild does with it.
    pub on_rebuild: OnRebuild,
}

/// What becomes of an effect that a rebuild comes upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRebuild {
    /// It is left out up to the position at which readers switch, because the build before carried it out, and carried
    /// out from the next position on. For mails, payments, calls.
    Suppress,
    /// It is carried out again, with the key it had. For what replaces what was there, such as an entry of a search index. A build
    /// that readers have left for another one repeats nothing.
    Repeat,
}

/// Tells one fold from another: 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint(Arc<str>);

impl Fingerprint {
    /// The fingerprint of what a projection says of itself.
    pub fn of<P: Projection + ?Sized>(projection: &P) -> Self {
        let query = format!("{:?}", projection.query());
        let mut parts = vec![projection.name().as_str().to_owned(), projection.version().to_string(), query];
        parts.extend(projection.schema().entries.into_iter().map(|entry| entry.create));
        parts.extend(projection.effects().iter().map(|effect| format!("{effect:?}")));
        parts.push(projection.fold());
        Self::of_parts(parts.iter().map(String::as_bytes))
    }

    /// The fingerprint of these parts, in order.
    pub fn of_parts<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut hash = blake3::Hasher::new();
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Self(hash.finalize().to_hex().as_str().into())
    }

    pub(super) fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why events could not be applied. Nothing of the batch was kept.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// One event cannot be applied: it is poison.
    #[error("the event at position {position} cannot be applied: {reason}")]
    Event {
        /// Where it stands in the log.
        position: Position,
        /// Why.
        reason: String,
        /// Whether it would fail the same way whenever it is tried: then it is tried once.
        certain: bool,
    },
    /// A statement failed.
    #[error(transparent)]
    Sql(#[from] SqlError),
}

impl ApplyError {
    /// `event` cannot be applied. It is [tried a few times](super::Config::max_attempts), in case that changes.
    pub fn event(event: &Recorded, reason: impl fmt::Display) -> Self {
        Self::Event { position: event.position(), reason: reason.to_string(), certain: false }
    }

    /// `event` cannot be applied, however often it is tried: only its own bytes and the rows say so. The
    /// [policy](super::OnPoison) decides at once, and nobody waits for another attempt.
    pub fn certain(event: &Recorded, reason: impl fmt::Display) -> Self {
        Self::Event { position: event.position(), reason: reason.to_string(), certain: true }
    }

    /// The store's own failure, which is no event's fault.
    pub(super) fn store(&self) -> Option<&StoreError> {
        if let Self::Sql(SqlError::Store(cause)) = self { Some(cause) } else { None }
    }
}
