//! Requests by type: what the store says of their types, and who asks and who answers at this node.

mod durable;

use std::{sync::Arc, time::Duration};

use quorate_communication::{
    event_bus::webhook::Calls,
    message_queue::QueueError,
    request::{
        Contract, Counts, Deadline, DeclareError, DurableError, Exchange, Limits, Payload, Remote, RequestError,
        Requests, Standing, Ticket,
        machine::{Receipt, Verdict},
    },
};
use quorate_data::store::{DynTx, RoomTables, Row, SqlError, Store, StoreError, TransactError, Value};
use quorate_foundations::name::Name;
use quorate_runtime::Env;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

use super::MessageQueues;
pub use durable::DurableResponder;

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "request",
    versions: &["CREATE TABLE quorate_request_type (
            name TEXT PRIMARY KEY, exchange TEXT NOT NULL, time_limit INTEGER NOT NULL, idempotent INTEGER NOT NULL
        )"],
};
const ONE: &str = "SELECT name, exchange, time_limit, idempotent FROM quorate_request_type WHERE name = $1";
const SOME: &str =
    "SELECT name, exchange, time_limit, idempotent FROM quorate_request_type WHERE name > $1 ORDER BY name LIMIT $2";
const COUNT: &str = "SELECT count(*) FROM quorate_request_type";
const UPSERT: &str = "INSERT INTO quorate_request_type (name, exchange, time_limit, idempotent) VALUES ($1, $2, $3, $4)
    ON CONFLICT (name) DO UPDATE SET exchange = $2, time_limit = $3, idempotent = $4";
const DELETE: &str = "DELETE FROM quorate_request_type WHERE name = $1";

const ANSWER: &str = "answer";
const BEST_EFFORT: &str = "best-effort";
const DURABLE: &str = "durable";

/// The verbs on requests and their types. Cheap to clone.
///
/// Types are kept in the store: they hold after a restart, and for every node that shares it. Requests and responders are this node's: nothing of them is written,
/// and a responder at another node is nobody here. Those of durable types are the store's.
#[derive(Clone)]
pub struct RequestCare {
    env: Env,
    store: Store,
    queues: MessageQueues,
    table: Arc<OnceCell<()>>,
    requests: Requests,
    calls: Calls,
    changed: watch::Sender<()>,
    dismissed: CancellationToken,
}

/// A type, as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestType {
    /// What it is called.
    pub name: Name,
    /// What callers and responders agree on.
    pub contract: Contract,
}

