//! The judge: a view is the fold of the log, readers never see less than they saw, and every letter is sent, none for a rebuild.

use std::collections::{BTreeMap, BTreeSet};

use quorate_sim::Violation;

use crate::notes::{Action, Note, Seen};

/// Judges what was written down.
pub(super) fn judge(notes: &[Note]) -> Vec<Violation> {
    let log = notes.iter().rev().find_map(|note| match &note.what {
        Action::WholeLog { events } => Some(events.as_slice()),
        _ => None,
    });
    let Some(log) = log else { return vec![Violation::new("the run ends with the log", "nobody read it".to_owned())] };
    let mut found: Vec<_> = notes.iter().flat_map(|note| at_the_end(&note.what, log)).collect();
    found.extend(never_back(notes));
    found.extend(notes.iter().filter_map(|note| as_of_its_position(&note.what, log)));
    found.extend(every_letter(notes, log));
    found.truncate(5);
    found
}

/// What is written down of a view once everything has come to rest.
fn at_the_end(what: &Action, log: &[Seen]) -> Vec<Violation> {
    let mut found = Vec::new();
    match what {
        Action::ReadView { view, rows, whole, checkpoint, head } => {
            let fold = fold(view, log);
            if *rows != fold {
                let what = format!("`{view}` has the rows {rows:?}, the fold of the log is {fold:?}");
                found.push(Violation::new("a view is the fold of the log", what));
            }
            if !whole {
                let what = format!("`{view}` missed an event, or took one twice, by its own count");
                found.push(Violation::new("a recount of the log agrees", what));
            }
            // An inline view has nothing to do with events that do not matter to it.
            if checkpoint < head && view != "inline" {
                let what = format!("the checkpoint of `{view}` stays at {checkpoint}, the log ends at {head}");
                found.push(Violation::new("a checkpoint moves over what does not matter", what));
            }
        }
        Action::Rebuilt { before, after } if before != after => {
            let what = format!("{} letters were sent for a rebuild", after - before);
            found.push(Violation::new("a rebuild sends nothing again", what));
        }
        _ => {}
    }
    found
}

fn fold(view: &str, log: &[Seen]) -> Vec<(String, i64, i64)> {
    let is_counted = |event: &&Seen| match view {
        "rare" => event.kind == "rare",
        // One has nothing to do with them, the other passes over them and says so.
        "inline" | "declared" => event.kind != "poison",
        _ => true,
    };
    let mut rows = BTreeMap::<&str, (i64, i64)>::new();
    for event in log.iter().filter(is_counted) {
        let row = rows.entry(&event.stream).or_default();
        *row = (row.0 + 1, row.1 + event.position.cast_signed());
    }
    rows.into_iter().map(|(stream, (n, places))| (stream.to_owned(), n, places)).collect()
}

/// Readers never see less than they saw, whichever build they are given.
fn never_back(notes: &[Note]) -> Option<Violation> {
    let mut last = BTreeMap::<&str, (u64, i64)>::new();
    for note in notes {
        let Action::LookedAt { view, position, events } = &note.what else { continue };
        if let Some((at, before)) = last.insert(view, (*position, *events)).filter(|(_, before)| events < before) {
            let what = format!("a reader of `{view}` saw {before} events at position {at}, and later {events}");
            return Some(Violation::new("readers see no half-built view", what));
        }
    }
    None
}

/// Where nothing is ever parked, rows hold all events up to the position they are said to be of, and none behind.
fn as_of_its_position(what: &Action, log: &[Seen]) -> Option<Violation> {
    let Action::LookedAt { view, position, events } = what else { return None };
    if !["rare", "inline"].contains(&view.as_str()) {
        return None;
    }
    let upto: Vec<Seen> = log.iter().filter(|event| event.position <= *position).cloned().collect();
    let due: i64 = fold(view, &upto).iter().map(|(_, n, _)| n).sum();
    let what = || format!("`{view}` showed {events} events as of position {position}, up to which there are {due}");
    (due != *events).then(|| Violation::new("rows are of the position they say", what()))
}

/// Every letter was sent at least once, and none that nobody asked for.
fn every_letter(notes: &[Note], log: &[Seen]) -> Option<Violation> {
    let sent: BTreeSet<String> = notes
        .iter()
        .filter_map(|note| match &note.what {
            Action::Letter { key } => Some(key.clone()),
            _ => None,
        })
        .collect();
    let mailed = log.iter().filter(|event| event.kind == "mailed");
    let asked: BTreeSet<String> =
        mailed.flat_map(|event| ["tally", "inline"].map(|view| format!("{view}/{}/0", event.position))).collect();
    let wrong = sent.symmetric_difference(&asked).next()?;
    let how = if asked.contains(wrong) { "was never sent" } else { "was sent, and nothing in the log asks for it" };
    Some(Violation::new("every letter is sent", format!("letter {wrong} {how}")))
}
