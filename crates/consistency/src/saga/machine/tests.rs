//! The rules at their edges, and under any sequence of what can come in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use quorate_foundations::time::Wall;
use quorate_resilience::{
    dice::Dice,
    retry::{Backoff, Jitter},
};
use serde_json::{Value, json};

use super::*;
use crate::saga::{
    definition::{Action, Next},
    event::{Direction, Failure, Outcome, Verb},
    journal::Status,
};

const QUIET: Duration = Duration::from_secs(7);

fn nowhere() -> Action {
    Action::remote(|_| async { Ok(Value::Null) })
}

fn step(name: &str) -> Step {
    let backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(1), jitter: Jitter::None };
    Step::new(name, nowhere()).attempts(2, 2).backoff(backoff).quiet(QUIET)
}

fn undone(name: &str) -> Step {
    step(name).compensated_by(nowhere())
}

/// Two steps that can be made up for, a pivot, and one behind it.
fn order() -> Definition {
    Definition::new("order".parse().unwrap(), 1)
        .step(undone("a"))
        .step(undone("b"))
        .step(step("pivot").pivot())
        .step(step("after").retriable())
}

/// A saga that is led by hand.
struct Led {
    definition: Definition,
    journal: Journal,
    now: i64,
    rung: BTreeSet<Alarm>,
    dice: Dice,
    /// Every attempt that was begun, in order.
    begun: Vec<(Leg, u32)>,
    /// What the first attempt of each leg saw.
    saw: BTreeMap<Leg, Arc<Journal>>,
}

impl Led {
    fn of(definition: Definition) -> Self {
        definition.check().unwrap();
        let mut led = Self {
            definition,
            journal: Journal::new(),
            now: 0,
            rung: BTreeSet::new(),
            dice: Dice::seeded(1),
            begun: vec![],
            saw: BTreeMap::new(),
        };
        led.note(Happened::Started { version: 1, key: None, input: json!(17), deadline_ms: None, parent: None });
        led.follow();
        led
    }

    fn note(&mut self, happened: Happened) {
        // What is written is read again.
        let text = serde_json::to_vec(&happened).unwrap();
        let read: Happened = serde_json::from_slice(&text).unwrap();
        assert_eq!(read, happened);
        self.journal.apply(read, Wall::from_unix_nanos(self.now));
    }

    /// Does what the rules want, and checks what they may never want.
    fn follow(&mut self) {
        for _ in 0..1_000 {
            let moves = next(&self.journal, &self.definition, &self.rung);
            if moves.is_empty() {
                return;
            }
            for one in moves {
                match one {
                    Move::Record(happened) => self.note(happened),
                    Move::Attempt(attempt) => self.begin(attempt),
                }
            }
        }
        panic!("the rules never rest: {:?}", self.journal);
    }

    fn begin(&mut self, attempt: Attempt) {
        let Attempt { leg, number, planned, .. } = attempt;
        let step = self.journal.step(&leg.step).cloned();
        if leg.direction == Direction::Compensation {
            let step = step.expect("what is compensated was begun");
            let running = |step: &StepRecord| step.forward.state == State::Running;
            assert!(!self.journal.steps.iter().any(running), "a forward call may still run");
            assert!(matches!(step.forward.state, State::Done | State::Unknown), "{step:?}");
            if step.forward.state == State::Unknown && number == 1 {
                assert!(self.rung.contains(&Alarm::Quiet(leg.step.clone())), "it may still have its effect");
            }
            let later = self.journal.steps.iter().rev().take_while(|later| later.name != step.name);
            for later in later.filter(|later| self.definition.steps[&later.of].can_be_undone()) {
                let is_over = matches!(later.compensation.state, State::Done | State::Skipped);
                assert!(
                    is_over || matches!(later.forward.state, State::Refused | State::Skipped),
                    "{later:?} is made up for before {step:?}"
                );
            }
            let is_pivot_done = |step: &StepRecord| {
                self.definition.steps[&step.of].kind == Kind::Pivot && step.forward.state == State::Done
            };
            assert!(!self.journal.steps.iter().any(is_pivot_done), "there is no way back");
        }
        let before = step_attempts(&self.journal, &leg);
        assert_eq!(number, before + 1, "attempts are counted one by one");
        self.begun.push((leg.clone(), number));
        self.rung.remove(&Alarm::Rest(leg.clone()));
        let Leg { step, direction } = leg.clone();
        self.note(Happened::StepBegun { step, direction, attempt: number, planned });
        let sees = Arc::new(self.journal.clone()).as_begun(&leg);
        assert_eq!(
            *self.saw.entry(leg).or_insert(sees.clone()),
            sees,
            "what is asked for under one key stays the same"
        );
    }

