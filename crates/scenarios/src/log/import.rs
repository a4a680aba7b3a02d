//! Clients bring in the events of loan applications, several of them the same ones, from the beginning and in order each, under
//! keys that they derive from what they send. In the end every event is there once, and every application is what the
//! lines say.

use std::{collections::BTreeMap, sync::OnceLock};

use quorate_sim::check::{
    Verdict,
    api::{Append, Expected, LoggedEvent, SentEvent},
    import::{self, Line},
};
use serde_json::Value;

use super::appends::send_events;
use crate::{
    asked::Asked,
    cast::Cast,
    hand::{Hand, Pace},
    notes::{Action, Note, Told, digest},
    rule,
};

const CLIENTS: usize = 3;
/// Events of one application that are sent at once.
const BATCH: usize = 4;
/// Loan applications of our own making, in the form of the real ones: a seed is the same world wherever it runs.
const SAMPLE: &str = include_str!("../../../../examples/data/loans-sample.ndjson");

/// Others, in place of the sample.
static OTHERS: OnceLock<String> = OnceLock::new();

/// Has the scenario bring in these events, one per line with their stream as `subject`, instead of its own sample. A seed is then
/// the same world only with the same lines.
///
/// Call it before the first world of the process, once; later calls do nothing.
pub fn bring_in_instead(lines: String) {
    let _ = OTHERS.set(lines);
}

/// Who takes part.
pub(crate) fn cast() -> Cast {
    let clients =
        (0..CLIENTS).fold(Cast::new(), |cast, n| cast.hand(&format!("importer-{n}"), move |hand| work(hand, n)));
    clients.judged_by(judge)
}

/// An event of the file, as it is sent and as checkers know it.
struct Loan {
    line: Line,
    event: Value,
}

/// All events, in the order of the file.
fn loans() -> Vec<Loan> {
    let loan = |(line, text): (u64, &str)| {
        let event: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let sent = SentEvent { id: text("id"), content: digest(&event["data"]), kind: text("type"), tags: Vec::new() };
        Loan { line: Line { line, stream: text("subject"), event: sent }, event }
    };
    (1..).zip(OTHERS.get().map_or(SAMPLE, String::as_str).lines()).map(loan).collect()
}

/// Brings in all but a third of the applications, as often as there is time for; each is brought in by two clients.
async fn work(mut hand: Hand, nth: usize) {
    let loans = loans();
    let mut applications: BTreeMap<&str, Vec<&Loan>> = BTreeMap::new();
    loans.iter().for_each(|loan| applications.entry(&loan.line.stream).or_default().push(loan));
    let own = applications.into_iter().enumerate().filter(|(n, _)| n % CLIENTS != nth);
    let mut own: Vec<(&str, Vec<&Loan>)> = own.map(|(_, application)| application).collect();
    let mut pass = 0;
    while hand.goes_on(pass, 1) {
        // Everybody in an order of their own, so that sometimes the one and sometimes the other is first.
        for left in (1..own.len()).rev() {
            own.swap(left, hand.below(left + 1));
        }
        for (stream, events) in &own {
            for (n, batch) in events.chunks(BATCH).enumerate() {
                // One goes without keys: then it is by their ids that events are known.
                let key = (nth > 0).then(|| format!("{stream}-{n}"));
                bring_in(&mut hand, stream, key, batch).await;
                hand.rest().await;
            }
            let _ = hand.read_stream(stream).await;
        }
        pass += 1;
    }
}

/// Sends a batch until it is certain to be there: what follows in its stream comes after it.
async fn bring_in(hand: &mut Hand, stream: &str, key: Option<String>, batch: &[&Loan]) {
    let append = Append::to(stream, Expected::Any, batch.iter().map(|loan| loan.line.event.clone()).collect());
    let append = Append { key, ..append };
    loop {
        let events = batch.iter().map(|loan| loan.event.clone()).collect();
        if send_events(hand, append.clone(), events).await != Told::Unknown {
            return;
        }
        hand.rest().await;
    }
}

fn judge(notes: &[Note], _: Pace) -> Vec<Verdict> {
    let Some(log) = Asked::of(notes).log else { return Vec::new() };
    let lines: Vec<Line> = loans().into_iter().map(|loan| loan.line).collect();
    rules(&lines, &log, notes)
}

fn rules(lines: &[Line], log: &[LoggedEvent], notes: &[Note]) -> Vec<Verdict> {
    let (counted, folded) = (of_lines(lines), of_log(log));
    let differs = (counted != folded).then(|| {
        let differs = counted.iter().find(|(stream, counts)| folded.get(*stream) != Some(counts));
        format!("the log differs in application {}", differs.map_or("one that no line has", |(stream, _)| stream))
    });
    vec![
        import::every_line_once(lines, true, log),
        rule::verdict("the log folds as the lines count", counted.len(), differs),
        read_whole(notes, &counted),
    ]
}

/// How often each step was taken.
type Steps<'e> = BTreeMap<&'e str, u64>;

