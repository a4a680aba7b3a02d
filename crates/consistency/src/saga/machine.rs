//! The rules: what is to be done next, and what becomes of what comes in. Pure functions of the journal and the definition.
//!
//! A saga goes ahead by its plan until it is done, or until something turns it back; then it makes up for its steps, the last one first.
//!
//! * Invariant: a step is compensated only while none of the forward calls is under way, and, where its outcome is unknown, not before
//!   its quiet time has passed.
//! * Invariant: once a pivot is done, or is stuck, nothing turns the saga back.
//! * Invariant: what has ended takes no input, and nothing comes out of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use quorate_foundations::time::Wall;
use quorate_resilience::dice::Dice;
use serde_json::Value;

use super::{
    definition::{Definition, Kind, Output, Step, check_word},
    event::{Direction, Failure, Happened, Leg, Planned, Verb},
    journal::{Journal, Phase, Progress, State, StepRecord, weight},
};

mod deciding;
mod moves;
#[cfg(test)]
mod tests;

use self::deciding::operated;
pub use self::moves::next;

/// A span that has to pass.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// Until the next attempt.
    Rest(Leg),
    /// Until a call that was given up can have no effect any more.
    Quiet(Arc<str>),
    /// A timer of the plan.
    Timer(Arc<str>),
    /// The saga's own.
    Deadline,
}

/// What comes in.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// An attempt was answered, or given up.
    Answer {
        /// Of what.
        leg: Leg,
        /// Which attempt.
        attempt: u32,
        /// The answer.
        answer: Result<Output, Failure>,
    },
    /// Nobody waits for the answers of attempts that were begun, other than these: another process did.
    Interrupted {
        /// Which are waited for.
        but: BTreeSet<(Leg, u32)>,
    },
    /// Somebody tells it something.
    Signal {
        /// Known already: nothing happens.
        id: Arc<str>,
        /// What.
        name: Arc<str>,
        /// What it says.
        data: Value,
    },
    /// Somebody decides something.
    Operate(Operation),
    /// A span has passed.
    Rang(Alarm),
    /// Whoever runs it looks at the sagas that it started. Nothing comes of that by itself.
    Look,
}

/// What somebody decides, and who.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// What.
    pub verb: Verb,
    /// About which step; `None`: about the saga, or the only thing that is stuck.
    pub step: Option<Arc<str>>,
    /// Who.
    pub by: Arc<str>,
    /// Why, for whoever looks at it later.
    pub note: String,
    /// What the step is to have answered, where it is skipped.
    pub output: Value,
}

/// Why something that came in was not taken. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is over.
    #[error("the saga has ended")]
    Ended,
    /// Nobody waits for it any more.
    #[error("attempt {attempt} of step `{step}` is not under way")]
    Late {
        /// The step.
        step: Arc<str>,
        /// The attempt.
        attempt: u32,
    },
    /// The verb does not fit how the saga stands.
    #[error("{what}")]
    Unfit {
        /// What does not fit, and what would.
        what: String,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Move {
    /// Something has come about.
    Record(Happened),
    /// An attempt is due.
    Attempt(Attempt),
}

/// An attempt that is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Of what.
    pub leg: Leg,
    /// The step of the definition.
    pub of: Arc<str>,
    /// Which one, counted from 1.
    pub number: u32,
    /// What the plan gave the step, where this is the first that is heard of it.
    pub planned: Option<Box<Planned>>,
}

impl Input {
    /// Nobody waits for any answer.
    pub fn interrupted() -> Self {
        Self::Interrupted { but: BTreeSet::new() }
    }
}

fn unfit(what: impl Into<String>) -> Refusal {
    Refusal::Unfit { what: what.into() }
}

/// What has come about by `input`.
///
/// # Errors
/// [`Refusal`]: nothing has.
pub fn take(
    journal: &Journal,
    definition: &Definition,
    input: Input,
    dice: &mut Dice,
) -> Result<Vec<Happened>, Refusal> {
    if matches!(journal.phase, Phase::Ended(_)) {
        return Err(Refusal::Ended);
    }
    match input {
        Input::Answer { leg, attempt, answer } => {
            let way = journal.step(&leg.step).map(|step| step.way(leg.direction));
            if !way.is_some_and(|way| way.state == State::Running && way.attempts == attempt) {
                return Err(Refusal::Late { step: leg.step, attempt });
            }
            Ok(vec![answered(journal, definition, leg, attempt, answer, None, dice)])
        }
        Input::Interrupted { but } => Ok(interrupted(journal, definition, &but, dice)),
        Input::Signal { id, name, data } => signalled(journal, id, name, data),
        Input::Operate(operation) => operated(journal, definition, operation),
        Input::Rang(Alarm::Timer(timer)) if journal.timers.get(&timer).is_some_and(|timer| !timer.fired) => {
            Ok(vec![Happened::TimerFired { timer }])
        }
        Input::Rang(Alarm::Deadline) if journal.abort.is_none() && journal.phase == Phase::Forward => {
            Ok(vec![Happened::AbortAsked { why: "its deadline has passed".to_owned() }])
        }
        Input::Rang(_) | Input::Look => Ok(Vec::new()),
    }
}

