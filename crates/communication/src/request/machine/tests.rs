//! The rules at their edges.

mod whatever_happens;

use std::time::Duration;

use bytes::Bytes;

use super::*;

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
        self.join_at(Seat::Here, 0, places)
    }

    fn join_at(&mut self, seat: Seat, number: usize, places: usize) -> ResponderId {
        self.machine.join(at(self.now), &kind(number), (seat, window(places)), &mut self.effects).unwrap()
    }

    /// An awaited request with so many milliseconds left.
    fn ask(&mut self, left: u64) -> RequestId {
        self.send(left, true)
    }

    fn send(&mut self, left: u64, is_awaited: bool) -> RequestId {
        self.send_of(0, left, is_awaited)
    }

    fn send_of(&mut self, number: usize, left: u64, is_awaited: bool) -> RequestId {
        let what = (Bytes::from_static(b"tea").into(), Deadline::at(at(self.now + left)));
        self.machine.send(at(self.now), &kind(number), what, is_awaited, &mut self.effects)
    }

    fn begin(&mut self, by: ResponderId, id: RequestId) -> bool {
        self.machine.begin(at(self.now), by, id, &mut self.effects)
    }

    fn answer(&mut self, by: ResponderId, id: RequestId) -> Receipt {
        let verdict = Verdict::Answer(Bytes::from_static(b"250").into());
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
fn at_its_deadline_a_request_that_was_begun_is_unknown_and_any_other_was_not_done() {
    let mut desk = Desk::new();
    let responder = desk.join(2);
    let (begun, unseen, waiting) = (desk.ask(10), desk.ask(10), desk.ask(10));
    assert!(desk.begin(responder, begun));
    desk.pass(9);
    assert_eq!([begun, unseen, waiting].map(|id| desk.outcome(id)), [None, None, None]);
    desk.pass(1);
    assert_eq!(desk.outcome(begun), Some(Outcome::Unknown(Unknown::Deadline)));
    let expired = Some(Outcome::Refused(Refusal::Expired));
    assert_eq!((desk.outcome(unseen), desk.outcome(waiting)), (expired.clone(), expired));
    assert!(desk.effects.contains(&Effect::Stop(responder, begun)));
    assert!(!desk.begin(responder, unseen), "nobody waits for it any more");
    assert_eq!(desk.machine.counts().held, 1, "its place is free");
}

#[test]
fn a_late_answer_is_counted_and_frees_the_place() {
    let mut desk = Desk::new();
    let responder = desk.join(1);
    let late = desk.ask(10);
    assert!(desk.begin(responder, late));
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
    assert!(desk.begin(responder, gone));
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
    assert!(desk.begin(responder, handed));
    desk.machine.leave(at(desk.now), responder, &mut desk.effects);
    assert_eq!(desk.outcome(handed), Some(Outcome::Unknown(Unknown::ResponderLeft)));
    assert_eq!(desk.outcome(waiting), Some(Outcome::NoResponder));
    assert_eq!(desk.machine.counts().held_bytes, 0);
}

#[test]
fn what_a_responder_left_without_having_begun_on_it_is_anothers_or_was_not_done() {
    let mut desk = Desk::new();
    let (first, second) = (desk.join(2), desk.join(2));
    let (one, _, three) = (desk.ask(1_000), desk.ask(1_000), desk.ask(1_000));
    assert!(desk.begin(first, one));
    assert_eq!(desk.answer(first, three), Receipt::NotHeld, "nobody can answer what they never saw");
    desk.machine.leave(at(desk.now), first, &mut desk.effects);
    assert_eq!((desk.outcome(one), desk.outcome(three)), (Some(Outcome::Unknown(Unknown::ResponderLeft)), None));
    assert_eq!(desk.handed().last(), Some(&(second, three)));
    let standing = Standing { responders: 1, waiting: 2, running: 0 };
    assert_eq!(desk.machine.standing(&kind(0)), standing);
    desk.machine.leave(at(desk.now), second, &mut desk.effects);
    assert_eq!(desk.outcome(three), Some(Outcome::NoResponder));
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
    assert!(desk.begin(responder, done));
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
        let what = (Bytes::from(vec![0; bytes]).into(), Deadline::NEVER);
        desk.machine.send(at(desk.now), &kind(0), what, true, &mut desk.effects)
    };
    send(60);
    let (fitting, more) = (send(40), send(1));
    assert_eq!(desk.outcome(fitting), None);
    assert_eq!(desk.outcome(more), Some(Outcome::Refused(Refusal::FullOfBytes { max: 100 })));
}

#[test]
fn a_responder_elsewhere_that_never_lets_go_takes_its_own_places_and_no_other_types() {
    let mut desk = Desk::new();
    let (silent, other) = (desk.join_at(Seat::Elsewhere, 0, 9), desk.join_at(Seat::Elsewhere, 1, 1));
    let all: Vec<RequestId> = (0..LIMITS.requests).map(|_| desk.ask(10)).collect();
    assert!(all[1..].iter().all(|id| desk.begin(silent, *id)));
    desk.pass(10);
    let counts = desk.machine.counts();
    assert_eq!((counts.held, counts.held_bytes), (1, 3), "what it has not begun on is still here");
    let next = desk.send_of(1, 10, true);
    assert_eq!((desk.outcome(next), desk.handed().last()), (None, Some(&(other, next))));
    assert_eq!(desk.machine.standing(&kind(0)), Standing { responders: 1, waiting: 1, running: 5 });
    assert!(!desk.begin(silent, all[0]));
    assert_eq!(desk.answer(silent, all[1]), Receipt::Late);
    assert!(desk.machine.let_go(at(desk.now), silent, all[2], &mut desk.effects));
    assert_eq!(desk.machine.counts().held, 1, "the other one's");
    desk.machine.leave(at(desk.now), silent, &mut desk.effects);
    desk.machine.leave(at(desk.now), other, &mut desk.effects);
    let counts = desk.machine.counts();
    assert_eq!((counts.held, counts.held_bytes, counts.unknown, counts.late), (0, 0, 5, 1));
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
    assert!(desk.begin(responder, handed));
    assert_eq!(desk.answer(responder, handed), Receipt::Taken);
    assert_eq!(desk.machine.wake_at(), None);
}

#[test]
fn all_is_seen_off_once_nobody_waits_for_what_responders_hold() {
    let mut desk = Desk::new();
    let (first, second) = (desk.join(1), desk.join(1));
    let (answered, late) = (desk.ask(1_000), desk.ask(10));
    assert!(desk.begin(first, answered) && desk.begin(second, late));
    desk.machine.close(at(desk.now), &mut desk.effects);
    assert!(!desk.machine.is_seen_off());
    assert_eq!(desk.answer(first, answered), Receipt::Taken);
    assert!(!desk.machine.is_seen_off(), "one is worked on");
    desk.pass(10);
    assert!(desk.machine.is_seen_off(), "nobody waits for it");
}
