//! Reading a view: rows by key, page by page, by SQL.
//!
//! A reader is shown one build, as of one moment: which build is live, how far it is, and its rows are read in one read
//! transaction, on a connection that only reads. So an answer never mixes two builds, and the position it comes with is
//! exact: the rows are the fold of the log up to there.
//!
//! | file | holds |
//! |---|---|
//! | `table` | the tables of a build and the types of their columns |
//! | `condition`, `order`, `cursor`, `page` | a page of a table: filter, order, where the next one begins |
//! | `statement` | SQL over the view's tables by their own names |
//! | `limits`, `reading` | what a query may take, and the one way in which all of them are answered |
//!
//! # Limits
//! Nobody's query stands in anybody's way: it holds no lock that a writer wants, runs away from the async threads, and is
//! stopped when it takes more time, rows, bytes or memory than [`QueryLimits`] allow, or when whoever asked has gone. How many
//! run at once is bounded as well; the others wait for their turn as long as one may take, and are refused then.
//!
//! # Pages
//! A page ends with a [cursor](RowsQuery::after): the values of the order's columns in its last row, not a count of rows. So
//! a row that is written in between moves nothing, and a deep page costs what the first one does. Rows are in one order
//! only: the key, or without one the order of insertion, comes last in every order. A cursor is good for the query and the
//! code that made it; for another version of the view it is refused, since its columns may mean something else.

mod condition;
mod cursor;
mod limits;
mod order;
mod page;
mod reading;
mod statement;
mod table;

pub use condition::{Condition, Test};
pub(super) use cursor::digest;
pub(super) use limits::Gate;
pub use limits::{Freshness, QueryLimits};
pub use order::{Direction, OrderBy};
pub use page::RowsQuery;
pub(super) use page::{named, page_of};
pub use reading::{Answer, AnswerColumn, AsOf};
pub(super) use reading::{Ask, Shown, row_bytes};
pub use table::{ColumnDescription, TableDescription};
pub(super) use table::{Tables, TablesOfBuilds};
