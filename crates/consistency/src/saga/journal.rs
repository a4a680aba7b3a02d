//! The journal: what is known of a saga, as the fold of its events. Plans look at nothing else.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorate_foundations::time::Wall;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::event::{Direction, Failure, Happened, Leg, Outcome, Planned, Verb};

/// How one way of a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was begun.
    Idle,
    /// An attempt was begun and has not been answered.
    Running,
    /// The last attempt failed; another one follows.
    Resting,
    /// It is done.
    Done,
    /// It definitely had no effect, and is not tried again.
    Refused,
    /// It is not tried again, and may have had its effect.
    Unknown,
    /// An operator went on without it.
    Skipped,
    /// It waits for an operator.
    Stuck,
}

/// One way of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// How it stands.
    pub state: State,
    /// Attempts begun so far.
    pub attempts: u32,
    /// What the attempt that did it answered.
    pub output: Value,
    /// Whether it answered more than is kept: the output is null.
    pub unkept: bool,
    /// What the last attempt failed with.
    pub failure: Option<Failure>,
    /// Attempts that an operator has forgiven.
    pub(super) forgiven: u32,
    /// Whether an attempt may have had an effect, and no later one has settled that.
    pub(super) in_doubt: bool,
    /// Since when it is in this state.
    pub(super) since: Wall,
    /// How long it rests.
    pub(super) rest: Duration,
    /// The first event about it, counted from 1 in the saga; zero: there is none.
    pub(super) begun: u64,
    /// When the last thing before that had happened.
    pub(super) begun_behind: Wall,
    /// The event that brought it to where it is.
    pub(super) moved: u64,
}

/// A step that was begun.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRecord {
    /// Its name in this saga.
    pub name: Arc<str>,
    /// The step of the definition.
    pub of: Arc<str>,
    /// What the plan gave it.
    pub input: Option<Value>,
    /// What it is for.
    pub forward: Progress,
    /// What makes up for it.
    pub compensation: Progress,
}

/// What somebody told a saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Who says it again says it with the same id.
    pub id: Arc<str>,
    /// What it is.
    pub name: Arc<str>,
    /// What it says.
    pub data: Value,
    /// The event that says so.
    pub(super) number: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timer {
    pub(super) since: Wall,
    pub(super) span: Duration,
    pub(super) fired: bool,
    /// The events that set it, and had it run out.
    pub(super) numbers: (u64, u64),
}

/// Where a saga is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Ahead, by its plan.
    Forward,
    /// Back, step by step.
    Compensating,
    /// Nowhere any more.
    Ended(Outcome),
}

/// What is known of a saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Journal {
    /// The version of its definition, for as long as it lives.
    pub version: u32,
    /// Its business key.
    pub key: Option<Arc<str>>,
    /// What it was started with.
    pub input: Value,
    /// Where it is going.
    pub phase: Phase,
    /// Its steps, in the order in which they were begun.
    pub steps: Vec<StepRecord>,
    /// What it was told, in order.
    pub signals: Vec<Signal>,
    /// What it ended with.
    pub output: Value,
    /// Why it turned back, or is to.
    pub abort: Option<String>,
    /// Why its plan cannot go on.
    pub stuck: Option<String>,
    /// When it began.
    pub started_at: Wall,
    /// When something last happened.
    pub updated_at: Wall,
    pub(super) deadline: Option<Duration>,
    pub(super) timers: BTreeMap<Arc<str>, Timer>,
    /// The event that first asked for an abort.
    pub(super) abort_asked: u64,
    /// How many events it has.
    pub(super) events: u64,
    /// What inputs, answers and signals take, in bytes.
    pub(super) bytes: usize,
}

/// About how many bytes a value takes.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 16,
        Value::String(text) => 24 + text.len(),
        Value::Array(items) => 24 + items.iter().map(weight).sum::<usize>(),
        Value::Object(members) => {
            24 + members.iter().map(|(name, value)| 24 + name.len() + weight(value)).sum::<usize>()
        }
    }
}

pub(super) fn weight_of(happened: &Happened) -> usize {
    let given =
        |planned: &Option<Box<Planned>>| planned.as_ref().and_then(|planned| planned.input.as_ref()).map_or(0, weight);
    match happened {
        Happened::Started { input, .. } => weight(input),
        Happened::StepBegun { planned, .. } | Happened::StepFailed { planned, .. } => given(planned),
        Happened::StepDone { output, planned, .. } => weight(output) + given(planned),
        Happened::Signalled { data, .. } => weight(data),
        _ => 0,
    }
}

