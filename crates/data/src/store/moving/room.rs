//! Rooms on the move: whose tables they are, and what becomes of their rows.

use crate::{
    materialized_view, schema,
    store::{RoomTables, hybrid_clock, inbox},
    subscription,
};

/// A room's tables, and what becomes of them.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// The tables.
    pub tables: RoomTables,
    /// What becomes of their rows.
    pub fate: Fate,
}

/// What becomes of a room's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They go along.
    Carried,
    /// They mean something where they are alone, and are begun anew where the store goes.
    BegunAnew,
    /// They go along where views have tables; elsewhere the room must be empty, and says what has to go first.
    WithViews(&'static str),
}

impl Room {
    /// One whose rows go along.
    pub const fn carried(tables: RoomTables) -> Self {
        Self { tables, fate: Fate::Carried }
    }

    /// One whose rows mean nothing elsewhere.
    pub const fn begun_anew(tables: RoomTables) -> Self {
        Self { tables, fate: Fate::BegunAnew }
    }

    /// The names of its tables, in all of their versions.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.tables.versions.iter().flat_map(|version| version.split("CREATE TABLE ").skip(1)).map(|behind| {
            let end = behind.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(behind.len());
            &behind[..end]
        })
    }
}

/// The rooms of this crate.
pub fn rooms() -> Vec<Room> {
    const VIEWS: &str = "views, which PostgreSQL does not hold yet: drop them, and declare them anew where it can";
    let with_views = |tables| Room { tables, fate: Fate::WithViews(VIEWS) };
    vec![
        Room::carried(schema::rows::TABLES),
        Room::carried(hybrid_clock::TABLES),
        Room::carried(inbox::TABLES),
        Room::carried(subscription::TABLES),
        with_views(materialized_view::TABLES),
        with_views(materialized_view::DOCUMENT_TABLES),
        with_views(materialized_view::FOLLOW_TABLES),
    ]
}

/// A room's tables at one of their versions.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Version {
    pub(in crate::store) tables: RoomTables,
    /// Counted from 1; at most as many as there are.
    pub(in crate::store) number: usize,
}

impl Version {
    /// The statements that make the tables as they were at this version.
    pub(in crate::store) fn statements(&self) -> impl Iterator<Item = &'static str> {
        let versions = &self.tables.versions[..self.number];
        versions.iter().flat_map(|version| version.split(';')).filter(|statement| !statement.trim().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::{Room, RoomTables, rooms};

    #[test]
    fn every_room_of_this_crate_makes_tables_of_its_own() {
        let names: Vec<_> = rooms().iter().flat_map(|room| room.names().collect::<Vec<_>>()).collect();
        assert!(names.iter().all(|name| name.starts_with("quorate_")), "{names:?}");
        let alone: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(alone.len(), names.len(), "{names:?}");
    }

    #[test]
    fn a_room_is_known_by_the_tables_it_makes() {
        let versions =
            &["CREATE TABLE quorate_a (x TEXT); CREATE INDEX i ON quorate_a (x)", "CREATE TABLE quorate_a_b(y TEXT)"];
        let room = Room::carried(RoomTables { room: "a", versions });
        assert_eq!(room.names().collect::<Vec<_>>(), ["quorate_a", "quorate_a_b"]);
    }
}
