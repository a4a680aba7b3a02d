//! Damage to a right world, by kind, and the checker that must see it.

use std::collections::BTreeMap;

use quorate_foundations::time::Mono;

use crate::check::{
    Kind, Verdict,
    api::{Append, Call, Expected, LoggedEvent, Operation, Query, QueryItem, Read, Reply, SentEvent},
    effects,
    history::{ClientId, Outcome},
    idempotency, log,
    reference::{Dice, Size, World, world},
    stream, token,
};

/// Damages the world if it finds where; `None` if this world has no such place.
type Damage = fn(&mut World, &mut Dice) -> Option<()>;

/// Damages many worlds in one way, and asserts that the checker, which accepted each, sees each.
fn flips(check: fn(&World) -> Verdict, kind: Kind, damage: Damage) {
    let mut damaged = 0;
    for seed in 0..40 {
        let mut world = world(seed, Size::SMALL);
        assert!(check(&world).holds(), "seed {seed}: {}", check(&world));
        if damage(&mut world, &mut Dice::new(seed)).is_none() {
            continue;
        }
        damaged += 1;
        let verdict = check(&world);
        let kinds: Vec<Kind> = verdict.violations().iter().map(|violation| violation.kind).collect();
        assert!(kinds.contains(&kind), "seed {seed}: {verdict}");
        assert!(verdict.violations().iter().all(|violation| !violation.sentence.is_empty()));
    }
    assert!(damaged >= 20, "only {damaged} of 40 worlds could be damaged so");
}

// ---- what damage is made of

fn choose<T>(dice: &mut Dice, of: impl IntoIterator<Item = T>) -> Option<T> {
    let mut of: Vec<T> = of.into_iter().collect();
    (!of.is_empty()).then(|| of.swap_remove(dice.below(of.len() as u64) as usize))
}

fn append_of(operation: &Operation) -> Option<&Append> {
    match &operation.op {
        Call::Append(append) => Some(append),
        Call::Read(_) => None,
    }
}

fn is_acknowledged(operation: &Operation) -> bool {
    matches!(operation.outcome.answer(), Some((Reply::Appended { .. }, _)))
}

/// Acknowledged appends, to one stream and without conditions, whose events nobody else sent.
fn acknowledged(world: &World) -> Vec<usize> {
    let mut senders: BTreeMap<&str, u32> = BTreeMap::new();
    for append in world.history.operations().iter().filter_map(append_of) {
        append.events().for_each(|(_, event)| *senders.entry(&event.id).or_default() += 1);
    }
    let is_plain = |operation: &Operation| {
        append_of(operation).is_some_and(|append| {
            let alone = append.events().all(|(_, event)| senders[event.id.as_str()] == 1);
            alone && append.parts.len() == 1 && append.conditions.is_empty() && append.key.is_none()
        })
    };
    let operations = world.history.operations().iter().enumerate();
    operations.filter(|(_, operation)| is_acknowledged(operation) && is_plain(operation)).map(|(n, _)| n).collect()
}

fn answer(world: &mut World, index: usize) -> Option<&mut Reply> {
    match &mut world.history.operations_mut()[index].outcome {
        Outcome::Ok { value, .. } => Some(value),
        _ => None,
    }
}

fn set_answer(world: &mut World, index: usize, reply: Reply) -> Option<()> {
    *answer(world, index)? = reply;
    Some(())
}

fn append_at(world: &mut World, index: usize) -> Option<&mut Append> {
    match &mut world.history.operations_mut()[index].op {
        Call::Append(append) => Some(append),
        Call::Read(_) => None,
    }
}

fn read_at(world: &World, index: usize) -> Option<(&Read, &[LoggedEvent])> {
    let operation = &world.history.operations()[index];
    match (&operation.op, operation.outcome.answer()?) {
        (Call::Read(read), (Reply::Events { events, .. }, _)) => Some((read, events)),
        _ => None,
    }
}

fn events_at(world: &mut World, index: usize) -> Option<&mut Vec<LoggedEvent>> {
    match answer(world, index)? {
        Reply::Events { events, .. } => Some(events),
        _ => None,
    }
}

