//! What must hold of a log, whatever went wrong: judged from what clients were told and what the log says in the end.
//!
//! The judges know nothing of the store. They know the promises of the HTTP API.

use std::collections::BTreeMap;

use quorate_sim::Violation;

use crate::notes::{Action, Expected, Note, Seen, Told};

/// The log as it was read in the end, by id and by stream.
struct Log<'n> {
    events: &'n [Seen],
    by_id: BTreeMap<&'n str, &'n Seen>,
}

/// Judges `notes`, of which the last reading of the log is final.
pub(crate) fn all(notes: &[Note]) -> Vec<Violation> {
    let last = notes.iter().rev().find_map(|note| match &note.what {
        Action::ReadLog { events } => Some(events),
        _ => None,
    });
    let Some(events) = last else {
        return vec![Violation::new("final reading", "nobody read the log in the end")];
    };
    let log = Log { events, by_id: events.iter().map(|event| (event.id.as_str(), event)).collect() };
    let mut found = dense(&log);
    found.extend(once(&log));
    for note in notes {
        found.extend(match &note.what {
            Action::Append { stream, ids, expected, told } => appended(&log, note, stream, ids, *expected, told),
            Action::AppendIf { stream, id, tag, after, told } => {
                let mut found = appended(&log, note, stream, std::slice::from_ref(id), Expected::Any, told);
                found.extend(condition(&log, notes, id, tag, *after, told));
                found
            }
            Action::ReadStream { stream, ids } => read_stream(&log, note, stream, ids),
            Action::ReadLog { events } => read_log(&log, note, events),
            _ => Vec::new(),
        });
    }
    found.extend(real_time(&log, notes));
    found.extend(fresh(notes));
    found.extend(subscriptions(&log, notes));
    found.extend(keys(notes, &log));
    found
}

/// Positions of the log and versions of each stream count from 1 without a hole.
fn dense(log: &Log<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    for (n, event) in (1..).zip(log.events) {
        if event.position != n {
            found.push(Violation::new(
                "dense positions",
                format!("event {n} of the log is at position {}", event.position),
            ));
            break;
        }
        let version = versions.entry(&event.stream).or_default();
        *version += 1;
        if event.version != *version {
            let what = format!("event {} of {} has version {}", version, event.stream, event.version);
            found.push(Violation::new("dense versions", what));
        }
    }
    found
}

fn once(log: &Log<'_>) -> Option<Violation> {
    let doubled =
        log.events.iter().find(|event| log.by_id.get(event.id.as_str()).is_some_and(|known| known != event))?;
    Some(Violation::new("nothing doubled", format!("{} is in the log twice", doubled.id)))
}

fn appended(
    log: &Log<'_>,
    note: &Note,
    stream: &str,
    ids: &[String],
    expected: Expected,
    told: &Told,
) -> Vec<Violation> {
    let present: Vec<&Seen> = ids.iter().filter_map(|id| log.by_id.get(id.as_str()).copied()).collect();
    let who = format!("the append of {} to {stream} by {}", ids.join(", "), note.client);
    match told {
        Told::Done { .. } if present.len() < ids.len() => {
            let missing = ids.iter().find(|id| !log.by_id.contains_key(id.as_str())).map_or("", String::as_str);
            vec![Violation::new(
                "nothing acknowledged lost",
                format!("{who} was acknowledged; {missing} is not in the log"),
            )]
        }
        Told::Refused { .. } if !present.is_empty() => {
            vec![Violation::new(
                "refused without effect",
                format!("{who} was refused, and {} is in the log", present[0].id),
            )]
        }
        Told::Unknown if !present.is_empty() && present.len() < ids.len() => {
            vec![Violation::new("all or nothing", format!("of {who} only a part is in the log"))]
        }
        _ => placed(&who, &present, stream, expected, told).into_iter().collect(),
    }
}

