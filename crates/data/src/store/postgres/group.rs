//! The transaction that appends share: decided in memory, written by one statement.
//!
//! One round trip takes the locks and reads what is decided by; a second writes. Between them nothing of the streams and
//! words at hand can change. Each batch is decided as if those before it in the group were committed.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::future::{join, join4};
use quorate_foundations::{name::Name, time::Wall};
use tokio_postgres::{
    Client,
    types::{ToSql, Type},
};

use super::{
    fault::Fault,
    filter::{Param, borrowed, filter},
    ready::{Ready, ReadyStream},
    statements::Statements,
    words::Words,
};
use crate::{
    event::{ChainHash, Place, Position, Recorded, Version},
    schema::SchemaRegistry,
    store::{AppendCondition, AppendError},
};

/// A condition is looked at along the end of the log where it is no farther away than this, else along its tags.
const NEAR: u64 = 5_000;

/// What appends to a store need to know.
pub(super) struct Ground<'g> {
    /// The schemas in force in this process.
    pub(super) schemas: &'g SchemaRegistry,
    /// The count of their changes that it knows, read before anything was held against them.
    pub(super) schemas_known: u64,
    pub(super) sql: &'g Statements,
    pub(super) store: u64,
    pub(super) now: Wall,
}

/// What is to come of the batches of a group, and what is to be written for it.
pub(super) struct Decided {
    pub(super) answers: Vec<Answer>,
    rows: Vec<NewRow>,
    heads: BTreeMap<Name, Head>,
    /// Whether it is in a transaction with a closure.
    is_held: bool,
}

/// What is to come of one batch.
pub(super) enum Answer {
    Refused(AppendError),
    /// A condition does not hold, because of an event that may have no position yet.
    Matched {
        condition: usize,
        event: Known,
    },
    /// All of its events are known. The newest of them.
    Repeated {
        versions: Vec<(Name, Version)>,
        newest: Known,
    },
    /// It is written: its last row.
    New {
        versions: Vec<(Name, Version)>,
        last: usize,
    },
}

/// Where a known event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Known {
    /// In the table, with this id.
    Stored(i64),
    /// In this very group: its row.
    Row(usize),
}

struct NewRow {
    stream: i64,
    key: u128,
    event: Recorded,
}

/// A stream as it is, with what the group appends.
#[derive(Clone)]
struct Head {
    id: i64,
    version: u64,
    hash: ChainHash,
    changed: bool,
}

/// In what transaction a group is decided and written.
#[derive(Clone, Copy)]
pub(super) enum Within<'t> {
    /// One of its own, which begins with this.
    Group { begin: &'t str },
    /// One with a closure. Its snapshot is older than the locks: what others did is looked at on `beside`. `known`: whether events
    /// are looked for that are known; else they are found out as they are written.
    Closure { own: &'t Own, beside: Option<&'t Client>, known: bool },
}

/// What a transaction appended before.
#[derive(Default)]
pub(super) struct Own {
    pub(super) ids: Vec<i64>,
    events: Vec<Recorded>,
    /// Where the event of a key is among them.
    keys: BTreeMap<u128, usize>,
}

impl Own {
    /// Adds what was written now.
    pub(super) fn add(&mut self, written: &Written) {
        self.keys.extend(written.keys.iter().enumerate().map(|(n, key)| (*key, self.events.len() + n)));
        self.ids.extend_from_slice(&written.ids);
        self.events.extend_from_slice(&written.events);
    }
}

