//! Two-phase commit: several databases or services change together, or not at all.
//!
//! Picture a notary. Two parties sign, each bound by its signature from then on; the notary enters the contract in the register, and
//! with that line it is in force, whoever falls ill on the way home. What is not in the register never was, however many have signed.
//! If the notary dies, whoever takes the register over reads it, and tells everybody who is still waiting.
//!
//! *When not to use it*: first, for anything a saga can do. Who has promised holds locks until it hears how it ends, and while the coordinator
//! is away nobody can tell it. Use this for few participants that you own, and for work that takes milliseconds.
//!
//! # What holds when things go wrong
//! * **All or nothing.** What is decided is done by every participant, and what is not is done by none, whoever dies when: the decision
//!   is durable before anybody is told to commit. What has no decision in the log is aborted.
//! * **A coordinator that dies** is taken over by opening its name again. What was prepared ends at once, as it was decided. What it was
//!   replaced for stays so: the log itself refuses a late decision of the one before ([`TxnError::Fenced`]).
//! * **Several coordinators of one name** ([`Config::takeover`]), in as many processes, begin transactions beside each other. One that is dead, or stands still,
//!   is fenced by another, which ends what it left: the log decides between a late decision and the fence, so nobody is told two endings.
//! * **A participant that dies** comes back with what it promised, and is told until it confirms. One that does not vote in time has the transaction
//!   aborted; never after the decision.
//! * **Unknown is an answer** ([`Ended::Unknown`]): where the log does not say whether it took the decision. It is asked until it does.
//! * **The log is never held**: events that belong to a transaction are appended by the append that decides it. Whatever is in doubt, appends go on.
//! * **Once under a name** ([`Coordinator::begin`]): whoever asks again under it is told what became of the first, also after a crash.
//! * **Others' transactions are left alone**: only gids of this coordinator are looked for, and ended; after a restore of its store not even those of
//!   before.
//! * **Nothing is hidden.** What is in doubt is listed with its age and its locks ([`Coordinator::in_doubt`]); ending it by hand is recorded before it is done
//!   ([`Coordinator::resolve`]), and so is a participant that had ended it otherwise.
//!
//! # How it is kept
//! A transaction is a stream, `txn-<gid>`, with `quorate.txn.prepared` and `quorate.txn.decided` in one append: one durable write stands between the last
//! vote and the first commit. Aborts write nothing, and neither does a participant that takes part alone. See ADR 27, and ADR 36 for several coordinators.
//!
//! # Where ours differs
//! From X/Open XA: no record when a transaction begins, or ends; participants say what they hold when they are asked. From presumed abort (Mohan and
//! Lindsay): no list of participants is forced before the decision. A participant in an embedded store ([`Embedded`]) keeps its promise as a reservation in rows,
//! which others see.
//!
//! # Example
//! Money goes from one store to another.
//! ```
//! use std::sync::Arc;
//! use quorate_consistency::two_phase_commit::{
//!     Config, Coordinator, Embedded, Ended, SqlResource, SqlWork, Statement, Transaction,
//! };
//! use quorate_data::store::sqlite;
//! use quorate_runtime::Env;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let at = |name: &str| sqlite::Config::at(folder.path().join(name));
//! let env = Env::real();
//! let coordinator = Coordinator::open(&sqlite::open(&env, at("log.db")).await?, Config::default()).await?;
//! for bank in ["left", "right"] {
//!     let store = sqlite::open(&env, at(bank)).await?;
//!     store.transact(|tx| Box::pin(async move {
//!         tx.execute("CREATE TABLE account (owner TEXT PRIMARY KEY, total BIGINT NOT NULL, free BIGINT NOT NULL)", &[]).await?;
//!         tx.execute("INSERT INTO account VALUES ('ada', 100, 100)", &[]).await
//!     })).await?;
//!     let participant = Embedded::open(&store, &"bank".parse()?, Arc::new(SqlResource)).await?;
//!     coordinator.register(bank.parse()?, Arc::new(participant))?;
//! }
//!
//! let takes = SqlWork::default()
//!     .prepare(Statement::of("UPDATE account SET free = free - $1 WHERE owner = 'ada' AND free >= $1").with(30).changing(1))
//!     .commit(Statement::of("UPDATE account SET total = total - $1 WHERE owner = 'ada'").with(30))
//!     .abort(Statement::of("UPDATE account SET free = free + $1 WHERE owner = 'ada'").with(30));
//! let gives = SqlWork::default()
//!     .prepare(Statement::of("UPDATE account SET total = total WHERE owner = 'ada'").changing(1))
//!     .commit(Statement::of("UPDATE account SET total = total + $1, free = free + $1 WHERE owner = 'ada'").with(30));
//! let transfer = Transaction::new().with("left".parse()?, takes.work()?).with("right".parse()?, gives.work()?);
//!
//! let receipt = coordinator.run(transfer.clone()).await?;
//! assert_eq!(receipt.ended, Ended::Committed);
//! for _ in 0..2 {
//!     coordinator.run(transfer.clone()).await?;
//! }
//! assert!(matches!(coordinator.run(transfer).await?.ended, Ended::Aborted { .. }), "only 10 are left");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Sources: Gray, "Notes on Data Base Operating Systems" (1978); Mohan, Lindsay and Obermarck, "Transaction Management in the R* Distributed Database
//! Management System" (1986), for presumed abort; Bernstein, Hadzilacos and Goodman (1987), chapter 7; O'Neil, "The Escrow Transactional Method" (1986).

mod addresses;
mod branch;
mod config;
pub mod crashes;
mod embedded;
mod error;
mod gid;
pub mod http;
mod ledger;
mod log;
pub mod machine;
mod orders;
mod participant;
mod postgres;
mod requests;
mod service;
mod sql;
mod standing;

pub use config::{Answer, Config};
pub(crate) use embedded::TABLES;
pub use embedded::{Embedded, Reserved, Resource, SqlResource, Unprepared};
pub use error::TxnError;
pub use gid::{CoordinatorId, Gid, GidError, TxnId};
pub use http::{Http, NotSent};
pub use ledger::{Ledger, Promise, Promised};
pub use log::{Ending, Heuristic, Record};
pub use orders::Order;
pub use participant::{Participant, ParticipantError, Prepared, Vote, Work, WorkError};
pub use postgres::{Postgres, PostgresConfig};
pub use requests::{Request, RequestId, Requested};
pub(crate) use service::SIGN_TABLES;
pub use service::{Coordinator, Counts, Doubt, Ended, Receipt, Resolution, Standstill, Swept, Transaction};
pub use sql::{Param, SqlWork, Statement};

#[cfg(test)]
mod tests;
