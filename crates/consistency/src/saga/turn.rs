//! One turn of a saga: what came in is written, and everything the rules want done now, in one transaction.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use quorate_data::{
    event::Version,
    store::{DynTx, Store, StoreError, TransactError},
};
use quorate_foundations::{name::Name, time::Wall};
use quorate_resilience::dice::Dice;
use serde_json::Value;

mod children;
mod limits;

use self::children::Born;
use super::{
    Config, SagaError,
    definition::{Action, Call, Definition, Output},
    event::{Direction, Failure, Happened, Leg, clipped},
    journal::{Journal, Phase, Status, weight_of},
    machine::{self, Alarm, Attempt, Move},
    rows::{self, Owner, SagaKey, Transition, Unwritten, children as family},
    service::Shared,
};

/// Failures of local steps that are known before a transaction that is run again.
type Verdicts = Vec<(Leg, u32, Failure)>;

/// Beyond so many a transaction is run again no more for the sake of one more step: what there is is written first.
const MAX_VERDICTS: usize = 4;

/// Beyond so many bytes a turn is written, and the next one goes on.
const TURN_BYTES: usize = 2 << 20;

/// What a turn begins with.
#[derive(Clone)]
pub(super) struct Turn {
    pub(super) store: Store,
    pub(super) config: Config,
    /// Knows the definitions of sagas that steps start.
    pub(super) shared: Arc<Shared>,
    pub(super) saga: Arc<SagaKey>,
    pub(super) stream: Name,
    pub(super) definition: Arc<Definition>,
    /// With what came in.
    pub(super) journal: Arc<Journal>,
    /// What came in and when, not written yet.
    pub(super) news: Vec<(Happened, Wall)>,
    /// Where its stream ends.
    pub(super) at: Version,
    /// Where its row says that it is.
    pub(super) mark: Version,
    pub(super) before: Owner,
    pub(super) owner: Owner,
    pub(super) rung: BTreeSet<Alarm>,
    pub(super) dice: Dice,
}

/// What a turn led to.
pub(super) struct Advanced {
    pub(super) journal: Arc<Journal>,
    pub(super) at: Version,
    /// Calls that are recorded as begun, and have to be made.
    pub(super) calls: Vec<Attempt>,
    /// Sagas that steps started, and have to be run.
    pub(super) born: Vec<SagaKey>,
    /// Sagas that steps had undone, and have to be run again.
    pub(super) reopened: Vec<SagaKey>,
    /// Whether there is more to be done at once.
    pub(super) more: bool,
}

/// Why a turn was not written.
pub(super) enum NotAdvanced {
    /// There is a saga of that id already.
    Exists,
    /// Somebody else moved it on: read it again.
    Overtaken,
    /// It is not known whether it was written: read it again.
    Unknown,
    Failed(SagaError),
}

enum Stop {
    /// A local step, or the start of a saga, failed: nothing of the transaction is left.
    Step(Leg, u32, Failure),
    Unwritten(Unwritten),
}

impl Turn {
    /// Writes it. A transaction in which a local step fails is run again, with that as a known answer.
    pub(super) async fn advance(self) -> Result<Advanced, NotAdvanced> {
        if let Some(before) = &self.definition.before {
            before().await.map_err(|cause| NotAdvanced::Failed(cause.into()))?;
        }
        let store = self.store.clone();
        let mut attempt = Work::of(self);
        loop {
            let work = Arc::new(attempt);
            let unit = work.clone();
            let ended = store.transact(move |tx| {
                let work = unit.clone();
                Box::pin(async move { work.run(tx).await })
            });
            let failed = match ended.await {
                Ok(advanced) => return Ok(advanced),
                Err(failed) => failed,
            };
            attempt = work.again(failed)?;
        }
    }
}

/// One run of a turn's transaction.
struct Work {
    turn: Turn,
    now: Wall,
    verdicts: Verdicts,
    joined: usize,
    /// Why the plan is not asked.
    planless: Option<String>,
    /// The local step that runs.
    current: Mutex<Option<(Leg, u32)>>,
    /// The local step that ran last, or the saga that began last.
    last: Mutex<Option<(Leg, u32)>>,
    ran: AtomicUsize,
}

impl Work {
    fn of(turn: Turn) -> Self {
        let (now, joined) = (turn.store.env().wall(), turn.config.joined_steps);
        let (current, last, ran) = (Mutex::default(), Mutex::default(), AtomicUsize::new(0));
        Self { turn, now, verdicts: Vec::new(), joined, planless: None, current, last, ran }
    }