/// Takes the locks of `batches`, and decides them.
pub(super) async fn decide(
    ground: &Ground<'_>,
    client: &Client,
    batches: &[Arc<Ready>],
    within: Within<'_>,
) -> Result<Decided, Fault> {
    let parts = || batches.iter().flat_map(|batch| &batch.streams);
    let mut names: Vec<&str> = parts().map(|part| part.stream.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let keys: Vec<Vec<u8>> =
        parts().flat_map(|part| &part.events).map(|event| event.key.to_be_bytes().to_vec()).collect();
    let words = Words::union(ground.store, batches.iter().map(|batch| &batch.words)).columns();
    let sql = ground.sql;
    let lock_params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&words.0, Type::INT8_ARRAY), (&words.1, Type::BOOL_ARRAY), (&names, Type::TEXT_ARRAY)];
    let key_params = [(&keys as &(dyn ToSql + Sync), Type::BYTEA_ARRAY)];
    let (locked, count, found, looking, own) = match within {
        Within::Group { begin } => {
            // Ordering: each statement of the group's transaction sees what was committed before it began; the locks come first.
            let (begun, locked, count, found) = join4(
                client.batch_execute(begin),
                client.query_typed(&sql.lock_streams, &lock_params),
                client.query_typed(&sql.schemas, &[]),
                client.query_typed(&sql.known, &key_params),
            )
            .await;
            begun?;
            (locked?, count?, found?, client, &Own::default())
        }
        Within::Closure { own, beside, known } => {
            let held = client.query_typed(&sql.hold_streams, &lock_params);
            let (locked, count) = join(held, client.query_typed(&sql.schemas, &[])).await;
            let (locked, count) = (locked?, count?);
            // Ordering: behind the locks of the streams. What others appended to them since the snapshot had refused the locks.
            let found = match beside {
                Some(beside) if known => beside.query_typed(&sql.known, &key_params).await?,
                _ => vec![],
            };
            (locked, count, found, beside.unwrap_or(client), own)
        }
    };
    let count = count.first().map(|row| row.try_get::<_, i64>(0)).transpose()?;
    if count.map(i64::cast_unsigned) != Some(ground.schemas_known) {
        return Err(Fault::Stale);
    }
    let mut heads = BTreeMap::new();
    for row in locked {
        let name: &str = row.try_get(1)?;
        let (id, version, hash): (i64, i64, &[u8]) = (row.try_get(0)?, row.try_get(2)?, row.try_get(3)?);
        let hash = hash.try_into().map_err(|_| Fault::Strange(format!("the hash of stream `{name}` is no hash")))?;
        let name = Name::new(name).map_err(|wrong| Fault::Strange(wrong.to_string()))?;
        let version = version.cast_unsigned();
        heads.insert(name, Head { id, version, hash: ChainHash::from_bytes(hash), changed: false });
    }
    let mut known = BTreeMap::new();
    for row in found {
        let (key, id, body): (&[u8], i64, &[u8]) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let event = Recorded::decode(Position::ZERO, Bytes::copy_from_slice(body))
            .map_err(|wrong| Fault::Strange(format!("event {id} of table event: {wrong}")))?;
        let key = key.try_into().map_err(|_| Fault::Strange(format!("the key of event {id} is no key")))?;
        known.insert(u128::from_be_bytes(key), (Known::Stored(id), event));
    }
    for key in parts().flat_map(|part| &part.events).map(|event| event.key) {
        if let Some(n) = own.keys.get(&key) {
            known.insert(key, (Known::Stored(own.ids[*n]), own.events[*n].clone()));
        }
    }
    let mut deciding = Deciding { ground, heads, known, rows: Vec::new(), buffer: BytesMut::new() };
    let mut answers = Vec::with_capacity(batches.len());
    for batch in batches {
        answers.push(deciding.decide(batch, looking, &own.events).await?);
    }
    let is_held = matches!(within, Within::Closure { .. });
    Ok(Decided { answers, rows: deciding.rows, heads: deciding.heads, is_held })
}

struct Deciding<'g> {
    ground: &'g Ground<'g>,
    heads: BTreeMap<Name, Head>,
    known: BTreeMap<u128, (Known, Recorded)>,
    rows: Vec<NewRow>,
    buffer: BytesMut,
}

