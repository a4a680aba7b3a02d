//! The search for an order, depth first.

use std::collections::BTreeSet;

use super::{
    Budget, Exhausted,
    bits::Bits,
    model::Model,
    plan::{Plan, Step},
};

/// What a search found.
pub(super) enum Found {
    /// An order, as places among the operations handed in.
    Order(Vec<usize>),
    /// That there is none.
    Nothing,
    /// That the budget is too small.
    OutOf(Exhausted),
}

/// An operation to come next: its place in the plan.
#[derive(Clone, Copy)]
enum Move {
    Answered(usize),
    Unknown(usize),
}

/// A point of the search: what was done on the way to it is in [`Search`].
struct Point<S> {
    state: S,
    /// How the search came here.
    by: Option<Move>,
    /// Answered operations that may come next, with the state after each, the first to try last.
    next: Vec<(Move, S)>,
    /// The first unknown operation that was not tried yet.
    next_unknown: usize,
    /// Behind the last unknown operation that may come next.
    unknown_end: usize,
}

/// The name of a point without its state.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Done {
    /// How many words at the front of each are full and therefore left out.
    full_words: (usize, usize),
    answered: Box<[u64]>,
    unknown: Box<[u64]>,
}

struct Search<'s, 'o, M: Model> {
    model: &'s M,
    facts: &'s M::Facts,
    plan: &'s Plan<'o, M::Op, M::Ret>,
    budget: Budget,
    steps: u64,
    bytes: usize,
    answered: Bits,
    unknown: Bits,
    /// Every answered operation before this one is done. Restored on the way back.
    first: usize,
    visited: BTreeSet<(Done, M::State)>,
}

/// Searches for an order of the plan's operations. Returns what it found and how many steps that took.
pub(super) fn search<M: Model>(
    model: &M,
    facts: &M::Facts,
    plan: &Plan<'_, M::Op, M::Ret>,
    budget: Budget,
) -> (Found, u64) {
    let mut search = Search {
        model,
        facts,
        plan,
        budget,
        steps: 0,
        bytes: 0,
        answered: Bits::up_to(plan.answered.len()),
        unknown: Bits::up_to(plan.unknown.len()),
        first: 0,
        visited: BTreeSet::new(),
    };
    let found = search.run();
    (found, search.steps)
}

impl<M: Model> Search<'_, '_, M> {
    fn run(&mut self) -> Found {
        let mut path = vec![self.arrive(self.model.initial(), None)];
        while let Some(point) = path.last_mut() {
            if self.answered.len() == self.plan.answered.len() {
                return Found::Order(path.iter().filter_map(|point| Some(self.step_of(point.by?).index)).collect());
            }
            if self.steps > self.budget.steps {
                return Found::OutOf(Exhausted::Steps(self.budget.steps));
            }
            if self.bytes > self.budget.bytes {
                return Found::OutOf(Exhausted::Bytes(self.budget.bytes));
            }
            if let Some((by, state)) = self.leave(point) {
                self.take(by);
                if self.visit(&state) {
                    let point = self.arrive(state, Some(by));
                    path.push(point);
                } else {
                    self.take_back(by);
                }
            } else {
                let by = point.by;
                path.pop();
                if let Some(by) = by {
                    self.take_back(by);
                }
            }
        }
        Found::Nothing
    }

    /// Looks at what can come next from `state`.
    fn arrive(&mut self, state: M::State, by: Option<Move>) -> Point<M::State> {
        let nothing = |state| Point { state, by, next: Vec::new(), next_unknown: 0, unknown_end: 0 };
        let mut next = Vec::new();
        let mut first_return = u64::MAX;
        for (place, step) in self.plan.answered.iter().enumerate().skip(self.first) {
            if step.invoked > first_return {
                break;
            }
            let Some((ret, returned)) = step.answer.filter(|_| !self.answered.contains(place)) else { continue };
            first_return = first_return.min(returned);
            if self.model.never_again(self.facts, &state, step.op, ret) {
                return nothing(state);
            }
            self.steps += 1;
            let Some(after) = self.model.step(self.facts, &state, step.op, Some(ret)) else { continue };
            if after == state && self.model.only_looks(&state, step.op, ret) {
                // It may be moved to the front of every explanation from here on, so it needs no alternative.
                let mut point = nothing(state);
                point.next.push((Move::Answered(place), after));
                return point;
            }
            next.push((Move::Answered(place), after));
        }
        next.reverse();
        let unknown_end = self.plan.unknown.partition_point(|step| step.invoked < first_return);
        Point { state, by, next, next_unknown: 0, unknown_end }
    }

    /// The next way out of `point`, if there is another.
    fn leave(&mut self, point: &mut Point<M::State>) -> Option<(Move, M::State)> {
        if let Some(next) = point.next.pop() {
            return Some(next);
        }
        while point.next_unknown < point.unknown_end {
            let place = point.next_unknown;
            point.next_unknown += 1;
            if self.unknown.contains(place) {
                continue;
            }
            self.steps += 1;
            let after = self.model.step(self.facts, &point.state, self.plan.unknown[place].op, None);
            // One that changes nothing here is as good as one that never took effect.
            if let Some(after) = after.filter(|after| *after != point.state) {
                return Some((Move::Unknown(place), after));
            }
        }
        None
    }

    fn take(&mut self, by: Move) {
        match by {
            Move::Answered(place) => {
                self.answered.insert(place);
                while self.first < self.plan.answered.len() && self.answered.contains(self.first) {
                    self.first += 1;
                }
            }
            Move::Unknown(place) => self.unknown.insert(place),
        }
    }

    fn take_back(&mut self, by: Move) {
        match by {
            Move::Answered(place) => {
                self.answered.remove(place);
                self.first = self.first.min(place);
            }
            Move::Unknown(place) => self.unknown.remove(place),
        }
    }

    /// Remembers the point; `false` if the search was here before.
    fn visit(&mut self, state: &M::State) -> bool {
        let (answered_from, answered) = self.answered.middle(self.first / 64);
        let told_by_state = M::REPEATS_CHANGE_NOTHING;
        let (unknown_from, unknown) = if told_by_state { (0, [].as_slice()) } else { self.unknown.middle(0) };
        let full_words = (answered_from, unknown_from);
        let done = Done { full_words, answered: answered.into(), unknown: unknown.into() };
        let words = done.answered.len() + done.unknown.len();
        let bytes = size_of::<Done>() + 8 * words + self.model.bytes(state);
        let new = self.visited.insert((done, state.clone()));
        self.bytes += if new { bytes } else { 0 };
        new
    }

    fn step_of(&self, by: Move) -> &Step<'_, M::Op, M::Ret> {
        match by {
            Move::Answered(place) => &self.plan.answered[place],
            Move::Unknown(place) => &self.plan.unknown[place],
        }
    }
}
