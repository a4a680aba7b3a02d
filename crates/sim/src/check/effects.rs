//! What was asked against what happened: nothing acknowledged is lost, nothing refused is there, nothing is half there.

use std::collections::BTreeMap;

use super::{
    api::{Append, Call, Condition, History, LoggedEvent, Operation, Reply, SentEvent},
    history::OpId,
    log::Index,
    verdict::{Gathering, Kind, Verdict, Violation},
};

/// Every append with its operation.
pub(super) fn appends(history: &History) -> impl Iterator<Item = (&Operation, &Append)> {
    history.operations().iter().filter_map(|operation| match &operation.op {
        Call::Append(append) => Some((operation, append)),
        Call::Read(_) => None,
    })
}

/// The versions that an append was told, if it was acknowledged.
fn acknowledged(operation: &Operation) -> Option<&[u64]> {
    match operation.outcome.answer()? {
        (Reply::Appended { versions, .. }, _) => Some(versions),
        _ => None,
    }
}

/// Whether an operation may have had an effect: it was acknowledged, or nobody knows.
fn may_have_happened(operation: &Operation) -> bool {
    operation.outcome.is_open() || acknowledged(operation).is_some()
}

/// Every event of an acknowledged append is in the log, with its content, where the reply said.
pub fn nothing_lost(history: &History, log: &[LoggedEvent]) -> Verdict {
    let mut gathering = Gathering::on("nothing acknowledged is lost");
    let index = Index::of(log);
    for (operation, append) in appends(history) {
        let Some(versions) = acknowledged(operation) else { continue };
        gathering.examined(1);
        for (part, told) in append.parts.iter().zip(versions) {
            let mut newest = 0;
            for event in &part.events {
                match index.find(&part.stream, &event.id) {
                    Some(logged) => {
                        newest = newest.max(logged.version);
                        if logged.event != *event {
                            gathering.found(changed(operation.id, event, logged));
                        }
                    }
                    None => gathering.found(lost(operation.id, event, &part.stream, *told)),
                }
            }
            if newest != *told && newest > 0 {
                let id = operation.id;
                let sentence = format!("{id} was told version {told} of {}, its events end at {newest}", part.stream);
                gathering.found(Violation::new(Kind::Disagreement, sentence).at(&part.stream, newest).by([id]));
            }
        }
    }
    gathering.verdict()
}

fn lost(by: OpId, SentEvent { id, .. }: &SentEvent, stream: &str, told: u64) -> Violation {
    let sentence = format!("event {id}, which {by} was told is in {stream} up to version {told}, is not in the log");
    Violation::new(Kind::Lost, sentence).at(stream, told).by([by])
}

fn changed(by: OpId, SentEvent { id, .. }: &SentEvent, logged: &LoggedEvent) -> Violation {
    let sentence = format!("event {id}, which {by} appended, says something else in the log: {logged}");
    Violation::new(Kind::Disagreement, sentence).at(&logged.stream, logged.version).by([by])
}

/// Everything in the log was sent by somebody who was not told that it had no effect.
///
/// Pass only those events of the log that the history's clients can have written; what was imported is judged by
/// [`import::every_line_once`](super::import::every_line_once).
pub fn nothing_uncalled(history: &History, log: &[LoggedEvent]) -> Verdict {
    let mut gathering = Gathering::on("what failed or was refused left no effect, and nothing came from nowhere");
    let mut senders: BTreeMap<(&str, &str), Vec<&Operation>> = BTreeMap::new();
    for (operation, append) in appends(history) {
        for (stream, event) in append.events() {
            senders.entry((stream, &event.id)).or_default().push(operation);
        }
    }
    for logged in log {
        gathering.examined(1);
        let senders = senders.get(&(logged.stream.as_str(), logged.event.id.as_str())).map_or(&[][..], Vec::as_slice);
        if senders.iter().any(|operation| may_have_happened(operation)) {
            continue;
        }
        let by: Vec<OpId> = senders.iter().map(|operation| operation.id).collect();
        let sentence = match by.as_slice() {
            [] => format!("{logged} was sent by nobody"),
            [one] => format!("{logged} is there, although {one}, which sent it, was told that it had no effect"),
            [first, ..] => format!("{logged} is there, although all who sent it ({first} first) were told otherwise"),
        };
        gathering.found(Violation::new(Kind::Uncalled, sentence).at(&logged.stream, logged.position).by(by));
    }
    gathering.verdict()
}

/// Of an append's events all are in the log or none, at consecutive positions in the order in which they were sent.
pub fn all_or_nothing(history: &History, log: &[LoggedEvent]) -> Verdict {
    let mut gathering = Gathering::on("an append happens as a whole or not at all");
    let index = Index::of(log);
    let mut senders: BTreeMap<(&str, &str), (&Append, bool)> = BTreeMap::new();
    for (_, append) in appends(history) {
        for (stream, event) in append.events() {
            let (first, alone) = senders.entry((stream, &event.id)).or_insert((append, true));
            *alone &= first.parts == append.parts;
        }
    }
    for (operation, append) in appends(history) {
        // An event that was also sent in other company may be there without the others.
        if append.events().any(|(stream, event)| !senders[&(stream, event.id.as_str())].1) {
            continue;
        }
        gathering.examined(1);
        let sent = append.events().count();
        let there: Vec<_> = append.events().filter_map(|(stream, event)| index.find(stream, &event.id)).collect();
        let consecutive = there.windows(2).all(|pair| pair[0].position + 1 == pair[1].position);
        let Some(first) = there.first() else { continue };
        let sentence = if there.len() < sent {
            format!(
                "of the {sent} events that {} sent, {} are there, the first at {}",
                operation.id,
                there.len(),
                first
            )
        } else if consecutive {
            continue;
        } else {
            format!("the {sent} events that {} sent are not together: the first is {first}", operation.id)
        };
        gathering.found(Violation::new(Kind::Lost, sentence).at(&first.stream, first.position).by([operation.id]));
    }
    gathering.verdict()
}

