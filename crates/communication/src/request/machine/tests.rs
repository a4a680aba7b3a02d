//! The rules at their edges, and what holds whatever happens in whatever order.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::request::Fault;

const LIMITS: Limits = Limits { requests: 6, bytes: 100, responders: 4, types: 9, body_bytes: 100 };

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

fn kind(number: usize) -> Name {
    ["price", "stock"][number % 2].parse().unwrap()
}

fn window(places: usize) -> NonZeroUsize {
    NonZeroUsize::new(places).unwrap()
}

/// The rules, and all that they said so far.
struct Desk {
    machine: Machine,
    now: u64,
    effects: Vec<Effect>,
}

impl Desk {
    fn new() -> Self {
        Self { machine: Machine::new(LIMITS), now: 1_000, effects: Vec::new() }
    }

    fn join(&mut self, places: usize) -> ResponderId {
        self.machine.join(at(self.now), &kind(0), window(places), &mut self.effects).unwrap()
    }

    /// An awaited request with so many milliseconds left.
    fn ask(&mut self, left: u64) -> RequestId {
        self.send(left, true)
    }

    fn send(&mut self, left: u64, is_awaited: bool) -> RequestId {
        let what = (Bytes::from_static(b"tea"), Deadline::at(at(self.now + left)));
        self.machine.send(at(self.now), &kind(0), what, is_awaited, &mut self.effects)
    }

    fn answer(&mut self, by: ResponderId, id: RequestId) -> Receipt {
        let verdict = Verdict::Answer(Bytes::from_static(b"250"));
        self.machine.answer(at(self.now), by, id, verdict, &mut self.effects)
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.machine.tick(at(self.now), &mut self.effects);
    }

    fn outcome(&self, asked: RequestId) -> Option<Outcome> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Settle(id, outcome) if *id == asked => Some(outcome.clone()),
            _ => None,
        })
    }

    fn handed(&self) -> Vec<(ResponderId, RequestId)> {
        let handed = |effect: &Effect| match effect {
            Effect::Hand(to, call) => Some((*to, call.id)),
            _ => None,
        };
        self.effects.iter().filter_map(handed).collect()
    }
}

#[test]
fn with_nobody_there_a_request_fails_at_once() {
    let mut desk = Desk::new();
    let asked = desk.ask(1_000);
    assert_eq!(desk.outcome(asked), Some(Outcome::NoResponder));
    assert_eq!(desk.machine.counts(), Counts { no_responder: 1, ..Counts::default() });
}

#[test]
fn at_its_deadline_a_handed_out_request_is_unknown_and_one_that_waited_was_not_done() {
    let mut desk = Desk::new();
    let responder = desk.join(1);
    let (handed, waiting) = (desk.ask(10), desk.ask(10));
    desk.pass(9);
    assert_eq!((desk.outcome(handed), desk.outcome(waiting)), (None, None));
    desk.pass(1);
    assert_eq!(desk.outcome(handed), Some(Outcome::Unknown(Unknown::Deadline)));
    assert_eq!(desk.outcome(waiting), Some(Outcome::Refused(Refusal::Expired)));
    assert!(desk.effects.contains(&Effect::Stop(responder, handed)));
}

#[test]
fn a_late_answer_is_counted_and_frees_the_place() {
    let mut desk = Desk::new();
    let responder = desk.join(1);
    let late = desk.ask(10);
    desk.now += 10;
    assert_eq!(
        desk.answer(responder, late),
        Receipt::Late,
        "at the deadline is too late, also before anybody looked at the clock"
    );
    assert_eq!(desk.outcome(late), Some(Outcome::Unknown(Unknown::Deadline)));
    assert_eq!(desk.machine.counts().late, 1);
    let next = desk.ask(10);
    assert_eq!(desk.handed().last(), Some(&(responder, next)));
    assert_eq!(desk.answer(responder, late), Receipt::NotHeld);
}

