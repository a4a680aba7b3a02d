//! Connections to a participant's database: so many at most, each with the statements it knows.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quorate_data::store::{StoreError, postgres};
use quorate_runtime::Env;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{Client, Error, SimpleQueryMessage, Statement as Ready};

use super::{PostgresConfig, wire::said};
use crate::two_phase_commit::{ParticipantError, sql::Statement};

/// The most statements that a connection keeps.
const MAX_KNOWN: usize = 256;

/// The connections.
pub(super) struct Connections {
    env: Env,
    config: PostgresConfig,
    idle: Mutex<Vec<Session>>,
    permits: Arc<Semaphore>,
}

struct Session {
    client: Client,
    known: BTreeMap<Arc<str>, Ready>,
}

/// A connection that is in use. Unless it is [kept](Self::keep) it ends with this, and what was begun on it with it, but for what
/// is prepared.
pub(super) struct Lease {
    session: Option<Session>,
    home: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    pub(super) fn new(env: &Env, config: PostgresConfig) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(config.connections.max(1)));
        Arc::new(Self { env: env.clone(), config, idle: Mutex::default(), permits })
    }

    /// A connection of one's own, once there is one.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease, ParticipantError> {
        let closed = |_| ParticipantError::Failed { what: "its connections are closed".to_owned() };
        let permit = self.permits.clone().acquire_owned().await.map_err(closed)?;
        let idle = std::iter::from_fn(|| self.idle().pop()).find(|session| !session.client.is_closed());
        let session = match idle {
            Some(session) => session,
            None => self.begin().await?,
        };
        Ok(Lease { session: Some(session), home: self.clone(), _permit: permit })
    }

    async fn begin(&self) -> Result<Session, ParticipantError> {
        let failed = |cause: &StoreError| ParticipantError::Failed { what: cause.to_string() };
        let client = postgres::connect(&self.env, &self.config.address).await.map_err(|cause| failed(&cause))?;
        let limit = self.config.statement_timeout.as_millis().clamp(1, 1 << 30);
        let begin = format!(
            "SET statement_timeout = {limit}; SET lock_timeout = {limit};
             SET idle_in_transaction_session_timeout = {limit}; SHOW max_prepared_transactions"
        );
        let answers =
            client.simple_query(&begin).await.map_err(|failed| ParticipantError::Failed { what: said(&failed) })?;
        let most = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        if most == Some("0") {
            let what = "max_prepared_transactions is 0 on the server: set it to as many as are under way at a time \
                        (ALTER SYSTEM SET max_prepared_transactions = 64) and restart the server";
            return Err(ParticipantError::Unsuitable { what: what.to_owned() });
        }
        Ok(Session { client, known: BTreeMap::new() })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Gives it back for others: no transaction is open on it.
    pub(super) fn keep(mut self) {
        if let Some(session) = self.session.take().filter(|session| !session.client.is_closed()) {
            self.home.idle().push(session);
        }
    }

    /// The statements as the server has read them.
    pub(super) async fn ready(&mut self, statements: &[Statement]) -> Result<Vec<Ready>, Error> {
        let Session { client, known } =
            self.session.as_mut().unwrap_or_else(|| unreachable!("it is taken when the lease ends"));
        let mut all = Vec::with_capacity(statements.len());
        for statement in statements {
            let ready = match known.get(&statement.sql) {
                Some(ready) => ready.clone(),
                None => {
                    let ready = client.prepare(&statement.sql).await?;
                    if known.len() >= MAX_KNOWN {
                        known.clear();
                    }
                    known.insert(statement.sql.clone(), ready.clone());
                    ready
                }
            };
            all.push(ready);
        }
        Ok(all)
    }
}

impl Deref for Lease {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.session.as_ref().unwrap_or_else(|| unreachable!("it is taken when the lease ends")).client
    }
}
