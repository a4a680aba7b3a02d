//! Messages on their way into the tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use quorate_data::store::{DynTx, Row, SqlError, Value};

use super::{LEASED, Numbers, RESTING, WAITING, attributes, in_millis, number, within};
use crate::message_queue::{Message, QueueError, Sent, machine::Seq, message::Summed};

/// Rows of one statement: SQLite's lookup of parameters by name makes more of them dearer, not cheaper.
const ROWS: usize = 8;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::message_queue) enum Placed {
    /// It is in the queue under this number.
    New(Seq),
    /// It was sent before.
    Known,
    /// The message with this id has its unique key: it was not sent.
    Held(Arc<str>),
}

impl Placed {
    /// What its sender is told.
    pub(in crate::message_queue) fn told(&self, message: &Message) -> Sent {
        let held_by = if let Self::Held(id) = self { Some(id.clone()) } else { None };
        Sent { id: message.event.id.clone(), repeated: *self == Self::Known, held_by }
    }
}

/// Sends `messages` inside a transaction. Numbers are drawn here, so that their order is that of the commits.
///
/// # Errors
/// [`QueueError::IdReused`], and nothing was written.
pub(in crate::message_queue) async fn insert(
    tx: &mut DynTx,
    numbers: &Numbers,
    queue: u64,
    messages: &[Summed],
) -> Result<Vec<Placed>, QueueError> {
    let first = numbers.draw(tx, queue, messages.len()).await?;
    let numbered: Vec<(Seq, &Arc<Message>, i64)> =
        (first..).zip(messages).map(|(seq, (message, sum))| (seq, message, *sum)).collect();
    let mut placed = Vec::with_capacity(messages.len());
    for chunk in numbered.chunks(ROWS) {
        if remember(tx, queue, chunk).await? == chunk.len() as u64 {
            placed.extend(chunk.iter().map(|(seq, ..)| Placed::New(*seq)));
            continue;
        }
        let origins = origins(tx, queue, chunk).await?;
        for (at, (seq, message, sum)) in chunk.iter().enumerate() {
            match origins.get(&at) {
                Some((known, _)) if known == seq => placed.push(Placed::New(*seq)),
                Some((_, known)) if known == sum => placed.push(Placed::Known),
                _ => {
                    let index = placed.len();
                    forget(tx, queue, &numbered).await?;
                    let (source, id) = (&message.event.source, &message.event.id);
                    return Err(QueueError::IdReused { index, source_uri: source.to_string(), id: id.to_string() });
                }
            }
        }
    }
    hold_back(tx, queue, &numbered, &mut placed).await?;
    let new: Vec<(Seq, &Arc<Message>)> = numbered
        .iter()
        .zip(&placed)
        .filter(|(_, placed)| matches!(placed, Placed::New(_)))
        .map(|((seq, message, _), _)| (*seq, *message))
        .collect();
    for chunk in new.chunks(ROWS) {
        write(tx, chunk).await?;
    }
    Ok(placed)
}

/// Holds back new messages whose unique keys others have, earlier ones of the same call among them, and forgets their ids.
async fn hold_back(
    tx: &mut DynTx,
    queue: u64,
    messages: &[(Seq, &Arc<Message>, i64)],
    placed: &mut [Placed],
) -> Result<(), SqlError> {
    let with_key = messages.iter().zip(placed).filter_map(|(one, placed)| {
        let (seq, message, _) = one;
        let key = message.unique.as_ref().filter(|_| *placed == Placed::New(*seq))?;
        Some((key, one, placed))
    });
    let with_key: Vec<_> = with_key.collect();
    let keys: BTreeSet<&Arc<str>> = with_key.iter().map(|(key, ..)| *key).collect();
    let keys: Vec<&str> = keys.into_iter().map(|key| &**key).collect();
    let mut holders: BTreeMap<&str, Arc<str>> = BTreeMap::new();
    // None of these messages is written yet.
    for chunk in keys.chunks(ROWS) {
        let found = held_by(tx, queue, chunk).await?;
        holders.extend(found.into_iter().filter_map(|(at, id)| Some((*chunk.get(at)?, id))));
    }
    let mut held = Vec::new();
    for (key, one, placed) in with_key {
        match holders.get(&**key) {
            Some(id) => {
                held.push(*one);
                *placed = Placed::Held(id.clone());
            }
            None => drop(holders.insert(&**key, one.1.event.id.clone())),
        }
    }
    forget(tx, queue, &held).await
}

/// The id of the message that has the unique key `key`: it waits, rests or is worked on.
pub(super) async fn holder(tx: &mut DynTx, queue: u64, key: &str) -> Result<Option<Arc<str>>, SqlError> {
    Ok(held_by(tx, queue, &[key]).await?.remove(&0))
}

/// The same of at most [`ROWS`] keys, by their places.
async fn held_by(tx: &mut DynTx, queue: u64, keys: &[&str]) -> Result<BTreeMap<usize, Arc<str>>, SqlError> {
    static SQL: Cache = Cache::new();
    let sql = SQL.of_selects(keys.len(), |at| {
        format!(
            "SELECT * FROM (SELECT CAST({at} AS BIGINT) AS place, CAST(m.id AS TEXT) AS id FROM quorate_queue_message m
            LEFT JOIN quorate_queue_state s ON s.seq = m.seq
            WHERE m.unique_key = ${} AND m.seq BETWEEN $1 AND $2
            AND (s.seq IS NULL OR s.phase IN ({WAITING}, {RESTING}, {LEASED}))
            ORDER BY m.seq DESC LIMIT 1) held_{at}",
            at + 3
        )
    });
    let numbers = within(queue);
    let mut params = vec![number(*numbers.start()), number(*numbers.end())];
    params.extend(keys.iter().map(|key| Value::from(*key)));
    let rows = tx.room_query(sql, &params).await?;
    let held = |row: &Row| Some((place(row)?, row.at(1).as_str().unwrap_or_default().into()));
    Ok(rows.iter().filter_map(held).collect())
}

