//! Is there an order of these operations, one after the other, that explains every answer?
//!
//! # Intuition
//! Clients see a store through a fog: each operation takes a while, and within that while it takes effect at *one*
//! instant nobody sees. A history is *linearizable* if such instants can be chosen, each within its operation's while,
//! so that a store which did one thing after the other would have given the same answers. Whoever finds them has a
//! witness; if none can be found, some client was told something that was not true when it was told.
//!
//! ```text
//! client 0   ├──── append a → 1 ────┤
//! client 1        ├───── append b → 2 ─────┤
//! client 2                    ├─ read → [a] ─┤         explained by: a, read, b
//! client 3                                      ├─ read → [a] ─┤      by nothing: b was over before
//! ```
//!
//! # How it searches
//! Depth first over orders. At each point any operation may come next that was invoked before the first of the others
//! was answered (Wing and Gong). A point is a set of operations done and a state; one that was reached before is not
//! tried again (Lowe). Objects that don't share operations are judged one by one, since a history is linearizable exactly
//! if it is per object (Herlihy and Wing; Horn and Kroening call it P-compositionality).
//!
//! Five more prunings matter here. Each leaves the answer as it is:
//!
//! * **What only looks goes first.** An answered operation that is legal now and changes nothing, now or later, can be
//!   moved to the front of any explanation, so it is taken at once, without alternative. Reads cost nothing.
//! * **Unknown operations go last.** They may take effect at any later time or never, and most of them either did so
//!   when nothing else explains the next answer, or not at all.
//! * **Facts.** [`Model::learn`] reads off from the answers what every explanation must contain (version 4 of this
//!   stream is event *a*), so that an unknown operation is tried only where it can fit.
//! * **Idempotence.** Where repeating an operation changes nothing ([`Model::REPEATS_CHANGE_NOTHING`]), the state alone
//!   tells which unknown operations are left, and points that differ only in them are one.
//! * **Lost causes.** [`Model::never_again`] tells that an answer has become impossible (a read of three events,
//!   when there are five), so that nothing is tried on top.
//!
//! The problem is NP-complete and some histories stay expensive; so a search has a [`Budget`] of steps and bytes, which
//! unlike seconds are the same on every machine, and may answer [`Linearizability::Unknown`].
//!
//! # The counter-example
//! First the smallest beginning of the history that already can't be explained. Then, of its operations, as few as
//! possible are left with their answers; the others count as unknown, as if their clients had crashed. What remains
//! contradicts itself whatever the others did: usually two or three operations.
//!
//! # Example
//! ```
//! use quorate_foundations::time::Mono;
//! use quorate_sim::check::{
//!     history::{ClientId, History},
//!     register::{self, Call, Reply},
//! };
//!
//! let (at, writer, reader) = (Mono::from_nanos, ClientId(0), ClientId(1));
//! let mut history = History::new();
//! let write = history.invoke(writer, Call::write("x", 1), at(0));
//! history.ok(write, Reply::Written, at(10));
//! let stale = history.invoke(reader, Call::read("x"), at(20));
//! history.ok(stale, Reply::Value(None), at(30));
//!
//! let verdict = register::linearizable(&history);
//! assert_eq!(verdict.violations()[0].operations, [write, stale]);
//! ```
//!
//! Sources: M. Herlihy, J. Wing, "Linearizability: A Correctness Condition for Concurrent Objects" (1990), locality in
//! section 3.1; J. Wing, C. Gong, "Testing and Verifying Concurrent Objects" (1993); G. Lowe, "Testing for
//! Linearizability" (2017), section 5; A. Horn, D. Kroening, "Faster Linearizability Checking via P-compositionality"
//! (2015). Ours differs in the prunings above and in minimising.

mod bits;
mod minimise;
mod model;
mod plan;
mod search;

use std::fmt;

pub use self::model::{Contradiction, Model, Observed};
use self::{plan::Plan, search::Found};
use super::{
    history::OpId,
    verdict::{Gathering, Kind, Verdict, Violation},
};

/// How much one search may spend. The same on every machine, so that a verdict replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Steps of the model, for each object. Default 20 million, some seconds.
    pub steps: u64,
    /// Bytes of remembered points, for each object. Default 256 MiB.
    pub bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { steps: 20_000_000, bytes: 256 << 20 }
    }
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// This many steps were not enough.
    Steps(u64),
    /// This many bytes were not enough.
    Bytes(usize),
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => write!(f, "{steps} steps were not enough"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes of memory were not enough"),
        }
    }
}

/// Operations that no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterExample {
    /// The operations whose answers contradict each other, whatever the other operations did; ascending.
    pub operations: Vec<OpId>,
    /// The same in words.
    pub sentence: String,
    /// The operation with whose completion the history became impossible.
    pub last: OpId,
    /// How many operations had been invoked by then.
    pub prefix: usize,
}

/// The verdict on one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linearizability {
    /// There is an order that explains every answer.
    Linearizable {
        /// It. Unknown operations that it doesn't need are absent.
        witness: Vec<OpId>,
    },
    /// There is none.
    Violated(CounterExample),
    /// Nothing was found within the budget.
    Unknown {
        /// What ran out.
        exhausted: Exhausted,
    },
}

/// A search's verdict and what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The verdict.
    pub verdict: Linearizability,
    /// Steps of the model taken, those of minimising included.
    pub steps: u64,
}

/// Judges the operations on one object.
///
/// `operations`: in the order of their invocation; those that definitely had no effect are left out.
pub fn check<M: Model>(model: &M, operations: &[Observed<M::Op, M::Ret>], budget: Budget) -> Judged {
    let facts = match model.learn(operations) {
        Ok(facts) => facts,
        Err(_) => return minimise::counter_example(model, operations, budget, 0),
    };
    let plan = Plan::of(operations, |_| true);
    let (found, steps) = search::search(model, &facts, &plan, budget);
    match found {
        Found::Order(order) => {
            let witness = order.into_iter().map(|index| operations[index].id).collect();
            Judged { verdict: Linearizability::Linearizable { witness }, steps }
        }
        Found::OutOf(exhausted) => Judged { verdict: Linearizability::Unknown { exhausted }, steps },
        Found::Nothing => minimise::counter_example(model, operations, budget, steps),
    }
}

/// One of several objects that share no operations.
#[derive(Clone, Debug)]
pub struct Object<'h, M: Model> {
    /// What people call it.
    pub name: &'h str,
    /// How it would behave alone.
    pub model: M,
    /// Its operations, as [`check`] wants them.
    pub operations: Vec<Observed<M::Op, M::Ret>>,
}

/// Judges several objects, each by itself, as one claim.
pub fn check_all<'h, M: Model + 'h>(
    claim: &'static str,
    objects: impl IntoIterator<Item = Object<'h, M>>,
    budget: Budget,
) -> Verdict {
    let mut gathering = Gathering::on(claim);
    for Object { name, model, operations } in objects {
        gathering.examined(operations.len());
        match check(&model, &operations, budget).verdict {
            Linearizability::Linearizable { .. } => {}
            Linearizability::Unknown { exhausted } => gathering.undecided(format!("{name}: {exhausted}")),
            Linearizability::Violated(CounterExample { operations, sentence, .. }) => {
                let violation = Violation::new(Kind::NotLinearizable, format!("{name}: {sentence}"));
                gathering.found(violation.of(name).by(operations));
            }
        }
    }
    gathering.verdict()
}

#[cfg(test)]
mod tests;
