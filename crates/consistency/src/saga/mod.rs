//! Sagas: one business transaction over several services, which always ends: done, undone, or visibly stuck with a way out.
//!
//! Think of a travel agent who books a flight, a hotel and a car for you. Each booking is made for itself, and written down before the agent
//! picks up the telephone. If the car cannot be had, hotel and flight are cancelled, the last one first. If a line goes dead in the
//! middle of a booking, the agent does not know whether it was made: he asks again under the same number, and if he gets no answer, he
//! cancels it to be sure. And when a cancellation is refused he does not give up silently, but puts the file on his manager's desk.
//!
//! * A [`Definition`] names [`Step`]s: what each does ([`Action`]), what makes up for it, and whether there is a way back behind it
//!   ([`Kind`]). A [plan](Definition::plan), a pure function of the [`Journal`], says what comes next; without one it is step after step.
//! * A step may be a saga of its own ([`Child`]), which begins with the step's record and ends the step.
//! * [`Sagas`] starts and runs them. A *local* step changes the store that keeps the saga, in one transaction with the record that it was
//!   done; a *remote* one calls anything else, under a [key](Call::key) that stays the same for ever.
//! * A [`Barrier`] makes a participant safe against calls that come twice, late, or in the wrong order.
//! * [`Verb`]s are what an operator decides about a saga that is stuck.
//! * Where nobody leads, services react to each other's events: [`choreography`] notices what does not happen.
//!
//! *When not to use it*: where one transaction in one store does ([`Store::transact`](quorate_data::store::Store::transact)); or where nobody may
//! ever see a state in between: sagas are not isolated from each other.
//!
//! # Example
//! ```
//! use std::time::Duration;
//! use quorate_consistency::saga::{Action, Config, Definition, Failure, Sagas, Status, Step};
//! use quorate_data::store::sqlite;
//! use serde_json::{Value, json};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("shop.db");
//! let store = sqlite::open(&quorate_runtime::Env::real(), sqlite::Config::at(path)).await?;
//! store.transact(|tx| Box::pin(async move {
//!     tx.execute("CREATE TABLE stock (item TEXT PRIMARY KEY, free BIGINT NOT NULL CHECK (free >= 0))", &[]).await?;
//!     tx.execute("INSERT INTO stock VALUES ('lamp', 1)", &[]).await
//! })).await?;
//!
//! let take = Action::local(|tx, call| Box::pin(async move {
//!     tx.execute("UPDATE stock SET free = free - 1 WHERE item = $1", &[call.input::<String>()?.into()]).await?;
//!     Ok(Value::Null)
//! }));
//! let put_back = Action::local(|tx, call| Box::pin(async move {
//!     tx.execute("UPDATE stock SET free = free + 1 WHERE item = $1", &[call.input::<String>()?.into()]).await?;
//!     Ok(Value::Null)
//! }));
//! let charge = Action::remote(|call| async move {
//!     // A call to the payment provider, with `call.key()` as its idempotency key.
//!     if call.id.starts_with("poor") { Err(Failure::refused("no money")) } else { Ok(json!({"receipt": call.key()})) }
//! });
//! let order = Definition::new("order".parse()?, 1)
//!     .step(Step::new("reserve", take).compensated_by(put_back))
//!     .step(Step::new("charge", charge).pivot());
//!
//! let sagas = Sagas::open(&store, Config::default()).await?;
//! sagas.define(order).await?;
//! let name = "order".parse()?;
//!
//! sagas.start(&name, "poor-1", "lamp", None).await?;
//! let ended = sagas.settled(&name, "poor-1", Duration::from_secs(10)).await?;
//! assert_eq!(ended.journal.status(), Status::Compensated, "the lamp is back");
//!
//! sagas.start(&name, "rich-1", "lamp", Some("customer-17")).await?;
//! let again = sagas.start(&name, "rich-1", "lamp", Some("customer-17")).await?;
//! assert!(again.repeated, "the same saga");
//! let ended = sagas.settled(&name, "rich-1", Duration::from_secs(10)).await?;
//! assert_eq!(ended.journal.status(), Status::Completed);
//! assert_eq!(ended.journal.output("charge"), Some(&json!({"receipt": "order/rich-1/charge/forward"})));
//! # store.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # What holds when things go wrong
//! * **A crash at any point**: the saga goes on where its journal ends. A local step was done with its record, or not at all. A remote call
//!   that was begun and has no answer is made again under its key, and counted as an attempt. What is recorded as done is never called again.
//! * **Same key, same request**: every attempt sees what the first one [saw](field@Call::journal), over restarts.
//! * **A journal that cannot be read** stops its saga, which shows as [troubled](field@Summary::trouble); its plan is not asked. Nobody else
//!   [writes there](quorate_data::store::reserved_for).
//! * **Compensation** reaches every step that was done *or may have been*, the last one first, and begins only when no forward call of the
//!   saga is under way; a call that was given up is waited for as long as it may still take effect ([`Step::quiet`]).
//! * **Sagas of steps**: one begins in the transaction of its step's record, so there is one for each attempt; that it ended is in its row for as long as the
//!   saga above has not taken it in. Nothing further up is made up for while it is open. See ADR 37.
//! * **Behind the [pivot](Kind::Pivot)** there is only forward. A pivot that nobody knows the outcome of leaves the saga stuck.
//! * **Stuck** is a state that shows in every listing. [`retry`](Verb::Retry), [`skip`](Verb::Skip),
//!   [`mark-compensated`](Verb::MarkCompensated), [`mark-refused`](Verb::MarkRefused) and [`force`](Verb::Force) are events with who and why.
//! * **One owner**: whoever has opened the store last runs its sagas. Every transition names the version and the owner that it was decided on, so that one who
//!   comes late writes nothing.
//! * **Several processes** (over PostgreSQL): each runs what was started there, and gives signs of life. One that gives none for
//!   [`takeover`](field@Config::takeover), by the clocks of those who watch, loses its sagas to them; one that was only paused finds that its late writes
//!   are refused. Whoever is told something by [`signal`](Sagas::signal) or [`operate`](Sagas::operate) takes the saga over for it. Calls that were under way are then made
//!   again under their keys, as after a crash. See ADR 33.
//! * **Starting twice** with one id starts one saga. A signal told twice under one id is told once.
//! * **Versions**: a saga keeps the version of its definition. If nobody registers that version the saga waits, and shows as stalled.
//! * **Clocks**: rests, timers and deadlines go by the boot clock. A restart lets them run for what is left by the wall clock, but never longer than
//!   they were told to at once; quiet times run in full again.
//!
//! # Where ours differs
//! From workflows as code: a plan is asked what comes next, and is not replayed, so there is no history that a deployment has to fit. Steps
//! and plan of a version must still not change while sagas of it run, and nothing notices if they do. From other engines: a
//! step in the same store is not called *and* recorded, but one transaction. Not there yet: continuing as a new saga.
//!
//! Sources: Garcia-Molina and Salem, "Sagas" (1987); Richardson, "Microservices Patterns" (2018), chapter 4; the sub-transaction barrier of DTM. See ADR 26.

mod awaited;
mod barrier;
pub mod choreography;
mod config;
pub mod courses;
pub mod declared;
mod definition;
mod error;
mod event;
mod journal;
pub mod machine;
mod owners;
mod rows;
mod runner;
mod service;
mod turn;
mod value;

pub use awaited::{Awaited, Awaiting};
pub(crate) use barrier::TABLES as BARRIER_TABLES;
pub use barrier::{Barrier, Entered};
pub use config::Config;
pub use definition::{Action, Answer, Call, Child, Definition, Kind, Next, Output, Plan, Step, Todo};
pub use error::SagaError;
pub use event::{ChildRef, Direction, Failure, Happened, Leg, Outcome, Parent, Planned, Verb};
pub use journal::{Journal, Phase, Progress, Signal, State, Status, StepRecord};
pub use machine::{Operation, Refusal};
pub(crate) use owners::TABLES as OWNER_TABLES;
pub use rows::Above;
pub(crate) use rows::TABLES;
pub use service::{Counts, Description, Sagas, Search, Started, Summary};

#[cfg(test)]
mod tests;
