//! Every way in which a transaction can be struck: each message lost, late or twice, the coordinator dead or replaced at every
//! point, and what becomes of it.
//!
//! The world explored here is made of the rules that run in production, those of a [transaction](super::machine) and those of a participant
//! that keeps promises in rows; the network, the disk and time are replaced by *anything may happen next*. A participant that dies before its
//! promise is durable is a lost request, one that dies behind it a lost answer. A coordinator that dies forgets everything but the log.
//!
//! Not in this world: people who end something by hand, events for other streams, a participant alone, and what participants forget.
//!
//! # Example
//! ```
//! use quorate_consistency::two_phase_commit::crashes::{Ballot, Faults, explore};
//! let table = explore(&[Ballot::Yes, Ballot::Yes], Faults { crashes: 1, ..Faults::default() }).expect("no course breaks the promise");
//! assert!(table.rows.keys().any(|point| point.contains("dies")));
//! ```

mod world;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
};

use self::world::{Next, World};

/// The most states that are looked at.
pub const MAX_STATES: usize = 500_000;

/// What a participant says when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ballot {
    /// Yes.
    Yes,
    /// It has changed nothing.
    ReadOnly,
    /// No.
    No,
}

/// How many of each fault one course has at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Faults {
    /// Deaths of the coordinator.
    pub crashes: u8,
    /// Takeovers while the coordinator still lives, and does not know.
    pub replacements: u8,
    /// Messages lost, among them what a participant's death loses.
    pub losses: u8,
    /// Messages that arrive twice.
    pub duplicates: u8,
    /// Votes given up on that were still on their way.
    pub late: u8,
}

/// How it ended at the participants that voted yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Everywhere committed.
    Committed,
    /// Everywhere as if it had not been.
    Aborted,
}

/// What the caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// Nothing: whoever would have told died.
    Nothing,
    /// That it is committed.
    Committed,
    /// That it is aborted.
    Aborted,
    /// That the outcome is unknown.
    Unknown,
}

/// What can become of a transaction, by what struck it first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// How many states were looked at.
    pub states: usize,
    /// Whether there were more than [`MAX_STATES`], so that some were not looked at.
    pub is_cut: bool,
    /// Every end there is behind each first fault.
    pub rows: BTreeMap<String, BTreeSet<(End, Told)>>,
}

/// A course that breaks the promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}, after: {}", trace.join("; "))]
pub struct Violation {
    /// What is broken.
    pub what: &'static str,
    /// What happened, in order.
    pub trace: Vec<String>,
}

/// Looks at every course of a transaction whose participants vote so, with at most so many faults.
///
/// # Errors
/// [`Violation`] for a course in which somebody commits and somebody else aborts, the caller is told what is not so, an effect happens twice, or somebody
/// is left with a promise.
pub fn explore(ballots: &[Ballot], faults: Faults) -> Result<Table, Violation> {
    let start = World::begun(ballots.len(), faults);
    let mut known = BTreeMap::from([(start.clone(), 0)]);
    let mut came: Vec<(usize, String)> = vec![(0, "it begins".to_owned())];
    let mut waiting = VecDeque::from([(start, 0)]);
    let mut table = Table::default();
    while let Some((world, at)) = waiting.pop_front() {
        if known.len() > MAX_STATES {
            table.is_cut = true;
            break;
        }
        let broken = |what| Violation { what, trace: trace(&came, at) };
        world.check(ballots).map_err(broken)?;
        let next = world.next(ballots);
        if next.iter().all(|next| next.is_fault) {
            let end = world.end(ballots).map_err(broken)?;
            let first = world.first.clone().unwrap_or_else(|| "nothing goes wrong".to_owned());
            table.rows.entry(first).or_default().insert((end, world.told));
        }
        for Next { what, world, .. } in next {
            if known.contains_key(&world) {
                continue;
            }
            known.insert(world.clone(), came.len());
            waiting.push_back((world, came.len()));
            came.push((at, what));
        }
    }
    table.states = known.len();
    Ok(table)
}

fn trace(came: &[(usize, String)], mut at: usize) -> Vec<String> {
    let mut trace = Vec::new();
    while at != 0 {
        trace.push(came[at].1.clone());
        at = came[at].0;
    }
    trace.reverse();
    trace
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Committed => "committed",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Committed { "committed" } else { "aborted" })
    }
}
