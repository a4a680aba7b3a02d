//! Subscriptions: following the log, alone or as a group, without missing anything.
//!
//! Imagine the log as a serial novel. A [`CatchUp`] reader has a bookmark of its own: it reads what has appeared, and
//! when it reaches the last page it waits for the next one to be printed. A durable [`Subscription`] is a reading group
//! with one bookmark: its members share the pages out among themselves, each hands in what it has finished, and the
//! bookmark moves over everything that is done. Of one storyline (a *key*) only one page at a time is out, so that
//! nobody reads the end before the beginning; other storylines go on meanwhile.
//!
//! | | [`CatchUp`] | [`Subscription`] |
//! |---|---|---|
//! | bookmark | the reader's own | in the store, under a name |
//! | order | of the log, or of the stream | of each key ([`OrderKey`]) |
//! | consumers | one | any number, also in several processes |
//! | delivery | each event once per reader | at least once, with its attempts counted |
//! | memory | one page | the window |
//!
//! *When not to use it*: for work that others assign (use a message queue), or a view of the log (use a projection,
//! which stores its own checkpoint beside what it wrote).
//!
//! # What holds when things go wrong
//! * **A crash at any point loses nothing.** A lease and its attempt are durable before the event leaves, an
//!   acknowledgement before it is confirmed. What was handed out and not settled is handed out again with a higher
//!   attempt, so handlers must be idempotent, or settle in the transaction of their work
//!   ([`ack_in`](Subscription::ack_in)).
//! * **A consumer that pauses beyond its lease** is told [`LeaseLost`](SubscriptionError::LeaseLost) once its event was
//!   handed to someone else, and its transaction rolls back: fences decide, not clocks. Until then nobody else holds the
//!   event, and it may still settle it.
//! * **Clocks**: an expiry is judged by the observer's boot clock, since it first saw the lease in its present form. A
//!   new process lets every lease run its full time again. The wall clock and the database's clock decide nothing.
//! * **A poisonous event** is parked after its last attempt; what follows in its key is parked behind it, in order, and
//!   other keys go on. Replaying a key hands its events out in order.
//! * **Several processes** on one store: each keeps the machine in memory and writes through; a revision on the
//!   subscription's row is the compare-and-set. Whoever finds that another was first reloads the rows and decides anew.
//!   A partition that heals late finds another revision, and writes nothing.
//!
//! # Why the machine is in memory, written through
//! On the embedded store one process owns all subscriptions, so its memory is as good as the rows and a pull costs one
//! small transaction. On a shared database the same code stays right, because memory is only ever a guess: every write
//! names the revision it is based on, every row of an event is replaced only in the version it was read in, and a reply
//! leaves after the commit. What several processes cost is reloading, which the window bounds. Deciding in SQL alone
//! would need no reload, but a pass over the window for every pull on the one thread that writes.
//!
//! # Where ours differs
//! From KurrentDB's persistent subscriptions: order per key is kept, also over retries and parking. From Axon's sequenced
//! dead letters: the parked events of a key and its order are rows of the subscription itself, and the checkpoint does
//! not wait for them. From SQS FIFO queues: a lease that expired is still good while nobody else was given the event.
//!
//! # Example
//! ```
//! use quorate_data::{event::NewEvent, store::{AppendBatch, ExpectedVersion, sqlite}};
//! use quorate_data::subscription::{Config, Pull, Subscriptions};
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("shop.db");
//! let store = sqlite::open(&quorate_runtime::Env::real(), sqlite::Config::at(path)).await?;
//! let billing = Subscriptions::open(&store).await?.create(&"billing".parse()?, Config::default()).await?;
//!
//! let placed = NewEvent::new("e-1", "/shop", "order.placed");
//! store.append(AppendBatch::to("order-17".parse()?, ExpectedVersion::Any, vec![placed])).await?;
//!
//! for delivery in billing.pull(Pull::of(10).by("worker-3")).await? {
//!     assert_eq!((delivery.event.kind(), delivery.attempt), ("order.placed", 1));
//!     billing.ack(&[delivery.lease]).await?;
//! }
//! assert_eq!(billing.describe().await?.lag_events, 0);
//! # store.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Sources: Gray and Cheriton, "Leases" (1989); Kleppmann, "How to do distributed locking" (2016), for fencing; the
//! sequenced dead-letter queue of Axon Framework.

mod catch_up;
mod config;
mod driver;
mod error;
mod forget;
mod lease;
pub mod machine;
mod rows;
mod service;

pub use catch_up::{Batch, CatchUp, Cursor, Signal};
pub use config::{Backoff, Config, OrderKey, Start};
pub use error::SubscriptionError;
pub use lease::{Claim, Lease, LeaseError};
pub use machine::{Cause, Counts, Failure, Key, Selection, Stall};
pub(crate) use rows::TABLES;
pub use service::{Delivery, Description, ParkedEvent, Pull, Subscription, Subscriptions, Summary};

#[cfg(test)]
mod tests;