/// Appends of the same events: one of them, and nobody knows which, had the effect that the log shows.
struct Attempts<'h> {
    operations: Vec<(OpId, &'h Append)>,
    first: &'h LoggedEvent,
}

impl Attempts<'_> {
    fn ids(&self) -> Vec<OpId> {
        self.operations.iter().map(|(id, _)| *id).collect()
    }
}

/// What took effect, with those who may have caused it.
fn attempts<'h>(history: &'h History, index: &Index<'h>) -> Vec<Attempts<'h>> {
    let mut attempts: BTreeMap<u64, Attempts<'h>> = BTreeMap::new();
    for (operation, append) in appends(history).filter(|(operation, _)| may_have_happened(operation)) {
        let Some((stream, event)) = append.events().next() else { continue };
        let Some(first) = index.find(stream, &event.id) else { continue };
        let group = attempts.entry(first.position).or_insert_with(|| Attempts { operations: Vec::new(), first });
        group.operations.push((operation.id, append));
    }
    attempts.into_values().collect()
}

/// Every append that is in the log took effect at a version that one of those who sent it expected.
///
/// Linear in time. Whether refusals were justified as well, and when, is for
/// [`stream::expected_versions`](super::stream::expected_versions).
pub fn expected_versions(history: &History, log: &[LoggedEvent]) -> Verdict {
    let mut gathering = Gathering::on("appends took effect at the versions they expected");
    let index = Index::of(log);
    for attempt in attempts(history, &index) {
        gathering.examined(1);
        let as_expected = |append: &Append| {
            append.parts.iter().all(|part| {
                let first = part.events.first().and_then(|event| index.find(&part.stream, &event.id));
                first.is_none_or(|first| part.expected.accepts(first.version.saturating_sub(1)))
            })
        };
        if attempt.operations.iter().any(|(_, append)| as_expected(append)) {
            continue;
        }
        let (Some((id, append)), first) = (attempt.operations.first(), attempt.first) else { continue };
        let expected = append.parts[0].expected;
        let sentence = format!("{id} expected {expected}, and its first event is {first}");
        gathering
            .found(Violation::new(Kind::WrongVersion, sentence).at(&first.stream, first.version).by(attempt.ids()));
    }
    gathering.verdict()
}

/// Every conditional append in the log comes before any event that would have forbidden it, and those that were refused
/// have such an event in the log, which somebody had sent before they were refused.
///
/// Source: S. Pellegrini, "Killing the Aggregate" (2023), and the specification of dynamic consistency boundaries.
pub fn conditions(history: &History, log: &[LoggedEvent]) -> Verdict {
    let mut gathering = Gathering::on("conditions of appends are honoured");
    let index = Index::of(log);
    let all = index.scope(None);
    let matches = |condition: &Condition, before: u64| {
        let begin = all.partition_point(|logged| logged.position <= condition.after);
        let between = all[begin..].iter().copied().take_while(move |logged| logged.position < before);
        let query = condition.fails_if_match.clone();
        between.filter(move |logged| query.matches(&logged.event))
    };
    let matching = |condition: &Condition, before: u64| matches(condition, before).next();
    let first_sent = first_sent(history);
    for attempt in attempts(history, &index) {
        let at = attempt.first.position;
        let forbidden = |append: &Append| {
            append.conditions.iter().find_map(|condition| Some((condition.after, matching(condition, at)?)))
        };
        gathering.examined(usize::from(attempt.operations.iter().any(|(_, append)| !append.conditions.is_empty())));
        let Some((after, by)) = attempt.operations.first().and_then(|(_, append)| forbidden(append)) else { continue };
        if attempt.operations.iter().any(|(_, append)| forbidden(append).is_none()) {
            continue;
        }
        let (id, _) = attempt.operations[0];
        let sentence = format!("{id} is at position {at} on condition of no match after {after}, but {by} matches");
        let violation = Violation::new(Kind::ConditionIgnored, sentence).at(&attempt.first.stream, at);
        gathering.found(violation.by(attempt.ids()));
    }
    for (operation, append) in appends(history) {
        let Some((Reply::ConditionFailed, refused)) = operation.outcome.answer() else { continue };
        gathering.examined(1);
        // What nobody of this history sent may have been there from the beginning.
        let was_sent = |logged: &LoggedEvent| {
            let sent = first_sent.get(&(logged.stream.as_str(), logged.event.id.as_str()));
            sent.is_none_or(|sent| *sent < refused.order)
        };
        if !append.conditions.iter().any(|condition| matches(condition, u64::MAX).any(was_sent)) {
            let sentence =
                format!("{} was refused for its condition, which nothing matches that was sent by then", operation.id);
            gathering.found(Violation::new(Kind::ConditionIgnored, sentence).by([operation.id]));
        }
    }
    gathering.verdict()
}

/// When each event was first sent, in the order of recording.
fn first_sent(history: &History) -> BTreeMap<(&str, &str), u64> {
    let mut first: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (operation, append) in appends(history) {
        for (stream, event) in append.events() {
            let at = first.entry((stream, &event.id)).or_insert(operation.invoked.order);
            *at = operation.invoked.order.min(*at);
        }
    }
    first
}