/// How a saga stands, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It goes ahead, or waits for something.
    Running,
    /// It turned back.
    Compensating,
    /// It waits for an operator.
    Stuck,
    /// Everything was done.
    Completed,
    /// What was done was made up for.
    Compensated,
    /// An operator ended it as it was.
    Forced,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Compensating, Self::Stuck, Self::Completed, Self::Compensated, Self::Forced];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Compensating => "compensating",
            Self::Stuck => "stuck",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Forced => "forced",
        }
    }

    /// Whether nothing happens to it any more.
    pub fn is_ended(self) -> bool {
        self >= Self::Completed
    }

    /// How it ended, if it did.
    pub(super) fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Completed => Some(Outcome::Completed),
            Self::Compensated => Some(Outcome::Compensated),
            Self::Forced => Some(Outcome::Forced),
            Self::Running | Self::Compensating | Self::Stuck => None,
        }
    }

    pub(super) fn code(self) -> i64 {
        match self {
            Self::Running => 0,
            Self::Compensating => 1,
            Self::Stuck => 2,
            Self::Completed => 10,
            Self::Compensated => 11,
            Self::Forced => 12,
        }
    }

    pub(super) fn of_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }
}

impl Progress {
    pub(super) const IDLE: Self = Self {
        state: State::Idle,
        attempts: 0,
        output: Value::Null,
        failure: None,
        forgiven: 0,
        in_doubt: false,
        unkept: false,
        since: Wall::from_unix_nanos(0),
        rest: Duration::ZERO,
        begun: 0,
        begun_behind: Wall::from_unix_nanos(0),
        moved: 0,
    };

    /// As it stood before event `number`. Of what was under way then nobody asks how often it was tried.
    fn before(&self, number: u64) -> Self {
        if self.begun == 0 || self.begun >= number {
            return Self::IDLE;
        }
        if self.moved < number && !matches!(self.state, State::Running | State::Resting) {
            return self.clone();
        }
        Self { state: State::Running, begun: self.begun, begun_behind: self.begun_behind, ..Self::IDLE }
    }

    /// Gives it up.
    fn give_up(&mut self, number: u64) {
        self.moved = number;
        self.state = if self.in_doubt { State::Unknown } else { State::Refused };
    }
}

impl StepRecord {
    fn new(name: Arc<str>, planned: Option<Box<Planned>>) -> Self {
        let Planned { of, input } = planned.map(|planned| *planned).unwrap_or_default();
        Self {
            of: of.unwrap_or_else(|| name.clone()),
            name,
            input,
            forward: Progress::IDLE,
            compensation: Progress::IDLE,
        }
    }

