//! What several processes need to work on one queue: whose turn it was, and what changed meanwhile.
//!
//! Each process decides in memory, which is only ever a guess. `revision` is the compare-and-set that proves it: whoever hands out,
//! settles or parks by what it knows at revision *n* writes *n + 1*, with the numbers of the messages it touched, and writes
//! nothing if the row says something else by then. Others read the rows of just those messages. What transactions do without a turn
//! (a message sent, or settled, in one) names its messages in `quorate_queue_turn_news`; whoever has the next turn, or thinks there
//! are enough of them, moves them under its revision. Row 0 counts what becomes of queues and schedules themselves.

use std::time::Duration;

use quorate_data::store::{DynTx, RoomTables, Row, SqlError, Store, StoreError, Value};
use quorate_foundations::name::Name;

use super::{
    Stored,
    heads::{Head, head},
    integer, load, number, unsigned,
};
use crate::message_queue::{QueueError, machine::Seq};

/// The tables that a store of several processes has besides, by version.
pub(crate) const TABLES: RoomTables = RoomTables {
    room: "queue_turn",
    versions: &[
        "
        CREATE TABLE quorate_queue_turn (
            queue BIGINT PRIMARY KEY,
            revision BIGINT NOT NULL,
            ahead_ns BIGINT NOT NULL);
        INSERT INTO quorate_queue_turn (queue, revision, ahead_ns) VALUES (0, 1, 0);
        CREATE TABLE quorate_queue_turn_change (
            queue BIGINT NOT NULL,
            revision BIGINT NOT NULL,
            seqs BLOB NOT NULL,
            PRIMARY KEY (queue, revision));
        CREATE TABLE quorate_queue_turn_news (
            id INTEGER PRIMARY KEY,
            queue BIGINT NOT NULL,
            seqs BLOB NOT NULL);
        CREATE INDEX quorate_queue_turn_news_queue ON quorate_queue_turn_news (queue, id);
        CREATE TABLE quorate_queue_turn_ticket (
            id INTEGER PRIMARY KEY)
    ",
        // A store that came from the embedded one has queues, and messages whose numbers are out of blocks: the tickets lie behind.
        "
        INSERT INTO quorate_queue_turn (queue, revision, ahead_ns) SELECT id, 1, 0 FROM quorate_queue
            WHERE id NOT IN (SELECT queue FROM quorate_queue_turn);
        SELECT setval(pg_get_serial_sequence('quorate_queue_turn_ticket', 'id'), greatest(
            nextval(pg_get_serial_sequence('quorate_queue_turn_ticket', 'id')),
            (SELECT coalesce(max(block), 0) + 1 FROM quorate_queue_numbers) * 1024))
    ",
    ],
};

/// Has a store whose queues shared their turns be one with blocks again: they lie behind all tickets that were drawn.
pub(crate) const LEAVING: &str = "INSERT INTO quorate_queue_numbers (one, block)
    VALUES (1, nextval(pg_get_serial_sequence('quorate_queue_turn_ticket', 'id')) / 1024 + 1)
    ON CONFLICT (one) DO UPDATE SET block = excluded.block";

// What both of these say of numbers.
const _: () = assert!(1 << (super::numbers::BLOCK_BITS - super::numbers::TICKET_BITS) == 1024);

/// The row that counts what becomes of queues and schedules.
const ALL: u64 = 0;
/// Revisions whose changes are kept. Who is further behind reads the queue's messages anew: as many as others hardly make of it meanwhile.
const KEPT: u64 = 8_192;
/// Revisions whose changes are read at once.
const CHANGES: u64 = 256;
/// How often those that are older are deleted, in revisions.
const PRUNED: u64 = 64;
/// News that are read at once.
const NEWS: usize = 512;
/// Messages whose rows are read at once.
const ROWS: usize = 500;

/// What a queue's rows say of it as a whole.
#[derive(Debug)]
pub(in crate::message_queue) struct Glance {
    pub(in crate::message_queue) revision: u64,
    /// How much of the rate was used up ahead of the moment of that revision.
    pub(in crate::message_queue) ahead: Duration,
    /// The queue's own row, if it is there.
    pub(in crate::message_queue) head: Option<Head>,
}

