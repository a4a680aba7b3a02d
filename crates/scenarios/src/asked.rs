//! From what clients wrote down to what the checkers of [`quorate_sim::check`] read.

use std::collections::BTreeMap;

use quorate_foundations::time::Mono;
use quorate_sim::check::{
    api::{Append, Call, History, LoggedEvent, Read, Reply, SentEvent},
    history::ClientId,
    subscription::{Connection, Subscription},
};

use crate::{
    forgotten::Forgotten,
    notes::{Action, Note, Refusal, Seen, Told},
};

/// What was asked and told, and what there is in the end.
pub(crate) struct Asked {
    /// Appends and reads, in the order in which they were asked.
    pub(crate) history: History,
    /// Who asked: the names of the history's clients, by their numbers.
    pub(crate) clients: Vec<String>,
    /// The log as it was read in the end; `None` where nobody read it.
    pub(crate) log: Option<Vec<LoggedEvent>>,
    /// What followers were told.
    pub(crate) subscriptions: Vec<Subscription>,
}

impl Asked {
    /// What `notes` say; the last reading of the log is final.
    pub(crate) fn of(notes: &[Note]) -> Self {
        let known = Known::of(notes);
        let last = notes.iter().rev().find_map(|note| match &note.what {
            Action::Read { read, events, .. } if read.stream.is_none() => Some((note, events)),
            _ => None,
        });
        let log = last.map(|(note, events)| known.all(events, note.completed));
        let mut clients: Vec<String> = notes.iter().filter(|note| is_asked(note)).map(|n| n.client.clone()).collect();
        clients.sort_unstable();
        clients.dedup();
        let history = history(notes, &clients, &known);
        Self { history, clients, log, subscriptions: subscriptions(notes, &known) }
    }
}

fn is_asked(note: &Note) -> bool {
    matches!(note.what, Action::Append { .. } | Action::Read { .. })
}

/// What was sent, and what was allowed to be forgotten.
struct Known<'n> {
    sent: BTreeMap<(&'n str, &'n str), &'n SentEvent>,
    forgotten: Forgotten<'n>,
}

impl<'n> Known<'n> {
    fn of(notes: &'n [Note]) -> Self {
        let appends = notes.iter().filter_map(|note| match &note.what {
            Action::Append { append, .. } => Some(append),
            _ => None,
        });
        let sent = appends.flat_map(Append::events).map(|(stream, event)| ((stream, event.id.as_str()), event));
        Self { sent: sent.collect(), forgotten: Forgotten::of(notes) }
    }

    /// What was read. The reading of a stream begins behind what was forgotten of it.
    fn read(&self, read: &Read, events: &[Seen], at: u64) -> Read {
        let (Some(stream), [first, ..]) = (&read.stream, events) else { return read.clone() };
        let (gone, newest) = (first.version.saturating_sub(1), events.last().map(|last| last.version));
        let begins_behind = gone > read.after && self.forgotten.may_be_gone(stream, gone, at, newest);
        Read { after: if begins_behind { gone } else { read.after }, ..read.clone() }
    }

    fn all(&self, events: &[Seen], at: u64) -> Vec<LoggedEvent> {
        events.iter().map(|event| self.logged(event, at)).collect()
    }

    /// An event that was read by `at`. One whose data was forgotten says what it said, if somebody had asked to forget it; if
    /// nobody had, it says nothing that anybody sent.
    fn logged(&self, Seen { position, stream, version, id, kind, tags, content }: &Seen, at: u64) -> LoggedEvent {
        let content = content.or_else(|| {
            let may_be_gone = self.forgotten.may_be_gone(stream, *version, at, None);
            let sent = self.sent.get(&(stream.as_str(), id.as_str())).filter(|_| may_be_gone)?;
            Some(sent.content)
        });
        let content = content.unwrap_or(0);
        let event = SentEvent { id: id.clone(), content, kind: kind.clone(), tags: tags.clone() };
        LoggedEvent { position: *position, stream: stream.clone(), version: *version, event }
    }
}

/// Appends and reads as one history. What happened at one instant happened at once: nobody then was first.
fn history(notes: &[Note], clients: &[String], known: &Known<'_>) -> History {
    let asked = notes.iter().filter(|note| is_asked(note));
    let mut moments: Vec<(u64, bool, usize, &Note)> = asked
        .enumerate()
        .flat_map(|(n, note)| [(note.invoked, false, n, note), (note.completed, true, n, note)])
        .collect();
    moments.sort_by_key(|(at, ends, n, _)| (*at, *ends, *n));
    let (mut history, mut ids) = (History::new(), BTreeMap::new());
    for (at, ends, n, note) in moments {
        let at = Mono::from_nanos(at);
        if !ends {
            let nth = clients.binary_search(&note.client).ok().and_then(|nth| u32::try_from(nth).ok());
            ids.insert(n, history.invoke(ClientId(nth.unwrap_or(u32::MAX)), call(note, known), at));
        } else if let Some(id) = ids.get(&n) {
            match answer(note, known) {
                Ok(Some(reply)) => history.ok(*id, reply, at),
                Ok(None) => history.unknown(*id, "nobody said", at),
                Err(problem) => history.failed(*id, problem, at),
            }
        }
    }
    history
}