#[test]
fn a_place_is_taken_until_what_was_stopped_has_let_go() {
    let mut desk = Desk::new();
    let responder = desk.join(1);
    let gone = desk.ask(1_000);
    desk.machine.cancel(at(desk.now), gone, &mut desk.effects);
    assert_eq!(desk.effects.last(), Some(&Effect::Stop(responder, gone)));
    let next = desk.ask(1_000);
    assert_eq!(desk.handed(), [(responder, gone)]);
    desk.machine.let_go(at(desk.now), responder, gone, &mut desk.effects);
    assert_eq!(desk.handed(), [(responder, gone), (responder, next)]);
    assert_eq!(desk.outcome(gone), None, "nobody is there to be told");
}

#[test]
fn when_the_last_responder_leaves_its_work_is_unknown_and_what_waited_has_nobody() {
    let mut desk = Desk::new();
    let responder = desk.join(1);
    let (handed, waiting) = (desk.ask(1_000), desk.ask(1_000));
    desk.machine.leave(at(desk.now), responder, &mut desk.effects);
    assert_eq!(desk.outcome(handed), Some(Outcome::Unknown(Unknown::ResponderLeft)));
    assert_eq!(desk.outcome(waiting), Some(Outcome::NoResponder));
    assert_eq!(desk.machine.counts().held_bytes, 0);
}

#[test]
fn what_waits_goes_to_the_responder_that_comes_and_then_to_the_least_busy() {
    let mut desk = Desk::new();
    let first = desk.join(1);
    let (one, two) = (desk.ask(1_000), desk.ask(1_000));
    let second = desk.join(3);
    let third = desk.join(3);
    let (three, four, five) = (desk.ask(1_000), desk.ask(1_000), desk.ask(1_000));
    assert_eq!(desk.handed(), [(first, one), (second, two), (third, three), (second, four), (third, five)]);
}

#[test]
fn a_message_without_an_answer_is_handed_over_at_once_and_lost_with_its_responder() {
    let mut desk = Desk::new();
    let nobody = desk.send(1_000, false);
    assert_eq!(desk.outcome(nobody), Some(Outcome::NoResponder));
    let responder = desk.join(1);
    let (done, lost) = (desk.send(1_000, false), desk.send(1_000, false));
    assert_eq!((desk.outcome(done), desk.outcome(lost)), (Some(Outcome::HandedOver), Some(Outcome::HandedOver)));
    assert_eq!(desk.answer(responder, done), Receipt::Taken);
    desk.machine.leave(at(desk.now), responder, &mut desk.effects);
    let counts = desk.machine.counts();
    assert_eq!((counts.delivered, counts.lost, counts.unknown), (1, 2, 0));
}

#[test]
fn no_more_is_held_than_there_is_memory_for() {
    let mut desk = Desk::new();
    desk.join(1);
    for _ in 0..LIMITS.requests {
        desk.ask(1_000);
    }
    let full = desk.ask(1_000);
    assert_eq!(desk.outcome(full), Some(Outcome::Refused(Refusal::Full { max: 6 })));
    let mut desk = Desk::new();
    desk.join(1);
    let mut send = |bytes: usize| {
        let what = (Bytes::from(vec![0; bytes]), Deadline::NEVER);
        desk.machine.send(at(desk.now), &kind(0), what, true, &mut desk.effects)
    };
    send(60);
    let (fitting, more) = (send(40), send(1));
    assert_eq!(desk.outcome(fitting), None);
    assert_eq!(desk.outcome(more), Some(Outcome::Refused(Refusal::FullOfBytes { max: 100 })));
}

