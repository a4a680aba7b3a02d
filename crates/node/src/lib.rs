//! The server as a library: verbs, and an HTTP surface that translates them.
//!
//! [`serve`] is the only way the server starts. What it needs of the world (clocks, sockets, files, tasks) comes with
//! an [`Env`](quorate_runtime::Env), so the simulator runs this very code.
//!
//! [`verbs`] does each thing once, typed in and out; `http` translates requests and replies and knows nothing else.
//! Signals belong to the binary: it stops the environment's tasks, and [`serve`] drains and returns.

pub mod config;
#[doc(hidden)]
pub mod fuzzing;
pub mod guarantees;
mod http;
mod policy_folder;
pub mod quota;
mod rates;
mod server;
pub mod verbs;
mod view_folder;

pub use rates::RateStanding;
pub use server::{ServeError, Server, serve};

/// Every room that may have tables in the store of a node, for whoever moves it.
pub fn rooms() -> Vec<quorate_data::store::moving::Room> {
    let mut rooms = quorate_data::store::moving::rooms();
    rooms.extend(quorate_communication::rooms());
    rooms.extend(quorate_consistency::rooms());
    rooms.extend([quota::TABLES].into_iter().chain(verbs::TABLES).map(quorate_data::store::moving::Room::carried));
    rooms
}
