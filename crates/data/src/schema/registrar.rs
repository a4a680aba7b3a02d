//! Registering schemas in a store.
//!
//! A registration is decided in memory, against the schemas in force, and written in one transaction that asks once more
//! whether the version is still free. Of two that race for a version one is written; the other is decided anew, against
//! the winner: the same schema has become that version, another one has to be compatible with it.
//!
//! The row is durable before the schema is in force, and is put in force by the store's writer, between two appends: what
//! is appended behind that was held against it, what came before is readable when the registration is answered. What if
//! we die in between? The row is there, nobody was told, and it is in force when the store is opened again.

use quorate_foundations::name::Name;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    Compatibility, Proposal, RegisterError, SchemaRow, SchemaVersion, Schemas,
    rows::{self, TABLES},
};
use crate::store::{Retry, SqlError, Store, StoreError, TransactError};

/// Registers schemas in a store, which holds every append against them. Cheap to clone; all of a store are the same.
///
/// # Example
/// ```
/// # use quorate_data::{event::NewEvent, store::*, schema::Registrar};
/// # async fn example(store: Store) -> Result<(), Box<dyn std::error::Error>> {
/// let paid = "payment.captured".parse()?;
/// let schema = serde_json::json!({"type": "object", "required": ["pence"]});
/// let registered = Registrar::of(&store).register(&paid, schema, None).await?;
/// assert_eq!(registered.version.get(), 1);
///
/// let captured = NewEvent::new("e-1", "/till", "payment.captured").json(&br#"{"pounds": 3}"#[..]);
/// let refused = store.append(AppendBatch::to("till-1".parse()?, ExpectedVersion::Any, vec![captured])).await;
/// assert!(matches!(refused, Err(AppendError::Schema { .. })));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Registrar {
    store: Store,
}

/// A schema that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its version.
    pub version: SchemaVersion,
    /// Whether it was registered now, rather than being the same as one that was there.
    pub new: bool,
    /// The mode under which it was accepted.
    pub compatibility: Compatibility,
}

/// Why a schema, or a mode, is not in force. Unless the outcome is unknown nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrarError {
    /// The schema was refused.
    #[error(transparent)]
    Refused(#[from] RegisterError),
    /// The type has no schema, and so no mode.
    #[error("the event type `{event_type}` has no schema")]
    NotFound {
        /// The event type.
        event_type: Name,
    },
    /// Others registered schemas of the type every time.
    #[error("others registered schemas of `{event_type}` in {attempts} attempts")]
    Contended {
        /// The event type.
        event_type: Name,
        /// How often it was decided.
        attempts: u32,
    },
    /// The tables cannot be used.
    #[error("the tables of the schemas cannot be used")]
    Tables(#[source] SqlError),
    /// The store failed. With [`StoreError::OutcomeUnknown`] it may have been written: the same again tells.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RegistrarError {
    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Store(cause) => cause.retry(),
            Self::Contended { .. } => Retry::Now,
            Self::Refused(_) | Self::NotFound { .. } | Self::Tables(_) => Retry::Never,
        }
    }
}

/// What is to be put in force, once it is durable.
#[derive(Clone)]
enum Change {
    Version(SchemaRow),
    Mode(Name, Compatibility),
}

impl Registrar {
    /// How often a registration is decided anew because another one of its type was faster.
    const MAX_ATTEMPTS: u32 = 32;

