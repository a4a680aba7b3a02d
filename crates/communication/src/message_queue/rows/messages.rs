//! Messages and dead letters, read by their numbers.

use std::{collections::BTreeMap, sync::Arc};

use quorate_data::{
    event::NewEvent,
    store::{Row, Store, StoreError},
};
use quorate_foundations::time::Wall;

use super::{CHUNK, failures_in, filled, give, integer, millis, places, short, text, unsigned};
use crate::message_queue::{DeadLetter, Message, QueueError, machine::Seq};

const MESSAGE: &str =
    "m.seq, m.group_key, m.priority, m.sent_ns, m.delay_ms, m.ttl_ms, m.source, m.id, m.kind, m.content_type,
    m.attributes, m.data, COALESCE(m.unique_key, m.parked_key)";

/// The same of a message that cannot be read, without its attributes and its data.
const ENVELOPE: &str =
    "m.seq, CAST(m.group_key AS TEXT), CAST(m.priority AS BIGINT), CAST(m.sent_ns AS BIGINT), 0, NULL,
    CAST(m.source AS TEXT), CAST(m.id AS TEXT), CAST(m.kind AS TEXT), NULL, NULL, NULL, NULL";

/// Messages that were asked for by their numbers; those that are gone are left out.
#[derive(Debug, Default)]
pub(in crate::message_queue) struct Fetched {
    pub(in crate::message_queue) found: Vec<(Seq, Arc<Message>)>,
    /// Those that cannot be read, and why.
    pub(in crate::message_queue) unreadable: BTreeMap<Seq, QueueError>,
}

/// Messages by their numbers. At most [`CHUNK`] are asked for at once; one that cannot be read is in nobody else's way.
pub(in crate::message_queue) async fn messages(store: &Store, seqs: &[Seq]) -> Result<Fetched, QueueError> {
    let mut fetched = Fetched::default();
    for seqs in seqs.chunks(CHUNK) {
        match some_messages(store, seqs).await {
            Ok(found) => fetched.found.extend(found),
            Err(cause) if is_of_rows(&cause) => {
                for seq in seqs {
                    match some_messages(store, &[*seq]).await {
                        Ok(found) => fetched.found.extend(found),
                        Err(cause) if is_of_rows(&cause) => drop(fetched.unreadable.insert(*seq, cause)),
                        Err(cause) => return Err(cause),
                    }
                }
            }
            Err(cause) => return Err(cause),
        }
    }
    Ok(fetched)
}

async fn some_messages(store: &Store, seqs: &[Seq]) -> Result<Vec<(Seq, Arc<Message>)>, QueueError> {
    let sql = format!("SELECT {MESSAGE} FROM quorate_queue_message m WHERE m.seq IN ({})", places(1));
    let rows = store.room_query(&sql, filled(seqs)).await?;
    rows.iter().map(|row| Ok((unsigned(row.at(0), "seq")?, Arc::new(message(row)?)))).collect()
}

/// Whether it is what was asked for that cannot be read, and others may be.
fn is_of_rows(cause: &QueueError) -> bool {
    matches!(cause, QueueError::Store(StoreError::Corrupt { .. } | StoreError::TooMuch { .. }))
}

/// Dead letters by their numbers, in order, and whether they end early: at least one, and no more than take `max_bytes`.
/// One whose content cannot be read comes without it.
pub(in crate::message_queue) async fn dead_letters(
    store: &Store,
    seqs: &[Seq],
    max_bytes: usize,
) -> Result<(Vec<DeadLetter>, bool), QueueError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for seqs in seqs.chunks(LARGE) {
        let letters = match some_letters(store, seqs, MESSAGE).await {
            Err(cause) if is_of_rows(&cause) => {
                let mut letters = Vec::new();
                for seq in seqs {
                    letters.extend(match some_letters(store, &[*seq], MESSAGE).await {
                        Err(cause) if is_of_rows(&cause) => some_letters(store, &[*seq], ENVELOPE).await?,
                        one => one?,
                    });
                }
                letters
            }
            letters => letters?,
        };
        for letter in letters {
            bytes += letter.message.size() + letter.failures.iter().map(|one| one.reason.len() + 64).sum::<usize>();
            if bytes > max_bytes && !found.is_empty() {
                return Ok((found, true));
            }
            found.push(letter);
        }
    }
    Ok((found, false))
}

