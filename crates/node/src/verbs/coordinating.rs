//! Transactions that the node coordinates itself: begun under names of their callers, among services, databases and its own log.

mod line;

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_communication::event_bus::webhook::{Allowed, Calls, Forbidden};
use quorate_consistency::two_phase_commit::{
    self, Coordinator, Ended, Http, Ledger, Participant, ParticipantError, Postgres, Request, RequestId, Requested,
    TxnError,
};
use quorate_data::store::{Store, StoreError};
use quorate_foundations::name::Name;
use quorate_resilience::policy::Registry;
use quorate_runtime::Env;

use self::line::Line;
use super::Transactions;
use crate::config::TransactionConfig;

/// How long to wait before the coordinator is opened once more.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked at least whether a transaction has ended that somebody waits for.
const LOOK: Duration = Duration::from_secs(1);
/// Transactions that have not ended, at most.
const OPEN: usize = 1_000;
/// Transactions whose end one participant has not confirmed, at most.
const OPEN_OF_ONE: usize = 250;

/// The node's own coordinator. Cheap to clone; clones are the same.
///
/// It is opened when it is first needed: by a transaction, or when the node starts where something may be left of an earlier one.
#[derive(Clone)]
pub struct Coordinating {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    env: Env,
    transactions: Transactions,
    registry: Registry,
    config: TransactionConfig,
    allowed: Allowed,
    /// None once the node stops: kept connections end with their client, and the node waits for all of them.
    calls: Mutex<Option<Calls>>,
    /// Whoever has it may open the coordinator, or change who takes part.
    opened: tokio::sync::Mutex<Option<Coordinator>>,
}

/// Why an address is none of a participant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is no address of a service.
    #[error("`{address}` is no address of a participant: it {why}")]
    Invalid {
        /// The address.
        address: String,
        /// Why.
        why: &'static str,
    },
    /// The configuration does not allow it.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
}

impl Coordinating {
    /// Transactions that have not ended, at most.
    pub const MAX_OPEN: usize = OPEN;
    /// Transactions whose end one participant has not confirmed, at most.
    pub const MAX_OPEN_OF_ONE: usize = OPEN_OF_ONE;
    /// The most bytes of a document that begins one.
    pub const MAX_DOCUMENT_BYTES: usize = 512 << 10;
    /// The longest address of a participant, in bytes.
    pub const MAX_ADDRESS_BYTES: usize = Name::MAX_BYTES;

