//! The tables of the catalogue, and their rows in and out.
//!
//! `scanned` is the compare-and-set: whoever adds what stands behind it writes how far was read in the same transaction, and writes
//! nothing if somebody else has moved it.

use std::collections::BTreeMap;

use quorate_data::{
    event::Position,
    store::{DynTx, RoomTables, Row, SqlError, Store, StoreError, Value},
};
use quorate_foundations::time::Wall;

use super::{
    CatalogueError,
    service::Catalogue,
    tally::{Card, Count},
};

/// The tables, by version.
pub(crate) const TABLES: RoomTables = RoomTables {
    room: "event-catalogue",
    versions: &["
        CREATE TABLE quorate_catalogue (
            one BIGINT PRIMARY KEY,
            scanned BIGINT NOT NULL,
            types BIGINT NOT NULL);
        CREATE TABLE quorate_catalogue_card (
            kind TEXT NOT NULL,
            dataschema TEXT NOT NULL,
            source TEXT NOT NULL,
            events BIGINT NOT NULL,
            first BIGINT NOT NULL,
            last BIGINT NOT NULL,
            recorded_ns BIGINT NOT NULL,
            PRIMARY KEY (kind, dataschema, source))
    "],
};

/// How far the log was read, and how many types have a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) scanned: Position,
    pub(super) types: u64,
}

pub(super) async fn state(store: &Store) -> Result<State, CatalogueError> {
    let rows = store.room_query("SELECT scanned, types FROM quorate_catalogue WHERE one = 1", Vec::new()).await?;
    let state = |row: &Row| Ok(State { scanned: Position::new(unsigned(row, 0)?), types: unsigned(row, 1)? });
    rows.first().map_or_else(|| Ok(State::default()), state)
}

/// Adds what was counted between `before` and `scanned`; false if somebody else has read on from there, and then the transaction must
/// write nothing else.
pub(super) async fn add(
    tx: &mut DynTx,
    before: State,
    scanned: Position,
    tally: &BTreeMap<Card, Count>,
) -> Result<bool, CatalogueError> {
    if !advance(tx, before.scanned, scanned).await? {
        return Ok(false);
    }
    let mut types = before.types;
    for (card, count) in tally {
        if raise(tx, card, *count).await? {
            continue;
        }
        let others = match cards_of(tx, &card.event_type).await? {
            0 if types >= Catalogue::MAX_TYPES => Some(Card::others_of("")),
            0 => {
                types += 1;
                None
            }
            cards if cards >= Catalogue::MAX_CARDS => Some(Card::others_of(&card.event_type)),
            _ => None,
        };
        match others {
            Some(others) if raise(tx, &others, *count).await? => {}
            others => insert(tx, others.as_ref().unwrap_or(card), *count).await?,
        }
    }
    if types != before.types {
        let sql = "UPDATE quorate_catalogue SET types = $1 WHERE one = 1";
        tx.room_execute(sql, &[number(types)]).await?;
    }
    Ok(true)
}

async fn advance(tx: &mut DynTx, before: Position, scanned: Position) -> Result<bool, SqlError> {
    let params = [number(scanned.get()), number(before.get())];
    let moved = "UPDATE quorate_catalogue SET scanned = $1 WHERE one = 1 AND scanned = $2";
    if tx.room_execute(moved, &params).await? > 0 {
        return Ok(true);
    }
    if before > Position::ZERO {
        return Ok(false);
    }
    let begun = "INSERT INTO quorate_catalogue (one, scanned, types) VALUES (1, $1, 0) ON CONFLICT (one) DO NOTHING";
    tx.room_execute(begun, &params[..1]).await.map(|rows| rows > 0)
}

/// Adds to a card; false if there is none.
async fn raise(tx: &mut DynTx, card: &Card, count: Count) -> Result<bool, SqlError> {
    let sql = "UPDATE quorate_catalogue_card SET events = events + $4, last = $5, recorded_ns = $6
        WHERE kind = $1 AND dataschema = $2 AND source = $3";
    let [kind, dataschema, source] = key(card);
    let counted = [number(count.events), number(count.last.get()), count.recorded.unix_nanos().into()];
    let [events, last, recorded] = counted;
    tx.room_execute(sql, &[kind, dataschema, source, events, last, recorded]).await.map(|rows| rows > 0)
}

async fn insert(tx: &mut DynTx, card: &Card, count: Count) -> Result<(), SqlError> {
    let sql = "INSERT INTO quorate_catalogue_card (kind, dataschema, source, events, first, last, recorded_ns)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let [kind, dataschema, source] = key(card);
    let (first, last) = (number(count.first.get()), number(count.last.get()));
    let params = [kind, dataschema, source, number(count.events), first, last, count.recorded.unix_nanos().into()];
    tx.room_execute(sql, &params).await.map(drop)
}

async fn cards_of(tx: &mut DynTx, event_type: &str) -> Result<u64, CatalogueError> {
    let sql = "SELECT count(*) FROM quorate_catalogue_card WHERE kind = $1";
    let rows = tx.room_query(sql, &[event_type.into()]).await?;
    rows.first().map_or(Ok(0), |row| unsigned(row, 0))
}

/// Types behind `after`, in order of their names.
pub(super) async fn types(store: &Store, after: &str, limit: u32) -> Result<Vec<String>, CatalogueError> {
    let sql = "SELECT DISTINCT kind FROM quorate_catalogue_card WHERE kind > $1 ORDER BY kind LIMIT $2";
    let rows = store.room_query(sql, vec![after.into(), limit.into()]).await?;
    rows.iter().map(|row| text(row, 0)).collect()
}

/// The cards of a type, in order of schema and source; those without a name first.
pub(super) async fn cards(store: &Store, event_type: &str) -> Result<Vec<(Card, Count)>, CatalogueError> {
    let sql = "SELECT dataschema, source, events, first, last, recorded_ns FROM quorate_catalogue_card
        WHERE kind = $1 ORDER BY dataschema, source";
    let rows = store.room_query(sql, vec![event_type.into()]).await?;
    let card = |row: &Row| {
        let card = Card { event_type: event_type.to_owned(), dataschema: text(row, 0)?, source: text(row, 1)? };
        let (first, last) = (Position::new(unsigned(row, 3)?), Position::new(unsigned(row, 4)?));
        let recorded = Wall::from_unix_nanos(row.at(5).as_i64().ok_or_else(|| corrupt(5))?);
        Ok((card, Count { events: unsigned(row, 2)?, first, last, recorded }))
    };
    rows.iter().map(card).collect()
}

fn key(card: &Card) -> [Value; 3] {
    [&card.event_type, &card.dataschema, &card.source].map(|text| Value::from(text.as_str()))
}

fn number(n: u64) -> Value {
    Value::Integer(n.cast_signed())
}

fn unsigned(row: &Row, n: usize) -> Result<u64, CatalogueError> {
    row.at(n).as_i64().map(i64::cast_unsigned).ok_or_else(|| corrupt(n))
}

fn text(row: &Row, n: usize) -> Result<String, CatalogueError> {
    row.at(n).as_str().map(str::to_owned).ok_or_else(|| corrupt(n))
}

fn corrupt(column: usize) -> CatalogueError {
    let what = format!("column {column} is not what it should be");
    CatalogueError::Store(StoreError::Corrupt { place: "quorate_catalogue_card".to_owned(), what })
}