async fn some_letters(store: &Store, seqs: &[Seq], columns: &str) -> Result<Vec<DeadLetter>, QueueError> {
    let sql = format!(
        "SELECT {columns}, s.attempts, s.failures FROM quorate_queue_message m
         JOIN quorate_queue_state s ON s.seq = m.seq WHERE m.seq IN ({}) ORDER BY m.seq",
        places(1)
    );
    // What became of it is for people: where that cannot be read, they see so.
    let letter = |row: &Row| {
        Ok(DeadLetter {
            message: Arc::new(message(row)?),
            attempts: short(row.at(13), "attempts").unwrap_or_default(),
            failures: failures_in(row.at(14), Wall::from_unix_nanos(0)),
            seq: unsigned(row.at(0), "seq")?,
        })
    };
    store.room_query(&sql, filled(seqs)).await?.iter().map(letter).collect()
}

/// What a message is selected by.
#[derive(Debug)]
pub(in crate::message_queue) struct Named {
    pub(in crate::message_queue) seq: Seq,
    pub(in crate::message_queue) id: String,
    pub(in crate::message_queue) source: String,
    pub(in crate::message_queue) group: Option<String>,
    pub(in crate::message_queue) kind: String,
    pub(in crate::message_queue) unique: Option<String>,
}

/// What messages are selected by, by their numbers. Their content is not looked at.
pub(in crate::message_queue) async fn named(store: &Store, seqs: &[Seq]) -> Result<Vec<Named>, QueueError> {
    let mut found = Vec::with_capacity(seqs.len());
    for seqs in seqs.chunks(CHUNK) {
        let sql = format!(
            "SELECT m.seq, CAST(m.id AS TEXT), CAST(m.source AS TEXT), CAST(m.group_key AS TEXT), CAST(m.kind AS TEXT),
                CAST(COALESCE(m.unique_key, m.parked_key) AS TEXT)
             FROM quorate_queue_message m WHERE m.seq IN ({}) ORDER BY m.seq",
            places(1)
        );
        for row in &store.room_query(&sql, filled(seqs)).await? {
            let [id, source, group, kind, unique] = [1, 2, 3, 4, 5].map(|n| row.at(n).as_str().map(str::to_owned));
            found.push(Named {
                seq: unsigned(row.at(0), "seq")?,
                id: id.unwrap_or_default(),
                source: source.unwrap_or_default(),
                group,
                kind: kind.unwrap_or_default(),
                unique,
            });
        }
    }
    Ok(found)
}

/// How many dead letters are read at once, with all they say.
const LARGE: usize = 4;

fn message(row: &Row) -> Result<Message, QueueError> {
    let optional = |n: usize| row.at(n).as_str().map(Arc::from);
    let mut event = NewEvent::new(text(row.at(7), "id")?, text(row.at(6), "source")?, text(row.at(8), "kind")?);
    event.content_type = optional(9);
    event.data = row.at(11).as_bytes().cloned();
    if let Some(text) = row.at(10).as_str() {
        give(text, &mut event)?;
    }
    Ok(Message {
        event,
        group: optional(1),
        priority: u8::try_from(integer(row.at(2), "priority")?).unwrap_or_default(),
        sent_at: Wall::from_unix_nanos(integer(row.at(3), "sent_ns")?),
        unique: optional(12),
        delay: millis(row.at(4)).unwrap_or_default(),
        ttl: millis(row.at(5)),
    })
}
