//! Subscriptions and imports, right and damaged.

use crate::check::{
    Kind,
    api::{LoggedEvent, SentEvent},
    import::{self, Line},
    reference::{Dice, Size, world},
    subscription::{self, Connection, Subscription},
};

/// A subscriber that was cut off a few times and went on from its last event.
fn follow(log: &[LoggedEvent], stream: Option<&str>, after: u64, dice: &mut Dice) -> Subscription {
    let due =
        log.iter().filter(|logged| stream.is_none_or(|stream| logged.stream == stream) && logged.position > after);
    let due: Vec<&LoggedEvent> = due.collect();
    let mut connections = vec![Connection { resumed_after: None, received: Vec::new() }];
    for event in due {
        let last = connections.last_mut().expect("there is always one");
        if last.received.len() > 2 && dice.percent(10) {
            let resumed_after = last.received.last().map(|event| event.position);
            connections.push(Connection { resumed_after, received: Vec::new() });
        }
        connections.last_mut().expect("there is always one").received.push(event.clone());
    }
    let subscriber = format!("follower of {}", stream.unwrap_or("the log"));
    Subscription { subscriber, stream: stream.map(str::to_owned), after, connections, caught_up: true }
}

fn flips(kind: Kind, damage: fn(&mut Subscription, &mut Dice) -> Option<()>) {
    let mut damaged = 0;
    for seed in 0..40 {
        let log = world(seed, Size::SMALL).log;
        let mut dice = Dice::new(seed);
        for (stream, after) in [(None, 0), (Some("order-1"), 0), (None, 17), (Some("order-2"), 30)] {
            let mut subscription = follow(&log, stream, after, &mut dice);
            let verdict = subscription::exactly_once(std::slice::from_ref(&subscription), &log);
            assert!(verdict.holds(), "seed {seed}: {verdict}");
            if damage(&mut subscription, &mut dice).is_some() {
                damaged += 1;
                let verdict = subscription::exactly_once(&[subscription], &log);
                assert_eq!(verdict.violations().first().map(|found| found.kind), Some(kind), "seed {seed}: {verdict}");
            }
        }
    }
    assert!(damaged > 60, "only {damaged} could be damaged so");
}

/// A connection that received several events.
fn busy<'s>(subscription: &'s mut Subscription, dice: &mut Dice) -> Option<&'s mut Connection> {
    let busy: Vec<_> = subscription.connections.iter_mut().filter(|connection| connection.received.len() > 2).collect();
    let index = dice.below(busy.len() as u64) as usize;
    busy.into_iter().nth(index)
}

#[test]
fn a_subscriber_that_missed_an_event_is_found() {
    flips(Kind::Gap, |subscription, dice| {
        busy(subscription, dice)?.received.remove(1);
        Some(())
    });
}

#[test]
fn a_subscriber_that_saw_an_event_twice_is_found() {
    flips(Kind::Doubled, |subscription, dice| {
        let received = &mut busy(subscription, dice)?.received;
        received.insert(1, received[0].clone());
        Some(())
    });
}

#[test]
fn a_subscriber_that_saw_events_out_of_order_is_found() {
    flips(Kind::Gap, |subscription, dice| {
        busy(subscription, dice)?.received.swap(0, 1);
        Some(())
    });
}

#[test]
fn a_connection_that_repeats_the_event_it_went_on_from_is_found() {
    flips(Kind::Doubled, |subscription, _| {
        let [first, second, ..] = subscription.connections.as_mut_slice() else { return None };
        second.received.insert(0, first.received.last()?.clone());
        Some(())
    });
}

#[test]
fn a_connection_that_skips_the_event_after_the_one_it_went_on_from_is_found() {
    flips(Kind::Gap, |subscription, _| {
        let connection = subscription.connections.get_mut(1).filter(|connection| connection.received.len() > 1)?;
        connection.received.remove(0);
        Some(())
    });
}