/// What is in the log stands together, in order, where it was told and where it was allowed to.
fn placed(who: &str, present: &[&Seen], stream: &str, expected: Expected, told: &Told) -> Option<Violation> {
    let (first, last) = (present.first()?, present.last()?);
    if present.iter().any(|event| event.stream != stream) {
        return Some(Violation::new("its own stream", format!("{who} went to {}", first.stream)));
    }
    let together = present
        .windows(2)
        .all(|pair| pair[1].version == pair[0].version + 1 && pair[1].position == pair[0].position + 1);
    if !together {
        return Some(Violation::new("batch together", format!("the events of {who} do not stand together")));
    }
    if let Told::Done { version } = told
        && *version != last.version
    {
        let what = format!("{who} was told version {version}; the log says {}", last.version);
        return Some(Violation::new("version told", what));
    }
    let wanted = match expected {
        Expected::Any => return None,
        Expected::New => 1,
        Expected::Exact(version) => version + 1,
    };
    (first.version != wanted).then(|| {
        let what = format!("{who} was only for version {wanted} of the stream, and stands at {}", first.version);
        Violation::new("expected version", what)
    })
}

/// Between what the client had read and its own event there is none that the condition forbids.
fn condition(log: &Log<'_>, notes: &[Note], id: &str, tag: &str, after: u64, told: &Told) -> Option<Violation> {
    let own = log.by_id.get(id)?;
    if matches!(told, Told::Refused { .. }) {
        return None;
    }
    let tagged = notes.iter().filter_map(|note| match &note.what {
        Action::AppendIf { id, tag: of, .. } if of == tag => log.by_id.get(id.as_str()).copied(),
        _ => None,
    });
    let between = |event: &&Seen| event.position > after && event.position < own.position;
    tagged.into_iter().find(between).map(|event| {
        let what = format!(
            "{id} is in the log on the condition that nothing tagged {tag} came after {after}, but {} did at {}",
            event.id, event.position
        );
        Violation::new("condition", what)
    })
}

/// What was read of a stream is a beginning of what it is in the end.
fn read_stream(log: &Log<'_>, note: &Note, stream: &str, ids: &[String]) -> Vec<Violation> {
    let whole = log.events.iter().filter(|event| event.stream == stream).map(|event| event.id.as_str());
    let differs = ids.iter().map(String::as_str).zip(whole.chain(std::iter::repeat(""))).find(|(read, is)| read != is);
    differs
        .map(|(read, is)| {
            let what = format!("{} read {read} in {stream} where the log has `{is}` in the end", note.client);
            Violation::new("prefix", what)
        })
        .into_iter()
        .collect()
}

/// What was read of the log is a beginning of what it is in the end.
fn read_log(log: &Log<'_>, note: &Note, events: &[Seen]) -> Vec<Violation> {
    let differs = events.iter().zip(log.events).find(|(read, is)| read != is);
    let longer = events.len() > log.events.len();
    let what = match differs {
        Some((read, is)) => format!(
            "{} read {} at position {} where the log has {} in the end",
            note.client, read.id, read.position, is.id
        ),
        None if longer => {
            format!("{} read {} events of a log that has {} in the end", note.client, events.len(), log.events.len())
        }
        None => return Vec::new(),
    };
    vec![Violation::new("prefix", what)]
}

/// An append that was acknowledged before another one was asked for the first time stands before it.
fn real_time(log: &Log<'_>, notes: &[Note]) -> Option<Violation> {
    // By position: when it was first asked for, and when it was first acknowledged.
    let mut writes: BTreeMap<u64, (u64, Option<u64>)> = BTreeMap::new();
    for note in notes {
        let (id, told) = match &note.what {
            Action::Append { ids, told, .. } => (ids.first(), told),
            Action::AppendIf { id, told, .. } => (Some(id), told),
            _ => continue,
        };
        let Some(event) = id.and_then(|id| log.by_id.get(id.as_str())) else { continue };
        let write = writes.entry(event.position).or_insert((note.invoked, None));
        write.0 = write.0.min(note.invoked);
        if matches!(told, Told::Done { .. }) {
            write.1 = Some(write.1.map_or(note.completed, |known| known.min(note.completed)));
        }
    }
    // Going back from the end: nobody before may have been asked for after somebody behind was acknowledged.
    let mut earliest: Option<(u64, u64)> = None;
    for (position, (invoked, acknowledged)) in writes.into_iter().rev() {
        if let Some((behind, at)) = earliest.filter(|(_, at)| *at < invoked) {
            let what = format!(
                "the append at position {position} was asked for at {invoked}, after the one at {behind} was acknowledged at {at}"
            );
            return Some(Violation::new("order of commits", what));
        }
        if let Some(at) = acknowledged.filter(|at| earliest.is_none_or(|(_, known)| *at < known)) {
            earliest = Some((position, at));
        }
    }
    None
}