    /// That of a node over `store`, whose participants are called by `calls`, and through the policies of `registry`.
    pub(crate) fn new(
        store: &Store,
        transactions: &Transactions,
        (calls, registry): (Calls, Registry),
        config: TransactionConfig,
    ) -> Self {
        let shared = Shared {
            store: store.clone(),
            env: store.env().scope("participants"),
            transactions: transactions.clone(),
            registry,
            config,
            allowed: calls.allowed().clone(),
            calls: Mutex::new(Some(calls)),
            opened: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The name of its coordinator in the store's log.
    fn name() -> Name {
        Name::new("node").unwrap_or_else(|_| unreachable!("it is a name"))
    }

    /// Goes on where an earlier process stopped: what is in doubt is ended as it was decided. Until that could be begun it is tried
    /// again, and the node serves everything else.
    pub(crate) async fn run(self, env: Env) {
        let stop = env.tasks().stop().clone();
        loop {
            match self.resume().await {
                Ok(()) => return,
                // It is opened only where one was opened once: the store was moved here.
                Err(TxnError::Store(cause @ StoreError::Unsupported { .. })) => {
                    tracing::error!(
                        %cause,
                        "transactions were coordinated over this store before it was moved: what participants still hold is ended by nobody"
                    );
                    return;
                }
                Err(cause) => {
                    tracing::warn!(%cause, "transactions in doubt cannot be looked after yet; it is tried again");
                }
            }
            if stop.run_until_cancelled(env.sleep(AGAIN)).await.is_none() {
                return;
            }
        }
    }

    async fn resume(&self) -> Result<(), TxnError> {
        if Ledger::of(&self.shared.store).has_coordinator(&Self::name()).await? {
            self.opened().await?;
        }
        Ok(())
    }

    /// The coordinator, opened if it is not, and opened anew where somebody took over from it.
    async fn opened(&self) -> Result<Coordinator, TxnError> {
        let mut opened = self.shared.opened.lock().await;
        self.open(&mut opened).await
    }

    async fn open(&self, opened: &mut Option<Coordinator>) -> Result<Coordinator, TxnError> {
        if let Some(coordinator) = opened.as_ref().filter(|coordinator| !coordinator.is_fenced()) {
            return Ok(coordinator.clone());
        }
        let shared = &self.shared;
        shared.store.require(|can| !can.several_writers, "coordinate transactions of the node")?;
        let config = two_phase_commit::Config {
            name: Self::name(),
            prepare_timeout: shared.config.prepare_timeout,
            call_timeout: shared.config.call_timeout,
            max_unfinished: OPEN,
            max_unfinished_of_one: OPEN_OF_ONE,
            ..two_phase_commit::Config::default()
        };
        // Ordering: nobody takes over for nothing where they cannot be read.
        let services = Ledger::of(&shared.store).participants().await?;
        let coordinator = Coordinator::open(&shared.store, config).await?;
        for (name, database) in &shared.config.databases {
            match Postgres::new(&shared.env, database.clone()) {
                Ok(database) => coordinator.register(name.clone(), Arc::new(database))?,
                Err(cause) => tracing::error!(participant = %name, %cause, "a database cannot take part"),
            }
        }
        for address in services {
            match self.service(&address) {
                Ok(service) => coordinator.register(address, service)?,
                Err(cause) => tracing::error!(participant = %address, %cause, "a service cannot take part"),
            }
        }
        shared.transactions.attach(&coordinator);
        *opened = Some(coordinator.clone());
        Ok(coordinator)
    }

    fn service(&self, address: &Name) -> Result<Arc<dyn Participant>, ParticipantError> {
        let line = Line::new(&self.shared, address.as_str())?;
        Ok(Arc::new(Http::new(line, address.as_str())?))
    }

    /// The name of the participant at `address`, if it may be one: without a slash at its end, the host in small letters, and without the port
    /// that its scheme has anyway.
    ///
    /// # Errors
    /// [`AddressError`]. What a name leads to is judged when it is called.
    pub fn address(&self, address: &str) -> Result<Name, AddressError> {
        let invalid = |why| AddressError::Invalid { address: address.chars().take(100).collect(), why };
        let trimmed = address.trim_end_matches('/');
        Name::check(trimmed).map_err(|_| invalid("has 1 to 512 bytes"))?;
        let uri: http::Uri = trimmed.parse().map_err(|_| invalid("is not such as `http://host:port/path`"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(invalid("begins with `http://` or `https://`"));
        }
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| invalid("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("holds a user's name, which does not belong there"));
        }
        if authority.as_str().len() > authority.host().len() && authority.port_u16().is_none() {
            return Err(invalid("has a port that cannot be"));
        }
        if uri.query().is_some() || trimmed.contains('#') {
            return Err(invalid("has a query or a fragment"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if let Ok(literal) = host.parse::<IpAddr>() {
            self.shared.allowed.check(literal)?;
        }
        let (scheme, usual) = if uri.scheme_str() == Some("https") { ("https", 443) } else { ("http", 80) };
        let port = authority.port_u16().filter(|port| *port != usual).map(|port| format!(":{port}"));
        let (host, path) = (authority.host().to_ascii_lowercase(), uri.path().trim_end_matches('/'));
        let named = format!("{scheme}://{host}{}{path}", port.unwrap_or_default());
        Name::new(named).map_err(|_| invalid("has 1 to 512 bytes"))
    }

    /// What became of what was begun under that name with that digest; none where nothing was. It is asked before anything is refused: what was begun
    /// stays so, whatever the settings, or what is open by now, would say of it.
    ///
    /// # Errors
    /// As [`Coordinator::begun`].
    ///
    /// # Cancel safety
    /// As [`settled`](Self::settled).
    pub async fn begun(&self, id: &RequestId, digest: &[u8; 32]) -> Result<Option<Requested>, TxnError> {
        self.opened().await?.begun(id, digest).await
    }

    /// Carries out a transaction once under its name; `services` are those of its participants that are known by their addresses.
    ///
    /// # Errors
    /// As [`Coordinator::begin`]; [`TxnError::TooManyParticipants`] where so many services are known.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the transaction.
    pub async fn begin(&self, request: Request, services: &[Name]) -> Result<Requested, TxnError> {
        match self.begin_once(request.clone(), services).await {
            // Nothing was begun, and the next one is opened.
            Err(TxnError::Fenced) => self.begin_once(request, services).await,
            told => told,
        }
    }

    async fn begin_once(&self, request: Request, services: &[Name]) -> Result<Requested, TxnError> {
        let coordinator = {
            let mut opened = self.shared.opened.lock().await;
            let coordinator = self.open(&mut opened).await?;
            // Ordering: nobody is known for the sake of what is refused.
            coordinator.admits(&request, services)?;
            let new: Vec<Name> = services.iter().filter(|one| !coordinator.has(one)).cloned().collect();
            let lines = new.iter().map(|one| self.service(one)).collect::<Result<Vec<_>, _>>();
            let lines = lines.map_err(|cause| TxnError::Invalid { what: cause.to_string() })?;
            // Ordering: in the log before they are asked for anything.
            Ledger::of(&self.shared.store).add_participants(&new).await?;
            for (service, line) in new.into_iter().zip(lines) {
                coordinator.register(service, line)?;
            }
            coordinator
        };
        coordinator.begin(request).await
    }

    /// What became of a transaction that was begun under that name, once it has ended or `patience` is over; none where none was begun.
    ///
    /// # Errors
    /// [`TxnError::Store`] where the log does not say.
    ///
    /// # Cancel safety
    /// Cancel safe: it changes nothing, but that what can never be decided any more is written down as aborted.
    pub async fn settled(&self, id: &RequestId, patience: Duration) -> Result<Option<Requested>, TxnError> {
        let (store, env) = (&self.shared.store, &self.shared.env);
        let mut moves = store.watch_stream(&id.stream());
        let until = env.mono() + patience;
        loop {
            moves.mark_unchanged();
            let found = self.requested(id).await?;
            let rest = until.saturating_since(env.mono()).min(LOOK);
            let is_open = found.as_ref().is_some_and(|found| found.ended == Ended::Unknown);
            if !is_open || rest.is_zero() {
                return Ok(found);
            }
            if let Some(Err(_)) = env.timeout(rest, moves.changed()).await {
                env.sleep(rest).await;
            }
        }
    }

    async fn requested(&self, id: &RequestId) -> Result<Option<Requested>, TxnError> {
        let opened = self.shared.opened.lock().await.clone();
        match opened {
            Some(coordinator) => coordinator.requested(id).await,
            None => Ledger::of(&self.shared.store).requested(id).await,
        }
    }

    /// Who may take part, and whether it is a database of the configuration; the others are services, known by their addresses.
    ///
    /// # Errors
    /// [`TxnError::Store`] where that cannot be read.
    pub async fn participants(&self) -> Result<Vec<(Name, bool)>, TxnError> {
        let services = Ledger::of(&self.shared.store).participants().await?;
        let databases = self.shared.config.databases.iter().map(|(name, _)| (name.clone(), true));
        Ok(databases.chain(services.into_iter().map(|name| (name, false))).collect())
    }

    /// Whether the settings name a database so.
    pub fn is_database(&self, participant: &Name) -> bool {
        self.shared.config.databases.iter().any(|(name, _)| name == participant)
    }

    /// Takes a service away that will not come back. Who does and why is written down. Whether it was there: a database of the settings is none.
    ///
    /// # Errors
    /// [`TxnError::InUse`] where it takes part in something that has not ended, or holds something.
    pub async fn remove(&self, participant: &Name, by: &str, why: &str) -> Result<bool, TxnError> {
        let mut opened = self.shared.opened.lock().await;
        let coordinator = self.open(&mut opened).await?;
        let ledger = Ledger::of(&self.shared.store);
        if self.is_database(participant) || !ledger.participants().await?.contains(participant) {
            return Ok(false);
        }
        coordinator.remove(participant)?;
        let removed = ledger.remove_participant(participant, by, why).await;
        // Where it may be in the log or not it stays away: whoever names it next writes it down if need be.
        if removed.as_ref().is_err_and(|failed| !failed.is_outcome_unknown())
            && let Ok(line) = self.service(participant)
        {
            coordinator.register(participant.clone(), line)?;
        }
        removed
    }

    /// Begins nothing more, and waits until nothing of it runs. What has not ended is ended by whoever opens the store next.
    pub(crate) async fn shut_down(&self) {
        let opened = self.shared.opened.lock().await.take();
        if let Some(coordinator) = opened {
            coordinator.close().await;
        }
        drop(self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