    /// One way of it.
    pub fn way(&self, direction: Direction) -> &Progress {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Compensation => &self.compensation,
        }
    }

    fn way_mut(&mut self, direction: Direction) -> &mut Progress {
        match direction {
            Direction::Forward => &mut self.forward,
            Direction::Compensation => &mut self.compensation,
        }
    }
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            version: 0,
            key: None,
            input: Value::Null,
            phase: Phase::Forward,
            steps: Vec::new(),
            signals: Vec::new(),
            output: Value::Null,
            abort: None,
            stuck: None,
            started_at: Wall::from_unix_nanos(0),
            updated_at: Wall::from_unix_nanos(0),
            deadline: None,
            timers: BTreeMap::new(),
            abort_asked: 0,
            events: 0,
            bytes: 0,
        }
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        match self.phase {
            Phase::Ended(Outcome::Completed) => Status::Completed,
            Phase::Ended(Outcome::Compensated) => Status::Compensated,
            Phase::Ended(Outcome::Forced) => Status::Forced,
            _ if self.stuck.is_some() || self.stuck_legs().next().is_some() => Status::Stuck,
            Phase::Forward => Status::Running,
            Phase::Compensating => Status::Compensating,
        }
    }

    /// Why it is stuck, where it is: what its plan said, or what the step that is stuck failed with.
    pub fn why_stuck(&self) -> Option<&str> {
        let leg = self.stuck_legs().next();
        let of_step = leg.and_then(|leg| self.step(&leg.step)?.way(leg.direction).failure.as_ref());
        self.stuck.as_deref().or(of_step.map(Failure::reason))
    }

    /// What waits for an operator.
    pub fn stuck_legs(&self) -> impl Iterator<Item = Leg> {
        self.steps.iter().flat_map(|step| {
            let is_stuck = |direction: &Direction| step.way(*direction).state == State::Stuck;
            let ways = [Direction::Forward, Direction::Compensation].into_iter().filter(is_stuck);
            ways.map(|direction| Leg { step: step.name.clone(), direction })
        })
    }

    /// The step of that name, once it was begun.
    pub fn step(&self, name: &str) -> Option<&StepRecord> {
        self.steps.iter().find(|step| &*step.name == name)
    }

    /// What the saga was started with, as a `T`.
    ///
    /// # Errors
    /// What serde says where it is no `T`.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.input)
    }

    /// What a step answered; `None` until it is done.
    pub fn output(&self, step: &str) -> Option<&Value> {
        let forward = &self.step(step)?.forward;
        matches!(forward.state, State::Done | State::Skipped).then_some(&forward.output)
    }

    /// Whether a step is done, or an operator went on without it.
    pub fn is_done(&self, step: &str) -> bool {
        self.output(step).is_some()
    }

    /// Whether a step definitely had no effect and is not tried again.
    pub fn is_refused(&self, step: &str) -> bool {
        self.step(step).is_some_and(|step| step.forward.state == State::Refused)
    }

    /// What the first signal of that name says.
    pub fn signal(&self, name: &str) -> Option<&Value> {
        self.signals.iter().find(|signal| &*signal.name == name).map(|signal| &signal.data)
    }

    /// Whether the timer of that name has run out.
    pub fn has_fired(&self, timer: &str) -> bool {
        self.timers.get(timer).is_some_and(|timer| timer.fired)
    }

    /// Whether the timer of that name was ever set.
    pub fn has_timer(&self, timer: &str) -> bool {
        self.timers.contains_key(timer)
    }

    /// What had happened when `leg` was first begun: the same whenever it is asked, and by whom.
    pub(super) fn as_begun(self: &Arc<Self>, leg: &Leg) -> Arc<Self> {
        let way = self.step(&leg.step).map(|step| step.way(leg.direction));
        let Some(&Progress { begun: number @ 1.., begun_behind, .. }) = way else { return self.clone() };
        let was = |event: u64| event > 0 && event < number;
        let steps = self.steps.iter().filter(|step| was(step.forward.begun));
        let step = |step: &StepRecord| StepRecord {
            forward: step.forward.before(number),
            compensation: step.compensation.before(number),
            ..step.clone()
        };
        let timers = self.timers.iter().filter(|(_, timer)| was(timer.numbers.0)).map(|(name, timer)| {
            let fired = timer.fired && was(timer.numbers.1);
            (name.clone(), Timer { fired, ..timer.clone() })
        });
        Arc::new(Self {
            version: self.version,
            key: self.key.clone(),
            input: self.input.clone(),
            phase: match leg.direction {
                Direction::Forward => Phase::Forward,
                Direction::Compensation => Phase::Compensating,
            },
            steps: steps.map(step).collect(),
            signals: self.signals.iter().filter(|signal| was(signal.number)).cloned().collect(),
            output: Value::Null,
            abort: self.abort.clone().filter(|_| was(self.abort_asked)),
            stuck: None,
            started_at: self.started_at,
            updated_at: begun_behind,
            deadline: self.deadline,
            timers: timers.collect(),
            abort_asked: if was(self.abort_asked) { self.abort_asked } else { 0 },
            events: number - 1,
            bytes: 0,
        })
    }

    /// The journal behind one more event, which happened `at`.
    pub(super) fn apply(&mut self, happened: Happened, at: Wall) {
        self.events += 1;
        self.bytes += weight_of(&happened);
        let number = self.events;
        // A way knows what was the last thing before it began.
        let behind = std::mem::replace(&mut self.updated_at, at);
        match happened {
            Happened::Started { version, key, input, deadline_ms } => {
                (self.version, self.key, self.input) = (version, key, input);
                self.started_at = at;
                self.deadline = deadline_ms.map(Duration::from_millis);
            }
            Happened::StepBegun { step, direction, attempt, planned } => {
                let way = self.way_of(step, direction, planned, behind);
                (way.state, way.attempts, way.since) = (State::Running, attempt, at);
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
