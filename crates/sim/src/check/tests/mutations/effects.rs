//! Damage to what appends did.

use super::damage::{acknowledged, add_to_log, append_at, append_of, choose, flips, last_of, place};
use crate::check::{
    Kind, Verdict,
    api::{Append, Condition, Expected, Operation, Query, QueryItem, Reply, SentEvent},
    effects,
    history::Outcome,
    reference::{Dice, World},
};

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
fn a_refusal_for_something_that_was_sent_only_later_is_found() {
    flips(conditions, Kind::ConditionIgnored, |world, dice| {
        let refused = |operation: &Operation| matches!(operation.outcome.answer(), Some((Reply::ConditionFailed, _)));
        let operations = world.history.operations().iter().enumerate();
        let (index, ended) = choose(dice, operations.filter(|(_, operation)| refused(operation)))
            .and_then(|(index, operation)| Some((index, operation.outcome.ended()?.order)))?;
        let sent_before = |stream: &str, id: &str| {
            let before = world.history.operations().iter().filter(|operation| operation.invoked.order < ended);
            let mut events = before.filter_map(append_of).flat_map(Append::events);
            events.any(|(other, event)| other == stream && event.id == id)
        };
        let later = world.log.iter().position(|logged| !sent_before(&logged.stream, &logged.event.id))?;
        world.log[later].event.tags.push("only:later".to_owned());
        let condition = Condition { fails_if_match: Query::tagged(["only:later"]), after: 0 };
        append_at(world, index)?.conditions = vec![condition];
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