impl Deciding<'_> {
    async fn decide(&mut self, batch: &Ready, client: &Client, own: &[Recorded]) -> Result<Answer, Fault> {
        match self.repeated(batch) {
            Ok(None) => {}
            Ok(Some(repeated)) => return Ok(repeated),
            Err(refused) => return Ok(Answer::Refused(refused)),
        }
        let judged =
            batch.check(self.ground.schemas).and_then(|()| batch.streams.iter().try_for_each(|part| self.expect(part)));
        if let Err(refused) = judged {
            return Ok(Answer::Refused(refused));
        }
        for (n, condition) in batch.conditions.iter().enumerate() {
            if let Some(answer) = self.holds(n, condition, client, own).await? {
                return Ok(answer);
            }
        }
        Ok(self.append(batch))
    }

    /// The first answer again, if all events of the batch are known.
    fn repeated(&self, batch: &Ready) -> Result<Option<Answer>, AppendError> {
        let (mut known, mut newest, mut versions) = (0, None, Vec::new());
        for part in &batch.streams {
            let mut version = Version::ZERO;
            for event in &part.events {
                let Some((at, recorded)) = self.known.get(&event.key) else { continue };
                if !event.prepared.is(recorded) {
                    return Err(AppendError::IdReused {
                        stream: part.stream.clone(),
                        source_uri: recorded.source().to_owned(),
                        id: recorded.id().to_owned(),
                        version: recorded.version(),
                    });
                }
                known += 1;
                version = version.max(recorded.version());
                newest = newest.max(Some(*at));
            }
            versions.push((part.stream.clone(), version));
        }
        match (newest, batch.len()) {
            (None, _) => Ok(None),
            (Some(newest), total) if known == total => Ok(Some(Answer::Repeated { versions, newest })),
            (Some(_), total) => Err(AppendError::PartlyKnown { known, total }),
        }
    }

    fn expect(&self, part: &ReadyStream) -> Result<(), AppendError> {
        let actual = Version::new(self.heads.get(&part.stream).map_or(0, |head| head.version));
        if part.expected.accepts(actual) {
            return Ok(());
        }
        Err(AppendError::VersionConflict { stream: part.stream.clone(), expected: part.expected, actual })
    }

    /// What comes of it if the condition does not hold.
    async fn holds(
        &self,
        n: usize,
        condition: &AppendCondition,
        client: &Client,
        own: &[Recorded],
    ) -> Result<Option<Answer>, Fault> {
        let (query, after) = (&condition.fail_if_match, condition.after.get());
        let end = client.query_typed_opt(&self.ground.sql.end, &[]).await?;
        let head = end.map_or(Ok(0), |row| row.try_get::<_, i64>(0))?.cast_unsigned();
        if after > head {
            let head = Position::new(head);
            return Ok(Some(Answer::Refused(AppendError::Ahead { condition: n, after: condition.after, head })));
        }
        if own.iter().any(|event| query.matches(event)) {
            // What the transaction itself appended has no position before it commits.
            let failed = AppendError::ConditionFailed { condition: n, position: Position::ZERO };
            return Ok(Some(Answer::Refused(failed)));
        }
        if let Some(row) = self.rows.iter().position(|row| query.matches(&row.event)) {
            return Ok(Some(Answer::Matched { condition: n, event: Known::Row(row) }));
        }
        let matched = matching(self.ground.sql, client, condition, head).await?;
        Ok(matched.map(|id| Answer::Matched { condition: n, event: Known::Stored(id) }))
    }

    fn append(&mut self, batch: &Ready) -> Answer {
        let mut versions = Vec::with_capacity(batch.streams.len());
        self.buffer.reserve(batch.bytes);
        for part in &batch.streams {
            let head = self.heads.get_mut(&part.stream);
            let head = head.unwrap_or_else(|| unreachable!("invariant: every stream of the group is locked"));
            for event in &part.events {
                head.version += 1;
                let place = Place {
                    version: Version::new(head.version),
                    position: Position::ZERO,
                    recorded_at: self.ground.now,
                    previous: head.hash,
                };
                let recorded = event.prepared.record(&place, &mut self.buffer);
                head.hash = recorded.hash();
                head.changed = true;
                self.known.insert(event.key, (Known::Row(self.rows.len()), recorded.clone()));
                self.rows.push(NewRow { stream: head.id, key: event.key, event: recorded });
            }
            versions.push((part.stream.clone(), Version::new(head.version)));
        }
        Answer::New { versions, last: self.rows.len() - 1 }
    }
}