/// Steps by application.
fn fold<'e>(events: impl Iterator<Item = (&'e str, &'e str)>) -> BTreeMap<&'e str, Steps<'e>> {
    let mut all: BTreeMap<&str, Steps<'_>> = BTreeMap::new();
    for (stream, kind) in events {
        *all.entry(stream).or_default().entry(kind).or_default() += 1;
    }
    all
}

fn of_lines(lines: &[Line]) -> BTreeMap<&str, Steps<'_>> {
    fold(lines.iter().map(|line| (line.stream.as_str(), line.event.kind.as_str())))
}

fn of_log(log: &[LoggedEvent]) -> BTreeMap<&str, Steps<'_>> {
    fold(log.iter().map(|logged| (logged.stream.as_str(), logged.event.kind.as_str())))
}

/// Whoever reads an application after bringing it in reads all of it.
fn read_whole(notes: &[Note], counted: &BTreeMap<&str, Steps<'_>>) -> Verdict {
    let (mut reads, mut broken) = (0, None);
    for note in notes {
        let Action::Read { read, events, .. } = &note.what else { continue };
        let Some(stream) = read.stream.as_deref() else { continue };
        reads += 1;
        let seen = fold(events.iter().map(|event| (event.stream.as_str(), event.kind.as_str())));
        let differs = seen.get(stream) != counted.get(stream);
        let what = || format!("{} brought in {stream} and read {} events of it", note.client, events.len());
        broken = broken.or_else(|| differs.then(what));
    }
    rule::verdict("whoever brought in an application reads all of it", reads, broken)
}

#[cfg(test)]
mod tests {
    use quorate_sim::check::api::Read;

    use super::*;
    use crate::notes::Seen;

    #[test]
    fn every_line_is_an_event_of_an_application() {
        let loans = loans();
        assert_eq!(loans.len(), 300);
        assert_eq!(of_lines(&loans.iter().map(|loan| loan.line.clone()).collect::<Vec<_>>()).len(), 20);
        assert!(loans.iter().all(|loan| loan.event["data"].is_object() && !loan.line.event.id.is_empty()));
    }
    const ONCE: &str = "every imported line is in the log once and in order";
    const FOLDS: &str = "the log folds as the lines count";
    const READ: &str = "whoever brought in an application reads all of it";

    /// Three lines of two applications, and the log of them, in which `change` then goes wrong.
    fn broken(change: impl FnOnce(&mut Vec<LoggedEvent>, &mut Vec<Note>)) -> Vec<String> {
        let line = |line, stream: &str, id: &str, kind: &str| {
            let event = SentEvent { kind: kind.into(), ..SentEvent::new(id, 1) };
            Line { line, stream: stream.into(), event }
        };
        let lines = [line(1, "a", "x", "asked"), line(2, "b", "y", "asked"), line(3, "a", "z", "granted")];
        let logged = |position, version, line: &Line| LoggedEvent {
            position,
            stream: line.stream.clone(),
            version,
            event: line.event.clone(),
        };
        let mut log = vec![logged(1, 1, &lines[0]), logged(2, 1, &lines[1]), logged(3, 2, &lines[2])];
        let seen = |logged: &LoggedEvent| Seen {
            position: logged.position,
            stream: logged.stream.clone(),
            version: logged.version,
            id: logged.event.id.clone(),
            kind: logged.event.kind.clone(),
            tags: Vec::new(),
            content: Some(1),
        };
        let events = vec![seen(&log[0]), seen(&log[2])];
        let what = Action::read(Read::stream("a", 0, u64::MAX), events);
        let mut notes = vec![Note { client: "importer-0".into(), invoked: 8, completed: 9, what }];
        change(&mut log, &mut notes);
        rule::names(&rules(&lines, &log, &notes))
    }

    #[test]
    fn a_log_that_has_every_line_once_is_right_and_no_other_is() {
        assert_eq!(broken(|_, _| {}), [""; 0]);
        assert_eq!(broken(|log, _| drop(log.pop())), [ONCE, FOLDS], "a line is missing");
        assert_eq!(broken(|log, _| log.push(LoggedEvent { position: 4, ..log[0].clone() })), [ONCE, FOLDS], "twice");
        assert_eq!(broken(|log, _| log[1].event.kind = "granted".into()), [ONCE, FOLDS], "as something else");
        let turned = |log: &mut Vec<LoggedEvent>, _: &mut Vec<Note>| {
            (log[0].version, log[2].version) = (2, 1);
        };
        assert_eq!(broken(turned), [ONCE], "out of order");
        let more = |log: &mut Vec<LoggedEvent>, _: &mut Vec<Note>| {
            let event = SentEvent::new("nobody's", 1);
            log.push(LoggedEvent { position: 4, stream: "c".into(), version: 1, event });
        };
        assert_eq!(broken(more), [FOLDS], "an application of nobody's");
    }

    #[test]
    fn whoever_reads_half_an_application_after_bringing_it_in_was_served_too_little() {
        let half = |_: &mut Vec<LoggedEvent>, notes: &mut Vec<Note>| {
            if let Action::Read { events, .. } = &mut notes[0].what {
                events.pop();
            }
        };
        assert_eq!(broken(half), [READ]);
    }
}
