//! The outbox: what a transaction did is told to others exactly as if telling were part of it.
//!
//! A clerk does not run to the post office in the middle of signing a contract. The contract goes into the file; a messenger
//! walks along the file, carries a copy of each to the post office, and moves his bookmark once he holds the receipt. If he is
//! hit by a cart on the way, the next one begins at the bookmark. Here the file is the log, the messenger a [`Relay`], and the post office a
//! [`Transport`](crate::transports::Transport): there is no table of things to send, and nothing is written twice.
//!
//! *When not to use it*: for readers of the same store (follow the log), or for commands to one service (send to a
//! [queue](crate::message_queue)).
//!
//! # What holds when things go wrong
//! * **Every event that matches is published, and none that was rolled back.** The bookmark moves over an event when the broker has
//!   confirmed it, and is durable.
//! * **Order per key**: of a key, the next event is published when the one before it is confirmed. Keys go side by side. An event that is parked, or
//!   that nobody would get, stops its key and no other.
//! * **Copies**: a confirm that was lost, a crash between confirm and bookmark, a relay that paused beyond its lease: then an event is published once more,
//!   under the same id. Of each key the first copies are in order; an [`Inbox`](crate::inbox::Inbox) drops the others.
//! * **A broker that is away or slow** holds the relay as a whole, and costs no attempt: the events are given back, and it tries again after a rest that grows to
//!   [`RelayConfig::longest_rest`]. **What is full** holds the events that it refused, up to half of the subscription's window, and no others; it keeps them while it rests, and drops what another relay has all the same. What it waits for is shown ([`Relay::describe`]).
//! * **An event that no broker takes** (too large, personal) is parked with its reason, with what is behind it in its key, and can be
//!   [replayed](quorate_data::subscription::Subscription::replay). One that nobody would get is tried again, and parked after its last attempt.
//! * **Two relays of the same name**, in two processes that cannot see each other, hand the events out to each other under fences: none is skipped.
//!
//! * **A relay that is [paused](Relay::pause)** publishes nothing until it is resumed, also after a restart, and in every process that shares the store. What it
//!   has published by then is settled; the rest waits.
//!
//! # What is written on the envelope
//! The event as a CloudEvent, and the headers of Debezium's outbox router: `id`, `type`, `aggregatetype` (the stream's category), `aggregateid` (the rest of its
//! name). The payload is the event's data. See ADR 29.
//!
//! # Example
//! ```
//! use quorate_communication::{
//!     message_queue::Queues,
//!     outbox::{Relay, RelayConfig},
//!     transports::{Embedded, Topic, Transport},
//! };
//! use quorate_data::{event::NewEvent, store::{AppendBatch, ExpectedVersion, sqlite}};
//! # use std::sync::Arc;
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("shop.db");
//! let store = sqlite::open(&quorate_runtime::Env::real(), sqlite::Config::at(path)).await?;
//! let bus: Arc<dyn Transport> = Arc::new(Embedded::new(&store, Queues::open(&store).await?));
//! let topic = Topic::new("orders".parse()?);
//! let mut billing = bus.join(&topic, &"billing".parse()?).await?;
//!
//! let relay = Relay::start(&store, &"to-billing".parse()?, bus, RelayConfig::to(topic)).await?;
//! let placed = NewEvent::new("e-1", "/shop", "order.placed");
//! store.append(AppendBatch::to("order-17".parse()?, ExpectedVersion::Any, vec![placed])).await?;
//!
//! let delivery = billing.next().await?;
//! assert_eq!((&*delivery.message.event.id, &*delivery.message.key), ("e-1", "order-17"));
//! delivery.ack().await?;
//! relay.stop().await;
//! # store.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Sources: Richardson, "Microservices Patterns" (2018), Transactional outbox and Transaction log tailing; Debezium, "Outbox Event Router".

mod config;
mod envelope;
mod held;
mod pause;
mod relay;
mod service;

pub use config::{RelayConfig, RelayError, Route};
pub use pause::Paused;
pub(crate) use pause::TABLES;
pub use service::{Description, Relay, RelayCounts, Standing};

#[cfg(test)]
mod tests;