/// Answered reads of which this is true.
fn reads(world: &World, fit: impl Fn(&Read, &[LoggedEvent]) -> bool) -> Vec<usize> {
    let count = world.history.operations().len();
    (0..count).filter(|index| read_at(world, *index).is_some_and(|(read, events)| fit(read, events))).collect()
}

fn place(world: &World, stream: &str, id: &str) -> Option<usize> {
    world.log.iter().position(|logged| logged.stream == stream && logged.event.id == id)
}

/// Where the last event of an append is in the log.
fn last_of(world: &World, index: usize) -> Option<usize> {
    let append = append_of(&world.history.operations()[index])?;
    let (stream, event) = append.events().last()?;
    place(world, stream, &event.id)
}

fn add_to_log(world: &mut World, stream: &str, event: SentEvent) {
    let version = world.log.iter().filter(|logged| logged.stream == stream).count() as u64 + 1;
    let position = world.log.len() as u64 + 1;
    world.log.push(LoggedEvent { position, stream: stream.to_owned(), version, event });
}

fn add_operation(world: &mut World, call: Call, reply: Reply) {
    let at = world.history.span().end;
    let id = world.history.invoke(ClientId(77), call, at);
    world.history.ok(id, reply, at + std::time::Duration::from_nanos(1));
    assert!(at > Mono::ZERO);
}

// ---- effects

fn lost(world: &World) -> Verdict {
    effects::nothing_lost(&world.history, &world.log)
}

#[test]
fn an_acknowledged_event_that_is_gone_is_found() {
    flips(lost, Kind::Lost, |world, dice| {
        let append = choose(dice, acknowledged(world))?;
        let gone = last_of(world, append)?;
        world.log.remove(gone);
        Some(())
    });
}

#[test]
fn a_tail_that_was_acknowledged_and_is_gone_is_found() {
    flips(lost, Kind::Lost, |world, dice| {
        let append = choose(dice, acknowledged(world))?;
        let gone = last_of(world, append)?;
        world.log.truncate(gone);
        Some(())
    });
}

#[test]
fn an_event_that_says_something_else_in_the_log_is_found() {
    flips(lost, Kind::Disagreement, |world, dice| {
        let append = choose(dice, acknowledged(world))?;
        let changed = last_of(world, append)?;
        world.log[changed].event.content += 1;
        Some(())
    });
}

#[test]
fn an_event_at_another_version_than_acknowledged_is_found() {
    flips(lost, Kind::Disagreement, |world, dice| {
        let append = choose(dice, acknowledged(world))?;
        let moved = last_of(world, append)?;
        world.log[moved].version += 1;
        Some(())
    });
}

fn uncalled(world: &World) -> Verdict {
    effects::nothing_uncalled(&world.history, &world.log)
}

fn add_events_of(world: &mut World, dice: &mut Dice, fit: fn(&Operation) -> bool) -> Option<()> {
    let candidates = world.history.operations().iter().filter(|operation| fit(operation)).filter_map(append_of);
    let unknown = |append: &&Append| append.events().all(|(stream, event)| place(world, stream, &event.id).is_none());
    let append = choose(dice, candidates.filter(unknown))?;
    let (stream, event) = append.events().next().map(|(stream, event)| (stream.to_owned(), event.clone()))?;
    let retried = world.history.operations().iter().filter(|operation| operation.outcome.is_open());
    if retried.filter_map(append_of).any(|append| append.events().any(|(_, other)| other.id == event.id)) {
        return None;
    }
    add_to_log(world, &stream, event);
    Some(())
}

#[test]
fn the_effect_of_a_failed_append_is_found() {
    flips(uncalled, Kind::Uncalled, |world, dice| {
        add_events_of(world, dice, |operation| matches!(operation.outcome, Outcome::Failed { .. }))
    });
}

#[test]
fn the_effect_of_a_refused_append_is_found() {
    flips(uncalled, Kind::Uncalled, |world, dice| {
        add_events_of(world, dice, |operation| {
            matches!(operation.outcome.answer(), Some((Reply::WrongVersion { .. } | Reply::ConditionFailed, _)))
        })
    });
}

