//! Message queues: work that one service leaves for another, done once, in order where it matters, and never lost.
//!
//! Think of a counter with numbered slips. Whoever has work writes a slip and puts it down; whoever is free takes the
//! next one, and a note is made of who has it and since when. A slip whose taker does not come back is put down again.
//! Slips that belong together (a *group*) are taken one after the other. A slip that cannot be done after many attempts
//! goes into a drawer, with what was tried, for a person to look at: it is a *dead letter*.
//!
//! *When not to use it*: to tell everybody what happened (append an event; each reader has its own place in the log), or for
//! a history (messages are gone once they are done).
//!
//! # What holds when things go wrong
//! * **A crash at any point loses nothing that was acknowledged.** A message is durable before [`send`](Queue::send)
//!   returns; the attempt and the lease before a consumer sees the message; the acknowledgement before it is confirmed.
//!   What was handed out and not settled is handed out again with a higher attempt. So a message whose consumer dies with
//!   it each time ends as a dead letter, like any other that fails.
//! * **Done exactly once**: a consumer that does its work in a transaction and settles the message in it
//!   ([`ack_in`](Queue::ack_in)) has both or neither. Of two consumers that believe they hold a message, one settles it;
//!   the transaction of the other rolls back with [`LeaseLost`](QueueError::LeaseLost). Other consumers must be idempotent.
//! * **Sent exactly once**: a message's source and id are remembered per queue, for [`Config::dedupe`] after it was sent
//!   and for as long as it is in the queue, dead letters included. Messages sent in a transaction
//!   ([`send_in`](Queue::send_in)) are there if it commits, and not otherwise.
//! * **Order**: messages of a group are handed out in the order of sending, one at a time, whatever fails; a dead letter
//!   holds its group back until somebody decides what becomes of it, and holds back nobody else. Without a group: the
//!   higher priority, then the older message first, as far as consumers and failures allow.
//! * **Clocks**: leases, delays and times to live are judged by the boot clock, so that setting the wall clock neither ends a
//!   lease nor holds a message. A restart lets every lease run its full time again; what rests then rests for what is left
//!   by the wall clock, but never longer than it was told to.
//! * **Handlers** that a pool calls ([`work`](Queue::work)) hold their message for as long as they run. One that fails, panics or
//!   takes too long has used up an attempt; draining takes nothing more, waits, and gives back what is not done in time.
//! * **By the clock** ([`schedule`](Queue::schedule)): one message for each moment of a cron pattern, whatever dies or is set in between; what could
//!   not be sent in time is left out, made up for once, or all, as the schedule says. **One at a time** ([`unique`](method@NewMessage::unique)): of a
//!   key at most one message waits or is worked on.
//! * **Nobody polls**, but for several processes on one store (a query each tenth of a second while somebody waits, and one in five
//!   seconds for schedules). A queue that nobody waits for has no task and no timer; whoever waits is woken by the message, or
//!   by the one moment at which time changes something. All schedules of a store together have one timer.
//!
//! * **Several processes** on a store that they share: all of this holds of them together. Each decides in memory, and what it
//!   decided is written only if nobody else was first; a process that stands still finds its claims refused. A limit of messages is
//!   held by what each has heard of.
//!
//! # How it is kept
//! A message is a row, and who has it another, small one; what is ready and when is kept in memory and read from the rows
//! when somebody first asks for something of the queue. Opening queues writes nothing, so that it goes on a full disk. All that producers and consumers of a queue ask for at once is decided in memory and written
//! in one transaction, which shares the store's commit with everybody else's. See ADR 21, 24 and, for several processes, 31.
//!
//! # Where ours differs
//! From SQS FIFO queues: a dead letter keeps its place in its group; ids are remembered until the message is done,
//! however long that takes. From RabbitMQ: attempts are counted durably before delivery, there are no channels to hold
//! messages, and a restart keeps priorities. From JetStream: the dedupe window is days, and order per key survives
//! redelivery.
//!
//! # Example
//! ```
//! use quorate_communication::message_queue::{Config, NewMessage, Queues, Receive};
//! use quorate_data::{event::NewEvent, store::sqlite};
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("shop.db");
//! let store = sqlite::open(&quorate_runtime::Env::real(), sqlite::Config::at(path)).await?;
//! let mails = Queues::open(&store).await?.declare(&"mails".parse()?, Config::default()).await?;
//!
//! let due = NewEvent::new("mail-1", "/shop", "mail.due").json(&br#"{"to": "a@b.c"}"#[..]);
//! mails.send(vec![NewMessage::of(due).in_group("customer-17")]).await?;
//!
//! for delivery in mails.receive(Receive::of(10)).await? {
//!     assert_eq!((&*delivery.message.event.kind, delivery.attempt), ("mail.due", 1));
//!     mails.ack(&[delivery.lease]).await?;
//! }
//! assert_eq!(mails.describe().await?.counts.messages, 0);
//! # store.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Sources: Gray and Cheriton, "Leases" (1989); Gray, "Queues Are Databases" (1995), for keeping them in the one
//! transaction; Kleppmann, "How to do distributed locking" (2016), for fencing.

mod answer;
mod config;
mod consumer;
mod driver;
mod error;
mod lease;
pub mod machine;
mod message;
mod rows;
mod schedule;
mod service;
mod workers;

pub(crate) use answer::{Answer, Kept, Progress};
#[cfg(feature = "webhooks")]
pub(crate) use answer::{Ends, Followed, Heard};
pub use config::{Config, Rate};
pub use consumer::{Consume, Consumer};
pub use error::QueueError;
pub use lease::{Lease, LeaseError};
pub use machine::Counts;
pub use message::{Cause, DeadLetter, Delivery, Failure, Message, NewMessage, Sent};
pub use quorate_data::subscription::Backoff;
#[cfg(feature = "webhooks")]
pub(crate) use rows::callbacks;
pub(crate) use rows::{TABLES, turn::LEAVING, turn::TABLES as TURN_TABLES};
pub use schedule::{Missed, Planned, Schedule};
pub use service::{DeadLetters, Description, Queue, Queues, Receive, Selection, Summary};
pub use workers::{Failed, Job, WorkerConfig, WorkerCounts, Workers};

#[cfg(test)]
pub(crate) mod tests;
