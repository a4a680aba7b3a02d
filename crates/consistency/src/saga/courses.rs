//! Every course that a saga can take: each crash, lost or repeated message and late arrival, one at a time, at each call.
//!
//! A definition is run over participants that are made up here: nothing is called and nothing is kept. First it runs with nothing going
//! wrong, and once for each step with that step refused, so that the way back is walked as well. Then, at each call of each of
//! these, each [`Fault`] happens, and [`Course::wrong`] says what should not be so in the end.
//!
//! A step that is a saga of its own begins with its record, so no request of it is lost: where messages are, the process dies instead before it looks what
//! became of it. That it *arrives late* is that it ends when nothing else is left to happen, called back if nothing of the saga is wanted any more.
//!
//! *When not to use it*: to try what actions do. Here they do nothing; the participants' idempotency is taken for granted, and whether
//! they have a [barrier](super::Barrier) is for the caller to say.
//!
//! # Example
//! ```
//! use std::time::Duration;
//! use quorate_consistency::saga::{Action, Definition, Step, courses::{Participants, courses}};
//! use serde_json::Value;
//!
//! let nowhere = || Action::remote(|_| async { Ok(Value::Null) });
//! let step = |name: &str| Step::new(name, nowhere()).compensated_by(nowhere());
//! let order = Definition::new("order".parse()?, 1).step(step("reserve")).step(step("charge"));
//! assert!(courses(&order, &Participants::default()).iter().all(|course| course.wrong.is_empty()));
//!
//! // Who waits for nothing, and has no barrier, does what was compensated already.
//! let hasty = Definition::new("hasty".parse()?, 1).step(step("reserve").quiet(Duration::ZERO)).step(step("charge"));
//! assert!(courses(&hasty, &Participants::default()).iter().any(|course| !course.wrong.is_empty()));
//! assert!(courses(&hasty, &Participants { barrier: true, ..Participants::default() }).iter().all(|course| course.wrong.is_empty()));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod children;
mod judging;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use quorate_foundations::time::Wall;
use quorate_resilience::dice::Dice;
use serde_json::Value;

use super::{
    definition::{Action, Definition, Output},
    event::{Direction, Failure, Happened, Leg},
    journal::{Journal, Status},
    machine::{self, Alarm, Attempt, Input, Move},
};

/// What goes wrong at one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process dies when the attempt is recorded and nothing was sent.
    CrashBeforeCall,
    /// The process dies when the participant is done and the answer is not recorded.
    CrashAfterEffect,
    /// The process dies when the answer is recorded.
    CrashAfterRecord,
    /// The request is lost.
    LostRequest,
    /// The answer is lost.
    LostAnswer,
    /// The request arrives twice.
    Duplicate,
    /// No attempt ever gets an answer, and the first request arrives late: as late as it can.
    LateArrival,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::CrashBeforeCall,
        Self::CrashAfterEffect,
        Self::CrashAfterRecord,
        Self::LostRequest,
        Self::LostAnswer,
        Self::Duplicate,
        Self::LateArrival,
    ];

    /// The words for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::CrashBeforeCall => "crash before the call",
            Self::CrashAfterEffect => "crash after the effect",
            Self::CrashAfterRecord => "crash after the record",
            Self::LostRequest => "request lost",
            Self::LostAnswer => "answer lost",
            Self::Duplicate => "request twice",
            Self::LateArrival => "arrives late",
        }
    }
}

/// What participants are like.
#[derive(Clone, Debug, Default)]
pub struct Participants {
    /// Whether they turn away what was compensated before it came.
    pub barrier: bool,
    /// What the saga is started with.
    pub input: Value,
    /// What steps answer, by name; null for the others.
    pub answers: BTreeMap<String, Value>,
    /// What the saga is told when it waits, in order.
    pub signals: Vec<(String, Value)>,
}

/// One course, and what came of it.
#[derive(Clone, Debug)]
pub struct Course {
    /// The step that is refused; none in the course that ends well.
    pub refused: Option<Arc<str>>,
    /// The call at which something goes wrong; none where nothing does.
    pub fault: Option<(Leg, Fault)>,
    /// How it ends.
    pub status: Status,
    /// Calls that were made.
    pub calls: usize,
    /// What should not be so.
    pub wrong: Vec<String>,
}

/// The most courses that are run.
pub const MAX_COURSES: usize = 100_000;

/// The most turns of one course.
const MAX_TURNS: usize = 10_000;

