//! Damage to the log, to what readers saw of it, to tokens and to idempotency keys.

use quorate_foundations::time::Mono;

use super::damage::{
    acknowledged, add_operation, add_to_log, answer, append_of, choose, events_at, flips, last_of, reads,
};
use crate::check::{
    Kind, Verdict,
    api::{Append, Call, Expected, History, LoggedEvent, Read, Reply, SentEvent},
    history::ClientId,
    idempotency, log,
    reference::{Dice, World},
    token,
};

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
    let check = |world: &World| log::no_read_is_stale(&world.history, &world.log);
    flips(check, Kind::StaleRead, |world, _| {
        let end = world.log.len() as u64;
        add_operation(world, Call::Read(Read::log(0, 1_000_000)), Reply::events(world.log.clone()));
        let stale = world.log[..end as usize - 1].to_vec();
        add_operation(world, Call::Read(Read::log(0, 1_000_000)), Reply::events(stale));
        Some(())
    });
}

/// An append, acknowledged; then two reads of what it appended to, each of them of a stream or of the log, of which the second sees
/// nothing.
fn read_after(reads: &[Read]) -> Verdict {
    let (mut history, mut now) = (History::new(), 0);
    let mut at = || {
        now += 1;
        Mono::from_nanos(now)
    };
    let event = SentEvent::new("placed", 1);
    let log = [LoggedEvent { position: 1, stream: "a".into(), version: 1, event: event.clone() }];
    let append = history.invoke(ClientId(0), Call::Append(Append::to("a", Expected::Any, vec![event])), at());
    let told = reads.len() < 2;
    if told {
        history.ok(append, Reply::appended(1), at());
    }
    for (n, read) in reads.iter().enumerate() {
        let id = history.invoke(ClientId(1), Call::Read(read.clone()), at());
        let sees = n + 1 < reads.len();
        history.ok(id, Reply::events(log.iter().filter(|_| sees).cloned().collect()), at());
    }
    log::no_read_is_stale(&history, &log)
}

#[test]
fn what_is_in_a_stream_is_in_the_log_and_the_other_way_round() {
    let (stream, all) = (|| Read::stream("a", 0, 9), || Read::log(0, 9));
    // Told that it is there.
    assert!(read_after(&[stream()]).is_violated() && read_after(&[all()]).is_violated());
    // Not told, but seen.
    for reads in [[stream(), all()], [all(), stream()], [stream(), stream()], [all(), all()]] {
        assert!(read_after(&reads).is_violated(), "{reads:?}");
    }
    assert!(read_after(&[Read::stream("b", 0, 9)]).holds());
}

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
