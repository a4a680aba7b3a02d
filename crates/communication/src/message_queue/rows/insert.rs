//! Messages on their way into the tables.

use std::sync::{Arc, OnceLock};

use quorate_data::store::{DynTx, SqlError, Value};

use super::{Numbers, attributes, in_millis, number};
use crate::message_queue::{Message, QueueError, machine::Seq, message::Summed};

/// Rows of one statement: SQLite's lookup of parameters by name makes more of them dearer, not cheaper.
const ROWS: usize = 8;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::message_queue) enum Placed {
    /// It is in the queue under this number.
    New(Seq),
    /// It was sent before.
    Known,
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
    let new: Vec<(Seq, &Arc<Message>)> = numbered
        .iter()
        .zip(&placed)
        .filter(|(_, placed)| **placed != Placed::Known)
        .map(|((seq, message, _), _)| (*seq, *message))
        .collect();
    for chunk in new.chunks(ROWS) {
        write(tx, chunk).await?;
    }
    Ok(placed)
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
        kind, content_type, attributes, data) VALUES ";
    let mut params = Vec::with_capacity(messages.len() * 12);
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
        ]);
    }
    tx.room_execute(SQL.of(messages.len(), HEAD, 0, 12, ""), &params).await.map(|_| ())
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