#[test]
fn closing_refuses_what_waits_and_sees_off_what_was_handed_out() {
    let mut desk = Desk::new();
    let responder = desk.join(1);
    let (handed, waiting) = (desk.ask(1_000), desk.ask(1_000));
    desk.machine.close(at(desk.now), &mut desk.effects);
    let after = desk.ask(1_000);
    let closing = Some(Outcome::Refused(Refusal::Closing));
    assert_eq!((desk.outcome(waiting), desk.outcome(after)), (closing.clone(), closing));
    assert_eq!(desk.answer(responder, handed), Receipt::Taken);
    assert_eq!(desk.machine.wake_at(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Send { kind: usize, bytes: usize, left: Option<u64>, is_awaited: bool },
    Join { kind: usize, places: usize },
    Leave(usize),
    Answer { by: usize, id: usize, is_fault: bool },
    LetGo { by: usize, id: usize },
    Cancel(usize),
    Pass(u64),
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = || 0_usize..40;
    let step = prop_oneof![
        40 => (0_usize..2, 0_usize..50, proptest::option::weighted(0.9, 0_u64..30), any::<bool>())
            .prop_map(|(kind, bytes, left, is_awaited)| Step::Send { kind, bytes, left, is_awaited }),
        15 => (0_usize..2, 1_usize..4).prop_map(|(kind, places)| Step::Join { kind, places }),
        10 => which().prop_map(Step::Leave),
        40 => (which(), which(), any::<bool>()).prop_map(|(by, id, is_fault)| Step::Answer { by, id, is_fault }),
        10 => (which(), which()).prop_map(|(by, id)| Step::LetGo { by, id }),
        10 => which().prop_map(Step::Cancel),
        20 => (0_u64..15).prop_map(Step::Pass),
        // Behind it nothing is taken any more.
        1 => Just(Step::Close),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What an onlooker knows, who sees only what goes in and what comes out.
#[derive(Default)]
struct Onlooker {
    sent: BTreeMap<RequestId, (Name, Deadline, bool)>,
    handed: BTreeMap<RequestId, ResponderId>,
    outcomes: BTreeMap<RequestId, Outcome>,
    cancelled: BTreeSet<RequestId>,
    /// Who is there: what they serve, how many places they have, and what takes one.
    there: BTreeMap<ResponderId, (Name, usize, BTreeSet<RequestId>)>,
    /// What a responder says at this moment, and of what it has let go.
    saying: Option<RequestId>,
    late: u64,
}

impl Onlooker {
    fn serves(&self, kind: &Name) -> bool {
        self.there.values().any(|(served, ..)| served == kind)
    }

    fn see(&mut self, now: Mono, effect: &Effect) {
        match effect {
            Effect::Hand(to, call) => {
                let (kind, deadline, _) = &self.sent[&call.id];
                assert!(self.handed.insert(call.id, *to).is_none(), "handed out twice");
                assert!(!deadline.has_passed(now) && !self.cancelled.contains(&call.id), "nobody waits for it");
                let (served, places, taken) = self.there.get_mut(to).unwrap();
                assert_eq!(served, kind);
                taken.insert(call.id);
                assert!(taken.len() <= *places, "more than the window");
            }
            Effect::Stop(to, id) => assert!(self.there[to].2.contains(id), "told to stop what it has not"),
            Effect::Settle(id, outcome) => {
                assert!(self.outcomes.insert(*id, outcome.clone()).is_none(), "two outcomes");
                assert!(!self.cancelled.contains(id), "nobody is there to be told");
                let (kind, _, is_awaited) = &self.sent[id];
                let was_handed = self.handed.contains_key(id);
                match outcome {
                    Outcome::Said(_) => assert!(was_handed && self.saying == Some(*id)),
                    Outcome::Unknown(_) => assert!(was_handed, "what was never handed out was not done"),
                    Outcome::NoResponder => assert!(!was_handed && !self.serves(kind), "somebody is there"),
                    Outcome::Refused(_) => assert!(!was_handed, "it may have been done"),
                    Outcome::HandedOver => assert!(!is_awaited),
                }
            }
        }
    }
}

fn nth<T: Copy>(mut of: impl ExactSizeIterator<Item = T>, wanted: usize) -> Option<T> {
    let len = of.len().max(1);
    of.nth(wanted % len)
}

/// Does a step, and shows the onlooker what came of it.
fn take(machine: &mut Machine, seen: &mut Onlooker, now: &mut u64, step: Step) {
    let mut effects = Vec::new();
    seen.saying = None;
    match step {
        Step::Send { kind: number, bytes, left, is_awaited } => {
            let deadline = left.map_or(Deadline::NEVER, |left| Deadline::at(at(*now + left)));
            let body = Bytes::from(vec![0; bytes]);
            let id = machine.send(at(*now), &kind(number), (body, deadline), is_awaited, &mut effects);
            assert!(seen.sent.insert(id, (kind(number), deadline, is_awaited)).is_none());
        }
        Step::Join { kind: number, places } => {
            let joined = machine.join(at(*now), &kind(number), window(places), &mut effects);
            assert_eq!(joined.is_err(), seen.there.len() == LIMITS.responders);
            seen.there.extend(joined.ok().map(|id| (id, (kind(number), places, BTreeSet::new()))));
        }
        Step::Leave(which) => {
            let Some(id) = nth(seen.there.keys().copied(), which) else { return };
            seen.there.remove(&id);
            machine.leave(at(*now), id, &mut effects);
        }
        Step::Answer { by, id, is_fault } => {
            let (Some(by), Some(id)) = (nth(seen.there.keys().copied(), by), nth(seen.sent.keys().copied(), id)) else {
                return;
            };
            let had = seen.there.get_mut(&by).unwrap().2.remove(&id);
            seen.saying = had.then_some(id);
            let answer = Verdict::Answer(Bytes::new());
            let verdict = if is_fault { Verdict::Fault(Fault::new("no", "")) } else { answer };
            let receipt = machine.answer(at(*now), by, id, verdict.clone(), &mut effects);
            assert_eq!(had, receipt != Receipt::NotHeld);
            let told =
                effects.iter().find(|effect| matches!(effect, Effect::Settle(of, Outcome::Said(_)) if *of == id));
            let is_told = receipt == Receipt::Taken && seen.sent[&id].2;
            assert_eq!(
                told,
                is_told.then(|| Effect::Settle(id, Outcome::Said(verdict))).as_ref(),
                "what was said is told"
            );
            seen.late += u64::from(receipt == Receipt::Late);
        }
        Step::LetGo { by, id } => {
            let (Some(by), Some(id)) = (nth(seen.there.keys().copied(), by), nth(seen.sent.keys().copied(), id)) else {
                return;
            };
            seen.there.get_mut(&by).unwrap().2.remove(&id);
            machine.let_go(at(*now), by, id, &mut effects);
        }
        Step::Cancel(which) => {
            let Some(id) = nth(seen.sent.keys().copied(), which) else { return };
            machine.cancel(at(*now), id, &mut effects);
            if seen.sent[&id].2 && !seen.outcomes.contains_key(&id) {
                seen.cancelled.insert(id);
            }
        }
        Step::Pass(millis) => {
            *now += millis;
            machine.tick(at(*now), &mut effects);
        }
        Step::Close => machine.close(at(*now), &mut effects),
    }
    effects.iter().for_each(|effect| seen.see(at(*now), effect));
    let counts = machine.counts();
    assert!(counts.held <= LIMITS.requests && counts.held_bytes <= LIMITS.bytes, "{counts:?}");
    assert_eq!(counts.late, seen.late);
    assert!(machine.wake_at().is_none_or(|due| due > at(*now)), "what was due was not done");
}

proptest! {
    #[test]
    fn every_request_has_one_outcome_and_an_honest_one_whatever_happens(steps in steps()) {
        let (mut machine, mut seen, mut now) = (Machine::new(LIMITS), Onlooker::default(), 0);
        for step in steps {
            take(&mut machine, &mut seen, &mut now, step);
        }
        // After the last deadline only those wait that have none.
        take(&mut machine, &mut seen, &mut now, Step::Pass(1_000));
        prop_assert_eq!(machine.wake_at(), None);
        while !seen.there.is_empty() {
            take(&mut machine, &mut seen, &mut now, Step::Leave(0));
        }
        for id in seen.sent.keys() {
            prop_assert!(seen.outcomes.contains_key(id) != seen.cancelled.contains(id), "{:?} has no outcome", id);
        }
        let counts = machine.counts();
        prop_assert_eq!((counts.held, counts.held_bytes, counts.responders), (0, 0, 0));
        let told = counts.answered + counts.faults + counts.no_responder + counts.refused + counts.unknown + counts.cancelled;
        let awaited = seen.sent.values().filter(|(.., is_awaited)| *is_awaited).count() as u64;
        prop_assert_eq!(told, awaited, "{:?}", counts);
        prop_assert_eq!(counts.delivered + counts.lost, seen.sent.len() as u64 - awaited, "{:?}", counts);
    }
}
