//! What holds whatever happens in whatever order, as somebody sees who knows only what goes in and what comes out.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::request::Fault;

#[derive(Clone, Debug)]
enum Step {
    Send { kind: usize, bytes: usize, left: Option<u64>, is_awaited: bool },
    Join { kind: usize, seat: Seat, places: usize },
    Leave(usize),
    Begin { by: usize, id: usize },
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
        15 => (0_usize..2, prop_oneof![Just(Seat::Here), Just(Seat::Elsewhere)], 1_usize..4)
            .prop_map(|(kind, seat, places)| Step::Join { kind, seat, places }),
        10 => which().prop_map(Step::Leave),
        40 => (which(), which()).prop_map(|(by, id)| Step::Begin { by, id }),
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
    begun: BTreeSet<RequestId>,
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
                let before = self.handed.insert(call.id, *to);
                assert!(before.is_none_or(|before| !self.there.contains_key(&before)), "handed out to two");
                assert!(!self.begun.contains(&call.id), "it may have been done before");
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
                let was_begun = self.begun.contains(id);
                match outcome {
                    Outcome::Said(_) => assert!(was_begun && self.saying == Some(*id)),
                    Outcome::Unknown(_) => assert!(was_begun, "what nobody began on was not done"),
                    Outcome::NoResponder => assert!(!was_begun && !self.serves(kind), "somebody is there"),
                    Outcome::Refused(_) => assert!(!was_begun, "it may have been done"),
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
            let body = Bytes::from(vec![0; bytes]).into();
            let id = machine.send(at(*now), &kind(number), (body, deadline), is_awaited, &mut effects);
            assert!(seen.sent.insert(id, (kind(number), deadline, is_awaited)).is_none());
        }
        Step::Join { kind: number, seat, places } => {
            let joined = machine.join(at(*now), &kind(number), (seat, window(places)), &mut effects);
            assert_eq!(joined.is_err(), seen.there.len() == LIMITS.responders);
            seen.there.extend(joined.ok().map(|id| (id, (kind(number), places, BTreeSet::new()))));
        }
        Step::Leave(which) => {
            let Some(id) = nth(seen.there.keys().copied(), which) else { return };
            seen.there.remove(&id);
            machine.leave(at(*now), id, &mut effects);
        }
        Step::Begin { by, id } => {
            let (Some(by), Some(id)) = (nth(seen.there.keys().copied(), by), nth(seen.sent.keys().copied(), id)) else {
                return;
            };
            let had = seen.there[&by].2.contains(&id);
            let begins = machine.begin(at(*now), by, id, &mut effects);
            assert!(had || !begins, "it was not handed that");
            if begins {
                seen.begun.insert(id);
            } else if had {
                seen.there.get_mut(&by).unwrap().2.remove(&id);
            }
        }
        Step::Answer { by, id, is_fault } => {
            let (Some(by), Some(id)) = (nth(seen.there.keys().copied(), by), nth(seen.sent.keys().copied(), id)) else {
                return;
            };
            let had = seen.begun.contains(&id) && seen.there.get_mut(&by).unwrap().2.remove(&id);
            seen.saying = had.then_some(id);
            let answer = Verdict::Answer(Payload::default());
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
            let had = seen.begun.contains(&id) && seen.there.get_mut(&by).unwrap().2.remove(&id);
            assert_eq!(machine.let_go(at(*now), by, id, &mut effects), had);
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
