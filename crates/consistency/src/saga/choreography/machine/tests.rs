//! The rules of a course, one by one.

use std::{sync::Arc, time::Duration};

use quorate_data::event::Position;
use quorate_foundations::time::Wall;

use super::{Course, Seen, Standing, Taken};
use crate::saga::choreography::Process;

const MINUTE: Duration = Duration::from_secs(60);

fn process() -> Process {
    Process::new("order".parse().unwrap())
        .begins(&["placed"])
        .expect("placed", &["paid", "refused"], MINUTE)
        .expect("paid", &["shipped"], 2 * MINUTE)
        .ends(&["done"])
        .undone(&["cancelled"])
}

/// A course with a hand on its clock.
struct Table {
    process: Process,
    course: Course,
    trail: Vec<Seen>,
    now: Wall,
    next: u64,
}

impl Table {
    fn of(process: Process) -> Self {
        process.check().unwrap();
        Self { process, course: Course::default(), trail: Vec::new(), now: Wall::from_unix_nanos(0), next: 1 }
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    fn event(&mut self, kind: &str, id: &str, cause: Option<&str>, lag: Duration) -> Taken {
        let (position, at) = (Position::new(self.next), self.now - lag);
        self.next += 1;
        let causation = cause.map(Arc::from);
        let (source, stream) = ("/shop".into(), "order-1".into());
        let seen = Seen { position, source, id: id.into(), kind: kind.into(), stream, causation, depth: 0, at };
        self.course.take(&self.process, &mut self.trail, seen, lag, self.now)
    }

    fn take(&mut self, kind: &str) -> Taken {
        let id = format!("e-{}", self.next);
        self.event(kind, &id, None, Duration::ZERO)
    }

    /// What rings by now: the types behind which something is missing.
    fn ring(&mut self) -> Vec<String> {
        self.course.ring(self.now).iter().map(|one| one.after.to_string()).collect()
    }
}

#[test]
fn what_does_not_come_in_time_is_overdue_once_and_on_time_again_when_it_comes() {
    let mut table = Table::of(process());
    table.take("placed");
    table.pass(MINUTE - Duration::from_nanos(1));
    assert_eq!((table.ring().len(), table.course.standing), (0, Standing::OnTime));
    table.pass(Duration::from_nanos(1));
    assert_eq!((table.ring(), table.course.standing), (vec!["placed".to_owned()], Standing::Overdue));
    assert_eq!((table.ring().len(), table.course.due_nanos()), (0, None), "it was told");
    table.take("paid");
    assert_eq!(table.course.standing, Standing::OnTime);
    table.pass(2 * MINUTE);
    assert_eq!(table.ring(), ["paid"]);
}

#[test]
fn any_of_the_events_expected_answers() {
    let mut table = Table::of(process());
    table.take("placed");
    table.take("refused");
    assert!(table.course.pending.is_empty());
}

#[test]
fn events_in_any_order_leave_nothing_expected() {
    for order in [
        ["placed", "paid", "shipped"],
        ["paid", "placed", "shipped"],
        ["shipped", "paid", "placed"],
        ["shipped", "placed", "paid"],
    ] {
        let mut table = Table::of(process());
        for kind in order {
            table.take(kind);
        }
        assert_eq!((table.course.standing, table.course.pending.len()), (Standing::OnTime, 0), "{order:?}");
        assert!(table.course.early.is_empty(), "{order:?}");
    }
}

#[test]
fn an_event_that_comes_again_changes_nothing() {
    let mut table = Table::of(process());
    table.event("paid", "p", None, Duration::ZERO);
    assert_eq!(table.event("paid", "p", None, Duration::ZERO), Taken::Repeated);
    table.take("placed");
    table.take("placed");
    assert_eq!(
        table.course.pending.iter().filter(|one| &*one.after == "placed").count(),
        1,
        "one answer came, not two"
    );
    assert_eq!(table.course.repeated, 1);
}

#[test]
fn nothing_is_due_before_the_event_that_begins_it_and_then_all_of_it() {
    let mut table = Table::of(process());
    table.take("paid");
    table.pass(100 * MINUTE);
    assert_eq!((table.ring().len(), table.course.standing), (0, Standing::Unbegun));
    table.take("placed");
    table.pass(2 * MINUTE);
    assert_eq!(table.ring(), ["paid"]);
}

#[test]
fn what_comes_behind_the_end_is_late_and_changes_nothing() {
    for (kind, standing) in [("done", Standing::Ended), ("cancelled", Standing::Undone)] {
        let mut table = Table::of(process());
        table.take("placed");
        assert_eq!(table.take(kind), Taken::New);
        assert_eq!((table.course.standing, table.course.due_nanos()), (standing, None));
        assert_eq!((table.take("placed"), table.take("paid")), (Taken::Late, Taken::Late));
        assert_eq!((table.course.standing, table.course.late, table.course.pending.len()), (standing, 2, 0));
    }
}

#[test]
fn time_runs_from_when_an_event_was_recorded_and_never_longer_than_it_is_to() {
    let mut table = Table::of(process());
    table.event("placed", "e", None, Duration::from_secs(50));
    table.pass(Duration::from_secs(10));
    assert_eq!(table.ring(), ["placed"]);
    table.event("paid", "f", None, 10 * MINUTE);
    assert_eq!(table.ring(), ["paid"], "it is due at once, and not before now");
}

#[test]
fn a_type_that_comes_too_often_on_one_chain_of_causes_stops_the_course_and_the_way_is_told() {
    let mut table = Table::of(process().chain(64, 2));
    table.event("placed", "1", None, Duration::ZERO);
    table.event("refused", "2", Some("1"), Duration::ZERO);
    table.event("placed", "3", Some("2"), Duration::ZERO);
    table.event("refused", "4", Some("3"), Duration::ZERO);
    assert_eq!(table.event("placed", "5", Some("4"), Duration::ZERO), Taken::Stopped);
    assert_eq!(
        table.course.reason.as_deref(),
        Some("`placed` came 3 times on one chain of causes: placed → refused → placed")
    );
    assert_eq!((table.course.standing, table.take("paid")), (Standing::Stopped, Taken::Late));
}

#[test]
fn the_same_type_on_many_chains_is_no_circle() {
    let mut table = Table::of(process().chain(64, 2));
    table.take("placed");
    for _ in 0..10 {
        assert_eq!(table.event("paid", &format!("p-{}", table.next), Some("e-1"), Duration::ZERO), Taken::New);
    }
}

#[test]
fn a_chain_that_is_too_deep_stops_the_course() {
    let mut table = Table::of(process().chain(3, 100));
    let taken: Vec<Taken> =
        (1..=4).map(|n: u32| table.event("paid", &n.to_string(), Some(&(n - 1).to_string()), Duration::ZERO)).collect();
    assert_eq!(taken[2..], [Taken::New, Taken::Stopped]);
    assert!(table.course.reason.as_deref().unwrap().starts_with("a chain of causes has more than 3 events: "));
}

#[test]
fn a_cause_that_names_itself_or_what_comes_later_is_no_chain() {
    let mut table = Table::of(process().chain(2, 1));
    assert_eq!(table.event("placed", "1", Some("1"), Duration::ZERO), Taken::New);
    assert_eq!(table.event("paid", "2", Some("3"), Duration::ZERO), Taken::New);
    assert_eq!(table.event("shipped", "3", Some("2"), Duration::ZERO), Taken::New);
}

#[test]
fn a_course_of_too_many_events_is_stopped() {
    let mut table = Table::of(process());
    for _ in 0..Process::MAX_EVENTS {
        assert_eq!(table.take("other"), Taken::New);
    }
    assert_eq!(table.take("other"), Taken::Stopped);
    assert_eq!(table.trail.len(), Process::MAX_EVENTS);
}

#[test]
fn a_heart_that_stops_beating_is_overdue() {
    let process = Process::new("heart".parse().unwrap()).begins(&["beat"]).expect("beat", &["beat"], MINUTE);
    let mut table = Table::of(process);
    table.take("beat");
    table.pass(MINUTE / 2);
    table.take("beat");
    table.pass(MINUTE / 2);
    assert_eq!(table.ring().len(), 0, "the second one was in time");
    table.pass(MINUTE / 2);
    assert_eq!(table.ring(), ["beat"], "no beat is its own answer");
}

#[test]
fn what_led_to_a_question_is_no_answer_to_it() {
    let process = Process::new("order".parse().unwrap())
        .begins(&["placed"])
        .expect("placed", &["paid", "refused"], MINUTE)
        .expect("refused", &["placed", "cancelled"], MINUTE);
    let mut table = Table::of(process);
    table.event("placed", "a", None, Duration::ZERO);
    table.event("refused", "b", Some("a"), Duration::ZERO);
    table.pass(MINUTE);
    assert_eq!(table.ring(), ["refused"], "the order that was refused is not the one that is placed again");
    table.event("placed", "c", Some("b"), Duration::ZERO);
    assert_eq!(table.course.standing, Standing::OnTime);
}

#[test]
fn a_reason_is_cut_where_it_is_too_long_to_be_told() {
    let mut table = Table::of(process());
    table.take("placed");
    table.course.stop("ö".repeat(1_000));
    assert_eq!(table.course.reason.as_deref().map(str::len), Some(1_000));
}

#[test]
fn what_was_told_of_one_source_was_not_told_of_another_whose_event_has_the_same_id() {
    let mut table = Table::of(process());
    table.event("placed", "1", None, Duration::ZERO);
    table.pass(MINUTE);
    assert_eq!(table.ring(), ["placed"]);
    let (position, source, stream) = (Position::new(2), "/other".into(), "order-1".into());
    let (id, kind, at) = ("1".into(), "placed".into(), table.now);
    let seen = Seen { position, source, id, kind, stream, causation: None, depth: 0, at };
    assert_eq!(table.course.take(&table.process, &mut table.trail, seen, Duration::ZERO, table.now), Taken::New);
    table.next = 3;
    table.take("shipped");
    // The last event is the one that stopped it.
    table.course.stop("somebody could not react");
    let trail = table.trail.clone();
    let resumed = table.course.resumed(&table.process, trail, table.now, table.now).unwrap();
    let told: Vec<bool> = resumed.course.pending.iter().map(|one| one.overdue).collect();
    assert_eq!(told, [true, false]);
}