fn call(note: &Note, known: &Known<'_>) -> Call {
    match &note.what {
        Action::Append { append, .. } => Call::Append(append.clone()),
        Action::Read { read, events, .. } => Call::Read(known.read(read, events, note.completed)),
        other => unreachable!("only appends and reads are calls, not {other:?}"),
    }
}

/// What was answered, if anything; or why it certainly had no effect.
fn answer(note: &Note, known: &Known<'_>) -> Result<Option<Reply>, String> {
    Ok(match &note.what {
        Action::Append { told, .. } => match told {
            Told::Done { version, token } => Some(Reply::Appended { versions: vec![*version], token: token.clone() }),
            Told::Unknown => None,
            Told::Refused(Refusal::Version { actual }) => Some(Reply::WrongVersion { actual: *actual }),
            Told::Refused(Refusal::Id) => Some(Reply::IdConflict),
            Told::Refused(Refusal::Condition) => Some(Reply::ConditionFailed),
            Told::Refused(Refusal::Key) => Some(Reply::KeyReused),
            Told::Refused(Refusal::Other { problem }) => return Err(problem.clone()),
        },
        Action::Read { events, token, .. } => {
            Some(Reply::Events { events: known.all(events, note.completed), token: token.clone() })
        }
        _ => None,
    })
}

/// Followers with their connections. All of them had the time to hear of everything.
fn subscriptions(notes: &[Note], known: &Known<'_>) -> Vec<Subscription> {
    let mut all: BTreeMap<&str, Vec<Connection>> = BTreeMap::new();
    for note in notes {
        match &note.what {
            Action::Connected { subscription, after } => {
                let connections = all.entry(subscription).or_default();
                let resumed_after = (!connections.is_empty()).then_some(*after);
                connections.push(Connection { resumed_after, received: Vec::new() });
            }
            Action::Told { subscription, event } => {
                if let Some(connection) = all.get_mut(subscription.as_str()).and_then(|all| all.last_mut()) {
                    connection.received.push(known.logged(event, note.completed));
                }
            }
            _ => {}
        }
    }
    let subscription = |(name, connections): (&str, _)| Subscription {
        subscriber: name.to_owned(),
        stream: None,
        after: 0,
        connections,
        caught_up: true,
    };
    all.into_iter().map(subscription).collect()
}

#[cfg(test)]
mod tests {
    use quorate_sim::check::{api::Expected, log, stream};

    use super::*;

    fn note(client: &str, invoked: u64, completed: u64, what: Action) -> Note {
        Note { client: client.into(), invoked, completed, what }
    }

    fn append(id: &str, told: Told) -> Action {
        Action::Append { append: Append::to("a", Expected::Any, vec![SentEvent::new(id, 7)]), told }
    }

    fn seen(version: u64, id: &str, content: Option<u64>) -> Seen {
        Seen {
            position: version,
            stream: "a".into(),
            version,
            id: id.into(),
            kind: String::new(),
            tags: vec![],
            content,
        }
    }

    fn read(events: Vec<Seen>) -> Action {
        Action::read(Read::log(0, u64::MAX), events)
    }

    #[test]
    fn what_was_asked_before_something_was_over_was_under_way_with_it() {
        let notes = [
            note("b", 5, 9, append("b", Told::Done { version: 1, token: None })),
            note("a", 1, 9, append("a", Told::Done { version: 2, token: None })),
            note("c", 9, 12, append("c", Told::Unknown)),
        ];
        let Asked { history, clients, log, .. } = Asked::of(&notes);
        assert_eq!(clients, ["a", "b", "c"]);
        assert_eq!(log, None);
        let invoked: Vec<u32> = history.operations().iter().map(|operation| operation.client.0).collect();
        assert_eq!(invoked, [0, 1, 2]);
        assert!(!history.operations()[1].precedes(&history.operations()[2]), "at one instant nobody is first");
        assert!(stream::expected_versions(&history).holds());
    }

    #[test]
    fn data_that_nobody_asked_to_forget_is_noticed_to_be_gone() {
        let truncate = Action::Truncate { stream: "a".into(), before: 2, told: Told::Unknown };
        let mut notes = vec![
            note("a", 1, 2, append("a", Told::Done { version: 1, token: None })),
            note("a", 3, 4, truncate),
            note("a", 5, 6, append("b", Told::Done { version: 2, token: None })),
            note("a", 7, 8, read(vec![seen(1, "a", None), seen(2, "b", Some(7))])),
        ];
        let Asked { history, log, .. } = Asked::of(&notes);
        assert!(log::views_agree(&history, &log.unwrap()).holds());
        let stream = Action::read(Read::stream("a", 0, u64::MAX), vec![seen(2, "b", Some(7))]);
        notes.push(note("a", 9, 10, stream));
        assert!(stream::expected_versions(&Asked::of(&notes).history).holds());
        notes.remove(1);
        assert!(stream::expected_versions(&Asked::of(&notes).history).is_violated());
        let Asked { history, log, .. } = Asked::of(&notes);
        let lost = quorate_sim::check::effects::nothing_lost(&history, &log.unwrap());
        assert!(lost.violations()[0].sentence.contains("says something else"), "{lost}");
    }
}
