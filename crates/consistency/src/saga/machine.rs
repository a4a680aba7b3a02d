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
    definition::{Definition, Kind, Next, Output, Step, Todo, check_word},
    event::{Direction, Failure, Happened, Leg, Outcome, Planned, Verb, clipped},
    journal::{Journal, Phase, Progress, State, StepRecord, weight},
    value::{as_read, small},
};

#[cfg(test)]
mod tests;

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
        Input::Rang(_) => Ok(Vec::new()),
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
fn is_past_pivot(journal: &Journal, definition: &Definition) -> bool {
    journal.steps.iter().any(|step| {
        let is_over = matches!(step.forward.state, State::Done | State::Skipped | State::Unknown | State::Stuck);
        is_over && is_pivot(step, definition)
    })
}

fn is_pivot(step: &StepRecord, definition: &Definition) -> bool {
    definition.steps.get(&step.of).is_some_and(|step| step.kind == Kind::Pivot)
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
        ways.into_iter().filter(|(step, direction)| step.way(*direction).state == State::Running)
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

/// What an operator's decision comes to.
fn operated(journal: &Journal, definition: &Definition, operation: Operation) -> Result<Vec<Happened>, Refusal> {
    let Operation { verb, step, by, note, output } = operation;
    check_word("who decides", &by).map_err(unfit)?;
    let leg = match verb {
        Verb::Abort if is_past_pivot(journal, definition) => {
            return Err(unfit("the saga's pivot is done, or may be: it only goes ahead"));
        }
        Verb::Abort if journal.phase != Phase::Forward => return Err(unfit("the saga has turned back already")),
        Verb::Force if journal.stuck.is_none() && journal.stuck_legs().next().is_none() => {
            return Err(unfit("the saga is not stuck: abort it, or wait"));
        }
        Verb::Abort | Verb::Force => None,
        Verb::Retry if step.is_none() && journal.stuck.is_some() => None,
        Verb::MarkRefused => {
            let leg = stuck_leg(journal, verb, step)?;
            if !journal.step(&leg.step).is_some_and(|step| is_pivot(step, definition)) {
                return Err(unfit("there is no way back from this step: try it again, or skip it"));
            }
            Some(leg)
        }
        Verb::Retry | Verb::Skip | Verb::MarkCompensated => Some(stuck_leg(journal, verb, step)?),
    };
    let direction = leg.as_ref().map_or(Direction::Forward, |leg| leg.direction);
    let mut happened = vec![Happened::Operated { verb, step: leg.map(|leg| leg.step), direction, by, note, output }];
    if verb == Verb::Force {
        happened.push(Happened::Ended { outcome: Outcome::Forced, output: Value::Null });
    }
    Ok(happened)
}

/// The leg that a verb is about: it has to be stuck.
fn stuck_leg(journal: &Journal, verb: Verb, step: Option<Arc<str>>) -> Result<Leg, Refusal> {
    let fits = |leg: &Leg| {
        let is_way = match verb {
            Verb::MarkCompensated => leg.direction == Direction::Compensation,
            Verb::MarkRefused => leg.direction == Direction::Forward,
            _ => true,
        };
        is_way && step.as_ref().is_none_or(|step| *step == leg.step)
    };
    let mut stuck = journal.stuck_legs().filter(fits);
    match (stuck.next(), stuck.next()) {
        (Some(leg), None) => Ok(leg),
        (Some(_), Some(_)) => Err(unfit("several steps are stuck: name the one that is meant")),
        (None, _) if verb == Verb::MarkCompensated => Err(unfit("no such compensation is stuck")),
        (None, _) => Err(unfit("no such step is stuck")),
    }
}

/// What is to be done now. `rung` are the alarms whose span has passed; what rests for no time needs none.
pub fn next(journal: &Journal, definition: &Definition, rung: &BTreeSet<Alarm>) -> Vec<Move> {
    match journal.phase {
        Phase::Ended(_) => Vec::new(),
        Phase::Forward => Ahead { journal, definition, rung }.moves(),
        Phase::Compensating => back(journal, definition, rung),
    }
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
            && rule.compensation.is_some()
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
        let is_on_its_way = |step: &StepRecord| {
            let is_open = match step.forward.state {
                State::Running => true,
                State::Resting => step.forward.in_doubt,
                _ => false,
            };
            is_open && is_pivot(step, self.definition)
        };
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
    let can_be = |step: &&StepRecord| definition.steps.get(&step.of).is_some_and(|rule| rule.compensation.is_some());
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
