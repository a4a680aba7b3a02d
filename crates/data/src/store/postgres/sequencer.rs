//! Positions, behind the commit.
//!
//! A run takes a lock, and one statement then moves the events that it sees in `pending` behind the end of `log`: in the order of
//! their ids, but what was written together stands together, where its first event stands. All of it is one message, so that the lock never waits for a client. The lemmas stand in ADR 19; the
//! tests that try them in `tests/postgres/log.rs`.
//!
//! Whoever has committed asks for a run that begins after that, and shares it with all who asked meanwhile: while one run
//! is on its way, the questions for the next one gather. Without questions a run is made now and then, rarer the longer nothing
//! was found: for events of nodes that ended before they asked.
//!
//! A run that gave positions tells all nodes by a notification, in its own transaction. It says nothing but that: whoever is
//! woken looks where the log ends, and whoever notifies for nothing keeps nobody from the runs that are due. Behind a proxy that
//! pools transactions a node must not listen: the proxy gives the connection that listens to others, and what other nodes did is
//! heard of by the runs that are made now and then (`Config::notifications`). Where the server has no room for notifications
//! positions are given without any.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate_foundations::time::Mono;
use quorate_runtime::{Env, tasks::Tasks};
use tokio::sync::{Notify, watch};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{connect::Connector, fault::Fault};
use crate::{event::Position, store::StoreError};

/// How often runs are made that nobody asked for, while they find something, and when they have not for long.
const EAGER: Duration = Duration::from_millis(10);
const LAZY: Duration = Duration::from_secs(1);
/// How long nobody is told after the server had no room for notifications.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a run may take before its connection is given up: longer than the server would let it.
const STUCK: Duration = Duration::from_secs(35);
/// The code of "too many notifications in the NOTIFY queue".
const FULL: &str = "54000";

/// The questions for runs, and what runs found.
pub(super) struct Sequencer {
    asked: watch::Sender<u64>,
    answered: watch::Sender<Answered>,
    head: watch::Sender<Position>,
    /// The event at the head.
    newest: AtomicU64,
}

/// The newest question that has its answer.
#[derive(Clone, Copy, Default)]
struct Answered {
    ticket: u64,
    /// It is that nobody can give positions: the database is read-only.
    is_read_only: bool,
}

impl Sequencer {
    /// One that knows where the log ends.
    pub(super) fn new(end: End) -> Self {
        Self {
            asked: watch::Sender::new(0),
            answered: watch::Sender::new(Answered::default()),
            head: watch::Sender::new(Position::new(end.position)),
            newest: AtomicU64::new(end.event),
        }
    }

    /// Waits until a run that began after this call has ended: whatever was committed before it has a position, and the
    /// head has moved. Waits for ever where the database cannot be reached; bring the patience.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`]: nobody can give positions here.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; the run is made.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let mut ticket = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            ticket = *asked;
        });
        // Whoever answers lives as long as this.
        let mut answers = self.answered.subscribe();
        let answered = answers.wait_for(|answered| answered.ticket >= ticket).await;
        if answered.is_ok_and(|answered| answered.is_read_only) { Err(StoreError::ReadOnly) } else { Ok(()) }
    }

    /// Whether nobody could give positions when it was last tried, at most a second ago.
    pub(super) fn is_read_only(&self) -> bool {
        self.answered.borrow().is_read_only
    }

    pub(super) fn head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    /// The newest append that is readable.
    pub(super) fn newest(&self) -> u64 {
        // Ordering: stored before the head moves, so that whoever saw the head finds its event or a newer one.
        self.newest.load(Ordering::Acquire)
    }

    /// Wakes whoever waits for the head to move.
    pub(super) fn wake(&self) {
        self.head.send_modify(|_| {});
    }

    /// Somebody saw how far the log goes. Other nodes may have made it so.
    pub(super) fn saw(&self, end: End) {
        self.head.send_if_modified(|head| {
            let moves = end.position > head.get();
            if moves {
                self.newest.store(end.event, Ordering::Release);
                *head = Position::new(end.position);
            }
            moves
        });
    }

    /// Makes runs until `stop`, on connections of its own.
    pub(super) async fn run(self: Arc<Self>, env: Env, connector: Connector, orders: Orders, tasks: Tasks) {
        let stop = tasks.stop();
        let mut asked = self.asked.subscribe();
        let mut line = Line { connector, orders, client: None, told: Arc::default(), silent_until: None };
        let mut pause = EAGER;
        // Runs that nobody asked for are due then, whatever anybody notifies meanwhile.
        let mut due = env.mono() + pause;
        while !stop.is_cancelled() {
            let is_asked = *asked.borrow_and_update() > self.answered.borrow().ticket;
            if !is_asked && env.mono() < due {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = asked.changed() => {}
                    () = line.told.notified() => {
                        // Another node gave positions, or the connection ended: a run opens a new one.
                        if let Some(Ok(Some(end))) = env.timeout(STUCK, line.look()).await {
                            self.saw(end);
                            continue;
                        }
                    }
                    () = env.sleep_until(due) => {}
                }
            }
            let covers = *asked.borrow_and_update();
            let before = *self.head.borrow();
            let ran = env.timeout(STUCK, line.run(&env)).await;
            match ran.unwrap_or_else(|| Err(Fault::Lost("the server did not answer in time".to_owned()))) {
                Ok(end) => {
                    self.saw(end);
                    self.answered.send_replace(Answered { ticket: covers, is_read_only: false });
                    pause = if end.position > before.get() { EAGER } else { (pause * 2).min(LAZY) };
                }
                Err(fault) => {
                    tracing::debug!(%fault, "positions could not be given, and will be");
                    if fault.is_read_only() {
                        self.answered.send_replace(Answered { ticket: covers, is_read_only: true });
                    }
                    line.client = None;
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        () = env.sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LAZY);
                }
            }
            due = env.mono() + pause;
        }
    }
}