    /// What is to be run behind one that failed.
    fn again(&self, failed: TransactError<Stop>) -> Result<Self, NotAdvanced> {
        let mut again = Self::of(self.turn.clone());
        (again.now, again.joined) = (self.now, self.joined);
        (again.verdicts, again.planless) = (self.verdicts.clone(), self.planless.clone());
        let what = failed_as(&failed);
        // Ordering: the transaction is over, and nobody else counts.
        let ran_several = self.ran.load(Ordering::Relaxed) > 1;
        match failed {
            TransactError::Aborted(Stop::Step(leg, attempt, failure)) => again.verdicts.push((leg, attempt, failure)),
            TransactError::Aborted(Stop::Unwritten(Unwritten::Exists)) => return Err(NotAdvanced::Exists),
            TransactError::Aborted(Stop::Unwritten(Unwritten::Overtaken)) => return Err(NotAdvanced::Overtaken),
            TransactError::Store(StoreError::OutcomeUnknown) => return Err(NotAdvanced::Unknown),
            TransactError::Aborted(Stop::Unwritten(Unwritten::Failed(cause))) => {
                return Err(NotAdvanced::Failed(cause));
            }
            TransactError::Store(cause) => return Err(NotAdvanced::Failed(cause.into())),
            TransactError::Panicked { .. } => match taken(&self.current) {
                Some((leg, attempt)) => again.verdicts.push((leg, attempt, Failure::Transient(what))),
                None => again.planless = Some(what),
            },
            // Which of several is to blame shows when each has a transaction of its own.
            _ if ran_several && self.joined > 1 => again.joined = 1,
            TransactError::TooLong { .. } => self.blame(&mut again, Failure::Transient(what))?,
            _ => self.blame(&mut again, Failure::Refused(what))?,
        }
        Ok(again)
    }

    /// Notes that what goes wrong from now on in this transaction may be this attempt's doing.
    fn answers_for(&self, leg: &Leg, number: u32) {
        // Ordering: counts; the transaction alone writes them.
        self.ran.fetch_add(1, Ordering::Relaxed);
        put(&self.last, Some((leg.clone(), number)));
    }

    fn blame(&self, again: &mut Self, failure: Failure) -> Result<(), NotAdvanced> {
        let Some((leg, attempt)) = taken(&self.last) else {
            let what = failure.reason().to_owned();
            return Err(NotAdvanced::Failed(SagaError::Sql(quorate_data::store::SqlError::Failed { what })));
        };
        again.verdicts.push((leg, attempt, failure));
        Ok(())
    }

    async fn run(&self, tx: &mut DynTx) -> Result<Advanced, Stop> {
        let turn = &self.turn;
        let mut run = Run {
            work: self,
            journal: turn.journal.clone(),
            news: turn.news.clone(),
            rung: turn.rung.clone(),
            dice: turn.dice.clone(),
            calls: Vec::new(),
            born: Vec::new(),
            reopened: Vec::new(),
            family: None,
            ran: 0,
            bytes: 0,
        };
        run.hear_children(tx).await?;
        let more = run.follow_rules(tx).await?;
        let Run { journal, news, calls, born, reopened, .. } = run;
        let events = news.iter().map(|(happened, at)| rows::recorded(turn.store.event_id(), &turn.saga, happened, *at));
        let events = events.collect::<Result<_, _>>().map_err(|cause| {
            Stop::Unwritten(Unwritten::Failed(SagaError::invalid(format!("an event cannot be written: {cause}"))))
        })?;
        if journal.status() == Status::Forced && journal.has_children() {
            family::left_alone(tx, &turn.saga).await.map_err(|cause| Stop::Unwritten(cause.into()))?;
        }
        let transition = Transition {
            saga: &turn.saga,
            stream: &turn.stream,
            journal: &journal,
            events,
            at: turn.at,
            mark: turn.mark,
            before: turn.before,
            owner: turn.owner,
            others: turn.store.capabilities().several_writers,
            undoable: (journal.status() == Status::Completed)
                .then(|| !machine::is_past_pivot(&journal, &turn.definition)),
        };
        let at = rows::write(tx, transition).await.map_err(Stop::Unwritten)?;
        let born = self.bear(tx, born).await?;
        Ok(Advanced { journal, at, calls, born, reopened, more })
    }
}

/// A run in progress.
struct Run<'a> {
    work: &'a Work,
    journal: Arc<Journal>,
    news: Vec<(Happened, Wall)>,
    /// Without the rests that were used up.
    rung: BTreeSet<Alarm>,
    dice: Dice,
    calls: Vec<Attempt>,
    born: Vec<Born>,
    reopened: Vec<SagaKey>,
    /// How many sagas there are of its family, once that was asked.
    family: Option<usize>,
    ran: usize,
    /// What is written in this turn, in bytes.
    bytes: usize,
}

