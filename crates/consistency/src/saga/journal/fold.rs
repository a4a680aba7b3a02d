//! What each event changes of what is known of a saga.

use std::{sync::Arc, time::Duration};

use quorate_foundations::time::Wall;
use serde_json::Value;

use super::{Journal, Phase, Progress, Signal, State, StepRecord, Timer};
use crate::saga::event::{Direction, Failure, Happened, Planned, Verb};

/// About how many bytes a value takes.
pub(in crate::saga) fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 16,
        Value::String(text) => 24 + text.len(),
        Value::Array(items) => 24 + items.iter().map(weight).sum::<usize>(),
        Value::Object(members) => {
            24 + members.iter().map(|(name, value)| 24 + name.len() + weight(value)).sum::<usize>()
        }
    }
}

pub(in crate::saga) fn weight_of(happened: &Happened) -> usize {
    let given =
        |planned: &Option<Box<Planned>>| planned.as_ref().and_then(|planned| planned.input.as_ref()).map_or(0, weight);
    match happened {
        Happened::Started { input, .. } => weight(input),
        Happened::StepBegun { planned, .. }
        | Happened::ChildBegun { planned, .. }
        | Happened::StepFailed { planned, .. } => given(planned),
        Happened::StepDone { output, planned, .. } => weight(output) + given(planned),
        Happened::Signalled { data, .. } => weight(data),
        _ => 0,
    }
}

impl Journal {
    /// The journal behind one more event, which happened `at`.
    pub(in crate::saga) fn apply(&mut self, happened: Happened, at: Wall) {
        self.events += 1;
        self.bytes += weight_of(&happened);
        let number = self.events;
        // A way knows what was the last thing before it began.
        let behind = std::mem::replace(&mut self.updated_at, at);
        match happened {
            Happened::Started { version, key, input, deadline_ms, parent } => {
                (self.version, self.key, self.input) = (version, key, input);
                self.started_at = at;
                self.deadline = deadline_ms.map(Duration::from_millis);
                self.parent = parent.map(Arc::from);
            }
            Happened::StepBegun { step, direction, attempt, planned } => {
                let way = self.way_of(step, direction, planned, behind);
                (way.state, way.attempts, way.since) = (State::Running, attempt, at);
            }
            Happened::ChildBegun { step, direction, attempt, child, planned } => {
                let way = self.way_of(step, direction, planned, behind);
                (way.state, way.attempts, way.since) = (State::Running, attempt, at);
                way.child = Some(Arc::from(child));
            }
            Happened::StepDone { step, direction, output, unkept, planned } => {
                let way = self.way_of(step, direction, planned, behind);
                (way.state, way.output, way.in_doubt, way.since) = (State::Done, output, false, at);
                way.unkept = unkept;
            }
            Happened::StepFailed { step, direction, attempt, failure, rest_ms, planned } => {
                let way = self.way_of(step, direction, planned, behind);
                // A refusal says nothing of the attempts before it: one of them may still be on its way, or at work.
                way.in_doubt |= matches!(failure, Failure::Unknown(_));
                // What was held back here was no attempt.
                way.forgiven = way.forgiven.saturating_add(u32::from(matches!(failure, Failure::Held(_))));
                (way.attempts, way.failure, way.since) = (attempt, Some(failure), at);
                match rest_ms {
                    Some(rest) => (way.state, way.rest) = (State::Resting, Duration::from_millis(rest)),
                    None => way.give_up(number),
                }
            }
            Happened::Stuck { step: None, why, .. } => self.stuck = Some(why),
            Happened::Stuck { step: Some(step), direction, .. } => {
                self.way_of(step, direction, None, behind).state = State::Stuck;
            }
            Happened::Signalled { id, signal, data } => {
                self.signals.push(Signal { id, name: signal, data, number });
            }
            Happened::TimerSet { timer, after_ms } => {
                let span = Duration::from_millis(after_ms);
                self.timers.insert(timer, Timer { since: at, span, fired: false, numbers: (number, 0) });
            }
            Happened::TimerFired { timer } => {
                if let Some(timer) = self.timers.get_mut(&timer) {
                    (timer.fired, timer.numbers.1) = (true, number);
                }
            }
            Happened::AbortAsked { why } => self.ask_abort(why),
            Happened::TurnedBack { why } => self.turn_back(why),
            Happened::UndoAsked { why } => {
                self.output = Value::Null;
                self.turn_back(why);
            }
            Happened::Operated { verb, step, direction, note, output, by } => {
                let why = if note.is_empty() { by.to_string() } else { note };
                self.operate(verb, step, direction, (output, at), why);
            }
            Happened::Ended { outcome, output } => {
                (self.phase, self.output) = (Phase::Ended(outcome), output);
            }
        }
    }

    fn ask_abort(&mut self, why: String) {
        if self.abort.is_none() {
            (self.abort, self.abort_asked) = (Some(why), self.events);
        }
    }

    fn turn_back(&mut self, why: String) {
        self.phase = Phase::Compensating;
        self.stuck = None;
        (self.abort, self.abort_asked) = (Some(why), self.events);
        for step in &mut self.steps {
            if matches!(step.forward.state, State::Resting | State::Stuck) {
                step.forward.give_up(self.events);
            }
        }
    }

    fn operate(
        &mut self,
        verb: Verb,
        step: Option<Arc<str>>,
        direction: Direction,
        (output, at): (Value, Wall),
        why: String,
    ) {
        match (verb, step) {
            (Verb::Abort, _) => {
                self.ask_abort(why);
                self.stuck = None;
            }
            (Verb::Force, _) => {}
            (_, None) => self.stuck = None,
            (verb, Some(step)) => {
                let way = self.way_of(step, direction, None, at);
                (way.since, way.rest) = (at, Duration::ZERO);
                match verb {
                    Verb::Retry => (way.state, way.forgiven) = (State::Resting, way.attempts),
                    Verb::MarkCompensated => (way.state, way.output) = (State::Done, output),
                    Verb::MarkRefused => (way.state, way.in_doubt) = (State::Refused, false),
                    _ => (way.state, way.output) = (State::Skipped, output),
                }
            }
        }
    }

    /// The way that this event moves; `behind` is when the last thing before it had happened.
    fn way_of(
        &mut self,
        step: Arc<str>,
        direction: Direction,
        planned: Option<Box<Planned>>,
        behind: Wall,
    ) -> &mut Progress {
        let known = self.steps.iter().position(|known| known.name == step);
        let index = known.unwrap_or_else(|| {
            self.steps.push(StepRecord::new(step, planned));
            self.steps.len() - 1
        });
        let way = self.steps[index].way_mut(direction);
        if way.begun == 0 {
            (way.begun, way.begun_behind) = (self.events, behind);
        }
        way.moved = self.events;
        way
    }
}
