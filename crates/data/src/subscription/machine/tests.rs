//! Is each rule right at its edges, and for any sequence of inputs?

mod histories;

use std::{sync::Arc, time::Duration};

use super::{Cause, Changes, Dispatcher, Effect, Failure, Input, Key, Moment, Phase, Rules, Selection, Stall, Stored};
use crate::{
    event::Position,
    subscription::{Backoff, Claim},
};

const TTL: Duration = Duration::from_secs(30);
const RULES: Rules = Rules {
    lease_ttl: TTL,
    max_attempts: 3,
    window: 10,
    max_parked: 10,
    backoff: Backoff { first: Duration::from_secs(10), max: Duration::from_secs(60) },
};

fn at(seconds: u64) -> Moment {
    Moment { boot: quorate_foundations::time::Boot::from_nanos(seconds * 1_000_000_000), ..Moment::default() }
}

fn position(n: u64) -> Position {
    Position::new(n)
}

/// A machine that has read events with these keys at positions 1, 2, …
fn reading(keys: &[&str]) -> Dispatcher {
    reading_under(RULES, keys)
}

fn reading_under(rules: Rules, keys: &[&str]) -> Dispatcher {
    let mut machine = Dispatcher::restore(rules, (1, Position::ZERO, 0), &[], None, at(0));
    let events: Vec<(Position, Key)> = (1..).map(position).zip(keys.iter().map(|key| Key::from(*key))).collect();
    let to = position(keys.len() as u64);
    machine.step(at(0), Input::Scanned { events, to }, &mut Vec::new());
    machine
}

impl Dispatcher {
    fn does(&mut self, now: Moment, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.step(now, input, &mut effects);
        effects
    }

    /// Takes up to `max` events and says which, under which fences.
    fn takes(&mut self, now: Moment, max: usize) -> Vec<Claim> {
        let claim = |effect| match effect {
            Effect::Hand { claim, .. } => claim,
            other => panic!("taking said {other:?}"),
        };
        self.does(now, Input::Take { max, owner: "me".into() }).into_iter().map(claim).collect()
    }

    fn takes_positions(&mut self, now: Moment, max: usize) -> Vec<u64> {
        self.takes(now, max).iter().map(|claim| claim.position.get()).collect()
    }

    fn nacks(&mut self, now: Moment, claim: Claim, rest: Option<Duration>) {
        assert_eq!(self.does(now, Input::Nack { claim, rest, reason: "no".into() }), []);
    }

    /// The claim under which the event at `place` is held.
    fn held_at(&self, place: u64) -> Claim {
        let held = (0..=self.fence).map(|fence| Claim::new(position(place), fence)).find(|claim| self.holds(*claim));
        held.unwrap_or_else(|| panic!("{place} is not held"))
    }

    /// Makes the changes durable and returns the rows that were written.
    fn saves(&mut self) -> Vec<Stored> {
        let changes = self.changes();
        changes.iter().for_each(|changes| self.saved(changes));
        changes.map(|changes| changes.put.into_iter().map(|(row, _)| row).collect()).unwrap_or_default()
    }
}

#[test]
fn of_one_key_only_the_first_event_is_out_and_other_keys_go_on() {
    let mut machine = reading(&["a", "a", "b", "a", "c"]);
    let claims = machine.takes(at(0), 10);
    assert_eq!(claims.iter().map(|claim| claim.position.get()).collect::<Vec<_>>(), [1, 3, 5]);
    assert_eq!(machine.takes(at(0), 10), []);
    assert_eq!(machine.does(at(1), Input::Ack(claims[0])), []);
    assert_eq!(machine.takes_positions(at(1), 10), [2]);
}

#[test]
fn an_attempt_and_its_fence_are_in_the_change_that_must_be_durable_first() {
    let mut machine = reading(&["a"]);
    assert_eq!(machine.changes(), None);
    let [claim] = machine.takes(at(0), 1)[..] else { panic!("one event") };
    let Changes { fence, put, .. } = machine.changes().unwrap();
    let (row, known) = &put[0];
    assert_eq!((fence, known), (claim.fence, &None));
    assert_eq!((row.phase, row.attempts, row.fence, &*row.owner, row.span), (Phase::Leased, 1, fence, "me", TTL));
}

