//! Rooms on the move: whose tables they are, and what becomes of their rows.

use crate::{
    materialized_view, schema,
    store::{Capabilities, RoomTables, hybrid_clock, inbox},
    subscription,
};

/// A room's tables, and what becomes of them.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// The tables.
    pub tables: RoomTables,
    /// What becomes of their rows.
    pub fate: Fate,
    /// A statement that says elsewhere, as the store is left, what of them has to be known where it goes.
    pub leaving: Option<&'static str>,
}

/// What becomes of a room's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They go along.
    Carried,
    /// They mean something where they are alone, and are begun anew where the store goes.
    BegunAnew,
    /// They go along where the destination can do this. Elsewhere nothing may be in these tables (in any of them, where none is
    /// named): what they hold is said, and what to do. What other tables of the room have is then begun anew.
    Where {
        /// What it has to be able to do.
        can: Can,
        /// What must be empty elsewhere.
        tables: &'static [&'static str],
        /// What these hold, and what to do about it.
        what: &'static str,
    },
}

/// What a destination has to be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Can {
    /// Keep tables of views.
    KeepViews,
    /// Belong to one process alone.
    BelongToOne,
}

impl Can {
    pub(super) fn holds(self, of: &Capabilities) -> bool {
        match self {
            Self::KeepViews => of.view_tables,
            Self::BelongToOne => !of.several_writers,
        }
    }
}

impl Room {
    /// One whose rows go along.
    pub const fn carried(tables: RoomTables) -> Self {
        Self { tables, fate: Fate::Carried, leaving: None }
    }

    /// One whose rows mean nothing elsewhere.
    pub const fn begun_anew(tables: RoomTables) -> Self {
        Self { tables, fate: Fate::BegunAnew, leaving: None }
    }

    /// The same, and this statement is run as the store is left, of which the embedded one has no need.
    #[must_use]
    pub const fn leaving(self, statement: &'static str) -> Self {
        Self { leaving: Some(statement), ..self }
    }

    /// One whose rows go along where the destination can do this, and of which these tables must be empty elsewhere.
    pub const fn carried_where(
        can: Can,
        tables: RoomTables,
        empty: &'static [&'static str],
        what: &'static str,
    ) -> Self {
        Self { tables, fate: Fate::Where { can, tables: empty, what }, leaving: None }
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
    let with_views =
        |tables| Room { tables, fate: Fate::Where { can: Can::KeepViews, tables: &[], what: VIEWS }, leaving: None };
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
