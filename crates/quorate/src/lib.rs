//! Patterns of distributed systems as one library: rooms that share one transaction, one clock and one vocabulary.
//!
//! Picture a house. The ground floor is an append-only log with the application's own tables beside it, under one
//! transaction ([`store`]). Every other room stands on it and says what it promises when something fails. Nothing in the
//! house opens a window by itself: clocks, randomness, disk and network come in through [`Env`].
//!
//! | feature | rooms |
//! |---|---|
//! | always there | [`Env`], [`runtime`] · [`ordering`] · [`machine`], [`name`], [`time`], [`trace`] |
//! | `data` (default) | [`store`], [`event`] · [`schema`] · [`subscription`] · [`materialized_view`], [`view_row!`] |
//! | `communication` (default) | [`message_queue`] · [`request`] · [`event_bus`], [`cloud_events`] · [`transports`], [`outbox`], [`inbox`]; with `nats` and `rabbitmq` over those brokers, with `served` over a node |
//! | `consistency` (default) | [`event_sourcing`], [`event_types!`] · [`cqrs`] · [`saga`] · [`two_phase_commit`] |
//! | `webhooks` | `event_bus::webhook` |
//! | `resilience` (default) | `resilience`: a stack of policies around every call: circuit breakers, retries, timeouts, bulkheads, rate limits, fallbacks, hedges |
//! | `sim` | `sim`, `sim_test`: the same code in a world made from a seed |
//!
//! *When not to use it*: where a table and a web framework are enough. The server of the same name offers the log over
//! HTTP to programs in any language.
//!
//! # Example
//! An account whose balance is what its deposits and withdrawals add up to.
//! ```
//! use quorate::{
//!     Env,
//!     event::Version,
//!     event_sourcing::{Aggregate, Aggregates, Decider, HandleError, Metadata, Moment},
//!     event_types,
//!     store::sqlite,
//! };
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! enum Event { Deposited { cents: u64 }, Withdrawn { cents: u64 } }
//! event_types! {
//!     Event {
//!         Deposited = "account.deposited" version 1,
//!         Withdrawn = "account.withdrawn" version 1,
//!     }
//! }
//!
//! enum Command { Deposit(u64), Withdraw(u64) }
//!
//! #[derive(Debug)]
//! struct Overdrawn;
//!
//! struct Bank;
//! impl Decider for Bank {
//!     type Command = Command;
//!     type Event = Event;
//!     type State = u64;
//!     type Rejection = Overdrawn;
//!
//!     fn decide(&self, balance: &u64, command: &Command) -> Result<Vec<Event>, Overdrawn> {
//!         match *command {
//!             Command::Deposit(cents) => Ok(vec![Event::Deposited { cents }]),
//!             Command::Withdraw(cents) if cents <= *balance => Ok(vec![Event::Withdrawn { cents }]),
//!             Command::Withdraw(_) => Err(Overdrawn),
//!         }
//!     }
//!
//!     fn evolve(balance: u64, event: &Event) -> u64 {
//!         match event {
//!             Event::Deposited { cents } => balance + cents,
//!             Event::Withdrawn { cents } => balance - cents,
//!         }
//!     }
//! }
//! impl Aggregate for Bank {
//!     const CATEGORY: &'static str = "account";
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let folder = tempfile::tempdir()?;
//!     let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("bank.db"))).await?;
//!     let accounts = Aggregates::of(Bank).open(&store).await?;
//!
//!     accounts.handle("ada", Command::Deposit(100), Metadata::default()).await?;
//!     accounts.handle("ada", Command::Withdraw(30), Metadata::default()).await?;
//!     let refused = accounts.handle("ada", Command::Withdraw(71), Metadata::default()).await;
//!     assert!(matches!(refused, Err(HandleError::Rejected(Overdrawn))));
//!
//!     assert_eq!(*accounts.load("ada").await?.state, 70);
//!     assert_eq!(*accounts.at("ada", Moment::Version(Version::new(1))).await?.state, 100);
//!     store.close().await?;
//!     Ok(())
//! }
//! ```
//!
//! # What holds when things fail
//! An acknowledged append survives power loss, once, in order. A lost reply is repeated with the same ids and answered as
//! the first time. A decision that another writer overtook is made again. Each room says the rest on its own page.

