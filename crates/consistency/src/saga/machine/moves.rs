//! What is to be done next: ahead by the plan, or back step by step.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use super::{Alarm, Attempt, MAX_BYTES, Move, is_past_pivot, is_pivot_on_its_way};
use crate::saga::{
    definition::{Definition, Kind, Next, Step, Todo, check_word},
    event::{Direction, Failure, Happened, Leg, Outcome, Planned, clipped},
    journal::{Journal, Phase, Progress, State, StepRecord},
    value::{as_read, small},
};

/// What is to be done now. `rung` are the alarms whose span has passed; what rests for no time needs none.
pub fn next(journal: &Journal, definition: &Definition, rung: &BTreeSet<Alarm>) -> Vec<Move> {
    match journal.phase {
        Phase::Ended(_) => Vec::new(),
        Phase::Forward => Ahead { journal, definition, rung }.moves(),
        Phase::Compensating => back(journal, definition, rung),
    }
}

/// The attempt that a resting leg waits for, if its rest is over.
fn due(step: &StepRecord, direction: Direction, rung: &BTreeSet<Alarm>) -> Option<Attempt> {
    let way = step.way(direction);
    let leg = Leg { step: step.name.clone(), direction };
    let rested = way.state == State::Resting && (way.rest.is_zero() || rung.contains(&Alarm::Rest(leg.clone())));
    rested.then(|| Attempt { leg, of: step.of.clone(), number: way.attempts.saturating_add(1), planned: None })
}

struct Ahead<'a> {
    journal: &'a Journal,
    definition: &'a Definition,
    rung: &'a BTreeSet<Alarm>,
}

impl Ahead<'_> {
    fn moves(&self) -> Vec<Move> {
        if let Some(failed) = self.journal.steps.iter().find(|step| self.has_failed(step)) {
            return self.failed(failed);
        }
        if let Some(why) = &self.journal.abort
            && !self.is_past_pivot()
        {
            return self.turn_back(why.clone());
        }
        let mut moves = self.due(|_| true);
        if self.journal.stuck.is_none() && !self.journal.steps.iter().any(|step| step.forward.state == State::Stuck) {
            moves.extend(self.planned());
        }
        moves
    }

    /// Attempts whose rest is over.
    fn due(&self, of: impl Fn(&StepRecord) -> bool) -> Vec<Move> {
        let resting = self.journal.steps.iter().filter(|step| of(step));
        resting.filter_map(|step| due(step, Direction::Forward, self.rung)).map(Move::Attempt).collect()
    }

    /// Turns back, unless a pivot is on its way: nobody knows yet whether there is a way back, so its answer is waited for.
    fn turn_back(&self, why: String) -> Vec<Move> {
        let is_on_its_way = |step: &StepRecord| is_pivot_on_its_way(step, self.definition);
        if self.journal.steps.iter().any(is_on_its_way) {
            return self.due(is_on_its_way);
        }
        vec![Move::Record(Happened::TurnedBack { why })]
    }

    fn kind(&self, step: &StepRecord) -> Option<Kind> {
        self.definition.steps.get(&step.of).map(|step| step.kind)
    }

    fn is_past_pivot(&self) -> bool {
        is_past_pivot(self.journal, self.definition)
    }

    fn has_failed(&self, step: &StepRecord) -> bool {
        match step.forward.state {
            State::Unknown => true,
            State::Refused => !self.definition.steps.get(&step.of).is_some_and(|step| step.may_be_refused),
            _ => false,
        }
    }

    /// What a step that failed for good leads to.
    fn failed(&self, step: &StepRecord) -> Vec<Move> {
        let reason = step.forward.failure.as_ref().map_or("", Failure::reason);
        if self.kind(step) == Some(Kind::Retriable) || self.is_past_pivot() {
            let (direction, why) = (Direction::Forward, reason.to_owned());
            return vec![Move::Record(Happened::Stuck { step: Some(step.name.clone()), direction, why })];
        }
        self.turn_back(format!("step `{}`: {reason}", step.name))
    }

    fn planned(&self) -> Vec<Move> {
        let is_under_way = self.journal.steps.iter().any(|step| is_open(&step.forward));
        match self.definition.next(self.journal) {
            Next::Do(todos) => self.begin(todos, is_under_way),
            Next::Wait(None) | Next::Signal(_, None) => Vec::new(),
            Next::Wait(Some((timer, _))) | Next::Signal(_, Some((timer, _)))
                if self.journal.timers.contains_key(&timer) =>
            {
                Vec::new()
            }
            Next::Wait(Some((timer, span))) | Next::Signal(_, Some((timer, span))) => {
                let after_ms = u64::try_from(span.min(Definition::MAX_SPAN).as_millis()).unwrap_or(u64::MAX);
                vec![Move::Record(Happened::TimerSet { timer, after_ms })]
            }
            Next::Done(_) | Next::Abort(_) | Next::Stuck(_) if is_under_way => Vec::new(),
            Next::Stuck(why) => vec![stuck(why)],
            Next::Done(output) if !small(&output) => {
                vec![stuck("the plan ends it with more than a saga's output may have")]
            }
            Next::Done(output) => vec![Move::Record(Happened::Ended { outcome: Outcome::Completed, output })],
            Next::Abort(_) if self.is_past_pivot() => vec![stuck("the plan gives up, and the pivot is done")],
            Next::Abort(why) => vec![Move::Record(Happened::TurnedBack { why: clipped(why) })],
        }
    }

    fn begin(&self, todos: Vec<Todo>, is_under_way: bool) -> Vec<Move> {
        let mut moves = Vec::new();
        let mut named = BTreeSet::new();
        for todo in todos {
            if !self.definition.steps.contains_key(&todo.of) {
                return vec![stuck(format!("the plan names step `{}`, which the definition does not have", todo.of))];
            }
            if let Err(what) = check_word("a step's name", &todo.name) {
                return vec![stuck(format!("the plan names a step wrongly: {what}"))];
            }
            if todo.input.as_ref().is_some_and(|input| !small(input)) {
                return vec![stuck(format!("the plan gives step `{}` more than a step may be given", todo.name))];
            }
            if self.journal.step(&todo.name).is_some() || !named.insert(todo.name.clone()) {
                continue;
            }
            let Todo { name, of, input } = todo;
            let input = input.map(as_read);
            let other = (of != name).then(|| of.clone());
            let planned = (other.is_some() || input.is_some()).then(|| Box::new(Planned { of: other, input }));
            moves.push(Move::Attempt(Attempt { leg: Leg::forward(name), of, number: 1, planned }));
        }
        if moves.is_empty() && !is_under_way {
            return vec![stuck("the plan names only steps that are over")];
        }
        // What is behind the pivot goes on: there is no way back.
        if !moves.is_empty() && self.journal.bytes > MAX_BYTES && !self.is_past_pivot() {
            return vec![stuck(format!("what is known of it takes more than {MAX_BYTES} bytes"))];
        }
        moves
    }
}

