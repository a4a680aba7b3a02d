//! Requests and messages without an answer: for each type it is declared whether there is an answer, for how long it is waited, and what is durable when.
//!
//! Who asks wants to know soon: what was asked for, why not, that nobody is there, or honestly that it is not known. Who only tells wants to go on, and should
//! have said beforehand whether what is told may be lost.
//!
//! *When not to use it*: where both ends need not be there at the same time and nobody wants an answer, which is a [message queue](crate::message_queue) or an [event bus](crate::event_bus).
//! Requests live in one process, but for durable ones: nothing of them is written, and none reaches another node. Callers and responders may be other
//! processes that talk to this one: [`Requests::call`] asks without Rust types, and a [`Remote`] is a responder whose answers come back under a [`Ticket`].
//!
//! # What holds
//! * **Every request has one outcome**, by its deadline at the latest: an answer, a typed [`Fault`], or a [`RequestError`] that says whether it was done.
//! * **Nobody there is said at once**, and so is that there is no place: neither waits for the deadline.
//! * **Unknown is not failed.** A request that a responder had begun on and whose time ran out, whose responder left, or whose handler panicked *may have been done*. One
//!   that nobody had begun on was not.
//! * **It is begun at most once.** Nothing is repeated by itself; what a responder was handed and never saw goes to another one.
//! * **One budget.** A deadline is a moment that is handed down; a handler's own requests spend from the same. At the deadline the handler is dropped, and so it is when
//!   the caller leaves.
//! * **Late answers** are counted ([`Counts::late`]) and thrown away; a place of a responder's window is free only when it is done or has let go.
//! * **Memory is bounded** ([`Limits`]): beyond it, requests are refused and say so.
//! * **An answer that outlives its caller**: a [`Durable`] request is a message of a queue, asked under an id. Whoever knows the id is told what became of it, in any process that
//!   has the store. It has one answer at most, written in the transaction that settles the message: a responder that dies, or whose lease ran out, leaves none.
//! * **Without an answer**, [`BestEffort`] is handed to a responder that is there or is lost and counted, and [`AfterCommit`] is a message of a queue: durable before the
//!   sender goes on, or together with the sender's transaction, and handed out until it is done.
//!
//! # Example
//! ```
//! use std::time::Duration;
//!
//! use quorate_communication::request::{Answering, Asked, Deadline, Fault, Limits, RequestError, Requests};
//! use quorate_foundations::name::Name;
//! use quorate_runtime::Env;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let requests = Requests::new(&Env::real(), Limits::default());
//! let (price, limit) = (Name::new("price")?, Duration::from_secs(60));
//! let prices = requests.declare::<String, u64>(&price, Answering { time_limit: limit, idempotent: true })?;
//!
//! let nobody = prices.request(&"tea".to_owned(), Deadline::NEVER).await;
//! assert!(matches!(nobody, Err(RequestError::NoResponder { .. })));
//!
//! let _responder = prices.respond(8, |asked: Asked<String>| async move {
//!     match asked.body.as_str() {
//!         "tea" => Ok(250),
//!         other => Err(Fault::new("not-sold", format!("there is no {other}"))),
//!     }
//! })?;
//! assert_eq!(prices.request(&"tea".to_owned(), Deadline::NEVER).await?, 250);
//! let none = prices.request(&"coal".to_owned(), Deadline::NEVER).await;
//! assert!(matches!(none, Err(RequestError::Fault { fault, .. }) if fault.code == "not-sold"));
//! # Ok(())
//! # }
//! ```
//!
//! Sources: Birrell and Nelson, "Implementing Remote Procedure Calls" (1984), section 3 on what a caller can know; Hohpe and Woolf, *Enterprise Integration Patterns* (2003),
//! "Request-Reply", "Correlation Identifier"; gRPC, "Deadlines". Ours differs from the first in that a call is not repeated until it is answered: there is no wire to lose it.

#[cfg(feature = "webhooks")]
pub mod callback;
mod contract;
mod counts;
mod durable;
mod error;
pub mod machine;
mod payload;
mod responder;
mod service;
mod types;

pub use contract::{Contract, Exchange};
pub use counts::{Counts, Limits};
pub use durable::{Durable, DurableError, DurableRequest, DurableRequests, Handed, Status};
pub use error::{DeclareError, Fault, RequestError};
pub use machine::Standing;
pub use payload::Payload;
pub use quorate_resilience::deadline::Deadline;
pub use responder::{Asked, Responder};
pub use service::{
    Requests,
    remote::{Asking, NoTicket, Remote, Ticket, Told},
};
pub use types::{AfterCommit, Answering, BestEffort, RequestType};

#[cfg(test)]
mod tests;