#[test]
fn the_last_failure_parks_the_event_and_what_stands_behind_it_and_nobody_else() {
    let mut machine = reading(&["a", "a", "b", "a"]);
    for second in 0..3 {
        let claim = machine.takes(at(second), 1)[0];
        assert_eq!(claim.position, position(1));
        machine.nacks(at(second), claim, Some(Duration::ZERO));
    }
    assert_eq!(machine.takes_positions(at(9), 10), [3]);
    let rows = machine.saves();
    let parked: Vec<_> = rows.iter().filter(|row| row.phase == Phase::Parked).collect();
    let causes: Vec<_> = parked.iter().map(|row| (row.position.get(), row.failures.last().unwrap().cause)).collect();
    assert_eq!(causes, [(1, Cause::Nacked), (2, Cause::Behind), (4, Cause::Behind)]);
    assert_eq!(parked[0].failures.iter().map(|failure| failure.attempt).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn what_arrives_for_a_parked_key_is_parked_behind_it() {
    let mut machine = reading(&["a"]);
    let claim = machine.takes(at(0), 1)[0];
    assert_eq!(machine.does(at(0), Input::Park { claim, reason: "poison".into() }), []);
    machine.saves();
    let events = vec![(position(2), "a".into()), (position(3), "b".into())];
    machine.does(at(1), Input::Scanned { events, to: position(5) });
    assert_eq!(machine.takes_positions(at(1), 10), [3]);
    assert_eq!(machine.counts().parked, 2);
}

#[test]
fn a_failed_event_rests_as_long_as_it_was_told_or_as_the_backoff_says() {
    let mut machine = reading(&["a", "a"]);
    let claim = machine.takes(at(0), 1)[0];
    machine.nacks(at(0), claim, Some(Duration::from_secs(100)));
    assert_eq!(machine.takes(at(99), 10), []);
    assert_eq!(machine.wake_at(), Some(at(100).boot));
    let claim = machine.takes(at(100), 10)[0];
    assert_eq!(claim.position, position(1));
    machine.nacks(at(100), claim, None);
    let wake = machine.wake_at().unwrap().saturating_since(at(100).boot);
    assert!(wake <= Duration::from_secs(20) && wake >= Duration::from_secs(16), "{wake:?}");
}

#[test]
fn an_expired_lease_stands_until_someone_else_has_the_event() {
    let mut machine = reading(&["a", "b"]);
    let [slow, paused] = machine.takes(at(0), 2)[..] else { panic!("two events") };
    assert_eq!(machine.does(at(60), Input::Ack(slow)), [], "nobody else was given it");
    let taken = machine.takes(at(60), 10);
    assert_eq!(taken[0].position, paused.position);
    assert!(taken[0].fence > paused.fence);
    for late in [Input::Ack(paused), Input::Extend { claim: paused, ttl: TTL }, Input::Return(paused)] {
        assert_eq!(machine.does(at(61), late), [Effect::Lost(paused)]);
    }
    assert!(machine.holds(taken[0]));
}

#[test]
fn an_extended_lease_runs_from_then_on() {
    let mut machine = reading(&["a"]);
    let claim = machine.takes(at(0), 1)[0];
    machine.does(at(29), Input::Extend { claim, ttl: Duration::from_secs(600) });
    assert_eq!(machine.takes(at(628), 1), []);
    assert_eq!(machine.takes_positions(at(629), 1), [1]);
}

#[test]
fn a_lease_that_expires_in_the_last_attempt_parks_the_event() {
    let mut machine = reading(&["a"]);
    let claims: Vec<Claim> = (0..3).flat_map(|round| machine.takes(at(round * 30), 1)).collect();
    machine.tick(at(90));
    assert_eq!((machine.counts().parked, machine.counts().in_flight), (1, 0));
    assert_eq!(machine.does(at(90), Input::Ack(claims[2])), [Effect::Lost(claims[2])]);
    let failures = &machine.saves()[0].failures;
    assert!(failures.iter().all(|failure| failure.cause == Cause::Expired));
    assert_eq!(failures.len(), 3);
}

#[test]
fn what_a_stranger_claims_changes_nothing() {
    let mut machine = reading(&["a"]);
    machine.takes(at(0), 1);
    machine.saves();
    for (place, fence) in [(1, 0), (1, 2), (2, 1), (0, 0), (u64::MAX, u64::MAX)] {
        let claim = Claim::new(position(place), fence);
        assert_eq!(machine.does(at(0), Input::Ack(claim)), [Effect::Lost(claim)]);
    }
    assert_eq!(machine.changes(), None);
}

#[test]
fn the_checkpoint_waits_for_the_first_unsettled_event_and_not_for_parked_ones() {
    let mut machine = reading(&["a", "b", "c"]);
    let claims = machine.takes(at(0), 3);
    machine.saves();
    machine.does(at(0), Input::Ack(claims[2]));
    assert_eq!(machine.checkpoint(), Position::ZERO);
    machine.does(at(0), Input::Park { claim: claims[0], reason: "poison".into() });
    assert_eq!(machine.checkpoint(), position(1));
    machine.saves();
    machine.does(at(0), Input::Ack(claims[1]));
    assert_eq!(machine.checkpoint(), position(3));
    let deleted: Vec<u64> = machine.changes().unwrap().delete.iter().map(|(position, _)| position.get()).collect();
    assert_eq!(deleted, [2, 3], "the rows of settled events go when the checkpoint passes them");
}

#[test]
fn the_checkpoint_moves_over_what_does_not_match() {
    let mut machine = reading(&[]);
    machine.does(at(0), Input::Scanned { events: vec![], to: position(1_000_000) });
    assert_eq!(machine.checkpoint(), position(1_000_000));
    assert_eq!(machine.changes(), None, "nothing needs to be durable for it");
    assert_eq!(machine.changes_or_checkpoint(1_000, usize::MAX).unwrap().checkpoint, position(1_000_000));
}

#[test]
fn the_window_bounds_what_is_between_the_checkpoint_and_the_last_event_known() {
    let mut machine = reading(&["a"; 10]);
    assert_eq!((machine.room(), machine.stall()), (0, Some(Stall::Window(10))));
    let claim = machine.takes(at(0), 1)[0];
    machine.does(at(0), Input::Ack(claim));
    assert_eq!((machine.room(), machine.stall()), (1, None));
}

#[test]
fn while_too_much_is_parked_nothing_more_is_handed_out() {
    let mut machine = reading_under(Rules { max_parked: 2, ..RULES }, &["a", "b", "c"]);
    for claim in machine.takes(at(0), 2) {
        machine.does(at(0), Input::Park { claim, reason: "poison".into() });
    }
    assert_eq!((machine.takes(at(0), 1), machine.stall()), (vec![], Some(Stall::Parked(2))));
    assert_eq!(machine.does(at(0), Input::Discard(Selection::Event(position(1)))), [Effect::Selected(1)]);
    assert_eq!(machine.takes_positions(at(0), 1), [3]);
}

#[test]
fn a_replayed_key_is_handed_out_in_order_with_all_its_attempts() {
    let mut machine = reading(&["a", "a", "b", "a"]);
    let claim = machine.takes(at(0), 1)[0];
    machine.does(at(0), Input::Park { claim, reason: "poison".into() });
    assert_eq!(machine.does(at(1), Input::Replay(Selection::Key("a".into()))), [Effect::Selected(3)]);
    let other = machine.takes(at(1), 10).into_iter().find(|claim| claim.position == position(3));
    assert_eq!(machine.does(at(1), Input::Ack(other.unwrap())), [], "the other key is out of the way");
    for expected in [1, 2, 4] {
        for _two_failures in 0..2 {
            let held = machine.held_at(expected);
            machine.nacks(at(1), held, Some(Duration::ZERO));
            assert_eq!(machine.takes_positions(at(1), 10), [expected]);
        }
        let held = machine.held_at(expected);
        assert_eq!(machine.does(at(1), Input::Ack(held)), []);
        machine.takes(at(1), 10);
    }
    assert_eq!((machine.counts().parked, machine.counts().in_flight), (0, 0));
}

#[test]
fn replaying_one_event_replays_what_is_parked_before_it_and_leaves_what_is_behind() {
    let mut machine = reading(&["a", "a", "a"]);
    let claim = machine.takes(at(0), 1)[0];
    machine.does(at(0), Input::Park { claim, reason: "poison".into() });
    assert_eq!(machine.does(at(0), Input::Replay(Selection::Event(position(2)))), [Effect::Selected(2)]);
    for expected in [1, 2] {
        let claim = machine.takes(at(0), 10)[0];
        assert_eq!(claim.position.get(), expected);
        machine.does(at(0), Input::Ack(claim));
    }
    assert_eq!((machine.takes(at(0), 10), machine.counts().parked), (vec![], 1));
}

#[test]
fn a_discarded_head_leaves_the_rest_of_its_key_parked() {
    let mut machine = reading(&["a", "a"]);
    let claim = machine.takes(at(0), 1)[0];
    machine.does(at(0), Input::Park { claim, reason: "poison".into() });
    assert_eq!(machine.does(at(0), Input::Discard(Selection::Event(position(1)))), [Effect::Selected(1)]);
    assert_eq!((machine.takes(at(0), 10), machine.counts().parked), (vec![], 1));
    assert_eq!(machine.does(at(0), Input::Discard(Selection::Event(position(1)))), [Effect::Selected(0)]);
    assert_eq!(machine.does(at(0), Input::Discard(Selection::All)), [Effect::Selected(1)]);
    assert_eq!(machine.checkpoint(), position(2));
}

#[test]
fn an_event_that_never_reached_its_consumer_costs_no_attempt() {
    let mut machine = reading(&["a"]);
    for _ in 0..10 {
        let claim = machine.takes(at(0), 1)[0];
        machine.saves();
        assert_eq!(machine.does(at(0), Input::Return(claim)), []);
    }
    let [Effect::Hand { attempt, .. }] = machine.does(at(0), Input::Take { max: 1, owner: "me".into() })[..] else {
        panic!("one event")
    };
    assert_eq!(attempt, 1);
}

#[test]
fn a_new_process_lets_leases_and_rests_run_their_full_time() {
    let mut machine = reading(&["a", "b"]);
    let [held, failed] = machine.takes(at(0), 2)[..] else { panic!("two events") };
    machine.nacks(at(0), failed, Some(Duration::from_secs(30)));
    let rows = machine.saves();
    let mut restarted = Dispatcher::restore(RULES, (2, Position::ZERO, machine.fence), &rows, None, at(1_000));
    assert_eq!(restarted.takes(at(1_029), 10), []);
    assert_eq!(restarted.takes_positions(at(1_030), 10), [1, 2]);
    assert_eq!(restarted.does(at(1_030), Input::Ack(held)), [Effect::Lost(held)]);
}

#[test]
fn a_process_that_reloads_keeps_the_time_of_what_it_was_watching() {
    let mut machine = reading(&["a", "b"]);
    machine.takes(at(0), 1);
    let watched = machine.saves().remove(0);
    let elsewhere = Stored { position: position(2), key: "b".into(), fence: 2, changed: 3, ..watched.clone() };
    let rows = [watched, elsewhere];
    let mut reloaded = Dispatcher::restore(RULES, (3, Position::ZERO, 2), &rows, Some(&machine), at(20));
    assert_eq!(reloaded.takes_positions(at(30), 10), [1], "seen leased at 0");
    assert_eq!(reloaded.takes_positions(at(50), 10), [2], "first seen leased at 20");
}

#[test]
fn what_was_settled_ahead_is_not_handed_out_again_after_a_restart() {
    let mut machine = reading(&["a", "b", "a"]);
    let claims = machine.takes(at(0), 10);
    machine.does(at(0), Input::Ack(claims[1]));
    let rows = machine.saves();
    let mut restarted = Dispatcher::restore(RULES, (2, Position::ZERO, 2), &rows, None, at(0));
    let events: Vec<(Position, Key)> = [(1, "a"), (2, "b"), (3, "a")].map(|(n, key)| (position(n), key.into())).into();
    restarted.does(at(0), Input::Scanned { events, to: position(3) });
    assert_eq!(restarted.takes_positions(at(30), 10), [1]);
    let held = restarted.held_at(1);
    restarted.does(at(30), Input::Ack(held));
    assert_eq!(restarted.checkpoint(), position(2));
    assert_eq!(restarted.takes_positions(at(30), 10), [3]);
}

#[test]
fn a_restart_with_a_full_window_reads_on_to_where_it_was() {
    let rules = Rules { window: 2, ..RULES };
    let mut machine = reading_under(rules, &["a", "b"]);
    let claims = machine.takes(at(0), 2);
    machine.does(at(0), Input::Ack(claims[1]));
    let mut rows = machine.saves();
    rows[0].phase = Phase::Settled;
    let mut restarted = Dispatcher::restore(rules, (2, Position::ZERO, 2), &rows, None, at(0));
    assert_eq!(restarted.room(), 2, "what lies ahead does not fill the window");
    let events: Vec<(Position, Key)> = [(1, "a"), (2, "b")].map(|(n, key)| (position(n), key.into())).into();
    restarted.does(at(0), Input::Scanned { events, to: position(2) });
    assert_eq!((restarted.checkpoint(), restarted.room()), (position(2), 2));
}

#[test]
fn an_event_that_a_transaction_settled_is_cleared_away_as_the_row_it_has_become() {
    let mut machine = reading(&["a"]);
    let claim = machine.takes(at(0), 1)[0];
    machine.saves();
    machine.does(at(0), Input::SettledElsewhere(Claim::new(claim.position, claim.fence + 1)));
    assert!(machine.holds(claim), "an older or other lease's end is none of ours");
    machine.does(at(0), Input::SettledElsewhere(claim));
    assert_eq!(machine.checkpoint(), position(1));
    let (cleared, known) = machine.changes().unwrap().delete[0];
    assert_eq!((cleared, known.state, known.changed), (position(1), Phase::Settled, 2));
}

#[test]
fn a_long_reason_is_cut_at_a_character_and_only_the_last_failures_are_kept() {
    let mut machine = reading_under(Rules { max_attempts: 100, ..RULES }, &["a"]);
    for n in 0..20 {
        let claim = machine.takes(at(0), 1)[0];
        let reason = format!("{n}{}", "é".repeat(1_000));
        machine.does(at(0), Input::Nack { claim, rest: Some(Duration::ZERO), reason });
    }
    let failures = &machine.saves()[0].failures;
    assert_eq!(failures.iter().map(|failure| failure.attempt).collect::<Vec<_>>(), [16, 17, 18, 19, 20]);
    assert!((510..=512).contains(&failures[4].reason.len()), "the last one is whole");
}

fn owner() -> Arc<str> {
    "worker".into()
}

#[test]
fn what_is_kept_of_failures_is_bounded_as_json_and_the_last_reason_counts_most() {
    for reason in ["\u{1}".repeat(600), "\"\\\n".repeat(300), "é".repeat(300), "x".repeat(600)] {
        let mut entry = super::entry::Entry::new("k".into());
        for attempt in 1..=9 {
            entry.attempts = attempt;
            entry.fail(at(1).wall, Cause::Nacked, &reason);
            let json = serde_json::to_string(&entry.failures).unwrap();
            assert!(json.len() <= Failure::MAX_BYTES, "{}", json.len());
        }
        let attempts: Vec<u32> = entry.failures.iter().map(|failure| failure.attempt).collect();
        assert_eq!(attempts, [5, 6, 7, 8, 9]);
        let last = &entry.failures[4].reason;
        assert!(!last.is_empty() && reason.starts_with(&**last));
        assert!(entry.failures.iter().rev().is_sorted_by(|newer, older| newer.reason.len() >= older.reason.len()));
    }
}

#[test]
fn what_is_too_much_at_once_is_written_row_by_row_and_the_checkpoint_with_the_last() {
    let mut machine = reading(&["a", "b", "c", "d"]);
    let claims = machine.takes(at(0), 4);
    machine.saves();
    machine.step(at(1), Input::Ack(claims[0]), &mut Vec::new());
    for claim in &claims[1..] {
        machine.step(at(1), Input::Park { claim: *claim, reason: "no".into() }, &mut Vec::new());
    }
    let mut seen = Vec::new();
    while let Some(changes) = machine.changes_or_checkpoint(1, 1) {
        let put: Vec<u64> = changes.put.iter().map(|(row, _)| row.position.get()).collect();
        assert!(changes.put.iter().all(|(row, _)| row.changed == changes.based_on + 1));
        seen.push((changes.based_on, put, changes.delete.len(), changes.checkpoint.get()));
        machine.saved(&changes);
    }
    assert_eq!(seen, [(2, vec![2], 0, 0), (3, vec![3], 0, 0), (4, vec![4], 1, 4)]);
    assert!(machine.changes().is_none() && machine.revision() == 5);
}

#[test]
fn a_lease_behind_an_event_whose_settling_was_never_written_was_never_handed_out() {
    for is_in_same_process in [false, true] {
        let rules = Rules { max_attempts: 1, ..RULES };
        let mut machine = reading_under(rules, &["a", "a", "b"]);
        let first = machine.takes(at(0), 1)[0];
        let mut rows = machine.saves();
        assert_eq!(machine.does(at(1), Input::Ack(first)), []);
        let behind = machine.takes(at(1), 1)[0];
        assert_eq!(behind.position, position(2));
        machine.takes(at(1), 1);
        let part = machine.changes_or_checkpoint(1, 1).unwrap();
        assert_eq!((part.put.len(), part.delete.len(), part.checkpoint), (1, 0, Position::ZERO));
        machine.saved(&part);
        rows.extend(part.put.into_iter().map(|(row, _)| row));
        // Here it ends: that the first was settled, and the lease of the third, are not written.
        let before = is_in_same_process.then_some(&machine);
        let mut again = Dispatcher::restore(rules, (3, Position::ZERO, part.fence), &rows, before, at(1));
        assert!(again.holds(first) && !again.holds(behind));
        let events: Vec<(Position, Key)> =
            [(1, "a"), (2, "a"), (3, "b")].map(|(n, key)| (position(n), key.into())).into();
        again.does(at(1), Input::Scanned { events, to: position(3) });
        assert_eq!(again.takes_positions(at(1), 9), [3], "the first is still out");
        assert_eq!(again.does(at(1), Input::Ack(first)), []);
        let [Effect::Hand { claim, attempt, .. }] = again.does(at(1), Input::Take { max: 9, owner: owner() })[..]
        else {
            panic!("one event")
        };
        assert_eq!((claim.position, attempt), (position(2), 1));
        assert!(claim.fence > behind.fence);
    }
}

#[test]
fn what_is_gone_counts_once_the_checkpoint_is_past_it_and_once_over_restarts() {
    let scanned = |events: &[(u64, &str)], to| {
        let events = events.iter().map(|(n, key)| (position(*n), Key::from(*key))).collect();
        Input::Scanned { events, to: position(to) }
    };
    let gone = |places: &[u64]| Input::PassedOver(places.iter().copied().map(position).collect());
    let mut machine = Dispatcher::restore(RULES, (1, Position::ZERO, 0), &[], None, at(0));
    machine.does(at(0), scanned(&[(2, "a"), (5, "b")], 6));
    machine.does(at(0), gone(&[1, 3, 4, 6]));
    assert_eq!(machine.passed_over(), 1, "nothing holds the checkpoint before the first");
    let [first, second] = machine.takes(at(0), 2)[..] else { panic!("two events") };
    machine.does(at(0), Input::Ack(second));
    assert_eq!(machine.passed_over(), 1);
    let rows = machine.saves();
    // Another process reads the window again, in which the one that was settled ahead is gone by now.
    let mut again = Dispatcher::restore(RULES, (2, position(1), 2), &rows, None, at(0)).having_passed_over(1);
    again.does(at(0), scanned(&[(2, "a")], 6));
    again.does(at(0), gone(&[3, 4, 5, 6]));
    again.does(at(0), Input::Ack(first));
    assert_eq!((again.checkpoint(), again.passed_over()), (position(6), 4));
    let changes = again.changes().unwrap();
    assert_eq!((changes.checkpoint, changes.passed_over), (position(6), 4));
}
