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
    let looks: Vec<(u64, i64)> = notes
        .iter()
        .filter_map(|note| match &note.what {
            Action::LookedAt { position, events, .. } => Some((*position, *events)),
            _ => None,
        })
        .collect();
    let back = looks.windows(2).find(|pair| pair[1].1 < pair[0].1)?;
    let what = format!("a reader saw {} events at position {}, and later {}", back[0].1, back[0].0, back[1].1);
    Some(Violation::new("readers see no half-built view", what))
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
    let asked: BTreeSet<String> =
        log.iter().filter(|event| event.kind == "mailed").map(|event| format!("tally/{}/0", event.position)).collect();
    let wrong = sent.symmetric_difference(&asked).next()?;
    let how = if asked.contains(wrong) { "was never sent" } else { "was sent, and nothing in the log asks for it" };
    Some(Violation::new("every letter is sent", format!("letter {wrong} {how}")))
}
