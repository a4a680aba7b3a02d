//! Transports: messages between services over the embedded store, NATS JetStream or RabbitMQ, with one meaning.
//!
//! A post office has a counter for letters in and boxes to fetch them from, whatever is behind the wall: a cellar, a railway.
//! A [`Transport`] is that counter. A service writes to a [`Topic`]; each *group* of the topic has a box of its own that gets
//! every letter, and the group's members empty it together. Letters with the same key leave the box in the order in which
//! they came in, one at a time.
//!
//! *When not to use it* directly: to tell others what a transaction did, let a [`Relay`](crate::outbox::Relay) publish, and to act on what came, let an
//! [`Inbox`](crate::inbox::Inbox) receive. Between parts of one service a [queue](crate::message_queue) or a subscription needs no transport.
//!
//! # What holds, whatever the broker
//! * **A confirmed message stays until every group has acknowledged it**, through restarts of the broker. What a confirm is worth when the
//!   machine loses its power is said by [`Capabilities::confirms`].
//! * **An answer that is lost is [`Unknown`](PublishError::Unknown)**, neither yes nor no. Publish again under the same id: receivers tell copies by
//!   [identity](Incoming::identity). Brokers that drop copies do so for a [while](Capabilities::dedupe), as an optimisation.
//! * **What is full refuses** ([`Full`](PublishError::Full)), and what nobody would get is refused as well ([`Unroutable`](PublishError::Unroutable)); nothing is dropped in silence.
//! * **At least once**: a message that is not acknowledged comes again, [flagged](Incoming::redelivered), when its hold ends, is given back, or its
//!   receiver is gone.
//! * **Order per key**: of a key one message at a time is out, also over redeliveries. A message that comes as a copy, because its confirm was lost,
//!   comes behind its first copy, and may come behind younger ones of its key.
//! * **Clocks**: what our side waits for goes by the environment; brokers judge holds by their own.
//!
//! | | embedded, or a node over HTTP | NATS JetStream | RabbitMQ |
//! |---|---|---|---|
//! | a topic is | a name | a stream, a subject per partition | a direct exchange |
//! | a group is | a message queue | a durable consumer per partition | a quorum queue per partition |
//! | a confirm means | synced | written; synced within minutes | synced by a majority |
//! | a hold ends | after [`Topic::hold`] | after [`Topic::hold`] | with the connection |
//!
//! The embedded transport is for one process, or for several over one PostgreSQL database. Other processes reach the same queues at the address of the
//! node that serves them (`http://host:7400`, with the feature `served`).
//!
//! # Example
//! ```
//! use quorate_communication::{message_queue::Queues, transports::{Embedded, Outgoing, Topic, Transport}};
//! use quorate_data::{event::NewEvent, store::sqlite};
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("bus.db");
//! let store = sqlite::open(&quorate_runtime::Env::real(), sqlite::Config::at(path)).await?;
//! let bus = Embedded::new(&store, Queues::open(&store).await?);
//!
//! let orders = Topic::new("orders".parse()?);
//! let mut billing = bus.join(&orders, &"billing".parse()?).await?;
//! let placed = NewEvent::new("e-1", "/shop", "order.placed").json(&br#"{"total": 17}"#[..]);
//! for outcome in bus.publish(&orders, vec![Outgoing::new("order-17", placed)]).await {
//!     outcome?;
//! }
//! let delivery = billing.next().await?;
//! assert_eq!((&*delivery.message.event.kind, &*delivery.message.key), ("order.placed", "order-17"));
//! delivery.ack().await?;
//! # store.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Sources: Hohpe and Woolf, "Enterprise Integration Patterns" (2003), Message Channel, Publish-Subscribe Channel, Guaranteed Delivery. See ADR 29.

mod address;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
mod binding;
pub mod conformance;
mod embedded;
mod error;
mod faulty;
mod message;
#[cfg(feature = "nats")]
mod nats;
mod port;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "served")]
mod served;
mod topic;

pub use address::{Address, AddressError, connect};
pub use embedded::Embedded;
pub use error::{PublishError, TransportError};
pub use faulty::{Faults, Faulty};
pub use message::{Delivery, Incoming, Outgoing};
pub(crate) use message::{fitting, under_its_own_id};
pub use port::{Capabilities, Confirmed, Confirms, Hold, Holds, Receiver, Transport};
pub use topic::{Label, LabelError, Topic};
