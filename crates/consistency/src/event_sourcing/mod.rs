//! Event sourcing: what happened is written down, and what is, is worked out from it.
//!
//! Think of a bank book. Nobody stores the balance; there are only deposits and withdrawals, and the balance is what they
//! add up to. Whoever wants to withdraw adds them up, looks whether the rule allows it, and writes the next line, unless
//! somebody else wrote that line first: then he adds up again. Nothing is ever overwritten, so any earlier balance can
//! be worked out as well as today's.
//!
//! * A [`Decider`] holds the rules: `decide` (state and command to events, or a rejection) and `evolve` (state and event
//!   to state), both pure. [`given`] tests them without a store.
//! * [`Aggregates`] runs a decider whose boundary is one stream ([`Aggregate`]): states kept in memory, snapshots,
//!   repetition on conflict, commands that can be repeated, [time travel](Moment).
//! * [`Decisions`] runs a decider whose boundary is a query over the whole log ([`DynamicBoundary`]).
//! * [`event_types!`](crate::event_types) ties an enum to type names, versions and tags.
//!
//! *When not to use it*: for data that nobody will ask the history of, or whose rules are no more than "a row has these
//! columns". Use a table in the same store.
//!
//! # Example
//! ```
//! use quorate_consistency::{event_sourcing::{Aggregate, Aggregates, Decider, HandleError, Metadata, Moment}, event_types};
//! use quorate_data::{event::Version, store::sqlite};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
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
//! #[derive(Clone, Default, Serialize)]
//! struct Account { balance: u64 }
//!
//! #[derive(Debug, PartialEq)]
//! struct Overdrawn;
//!
//! struct Bank;
//!
//! impl Decider for Bank {
//!     type Command = Command;
//!     type Event = Event;
//!     type State = Account;
//!     type Rejection = Overdrawn;
//!
//!     fn decide(&self, account: &Account, command: &Command) -> Result<Vec<Event>, Overdrawn> {
//!         match *command {
//!             Command::Deposit(cents) => Ok(vec![Event::Deposited { cents }]),
//!             Command::Withdraw(cents) if cents <= account.balance => Ok(vec![Event::Withdrawn { cents }]),
//!             Command::Withdraw(_) => Err(Overdrawn),
//!         }
//!     }
//!
//!     fn evolve(account: Account, event: &Event) -> Account {
//!         match event {
//!             Event::Deposited { cents } => Account { balance: account.balance + cents },
//!             Event::Withdrawn { cents } => Account { balance: account.balance - cents },
//!         }
//!     }
//! }
//!
//! impl Aggregate for Bank {
//!     const CATEGORY: &'static str = "account";
//! }
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("bank.db");
//! let store = sqlite::open(&quorate_runtime::Env::real(), sqlite::Config::at(path)).await?;
//! let accounts = Aggregates::of(Bank).open(&store).await?;
//!
//! accounts.handle(17, Command::Deposit(100), Metadata::default()).await?;
//! let withdrawn = accounts.handle(17, Command::Withdraw(30), Metadata::command("w-1")).await?;
//! assert_eq!((withdrawn.version, withdrawn.state.balance), (Version::new(2), 70));
//!
//! let again = accounts.handle(17, Command::Withdraw(30), Metadata::command("w-1")).await?;
//! assert!(again.repeated && again.version == withdrawn.version, "a repeated command is answered, not carried out");
//!
//! let refused = accounts.handle(17, Command::Withdraw(71), Metadata::default()).await;
//! assert!(matches!(refused, Err(HandleError::Rejected(Overdrawn))));
//!
//! let before = accounts.at(17, Moment::Version(Version::new(1))).await?;
//! assert_eq!(before.state.balance, 100);
//! # store.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Under failure
//! * **Two writers at once**: one is decided anew, against what the other wrote; [`HandleError::Contended`] after
//!   [`Config::attempts`].
//! * **A lost reply, a crash after the append**: repeat the command with its id.
//! * **A crash between append and snapshot**: an older snapshot, a longer tail, the same state.
//! * **`evolve` changed**: snapshots with another fingerprint are discarded ([`Snapshotted`]).
//! * **A truncated stream**: the state is the fold of what is left, so write an event that makes the state whole before
//!   truncating up to it ("closing the books"). States kept in memory, which hold more, go on being used until their
//!   place is needed or the stream is read again; such an event makes both the same.
//! * **A boundary with holes**: what [`Decisions`] should look at and was truncated or archived refuses the decision, unless
//!   [`Config::forgotten_events`] says otherwise.
//! * **An erased subject**: its events are left out of states from then on. Nothing that encrypted events flowed into is
//!   ever kept in a snapshot, and an erasure drops all states from memory. `evolve` must bear that events are missing.
//!
//! Sources: Young, "CQRS Documents" (2010); Chassaing, "Functional Event Sourcing Decider" (2021); the DCB
//! specification, <https://dcb.events/specification/>. Ours differs in that a snapshot must prove, by fingerprint and hash
//! chain, that it is of this fold and this history, and in that a "no" is given only against a state that is current.

mod cache;
mod config;
mod decider;
mod diff;
mod dynamic;
mod error;
mod event;
mod fold;
mod given;
mod handling;
mod log;
mod metadata;
mod payload;
mod reader;
mod service;
mod setup;
mod shell;
mod snapshot;
mod time_travel;

pub use config::{Config, ForgottenEvents, Statistics, UnknownEvents};
pub use decider::{Aggregate, Decider, DynamicBoundary};
pub use diff::{Change, difference};
pub use dynamic::{Decided, Decisions};
pub use error::{HandleError, LoadError, SetupError, TimeTravelError, Undecodable};
#[doc(hidden)]
pub use event::check_enum;
pub use event::{DomainEvent, EventType};
pub use given::{Given, When, given};
pub use metadata::{Loaded, Metadata, Outcome};
#[doc(hidden)]
pub use payload::{decode_variant, encode_variant};
#[doc(hidden)]
pub use serde_json::Error as JsonError;
pub use service::Aggregates;
pub use setup::Builder;
pub use snapshot::Snapshotted;
pub(crate) use snapshot::TABLES;
pub use time_travel::Moment;

#[cfg(test)]
mod tests;
