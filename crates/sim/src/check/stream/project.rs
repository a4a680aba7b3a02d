//! From a history of calls to the operations on each stream.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Event, Op, Ret, Stream};
use crate::check::{
    api::{Append, Call, History, LoggedEvent, Operation, Part, Read, Reply, SentEvent},
    history::Outcome,
    linearizability::{Object, Observed},
};

/// The streams of `history` by name, each with its model and its operations.
pub fn streams(history: &History) -> Vec<Object<'_, Stream>> {
    let mut projection = Projection::default();
    for operation in history.operations() {
        if matches!(operation.outcome, Outcome::Failed { .. }) {
            continue;
        }
        match &operation.op {
            Call::Append(append) => projection.append(operation, append),
            Call::Read(read) => projection.read(operation, read),
        }
    }
    let object = |(name, Gathered { stream: model, operations, .. })| Object { name, model, operations };
    projection.streams.into_iter().map(object).collect()
}

#[derive(Default)]
struct Projection<'h> {
    streams: BTreeMap<&'h str, Gathered<'h>>,
    keys: BTreeSet<&'h str>,
}

#[derive(Default)]
struct Gathered<'h> {
    stream: Stream,
    numbers: BTreeMap<&'h str, u32>,
    operations: Vec<Observed<Op, Ret>>,
}

impl<'h> Gathered<'h> {
    fn event(&mut self, SentEvent { id, content, .. }: &'h SentEvent) -> Event {
        let number = *self.numbers.entry(id).or_insert_with(|| self.stream.name(id));
        Event { id: number, content: *content }
    }

    fn observe(&mut self, operation: &Operation, op: Op, ret: Option<Ret>) {
        let at = operation.outcome.ended().map_or(u64::MAX, |at| at.order);
        let answer = ret.map(|ret| (ret, at));
        self.operations.push(Observed { id: operation.id, op, invoked: operation.invoked.order, answer });
    }
}

impl<'h> Projection<'h> {
    fn append(&mut self, operation: &'h Operation, append: &'h Append) {
        // The refusal kept under a key may be from the first time, when the stream was another.
        let repeats_key = append.key.as_ref().is_some_and(|key| !self.keys.insert(key));
        for (n, Part { stream, expected, events }) in append.parts.iter().enumerate() {
            let ret = match operation.outcome.answer() {
                None => None,
                Some((Reply::Appended { versions, .. }, _)) => versions.get(n).map(|version| Ret::Appended(*version)),
                // Which of several streams, or what besides the streams, was the reason is not known.
                Some(_) if repeats_key || append.parts.len() > 1 || !append.conditions.is_empty() => continue,
                Some((Reply::WrongVersion { actual }, _)) => Some(Ret::WrongVersion(*actual)),
                Some((Reply::IdConflict, _)) => Some(Ret::IdConflict),
                Some(_) => continue,
            };
            let gathered = self.streams.entry(stream).or_default();
            let events = events.iter().map(|event| gathered.event(event)).collect();
            gathered.observe(operation, Op::Append { expected: *expected, events }, ret);
        }
    }

    fn read(&mut self, operation: &'h Operation, read: &'h Read) {
        let (Some(stream), Some((Reply::Events { events, .. }, _))) = (&read.stream, operation.outcome.answer()) else {
            return;
        };
        let gathered = self.streams.entry(stream).or_default();
        let seen = |event: &'h LoggedEvent| (event.version, &event.event);
        let events = events.iter().map(seen).map(|(version, event)| (version, gathered.event(event))).collect();
        gathered.observe(operation, Op::Read { after: read.after, limit: read.limit }, Some(Ret::Events(events)));
    }
}
