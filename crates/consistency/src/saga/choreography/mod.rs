//! Choreography: a saga that nobody leads. Services react to each other's events; a declared process notices what does not happen.
//!
//! Think of a relay race without a coach. Each runner watches for the one before, runs, and hands on. It is quick, and nobody stands in the middle; but when a
//! runner falls, the next one goes on waiting, and nobody says a word. So somebody stands at the side with the plan of the race and a watch: who
//! hands on to whom, by when, and where the race is over. He carries no baton. He calls out which one is missing, once, and draws who handed on to whom.
//!
//! * A [`Process`] says which events begin and end a course, by what its events [belong together](By), and what is
//!   [expected](Process::expect) behind what, and within which time. It is written in Rust, or as a [`Document`].
//! * [`Processes`] follows the log. What is overdue is an event itself, [`OVERDUE`], in the stream `process-<name>`: it names the exact edge, behind
//!   which event which others did not come.
//! * A *process manager* ([`Process::react`]) answers events with others, or with anything else that a transaction can do.
//! * A [`Graph`] shows what led to what.
//!
//! *When not to use it*: where the order of steps matters, is long, or changes: a [saga](super::Sagas) says it in one place, and undoes it by itself. Here each service has
//! to know on its own what makes up for what it did.
//!
//! # Example
//! ```
//! use std::time::Duration;
//! use quorate_consistency::saga::choreography::{Process, Processes, Reacted, Standing};
//! use quorate_data::{event::NewEvent, store::{AppendBatch, ExpectedVersion, sqlite}};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("shop.db");
//! let store = sqlite::open(&quorate_runtime::Env::real(), sqlite::Config::at(path)).await?;
//! let order = Process::new("order".parse()?)
//!     .begins(&["order.placed"])
//!     .expect("order.placed", &["payment.taken", "payment.refused"], Duration::from_secs(900))
//!     .ends(&["payment.taken"])
//!     .undone(&["order.cancelled"])
//!     // The confirmation is out, and no mail comes back: what makes up for it is another mail.
//!     .react("mails", "payment.refused", &["order.cancelled"], |_tx, reacting| Box::pin(async move {
//!         let notice = NewEvent::new("", "/shop", "order.cancelled").about(&*reacting.key);
//!         Ok(Reacted::default().append("mails".parse().unwrap(), notice))
//!     }));
//! let processes = Processes::open(&store).await?;
//! processes.declare(order).await?;
//!
//! let placed = NewEvent { correlation_id: Some("17".into()), ..NewEvent::new("e-1", "/shop", "order.placed") };
//! let refused = NewEvent { correlation_id: Some("17".into()), causation_id: Some("e-1".into()), ..NewEvent::new("e-2", "/bank", "payment.refused") };
//! store.append(AppendBatch::to("order-17".parse()?, ExpectedVersion::Any, vec![placed, refused])).await?;
//!
//! // The notice is in the log, and the process has followed the log to it.
//! processes.watch(&"order".parse()?)?.wait_for(|position| position.get() == 3).await?;
//! let course = processes.look(&"order".parse()?, "17").await?;
//! assert_eq!(course.course.standing, Standing::Undone);
//! let tree = processes.graph(&"order".parse()?, "17").await?.tree();
//! assert_eq!(tree, "order 17: undone\n  order.placed  order-17 @1\n    payment.refused  order-17 @2\n      order.cancelled  mails @3\n");
//! # store.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # What holds when things go wrong
//! * **A crash at any point**: how far the log was followed, what became of each course, what process managers changed and appended, and what was told to be overdue
//!   are one transaction. It goes on where that was.
//! * **Overdue is told once** for each thing expected, and only if the log holds no answer at that moment: the transaction that tells it has looked. An answer that comes
//!   after it sets the course right again.
//! * **Events in any order**: an answer that comes before the question is kept for it (one for each expectation). One that comes again, by `source` and `id`, in whatever
//!   stream, changes nothing as long as the course is [kept](Process::keep). An answer is told from a cause by `causationid`. What comes behind the end is counted, shown in the graph, and reacted to by nobody.
//! * **A process manager that fails** stops the course that it failed in, with the reason; [`STOPPED`] is told once, and other courses go on. What
//!   the log refuses to be told (a schema for it, a tombstone on the stream) is not told; the course says it all the same. Where the store is in the
//!   way, it is tried again.
//! * **A stopped course** stays stopped until somebody has it [go on](Processes::resume): what stopped it, and what came since, is taken in then and reacted to,
//!   in one transaction with [`RESUMED`], which says who wanted it. If it would be stopped again, nothing changes. However long that takes: it is
//!   forgotten with its process only.
//! * **The stream `process-<name>`** is the process's alone: nobody else [appends to it](quorate_data::store::reserved_for).
//! * **Circles**: reactions that lead back to themselves, also over several processes, are refused with the way; only what is declared to emit something may.
//!   What others do is not ours to refuse: a course whose chain of causes gets too [deep](Process::chain), comes to one type too often, or has more than
//!   [so many events](Process::MAX_EVENTS), is stopped, and our process managers with it.
//! * **Clocks**: a time runs from when the store recorded the event, by the boot clock from when it was taken in; a wall clock that is set forward between the two is
//!   taken for time that passed. A restart lets it run for what is left by the wall clock, and never
//!   longer than it was to at once.
//! * **One at a time**: whoever writes names the revision that it knows; who comes late writes nothing.
//! * **Whoever declares, takes back or has a course go on may leave** in the middle: it is done to its end, and whatever comes of it, what stays declared is followed.
//! * **A busy log**: overdue is told in a moment in which nothing of the process is missing. While its events come faster than they are taken in there is none.
//! * **What is kept**: courses, for [some time](Process::keep) behind their end, or their last event where they never began; those that never end stay, stopped ones too. Keys and attributes of events, never their data. A key that is found in data about a data subject is not taken.
//!
//! # Where ours differs
//! From process managers of other frameworks: a timeout is not a message that is sent to oneself and comes though nobody waits any more, but a row that
//! goes away with what it waits for. Not there yet: stores that several processes write to.
//!
//! Sources: Hohpe and Woolf, "Enterprise Integration Patterns" (2003), for the process manager; Richardson, "Microservices Patterns" (2018), chapter 4, for both
//! ways to coordinate a saga. See ADR 32.

mod cycle;
mod definition;
mod document;
mod error;
mod follower;
mod graph;
pub mod machine;
mod rows;
mod service;
mod turn;
mod watched;

pub use definition::{By, Expectation, Process, ReactError, Reacted, Reacting, Reaction, Start};
pub use document::Document;
pub use error::ProcessError;
pub use graph::{Graph, Missing, Node};
pub use machine::{Course, Pending, Seen, Standing};
pub use rows::Summary;
pub(crate) use rows::TABLES;
pub use service::Processes;
pub use turn::{OVERDUE, RESUMED, SOURCE, STOPPED, Tally};
pub use watched::{Counts, Declared, Description, Looked, Overview, Search};
