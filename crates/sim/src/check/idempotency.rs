//! Does one idempotency key have one answer and one effect?
//!
//! Source: Internet-Draft draft-ietf-httpapi-idempotency-key-header, section 2.6.

use std::collections::BTreeMap;

use super::{
    api::{Append, History, LoggedEvent, Operation, Reply},
    effects::appends,
    log::Index,
    verdict::{Gathering, Kind, Verdict, Violation},
};

/// Whoever sent the same request with the same key got the same answer, and of different requests with one key at most
/// one was carried out.
///
/// A key in a history is one scope (principal, method, path): a scenario with several puts the scope into the key.
pub fn honoured(history: &History, log: &[LoggedEvent]) -> Verdict {
    let mut gathering = Gathering::on("one idempotency key has one answer and one effect");
    let index = Index::of(log);
    let mut keys: BTreeMap<&str, Vec<(&Operation, &Append)>> = BTreeMap::new();
    for (operation, append) in appends(history) {
        if let Some(key) = &append.key {
            keys.entry(key).or_default().push((operation, append));
        }
    }
    for (key, sent) in keys.into_iter().filter(|(_, sent)| sent.len() > 1) {
        gathering.examined(sent.len());
        let violations = [other_answer(key, &sent), refused_itself(key, &sent), second_effect(key, &sent, &index)];
        violations.into_iter().flatten().for_each(|violation| gathering.found(violation));
    }
    gathering.verdict()
}

/// Answers to what was carried out, or refused for what it asked.
fn answers<'o>(sent: &'o [(&Operation, &Append)]) -> impl Iterator<Item = (&'o Operation, &'o Append, &'o Reply)> {
    let answer = |(operation, append): &(&'o Operation, &'o Append)| {
        let (reply, _) = operation.outcome.answer()?;
        (*reply != Reply::KeyReused).then_some((*operation, *append, reply))
    };
    sent.iter().filter_map(answer)
}

fn other_answer(key: &str, sent: &[(&Operation, &Append)]) -> Option<Violation> {
    let (first, append, reply) = answers(sent).next()?;
    let (second, _, other) = answers(sent).find(|(_, other, answer)| *other != append || *answer != reply)?;
    let sentence = format!("key {key} was answered \"{reply}\" for {} and \"{other}\" for {}", first.id, second.id);
    Some(Violation::new(Kind::KeyIgnored, sentence).of(key).by([first.id, second.id]))
}

fn refused_itself(key: &str, sent: &[(&Operation, &Append)]) -> Option<Violation> {
    let (_, append) = sent.first()?;
    let all_the_same = sent.iter().all(|(_, other)| other == append);
    let is_refused = |operation: &Operation| matches!(operation.outcome.answer(), Some((Reply::KeyReused, _)));
    let (operation, _) = sent.iter().find(|(operation, _)| all_the_same && is_refused(operation))?;
    let sentence = format!("{} was refused as another request with key {key}, but there is no other", operation.id);
    Some(Violation::new(Kind::KeyIgnored, sentence).of(key).by([operation.id]))
}

fn second_effect(key: &str, sent: &[(&Operation, &Append)], index: &Index<'_>) -> Option<Violation> {
    let is_there = |append: &Append| append.events().any(|(stream, event)| index.find(stream, &event.id).is_some());
    let mut there = sent.iter().filter(|(_, append)| is_there(append));
    let (first, append) = there.next()?;
    // The same events under one key are one effect, whatever else differs between the requests.
    let (second, _) = there.find(|(_, other)| !other.events().eq(append.events()))?;
    let sentence = format!("key {key} had two effects: of {} and of {}", first.id, second.id);
    Some(Violation::new(Kind::Doubled, sentence).of(key).by([first.id, second.id]))
}