/// The most that inputs, answers and signals of a saga take together, in bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// The most signals of a saga.
pub const MAX_SIGNALS: usize = 1_000;

/// Whether a signal was told before, and said the same; `None` where its id is new.
pub(super) fn told_before(journal: &Journal, id: &str, name: &str, data: &Value) -> Option<Result<(), Refusal>> {
    let known = journal.signals.iter().find(|known| &*known.id == id)?;
    let is_same = &*known.name == name && known.data == *data;
    Some(if is_same { Ok(()) } else { Err(unfit(format!("signal `{id}` said something else"))) })
}

fn signalled(journal: &Journal, id: Arc<str>, name: Arc<str>, data: Value) -> Result<Vec<Happened>, Refusal> {
    if let Some(known) = told_before(journal, &id, &name, &data) {
        return known.map(|()| Vec::new());
    }
    if journal.bytes + weight(&data) > MAX_BYTES {
        return Err(unfit(format!("what is known of a saga takes at most {MAX_BYTES} bytes")));
    }
    check_word("a signal's id", &id).and_then(|()| check_word("a signal's name", &name)).map_err(unfit)?;
    if journal.signals.len() >= MAX_SIGNALS {
        return Err(unfit(format!("a saga takes at most {MAX_SIGNALS} signals")));
    }
    Ok(vec![Happened::Signalled { id, signal: name, data }])
}

/// What an attempt's answer comes to.
pub(super) fn answered(
    journal: &Journal,
    definition: &Definition,
    leg: Leg,
    attempt: u32,
    answer: Result<Output, Failure>,
    planned: Option<Box<Planned>>,
    dice: &mut Dice,
) -> Happened {
    let Leg { step, direction } = leg;
    match answer {
        Ok(Output::Kept(output)) => Happened::StepDone { step, direction, output, unkept: false, planned },
        Ok(Output::TooLarge) => Happened::StepDone { step, direction, output: Value::Null, unkept: true, planned },
        Err(failure) => {
            let failure = failure.clipped();
            let of = journal.step(&step).map(|known| &known.of);
            let of = of.or(planned.as_ref().and_then(|planned| planned.of.as_ref())).unwrap_or(&step);
            let way = journal.step(&step).map(|known| known.way(direction));
            let rest = definition.steps.get(of).and_then(|rule| {
                let idle = Progress::IDLE;
                let way = way.unwrap_or(&idle);
                if way.child.is_some() && way.state == State::Running {
                    // A saga that has ended is not asked again.
                    return None;
                }
                if is_wanted(journal, definition, rule, direction, &failure, way.in_doubt) {
                    let counted = attempt.saturating_sub(way.forgiven);
                    return match &failure {
                        Failure::Refused(_) => None,
                        Failure::Held(_) => Some(held(way, dice)),
                        _ if counted >= rule.allowed(direction) => None,
                        _ => Some(rule.pace(direction).wait(counted.max(1), way.rest, dice)),
                    };
                }
                None
            });
            let rest_ms = rest.map(|rest| u64::try_from(rest.as_millis()).unwrap_or(u64::MAX));
            Happened::StepFailed { step, direction, attempt, failure, rest_ms, planned }
        }
    }
}

/// How long what was held back here rests: each time in a row for twice as long, from a second to a minute.
fn held(way: &Progress, dice: &mut Dice) -> Duration {
    let before = if matches!(way.failure, Some(Failure::Held(_))) { way.rest } else { Duration::ZERO };
    let rest = (before * 2).clamp(Duration::from_secs(1), Duration::from_secs(60));
    rest + dice.between(Duration::ZERO, rest / 4)
}

/// Whether anybody wants another attempt of a step whose last one failed.
fn is_wanted(
    journal: &Journal,
    definition: &Definition,
    rule: &Step,
    direction: Direction,
    failure: &Failure,
    in_doubt: bool,
) -> bool {
    if direction == Direction::Compensation {
        return true;
    }
    if journal.phase == Phase::Forward && journal.abort.is_some() && !is_past_pivot(journal, definition) {
        // What nobody wants any more is tried again only to learn what a pivot came to.
        return rule.kind == Kind::Pivot && (in_doubt || matches!(failure, Failure::Unknown(_)));
    }
    journal.phase == Phase::Forward
}

