//! The judge: a view is the fold of the log, readers never see less than they saw, and every letter is sent, none for a rebuild.

use std::collections::{BTreeMap, BTreeSet};

use quorate_sim::check::Verdict;

use crate::{
    judge::{store_is_sound, without_holes},
    notes::{Action, Note, Seen},
    rule,
};

/// The log as it was read in the end.
fn whole_log(notes: &[Note]) -> Option<&[Seen]> {
    notes.iter().rev().find_map(|note| match &note.what {
        Action::WholeLog { events } => Some(events.as_slice()),
        _ => None,
    })
}

/// Judges what was written down.
pub(super) fn judge(notes: &[Note]) -> Vec<Verdict> {
    let log = whole_log(notes);
    let read = rule::verdict("the run ends with the log", 1, log.is_none().then(|| "nobody read it".to_owned()));
    let Some(log) = log else { return vec![read] };
    let mut verdicts = vec![read, never_back(notes), of_their_position(notes, log)];
    verdicts.extend([every_letter(notes, log), no_letter_again(notes)]);
    verdicts.extend(views_at_the_end(notes, log));
    // Last: a world is about what clients were promised.
    verdicts.push(store_is_sound(notes));
    verdicts
}

/// Judges where syncs lie: views and log lie in one file, the pages of which may be of any age then. What is left is that
/// nobody is served a log with a hole in it.
pub(super) fn judge_where_syncs_lie(notes: &[Note]) -> Vec<Verdict> {
    whole_log(notes).map(|log| without_holes(log.iter().map(|event| event.position))).into_iter().collect()
}

/// What is written down of views once everything has come to rest.
fn views_at_the_end(notes: &[Note], log: &[Seen]) -> [Verdict; 4] {
    let (mut views, mut other_rows, mut miscounted, mut behind) = (0, Vec::new(), Vec::new(), Vec::new());
    let mut apart = Vec::new();
    for note in notes {
        let Action::ReadView { view, rows, whole, unaccounted, checkpoint, head } = &note.what else { continue };
        views += 1;
        let fold = fold(view, log);
        if *rows != fold {
            other_rows.push(format!("`{view}` has the rows {rows:?}, the fold of the log is {fold:?}"));
        }
        if !whole {
            miscounted.push(format!("`{view}` missed an event, or took one twice, by its own count"));
        }
        if *unaccounted > 0 {
            apart.push(format!("of `{view}` {unaccounted} are neither dealt with nor passed over, or both"));
        }
        // An inline view has nothing to do with events that do not matter to it.
        if checkpoint < head && view != "inline" {
            behind.push(format!("the checkpoint of `{view}` stays at {checkpoint}, the log ends at {head}"));
        }
    }
    [
        rule::verdict("a view is the fold of the log", views, other_rows),
        rule::verdict("a recount of the log agrees", views, miscounted),
        rule::verdict("a checkpoint moves over what does not matter", views, behind),
        rule::verdict("nothing is unaccounted for", views, apart),
    ]
}

