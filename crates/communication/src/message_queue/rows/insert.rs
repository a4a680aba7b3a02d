//! Messages on their way into the tables.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use quorate_data::store::{DynTx, SqlError, Value};

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
        for (seq, message, sum) in chunk {
            match origin(tx, queue, message).await? {
                Some((known, _)) if known == *seq => placed.push(Placed::New(*seq)),
                Some((_, known)) if known == *sum => placed.push(Placed::Known),
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
    let mut holders: BTreeMap<&Arc<str>, Arc<str>> = BTreeMap::new();
    for (one, placed) in messages.iter().zip(placed) {
        let (seq, message, _) = one;
        let Some(key) = message.unique.as_ref().filter(|_| *placed == Placed::New(*seq)) else { continue };
        let holder = match holders.get(key) {
            Some(earlier) => Some(earlier.clone()),
            None => holder(tx, queue, key).await?,
        };
        if let Some(id) = &holder {
            forget(tx, queue, std::slice::from_ref(one)).await?;
            *placed = Placed::Held(id.clone());
        }
        holders.insert(key, holder.unwrap_or_else(|| message.event.id.clone()));
    }
    Ok(())
}

/// The id of the message that has the unique key `key`: it waits, rests or is worked on.
pub(super) async fn holder(tx: &mut DynTx, queue: u64, key: &str) -> Result<Option<Arc<str>>, SqlError> {
    let sql = "SELECT CAST(m.id AS TEXT) FROM quorate_queue_message m
        LEFT JOIN quorate_queue_state s ON s.seq = m.seq
        WHERE m.unique_key = $1 AND m.seq BETWEEN $2 AND $3 AND (s.seq IS NULL OR s.phase IN ($4, $5, $6))
        ORDER BY m.seq DESC LIMIT 1";
    let numbers = within(queue);
    let out = [WAITING, RESTING, LEASED].map(Value::from);
    let range = [key.into(), number(*numbers.start()), number(*numbers.end())];
    let rows = tx.room_query(sql, &[&range[..], &out[..]].concat()).await?;
    Ok(rows.first().map(|row| row.at(0).as_str().unwrap_or_default().into()))
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

/// The number and the sum under which the id of `message` is remembered.
async fn origin(tx: &mut DynTx, queue: u64, message: &Message) -> Result<Option<(Seq, i64)>, SqlError> {
    let sql = "SELECT seq, sum FROM quorate_queue_known WHERE queue = $1 AND id = $2 AND source = $3";
    let event = &message.event;
    let rows = tx.room_query(sql, &[number(queue), event.id.clone().into(), event.source.clone().into()]).await?;
    let row = rows.first().and_then(|row| Some((row.at(0).as_i64()?, row.at(1).as_i64()?)));
    Ok(row.map(|(seq, sum)| (seq.cast_unsigned(), sum)))
}

/// Forgets the ids again that were remembered under these numbers.
async fn forget(tx: &mut DynTx, queue: u64, messages: &[(Seq, &Arc<Message>, i64)]) -> Result<(), SqlError> {
    let sql = "DELETE FROM quorate_queue_known WHERE queue = $1 AND id = $2 AND source = $3 AND seq = $4";
    for (seq, message, _) in messages {
        let event = &message.event;
        let key = [number(queue), event.id.clone().into(), event.source.clone().into(), number(*seq)];
        tx.room_execute(sql, &key).await?;
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

/// The texts of one statement, by how many rows it inserts. The first `shared` columns have the same parameters in each.
struct Cache([OnceLock<String>; ROWS]);

impl Cache {
    const fn new() -> Self {
        Self([const { OnceLock::new() }; ROWS])
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
