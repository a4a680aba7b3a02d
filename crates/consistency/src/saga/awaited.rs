//! What a saga waits for, for those who look at it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use quorate_foundations::time::Wall;

use super::{
    definition::{Definition, Next},
    event::{ChildRef, Direction, Leg},
    journal::{Journal, Phase, State},
    machine::{self, Alarm},
};

/// Something that a saga waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// What.
    pub what: Awaiting,
    /// Until when, by the wall clock. Spans go by the boot clock: where the wall clock is set, this is off by as much.
    pub until: Option<Wall>,
}

/// What can be waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaiting {
    /// Somebody's decision: about this step, or about the plan.
    Decision(Option<Leg>),
    /// The answer of an attempt.
    Answer(Leg),
    /// The end of a saga that a step started, or has undone.
    Child(Leg, Arc<ChildRef>),
    /// The next attempt.
    Rest(Leg),
    /// That a call which was given up can have no effect any more: then the step is compensated.
    Quiet(Arc<str>),
    /// A signal of this name. Where it is not told in time the plan goes another way.
    Signal(Arc<str>),
    /// A timer of the plan.
    Timer(Arc<str>),
    /// The deadline, at which the saga is given up.
    Deadline,
}

/// What `journal` waits for. What its plan wants is known only with its definition.
pub(super) fn awaited(journal: &Journal, definition: Option<&Definition>) -> Vec<Awaited> {
    if matches!(journal.phase, Phase::Ended(_)) {
        return Vec::new();
    }
    let of_plan = journal.stuck.is_some().then_some(Awaiting::Decision(None));
    let without_end = of_plan.into_iter().chain(legs(journal, State::Stuck, |leg| Awaiting::Decision(Some(leg))));
    let without_end = without_end.chain(legs(journal, State::Running, |leg| {
        let step = journal.step(&leg.step);
        match step.and_then(|step| step.way(leg.direction).child.clone()) {
            Some(child) => Awaiting::Child(leg, child),
            None => Awaiting::Answer(leg),
        }
    }));
    let mut all: Vec<Awaited> = without_end.map(|what| Awaited { what, until: None }).collect();
    let Some(definition) = definition else { return all };
    let next = if goes_by_its_plan(journal) { planned(journal, definition) } else { None };
    let (signal, timer) = match next {
        Some(Next::Signal(name, timer)) => (Some(name), timer),
        Some(Next::Wait(timer)) => (None, timer),
        _ => (None, None),
    };
    let timer = timer.map(|(timer, _)| timer);
    let ends = timer.as_ref().and_then(|timer| journal.timers.get(timer)).map(|timer| timer.since + timer.span);
    let has_signal = signal.is_some();
    all.extend(signal.map(|name| Awaited { what: Awaiting::Signal(name), until: ends }));
    all.extend(machine::alarms(journal, definition).into_iter().filter_map(|(alarm, since, span)| {
        let what = match alarm {
            Alarm::Rest(leg) => Awaiting::Rest(leg),
            Alarm::Quiet(step) => Awaiting::Quiet(step),
            // One that the plan has left behind ends unheard; that of a signal stands with the signal.
            Alarm::Timer(name) if !has_signal && timer.as_ref() == Some(&name) => Awaiting::Timer(name),
            Alarm::Timer(_) => return None,
            Alarm::Deadline => Awaiting::Deadline,
        };
        Some(Awaited { what, until: Some(since + span) })
    }));
    all
}

/// The legs that stand so.
fn legs<'j>(
    journal: &'j Journal,
    state: State,
    what: impl Fn(Leg) -> Awaiting + 'j,
) -> impl Iterator<Item = Awaiting> + 'j {
    let ways = |step| [Direction::Forward, Direction::Compensation].map(|direction| (step, direction));
    let standing = journal.steps.iter().flat_map(ways).filter(move |(step, direction)| {
        let step: &super::journal::StepRecord = step;
        step.way(*direction).state == state
    });
    standing.map(move |(step, direction)| what(Leg { step: step.name.clone(), direction }))
}

fn goes_by_its_plan(journal: &Journal) -> bool {
    journal.phase == Phase::Forward && journal.stuck.is_none() && journal.stuck_legs().next().is_none()
}

/// What the plan wants; nothing where it panics, which the saga itself has an answer to.
fn planned(journal: &Journal, definition: &Definition) -> Option<Next> {
    catch_unwind(AssertUnwindSafe(|| definition.next(journal))).ok()
}