/// Where the log ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    pub(super) position: u64,
    /// The event there.
    pub(super) event: u64,
}

/// What it says to the server: a run, one that tells nobody, that it wants to hear of others' runs, and the question where the
/// log ends.
pub(super) struct Orders {
    pub(super) run: String,
    pub(super) silent: String,
    /// Nothing where it does not want to.
    pub(super) listen: Option<String>,
    pub(super) end: String,
}

/// Its connection.
struct Line {
    connector: Connector,
    orders: Orders,
    client: Option<Client>,
    /// Woken by whatever the server tells unasked.
    told: Arc<Notify>,
    /// When the server is next asked to tell of a run, if it had no room for that.
    silent_until: Option<Mono>,
}

impl Line {
    /// One run, and where the log ends behind it.
    async fn run(&mut self, env: &Env) -> Result<End, Fault> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            let client = self.connector.listen(self.told.clone()).await?;
            // Ordering: before the run, which sees everything that was done before anybody could tell.
            if let Some(listen) = &self.orders.listen {
                client.batch_execute(listen).await?;
            }
            self.client = Some(client);
        }
        let Some(client) = &self.client else { unreachable!("it was opened above") };
        if self.silent_until.is_some_and(|until| env.mono() < until) {
            return once(client, &self.orders.silent).await;
        }
        match once(client, &self.orders.run).await {
            // Somebody else's transaction keeps what was notified: no reason to give no positions.
            Err(fault) if fault.has_code(FULL) => {
                tracing::warn!(
                    %fault,
                    "the server has no room for notifications: positions are given, and other nodes hear of them within a second; \
                     `quorate doctor` says what to do"
                );
                self.silent_until = Some(env.mono() + SILENCE);
                client.batch_execute("ROLLBACK").await?;
                once(client, &self.orders.silent).await
            }
            ran => ran,
        }
    }

    /// Where the log ends; nothing without a connection.
    async fn look(&self) -> Result<Option<End>, Fault> {
        let Some(client) = self.client.as_ref().filter(|client| !client.is_closed()) else { return Ok(None) };
        let row = client.query_typed_opt(&self.orders.end, &[]).await?;
        let end = |row: tokio_postgres::Row| {
            let (position, event): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            Ok::<_, Fault>(End { position: position.cast_unsigned(), event: event.cast_unsigned() })
        };
        row.map(end).transpose()
    }
}

/// One run, and where the log ends behind it.
async fn once(client: &Client, sql: &str) -> Result<End, Fault> {
    let mut end = End::default();
    for message in client.simple_query(sql).await? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        if row.len() == 2 {
            let number = |n| row.get(n).and_then(|text| text.parse().ok());
            let (Some(position), Some(event)) = (number(0), number(1)) else {
                return Err(Fault::Strange("the end of the log is no number".to_owned()));
            };
            end = End { position, event };
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests;