pub use quorate_foundations::{document, machine, name, ordering, time, trace};
pub use quorate_runtime::{self as runtime, Env};

#[cfg(feature = "data")]
pub use quorate_data::{event, materialized_view, schema, store, subscription, view_row};

#[cfg(feature = "communication")]
pub use quorate_communication::{cloud_events, event_bus, inbox, message_queue, outbox, request, transports};

#[cfg(feature = "resilience")]
pub use quorate_resilience as resilience;

#[cfg(feature = "sim")]
pub use quorate_sim::{self as sim, sim_test};

#[cfg(feature = "consistency")]
pub use quorate_consistency::{cqrs, event_sourcing, event_types, saga, two_phase_commit};

/// The pages in `docs/patterns` promise examples that work: they run as this crate's.
#[cfg(doctest)]
mod pages {
    #[cfg(feature = "consistency")]
    #[doc = include_str!("../../../docs/patterns/event-sourcing.md")]
    pub struct EventSourcing;

    #[cfg(feature = "data")]
    #[doc = include_str!("../../../docs/patterns/materialized-view.md")]
    pub struct MaterializedView;

    #[cfg(feature = "communication")]
    #[doc = include_str!("../../../docs/patterns/message-queue.md")]
    pub struct MessageQueue;

    #[cfg(feature = "communication")]
    #[doc = include_str!("../../../docs/patterns/request-response.md")]
    pub struct RequestResponse;

    #[cfg(feature = "communication")]
    #[doc = include_str!("../../../docs/patterns/transactional-outbox.md")]
    pub struct TransactionalOutbox;

    #[cfg(feature = "communication")]
    #[doc = include_str!("../../../docs/patterns/idempotent-inbox.md")]
    pub struct IdempotentInbox;

    #[cfg(feature = "communication")]
    #[doc = include_str!("../../../docs/patterns/transports.md")]
    pub struct Transports;

    #[cfg(feature = "webhooks")]
    #[doc = include_str!("../../../docs/patterns/event-driven-architecture.md")]
    pub struct EventDriven;

    #[cfg(feature = "consistency")]
    #[doc = include_str!("../../../docs/patterns/cqrs.md")]
    pub struct Cqrs;

    #[cfg(feature = "consistency")]
    #[doc = include_str!("../../../docs/patterns/two-phase-commit.md")]
    pub struct TwoPhaseCommit;

    #[cfg(feature = "consistency")]
    #[doc = include_str!("../../../docs/patterns/saga.md")]
    pub struct Saga;

    #[cfg(feature = "resilience")]
    #[doc = include_str!("../../../docs/patterns/bulkhead.md")]
    pub struct Bulkhead;

    #[cfg(feature = "resilience")]
    #[doc = include_str!("../../../docs/patterns/timeout.md")]
    pub struct Timeout;

    #[cfg(feature = "resilience")]
    #[doc = include_str!("../../../docs/guide/policies.md")]
    pub struct Policies;

    #[cfg(feature = "resilience")]
    #[doc = include_str!("../../../docs/patterns/rate-limit.md")]
    pub struct RateLimit;

    #[cfg(feature = "resilience")]
    #[doc = include_str!("../../../docs/patterns/fallback.md")]
    pub struct Fallback;

    #[cfg(feature = "resilience")]
    #[doc = include_str!("../../../docs/patterns/hedge.md")]
    pub struct Hedge;

    #[cfg(feature = "data")]
    #[doc = include_str!("../../../docs/patterns/time-and-ordering.md")]
    pub struct TimeAndOrdering;

    #[cfg(feature = "resilience")]
    #[doc = include_str!("../../../docs/patterns/circuit-breaker.md")]
    pub struct CircuitBreaker;

    #[cfg(feature = "resilience")]
    #[doc = include_str!("../../../docs/patterns/retry.md")]
    pub struct Retry;
}