impl Run<'_> {
    /// Does what the rules want, until they want nothing more. Returns whether they do, and this transaction is full.
    async fn follow_rules(&mut self, tx: &mut DynTx) -> Result<bool, Stop> {
        loop {
            if let Some(why) = self.must_stop() {
                let why = clipped(why);
                self.note(Happened::Stuck { step: None, direction: Direction::Forward, why });
            }
            if self.has_too_many_events() {
                return Ok(false);
            }
            let moves = machine::next(&self.journal, &self.work.turn.definition, &self.rung);
            if moves.is_empty() {
                return Ok(false);
            }
            for next in moves {
                if self.bytes > TURN_BYTES {
                    return Ok(true);
                }
                match next {
                    Move::Record(happened) => self.note(happened),
                    Move::Attempt(attempt) if self.is_local(&attempt) => {
                        if self.ran >= self.work.joined {
                            return Ok(true);
                        }
                        self.ran += 1;
                        self.rung.remove(&Alarm::Rest(attempt.leg.clone()));
                        let happened = self.local(tx, attempt).await?;
                        self.note(happened);
                        // What else was to be done was said before this was known.
                        break;
                    }
                    Move::Attempt(attempt) if self.is_child(&attempt) => {
                        if self.ran >= self.work.joined {
                            return Ok(true);
                        }
                        self.ran += 1;
                        self.rung.remove(&Alarm::Rest(attempt.leg.clone()));
                        let happened = self.child(tx, attempt).await?;
                        self.note(happened);
                        break;
                    }
                    Move::Attempt(attempt) => {
                        let Attempt { leg, number, planned, .. } = attempt.clone();
                        let Leg { step, direction } = leg;
                        self.note(Happened::StepBegun { step, direction, attempt: number, planned });
                        self.calls.push(attempt);
                    }
                }
            }
            if self.work.verdicts.len() >= MAX_VERDICTS && self.ran >= MAX_VERDICTS {
                return Ok(true);
            }
        }
    }

    fn note(&mut self, happened: Happened) {
        self.bytes += weight_of(&happened);
        Arc::make_mut(&mut self.journal).apply(happened.clone(), self.work.now);
        self.news.push((happened, self.work.now));
    }

    fn action(&self, attempt: &Attempt) -> Option<&Action> {
        let step = self.work.turn.definition.steps.get(&attempt.of);
        step.and_then(|step| step.action(attempt.leg.direction))
    }

    fn is_local(&self, attempt: &Attempt) -> bool {
        self.action(attempt).is_some_and(Action::is_local)
    }

    async fn local(&mut self, tx: &mut DynTx, attempt: Attempt) -> Result<Happened, Stop> {
        let Attempt { leg, of, number, planned } = attempt;
        let definition = &self.work.turn.definition;
        let answer = match self.verdict(&leg, number) {
            Some(failure) => Err(failure),
            None => {
                let call =
                    call(&self.work.turn.saga, definition, &self.journal, (&leg, &of, number), planned.as_deref());
                let action = definition.steps.get(&of).and_then(|step| step.action(leg.direction));
                let Some(Action::Local(action)) = action else {
                    unreachable!("invariant: only local steps are run here")
                };
                self.work.answers_for(&leg, number);
                put(&self.work.current, Some((leg.clone(), number)));
                let answer = action(tx, call).await.map(Output::from);
                put(&self.work.current, None);
                match answer {
                    // Whatever a transaction's step left undecided, the rollback decides; and whatever it waits for, it was an attempt.
                    Err(Failure::Unknown(reason) | Failure::Held(reason)) => {
                        return Err(Stop::Step(leg, number, Failure::Transient(reason)));
                    }
                    Err(failure) => return Err(Stop::Step(leg, number, failure)),
                    Ok(output) => Ok(output),
                }
            }
        };
        Ok(machine::answered(&self.journal, definition, leg, number, answer, planned, &mut self.dice))
    }
}

/// What an action is told.
pub(super) fn call(
    saga: &SagaKey,
    definition: &Definition,
    journal: &Arc<Journal>,
    (leg, of, attempt): (&Leg, &Arc<str>, u32),
    planned: Option<&super::event::Planned>,
) -> Call {
    let time = definition.steps.get(of).map_or(std::time::Duration::ZERO, super::definition::Step::attempt_time);
    let given = planned.and_then(|planned| planned.input.as_ref());
    let given = given.or_else(|| journal.step(&leg.step).and_then(|step| step.input.as_ref()));
    Call {
        saga: saga.name.clone(),
        id: saga.id.clone(),
        step: leg.step.clone(),
        direction: leg.direction,
        attempt,
        time,
        given: given.cloned().unwrap_or(Value::Null),
        journal: journal.as_begun(leg),
    }
}

fn failed_as(failed: &TransactError<Stop>) -> String {
    match failed {
        TransactError::Aborted(_) => String::new(),
        TransactError::Panicked { what } => format!("it panicked: {what}"),
        other => other.to_string(),
    }
}

fn put<T>(place: &Mutex<T>, value: T) {
    *place.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

fn taken<T: Clone>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
