//! Damage to what clients were told of streams.

use super::damage::{
    acknowledged, add_operation, answer, append_of, choose, events_at, flips, last_of, place, read_at, reads,
    set_answer,
};
use crate::check::{
    Kind, Verdict,
    api::{Append, Call, Expected, LoggedEvent, Read, Reply, SentEvent},
    reference::{Dice, Size, World, world},
    stream,
};

fn linearizable(world: &World) -> Verdict {
    stream::expected_versions(&world.history)
}

#[test]
fn two_acknowledgements_of_one_version_are_found() {
    flips(linearizable, Kind::NotLinearizable, |world, dice| {
        let appends = acknowledged(world);
        let one = choose(dice, appends.iter().copied())?;
        let Reply::Appended { versions, .. } = answer(world, one)?.clone() else { return None };
        let stream = |index: usize| append_of(&world.history.operations()[index]).map(|a| a.parts[0].stream.clone());
        let other = choose(dice, appends.into_iter().filter(|index| *index != one && stream(*index) == stream(one)))?;
        set_answer(world, other, Reply::Appended { versions, token: None })
    });
}

#[test]
fn two_reads_that_got_each_others_answer_are_found() {
    flips(linearizable, Kind::NotLinearizable, |world, dice| {
        let whole =
            reads(world, |read, _| read.stream.as_deref() == Some("order-1") && read.after == 0 && read.limit > 300);
        let one = choose(dice, whole.iter().copied())?;
        let (_, seen) = read_at(world, one)?;
        let operations = world.history.operations();
        let fits = |other: &usize| {
            let more = read_at(world, *other).is_some_and(|(_, events)| events.len() > seen.len() + 12);
            more && operations[one].precedes(&operations[*other])
        };
        let other = choose(dice, whole.iter().copied().filter(fits))?;
        let (first, second) = (events_at(world, one)?.clone(), events_at(world, other)?.clone());
        *events_at(world, one)? = second;
        *events_at(world, other)? = first;
        Some(())
    });
}

#[test]
fn a_stale_read_is_told_by_itself_and_a_write_it_missed() {
    for seed in 0..40 {
        let mut world = world(seed, Size::SMALL);
        let mut dice = Dice::new(seed);
        let append = choose(&mut dice, acknowledged(&world)).expect("somebody appended something");
        let last = world.log[last_of(&world, append).expect("it is in the log")].clone();
        let sent = append_of(&world.history.operations()[append]).map_or(0, |append| append.events().count() as u64);
        let earlier = |logged: &&LoggedEvent| logged.stream == last.stream && logged.version + sent <= last.version;
        let stale: Vec<LoggedEvent> = world.log.iter().filter(earlier).cloned().collect();
        add_operation(&mut world, Call::Read(Read::stream(&*last.stream, 0, 100_000)), Reply::events(stale));
        let verdict = linearizable(&world);
        let [violation] = verdict.violations() else { panic!("seed {seed}: {verdict}") };
        assert_eq!(violation.operations.len(), 2, "seed {seed}: {verdict}");
        let read = world.history.operations().last().expect("the stale read").id;
        assert_eq!(violation.operations[1], read, "seed {seed}: {verdict}");
    }
}

#[test]
fn a_stale_read_among_thousands_of_operations_is_told_by_few() {
    for seed in 0..3 {
        let mut world = world(seed, Size::LARGE);
        // Nobody reads everything in the end, so that much about unknown appends stays unknown.
        world.history.operations_mut().truncate(9_000);
        let is_stream =
            |read: &Read, events: &[LoggedEvent]| read.stream.is_some() && events.len() < read.limit as usize;
        let whole = reads(&world, |read, events| is_stream(read, events) && events.len() > 10);
        let read = *whole.last().expect("somebody read a stream to its end");
        let events = events_at(&mut world, read).expect("it was answered");
        events.truncate(events.len() - 4);
        let verdict = linearizable(&world);
        let [violation] = verdict.violations() else { panic!("seed {seed}: {verdict}") };
        assert!(violation.operations.len() <= 3, "seed {seed}: {verdict}");
    }
}

#[test]
fn an_unjustified_refusal_is_found() {
    flips(linearizable, Kind::NotLinearizable, |world, dice| {
        let any = |index: &usize| {
            append_of(&world.history.operations()[*index]).is_some_and(|a| a.parts[0].expected == Expected::Any)
        };
        let append = choose(dice, acknowledged(world).into_iter().filter(any))?;
        set_answer(world, append, Reply::WrongVersion { actual: None })
    });
}

#[test]
fn a_refusal_of_the_version_that_was_there_all_the_time_is_found() {
    flips(linearizable, Kind::NotLinearizable, |world, _| {
        let stream = world.log.last()?.stream.clone();
        let version = world.log.last()?.version;
        let append = Append::to(stream, Expected::Exact(version), vec![SentEvent::new("new", 1)]);
        add_operation(world, Call::Append(append), Reply::WrongVersion { actual: None });
        Some(())
    });
}

#[test]
fn an_unjustified_id_conflict_is_found() {
    flips(linearizable, Kind::NotLinearizable, |world, dice| {
        let append = choose(dice, acknowledged(world))?;
        set_answer(world, append, Reply::IdConflict)
    });
}

#[test]
fn an_event_seen_before_anybody_sent_it_is_found() {
    flips(linearizable, Kind::NotLinearizable, |world, dice| {
        let append = choose(dice, acknowledged(world))?;
        let operation = &world.history.operations()[append];
        let (stream, event) = append_of(operation)?.events().last()?;
        let up_to = world.log[place(world, stream, &event.id)?].version;
        let shown = world.log.iter().filter(|logged| logged.stream == stream && logged.version <= up_to);
        let shown: Vec<LoggedEvent> = shown.cloned().collect();
        let before = |other: &usize| world.history.operations()[*other].precedes(operation);
        let early =
            reads(world, |read, _| read.stream.as_deref() == Some(stream) && read.after == 0 && read.limit > 300);
        let read = choose(dice, early.into_iter().filter(before))?;
        *events_at(world, read)? = shown;
        Some(())
    });
}

#[test]
fn a_repeat_that_is_answered_with_a_new_version_is_found() {
    flips(linearizable, Kind::NotLinearizable, |world, dice| {
        let append = choose(dice, acknowledged(world))?;
        let call = world.history.operations()[append].op.clone();
        let Reply::Appended { versions, .. } = answer(world, append)?.clone() else { return None };
        add_operation(world, call, Reply::appended(versions[0] + 1));
        Some(())
    });
}