/// Runs `definition` through all of its courses, [`MAX_COURSES`] at most.
pub fn courses(definition: &Definition, participants: &Participants) -> Vec<Course> {
    let mut all = Vec::new();
    let well = World::new(definition, participants, None, None).run();
    let mut steps = Vec::new();
    for leg in &well.called {
        if leg.direction == Direction::Forward && !steps.contains(&leg.step) {
            steps.push(leg.step.clone());
        }
    }
    let bases = std::iter::once(None).chain(steps.into_iter().map(Some));
    for refused in bases {
        let base = World::new(definition, participants, refused.clone(), None).run();
        let calls = base.called.clone();
        all.push(base.course());
        for (place, _) in calls.iter().enumerate() {
            for fault in Fault::ALL {
                if all.len() >= MAX_COURSES {
                    return all;
                }
                all.push(World::new(definition, participants, refused.clone(), Some((place, fault))).run().course());
            }
        }
    }
    all
}

struct World<'a> {
    definition: &'a Definition,
    participants: &'a Participants,
    refused: Option<Arc<str>>,
    fault: Option<(usize, Fault)>,
    /// Where the fault happened.
    at: Option<Leg>,
    journal: Journal,
    now: Wall,
    rung: BTreeSet<Alarm>,
    dice: Dice,
    called: Vec<Leg>,
    /// Legs that had their effect, in order.
    effects: Vec<Leg>,
    /// Steps whose compensation came, by the barrier's book.
    closed: BTreeSet<Arc<str>>,
    /// A request that is still on its way.
    late: Option<Leg>,
    /// A saga of its own that ends as late as it can.
    late_child: Option<(Leg, u32)>,
    told: usize,
    wrong: Vec<String>,
}

impl<'a> World<'a> {
    fn new(
        definition: &'a Definition,
        participants: &'a Participants,
        refused: Option<Arc<str>>,
        fault: Option<(usize, Fault)>,
    ) -> Self {
        Self {
            definition,
            participants,
            refused,
            fault,
            at: None,
            journal: Journal::new(),
            now: Wall::from_unix_nanos(0),
            rung: BTreeSet::new(),
            dice: Dice::seeded(0),
            called: Vec::new(),
            effects: Vec::new(),
            closed: BTreeSet::new(),
            late: None,
            late_child: None,
            told: 0,
            wrong: Vec::new(),
        }
    }

    fn run(mut self) -> Self {
        let version = self.definition.version();
        let deadline_ms = self.definition.deadline.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        self.note(Happened::Started {
            version,
            key: None,
            input: self.participants.input.clone(),
            deadline_ms,
            parent: None,
        });
        for _ in 0..MAX_TURNS {
            let moves = machine::next(&self.journal, self.definition, &self.rung);
            if moves.is_empty() && !self.wait() {
                self.arrives_late();
                self.judge();
                return self;
            }
            for one in moves {
                match one {
                    Move::Record(happened) => self.note(happened),
                    Move::Attempt(attempt) => {
                        // What else was to be done is asked for again: an answer may change it.
                        self.attempt(attempt);
                        break;
                    }
                }
            }
        }
        self.wrong.push("it never comes to rest".to_owned());
        self
    }

    fn note(&mut self, happened: Happened) {
        self.journal.apply(happened, self.now);
        let alarms = machine::alarms(&self.journal, self.definition);
        self.rung.retain(|rung| alarms.iter().any(|(alarm, ..)| alarm == rung));
    }

    fn take(&mut self, input: Input) {
        if let Ok(all) = machine::take(&self.journal, self.definition, input, &mut self.dice) {
            all.into_iter().for_each(|happened| self.note(happened));
        }
    }

    /// Lets the next thing happen that the saga waits for; `false` if there is none.
    fn wait(&mut self) -> bool {
        if self.journal.status().is_ended() {
            return false;
        }
        let alarms = machine::alarms(&self.journal, self.definition).into_iter();
        let next =
            alarms.filter(|(alarm, ..)| !self.rung.contains(alarm)).min_by_key(|(_, since, span)| *since + *span);
        // Nobody waits for a deadline as long as there is something to be told.
        let can_be_told = self.told < self.participants.signals.len() && self.journal.status() == Status::Running;
        let is_rest = matches!(&next, Some((Alarm::Rest(_) | Alarm::Quiet(_), ..)));
        if can_be_told && !is_rest {
            let (name, data) = &self.participants.signals[self.told];
            self.told += 1;
            let id = format!("signal-{}", self.told).into();
            self.take(Input::Signal { id, name: name.as_str().into(), data: data.clone() });
            return true;
        }
        let Some((alarm, since, span)) = next else { return self.late_child_ends() };
        self.now = self.now.max(since + span);
        if matches!(alarm, Alarm::Quiet(_)) {
            // It has had all the time it may take.
            self.arrives_late();
        }
        self.rung.insert(alarm.clone());
        self.take(Input::Rang(alarm));
        true
    }

