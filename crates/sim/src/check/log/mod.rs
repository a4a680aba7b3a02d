//! The log as it is in the end, and whether everybody who looked saw a beginning of it.
//!
//! A log is *dense*: positions and versions count from 1 without gaps. It is *prefix-closed*: whoever saw an event could
//! have seen everything before it, and what was seen at a position stays there. So every observer's sequence is a view of
//! one and the same log, at most a shorter one.

mod index;

use std::collections::BTreeMap;

pub(super) use self::index::Index;
use super::{
    api::{Call, History, LoggedEvent, Operation, Read, Reply},
    history::OpId,
    verdict::{Gathering, Kind, Verdict, Violation},
};

/// Positions count from 1 without gaps, and so do the versions of every stream, in the same order.
///
/// `log`: everything, in the order in which it was read.
pub fn dense(log: &[LoggedEvent]) -> Verdict {
    let mut gathering = Gathering::on("positions and versions are dense and in order");
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    let mut position = 0;
    for logged in log {
        gathering.examined(1);
        if logged.position != position + 1 {
            let sentence = format!("{logged} follows position {position}");
            gathering.found(Violation::new(Kind::Gap, sentence).at(&logged.stream, logged.position));
        }
        position = logged.position;
        let version = versions.entry(&logged.stream).or_default();
        if logged.version != *version + 1 {
            let sentence = format!("{logged} follows version {version} of its stream");
            gathering.found(Violation::new(Kind::Gap, sentence).at(&logged.stream, logged.version));
        }
        *version = logged.version;
    }
    gathering.verdict()
}

/// No event is in the log twice: an id occurs once in its stream.
pub fn nothing_doubled(log: &[LoggedEvent]) -> Verdict {
    let mut gathering = Gathering::on("no event is in the log twice");
    let mut first: BTreeMap<(&str, &str), &LoggedEvent> = BTreeMap::new();
    for logged in log {
        gathering.examined(1);
        let earlier = *first.entry((&logged.stream, &logged.event.id)).or_insert(logged);
        if !std::ptr::eq(earlier, logged) {
            let sentence =
                format!("{earlier} is there again at version {}, position {}", logged.version, logged.position);
            gathering.found(Violation::new(Kind::Doubled, sentence).at(&logged.stream, logged.position));
        }
    }
    gathering.verdict()
}

/// Every read returned consecutive events, and everybody saw the same event at the same position: in every read, and in
/// the log at the end.
pub fn views_agree(history: &History, log: &[LoggedEvent]) -> Verdict {
    let mut gathering = Gathering::on("every reader saw a part of one and the same log");
    let index = Index::of(log);
    let mut seen: BTreeMap<u64, (&LoggedEvent, OpId)> = BTreeMap::new();
    for (operation, read, events) in reads(history) {
        let mut place = read.after;
        for event in events {
            gathering.examined(1);
            if read.place_of(event) != place + 1 {
                let sentence = format!("{} read {event} directly after number {place}", operation.id);
                gathering
                    .found(Violation::new(Kind::Gap, sentence).at(&event.stream, event.position).by([operation.id]));
            }
            place = read.place_of(event);
            let (earlier, by) = *seen.entry(event.position).or_insert((event, operation.id));
            if earlier != event {
                let sentence = format!("{by} saw {earlier}, {} saw {event}", operation.id);
                let violation = Violation::new(Kind::Disagreement, sentence).at(&event.stream, event.position);
                gathering.found(violation.by([by, operation.id]));
            }
        }
    }
    for (position, (event, by)) in seen {
        let sentence = match index.at(position) {
            Some(there) if there == event => continue,
            Some(there) => format!("{by} saw {event}, but in the end {there} is there"),
            None => format!("{by} saw {event}, but in the end position {position} is not there"),
        };
        gathering.found(Violation::new(Kind::Lost, sentence).at(&event.stream, position).by([by]));
    }
    gathering.verdict()
}

/// Whoever reads later sees at least as much as anybody saw or was told before: an event of a stream is also one of the log, and
/// the other way round. `log` tells at which position an acknowledged append is.
///
/// Linear in time; [`stream::expected_versions`](super::stream::expected_versions) says more about streams.
pub fn no_read_is_stale(history: &History, log: &[LoggedEvent]) -> Verdict {
    let mut gathering = Gathering::on("no read sees less than was seen or acknowledged before it began");
    let index = Index::of(log);
    let mut newest: BTreeMap<Option<&str>, (u64, OpId)> = BTreeMap::new();
    let mut known: BTreeMap<OpId, (u64, OpId)> = BTreeMap::new();
    for (begins, operation) in in_order(history) {
        if begins {
            if let Call::Read(read) = &operation.op
                && let Some(then) = newest.get(&read.stream.as_deref())
            {
                known.insert(operation.id, *then);
            }
            continue;
        }
        let Some((reply, _)) = operation.outcome.answer() else { continue };
        match (&operation.op, reply) {
            (Call::Append(append), Reply::Appended { versions, .. }) => {
                for (part, version) in append.parts.iter().zip(versions) {
                    raise(&mut newest, Some(&part.stream), *version, operation.id);
                }
                let logged = append.events().filter_map(|(stream, event)| index.find(stream, &event.id));
                if let Some(position) = logged.map(|logged| logged.position).max() {
                    raise(&mut newest, None, position, operation.id);
                }
            }
            (Call::Read(read), Reply::Events { events, .. }) => {
                gathering.examined(1);
                let scope = read.stream.as_deref();
                let end = events.last().map_or(read.after, |event| read.place_of(event));
                for event in events {
                    raise(&mut newest, None, event.position, operation.id);
                    raise(&mut newest, Some(&event.stream), event.version, operation.id);
                }
                let Some((there, by)) = known.get(&operation.id).copied() else { continue };
                if (events.len() as u64) < read.limit && end < there {
                    let place = scope.unwrap_or("the log");
                    let sentence = format!(
                        "{} read {place} up to {end}, although {by} had been told of {there} before it began",
                        operation.id
                    );
                    gathering.found(Violation::new(Kind::StaleRead, sentence).at(place, there).by([by, operation.id]));
                }
            }
            _ => {}
        }
    }
    gathering.verdict()
}

fn raise<'h>(newest: &mut BTreeMap<Option<&'h str>, (u64, OpId)>, scope: Option<&'h str>, to: u64, by: OpId) {
    let newest = newest.entry(scope).or_insert((to, by));
    if newest.0 < to {
        *newest = (to, by);
    }
}

/// Every invocation (`true`) and completion (`false`), in the order of recording.
fn in_order(history: &History) -> Vec<(bool, &Operation)> {
    let moments = history.operations().iter().flat_map(|operation| {
        let ended = operation.outcome.ended().map(|at| (at.order, false, operation));
        [(operation.invoked.order, true, operation)].into_iter().chain(ended)
    });
    let mut moments: Vec<_> = moments.collect();
    moments.sort_by_key(|(order, ..)| *order);
    moments.into_iter().map(|(_, begins, operation)| (begins, operation)).collect()
}

/// The answered reads of a history.
pub(super) fn reads(history: &History) -> impl Iterator<Item = (&Operation, &Read, &[LoggedEvent])> {
    history.operations().iter().filter_map(|operation| match (&operation.op, operation.outcome.answer()?) {
        (Call::Read(read), (Reply::Events { events, .. }, _)) => Some((operation, read, events.as_slice())),
        _ => None,
    })
}
