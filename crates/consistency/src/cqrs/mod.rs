//! CQRS: one way in for changes, another way in for questions.
//!
//! Think of a library. At the desk a librarian takes requests one by one, checks the rules and writes in the ledger; in the
//! hall there are catalogues by author, by subject and by shelf, made from the ledger, and anybody may look into them without
//! queueing. A catalogue may be a moment behind the ledger. Whoever has just returned a book carries a slip that says how far
//! the ledger was, and can wait at the catalogue until it has come so far.
//!
//! * [`Commands`] is the desk. A command is carried out, or [rejected](CommandError::Rejected) by a rule of the domain, which
//!   is an answer, or it [fails](CommandError::Failed), which is none. Each carries an [idempotency key](Key): repeated, it is
//!   answered as the first time, rejections included. Each answer carries a token, also where nothing was written.
//! * [`Questions`] are the catalogues: [views](quorate_data::materialized_view), asked by key, with a typed
//!   [`Question`]. They hold no handle to the log and no transaction, so a question cannot change anything, and waits for no
//!   writer. With a token it waits for the view, up to a deadline, and is otherwise told how far the view is.
//!
//! *When not to use it*: where one model answers both well. Two models are two things to keep in agreement.
//!
//! # Under failure
//! * **A lost reply, a crash at any moment**: repeat the command with its key. The answer is kept in the transaction that
//!   carried it out, so it was either both or neither.
//! * **The same key for another command** is refused: [`CommandError::KeyReused`]. The events of the first one know what it asked
//!   for, so this outlives its [kept answer](Config::keep_answers); see [`Commands::send_with`] for the exception.
//! * **A question that cannot wait any longer** is told [`Behind`](quorate_data::materialized_view::ViewError::Behind) with
//!   the position that was reached: repeat the question, never the command.
//! * **A data subject is erased**: all [kept answers](Commands) are forgotten before the erasure is answered. A command that wrote
//!   events is known all the same; what was rejected is decided anew.
//! * **A restored backup**: a token of the time before is an error, not an endless wait.
//!
//! # Example
//! ```
//! use std::time::Duration;
//! use quorate_consistency::{cqrs::{CommandError, Commands, Config, Key, Question, Questions}, event_sourcing::{Aggregate, Aggregates, Decider}, event_types};
//! use quorate_data::{event::Recorded, materialized_view::{self, Fold, Folded, Freshness, Views}, store::{Query, QueryItem, Row, Value, sqlite}, view_row};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Serialize, Deserialize)]
//! enum Event { Lent { to: String }, Returned }
//! event_types! { Event { Lent = "book.lent" version 1, Returned = "book.returned" version 1 } }
//!
//! #[derive(Serialize)]
//! enum Command { Lend { to: String }, Return }
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct LentAlready;
//!
//! struct Desk;
//! impl Decider for Desk {
//!     type Command = Command;
//!     type Event = Event;
//!     type State = Option<String>;
//!     type Rejection = LentAlready;
//!     fn decide(&self, lent: &Option<String>, command: &Command) -> Result<Vec<Event>, LentAlready> {
//!         match (command, lent) {
//!             (Command::Lend { .. }, Some(_)) => Err(LentAlready),
//!             (Command::Lend { to }, None) => Ok(vec![Event::Lent { to: to.clone() }]),
//!             (Command::Return, Some(_)) => Ok(vec![Event::Returned]),
//!             (Command::Return, None) => Ok(vec![]),
//!         }
//!     }
//!     fn evolve(_: Option<String>, event: &Event) -> Option<String> {
//!         match event { Event::Lent { to } => Some(to.clone()), Event::Returned => None }
//!     }
//! }
//! impl Aggregate for Desk { const CATEGORY: &'static str = "book"; }
//!
//! view_row! {
//!     /// A book that is out.
//!     pub struct Out in "out" { /** Which. */ pub book: String, /** When it left, as a position. */ pub since: i64 }
//! }
//! struct Catalogue;
//! impl Fold for Catalogue {
//!     const NAME: &'static str = "books-out";
//!     const VERSION: u32 = 1;
//!     type Row = Out;
//!     fn query(&self) -> Query { Query::of([QueryItem::categories(["book"])]) }
//!     fn key(&self, event: &Recorded) -> Option<String> { Some(event.stream().to_owned()) }
//!     fn fold(&self, _: Option<Out>, event: &Recorded) -> Result<Option<Out>, String> {
//!         let since = event.position().get() as i64;
//!         Ok((event.kind() == "book.lent").then(|| Out { book: event.stream().to_owned(), since }))
//!     }
//! }
//!
//! struct HowManyAreOut;
//! impl Question for HowManyAreOut {
//!     const VIEW: &'static str = "books-out";
//!     type Answer = i64;
//!     fn sql(&self) -> &str { "SELECT count(*) FROM {out}" }
//!     fn answer(&self, rows: &[Row]) -> Option<i64> { rows.first()?.at(0).as_i64() }
//! }
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("library.db");
//! let store = sqlite::open(&quorate_runtime::Env::real(), sqlite::Config::at(path)).await?;
//! let views = Views::open(&store).await?;
//! views.start(Folded::new(Catalogue), materialized_view::Config::default()).await?;
//! let desk = Commands::open(Aggregates::of(Desk).open(&store).await?, Config::default()).await?;
//! let questions = Questions::of(&views);
//!
//! let lent = desk.send("17", Command::Lend { to: "ada".into() }, &Key::new("req-1")?).await?;
//! let fresh = Freshness { at_least: Some(lent.token), wait: Duration::from_secs(10), ..Freshness::default() };
//! assert_eq!(questions.ask(&HowManyAreOut, fresh).await?.answer, 1);
//!
//! let again = desk.send("17", Command::Lend { to: "ada".into() }, &Key::new("req-1")?).await?;
//! assert!(again.repeated && again.token == lent.token);
//! let refused = desk.send("17", Command::Lend { to: "bob".into() }, &Key::new("req-2")?).await;
//! assert!(matches!(refused, Err(CommandError::Rejected { rejection: LentAlready, .. })));
//! # store.close().await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Sources: Young, "CQRS Documents" (2010); Terry et al., "Session Guarantees for Weakly Consistent Replicated Data" (1994),
//! for reading one's writes. Ours differs from most frameworks in that the answer to a command is kept with what it did, a
//! rejection's as well, and that its token stands for an append and not for "the head of the log": it waits for nobody else.

mod commands;
mod config;
mod error;
mod kept;
mod key;
mod questions;

pub use commands::{Commands, Receipt};
pub use config::Config;
pub use error::{CommandError, SetupError};
pub(crate) use kept::TABLES;
pub use key::{Key, KeyError};
pub use questions::{Answered, AskError, Question, Questions};

#[cfg(test)]
mod tests;