    fn take(&mut self, input: Input) -> Result<(), Refusal> {
        for happened in take(&self.journal, &self.definition, input, &mut self.dice)? {
            self.note(happened);
        }
        self.follow();
        self.rung.retain({
            let alarms: BTreeSet<Alarm> =
                alarms(&self.journal, &self.definition).into_iter().map(|(alarm, ..)| alarm).collect();
            move |alarm| alarms.contains(alarm)
        });
        Ok(())
    }

    fn answer(&mut self, leg: Leg, answer: Result<Value, Failure>) {
        let attempt = step_attempts(&self.journal, &leg);
        self.take(Input::Answer { leg, attempt, answer: answer.map(Output::from) }).unwrap();
    }

    fn done(&mut self, step: &str) {
        self.answer(Leg::forward(step), Ok(json!(step)));
    }

    fn undone(&mut self, step: &str) {
        self.answer(Leg::compensation(step), Ok(Value::Null));
    }

    fn fails(&mut self, step: &str, failure: Failure) {
        self.answer(Leg::forward(step), Err(failure));
    }

    /// Lets so much time pass.
    fn pass(&mut self, span: Duration) {
        self.now += i64::try_from(span.as_nanos()).unwrap();
        for (alarm, since, span) in alarms(&self.journal, &self.definition) {
            if since + span <= Wall::from_unix_nanos(self.now) {
                self.rung.insert(alarm.clone());
                self.take(Input::Rang(alarm)).unwrap();
            }
        }
    }

    fn operate(&mut self, verb: Verb, step: Option<&str>) -> Result<(), Refusal> {
        let step = step.map(Arc::from);
        self.take(Input::Operate(Operation { verb, step, by: "ada".into(), note: String::new(), output: Value::Null }))
    }

    fn status(&self) -> Status {
        self.journal.status()
    }

    fn running(&self) -> Vec<String> {
        let mut running = Vec::new();
        for step in &self.journal.steps {
            for direction in [Direction::Forward, Direction::Compensation] {
                if step.way(direction).state == State::Running {
                    running.push(format!("{} {}", step.name, direction.word()));
                }
            }
        }
        running
    }
}

fn step_attempts(journal: &Journal, leg: &Leg) -> u32 {
    journal.step(&leg.step).map_or(0, |step| step.way(leg.direction).attempts)
}

fn refused() -> Failure {
    Failure::refused("no")
}