#[test]
fn an_event_from_nowhere_is_found() {
    flips(uncalled, Kind::Uncalled, |world, _| {
        add_to_log(world, "order-0", SentEvent::new("from nowhere", 0));
        Some(())
    });
}

#[test]
fn half_an_append_is_found() {
    let check = |world: &World| effects::all_or_nothing(&world.history, &world.log);
    flips(check, Kind::Lost, |world, dice| {
        let large =
            |index: &usize| append_of(&world.history.operations()[*index]).is_some_and(|a| a.events().count() > 1);
        let append = choose(dice, acknowledged(world).into_iter().filter(large))?;
        let gone = last_of(world, append)?;
        world.log.remove(gone);
        Some(())
    });
}

#[test]
fn an_append_torn_apart_by_another_is_found() {
    let check = |world: &World| effects::all_or_nothing(&world.history, &world.log);
    flips(check, Kind::Lost, |world, dice| {
        let large =
            |index: &usize| append_of(&world.history.operations()[*index]).is_some_and(|a| a.events().count() > 1);
        let append = choose(dice, acknowledged(world).into_iter().filter(large))?;
        let last = last_of(world, append)?;
        world.log[last].position += 1;
        Some(())
    });
}

#[test]
fn an_append_at_a_version_it_did_not_expect_is_found() {
    let check = |world: &World| effects::expected_versions(&world.history, &world.log);
    flips(check, Kind::WrongVersion, |world, dice| {
        let append = choose(dice, acknowledged(world))?;
        let version = world.log[last_of(world, append)?].version;
        append_at(world, append)?.parts[0].expected = Expected::Exact(version);
        Some(())
    });
}

fn conditions(world: &World) -> Verdict {
    effects::conditions(&world.history, &world.log)
}

fn everything() -> Query {
    Query { items: vec![QueryItem::default()] }
}

#[test]
fn a_conditional_append_behind_a_match_is_found() {
    flips(conditions, Kind::ConditionIgnored, |world, dice| {
        let append = choose(dice, acknowledged(world))?;
        let events = append_of(&world.history.operations()[append])?.events().count();
        let before = (last_of(world, append)? + 1).checked_sub(events).filter(|before| *before > 0)? as u64;
        let conditional = append_at(world, append)?;
        *conditional = conditional.clone().unless(everything(), before - 1);
        Some(())
    });
}

#[test]
fn a_refusal_for_a_condition_that_nothing_matches_is_found() {
    flips(conditions, Kind::ConditionIgnored, |world, dice| {
        let refused = |operation: &Operation| matches!(operation.outcome.answer(), Some((Reply::ConditionFailed, _)));
        let operations = world.history.operations().iter().enumerate();
        let (index, _) = choose(dice, operations.filter(|(_, operation)| refused(operation)))?;
        append_at(world, index)?.conditions[0].fails_if_match = Query::tagged(["no:such"]);
        Some(())
    });
}

// ---- the log

fn doubled(world: &World) -> Verdict {
    log::nothing_doubled(&world.log)
}

#[test]
fn an_event_that_is_there_twice_is_found() {
    flips(doubled, Kind::Doubled, |world, dice| {
        let LoggedEvent { stream, event, .. } = choose(dice, world.log.clone())?;
        add_to_log(world, &stream, event);
        Some(())
    });
}

fn dense(world: &World) -> Verdict {
    log::dense(&world.log)
}

#[test]
fn a_missing_position_is_found() {
    flips(dense, Kind::Gap, |world, dice| {
        let gone = dice.below(world.log.len() as u64 - 1) as usize;
        world.log.remove(gone);
        Some(())
    });
}

#[test]
fn a_position_used_twice_is_found() {
    flips(dense, Kind::Gap, |world, dice| {
        let reused = 1 + dice.below(world.log.len() as u64 - 1) as usize;
        world.log[reused].position -= 1;
        Some(())
    });
}

#[test]
fn a_version_used_twice_is_found() {
    flips(dense, Kind::Gap, |world, dice| {
        let reused = dice.below(world.log.len() as u64) as usize;
        world.log[reused].version -= 1;
        Some(())
    });
}

#[test]
fn two_events_out_of_order_are_found() {
    flips(dense, Kind::Gap, |world, dice| {
        let first = dice.below(world.log.len() as u64 - 1) as usize;
        world.log.swap(first, first + 1);
        Some(())
    });
}

