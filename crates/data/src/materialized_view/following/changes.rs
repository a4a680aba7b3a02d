//! What changed behind a number: the statement that asks, and the cursor that a follower comes back with.

use super::{
    super::{
        Namespace, ViewError,
        query::{Condition, TableDescription, digest},
    },
    recording::record_of,
};
use crate::store::{Row, Statement, Value};

/// Changes read at a time.
pub(super) const CHUNK: usize = 256;

/// The place of a follower: a change of one recording, seen by one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which recording and which query.
    pub(super) tag: u64,
    /// The last change it was told.
    pub(super) seq: i64,
}

impl Place {
    /// As text: 16 digits, a dash, a number.
    pub(super) fn write(self) -> String {
        format!("{:016x}-{}", self.tag, self.seq)
    }

    /// From text; `None` where it is none of ours.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (tag, seq) = text.split_once('-')?;
        let seq = seq.parse().ok().filter(|seq| *seq >= 0)?;
        Some(Self { tag: u64::from_str_radix(tag, 16).ok().filter(|_| tag.len() == 16)?, seq })
    }

    /// Which recording and which query: what differs in either has another tag.
    pub(super) fn tag(store: &crate::store::Store, build: u32, recording: i64, query: &impl std::fmt::Debug) -> u64 {
        let timeline = store.timeline();
        digest(&format!("{}\0{}\0{build}\0{recording}\0{query:?}", timeline.store, timeline.epoch))
    }
}

/// Asks for the number of the last change.
pub(super) fn last_statement(namespace: &Namespace, table: &str) -> Statement {
    Statement::new(format!("SELECT coalesce(max(seq), 0) FROM {}", record_of(namespace, table)), [])
}

/// Asks for the changes behind `seq`, in order: number, gone, born, whether the row is there and as wanted, the key's values,
/// the shown columns.
pub(super) fn statement(
    namespace: &Namespace,
    table: &TableDescription,
    shown: &[String],
    conditions: &[Condition],
    seq: i64,
) -> Result<Statement, ViewError> {
    let mut params: Vec<Value> = vec![seq.into()];
    let mut wanted = String::new();
    for condition in conditions {
        wanted.push_str(" AND ");
        wanted.push_str(&condition.sql(table, "t.", &mut params)?);
    }
    let join: Vec<String> = table.key.iter().map(|column| format!("t.\"{column}\" = c.\"k_{column}\"")).collect();
    let there: Vec<String> = table.key.iter().map(|column| format!("t.\"{column}\" IS NOT NULL")).collect();
    let columns = table.key.iter().map(|column| format!("c.\"k_{column}\""));
    let columns: Vec<String> = columns.chain(shown.iter().map(|column| format!("t.\"{column}\""))).collect();
    let sql = format!(
        "SELECT c.seq, c.gone, c.born, {}, {} FROM {} c LEFT JOIN {} t ON {}{wanted}
         WHERE c.seq > $1 ORDER BY c.seq LIMIT {}",
        there.join(" AND "),
        columns.join(", "),
        record_of(namespace, &table.name),
        namespace.table(&table.name),
        join.join(" AND "),
        CHUNK + 1
    );
    Ok(Statement::new(sql, params))
}

/// A row of the answer to [`statement`].
pub(super) struct Changed<'r> {
    pub(super) seq: i64,
    pub(super) born: i64,
    pub(super) is_there: bool,
    pub(super) key: &'r [Value],
    pub(super) values: &'r [Value],
}

impl<'r> Changed<'r> {
    pub(super) fn of(row: &'r Row, key: usize) -> Self {
        let number = |n: usize| row.at(n).as_i64().unwrap_or_default();
        let (key, values) = row.values.get(4..).unwrap_or_default().split_at_checked(key).unwrap_or_default();
        Self { seq: number(0), born: number(2), is_there: number(3) != 0 && number(1) == 0, key, values }
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_place_survives_being_written_and_read() {
        let place = Place { tag: 0xfe, seq: 17 };
        assert_eq!(Place::read(&place.write()), Some(place));
        for bad in ["", "-", "17", "00000000000000fe-", "00000000000000fe--1", "fe-17", "00000000000000fe-x"] {
            assert_eq!(Place::read(bad), None, "{bad}");
        }
    }
}