fn no_letter_again(notes: &[Note]) -> Verdict {
    let rebuilt = notes.iter().filter_map(|note| match &note.what {
        Action::Rebuilt { before, after } => Some((before, after)),
        _ => None,
    });
    let again = rebuilt.clone().filter(|(before, after)| before != after);
    let again = again.map(|(before, after)| format!("{} letters were sent for a rebuild", after.abs_diff(*before)));
    rule::verdict("a rebuild sends nothing again", rebuilt.clone().count(), again)
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
fn never_back(notes: &[Note]) -> Verdict {
    let (mut last, mut looks, mut back) = (BTreeMap::<&str, (u64, i64)>::new(), 0, Vec::new());
    for note in notes {
        let Action::LookedAt { view, position, events } = &note.what else { continue };
        looks += 1;
        if let Some((at, before)) = last.insert(view, (*position, *events)).filter(|(_, before)| events < before) {
            back.push(format!("a reader of `{view}` saw {before} events at position {at}, and later {events}"));
        }
    }
    rule::verdict("readers see no half-built view", looks, back)
}

/// Where nothing is ever parked, rows hold all events up to the position they are said to be of, and none behind.
fn of_their_position(notes: &[Note], log: &[Seen]) -> Verdict {
    let (mut looks, mut other) = (0, Vec::new());
    for note in notes {
        let Action::LookedAt { view, position, events } = &note.what else { continue };
        if !["rare", "inline"].contains(&view.as_str()) {
            continue;
        }
        looks += 1;
        let upto: Vec<Seen> = log.iter().filter(|event| event.position <= *position).cloned().collect();
        let due: i64 = fold(view, &upto).iter().map(|(_, n, _)| n).sum();
        if due != *events {
            other.push(format!(
                "`{view}` showed {events} events as of position {position}, up to which there are {due}"
            ));
        }
    }
    rule::verdict("rows are of the position they say", looks, other)
}

/// Every letter was sent at least once, and none that nobody asked for.
fn every_letter(notes: &[Note], log: &[Seen]) -> Verdict {
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
    let wrong = sent.symmetric_difference(&asked).next().map(|wrong| {
        let how = if asked.contains(wrong) { "was never sent" } else { "was sent, and nothing in the log asks for it" };
        format!("letter {wrong} {how}")
    });
    rule::verdict("every letter is sent", asked.len(), wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLD: &str = "a view is the fold of the log";
    const POSITION: &str = "rows are of the position they say";

    fn note(what: Action) -> Note {
        Note { client: "judge".into(), invoked: 1, completed: 1, what }
    }

    fn event(position: u64, stream: &str, kind: &str) -> Seen {
        let id = position.to_string();
        Seen { position, stream: stream.into(), version: position, id, kind: kind.into(), tags: vec![], content: None }
    }

    fn view(name: &str, rows: &[(&str, i64, i64)], checkpoint: u64) -> Action {
        let rows = rows.iter().map(|(stream, n, places)| ((*stream).to_owned(), *n, *places)).collect();
        Action::ReadView { view: name.into(), rows, whole: true, unaccounted: 0, checkpoint, head: 4 }
    }

    fn looked(view: &str, position: u64, events: i64) -> Action {
        Action::LookedAt { view: view.into(), position, events }
    }

    fn letter(view: &str, position: u64) -> Action {
        Action::Letter { key: format!("{view}/{position}/0") }
    }

    /// A run in which everything was right.
    fn right() -> Vec<Action> {
        let log =
            vec![event(1, "a", "mailed"), event(2, "b", "rare"), event(3, "a", "happened"), event(4, "a", "poison")];
        vec![
            letter("tally", 1),
            letter("inline", 1),
            looked("tally", 1, 1),
            looked("inline", 1, 1),
            looked("tally", 3, 3),
            looked("rare", 1, 0),
            looked("inline", 3, 3),
            Action::Rebuilt { before: 1, after: 1 },
            view("tally", &[("a", 3, 8), ("b", 1, 2)], 4),
            view("rare", &[("b", 1, 2)], 4),
            view("inline", &[("a", 2, 4), ("b", 1, 2)], 3),
            view("declared", &[("a", 2, 4), ("b", 1, 2)], 4),
            view("spread", &[("a", 3, 8), ("b", 1, 2)], 4),
            Action::Verified(None),
            Action::WholeLog { events: log },
        ]
    }

    fn broken(change: impl FnOnce(&mut Vec<Action>)) -> Vec<String> {
        let mut actions = right();
        change(&mut actions);
        rule::names(&judge(&actions.into_iter().map(note).collect::<Vec<_>>()))
    }

    #[test]
    fn views_that_are_the_fold_of_the_log_are_right_and_everything_was_looked_at() {
        assert_eq!(broken(|_| {}), [""; 0]);
        let verdicts = judge(&right().into_iter().map(note).collect::<Vec<_>>());
        assert!(verdicts.iter().all(|verdict| verdict.examined() > Some(0)), "{verdicts:?}");
    }

    #[test]
    fn each_change_breaks_the_rule_that_it_is_about() {
        assert_eq!(broken(|run| drop(run.pop())), ["the run ends with the log"]);
        assert_eq!(broken(|run| run[8] = view("tally", &[("a", 2, 4), ("b", 1, 2)], 4)), [FOLD], "an event is missing");
        assert_eq!(broken(|run| run[9] = view("rare", &[("b", 2, 4)], 4)), [FOLD], "an event was taken twice");
        assert_eq!(
            broken(|run| run[11] = view("declared", &[("a", 3, 8), ("b", 1, 2)], 4)),
            [FOLD],
            "poison was taken"
        );
        let miscounted = |run: &mut Vec<Action>| {
            if let Action::ReadView { whole, .. } = &mut run[8] {
                *whole = false;
            }
        };
        assert_eq!(broken(miscounted), ["a recount of the log agrees"]);
        let apart = |run: &mut Vec<Action>| {
            if let Action::ReadView { unaccounted, .. } = &mut run[8] {
                *unaccounted = 1;
            }
        };
        assert_eq!(broken(apart), ["nothing is unaccounted for"]);
        let behind = broken(|run| run[9] = view("rare", &[("b", 1, 2)], 2));
        assert_eq!(behind, ["a checkpoint moves over what does not matter"]);
        assert_eq!(broken(|run| run[7] = Action::Rebuilt { before: 1, after: 2 }), ["a rebuild sends nothing again"]);
        assert_eq!(
            broken(|run| run[13] = Action::Verified(Some("a row is gone".into()))),
            ["the store is sound in the end"]
        );
        assert_eq!(broken(|run| run[4] = looked("tally", 3, 0)), ["readers see no half-built view"]);
        assert_eq!(broken(|run| run[4] = looked("tally", 3, 2)), [""; 0], "it may have parked one");
        assert_eq!(broken(|run| run[5] = looked("rare", 1, 1)), [POSITION], "it holds one of behind");
        assert_eq!(broken(|run| run[6] = looked("inline", 3, 2)), [POSITION], "it holds one too few");
        assert_eq!(broken(|run| drop(run.remove(0))), ["every letter is sent"], "one was never sent");
        assert_eq!(broken(|run| drop(run.remove(1))), ["every letter is sent"], "nor one of the inline view");
        assert_eq!(broken(|run| run[0] = letter("tally", 2)), ["every letter is sent"], "nothing asks for this one");
        assert_eq!(broken(|run| run.push(letter("inline", 1))), [""; 0], "it may be sent again");
    }

    #[test]
    fn where_syncs_lie_rows_may_be_of_another_age_and_the_log_has_no_hole() {
        let mut run = right();
        run[8] = view("tally", &[("a", 1, 1)], 1);
        run.remove(0);
        let rules =
            |run: &[Action]| rule::names(&judge_where_syncs_lie(&run.iter().cloned().map(note).collect::<Vec<_>>()));
        assert_eq!(rules(&run), [""; 0]);
        assert_eq!(rules(&run[..8]), [""; 0], "nobody came to read it");
        if let Some(Action::WholeLog { events }) = run.last_mut() {
            events.remove(1);
        }
        assert_eq!(rules(&run), ["no hole in the log"]);
    }
}