/// Looks at a queue. `None` if it never was.
pub(in crate::message_queue) async fn glance(store: &Store, queue: u64) -> Result<Option<Glance>, QueueError> {
    let sql = "SELECT t.revision, t.ahead_ns, q.id, q.name, q.config, q.deleted
        FROM quorate_queue_turn t LEFT JOIN quorate_queue q ON q.id = t.queue WHERE t.queue = $1";
    let rows = store.room_query(sql, vec![number(queue)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let ahead = u64::try_from(integer(row.at(1), "ahead_ns")?).unwrap_or_default();
    let own = (row.at(2) != &Value::Null).then(|| head(queue, [row.at(3), row.at(4), row.at(5)])).transpose()?;
    Ok(Some(Glance { revision: unsigned(row.at(0), "revision")?, ahead: Duration::from_nanos(ahead), head: own }))
}

/// The messages that were touched by revisions behind `known`, up to `newest`, each as often as it was; `None` if that is not known any
/// more, or if they are more than `most`.
pub(in crate::message_queue) async fn changes(
    store: &Store,
    queue: u64,
    (known, newest): (u64, u64),
    most: usize,
) -> Result<Option<Vec<Seq>>, QueueError> {
    if newest.saturating_sub(known) > KEPT {
        return Ok(None);
    }
    let sql = "SELECT seqs FROM quorate_queue_turn_change WHERE queue = $1 AND revision > $2 AND revision <= $3
        ORDER BY revision";
    let (mut at, mut seqs) = (known, Vec::new());
    while at < newest {
        let until = newest.min(at + CHANGES);
        let rows = match store.room_query(sql, vec![number(queue), number(at), number(until)]).await {
            Err(SqlError::Store(StoreError::TooMuch { .. })) => return Ok(None),
            rows => rows?,
        };
        if rows.len() as u64 != until - at {
            return Ok(None);
        }
        for row in &rows {
            seqs.extend(unpacked(row.at(0))?);
        }
        if seqs.len() > most {
            return Ok(None);
        }
        at = until;
    }
    Ok(Some(seqs))
}

/// What transactions did since it was last moved under a revision, by the ids of the news.
pub(in crate::message_queue) async fn news(store: &Store, queue: u64) -> Result<Vec<(i64, Vec<Seq>)>, QueueError> {
    let sql = "SELECT id, seqs FROM quorate_queue_turn_news WHERE queue = $1 AND id > $2 ORDER BY id LIMIT $3";
    let limit = i64::try_from(NEWS).unwrap_or(i64::MAX);
    let mut news: Vec<(i64, Vec<Seq>)> = Vec::new();
    loop {
        let after = news.last().map_or(0, |(id, _)| *id);
        let rows = store.room_query(sql, vec![number(queue), after.into(), limit.into()]).await?;
        for row in &rows {
            news.push((integer(row.at(0), "id")?, unpacked(row.at(1))?));
        }
        if rows.len() < NEWS {
            return Ok(news);
        }
    }
}

/// What the rows say of these messages; those that are gone are left out.
pub(in crate::message_queue) async fn stored(store: &Store, seqs: &[Seq]) -> Result<Vec<Stored>, QueueError> {
    let mut found = Vec::with_capacity(seqs.len());
    for seqs in seqs.chunks(ROWS) {
        load::some(store, seqs, |one| found.push(one)).await?;
    }
    Ok(found)
}

/// Takes the turn behind `known`, and says how far the rate is used up. `false`: somebody else was first.
pub(in crate::message_queue) async fn take(
    tx: &mut DynTx,
    queue: u64,
    known: u64,
    ahead: Duration,
) -> Result<bool, SqlError> {
    let sql = "UPDATE quorate_queue_turn SET revision = revision + 1, ahead_ns = $3 WHERE queue = $1 AND revision = $2";
    let ahead = i64::try_from(ahead.as_nanos()).unwrap_or(i64::MAX);
    Ok(tx.room_execute(sql, &[number(queue), number(known), ahead.into()]).await? == 1)
}

/// Notes which messages were touched by the turn that made `revision`, and forgets what is too old.
pub(in crate::message_queue) async fn note(
    tx: &mut DynTx,
    queue: u64,
    revision: u64,
    seqs: &[Seq],
) -> Result<(), SqlError> {
    let sql = "INSERT INTO quorate_queue_turn_change (queue, revision, seqs) VALUES ($1, $2, $3)";
    tx.room_execute(sql, &[number(queue), number(revision), packed(seqs)]).await?;
    if revision.is_multiple_of(PRUNED) && revision > KEPT {
        let sql = "DELETE FROM quorate_queue_turn_change WHERE queue = $1 AND revision <= $2";
        tx.room_execute(sql, &[number(queue), number(revision - KEPT)]).await?;
    }
    Ok(())
}

/// Forgets news that are noted under a revision in the same transaction.
pub(in crate::message_queue) async fn seal(tx: &mut DynTx, news: &[i64]) -> Result<(), SqlError> {
    if news.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = news.iter().map(i64::to_string).collect();
    let sql = format!("DELETE FROM quorate_queue_turn_news WHERE id IN ({})", ids.join(", "));
    tx.room_execute(&sql, &[]).await?;
    Ok(())
}

/// Names messages that this transaction touches without a turn. Returns the id of the news.
pub(in crate::message_queue) async fn tell(tx: &mut DynTx, queue: u64, seqs: &[Seq]) -> Result<i64, QueueError> {
    let sql = "INSERT INTO quorate_queue_turn_news (queue, seqs) VALUES ($1, $2) RETURNING id";
    let rows = tx.room_query(sql, &[number(queue), packed(seqs)]).await?;
    rows.first().map_or(Ok(0), |row| integer(row.at(0), "id"))
}

/// Takes a turn whatever the revision is: the queue as a whole is another one from now on.
pub(in crate::message_queue) async fn bump(tx: &mut DynTx, queue: u64) -> Result<(), QueueError> {
    let sql = "INSERT INTO quorate_queue_turn (queue, revision, ahead_ns) VALUES ($1, 1, 0)
        ON CONFLICT (queue) DO UPDATE SET revision = quorate_queue_turn.revision + 1 RETURNING revision";
    let rows = tx.room_query(sql, &[number(queue)]).await?;
    let revision = rows.first().map_or(Ok(0), |row| unsigned(row.at(0), "revision"))?;
    Ok(note(tx, queue, revision, &[]).await?)
}

/// Up to which revision it is known what became of queues and schedules.
pub(in crate::message_queue) async fn of_all(store: &Store) -> Result<u64, QueueError> {
    let sql = "SELECT revision FROM quorate_queue_turn WHERE queue = $1";
    let rows = store.room_query(sql, vec![number(ALL)]).await?;
    rows.first().map_or(Ok(0), |row| unsigned(row.at(0), "revision"))
}

/// Changes queues or schedules as they are known at revision `known`. `false`: somebody else was first.
pub(in crate::message_queue) async fn take_all(tx: &mut DynTx, known: u64) -> Result<bool, SqlError> {
    take(tx, ALL, known, Duration::ZERO).await
}

/// Whether there is a queue of this name and number to send to. Whoever deletes it waits for this transaction, or this one for that.
pub(in crate::message_queue) async fn is_there(tx: &mut DynTx, queue: u64, name: &Name) -> Result<bool, SqlError> {
    let sql = "SELECT 1 FROM quorate_queue WHERE id = $1 AND name = $2 AND deleted = 0";
    Ok(!tx.room_query(sql, &[number(queue), name.into()]).await?.is_empty())
}

/// Of these queues the revision, and how many news stand under none.
pub(in crate::message_queue) async fn pulses(
    store: &Store,
    queues: &[u64],
) -> Result<Vec<(u64, (u64, usize))>, QueueError> {
    let ids: Vec<String> = queues.iter().map(u64::to_string).collect();
    let sql = format!(
        "SELECT t.queue, t.revision, (SELECT COUNT(*) FROM quorate_queue_turn_news n WHERE n.queue = t.queue)
         FROM quorate_queue_turn t WHERE t.queue IN ({})",
        ids.join(", ")
    );
    let rows = store.room_query(&sql, vec![]).await?;
    let pulse = |row: &Row| {
        let news = usize::try_from(unsigned(row.at(2), "news")?).unwrap_or(usize::MAX);
        Ok((unsigned(row.at(0), "queue")?, (unsigned(row.at(1), "revision")?, news)))
    };
    rows.iter().map(pulse).collect()
}

/// Forgets what was noted of a queue that is gone. Its revision stays: a queue that gets its number goes on counting.
pub(in crate::message_queue) async fn forget(tx: &mut DynTx, queue: u64) -> Result<(), SqlError> {
    for table in ["change", "news"] {
        let sql = format!("DELETE FROM quorate_queue_turn_{table} WHERE queue = $1");
        tx.room_execute(&sql, &[number(queue)]).await?;
    }
    Ok(())
}

/// The next of the numbers that all processes draw from: each stands for 1,024 messages.
pub(super) async fn ticket(tx: &mut DynTx) -> Result<u64, QueueError> {
    let sql = "SELECT nextval(pg_get_serial_sequence('quorate_queue_turn_ticket', 'id'))";
    let rows = tx.room_query(sql, &[]).await?;
    rows.first().map_or(Ok(0), |row| unsigned(row.at(0), "id"))
}

fn packed(seqs: &[Seq]) -> Value {
    seqs.iter().flat_map(|seq| seq.to_be_bytes()).collect::<Vec<u8>>().into()
}

fn unpacked(value: &Value) -> Result<Vec<Seq>, QueueError> {
    let corrupt = || QueueError::corrupt("quorate_queue_turn", "`seqs` are no numbers");
    let (numbers, rest) = value.as_bytes().ok_or_else(corrupt)?.as_chunks::<8>();
    if rest.is_empty() { Ok(numbers.iter().map(|bytes| Seq::from_be_bytes(*bytes)).collect()) } else { Err(corrupt()) }
}