/// An event behind `condition`'s position that matches, with a position or without.
async fn matching(
    sql: &Statements,
    client: &Client,
    condition: &AppendCondition,
    head: u64,
) -> Result<Option<i64>, Fault> {
    let s = &sql.schema;
    let query = &condition.fail_if_match;
    let mut params: Vec<Param> = vec![(Box::new(condition.after.get().cast_signed()), Type::INT8)];
    let filter = filter(query, &mut params);
    let is_near = head - condition.after.get() <= NEAR || query.items.iter().any(|item| item.tags.is_empty());
    // One statement, and so one look: between two an event could leave the one table and have come too late for the other.
    let statement = if is_near {
        format!(
            "(SELECT e.id FROM {s}.pending p JOIN {s}.event e ON e.id = p.event WHERE {filter} LIMIT 1)
             UNION ALL
             (SELECT e.id FROM {s}.log l JOIN {s}.event e ON e.id = l.event WHERE l.position > $1 AND {filter}
              ORDER BY l.position LIMIT 1) LIMIT 1"
        )
    } else {
        format!(
            "SELECT e.id FROM {s}.event e LEFT JOIN {s}.log l ON l.event = e.id
             WHERE {filter} AND (l.position IS NULL OR l.position > $1) LIMIT 1"
        )
    };
    let row = client.query_typed_opt(&statement, &borrowed(&params)).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// What was written.
#[derive(Default)]
pub(super) struct Written {
    /// The ids of the rows, in their order.
    pub(super) ids: Vec<i64>,
    /// What they are known by, and the events, in the same order; without positions.
    keys: Vec<u128>,
    events: Vec<Recorded>,
}

impl Decided {
    /// Whether a batch is refused.
    pub(super) fn refuses(&self) -> bool {
        self.answers.iter().any(|answer| matches!(answer, Answer::Refused(_) | Answer::Matched { .. }))
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes what was decided, and then runs `end`.
    pub(super) async fn write(&self, sql: &Statements, client: &Client, end: Option<&str>) -> Result<Written, Fault> {
        let column = |of: fn(&NewRow) -> i64| self.rows.iter().map(of).collect::<Vec<i64>>();
        let streams = column(|row| row.stream);
        let versions = column(|row| row.event.version().get().cast_signed());
        let keys: Vec<Vec<u8>> = self.rows.iter().map(|row| row.key.to_be_bytes().to_vec()).collect();
        let text = |of: for<'r> fn(&'r Recorded) -> &'r str| self.rows.iter().map(move |row| of(&row.event)).collect();
        let kinds: Vec<&str> = text(Recorded::kind);
        let categories: Vec<&str> = text(Recorded::category);
        let tags: Vec<Option<&str>> = self.rows.iter().map(|row| row.event.tags_text()).collect();
        let bodies: Vec<&[u8]> = self.rows.iter().map(|row| &row.event.bytes()[..]).collect();
        let changed = || self.heads.iter().filter(|(_, head)| head.changed);
        let ids: Vec<i64> = changed().map(|(_, head)| head.id).collect();
        let names: Vec<&str> = changed().map(|(name, _)| name.as_str()).collect();
        let newest: Vec<i64> = changed().map(|(_, head)| head.version.cast_signed()).collect();
        let hashes: Vec<&[u8]> = changed().map(|(_, head)| &head.hash.as_bytes()[..]).collect();
        let (write, ends): (_, (&(dyn ToSql + Sync), Type)) = match self.is_held {
            false => (&sql.write, (&ids, Type::INT8_ARRAY)),
            true => (&sql.write_held, (&names, Type::TEXT_ARRAY)),
        };
        let params: [(&(dyn ToSql + Sync), Type); 10] = [
            (&streams, Type::INT8_ARRAY),
            (&versions, Type::INT8_ARRAY),
            (&keys, Type::BYTEA_ARRAY),
            (&kinds, Type::TEXT_ARRAY),
            (&categories, Type::TEXT_ARRAY),
            (&tags, Type::TEXT_ARRAY),
            (&bodies, Type::BYTEA_ARRAY),
            ends,
            (&newest, Type::INT8_ARRAY),
            (&hashes, Type::BYTEA_ARRAY),
        ];
        let ended = async { if let Some(end) = end { client.batch_execute(end).await } else { Ok(()) } };
        let (inserted, ended) = join(client.query_typed(write, &params), ended).await;
        let inserted = inserted?;
        ended?;
        if self.is_held && inserted.len() < self.rows.len() {
            return Err(Fault::Known);
        }
        let mut by_place = BTreeMap::new();
        for row in inserted {
            by_place.insert((row.try_get::<_, i64>(1)?, row.try_get::<_, i64>(2)?), row.try_get::<_, i64>(0)?);
        }
        let id = |row: &NewRow| by_place.get(&(row.stream, row.event.version().get().cast_signed())).copied();
        let ids: Option<Vec<i64>> = self.rows.iter().map(id).collect();
        let ids = ids.filter(|ids| ids.is_sorted());
        let ids = ids.ok_or_else(|| Fault::Strange("ids were not drawn in the order of the rows".to_owned()))?;
        let keys = self.rows.iter().map(|row| row.key).collect();
        Ok(Written { ids, keys, events: self.rows.iter().map(|row| row.event.clone()).collect() })
    }
}