fn unknown() -> Failure {
    Failure::unknown("no answer")
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn steps_are_done_one_after_the_other() {
    let mut saga = Led::of(order());
    for name in ["a", "b", "pivot", "after"] {
        assert_eq!(saga.running(), [format!("{name} forward")]);
        saga.done(name);
    }
    assert_eq!(saga.status(), Status::Completed);
    assert!(matches!(saga.take(Input::Rang(Alarm::Deadline)), Err(Refusal::Ended)), "what is over hears nothing");
}

#[test]
fn what_was_done_and_what_may_have_been_is_made_up_for_backwards_and_what_was_refused_is_not() {
    let mut saga = Led::of(order());
    saga.done("a");
    saga.fails("b", unknown());
    assert!(saga.running().is_empty(), "it rests");
    saga.pass(SECOND);
    saga.fails("b", unknown());
    assert_eq!((saga.status(), saga.running().len()), (Status::Compensating, 0), "it may still have its effect");
    saga.pass(QUIET);
    assert_eq!(saga.running(), ["b compensation"]);
    saga.undone("b");
    saga.undone("a");
    assert_eq!(saga.status(), Status::Compensated);

    let mut saga = Led::of(order());
    saga.done("a");
    saga.fails("b", unknown());
    saga.pass(SECOND);
    saga.fails("b", refused());
    assert!(saga.running().is_empty(), "the first attempt may still be at work, whatever the second was told");
    saga.pass(QUIET);
    assert_eq!(saga.running(), ["b compensation"]);
}

#[test]
fn nothing_is_compensated_while_a_forward_call_is_under_way() {
    let beside = Definition::new("beside".parse().unwrap(), 1).parallel([undone("a"), undone("b"), undone("c")]);
    let mut saga = Led::of(beside);
    assert_eq!(saga.running().len(), 3);
    saga.done("a");
    saga.fails("b", refused());
    assert_eq!(saga.running(), ["c forward"], "it is not known yet what becomes of it");
    saga.done("c");
    assert_eq!(saga.running(), ["c compensation"]);
    saga.undone("c");
    saga.undone("a");
    assert_eq!(saga.status(), Status::Compensated);
}

#[test]
fn what_is_held_back_here_is_no_attempt_and_rests_longer_each_time() {
    let mut saga = Led::of(order());
    for n in 0..20 {
        assert_eq!(saga.running(), ["a forward"]);
        saga.fails("a", Failure::Held("the circuit is open".to_owned()));
        assert!(saga.running().is_empty());
        saga.pass(SECOND * 59);
        assert!(n < 7 || saga.running().is_empty(), "a minute by now");
        saga.pass(SECOND * 16);
    }
    saga.done("a");
    assert_eq!(saga.running(), ["b forward"], "it had two attempts, and none was used");
}

#[test]
fn branches_are_joined() {
    let joined =
        Definition::new("joined".parse().unwrap(), 1).parallel([undone("a"), undone("b")]).step(undone("then"));
    let mut saga = Led::of(joined);
    saga.done("b");
    assert_eq!(saga.running(), ["a forward"]);
    saga.done("a");
    assert_eq!(saga.running(), ["then forward"]);
}

#[test]
fn behind_the_pivot_there_is_only_forward() {
    let mut saga = Led::of(order());
    ["a", "b", "pivot"].into_iter().for_each(|name| saga.done(name));
    assert!(saga.operate(Verb::Abort, None).is_err());
    saga.take(Input::Rang(Alarm::Deadline)).unwrap();
    saga.fails("after", refused());
    assert_eq!((saga.status(), saga.running().len()), (Status::Stuck, 0));
    saga.operate(Verb::Retry, None).unwrap();
    assert_eq!(saga.running(), ["after forward"]);
    saga.done("after");
    assert_eq!(saga.status(), Status::Completed);
}

#[test]
fn a_pivot_that_nobody_knows_the_outcome_of_is_stuck_and_not_turned_back() {
    let mut saga = Led::of(order());
    ["a", "b"].into_iter().for_each(|name| saga.done(name));
    saga.fails("pivot", unknown());
    saga.take(Input::Rang(Alarm::Deadline)).unwrap();
    assert_eq!(saga.status(), Status::Running, "an abort waits for the pivot's answer");
    saga.pass(SECOND);
    saga.fails("pivot", unknown());
    assert_eq!(saga.status(), Status::Stuck);
    assert!(saga.operate(Verb::Abort, None).is_err());
    saga.operate(Verb::Retry, None).unwrap();
    saga.fails("pivot", refused());
    assert_eq!(saga.status(), Status::Stuck, "an attempt before may have done it");
    saga.operate(Verb::MarkRefused, None).unwrap();
    assert_eq!(saga.running(), ["b compensation"], "somebody made sure that it was not done: there is a way back");
}

#[test]
fn an_abort_that_comes_while_the_pivot_is_on_its_way_waits_for_its_answer() {
    let mut saga = Led::of(order());
    ["a", "b"].into_iter().for_each(|name| saga.done(name));
    saga.operate(Verb::Abort, None).unwrap();
    assert_eq!(saga.running(), ["pivot forward"]);
    let mut done = Led {
        definition: order(),
        journal: saga.journal.clone(),
        rung: BTreeSet::new(),
        begun: vec![],
        saw: BTreeMap::new(),
        dice: Dice::seeded(1),
        now: saga.now,
    };
    done.done("pivot");
    assert_eq!(done.running(), ["after forward"], "it came too late");
    saga.fails("pivot", Failure::transient("not now"));
    assert_eq!(saga.running(), ["b compensation"], "it had no effect, and nobody wants it any more");
}

#[test]
fn a_compensation_that_cannot_be_done_is_stuck_and_the_steps_before_it_are_made_up_for_once_somebody_decides() {
    for verb in [Verb::Skip, Verb::MarkCompensated, Verb::Retry, Verb::Force] {
        let mut saga = Led::of(order());
        ["a", "b"].into_iter().for_each(|name| saga.done(name));
        saga.fails("pivot", refused());
        saga.answer(Leg::compensation("b"), Err(refused()));
        assert_eq!(saga.status(), Status::Stuck);
        assert!(saga.running().is_empty(), "the step before waits");
        assert!(saga.operate(verb, Some("a")).is_err() || verb == Verb::Force, "`a` is not stuck");
        if verb != Verb::Force {
            saga.operate(verb, Some("b")).unwrap();
        }
        match verb {
            Verb::Force => assert_eq!(saga.journal.phase, Phase::Ended(Outcome::Forced)),
            Verb::Retry => assert_eq!(saga.running(), ["b compensation"]),
            _ => {
                assert_eq!(saga.running(), ["a compensation"]);
                saga.undone("a");
                assert_eq!(saga.status(), Status::Compensated);
            }
        }
    }
}

#[test]
fn late_and_repeated_answers_change_nothing() {
    let mut saga = Led::of(order());
    saga.fails("a", unknown());
    let before = saga.journal.clone();
    let late = Input::Answer { leg: Leg::forward("a"), attempt: 1, answer: Ok(Value::Null.into()) };
    assert!(matches!(saga.take(late.clone()), Err(Refusal::Late { attempt: 1, .. })));
    saga.pass(SECOND);
    assert!(saga.take(late).is_err(), "the attempt before the one under way");
    assert_ne!(saga.journal, before);
    assert_eq!(saga.running(), ["a forward"]);
    assert!(saga.take(Input::Answer { leg: Leg::forward("x"), attempt: 1, answer: Ok(Value::Null.into()) }).is_err());
}

#[test]
fn an_attempt_whose_process_died_is_counted_and_made_again_under_the_same_key() {
    let mut saga = Led::of(order());
    saga.take(Input::interrupted()).unwrap();
    assert_eq!(saga.begun, [(Leg::forward("a"), 1), (Leg::forward("a"), 2)]);
    saga.take(Input::interrupted()).unwrap();
    assert_eq!(saga.status(), Status::Compensating, "both attempts it had are used up");
    saga.pass(QUIET);
    assert_eq!(saga.running(), ["a compensation"]);
}

#[test]
fn signals_are_told_once_and_timers_run_out_once() {
    let waiting = Definition::new("waiting".parse().unwrap(), 1).step(step("go")).plan(|journal: &Journal| {
        match (journal.signal("go"), journal.has_fired("patience")) {
            _ if journal.is_done("go") => Next::Done(json!("gone")),
            (Some(_), _) => Next::steps(["go"]),
            (None, true) => Next::Abort("nobody said go".to_owned()),
            (None, false) => Next::wait_at_most("patience", SECOND),
        }
    });
    let signal = |id: &str| Input::Signal { id: id.into(), name: "go".into(), data: json!(1) };
    let mut saga = Led::of(waiting.clone());
    saga.take(signal("1")).unwrap();
    saga.take(signal("1")).unwrap();
    assert_eq!(saga.journal.signals.len(), 1);
    saga.done("go");
    assert_eq!((saga.status(), saga.journal.output.clone()), (Status::Completed, json!("gone")));

    let mut saga = Led::of(waiting);
    saga.pass(SECOND);
    assert_eq!(saga.status(), Status::Compensated, "with nothing to make up for");
    assert!(matches!(saga.take(signal("2")), Err(Refusal::Ended)));
}

#[test]
fn a_plan_that_leads_nowhere_is_stuck_and_says_why() {
    type Wrong = fn(&Journal) -> Next;
    let wrongs: [(Wrong, &str); 2] =
        [(|_| Next::steps(["nope"]), "`nope`"), (|_| Next::Do(vec![]), "only steps that are over")];
    for (wrong, why) in wrongs {
        let saga = Led::of(Definition::new("wrong".parse().unwrap(), 1).step(step("a")).plan(wrong));
        assert_eq!(saga.status(), Status::Stuck);
        assert!(saga.journal.stuck.as_ref().unwrap().contains(why), "{:?}", saga.journal.stuck);
    }
}

#[test]
fn definitions_that_cannot_be_run_say_what_is_wrong() {
    let new = || Definition::new("x".parse().unwrap(), 1);
    let wrong = [
        (new(), "1 to 1000 steps"),
        (new().step(step("a")).step(step("a")), "two steps `a`"),
        (new().step(step("a").retriable()), "no pivot"),
        (new().step(step("p").pivot()).step(step("a")), "behind the pivot"),
        (new().step(step("p").pivot()).step(step("q").pivot()), "both pivots"),
        (new().step(undone("p").pivot()), "cannot be undone"),
        (new().step(step("a/b")), "without `/`"),
        (new().step(step("a").attempts(0, 1)), "attempts"),
        (new().step(step("a").time(Duration::ZERO)), "needs some time"),
        (Definition::new("a:b".parse().unwrap(), 1).step(step("a")), "neither `:`"),
        (Definition::new("a".parse().unwrap(), 0).step(step("a")), "counted from 1"),
    ];
    for (definition, why) in wrong {
        let said = definition.check().unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
}

/// What may come in next, drawn.
#[derive(Clone, Debug)]
enum Drawn {
    Answer(usize, u8),
    Late(usize, u32),
    Pass(u8),
    Interrupted,
    Signal(u8),
    Operate(Verb, Option<usize>),
    Deadline,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let verbs = [Verb::Retry, Verb::Skip, Verb::MarkCompensated, Verb::MarkRefused, Verb::Abort, Verb::Force];
    prop_oneof![
        12 => (0..8_usize, 0..8_u8).prop_map(|(which, how)| Drawn::Answer(which, how)),
        1 => (0..5_usize, 0..3_u32).prop_map(|(which, attempt)| Drawn::Late(which, attempt)),
        4 => (0..9_u8).prop_map(Drawn::Pass),
        1 => Just(Drawn::Interrupted),
        1 => (0..3_u8).prop_map(Drawn::Signal),
        1 => (proptest::sample::select(verbs.to_vec()), proptest::option::of(0..5_usize))
            .prop_map(|(verb, step)| Drawn::Operate(verb, step)),
        1 => Just(Drawn::Deadline),
    ]
}

fn answer_of(how: u8) -> Result<Value, Failure> {
    match how {
        0 => Err(refused()),
        1 => Err(Failure::transient("not now")),
        2 => Err(unknown()),
        how => Ok(json!(how)),
    }
}

const NAMES: [&str; 5] = ["a", "b", "c", "pivot", "after"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// [`Led::begin`] holds every attempt against what may never happen; here the rest: it always ends, and its end is true.
    #[test]
    fn whatever_comes_in_a_saga_keeps_its_rules_and_ends_once_it_is_answered(course in proptest::collection::vec(drawn(), 0..60)) {
        let definition = Definition::new("any".parse().unwrap(), 1)
            .parallel([undone("a"), undone("b")])
            .step(undone("c"))
            .step(step("pivot").pivot())
            .step(step("after").retriable());
        let mut saga = Led::of(definition);
        for drawn in course {
            let running: Vec<Leg> = saga.journal.steps.iter().flat_map(|step| {
                [Direction::Forward, Direction::Compensation].into_iter()
                    .filter(|direction| step.way(*direction).state == State::Running)
                    .map(|direction| Leg { step: step.name.clone(), direction }).collect::<Vec<_>>()
            }).collect();
            let before = saga.journal.clone();
            let taken = match drawn {
                Drawn::Answer(which, how) if !running.is_empty() => {
                    saga.answer(running[which % running.len()].clone(), answer_of(how));
                    Ok(())
                }
                Drawn::Answer(..) => Ok(()),
                Drawn::Late(which, attempt) => {
                    saga.take(Input::Answer { leg: Leg::forward(NAMES[which]), attempt: attempt + 90, answer: Ok(Value::Null.into()) })
                }
                Drawn::Pass(seconds) => { saga.pass(SECOND * u32::from(seconds)); Ok(()) }
                Drawn::Interrupted => saga.take(Input::interrupted()),
                Drawn::Signal(id) => saga.take(Input::Signal { id: id.to_string().into(), name: "s".into(), data: Value::Null }),
                Drawn::Operate(verb, step) => saga.operate(verb, step.map(|step| NAMES[step])),
                Drawn::Deadline => saga.take(Input::Rang(Alarm::Deadline)),
            };
            if taken.is_err() {
                prop_assert_eq!(&saga.journal, &before, "what is refused changes nothing");
            }
        }
        // From here on everybody answers, and whoever is stuck is helped.
        for _ in 0..100 {
            if saga.status().is_ended() {
                break;
            }
            let open: Vec<Leg> = saga.journal.steps.iter().flat_map(|step| {
                [Direction::Forward, Direction::Compensation].map(|direction| Leg { step: step.name.clone(), direction })
            }).filter(|leg| saga.journal.step(&leg.step).unwrap().way(leg.direction).state == State::Running).collect();
            open.into_iter().for_each(|leg| saga.answer(leg, Ok(Value::Null)));
            if saga.status().is_ended() {
                break;
            }
            saga.pass(QUIET);
            for leg in saga.journal.stuck_legs().collect::<Vec<_>>() {
                saga.operate(Verb::Retry, Some(&leg.step)).unwrap();
            }
        }
        prop_assert!(saga.status().is_ended(), "{:?}", saga.journal);
        if saga.status() == Status::Compensated {
            for step in saga.journal.steps.iter().filter(|step| &*step.name != "pivot") {
                let may_have = matches!(step.forward.state, State::Done | State::Unknown);
                let is_over = matches!(step.compensation.state, State::Done | State::Skipped);
                prop_assert!(!may_have || is_over, "{:?} was left", step);
            }
        }
        if saga.status() == Status::Completed {
            prop_assert!(NAMES.iter().all(|name| saga.journal.is_done(name)));
        }
    }
}

#[test]
fn every_course_of_a_saga_ends_as_it_should_and_one_that_waits_for_nothing_is_found_out() {
    use crate::saga::courses::{Fault, Participants, courses};
    let all = courses(&order(), &Participants::default());
    let wrong: Vec<_> = all.iter().filter(|course| !course.wrong.is_empty()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(all.len() > 100, "{}", all.len());
    for status in [Status::Completed, Status::Compensated, Status::Stuck] {
        assert!(all.iter().any(|course| course.status == status), "{status:?}");
    }
    let hasty =
        || Definition::new("hasty".parse().unwrap(), 1).step(undone("a").quiet(Duration::ZERO)).step(undone("b"));
    let all = courses(&hasty(), &Participants::default());
    let wrong: Vec<_> = all.iter().filter(|course| !course.wrong.is_empty()).collect();
    assert!(
        !wrong.is_empty()
            && wrong.iter().all(|course| matches!(&course.fault, Some((leg, Fault::LateArrival)) if &*leg.step == "a"))
    );
    let barrier = Participants { barrier: true, ..Participants::default() };
    assert!(courses(&hasty(), &barrier).iter().all(|course| course.wrong.is_empty()));
}
