//! The store for several nodes: PostgreSQL.
//!
//! Picture a counter with many windows and one clerk behind them. At the windows customers are served side by side, and
//! what each hands in is stamped and final; it goes into a tray. The clerk empties the tray, again and again, and enters
//! what lies in it into the ledger, line by line. Nobody reads the tray, everybody reads the ledger, so nobody ever reads
//! past a line that is still to come.
//!
//! The windows are connections, the tray is the table `pending`, the ledger is the table `log`, and the clerk is whoever
//! holds one lock for the length of one statement: see `sequencer.rs`, and ADR 19 (`docs/adr/0019-…`), which has the proof.
//!
//! | file | holds |
//! |---|---|
//! | `address`, `connect`, `tls` | from an address to a connection, encrypted or not |
//! | `open`, `tables` | from a connection to a store: what is refused, the tables |
//! | `ready`, `words` | what the caller makes ready of a batch; the locks that conditions are held by |
//! | `lanes`, `group` | appends that wait together, and the one transaction that they share |
//! | `sequencer` | positions |
//! | `transact` | transactions with a closure |
//! | `dialect`, `sql`, `application` | statements of rooms and of the application: what they may do, values, whose they are |
//! | `schemas` | which schemas are in force, on every node |
//! | `read`, `filter` | streams, the log, queries |
//! | `leaving`, `arriving` | moving away, and being moved into |
//! | `verify`, `fault`, `statements` | checks, what the server says, the SQL |
//! | `doctor` | what ails the database, and what to do about it |
//!
//! **Guarantees.** An acknowledged append is committed and flushed: [`open`] refuses servers whose settings lose commits. Positions are dense, and every reader sees a prefix of the log. Losing a connection in a
//! commit is no lost answer: the ids of the events tell.
//!
//! *When not to use it*: one node and one machine; the embedded store does more, with less.
//!
//! **Not here yet**, and refused: retention, archives, erasure and sealed data, the tables of views and queries of them, views
//! kept in the append's transaction, and backups.
//!
//! # The application's tables
//! They live in a schema of their own, and its statements run as a role of its own that has rights there alone: the server
//! keeps them from the log and from the tables of rooms. Statements that would end the transaction, change the role or the time
//! limit, notify, or make what runs by itself (functions, triggers, rules) are refused before they are sent. It is no cage for
//! hostile code: a function that somebody else put into the database, and that runs a text it is given, is not looked into.
//!
//! The types `INTEGER`, `REAL` and `BLOB` in `CREATE TABLE` and `ALTER TABLE` are what they are on the embedded store: 64 bits, 64
//! bits, bytes; an `INTEGER PRIMARY KEY` counts by itself, without regard to what was given. Numbers given as parameters are
//! `bigint` and `double precision`, blobs `bytea`; a text is whatever stands where it is given. Whole numbers come back as
//! integers, `numeric` with decimals as a text, and types without a counterpart are refused: cast them.
//!
//! Sources: Bernstein and Goodman (1981) for locks on predicates; PostgreSQL, chapters 13 ("Concurrency Control") and 55
//! ("Frontend/Backend Protocol").

mod address;
mod application;
mod arriving;
mod backend;
mod connect;
mod dialect;
pub mod doctor;
mod fault;
mod filter;
mod group;
mod lanes;
mod leaving;
mod metadata;
mod open;
mod read;
mod ready;
mod schemas;
mod sequencer;
#[cfg(test)]
#[path = "../../../tests/postgres/server.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "it is the world outside of the store, for tests that start servers of their own as well"
)]
pub(super) mod server;
mod sql;
mod statements;
mod tables;
mod tls;
mod transact;
mod verify;
mod words;

use std::time::Duration;

use quorate_runtime::Env;

pub(super) use self::{arriving::arrive, leaving::leave};
pub use self::{backend::CAPABILITIES, open::open};
use super::{Limits, OpenError, StoreError};
use crate::schema::RegistryPolicy;

/// A connection of one's own to the database at `address`, through the ports of `env`: for rooms that work with other databases than
/// the store's. It ends when the client is dropped.
///
/// # Errors
/// [`StoreError::Unreachable`] where no host of the address answers in time.
pub async fn connect(env: &Env, address: &Address) -> Result<tokio_postgres::Client, StoreError> {
    let connected = connect::Connector::new(env, address.0.clone()).connect().await;
    connected.map_err(|fault| fault.into_store("connecting"))
}

/// Where a database is, who asks, and how the connection is encrypted: `postgres://user:password@host:port/database`, with the parameters
/// `sslmode` (`disable`, `prefer`, `require`, `verify-ca`, `verify-full`), `sslrootcert`, `sslcert` and `sslkey` of libpq. A host that
/// begins with `/` (`?host=/var/run/postgresql`) is the folder of a Unix socket, where nothing is encrypted. Its `Debug` form hides the
/// password.
///
/// Without `sslmode` it is `prefer`: encrypted if the server does that, with whoever shows whatever certificate. Only `verify-full` keeps
/// somebody who sits between the two from reading along.
#[derive(Clone, Debug)]
pub struct Address(address::Server);

/// Host, port and database, without the user and the password.
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let config = &self.0.config;
        for (n, host) in config.get_hosts().iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            write!(f, "{comma}{}", connect::called(host, self.0.port(n)))?;
        }
        let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
        write!(f, "/{database}")
    }
}

impl std::str::FromStr for Address {
    type Err = OpenError;

    fn from_str(address: &str) -> Result<Self, OpenError> {
        address::server(address).map(Self)
    }
}

/// Which database a store lives in, and what it accepts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server, the database and the user.
    pub address: Address,
    /// The schema that holds the store's tables, made if it is not there. 1 to 48 lower-case letters, digits and `_`. Default
    /// `quorate`.
    pub schema: String,
    /// The schema of the application's own tables, and the role that its statements run as: both are made if they are not
    /// there. The role logs in nowhere and reaches this schema alone. Default `quorate_app`.
    pub application: String,
    /// Connections at most. Default 16.
    pub connections: usize,
    /// Whether the server wakes this node (`LISTEN`) when others give positions. Behind a proxy that pools transactions (PgBouncer in
    /// transaction mode) it has to be off: the connection that listens is one that others are given as well, and whatever is
    /// notified comes to them. Without it a node looks by itself, at least once a second. The proxy has to have more connections to the
    /// server than all nodes' `connections` together, by one at least for each node: closures that read streams or append on conditions
    /// need a second one. Default on.
    pub notifications: bool,
    /// How long an append tries to reach the database before it gives up. Default 5 s.
    pub patience: Duration,
    /// What it accepts at most.
    pub limits: Limits,
    /// The rules for schemas, and for events that have none.
    pub schemas: RegistryPolicy,
}

impl Config {
    /// A store in the database at `address` (`postgres://user:password@host:port/database`) with the defaults.
    ///
    /// # Errors
    /// [`OpenError::Address`] names what is wrong with it. The address itself, which may hold a password, is in no message.
    pub fn at(address: &str) -> Result<Self, OpenError> {
        Ok(Self {
            address: address.parse()?,
            schema: "quorate".to_owned(),
            application: "quorate_app".to_owned(),
            connections: 16,
            notifications: true,
            patience: Duration::from_secs(5),
            limits: Limits::default(),
            schemas: RegistryPolicy::default(),
        })
    }
}
