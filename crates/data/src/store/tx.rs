//! The one transaction, as the code inside it sees it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quorate_runtime::BoxFuture;

use super::{
    AppendBatch, AppendError, Appended, Bound, CheckedBatch, ExpectedVersion, First, Inbox, InboxError, LogPage,
    MetadataError, ReadLog, ReadStream, Retire, Retired, SetMetadata, StoreError, StreamMetadata, StreamPage, reserved,
};
use crate::{
    event::{NewEvent, Version},
    materialized_view::Build,
};
use quorate_foundations::{name::Name, time::Wall};

/// What a backend offers inside a transaction: the port behind [`DynTx`].
pub trait TxOps: Send {
    /// Appends; visible to later calls of this transaction at once. As [`Backend::append`](super::Backend::append) says of
    /// schemas.
    fn append(&mut self, batch: CheckedBatch) -> BoxFuture<'_, Result<Appended, AppendError>>;
    /// Reads a stream as of now, this transaction's own appends included.
    fn read_stream(&mut self, read: ReadStream) -> BoxFuture<'_, Result<StreamPage, StoreError>>;
    /// Reads the log as of now, this transaction's own appends included.
    fn read_log(&mut self, read: ReadLog) -> BoxFuture<'_, Result<LogPage, StoreError>>;
    /// Forgets events of a stream; this transaction's later reads see it at once.
    fn retire(&mut self, stream: Name, what: Retire) -> BoxFuture<'_, Result<Retired, AppendError>>;
    /// Sets a stream's metadata and returns their new version.
    fn set_metadata(
        &mut self,
        stream: Name,
        expected: ExpectedVersion,
        metadata: StreamMetadata,
    ) -> BoxFuture<'_, Result<Version, MetadataError>>;
    /// Reads a stream's metadata as of now, what this transaction set included.
    fn metadata(&mut self, stream: Name) -> BoxFuture<'_, Result<SetMetadata, StoreError>>;
    /// Makes ready to change the registered schemas: from now on, and until this transaction has ended, nobody else appends.
    /// Where one writer does everything, nobody else does anyway.
    fn schemas_change(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// Runs one statement of the application and returns the number of rows it changed.
    fn execute<'t>(
        &'t mut self,
        sql: &'t str,
        params: &'t [Value],
        scope: Scope,
    ) -> BoxFuture<'t, Result<u64, SqlError>>;
    /// Runs one query of the application and returns its rows.
    fn query<'t>(
        &'t mut self,
        sql: &'t str,
        params: &'t [Value],
        scope: Scope,
    ) -> BoxFuture<'t, Result<Vec<Row>, SqlError>>;
    /// Runs statements one after the other, up to the first that fails; with the error comes which one that was.
    fn execute_all<'t>(
        &'t mut self,
        steps: &'t [Step<'t>],
        scope: Scope,
    ) -> BoxFuture<'t, Result<(), (usize, SqlError)>> {
        Box::pin(async move {
            for (n, Step { sql, params }) in steps.iter().enumerate() {
                self.execute(sql, params, scope).await.map_err(|failed| (n, failed))?;
            }
            Ok(())
        })
    }
    /// The rows of one query for each list of parameters, in order.
    fn query_all<'t>(
        &'t mut self,
        sql: &'t str,
        params: &'t [Vec<Value>],
        scope: Scope,
    ) -> BoxFuture<'t, Result<Vec<Vec<Row>>, SqlError>> {
        Box::pin(async move {
            let mut found = Vec::with_capacity(params.len());
            for params in params {
                found.push(self.query(sql, params, scope).await?);
            }
            Ok(found)
        })
    }
    /// Has `hook` run once the transaction is durable: see [`DynTx::after_commit`]. An engine that several processes write
    /// to has no order of commits to run it in, and refuses.
    fn after_commit(&mut self, hook: AfterCommit) -> Result<(), StoreError> {
        drop(hook);
        Err(StoreError::Unsupported { engine: "shared", what: "tell of its commits in their order" })
    }
}

/// A statement to run, with its parameters.
#[derive(Clone, Copy, Debug)]
pub struct Step<'t> {
    /// The text.
    pub sql: &'t str,
    /// The values: `$1`, `$2`, …
    pub params: &'t [Value],
}