/// Why something was not done with requests or their types.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestCareError {
    /// No such type is declared.
    #[error("no requests of type `{kind}` are declared")]
    NotFound {
        /// The type.
        kind: Name,
    },
    /// It cannot be declared, or served.
    #[error(transparent)]
    Declare(#[from] DeclareError),
    /// The request has no answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The responder has no such request.
    #[error("no responder of `{kind}` that is there holds the request {ticket}")]
    NotHeld {
        /// The type.
        kind: Name,
        /// What the request was named by.
        ticket: Ticket,
    },
    /// Nothing is kept of requests of this type.
    #[error("requests of type `{kind}` are not durable: nothing of them is kept")]
    NotDurable {
        /// The type.
        kind: Name,
    },
    /// A durable request.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The queue of a durable type.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The table of types failed.
    #[error("the types of requests could not be read or kept")]
    Table(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<SqlError> for RequestCareError {
    fn from(failed: SqlError) -> Self {
        match failed {
            SqlError::Store(cause) => cause.into(),
            other => Self::Table(Box::new(other)),
        }
    }
}

impl From<TransactError<SqlError>> for RequestCareError {
    fn from(failed: TransactError<SqlError>) -> Self {
        match failed {
            TransactError::Store(cause) => cause.into(),
            TransactError::Aborted(cause) => cause.into(),
            other => Self::Table(Box::new(other)),
        }
    }
}

impl RequestCare {
    /// The requests of a node that lives in `env`, of the types kept in `store`; `queues` keep those that are durable, and outcomes are told by `calls`. Where the disk is too full for their table it is made once somebody asks for it.
    ///
    /// # Errors
    /// [`SqlError`]: their table could not be made.
    pub async fn open(env: &Env, store: &Store, queues: &MessageQueues, calls: Calls) -> Result<Self, SqlError> {
        let requests = Requests::new(env, Limits::default());
        let (changed, dismissed) = (watch::Sender::new(()), CancellationToken::new());
        let (env, store, queues) = (env.clone(), store.clone(), queues.clone());
        let care = Self { env, store, queues, table: Arc::default(), requests, calls, changed, dismissed };
        match care.table().await {
            Err(SqlError::Store(StoreError::DiskFull)) => {}
            made => made?,
        }
        Ok(care)
    }

    /// The requests of this node, for the program that it is part of: what that serves is asked over HTTP as well, where the type is declared here too.
    pub fn typed(&self) -> &Requests {
        &self.requests
    }

    async fn table(&self) -> Result<(), SqlError> {
        self.table.get_or_try_init(|| self.store.declare(TABLES)).await.copied()
    }

    /// Declares a type, or changes what it is: that holds for requests from then on. The same again changes nothing. A durable one has the queue of its name, which is declared
    /// where there is none.
    ///
    /// # Errors
    /// [`DeclareError::Invalid`], [`DeclareError::TooMany`], [`RequestCareError::Queue`], and the store's.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the answer, not the work.
    pub async fn declare(&self, kind: &Name, contract: Contract) -> Result<RequestType, RequestCareError> {
        contract.check()?;
        self.table().await?;
        let (max, values) = (self.requests.limits().types, values(kind, &contract)?);
        if contract.exchange == Exchange::Durable {
            // Ordering: before the type, so that whoever is told of that finds it.
            self.declare_queue(kind).await?;
        }
        let kept = self.store.transact(move |tx: &mut DynTx| {
            let values = values.clone();
            Box::pin(async move {
                let is_new = tx.room_query(ONE, &values[..1]).await?.is_empty();
                let all = tx.room_query(COUNT, &[]).await?;
                let count = all.first().and_then(|row| row.at(0).as_i64()).unwrap_or(i64::MAX);
                if is_new && usize::try_from(count).is_ok_and(|count| count >= max) {
                    return Ok::<_, SqlError>(false);
                }
                tx.room_execute(UPSERT, &values).await?;
                Ok(true)
            })
        });
        if kept.await? {
            self.changed.send_replace(());
            return Ok(RequestType { name: kind.clone(), contract });
        }
        Err(DeclareError::TooMany { max }.into())
    }

    /// Deletes a type. Its responders leave as soon as they hear of it: what they work on is unknown to its callers, and what waits has nobody. Durable requests stay in their
    /// queue, with their answers, and are there when the type is declared again.
    ///
    /// # Errors
    /// [`RequestCareError::NotFound`], and the store's.
    pub async fn delete(&self, kind: &Name) -> Result<(), RequestCareError> {
        self.table().await?;
        let name: Value = kind.as_str().into();
        let deleting = self.store.transact(move |tx: &mut DynTx| {
            let name = name.clone();
            Box::pin(async move { tx.room_execute(DELETE, &[name]).await })
        });
        if deleting.await? == 0 {
            return Err(RequestCareError::NotFound { kind: kind.clone() });
        }
        self.changed.send_replace(());
        Ok(())
    }

    /// The type of that name.
    ///
    /// # Errors
    /// [`RequestCareError::NotFound`], and the store's.
    pub async fn get(&self, kind: &Name) -> Result<RequestType, RequestCareError> {
        self.table().await?;
        let rows = self.store.room_query(ONE, vec![kind.as_str().into()]).await?;
        rows.first().map(read).transpose()?.ok_or_else(|| RequestCareError::NotFound { kind: kind.clone() })
    }

    /// At most `limit` types behind `after`, in order of their names.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<RequestType>, RequestCareError> {
        self.table().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.store.room_query(SOME, vec![after.map_or("", Name::as_str).into(), limit.into()]).await?;
        rows.iter().map(read).collect()
    }

    /// Who serves a type at this node, and what of it waits and is worked on.
    pub fn standing(&self, kind: &Name) -> Standing {
        self.requests.standing(kind)
    }

    /// What became of the requests of this node so far, and how many there are.
    pub fn counts(&self) -> Counts {
        self.requests.counts()
    }

    /// The longest body of a request or an answer, in bytes.
    pub fn max_body(&self) -> usize {
        self.requests.limits().body_bytes
    }

    /// Asks, and waits for what becomes of it until `deadline`, or as long as the type allows: the answer, or nothing where there is none to wait for.
    ///
    /// # Errors
    /// [`RequestError`]: each says whether it was done.
    ///
    /// # Cancel safety
    /// Dropping the future cancels: what nobody has begun on never is, and the responder of what was is told so.
    pub async fn ask(
        &self,
        of: &RequestType,
        body: Payload,
        deadline: Deadline,
    ) -> Result<Option<Payload>, RequestError> {
        self.requests.call(&of.name, &of.contract, body, deadline).await
    }

    /// A responder of a type, which is handed at most `window` requests at once.
    ///
    /// # Errors
    /// [`RequestCareError::NotFound`], [`DeclareError`], and the store's.
    pub async fn serve(&self, kind: &Name, window: usize) -> Result<Remote, RequestCareError> {
        self.get(kind).await?;
        Ok(self.requests.serve_elsewhere(kind, window)?)
    }

    /// Whether somebody still waited for what a responder says of a request.
    ///
    /// # Errors
    /// [`RequestCareError::NotHeld`].
    pub fn answer(&self, kind: &Name, ticket: Ticket, verdict: Verdict) -> Result<bool, RequestCareError> {
        match self.requests.answer(kind, ticket, verdict) {
            Receipt::Taken => Ok(true),
            Receipt::Late => Ok(false),
            Receipt::NotHeld => Err(RequestCareError::NotHeld { kind: kind.clone(), ticket }),
        }
    }

    /// A responder works no more on a request, and has nothing to say.
    ///
    /// # Errors
    /// [`RequestCareError::NotHeld`].
    pub fn let_go(&self, kind: &Name, ticket: Ticket) -> Result<(), RequestCareError> {
        let was_held = self.requests.let_go(kind, ticket);
        was_held.then_some(()).ok_or_else(|| RequestCareError::NotHeld { kind: kind.clone(), ticket })
    }

    /// Has nothing more asked and nothing more handed out, and returns once nobody waits for what responders work on.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait.
    pub(crate) async fn see_off(&self) {
        self.requests.see_off().await;
    }

    /// Has all responders leave.
    pub(crate) fn dismiss(&self) {
        self.dismissed.cancel();
    }

    /// Returns once responders are to leave.
    pub(crate) async fn dismissed(&self) {
        self.dismissed.cancelled().await;
    }

    /// Changes whenever a type was declared or deleted at this node.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// The columns of a type.
fn values(kind: &Name, contract: &Contract) -> Result<Arc<[Value]>, RequestCareError> {
    let (exchange, idempotent) = match contract.exchange {
        Exchange::Answer { idempotent } => (ANSWER, idempotent),
        Exchange::BestEffort => (BEST_EFFORT, false),
        Exchange::Durable => (DURABLE, false),
        _ => {
            let what =
                format!("`exchange` is {ANSWER}, {BEST_EFFORT} or {DURABLE}: what is after commit is sent to a queue");
            return Err(DeclareError::Invalid { what }.into());
        }
    };
    let nanos = i64::try_from(contract.time_limit.as_nanos()).unwrap_or(i64::MAX);
    Ok([kind.as_str().into(), exchange.into(), nanos.into(), i64::from(idempotent).into()].into())
}

fn read(row: &Row) -> Result<RequestType, RequestCareError> {
    let text = |nth| row.at(nth).as_str().unwrap_or_default();
    let idempotent = row.at(3).as_i64() == Some(1);
    let exchange = match text(1) {
        ANSWER => Some(Exchange::Answer { idempotent }),
        BEST_EFFORT => Some(Exchange::BestEffort),
        DURABLE => Some(Exchange::Durable),
        _ => None,
    };
    let nanos = row.at(2).as_i64().and_then(|nanos| u64::try_from(nanos).ok());
    let parts = exchange.zip(nanos).zip(Name::new(text(0)).ok());
    let ((exchange, nanos), name) = parts.ok_or_else(|| {
        RequestCareError::Table(format!("the row of `{}` is not one that this version writes", text(0)).into())
    })?;
    Ok(RequestType { name, contract: Contract { exchange, time_limit: Duration::from_nanos(nanos) } })
}