/// A read that was asked for after something was acknowledged, or read, contains it.
fn fresh(notes: &[Note]) -> Vec<Violation> {
    let mut found = Vec::new();
    let known = |note: &Note, of: &str| match &note.what {
        Action::Append { stream, told: Told::Done { version }, .. } if stream == of => Some(*version),
        Action::ReadStream { stream, ids } if stream == of => Some(ids.len() as u64),
        _ => None,
    };
    for read in notes {
        let Action::ReadStream { stream, ids } = &read.what else { continue };
        let before = notes.iter().filter(|note| note.completed < read.invoked);
        let least = before.filter_map(|note| known(note, stream)).max().unwrap_or(0);
        if (ids.len() as u64) < least {
            let what = format!(
                "{} read {stream} up to version {} after version {least} had been told",
                read.client,
                ids.len()
            );
            found.push(Violation::new("no stale read", what));
        }
    }
    found
}

/// Every subscription was told of everything in the log, in order, once.
fn subscriptions(log: &Log<'_>, notes: &[Note]) -> Vec<Violation> {
    let mut told: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for note in notes {
        if let Action::Told { subscription, event } = &note.what {
            told.entry(subscription).or_default().push(event);
        }
    }
    let mut found = Vec::new();
    for (subscription, events) in told {
        let differs = events.iter().copied().zip(log.events).find(|(told, is)| told != is);
        if let Some((told, is)) = differs {
            let what = format!("{subscription} was told of {} where {} was next", told.id, is.id);
            found.push(Violation::new("subscription", what));
        } else if events.len() != log.events.len() {
            let what = format!("{subscription} was told of {} events of {}", events.len(), log.events.len());
            found.push(Violation::new("subscription", what));
        }
    }
    found
}

/// One key has one effect and one answer, and what was refused once stays refused.
fn keys(notes: &[Note], log: &Log<'_>) -> Vec<Violation> {
    let mut answers: BTreeMap<(&str, &str), Vec<&Told>> = BTreeMap::new();
    for note in notes {
        if let Action::Keyed { key, stream, told } = &note.what {
            answers.entry((key, stream)).or_default().push(told);
        }
    }
    let mut found = Vec::new();
    for ((key, stream), told) in answers {
        let mut certain = told.into_iter().filter(|told| **told != Told::Unknown);
        let Some(first) = certain.next() else { continue };
        if let Some(other) = certain.find(|other| *other != first) {
            found.push(Violation::new(
                "one answer",
                format!("key {key} was answered with {first:?}, and later with {other:?}"),
            ));
        }
        let event = log.by_id.get(key).filter(|event| event.stream == stream);
        match (first, event) {
            (Told::Done { version }, Some(event)) if event.version != *version => {
                found.push(Violation::new(
                    "one answer",
                    format!("key {key} was told version {version}, not {}", event.version),
                ));
            }
            (Told::Done { .. }, None) => {
                found.push(Violation::new(
                    "nothing acknowledged lost",
                    format!("key {key} was acknowledged and had no effect"),
                ));
            }
            (Told::Refused { .. }, Some(_)) => {
                found
                    .push(Violation::new("refused without effect", format!("key {key} was refused and had an effect")));
            }
            _ => {}
        }
    }
    found
}