    /// The registrar of `store`.
    pub fn of(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    /// The schemas in force.
    pub fn current(&self) -> Schemas {
        self.store.schemas().current()
    }

    /// Decides whether `schema` may become the next version of `event_type`, and changes nothing. Without a `mode` that of
    /// the type counts, [`Compatibility::Backward`] where it has none.
    ///
    /// # Errors
    /// As [`Schemas::propose`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait. A comparison that has begun goes on to its end.
    pub async fn check(
        &self,
        event_type: &Name,
        schema: Value,
        mode: Option<Compatibility>,
    ) -> Result<Proposal, RegisterError> {
        let event_type = event_type.clone();
        let propose = move |current: Schemas| {
            let mode = mode.or_else(|| current.mode(event_type.as_str())).unwrap_or_default();
            current.propose(&event_type, &schema, mode)
        };
        self.store.schemas().comparing(self.store.env(), propose).await
    }

    /// Registers `schema` as the next version of `event_type` under `mode`, or under the mode of the type, which its first
    /// registration says (`backward` where it does not). A schema that the type has had is not registered again.
    ///
    /// Durable and in force when this returns: every later append is held against it.
    ///
    /// # Errors
    /// See [`RegistrarError`]. Repeating is always safe.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the registration; the same again tells how it ended.
    pub async fn register(
        &self,
        event_type: &Name,
        schema: Value,
        mode: Option<Compatibility>,
    ) -> Result<Registered, RegistrarError> {
        for _ in 0..Self::MAX_ATTEMPTS {
            match self.check(event_type, schema.clone(), mode).await? {
                Proposal::Existing(version) => {
                    let known = self.current().row(event_type.as_str(), version);
                    let compatibility = known.map_or_else(Default::default, |row| row.compatibility);
                    return Ok(Registered { version, new: false, compatibility });
                }
                Proposal::New(row) => {
                    let (version, compatibility) = (row.version, row.compatibility);
                    if self.carry_out(Change::Version(row)).await? {
                        return Ok(Registered { version, new: true, compatibility });
                    }
                }
            }
        }
        Err(RegistrarError::Contended { event_type: event_type.clone(), attempts: Self::MAX_ATTEMPTS })
    }

    /// Says what registrations of a type have to keep from now on. What is registered stays as it is.
    ///
    /// # Errors
    /// [`RegistrarError::NotFound`]: the type has no schema.
    ///
    /// # Cancel safety
    /// As [`register`](Self::register).
    pub async fn set_mode(&self, event_type: &Name, mode: Compatibility) -> Result<(), RegistrarError> {
        let known = self.current().mode(event_type.as_str());
        if known.is_some() && self.carry_out(Change::Mode(event_type.clone(), mode)).await? {
            return Ok(());
        }
        Err(RegistrarError::NotFound { event_type: event_type.clone() })
    }

    /// Makes `change` durable and puts it in force, in a task of its own: whoever stops waiting leaves nothing half done.
    /// `false` if it does not follow what is stored.
    async fn carry_out(&self, change: Change) -> Result<bool, RegistrarError> {
        let (reply, answer) = oneshot::channel();
        let this = self.clone();
        self.store.env().tasks().spawn("schema/register", async move {
            let _ = reply.send(this.write(change).await);
        });
        answer.await.unwrap_or(Err(StoreError::OutcomeUnknown.into()))
    }

    async fn write(&self, change: Change) -> Result<bool, RegistrarError> {
        // One after the other, so that changes come into force in the order in which they were written.
        let _turn = self.store.schemas().turn().await;
        self.store.declare(TABLES).await.map_err(tables)?;
        let wanted = change.clone();
        let written = self.store.transact(move |tx| {
            let wanted = wanted.clone();
            Box::pin(async move {
                tx.schemas_change().await?;
                match &wanted {
                    Change::Version(row) => rows::insert(tx, row).await,
                    Change::Mode(event_type, mode) => rows::set_mode(tx, event_type, *mode).await,
                }
            })
        });
        match written.await {
            Ok(true) => {
                self.put_in_force(change).await;
                Ok(true)
            }
            // It may have been written by a registration that never learned how it ended.
            Ok(false) => self.catch_up(change.event_type()).await.map(|()| false),
            Err(failed) => {
                let failed = flatten(failed);
                if matches!(failed, RegistrarError::Store(StoreError::OutcomeUnknown)) {
                    let _ = self.catch_up(change.event_type()).await;
                }
                Err(failed)
            }
        }
    }

    /// Puts in force what is durable, between two appends: a transaction of its own has the writer do it.
    async fn put_in_force(&self, change: Change) {
        loop {
            let (registry, change) = (self.store.schemas().clone(), change.clone());
            let again = change.clone();
            let taken = self.store.transact(move |_| {
                change.apply(&registry);
                Box::pin(std::future::ready(Ok::<_, SqlError>(())))
            });
            match taken.await {
                Ok(()) => return,
                Err(TransactError::Store(StoreError::Overloaded { .. })) => {
                    self.store.env().sleep(std::time::Duration::from_millis(20)).await;
                }
                // No more appends will come through this writer; whoever still asks shall see it.
                Err(_) => return again.apply(self.store.schemas()),
            }
        }
    }

    /// Puts in force what is stored of a type and is not yet.
    async fn catch_up(&self, event_type: &Name) -> Result<(), RegistrarError> {
        loop {
            let next = self.current().latest(event_type.as_str()).map_or(SchemaVersion::FIRST, SchemaVersion::next);
            let name = event_type.clone();
            let stored = self.store.transact(move |tx| {
                let name = name.clone();
                Box::pin(async move { rows::version(tx, &name, next).await })
            });
            let Some((row, mode)) = stored.await.map_err(flatten)? else { return Ok(()) };
            self.put_in_force(Change::Version(row)).await;
            self.put_in_force(Change::Mode(event_type.clone(), mode)).await;
        }
    }
}

impl Change {
    fn event_type(&self) -> &Name {
        match self {
            Self::Version(row) => &row.event_type,
            Self::Mode(event_type, _) => event_type,
        }
    }

    fn apply(&self, registry: &super::SchemaRegistry) {
        match self {
            Self::Version(row) => {
                if let Err(cause) = registry.admit(row.clone()) {
                    // Invariant: a row is written behind the one before it, and that one was in force.
                    unreachable!("a stored version follows those in force: {cause}");
                }
            }
            Self::Mode(event_type, mode) => registry.set_mode(event_type, *mode),
        }
    }
}

fn tables(failed: SqlError) -> RegistrarError {
    match failed {
        SqlError::Store(cause) => cause.into(),
        other => RegistrarError::Tables(other),
    }
}

fn flatten(failed: TransactError<SqlError>) -> RegistrarError {
    match failed {
        TransactError::Aborted(cause) => tables(cause),
        TransactError::Store(cause) => cause.into(),
        other => RegistrarError::Tables(SqlError::Failed { what: other.to_string() }),
    }
}