/// Whether there is no way back: a pivot is done, or nobody knows whether it is.
pub(super) fn is_past_pivot(journal: &Journal, definition: &Definition) -> bool {
    journal.steps.iter().any(|step| {
        let is_over = matches!(step.forward.state, State::Done | State::Skipped | State::Unknown | State::Stuck);
        is_over && is_pivot(step, definition)
    })
}

fn is_pivot(step: &StepRecord, definition: &Definition) -> bool {
    definition.steps.get(&step.of).is_some_and(|step| step.kind == Kind::Pivot)
}

/// Whether a pivot was begun, and nobody knows yet what it comes to.
fn is_pivot_on_its_way(step: &StepRecord, definition: &Definition) -> bool {
    let is_open = match step.forward.state {
        State::Running => true,
        State::Resting => step.forward.in_doubt,
        _ => false,
    };
    is_open && is_pivot(step, definition)
}

/// Whether the saga that `step` started is to turn back: nothing of this one is wanted any more. Beside a pivot that is on its way it goes
/// on: if that is done, this one goes ahead.
pub fn is_called_back(journal: &Journal, definition: &Definition, step: &str) -> bool {
    let is_itself = || journal.step(step).is_some_and(|step| is_pivot(step, definition));
    let waits = || journal.steps.iter().any(|step| is_pivot_on_its_way(step, definition));
    match journal.phase {
        Phase::Forward => journal.abort.is_some() && !is_past_pivot(journal, definition) && (is_itself() || !waits()),
        Phase::Compensating => true,
        Phase::Ended(_) => false,
    }
}

/// Attempts that nobody waits for have an unknown outcome; they are made again at once, under the same key.
fn interrupted(
    journal: &Journal,
    definition: &Definition,
    but: &BTreeSet<(Leg, u32)>,
    dice: &mut Dice,
) -> Vec<Happened> {
    let running = journal.steps.iter().flat_map(|step| {
        let ways = [Direction::Forward, Direction::Compensation].map(|direction| (step, direction));
        ways.into_iter().filter(|(step, direction)| {
            // A saga of its own goes on whoever waits, and says itself that it has ended.
            let way = step.way(*direction);
            way.state == State::Running && way.child.is_none()
        })
    });
    let with_leg = running.map(|(step, direction)| (step, direction, Leg { step: step.name.clone(), direction }));
    let is_left = |step: &StepRecord, direction, leg: &Leg| !but.contains(&(leg.clone(), step.way(direction).attempts));
    let left = with_leg.filter(|(step, direction, leg)| is_left(step, *direction, leg));
    let given_up = left.map(|(step, direction, leg)| {
        let failure = Failure::unknown("the process that waited for the answer ended");
        let mut failed = answered(journal, definition, leg, step.way(direction).attempts, Err(failure), None, dice);
        if let Happened::StepFailed { rest_ms: Some(rest), .. } = &mut failed {
            *rest = 0;
        }
        failed
    });
    given_up.collect()
}

/// The spans that have to pass, with when each began.
pub fn alarms(journal: &Journal, definition: &Definition) -> Vec<(Alarm, Wall, Duration)> {
    let mut alarms = Vec::new();
    if matches!(journal.phase, Phase::Ended(_)) {
        return alarms;
    }
    for step in &journal.steps {
        for direction in [Direction::Forward, Direction::Compensation] {
            let way = step.way(direction);
            if way.state == State::Resting {
                let leg = Leg { step: step.name.clone(), direction };
                alarms.push((Alarm::Rest(leg), way.since, way.rest));
            }
        }
        let is_in_doubt = step.forward.state == State::Unknown && step.compensation.state == State::Idle;
        if let Some(rule) = definition.steps.get(&step.of)
            && is_in_doubt
            && rule.can_be_undone()
            && journal.phase == Phase::Compensating
        {
            alarms.push((Alarm::Quiet(step.name.clone()), step.forward.since, rule.quiet_time()));
        }
    }
    let running = journal.timers.iter().filter(|(_, timer)| !timer.fired);
    alarms.extend(running.map(|(name, timer)| (Alarm::Timer(name.clone()), timer.since, timer.span)));
    if let Some(span) = journal.deadline
        && journal.abort.is_none()
        && journal.phase == Phase::Forward
    {
        alarms.push((Alarm::Deadline, journal.started_at, span));
    }
    alarms
}
