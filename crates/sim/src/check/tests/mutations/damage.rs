//! What damage is made of.

use std::collections::BTreeMap;

use quorate_foundations::time::Mono;

use crate::check::{
    Kind, Verdict,
    api::{Append, Call, LoggedEvent, Operation, Read, Reply, SentEvent},
    history::{ClientId, Outcome},
    reference::{Dice, Size, World, world},
};

/// Damages the world if it finds where; `None` if this world has no such place.
pub(super) type Damage = fn(&mut World, &mut Dice) -> Option<()>;

/// Damages many worlds in one way, and asserts that the checker, which accepted each, sees each.
pub(super) fn flips(check: fn(&World) -> Verdict, kind: Kind, damage: Damage) {
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

pub(super) fn choose<T>(dice: &mut Dice, of: impl IntoIterator<Item = T>) -> Option<T> {
    let mut of: Vec<T> = of.into_iter().collect();
    (!of.is_empty()).then(|| of.swap_remove(dice.below(of.len() as u64) as usize))
}

pub(super) fn append_of(operation: &Operation) -> Option<&Append> {
    match &operation.op {
        Call::Append(append) => Some(append),
        Call::Read(_) => None,
    }
}

pub(super) fn is_acknowledged(operation: &Operation) -> bool {
    matches!(operation.outcome.answer(), Some((Reply::Appended { .. }, _)))
}

/// Acknowledged appends, to one stream and without conditions, whose events nobody else sent.
pub(super) fn acknowledged(world: &World) -> Vec<usize> {
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

pub(super) fn answer(world: &mut World, index: usize) -> Option<&mut Reply> {
    match &mut world.history.operations_mut()[index].outcome {
        Outcome::Ok { value, .. } => Some(value),
        _ => None,
    }
}

pub(super) fn set_answer(world: &mut World, index: usize, reply: Reply) -> Option<()> {
    *answer(world, index)? = reply;
    Some(())
}

pub(super) fn append_at(world: &mut World, index: usize) -> Option<&mut Append> {
    match &mut world.history.operations_mut()[index].op {
        Call::Append(append) => Some(append),
        Call::Read(_) => None,
    }
}

pub(super) fn read_at(world: &World, index: usize) -> Option<(&Read, &[LoggedEvent])> {
    let operation = &world.history.operations()[index];
    match (&operation.op, operation.outcome.answer()?) {
        (Call::Read(read), (Reply::Events { events, .. }, _)) => Some((read, events)),
        _ => None,
    }
}

pub(super) fn events_at(world: &mut World, index: usize) -> Option<&mut Vec<LoggedEvent>> {
    match answer(world, index)? {
        Reply::Events { events, .. } => Some(events),
        _ => None,
    }
}

/// Answered reads of which this is true.
pub(super) fn reads(world: &World, fit: impl Fn(&Read, &[LoggedEvent]) -> bool) -> Vec<usize> {
    let count = world.history.operations().len();
    (0..count).filter(|index| read_at(world, *index).is_some_and(|(read, events)| fit(read, events))).collect()
}

pub(super) fn place(world: &World, stream: &str, id: &str) -> Option<usize> {
    world.log.iter().position(|logged| logged.stream == stream && logged.event.id == id)
}

/// Where the last event of an append is in the log.
pub(super) fn last_of(world: &World, index: usize) -> Option<usize> {
    let append = append_of(&world.history.operations()[index])?;
    let (stream, event) = append.events().last()?;
    place(world, stream, &event.id)
}

pub(super) fn add_to_log(world: &mut World, stream: &str, event: SentEvent) {
    let version = world.log.iter().filter(|logged| logged.stream == stream).count() as u64 + 1;
    let position = world.log.len() as u64 + 1;
    world.log.push(LoggedEvent { position, stream: stream.to_owned(), version, event });
}

pub(super) fn add_operation(world: &mut World, call: Call, reply: Reply) {
    let at = world.history.span().end;
    let id = world.history.invoke(ClientId(77), call, at);
    world.history.ok(id, reply, at + std::time::Duration::from_nanos(1));
    assert!(at > Mono::ZERO);
}
