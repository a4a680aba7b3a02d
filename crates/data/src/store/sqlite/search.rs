//! Search: which indexed events may match a query, in order of position.
//!
//! Each item of a query has a driver, the list of positions that narrows it most: all its tags at once (leapfrogging over
//! their lists), else any of its types, else any of its categories, else everything. What a driver finds is a candidate;
//! the event itself decides.

use rusqlite::Connection;

use super::{
    conditions::{Looks, Unsearched},
    index::{self, Run},
    tail::TermKind,
};
use crate::store::{Query, QueryItem, StoreError};

/// So many lists in memory are asked in the time of one look at an event.
const LISTS_PER_LOOK: usize = 16;
/// What reading a run of positions from the database costs.
const LOOKS_PER_RUN: usize = 8;

/// A search through the index tables.
pub(super) struct Search<'c> {
    connection: &'c Connection,
    drivers: Vec<Driver>,
    /// What one look for the next candidate costs: going through so many lists.
    cost: usize,
}

enum Driver {
    Everything,
    All(Vec<List>),
    Any(Vec<List>),
}

/// A term's positions, of which one run at a time is in memory.
struct List {
    term: i64,
    run: Option<Run>,
    /// No position lies between the `after` of the last look-up and the run.
    from: u64,
}

impl<'c> Search<'c> {
    pub(super) fn new(connection: &'c Connection, query: &Query) -> Result<Self, StoreError> {
        let drivers = if query.is_everything() {
            vec![Driver::Everything]
        } else {
            query.items.iter().map(|item| Driver::of(connection, item)).collect::<Result<_, _>>()?
        };
        let cost = 1 + drivers.iter().map(Driver::lists).sum::<usize>() / LISTS_PER_LOOK;
        Ok(Self { connection, drivers, cost })
    }

    /// The first candidate behind `after`.
    pub(super) fn next(&mut self, after: u64, looks: &mut Looks) -> Result<Option<u64>, Unsearched> {
        looks.spend(self.cost)?;
        let mut first: Option<u64> = None;
        for driver in &mut self.drivers {
            let found = driver.next(self.connection, after, looks)?;
            first = first.into_iter().chain(found).min();
        }
        Ok(first)
    }
}

impl Driver {
    fn of(connection: &Connection, item: &QueryItem) -> Result<Self, StoreError> {
        let lists = |kind, words: &[String]| -> Result<Vec<List>, StoreError> {
            let terms = words.iter().map(|word| index::term(connection, kind, word)).collect::<Result<Vec<_>, _>>()?;
            Ok(terms.into_iter().flatten().map(List::new).collect())
        };
        if !item.tags.is_empty() {
            let all = lists(TermKind::Tag, &item.tags)?;
            // A tag that no indexed event carries leaves nothing to find.
            return Ok(if all.len() == item.tags.len() { Self::All(all) } else { Self::Any(Vec::new()) });
        }
        if !item.types.is_empty() {
            return Ok(Self::Any(lists(TermKind::Type, &item.types)?));
        }
        if !item.categories.is_empty() {
            return Ok(Self::Any(lists(TermKind::Category, &item.categories)?));
        }
        Ok(Self::Everything)
    }

    /// How many lists it goes through.
    fn lists(&self) -> usize {
        match self {
            Self::Everything => 1,
            Self::All(lists) | Self::Any(lists) => lists.len(),
        }
    }

    fn next(&mut self, connection: &Connection, after: u64, looks: &mut Looks) -> Result<Option<u64>, Unsearched> {
        match self {
            Self::Everything => Ok(Some(after + 1)),
            Self::Any(lists) => {
                let mut first: Option<u64> = None;
                for list in lists {
                    first = first.into_iter().chain(list.next(connection, after, looks)?).min();
                }
                Ok(first)
            }
            Self::All(lists) => leapfrog(lists, connection, after, looks),
        }
    }
}

/// The first position behind `after` that is in all lists: each list jumps to where the others already are.
fn leapfrog(
    lists: &mut [List],
    connection: &Connection,
    after: u64,
    looks: &mut Looks,
) -> Result<Option<u64>, Unsearched> {
    let mut candidate = after + 1;
    let mut agreed = 0;
    while agreed < lists.len() {
        agreed = 0;
        for list in &mut *lists {
            looks.spend(1)?;
            let Some(next) = list.next(connection, candidate - 1, looks)? else { return Ok(None) };
            if next == candidate {
                agreed += 1;
            } else {
                candidate = next;
            }
        }
    }
    Ok(Some(candidate))
}

impl List {
    fn new(term: i64) -> Self {
        Self { term, run: None, from: u64::MAX }
    }

    fn next(&mut self, connection: &Connection, after: u64, looks: &mut Looks) -> Result<Option<u64>, Unsearched> {
        let reaches = |run: &Run| run.positions.last().is_some_and(|last| *last > after);
        if after < self.from || !self.run.as_ref().is_some_and(reaches) {
            looks.spend(LOOKS_PER_RUN)?;
            self.run = index::postings(connection, self.term, after)?;
            self.from = after;
        }
        Ok(self.run.as_ref().and_then(|run| {
            let n = run.positions.partition_point(|position| *position <= after);
            run.positions.get(n).copied()
        }))
    }
}