fn stuck(why: impl Into<String>) -> Move {
    Move::Record(Happened::Stuck { step: None, direction: Direction::Forward, why: clipped(why.into()) })
}

/// Whether an attempt is under way, or another one follows.
fn is_open(way: &Progress) -> bool {
    matches!(way.state, State::Running | State::Resting)
}

/// The way back: one step at a time, the last one first.
fn back(journal: &Journal, definition: &Definition, rung: &BTreeSet<Alarm>) -> Vec<Move> {
    if journal.steps.iter().any(|step| step.forward.state == State::Running) {
        return Vec::new();
    }
    let may_have_had_an_effect = |step: &&StepRecord| matches!(step.forward.state, State::Done | State::Unknown);
    let is_made_up_for = |step: &StepRecord| matches!(step.compensation.state, State::Done | State::Skipped);
    let can_be = |step: &&StepRecord| definition.steps.get(&step.of).is_some_and(Step::can_be_undone);
    let mut open = journal.steps.iter().rev().filter(may_have_had_an_effect).filter(can_be);
    let Some(step) = open.find(|step| !is_made_up_for(step)) else {
        return vec![Move::Record(Happened::Ended { outcome: Outcome::Compensated, output: Value::Null })];
    };
    let way = &step.compensation;
    match way.state {
        State::Idle => {
            let quiet = definition.steps.get(&step.of).map_or(Duration::ZERO, Step::quiet_time);
            let is_quiet = quiet.is_zero() || rung.contains(&Alarm::Quiet(step.name.clone()));
            if step.forward.state == State::Unknown && !is_quiet {
                return Vec::new();
            }
            let leg = Leg::compensation(step.name.clone());
            vec![Move::Attempt(Attempt { leg, of: step.of.clone(), number: 1, planned: None })]
        }
        State::Resting => due(step, Direction::Compensation, rung).map(Move::Attempt).into_iter().collect(),
        State::Refused | State::Unknown => {
            let why = way.failure.as_ref().map_or("", Failure::reason).to_owned();
            let (step, direction) = (Some(step.name.clone()), Direction::Compensation);
            vec![Move::Record(Happened::Stuck { step, direction, why })]
        }
        State::Running | State::Stuck | State::Done | State::Skipped => Vec::new(),
    }
}