/// Remembers the messages' ids; how many of them were new.
async fn remember(tx: &mut DynTx, queue: u64, messages: &[(Seq, &Arc<Message>, i64)]) -> Result<u64, SqlError> {
    static SQL: Cache = Cache::new();
    const HEAD: &str = "INSERT INTO quorate_queue_known (queue, id, source, seq, sum, sent_ns) VALUES ";
    let mut params = Vec::with_capacity(1 + messages.len() * 5);
    params.push(number(queue));
    for (seq, message, sum) in messages {
        let event = &message.event;
        params.extend([event.id.clone().into(), event.source.clone().into()]);
        params.extend([number(*seq), (*sum).into(), message.sent_at.unix_nanos().into()]);
    }
    tx.room_execute(SQL.of(messages.len(), HEAD, 1, 5, " ON CONFLICT DO NOTHING"), &params).await
}

/// The numbers and the sums under which the ids of at most [`ROWS`] messages are remembered, by their places.
async fn origins(
    tx: &mut DynTx,
    queue: u64,
    messages: &[(Seq, &Arc<Message>, i64)],
) -> Result<BTreeMap<usize, (Seq, i64)>, SqlError> {
    static SQL: Cache = Cache::new();
    let sql = SQL.of_selects(messages.len(), |at| {
        let (id, source) = (2 * at + 2, 2 * at + 3);
        format!(
            "SELECT CAST({at} AS BIGINT), seq, sum FROM quorate_queue_known WHERE queue = $1 AND id = ${id} AND source = ${source}"
        )
    });
    let mut params = vec![number(queue)];
    for (_, message, _) in messages {
        params.extend([message.event.id.clone().into(), message.event.source.clone().into()]);
    }
    let rows = tx.room_query(sql, &params).await?;
    let origin = |row: &Row| Some((place(row)?, (row.at(1).as_i64()?.cast_unsigned(), row.at(2).as_i64()?)));
    Ok(rows.iter().filter_map(origin).collect())
}

/// Which of those that were asked for together a row is of.
fn place(row: &Row) -> Option<usize> {
    row.at(0).as_i64().and_then(|at| usize::try_from(at).ok())
}

/// Forgets the ids again that were remembered under these numbers.
async fn forget(tx: &mut DynTx, queue: u64, messages: &[(Seq, &Arc<Message>, i64)]) -> Result<(), SqlError> {
    static SQL: Cache = Cache::new();
    const HEAD: &str = "DELETE FROM quorate_queue_known WHERE ";
    for chunk in messages.chunks(ROWS) {
        let sql = SQL.0[chunk.len() - 1].get_or_init(|| {
            let one = |at: usize| {
                let first = 3 * at + 2;
                format!("queue = $1 AND id = ${first} AND source = ${} AND seq = ${}", first + 1, first + 2)
            };
            format!("{HEAD}{}", (0..chunk.len()).map(one).collect::<Vec<_>>().join(" OR "))
        });
        let mut params = vec![number(queue)];
        for (seq, message, _) in chunk {
            let event = &message.event;
            params.extend([event.id.clone().into(), event.source.clone().into(), number(*seq)]);
        }
        tx.room_execute(sql, &params).await?;
    }
    Ok(())
}

async fn write(tx: &mut DynTx, messages: &[(Seq, &Arc<Message>)]) -> Result<(), SqlError> {
    static SQL: Cache = Cache::new();
    const HEAD: &str =
        "INSERT INTO quorate_queue_message (seq, group_key, priority, sent_ns, delay_ms, ttl_ms, source, id,
        kind, content_type, attributes, data, unique_key) VALUES ";
    let mut params = Vec::with_capacity(messages.len() * 13);
    for (seq, message) in messages {
        let event = &message.event;
        params.extend([
            number(*seq),
            message.group.clone().into(),
            i64::from(message.priority).into(),
            message.sent_at.unix_nanos().into(),
            in_millis(message.delay),
            message.ttl.map_or(Value::Null, in_millis),
            event.source.clone().into(),
            event.id.clone().into(),
            event.kind.clone().into(),
            event.content_type.clone().into(),
            attributes(event).into(),
            event.data.clone().into(),
            message.unique.clone().into(),
        ]);
    }
    tx.room_execute(SQL.of(messages.len(), HEAD, 0, 13, ""), &params).await.map(|_| ())
}

/// The texts of one statement, by how many rows it inserts or asks for. The first `shared` columns have the same parameters in each.
struct Cache([OnceLock<String>; ROWS]);

impl Cache {
    const fn new() -> Self {
        Self([const { OnceLock::new() }; ROWS])
    }

    /// What `select` asks for of each place.
    fn of_selects(&self, places: usize, select: impl Fn(usize) -> String) -> &str {
        self.0[places - 1].get_or_init(|| (0..places).map(select).collect::<Vec<_>>().join(" UNION ALL "))
    }

    fn of(&self, rows: usize, head: &str, shared: usize, own: usize, tail: &str) -> &str {
        self.0[rows - 1].get_or_init(|| {
            let row = |row: usize| {
                let own = (0..own).map(move |column| shared + row * own + column);
                let places: Vec<String> = (0..shared).chain(own).map(|place| format!("${}", place + 1)).collect();
                format!("({})", places.join(", "))
            };
            format!("{head}{}{tail}", (0..rows).map(row).collect::<Vec<_>>().join(", "))
        })
    }
}