/// What is to be done once a transaction is durable.
pub type AfterCommit = Box<dyn FnOnce() + Send>;

/// Whose statement it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The application's: `quorate_*` tables, writing to tables of views, transaction control, PRAGMA and ATTACH are
    /// refused.
    Application,
    /// One of quorate's own rooms, on the `quorate_*` tables it declared.
    Room,
    /// A view's: the rows of one build, by functions that always give the same answer.
    View(Build),
    /// A reader's, on the rows of one build: it may do whatever changes nothing and shows nothing else.
    ViewRead(Build),
    /// The making and dropping of one build's tables.
    ViewSchema(Build),
}

/// A transaction in progress, without a `commit`: it commits when the closure given to
/// [`Store::transact`](super::Store::transact) returns `Ok`, and rolls back when it returns `Err`.
///
/// Await nothing but its methods: on the embedded store the whole group of transactions would wait; the transaction is
/// then rolled back with [`TransactError::ForeignAwait`].
pub struct DynTx {
    ops: Box<dyn TxOps>,
}

impl DynTx {
    /// A transaction on a backend's operations. Backends call this.
    pub fn new(ops: Box<dyn TxOps>) -> Self {
        Self { ops }
    }

    /// Appends `events` to `stream`.
    pub async fn append(
        &mut self,
        stream: &Name,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended, AppendError> {
        self.append_batch(AppendBatch::to(stream.clone(), expected, events)).await
    }

    /// Appends a whole batch, on its conditions.
    ///
    /// # Errors
    /// As [`Store::append`](super::Store::append); the transaction can go on after a refusal, which wrote nothing.
    pub async fn append_batch(&mut self, batch: AppendBatch) -> Result<Appended, AppendError> {
        self.append_checked(CheckedBatch::unchecked(batch)).await
    }

    /// Appends a batch that was [checked](super::Store::check) before the transaction, which is then not held up by it.
    ///
    /// # Errors
    /// As [`append_batch`](Self::append_batch).
    pub async fn append_checked(&mut self, batch: CheckedBatch) -> Result<Appended, AppendError> {
        reserved::check(&batch.batch)?;
        self.ops.append(batch).await
    }

    /// The same for quorate's own rooms, to a stream that is [reserved](super::reserved_for) for them.
    pub async fn room_append(
        &mut self,
        stream: &Name,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) -> Result<Appended, AppendError> {
        self.ops.append(CheckedBatch::unchecked(AppendBatch::to(stream.clone(), expected, events))).await
    }

    /// Reads a page of a stream, this transaction's own appends included.
    pub async fn read_stream(&mut self, read: ReadStream) -> Result<StreamPage, StoreError> {
        self.ops.read_stream(read).await
    }

    /// Reads a page of the log, this transaction's own appends included.
    ///
    /// # Errors
    /// As [`Store::read_log`](super::Store::read_log).
    pub async fn read_log(&mut self, read: ReadLog) -> Result<LogPage, StoreError> {
        read.query.check()?;
        self.ops.read_log(read).await
    }

    /// Forgets events of `stream`: nobody sees their data again once the transaction has committed, and it is taken out of
    /// the store's files behind that; [`Store::settle`](super::Store::settle) waits until it is.
    ///
    /// # Errors
    /// As [`Store::retire`](super::Store::retire); the transaction can go on after a refusal, which wrote nothing.
    pub async fn retire(&mut self, stream: &Name, what: Retire) -> Result<Retired, AppendError> {
        self.ops.retire(stream.clone(), what).await
    }

    /// Sets the metadata of `stream` and returns their new version.
    ///
    /// # Errors
    /// As [`Store::set_metadata`](super::Store::set_metadata); the transaction can go on after a refusal.
    pub async fn set_metadata(
        &mut self,
        stream: &Name,
        expected: ExpectedVersion,
        metadata: StreamMetadata,
    ) -> Result<Version, MetadataError> {
        self.ops.set_metadata(stream.clone(), expected, metadata).await
    }

    /// Reads the metadata of `stream`, what this transaction set included.
    pub async fn metadata(&mut self, stream: &Name) -> Result<SetMetadata, StoreError> {
        self.ops.metadata(stream.clone()).await
    }

    /// Has `hook` run once the transaction is durable: in the order of commits, and before the transaction's caller is
    /// answered. It is dropped instead where the transaction is rolled back, run again, or its outcome is unknown.
    ///
    /// It runs on the writer's thread, where it must be quick and ask nothing of the store. For rooms that keep in memory
    /// what their rows say.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] on an engine that several processes write to.
    pub fn after_commit(&mut self, hook: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
        self.ops.after_commit(Box::new(hook))
    }

    /// Takes a message into `inbox`, in this transaction, and tells whether it came for the first time. Where it did not,
    /// the transaction must have none of the message's effects.
    ///
    /// Of transactions that take the same message at the same time one commits first, and the others learn of it. See
    /// [`Inbox`] for an example. `message`: an id of 1 to [`Inbox::MAX_ID_BYTES`] bytes, its producer's own.
    ///
    /// # Errors
    /// [`InboxError::Id`] for an id that cannot be kept. The transaction can go on after a refusal, which wrote nothing.
    pub async fn once(&mut self, inbox: &Inbox, message: &str) -> Result<First, InboxError> {
        inbox.take(self, message).await
    }

    /// When `inbox` took a message, by the wall clock of then, if it did; it does not take it. For whoever must know before it
    /// decides what becomes of a message.
    pub async fn taken(&mut self, inbox: &Inbox, message: &str) -> Result<Option<Wall>, InboxError> {
        inbox.taken(self, message).await
    }

    /// Has `inbox` remember a message that it took more than `age` ago as if it had taken it now, and tells whether it did: for messages
    /// that go on coming, so that their ids are not [forgotten](Inbox::forget) before the last copy has come.
    pub async fn renew(&mut self, inbox: &Inbox, message: &str, age: Duration) -> Result<bool, InboxError> {
        inbox.renew(self, message, age).await
    }

    /// Runs a statement on the application's own tables; `$1`, `$2`, … stand for `params`. Returns the rows changed.
    ///
    /// # Errors
    /// [`SqlError::Refused`] for what an application may not do here: `quorate_*` tables, transaction control, PRAGMA,
    /// ATTACH.
    pub async fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, SqlError> {
        self.ops.execute(sql, params, Scope::Application).await
    }

    /// Runs a query on the application's own tables; `$1`, `$2`, … stand for `params`.
    pub async fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError> {
        self.ops.query(sql, params, Scope::Application).await
    }

    /// The same for quorate's own rooms, on tables they declared with [`Store::declare`](super::Store::declare).
    pub async fn room_execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, SqlError> {
        self.ops.execute(sql, params, Scope::Room).await
    }

    /// The same for quorate's own rooms, on tables they declared with [`Store::declare`](super::Store::declare).
    pub async fn room_query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError> {
        self.ops.query(sql, params, Scope::Room).await
    }

    /// Makes ready to change the registered schemas: until this transaction has ended nobody else appends, on any node.
    pub(crate) async fn schemas_change(&mut self) -> Result<(), StoreError> {
        self.ops.schemas_change().await
    }

    /// Runs a statement on the tables of one build of a view, and nothing else.
    pub async fn view_execute(&mut self, build: Build, sql: &str, params: &[Value]) -> Result<u64, SqlError> {
        self.ops.execute(sql, params, Scope::View(build)).await
    }

    /// Runs a query on the tables of one build of a view, and nothing else.
    pub async fn view_query(&mut self, build: Build, sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError> {
        self.ops.query(sql, params, Scope::View(build)).await
    }

    /// Runs statements on the tables of one build of a view, one after the other, up to the first that fails: quicker than one by
    /// one where few are run often. With the error comes which one it was.
    pub async fn view_execute_all(&mut self, build: Build, steps: &[Step<'_>]) -> Result<(), (usize, SqlError)> {
        self.ops.execute_all(steps, Scope::View(build)).await
    }

    /// The rows of one query on the tables of one build of a view, for each list of parameters, in order.
    pub async fn view_query_all(
        &mut self,
        build: Build,
        sql: &str,
        params: &[Vec<Value>],
    ) -> Result<Vec<Vec<Row>>, SqlError> {
        self.ops.query_all(sql, params, Scope::View(build)).await
    }

    /// Makes or drops a table or an index of one build of a view.
    pub async fn view_schema(&mut self, build: Build, sql: &str) -> Result<(), SqlError> {
        self.ops.execute(sql, &[], Scope::ViewSchema(build)).await.map(|_| ())
    }
}

/// Why a transaction did not commit. Nothing of it is left, except where the outcome is unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactError<E> {
    /// The closure said no.
    #[error("the transaction was rolled back by its own decision")]
    Aborted(E),
    /// The closure awaited something that was not the transaction.
    #[error("the transaction awaited something other than itself and was rolled back")]
    ForeignAwait,
    /// The closure took too long.
    #[error("the transaction took longer than {limit:?} and was rolled back")]
    TooLong {
        /// The limit.
        limit: Duration,
    },
    /// The closure asked to write more than [`Limits::unit_bytes`](field@super::Limits::unit_bytes).
    #[error("the transaction asked to write more than {limit} bytes and was rolled back")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The closure panicked; the store goes on.
    #[error("the transaction panicked and was rolled back: {what}")]
    Panicked {
        /// The panic's message.
        what: String,
    },
    /// A constraint of the application's tables does not hold at commit.
    #[error("the transaction breaks a constraint: {what}")]
    Constraint {
        /// What the engine said.
        what: String,
    },
    /// A view that is kept in the append's own transaction cannot take in what was appended.
    #[error("view `{view}` is kept in the append's transaction and refuses it: {what}")]
    View {
        /// The view.
        view: Arc<str>,
        /// Why.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A value in a statement's parameters or a query's rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// A 64-bit signed integer; also booleans, as 0 and 1.
    Integer(i64),
    /// A 64-bit float.
    Real(f64),
    /// A text.
    Text(Arc<str>),
    /// Bytes.
    Blob(Bytes),
}

impl Value {
    /// As an integer, where it is one.
    pub fn as_i64(&self) -> Option<i64> {
        if let Self::Integer(n) = self { Some(*n) } else { None }
    }

    /// As a text, where it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// As bytes, where it is some.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        if let Self::Blob(bytes) = self { Some(bytes) } else { None }
    }
}

macro_rules! into_value {
    ($($from:ty => |$value:ident| $into:expr),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $into
            }
        })*
    };
}

