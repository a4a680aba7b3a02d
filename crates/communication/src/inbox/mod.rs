//! The inbox: what others publish takes effect here once, in order, and what cannot be handled is set aside in sight.
//!
//! A clerk who opens letters enters each one's number in the ledger in the same stroke of the pen that does what it says, so that a letter that
//! comes twice is recognised. A letter that nobody can make sense of goes into a tray beside the desk, with a note, and later letters of the same correspondent are
//! put below it, in order, until somebody has looked. Letters of others go on.
//!
//! An [`Inbox`] receives from a [`Transport`](crate::transports::Transport) and calls a handler *inside a transaction* of the consumer's store, in which the message's
//! identity is recorded as well. Then it acknowledges.
//!
//! *When not to use it*: where handling a message means calling somebody else and nothing is written here. Take the message as a task: have the handler send it to a
//! [queue](crate::message_queue), in its transaction, and do the work there.
//!
//! # What holds when things go wrong
//! * **The effect is exactly once per identity** (CloudEvents `source` and `id`, and the aggregate where one is named), whatever is delivered how often, by whatever broker, for as long as
//!   ids are [kept](InboxConfig::keep), counted from the last copy. The effect is what the handler wrote in its transaction.
//! * **A crash at any point**: before the commit nothing was done, and the message comes again; behind it, the message comes again and is known.
//! * **Order per key**: as the transport hands messages out, and over parking and replay as well: behind a parked message its key is parked, in order.
//! * **Poison**: a message that fails for the last time is parked with its failures. One whose handler ends the process is parked as well: from its second delivery on,
//!   an attempt is written down before it is made, and nothing else is handled until it is known what came of it, so that no other is charged. A store
//!   that refuses to write counts for no attempt: the message is held.
//! * **A message that waits for its turn is held** for as long as that takes, and while it is handled.
//! * **What the broker gives up on**, by rules of its own, is brought into the same list of parked messages.
//! * **An erasure finds** what is kept of messages about a data subject, also of those that cannot be read. Data about one that cannot be named is not kept.
//! * **Parked messages are lost to nobody**: they and their identities are kept until somebody replays or discards them. When there are
//!   [too many](InboxConfig::max_parked), further ones stay with the broker, and hold their keys back there.
//!
//! # Example
//! ```
//! use quorate_communication::{
//!     inbox::{Inbox, InboxConfig},
//!     message_queue::Queues,
//!     transports::{Embedded, Outgoing, Topic, Transport},
//! };
//! use quorate_data::{event::NewEvent, store::sqlite};
//! # use std::sync::Arc;
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("billing.db");
//! let store = sqlite::open(&quorate_runtime::Env::real(), sqlite::Config::at(path)).await?;
//! store.transact(|tx| Box::pin(async move { tx.execute("CREATE TABLE billed (id TEXT)", &[]).await })).await?;
//! let bus: Arc<dyn Transport> = Arc::new(Embedded::new(&store, Queues::open(&store).await?));
//! let topic = Topic::new("orders".parse()?);
//!
//! let config = InboxConfig::of(topic.clone(), "billing".parse()?);
//! let inbox = Inbox::start(&store, bus.clone(), config, |tx, message| {
//!     Box::pin(async move {
//!         tx.execute("INSERT INTO billed (id) VALUES ($1)", &[(&*message.event.id).into()]).await?;
//!         Ok(())
//!     })
//! }).await?;
//!
//! for _copy in 0..2 {
//!     let placed = NewEvent::new("e-1", "/shop", "order.placed");
//!     bus.publish(&topic, vec![Outgoing::new("order-17", placed)]).await.remove(0)?;
//! }
//! inbox.settled(1).await;
//! let rows = store.query("SELECT count(*) FROM billed", vec![]).await?;
//! assert_eq!(rows[0].at(0).as_i64(), Some(1));
//! inbox.stop().await;
//! # store.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Sources: Hohpe and Woolf, "Enterprise Integration Patterns" (2003), Idempotent Receiver; the sequenced dead-letter queue of Axon Framework. See ADR 29.

mod config;
mod error;
mod handling;
mod receiving;
mod replay;
mod rows;
mod service;

pub use crate::message_queue::Failed;
pub use config::InboxConfig;
pub use error::InboxError;
pub use replay::{Replayed, Selection};
pub use rows::Parked;
pub(crate) use rows::TABLES;
pub use service::{Description, Inbox, InboxCounts, Standing};

#[cfg(test)]
mod tests;
