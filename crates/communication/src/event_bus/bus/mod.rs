//! Publish and subscribe: typed events, and handlers in groups that share them.
//!
//! Think of a newsroom's wire. Whoever has news puts it on the wire once, under its subject; each desk reads the wire from where it
//! left off, and within a desk the news are shared out, those of one story always to be told in their order. A desk that opened later
//! can read the old reels; one that never learnt the new spelling is read the news in the old.
//!
//! The wire is the log, a desk is a durable [`subscription`](quorate_data::subscription). This room adds types, versions, and what a
//! request brings along: who asked, for whom, in which trace.
//!
//! *When not to use it*: where one service leaves work for another (a [message queue](crate::message_queue)), or for a read model (a
//! view, which keeps its place beside its rows).
//!
//! # What holds when things go wrong
//! * **Published means committed.** [`publish_in`](Bus::publish_in) appends in the caller's transaction: the work and its events are there
//!   together, or neither is. There is no outbox, since there is nothing between.
//! * **Each group hears each event at least once**, those of a key one at a time and in order ([`OrderKey`](super::OrderKey)); of
//!   `Unordered` groups, and of no others, consumers compete without order. A handler that settles in the transaction of its work
//!   ([`Heard::ack_in`]) does it exactly once.
//! * **Versions side by side**: a handler names the version of the event that it reads. What is stored in another one is brought there by
//!   [upcasters](quorate_data::schema::upcast), up and then down. Where no way leads there, or an upcaster fails or panics, the event is
//!   parked with its key, and says why; it is never skipped.
//! * **A handler that fails, panics or takes longer than its lease** uses up an attempt; after the last one the event is parked with its key,
//!   and other keys go on.
//! * **Data that is gone** (retired or erased) can be told to nobody: such an event is passed over, and counted.
//!
//! # Example
//! ```
//! use quorate_communication::event_bus::{Bus, Context, Event, Handlers, Heard};
//! use quorate_data::{store::sqlite, subscription::{Config, Subscriptions}};
//! use quorate_runtime::Env;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct OrderPlaced { cents: u64 }
//! impl Event for OrderPlaced {
//!     const TYPE: &'static str = "order.placed";
//! }
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let (env, folder) = (Env::real(), tempfile::tempdir()?);
//! # let path = folder.path().join("shop.db");
//! let store = sqlite::open(&env, sqlite::Config::at(path)).await?;
//! let bus = Bus::new(&store, &Subscriptions::open(&store).await?, "/shop");
//!
//! let (tell, mut told) = tokio::sync::mpsc::channel(1);
//! let handlers = Handlers::default().on(move |heard: Heard<OrderPlaced>| {
//!     let tell = tell.clone();
//!     async move {
//!         let who = heard.context().user.clone();
//!         tell.send((who, heard.event().cents)).await?;
//!         Ok(())
//!     }
//! });
//! let config = Config { filter: handlers.filter(&bus), ..Config::default() };
//! let billing = bus.group(&"billing".parse()?, config).await?;
//! env.tasks().spawn("billing", billing.serve(handlers, env.clone()));
//!
//! let context = Context::default().by("ada");
//! bus.publish(&"order-17".parse()?, &[OrderPlaced { cents: 1250 }], &context).await?;
//! assert_eq!(told.recv().await, Some((Some("ada".into()), 1250)));
//! # env.tasks().shut_down().await;
//! # store.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Sources: Hohpe and Woolf, *Enterprise Integration Patterns* (2003), "Publish-Subscribe Channel", "Competing Consumers", "Message
//! Sequence", "Correlation Identifier"; Young, *Versioning in an Event Sourced System* (2016).

mod context;
mod error;
mod event;
mod group;
mod handlers;
mod publish;

pub use context::Context;
pub use error::{BusError, PublishError};
pub use event::Event;
pub use group::{Group, GroupCounts};
pub use handlers::{Handlers, Heard};
pub use publish::Bus;

#[cfg(test)]
mod tests;