into_value! {
    i64 => |n| Self::Integer(n),
    i32 => |n| Self::Integer(n.into()),
    u32 => |n| Self::Integer(n.into()),
    bool => |b| Self::Integer(b.into()),
    f64 => |x| Self::Real(x),
    &str => |text| Self::Text(text.into()),
    String => |text| Self::Text(text.into()),
    Arc<str> => |text| Self::Text(text),
    &Name => |name| Self::Text(name.as_str().into()),
    Bytes => |bytes| Self::Blob(bytes),
    Vec<u8> => |bytes| Self::Blob(bytes.into()),
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One row of a query's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The columns' names, in order.
    pub columns: Arc<[Arc<str>]>,
    /// The values, in the same order.
    pub values: Vec<Value>,
}

impl Row {
    /// The value of the `n`-th column, counted from 0.
    pub fn at(&self, n: usize) -> &Value {
        self.values.get(n).unwrap_or(&Value::Null)
    }

    /// The value of the column `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.columns.iter().position(|column| &**column == name).map(|n| &self.values[n])
    }
}

/// Why a statement failed. The transaction can go on; the statement changed nothing.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// The statement asks for what it may not do.
    #[error("this statement may not {what}")]
    Refused {
        /// What it may not do.
        what: String,
    },
    /// The statement is wrong, or a constraint does not hold.
    #[error("the statement failed: {what}")]
    Failed {
        /// What the engine said.
        what: String,
    },
    /// It would take more of something than it may, and was stopped.
    #[error("the query was stopped: {0}")]
    Exceeded(Bound),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