    fn attempt(&mut self, attempt: Attempt) {
        let Attempt { leg, of, number, planned } = attempt;
        self.rung.remove(&Alarm::Rest(leg.clone()));
        let place = self.called.len();
        self.called.push(leg.clone());
        let fault = self.fault.filter(|(at, _)| *at == place).map(|(_, fault)| fault);
        if fault.is_some() {
            self.at = Some(leg.clone());
        }
        let action = self.definition.steps.get(&of).and_then(|step| step.action(leg.direction));
        if action.is_some_and(Action::is_local) {
            // It and its record are one: a crash before has none of it, one behind has both.
            let answer = self.serve(&leg);
            let happened = machine::answered(
                &self.journal,
                self.definition,
                leg,
                number,
                answer.map(Into::into),
                planned,
                &mut self.dice,
            );
            self.note(happened);
            return;
        }
        if action.is_some_and(Action::is_child) {
            return self.child(leg, number, planned, fault);
        }
        let Leg { step, direction } = leg.clone();
        self.note(Happened::StepBegun { step, direction, attempt: number, planned });
        self.call(leg, number, fault);
    }

    fn call(&mut self, leg: Leg, attempt: u32, fault: Option<Fault>) {
        let lost = || Err(Failure::unknown("no answer"));
        if let Some(Fault::LateArrival) = self.fault.map(|(_, fault)| fault)
            && self.at.as_ref() == Some(&leg)
        {
            if fault.is_some() {
                self.late = Some(leg.clone());
            }
            return self.take(Input::Answer { leg, attempt, answer: lost().map(Output::Kept) });
        }
        let answer = match fault {
            Some(Fault::CrashBeforeCall) => return self.take(Input::interrupted()),
            Some(Fault::LostRequest) => lost(),
            Some(Fault::LostAnswer) => {
                drop(self.serve(&leg));
                lost()
            }
            Some(Fault::Duplicate) => {
                let first = self.serve(&leg);
                drop(self.serve(&leg));
                first
            }
            _ => self.serve(&leg),
        };
        if fault == Some(Fault::CrashAfterEffect) {
            return self.take(Input::interrupted());
        }
        self.take(Input::Answer { leg: leg.clone(), attempt, answer: answer.clone().map(Into::into) });
        if fault == Some(Fault::CrashAfterRecord) {
            self.take(Input::interrupted());
            // What was on its way to a process that is gone.
            self.take(Input::Answer { leg, attempt, answer: answer.map(Into::into) });
        }
    }

    /// A participant is asked: it does what it is asked for once per key.
    fn serve(&mut self, leg: &Leg) -> Result<Value, Failure> {
        let refuses = leg.direction == Direction::Forward && self.refused.as_ref() == Some(&leg.step);
        if refuses {
            return Err(Failure::refused("refused"));
        }
        let has_come = self.effects.contains(leg);
        match leg.direction {
            Direction::Forward if self.participants.barrier && self.closed.contains(&leg.step) && !has_come => {
                return Err(Failure::refused("it was compensated before it came"));
            }
            Direction::Compensation => {
                self.closed.insert(leg.step.clone());
                if !self.effects.contains(&Leg::forward(leg.step.clone())) {
                    return Ok(Value::Null);
                }
            }
            Direction::Forward => {}
        }
        if !has_come {
            self.effects.push(leg.clone());
        }
        Ok(self.participants.answers.get(&*leg.step).cloned().unwrap_or(Value::Null))
    }

    fn arrives_late(&mut self) {
        if let Some(leg) = self.late.take() {
            drop(self.serve(&leg));
        }
    }

    fn course(self) -> Course {
        let fault = self.at.zip(self.fault.map(|(_, fault)| fault));
        let (status, calls) = (self.journal.status(), self.called.len());
        Course { refused: self.refused, fault, status, calls, wrong: self.wrong }
    }
}