fn agree(world: &World) -> Verdict {
    log::views_agree(&world.history, &world.log)
}

#[test]
fn a_reader_that_missed_an_event_in_between_is_found() {
    flips(agree, Kind::Gap, |world, dice| {
        let read = choose(dice, reads(world, |_, events| events.len() > 2))?;
        events_at(world, read)?.remove(1);
        Some(())
    });
}

#[test]
fn two_readers_who_saw_different_events_at_one_position_are_found() {
    flips(agree, Kind::Disagreement, |world, dice| {
        let read = choose(dice, reads(world, |_, events| !events.is_empty()))?;
        events_at(world, read)?.last_mut()?.event.id.push('!');
        Some(())
    });
}

#[test]
fn a_position_that_was_seen_and_used_again_after_a_rollback_is_found() {
    flips(agree, Kind::Lost, |world, dice| {
        let reused = dice.below(world.log.len() as u64) as usize;
        world.log[reused].event = SentEvent::new("after the rollback", 1);
        Some(())
    });
}

#[test]
fn an_event_that_was_seen_and_is_gone_is_found() {
    flips(agree, Kind::Lost, |world, _| {
        world.log.pop();
        Some(())
    });
}

#[test]
fn a_read_that_sees_less_than_an_earlier_one_is_found() {
    let check = |world: &World| log::no_read_is_stale(&world.history);
    flips(check, Kind::StaleRead, |world, _| {
        let end = world.log.len() as u64;
        add_operation(world, Call::Read(Read::log(0, 1_000_000)), Reply::events(world.log.clone()));
        let stale = world.log[..end as usize - 1].to_vec();
        add_operation(world, Call::Read(Read::log(0, 1_000_000)), Reply::events(stale));
        Some(())
    });
}

// ---- tokens and keys

#[test]
fn a_read_that_does_not_see_its_token_is_found() {
    let check = |world: &World| token::honoured(&world.history, &world.log);
    flips(check, Kind::TokenIgnored, |world, dice| {
        let append = choose(dice, acknowledged(world))?;
        let last = last_of(world, append)?;
        let Reply::Appended { token: Some(token), .. } = answer(world, append)?.clone() else { return None };
        let missing = world.log[..last].to_vec();
        add_operation(world, Call::Read(Read::log(0, 1_000_000).with_token(token)), Reply::events(missing));
        Some(())
    });
}

fn keys(world: &World) -> Verdict {
    idempotency::honoured(&world.history, &world.log)
}

/// An answered append with a key.
fn keyed(world: &World, dice: &mut Dice) -> Option<(Append, Reply)> {
    let with_key = world.history.operations().iter().filter_map(|operation| {
        let append = append_of(operation).filter(|append| append.key.is_some())?;
        let (reply, _) = operation.outcome.answer()?;
        matches!(reply, Reply::Appended { .. }).then(|| (append.clone(), reply.clone()))
    });
    choose(dice, with_key)
}

#[test]
fn two_answers_to_one_key_are_found() {
    flips(keys, Kind::KeyIgnored, |world, dice| {
        let (append, reply) = keyed(world, dice)?;
        let Reply::Appended { mut versions, token } = reply else { return None };
        versions[0] += 1;
        add_operation(world, Call::Append(append), Reply::Appended { versions, token });
        Some(())
    });
}

#[test]
fn a_second_effect_of_one_key_is_found() {
    flips(keys, Kind::Doubled, |world, dice| {
        let (mut append, _) = keyed(world, dice)?;
        append.parts[0].events = vec![SentEvent::new("again", 1)];
        add_to_log(world, &append.parts[0].stream.clone(), SentEvent::new("again", 1));
        let version = world.log.last()?.version;
        add_operation(world, Call::Append(append), Reply::appended(version));
        Some(())
    });
}

#[test]
fn a_repeated_request_refused_as_another_is_found() {
    flips(keys, Kind::KeyIgnored, |world, dice| {
        let (append, _) = keyed(world, dice)?;
        add_operation(world, Call::Append(append), Reply::KeyReused);
        Some(())
    });
}

// ---- streams

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
