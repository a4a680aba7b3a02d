//! The catalogue of events: which types the log holds, who sends them, and which schemas they say they follow.
//!
//! Think of a library's card index. Nobody wrote the cards when the books were printed; a librarian goes along the shelves, and whenever
//! somebody asks, he first goes on from where he stopped, for a moment, and says how far he has come. A shelf is walked once.
//!
//! *When not to use it*: to find events (that is a [query](quorate_data::store::Query) of the log), or to count them to the second: the
//! index is as new as the last question.
//!
//! # What holds when things go wrong
//! * **Counted once.** What was counted and how far was read commit together, and whoever finds that another process was first goes on
//!   from there. A process that dies in between has counted nothing of that page.
//! * **It costs who asks**, not who appends: nothing reads the log a second time behind your back. One question reads at most
//!   [`MAX_LOOK`](Catalogue::MAX_LOOK) events on; [`Reach`] says what is still to be read.
//! * **Bounded**: at most [`MAX_TYPES`](Catalogue::MAX_TYPES) types and [`MAX_CARDS`](Catalogue::MAX_CARDS) pairs of schema and source of
//!   each have a card, in tables of the store, and a page of them is in memory. What comes beyond is counted and not named.
//! * **Events that are gone** (truncated, archived, erased) stay counted: their attributes stay, and they were sent.
//!
//! # Example
//! ```
//! use quorate_communication::event_bus::catalogue::Catalogue;
//! use quorate_data::{event::NewEvent, store::{AppendBatch, ExpectedVersion, sqlite}};
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("shop.db");
//! let store = sqlite::open(&quorate_runtime::Env::real(), sqlite::Config::at(path)).await?;
//! let placed = NewEvent::new("e-1", "/shop", "order.placed");
//! store.append(AppendBatch::to("order-17".parse()?, ExpectedVersion::Any, vec![placed])).await?;
//!
//! let catalogue = Catalogue::new(&store);
//! assert!(catalogue.look().await?.is_all());
//! let placed = catalogue.get("order.placed").await?.expect("it was appended");
//! assert_eq!((placed.events, placed.producers[0].source.as_str()), (1, "/shop"));
//! # store.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Sources: Hohpe and Woolf, *Enterprise Integration Patterns* (2003), "Message Store"; AsyncAPI 3.0, whose documents are made of it; ADR 30.

mod rows;
mod service;
mod tally;

pub(crate) use rows::TABLES;
pub use service::{Catalogue, CatalogueError, Followed, Producer, Reach, Seen};

#[cfg(test)]
mod tests;