#[test]
fn a_subscriber_that_goes_on_too_late_is_found() {
    flips(Kind::Gap, |subscription, _| {
        let connection = subscription.connections.get_mut(1).filter(|connection| connection.received.len() > 1)?;
        connection.resumed_after = Some(connection.received.remove(0).position);
        Some(())
    });
}

#[test]
fn a_subscriber_that_saw_another_event_than_the_log_has_is_found() {
    flips(Kind::Disagreement, |subscription, dice| {
        busy(subscription, dice)?.received[1].event.content += 1;
        Some(())
    });
}

#[test]
fn a_subscriber_that_never_woke_for_the_last_event_is_found() {
    flips(Kind::Lost, |subscription, _| subscription.connections.last_mut()?.received.pop().map(|_| ()));
}

#[test]
fn a_subscriber_may_ask_for_an_event_a_second_time() {
    let log = world(1, Size::SMALL).log;
    let mut subscription = follow(&log, None, 0, &mut Dice::new(1));
    let again = subscription.connections[0].received.last().expect("it received something").clone();
    subscription.connections[1].resumed_after = Some(again.position - 1);
    subscription.connections[1].received.insert(0, again);
    let verdict = subscription::exactly_once(&[subscription], &log);
    assert!(verdict.holds(), "{verdict}");
}

#[test]
fn a_subscriber_that_was_stopped_need_not_have_seen_everything() {
    let log = world(1, Size::SMALL).log;
    let mut subscription = follow(&log, None, 0, &mut Dice::new(1));
    subscription.connections.truncate(1);
    subscription.caught_up = false;
    assert!(subscription::exactly_once(&[subscription], &log).holds());
}

/// Lines of which one occurs twice, and the log they became.
fn imported() -> (Vec<Line>, Vec<LoggedEvent>) {
    let log = world(5, Size::SMALL).log;
    let line =
        |(line, logged): (u64, &LoggedEvent)| Line { line, stream: logged.stream.clone(), event: logged.event.clone() };
    let mut lines: Vec<Line> = (1..).zip(&log).map(line).collect();
    let again = Line { line: lines.len() as u64 + 1, ..lines[3].clone() };
    lines.push(again);
    (lines, log)
}

fn import_flips(kind: Kind, damage: fn(&mut Vec<LoggedEvent>)) {
    let (lines, mut log) = imported();
    let verdict = import::every_line_once(&lines, true, &log);
    assert!(verdict.holds(), "{verdict}");
    damage(&mut log);
    let verdict = import::every_line_once(&lines, true, &log);
    assert_eq!(verdict.violations().first().map(|found| found.kind), Some(kind), "{verdict}");
}

#[test]
fn a_line_that_was_not_imported_is_found_once_the_import_is_finished() {
    import_flips(Kind::Lost, |log| _ = log.remove(20));
    let (lines, mut log) = imported();
    log.truncate(40);
    assert!(import::every_line_once(&lines, true, &log).is_violated());
    assert!(import::every_line_once(&lines, false, &log).holds(), "it was interrupted");
}

#[test]
fn a_line_that_was_imported_twice_is_found() {
    import_flips(Kind::Doubled, |log| log.push(LoggedEvent { position: 9_999, version: 9_999, ..log[20].clone() }));
}

#[test]
fn a_line_that_was_changed_is_found() {
    import_flips(Kind::Disagreement, |log| log[20].event.tags.push("changed:yes".to_owned()));
}

#[test]
fn lines_of_a_stream_in_another_order_are_found() {
    import_flips(Kind::Gap, |log| {
        let same: Vec<usize> = (0..log.len()).filter(|index| log[*index].stream == log[0].stream).take(2).collect();
        let (first, second) = (log[same[0]].event.clone(), log[same[1]].event.clone());
        (log[same[0]].event, log[same[1]].event) = (second, first);
    });
}

#[test]
fn what_was_in_the_log_already_is_none_of_the_imports_business() {
    let (lines, mut log) = imported();
    let event = SentEvent::new("older", 1);
    log.insert(0, LoggedEvent { position: 0, stream: "older".into(), version: 1, event });
    assert!(import::every_line_once(&lines, true, &log).holds());
}
